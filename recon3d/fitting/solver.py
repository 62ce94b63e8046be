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
    from scipy.linalg.lapack import dpotrf, dtrtri

    N, P = b.shape
    G = len(g)
    tied = np.zeros(N, bool)
    if C is not None:
        tied[:-1] = C.any((1, 2))
    Y = np.concatenate([W.transpose(0, 2, 1), b[:, :, None]], 2)
    inverse = np.empty_like(V)  # of the Cholesky factors L_n on the diagonal
    below = np.zeros((N, P, P))  # L_{n+1,n}^T: L_n^{-1} C_n
    for n in range(N):
        D, r = V[n], Y[n]
        if n and tied[n - 1]:
            k = below[n - 1].T
            D = D - k @ below[n - 1]
            r = r - k @ Y[n - 1]
        # the transpose of a symmetric matrix lies in memory as LAPACK wants it
        L, status = dpotrf(D.T, lower=1)
        if status:
            raise np.linalg.LinAlgError(f"view {n} of the normal matrix is not positive definite")
        # blocks are small: one product by the inverse factor is faster than a substitution
        inverse[n] = dtrtri(L, lower=1)[0]
        np.matmul(inverse[n], r, out=Y[n])
        if tied[n]:
            np.matmul(inverse[n], C[n], out=below[n])
    flat = Y.reshape(N * P, G + 1)
    S = H - flat[:, :G].T @ flat[:, :G]
    x = _solve_spd(S, g - flat[:, :G].T @ flat[:, G])
    free = Y[..., G] - Y[..., :G] @ x
    y = np.empty_like(b)
    for n in range(N - 1, -1, -1):
        r = free[n] - below[n] @ y[n + 1] if tied[n] else free[n]
        y[n] = r @ inverse[n]
    return x, y, S


def _solve_spd(S: np.ndarray, g: np.ndarray) -> np.ndarray:
    from scipy.linalg import solve_triangular

    L = np.linalg.cholesky(S)
    half = solve_triangular(L, g, lower=True)
    return solve_triangular(L, half, lower=True, trans=1)
