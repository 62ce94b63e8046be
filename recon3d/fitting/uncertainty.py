"""How far a vertex may lie from where it is drawn."""

from __future__ import annotations

import numpy as np

from recon3d.geometry import vertex_normals
from recon3d.types import FaceModel


def surface_variance(fields: np.ndarray, model: FaceModel) -> np.ndarray:
    """Variance of the surface along its normals, over independent fields of unit variance.

    Where a face is in space, how it is turned and how large it is are other unknowns: each field
    counts after the similarity that brings the face nearest to where it was is taken off. Skin
    that slides along itself is the same surface and does not count either.

    Parameters
    ----------
    fields : (G, V, 3), mm
        Columns of a root of the covariance of all vertices.
    model : FaceModel
        Its mean, triangles and the region ``face``.

    Returns
    -------
    (V,) float64, mm^2
    """
    mean = model.mean.astype(np.float64)
    face = np.clip(np.asarray(model.regions.get("face", np.ones(len(mean))), np.float64), 0, 1)
    arm = mean - np.average(mean, axis=0, weights=face)
    # small motions of all vertices: three shifts, three turns, one growth
    motions = np.zeros((7, len(mean), 3))
    for axis in range(3):
        motions[axis, :, axis] = 1.0
        motions[3 + axis] = np.cross(np.eye(3)[axis], arm)
    motions[6] = arm
    weighted = (motions * face[:, None]).reshape(7, -1)
    flat = motions.reshape(7, -1)
    normal = weighted @ flat.T
    variance = np.zeros(len(mean))
    normals = vertex_normals(mean, model.triangles)
    along = np.einsum("kvc,vc->kv", motions, normals)
    for start in range(0, len(fields), 32):
        part = fields[start : start + 32].astype(np.float64)
        moved = np.linalg.solve(normal, weighted @ part.reshape(len(part), -1).T)
        height = np.einsum("gvc,vc->gv", part, normals) - moved.T @ along
        variance += (height**2).sum(0)
    return variance
