"""Albedo of many people from one photo each: fit, unwrap, take the light out.

One photo cannot tell dark skin from a dark exposure, nor a shadow from paint. What many photos
share decides: the light of a photo is the smooth shading that best explains how it differs from the
mean albedo of all, and the mean is taken anew once the lights are known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from recon3d.colour import linear_to_srgb
from recon3d.geometry import so3_exp, umeyama
from recon3d.morphable.albedo import EXPOSURE_SHARE, AlbedoSettings, fit_ppca
from recon3d.morphable.photos import PhotoLandmarks, read_metadata, read_photos
from recon3d.morphable.quality import albedo_figures
from recon3d.texturing.atlas import Atlas, build_atlas
from recon3d.texturing.filling import bleed, membrane, to_vertices
from recon3d.texturing.light import FLOOR, LIMIT, harmonics
from recon3d.texturing.observation import observe, sample
from recon3d.texturing.settings import TexturingSettings
from recon3d.types import FaceFit, FaceModel, FaceObservation, ImagePatch


@dataclass(frozen=True)
class Portraits:
    """Photos in texture space.

    Attributes
    ----------
    atlas : Atlas
        Of the texture's size.
    first, second : (H,) int64
        Texels of the first side and their mirror images (the same texel on a column of its own
        does not occur: the texture has an even number of columns).
    names : (N,) str
    log : (N, 2, H, 3) float32
        Logarithm of linear light.
    weight : (N, 2, H) float32 in [0, 1]
    normal : (N, 2, H, 3) float16, camera axes
    """

    atlas: Atlas
    first: np.ndarray
    second: np.ndarray
    names: np.ndarray
    log: np.ndarray
    weight: np.ndarray
    normal: np.ndarray


def mirrored_pairs(atlas: Atlas, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Texels of the left half whose mirror column is wanted too, and their mirror images.

    Parameters
    ----------
    atlas : Atlas
        Of a model whose texture is symmetric about its middle column.
    wanted : (P,) bool

    Returns
    -------
    first, second : (H,) int64, numbers of texels
    """
    number = np.full((atlas.size, atlas.size), -1)
    chosen = np.flatnonzero(wanted)
    number[atlas.row[chosen], atlas.column[chosen]] = chosen
    left = chosen[atlas.column[chosen] < atlas.size // 2]
    right = number[atlas.row[left], atlas.size - 1 - atlas.column[left]]
    return left[right >= 0], right[right >= 0]


def fit_portrait(
    model: FaceModel,
    points: np.ndarray,
    *,
    distance: float = 1000.0,
    spread: np.ndarray | None = None,
) -> FaceFit:
    """Lay the model under the landmarks of one photo.

    Pose, identity and expression by Gauss-Newton steps on the reprojection; what landmarks still
    miss moves the surface across the line of sight, so that lids, lips and brows of all people
    fall on the same texels.

    Parameters
    ----------
    model : FaceModel
        Its landmarks are its first 478 vertices.
    points : (478, 3)
        Landmarks in px of the photo, z away from the camera at the same scale.
    distance : float
        From which the photo was taken, mm (a guess; it only bends perspective).
    spread : (V, 468), optional
        `residual_spread` of the model, where many photos are fitted.

    Returns
    -------
    FaceFit
        With one view.
    """
    rows = slice(0, 478)
    face = np.arange(478)
    modes = np.concatenate([model.identity[:, rows], model.expression[:, rows]]).astype(np.float64)
    n_identity = len(model.identity)
    prior = np.r_[np.ones(n_identity), np.full(len(model.expression), 1 / 0.3**2)]
    shape = model.mean[rows]
    size, R, _ = umeyama(shape, points)
    focal = size * distance
    middle = points[:, :2].mean(0)
    t = np.array([0.0, 0.0, distance]) - R @ shape.mean(0)
    coefficients = np.zeros(len(modes))
    noise_px = 1.0
    for _ in range(4):
        for _ in range(3):
            camera = shape @ R.T + t
            projected = focal * camera[:, :2] / camera[:, 2:] + middle
            miss = points[face, :2] - projected
            inverse = focal / camera[:, 2]
            arm = shape @ R.T
            J = np.zeros((478, 2, 6))
            for axis in range(3):
                turned = np.cross(np.eye(3)[axis], arm)
                J[:, :, axis] = inverse[:, None] * (
                    turned[:, :2] - camera[:, :2] / camera[:, 2:] * turned[:, 2:]
                )
            J[:, 0, 3] = J[:, 1, 4] = inverse
            J[:, :, 5] = -inverse[:, None] * camera[:, :2] / camera[:, 2:]
            robust = 1 / (1 + ((miss**2).sum(1) / (3 * noise_px) ** 2))
            A = J.reshape(-1, 6) * np.repeat(robust, 2)[:, None]
            step = np.linalg.lstsq(A, (miss * robust[:, None]).ravel(), rcond=None)[0]
            R = so3_exp(step[:3]) @ R
            t = t + step[3:]
        camera = shape @ R.T + t
        inverse = focal / camera[:, 2]
        turned = modes @ R.T
        J = inverse[:, None] * (turned[..., :2] - turned[..., 2:] * camera[:, :2] / camera[:, 2:])
        base = (model.mean[rows] @ R.T) + t
        miss = points[:, :2] - (focal * base[:, :2] / base[:, 2:] + middle)
        J = J.reshape(len(modes), -1)
        information = J @ J.T / noise_px**2 + np.diag(prior)
        coefficients = np.linalg.solve(information, J @ miss.ravel() / noise_px**2)
        coefficients[n_identity:] = np.clip(coefficients[n_identity:], 0, 1)
        shape = model.mean[rows] + np.tensordot(coefficients, modes, 1)
    camera = shape @ R.T + t
    miss = points[:, :2] - (focal * camera[:, :2] / camera[:, 2:] + middle)
    across = np.zeros((468, 3))
    across[:, :2] = (miss * camera[:, 2:] / focal)[:468]
    spread = residual_spread(model) if spread is None else spread
    displacement = spread @ (across @ R)
    K = np.array([[focal, 0, middle[0]], [0, focal, middle[1]], [0, 0, 1.0]])
    return FaceFit(
        model=model,
        identity=coefficients[:n_identity],
        expression=coefficients[None, n_identity:],
        R=R[None],
        t=t[None],
        K=K[None],
        displacement=displacement,
        residuals=miss[None],
        weights=np.ones((1, 478)),
        uncertainty=np.zeros(model.n_vertices),
        identity_covariance=np.zeros((n_identity, n_identity)),
        view_weight=np.ones(1),
    )


def residual_spread(model: FaceModel, length: float = 14.0) -> np.ndarray:
    """How far each vertex follows what the landmarks still miss, (V, 468).

    Regression of a Gaussian process over the mean face; beyond it the field fades out.
    """
    place = model.mean[:468]

    def kernel(a, b):
        return np.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / (2 * length**2))

    gain = np.linalg.inv(kernel(place, place) + 0.3 * np.eye(468))
    return kernel(model.mean, place) @ gain


