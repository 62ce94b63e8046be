"""FLAME 2020, 2023 and 2023 Open: the published pickle, or the same arrays as .npz.

References
----------
.. [1] T. Li et al., Learning a model of facial shape and expression from 4D scans, ACM
       Transactions on Graphics 36(6), 2017.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recon3d.morphable.importers.articulation import eye_fields, jaw_fields
from recon3d.morphable.importers.files import npz_keys, read_npz
from recon3d.morphable.importers.pickles import as_array, load_pickle
from recon3d.morphable.importers.raw import (
    RawModel,
    check_raw,
    check_triangles,
    expect,
    signed_fields,
)

FAMILY = "FLAME"
ORIGIN = "FLAME, Max Planck Institute for Intelligent Systems (flame.is.tue.mpg.de)"
CITATION = (
    "Li, Bolkart, Black, Li, Romero: Learning a model of facial shape and expression from 4D "
    "scans, ACM Transactions on Graphics 36(6), 2017"
)
LICENCE_RESEARCH = "FLAME model licence (non-commercial research)"
LICENCE_OPEN = "CC-BY-4.0"
N_SHAPE, N_EXPRESSION = 300, 100
_WANTED = ("v_template", "f", "shapedirs")
_OPTIONAL = ("J_regressor", "weights", "posedirs", "kintree_table", "J", "vt", "ft")
_JAW, _EYES = 2, (3, 4)


def detect(path: Path) -> bool:
    """Whether a path looks like this family's."""
    if path.suffix == ".npz":
        return set(_WANTED) <= npz_keys(path)
    if path.suffix != ".pkl" or not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(1) in (b"\x80", b"(", b"}", b"c")


def read(path: Path) -> RawModel:
    """Read the model.

    Jaw and eyeballs, which FLAME turns by joints, become ARKit fields; its expression components
    follow as signed fields.

    Raises
    ------
    ModelError
        If the file is damaged, is not FLAME's, or asks for anything but arrays.
    """
    if path.suffix == ".npz":
        data = read_npz(path, _WANTED, _OPTIONAL)
    else:
        data = load_pickle(path, what="the FLAME model")
    missing = [key for key in _WANTED if key not in data]
    expect(not missing, path, f"the arrays {', '.join(_WANTED)}", f"no {', '.join(missing)}")
    mean = as_array(data["v_template"], path, "v_template")
    expect(mean.ndim == 2 and mean.shape[1] == 3, path, "v_template (V, 3)", str(mean.shape))
    V = len(mean)
    triangles = as_array(data["f"], path, "f", np.int64)
    check_triangles(triangles, V, path)
    modes = as_array(data["shapedirs"], path, "shapedirs")
    total = N_SHAPE + N_EXPRESSION
    expect(modes.shape == (V, 3, total), path, f"shapedirs ({V}, 3, {total})", str(modes.shape))
    modes = modes.transpose(2, 0, 1).astype(np.float32)
    expression, names = _articulated(data, path, mean)
    components, component_names = signed_fields(modes[N_SHAPE:])
    uv = triangles_uv = None
    if "vt" in data and "ft" in data:
        uv = as_array(data["vt"], path, "vt")
        triangles_uv = as_array(data["ft"], path, "ft", np.int64)
    is_open = "open" in path.stem.lower()
    return check_raw(
        RawModel(
            family=FAMILY,
            name="flame-open" if is_open else "flame",
            mean=mean,
            triangles=triangles,
            identity=modes[:N_SHAPE],
            expression=np.concatenate([*expression, components]),
            expression_names=(*names, *component_names),
            millimetres=1000.0,
            licence=LICENCE_OPEN if is_open else LICENCE_RESEARCH,
            origin=ORIGIN,
            citation=CITATION,
            eyes=_eyeballs(triangles, V),
            uv=uv,
            triangles_uv=triangles_uv,
            expression_range=(
                "jaw and eyes: 1 is the full turn; expression_NNN_plus and _minus: 1 is two "
                "standard deviations one way"
            ),
        ),
        path,
    )


def _articulated(data, path, mean) -> tuple[list[np.ndarray], list[str]]:
    """Jaw and eye fields, where the file has joints."""
    if not {"weights", "J_regressor"} <= set(data):
        return [], []
    V = len(mean)
    weights = as_array(data["weights"], path, "weights")
    regressor = as_array(data["J_regressor"], path, "J_regressor")
    expect(weights.shape == (V, 5), path, f"weights ({V}, 5)", str(weights.shape))
    expect(regressor.shape == (5, V), path, f"J_regressor (5, {V})", str(regressor.shape))
    corrective = None
    if "posedirs" in data:
        corrective = as_array(data["posedirs"], path, "posedirs")
        expect(
            corrective.shape == (V, 3, 36), path, f"posedirs ({V}, 3, 36)", str(corrective.shape)
        )
    joints = regressor @ mean

    def of(joint):
        extra = None if corrective is None else corrective[..., 9 * (joint - 1) : 9 * joint]
        return mean, joints[joint], weights[:, joint], extra

    fields = jaw_fields(*of(_JAW))
    for eye in _EYES:
        fields |= eye_fields(*of(eye))
    return [f[None].astype(np.float32) for f in fields.values()], list(fields)


def _eyeballs(triangles: np.ndarray, count: int) -> np.ndarray:
    """Vertices of the components that are not the skin (the largest one)."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    i, j = triangles[:, [0, 1, 0, 2]].reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(i), np.int8), (i, j)), (count, count))
    label = connected_components(graph, directed=False)[1]
    return label != np.bincount(label).argmax()
