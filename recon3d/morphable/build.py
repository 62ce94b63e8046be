"""Building the embedded face model from photos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recon3d.geometry import interpolating_control, procrustes_mean, subdivide, umeyama
from recon3d.morphable.anthropometry import correct_proportions, undo_perspective
from recon3d.morphable.embedding import embedding_of_vertices
from recon3d.morphable.expressions import ARKIT, designed_fields
from recon3d.morphable.fields import FieldSpreader, reflect, symmetrise
from recon3d.morphable.head import LIP_GAP, complete_head
from recon3d.morphable.parameterisation import convex_embedding, midpoint_map, overlap_count
from recon3d.morphable.photos import (
    PhotoLandmarks,
    load_landmarks,
    measure_photos,
    save_landmarks,
)
from recon3d.morphable.topology import (
    IBUG68,
    INNER_LIP_LOWER,
    INNER_LIP_UPPER,
    N_FACE,
    boundary_loops,
    control_mesh,
    landmark_mirror,
)
from recon3d.types import FaceModel

RIGID = (
    [9, 8, 168, 6, 197, 195, 151, 10, 107, 336, 66, 296, 69, 299, 104, 333, 54, 284, 21, 251]
    + [162, 389, 127, 356, 33, 133, 263, 362, 116, 345, 123, 352, 234, 454, 93, 323, 2, 4, 5]
)
"""Landmarks that expression moves little: shapes are aligned by them."""


class BuildSettings(BaseModel):
    """How the embedded model is built."""

    model_config = ConfigDict(extra="forbid")

    identity_modes: int = Field(80, ge=1, le=300, description="Identity modes kept.")
    levels: int = Field(2, ge=0, le=3, description="Loop subdivision steps of the control mesh.")
    crops: int = Field(6, ge=2, le=32, description="Moved and mirrored crops per photo.")
    seed: int = Field(0, description="Seed of the crops.")
    portrait_distance: float = Field(
        1000.0, gt=200, description="Distance from which the photos were taken, mm (a guess)."
    )
    ridge: float = Field(
        8.0, gt=0, description="Ridge of the regression of landmarks on blendshape scores."
    )
    bundle: Path | None = Field(
        None, description="MediaPipe's face_landmarker.task, for the blendshape scores."
    )
    cache: Path | None = Field(
        None, description="An .npz of measured landmarks: read if it exists, else written."
    )
    texture_rounds: int = Field(3, ge=0, le=50, description="Stretch-reducing rounds of the uv.")


def build_model(
    photos: Path,
    settings: BuildSettings | None = None,
    progress: Callable | None = None,
) -> tuple[FaceModel, dict]:
    """Build a face model from a folder or archive of portrait photos.

    Photos whose split is ``train`` build the model, those of ``test`` measure it.

    Parameters
    ----------
    photos : Path
        Folder or .tar of pictures; ``metadata.csv`` beside them may have columns file, split,
        flags.
    settings : BuildSettings, optional
    progress : callable(done, total), optional

    Returns
    -------
    model : FaceModel
    report : dict
        Counts and figures of quality.
    """
    settings = settings or BuildSettings()
    landmarks = _landmarks(photos, settings, progress)
    control, identity, expression, figures = learn_control(landmarks, settings)
    model = assemble(control, identity, expression, settings)
    report = {"photos": len(landmarks.names), **figures, **describe(model)}
    return model, report


def _landmarks(photos, settings, progress) -> PhotoLandmarks:
    if settings.cache and settings.cache.exists():
        return load_landmarks(settings.cache)
    def tick(name, done):
        if progress:
            progress(done)
    found = measure_photos(
        photos, crops=settings.crops, seed=settings.seed, bundle=settings.bundle, progress=tick
    )
    if settings.cache:
        save_landmarks(settings.cache, found)
    return found


def aligned_shapes(points: np.ndarray, reference: np.ndarray | None = None):
    """Landmark meshes brought together by their rigid points, mean interpupillary distance 63 mm.

    Parameters
    ----------
    points : (N, 478, 3), x right, y down, z away, as MediaPipe has them
    reference : (478, 3) mm, optional
        The shape to align with; else the Procrustes mean.

    Returns
    -------
    shapes : (N, 478, 3) mm
    reference : (478, 3) mm, symmetric
    """
    mirror = landmark_mirror()
    shapes = points * [1.0, -1.0, -1.0]
    if reference is None:
        mean, _ = procrustes_mean(shapes[:, RIGID], iterations=6)
        for _ in range(3):
            moved = _align(shapes, mean, RIGID)
            full = symmetrise(moved.mean(0), mirror)
            full *= 63.0 / np.linalg.norm(full[468] - full[473])
            full -= full[[33, 263]].mean(0)
            mean = full[RIGID]
        reference = full
    return _align(shapes, reference[RIGID], RIGID), reference


def _align(shapes, target, points):
    out = np.empty_like(shapes)
    for n, x in enumerate(shapes):
        s, R, t = umeyama(x[points], target)
        out[n] = s * x @ R.T + t
    return out


def learn_control(landmarks: PhotoLandmarks, settings: BuildSettings):
    """Mean, identity modes and expression fields on the control mesh.

    Returns
    -------
    mean : (V, 3), identity : (I, V, 3), expression : dict of name to (V, 3), figures : dict
    """
    mesh = control_mesh()
    mirror = landmark_mirror()
    train = landmarks.split == "train"
    shapes, reference = aligned_shapes(landmarks.points[train])
    both = np.concatenate([shapes, reflect(shapes, mirror)])
    neutral, fields = _expression_regression(both, landmarks, train, settings.ridge)
    face = symmetrise(neutral, mirror)
    face = close_mouth(face)
    face = correct_proportions(undo_perspective(face, settings.portrait_distance))
    mean = complete_head(face)

    scale = 1.0
    residual = both - neutral - np.tensordot(_scores(landmarks, train), fields, 1)
    modes = _identity_modes(residual * scale, mean, settings.identity_modes)
    expression = designed_fields(mean)
    figures = {"training photos": int(train.sum())}
    return mean, modes, expression, figures


def _scores(landmarks: PhotoLandmarks, train) -> np.ndarray:
    """Scores of the training photos and their mirror images, (2N, S)."""
    if landmarks.scores is None:
        return np.zeros((2 * int(train.sum()), 0))
    scores = landmarks.scores[train]
    names = landmarks.score_names
    swapped = [
        n.replace("Left", "#").replace("Right", "Left").replace("#", "Right") for n in names
    ]
    order = [names.index(n) if n in names else i for i, n in enumerate(swapped)]
    return np.concatenate([scores, scores[:, order]])


def _expression_regression(both, landmarks, train, ridge):
    scores = _scores(landmarks, train)
    if not scores.shape[1]:
        return both.mean(0), np.zeros((0, *both.shape[1:]))
    A = np.c_[scores, np.ones(len(scores))]
    penalty = np.diag(np.r_[np.full(scores.shape[1], ridge), 1e-6])
    flat = np.linalg.solve(A.T @ A + penalty, A.T @ both.reshape(len(both), -1))
    fields = flat[:-1].reshape(-1, *both.shape[1:])
    return flat[-1].reshape(both.shape[1:]), fields


def close_mouth(face: np.ndarray) -> np.ndarray:
    """Bring the inner lips to a relaxed closed mouth, the lips' outer line half following."""
    out = face.copy()
    upper, lower = list(INNER_LIP_UPPER), list(INNER_LIP_LOWER)
    gap = out[upper] - out[lower]
    taper = np.sin(np.pi * (np.arange(9) + 1) / 10) ** 0.5
    move = np.zeros_like(gap)
    move[:, 1] = gap[:, 1] - LIP_GAP * taper
    move[:, 2] = gap[:, 2]
    out[upper] -= 0.4 * move
    out[lower] += 0.6 * move
    rows = (
        ([183, 42, 41, 38, 12, 268, 271, 272, 407], -0.4 * 0.8),
        ([184, 74, 73, 72, 11, 302, 303, 304, 408], -0.4 * 0.55),
        ([185, 40, 39, 37, 0, 267, 269, 270, 409], -0.4 * 0.3),
        ([96, 89, 179, 86, 15, 316, 403, 319, 325], 0.6 * 0.8),
        ([77, 90, 180, 85, 16, 315, 404, 320, 307], 0.6 * 0.6),
        ([146, 91, 181, 84, 17, 314, 405, 321, 375], 0.6 * 0.4),
    )
    for points, share in rows:
        out[points] += share * move
    return out


