"""Texture coordinates without overlaps: published charts packed anew, or a new unwrapping."""

from __future__ import annotations

import numpy as np

MARGIN = 0.003
"""Empty border round each chart, in units of the texture."""


def islands(triangles_uv: np.ndarray, count: int) -> np.ndarray:
    """Connected charts: (F,) number of the chart of each triangle.

    Parameters
    ----------
    triangles_uv : (F, 3) int
    count : int
        Number of texture coordinates.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    i, j = triangles_uv[:, [0, 1, 0, 2]].reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(i), np.int8), (i, j)), (count, count))
    label = connected_components(graph, directed=False)[1][triangles_uv[:, 0]]
    return np.unique(label, return_inverse=True)[1]


def overlap_share(uv: np.ndarray, triangles_uv: np.ndarray, size: int = 2048) -> float:
    """Share of the charts' area that other triangles of the charts cover too.

    Parameters
    ----------
    uv : (U, 2) in [0, 1]
    triangles_uv : (F, 3) int
    size : int
        Texels a side of the test.

    Returns
    -------
    float, 0 without overlaps (within the sampling error of the test)
    """
    from recon3d.rendering.native import rasterise_uv

    face, _ = rasterise_uv(uv, triangles_uv, size)
    whole = np.abs(signed_areas(uv, triangles_uv)).sum() * size * size
    return float(max(1 - (face >= 0).sum() / max(whole, 1e-9), 0.0))


def signed_areas(uv: np.ndarray, triangles_uv: np.ndarray) -> np.ndarray:
    """(F,) areas, positive where counter-clockwise."""
    a, b, c = (uv[triangles_uv[:, k]] for k in range(3))
    u, v = b - a, c - a
    return 0.5 * (u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0])


def pack_published(
    uv: np.ndarray,
    triangles_uv: np.ndarray,
    vertices: np.ndarray,
    triangles: np.ndarray,
    importance: np.ndarray,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Pack published charts into one texture.

    Charts that cover themselves (eyeballs in layers, mirrored halves) are laid out anew.

    Parameters
    ----------
    uv : (U, 2), any tiles; triangles_uv : (F, 3) int
    vertices : (V, 3) mm; triangles : (F, 3) int
    importance : (F,) float
        Wanted texels a millimetre, relative.

    Returns
    -------
    uv : (U', 2) in [0, 1], triangles_uv : (F, 3) int64; None where less than half of the surface
    has sound published charts
    """
    area = signed_areas(uv, triangles_uv)
    chart = islands(triangles_uv, len(uv))
    order = np.argsort(chart, kind="stable")
    good, bad = [], []
    for part in np.split(order, np.cumsum(np.bincount(chart))[:-1]):
        turned = area[part] * np.sign(area[part].sum())
        place = uv[triangles_uv[part]]
        low, high = place.min((0, 1)), place.max((0, 1))
        unit = (place - low) / max((high - low).max(), 1e-12) * 0.98 + 0.01
        soup = np.arange(3 * len(part)).reshape(-1, 3)
        folded = -turned[turned < 0].sum() > 0.01 * np.abs(turned).sum()
        flat = (np.abs(turned) < 1e-4 * np.abs(turned).mean()).mean() > 0.05
        if folded or flat or overlap_share(unit.reshape(-1, 2), soup, 1024) > 0.02:
            bad.append(part)
        else:
            good.append(part)
    true = _triangle_areas(vertices, triangles) * importance**2
    if not good or true[np.concatenate(good)].sum() < 0.5 * true.sum():
        return None
    # the packer wants one array of coordinates and one of triangles for all charts
    coordinates = [uv] * len(good)
    corners = [triangles_uv[part] for part in good]
    if bad:
        for part, flat in _flat_charts(vertices, triangles, np.sort(np.concatenate(bad))):
            good.append(part)
            coordinates.append(flat)
            corners.append(triangles[part])
    packed = _pack(good, coordinates, corners, vertices, triangles, importance)
    return packed if overlap_share(*packed) < 0.004 else None


