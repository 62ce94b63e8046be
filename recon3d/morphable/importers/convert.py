"""Bring a family's model to our axes, units and extras."""

from __future__ import annotations

import numpy as np

from recon3d.errors import ModelError
from recon3d.morphable.importers import layout
from recon3d.morphable.importers.raw import RawModel
from recon3d.morphable.importers.symmetry import find_mirror
from recon3d.progress import Callback
from recon3d.types import FaceModel

EYE_CORNERS = (33, 133, 362, 263)
EYE_WIDTH_MM = (65.0, 120.0)
"""Between these lies the distance of the outer eye corners of every adult's face."""

LIPS = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
CHIN = 152


def convert(
    raw: RawModel, *, name: str | None = None, progress: Callback | None = None
) -> FaceModel:
    """Make a `FaceModel` of what an adapter read.

    Vertices come in mm in our axes with the origin between the eyes; triangles turn outwards;
    mirror map, landmarks, regions, texture coordinates and outline paths are found where the
    publisher gave none.

    Parameters
    ----------
    raw : RawModel
    name : str, optional
        Name of the result; the family's by default.
    progress : callable, optional
        Called with the steps done and their number.

    Raises
    ------
    ModelError
        If the landmarker cannot find the face, or the face has an impossible size.
    """
    from recon3d.morphable.embedding import embedding_of_vertices
    from recon3d.morphable.landmarking import ibug68_from_mediapipe, locate_landmarks

    move = progress or (lambda done, total: None)
    turn = raw.axes.T * raw.millimetres
    mean = raw.mean @ turn
    identity = (raw.identity @ turn.astype(np.float32)).astype(np.float32)
    expression = (raw.expression @ turn.astype(np.float32)).astype(np.float32)
    V = len(mean)
    eyes = np.zeros(V, bool) if raw.eyes is None else raw.eyes
    inner = np.zeros(V, bool) if raw.inner is None else raw.inner
    triangles, turned = outward(mean, raw.triangles, ~(eyes | inner))
    mean = mean - [_middle(mean, raw.mirror), 0, 0]
    mirror = find_mirror(mean, triangles) if raw.mirror is None else raw.mirror
    move(1, 4)

    landmarks, report = locate_landmarks(
        mean, triangles, raw.albedo, eyes=eyes, hidden=inner, mirror=mirror
    )
    points = report.points
    corners = points[list(EYE_CORNERS)]
    if not np.isfinite(corners).all():
        raise ModelError(f"{raw.name}: the landmarker does not find the eye corners of this mesh")
    width = float(np.linalg.norm(corners[3] - corners[0]))
    if not EYE_WIDTH_MM[0] <= width <= EYE_WIDTH_MM[1]:
        raise ModelError(
            f"{raw.name}: expected outer eye corners {EYE_WIDTH_MM[0]:.0f} to "
            f"{EYE_WIDTH_MM[1]:.0f} mm apart, found {width:.1f}; is the unit right?"
        )
    shift = np.array([0.0, *corners.mean(0)[1:]])
    mean, points = mean - shift, points - shift
    if raw.landmarks68 is None:
        ibug68 = ibug68_from_mediapipe(mean, triangles, landmarks)
    else:
        ibug68 = embedding_of_vertices(raw.landmarks68, triangles)
    move(2, 4)

    regions = face_regions(mean, triangles, points, eyes, inner)
    importance = texel_importance(mean, triangles, regions, eyes, inner)
    packed = None
    if raw.uv is not None:
        triangles_uv = raw.triangles_uv[:, [0, 2, 1]] if turned else raw.triangles_uv
        packed = layout.pack_published(raw.uv, triangles_uv, mean, triangles, importance)
    if packed is None:
        packed = layout.unwrap(mean, triangles, importance)
    move(3, 4)
    uv, triangles_uv = packed
    model = FaceModel(
        name=name or raw.name,
        mean=mean,
        identity=identity,
        expression=expression,
        expression_names=raw.expression_names,
        triangles=triangles,
        uv=uv,
        triangles_uv=triangles_uv,
        landmarks=landmarks,
        ibug68=ibug68,
        mirror=mirror,
        regions=regions,
        contour=outline_paths(mean, triangles, points, eyes | inner),
        licence=raw.licence,
        origin=raw.origin,
        citation=raw.citation,
    )
    move(4, 4)
    return model


def outward(
    vertices: np.ndarray, triangles: np.ndarray, skin: np.ndarray
) -> tuple[np.ndarray, bool]:
    """Triangles counter-clockwise seen from outside, and whether they had to be turned.

    Parameters
    ----------
    vertices : (V, 3); triangles : (F, 3) int
    skin : (V,) bool
        Vertices of the outer surface, which decides.
    """
    chosen = triangles[skin[triangles].all(1)]
    if not len(chosen):
        chosen = triangles
    a, b, c = (vertices[chosen[:, k]] for k in range(3))
    normals = np.cross(b - a, c - a)
    centre = (vertices[chosen].mean(1) * np.linalg.norm(normals, axis=1)[:, None]).sum(0)
    centre /= np.linalg.norm(normals, axis=1).sum()
    centre[2] -= 40.0  # a face without a back bulges away from a point behind it
    turned = bool((normals * (vertices[chosen].mean(1) - centre)).sum() < 0)
    return (triangles[:, [0, 2, 1]] if turned else triangles).astype(np.int64), turned