def _identity_modes(residual, mean, count):
    """PCA of face residuals, smoothed by a Gaussian-process prior, spread over the head."""
    mesh = control_mesh()
    mirror = mesh.mirror
    flat = residual[:, :N_FACE].reshape(len(residual), -1)
    flat = flat - flat.mean(0)
    _, S, Vt = np.linalg.svd(flat, full_matrices=False)
    count = min(count, len(S))
    modes = (Vt[:count] * (S[:count, None] / np.sqrt(len(flat)))).reshape(count, N_FACE, 3)
    # Data that is closed under reflection has modes that are even or odd; say so exactly.
    out = np.zeros((count, mesh.n_vertices, 3))
    spreader = FieldSpreader(mean, mesh.triangles, stiffness=0.0005)
    ends = np.concatenate(mesh.rings[-2:])
    fixed = np.r_[np.arange(N_FACE), ends]
    landmark = landmark_mirror()
    values = np.zeros((len(fixed), 3 * count))
    parity = np.empty(count)
    for k, mode in enumerate(modes):
        mirrored = reflect(np.r_[mode, np.zeros((10, 3))], landmark)[:N_FACE]
        parity[k] = np.sign((mode * mirrored).sum()) or 1.0
        values[:N_FACE, 3 * k : 3 * k + 3] = (mode + parity[k] * mirrored) / 2
    spread = spreader.spread(fixed, values).reshape(mesh.n_vertices, count, 3).transpose(1, 0, 2)
    for k in range(count):
        out[k] = (spread[k] + parity[k] * reflect(spread[k], mirror)) / 2
    return out


