"""Basel Face Model: 2009 as MATLAB file, 2017 and 2019 as HDF5.

References
----------
.. [1] P. Paysan et al., A 3D face model for pose and illumination invariant face recognition,
       AVSS 2009.
.. [2] T. Gerig et al., Morphable face models: an open framework, FG 2018.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recon3d.colour import srgb_to_linear
from recon3d.errors import BackendUnavailable, ModelError
from recon3d.morphable.importers.raw import RawModel, check_raw, expect, signed_fields

FAMILY = "Basel Face Model"
ORIGIN = "Basel Face Model, University of Basel (faces.dmi.unibas.ch)"
LICENCE = "BFM licence (non-commercial)"
CITATION_2009 = (
    "Paysan, Knothe, Amberg, Romdhani, Vetter: A 3D Face Model for Pose and Illumination "
    "Invariant Face Recognition, AVSS 2009"
)
CITATION_2017 = (
    "Gerig, Morel-Forster, Blumer, Egger, Luethi, Schoenborn, Vetter: Morphable Face Models - An "
    "Open Framework, FG 2018"
)
_HDF5 = b"\x89HDF\r\n\x1a\n"
_MAT = ("shapeMU", "shapePC", "shapeEV", "tl")


def detect(path: Path) -> bool:
    """Whether a path looks like this family's."""
    if not path.is_file():
        return False
    if path.suffix == ".h5":
        with open(path, "rb") as file:
            return file.read(8) == _HDF5
    return path.suffix == ".mat"


def read(path: Path) -> RawModel:
    """Read the model.

    Raises
    ------
    ModelError
        If the file is damaged or of another layout.
    BackendUnavailable
        If an HDF5 file is given and h5py is not installed.
    """
    return _read_mat(path) if path.suffix == ".mat" else _read_h5(path)


def _read_mat(path: Path) -> RawModel:
    from scipy.io import loadmat

    try:
        data = loadmat(path, variable_names=[*_MAT, "texMU"])
    except NotImplementedError as error:  # SciPy's answer to the HDF5 layout of MATLAB 7.3
        raise ModelError(
            f"{path}: expected a MATLAB 5 file, found MATLAB 7.3; save it again with -v7"
        ) from error
    except Exception as error:  # scipy raises many kinds on damaged files
        raise ModelError(f"{path}: expected a MATLAB file, found {error!r}") from error
    missing = [key for key in _MAT if key not in data]
    expect(not missing, path, f"the variables {', '.join(_MAT)}", f"no {', '.join(missing)}")
    mean, basis, deviation, triangles = (np.asarray(data[key]) for key in _MAT)
    N = mean.size
    expect(N % 3 == 0 and N > 0, path, "shapeMU of 3 V numbers", str(mean.shape))
    K = deviation.size
    expect(basis.shape == (N, K), path, f"shapePC ({N}, {K})", str(basis.shape))
    expect(triangles.ndim == 2 and 3 in triangles.shape, path, "tl (F, 3)", str(triangles.shape))
    triangles = triangles if triangles.shape[1] == 3 else triangles.T
    identity = (basis * deviation.ravel()).T.reshape(K, -1, 3)
    albedo = None
    if "texMU" in data and data["texMU"].size == N:
        albedo = _albedo(data["texMU"].reshape(-1, 3) / 255.0)
    return _assemble(
        path,
        "bfm2009",
        mean.reshape(-1, 3).astype(np.float64),
        triangles.astype(np.int64) - 1,  # MATLAB counts from 1
        identity,
        np.zeros((0, N // 3, 3), np.float32),
        albedo,
        1e-3,
        CITATION_2009,
    )


def _read_h5(path: Path) -> RawModel:
    try:
        import h5py
    except ImportError as error:
        raise BackendUnavailable(
            f"{path}: reading HDF5 needs h5py; install it with: pip install 'recon3d[models]'"
        ) from error
    try:
        with h5py.File(path, "r") as file:
            return _assemble_h5(path, file)
    except (OSError, KeyError, RuntimeError) as error:
        raise ModelError(f"{path}: expected a Basel model as HDF5, found {error}") from error


def _assemble_h5(path: Path, file) -> RawModel:
    def array(key):
        expect(key in file, path, f"the data set {key}", "none")
        return np.asarray(file[key])

    def modes(group, N):
        basis, variance = array(f"{group}/pcaBasis"), array(f"{group}/pcaVariance").ravel()
        wanted = (N, len(variance))
        expect(basis.shape == wanted, path, f"{group}/pcaBasis {wanted}", str(basis.shape))
        expect(bool((variance >= 0).all()), path, f"{group}/pcaVariance >= 0", str(variance.min()))
        return (basis * np.sqrt(variance)).T.reshape(len(variance), -1, 3)

    mean = array("shape/model/mean").ravel().astype(np.float64)
    N = mean.size
    expect(N % 3 == 0 and N > 0, path, "shape/model/mean of 3 V numbers", str(N))
    cells = array("shape/representer/cells")
    expect(cells.ndim == 2 and 3 in cells.shape, path, "cells (3, F)", str(cells.shape))
    triangles = (cells.T if cells.shape[0] == 3 else cells).astype(np.int64)
    identity = modes("shape/model", N)
    expression = np.zeros((0, N // 3, 3), np.float32)
    if "expression/model" in file:
        # the two models add up, means and all
        mean = mean + array("expression/model/mean").ravel()
        expression = modes("expression/model", N)
    albedo = None
    if "color/model/mean" in file:
        colour = array("color/model/mean").ravel()
        if colour.size == N:
            albedo = _albedo(colour.reshape(-1, 3))
    year = "2019" if "2019" in path.name else "2017"
    return _assemble(
        path,
        f"bfm{year}",
        mean.reshape(-1, 3),
        triangles,
        identity,
        expression,
        albedo,
        1.0,
        CITATION_2017,
    )


def _assemble(path, name, mean, triangles, identity, expression, albedo, unit, citation):
    fields, names = signed_fields(expression)
    return check_raw(
        RawModel(
            family=FAMILY,
            name=name,
            mean=mean,
            triangles=triangles,
            identity=identity.astype(np.float32),
            expression=fields,
            expression_names=names,
            millimetres=unit,
            licence=LICENCE,
            origin=ORIGIN,
            citation=citation,
            albedo=albedo,
            expression_range="1 is two standard deviations one way",
        ),
        path,
    )


def _albedo(colour: np.ndarray) -> np.ndarray:
    return srgb_to_linear(np.clip(colour, 0, 1).astype(np.float32))