def unwrap_portraits(
    model: FaceModel,
    photos: Iterable[tuple[str, np.ndarray, np.ndarray]],
    settings: AlbedoSettings,
    *,
    distance: float = 1000.0,
    progress: Callable[[int], None] | None = None,
) -> Portraits:
    """Fit every photo and bring its visible skin into the texture.

    Parameters
    ----------
    model : FaceModel
    photos : iterable of (name, (H, W, 3) uint8 sRGB, (478, 3) landmarks)
    settings : AlbedoSettings
    distance : float
        As in `fit_portrait`.
    progress : callable(done), optional

    Returns
    -------
    Portraits
        Without the photos that are grey or too dark.
    """
    import cv2

    atlas = build_atlas(model, settings.size)
    mask = face_share(model, atlas)
    first, second = mirrored_pairs(atlas, mask > 0)
    place = np.full((2, len(atlas)), -1)
    place[0, first], place[1, second] = np.arange(len(first)), np.arange(len(first))
    texel_mm = atlas.texel_mm(model.mean)
    # Beside the outline a small miss brings in hair or background.
    looking = TexturingSettings(size=settings.size, depth_mm=0.0, min_cosine=0.25, full_cosine=0.6)
    spread = residual_spread(model)
    names, logs, weights, normals = [], [], [], []
    for done, (name, image, points) in enumerate(photos):
        if progress:
            progress(done)
        fit = fit_portrait(model, points, distance=distance, spread=spread)
        seen = observe(atlas, fit, _observation(image, points), 0, texel_mm, looking)
        if seen is None:
            continue
        colour = sample(seen.image, seen.x, seen.y)
        skin = seen.weight > 0.5 * seen.weight.max()
        encoded = linear_to_srgb(np.clip(colour[skin], 0, 1)).astype(np.float32)
        lab = cv2.cvtColor(encoded[None], cv2.COLOR_RGB2LAB)[0]
        if np.hypot(lab[:, 1], lab[:, 2]).mean() < settings.min_chroma:
            continue
        if colour[skin].mean() < settings.min_brightness:
            continue
        log = np.zeros((2, len(first), 3), np.float32)
        weight = np.zeros((2, len(first)), np.float32)
        normal = np.zeros((2, len(first), 3), np.float16)
        # Clipped light says only that it was bright.
        belief = seen.weight / seen.weight.max() * np.clip((0.99 - colour.max(1)) / 0.05, 0.05, 1)
        for side in range(2):
            at = place[side, seen.index]
            keep = at >= 0
            log[side, at[keep]] = np.log(np.maximum(colour[keep], 0) + FLOOR)
            weight[side, at[keep]] = belief[keep]
            normal[side, at[keep]] = seen.normal[keep]
        names.append(name)
        logs.append(log)
        weights.append(weight)
        normals.append(normal)
    return Portraits(
        atlas,
        first,
        second,
        np.array(names),
        np.stack(logs),
        np.stack(weights),
        np.stack(normals),
    )


