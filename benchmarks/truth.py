"""What is true about a benchmark's clips, in the nouns of the pipeline.

A stage can then be measured on its own: the fit's with true cameras and expressions, the texture's
with the true mesh too. A module for other benchmarks, not a command:

    benchmark = read_benchmark(folder)
    case = benchmark.cases[0]
    fit = true_fit(case, benchmark.subjects[case.subject], track, model)

Nothing of this may be used to choose a setting.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recon3d.evaluation.benchmark import Case, Subject
from recon3d.evaluation.surfaces import Surface
from recon3d.fitting.visibility import surface_points
from recon3d.geometry import project, umeyama
from recon3d.scenes.truth import ShapeTruth
from recon3d.types import FaceFit, FaceModel, FaceTrack

NOW7 = (33, 133, 362, 263, 2, 61, 291)
"""MediaPipe's numbers of the landmarks that a subject's truth names."""

REACH_MM = 6.0
"""A vertex farther than this from the true surface has nothing there to be moved to."""

SMOOTH_MM = 6.0
"""Width of the kernel that carries known displacements to vertices without truth."""


@dataclass(frozen=True)
class ClipTruth:
    """True cameras and expressions of all frames of a clip.

    Attributes
    ----------
    K : (3, 3) px
    R, t : (N, 3, 3), (N, 3) mm
        From the true head's axes to the camera.
    yaw : (N,) degrees
    expression : (N, E), expression_names : (E,) str
    """

    K: np.ndarray
    R: np.ndarray
    t: np.ndarray
    yaw: np.ndarray
    expression: np.ndarray
    expression_names: tuple[str, ...]


def clip_truth(case: Case | Path) -> ClipTruth:
    """Read the gt.npz beside a clip: the benchmark's, or that of `recon3d.scenes.scene`."""
    folder = case if isinstance(case, Path) else case.clip.parent
    with np.load(folder / "gt.npz") as z:
        if "T_head_to_cam" in z:
            R, t = z["T_head_to_cam"][:, :3, :3], z["T_head_to_cam"][:, :3, 3]
        else:
            R, t = z["R"], z["t"]
        return ClipTruth(
            z["K"].astype(np.float64),
            R.astype(np.float64),
            t.astype(np.float64),
            z["ypr_deg"][:, 0].astype(np.float64),
            z["expression"].astype(np.float64),
            tuple(str(name) for name in z["expression_names"]),
        )


def expressions_of(truth: ClipTruth, model: FaceModel) -> np.ndarray:
    """(N, E) true expressions as coefficients of a model.

    Names are ARKit's; ICT-FaceKit writes their sides as ``_L`` and ``_R`` and has two of
    ``browInnerUp``, which the model holds as one.
    """
    out = np.zeros((len(truth.expression), len(model.expression)))
    count = np.zeros(len(model.expression))
    for k, name in enumerate(truth.expression_names):
        stem = name.removesuffix("_L").removesuffix("_R")
        side = {"_L": "Left", "_R": "Right"}.get(name[len(stem) :], "")
        for wanted in (name, stem + side, stem):
            if wanted in model.expression_names:
                at = model.expression_names.index(wanted)
                out[:, at] += truth.expression[:, k]
                count[at] += 1
                break
    return out / np.maximum(count, 1)


@dataclass(frozen=True)
class TrueShape:
    """The true head on a model's mesh.

    Attributes
    ----------
    identity : (I,), displacement : (V, 3) mm
        Model and remainder: together the true neutral head in the model's axes.
    known : (V,) bool
        Vertices that lie on the true surface; the others (eyes, the mouth's inside) follow them.
    exact : bool
        Whether vertices correspond one by one; else each was moved to the nearest true point.
    R, t : (3, 3), (3,)
        Rigid motion from the model's axes to those of the true head.
    """

    identity: np.ndarray
    displacement: np.ndarray
    known: np.ndarray
    exact: bool
    R: np.ndarray
    t: np.ndarray