def assemble(
    control: np.ndarray,
    identity: np.ndarray,
    expression: dict[str, np.ndarray],
    settings: BuildSettings,
) -> FaceModel:
    """Subdivide the control mesh and everything on it into a `FaceModel`."""
    mesh = control_mesh()
    n = mesh.n_vertices
    S, triangles = subdivide(mesh.triangles, n, settings.levels)
    # The face passes through its landmarks; the shell takes its points as control points.
    weight = np.ones(n)
    weight[np.concatenate(mesh.rings)] = 0.0

    def refine(x):
        return S @ interpolating_control(S, x, weight=weight)

    mirror = _fine_mirror(S, mesh, settings.levels)
    mean = symmetrise(refine(control), mirror)
    count = len(identity)
    modes = refine(identity.transpose(1, 0, 2).reshape(n, -1)).reshape(-1, count, 3)
    names = tuple(expression)
    fields = np.stack([expression[name] for name in names], 1)
    fields = refine(fields.reshape(n, -1)).reshape(len(mean), len(names), 3).transpose(1, 0, 2)
    fields[np.abs(fields) < 1e-3] = 0.0
    M = midpoint_map(mesh.triangles, n, settings.levels)
    regions = _regions(M, mesh, mean)
    uv = texture_coordinates(mean, triangles, M, mesh, mirror, settings.texture_rounds)
    return FaceModel(
        name="recon3d",
        mean=mean,
        identity=modes.transpose(1, 0, 2).astype(np.float16).astype(np.float32),
        expression=fields.astype(np.float16).astype(np.float32),
        expression_names=names,
        triangles=triangles,
        uv=uv,
        triangles_uv=triangles.copy(),
        landmarks=embedding_of_vertices(np.arange(478), triangles),
        ibug68=embedding_of_vertices(np.array(IBUG68), triangles),
        mirror=mirror,
        regions=regions,
        contour=_contour(S, mesh, triangles),
        licence="MIT",
        origin="recon3d model build, from photos of synthetic people",
        citation="",
    )


def _fine_mirror(S, mesh, levels) -> np.ndarray:
    """Mirror map of the subdivided mesh, by the mirror image of each vertex's recipe."""
    rng = np.random.default_rng(1)
    probe = rng.normal(size=(mesh.n_vertices, 3))
    a = S @ probe
    b = S @ probe[mesh.mirror]
    from scipy.spatial import cKDTree

    distance, index = cKDTree(a).query(b)
    if distance.max() > 1e-9:
        raise AssertionError("the control mesh is not symmetric")
    return index.astype(np.int64)


def _regions(M, mesh, mean) -> dict[str, np.ndarray]:
    n = mesh.n_vertices

    def soft(points):
        value = np.zeros(n)
        value[points] = 1.0
        return np.clip(M @ value, 0, 1).astype(np.float32)

    eyes = np.r_[468:478, mesh.eye_middle.ravel()]
    lips = [61, 291, 78, 308, 76, 306, 62, 292, *INNER_LIP_UPPER, *INNER_LIP_LOWER]
    lips += [185, 40, 39, 37, 0, 267, 269, 270, 409, 146, 91, 181, 84, 17, 314, 405, 321, 375]
    lips += [184, 74, 73, 72, 11, 302, 303, 304, 408, 77, 90, 180, 85, 16, 315, 404, 320, 307]
    lips += [183, 42, 41, 38, 12, 268, 271, 272, 407, 96, 89, 179, 86, 15, 316, 403, 319, 325]
    inside = soft(mesh.mouth_middle)
    face = soft(np.arange(N_FACE))
    shell = soft(np.concatenate(mesh.rings))
    low = 1 / (1 + np.exp((mean[:, 1] + 75.0) / 6.0))
    return {
        "face": np.clip(face - inside, 0, 1),
        "eyes": soft(eyes),
        "mouth": np.maximum(soft(lips), inside),
        "mouth_interior": inside,
        "neck": (shell * low).astype(np.float32),
        "cranium": (shell * (1 - low)).astype(np.float32),
    }


