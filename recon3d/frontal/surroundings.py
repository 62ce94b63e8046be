"""What lies around the face: hair, ears, neck and background, carried over from the frames.

There is no surface for hair or background. Around the fitted mesh its depth is continued smoothly
towards the plane of the silhouette, and every pixel of the picture so has a point in space that
the frames can be asked about. The frame seen most from the front answers where it can, together
with those that were turned as it was; turned ones fill in what it does not show.

References
----------
.. [1] S. W. Hasinoff et al., Burst photography for high dynamic range and low-light imaging on
   mobile cameras, SIGGRAPH Asia 2016.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from recon3d.colour import srgb_to_linear
from recon3d.frontal.camera import SIZE
from recon3d.frontal.pyramid import broad_blur, push_pull
from recon3d.geometry import crop_camera, seen_angles, transform
from recon3d.rendering.native import rasterise_numpy
from recon3d.types import Camera, FaceFit, FaceTrack

_DEPTH_MM = 20.0
"""What lies around a face is about so far before or behind where it is thought to be."""
RIM = 12.0
"""Width of the rim of the drawn surface over which its depth becomes that around it, px."""
_TONE = 0.002
"""Added before the square root that makes noise about equal in bright and dark."""


@dataclass(frozen=True)
class Surroundings:
    """The picture around the face.

    Attributes
    ----------
    image : (512, 512, 3) float32, linear, exposure of the first view
    seen : (512, 512) float32
        1 where a frame shows the pixel, 0 where it was continued from its neighbours.
    density : (512, 512) float32
        Pixels of the frame per pixel of the picture.
    views : list of int
        That contributed, the main one first.
    """

    image: np.ndarray
    seen: np.ndarray
    density: np.ndarray
    views: list[int]


def continued_depth(zbuffer: np.ndarray, covered: np.ndarray, rim: float = 1.0) -> np.ndarray:
    """Continue the depth of the drawn surface over the whole picture.

    Parameters
    ----------
    zbuffer : (H, W) mm
    covered : (H, W) bool
    rim : float
        Width of the surface's rim, px, over which its depth becomes the continued one.

    Returns
    -------
    (H, W) float32 mm
    """
    factor = 4
    size = (zbuffer.shape[1] // factor, zbuffer.shape[0] // factor)
    inner = cv2.erode(covered.astype(np.uint8), np.ones((3, 3), np.uint8))
    weight = cv2.resize(inner.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    depth = cv2.resize(
        np.where(inner > 0, zbuffer, 0).astype(np.float32), size, interpolation=cv2.INTER_AREA
    )
    depth = depth / np.maximum(weight, 1e-6)
    known = (weight > 0.5).astype(np.float32)
    if known.sum() == 0:
        return np.full(zbuffer.shape, float(zbuffer[covered].mean()), np.float32)
    border = (known > 0) & (cv2.erode(known, np.ones((3, 3), np.uint8)) == 0)
    plane = float(np.median(depth[border]))
    # Half a head's width from its border the continuation has come down to the plane.
    distance = cv2.distanceTransform((known == 0).astype(np.uint8), cv2.DIST_L2, 5)
    far = np.clip(distance / (0.12 * size[0]), 0, 1)
    smooth = push_pull(depth[..., None], known)[..., 0]
    smooth = cv2.GaussianBlur(smooth, (0, 0), 2.0)
    around = cv2.resize(
        (1 - far) * smooth + far * plane, zbuffer.shape[::-1], interpolation=cv2.INTER_LINEAR
    )
    # The surface falls away at its rim. A step there would show as a line: a turned frame shows
    # something else on either side of it.
    share = np.clip(cv2.distanceTransform(inner, cv2.DIST_L2, 5) / rim, 0, 1)
    return (share * zbuffer + (1 - share) * around).astype(np.float32)


def rank_views(track: FaceTrack, fit: FaceFit) -> np.ndarray:
    """How suitable each view is as the main source, (N,), the larger the better."""
    angles = seen_angles(fit.R, fit.t)
    worth = np.zeros(len(track.views))
    for i, view in enumerate(track.views):
        if view.patch is None or fit.view_weight[i] <= 0:
            continue
        turned = np.hypot(angles[i, 0], 0.6 * angles[i, 1])
        moved = np.abs(fit.expression[i]).sum() if fit.expression.size else 0.0
        size = min(view.face_width, 250.0) ** 0.5
        worth[i] = (
            fit.view_weight[i]
            * (0.1 + view.quality)
            * size
            * np.exp(-((turned / 8.0) ** 2) / 2)
            / (1 + 0.1 * moved)
        ) + 1e-9 * np.exp(-turned / 20.0)
    return worth


def bring_surroundings(
    track: FaceTrack,
    fit: FaceFit,
    camera: Camera,
    depth: np.ndarray,
    limit: int,
    together: int,
) -> Surroundings | None:
    """Warp the frames into the picture and merge them.

    Parameters
    ----------
    track, fit : the person
    camera : Camera
        Of the picture.
    depth : (512, 512)
        Of every pixel, mm.
    limit : int
        Number of directions that may contribute.
    together : int
        Number of views, turned alike, that may be merged for the first of these.

    Returns
    -------
    Surroundings or None
        None without a usable view.
    """
    worth = rank_views(track, fit)
    order = _spread(worth, seen_angles(fit.R, fit.t)[:, 0], limit)
    if not order:
        return None
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    ray = np.stack([columns, rows, np.ones_like(rows)], -1).reshape(-1, 3)
    points = (ray @ np.linalg.inv(camera.K).T) * depth.reshape(-1, 1)
    points = (points - camera.t) @ camera.R

    image = np.zeros((SIZE, SIZE, 3), np.float32)
    seen = np.zeros((SIZE, SIZE), np.float32)
    density = np.zeros((SIZE, SIZE), np.float32)
    used = []
    for view in order:
        # What the first does not show is mostly wall, and the others' part of it small.
        alike = [] if used else _turned_alike(track, fit, view, worth)[: together - 1]
        warped, mask, scale, merged = _merged(track, fit, view, alike, points)
        if used:
            both = mask * seen
            if both.sum() > 200:
                warped = warped * _match(image, warped, both)
        fresh = mask * (1 - seen)
        if fresh.sum() < 50:
            continue
        image += fresh[..., None] * warped
        density += fresh * scale
        seen += fresh
        used += [view, *(i for i in merged if i not in used)]
    if not used:
        return None
    image = np.where(seen[..., None] > 1e-3, image / np.maximum(seen, 1e-3)[..., None], 0)
    filled = push_pull(image.astype(np.float32), seen)
    return Surroundings(filled, seen, density, used)


def _spread(worth: np.ndarray, yaw: np.ndarray, limit: int) -> list[int]:
    """The best view, then the best of views turned to either side, farther each time."""
    order: list[int] = []
    if worth.max() <= 0:
        return order
    order.append(int(worth.argmax()))
    bands = [(-12, 12), (5, 25), (-25, -5), (20, 50), (-50, -20)]
    for low, high in bands:
        inside = (yaw >= low) & (yaw <= high) & (worth > 0)
        inside[order] = False
        if inside.any() and len(order) < limit:
            order.append(int(np.where(inside, worth, -1).argmax()))
    return order


def _merged(track: FaceTrack, fit: FaceFit, main: int, alike: list[int], points: np.ndarray):
    """A view, warped and merged with others that were turned alike.

    One frame shows hair and ears with all its noise and with all that the encoder did to them.
    Others show them again, as well as an unknown depth allows; where they show something else (the
    wall behind a head that moved, an ear at another depth) they lose weight, as frames of a burst
    do [1]_.

    Returns
    -------
    image (512, 512, 3) linear, mask (512, 512), scale of the main view, list of views merged
    """
    warped, mask, scale = _warp(track, fit, main, points)
    tones, masks, merged = [_tone(warped)], [mask], []
    for view in alike:
        other, shown, _ = _warp(track, fit, view, points)
        both = shown * mask
        if both.sum() < 200:
            continue
        tones.append(_tone(other * _match(warped, other, both)))
        masks.append(shown)
        merged.append(view)
    if not merged:
        return warped, mask, scale, merged
    # Compared is what frames can show, nothing finer than their pixels.
    footprint = float(np.clip(1 / max(scale, 1e-3), 1.0, 40.0))
    coarse = [broad_blur(x, footprint) for x in tones]
    noise = [
        np.sqrt(_square(x - coarse[0]))[(shown > 0.5) & (mask > 0.5)]
        for x, shown in zip(coarse[1:], masks[1:], strict=True)
    ]
    # Most of what is compared is the face, whose place is known: what differs there is noise.
    noise = np.concatenate(noise)
    tolerance = 4 * float(np.median(noise)) if noise.size else 0.0
    tolerance = float(np.clip(tolerance, 0.01, 0.08))
    agreed = coarse[0]
    for _ in range(2):
        total = np.full((SIZE, SIZE), 1e-3, np.float32)
        mean = 1e-3 * tones[0]
        for tone, low, shown in zip(tones, coarse, masks, strict=True):
            off = _square(low - agreed)
            weight = shown / (1 + off / tolerance**2) ** 2
            total += weight
            mean += weight[..., None] * tone
        mean /= total[..., None]
        agreed = broad_blur(mean, footprint)
    return np.maximum(mean**2 - _TONE, 0).astype(np.float32), mask, scale, merged


def _tone(image: np.ndarray) -> np.ndarray:
    return np.sqrt(image + _TONE)


def _turned_alike(track: FaceTrack, fit: FaceFit, main: int, worth: np.ndarray) -> list[int]:
    """Views of the same shot turned nearly as the main one, the nearest first.

    Allowed is the turn that moves what is `_DEPTH_MM` off by a pixel of the frame. Another shot, as
    every photo of an album is, may show other hair in another room.
    """
    shots = track.shots
    angles = seen_angles(fit.R, fit.t)
    turn = np.linalg.norm(angles - angles[main], axis=1)
    pixel_mm = fit.t[main, 2] / fit.K[main, 0, 0]
    limit = float(np.clip(np.degrees(pixel_mm / _DEPTH_MM), 2.5, 10.0))
    order = np.argsort(turn, kind="stable")
    usable = (worth > 0) & (turn < limit) & (shots == shots[main])
    return [int(i) for i in order if i != main and usable[i]]


def _warp(track: FaceTrack, fit: FaceFit, view: int, points: np.ndarray):
    observation = track.views[view]
    patch = observation.patch.image
    height, width = patch.shape[:2]
    own = fit.camera(view, observation.image_size)
    K = crop_camera(own, observation.patch.origin, 1.0, (width, height)).K
    x = transform(points, own.R, own.t)
    z = np.maximum(x[:, 2], 1.0)
    u = (K[0, 0] * x[:, 0] / z + K[0, 2]).reshape(SIZE, SIZE).astype(np.float32)
    v = (K[1, 1] * x[:, 1] / z + K[1, 2]).reshape(SIZE, SIZE).astype(np.float32)
    scale = float(K[0, 0] / np.median(z)) * float(
        np.median(np.linalg.norm(np.diff(points.reshape(SIZE, SIZE, 3)[SIZE // 2], axis=0), axis=1))
    )
    image = srgb_to_linear(patch)
    if scale > 1.5:
        # Finer than the picture: shrink first, or it aliases.
        image = cv2.GaussianBlur(image, (0, 0), 0.4 * scale)
    warped = cv2.remap(
        image, u - 0.5, v - 0.5, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    ).clip(0)
    # Feathered at the patch's border, and nothing where the head itself stands before the point.
    margin = np.minimum.reduce([u, v, width - u, height - v]) / max(2.0, 0.03 * width)
    mask = np.clip(margin, 0, 1)
    vertices = transform(fit.posed(view), own.R, own.t)
    _, zbuffer, _ = rasterise_numpy(vertices, fit.model.triangles, K, (height, width))
    zbuffer = np.where(zbuffer > 0, zbuffer, 1e9).astype(np.float32)
    surface = cv2.remap(
        zbuffer,
        u - 0.5,
        v - 0.5,
        cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=1e9,
    )
    hidden = (z.reshape(SIZE, SIZE) > surface + 15.0).astype(np.float32)
    hidden = cv2.dilate(hidden, np.ones((5, 5), np.uint8))
    mask = mask * (1 - cv2.GaussianBlur(hidden, (0, 0), 3.0))
    return warped, mask.astype(np.float32), min(scale, 1.0)


def _square(difference: np.ndarray) -> np.ndarray:
    """Mean over the channels of squares, several times as fast as a mean over the last axis."""
    return cv2.transform(difference * difference, np.full((1, 3), 1 / 3, np.float32))


def _match(reference: np.ndarray, image: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Smooth gain (512, 512, 3) that brings one picture's colours to another's."""
    blur, factor = 24.0, 4
    size = weight.shape[1] // factor, weight.shape[0] // factor

    def broad(values):
        # What is this smooth needs no more pixels.
        return broad_blur(cv2.resize(values, size, interpolation=cv2.INTER_AREA), blur / factor)

    w = broad(weight)[..., None] + 1e-4
    a = broad(reference * weight[..., None]) / w
    b = broad(image * weight[..., None]) / w
    ratio = np.clip(np.log((a + 5e-3) / (b + 5e-3)), -0.8, 0.8)
    share = cv2.resize(weight, size, interpolation=cv2.INTER_AREA)[..., None]
    mean = (ratio * share).sum((0, 1)) / share.sum()
    trust = np.clip(4 * w, 0, 1)
    gain = np.exp(trust * ratio + (1 - trust) * mean).astype(np.float32)
    return cv2.resize(gain, weight.shape[::-1], interpolation=cv2.INTER_LINEAR)
