"""Points given as triangle and barycentric coordinates."""

from __future__ import annotations

import numpy as np

from recon3d.types import LandmarkEmbedding


def embed(vertices: np.ndarray, triangles: np.ndarray, embedding: LandmarkEmbedding) -> np.ndarray:
    """Evaluate an embedding on vertex data.

    Parameters
    ----------
    vertices : (..., V, D)
        Positions, modes or colours.
    triangles : (F, 3) int
    embedding : LandmarkEmbedding

    Returns
    -------
    (..., L, D); NaN where the model has no such point
    """
    corners = triangles[np.maximum(embedding.triangle, 0)]
    points = np.einsum(
        "...lkd,lk->...ld", np.asarray(vertices)[..., corners, :], embedding.barycentric
    )
    return np.where((embedding.triangle >= 0)[:, None], points, np.nan)


def embedding_of_vertices(indices: np.ndarray, triangles: np.ndarray) -> LandmarkEmbedding:
    """The embedding of points that are vertices; -1 gives a missing point.

    Parameters
    ----------
    indices : (L,) int
    triangles : (F, 3) int
    """
    indices = np.asarray(indices)
    first = np.full(triangles.max() + 1, -1, np.int64)
    corner = np.zeros(triangles.max() + 1, np.int64)
    flat = triangles.ravel()
    order = np.arange(len(flat))[::-1]
    first[flat[order]] = order // 3
    corner[flat[order]] = order % 3
    known = indices >= 0
    safe = np.where(known, indices, 0)
    barycentric = np.eye(3)[corner[safe]]
    return LandmarkEmbedding(np.where(known, first[safe], -1), barycentric)


def closest_embedding(
    points: np.ndarray, vertices: np.ndarray, triangles: np.ndarray
) -> tuple[LandmarkEmbedding, np.ndarray]:
    """Embed points at the closest place of a surface.

    Parameters
    ----------
    points : (L, 3)
    vertices : (V, 3)
    triangles : (F, 3) int

    Returns
    -------
    embedding : LandmarkEmbedding
    distance : (L,)
    """
    import trimesh

    mesh = trimesh.Trimesh(vertices, triangles, process=False)
    place, distance, triangle = trimesh.proximity.closest_point_naive(mesh, points)
    barycentric = trimesh.triangles.points_to_barycentric(mesh.triangles[triangle], place)
    return LandmarkEmbedding(triangle.astype(np.int64), barycentric), distance