def true_shape(truth: ShapeTruth, model: FaceModel) -> TrueShape:
    """Put a subject's true head on a model's mesh.

    Where the truth has the topology of the model's face and neck (the ``ict*`` subjects on
    ICT-FaceKit) this is exact; else the model is fitted to the true surface and its skin moved to
    the nearest points of it, which leaves the shape true and correspondence along the skin as good
    as the model's.
    """
    rows = _same_topology(truth, model)
    if rows is not None:
        identity, R, t = _fit_points(model, rows, truth.vertices, truth.mask)
        target = (truth.vertices - t) @ R
        known = np.zeros(model.n_vertices, bool)
        known[rows] = True
        moved = np.zeros((model.n_vertices, 3))
        moved[rows] = target - model.vertices(identity)[rows]
        return TrueShape(identity, _carried(model, moved, known), known, True, R, t)
    return _registered(truth, model)


def _same_topology(truth: ShapeTruth, model: FaceModel) -> np.ndarray | None:
    """Rows of the model's vertices that are the true ones, in order; None where they differ.

    The truth may lack parts of the model (eyes, the mouth's inside): its triangles are looked for
    among the model's in their order, with one vertex always standing for one and the same.
    """
    V = len(truth.vertices)
    if model.n_vertices < V or len(truth.triangles) > len(model.triangles):
        return None
    found = np.full(V, -1)
    taken = np.full(model.n_vertices, -1)
    rest = iter(model.triangles)
    for corners in truth.triangles:
        for candidate in rest:
            known, back = found[corners], taken[candidate]
            if (((known < 0) & (back < 0)) | ((known == candidate) & (back == corners))).all():
                found[corners], taken[candidate] = candidate, corners
                break
        else:
            return None
    return found if (found >= 0).all() and (np.diff(found) > 0).all() else None


