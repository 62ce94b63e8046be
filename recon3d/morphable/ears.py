"""Simple ears: the outer shape, raised from the shell beside the face.

An ear is a height over the side of the head, sheared backwards and fanned out with height. Both are
one to one at every height, so however far the rim overhangs its root the surface does not pass
through itself; and since vertices are only added and moved, chart and topology stay one disk.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recon3d.types import FaceModel

CENTRE = (-17.0, -71.5)
"""Middle of the root on the side of the mean head, y and z in mm: behind the face oval, between
brow and nose base."""
TILT = 0.24
"""Its long axis leans back by this angle, rad."""
HALF_LENGTH, HALF_WIDTH = 25.0, 12.0
"""Of the root, mm; fan and lean make of it an ear of about 62 by 32 mm (Farkas 1994)."""
RISE = 17.0
"""How far the rim stands off the head, mm."""
LEAN = 1.05
"""Backward shift of the surface per mm of rise."""
FAN = 0.75
"""Shift away from the root's middle per mm of rise, at the root's upper and lower end."""
EDGE = 4.0
"""Longest edge left within an ear, mm."""
RELAXATIONS = 4
"""Rounds of smoothing of a raised ear."""


def ear_coordinates(vertices: np.ndarray) -> np.ndarray:
    """Place of points relative to the root of the right ear.

    Parameters
    ----------
    vertices : (V, 3) mm

    Returns
    -------
    (V, 2)
        Backwards and upwards along the ear's own axes, 1 on the root's outline.
    """
    y, z = vertices[:, 1] - CENTRE[0], vertices[:, 2] - CENTRE[1]
    c, s = np.cos(TILT), np.sin(TILT)
    back = (-c * z - s * y) / HALF_WIDTH
    up = (c * y - s * z) / HALF_LENGTH
    # The lobe is narrower than the upper half, and so is the root under it.
    width = 1.0 - 0.22 * np.clip((0.3 - up) / 1.3, 0, 1)
    return np.stack([back / width, up], 1)


def ear_height(place: np.ndarray) -> np.ndarray:
    """Rise of the surface at `ear_coordinates`, (V,) mm: rim, hollow and lobe."""
    up = np.clip(place[:, 1], -1, 1)
    tall = 1 - up**2
    # Across, every level runs from the front of the root to its back; the rim stands near the back.
    across = place[:, 0] / np.sqrt(np.maximum(tall, 1e-6))
    plate = _smooth((across + 1.0) / 1.5)
    drop = _smooth((1.0 - across) / 0.45)
    rim = 0.20 * np.exp(-(((np.hypot(across, up) - 0.66) / 0.16) ** 2)) * _smooth(across + 0.7)
    hollow = 0.5 * np.exp(-(((across + 0.1) / 0.34) ** 2) - ((up + 0.10) / 0.42) ** 2)
    return RISE * tall**0.5 * drop * (plate + rim - hollow)


def add_ears(model: FaceModel) -> FaceModel:
    """Raise ears on both sides of a head whose corners and texture corners are the same.

    Triangles on the root are split until their edges are short; a new vertex lies on the middle of
    an edge and inherits modes, expressions, regions and texture place from its ends. New vertices
    are appended, a split triangle leaves its place to its first part and the others are appended:
    whatever refers to the rest of the head stays valid.

    Parameters
    ----------
    model : FaceModel

    Returns
    -------
    FaceModel
    """
    n = model.n_vertices
    parts, slots, parents = _split_right(model)
    mirrored_slot = _mirrored_triangles(model)
    recipe = _recipe(n, parents)
    mirror = model.mirror
    new = len(parents)
    # The left ear's vertices follow the right one's in the same order.
    full_mirror = np.concatenate([mirror, np.arange(n + new, n + 2 * new), np.arange(n, n + new)])
    right = recipe
    left = recipe[:, mirror]
    triangles = model.triangles.copy()
    extra: list[np.ndarray] = []
    for part, slot in zip(parts, slots, strict=True):
        other = full_mirror[part][:, ::-1]
        triangles[slot], triangles[mirrored_slot[slot]] = part[0], other[0]
        extra += [part[1:], other[1:]]
    triangles = np.concatenate([triangles, *extra])

    def inherit(values: np.ndarray) -> np.ndarray:
        return np.concatenate([values, right @ values, left @ values])

    def inherit_fields(fields: np.ndarray) -> np.ndarray:
        flat = fields.transpose(1, 0, 2).reshape(n, -1).astype(np.float64)
        out = inherit(flat).reshape(n + 2 * new, len(fields), 3).transpose(1, 0, 2)
        return out.astype(np.float16).astype(np.float32)

    mean = inherit(model.mean)
    rise = _rise(mean)
    mean = mean + rise
    _relax(mean, triangles, np.flatnonzero(rise[:, 0] < 0))
    moved = np.flatnonzero(rise[:, 0] < 0)
    mean[full_mirror[moved]] = mean[moved] * [-1, 1, 1]
    ears = np.clip(-rise[:, 0] / (0.3 * RISE), 0, 1)
    regions = {name: inherit(mask).astype(np.float32) for name, mask in model.regions.items()}
    regions["ears"] = (ears + ears[full_mirror]).astype(np.float32)
    return replace(
        model,
        mean=mean,
        identity=inherit_fields(model.identity),
        expression=inherit_fields(model.expression),
        triangles=triangles,
        uv=inherit(model.uv),
        triangles_uv=triangles.copy(),
        mirror=full_mirror,
        regions=regions,
    )


def _rise(vertices: np.ndarray) -> np.ndarray:
    """Displacement (V, 3) mm that raises the right ear."""
    place = ear_coordinates(vertices)
    on_right = (vertices[:, 0] < 0) & (np.hypot(*place.T) < 1)
    height = np.where(on_right, np.maximum(ear_height(place), 0), 0.0)
    c, s = np.cos(TILT), np.sin(TILT)
    fan = FAN * height * place[:, 1]
    lean = LEAN * height
    return np.stack([-height, c * fan - s * lean, -s * fan - c * lean], 1)


def _relax(vertices: np.ndarray, triangles: np.ndarray, chosen: np.ndarray) -> None:
    """Even out some vertices between their neighbours, in place: splitting leaves a ragged rim."""
    from recon3d.geometry import graph_laplacian

    laplacian = graph_laplacian(triangles, len(vertices))[chosen]
    degree = np.asarray(laplacian[np.arange(len(chosen)), chosen]).ravel()
    for _ in range(RELAXATIONS):
        vertices[chosen] -= 0.5 * (laplacian @ vertices) / degree[:, None]


def _smooth(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _split_right(model: FaceModel):
    """Split the triangles of the right root.

    Returns
    -------
    parts : list of (K, 3) int, what a triangle became
    slots : list of int, the triangle's number
    parents : (M, 2) int, ends of the edge on whose middle each new vertex lies
    """
    position = [tuple(p) for p in model.mean]
    n = model.n_vertices
    parents: list[tuple[int, int]] = []
    pieces = {
        int(t): [tuple(int(v) for v in model.triangles[t])]
        for t in np.flatnonzero((model.mean[model.triangles, 0] < -1.0).all(1))
    }
    for _ in range(8):
        middle: dict[tuple[int, int], int] = {}
        points = np.array(position)
        inside = np.hypot(*ear_coordinates(points).T) < 1.12
        raised = points + _rise(points)
        edges = {
            (min(a, b), max(a, b))
            for part in pieces.values()
            for tri in part
            for a, b in zip(tri, tri[1:] + tri[:1], strict=True)
            if inside[a] or inside[b]
        }
        for a, b in sorted(edges):
            half = (points[a] + points[b]) / 2
            long = np.linalg.norm(raised[a] - raised[b]) > EDGE
            if long and np.hypot(*ear_coordinates(half[None])[0]) < 1.05:
                middle[a, b] = n + len(parents)
                parents.append((a, b))
                position.append(tuple(half))
        if not middle:
            break
        points = np.array(position)
        points = points + _rise(points)
        for slot, part in pieces.items():
            pieces[slot] = [piece for tri in part for piece in _split(tri, middle, points)]
    changed = [slot for slot, part in pieces.items() if len(part) > 1]
    return [np.array(pieces[s]) for s in changed], changed, np.array(parents)


def _split(tri, middle, points) -> list[tuple[int, int, int]]:
    """A triangle cut at the middles of those of its edges that are split."""
    found = [
        middle.get((min(a, b), max(a, b))) for a, b in zip(tri, tri[1:] + tri[:1], strict=True)
    ]
    count = sum(m is not None for m in found)
    if count == 0:
        return [tri]
    if count == 3:
        (a, b, c), (ab, bc, ca) = tri, found
        return [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    # Turn the triangle so that the first edge is split and, of two, the last is whole.
    turn = next(
        k for k in range(3) if found[k] is not None and (count == 1 or found[k - 1] is None)
    )
    (a, b, c), (ab, bc, _) = tri[turn:] + tri[:turn], found[turn:] + found[:turn]
    if count == 1:
        return [(a, ab, c), (ab, b, c)]
    across = np.linalg.norm(points[a] - points[bc]) <= np.linalg.norm(points[ab] - points[c])
    rest = [(a, ab, bc), (a, bc, c)] if across else [(a, ab, c), (ab, bc, c)]
    return [(ab, b, bc), *rest]


def _recipe(n: int, parents: np.ndarray):
    """New vertices as weights on the old ones, sparse (M, n)."""
    from scipy.sparse import csr_matrix, identity, vstack

    rows = identity(n, format="csr")
    out = []
    for a, b in parents.tolist():
        row = (_row(rows, out, n, a) + _row(rows, out, n, b)) / 2
        out.append(csr_matrix(row))
    return vstack(out).tocsr() if out else csr_matrix((0, n))


def _row(rows, out, n: int, k: int):
    return rows[k] if k < n else out[k - n]


def _mirrored_triangles(model: FaceModel) -> np.ndarray:
    """Number of each triangle's mirror image, (F,)."""
    number = {tuple(sorted(t)): k for k, t in enumerate(model.triangles.tolist())}
    image = np.sort(model.mirror[model.triangles], axis=1)
    return np.array([number[tuple(t)] for t in image.tolist()])
