"""Building the embedded face model from photos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recon3d.geometry import (
    interpolating_control,
    packed,
    procrustes_mean,
    so3_log,
    subdivide,
    umeyama,
)
from recon3d.morphable.albedo import AlbedoSettings
from recon3d.morphable.anthropometry import Correction, learn_correction
from recon3d.morphable.ears import add_ears
from recon3d.morphable.embedding import embedding_of_vertices
from recon3d.morphable.expressions import designed_fields, lips_meet
from recon3d.morphable.fields import FieldSpreader, reflect, symmetrise
from recon3d.morphable.head import LIP_GAP, complete_head
from recon3d.morphable.parameterisation import convex_embedding, midpoint_map, overlap_count
from recon3d.morphable.photos import (
    PhotoLandmarks,
    load_landmarks,
    measure_photos,
    save_landmarks,
)
from recon3d.morphable.quality import (
    held_out_figures,
    intersecting_triangles,
)
from recon3d.morphable.topology import (
    INNER_LIP_LOWER,
    INNER_LIP_UPPER,
    LID_RIGHT,
    LIP_CORNERS,
    N_FACE,
    boundary_loops,
    control_mesh,
    landmark_mirror,
)
from recon3d.tracking.topology import IBUG68
from recon3d.types import FaceModel

RIGID = [
    9,
    8,
    168,
    6,
    197,
    195,
    151,
    10,
    107,
    336,
    66,
    296,
    69,
    299,
    104,
    333,
    54,
    284,
    21,
    251,
] + [162, 389, 127, 356, 33, 133, 263, 362, 116, 345, 123, 352, 234, 454, 93, 323, 2, 4, 5]
"""Landmarks that expression moves little: shapes are aligned by them."""


MIN_SCORE = 0.15
"""An expression is learned if one photo in twenty shows at least this much of it."""
MAX_CHANGE = 0.6
"""Most that photos may change a field, relative to its largest designed displacement."""


class BuildSettings(BaseModel):
    """How the embedded model is built."""

    model_config = ConfigDict(extra="forbid")

    identity_modes: int = Field(100, ge=1, le=300, description="Identity modes kept.")
    levels: int = Field(2, ge=0, le=3, description="Loop subdivision steps of the control mesh.")
    oval_tension: float = Field(
        0.5, ge=0, le=1, description="1 passes exactly through the face oval, 0 rounds it."
    )
    crops: int = Field(6, ge=2, le=32, description="Moved and mirrored crops per photo.")
    seed: int = Field(0, description="Seed of the crops.")
    portrait_distance: float = Field(
        1000.0, gt=200, description="Distance from which the photos were taken, mm (a guess)."
    )
    ridge: float = Field(
        8.0, gt=0, description="Ridge of the regression of landmarks on blendshape scores."
    )
    grain: float = Field(8.0, gt=0, description="Finest detail of an identity mode, mm.")
    wobble: float = Field(
        0.5, ge=0, description="Share of a landmark's residual that is its own, not its region's."
    )
    prior_mm: float = Field(
        0.4, ge=0, description="Standard deviation of the smooth prior added to the modes, mm."
    )
    prior_length: float = Field(25.0, gt=0, description="Its correlation length, mm.")
    prior_asymmetry: float = Field(0.4, ge=0, description="Its one-sided share.")
    bundle: Path | None = Field(
        None, description="MediaPipe's face_landmarker.task, for the blendshape scores."
    )
    cache: Path | None = Field(
        None, description="An .npz of measured landmarks: read if it exists, else written."
    )
    texture_rounds: int = Field(3, ge=0, le=50, description="Stretch-reducing rounds of the uv.")
    albedo: AlbedoSettings | None = Field(
        AlbedoSettings(), description="How albedo is learned; null leaves it out."
    )


def build_model(
    photos: Path,
    settings: BuildSettings | None = None,
    progress: Callable | None = None,
    learn_albedo: Callable | None = None,
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
    learn_albedo : callable, optional
        `recon3d.texturing.portraits.learn_albedo`, which unwraps the photos and so lies below this
        package; without it, or without ``settings.albedo``, the model has no albedo.

    Returns
    -------
    model : FaceModel
    report : dict
        Counts and figures of quality.
    """
    settings = settings or BuildSettings()
    landmarks = _landmarks(photos, settings, progress)
    control, identity, expression, correction, figures = learn_control(landmarks, settings)
    model = assemble(control, identity, expression, settings)
    report = {"photos": len(landmarks.names), **figures, **describe(model)}
    report |= held_out_figures(model, landmarks, correction)
    if settings.albedo is not None and learn_albedo is not None:
        model, figures = learn_albedo(
            model, photos, landmarks, settings.albedo, settings.portrait_distance, progress
        )
        report |= figures
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
    turns : (N, 3, 3) rotations that were applied
    """
    mirror = landmark_mirror()
    shapes = points * [1.0, -1.0, -1.0]
    if reference is None:
        mean, _ = procrustes_mean(shapes[:, RIGID], iterations=6)
        for _ in range(3):
            moved, _ = _align(shapes, mean, RIGID)
            full = symmetrise(moved.mean(0), mirror)
            full *= 63.0 / np.linalg.norm(full[468] - full[473])
            full -= full[[33, 263]].mean(0)
            mean = full[RIGID]
        reference = full
    moved, turns = _align(shapes, reference[RIGID], RIGID)
    return moved, reference, turns


def _align(shapes, target, points):
    moved, turns = np.empty_like(shapes), np.empty((len(shapes), 3, 3))
    for n, x in enumerate(shapes):
        s, turns[n], t = umeyama(x[points], target)
        moved[n] = s * x @ turns[n].T + t
    return moved, turns


def learn_control(
    landmarks: PhotoLandmarks, settings: BuildSettings
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray], Correction, dict]:
    """Mean, identity modes and expression fields on the control mesh.

    Returns
    -------
    mean : (V, 3), identity : (I, V, 3), expression : dict of name to (V, 3)
    correction : Correction
        Brings aligned landmark meshes into the model's frame.
    figures : dict
    """
    mirror = landmark_mirror()
    train = landmarks.split == "train"
    shapes, _, turns = aligned_shapes(landmarks.points[train])
    both = np.concatenate([shapes, reflect(shapes, mirror)])
    neutral = _neutral(both, landmarks, train, settings.ridge)
    # Mean, modes and fields live in one frame: that of the corrected proportions.
    correction = learn_correction(
        close_mouth(symmetrise(neutral, mirror)), distance=settings.portrait_distance
    )
    both = correction(both)
    scores = _scores(landmarks, train)
    neutral = _neutral(both, landmarks, train, settings.ridge)
    mean = complete_head(close_mouth(symmetrise(neutral, mirror)))
    design = designed_fields(mean)
    expression, learned = learn_expressions(both, neutral, scores, landmarks, design, mean)
    residual = both - neutral
    residual[:, :N_FACE] -= np.tensordot(scores, learned, 1)
    modes = _identity_modes(residual - _posture(residual, turns), mean, settings)
    figures = {"training photos": int(train.sum())}
    if len(learned):
        figures["expression, share of photos' variance explained"] = round(
            1 - float(((residual[:, :N_FACE]) ** 2).sum() / ((both - both.mean(0)) ** 2).sum()), 3
        )
    return mean, modes, expression, correction, figures


def learn_expressions(both, neutral, scores, landmarks, design, mean):
    """Expression fields between design and data.

    Each field has the design as its prior mean; what it may change is half of what moves nearby in
    the design, so that a field keeps to its region and a rare expression to its design. The photos'
    residuals about the neutral mean then say the rest (Bayesian linear regression, landmark by
    landmark).

    Parameters
    ----------
    both : (N, 478, 3) mm, training shapes and their mirror images
    neutral : (478, 3) mm
    scores : (N, S) blendshape scores
    landmarks : PhotoLandmarks
        For the names of the scores.
    design : dict of name to (V, 3) mm
    mean : (V, 3) mm, control mesh

    Returns
    -------
    fields : dict of name to (V, 3) mm
    learned : (S, 468, 3) mm, in the order of the scores
    """
    if not scores.shape[1]:
        return design, np.zeros((0, N_FACE, 3))
    mesh = control_mesh()
    face = mean[:N_FACE]
    d2 = ((face[:, None] - face[None]) ** 2).sum(-1)
    near = np.exp(-d2 / 2 / 10.0**2)
    near /= near.sum(1, keepdims=True)
    names = landmarks.score_names
    prior = np.stack([design[n][:N_FACE] if n in design else np.zeros((N_FACE, 3)) for n in names])
    reach = 0.5 * np.einsum("pq,sq->sp", near, np.linalg.norm(prior, axis=-1)) + 0.01
    target = (both - neutral)[:, :N_FACE]
    # Too few photos show the others: they keep their design.
    shown = np.quantile(scores, 0.95, axis=0) >= MIN_SCORE
    reach[~shown] = 1e-3
    noise = float(np.var(target - np.tensordot(scores, prior, 1)))
    A = scores.T @ scores / noise
    b = np.einsum("ns,npd->psd", scores, target) / noise
    precision = 1 / reach.T**2  # (P, S)
    left = A + precision[:, :, None] * np.eye(len(names))
    learned = np.linalg.solve(left, b + precision[..., None] * prior.transpose(1, 0, 2))
    learned = learned.transpose(1, 0, 2)
    # Scores saturate: a slope taken among faint expressions must not be drawn out to full ones.
    most = [np.linalg.norm(x, axis=-1).max(1)[:, None, None] for x in (prior, learned - prior)]
    room = np.where(most[0] > 0, MAX_CHANGE * most[0], np.inf)
    learned = prior + (learned - prior) * np.minimum(1.0, room / np.maximum(most[1], 1e-9))
    spreader = FieldSpreader(mean, mesh.triangles, stiffness=0.004)
    fixed = np.r_[np.arange(N_FACE), np.concatenate(mesh.rings[1:])]
    change = np.zeros((len(fixed), len(names), 3))
    change[:N_FACE] = (learned - prior).transpose(1, 0, 2)
    spread = spreader.spread(fixed, change.reshape(len(fixed), -1))
    spread = spread.reshape(mesh.n_vertices, len(names), 3)
    fields = dict(design)
    for j, name in enumerate(names):
        if name in design:
            fields[name] = design[name] + spread[:, j]
    fields["mouthClose"] = lips_meet(mean, fields["jawOpen"], spreader)
    # Equal by construction up to rounding; exact from here on.
    for name in list(fields):
        other = name.replace("Left", "#").replace("Right", "Left").replace("#", "Right")
        both_sides = (fields[name] + reflect(fields[other], mesh.mirror)) / 2
        fields[name], fields[other] = both_sides, reflect(both_sides, mesh.mirror)
    return fields, learned


def _posture(residual, turns) -> np.ndarray:
    """What residuals owe to the turn of the head: the landmarker bends turned faces.

    Parameters
    ----------
    residual : (2N, 478, 3), photos and their mirror images
    turns : (N, 3, 3) rotations that brought the photos' meshes to the reference

    Returns
    -------
    (2N, 478, 3), the part that a quadratic in pitch and yaw explains
    """
    pitch, yaw, _ = so3_log(turns).T
    pitch, yaw = np.r_[pitch, pitch], np.r_[yaw, -yaw]
    A = np.stack([pitch, yaw, pitch**2, yaw**2, pitch * yaw], 1)
    A -= A.mean(0)
    flat = residual.reshape(len(residual), -1)
    return (A @ np.linalg.lstsq(A, flat, rcond=None)[0]).reshape(residual.shape)


def _scores(landmarks: PhotoLandmarks, train) -> np.ndarray:
    """Scores of the training photos and their mirror images, (2N, S)."""
    if landmarks.scores is None:
        return np.zeros((2 * int(train.sum()), 0))
    scores = landmarks.scores[train]
    names = landmarks.score_names
    swapped = [n.replace("Left", "#").replace("Right", "Left").replace("#", "Right") for n in names]
    order = [names.index(n) if n in names else i for i, n in enumerate(swapped)]
    return np.concatenate([scores, scores[:, order]])


def _neutral(both, landmarks, train, ridge) -> np.ndarray:
    """The shape at which all blendshape scores are zero, by ridge regression, (478, 3)."""
    scores = _scores(landmarks, train)
    if not scores.shape[1]:
        return both.mean(0)
    A = np.c_[scores, np.ones(len(scores))]
    penalty = np.diag(np.r_[np.full(scores.shape[1], ridge), 1e-6])
    flat = np.linalg.solve(A.T @ A + penalty, A.T @ both.reshape(len(both), -1))
    return flat[-1].reshape(both.shape[1:])


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


def _identity_modes(residual, mean, settings: BuildSettings):
    """Principal modes of face residuals under a smooth prior, spread over the head.

    The covariance is the sample's, with what landmarks wobble on their own taken out, plus a
    Gaussian process that allows smooth shapes which the sample does not hold [1]_; half of it
    symmetric, a tenth of that one-sided.

    References
    ----------
    .. [1] M. Luethi et al., Gaussian process morphable models, IEEE TPAMI 40(8), 2018.
    """
    mesh = control_mesh()
    landmark = landmark_mirror()[:N_FACE]
    place = mean[:N_FACE]
    d2 = ((place[:, None] - place[None]) ** 2).sum(-1)
    # Landmarks wobble one by one; skin does not: the smooth part of each residual is kept.
    k = np.exp(-d2 / 2 / settings.grain**2)
    smooth = k @ np.linalg.inv(k + settings.wobble**2 * np.eye(N_FACE))
    flat = np.einsum("pq,nqd->npd", smooth, residual[:, :N_FACE])
    flat = flat - flat.mean(0)
    side = np.array([-1.0, 1.0, 1.0])
    even = (flat + flat[:, landmark] * side) / 2
    odd = (flat - flat[:, landmark] * side) / 2
    prior = settings.prior_mm**2 * np.exp(-d2 / 2 / settings.prior_length**2)
    found = []
    for parity, part, share in ((1.0, even, 1.0), (-1.0, odd, settings.prior_asymmetry**2)):
        x = part.reshape(len(part), -1)
        C = x.T @ x / len(x)
        for axis in range(3):
            mirrored = parity * side[axis] * prior[:, landmark]
            C[axis::3, axis::3] += share * (prior + mirrored) / 2
        value, vector = np.linalg.eigh(C)
        found += [
            (value[j], parity, vector[:, j].reshape(N_FACE, 3) * np.sqrt(max(value[j], 0.0)))
            for j in np.argsort(-value)[: settings.identity_modes]
        ]
    found.sort(key=lambda item: -item[0])
    found = found[: settings.identity_modes]

    spreader = FieldSpreader(mean, mesh.triangles, stiffness=0.0005)
    fixed = np.r_[np.arange(N_FACE), np.concatenate(mesh.rings[-2:])]
    values = np.zeros((len(fixed), 3 * len(found)))
    for j, (_, _, mode) in enumerate(found):
        values[:N_FACE, 3 * j : 3 * j + 3] = mode
    spread = spreader.spread(fixed, values).reshape(mesh.n_vertices, -1, 3).transpose(1, 0, 2)
    modes = np.empty_like(spread)
    for j, (_, parity, _) in enumerate(found):
        mode = _eyes_follow_lids(spread[j])
        modes[j] = (mode + parity * reflect(mode, mesh.mirror)) / 2
    return modes


def _eyes_follow_lids(field: np.ndarray) -> np.ndarray:
    """Move each eye's patch like its lids, so that people differ and gaze does not."""
    mesh = control_mesh()
    out = field.copy()
    for lids, patch in (
        (np.array(LID_RIGHT), np.r_[468:473, mesh.eye_middle[0]]),
        (mesh.mirror[list(LID_RIGHT)], np.r_[473:478, mesh.eye_middle[1]]),
    ):
        whole = field[lids].mean(0)
        out[patch] = whole
        out[patch[5:]] = (field[lids[::2]] + whole) / 2
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
    # The skin passes through its landmarks; eyes, mouth and shell take their points as control
    # points, since a surface forced through both sides of a fold overshoots.
    weight = np.ones(n)
    weight[np.concatenate(mesh.rings)] = 0.0
    weight[mesh.oval] = settings.oval_tension
    weight[[*LIP_CORNERS, *INNER_LIP_UPPER, *INNER_LIP_LOWER]] = 0.5
    weight[np.r_[468:478, mesh.eye_middle.ravel(), mesh.mouth_middle]] = 0.0

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
    head = FaceModel(
        name="recon3d",
        mean=mean,
        identity=modes.transpose(1, 0, 2).astype(np.float16).astype(np.float32),
        expression=fields.astype(np.float16).astype(np.float32),
        expression_names=names,
        triangles=triangles,
        uv=uv,
        triangles_uv=triangles.copy(),
        landmarks=embedding_of_vertices(np.arange(478), triangles),
        ibug68=embedding_of_vertices(IBUG68, triangles),
        mirror=mirror,
        regions=regions,
        contour=_contour(S, mesh, triangles),
        licence="MIT",
        origin="recon3d model build, from photos of synthetic people",
        citation="",
    )
    return add_ears(head)


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
    turned = np.arctan2(packed(oval[:, 0]), oval[:, 2] - oval[:, 2].min() + 35.0)
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
    theta = np.arctan2(packed(blended[:, 1]), packed(blended[:, 0]))

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
        "intersecting triangles of the mean": intersecting_triangles(model.mean, model.triangles),
        "texture": overlap_count(model.uv, model.triangles_uv),
    }
