"""Which landmarks the face itself hides."""

from __future__ import annotations

from copy import copy

import numpy as np

from recon3d.geometry import packed, vertex_normals
from recon3d.types import FaceModel, LandmarkEmbedding

CELL_MM = 3.0
"""Size of a cell of the depth grid: a few times the mean edge of a 7 000 vertex head."""


def surface_points(values: np.ndarray, triangles, embedding: LandmarkEmbedding) -> np.ndarray:
    """Interpolate per-vertex values (..., V, 3) at embedded points, (..., L, 3); NaN if absent."""
    corners = values[..., triangles[np.maximum(embedding.triangle, 0)], :].astype(np.float64)
    out = np.einsum("lk,...lkc->...lc", embedding.barycentric, corners)
    return np.where((embedding.triangle >= 0)[:, None], out, np.nan)


class Visibility:
    """Looks up, for a direction of view, which landmarks of a model are visible.

    A landmark is visible when its normal faces the camera and nothing of the head lies in front of
    it. The second is read from a depth grid of the mean head, seen orthographically from the
    direction rounded to `step` degrees and kept: a track of a thousand views asks for a few dozen
    directions.

    Parameters
    ----------
    model : FaceModel
    step : float, degrees
    """

    def __init__(self, model: FaceModel, *, step: float = 8.0):
        self.step = step
        mean = model.mean.astype(np.float64)
        normals = vertex_normals(mean, model.triangles)
        self.points = surface_points(mean, model.triangles, model.landmarks)
        n = surface_points(normals, model.triangles, model.landmarks)
        self.normals = n / (np.linalg.norm(n, axis=1, keepdims=True) + 1e-12)
        corners = mean[model.triangles]
        self.cloud = np.concatenate([mean, corners.mean(1)])
        edges = np.linalg.norm(corners - np.roll(corners, 1, 1), axis=-1)
        if np.median(edges) > 1.5 * CELL_MM:
            # a coarse mesh: edge midpoints too, lest the depth grid have holes
            middles = ((corners + np.roll(corners, 1, 1)) / 2).reshape(-1, 3)
            self.cloud = np.concatenate([self.cloud, middles])
        # a square that holds the head seen from anywhere
        self._reach = float(np.linalg.norm(self.cloud, axis=1).max()) + CELL_MM
        self._clear: dict[tuple[int, int], np.ndarray] = {}
        self._chosen: np.ndarray | slice = slice(None)

    def restricted(self, landmarks: np.ndarray) -> Visibility:
        """The same for the landmarks of these numbers only; what was looked up is shared."""
        part = copy(self)
        part._chosen = landmarks
        return part

    def cosines(self, directions: np.ndarray) -> np.ndarray:
        """(N, L) cosines between landmark normals and (N, 3) unit directions to the camera."""
        return directions @ np.nan_to_num(self.normals[self._chosen]).T

    def unobstructed(self, directions: np.ndarray) -> np.ndarray:
        """(N, L) bool, whether nothing of the mean head lies between landmark and camera."""
        yaw = np.degrees(np.arctan2(packed(directions[:, 0]), packed(directions[:, 2])))
        pitch = np.degrees(np.arcsin(np.clip(directions[:, 1], -1, 1)))
        keys = np.rint(np.stack([yaw, pitch], 1) / self.step).astype(int)
        out = np.empty((len(directions), len(self.points[self._chosen])), bool)
        for n, key in enumerate(map(tuple, keys)):
            if key not in self._clear:
                self._clear[key] = self._look(*(np.radians(self.step * k) for k in key))
            out[n] = self._clear[key][self._chosen]
        return out

    def _look(self, yaw: float, pitch: float) -> np.ndarray:
        d = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
        right = np.array([np.cos(yaw), 0.0, -np.sin(yaw)])
        axes = np.stack([right, np.cross(d, right)])
        plane = self.cloud @ axes.T
        side = int(np.ceil(2 * self._reach / CELL_MM)) + 1
        depth = self.cloud @ d
        cell = ((plane + self._reach) / CELL_MM).astype(int)
        grid = np.full(side * side, -np.inf)
        np.maximum.at(grid, cell[:, 0] * side + cell[:, 1], depth)
        points = np.nan_to_num(self.points)
        at = ((points @ axes.T + self._reach) / CELL_MM).astype(int)
        # a cell of a slanted surface spans some depth itself
        cosine = np.clip(np.nan_to_num(self.normals) @ d, 0.25, 1.0)
        slack = 4.0 + CELL_MM * np.sqrt(1 - cosine**2) / cosine
        return points @ d >= grid[at[:, 0] * side + at[:, 1]] - slack
