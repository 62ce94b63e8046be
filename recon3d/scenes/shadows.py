"""Shadows that a head casts on itself."""

from __future__ import annotations

import cv2
import numpy as np

from recon3d.geometry import intrinsics
from recon3d.rendering.native import rasterise_numpy

_SIDE = 192
"""Side of a shadow map, px: some two millimetres each on a head."""
_AWAY = 2e4
"""Distance of the lamp, mm: its rays are nearly parallel."""
_BIAS = 4.0
"""What lies this little behind what the lamp sees is lit, mm."""
_ACROSS = ((0.0, 0.0), (0.9, 0.2), (-0.5, 0.8), (-0.4, -0.9))
"""Points of the lamp's disc, in radii."""


def lit_share(
    vertices: np.ndarray, triangles: np.ndarray, toward: np.ndarray, radius_deg: float
) -> np.ndarray:
    """How much of a lamp's disc each vertex sees, by shadow maps [1]_.

    Parameters
    ----------
    vertices : (V, 3) mm
    triangles : (F, 3)
    toward : (3,), unit
        Towards the lamp.
    radius_deg : float
        Of its disc: what makes shadows soft.

    Returns
    -------
    (V,) within 0 and 1

    References
    ----------
    .. [1] L. Williams, Casting curved shadows on curved surfaces, SIGGRAPH 1978.
    """
    across = np.cross(toward, [0.0, 1.0, 0.0] if abs(toward[1]) < 0.9 else [1.0, 0.0, 0.0])
    across /= np.linalg.norm(across)
    along = np.cross(across, toward)
    middle = (vertices.min(0) + vertices.max(0)) / 2
    reach = float(np.linalg.norm(vertices - middle, axis=1).max())
    K = intrinsics(0.49 * _SIDE * _AWAY / reach, (_SIDE, _SIDE))
    seen = np.zeros(len(vertices))
    for i, j in _ACROSS:
        forward = -(toward + np.tan(np.radians(radius_deg)) * (i * across + j * along))
        forward /= np.linalg.norm(forward)
        right = np.cross(along, forward)
        right /= np.linalg.norm(right)
        R = np.stack([right, np.cross(forward, right), forward])
        posed = (vertices - middle) @ R.T + [0.0, 0.0, _AWAY]
        triangle, depth, _ = rasterise_numpy(posed, triangles, K, (_SIDE, _SIDE))
        depth = np.where(triangle >= 0, depth, 2 * _AWAY).astype(np.float32)
        # The farthest of the neighbours: a surface must not shade itself.
        depth = cv2.dilate(depth, np.ones((2, 2), np.uint8))
        x, y = ((posed @ K.T)[:, :2] / posed[:, 2:]).T
        column, row = (np.clip(v, 0, _SIDE - 1).astype(int) for v in (x, y))
        seen += posed[:, 2] < depth[row, column] + _BIAS
    return seen / len(_ACROSS)
