"""Follow faces through frames, put the pieces of one person together, choose views."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from recon3d.tracking.appearance import CutDetector, Gallery, describe_face
from recon3d.tracking.crops import FacePlace
from recon3d.tracking.detection import Detection, FaceDetector, same_place, tile_grid
from recon3d.tracking.landmarks import Landmarker, load_landmarker
from recon3d.tracking.observe import Mesh, measure, mesh_with, observe, quality, sharpness
from recon3d.tracking.settings import TrackingSettings
from recon3d.tracking.views import Candidate, Reservoir, cut_patch
from recon3d.types import FaceObservation, FaceTrack, Frame, ImagePatch

if TYPE_CHECKING:
    from recon3d.tracking.correction import Corrector

NO_FACE = "no face found"
TOO_SMALL = "face too small"
BAD_MESH = "landmarks disagree with their mirror image"
NO_MESH = "face detected, no landmarks found"
TOO_SHORT = "seen in too few frames"
NOT_AGAIN = "no face at a second look"
TOO_MANY = "more people than max_people"

# Appearance distances (1 - correlation). Measured: the same person half a second later is below
# 0.28, two random people above 0.32 in nine cases of ten, above 0.41 in three of four.
_LIKE, _UNLIKE = 0.30, 0.45
_EMBEDDINGS_PER_PIECE = 5
# By this factor a followed face may disagree with its mirror image more than a new one.
_FOLLOWED = 1.7
# Degrees of yaw and pitch together, and log of size: frames of a film are nearer than that.
_FILM_TURN, _FILM_GROWTH = 8.0, 0.1
_SECOND_LOOK = (192, 320)
# A picture without a clock that differs from the last by more is another photo.
_PHOTO_CHANGE = 0.1
_PAST_FRAMES, _PAST_BYTES = 25, 100_000_000

Embedder = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(H, W, 3) uint8 RGB and (478, 2) landmarks in it, to a (D,) vector."""


@dataclass(frozen=True)
class TrackingResult:
    """What tracking found.

    Attributes
    ----------
    tracks : tuple of FaceTrack
        Most usable frames first.
    dropped : tuple of dict
        ``{"reason", "frames"}``: frames without a usable face, counted by reason.
    n_frames : int
        Frames looked at.
    """

    tracks: tuple[FaceTrack, ...]
    dropped: tuple[dict, ...]
    n_frames: int


def track_faces(
    frames: Iterable[Frame],
    settings: TrackingSettings | None = None,
    *,
    progress: Callable[[int], None] | None = None,
    embedder: Embedder | None = None,
    seed: int = 0,
) -> TrackingResult:
    """Track every face through the frames of one or several cameras.

    Parameters
    ----------
    frames : iterable of Frame
        In order, one source after another. Looked at once; only the pixels around chosen faces
        are kept.
    settings : TrackingSettings, optional
    progress : callable, optional
        Given the number of frames done after each.
    embedder : callable, optional
        Face embedding, (H, W, 3) uint8 RGB and (478, 2) landmarks to a vector. With it a person is
        known again across cuts, gaps and cameras; without it only place and looks join pieces, and
        only across short gaps.
    seed : int
        Of the jitter. Same frames, same seed, same machine: same tracks.

    Returns
    -------
    TrackingResult

    Raises
    ------
    BackendUnavailable
        If the landmark source that the settings ask for cannot be used here.
    ModelError
        If the landmark correction cannot be read.
    """
    with FaceTracker(settings, embedder=embedder, seed=seed) as tracker:
        for frame in frames:
            tracker.step(frame)
            if progress is not None:
                progress(tracker.n_frames)
        return tracker.result()


@dataclass(frozen=True)
class SeenFace:
    """A face in the frame that was looked at last.

    Attributes
    ----------
    person : int
        The same from frame to frame as long as the face is followed without a break.
    landmarks : (478, 2) px
    box : (4,) px
        x0, y0, x1, y1 of the landmarks.
    yaw, pitch, roll : float, degrees
    face_px : float
        Width of the face.
    quality : float in [0, 1]
    views : int
        Views of this face that are kept so far.
    """

    person: int
    landmarks: np.ndarray
    box: np.ndarray
    yaw: float
    pitch: float
    roll: float
    face_px: float
    quality: float
    views: int


