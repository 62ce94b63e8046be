"""A result's surface as graphics cards want it, and lengths on it as colours."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from recon3d.geometry import vertex_normals

RANGES_MM = {"uncertainty": 4.0, "error": 6.0}
"""Upper end of the colour scale of the modes that show a length, mm."""

_REACH_MM = 9.0
"""Distance over which a landmark speaks for the skin around it, mm."""

_UNKNOWN = (176, 180, 188)
"""Colour of skin that a mode says nothing about."""


@dataclass(frozen=True)
class Surface:
    """A mesh with one texture coordinate to a vertex: what graphics cards draw.

    Attributes
    ----------
    vertices : (V, 3) mm; normals : (V, 3), those of the closed surface
    triangles : (F, 3) int64
    uv : (V, 2), v up
    original : (V,) int64
        Number of each vertex in the mesh before its seams were cut.
    """

    vertices: np.ndarray
    normals: np.ndarray
    triangles: np.ndarray
    uv: np.ndarray
    original: np.ndarray


def colour_table() -> np.ndarray:
    """(256, 3) uint8 RGB of the scale, small values first."""
    ramp = np.arange(256, dtype=np.uint8)[:, None]
    return np.ascontiguousarray(cv2.applyColorMap(ramp, cv2.COLORMAP_VIRIDIS)[:, 0, ::-1])


def split_seams(
    vertices: np.ndarray, triangles: np.ndarray, uv: np.ndarray, triangles_uv: np.ndarray
) -> Surface:
    """Double the vertices along the seams of a texture.

    Parameters
    ----------
    vertices : (V, 3), mm
    triangles, triangles_uv : (F, 3) int
        Corners in `vertices` and in `uv`.
    uv : (U, 2)

    Returns
    -------
    Surface

    Examples
    --------
    >>> v, uv = np.eye(3), np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]])
    >>> t, tuv = np.array([[0, 1, 2], [0, 2, 1]]), np.array([[0, 1, 2], [3, 2, 1]])
    >>> split_seams(v, t, uv, tuv).original
    array([0, 0, 1, 2])
    """
    corners = np.stack([triangles, triangles_uv], -1).reshape(-1, 2)
    pairs, index = np.unique(corners, axis=0, return_inverse=True)
    normals = vertex_normals(np.asarray(vertices, np.float64), np.asarray(triangles))
    return Surface(
        vertices=np.asarray(vertices, np.float64)[pairs[:, 0]],
        normals=normals[pairs[:, 0]],
        triangles=index.reshape(-1, 3).astype(np.int64),
        uv=np.asarray(uv, np.float64)[pairs[:, 1]],
        original=pairs[:, 0].astype(np.int64),
    )


def surface_error(
    vertices: np.ndarray,
    landmarks: np.ndarray,
    residuals: np.ndarray,
    weights: np.ndarray,
    K: np.ndarray,
    t: np.ndarray,
) -> np.ndarray:
    """Landmark residuals as a length on the skin.

    Parameters
    ----------
    vertices : (V, 3), mm
    landmarks : (L, 3), mm
        On the same mesh; NaN where the model has no such point.
    residuals : (N, L, 2), px
    weights : (N, L)
    K, t : (N, 3, 3), (N, 3)

    Returns
    -------
    (V,) mm; NaN further than about 2 `_REACH_MM` from every landmark that was used
    """
    scale = t[:, 2] / K[:, 0, 0]  # mm on the face to a pixel
    length = np.linalg.norm(residuals, axis=-1) * scale[:, None]
    length[(weights <= 0.05) | ~np.isfinite(length)] = np.nan
    used = np.isfinite(length).any(0) & np.isfinite(landmarks).all(1)
    if not used.any():
        return np.full(len(vertices), np.nan)
    median = np.nanmedian(length[:, used], axis=0)
    points = landmarks[used]
    squared = (vertices**2).sum(1)[:, None] + (points**2).sum(1) - 2 * vertices @ points.T
    kernel = np.exp(-np.maximum(squared, 0) / (2 * _REACH_MM**2))
    total = kernel.sum(1)
    return np.where(total > np.exp(-2.0), kernel @ median / np.maximum(total, 1e-12), np.nan)


def length_colours(value: np.ndarray, top: float) -> np.ndarray:
    """Colours of a length at each vertex.

    Parameters
    ----------
    value : (V,), NaN where it is not known
    top : float
        End of the scale, in the same unit.

    Returns
    -------
    (V, 3) uint8 RGB, from dark blue (0) to yellow (`top` and more); grey where not known
    """
    known = np.isfinite(value)
    level = np.clip(np.where(known, value, 0) / top, 0, 1)
    colours = colour_table()[(level * 255).astype(int)]
    colours[~known] = _UNKNOWN
    return colours


def read_surface(folder: Path) -> tuple[Surface, np.ndarray, np.ndarray]:
    """The surface that lies in a track's folder.

    Returns
    -------
    surface : Surface
        The OBJ's mesh, cut along its seams, with the numbers and normals of the PLY's closed one.
    neutral : (V, 3) mm
        Vertices of the closed mesh.
    landmarks : (478, 3) mm
        On it; NaN where the model has no such point.
    """
    import trimesh
    from scipy.spatial import cKDTree

    cut = trimesh.load(folder / "mesh.obj", process=False, maintain_order=True)
    closed = trimesh.load(folder / "mesh.ply", process=False)
    record = json.loads((folder / "landmarks.json").read_text(encoding="utf-8"))
    landmarks = np.array([p or [np.nan] * 3 for p in record["mediapipe478"]], np.float64)
    vertices, neutral = np.asarray(cut.vertices, np.float64), np.asarray(closed.vertices)
    _, original = cKDTree(neutral).query(vertices)
    normals = vertex_normals(neutral.astype(np.float64), np.asarray(closed.faces, np.int64))
    surface = Surface(
        vertices=vertices,
        normals=normals[original],
        triangles=np.asarray(cut.faces, np.int64),
        uv=np.asarray(cut.visual.uv, np.float64),
        original=original.astype(np.int64),
    )
    return surface, neutral.astype(np.float64), landmarks