def _fit_points(
    model: FaceModel,
    rows: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray,
    *,
    noise_mm: float = 0.5,
    start: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Identity and rigid motion that bring vertices to points (least squares, normal prior)."""
    w = np.asarray(weight, np.float64)
    used = w > 0
    rows, target, w = rows[used], target[used], w[used]
    B = model.identity[:, rows].astype(np.float64).transpose(1, 2, 0).reshape(3 * len(rows), -1)
    mean = model.mean[rows]
    by_row = np.repeat(w, 3)[:, None]
    # dense vertices are not so many measurements: a thousand are counted
    share = min(1.0, 1000 / max(w.sum(), 1)) / noise_mm**2
    normal = B.T @ (by_row * B) * share + np.eye(B.shape[1])
    identity = np.zeros(B.shape[1])
    R, t = start if start is not None else umeyama(mean, target, scale=False, weights=w)[1:]
    for _ in range(5):
        residual = ((target - t) @ R - mean).ravel()
        identity = np.linalg.solve(normal, share * (by_row * B).T @ residual)
        R, t = umeyama(mean + (B @ identity).reshape(-1, 3), target, scale=False, weights=w)[1:]
    return identity, R, t


def _registered(truth: ShapeTruth, model: FaceModel) -> TrueShape:
    """The model fitted to the true surface, its skin moved to the nearest points of it."""
    surface = Surface(truth.vertices, truth.triangles)
    skin = np.asarray(model.regions["face"], np.float64)
    for name in ("eyes", "mouth_interior"):
        skin = skin * (1 - np.clip(model.regions.get(name, np.zeros(model.n_vertices)), 0, 1))
    rows = np.flatnonzero(skin > 0.5)
    identity = np.zeros(len(model.identity))
    now7 = surface_points(model.mean, model.triangles, model.landmarks)[list(NOW7)]
    _, R, t = umeyama(now7, truth.now7, scale=False)
    for noise in np.geomspace(4.0, 0.5, 25):
        at = model.vertices(identity)[rows] @ R.T + t
        target, distance = surface.closest(at)
        weight = 1 / (1 + (distance / (2 * noise)) ** 2)
        identity, R, t = _fit_points(model, rows, target, weight, noise_mm=noise, start=(R, t))
    at = model.vertices(identity)[rows] @ R.T + t
    target, distance = surface.closest(at)
    near = distance < REACH_MM
    known = np.zeros(model.n_vertices, bool)
    known[rows[near]] = True
    moved = np.zeros((model.n_vertices, 3))
    moved[rows[near]] = (target - at)[near] @ R
    return TrueShape(identity, _carried(model, moved, known), known, False, R, t)


def _carried(model: FaceModel, moved: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Displacements, with those of unknown vertices taken from known ones around them."""
    from scipy.spatial import cKDTree

    out = moved.copy()
    if known.all() or not known.any():
        return out
    distance, near = cKDTree(model.mean[known]).query(model.mean[~known], k=8)
    weight = np.exp(-0.5 * ((distance - distance[:, :1]) / SMOOTH_MM) ** 2)
    # far away nothing is known: back to the model
    fade = np.exp(-0.5 * (distance[:, 0] / (5 * SMOOTH_MM)) ** 2)
    mean = (weight[..., None] * moved[known][near]).sum(1) / weight.sum(1, keepdims=True)
    out[~known] = mean * fade[:, None]
    return out


def true_fit(
    case: Case | Path,
    subject: Subject | ShapeTruth,
    track: FaceTrack,
    model: FaceModel,
    *,
    shape: str = "true",
) -> FaceFit:
    """A fit whose cameras and expressions are the true ones.

    Parameters
    ----------
    case : Case or Path, a clip's folder
    subject : Subject or ShapeTruth
    track : FaceTrack
        Which frames are views; their landmarks enter the residuals and nothing else.
    model : FaceModel
    shape : {"true", "mean"}
        The true head as `true_shape` puts it on the model's mesh, or the model's mean face, placed
        rigidly where it lies nearest to the true one.

    Returns
    -------
    FaceFit
        With ``uncertainty`` and ``identity_covariance`` of the prior under the mean face, and next
        to none under the true one.
    """
    truth = clip_truth(case)
    head = subject.shape if isinstance(subject, Subject) else subject
    found = true_shape(head, model)
    views = [v.frame_index for v in track.views]
    R, t = truth.R[views] @ found.R, truth.R[views] @ found.t + truth.t[views]
    expression = expressions_of(truth, model)[views]
    I, V = len(model.identity), model.n_vertices  # noqa: E741
    if shape == "true":
        identity, displacement = found.identity, found.displacement
        covariance, uncertainty = 1e-4 * np.eye(I), np.full(V, 0.1)
    elif shape == "mean":
        identity, displacement = np.zeros(I), np.zeros((V, 3))
        covariance = np.eye(I)
        uncertainty = np.sqrt((model.identity.astype(np.float64) ** 2).sum((0, 2)) + 0.5)
        scored = found.known & (np.asarray(model.regions["face"]) > 0.5)
        true_neutral = model.vertices(found.identity) + found.displacement
        _, S, s = umeyama(model.mean[scored], true_neutral[scored], scale=False)
        t = R @ s + t
        R = R @ S
    else:
        raise ValueError(f"shape is 'true' or 'mean', not {shape!r}")
    K = np.repeat(truth.K[None], len(views), 0)
    posed = model.vertices(identity, expression) + displacement
    points = surface_points(posed, model.triangles, model.landmarks)
    seen = np.stack([np.asarray(v.landmarks, np.float64) for v in track.views])
    residuals = seen - project(np.nan_to_num(points), K, R, t)
    residuals[:, model.landmarks.triangle < 0] = np.nan
    return FaceFit(
        model=model,
        identity=identity,
        expression=expression,
        R=R,
        t=t,
        K=K,
        displacement=displacement,
        residuals=residuals,
        weights=np.isfinite(residuals).all(-1).astype(np.float64),
        uncertainty=uncertainty,
        identity_covariance=covariance,
        view_weight=np.ones(len(views)),
        info={"truth": shape, "exact": found.exact, "views": len(views)},
    )
