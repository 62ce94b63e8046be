"""Operators on triangle meshes: normals, Loop subdivision, Laplacians.

Linear operators are returned as scipy sparse matrices, so that the same one maps positions, modes
and texture coordinates.
"""

from __future__ import annotations

import numpy as np

from recon3d.checks import check_shape


def triangle_normals(
    vertices: np.ndarray, triangles: np.ndarray, *, unit: bool = True
) -> np.ndarray:
    """Outward normals of counter-clockwise triangles.

    Parameters
    ----------
    vertices : (..., V, 3)
    triangles : (F, 3) int
    unit : bool
        Scale to length 1 (zero for degenerate triangles); else the length is twice the area.

    Returns
    -------
    (..., F, 3)
    """
    a, b, c = (vertices[..., triangles[:, k], :] for k in range(3))
    normals = np.cross(b - a, c - a)
    if unit:
        length = np.linalg.norm(normals, axis=-1, keepdims=True)
        normals = normals / np.where(length > 0, length, 1.0)
    return normals


def vertex_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Area-weighted vertex normals.

    Parameters
    ----------
    vertices : (V, 3)
    triangles : (F, 3) int, counter-clockwise seen from outside

    Returns
    -------
    (V, 3), unit length; zero for vertices without area

    Examples
    --------
    >>> v = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    >>> vertex_normals(v, np.array([[0, 1, 2]]))[0]
    array([0., 0., 1.])
    """
    check_shape(vertices, "V 3", "vertices")
    check_shape(triangles, "F 3", "triangles")
    faces = triangle_normals(vertices, triangles, unit=False)
    normals = np.zeros((len(vertices), 3))
    for axis in range(3):
        for corner in range(3):
            normals[:, axis] += np.bincount(
                triangles[:, corner], faces[:, axis], minlength=len(vertices)
            )
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return normals / np.where(length > 0, length, 1.0)


def mesh_edges(triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Undirected edges of a mesh.

    Parameters
    ----------
    triangles : (F, 3) int

    Returns
    -------
    edges : (E, 2) int64, smaller index first, sorted
    of_triangle : (F, 3) int64
        Edge from corner k to corner k + 1 of each triangle.
    boundary : (E,) bool
        Edges of a single triangle.
    """
    check_shape(triangles, "F 3", "triangles")
    half = np.sort(np.stack([triangles, np.roll(triangles, -1, 1)], -1).reshape(-1, 2), 1)
    # As one number each, edges sort many times as fast as in rows.
    span = int(half.max(initial=0)) + 1
    number = half[:, 0].astype(np.int64) * span + half[:, 1]
    number, inverse, count = np.unique(number, return_inverse=True, return_counts=True)
    edges = np.stack(np.divmod(number, span), 1)
    return edges, inverse.reshape(-1, 3), count == 1


def graph_laplacian(triangles: np.ndarray, n_vertices: int):
    """Combinatorial Laplacian ``D - A`` of the edge graph, sparse (V, V), positive semidefinite."""
    from scipy.sparse import coo_matrix, diags

    edges, _, _ = mesh_edges(triangles)
    i, j = edges.T
    A = coo_matrix((np.ones(len(edges)), (i, j)), (n_vertices, n_vertices))
    A = (A + A.T).tocsr()
    return (diags(np.asarray(A.sum(1)).ravel()) - A).tocsr()


def cotangent_laplacian(vertices: np.ndarray, triangles: np.ndarray):
    """Cotangent Laplacian and lumped mass matrix [1]_.

    Parameters
    ----------
    vertices : (V, 3)
    triangles : (F, 3) int

    Returns
    -------
    L : sparse (V, V), positive semidefinite; ``f @ L @ f`` is the Dirichlet energy of f
    mass : (V,)
        A third of the area around each vertex.

    References
    ----------
    .. [1] U. Pinkall, K. Polthier, Computing discrete minimal surfaces and their conjugates,
       Experimental Mathematics 2(1), 1993.
    """
    from scipy.sparse import coo_matrix, diags

    check_shape(vertices, "V 3", "vertices")
    n = len(vertices)
    area2 = np.linalg.norm(triangle_normals(vertices, triangles, unit=False), axis=1)
    rows, columns, values = [], [], []
    for k in range(3):
        i, j, o = triangles[:, (k + 1) % 3], triangles[:, (k + 2) % 3], triangles[:, k]
        u, w = vertices[i] - vertices[o], vertices[j] - vertices[o]
        cotangent = (u * w).sum(1) / np.maximum(area2, 1e-12)
        rows += [i, j]
        columns += [j, i]
        values += [cotangent / 2, cotangent / 2]
    W = coo_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), (n, n)
    ).tocsr()
    mass = np.bincount(triangles.ravel(), np.repeat(area2 / 6, 3), minlength=n)
    return (diags(np.asarray(W.sum(1)).ravel()) - W).tocsr(), mass


