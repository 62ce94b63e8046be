"""Painted skin for scenes: the looks of random people, on any model."""

from __future__ import annotations

import cv2
import numpy as np

from recon3d.types import FaceModel

# fmt: off
LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
MOUTH = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
BROWS = (
    (70, 63, 105, 66, 107, 55, 65, 52, 53, 46),
    (300, 293, 334, 296, 336, 285, 295, 282, 283, 276),
)
LIDS = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
)
IRISES = ((468, 469, 470, 471, 472), (473, 474, 475, 476, 477))
NOSTRILS = ((98, 97, 99, 240, 64), (327, 326, 328, 460, 294))
# fmt: on

_CANVAS = 1024
_SPAN = 190.0
"""Side of the frontal canvas in px and in mm."""

# Linear albedo of skin from light to dark, of hair, of irises.
_SKIN = np.array([[0.62, 0.40, 0.30], [0.46, 0.26, 0.17], [0.27, 0.14, 0.085], [0.12, 0.06, 0.04]])
_HAIR = np.array([[0.28, 0.19, 0.09], [0.09, 0.05, 0.03], [0.02, 0.016, 0.014], [0.3, 0.28, 0.26]])
_IRIS = np.array([[0.05, 0.025, 0.012], [0.07, 0.08, 0.04], [0.09, 0.15, 0.22]])


