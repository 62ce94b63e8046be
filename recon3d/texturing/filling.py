"""Completing what no frame saw: the mirror image first, then what the population suggests.

Where the model has albedo modes, unseen skin is the mean of their posterior given the skin that was
seen, carried over to the clip's own colours; without them it is the smoothest continuation. The
smooth fields live on the vertices of the mesh, not in the texture, and so know no seams.
"""

from __future__ import annotations

import cv2
import numpy as np

from recon3d.colour import linear_to_srgb
from recon3d.geometry import graph_laplacian
from recon3d.morphable.albedo import EXPOSURE_SHARE, albedo_coefficients, model_albedo
from recon3d.texturing.atlas import Atlas
from recon3d.texturing.observation import sample
from recon3d.types import FaceModel

FLOOR = 2e-3
"""Linear light added before logarithms."""
GUESS_FROM = (0.008, 0.024)
"""Distance from the known, share of the texture's side, over which a guess's detail sets in."""


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
    model: FaceModel,
    values: np.ndarray,
    known: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Complete a texture.

    Parameters
    ----------
    atlas : Atlas
    model : FaceModel
    values : (P, 3) linear, positive where known
    known : (P,) in [0, 1]
        How much of a texel was observed.

    Returns
    -------
    completed : (P, 3)
    mirrored : (P,) share of a texel that was taken from the mirror image
    """
    triangles, n_vertices = model.triangles, model.n_vertices
    log = np.log(np.maximum(values, 0) + FLOOR)
    expected = expected_skin(atlas, model, values, known)
    # What is seen and the population does not explain, continued smoothly into what is not.
    vertex_log, gathered = to_vertices(atlas, log - expected, known, n_vertices)
    confidence = gathered / max(float(np.percentile(gathered, 90)), 1e-9)
    unseen = expected + atlas.interpolate(membrane(triangles, vertex_log, 10 * confidence))

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
    guess = use * other_log + (1 - use) * unseen
    completed = continue_into(atlas, log, guess, known)
    mirrored = (1 - known) * use[:, 0]
    return (np.exp(completed) - FLOOR).clip(0).astype(np.float32), mirrored.astype(np.float32)


def continue_into(
    atlas: Atlas, values: np.ndarray, guess: np.ndarray, known: np.ndarray
) -> np.ndarray:
    """Set a guess into what is known so that no border shows.

    In the gradient domain [1]_: beside the border the known is continued smoothly, and the steps
    of the guess from texel to texel set in with the distance from it. What lies in between, known
    a little, is drawn to its value by as much. So a slit between the lips or a nostril, a few
    texels wide, is a membrane, and a cheek that was not seen has the guess's detail without its
    offset. Minimises

        sum w (x - values)^2 + sum_ij (x_i - x_j - b_ij (guess_i - guess_j))^2 + pull (x - guess)^2.

    Parameters
    ----------
    atlas : Atlas
    values, guess : (P, C)
    known : (P,) in [0, 1]
        Beyond 0.999 values stay as they are.

    Returns
    -------
    (P, C) float32

    References
    ----------
    .. [1] P. Perez, M. Gangnet and A. Blake, Poisson image editing, SIGGRAPH 2003.
    """
    from scipy.sparse import csr_matrix, diags
    from scipy.sparse.linalg import cg

    fixed = known > 0.999
    if fixed.all() or known.max() <= 0:
        return np.where(fixed[:, None], values, guess).astype(np.float32)
    number = np.full((atlas.size, atlas.size), -1, np.int64)
    number[atlas.row, atlas.column] = np.arange(len(atlas))
    far = np.ones(number.shape, np.uint8)
    far[atlas.row[known > 0.5], atlas.column[known > 0.5]] = 0
    away = cv2.distanceTransform(far, cv2.DIST_L2, 5)[atlas.row, atlas.column] / atlas.size
    share = np.clip((away - GUESS_FROM[0]) / (GUESS_FROM[1] - GUESS_FROM[0]), 0, 1)

    steps = []
    for a, b in ((number[:, :-1], number[:, 1:]), (number[:-1], number[1:])):
        both = (a >= 0) & (b >= 0)
        steps.append(np.stack([a[both], b[both]], 1))
    i, j = np.concatenate(steps).T
    open_ = ~(fixed[i] & fixed[j])
    i, j = i[open_], j[open_]
    n, m = len(atlas), len(i)
    difference = csr_matrix(
        (np.repeat([1.0, -1.0], m), (np.tile(np.arange(m), 2), np.concatenate([i, j]))), (m, n)
    )
    step = np.minimum(share[i], share[j])[:, None] * (guess[i] - guess[j])
    weight = known**2 / (1.001 - known)
    pull = 1e-3 * share
    system = (difference.T @ difference + diags(weight + pull)).tocsr()
    right = difference.T @ step + weight[:, None] * values + pull[:, None] * guess
    out = np.where(fixed[:, None], values, known[:, None] * values + (1 - known[:, None]) * guess)
    out = out.astype(np.float64)
    free = np.flatnonzero(~fixed)
    inner = system[free][:, free]
    right = right[free] - system[free][:, np.flatnonzero(fixed)] @ values[fixed]
    scale = diags(1 / np.maximum(inner.diagonal(), 1e-9))
    for c in range(values.shape[1]):
        # Far from the border the start is the answer, near it a few steps reach far enough.
        out[free, c], _ = cg(inner, right[:, c], x0=out[free, c], M=scale, maxiter=80)
    return out.astype(np.float32)


def outweighed(atlas: Atlas, pixels: np.ndarray, ratio: float = 0.2) -> np.ndarray:
    """How much a texel's own observation counts beside that of its mirror image.

    A profile sees a few texels of the far side past the bridge of the nose: the least error of
    the pose puts hair or background there. Where the other side was seen many times better the
    mirror image is the better guess; between sides seen alike nothing changes.

    Parameters
    ----------
    atlas : Atlas
    pixels : (P,)
        Observed pixels by texel.
    ratio : float
        Of a texel's pixels to its mirror image's at which both count the same.

    Returns
    -------
    (P,) float32 in [0, 1]
    """
    has_mirror = atlas.mirror_x >= 0
    image = atlas.image(np.asarray(pixels, np.float32)[:, None]).reshape(atlas.size, atlas.size)
    other = np.zeros(len(atlas), np.float32)
    other[has_mirror] = sample(
        image, atlas.mirror_x[has_mirror], atlas.mirror_y[has_mirror], cubic=False
    )
    own = np.asarray(pixels, np.float32) ** 3
    return own / np.maximum(own + (ratio * other) ** 3, 1e-12)


def expected_skin(
    atlas: Atlas, model: FaceModel, values: np.ndarray, known: np.ndarray
) -> np.ndarray:
    """Log colour that the model's population suggests for all texels, given those that are known.

    Parameters
    ----------
    atlas : Atlas
    model : FaceModel
    values : (P, 3) linear
    known : (P,) in [0, 1]

    Returns
    -------
    (P, 3) float32
        Logarithm of linear light plus `FLOOR`; zero where the model has no albedo modes.
    """
    nothing = np.zeros((len(atlas), 3), np.float32)
    face = model.regions.get("face")
    if model.albedo_modes is None or face is None:
        return nothing
    weight = known * np.clip(atlas.interpolate(face), 0, 1)
    side = len(model.albedo_mean)
    both = np.concatenate([values.clip(0) * weight[:, None], weight[:, None]], 1)
    image = atlas.image(both.astype(np.float32))
    shrink = cv2.INTER_AREA if side < atlas.size else cv2.INTER_LINEAR
    image = cv2.resize(image, (side, side), interpolation=shrink)
    seen = image[..., 3]
    if seen.sum() < 50:
        return nothing
    colour = image[..., :3] / np.maximum(seen, 1e-6)[..., None]
    # The clip's exposure and white balance are its own: the same share is taken for them as when
    # the modes were learned, the rest is the person's.
    typical = np.log(colour + FLOOR) - np.log(model_albedo(model) + FLOOR)
    ratio = np.median(typical[seen > 0.5], axis=0) if (seen > 0.5).sum() > 50 else np.zeros(3)
    brightness = ratio.mean()
    taken = EXPOSURE_SHARE[0] * brightness + EXPOSURE_SHARE[1] * (ratio - brightness)
    encoded = linear_to_srgb(np.clip(colour * np.exp(-taken), 0, 1))
    coefficients, _ = albedo_coefficients(model, encoded, np.clip(seen, 0, 1))
    guess = model_albedo(model, coefficients) * np.exp(taken)
    scale = side / atlas.size
    at = sample(
        guess.astype(np.float32),
        ((atlas.column + 0.5) * scale).astype(np.float32),
        ((atlas.row + 0.5) * scale).astype(np.float32),
        cubic=False,
    )
    return np.log(at + FLOOR).astype(np.float32)


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
