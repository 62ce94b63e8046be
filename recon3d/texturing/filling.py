"""Completing what no frame saw: the mirror image first, then the smoothest continuation.

The smooth fields live on the vertices of the mesh, not in the texture, and so know no seams.
"""

from __future__ import annotations

import numpy as np

from recon3d.geometry import graph_laplacian
from recon3d.texturing.atlas import Atlas
from recon3d.texturing.observation import sample


def to_vertices(
    atlas: Atlas, values: np.ndarray, weights: np.ndarray, n_vertices: int
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted means of texel values around every vertex.

    Parameters
    ----------
    atlas : Atlas
    values : (P, C)
    weights : (P,)
    n_vertices : int

    Returns
    -------
    means : (V, C), zero where nothing was gathered
    gathered : (V,) sum of weights
    """
    corner = atlas.corners.ravel()
    share = (atlas.barycentric * weights[:, None]).ravel().astype(np.float64)
    gathered = np.bincount(corner, weights=share, minlength=n_vertices)
    means = np.stack(
        [
            np.bincount(corner, weights=share * np.repeat(values[:, c], 3), minlength=n_vertices)
            for c in range(values.shape[1])
        ],
        axis=1,
    )
    return means / np.maximum(gathered, 1e-12)[:, None], gathered


def membrane(
    triangles: np.ndarray, values: np.ndarray, weights: np.ndarray, *, pull: float = 1e-4
) -> np.ndarray:
    """Smoothest field on a mesh through weighted data.

    Minimises ``sum w (x - values)^2 + sum_edges (x_i - x_j)^2 + pull * sum (x - mean)^2``.

    Parameters
    ----------
    triangles : (F, 3)
    values : (V, C)
    weights : (V,)
    pull : float
        Towards the weighted mean; decides alone on parts of the mesh without any data.

    Returns
    -------
    (V, C)
    """
    from scipy.sparse import diags
    from scipy.sparse.linalg import splu

    laplacian = graph_laplacian(triangles, len(values))
    mean = (weights[:, None] * values).sum(0) / max(weights.sum(), 1e-12)
    system = (diags(weights + pull) + laplacian).tocsc()
    return splu(system).solve(weights[:, None] * values + pull * mean)


def fill(
    atlas: Atlas,
    triangles: np.ndarray,
    n_vertices: int,
    values: np.ndarray,
    known: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Complete a texture.

    Parameters
    ----------
    atlas : Atlas
    triangles : (F, 3)
    n_vertices : int
    values : (P, 3) linear, positive where known
    known : (P,) in [0, 1]
        How much of a texel was observed.

    Returns
    -------
    completed : (P, 3)
    mirrored : (P,) share of a texel that was taken from the mirror image
    """
    floor = 2e-3
    log = np.log(np.maximum(values, 0) + floor)
    vertex_log, gathered = to_vertices(atlas, log, known, n_vertices)
    confidence = gathered / max(float(np.percentile(gathered, 90)), 1e-9)
    smooth = atlas.interpolate(membrane(triangles, vertex_log, 10 * confidence))

    has_mirror = atlas.mirror_x >= 0
    image = atlas.image(np.concatenate([log * known[:, None], known[:, None]], 1).astype("f4"))
    other = np.zeros((len(atlas), 4), np.float32)
    other[has_mirror] = sample(
        image, atlas.mirror_x[has_mirror], atlas.mirror_y[has_mirror], cubic=False
    )
    other_known = np.clip(other[:, 3], 0, 1)
    other_log = other[:, :3] / np.maximum(other_known, 1e-3)[:, None]
    # The two sides of a face are lit and coloured a little differently: carry the ratio that is
    # seen where both are known over to where only one is.
    both = known * other_known
    ratio, gathered = to_vertices(atlas, log - other_log, both, n_vertices)
    confidence = gathered / max(float(np.percentile(gathered, 90)), 1e-9)
    if confidence.max() > 0:
        ratio = membrane(triangles, np.clip(ratio, -0.7, 0.7), 10 * confidence, pull=1e-3)
        other_log = other_log + atlas.interpolate(ratio)
    use = np.clip((other_known - 0.3) / 0.5, 0, 1)[:, None]
    guess = use * other_log + (1 - use) * smooth
    completed = np.where(
        known[:, None] > 0.999, log, known[:, None] * log + (1 - known[:, None]) * guess
    )
    mirrored = (1 - known) * use[:, 0]
    return (np.exp(completed) - floor).clip(0).astype(np.float32), mirrored.astype(np.float32)


def bleed(image: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Continue a texture beyond its charts by the nearest texel, so that interpolation at a
    border does not mix in emptiness.

    Parameters
    ----------
    image : (T, T, ...)
    valid : (T, T) bool

    Returns
    -------
    (T, T, ...)
    """
    if valid.all() or not valid.any():
        return image
    from scipy.ndimage import distance_transform_edt

    row, column = distance_transform_edt(~valid, return_distances=False, return_indices=True)
    return image[row, column]
