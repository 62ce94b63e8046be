"""The texture space of a model: which point of the surface every texel is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recon3d.texturing._kernels import interpolate
from recon3d.types import FaceModel


@dataclass(frozen=True)
class Atlas:
    """Texels that belong to the surface, as a list of P points.

    Attributes
    ----------
    size : int
        Side T of the texture.
    row, column : (P,) int64
    corners : (P, 3) int64
        The vertices of each texel's triangle.
    barycentric : (P, 3) float32
    mirror_x, mirror_y : (P,) float32
        Where the mirror image lies in the texture, texels with centres at half-integers; -1 where
        the model has none.
    """

    size: int
    row: np.ndarray
    column: np.ndarray
    corners: np.ndarray
    barycentric: np.ndarray
    mirror_x: np.ndarray
    mirror_y: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    @property
    def valid(self) -> np.ndarray:
        """(T, T) bool."""
        mask = np.zeros((self.size, self.size), bool)
        mask[self.row, self.column] = True
        return mask

    def interpolate(self, values: np.ndarray) -> np.ndarray:
        """Values at vertices (V, ...) to values at texels (P, ...), float32."""
        values = np.asarray(values)
        flat = np.ascontiguousarray(values.reshape(len(values), -1), np.float32)
        out = interpolate(flat, self.corners, self.barycentric)
        return out.reshape(len(self), *values.shape[1:])

    def image(self, values: np.ndarray) -> np.ndarray:
        """Values at texels (P, ...) as a picture (T, T, ...), zero elsewhere."""
        out = np.zeros((self.size, self.size, *values.shape[1:]), values.dtype)
        out[self.row, self.column] = values
        return out

    def texel_mm(self, vertices: np.ndarray) -> np.ndarray:
        """Side of a texel on the surface, (P,) mm, the root of its area."""
        points = self.image(self.interpolate(vertices))
        valid = self.valid
        along_x, along_y = _differences(points, valid)
        area = np.linalg.norm(np.cross(along_x, along_y), axis=-1)[self.row, self.column]
        good = area > 0
        typical = np.median(area[good]) if good.any() else 1.0
        # A texel alone on a border has no neighbours to measure by.
        return np.sqrt(np.where(good, np.minimum(area, 50 * typical), typical)).astype(np.float32)


def build_atlas(model: FaceModel, size: int) -> Atlas:
    """List the texels of a model's surface.

    Parameters
    ----------
    model : FaceModel
    size : int
        Side of the texture.

    Returns
    -------
    Atlas
    """
    from recon3d.rendering.native import rasterise_uv

    triangle, barycentric = rasterise_uv(model.uv, model.triangles_uv, size)
    row, column = np.nonzero(triangle >= 0)
    triangle = triangle[row, column]
    corners = np.asarray(model.triangles, np.int64)[triangle]
    barycentric = np.ascontiguousarray(barycentric[row, column], np.float32)
    mirror = _mirror_coordinates(model, triangle, barycentric, size)
    return Atlas(size, row, column, corners, barycentric, mirror[:, 0], mirror[:, 1])


def _mirror_coordinates(model, triangle, barycentric, size) -> np.ndarray:
    # A vertex on a chart border has several texture coordinates; the one of its last triangle
    # stands for all, and triangles whose three mirrored corners lie apart are given up.
    uv = np.full((model.n_vertices, 2), np.nan)
    uv[model.triangles.ravel()] = model.uv[model.triangles_uv.ravel()]
    mirrored = np.asarray(model.mirror)[model.triangles]
    points = uv[np.maximum(mirrored, 0)]
    spread = np.ptp(points, axis=1).max(axis=-1)
    own = np.ptp(uv[model.triangles], axis=1).max(axis=-1)
    good = (mirrored >= 0).all(axis=1) & (spread < 3 * own + 4 / size)
    x, y = (np.einsum("pk,pk->p", barycentric, points[triangle, :, k]) for k in (0, 1))
    out = np.stack([x * size, (1 - y) * size], axis=1)
    return np.where(good[triangle, None], out, -1).astype(np.float32)


def _differences(points: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    out = []
    for axis in (1, 0):
        ahead = np.roll(points, -1, axis) - points
        both = valid & np.roll(valid, -1, axis)
        behind = points - np.roll(points, 1, axis)
        both_behind = valid & np.roll(valid, 1, axis)
        difference = np.where(both[..., None], ahead, np.where(both_behind[..., None], behind, 0.0))
        out.append(difference)
    return out[0], out[1]
