"""Mean shape and modes of a deforming surface from landmarks of many single pictures.

A landmarker's own depth is a network's opinion; where a point really lies in depth shows in how it
moves across the picture from people who look ahead to people who look aside. This is non-rigid
structure from motion with a probabilistic linear model [1]_, by expectation maximisation.

References
----------
.. [1] L. Torresani, A. Hertzmann, C. Bregler, Nonrigid structure-from-motion: estimating shape and
   motion with hierarchical priors, IEEE TPAMI 30(5), 2008.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from recon3d.geometry import so3_exp, umeyama


@dataclass(frozen=True)
class LinearShape:
    """What `linear_shape_from_views` found.

    Attributes
    ----------
    mean : (P, 3)
    modes : (K, P, 3), per unit of a standard normal coefficient
    coefficients : (N, K) posterior means
    R : (N, 3, 3) shape to view axes (x right, y up, z towards the camera)
    scale : (N,) view units per shape unit; t : (N, 2) view units
    sigma : float
        Standard deviation of an observed coordinate, shape units.
    """

    mean: np.ndarray
    modes: np.ndarray
    coefficients: np.ndarray
    R: np.ndarray
    scale: np.ndarray
    t: np.ndarray
    sigma: float

    def shapes(self) -> np.ndarray:
        """(N, P, 3) shape of each view, in the shape's own axes."""
        return self.mean + np.tensordot(self.coefficients, self.modes, 1)


def linear_shape_from_views(
    points: np.ndarray,
    weights: np.ndarray,
    start: np.ndarray,
    *,
    n_modes: int,
    iterations: int = 30,
    distance: float = np.inf,
    depth_weight: float = 0.0,
    visibility: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    progress: Callable[[int], None] | None = None,
) -> LinearShape:
    """Fit ``points_n ~ s_n R_n (mean + sum_k z_nk modes_k) + t_n`` to 2D landmarks.

    Parameters
    ----------
    points : (N, P, 3)
        x right, y up, z towards the camera; z is used with `depth_weight` only, in the units of
        the shape after division by the view's scale.
    weights : (N, P)
        Inverse variance of x and y, relative.
    start : (P, 3)
        First guess of the mean, which fixes axes and unit.
    n_modes : int
    iterations : int
    distance : float
        Distance of the camera in shape units; finite values undo perspective to first order with
        the shape's current depth (POSIT).
    depth_weight : float
        Weight of the observed z relative to x and y.
    visibility : callable(mean, R) -> (N, P), optional
        Factor of the weights by pose.
    progress : callable(iteration), optional
    """
    N, P, _ = points.shape
    mean, modes = start.copy(), np.zeros((0, P, 3))
    z, Czz = np.zeros((N, 0)), np.zeros((N, 0, 0))
    R, scale, t = _initial_poses(points, start)
    sigma2 = 1.0
    for iteration in range(iterations):
        X = mean + np.tensordot(z, modes, 1)
        factor = visibility(mean, R) if visibility else 1.0
        w = weights * factor
        for _ in range(2):
            depth = np.einsum("nj,npj->np", R[:, 2], X)
            observed = _undo_perspective(points, depth, scale, t, distance)
            R, scale, t = _update_poses(observed, X, w, R, scale, t)
        depth = np.einsum("nj,npj->np", R[:, 2], X)
        observed = _undo_perspective(points, depth, scale, t, distance)
        # In the shape's axes and unit: y_n = R_n^T (observed - t) / s, precision R^T diag R.
        target = np.concatenate(
            [
                (observed[..., :2] - t[:, None]) / scale[:, None, None],
                points[..., 2:] / scale[:, None, None],
            ],
            -1,
        )
        target[..., 2] -= (w * (target[..., 2] - depth)).sum(1, keepdims=True) / w.sum(
            1, keepdims=True
        )
        D = np.diag([1.0, 1.0, depth_weight])
        Q = np.einsum("nai,ab,nbj->nij", R, D, R)  # (N, 3, 3)
        y = np.einsum("nai,ab,npb->npi", R, D, target)  # (N, P, 3) = Q X
        if iteration == 2:  # poses have settled: let modes begin from what the rigid fit leaves
            residual = np.einsum("nij,npj->npi", np.linalg.pinv(Q, rcond=1e-6), y) - (
                np.einsum("nij,njk,pk->npi", np.linalg.pinv(Q, rcond=1e-6), Q, mean)
            )
            flat = residual.reshape(N, -1)
            _, S, Vt = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
            k = min(n_modes, len(S))
            modes = (Vt[:k] * (S[:k, None] / np.sqrt(N))).reshape(k, P, 3)
        if len(modes):
            z, Czz = _posterior(y, Q, w, mean, modes, sigma2)
        mean, modes = _update_shape(y, Q, w, z, Czz, sigma2)
        if len(modes):
            # Coefficients of zero mean and unit covariance: the prior the E step believes in.
            m = z.mean(0)
            C = np.cov(z.T, bias=True).reshape(len(modes), -1) + Czz.mean(0)
            mean = mean + np.tensordot(m, modes, 1)
            flat = (np.linalg.cholesky(C + 1e-9 * np.eye(len(C))).T @ modes.reshape(len(C), -1))
            U, S, Vt = np.linalg.svd(flat, full_matrices=False)
            modes = (S[:, None] * Vt).reshape(modes.shape)
            z, Czz = _posterior(y, Q, w, mean, modes, sigma2)
        X = mean + np.tensordot(z, modes, 1)
        seen = np.einsum("nai,npi->npa", R[:, :2], X) - target[..., :2]
        sigma2 = float(max((w * (seen**2).sum(-1)).sum() / (2 * w.sum()), 1e-8))
        # Fix the gauge: axes and unit of the start.
        s, G, shift = umeyama(mean, start)
        mean = s * mean @ G.T + shift
        modes = s * modes @ G.T
        R = R @ G.T
        t = t - scale[:, None] / s * np.einsum("nai,i->na", R[:, :2], shift)
        scale = scale / s
        sigma2 *= s**2
        if progress:
            progress(iteration)
    return LinearShape(mean, modes, z, R, scale, t, float(np.sqrt(sigma2)))


