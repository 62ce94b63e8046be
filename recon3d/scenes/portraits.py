"""Skin of people who do not exist: a photo, projected on a face model's head."""

from __future__ import annotations

import cv2
import numpy as np

from recon3d.colour import srgb_to_linear
from recon3d.fitting.visibility import surface_points
from recon3d.geometry import umeyama, vertex_normals
from recon3d.morphable.topology import NOSTRILS
from recon3d.scenes.painting import lookup, paint_person, texel_geometry
from recon3d.texturing.light import harmonics
from recon3d.types import FaceModel

FRONTAL_WITHIN = 0.05
"""Of `sideways`: a face turned further has a cheek without pixels to project."""
_OPEN = 0.08
DARK = 0.02
"""Added to colours before their logarithm."""


def sideways(points: np.ndarray) -> float:
    """How far the nose tip of landmarks (478, 2 or 3) px is beside the middle of the outer eye
    corners, share of their distance: about 0 for a frontal face."""
    eyes = points[[33, 263], 0]
    return float(abs(points[4, 0] - eyes.mean()) / max(float(np.ptp(eyes)), 1e-6))


def usable_as_skin(points: np.ndarray) -> bool:
    """Whether a portrait's landmarks (478, 2 or 3) show a frontal face with its mouth closed.

    A cheek that turns away has no pixels to project, and teeth have no place on closed lips.
    """
    width = np.linalg.norm(points[61, :2] - points[291, :2])
    gap = np.linalg.norm(points[13, :2] - points[14, :2])
    return bool(sideways(points) < FRONTAL_WITHIN and gap < _OPEN * width)


def portrait_texture(
    model: FaceModel,
    image: np.ndarray,
    points: np.ndarray,
    seed: int,
    size: int = 1024,
    *,
    even: float = 0.0,
    contrast: float = 1.0,
) -> np.ndarray:
    """A photo projected on a model's mean face, (size, size, 3) linear.

    A thin-plate spline takes the model's landmarks, seen from the front, to the photo's; what
    turns away from the front is painted (`paint_person`), with the photo's colour of skin. That is
    most of the nose's underside, so that the photo's nostrils are lost and are painted as well.

    Parameters
    ----------
    model : FaceModel
    image : (H, W, 3) uint8 sRGB
    points : (478, 2 or 3) px, the photo's landmarks
    seed : int
        Of what is painted.
    size : int
        Side of the texture.
    even : float
        Share of the photo's own light that is taken out (`without_light`): portraits are lit with
        care and their light is half of how they look, people before a camera are not.
    contrast : float
        Of what is left, beside the mean skin: 1 leaves it.
    """
    from scipy.interpolate import RBFInterpolator
    from scipy.ndimage import map_coordinates

    geometry = texel_geometry(model, size)
    place, normal, covered = geometry
    painted = paint_person(model, np.random.default_rng([seed, 15]), size, geometry)
    at = surface_points(model.mean, model.triangles, model.landmarks)
    facing = surface_points(
        vertex_normals(model.mean, model.triangles), model.triangles, model.landmarks
    )[:, 2]
    good = np.isfinite(at).all(1) & (facing > 0.35)
    # the coarse place by a similarity, the rest by a spline, smooth where landmarks are dense
    flat = at[good, :2] * [1, -1]
    s, R, t = umeyama(flat, points[good, :2])
    spline = RBFInterpolator(flat, points[good, :2] - (s * flat @ R.T + t), smoothing=1.0)
    want = covered & (normal[..., 2] > 0.1) & (np.abs(place[..., 0]) < 85) & (place[..., 1] > -110)
    q = place[want][:, :2] * [1, -1]
    pixel = s * q @ R.T + t + _on_a_grid(spline, q)
    linear = srgb_to_linear(image).astype(np.float32)
    seen = np.stack(
        [
            map_coordinates(linear[..., c], pixel.T[::-1] - 0.5, order=1, mode="reflect")
            for c in range(3)
        ],
        1,
    )
    inside = ((pixel > 2) & (pixel < np.array(image.shape[1::-1]) - 2)).all(1)
    # the face oval and a little around: hair of the photo stays where it hangs over the forehead
    middle = at[good].mean(0)
    radius = np.hypot((place[want][:, 0]) / 72, (place[want][:, 1] - middle[1]) / 95)
    share = np.clip((normal[want][:, 2] - 0.1) / 0.4, 0, 1) * np.clip((1.05 - radius) / 0.15, 0, 1)
    share = (share * inside)[:, None]
    plain = inside & (normal[want][:, 2] > 0.3) & (radius < 1)
    seen = without_light(seen, normal[want], place[want], plain, even, contrast)
    skin = np.median(seen[inside & (normal[want][:, 2] > 0.7)], 0)
    factor = np.clip(skin / np.maximum(np.median(painted[want], 0), 1e-3), 0.3, 3)
    shown, photo = np.zeros((size, size, 1), np.float32), np.zeros((size, size, 3), np.float32)
    shown[want], photo[want] = share, share * seen
    out = painted * _tone(photo, shown, painted, factor)
    out[want] = share * seen + (1 - share) * out[want]
    hole = _nostrils(at, place[want])[:, None]
    dark = skin * float(np.random.default_rng([seed, 16]).uniform(0.06, 0.4))
    out[want] = (1 - hole) * out[want] + hole * np.minimum(out[want], dark)
    # an albedo: about as bright as skin is
    level = np.median(out[want] @ np.array([0.2126, 0.7152, 0.0722]))
    return np.clip(out * (0.25 / max(float(level), 1e-3)) ** 0.5, 0.003, 0.95).astype(np.float32)


