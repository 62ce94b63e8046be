"""Reading other people's containers without trusting them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from recon3d.errors import ModelError


def npz_keys(path: Path) -> set[str]:
    """Names of the arrays in an .npz; empty if it is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return set()


def read_npz(path: Path, wanted: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict:
    """Arrays of an .npz; pickled objects in it are refused, not run.

    Raises
    ------
    ModelError
        If the file is none, is damaged, or lacks a wanted array.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in wanted if key not in archive.files]
            if missing:
                raise ModelError(
                    f"{path}: expected arrays {', '.join(wanted)}; found no {', '.join(missing)}"
                )
            keys = [*wanted, *(k for k in optional if k in archive.files)]
            return {key: archive[key] for key in keys}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ModelError(f"{path}: expected an .npz of plain arrays, found {error}") from error