def _contour(S, mesh, triangles) -> np.ndarray:
    """Paths from the cheek outwards and back over the shell, one per jaw point of iBUG-68.

    Padded by their last vertex to one length.
    """
    oval = mesh.oval
    paths = []
    inward = {
        127: (227, 116), 234: (137, 123), 93: (177, 147), 132: (215, 213), 58: (138, 192),
        172: (135, 214), 136: (169, 210), 150: (170, 211), 149: (140, 32), 176: (171, 208),
        148: (171, 208), 152: (175, 199),
    }  # fmt: skip
    for k, p in enumerate(oval[7:19], 7):
        inner = inward.get(int(p), ())
        back = [mesh.rings[0][k]]
        paths.append([*inner[::-1], int(p), *map(int, back)])
    left = [[int(mesh.mirror[v]) for v in path] for path in paths[:-1][::-1]]
    paths += left
    length = max(map(len, paths))
    return np.array([path + [path[-1]] * (length - len(path)) for path in paths], np.int64)


def texture_coordinates(mean, triangles, M, mesh, mirror, rounds) -> np.ndarray:
    """One chart: the face inside a rounded square, the shell in the frame around it, (V, 2)."""
    n = mesh.n_vertices
    ring = np.full(n, -1.0)
    ring[mesh.oval] = 0.0
    for number, points in enumerate(mesh.rings):
        ring[points] = (number + 1) / len(mesh.rings)
    oval = mean[mesh.oval]
    turned = np.arctan2(oval[:, 0], oval[:, 2] - oval[:, 2].min() + 35.0)
    wide, tall = np.ptp(turned), np.ptp(oval[:, 1])
    x, y = turned / (wide / 2), (oval[:, 1] - oval[:, 1].min()) / (tall / 2) - 1
    angle = np.unwrap(np.arctan2(-x, y))
    direction = np.zeros((n, 2))
    direction[mesh.oval] = np.c_[np.cos(angle), np.sin(angle)]
    even = 2 * np.pi * np.arange(36) / 36
    for number, points in enumerate(mesh.rings):
        share = (number + 1) / len(mesh.rings)
        a = angle * (1 - share) + even * share
        a = a if len(points) == 36 else a[::2]
        direction[points] = np.c_[np.cos(a), np.sin(a)]
    shell = np.asarray(M @ (ring < 0)).ravel() < 1e-9
    fraction = np.clip(M @ np.maximum(ring, 0), 0, 1)
    blended = M @ direction
    theta = np.arctan2(blended[:, 1], blended[:, 0])

    def curve(theta, exponent, half):
        c, s = np.cos(theta), np.sin(theta)
        r = (np.abs(c) ** exponent + np.abs(s) ** exponent) ** (-1 / exponent)
        return half * np.stack([-s * r, c * r], 1)

    inner, outer = curve(theta, 3.0, 0.405), curve(theta, 12.0, 0.497)
    uv = 0.5 + inner + (outer - inner) * fraction[:, None]
    face = triangles[~shell[triangles].all(1)]
    # Triangles with three oval corners do not occur; those of the shell keep their place.
    loop = boundary_loops(face)[0]
    flat = convex_embedding(mean, face, loop, uv[loop], rounds=rounds)
    inside = np.setdiff1d(np.unique(face), loop)
    uv[inside] = flat[inside]
    uv[:, 0] = (uv[:, 0] + 1 - uv[mirror, 0]) / 2
    uv[:, 1] = (uv[:, 1] + uv[mirror, 1]) / 2
    return uv


def describe(model: FaceModel) -> dict:
    """Checks that hold for every built model."""
    flipped = model.mean[model.mirror] * [-1, 1, 1]
    return {
        "vertices": model.n_vertices,
        "triangles": len(model.triangles),
        "identity modes": len(model.identity),
        "expressions": len(model.expression_names),
        "asymmetry of the mean, mm": float(np.abs(flipped - model.mean).max()),
        "texture": overlap_count(model.uv, model.triangles_uv),
    }
