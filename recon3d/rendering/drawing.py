"""Supersampled pictures of meshes."""

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
    normals: bool = True,
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
    normals : bool
        Whether `finish` wants normals; without them it is handed None.

    Returns
    -------
    picture : (H, W, D) float32
        Averages over sub-pixels, 0 where nothing is drawn (premultiplied by the coverage).
    coverage : (H, W) float32 in [0, 1]
    """
    import torch

    from recon3d.rendering.attributes import interpolate_attributes, vertex_normals
    from recon3d.rendering.interface import rasterise

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
            across = None
            if normals:
                across = interpolate_attributes(fragments, vertex_normals(points, faces), faces)
                across = across[0].numpy()[seen]
                length = np.sqrt(np.einsum("pc,pc->p", across, across))
                across /= np.maximum(length, 1e-9)[:, None]
            colours = np.asarray(finish(drawn[seen], across), np.float32)
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


def _box(vertices: np.ndarray, camera: Camera) -> tuple[int, int, int, int]:
    """Pixels that the mesh can touch: x0, y0, x1, y1, inside the picture."""
    width, height = camera.size
    in_camera = camera.R @ vertices.T + np.reshape(camera.t, (3, 1))
    front = in_camera[2] > 1e-2
    if not front.any():
        return 0, 0, 0, 0
    if not front.all():
        return 0, 0, width, height
    pixels = (camera.K @ in_camera)[:2] / in_camera[2]
    low, high = np.floor(pixels.min(1)).astype(int) - 1, np.ceil(pixels.max(1)).astype(int) + 1
    low, high = np.clip(low, 0, [width, height]), np.clip(high, 0, [width, height])
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])