@dataclass(frozen=True)
class TrackerState:
    """What a `FaceTracker` has gathered up to some frame; can be sent to another process.

    Attributes
    ----------
    n_frames : int
        Frames looked at.
    views : frozenset of (source, frame index)
        Those kept as views, of all people: where they are the same, nothing new was learned.
    """

    n_frames: int
    views: frozenset
    _content: dict = field(repr=False)


class FaceTracker:
    """Tracking a frame at a time, for streams: what `track_faces` does with all frames of a clip.

    Parameters
    ----------
    settings, embedder, seed
        As for `track_faces`.

    Raises
    ------
    BackendUnavailable, ModelError
        As `track_faces`.

    Examples
    --------
    ::

        with FaceTracker() as tracker:
            for frame in LiveFrames(media):
                faces = tracker.step(frame)
            result = tracker.result()
    """

    def __init__(
        self,
        settings: TrackingSettings | None = None,
        *,
        embedder: Embedder | None = None,
        seed: int = 0,
    ):
        from recon3d.tracking.correction import load_corrector  # torch is not needed before

        self._settings = settings or TrackingSettings()
        self._seed = seed
        # The chosen source is loaded first: what it lacks must be said before any work is done.
        self._source = load_landmarker(self._settings)
        mediapipe = self._settings.landmarks == "mediapipe"
        self._mesher = self._source if mediapipe else load_landmarker(self._settings, "mediapipe")
        self._corrector = load_corrector(self._settings)
        detector = FaceDetector(self._settings)
        self._tracker = _Tracker(self._settings, detector, self._mesher, embedder)

    def __enter__(self) -> FaceTracker:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    @property
    def n_frames(self) -> int:
        """Frames looked at."""
        return self._tracker.n_frames

    def warm_up(self, size: tuple[int, int]) -> None:
        """Look at a blank picture of (height, width): networks and kernels are set up on first
        use, which takes the time of many frames. What was gathered stays as it is."""
        blank = np.full((*size, 3), 128, np.uint8)
        nobody = _Tracker(self._settings, self._tracker.detector, self._mesher, None)
        nobody.step(Frame(blank, 0, 0.0, 0))
        place = FacePlace(np.array(size[::-1]) / 2, min(size) / 4, 0.0)
        observe(blank, [place], self._mesher, self._settings)
        describe_face(blank, place)

    def step(self, frame: Frame) -> list[SeenFace]:
        """Take in the next frame; returns the faces that are in it."""
        self._tracker.step(frame)
        return [piece.seen() for piece in self._tracker.active if piece.time == frame.time]

    def state(self) -> TrackerState:
        """What was gathered so far; steps that follow do not change it."""
        content = self._tracker.content()
        kept = [item.reservoir for item in content["active"] + content["people"]]
        views = frozenset((c.source, c.frame_index) for r in kept for c in r.candidates)
        return TrackerState(self.n_frames, views, content)

    def result(self, state: TrackerState | None = None) -> TrackingResult:
        """Tracks of everybody seen so far, their views' landmarks measured by jitter.

        Parameters
        ----------
        state : TrackerState, optional
            Of this or of another tracker of the same settings; without it, of this one now.

        Returns
        -------
        TrackingResult
            The tracker can go on afterwards.
        """
        tracker = self._tracker.with_content((state or self.state())._content)
        people = tracker.finish()
        tracks = tuple(
            _face_track(
                number,
                person,
                self._source,
                self._mesher,
                self._corrector,
                self._settings,
                self._seed,
                tracker.without_clock,
            )
            for number, person in enumerate(people)
        )
        return TrackingResult(tracks, tracker.dropped(tracks), tracker.n_frames)

    def close(self) -> None:
        """Let go of the networks."""
        self._tracker.detector.close()
        self._source.close()
        if self._mesher is not self._source:
            self._mesher.close()


@dataclass(frozen=True, slots=True)
class _Record:
    """One observed frame of a person, without pixels."""

    frame_index: int
    source: int
    time: float
    yaw: float
    pitch: float
    face_px: float
    quality: float


