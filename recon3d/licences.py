"""The ledger: every model, weight file and library with models that a run used."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from recon3d.errors import ModelError
from recon3d.types import FaceModel

PERMISSIVE = {"MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "BSL-1.0"}
"""SPDX identifiers of licences that allow every use with at most attribution."""


@dataclass(frozen=True)
class LedgerEntry:
    """One thing that a result rests on.

    Attributes
    ----------
    name, kind : str
        What it is; kind is ``face model``, ``landmarks``, ``embedding``, ``refiner`` or ``code``.
    licence : str
        SPDX identifier, or the licence's own name where it has none.
    origin, citation : str
    """

    name: str
    kind: str
    licence: str
    origin: str
    citation: str = ""

    @property
    def permissive(self) -> bool:
        return self.licence in PERMISSIVE

    def as_dict(self) -> dict:
        return {**asdict(self), "permissive": self.permissive}


MEDIAPIPE = LedgerEntry(
    "MediaPipe face detection and face mesh 0.10.21",
    "landmarks",
    "Apache-2.0",
    "weights inside the mediapipe wheel (Google)",
    "Kartynnik et al., Real-time facial surface geometry from monocular video on mobile GPUs, 2019",
)
FACE_ALIGNMENT = LedgerEntry(
    "face-alignment 2D-FAN",
    "landmarks",
    "BSD-3-Clause",
    "weights from the face-alignment project's own host",
    "Bulat and Tzimiropoulos, How far are we from solving the 2D & 3D face alignment problem, 2017",
)
DLIB = LedgerEntry(
    "dlib face recognition ResNet v1",
    "embedding",
    "CC0-1.0",
    "weights inside the package face_recognition_models (Davis King)",
    "King, Dlib-ml: a machine learning toolkit, JMLR 10, 2009",
)


def of_model(model: FaceModel) -> LedgerEntry:
    """The entry of a face model."""
    return LedgerEntry(
        model.name, "face model", model.licence or "unknown", model.origin, model.citation
    )


def require_permissive(entries: list[LedgerEntry]) -> None:
    """Refuse a run that rests on anything with conditions on its use.

    Raises
    ------
    ModelError
        Naming the first such entry and its licence.
    """
    for entry in entries:
        if not entry.permissive:
            raise ModelError(
                f"{entry.name} ({entry.kind}) is under {entry.licence}, which --permissive-only "
                "refuses; choose another with --model or --set, or leave the switch out"
            )
