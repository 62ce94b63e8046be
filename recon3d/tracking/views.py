"""Which frames of a track are kept with their pixels: a bounded, streaming choice."""

from __future__ import annotations

from collections import defaultdict
from copy import copy
from dataclasses import dataclass, field

import numpy as np

from recon3d.tracking.observe import Mesh
from recon3d.types import Frame, ImagePatch

_YAW_EDGES = np.array([-52.5, -37.5, -22.5, -7.5, 7.5, 22.5, 37.5, 52.5])
_PITCH_EDGES = np.array([-15.0, 10.0])


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

    def __post_init__(self):
        yaw, pitch, _ = self.mesh.angles
        self.bin = (
            int(np.searchsorted(_YAW_EDGES, yaw)),
            int(np.searchsorted(_PITCH_EDGES, pitch)),
        )


class Reservoir:
    """At most `capacity` candidates that cover yaw and pitch, best first, spread over time.

    When it is full, one goes from the fullest bin of angles: the one whose loss hurts least, by
    its quality and by how near in time its neighbours in the bin are.
    """

    def __init__(self, capacity: int):
        self.capacity = capacity
        self.candidates: list[Candidate] = []

    def would_keep(self, quality: float, yaw: float, pitch: float) -> bool:
        """Whether a candidate has a chance, before its pixels are copied."""
        if len(self.candidates) < self.capacity:
            return True
        key = int(np.searchsorted(_YAW_EDGES, yaw)), int(np.searchsorted(_PITCH_EDGES, pitch))
        bins = self._bins()
        fullest = max(len(members) for members in bins.values())
        if len(bins.get(key, ())) < fullest:
            return True
        return quality > min(member.quality for member in bins[key])

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

    def _evict(self) -> None:
        bins = self._bins().values()
        members = max(bins, key=lambda m: (len(m), -np.mean([c.quality for c in m])))
        order = sorted(members, key=lambda c: (c.source, c.time))
        loss = []
        for i, candidate in enumerate(order):
            near = [
                abs(order[j].time - candidate.time)
                for j in (i - 1, i + 1)
                if 0 <= j < len(order) and order[j].source == candidate.source
            ]
            # Half a second apart counts as fresh; frames closer than that repeat one another.
            fresh = min(1.0, 0.3 + 1.4 * min(near)) if near else 1.0
            loss.append(candidate.quality * fresh)
        worst = order[int(np.argmin(loss))]
        self.candidates = [c for c in self.candidates if c is not worst]


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
