"""What a person looks like to a face descriptor, from as many frames as there are, and who is near.

One frame's descriptor moves with pose, blur and noise; the mean of the best frames moves less, and
the fused view, which is frontal, moves otherwise than they do. So a person is remembered as the
mean of both. Refined pictures are never asked: the refiner was trained through such a descriptor.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from recon3d.errors import InputError, ShapeError
from recon3d.files import atomic_write
from recon3d.recognition.embedders import FaceEmbedder, distance
from recon3d.tracking import best_portraits
from recon3d.types import FaceTrack, FrontalView

BEST_FRAMES = 12
"""Frames of a track that are asked. On the benchmark's clips twelve tell people apart better than
five, and five better than the best one."""
FORMAT = 1


@dataclass(frozen=True)
class FaceTemplate:
    """A person to a face descriptor.

    Attributes
    ----------
    vector : (D,) float64
        Mean descriptor: of the frames', and of that and the fused view's where there is one.
    frames : int
        Frames it rests on.
    fused : bool
        Whether a fused view is in it.
    face_px : float
        Median width of the face in those frames.
    embedder : str
        Name of the descriptor; only those of one can be compared.
    """

    vector: np.ndarray
    frames: int
    fused: bool
    face_px: float
    embedder: str

    def distance(self, other: FaceTemplate) -> float:
        """Euclidean distance to another person's.

        Raises
        ------
        InputError
            If they are of different descriptors.
        """
        if self.embedder != other.embedder or self.vector.shape != other.vector.shape:
            raise InputError(
                f"descriptors of {self.embedder} and {other.embedder} cannot be compared"
            )
        return distance(self.vector, other.vector)


def make_template(
    descriptors: Sequence[np.ndarray],
    embedder: FaceEmbedder,
    *,
    fused: np.ndarray | None = None,
    face_px: float = float("nan"),
) -> FaceTemplate:
    """Put descriptors of one person together.

    Parameters
    ----------
    descriptors : sequence of (D,)
        Of frames; may be empty where there is a fused view.
    embedder : FaceEmbedder
        That made them.
    fused : (D,), optional
        Of the fused, not refined, frontal view.
    face_px : float

    Raises
    ------
    ShapeError
        If there is nothing to put together.
    """
    parts = [np.mean(descriptors, axis=0)] if len(descriptors) else []
    if fused is not None:
        parts.append(np.asarray(fused))
    if not parts:
        raise ShapeError("descriptors: there are none")
    vector = np.mean(parts, axis=0).astype(np.float64)
    return FaceTemplate(vector, len(descriptors), fused is not None, face_px, embedder.name)


def track_template(
    track: FaceTrack,
    embedder: FaceEmbedder,
    frontal: FrontalView | None = None,
    *,
    count: int = BEST_FRAMES,
) -> FaceTemplate:
    """What a track and, where there is one, its fused view say of a person.

    Parameters
    ----------
    track : FaceTrack
    embedder : FaceEmbedder
    frontal : FrontalView, optional
        Its ``raw`` is looked at, never its refined ``image``.
    count : int
        At most so many frames, those that show the person best as a portrait does.

    Returns
    -------
    FaceTemplate
    """
    views = [track.views[k] for k in best_portraits(track.views, count)]
    found = [
        embedder(view.patch.image, view.landmarks - np.asarray(view.patch.origin)) for view in views
    ]
    fused = None if frontal is None else embedder(frontal.raw, frontal.landmarks)
    width = float(np.median([view.face_width for view in views])) if views else float("nan")
    return make_template(found, embedder, fused=fused, face_px=width)


class Gallery(Mapping[str, FaceTemplate]):
    """People by name, each as a `FaceTemplate`.

    Parameters
    ----------
    people : mapping of str to FaceTemplate, optional
    """

    def __init__(self, people: Mapping[str, FaceTemplate] | None = None):
        self._people = dict(people or {})

    def __getitem__(self, name: str) -> FaceTemplate:
        return self._people[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._people)

    def __len__(self) -> int:
        return len(self._people)

    def add(self, name: str, template: FaceTemplate) -> None:
        """Remember somebody.

        Raises
        ------
        InputError
            If the name is taken.
        """
        if name in self._people:
            raise InputError(f"{name}: the gallery has somebody of that name")
        self._people[name] = template

    def nearest(self, template: FaceTemplate) -> list[tuple[str, float]]:
        """Everybody with their distance, the nearest first."""
        found = [(name, template.distance(other)) for name, other in self._people.items()]
        return sorted(found, key=lambda pair: pair[1])

    def distances(self) -> np.ndarray:
        """(N, N) float64, of everybody to everybody, in the order of names."""
        people = list(self._people.values())
        return np.array([[a.distance(b) for b in people] for a in people]).reshape(
            len(people), len(people)
        )

    def save(self, path: str | Path) -> Path:
        """Write an .npz file: vectors as an array, the rest as JSON.

        Descriptors tell people apart and are biometric data: keep such a file as one keeps those.
        """
        about = [
            {"name": name} | {k: v for k, v in asdict(t).items() if k != "vector"}
            for name, t in self._people.items()
        ]
        vectors = [t.vector for t in self._people.values()]
        stream = io.BytesIO()
        text = json.dumps({"format": FORMAT, "people": about})
        arrays = {f"v{number}": vector for number, vector in enumerate(vectors)}
        np.savez_compressed(stream, about=np.array(text), **arrays)
        return atomic_write(path, stream.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> Gallery:
        """Read what `save` wrote; nothing in it is run.

        Raises
        ------
        InputError
            If it is no such file.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                about = json.loads(str(archive["about"]))
                if about["format"] != FORMAT:
                    raise ValueError(f"format {about['format']}, expected {FORMAT}")
                people = {}
                for number, person in enumerate(about["people"]):
                    name = person.pop("name")
                    people[name] = FaceTemplate(archive[f"v{number}"], **person)
        except FileNotFoundError:
            raise InputError(f"{path}: no such file") from None
        except Exception as error:
            raise InputError(f"{path}: not a gallery of recon3d ({error})") from None
        return cls(people)
