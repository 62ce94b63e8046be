"""The families that can be imported, and how a path is recognised as one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from recon3d.errors import InputError, ModelError
from recon3d.morphable.importers import bfm, eos, flame, gnm, ict
from recon3d.morphable.importers.convert import convert
from recon3d.morphable.importers.raw import RawModel
from recon3d.progress import Callback
from recon3d.types import FaceModel


@dataclass(frozen=True)
class Family:
    """One adapter.

    Attributes
    ----------
    name : str
    files : str
        What a user points at.
    detect : callable, Path -> bool
        Cheap: looks at names and headers only.
    read : callable, Path -> RawModel
    """

    name: str
    files: str
    detect: Callable[[Path], bool]
    read: Callable[[Path], RawModel]


FAMILIES = (
    Family(ict.FAMILY, "the folder FaceXModel, or the repacked .npz", ict.detect, ict.read),
    Family(gnm.FAMILY, "gnm_head.npz", gnm.detect, gnm.read),
    Family(flame.FAMILY, "generic_model.pkl, flame2023*.pkl, or .npz", flame.detect, flame.read),
    Family(bfm.FAMILY, "01_MorphableModel.mat, model2017*.h5, model2019*.h5", bfm.detect, bfm.read),
    Family(eos.FAMILY, "sfm_shape_3448.bin or another eos model", eos.detect, eos.read),
)


def recognise(path: str | Path) -> Family:
    """The family of a file or folder.

    Raises
    ------
    InputError
        If there is no such file.
    ModelError
        If no adapter knows it.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    for family in FAMILIES:
        if family.detect(path):
            return family
    known = "; ".join(f"{f.name}: {f.files}" for f in FAMILIES)
    raise ModelError(f"{path}: not a face model that can be imported. Known are {known}")


def import_model(
    path: str | Path,
    *,
    name: str | None = None,
    progress: Callback | None = None,
) -> FaceModel:
    """Convert a licensed model from the user's own files.

    Parameters
    ----------
    path : Path
        What `Family.files` names.
    name : str, optional
        Name of the result; the family's own by default.
    progress : callable, optional
        Called with the steps done and their number.

    Raises
    ------
    InputError, ModelError
        If the path is none of a known family, or its files are damaged: what was expected, and
        what was found.
    """
    path = Path(path)
    return convert(recognise(path).read(path), name=name, progress=progress)
