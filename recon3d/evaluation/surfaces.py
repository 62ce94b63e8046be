"""Distances between points and a mesh, and the fine alignment of a mesh to a scan."""

from __future__ import annotations

import numpy as np

from recon3d.checks import check_shape
from recon3d.errors import InputError

MAX_EDGE = 4.0
"""Triangles with longer edges (mm) are split, so that centroids find the nearest ones."""

_CANDIDATES = 6
_MAX_SPLIT = 400_000


def split_long_edges(
    vertices: np.ndarray, triangles: np.ndarray, longest: float
) -> tuple[np.ndarray, np.ndarray]:
    """Split triangles in four, in place, until hardly any edge is longer than asked.

    The surface stays where it is; neighbours are not kept together (the result is good for
    distances, not for normals).

    Parameters
    ----------
    vertices : (V, 3)
    triangles : (F, 3) int
    longest : float, in the unit of the vertices

    Returns
    -------
    vertices : (V', 3)
    triangles : (F', 3) int
    """
    for _ in range(6):
        corners = vertices[triangles]
        edges = np.linalg.norm(corners - np.roll(corners, -1, axis=1), axis=2).max(1)
        long = edges > longest
        n_long = int(long.sum())
        if n_long == 0 or n_long > _MAX_SPLIT:
            break
        a, b, c = triangles[long].T
        first = len(vertices)
        ab, bc, ca = (first + k * n_long + np.arange(n_long) for k in range(3))
        middle = [(vertices[i] + vertices[j]) / 2 for i, j in ((a, b), (b, c), (c, a))]
        quarters = [np.stack(t, 1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))]
        triangles = np.concatenate([triangles[~long], *quarters])
        vertices = np.concatenate([vertices, *middle])
    return vertices, triangles


def closest_on_triangles(
    points: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray
) -> np.ndarray:
    """Closest point of each triangle, by the regions of its corners, edges and inside [1]_.

    Parameters
    ----------
    points : (..., 3)
    a, b, c : (..., 3) corners, broadcast against the points, of triangles that have an area

    Returns
    -------
    (..., 3)

    References
    ----------
    .. [1] C. Ericson, Real-Time Collision Detection, Morgan Kaufmann, 2005, section 5.1.5.

    Examples
    --------
    >>> a, b, c = np.eye(3)
    >>> closest_on_triangles(np.array([2.0, 0, 0]), a, b, c)
    array([1., 0., 0.])
    """
    ab, ac = b - a, c - a

    def along(origin):
        to_point = points - origin
        return (ab * to_point).sum(-1), (ac * to_point).sum(-1)

    (d1, d2), (d3, d4), (d5, d6) = along(a), along(b), along(c)
    area_a, area_b, area_c = d3 * d6 - d5 * d4, d5 * d2 - d1 * d6, d1 * d4 - d3 * d2

    def share(part, rest):
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.clip(np.nan_to_num(part / (part + rest)), 0, 1)[..., None]

    total = area_a + area_b + area_c
    total = np.where(np.abs(total) < 1e-18, 1e-18, total)
    closest = a + (area_b / total)[..., None] * ab + (area_c / total)[..., None] * ac
    # The corner regions come last: they overrule the edges that meet in them.
    for region, candidate in (
        ((area_c <= 0) & (d1 >= 0) & (d3 <= 0), a + share(d1, -d3) * ab),
        ((area_b <= 0) & (d2 >= 0) & (d6 <= 0), a + share(d2, -d6) * ac),
        ((area_a <= 0) & (d4 >= d3) & (d5 >= d6), b + share(d4 - d3, d5 - d6) * (c - b)),
        ((d1 <= 0) & (d2 <= 0), a),
        ((d3 >= 0) & (d4 <= d3), b),
        ((d6 >= 0) & (d5 <= d6), c),
    ):
        closest = np.where(region[..., None], candidate, closest)
    return closest


