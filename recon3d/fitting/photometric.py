"""What the views' pictures show at points of a surface: sampling, visibility, blur."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recon3d.colour import srgb_to_linear
from recon3d.geometry import triangle_normals, vertex_normals
from recon3d.rendering.native import rasterise_numpy
from recon3d.types import FaceModel, FaceTrack

LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)
"""Of linear light (Rec. 709): colour is halved in resolution by every video codec."""

DEPTH_GRID_MM = 2.0
"""Pixel of the depth buffers against which samples are tested."""

DEPTH_SLACK_MM = 5.0
"""How far a sample may lie behind the surface drawn near it and still count as seen."""


@dataclass(frozen=True)
class Picture:
    """Log light of one view at one blur, and its gradient.

    Attributes
    ----------
    values : (h, w, 3) float32
        Logarithm of linear luminance, its derivatives by x and y (1/px).
    origin : (2,) float
        Frame position of the patch's upper left corner, px.
    """

    values: np.ndarray
    origin: np.ndarray

    def at(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bilinear samples (M, 3) at frame positions (M, 2), and whether they lie inside."""
        h, w = self.values.shape[:2]
        x = points[:, 0] - self.origin[0] - 0.5
        y = points[:, 1] - self.origin[1] - 0.5
        inside = (x >= 1) & (y >= 1) & (x <= w - 2) & (y <= h - 2)
        x, y = np.clip(x, 0, w - 1.001), np.clip(y, 0, h - 1.001)
        i, j = y.astype(int), x.astype(int)
        a, b = (x - j)[:, None].astype(np.float32), (y - i)[:, None].astype(np.float32)
        flat = self.values.reshape(-1, 3)
        k = i * w + j
        top = flat[k] * (1 - a) + flat[k + 1] * a
        bottom = flat[k + w] * (1 - a) + flat[k + w + 1] * a
        return top * (1 - b) + bottom * b, inside


