"""Texture coordinates of the embedded model: one chart without overlaps."""

from __future__ import annotations

import numpy as np

from recon3d.geometry import mesh_edges


def mean_value_weights(vertices: np.ndarray, triangles: np.ndarray):
    """Mean value coordinates of each vertex in its ring [1]_, sparse (V, V), positive.

    References
    ----------
    .. [1] M. Floater, Mean value coordinates, Computer Aided Geometric Design 20(1), 2003.
    """
    from scipy.sparse import coo_matrix

    rows, columns, values = [], [], []
    for k in range(3):
        i, j, m = triangles[:, k], triangles[:, (k + 1) % 3], triangles[:, (k + 2) % 3]
        u, w = vertices[j] - vertices[i], vertices[m] - vertices[i]
        lu, lw = np.linalg.norm(u, axis=1), np.linalg.norm(w, axis=1)
        cosine = (u * w).sum(1) / np.maximum(lu * lw, 1e-12)
        half = np.tan(np.arccos(np.clip(cosine, -0.999, 0.9999)) / 2)
        rows += [i, i]
        columns += [j, m]
        values += [half / np.maximum(lu, 1e-6), half / np.maximum(lw, 1e-6)]
    n = len(vertices)
    return coo_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), (n, n)
    ).tocsr()


def convex_embedding(
    vertices: np.ndarray,
    triangles: np.ndarray,
    boundary: np.ndarray,
    place: np.ndarray,
    *,
    rounds: int = 0,
    area_weight: np.ndarray | None = None,
) -> np.ndarray:
    """Flatten a disk onto a convex region, without flipped triangles.

    Every inner vertex is a positive mean of its neighbours (Tutte, Floater), so that nothing can
    overlap; the weights are then moved against the stretch, still positive [1]_.

    Parameters
    ----------
    vertices : (V, 3) mm
    triangles : (F, 3) int
    boundary : (B,) int, fixed vertices; place : (B, 2)
    rounds : int
        Stretch-reducing rounds.
    area_weight : (V,), optional
        Wanted sampling density relative to its surroundings.

    Returns
    -------
    (V, 2)

    References
    ----------
    .. [1] S. Yoshizawa, A. Belyaev, H.-P. Seidel, A fast and simple stretch-minimizing mesh
       parameterization, Shape Modeling International, 2004.
    """
    from scipy.sparse import diags
    from scipy.sparse.linalg import splu

    n = len(vertices)
    used = np.unique(triangles)
    inner = np.setdiff1d(used, boundary)
    W = mean_value_weights(vertices, triangles)
    out = np.zeros((n, 2))
    out[boundary] = place
    best, best_cost = None, np.inf
    wanted = np.ones(n) if area_weight is None else area_weight
    for _ in range(rounds + 1):
        L = diags(np.asarray(W.sum(1)).ravel()) - W
        solve = splu(L[inner][:, inner].tocsc()).solve
        out[inner] = solve(-(L[inner][:, boundary] @ place))
        stretch, area = _stretch(vertices, out, triangles)
        # Mean squared stretch around a vertex; neighbours attract less where the map is stretched.
        s = np.bincount(triangles.ravel(), np.repeat(area * stretch**2, 3), n)
        a = np.bincount(triangles.ravel(), np.repeat(area, 3), n)
        sigma = np.sqrt(s / np.maximum(a, 1e-12)) * wanted
        cost = float((sigma**2 * a)[inner].sum())
        if cost > best_cost:
            break
        best, best_cost = out.copy(), cost
        W = W @ diags(np.clip(sigma / np.median(sigma[inner]), 0.05, 20.0) ** 0.5)
    return best


def _stretch(vertices: np.ndarray, uv: np.ndarray, triangles: np.ndarray):
    """Root mean square stretch of each triangle from the plane to space, and its area in space."""
    p, q = vertices[triangles], uv[triangles]
    e1, e2 = p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]
    f1, f2 = q[:, 1] - q[:, 0], q[:, 2] - q[:, 0]
    det = f1[:, 0] * f2[:, 1] - f1[:, 1] * f2[:, 0]
    safe = np.where(np.abs(det) < 1e-15, 1e-15, det)[:, None]
    ds = (e1 * f2[:, 1:] - e2 * f1[:, 1:]) / safe
    dt = (e2 * f1[:, :1] - e1 * f2[:, :1]) / safe
    stretch = np.sqrt(((ds**2).sum(1) + (dt**2).sum(1)) / 2)
    return stretch, np.linalg.norm(np.cross(e1, e2), axis=1) / 2


def overlap_count(uv: np.ndarray, triangles_uv: np.ndarray, size: int = 2048) -> dict[str, int]:
    """Check texture coordinates for flipped and overlapping triangles.

    Parameters
    ----------
    uv : (U, 2); triangles_uv : (F, 3)
    size : int
        Grid on whose nodes coverage is counted, besides the exact sign test.

    Returns
    -------
    dict
        ``flipped`` triangles, ``degenerate`` ones, and ``overlapping`` grid nodes that lie strictly
        inside two triangles.
    """
    p = uv[triangles_uv]
    d1, d2 = p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]
    area = d1[:, 0] * d2[:, 1] - d1[:, 1] * d2[:, 0]
    count = np.zeros((size, size), np.uint8)
    q = p * size - 0.5
    low, high = np.ceil(q.min(1)).astype(int), np.floor(q.max(1)).astype(int)
    for t in range(len(q)):
        (x0, y0), (x1, y1) = low[t], high[t]
        if x1 < x0 or y1 < y0:
            continue
        x, y = np.meshgrid(np.arange(x0, x1 + 1), np.arange(y0, y1 + 1))
        inside = np.ones(x.shape, bool)
        sign = np.sign(area[t])
        for k in range(3):
            a, b = q[t, k], q[t, (k + 1) % 3]
            cross = (b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])
            inside &= sign * cross > 1e-9
        y0, y1, x0, x1 = (int(np.clip(v, 0, size - 1)) for v in (y0, y1, x0, x1))
        if inside.shape == (y1 - y0 + 1, x1 - x0 + 1):
            count[y0 : y1 + 1, x0 : x1 + 1] += inside
    return {
        "flipped": int((area < 0).sum()),
        "degenerate": int((np.abs(area) < 1e-14).sum()),
        "overlapping": int((count > 1).sum()),
    }


def midpoint_map(triangles: np.ndarray, n_vertices: int, levels: int):
    """Plain one-to-four split as an operator with the numbering of `loop_subdivision`."""
    from scipy.sparse import coo_matrix, identity, vstack

    from recon3d.geometry import loop_subdivision

    M = identity(n_vertices, format="csr")
    for _ in range(levels):
        edges, _, _ = mesh_edges(triangles)
        n, E = M.shape[0], len(edges)
        half = coo_matrix(
            (np.full(2 * E, 0.5), (np.tile(np.arange(E), 2), edges.T.ravel())), (E, n)
        )
        M = vstack([M, half @ M]).tocsr()
        _, triangles = loop_subdivision(triangles, n)
    return M