def unwrap(
    vertices: np.ndarray, triangles: np.ndarray, importance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A new unwrapping: round the head's axis where that is one-to-one, small charts elsewhere.

    The surface seen from the axis of a cylinder through the head is laid out by its angle and
    height, cut at the back, with the face stretched and the rest compressed along each axis. What
    is folded or hidden there (nostrils, ears, the mouth's inside, under the chin, the crown)
    becomes charts of its own, each flat enough to be projected.

    Parameters
    ----------
    vertices : (V, 3) mm; triangles : (F, 3) int
    importance : (F,) float, wanted texels a millimetre, relative

    Returns
    -------
    uv : (U, 2) in [0, 1], triangles_uv : (F, 3) int64
    """
    F = len(triangles)
    flat = _cylinder(vertices)
    place = flat[triangles]
    # triangles across the cut at the back reach from one end to the other
    cut = np.ptp(place[..., 0], axis=1) > np.pi * flat_radius(vertices)
    area = _areas(place)
    good = ~cut & (area > 0.15 * _triangle_areas(vertices, triangles))
    visible = np.zeros(F, bool)
    visible[_unhidden(place, np.flatnonzero(good), vertices, triangles)] = True
    good &= visible
    chief = place[good & (importance > 0.8 * importance.max())]
    stretched = flat.copy()
    if len(chief):
        for k in range(2):
            low, high = np.percentile(chief[..., k], [1, 99])
            stretched[:, k] = _stretch(flat[:, k], low, high)
    taken = np.zeros(F, bool)
    charts, coordinates = [], []
    for part in _components(triangles, good):
        if len(part) >= 30:
            taken[part] = True
            charts.append(part)
            coordinates.append(stretched)
    for part, projected in _flat_charts(vertices, triangles, np.flatnonzero(~taken)):
        charts.append(part)
        coordinates.append(projected)
    corners = [triangles[part] for part in charts]
    return _pack(charts, coordinates, corners, vertices, triangles, importance)


def _stretch(x: np.ndarray, low: float, high: float, outside: float = 0.45) -> np.ndarray:
    """A monotonic map with slope 1 between two places and less outside."""
    return np.clip(x, low, high) + outside * (x - np.clip(x, low, high))


def flat_radius(vertices: np.ndarray) -> float:
    """Mean distance (mm) from the vertical axis through the middle of the mesh."""
    return float(np.hypot(*(vertices[:, [0, 2]] - _axis(vertices)).T).mean())


def _axis(vertices):
    low, high = np.percentile(vertices[:, [0, 2]], [1, 99], axis=0)
    depth = high[1] - low[1]
    # a face without a back is wrapped round an axis well behind it
    behind = max(high[1] - low[1], 0.75 * (high[0] - low[0]))
    return np.array([0.0, high[1] - behind / 2 - 0.15 * (behind - depth)])


def _cylinder(vertices):
    """(V, 2) arc length round the axis (0 ahead) and height, mm."""
    across, along = (vertices[:, [0, 2]] - _axis(vertices)).T
    return np.stack([np.arctan2(across, along) * flat_radius(vertices), vertices[:, 1]], 1)


def _areas(place):
    u, v = place[:, 1] - place[:, 0], place[:, 2] - place[:, 0]
    return 0.5 * (u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0])


def _triangle_areas(vertices, triangles):
    return np.linalg.norm(_normals(vertices, triangles), axis=1) / 2


def _normals(vertices, triangles):
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    return np.cross(b - a, c - a)


def _unhidden(place, candidates, vertices, triangles, size: int = 3072) -> np.ndarray:
    """Candidates that no other covers: the outer of two wins every texel, losers leave."""
    from recon3d.rendering.native import rasterise_numpy

    axis = _axis(vertices)
    low, high = place[candidates].min((0, 1)), place[candidates].max((0, 1))
    scale = (size - 4) / max(high - low)
    xy = (place - low) * scale + 2
    radius = np.hypot(*(vertices[triangles][..., [0, 2]] - axis).transpose(2, 0, 1))
    while len(candidates):
        # an orthographic camera: every corner at the same picture place whatever its depth
        depth = 1000.0 + radius.max() - radius[candidates]
        corners = np.concatenate([xy[candidates] * depth[..., None], depth[..., None]], -1)
        soup = np.arange(3 * len(candidates)).reshape(-1, 3)
        face, _, _ = rasterise_numpy(
            corners.reshape(-1, 3), soup, np.eye(3), (size, size), near=1e-3
        )
        owned = np.bincount(face[face >= 0], minlength=len(candidates))
        whole = np.abs(_areas(xy[candidates]))
        lost = owned < whole - (0.1 * whole + 1.5 * np.sqrt(whole) + 1)
        if not lost.any():
            break
        candidates = candidates[~lost]
    return candidates


def _components(triangles, mask) -> list[np.ndarray]:
    """Edge-connected components of the masked triangles."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    chosen = np.flatnonzero(mask)
    if not len(chosen):
        return []
    half = np.sort(np.stack([triangles[chosen], np.roll(triangles[chosen], -1, 1)], -1), -1)
    edge, inverse = np.unique(half.reshape(-1, 2), axis=0, return_inverse=True)
    of = np.repeat(np.arange(len(chosen)), 3)
    link = coo_matrix((np.ones(len(of)), (of, inverse.ravel())), (len(chosen), len(edge))).tocsr()
    label = connected_components(link @ link.T, directed=False)[1]
    order = np.argsort(label, kind="stable")
    return [chosen[p] for p in np.split(order, np.cumsum(np.bincount(label))[:-1])]


def _flat_charts(vertices, triangles, remaining):
    """Grow charts whose normals stay within 55 degrees of one direction; project each on it."""
    normals = _normals(vertices, triangles)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    half = np.sort(np.stack([triangles, np.roll(triangles, -1, 1)], -1), -1).reshape(-1, 2)
    key = half[:, 0] * (triangles.max() + 1) + half[:, 1]
    order = np.argsort(key, kind="stable")
    left = np.zeros(len(triangles), bool)
    left[remaining] = True
    same = np.flatnonzero(np.diff(key[order]) == 0)
    pairs = np.stack([order[same] // 3, order[same + 1] // 3], 1)
    neighbours: dict[int, list[int]] = {}
    for i, j in pairs[left[pairs].all(1)].tolist():
        neighbours.setdefault(i, []).append(j)
        neighbours.setdefault(j, []).append(i)
    charts = []
    for seed in remaining.tolist():
        if not left[seed]:
            continue
        direction, chart, queue = normals[seed], [], [seed]
        left[seed] = False
        while queue:
            here = queue.pop(0)
            chart.append(here)
            for other in neighbours.get(here, []):
                if left[other] and normals[other] @ direction > 0.57:
                    left[other] = False
                    queue.append(other)
        charts += _project(vertices, triangles, np.array(chart), normals)
    return charts


def _project(vertices, triangles, chart, normals):
    """Project a chart along its mean normal; halve it as long as it covers itself."""
    direction = normals[chart].sum(0)
    length = np.linalg.norm(direction)
    direction = direction / length if length > 1e-9 else np.array([0, 0, 1.0])
    helper = np.eye(3)[np.abs(direction).argmin()]
    right = np.cross(helper, direction)
    right /= np.linalg.norm(right)
    flat = vertices @ np.stack([right, np.cross(direction, right)], 1)
    if len(chart) > 1:
        place = flat[triangles[chart]]
        low, high = place.min((0, 1)), place.max((0, 1))
        unit = (place - low) / max((high - low).max(), 1e-9) * 0.98 + 0.01
        soup = np.arange(3 * len(chart)).reshape(-1, 3)
        folded = (_areas(place) <= 0).any()
        if folded or overlap_share(unit.reshape(-1, 2), soup, 512) > 0.03:
            centres = vertices[triangles[chart]].mean(1)
            axis = np.linalg.svd(centres - centres.mean(0), full_matrices=False)[2][0]
            side = (centres - centres.mean(0)) @ axis
            order = np.argsort(side, kind="stable")
            halves = []
            for part in np.array_split(chart[order], 2):
                mask = np.zeros(len(triangles), bool)
                mask[part] = True
                for piece in _components(triangles, mask):
                    halves += _project(vertices, triangles, piece, normals)
            return halves
    return [(chart, flat)]


def _pack(charts, coordinates, corners, vertices, triangles, importance):
    """Scale charts to their true size times importance and put them side by side.

    Parameters
    ----------
    charts : list of (n,) int, triangles of each
    coordinates : list of (U, 2)
    corners : list of (n, 3) int into the chart's coordinates
    """
    true = _triangle_areas(vertices, triangles)
    boxes, local, rows = [], [], []
    for part, flat, corner in zip(charts, coordinates, corners, strict=True):
        used, inverse = np.unique(corner, return_inverse=True)
        row = inverse.reshape(-1, 3)
        place = flat[used] - flat[used].min(0)
        signed = _areas(place[row])
        if signed.sum() < 0:  # a chart seen from behind is turned over
            place[:, 0] = place[:, 0].max() - place[:, 0]
        weight = (importance[part] * true[part]).sum() / max(true[part].sum(), 1e-12)
        place = place * (weight * np.sqrt(true[part].sum() / max(np.abs(signed).sum(), 1e-12)))
        local.append(place)
        rows.append(row)
        boxes.append(place.max(0))
    scale, positions = _fit_boxes(np.array(boxes))
    uv, triangles_uv = [], np.zeros((len(triangles), 3), np.int64)
    count = 0
    for part, place, row, corner in zip(charts, local, rows, positions, strict=True):
        uv.append(place * scale + corner)
        triangles_uv[part] = row + count
        count += len(place)
    return np.clip(np.concatenate(uv), 0, 1), triangles_uv


def _fit_boxes(boxes: np.ndarray) -> tuple[float, np.ndarray]:
    """The largest common scale at which boxes fit into the unit square, and their corners.

    Margins shrink where there are so many crumbs that they alone would fill the square.
    """
    order = np.argsort(-boxes[:, 1], kind="stable")
    margin = min(MARGIN, 0.15 / np.sqrt(len(boxes)))
    low, high = 0.0, 1.0 / boxes.max()
    at = _skyline(boxes * low + 2 * margin, order)
    for _ in range(20):
        scale = (low + high) / 2
        tried = _skyline(boxes * scale + 2 * margin, order)
        if tried is None:
            high = scale
        else:
            low, at = scale, tried
    return low, at + margin


def _skyline(boxes: np.ndarray, order: np.ndarray) -> np.ndarray | None:
    """Bottom-left packing on a skyline; None if the boxes do not fit."""
    skyline = [(0.0, 0.0, 1.0)]  # start, height, width
    at = np.zeros((len(boxes), 2))
    for i in order:
        width, height = boxes[i]
        best = None
        for k, (start, _, _) in enumerate(skyline):
            if start + width > 1.0 + 1e-12:
                break
            top, covered, j = 0.0, 0.0, k
            while covered < width - 1e-12 and j < len(skyline):
                top = max(top, skyline[j][1])
                covered += skyline[j][2]
                j += 1
            if best is None or top + height < best[0] - 1e-12:
                best = (top + height, start, top)
        if best is None or best[0] > 1.0 + 1e-12:
            return None
        _, start, top = best
        at[i] = start, top
        new = []
        for s, h, w in skyline:
            left, right = max(s, start), min(s + w, start + width)
            if right <= left + 1e-12:
                new.append((s, h, w))
                continue
            if s < start - 1e-12:
                new.append((s, h, start - s))
            if s + w > start + width + 1e-12:
                new.append((start + width, h, s + w - start - width))
        new.append((start, top + height, width))
        skyline = sorted(new)
    return at
