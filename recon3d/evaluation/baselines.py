"""What a reconstruction has to beat: answers that need no reconstruction.

Each baseline gives what a run would write of what is scored, so that the same scoring applies.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from recon3d.errors import InputError
from recon3d.evaluation.benchmark import Benchmark
from recon3d.evaluation.metrics import shape_metrics
from recon3d.frontal.camera import EYES, SIZE
from recon3d.morphable.topology import NOW7, face_triangles
from recon3d.scenes.truth import eye_alignment
from recon3d.types import FaceModel, FaceObservation, FaceTrack

IRIS_MM = 11.7
"""Diameter of the iris that sizes a single mesh (its spread over people is a few percent)."""

_N_MESH = 468
_IRIS_SIDES = ((469, 471), (474, 476))


@dataclass(frozen=True)
class Answer:
    """What is scored of a result: a mesh, its seven landmarks, a frontal picture.

    Attributes
    ----------
    vertices : (V, 3) mm, y up, z out of the face; triangles : (F, 3); now7 : (7, 3)
    frontal : (512, 512, 3) uint8 sRGB
    """

    vertices: np.ndarray
    triangles: np.ndarray
    now7: np.ndarray
    frontal: np.ndarray

    def write(self, folder: Path) -> None:
        """Write it as a run's track folder, ``folder/track_000``."""
        import trimesh

        track = Path(folder) / "track_000"
        track.mkdir(parents=True, exist_ok=True)
        mesh = trimesh.Trimesh(self.vertices, self.triangles, process=False)
        mesh.export(track / "mesh.ply")
        (track / "landmarks.json").write_text(json.dumps({"now7": self.now7.tolist()}))
        # The picture last: it says that the rest is there.
        cv2.imwrite(str(track / "frontal.png"), self.frontal[..., ::-1])


def model_now7(model: FaceModel, vertices: np.ndarray) -> np.ndarray:
    """(7, 3) landmarks of a model's vertices (V, 3), mm."""
    index = list(NOW7)
    corners = vertices[model.triangles[model.landmarks.triangle[index]]]
    return np.einsum("lk,lkd->ld", model.landmarks.barycentric[index], corners)


def mean_face_rows(benchmark: Benchmark, model: FaceModel) -> list[dict]:
    """The model's mean for everybody: rows as `score_results` gives them, without pictures."""
    now7 = model_now7(model, model.mean)
    by_subject = {
        name: shape_metrics(model.mean, model.triangles, now7, subject.shape)
        for name, subject in benchmark.subjects.items()
        if any(case.subject == name for case in benchmark.cases)
    }
    return [
        {
            "case": case.name,
            "subject": case.subject,
            "condition": case.condition,
            "mesh_ok": True,
            "image_ok": False,
            "notes": ["no picture"],
            **by_subject[case.subject],
        }
        for case in benchmark.cases
    ]


def best_frame(track: FaceTrack) -> FaceObservation:
    """The view that looks most straight at the camera.

    Raises
    ------
    InputError
        If no view has pixels.
    """
    views = [view for view in track.views if view.patch is not None]
    if not views:
        raise InputError("the track has no view with pixels")
    return min(views, key=lambda view: abs(view.yaw))


def single_frame(track: FaceTrack) -> Answer:
    """The best frame alone: enlarged bicubically, eyes in place; MediaPipe's mesh of it."""
    view = best_frame(track)
    vertices = metric_mesh(view.landmarks, view.depth)
    frontal = _into_layout(view)
    return Answer(vertices, face_triangles(), vertices[list(NOW7)], frontal)