def paint_person(
    model: FaceModel,
    rng: np.random.Generator,
    size: int = 1024,
    geometry: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Linear albedo of a random person in the model's texture space.

    Drawn on the model's mean, seen from the front, along its landmarks: brows, lids, irises, lips,
    nostrils, freckles and unevenness; hair above a random hairline.

    Parameters
    ----------
    model : FaceModel
    rng : Generator
    size : int
        Side of the texture.
    geometry : tuple, optional
        `texel_geometry` of this model and size, where it is known already.

    Returns
    -------
    (size, size, 3) float32, row 0 at v = 1
    """
    place, normal, covered = texel_geometry(model, size) if geometry is None else geometry
    canvas, hair = _paint_front(model, rng)
    column = ((place[..., 0] / _SPAN + 0.5) * _CANVAS - 0.5).astype(np.float32)
    row = ((0.5 - (place[..., 1] + 35.0) / _SPAN) * _CANVAS - 0.5).astype(np.float32)
    front = cv2.remap(canvas, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    # What turns away from the front has no features: skin there is that of the cheek.
    facing = np.clip((normal[..., 2] + 0.05) / 0.3, 0, 1)[..., None]
    skin = np.median(canvas[_CANVAS // 2 : -_CANVAS // 5].reshape(-1, 3), axis=0)
    texture = facing * front + (1 - facing) * skin
    grown = _hair_share(place, rng)
    strands = 1 + 0.35 * _smooth_noise(rng, size, 1.2)[..., None]
    texture = (1 - grown[..., None]) * texture + grown[..., None] * hair * strands
    texture = np.clip(texture, 0.003, 0.95).astype(np.float32)
    # Between the charts colours go on, so that sampling finds no background.
    hole = cv2.inpaint(
        (texture * 255).astype(np.uint8), (~covered).astype(np.uint8), 2, cv2.INPAINT_TELEA
    )
    return np.where(covered[..., None], texture, hole.astype(np.float32) / 255)


def _paint_front(model: FaceModel, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A frontal canvas (linear RGB) and the colour of the hair."""
    corners = model.mean[model.triangles[np.maximum(model.landmarks.triangle, 0)]]
    points = np.einsum("lk,lkd->ld", model.landmarks.barycentric, corners)
    xy = np.column_stack([points[:, 0] / _SPAN + 0.5, 0.5 - (points[:, 1] + 35.0) / _SPAN])
    xy = xy * _CANVAS
    per_mm = _CANVAS / _SPAN

    tone = rng.uniform(0, len(_SKIN) - 1)
    low = min(int(tone), len(_SKIN) - 2)
    skin = _SKIN[low] + (tone - low) * (_SKIN[low + 1] - _SKIN[low])
    skin = skin * np.exp(rng.normal(0, 0.05, 3))
    hair = _HAIR[rng.integers(len(_HAIR))] * np.exp(rng.normal(0, 0.15))
    if tone > 1.5:
        hair = _HAIR[2] * np.exp(rng.normal(0, 0.1))
    canvas = np.empty((_CANVAS, _CANVAS, 3), np.float32)
    canvas[:] = skin
    for width, amount in ((6.0, 0.05), (1.5, 0.05), (0.6, 0.06)):
        canvas *= 1 + amount * _smooth_noise(rng, _CANVAS, width * per_mm)[..., None]

    def soften(mask: np.ndarray, sigma: float) -> np.ndarray:
        reach = int(np.ceil(4 * sigma)) + 2
        return _near_content(mask, reach, lambda part: cv2.GaussianBlur(part, (0, 0), sigma))

    def region(index, grow: float, soft: float) -> np.ndarray:
        """Soft mask of a polygon of landmarks, grown and softened by so many mm."""
        mask = np.zeros((_CANVAS, _CANVAS), np.float32)
        cv2.fillPoly(mask, [np.round(xy[list(index)] * 16).astype(np.int32)], 1, cv2.LINE_AA, 4)
        if grow > 0:
            kernel = 2 * round(grow * per_mm) + 1
            shape = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (kernel, kernel))
            mask = _near_content(mask, kernel, lambda part: cv2.dilate(part, shape))
        return soften(mask, max(soft * per_mm, 0.6))

    def blend(mask: np.ndarray, colour, amount: float = 1.0) -> None:
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        if len(rows) == 0:
            return
        part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        share = amount * mask[part][..., None]
        canvas[part] = (1 - share) * canvas[part] + share * np.asarray(colour)

    def spot(centre, radius: float, soft: float, scale=(1.0, 1.0)) -> np.ndarray:
        mask = np.zeros((_CANVAS, _CANVAS), np.float32)
        axes = tuple(round(radius * per_mm * s * 16) for s in scale)
        middle = tuple(int(v) for v in np.round(np.asarray(centre) * 16))
        cv2.ellipse(mask, middle, axes, 0, 0, 360, 1, -1, cv2.LINE_AA, 4)
        return soften(mask, max(soft * per_mm, 0.6))

    # Blood under thin skin: cheeks, nose; a shadow of beard for some.
    for cheek in (50, 280):
        blend(spot(xy[cheek], 13, 7), skin * [1.1, 0.85, 0.85], rng.uniform(0.2, 0.7))
    blend(spot(xy[4], 9, 5), skin * [1.08, 0.86, 0.86], rng.uniform(0.2, 0.6))
    beard = max(rng.uniform(-0.6, 0.6), 0)
    jaw = spot(xy[17] + [0, 8 * per_mm], 30, 6, (1.25, 0.8))
    blend(jaw, 0.4 * skin + 0.6 * hair, beard)
    # Sockets, folds beside the nose, the shadow under the lower lip.
    for lids in LIDS:
        blend(region(lids, 5, 3.0), skin * 0.6, rng.uniform(0.25, 0.5))
    for wing, corner in ((129, 61), (358, 291)):
        fold = np.zeros((_CANVAS, _CANVAS), np.float32)
        ends = np.round(np.stack([xy[wing], 0.35 * xy[wing] + 0.65 * xy[corner]])).astype(int)
        ends[:, 0] += round(5 * per_mm) * (-1 if wing == 129 else 1)
        cv2.line(fold, tuple(map(int, ends[0])), tuple(map(int, ends[1])), 1, round(1.5 * per_mm))
        blend(soften(fold, 1.2 * per_mm), skin * 0.6, rng.uniform(0.1, 0.5))
    blend(spot(xy[200], 6, 3, (1.6, 0.5)), skin * 0.7, 0.4)
    for _ in range(rng.poisson(6)):
        mole = rng.uniform([-50, -70], [50, 25])
        where = [(mole[0] / _SPAN + 0.5) * _CANVAS, (0.5 - (mole[1] + 35) / _SPAN) * _CANVAS]
        blend(spot(where, rng.uniform(0.4, 1.3), 0.3), skin * 0.35, 0.8)

    # Brows, of strands.
    strands = 0.75 + 0.25 * _smooth_noise(rng, _CANVAS, 0.5 * per_mm)
    thick = rng.uniform(0.0, 1.2)
    for brow in BROWS:
        blend(region(brow, thick, 1.0) * strands, 0.8 * hair, rng.uniform(0.75, 0.95))
    # Eyes: white, iris with a dark rim, pupil, a highlight, the lashes' line.
    iris_colour = _IRIS[2 if tone < 1 and rng.random() < 0.5 else rng.integers(2)]
    for lids, iris in zip(LIDS, IRISES, strict=True):
        # The model's lids are wide open: the upper one is painted a little lower.
        opening = region(lids, 0, 0.25)
        whole, middle = opening.copy(), xy[list(lids), 1].mean()
        down = round(rng.uniform(1.0, 2.2) * per_mm)
        opening[down:] = np.minimum(opening[down:], whole[:-down])
        lash = np.clip(region(lids, 0.5, 0.35) - opening, 0, 1)
        blend(opening, np.array([0.5, 0.46, 0.43]))
        centre = xy[iris[0]]
        radius = np.linalg.norm(xy[list(iris[1:])] - centre, axis=1).mean() / per_mm
        blend(opening * spot(centre, radius, 0.3), 0.35 * iris_colour)
        blend(opening * spot(centre, 0.85 * radius, 0.4), iris_colour)
        blend(opening * spot(centre, 0.42 * radius, 0.2), [0.006] * 3)
        upper = np.zeros_like(lash)
        upper[: int(middle + 0.5 * per_mm)] = 1
        wide = np.ones((round(1.4 * per_mm),) * 2)
        grown = _near_content(opening, len(wide), lambda part, wide=wide: cv2.dilate(part, wide))
        edge = np.clip(grown - opening, 0, 1)
        blend(lash, skin * 0.8, 0.9)
        blend(edge * (0.3 + 0.7 * upper), 0.3 * hair + 0.005, 0.9)
        # The upper lid shades the eye below it.
        blend(opening * soften(edge * upper, 1.2 * per_mm), [0.02] * 3, 0.8)
    # Lips and what lies between them.
    tint = np.array([1.0, rng.uniform(0.5, 0.7), rng.uniform(0.55, 0.8)]) * rng.uniform(0.7, 0.95)
    blend(region(LIPS, 0, 0.8), skin * tint, 0.85)
    blend(region(MOUTH, 0.35, 0.35), skin * [0.25, 0.14, 0.13], 0.9)
    for nostril in NOSTRILS:
        centre = xy[list(nostril)].mean(0)
        blend(spot(centre, 2.6, 0.9, (1.2, 0.6)), skin * 0.12, 0.9)
    return canvas, hair.astype(np.float32)