def _observation(image: np.ndarray, points: np.ndarray) -> FaceObservation:
    height, width = image.shape[:2]
    return FaceObservation(
        frame_index=0,
        source=0,
        time=0.0,
        image_size=(width, height),
        box=np.r_[points[:, :2].min(0), points[:, :2].max(0)],
        landmarks=points[:, :2],
        covariance=np.tile(np.eye(2), (len(points), 1, 1)),
        depth=points[:, 2],
        yaw=0.0,
        pitch=0.0,
        roll=0.0,
        quality=1.0,
        patch=ImagePatch(image, (0, 0)),
    )


def face_share(model: FaceModel, atlas: Atlas) -> np.ndarray:
    """How far each texel belongs to what photos teach: face, eyes and lips, (P,) in [0, 1]."""
    regions = model.regions
    region = np.maximum.reduce([regions[n] for n in ("face", "eyes", "mouth") if n in regions])
    inside = regions.get("mouth_interior", np.zeros(model.n_vertices))
    share = atlas.interpolate(region) * (1 - np.clip(2 * atlas.interpolate(inside), 0, 1))
    return np.clip((share - 0.35) / 0.5, 0, 1)


def remove_light(portraits: Portraits, settings: AlbedoSettings) -> tuple[np.ndarray, np.ndarray]:
    """Albedo of every portrait.

    Parameters
    ----------
    portraits : Portraits
    settings : AlbedoSettings

    Returns
    -------
    albedo : (N, 2, H, 3) float32, sRGB-encoded
    weight : (N, 2, H) float32
        The portraits' own, less where a photo looks like none of the others: hair, glasses, cast
        shadows.
    """
    n, _, h, _ = portraits.log.shape
    w = portraits.weight[..., None]
    gain = (w * portraits.log).sum((1, 2)) / w.sum((1, 2))
    gain -= gain.mean(0)
    lights = [_Light(np.zeros((8, 3), np.float32), np.zeros(3, np.float32), g) for g in gain]
    step = max(1, h // 2500)
    mean, spread = _population(portraits, lights, None)
    for _ in range(settings.light_rounds):
        lights = [
            _fit_light(
                portraits.log[k, :, ::step] - mean[::step],
                portraits.weight[k, :, ::step],
                portraits.normal[k, :, ::step],
                spread[::step],
                settings,
            )
            for k in range(n)
        ]
        middle = np.mean([light.gain for light in lights], axis=0)
        lights = [replace(light, gain=light.gain - middle) for light in lights]
        mean, spread = _population(portraits, lights, (mean, spread))
    albedo = np.empty_like(portraits.log)
    belief = np.empty_like(portraits.weight)
    for k, light in enumerate(lights):
        flat = portraits.log[k] - light.shading(portraits.normal[k])
        brightness = light.gain.mean()
        taken = EXPOSURE_SHARE[0] * brightness
        taken = taken + EXPOSURE_SHARE[1] * (light.gain - brightness)
        albedo[k] = linear_to_srgb(np.clip(np.exp(flat - taken) - FLOOR, 0, 1))
        unlike = np.sqrt(((flat - light.gain - mean) ** 2).mean(-1)) / (3.0 * spread)
        belief[k] = portraits.weight[k] / (1 + unlike**2) ** 2
    return albedo, belief


@dataclass(frozen=True)
class _Light:
    """Light of one photo: log shading ``harmonics(normal) @ shape - offset``, and exposure."""

    shape: np.ndarray  # (8, 3)
    offset: np.ndarray  # (3,)
    gain: np.ndarray  # (3,)

    def shading(self, normal: np.ndarray) -> np.ndarray:
        """Log shading (..., 3), bent to stay moderate where few texels tell."""
        basis = harmonics(normal.reshape(-1, 3).astype(np.float32))
        log = (basis @ self.shape - self.offset).reshape(*normal.shape[:-1], 3)
        return (LIMIT * np.tanh(log / LIMIT)).astype(np.float32)


def _population(portraits: Portraits, lights: list[_Light], before):
    """Mean log albedo (H, 3) of all photos and how photos scatter about it, (H,)."""
    h = len(portraits.first)
    total = np.full(h, 1e-6)
    first = np.zeros((h, 3))
    second = np.zeros(h)
    for k, light in enumerate(lights):
        flat = portraits.log[k] - light.shading(portraits.normal[k]) - light.gain
        weight = portraits.weight[k]
        centre = 0.0
        if before is not None:
            centre = before[0]
            unlike = np.sqrt(((flat - centre) ** 2).mean(-1)) / (2.5 * before[1])
            weight = weight / (1 + unlike**2) ** 2
        total += weight.sum(0)
        first += (weight[..., None] * (flat - centre)).sum(0)
        second += (weight * ((flat - centre) ** 2).mean(-1)).sum(0)
    move = first / total[:, None]
    mean = move + (0.0 if before is None else before[0])
    spread = np.sqrt(np.maximum(second / total - (move**2).mean(-1), 1e-4))
    return mean.astype(np.float32), np.maximum(spread, 0.08).astype(np.float32)


def _fit_light(difference, weight, normal, spread, settings: AlbedoSettings) -> _Light:
    """Light that explains how a photo differs from the mean albedo.

    Parameters
    ----------
    difference : (2, H, 3), of logarithms
    weight : (2, H)
    normal : (2, H, 3)
    spread : (H,), how people scatter about the mean albedo
    """
    basis = harmonics(normal.reshape(-1, 3).astype(np.float32)).astype(np.float64)
    target = difference.reshape(-1, 3).astype(np.float64)
    scatter = np.concatenate([spread, spread]).astype(np.float64)
    given = weight.ravel() / scatter**2
    middle = (given[:, None] * basis).sum(0) / given.sum()
    A = np.c_[basis - middle, np.ones(len(basis))]
    sd = settings.light_prior * np.array([1.0, 1, 1, 0.4, 0.4, 0.4, 0.4, 0.4])
    even = 1 / np.r_[sd, 3.0] ** 2
    tinted = 1 / np.r_[settings.light_colour * sd, 3.0] ** 2
    robust = np.ones(len(basis))
    for _ in range(4):
        # Skin differs from the mean in whole regions: texels are worth few independent samples.
        w = 0.02 * given * robust
        left, right = (A * w[:, None]).T @ A, (A * w[:, None]).T @ target
        shared = right.mean(1, keepdims=True)
        found = np.linalg.solve(left + np.diag(even), shared)
        found = found + np.linalg.solve(left + np.diag(tinted), right - shared)
        unlike = np.sqrt(((target - A @ found) ** 2).mean(1)) / (2.0 * scatter)
        robust = 1 / (1 + unlike**2) ** 2
    shape = found[:8].astype(np.float32)
    return _Light(shape, (middle @ found[:8]).astype(np.float32), found[8].astype(np.float32))


def beyond_the_face(
    model: FaceModel, atlas: Atlas, values: np.ndarray, share: np.ndarray
) -> np.ndarray:
    """Continue texels of the face smoothly over the rest of the head.

    Parameters
    ----------
    model : FaceModel
    atlas : Atlas
    values : (P, C), known where `share` is above 0
    share : (P,) in [0, 1]

    Returns
    -------
    (P, C) float32
    """
    vertex, gathered = to_vertices(atlas, values, share, model.n_vertices)
    weight = 10 * gathered / max(float(np.percentile(gathered, 90)), 1e-9)
    smooth = atlas.interpolate(membrane(model.triangles, vertex, weight))
    return (share[:, None] * values + (1 - share[:, None]) * smooth).astype(np.float32)


def learn_albedo(
    model: FaceModel,
    photos: Path,
    landmarks: PhotoLandmarks,
    settings: AlbedoSettings,
    distance: float,
    progress: Callable | None = None,
) -> tuple[FaceModel, dict]:
    """Give a model the albedo of the people in the photos: mean, modes, noise.

    Parameters
    ----------
    model : FaceModel
        With a texture that is symmetric about its middle column.
    photos : Path
    landmarks : PhotoLandmarks
        Of these photos.
    settings : AlbedoSettings
    distance : float
        From which the photos were taken, mm.
    progress : callable(done, total), optional

    Returns
    -------
    model : FaceModel
    figures : dict, as `albedo_figures` gives them
    """
    metadata = read_metadata(photos)
    number = {name: k for k, name in enumerate(landmarks.names.tolist())}

    def of_split(split: str):
        for name, image in read_photos(photos):
            k = number.get(name)
            flags = metadata.get(name, {}).get("flags", "")
            spoilt = any(word in flags for word in ("grayscale", "dark", "sunglasses"))
            if k is not None and landmarks.split[k] == split and not spoilt:
                yield name, image, landmarks.points[k]

    data = {}
    for split in ("train", "test"):
        portraits = unwrap_portraits(
            model,
            of_split(split),
            settings,
            distance=distance,
            progress=progress,
        )
        data[split] = remove_light(portraits, settings)
    learned = fit_ppca(
        *data["train"], settings.modes, iterations=settings.iterations, progress=progress
    )
    figures = {"people whose albedo was learned": len(data["train"][0])}
    figures |= albedo_figures(learned, *data["train"], *data["test"])

    atlas, share = portraits.atlas, face_share(model, portraits.atlas)
    first, second = portraits.first, portraits.second
    known = np.zeros(len(atlas), np.float32)
    known[first] = known[second] = np.minimum(share[first], share[second])
    count = len(learned.modes)
    columns = np.zeros((len(atlas), 3 * (count + 1)), np.float32)
    columns[first, :3] = columns[second, :3] = learned.mean
    rows = learned.modes.transpose(1, 0, 2)
    columns[first, 3:] = rows.reshape(len(first), -1)
    columns[second, 3:] = (rows * learned.parity[:, None]).reshape(len(first), -1)
    columns = bleed(atlas.image(beyond_the_face(model, atlas, columns, known)), atlas.valid)
    columns = columns.reshape(*columns.shape[:2], count + 1, 3).transpose(2, 0, 1, 3)
    parity = np.r_[1.0, learned.parity].astype(np.float32)[:, None, None, None]
    # Even and odd but for rounding: exact from here on.
    columns = (columns + parity * columns[:, :, ::-1]) / 2
    return (
        replace(
            model,
            albedo_mean=columns[0],
            albedo_modes=columns[1:].astype(np.float16),
            albedo_noise=learned.noise,
        ),
        figures,
    )