@dataclass
class _Piece:
    """One face followed without a break."""

    source: int
    shot: int
    reservoir: Reservoir
    gallery: Gallery = field(default_factory=Gallery)
    records: list[_Record] = field(default_factory=list)
    mesh: Mesh | None = None
    first_mesh: Mesh | None = None
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(2))
    contact_until: float = -1.0
    touching: bool = False
    number: int = 0

    def copied(self) -> _Piece:
        """One that does not change with this."""
        return replace(
            self,
            reservoir=self.reservoir.copied(),
            gallery=deepcopy(self.gallery),
            records=list(self.records),
        )

    def seen(self) -> SeenFace:
        """The face as it was last taken."""
        mesh, record = self.mesh, self.records[-1]
        yaw, pitch, roll = (float(a) for a in mesh.angles)
        return SeenFace(
            self.number,
            mesh.landmarks,
            mesh.box,
            yaw,
            pitch,
            roll,
            record.face_px,
            record.quality,
            len(self.reservoir.candidates),
        )

    @property
    def time(self) -> float:
        return self.records[-1].time

    def predict(self, time: float) -> FacePlace:
        """Where it should be: at constant velocity, for no longer than a quarter of a second."""
        place = self.mesh.place
        ahead = min(time - self.time, 0.25)
        return FacePlace(place.centre + self.velocity * ahead, place.size, place.roll)

    def take(self, mesh: Mesh, record: _Record) -> None:
        if self.records:
            elapsed = max(record.time - self.time, 1e-3)
            speed = (mesh.place.centre - self.mesh.place.centre) / elapsed
            # Half the new speed: a mesh jumps a little from frame to frame.
            self.velocity = 0.5 * self.velocity + 0.5 * speed if elapsed < 0.5 else np.zeros(2)
        else:
            self.first_mesh = mesh
        self.mesh = mesh
        self.records.append(record)


@dataclass
class _Person:
    """Pieces that belong together."""

    reservoir: Reservoir
    gallery: Gallery
    records: list[_Record]
    embeddings: list[np.ndarray]
    last: _Piece
    complete: bool
    """Whether it was there in every frame of its shots: stills are never too short."""

    def copied(self) -> _Person:
        """One that does not change with this."""
        return replace(
            self,
            reservoir=self.reservoir.copied(),
            gallery=deepcopy(self.gallery),
            records=list(self.records),
            embeddings=list(self.embeddings),
        )

    def frames(self) -> set[tuple[int, int]]:
        return {(record.source, record.frame_index) for record in self.records}


