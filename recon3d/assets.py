"""Where the files that travel with the project lie."""

from __future__ import annotations

import os
from pathlib import Path


def asset_path(*parts: str) -> Path:
    """Path of an asset, whether or not it exists.

    Looked for in the folder named by the environment variable ``RECON3D_ASSETS``, then in the
    repository's ``assets/`` next to the package, then in a copy inside the package. Where none of
    them has the file, the first candidate is returned, so that an error can name it.

    Parameters
    ----------
    *parts : str
        Path below the assets folder, for example ``"face_model", "recon3d_face.npz"``.
    """
    package = Path(__file__).resolve().parent
    folders = [package.parent / "assets", package / "assets"]
    if os.environ.get("RECON3D_ASSETS"):
        folders.insert(0, Path(os.environ["RECON3D_ASSETS"]))
    candidates = [folder.joinpath(*parts) for folder in folders]
    return next((path for path in candidates if path.exists()), candidates[0])
