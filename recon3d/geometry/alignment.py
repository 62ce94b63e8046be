"""Similarity and rigid alignment of point sets."""

import numpy as np

from recon3d.checks import check_shape


def umeyama(
    source: np.ndarray,
    target: np.ndarray,
    *,
    scale: bool = True,
    weights: np.ndarray | None = None,
) -> tuple[float, np.ndarray, np.ndarray]:
    """Least-squares similarity ``target = s R source + t`` [1]_.

    Parameters
    ----------
    source, target : (P, D)
    scale : bool
        Fit the size too; else s = 1.
    weights : (P,), optional

    Returns
    -------
    s, R, t : float, (D, D), (D,)

    References
    ----------
    .. [1] S. Umeyama, Least-squares estimation of transformation parameters between two point
       patterns, IEEE TPAMI 13(4), 1991.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(9, 3))
    >>> s, R, t = umeyama(x, 2 * x + 1)
    >>> bool(np.isclose(s, 2)), bool(np.allclose(t, 1))
    (True, True)
    """
    bound = check_shape(source, "P D", "source")
    check_shape(target, f"{bound['P']} {bound['D']}", "target")
    w = np.ones(len(source)) if weights is None else np.asarray(weights, np.float64)
    w = w / w.sum()
    mean_s, mean_t = w @ source, w @ target
    a, b = source - mean_s, target - mean_t
    U, S, Vt = np.linalg.svd((b * w[:, None]).T @ a)
    D = np.eye(len(S))
    D[-1, -1] = np.sign(np.linalg.det(U @ Vt))
    R = U @ D @ Vt
    s = float((S * np.diag(D)).sum() / (w @ (a**2).sum(1))) if scale else 1.0
    return s, R, mean_t - s * R @ mean_s


def procrustes_mean(
    shapes: np.ndarray, *, iterations: int = 10, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Generalised Procrustes analysis with similarities.

    Parameters
    ----------
    shapes : (N, P, D)
    iterations : int
    weights : (P,), optional
        Points that decide the alignment.

    Returns
    -------
    mean : (P, D), at the scale and pose of the first shape
    aligned : (N, P, D)
    """
    check_shape(shapes, "N P D", "shapes")
    mean = shapes[0]
    aligned = shapes
    for _ in range(iterations):
        moves = [umeyama(x, mean, weights=weights) for x in shapes]
        aligned = np.stack([s * x @ R.T + t for x, (s, R, t) in zip(shapes, moves, strict=True)])
        new = aligned.mean(0)
        s, R, t = umeyama(new, shapes[0], weights=weights)
        mean = s * new @ R.T + t
    return mean, aligned