def _middle(vertices: np.ndarray, mirror: np.ndarray | None) -> float:
    """x of the plane of symmetry."""
    if mirror is not None and (mirror >= 0).any():
        paired = mirror >= 0
        return float(np.median(vertices[paired, 0] + vertices[mirror[paired], 0]) / 2)
    from scipy.spatial import cKDTree

    # the plane at which a mirrored copy falls best onto the mesh
    sample = vertices[:: max(1, len(vertices) // 3000)]
    tree = cKDTree(vertices)
    middle = float((vertices[:, 0].min() + vertices[:, 0].max()) / 2)
    for step in (4.0, 1.0, 0.25, 0.05):
        trials = middle + step * np.arange(-4, 5)
        costs = [
            np.median(tree.query(np.c_[2 * m - sample[:, 0], sample[:, 1:]])[0]) for m in trials
        ]
        middle = float(trials[int(np.argmin(costs))])
    return middle


def face_regions(
    vertices: np.ndarray,
    triangles: np.ndarray,
    points: np.ndarray,
    eyes: np.ndarray,
    inner: np.ndarray,
) -> dict[str, np.ndarray]:
    """Soft masks of face, eyes, mouth, neck and cranium from the landmarks.

    Parameters
    ----------
    vertices : (V, 3) mm; triangles : (F, 3) int
    points : (478, 3) mm, landmarks on the surface, NaN where missing
    eyes, inner : (V,) bool

    Returns
    -------
    dict of (V,) float32 in [0, 1]
    """
    from scipy.spatial import cKDTree

    from recon3d.geometry import vertex_normals
    from recon3d.tracking.topology import LEFT_EYE, RIGHT_EYE

    skin = ~(eyes | inner)
    ahead = vertex_normals(vertices, triangles)[:, 2]
    mesh = points[:468]
    mesh = mesh[np.isfinite(mesh).all(1)]
    distance = cKDTree(_denser(mesh)).query(vertices)[0]
    face = np.clip(1 - (distance - 10.0) / 10.0, 0, 1) * skin

    def inside(rings, soft):
        mask = np.zeros(len(vertices))
        for ring in rings:
            polygon = points[list(ring)]
            polygon = polygon[np.isfinite(polygon).all(1)]
            if len(polygon) >= 3:
                signed = _signed_distance(vertices[:, :2], polygon[:, :2])
                near = np.abs(vertices[:, 2] - polygon[:, 2].mean()) < 25
                mask = np.maximum(mask, np.clip(0.5 + signed / soft, 0, 1) * near)
        return mask

    lids = inside((RIGHT_EYE, LEFT_EYE), 3.0) * (ahead > -0.2)
    eye = np.where(eyes, 1.0, lids * (skin if eyes.any() else 1.0) * (0.5 if eyes.any() else 1.0))
    mouth = inside((LIPS,), 4.0) * (ahead > -0.3)
    lip_points = points[list(LIPS)]
    if inner.any() and np.isfinite(lip_points).all():
        bag = inner & (vertices[:, 1] < (points[2, 1] if np.isfinite(points[2]).all() else -30))
        mouth = np.where(bag, 1.0, mouth)
    chin = points[CHIN] if np.isfinite(points[CHIN]).all() else mesh[mesh[:, 1].argmin()]
    below = np.clip((chin[1] - 4.0 - vertices[:, 1]) / 12.0, 0, 1)
    # the neck also reaches up behind the jaw
    behind = np.clip((chin[1] + 25.0 - vertices[:, 1]) / 20.0, 0, 1) * (
        vertices[:, 2] < chin[2] - 55
    )
    neck = np.maximum(below, behind) * skin * (1 - face)
    cranium = skin - face - neck
    masks = {"face": face, "eyes": eye, "mouth": mouth, "neck": neck, "cranium": cranium}
    return {name: mask.astype(np.float32) for name, mask in masks.items()}


def _denser(points: np.ndarray) -> np.ndarray:
    """Points and the middles to their four nearest, so that distances to the set are smooth."""
    from scipy.spatial import cKDTree

    near = cKDTree(points).query(points, k=min(5, len(points)))[1][:, 1:]
    return np.concatenate([points, ((points[:, None] + points[near]) / 2).reshape(-1, 3)])


def _signed_distance(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Distance to a polygon's border in the plane, positive inside."""
    a, b = polygon, np.roll(polygon, -1, 0)
    edge = b - a
    away = points[:, None] - a
    share = np.clip((away * edge).sum(-1) / np.maximum((edge**2).sum(-1), 1e-12), 0, 1)
    distance = np.linalg.norm(away - share[..., None] * edge, axis=-1).min(1)
    x, y = points[:, None, 0], points[:, None, 1]
    crosses = (a[:, 1] > y) != (b[:, 1] > y)
    rise = np.where(np.abs(edge[:, 1]) > 1e-12, edge[:, 1], 1e-12)
    left = x < a[:, 0] + (y - a[:, 1]) / rise * edge[:, 0]
    return np.where((crosses & left).sum(1) % 2 == 1, distance, -distance)


def texel_importance(
    vertices: np.ndarray,
    triangles: np.ndarray,
    regions: dict[str, np.ndarray],
    eyes: np.ndarray,
    inner: np.ndarray,
) -> np.ndarray:
    """(F,) wanted texels a millimetre: most for the face, little for what is hardly seen."""
    from recon3d.geometry import triangle_normals

    face = np.maximum(regions["face"], regions["mouth"])
    wanted = (0.4 + 0.6 * face)[triangles].max(1)
    wanted[inner[triangles].any(1)] = 0.2
    ball = eyes[triangles].all(1)
    ahead = triangle_normals(vertices, triangles)[:, 2] > 0.3
    return np.where(ball, np.where(ahead, 0.8, 0.15), wanted)


def outline_paths(
    vertices: np.ndarray,
    triangles: np.ndarray,
    points: np.ndarray,
    excluded: np.ndarray,
    *,
    inside_mm: float = 30.0,
    outside_mm: float = 45.0,
    length: int = 24,
) -> np.ndarray | None:
    """Paths across the face's border on which outline landmarks may slide.

    Each is the section of the surface with a plane through an oval landmark, the middle of the
    face and the line of sight, from the cheek towards the ear or the neck.

    Parameters
    ----------
    vertices : (V, 3) mm; triangles : (F, 3) int
    points : (478, 3) mm
    excluded : (V,) bool
        Vertices that are no skin.
    inside_mm, outside_mm : float
        How far a path reaches from its landmark.
    length : int
        Vertices a path; shorter ones are filled up with -1.

    Returns
    -------
    (C, length) int64, or None without landmarks
    """
    from scipy.spatial import cKDTree

    oval = [k for k in OVAL if np.isfinite(points[k]).all()]
    if len(oval) < 12:
        return None
    skin = np.flatnonzero(~excluded)
    tree = cKDTree(vertices[skin])
    usable = triangles[~excluded[triangles].any(1)]
    edges = np.unique(
        np.sort(np.stack([usable, np.roll(usable, -1, 1)], -1).reshape(-1, 2), 1), axis=0
    )
    middle = points[oval].mean(0)
    paths = []
    for k in oval:
        at = points[k]
        radial = np.array([*(at - middle)[:2], 0.0])
        radial /= max(np.linalg.norm(radial), 1e-9)
        normal = np.cross(radial, [0, 0, 1.0])
        near = edges[(np.linalg.norm(vertices[edges[:, 0]] - at, axis=1) < outside_mm + 20)]
        a, b = vertices[near[:, 0]], vertices[near[:, 1]]
        da, db = (a - at) @ normal, (b - at) @ normal
        crossing = (da * db <= 0) & (da != db)
        share = da[crossing] / (da - db)[crossing]
        section = a[crossing] + share[:, None] * (b - a)[crossing]
        path = _trace(section, at, radial, inside_mm, outside_mm)
        if len(path) < 3:
            continue
        numbers = skin[tree.query(path)[1]]
        numbers = numbers[np.r_[True, numbers[1:] != numbers[:-1]]]
        if len(numbers) > length:
            numbers = numbers[np.linspace(0, len(numbers) - 1, length).round().astype(int)]
        paths.append(np.r_[numbers, np.full(length - len(numbers), -1)])
    return np.array(paths, np.int64) if paths else None


def _trace(section, at, radial, inside_mm, outside_mm) -> np.ndarray:
    """Walk along a section's points from a start, both ways, by nearest steps."""
    if not len(section):
        return section
    arms = []
    for sign, reach in ((-1.0, inside_mm), (1.0, outside_mm)):
        here, heading, walked, arm = at, sign * radial, 0.0, []
        left = section.copy()
        while len(left) and walked < reach:
            step = left - here
            distance = np.linalg.norm(step, axis=1)
            forward = step @ heading / np.maximum(distance, 1e-9)
            allowed = (distance < 8.0) & (forward > 0.1) & (distance > 0.3)
            if not allowed.any():
                break
            i = np.flatnonzero(allowed)[distance[allowed].argmin()]
            heading = 0.5 * heading + 0.5 * step[i] / distance[i]
            heading /= np.linalg.norm(heading)
            walked += distance[i]
            here = left[i]
            arm.append(here)
            left = left[distance > distance[i] * 0.5]
        arms.append(arm)
    return np.array([*arms[0][::-1], at, *arms[1]])