def frame_average(track: FaceTrack) -> Answer:
    """All views warped by their meshes onto a frontal one and averaged; the mean of the meshes.

    Each of MediaPipe's triangles is carried over affinely. What lies around the face comes from
    the best frame.
    """
    from recon3d.geometry import procrustes_mean

    views = [view for view in track.views if view.patch is not None]
    meshes = np.stack([metric_mesh(view.landmarks, view.depth) for view in views])
    first = int(np.argmin([abs(view.yaw) for view in views]))
    meshes[[0, first]] = meshes[[first, 0]]
    vertices, _ = procrustes_mean(meshes)
    # Symmetrised, it faces the camera squarely.
    layout = _frontal_points(vertices)
    triangles = face_triangles()
    total = np.zeros((SIZE, SIZE, 3))
    weight = np.zeros((SIZE, SIZE, 1))
    face, barycentric = _rasterise_flat(layout, triangles)
    seen = face >= 0
    corners = triangles[face[seen]]
    for view in views:
        points = view.landmarks[:_N_MESH] - np.asarray(view.patch.origin)
        source = np.einsum("pk,pkd->pd", barycentric[seen], points[corners]).astype(np.float32)
        # Pixel centres lie at half-integers; OpenCV counts them from 0.
        x, y = (np.full((SIZE, SIZE), -1, np.float32) for _ in range(2))
        x[seen], y[seen] = (source - 0.5).T
        warped = cv2.remap(view.patch.image, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        # A triangle counts as much as it is turned towards the camera.
        turned = _facing(points, layout, triangles)
        share = np.zeros((SIZE, SIZE, 1))
        share[seen, 0] = turned[face[seen]] * max(view.quality, 1e-3)
        total += share * warped
        weight += share
    mean = np.where(weight > 1e-6, total / np.maximum(weight, 1e-6), 0)
    soft = cv2.GaussianBlur((weight[..., 0] > 1e-6).astype(np.float32), (0, 0), 3)[..., None]
    soft = np.clip(2 * soft - 1, 0, 1)
    picture = soft * mean + (1 - soft) * _into_layout(views[first])
    frontal = np.clip(np.round(picture), 0, 255).astype(np.uint8)
    return Answer(vertices, triangles, vertices[list(NOW7)], frontal)


def metric_mesh(landmarks: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """MediaPipe's mesh of one frame, sized by the iris.

    Parameters
    ----------
    landmarks : (478, 2), px; depth : (478,), px, smaller is nearer

    Returns
    -------
    (468, 3) mm, x to the picture's right, y up, z towards the camera
    """
    points = np.column_stack([landmarks[:, 0], -landmarks[:, 1], -depth])
    iris = np.mean([np.linalg.norm(points[a] - points[b]) for a, b in _IRIS_SIDES])
    points = points[:_N_MESH] * (IRIS_MM / max(iris, 1e-6))
    return points - points[[33, 263]].mean(0)


def _into_layout(view: FaceObservation) -> np.ndarray:
    """(512, 512, 3) uint8: the view's patch with the eyes where the layout has them."""
    landmarks = view.landmarks - np.asarray(view.patch.origin) - 0.5
    M = eye_alignment(landmarks, EYES - 0.5)
    return cv2.warpAffine(
        view.patch.image,
        M,
        (SIZE, SIZE),
        flags=cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _frontal_points(vertices: np.ndarray) -> np.ndarray:
    """(468, 2) px: a mesh made symmetric and put into the layout, seen from far away."""
    from recon3d.geometry import umeyama
    from recon3d.tracking import MIRROR

    mirrored = vertices[MIRROR[:_N_MESH]] * [-1, 1, 1]
    _, R, t = umeyama(mirrored, vertices, scale=False)
    # Half of the turn that carries the mirror image onto the mesh undoes its yaw and roll.
    symmetric = (vertices + mirrored @ R.T + t) / 2
    sides = symmetric - symmetric[MIRROR[:_N_MESH]]
    right = np.linalg.svd(sides)[2][0]
    right = right if right[0] > 0 else -right
    up = symmetric[10] - symmetric[152]
    up = up - (up @ right) * right
    up /= np.linalg.norm(up)
    flat = np.column_stack([symmetric @ right, -(symmetric @ up)])
    padded = np.zeros((478, 2))
    padded[:_N_MESH] = flat
    M = eye_alignment(padded, EYES)
    return flat @ M[:, :2].T + M[:, 2]


def _rasterise_flat(points: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Triangle (512, 512) and barycentric coordinates (512, 512, 3) of a flat drawing, px."""
    import torch

    from recon3d.rendering import rasterise

    flat = torch.from_numpy(np.column_stack([points, np.ones(len(points))]))
    eye = torch.eye(3, dtype=torch.float64)
    drawn = rasterise(flat, torch.from_numpy(triangles), eye, eye, eye[0] * 0, (SIZE, SIZE))
    return drawn.pix_to_face[0].numpy(), drawn.barycentric[0].numpy()


def _facing(points: np.ndarray, layout: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """(F,) in [0, 1]: area in the frame relative to the layout, over its upper quartile, squared;
    0 for triangles seen from behind."""

    def area(p):
        a, b, c = p[triangles[:, 0]], p[triangles[:, 1]], p[triangles[:, 2]]
        u, v = b - a, c - a
        return u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]

    reference = area(layout)
    ratio = area(points) / np.where(np.abs(reference) > 1e-9, reference, np.inf)
    return np.clip(ratio / max(np.percentile(ratio, 75), 1e-9), 0, 1) ** 2
