"""The linear algebra of one Levenberg-Marquardt step, linear in the number of views."""

from __future__ import annotations

import numpy as np


def solve_arrow(
    H: np.ndarray,
    g: np.ndarray,
    V: np.ndarray,
    b: np.ndarray,
    W: np.ndarray,
    C: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Solve a symmetric positive definite arrow system by its Schur complement [1]_.

    The unknowns are globals x (identity, focal lengths) and one block y_n per view. Views are
    coupled to the globals and, through temporal smoothness, each to the next one::

        H x           + sum_n W_n y_n                        = g
        W_n^T x + C_{n-1}^T y_{n-1} + V_n y_n + C_n y_{n+1}  = b_n

    Block-tridiagonal Cholesky over the views leaves a dense system of the globals' size, so time
    and memory are linear in N.

    Parameters
    ----------
    H, g : (G, G), (G,)
    V, b : (N, P, P), (N, P)
    W : (N, G, P)
    C : (N - 1, P, P), optional
        Coupling of view n to view n + 1; blocks of zeros where there is none.

    Returns
    -------
    x : (G,)
    y : (N, P)
    S : (G, G)
        The Schur complement: the inverse covariance of the globals.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the system is not positive definite.

    References
    ----------
    .. [1] B. Triggs et al., Bundle adjustment: a modern synthesis, Vision Algorithms, 2000.
    """
    N, P = b.shape
    G = len(g)
    rhs = np.concatenate([W.transpose(0, 2, 1), b[:, :, None]], 2)
    if C is None or not C.any():
        L = np.linalg.cholesky(V)
        Y = _forward(L, rhs)
        S = H - np.tensordot(Y[..., :G], Y[..., :G], ([0, 1], [0, 1]))
        x = _solve_spd(S, g - np.tensordot(Y[..., :G], Y[..., G], ([0, 1], [0, 1])))
        y = _backward(L, (Y[..., G] - Y[..., :G] @ x)[..., None])[..., 0]
        return x, y, S

    from scipy.linalg.lapack import dpotrf, dtrtrs

    tied = C.any((1, 2))
    factors = np.empty_like(V)
    below = np.zeros((N, P, P))  # L_{n+1,n}^T: L_n^{-1} C_n
    Y = np.empty_like(rhs)
    for n in range(N):
        D, r = V[n], rhs[n]
        if n and tied[n - 1]:
            D = D - below[n - 1].T @ below[n - 1]
            r = r - below[n - 1].T @ Y[n - 1]
        L, status = dpotrf(D, lower=1)
        if status:
            raise np.linalg.LinAlgError(f"view {n} of the normal matrix is not positive definite")
        factors[n] = L
        if n < N - 1 and tied[n]:
            both, _ = dtrtrs(L, np.concatenate([r, C[n]], 1), lower=1)
            Y[n], below[n] = both[:, : G + 1], both[:, G + 1 :]
        else:
            Y[n] = dtrtrs(L, r, lower=1)[0]
    flat = Y.reshape(N * P, G + 1)
    S = H - flat[:, :G].T @ flat[:, :G]
    x = _solve_spd(S, g - flat[:, :G].T @ flat[:, G])
    free = Y[..., G] - Y[..., :G] @ x
    y = np.empty_like(b)
    for n in range(N - 1, -1, -1):
        r = free[n] if n == N - 1 else free[n] - below[n] @ y[n + 1]
        y[n] = dtrtrs(factors[n], r, lower=1, trans=1)[0]
    return x, y, S


def _solve_spd(S: np.ndarray, g: np.ndarray) -> np.ndarray:
    L = np.linalg.cholesky(S)
    return _backward(L, _forward(L, g[:, None]))[:, 0]


def _forward(L: np.ndarray, rhs: np.ndarray) -> np.ndarray:
    return np.linalg.solve(L, rhs) if L.ndim == 3 else _triangular(L, rhs, 0)


def _backward(L: np.ndarray, rhs: np.ndarray) -> np.ndarray:
    return np.linalg.solve(L.swapaxes(-1, -2), rhs) if L.ndim == 3 else _triangular(L, rhs, 1)


def _triangular(L: np.ndarray, rhs: np.ndarray, trans: int) -> np.ndarray:
    from scipy.linalg import solve_triangular

    return solve_triangular(L, rhs, lower=True, trans=trans)
