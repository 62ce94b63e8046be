"""GNM Head: Google's Generative aNthropometric Model, one .npz.

References
----------
.. [1] GNM Head: A Generative aNthropometric Model of the human head, arXiv:2607.23687, 2026.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recon3d.morphable.importers.articulation import eye_fields
from recon3d.morphable.importers.files import npz_keys, read_npz
from recon3d.morphable.importers.raw import (
    RawModel,
    check_raw,
    check_triangles,
    compact,
    expect,
    signed_fields,
)

FAMILY = "GNM Head"
LICENCE = "Apache-2.0"
ORIGIN = "GNM Head, Google (github.com/google/GNM)"
CITATION = "GNM Head: A Generative aNthropometric Model of the human head, arXiv:2607.23687, 2026"
_WANTED = (
    "template_vertex_positions",
    "vertex_identity_basis",
    "expression_basis",
    "expression_names",
    "triangles",
    "vertex_groups",
    "vertex_group_names",
)
_OPTIONAL = (
    "version",
    "triangle_uvs",
    "mirror_indices",
    "template_joint_positions",
    "joint_names",
    "skinning_weights",
)
# What is never seen from outside, under the names of either edition.
_LEFT_OUT = (
    *("upper_teeth_and_gums", "lower_teeth_and_gums", "upper_teeth", "lower_teeth", "teeth"),
    *("gums", "tongue", "eye_interiors", "eyeball_interior"),
)
_EYES = ("eyes", "left_eye", "right_eye")
_LEAST_MM = 0.01


def detect(path: Path) -> bool:
    """Whether a path looks like this family's."""
    wanted = {"template_vertex_positions", "vertex_identity_basis", "expression_basis"}
    return path.suffix == ".npz" and wanted <= npz_keys(path)


def read(path: Path) -> RawModel:
    """Read the model: skin and the outer surface of the eyeballs.

    Teeth, gums, tongue and what lies inside the eyeballs are left out, with the modes that move
    nothing else. Gaze, which GNM turns by joints, becomes ARKit fields; the strongest expression
    components become signed fields.

    Raises
    ------
    ModelError
        If arrays are missing or do not belong together.
    """
    data = read_npz(path, _WANTED, _OPTIONAL)
    mean = data["template_vertex_positions"].astype(np.float64)
    expect(mean.ndim == 2 and mean.shape[1] == 3, path, "vertices (V, 3)", str(mean.shape))
    V = len(mean)
    names = [str(n) for n in data["vertex_group_names"]]
    groups = data["vertex_groups"]
    expect(groups.shape == (len(names), V), path, f"groups ({len(names)}, {V})", str(groups.shape))
    triangles = data["triangles"].astype(np.int64)
    check_triangles(triangles, V, path)

    def members(wanted):
        rows = [i for i, n in enumerate(names) if n in wanted]
        return (groups[rows] > 0.5).any(0) if rows else np.zeros(V, bool)

    keep = ~members(_LEFT_OUT)[triangles].all(1)
    kept, shown = compact(triangles[keep], V)
    bases = {}
    for key in ("vertex_identity_basis", "expression_basis"):
        basis = data[key]
        expect(
            basis.ndim == 3 and basis.shape[1:] == (V, 3),
            path,
            f"{key} (N, {V}, 3)",
            str(basis.shape),
        )
        bases[key] = basis[:, kept].astype(np.float32)
    expression_names = [str(n) for n in data["expression_names"]]
    expect(
        len(expression_names) == len(bases["expression_basis"]),
        path,
        f"{len(bases['expression_basis'])} expression names",
        str(len(expression_names)),
    )
    identity = bases["vertex_identity_basis"]
    identity = identity[_moves(identity)]
    expression, signed_names = signed_fields(bases["expression_basis"])
    # "expression_012_plus" under the publisher's name of component 12
    expression_names = [
        f"{expression_names[int(n.split('_')[1])]}_{n.split('_')[2]}" for n in signed_names
    ]
    gaze = _gaze(data, path, mean)
    if gaze:
        fields = np.stack([f[kept] for f in gaze.values()]).astype(np.float32)
        expression = np.concatenate([fields, expression])
        expression_names = [*gaze, *expression_names]
    mirror = None
    if "mirror_indices" in data and data["mirror_indices"].shape == (V,):
        number = np.full(V, -1, np.int64)
        number[kept] = np.arange(len(kept))
        mirror = number[np.clip(data["mirror_indices"].astype(np.int64), 0, V - 1)][kept]
    uv = triangles_uv = None
    if "triangle_uvs" in data:
        corners = data["triangle_uvs"]
        wanted = (len(triangles), 3, 2)
        expect(corners.shape == wanted, path, f"triangle_uvs {wanted}", str(corners.shape))
        # one coordinate for all corners that agree, so that charts hang together
        vertex = triangles[keep].ravel()
        grid = np.round(corners[keep].reshape(-1, 2) * 2**18).astype(np.int64)
        _, first, inverse = np.unique(
            np.c_[vertex, grid], axis=0, return_index=True, return_inverse=True
        )
        uv = corners[keep].reshape(-1, 2)[first].astype(np.float64)
        triangles_uv = inverse.reshape(-1, 3)
    return check_raw(
        RawModel(
            family=FAMILY,
            name="gnm-head",
            mean=mean[kept],
            triangles=shown,
            identity=identity,
            expression=expression,
            expression_names=tuple(expression_names),
            millimetres=1000.0,
            licence=LICENCE,
            origin=ORIGIN,
            citation=CITATION,
            eyes=members(_EYES)[kept],
            uv=uv,
            triangles_uv=triangles_uv,
            mirror=mirror,
            expression_range=(
                "gaze: 1 is the full turn; regions, _plus and _minus: 1 is two standard deviations"
            ),
        ),
        path,
    )


def _moves(basis: np.ndarray) -> np.ndarray:
    return np.abs(basis).reshape(len(basis), -1).max(1) * 1000 > _LEAST_MM


def _gaze(data: dict, path: Path, mean: np.ndarray) -> dict[str, np.ndarray]:
    if not {"template_joint_positions", "joint_names", "skinning_weights"} <= set(data):
        return {}
    joints, weights = data["template_joint_positions"], data["skinning_weights"]
    names = [str(n) for n in data["joint_names"]]
    wanted = (len(names), len(mean))
    expect(weights.shape == wanted, path, f"skinning_weights {wanted}", str(weights.shape))
    expect(joints.shape == (len(names), 3), path, f"joints ({len(names)}, 3)", str(joints.shape))
    fields = {}
    for i, name in enumerate(names):
        if "eye" in name.lower():
            fields |= eye_fields(mean, joints[i].astype(np.float64), weights[i])
    return fields