class Surface:
    """A mesh that is asked for its closest points.

    Parameters
    ----------
    vertices : (V, 3) float, mm
    triangles : (F, 3) int
    longest : float
        Edges are split to this length, mm.

    Raises
    ------
    InputError
        If the mesh has no triangle of positive area, or a vertex is not finite.
    """

    def __init__(self, vertices: np.ndarray, triangles: np.ndarray, longest: float = MAX_EDGE):
        from scipy.spatial import cKDTree

        check_shape(vertices, "V 3", "vertices")
        if len(triangles) == 0 or not np.isfinite(vertices).all():
            raise InputError("the mesh has no triangles or vertices that are not finite")
        check_shape(triangles, "F 3", "triangles")
        vertices, triangles = split_long_edges(
            np.asarray(vertices, np.float64), np.asarray(triangles, np.int64), longest
        )
        corners = vertices[triangles]
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        self.corners = corners[np.linalg.norm(normal, axis=1) > 1e-10]
        if len(self.corners) == 0:
            raise InputError("the mesh has no triangle of positive area")
        self._tree = cKDTree(self.corners.mean(1))

    def closest(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Closest points of the surface and their distances.

        Parameters
        ----------
        points : (P, 3)

        Returns
        -------
        closest : (P, 3)
        distance : (P,)
        """
        k = min(_CANDIDATES, len(self.corners))
        near = self._tree.query(points, k=k)[1].reshape(len(points), k)
        a, b, c = np.moveaxis(self.corners[near], 2, 0)
        candidates = closest_on_triangles(points[:, None], a, b, c)
        distances = np.linalg.norm(candidates - points[:, None], axis=-1)
        row, best = np.arange(len(points)), distances.argmin(1)
        return candidates[row, best], distances[row, best]


def align_to_scan(
    surface: Surface,
    points: np.ndarray,
    normals: np.ndarray,
    start: tuple[float, np.ndarray, np.ndarray],
    *,
    scale: bool,
    iterations: int = 30,
    sample: int = 1200,
) -> tuple[float, np.ndarray, np.ndarray]:
    """Refine a similarity by point-to-plane ICP [1]_ from scan points to the surface.

    Robust: Cauchy weights at the scale of the current median distance, and no weight beyond a few
    medians, so that what only one of the two has (ears, neck, hair) does not pull.

    Parameters
    ----------
    surface : Surface
        The prediction.
    points, normals : (P, 3)
        The scan.
    start : (s, R, t)
        ``x_scan = s R x + t``.
    scale : bool
        Fit the size too.
    iterations : int
    sample : int
        Number of scan points that decide, the same ones in every call.

    Returns
    -------
    s, R, t : float, (3, 3), (3,)

    References
    ----------
    .. [1] Y. Chen, G. Medioni, Object modelling by registration of multiple range images, Image
       and Vision Computing 10(3), 1992.
    """
    from recon3d.geometry import so3_exp

    s, R, t = start
    chosen = np.random.default_rng(0).permutation(len(points))[:sample]
    points, normals = points[chosen], normals[chosen]
    before = None
    for iteration in range(iterations):
        closest, distance = surface.closest(((points - t) @ R) / s)
        moved, distance = s * closest @ R.T + t, distance * s
        median = float(np.median(distance))
        reach = max(3 * median, 3.0) if iteration > 3 else max(4 * median, 8.0)
        weight = np.where(distance < reach, 1 / (1 + (distance / max(median, 0.3)) ** 2), 0)
        centre = points.mean(0)
        arm = moved - centre
        columns = [np.cross(arm, normals), normals]
        if scale:
            columns.append((arm * normals).sum(1, keepdims=True))
        J = np.concatenate(columns, 1)
        residual = ((points - moved) * normals).sum(1)
        weighted = (J * weight[:, None]).T
        step = np.linalg.solve(weighted @ J + 1e-9 * np.eye(J.shape[1]), weighted @ residual)
        turn = so3_exp(step[:3])
        grow = float(np.clip(1 + step[6], 0.8, 1.25)) if scale else 1.0
        s, R = s * grow, turn @ R
        t = grow * turn @ (t - centre) + centre + step[3:6]
        U, _, Vt = np.linalg.svd(R)
        R = U @ Vt
        settled = np.abs(step[3:6]).max() < 2e-3
        if before is not None and abs(before - median) < 2e-4 and settled:
            break
        before = median
    return s, R, t
