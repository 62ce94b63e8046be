"""Rough head pose from landmarks under weak perspective."""

from __future__ import annotations

import numpy as np

from recon3d.checks import check_shape
from recon3d.geometry import head_angles
from recon3d.tracking.topology import RIGID_INDEX, RIGID_POINTS


def rough_pose(
    landmarks: np.ndarray, covariance: np.ndarray | None = None
) -> tuple[np.ndarray, float, np.ndarray]:
    """Scaled orthographic pose of the mean head's rigid points.

    The affine camera that maps the points best is found by linear least squares and made a scaled
    rotation; two rounds of reweighting forgive points that expression or occlusion moved.

    Parameters
    ----------
    landmarks : (478, 2) px
    covariance : (478, 2, 2) px^2, optional

    Returns
    -------
    angles : (3,) degrees, yaw, pitch, roll as in `recon3d.geometry.head_rotation`
    scale : float, px per mm
    R : (3, 3) model to camera
    """
    check_shape(landmarks, "478 2", "landmarks")
    x = landmarks[RIGID_INDEX].astype(np.float64)
    w = np.ones(len(x))
    if covariance is not None:
        trace = np.trace(covariance[RIGID_INDEX], axis1=1, axis2=2)
        w = np.median(trace) / (np.median(trace) + trace)
    base = w
    for _ in range(3):
        w = w / w.sum()
        X = RIGID_POINTS - w @ RIGID_POINTS
        y = x - w @ x
        A = np.linalg.solve((X * w[:, None]).T @ X, (X * w[:, None]).T @ y).T  # (2, 3)
        U, S, Vt = np.linalg.svd(A, full_matrices=False)
        rows = U @ Vt
        scale = float(S.mean())
        residual = np.linalg.norm(y - scale * X @ rows.T, axis=1)
        w = base / (1 + (residual / (2 * np.median(residual) + 1e-9)) ** 2)
    R = np.vstack([rows, np.cross(rows[0], rows[1])])
    return head_angles(R), scale, R
