"""A still of a result, drawn by our own rasteriser: needs no display and no system library."""

from __future__ import annotations

import cv2
import numpy as np

from recon3d.geometry import head_rotation
from recon3d.viewing.scene import ViewScene

_BACKGROUND = np.array([233, 236, 242], np.float32)
_SUPERSAMPLING = 2


def render_still(
    scene: ViewScene,
    *,
    mode: str = "texture",
    yaw: float = 25.0,
    pitch: float = 0.0,
    size: tuple[int, int] = (768, 768),
) -> np.ndarray:
    """Draw the mesh from a chosen side under a soft light.

    Parameters
    ----------
    scene : ViewScene
    mode : str, one of `recon3d.viewing.MODES`
    yaw, pitch : float, degrees
        How the head is turned towards the viewer.
    size : (width, height), px

    Returns
    -------
    (H, W, 3) uint8 sRGB
    """
    from recon3d.rendering.native import rasterise_numpy

    width, height = size[0] * _SUPERSAMPLING, size[1] * _SUPERSAMPLING
    surface = scene.surface
    low, high = surface.vertices.min(0), surface.vertices.max(0)
    centre, reach = (low + high) / 2, float(np.linalg.norm(high - low)) / 2
    R = head_rotation(yaw, pitch, 0.0)
    # A long lens: little perspective, as in a portrait.
    distance = 6.0 * reach
    focal = 0.46 * min(width, height) * distance / (0.72 * reach)
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    camera = (surface.vertices - centre) @ R.T + [0, 0, distance]
    face, _, barycentric = rasterise_numpy(camera, surface.triangles, K, (height, width))
    hit = face >= 0
    corner = surface.triangles[face[hit]]
    weight = barycentric[hit][..., None]
    normal = (surface.normals[corner] * weight).sum(1) @ R.T
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-12
    light = np.array([0.3, -0.4, -1.0])
    lambert = np.abs(normal @ (light / np.linalg.norm(light)))
    picture = scene.picture(mode)
    if picture is None:
        colour = (scene.vertex_colours(mode)[corner].astype(np.float32) * weight).sum(1)
    else:
        colour = _lookup(picture, (surface.uv[corner] * weight).sum(1))
    # Texture is shown nearly as it is; a bare surface needs its shading to be read.
    strength = {"texture": 0.25, "evidence": 0.25, "uncertainty": 0.5, "error": 0.5}.get(mode, 0.8)
    colour = colour * (1 - strength + strength * lambert)[:, None]
    image = np.broadcast_to(_BACKGROUND, (height, width, 3)).copy()
    image[hit] = colour
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)


def _lookup(picture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Bilinear texture lookup, (P, 3) float32."""
    h, w = picture.shape[:2]
    x = (uv[:, 0] * w - 0.5).astype(np.float32)
    y = ((1 - uv[:, 1]) * h - 0.5).astype(np.float32)
    # cv2.remap wants a picture-shaped map with fewer than 32768 columns.
    rows = -(-len(x) // 4096)
    pad = rows * 4096 - len(x)
    grid_x, grid_y = (np.pad(a, (0, pad)).reshape(rows, 4096) for a in (x, y))
    out = cv2.remap(picture, grid_x, grid_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return out.reshape(-1, 3)[: len(x)].astype(np.float32)