def _initial_poses(points, start):
    moves = [umeyama(start, x) for x in points]
    return (
        np.stack([m[1] for m in moves]),
        np.array([m[0] for m in moves]),
        np.stack([m[2][:2] for m in moves]),
    )


def _undo_perspective(points, depth, scale, t, distance):
    """Image points as a camera at infinity would have seen them."""
    if not np.isfinite(distance):
        return points
    factor = 1 - depth / distance
    out = points.copy()
    centre = t[:, None]
    out[..., :2] = centre + (points[..., :2] - centre) * factor[..., None]
    return out


def _update_poses(observed, X, w, R, scale, t):
    """One Gauss-Newton step on each view's scaled orthographic pose."""
    RX = np.einsum("nij,npj->npi", R, X)
    residual = observed[..., :2] - scale[:, None, None] * RX[..., :2] - t[:, None]
    s = scale[:, None]
    N, P, _ = X.shape
    J = np.zeros((N, P, 2, 6))
    # d(omega x RX): x' = wy z - wz y, y' = wz x - wx z
    J[..., 0, 1], J[..., 0, 2] = s * RX[..., 2], -s * RX[..., 1]
    J[..., 1, 0], J[..., 1, 2] = -s * RX[..., 2], s * RX[..., 0]
    J[..., 0, 3], J[..., 1, 3] = s * RX[..., 0], s * RX[..., 1]  # of log scale
    J[..., 0, 4] = J[..., 1, 5] = 1
    A = np.einsum("npak,np,napl->nkl" if False else "npak,np,npal->nkl", J, w, J, optimize=True)
    b = np.einsum("npak,np,npa->nk", J, w, residual, optimize=True)
    step = np.linalg.solve(A + 1e-9 * np.trace(A, axis1=1, axis2=2)[:, None, None] * np.eye(6), b[..., None])[..., 0]
    return so3_exp(step[:, :3]) @ R, scale * np.exp(np.clip(step[:, 3], -0.3, 0.3)), t + step[:, 4:]


def _posterior(y, Q, w, mean, modes, sigma2):
    """E step: Gaussian posterior of each view's coefficients."""
    K = len(modes)
    N = len(y)
    z = np.empty((N, K))
    C = np.empty((N, K, K))
    r = y - np.einsum("nij,pj->npi", Q, mean)
    flat = modes.transpose(1, 2, 0)  # (P, 3, K)
    for n in range(N):
        QB = np.einsum("ij,pjk->pik", Q[n], flat)
        wB = (w[n][:, None, None] * flat).reshape(-1, K)
        A = wB.T @ QB.reshape(-1, K) / sigma2 + np.eye(K)
        C[n] = np.linalg.inv(A)
        z[n] = C[n] @ (wB.T @ r[n].ravel()) / sigma2
    return z, C


def _update_shape(y, Q, w, z, Czz, sigma2):
    """M step: mean and modes, point by point, with a weak pull of modes towards zero."""
    N, P, _ = y.shape
    K = z.shape[1]
    e = np.concatenate([np.ones((N, 1)), z], 1)
    E = np.einsum("nk,nl->nkl", e, e)
    E[:, 1:, 1:] += Czz
    M = 3 * (K + 1)
    outer = np.einsum("nkl,nij->nkilj", E, Q).reshape(N, M * M)
    A = (w.T @ outer).reshape(P, M, M)
    b = np.einsum("np,nk,npi->pki", w, e, y, optimize=True).reshape(P, M)
    pull = np.repeat(np.r_[1e-6, np.full(K, 1e-2)], 3) * w.sum(0).mean() / N
    solution = np.linalg.solve(A + np.diag(pull), b[..., None])[..., 0].reshape(P, K + 1, 3)
    return solution[:, 0], solution[:, 1:].transpose(1, 0, 2)