def loop_subdivision(triangles: np.ndarray, n_vertices: int):
    """One step of Loop subdivision as a linear operator [1]_.

    Old vertices keep their numbers; those of edges follow in the order of `mesh_edges`. Boundaries
    follow the cubic B-spline of their loop, whatever lies inside.

    Parameters
    ----------
    triangles : (F, 3) int
    n_vertices : int

    Returns
    -------
    S : sparse (V + E, V)
        ``S @ vertices`` are the new vertices.
    finer : (4 F, 3) int64

    References
    ----------
    .. [1] C. Loop, Smooth subdivision surfaces based on triangles, Master's thesis, University of
       Utah, 1987.
    """
    from scipy.sparse import coo_matrix, vstack

    edges, of_triangle, boundary = mesh_edges(triangles)
    E = len(edges)

    # Edge points: 3/8 of the ends and 1/8 of the two opposite corners; 1/2 on a boundary.
    opposite = np.roll(triangles, 1, 1).ravel()
    edge = of_triangle.ravel()
    inner = ~boundary[edge]
    ends = np.where(boundary, 0.5, 0.375)
    edge_rule = coo_matrix(
        (
            np.concatenate([ends, ends, np.full(inner.sum(), 0.125)]),
            (
                np.concatenate([np.arange(E), np.arange(E), edge[inner]]),
                np.concatenate([edges[:, 0], edges[:, 1], opposite[inner]]),
            ),
        ),
        (E, n_vertices),
    )
    ring, weight, on_boundary = _vertex_rings(edges, boundary, n_vertices)
    beta = np.where(on_boundary, 0.125, _loop_beta(weight))
    centre = np.where(weight > 0, 1 - weight * beta, 1.0)
    (i, j), k = ring, np.arange(n_vertices)
    vertex_rule = coo_matrix(
        (
            np.concatenate([centre, beta[i]]),
            (np.concatenate([k, i]), np.concatenate([k, j])),
        ),
        (n_vertices, n_vertices),
    )
    a, b, c = triangles.T
    ab, bc, ca = (of_triangle + n_vertices).T
    finer = np.stack(
        [np.stack(t, 1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))], 1
    ).reshape(-1, 3)
    return vstack([vertex_rule, edge_rule]).tocsr(), finer


def loop_limit(triangles: np.ndarray, n_vertices: int):
    """Operator that moves the vertices to where infinite Loop subdivision takes them.

    Returns
    -------
    sparse (V, V)
    """
    from scipy.sparse import coo_matrix

    edges, _, boundary = mesh_edges(triangles)
    (i, j), weight, on_boundary = _vertex_rings(edges, boundary, n_vertices)
    beta = np.maximum(_loop_beta(weight), 1e-12)
    limit = np.where(on_boundary, 1 / 6, 1 / (3 / (8 * beta) + np.maximum(weight, 1)))
    limit = np.where(weight > 0, limit, 0.0)
    k = np.arange(n_vertices)
    return coo_matrix(
        (
            np.concatenate([1 - weight * limit, limit[i]]),
            (np.concatenate([k, i]), np.concatenate([k, j])),
        ),
        (n_vertices, n_vertices),
    ).tocsr()


def subdivide(triangles: np.ndarray, n_vertices: int, levels: int, *, to_limit: bool = True):
    """Several Loop steps in one operator, ending on the limit surface.

    Parameters
    ----------
    triangles : (F, 3) int
    n_vertices : int
    levels : int
    to_limit : bool
        Move the final vertices to their limit positions.

    Returns
    -------
    S : sparse (V', V)
    finer : (4**levels F, 3) int64
    """
    from scipy.sparse import identity

    S = identity(n_vertices, format="csr")
    for _ in range(levels):
        step, triangles = loop_subdivision(triangles, S.shape[0])
        S = step @ S
    if to_limit:
        S = loop_limit(triangles, S.shape[0]) @ S
    return S.tocsr(), triangles


def interpolating_control(S, points: np.ndarray, *, weight: np.ndarray | None = None):
    """Control points whose subdivided surface passes through given points.

    Parameters
    ----------
    S : sparse (V', V)
        From `subdivide`; its first V rows are the images of the control vertices.
    points : (V, D)
    weight : (V,), optional
        1 interpolates, 0 takes the point itself as control point (the surface is smoother there).

    Returns
    -------
    (V, D)
    """
    from scipy.sparse import diags, identity
    from scipy.sparse.linalg import splu

    n = S.shape[1]
    A = S[:n]
    if weight is not None:
        A = diags(weight) @ A + diags(1 - weight) @ identity(n)
    return splu(A.tocsc()).solve(np.ascontiguousarray(points, np.float64))


def _loop_beta(valence: np.ndarray) -> np.ndarray:
    """Loop's weight of one neighbour of an inner vertex."""
    n = np.maximum(valence, 1)
    return (5 / 8 - (3 / 8 + np.cos(2 * np.pi / n) / 4) ** 2) / n


def _vertex_rings(edges: np.ndarray, boundary: np.ndarray, n_vertices: int):
    """Neighbours that count in a vertex rule: all, or along the boundary those on it."""
    on_boundary = np.zeros(n_vertices, bool)
    on_boundary[edges[boundary]] = True
    i, j = np.concatenate([edges, edges[:, ::-1]]).T
    along = np.concatenate([boundary, boundary])
    used = ~on_boundary[i] | along
    i, j = i[used], j[used]
    return (i, j), np.bincount(i, minlength=n_vertices), on_boundary
