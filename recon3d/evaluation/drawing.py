"""Supersampled pictures of meshes, and plain places to put them in."""

from __future__ import annotations

import cv2
import numpy as np

from recon3d.checks import check_shape
from recon3d.geometry import crop_camera
from recon3d.types import Camera


def draw_mesh(
    vertices: np.ndarray,
    triangles: np.ndarray,
    attributes: np.ndarray,
    camera: Camera,
    *,
    corners: np.ndarray | None = None,
    supersample: int = 3,
    cull_backfaces: bool = True,
    finish=None,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a mesh with attributes at its vertices, averaged over sub-pixels.

    Parameters
    ----------
    vertices : (V, 3), mm, world
    triangles : (F, 3)
    attributes : (A, C), for example linear RGB or texture coordinates
    camera : Camera
    corners : (F, 3) int, optional
        Rows of `attributes` at the corners, where they are not those of the vertices.
    supersample : int
        Sub-pixels along each axis of a pixel.
    cull_backfaces : bool
    finish : callable (attributes (P, C), normals (P, 3)) -> (P, D), optional
        Makes linear colours of what was interpolated, at each of the P covered sub-pixels.

    Returns
    -------
    picture : (H, W, D) float32
        Averages over sub-pixels, 0 where nothing is drawn (premultiplied by the coverage).
    coverage : (H, W) float32 in [0, 1]
    """
    import torch

    from recon3d.rendering import interpolate_attributes, rasterise, vertex_normals

    check_shape(vertices, "V 3", "vertices")
    width, height = camera.size
    # Only the box around the mesh is drawn.
    x0, y0, x1, y1 = _box(vertices, camera)
    if x1 <= x0 or y1 <= y0:
        return np.zeros((height, width, attributes.shape[1]), np.float32), np.zeros(
            (height, width), np.float32
        )
    w, h = x1 - x0, y1 - y0
    fine = crop_camera(camera, (x0, y0), supersample, (w * supersample, h * supersample))
    points = torch.from_numpy(np.ascontiguousarray(vertices, np.float32))
    faces = torch.from_numpy(np.ascontiguousarray(triangles, np.int64))
    K, R, t = (torch.from_numpy(np.asarray(x, np.float32)) for x in (fine.K, fine.R, fine.t))
    with torch.no_grad():
        fragments = rasterise(
            points,
            faces,
            K,
            R,
            t,
            (h * supersample, w * supersample),
            cull_backfaces=cull_backfaces,
        )
        values = torch.from_numpy(np.ascontiguousarray(attributes, np.float32))
        rows = faces if corners is None else torch.from_numpy(np.asarray(corners, np.int64))
        drawn = interpolate_attributes(fragments, values, rows)[0].numpy()
        seen = fragments.mask[0].numpy()
        if finish is not None:
            normals = interpolate_attributes(fragments, vertex_normals(points, faces), faces)
            normals = normals[0].numpy()[seen]
            normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
            colours = np.asarray(finish(drawn[seen], normals), np.float32)
            drawn = np.zeros((*seen.shape, colours.shape[1]), np.float32)
            drawn[seen] = colours
    small = (w, h)
    part = cv2.resize(drawn, small, interpolation=cv2.INTER_AREA).reshape(h, w, -1)
    cover = cv2.resize(seen.astype(np.float32), small, interpolation=cv2.INTER_AREA)
    picture = np.zeros((height, width, part.shape[2]), np.float32)
    coverage = np.zeros((height, width), np.float32)
    picture[y0:y1, x0:x1], coverage[y0:y1, x0:x1] = part, cover
    return picture, coverage


def over(background: np.ndarray, picture: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    """Put a premultiplied picture over a background, (H, W, 3) linear."""
    return picture + (1 - coverage[..., None]) * background


def room(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A plain interior, slightly out of focus.

    Parameters
    ----------
    size : (width, height), px
    rng : Generator
        Chooses colours and where door and skirting lie.

    Returns
    -------
    (height, width, 3) float32, linear RGB
    """
    width, height = size
    wall = rng.uniform(0.18, 0.42) * (1 + rng.normal(0, 0.06, 3))
    picture = np.empty((height, width, 3), np.float32)
    picture[:] = wall
    # A door or a cupboard, darker or lighter than the wall, and its frame.
    x = int(width * rng.uniform(0.05, 0.75))
    wide, top = int(width * rng.uniform(0.14, 0.24)), int(height * rng.uniform(0.02, 0.3))
    frame = max(width // 90, 2)
    picture[top:, x - frame : x + wide + frame] = wall * 0.55
    picture[top + frame :, x : x + wide] = wall * rng.uniform(0.4, 0.8) * [1.15, 0.95, 0.75]
    floor = int(height * rng.uniform(0.8, 0.92))
    picture[floor:] = wall * rng.uniform(0.25, 0.5)
    picture[floor : floor + frame] = wall * 0.75
    # Light falls off from one corner; plaster is uneven.
    u, v = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    lamp = rng.uniform(-1, 1), rng.uniform(-1.2, -0.6)
    picture *= (1.25 / (1 + 0.35 * ((u - lamp[0]) ** 2 + (v - lamp[1]) ** 2)))[..., None]
    coarse = rng.normal(0, 1, (height // 8 + 1, width // 8 + 1)).astype(np.float32)
    uneven = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    picture *= 1 + 0.025 * uneven[..., None]
    return np.clip(cv2.GaussianBlur(picture, (0, 0), width / 500), 0, 1).astype(np.float32)


def shoulders(collar_y: float, centre_z: float) -> tuple[np.ndarray, np.ndarray]:
    """A plain bust for a head to stand on: rings from the collar over the shoulders downwards.

    Parameters
    ----------
    collar_y, centre_z : float
        Height of the collar and depth of the neck's axis, model axes, mm.

    Returns
    -------
    vertices : (V, 3) mm; triangles : (F, 3), counter-clockwise seen from outside
    """
    # Drop below the collar, half width, half depth of the rings.
    rings = np.array(
        [
            [0, 62, 62],
            [12, 74, 70],
            [26, 105, 78],
            [42, 150, 86],
            [62, 185, 94],
            [95, 208, 104],
            [150, 218, 112],
            [420, 225, 118],
        ],
        float,
    )
    fine = np.linspace(0, 1, 40) ** 1.5 * 420
    drop, wide, deep = fine, *(np.interp(fine, rings[:, 0], rings[:, k]) for k in (1, 2))
    n = 64
    around = np.linspace(0, 2 * np.pi, n, endpoint=False)
    x = wide[:, None] * np.sin(around)
    z = centre_z + deep[:, None] * np.cos(around)
    y = np.broadcast_to(collar_y - drop[:, None], x.shape)
    vertices = np.stack([x, y, z], -1).reshape(-1, 3)
    ring, step = np.meshgrid(np.arange(len(drop) - 1), np.arange(n), indexing="ij")
    a, b = (ring * n + step).ravel(), (ring * n + (step + 1) % n).ravel()
    c, d = a + n, b + n
    return vertices, np.concatenate([np.stack([a, c, d], 1), np.stack([a, d, b], 1)])


def _box(vertices: np.ndarray, camera: Camera) -> tuple[int, int, int, int]:
    """Pixels that the mesh can touch: x0, y0, x1, y1, inside the picture."""
    width, height = camera.size
    in_camera = vertices @ camera.R.T + camera.t
    front = in_camera[in_camera[:, 2] > 1e-2]
    if len(front) == 0:
        return 0, 0, 0, 0
    if len(front) < len(in_camera):
        return 0, 0, width, height
    pixels = (front @ camera.K.T)[:, :2] / front[:, 2:]
    low, high = np.floor(pixels.min(0)).astype(int) - 1, np.ceil(pixels.max(0)).astype(int) + 1
    low, high = np.clip(low, 0, [width, height]), np.clip(high, 0, [width, height])
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])