class Pictures:
    """The patches of a track in linear light, blurred on demand.

    Parameters
    ----------
    track : FaceTrack
        Its views may lack a patch: they show nothing.
    """

    def __init__(self, track: FaceTrack):
        self.luminance: list[np.ndarray | None] = []
        self.origins = []
        self._latest: dict[int, tuple[float, Picture]] = {}
        for view in track.views:
            patch = view.patch
            good = patch is not None and min(patch.image.shape[:2]) >= 4
            self.luminance.append(
                (srgb_to_linear(patch.image) @ LUMA).astype(np.float32) if good else None
            )
            self.origins.append(np.asarray(patch.origin, np.float64) if good else np.zeros(2))
        # what a sensor adds to darkness is no detail: logarithms begin above it
        levels = [float(np.median(_middle(v))) for v in self.luminance if v is not None]
        self.floor = 0.1 * float(np.median(levels)) + 1e-4 if levels else 1.0

    def blurred(self, view: int, sigma: float) -> Picture | None:
        """One view after a Gaussian of sigma px; None where there is no patch."""
        import cv2

        luminance = self.luminance[view]
        if luminance is None:
            return None
        # a blur is asked for several times in a row; all of them would be much memory
        kept = self._latest.get(view)
        if kept is not None and kept[0] == sigma:
            return kept[1]
        smooth = cv2.GaussianBlur(luminance, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
        log = np.log(np.maximum(smooth, 0) + self.floor)
        gy, gx = np.gradient(log)
        picture = Picture(np.stack([log, gx, gy], 2), self.origins[view])
        self._latest[view] = (sigma, picture)
        return picture


def _middle(image: np.ndarray) -> np.ndarray:
    """The middle half of a patch, where the face is."""
    h, w = image.shape
    return image[h // 4 : h - h // 4, w // 4 : w - w // 4]


@dataclass(frozen=True)
class Samples:
    """Vertices of rigid skin at which views are compared.

    Attributes
    ----------
    index : (M,) int, vertices of the model
    weight : (M,) in (0, 1], how much of each is rigid skin
    area : (M,) mm^2 of surface that each stands for
    cell : (M,) int, number of the patch of skin it lies in
    n_cells : int
    """

    index: np.ndarray
    weight: np.ndarray
    area: np.ndarray
    cell: np.ndarray
    n_cells: int


def choose_samples(
    model: FaceModel, n_samples: int, rng: np.random.Generator, *, cell_mm: float = 18.0
) -> Samples:
    """Vertices spread over the skin that moves least with expression, even in area.

    Parameters
    ----------
    model : FaceModel
    n_samples : int
    rng : Generator
    cell_mm : float
        Size of the patches of skin that are held out together.
    """
    skin = np.asarray(model.regions.get("face", np.ones(model.n_vertices)), np.float64)
    for name in ("eyes", "mouth", "mouth_interior", "neck"):
        if name in model.regions:
            skin = skin * (1 - np.clip(model.regions[name], 0, 1))
    size = np.linalg.norm(triangle_normals(model.mean, model.triangles, unit=False), axis=1) / 2
    area = np.zeros(model.n_vertices)
    for corner in range(3):
        area += np.bincount(model.triangles[:, corner], size / 3, minlength=model.n_vertices)
    share = skin * area
    candidates = np.flatnonzero((skin > 0.3) & (area > 0))
    if len(candidates) > n_samples:
        # the largest of exponential races: a draw without replacement, in proportion
        race = rng.exponential(size=len(candidates)) / share[candidates]
        candidates = np.sort(candidates[np.argsort(race)[:n_samples]])
        each = np.full(len(candidates), share.sum() / max(len(candidates), 1))
        each = np.maximum(each, area[candidates])
    else:
        each = area[candidates]
    points = model.mean[candidates]
    total = float(area[candidates].sum()) if len(candidates) <= n_samples else share.sum()
    n_cells = int(np.clip(max(total, share.sum()) / cell_mm**2, 1, 400))
    centres = points[rng.choice(len(points), min(n_cells, len(points)), replace=False)]
    d2 = ((points[:, None] - centres[None]) ** 2).sum(-1) if len(points) else np.zeros((0, 1))
    return Samples(candidates, skin[candidates], each, d2.argmin(1), len(centres))


def visible_samples(
    vertices: np.ndarray,
    triangles: np.ndarray,
    index: np.ndarray,
    K: np.ndarray,
    R: np.ndarray,
    t: np.ndarray,
    margin_mm: float,
    *,
    normals: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How squarely one view sees some vertices.

    Parameters
    ----------
    vertices : (V, 3) mm
    triangles : (F, 3)
    index : (M,) vertices asked for
    K, R, t : camera
    margin_mm : float
        A vertex so near an edge of what hides it, or of the head, counts as hidden: blur mixes
        what lies on both sides.
    normals : (M, 3), optional
        Of the vertices asked for, model axes, where they are known already.

    Returns
    -------
    cosine : (M,) between normal and direction to the camera, 0 where hidden
    normal : (M, 3) camera axes
    points : (M, 3) camera axes, mm
    """
    import cv2

    camera = vertices @ R.T + t
    if normals is None:
        normals = vertex_normals(vertices, triangles)[index]
    normals = normals @ R.T
    points = camera[index]
    cosine = -(normals * points).sum(1) / np.maximum(np.linalg.norm(points, axis=1), 1e-9)
    cosine = np.maximum(cosine, 0.0)
    if (camera[:, 2] < 1.0).any():
        return np.zeros(len(index)), normals, points
    # a depth buffer of its own resolution, whatever the view's
    depth = float(np.median(points[:, 2]))
    zoom = depth / (K[0, 0] * DEPTH_GRID_MM)
    at = camera[:, :2] / camera[:, 2:] * (K[0, 0] * zoom)
    # column by column: along rows of two it is ten times slower
    low = np.array([at[:, k].min() for k in (0, 1)]) - 2
    size = np.ceil(np.array([at[:, k].max() for k in (0, 1)]) + 2 - low).astype(int)
    if size.max() > 1500:
        return np.zeros(len(index)), normals, points
    grid_K = np.array([[K[0, 0] * zoom, 0, -low[0]], [0, K[0, 0] * zoom, -low[1]], [0, 0, 1.0]])
    pix_to_face, zbuf, _ = rasterise_numpy(camera, triangles, grid_K, (size[1], size[0]))
    zbuf = np.where(pix_to_face >= 0, zbuf, 0.0).astype(np.float32)
    # behind an edge of the head lies the background: as if something were in front
    radius = max(1, round(margin_mm / DEPTH_GRID_MM))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    nearest = cv2.erode(zbuf, kernel, borderValue=0)
    cell = np.clip((at[index] - low).astype(int), 0, size - 1)
    slope = np.sqrt(1 - np.minimum(cosine, 1.0) ** 2) / np.maximum(cosine, 0.15)
    slack = DEPTH_SLACK_MM + (radius + 1) * DEPTH_GRID_MM * slope
    seen = points[:, 2] <= nearest[cell[:, 1], cell[:, 0]] + slack
    return np.where(seen, cosine, 0.0), normals, points
