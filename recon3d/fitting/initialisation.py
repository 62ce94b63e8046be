"""A first pose of every view, from landmarks alone."""

from __future__ import annotations

import numpy as np


def weak_perspective(
    X: np.ndarray, points: np.ndarray, weights: np.ndarray, *, rounds: int = 4
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Poses of many views under weak perspective, all at once.

    The affine camera that explains the landmarks best is found by reweighted linear least squares
    (Cauchy weights) and its two rows made orthogonal and equally long.

    Parameters
    ----------
    X : (L, 3) mm, landmarks of the model
    points : (N, L, 2) px; may hold NaN
    weights : (N, L), 0 for landmarks that do not count
    rounds : int, reweightings

    Returns
    -------
    R : (N, 3, 3)
    place : (N, 3), u and v in px and log(px per mm) of the model's origin
    error : (N,) root mean square residual in mm, infinite where the landmarks are too few
    """
    finite = np.isfinite(points).all(-1) & np.isfinite(X).all(-1)
    base = np.where(finite, weights, 0.0)
    p = np.where(finite[..., None], points, 0.0)
    h = np.concatenate([np.nan_to_num(X), np.full((len(X), 1), 30.0)], 1)
    w = base
    enough = (base > 1e-6).sum(1) >= 6
    for _ in range(rounds):
        A = np.einsum("nl,li,lj->nij", w, h, h, optimize=True)
        # a whisper of a ridge: coplanar or repeated points leave a direction open
        A += (1e-6 * np.trace(A, axis1=1, axis2=2)[:, None, None] + 1e-9) * np.eye(4)
        b = np.einsum("nl,li,nlk->nik", w, h, p, optimize=True)
        M = np.linalg.solve(A, b).transpose(0, 2, 1)
        residual = np.linalg.norm(p - h @ M.transpose(0, 2, 1), axis=-1)
        spread = np.sqrt((base * residual**2).sum(1) / np.maximum(base.sum(1), 1e-12))
        # a robust spread: the median of what counts
        for n in np.flatnonzero(enough):
            spread[n] = np.median(residual[n, base[n] > 0.3 * base[n].max()]) + 1e-9
        w = base / (1 + (residual / np.maximum(2 * spread, 1e-9)[:, None]) ** 2)
    U, S, Vt = np.linalg.svd(M[:, :, :3], full_matrices=False)
    rows = U @ Vt
    R = np.concatenate([rows, np.cross(rows[:, 0], rows[:, 1])[:, None]], 1)
    # the mean of the two singular values: the least-squares scale of nearly orthogonal rows
    scale = np.maximum(S.mean(1), 1e-9)
    shift = 30.0 * M[:, :, 3]
    predicted = scale[:, None, None] * (h[:, :3] @ rows.transpose(0, 2, 1)) + shift[:, None]
    r2 = ((p - predicted) ** 2).sum(-1)
    error = np.sqrt((w * r2).sum(1) / np.maximum(w.sum(1), 1e-12)) / scale
    error[~enough] = np.inf
    return R, np.concatenate([shift, np.log(scale)[:, None]], 1), error
