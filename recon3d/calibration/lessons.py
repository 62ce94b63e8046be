"""Meshes that a landmarker laid over bad pictures, and where they belong.

Two kinds of clips tell it, as for the refiner's pairs: rendered heads that wear a photo
(`recon3d.refinement.heads`), of which every point is known, and photos that turn
(`recon3d.refinement.simulation`), which have their own hair, beards and surroundings; there the
truth is what the landmarker sees in the photo itself. Both are small, dark, blurred and compressed.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recon3d.errors import InputError, NoFaceError
from recon3d.files import atomic_write
from recon3d.geometry import project
from recon3d.refinement.heads import film_head
from recon3d.refinement.shards import check_origin, frontal_names
from recon3d.refinement.simulation import film_portrait, fit_portrait
from recon3d.scenes.portraits import usable_as_skin
from recon3d.scenes.truth import portrait_landmarks
from recon3d.tracking.correction import POINTS, cut_window
from recon3d.tracking.settings import TrackingSettings
from recon3d.types import FaceModel, FaceTrack, Frame
from recon3d.workers import done_by

_FIELDS = ("images", "points", "moves", "clip")
OUTER = 96
"""Side of the windows kept, px: larger than what the network sees, so that it can be moved."""
CLIPS = 8
"""In one file."""
FRAMES = 14
"""Of a clip, at most."""
AS_SEEN = TrackingSettings(max_views=FRAMES, correct=False)
"""What is learned are the errors of the landmarker alone."""
ASTRAY = 25.0
"""A mesh farther from its face than this in the mean, px of the window, lies on something else."""


@dataclass(frozen=True)
class Lessons:
    """Windows of many clips.

    Attributes
    ----------
    images : (N, OUTER, OUTER, 3) uint8 RGB
    points : (N, 468, 2) float32, px of the window
        What the landmarker saw.
    moves : (N, 468, 2) float32, px of the window
        From there to the truth.
    clip : (N,) int
        Number of the clip.
    """

    images: np.ndarray
    points: np.ndarray
    moves: np.ndarray
    clip: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


def lessons_of(track: FaceTrack, truth: Callable[[int], np.ndarray]) -> Lessons:
    """What the views of a clip teach.

    Parameters
    ----------
    track : FaceTrack
        As the landmarker saw it, nothing corrected.
    truth : callable
        Frame number to (478, 2) px.
    """
    images, points, moves = [], [], []
    for view in track.views:
        if view.patch is None:
            continue
        seen = view.landmarks - np.asarray(view.patch.origin)
        window = cut_window(view.patch.image, seen, OUTER)
        move = (truth(view.frame_index) - view.landmarks)[:POINTS] @ np.linalg.inv(
            window.to_frame
        ).T
        # A model may lack a point or two.
        known = np.isfinite(move).all(1)
        if known.mean() < 0.9:
            continue
        move[~known] = np.median(move[known], axis=0)
        if np.linalg.norm(move, axis=1).mean() < ASTRAY:
            images.append(window.image)
            points.append(window.points)
            moves.append(move)
    return Lessons(
        np.array(images, np.uint8).reshape(-1, OUTER, OUTER, 3),
        np.array(points, np.float32).reshape(-1, POINTS, 2),
        np.array(moves, np.float32).reshape(-1, POINTS, 2),
        np.zeros(len(images), int),
    )


def head_lessons(
    photo: np.ndarray, points: np.ndarray, heads: FaceModel, rng: np.random.Generator
) -> Lessons:
    """What a rendered head teaches: a random one of ``heads`` that wears a photo."""
    change = {
        "face_px": float(24 * np.exp(np.log(3.2) * rng.uniform())),
        "n_frames": FRAMES,
        "fps": FRAMES / float(rng.uniform(1.3, 2.6)),
        "supersample": 2,
    }
    film = film_head(photo, points, heads, rng, change)
    truth = film.truth

    def where(frame: int) -> np.ndarray:
        return project(truth.landmarks(frame), truth.K, truth.R[frame], truth.t[frame])

    return lessons_of(_tracked(film.frames, truth.scene.fps), where)


def portrait_lessons(photo: np.ndarray, model: FaceModel, rng: np.random.Generator) -> Lessons:
    """What a photo that turns teaches."""
    film = film_portrait(fit_portrait(photo, model, AS_SEEN), rng, FRAMES)
    return lessons_of(_tracked(film.frames, 8.0), film.landmarks)


def _tracked(frames: Sequence[np.ndarray], fps: float) -> FaceTrack:
    """The first track, as the landmarker alone sees it."""
    from recon3d.tracking import track_faces

    stream = (Frame(frame, k, k / fps) for k, frame in enumerate(frames))
    tracks = track_faces(stream, AS_SEEN).tracks
    if not tracks:
        raise NoFaceError("no face is found in the simulated clip")
    return tracks[0]


# ---------------------------------------------------------------------------------- on disk
def make_lessons(
    photos: Path,
    out: Path,
    model: FaceModel,
    *,
    clips: int,
    split: str = "train",
    seed: int = 0,
    heads: Sequence[FaceModel] = (),
    workers: int = 1,
    progress: Callable[[float, float | None], None] | None = None,
) -> list[Path]:
    """Simulate clips and keep what they teach; files that are there already are kept.

    Parameters
    ----------
    photos : Path
        Folder or tar archive of portraits, with an optional ``metadata.csv``.
    out : Path
    model : FaceModel
        Photos are fitted with it.
    clips : int
        How many, about: some give nothing. Every other one is a rendered head, where the photo can
        be a skin and there are models to draw heads from.
    split : str
        ``train`` or ``val``.
    seed : int
    heads : sequence of FaceModel
    workers : int
        Processes, of one thread each.
    progress : callable, optional

    Returns
    -------
    list of Path, in order

    Raises
    ------
    InputError
        If the photos cannot be read or none is usable, or the folder belongs to other photos.
    """
    names = frontal_names(photos, split)
    if not names:
        raise InputError(f"{photos}: no usable photo in the split {split}")
    origin = {
        "seed": seed,
        "split": split,
        "photos": len(names),
        "model": model.name,
        "heads": [m.name for m in heads],
    }
    out.mkdir(parents=True, exist_ok=True)
    check_origin(out, origin)
    paths = [out / f"{split}_{number:05d}.npz" for number in range(-(-clips // CLIPS))]
    jobs = [(path, n * CLIPS) for n, path in enumerate(paths) if not path.exists()]
    done = len(paths) - len(jobs)
    for _ in done_by(_Source(photos, split, model, seed, tuple(heads)), jobs, workers):
        done += 1
        if progress is not None:
            progress(done, len(paths))
    return paths


@dataclass
class _Source:
    """Where lessons come from; a process that makes some has its own."""

    photos: Path
    split: str
    model: FaceModel
    seed: int
    heads: tuple[FaceModel, ...]

    def open(self) -> _Source:
        from recon3d.morphable.photos import read_photos

        self.names = frontal_names(self.photos, self.split)
        wanted = set(self.names)
        self.images = {n: image for n, image in read_photos(self.photos) if n in wanted}
        return self

    def write(self, path: Path, first: int) -> None:
        """Make one file."""
        found = _joined(list(self.lessons(range(first, first + CLIPS))))
        buffer = io.BytesIO()
        np.savez(buffer, **{key: getattr(found, key) for key in _FIELDS})
        atomic_write(path, buffer.getvalue())

    def lessons(self, numbers: range) -> Iterator[Lessons]:
        for number in numbers:
            # Each round over the photos in another order.
            turn, place = divmod(number, len(self.names))
            order = np.random.default_rng([self.seed, 1, turn]).permutation(len(self.names))
            photo = self.images[self.names[order[place]]]
            rng = np.random.default_rng([self.seed, 2, number])
            try:
                found = self.clip(photo, number, rng)
            except (NoFaceError, InputError, KeyError):
                continue
            if len(found) >= 3:
                yield found

    def clip(self, photo: np.ndarray, number: int, rng: np.random.Generator) -> Lessons:
        """A rendered head every other time, where that can be; else the photo that turns."""
        if self.heads and number % 2:
            points = portrait_landmarks(photo)
            if points is not None and usable_as_skin(points):
                heads = self.heads[number // 2 % len(self.heads)]
                return head_lessons(photo, points, heads, rng)
        return portrait_lessons(photo, self.model, rng)


def read_lessons(paths: Sequence[Path]) -> Lessons:
    """All lessons of some files.

    Raises
    ------
    InputError
        If a file is damaged, or there is nothing in any.
    """
    parts: list[Lessons] = []
    for path in paths:
        try:
            with np.load(path, allow_pickle=False) as file:
                parts.append(Lessons(*(file[key] for key in _FIELDS)))
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path} cannot be read as lessons: {error}") from error
    found = _joined(parts)
    if not len(found):
        raise InputError("no lessons: no face was found in any simulated clip")
    return found


def _joined(parts: Sequence[Lessons]) -> Lessons:
    """All of some lessons, their clips numbered on."""
    parts = [
        Lessons(
            np.zeros((0, OUTER, OUTER, 3), np.uint8),
            np.zeros((0, POINTS, 2), np.float32),
            np.zeros((0, POINTS, 2), np.float32),
            np.zeros(0, int),
        ),
        *parts,
    ]
    first = 0
    clips = []
    for part in parts:
        clips.append(part.clip + first)
        first = int(clips[-1].max(initial=first - 1)) + 1
    joined = [np.concatenate([getattr(p, key) for p in parts]) for key in _FIELDS[:-1]]
    return Lessons(*joined, np.concatenate(clips))