def _near_content(mask: np.ndarray, reach: int, change) -> np.ndarray:
    """A mask changed where it is not zero and so many px around; most masks are small."""
    x, y, width, height = cv2.boundingRect((mask > 0).astype(np.uint8))
    out = np.zeros_like(mask)
    if width > 0:
        part = (
            slice(max(y - reach, 0), y + height + reach),
            slice(max(x - reach, 0), x + width + reach),
        )
        out[part] = change(mask[part])
    return out


def _hair_share(place: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(T, T) in [0, 1] where hair grows: above a hairline, behind the temples."""
    top = 44.0 + rng.uniform(0, 14)
    round_off = rng.uniform(0.004, 0.011)
    length = rng.uniform(-75, -10)
    line = top - round_off * place[..., 0] ** 2
    uneven = 2.0 * _smooth_noise(rng, place.shape[0], 6.0)
    above = np.clip((place[..., 1] - line + uneven) / 3.0 + 0.5, 0, 1)
    behind = np.clip((-58.0 - place[..., 2] + uneven) / 5.0 + 0.5, 0, 1)
    behind *= np.clip((place[..., 1] - length + uneven) / 6.0 + 0.5, 0, 1)
    return np.maximum(above, behind).astype(np.float32)


def texel_geometry(model: FaceModel, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Place (T, T, 3) mm and normal of the mean surface at every texel, and where there is one."""
    import torch

    from recon3d.geometry import vertex_normals
    from recon3d.rendering import interpolate_attributes, rasterise

    # Texture space is drawn as a flat mesh at depth 1, row 0 at v = 1.
    flat = np.column_stack([model.uv[:, 0], 1 - model.uv[:, 1], np.ones(len(model.uv))])
    K = torch.diag(torch.tensor([float(size), float(size), 1.0], dtype=torch.float64))
    eye = torch.eye(3, dtype=torch.float64)
    faces = torch.from_numpy(np.ascontiguousarray(model.triangles_uv))
    drawn = rasterise(torch.from_numpy(flat), faces, K, eye, 0 * eye[0], (size, size))
    values = np.column_stack([model.mean, vertex_normals(model.mean, model.triangles)])
    corners = torch.from_numpy(np.ascontiguousarray(model.triangles))
    found = interpolate_attributes(drawn, torch.from_numpy(values), corners)[0].numpy()
    return found[..., :3], found[..., 3:], drawn.mask[0].numpy()


def lookup(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear samples (P, C) of a picture (H, W, C) float32 at columns and rows (P,) float32,
    pixel centres at integers; beyond the border it goes on as it ends."""
    channels = image.shape[2]
    if len(x) == 0:
        return np.zeros((0, channels), np.float32)
    # OpenCV's limit on the side of a picture is 32767: long lists are folded.
    width = 4096
    pad = -len(x) % width
    grid = (np.pad(a, (0, pad)).reshape(-1, width) for a in (x, y))
    found = cv2.remap(image, *grid, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return found.reshape(-1, channels)[: len(x)]


def _smooth_noise(rng: np.random.Generator, size: int, width: float) -> np.ndarray:
    """(size, size) float32 noise of unit variance, smooth over so many px."""
    step = max(width / 2, 1.0)
    coarse = max(int(np.ceil(size / step)) + 2, 4)
    noise = rng.normal(0, 1, (coarse, coarse)).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), 1.2)
    noise = cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
    return (noise - noise.mean()) / max(float(noise.std()), 1e-6)
