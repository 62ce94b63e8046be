"""Which frames of a track are kept with their pixels: a bounded, streaming choice."""

from __future__ import annotations

from collections import defaultdict
from copy import copy
from dataclasses import dataclass, field

import numpy as np

from recon3d.tracking.observe import Mesh
from recon3d.tracking.portraits import ahead_worth, eye_opening, open_worth, usual_opening
from recon3d.types import Frame, ImagePatch

_YAW_EDGES = np.array([-52.5, -37.5, -22.5, -7.5, 7.5, 22.5, 37.5, 52.5])
_PITCH_EDGES = np.array([-15.0, 10.0])
_EYES_COUNT_DEG = 30.0
"""Up to this yaw a view is wanted for its eyes, too."""
_EYES_SHARE = 0.6
"""So much of its worth it loses when they are closed or look aside."""


@dataclass
class Candidate:
    """A frame that may become a view."""

    frame_index: int
    source: int
    time: float
    image_size: tuple[int, int]
    mesh: Mesh
    quality: float
    sharpness: float
    patch: ImagePatch
    shot: int = 0
    focal_px: float | None = None
    bin: tuple[int, int] = field(init=False)
    eyes: _Eyes = field(init=False)

    def __post_init__(self):
        self.bin, self.eyes = _bin_of(self.mesh), _Eyes.of(self.mesh)


@dataclass(frozen=True)
class _Eyes:
    """What a mesh says of its eyes: how open, how nearly they look ahead, whether it matters."""

    opening: float
    ahead: float
    wanted: bool

    @classmethod
    def of(cls, mesh: Mesh) -> _Eyes:
        points = mesh.landmarks[None]
        wanted = abs(float(mesh.angles[0])) < _EYES_COUNT_DEG
        return cls(float(eye_opening(points)[0]), float(ahead_worth(points)[0]), wanted)

    def worth(self, usual: float) -> float:
        """A factor for the view's worth, beside somebody whose eyes are usually so open."""
        if not self.wanted:
            return 1.0
        return 1 - _EYES_SHARE * (1 - self.ahead * float(open_worth(self.opening, usual)))


def _bin_of(mesh: Mesh) -> tuple[int, int]:
    yaw, pitch, _ = mesh.angles
    return int(np.searchsorted(_YAW_EDGES, yaw)), int(np.searchsorted(_PITCH_EDGES, pitch))


class Reservoir:
    """At most `capacity` candidates that cover yaw and pitch, best first, spread over time.

    When it is full, one goes from the fullest bin of angles: the one whose loss hurts least, by
    its quality, by its eyes, where it shows them, and by how near in time its neighbours in the
    bin are.
    """

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.candidates: list[Candidate] = []

    def would_keep(self, quality: float, mesh: Mesh, source: int, time: float) -> bool:
        """Whether a candidate has a chance, before its pixels are copied."""
        if len(self.candidates) < self.capacity:
            return True
        key = _bin_of(mesh)
        bins = self._bins()
        fullest = max(len(members) for members in bins.values())
        members = bins.get(key, [])
        if len(members) < fullest:
            return True
        usual = self._usual_opening()
        near = min((abs(m.time - time) for m in members if m.source == source), default=np.inf)
        worth = quality * _Eyes.of(mesh).worth(usual) * _freshness(near)
        return worth > min(self._losses(members, usual))

    def add(self, candidate: Candidate) -> None:
        """Add one; evict one if that is too many."""
        self.candidates.append(candidate)
        while len(self.candidates) > self.capacity:
            self._evict()

    def extend(self, other: Reservoir) -> None:
        """Take over another reservoir's candidates (two pieces of one person)."""
        for candidate in other.candidates:
            self.add(candidate)

    def copied(self) -> Reservoir:
        """One that does not change with this; the pixels are shared."""
        other = Reservoir(self.capacity)
        other.candidates = [copy(candidate) for candidate in self.candidates]
        return other

    def ordered(self) -> list[Candidate]:
        """By input and frame."""
        return sorted(self.candidates, key=lambda c: (c.source, c.frame_index))

    def spread(self, count: int) -> list[Candidate]:
        """At most `count` good candidates from as many angles as there are."""
        queues = [sorted(m, key=lambda c: -c.quality) for m in self._bins().values()]
        queues.sort(key=lambda members: -members[0].quality)
        out: list[Candidate] = []
        while queues and len(out) < count:
            out += [members.pop(0) for members in queues]
            queues = [members for members in queues if members]
        return out[:count]

    def _bins(self) -> dict[tuple[int, int], list[Candidate]]:
        bins: dict[tuple[int, int], list[Candidate]] = defaultdict(list)
        for candidate in self.candidates:
            bins[candidate.bin].append(candidate)
        return bins

    def _usual_opening(self) -> float:
        return usual_opening(np.array([c.eyes.opening for c in self.candidates if c.eyes.wanted]))

    def _evict(self) -> None:
        bins = self._bins().values()
        members = max(bins, key=lambda m: (len(m), -np.mean([c.quality for c in m])))
        losses = self._losses(members, self._usual_opening())
        worst = members[int(np.argmin(losses))]
        self.candidates = [c for c in self.candidates if c is not worst]

    @staticmethod
    def _losses(members: list[Candidate], usual: float) -> list[float]:
        """What is lost with each member of a bin; puts them in order of time."""
        members.sort(key=lambda c: (c.source, c.time))
        losses = []
        for i, candidate in enumerate(members):
            near = [
                abs(members[j].time - candidate.time)
                for j in (i - 1, i + 1)
                if 0 <= j < len(members) and members[j].source == candidate.source
            ]
            fresh = _freshness(min(near, default=np.inf))
            losses.append(candidate.quality * candidate.eyes.worth(usual) * fresh)
        return losses


def _freshness(seconds: float) -> float:
    """Half a second apart counts as fresh; frames closer than that repeat one another."""
    return min(1.0, 0.3 + 1.4 * seconds)


def cut_patch(frame: Frame, mesh: Mesh, margin: float) -> ImagePatch:
    """The face with hair, ears, neck and some background, clipped at the frame."""
    place = mesh.place
    # The mesh ends at the hair line: hair needs room above, the neck below.
    side = margin * max(mesh.face_px, 0.8 * place.size)
    height, width = frame.image.shape[:2]
    x0 = int(np.clip(np.floor(place.centre[0] - side / 2), 0, width - 1))
    x1 = int(np.clip(np.ceil(place.centre[0] + side / 2), x0 + 1, width))
    y0 = int(np.clip(np.floor(place.centre[1] - side * 0.52), 0, height - 1))
    y1 = int(np.clip(np.ceil(place.centre[1] + side * 0.48), y0 + 1, height))
    # A copy: a view of the frame would keep all of it in memory.
    return ImagePatch(frame.image[y0:y1, x0:x1].copy(), (x0, y0))