def _tone(photo: np.ndarray, shown: np.ndarray, painted: np.ndarray, far: np.ndarray) -> np.ndarray:
    """(T, T, 3) factor that gives painted skin (T, T, 3) the tone of the photo (T, T, 3, times its
    share `shown`, (T, T, 1)) nearby, so that no bright rim goes along where the photo ends; where
    it is not near, `far` (3,)."""
    sigma = len(painted) / 64

    def near(values: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(values, (0, 0), sigma).reshape(*values.shape[:2], -1)

    ratio = np.clip(near(photo) / np.maximum(near(shown * painted), 1e-4), 0.2, 5)
    known = np.clip(near(shown) / 0.15, 0, 1)
    return (known * ratio + (1 - known) * far).astype(np.float32)


def _nostrils(landmarks: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(P,) in [0, 1], how far points (P, 3) mm of a face with such landmarks (478, 3) lie in its
    nostrils, as seen from the front."""
    per_mm, margin = 8.0, 4.0
    rings = [landmarks[list(ring), :2] for ring in NOSTRILS]
    if not np.isfinite(rings).all():
        return np.zeros(len(points), np.float32)
    low, high = np.min(rings, (0, 1)) - margin, np.max(rings, (0, 1)) + margin
    width, height = (int(n) for n in np.ceil((high - low) * per_mm))
    mask = np.zeros((height, width, 1), np.uint8)
    for ring in rings:
        outline = cv2.convexHull(np.round((ring - low) * per_mm).astype(np.int32))
        cv2.fillConvexPoly(mask, outline, 255)
    mask = cv2.GaussianBlur(mask[..., 0].astype(np.float32) / 255, (0, 0), 0.6 * per_mm)
    x, y = ((points[:, :2] - low) * per_mm).astype(np.float32).T
    return lookup(mask[..., None], x, y)[:, 0]


def without_light(
    colour: np.ndarray,
    normals: np.ndarray,
    place: np.ndarray,
    skin: np.ndarray,
    even: float,
    contrast: float = 1.0,
) -> np.ndarray:
    """Colours of a lit face as in more even light.

    Parameters
    ----------
    colour : (P, 3) linear
    normals : (P, 3)
    place : (P, 3) mm
    skin : (P,) bool
        From which the light is learned.
    even : float
        Share of the light's variation that is taken out, 0 to 1.
    contrast : float
        Factor of the logarithm's deviation from its mean afterwards.

    Returns
    -------
    (P, 3) linear
    """
    if even == 0 and contrast == 1:
        return colour
    log = np.log(np.maximum(colour, 0) + DARK)
    if even > 0:
        log = log - even * log_light(log, normals, place, skin)
    middle = log[skin].mean(0)
    return np.maximum(np.exp(middle + contrast * (log - middle)) - DARK, 0).astype(np.float32)


def log_light(
    log: np.ndarray, normals: np.ndarray, place: np.ndarray, skin: np.ndarray
) -> np.ndarray:
    """The logarithm of a face's light, beside its mean.

    It is taken to be spherical harmonics of degree two of the normal and, for what casts shadows,
    a quadratic polynomial of the place; features stand out of it and are left (Huber's weights).

    Parameters
    ----------
    log : (P, 3)
        Logarithm of linear colours, `DARK` added.
    normals : (P, 3)
    place : (P, 3) mm
    skin : (P,) bool
        From which the light is learned.

    Returns
    -------
    (P, 3)
    """
    at = (place[:, :2] - place[skin, :2].mean(0)) / place[skin, :2].std(0)
    x, y = at.T
    one = np.ones_like(x)
    basis = np.column_stack([one, harmonics(normals), x, y, x * y, x * x, y * y])
    # enough of a million texels
    some = np.flatnonzero(skin)[:: max(int(skin.sum()) // 20_000, 1)]
    weight = np.ones(len(some))
    for _ in range(6):
        A = basis[some] * weight[:, None]
        normal = A.T @ basis[some] + 1e-3 * len(some) * np.eye(basis.shape[1])
        light = np.linalg.solve(normal, A.T @ log[some])
        off = np.linalg.norm(log[some] - basis[some] @ light, axis=1)
        weight = 1 / np.maximum(off / (1.5 * np.median(off)), 1)
    shading = basis @ light
    # beside the skin it was learned from the light is no more extreme than on it
    shading = np.clip(shading, *np.percentile(shading[some], [1, 99], axis=0))
    return shading - shading[some].mean(0)


def _on_a_grid(spline, points: np.ndarray, step: float = 1.5) -> np.ndarray:
    """A smooth field (P, 2) at points (P, 2) mm, read from a grid of so many mm: a spline through
    hundreds of landmarks is dear at a million places."""
    low = points.min(0) - 2 * step
    columns, rows = np.ceil((points.max(0) - low) / step).astype(int) + 3
    grid = low + step * np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1)
    field = spline(grid.reshape(-1, 2)).reshape(rows, columns, 2).astype(np.float32)
    x, y = ((points - low) / step).astype(np.float32).T
    return lookup(field, x, y)