class _Tracker:
    """The state between frames."""

    def __init__(
        self,
        settings: TrackingSettings,
        detector: FaceDetector,
        mesher: Landmarker,
        embedder: Embedder | None,
    ):
        self.settings = settings
        self.detector = detector
        self.mesher = mesher
        self.embedder = embedder
        self.n_frames = 0
        self.active: list[_Piece] = []
        self.people: list[_Person] = []
        self.reasons: dict[str, list[tuple[int, int]]] = {}
        self.cuts = CutDetector()
        self.shot = 0
        self.shot_frames: Counter = Counter()
        self.since_detection = 0
        self.next_tile = 0
        self.source: int | None = None
        self.size: tuple[int, int] | None = None
        self.without_clock: set[int] = set()
        self.n_pieces = 0
        # The last second or so of this shot, for following faces backwards.
        self.recent: deque[_Past] = deque(maxlen=_PAST_FRAMES)

    def content(self) -> dict:
        """What `finish` needs, as it is now."""
        return {
            "n_frames": self.n_frames,
            "active": [piece.copied() for piece in self.active],
            "people": [person.copied() for person in self.people],
            "reasons": {reason: list(frames) for reason, frames in self.reasons.items()},
            "shot_frames": Counter(self.shot_frames),
            "without_clock": set(self.without_clock),
        }

    def with_content(self, content: dict) -> _Tracker:
        """One with the same networks that can only be finished."""
        other = _Tracker(self.settings, self.detector, self.mesher, self.embedder)
        vars(other).update(content)
        # What is given stays as it is, too.
        vars(other).update(other.content())
        return other

    # -- one frame ------------------------------------------------------------------------------

    def step(self, frame: Frame) -> None:
        """Take in one frame."""
        cut = self._cut(frame)
        if cut:
            self._begin_shot()
        for piece in list(self.active):
            if frame.time - piece.time > self.settings.max_gap_s:
                self._close([piece])
        pieces = self.active
        places = [piece.predict(frame.time) for piece in pieces]
        faces, missing = self._follow(frame, pieces, places)
        if missing and not frame.clock:
            # Another photo, not the next frame: who was there need not be near.
            cut, faces, places = True, [], []
            self._begin_shot()
            pieces = self.active
        self.n_frames += 1
        self.shot_frames[self.shot] += 1
        self.recent.append(_Past(frame, []))
        while len(self.recent) > 2 and sum(p.frame.image.nbytes for p in self.recent) > _PAST_BYTES:
            self.recent.popleft()
        reason = NO_FACE
        self.since_detection += 1
        if cut or missing or not pieces or self.since_detection >= self.settings.detect_every:
            self.since_detection = 0
            found = self._detect(frame, everything=cut or (not pieces and self.n_frames % 5 == 0))
            reason = self._add_detected(frame, found, faces)
        if not self._assign(frame, pieces, places, faces):
            self.reasons.setdefault(reason, []).append((frame.source, frame.index))

    def _cut(self, frame: Frame) -> bool:
        """Whether a frame begins another shot."""
        new_source = frame.source != self.source
        if new_source:
            self.cuts = CutDetector() if frame.clock else CutDetector(_PHOTO_CHANGE)
        size = frame.image.shape[:2]
        other = not frame.clock and size != self.size
        cut = self.cuts(frame.image) or new_source or other
        self.source, self.size = frame.source, size
        if not frame.clock:
            self.without_clock.add(frame.source)
        return cut

    def _begin_shot(self) -> None:
        self._close(list(self.active))
        self.shot += 1
        self.recent.clear()

    def _follow(self, frame, pieces, places):
        """Meshes where the known faces should be; whether one was not there."""
        faces: list[_Face] = []
        missing = False
        before = [piece.mesh for piece in pieces]
        meshes = observe(frame.image, places, self.mesher, self.settings, before)
        for place, mesh in zip(places, meshes, strict=True):
            # A face that has been there all along may be seen badly for a moment.
            if (
                mesh is None
                or not self._good(mesh, slack=_FOLLOWED)
                or not same_place(mesh.place, place, 0.6)
            ):
                missing = True
                continue
            twin = next((face for face in faces if same_place(face.mesh.place, mesh.place)), None)
            if twin is not None:
                missing = True
                continue
            faces.append(_Face(mesh, 1.0))
        return faces, missing

    def _detect(self, frame: Frame, everything: bool) -> list[Detection]:
        height, width = frame.image.shape[:2]
        tiles = tile_grid(width, height, self.settings.min_face_px)
        if not everything and tiles:
            count = min(self.settings.tiles_per_frame, len(tiles))
            turn = [(self.next_tile + i) % len(tiles) for i in range(count)]
            self.next_tile = (self.next_tile + count) % len(tiles)
            tiles = [tiles[i] for i in turn]
        # A lost face is looked for closely where it was.
        for piece in self.active:
            place = piece.predict(frame.time)
            reach = 1.6 * place.size
            x0, y0 = np.maximum(place.centre - reach, 0).astype(int)
            x1, y1 = np.minimum(place.centre + reach, [width, height]).astype(int)
            if frame.time - piece.time > 0 and x1 - x0 > 16 and y1 - y0 > 16:
                tiles.append((int(x0), int(y0), int(x1), int(y1)))
        return self.detector(frame.image, tiles)

    def _add_detected(self, frame: Frame, found: list[Detection], faces: list[_Face]) -> str:
        """Add the meshes of new detections to `faces`; returns why none was added, if so."""
        settings = self.settings
        fresh = [
            detection
            for detection in found
            if all(not same_place(detection.place, face.mesh.place) for face in faces)
        ]
        meshes = observe(
            frame.image, [detection.place for detection in fresh], self.mesher, settings
        )
        reason = NO_FACE
        for detection, mesh in zip(fresh, meshes, strict=True):
            if mesh is None:
                reason = NO_MESH if reason == NO_FACE else reason
            elif not self._good(mesh):
                small = mesh.place.size / 1.25 < settings.min_face_px
                reason = TOO_SMALL if small else BAD_MESH
            elif all(not same_place(mesh.place, face.mesh.place) for face in faces):
                faces.append(_Face(mesh, detection.score))
        return reason

    def _good(self, mesh: Mesh, slack: float = 1.0) -> bool:
        # The face's height stands for its width: a turned face is not a smaller one.
        return (
            mesh.disagreement <= slack * self.settings.max_mirror_disagreement
            and mesh.place.size / 1.25 >= self.settings.min_face_px
        )

    def _assign(self, frame, pieces, places, faces) -> bool:
        """Give faces to pieces, start pieces with what is left; whether any face was taken."""
        from scipy.optimize import linear_sum_assignment

        self._mark_contacts(frame, pieces, places)
        looks = [describe_face(frame.image, face.mesh.place) for face in faces]
        taken: set[int] = set()
        matched: list[tuple[_Piece, int]] = []
        if pieces and faces:
            cost = np.array(
                [
                    [
                        self._cost(frame, piece, place, face.mesh, look)
                        for face, look in zip(faces, looks)
                    ]
                    for piece, place in zip(pieces, places)
                ]
            )
            for i, j in zip(*linear_sum_assignment(np.minimum(cost, 1e3))):
                if cost[i, j] < 1e3:
                    matched.append((pieces[i], int(j)))
                    taken.add(int(j))
        for piece, j in matched:
            self._take(frame, piece, faces[j].mesh, looks[j])
        for j, face in enumerate(faces):
            if j not in taken and face.score >= self.settings.min_detection_score:
                views = Reservoir(self.settings.max_views)
                piece = _Piece(frame.source, self.shot, views, number=self.n_pieces)
                self.n_pieces += 1
                self._take(frame, piece, face.mesh, looks[j])
                self.active.append(piece)
                taken.add(j)
        return bool(taken)

    def _mark_contacts(self, frame, pieces, places) -> None:
        """Note whose faces come near one another: looks decide there, and are not learned."""
        for piece in pieces:
            piece.touching = False
        for i, a in enumerate(places):
            for j in range(i):
                b = places[j]
                if np.linalg.norm(a.centre - b.centre) < 1.1 * max(a.size, b.size):
                    for piece in (pieces[i], pieces[j]):
                        piece.contact_until, piece.touching = frame.time + 1.0, True

    def _cost(self, frame, piece: _Piece, place: FacePlace, mesh: Mesh, look) -> float:
        gap = frame.time - piece.time
        size = max(place.size, mesh.place.size)
        distance = float(np.linalg.norm(mesh.place.centre - place.centre)) / size
        ratio = abs(np.log(mesh.place.size / place.size))
        if distance > 0.6 + 3 * gap or ratio > 0.5 + gap:
            return np.inf
        motion = distance / (0.35 + 1.5 * gap) + 2 * ratio
        away = piece.gallery.distance(look, mesh.angles[0])
        if not np.isfinite(away):
            return motion
        # Two people near each other: looks decide. Alone: only a face gone astray is refused.
        touching = frame.time < piece.contact_until
        lost = gap > 3.5 / 25
        if away > _UNLIKE and (touching or lost):
            return np.inf
        return motion + (8.0 if touching else 2.0 if lost else 0.5) * away

    def _take(self, frame: Frame, piece: _Piece, mesh: Mesh, look: np.ndarray) -> None:
        """Give a face to a piece, and look for it in the frames before that missed it."""
        known = piece.records[-1].frame_index if piece.records else -1
        piece.take(mesh, self._keep(frame, piece, mesh))
        near = any(
            np.linalg.norm(mesh.place.centre - other.centre)
            < 1.1 * max(mesh.place.size, other.size)
            for other in self.recent[-1].places
        )
        if not (near or piece.touching):
            piece.gallery.add(look, float(mesh.angles[0]))
        self.recent[-1].places.append(mesh.place)
        self._fill_back(piece, mesh, known)

    def _keep(self, frame: Frame, piece: _Piece, mesh: Mesh) -> _Record:
        """The short record of a face, and a place among the views if it earns one."""
        crispness = sharpness(frame.image, mesh.place)
        good = quality(mesh, crispness, self.settings)
        yaw, pitch, _ = (float(a) for a in mesh.angles)
        if piece.reservoir.would_keep(good, mesh, frame.source, frame.time):
            patch = cut_patch(frame, mesh, self.settings.view_margin)
            size = frame.image.shape[1], frame.image.shape[0]
            piece.reservoir.add(
                Candidate(
                    frame.index,
                    frame.source,
                    frame.time,
                    size,
                    mesh,
                    good,
                    crispness,
                    patch,
                    piece.shot,
                    frame.focal_px,
                )
            )
        return _Record(frame.index, frame.source, frame.time, yaw, pitch, mesh.face_px, good)

    def _fill_back(self, piece: _Piece, mesh: Mesh, known: int) -> None:
        """Follow a face backwards: what is hard to find first is easy to follow."""
        misses = 0
        for past in list(self.recent)[-2::-1]:
            if past.frame.index <= known or misses > 2:
                break
            place = mesh.place
            if any(same_place(place, other) for other in past.places):
                break
            (found,) = observe(past.frame.image, [place], self.mesher, self.settings, [mesh])
            if (
                found is None
                or not self._good(found, slack=_FOLLOWED)
                or not same_place(found.place, place, 0.6)
                or any(same_place(found.place, other) for other in past.places)
            ):
                misses += 1
                continue
            misses = 0
            mesh = found
            record = self._keep(past.frame, piece, mesh)
            index = next(
                i for i, r in enumerate(piece.records) if r.frame_index > record.frame_index
            )
            piece.records.insert(index, record)
            if index == 0:
                piece.first_mesh = mesh
            past.places.append(mesh.place)

    # -- pieces to people -----------------------------------------------------------------------

    def _close(self, pieces: list[_Piece]) -> None:
        """End pieces: each joins a known person or becomes one."""
        for piece in pieces:
            self.active.remove(piece)
            person = _Person(
                piece.reservoir,
                piece.gallery,
                piece.records,
                self._embed(piece),
                piece,
                len(piece.records) >= self.shot_frames[piece.shot],
            )
            near = [(self._person_distance(person, other), other) for other in self.people]
            near = [(distance, other) for distance, other in near if distance < 1]
            if near:
                _merge_into(min(near, key=lambda pair: pair[0])[1], person)
            else:
                self.people.append(person)
        while len(self.people) > self.settings.max_people:
            weakest = min(self.people, key=lambda p: sum(r.quality for r in p.records))
            self.people = [p for p in self.people if p is not weakest]
            self._forget(weakest, TOO_MANY)

    def _embed(self, piece: _Piece) -> list[np.ndarray]:
        # What flickers for a few frames is often no face, and the embedding of no face is near
        # that of every bad one: such pieces join by place and looks or not at all.
        whole_shot = len(piece.records) >= self.shot_frames[piece.shot]
        fleeting = len(piece.records) < self.settings.min_track_frames and not whole_shot
        if self.embedder is None or fleeting:
            return []
        out = []
        for candidate in piece.reservoir.spread(_EMBEDDINGS_PER_PIECE):
            landmarks = candidate.mesh.landmarks - np.array(candidate.patch.origin)
            out.append(np.asarray(self.embedder(candidate.patch.image, landmarks), np.float64))
        return out

    def _person_distance(self, a: _Person, b: _Person) -> float:
        """Below 1: the same person. `a` is the later one."""
        if a.frames() & b.frames():
            return np.inf  # nobody is in two places of one picture
        settings = self.settings
        apart = np.inf
        if a.embeddings and b.embeddings:
            pairs = np.linalg.norm(
                np.stack(a.embeddings)[:, None] - np.stack(b.embeddings)[None], axis=2
            )
            # Views at like angles agree best; one lucky pair alone decides nothing.
            apart = float(np.sort(pairs.ravel())[: max(1, pairs.size // 3)].mean())
            apart /= settings.same_person
        first, last = a.last.records[0], b.last.records[-1]
        gap = first.time - last.time
        if first.source != last.source or not 0 <= gap <= settings.rejoin_gap_s:
            return apart
        here, there = a.last.first_mesh.place, b.last.mesh.place
        size = max(here.size, there.size)
        distance = float(np.linalg.norm(here.centre - there.centre)) / size
        ratio = max(here.size, there.size) / min(here.size, there.size)
        looks = b.gallery.distance_to(a.gallery)
        known = apart if a.embeddings and b.embeddings else 1.0
        if distance < 0.8 + 2 * gap and ratio < 1.5 + gap and looks < _LIKE and known < 1.3:
            return min(apart, 0.5 + looks)
        return apart

    def finish(self) -> list[_Person]:
        """End everything; people with most usable frames first."""
        self._close(list(self.active))
        people = self.people
        merged = self.embedder is not None
        while merged:
            merged = False
            pairs = [
                (self._person_distance(b, a), i, j)
                for i, a in enumerate(people)
                for j, b in enumerate(people[:i])
            ]
            if pairs and min(pairs)[0] < 1:
                _, i, j = min(pairs)
                _merge_into(people[j], people[i])
                del people[i]
                merged = True
        kept = []
        for person in people:
            short = len(person.records) < self.settings.min_track_frames
            if short and not person.complete:
                self._forget(person, TOO_SHORT)
            elif short and self._may_be_nobody(person) and not self._seen_again(person):
                self._forget(person, NOT_AGAIN)
            else:
                kept.append(person)
        return sorted(kept, key=lambda p: (-len(p.records), p.records[0].frame_index))

    def _may_be_nobody(self, person: _Person) -> bool:
        """Whether somebody else is in more of the photos: every photo is looked at closely, and
        patterns of a background pass for faces now and then."""
        most = max(len(other.records) for other in self.people)
        without = all(record.source in self.without_clock for record in person.records)
        return without and len(person.records) < most

    def _seen_again(self, person: _Person) -> bool:
        """Whether the detector finds a face in the middle of the patch too, at other sizes."""
        for candidate in person.reservoir.spread(3):
            patch, place = candidate.patch, candidate.mesh.place
            for side in _SECOND_LOOK:
                zoom = side / max(patch.image.shape[:2])
                how = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
                picture = cv2.resize(patch.image, None, fx=zoom, fy=zoom, interpolation=how)
                centre = (place.centre - np.array(patch.origin)) * zoom
                reach = 0.35 * place.size * zoom
                found = self.detector(np.ascontiguousarray(picture), [])
                if any(np.linalg.norm(d.place.centre - centre) < reach for d in found):
                    return True
        return False

    def _forget(self, person: _Person, reason: str) -> None:
        self.reasons.setdefault(reason, []).extend(person.frames())

    def dropped(self, tracks: tuple[FaceTrack, ...]) -> tuple[dict, ...]:
        """Frames that are in no track, by reason, the commonest first."""
        covered = {
            pair
            for track in tracks
            for pair in zip(track.source.tolist(), track.frame_index.tolist())
        }
        counts = Counter()
        for reason, frames in self.reasons.items():
            left = set(frames) - covered
            covered |= left
            if left:
                counts[reason] = len(left)
        return tuple({"reason": reason, "frames": n} for reason, n in counts.most_common())


@dataclass(frozen=True)
class _Past:
    """A frame gone by, and where faces were taken in it."""

    frame: Frame
    places: list[FacePlace]


@dataclass(frozen=True)
class _Face:
    """A face seen in the present frame; the score of what found it."""

    mesh: Mesh
    score: float


def _merge_into(person: _Person, other: _Person) -> None:
    person.reservoir.extend(other.reservoir)
    person.gallery.merge(other.gallery)
    person.records = sorted(person.records + other.records, key=lambda r: (r.source, r.frame_index))
    person.embeddings = (person.embeddings + other.embeddings)[-4 * _EMBEDDINGS_PER_PIECE :]
    latest = max(person.last, other.last, key=lambda p: (p.source, p.records[-1].frame_index))
    person.last = latest
    person.complete = person.complete and other.complete


def _face_track(
    number: int,
    person: _Person,
    source: Landmarker,
    mesher: Landmarker,
    corrector: Corrector | None,
    settings: TrackingSettings,
    seed: int,
    without_clock: set[int],
) -> FaceTrack:
    records = sorted(person.records, key=lambda r: (r.source, r.frame_index))
    albums = {k for k in without_clock if not film_like([r for r in records if r.source == k])}
    candidates = person.reservoir.ordered()
    for photo, candidate in enumerate(candidates):
        if candidate.source in albums:
            candidate.shot = photo
    views = tuple(_observation(c, source, mesher, corrector, settings, seed) for c in candidates)

    def column(name: str, kind) -> np.ndarray:
        return np.array([getattr(record, name) for record in records], kind)

    return FaceTrack(
        id=number,
        views=views,
        frame_index=column("frame_index", np.int64),
        source=column("source", np.int64),
        time=column("time", np.float32),
        yaw=column("yaw", np.float32),
        pitch=column("pitch", np.float32),
        face_px=column("face_px", np.float32),
        quality=column("quality", np.float32),
    )


def film_like(records: Sequence[_Record]) -> bool:
    """Whether pictures without a clock are those of a film: a head that turns and grows little
    from one to the next, or much less than over many. Photos of one person, in whatever order, do
    not."""

    def turn(step: int) -> list[float]:
        return [
            abs(b.yaw - a.yaw) + abs(b.pitch - a.pitch)
            for a, b in zip(records, records[step:])
            if b.frame_index - a.frame_index == step
        ]

    near, far = turn(1), turn(8)
    if len(near) < 3:
        return False
    steady = np.median(near) < _FILM_TURN or (
        len(far) > 3 and np.median(near) < 0.5 * np.median(far)
    )
    size = np.log([max(record.face_px, 1.0) for record in records])
    return bool(steady and np.median(np.abs(np.diff(size))) < _FILM_GROWTH)


def _observation(
    candidate: Candidate,
    source: Landmarker,
    mesher: Landmarker,
    corrector: Corrector | None,
    settings: TrackingSettings,
    seed: int,
) -> FaceObservation:
    """A view with its landmarks measured by jitter, on the pixels that were kept."""
    mesh, patch = candidate.mesh, candidate.patch
    origin = np.array(patch.origin, np.float64)
    place = FacePlace(mesh.place.centre - origin, mesh.place.size, mesh.place.roll)
    landmarks, covariance, depth = _measured(candidate, patch, place, mesher, settings, seed)
    if corrector is not None:
        landmarks = corrector([patch.image], [landmarks - origin])[0] + origin
    if source is not mesher:
        rng = np.random.default_rng([seed, candidate.source, candidate.frame_index])
        other = measure(patch.image, place, source, settings, rng)
        if other is not None:
            mean, spread, other_depth, known = other
            # Points that the source does not know stay where the mesh has them, and say nothing.
            landmarks = np.where(known[:, None], mean + origin, landmarks)
            covariance = spread
            depth = np.where(known, other_depth, depth) if other_depth.any() else depth
    mesh = mesh_with(mesh, landmarks, covariance)
    yaw, pitch, roll = (float(a) for a in mesh.angles)
    return FaceObservation(
        frame_index=candidate.frame_index,
        source=candidate.source,
        time=candidate.time,
        image_size=candidate.image_size,
        box=mesh.box,
        landmarks=landmarks,
        covariance=covariance,
        depth=depth,
        yaw=yaw,
        pitch=pitch,
        roll=roll,
        quality=candidate.quality,
        sharpness=candidate.sharpness,
        brightness=mesh.brightness,
        patch=ImagePatch(patch.image, patch.origin),
        shot=candidate.shot,
        focal_px=candidate.focal_px,
    )


def _measured(candidate, patch, place, mesher, settings, seed):
    from recon3d.tracking.observe import stabilised_covariance

    rng = np.random.default_rng([seed, candidate.source, candidate.frame_index])
    measured = measure(patch.image, place, mesher, settings, rng)
    mesh = candidate.mesh
    if measured is None:
        # No second look succeeded: the first one stands, with the spread of a bad fit.
        sigma = settings.max_mirror_disagreement * 0.5 * place.size
        spread = np.broadcast_to(sigma**2 * np.eye(2), (len(mesh.landmarks), 2, 2))
        return mesh.landmarks, stabilised_covariance(spread, place.size), mesh.depth
    mean, covariance, depth, _ = measured
    return mean + np.array(patch.origin), covariance, depth
