"""What one view sees of the texture: where each texel falls, how squarely, and what hides it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from recon3d.colour import srgb_to_linear
from recon3d.geometry import crop_camera, project, transform, vertex_normals
from recon3d.texturing.atlas import Atlas
from recon3d.texturing.settings import TexturingSettings
from recon3d.types import FaceFit, FaceObservation, FaceTrack


@dataclass
class ViewSamples:
    """The visible texels of one view.

    Attributes
    ----------
    view : int
    index : (Q,) int64
        Which texels of the atlas.
    x, y : (Q,) float32
        Where they fall in `image`, px, centres at half-integers.
    cosine : (Q,) float32
        Between the normal and the direction to the camera.
    normal : (Q, 3) float32
        In camera axes.
    density : (Q,) float32
        Pixels of the frame per mm of surface, along the foreshortened direction.
    weight : (Q,) float32
        Belief in the sample before its colour was looked at.
    image : (h, w, 3) float32
        Linear light; shrunk where the frame is finer than the texture.
    pixel_mm : float
        Size of a pixel of `image` at the face's distance.
    """

    view: int
    index: np.ndarray
    x: np.ndarray
    y: np.ndarray
    cosine: np.ndarray
    normal: np.ndarray
    density: np.ndarray
    weight: np.ndarray
    image: np.ndarray
    pixel_mm: float


def sample(image: np.ndarray, x: np.ndarray, y: np.ndarray, *, cubic: bool = True) -> np.ndarray:
    """Interpolate a picture at points.

    Parameters
    ----------
    image : (h, w) or (h, w, C) float32
    x, y : (Q,) px, pixel centres at half-integers; outside, the border repeats.
    cubic : bool
        Cubic convolution, else bilinear.

    Returns
    -------
    (Q,) or (Q, C) float32
    """
    n = len(x)
    if n == 0:
        return np.zeros((0, *image.shape[2:]), np.float32)
    # OpenCV's remap is limited to 32767 in a row.
    width = 2048
    rows = -(-n // width)
    grid = np.zeros((2, rows * width), np.float32)
    grid[0, :n], grid[1, :n] = x - 0.5, y - 0.5
    grid = grid.reshape(2, rows, width)
    out = cv2.remap(
        image,
        grid[0],
        grid[1],
        cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return out.reshape(rows * width, *image.shape[2:])[:n]


def observe(
    atlas: Atlas,
    fit: FaceFit,
    observation: FaceObservation,
    view: int,
    texel_mm: np.ndarray,
    settings: TexturingSettings,
    posed: np.ndarray | None = None,
) -> ViewSamples | None:
    """Project the texels of an atlas into one view.

    Parameters
    ----------
    atlas : Atlas
    fit : FaceFit
    observation : FaceObservation
        The view, with its patch.
    view : int
        Its number in the fit.
    texel_mm : (P,)
        Side of a texel on the surface.
    settings : TexturingSettings
    posed : (V, 3), optional
        ``fit.posed(view)`` where it is known already.

    Returns
    -------
    ViewSamples or None
        None where the view shows nothing of the surface.
    """
    from recon3d.rendering.native import rasterise_numpy

    if observation.patch is None:
        return None
    camera = fit.camera(view, observation.image_size)
    posed = fit.posed(view) if posed is None else posed
    vertices = transform(posed, camera.R, camera.t)
    if not np.isfinite(vertices).all() or (vertices[:, 2] <= 1.0).any():
        return None
    patch = observation.patch.image
    height, width = patch.shape[:2]
    depth = float(np.median(vertices[:, 2]))
    pixel_mm = depth / float(camera.K[0, 0])

    # A frame finer than the texture is shrunk first: sampling it at texels would alias.
    shrink = min(1.0, 1.5 * pixel_mm / float(np.median(texel_mm)))
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    scale = np.array([size[0] / width, size[1] / height])
    K = (
        np.diag([scale[0], scale[1], 1.0])
        @ crop_camera(camera, observation.patch.origin, 1.0, (width, height)).K
    )
    image = srgb_to_linear(patch)
    if size != (width, height):
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)

    both = atlas.interpolate(
        np.concatenate([vertices, vertex_normals(vertices, fit.model.triangles)], axis=1)
    )
    points, normal = both[:, :3], both[:, 3:]
    x = K[0, 0] * points[:, 0] / points[:, 2] + K[0, 2]
    y = K[1, 1] * points[:, 1] / points[:, 2] + K[1, 2]
    normal = normal / np.maximum(np.sqrt(np.einsum("pc,pc->p", normal, normal)), 1e-9)[:, None]
    distance = np.sqrt(np.einsum("pc,pc->p", points, points))
    cosine = -np.einsum("pc,pc->p", normal, points) / distance
    inside = (x > 0.5) & (y > 0.5) & (x < size[0] - 0.5) & (y < size[1] - 0.5)
    index = np.flatnonzero(inside & (cosine > settings.min_cosine))
    if len(index) < 16:
        return None

    # The depth buffer is drawn at a fixed size of the face, whatever the frame's.
    head = np.ptp(vertices[:, 0]) / (pixel_mm / scale[0])
    zoom = float(np.clip(256.0 / max(head, 1.0), 0.25, 16.0))
    zoom = min(zoom, 1400.0 / max(size))
    buffer_size = (max(1, round(size[0] * zoom)), max(1, round(size[1] * zoom)))
    zoom_x, zoom_y = buffer_size[0] / size[0], buffer_size[1] / size[1]
    _, zbuffer, _ = rasterise_numpy(
        vertices, fit.model.triangles, np.diag([zoom_x, zoom_y, 1.0]) @ K, buffer_size[::-1]
    )
    zbuffer = np.asarray(zbuffer, np.float32)
    zbuffer = np.where(np.isfinite(zbuffer) & (zbuffer > 0), zbuffer, np.float32(1e9))
    # The nearest surface around a texel counts, so that what lies just beside an occluder's edge,
    # where a small error of pose puts the occluder's colour, is left out as well.
    nearest = cv2.erode(zbuffer, np.ones((3, 3), np.uint8))
    column = np.clip((x[index] * zoom_x).astype(int), 0, buffer_size[0] - 1)
    row = np.clip((y[index] * zoom_y).astype(int), 0, buffer_size[1] - 1)
    step = 2.0 * pixel_mm / (scale[0] * zoom_x)
    slope = np.sqrt(np.maximum(1 - cosine[index] ** 2, 0)) / cosine[index]
    seen = points[index, 2] <= nearest[row, column] + 2.0 + step * slope
    index = index[seen]
    if len(index) < 16:
        return None

    ramp = (cosine[index] - settings.min_cosine) / (settings.full_cosine - settings.min_cosine)
    ramp = np.clip(ramp, 0, 1)
    ramp = ramp * ramp * (3 - 2 * ramp)
    density = float(camera.K[0, 0]) / points[index, 2] * cosine[index]
    belief = float(fit.view_weight[view]) * (0.05 + float(np.clip(observation.quality, 0, 1)))
    # A surface that lies too deep by d appears d tan(angle) beside its place in the front view.
    straight = max(-float(camera.R[2, 2]), 0.1)
    aside = settings.depth_mm / pixel_mm * np.sqrt(max(1 - straight**2, 0)) / straight
    belief /= 1 + min(aside, 10.0) ** 2
    return ViewSamples(
        view=view,
        index=index,
        x=x[index].astype(np.float32),
        y=y[index].astype(np.float32),
        cosine=cosine[index].astype(np.float32),
        normal=normal[index].astype(np.float32),
        density=density.astype(np.float32),
        weight=(ramp * belief).astype(np.float32),
        image=image,
        pixel_mm=pixel_mm / float(scale[0]),
    )


def pose_all(fit: FaceFit, views: list[int]) -> np.ndarray:
    """Vertices of several views with their expressions, model axes, (len(views), V, 3) mm."""
    fields = np.asarray(fit.model.expression, np.float32)
    moved = fit.expression[views].astype(np.float32) @ fields.reshape(len(fields), -1)
    return fit.neutral + moved.reshape(len(views), -1, 3)


def expression_weights(
    fit: FaceFit, posed: np.ndarray, pixel_mm: np.ndarray, scale_mm: float
) -> np.ndarray:
    """Weight of each vertex in each view by how neutral the face is there.

    What moves takes its surroundings along: a blink discredits the whole eye, an open mouth both
    lips. The most neutral view of a region keeps its full weight, whatever it shows.

    Parameters
    ----------
    fit : FaceFit
    posed : (N, V, 3)
        Vertices of the views, of `pose_all`.
    pixel_mm : (N,)
        Size of a pixel of the views on the face.
    scale_mm : float
        Movement that costs a factor exp(-1), where pixels are small; it is not measured better
        than to a pixel, and single frames are not to be chosen by chance.

    Returns
    -------
    (N, V) float32
    """
    model = fit.model
    neutral = fit.neutral
    scale = np.hypot(scale_mm, pixel_mm)[:, None]
    moved = np.linalg.norm(posed - neutral, axis=-1)
    side = neutral[:, 0] >= np.median(neutral[:, 0])
    cost = (moved / (2 * scale)) ** 2
    for name in ("eyes", "mouth"):
        mask = model.regions.get(name)
        if mask is None:
            continue
        for half in (side, ~side) if name == "eyes" else (np.ones_like(side),):
            core = (mask > 0.3) & half
            if core.any():
                amount = np.percentile(moved[:, core], 90, axis=1)
                cost += ((amount[:, None] / scale) ** 2) * (mask * half)
    return np.exp(-(cost - cost.min(axis=0))).astype(np.float32)


_EYES = ((468, 33, 133, 159, 145), (473, 362, 263, 386, 374))
"""The middle of an iris, the corners of its eye, its lids: MediaPipe numbers."""
_OPEN = 0.65
"""Eyes less open than this share of what a quarter of the views exceed hide their irises."""
_AHEAD_SHARE = 0.25
"""Of the views: so many, those that look most nearly ahead, say where the eyes are to look."""


def gaze_mm(
    track: FaceTrack, fit: FaceFit, views: list[int], posed: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How far the irises stand from where the surface has them, and the size of a pixel there.

    The corners of the eye, as they were seen, tell where an eye is: what shifts the whole of it is
    no gaze. Both eyes look the same way; what is said is the mean of the two.

    Parameters
    ----------
    track, fit : the person
    views : list of N int
    posed : (N, V, 3)
        Vertices of the views, of `pose_all`.

    Returns
    -------
    offset : (N, 2) mm, along and across the line of the eyes; NaN where eyes are closed, or seen
        from the side
    pixel_mm : (N,)
    """
    model = fit.model
    wanted = [number for eye in _EYES for number in eye]
    triangle = model.landmarks.triangle[wanted]
    offset = np.full((len(views), 2), np.nan)
    opened = np.full(len(views), np.nan)
    pixel = fit.t[views, 2] / fit.K[views, 0, 0]
    if (triangle < 0).any():
        return offset, pixel
    corners = model.triangles[triangle]
    for n, view in enumerate(views):
        seen = np.asarray(track.views[view].landmarks, np.float64)[wanted, :2]
        at = np.einsum(
            "lk,lkc->lc", model.landmarks.barycentric[wanted], posed[n][corners].astype(np.float64)
        )
        drawn = project(at, fit.K[view], fit.R[view], fit.t[view])
        moved, open_by = [], []
        for eye in (slice(0, 5), slice(5, 10)):
            across = drawn[eye][2] - drawn[eye][1]
            width = np.linalg.norm(across)
            # An eye that is seen from the side says little of where it looks.
            length = np.linalg.norm(at[eye][2] - at[eye][1])
            if not width > 0.5 * length / pixel[n]:
                continue
            axes = np.stack([across, [-across[1], across[0]]]) / width
            gap = (seen[eye][0] - seen[eye][1:3].mean(0)) - (
                drawn[eye][0] - drawn[eye][1:3].mean(0)
            )
            moved.append(axes @ gap * [length / width, pixel[n]])
            open_by.append(np.linalg.norm(seen[eye][3] - seen[eye][4]) * pixel[n])
        if moved:
            offset[n], opened[n] = np.mean(moved, 0), np.mean(open_by)
    if np.isfinite(opened).any():
        offset[opened < _OPEN * np.nanpercentile(opened, 75)] = np.nan
    return offset, pixel


def gaze_weights(offset: np.ndarray, pixel_mm: np.ndarray, scale_mm: float) -> np.ndarray:
    """Weight of the eyes in each view: those that look as the ones that look most nearly ahead.

    Parameters
    ----------
    offset, pixel_mm : of `gaze_mm`
    scale_mm : float
        Movement of the irises that costs a factor exp(-1), where pixels are small; an iris is not
        measured better than to a pixel.

    Returns
    -------
    (N,) float32; of views whose gaze is not known the least, or 1 if it is known of hardly any
    """
    known = np.isfinite(offset).all(1)
    if known.sum() < 2:
        return np.ones(len(offset), np.float32)
    aside = np.linalg.norm(offset, axis=1)
    order = np.argsort(np.where(known, aside, np.inf), kind="stable")
    ahead = order[: max(int(np.ceil(_AHEAD_SHARE * known.sum())), 2)]
    target = np.median(offset[ahead], axis=0)
    away = np.where(known, np.linalg.norm(offset - target, axis=1), np.inf)
    cost = away**2 / (scale_mm**2 + pixel_mm**2)
    cost = np.where(known, cost, cost[known].max())
    return np.exp(-(cost - cost.min())).astype(np.float32)
