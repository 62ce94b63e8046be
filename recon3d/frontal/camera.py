"""The camera of the frontal view and its layout."""

from __future__ import annotations

import numpy as np

from recon3d.geometry import head_rotation, project
from recon3d.types import Camera, FaceModel

SIZE = 512
"""Side of the picture, px."""
EYES = np.array([[0.36, 0.44], [0.64, 0.44]]) * SIZE
"""Where the right and the left eye's centre lie, px."""
RIGHT_LID = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
"""MediaPipe points of the contour of the subject's right eye; its centre is their mean."""
LEFT_LID = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)

MAX_MISPLACED = 0.2
"""An eye seen farther from its place than this share of the distance between both is not believed:
the landmarker looks at something else."""


def landmark_points(model: FaceModel, vertices: np.ndarray) -> np.ndarray:
    """Landmarks on a surface, (478, 3) mm; NaN where the model has no such point."""
    triangle = model.landmarks.triangle
    corners = vertices[model.triangles[np.maximum(triangle, 0)]]
    points = np.einsum("lk,lkc->lc", model.landmarks.barycentric, corners)
    return np.where((triangle >= 0)[:, None], points, np.nan)


def straight_ahead(model: FaceModel, vertices: np.ndarray) -> np.ndarray:
    """Rotation from model axes to the face's own: x across its plane of symmetry.

    A fitted shape can be a little turned within the model's axes; seen from its own front neither
    cheek is nearer. Pitch stays the model's.

    Parameters
    ----------
    model : FaceModel
    vertices : (V, 3)

    Returns
    -------
    (3, 3), a rotation of at most ten degrees
    """
    weight = model.regions.get("face", np.ones(len(vertices))) * (model.mirror >= 0)
    across = model.mean[:, 0] - model.mean[np.maximum(model.mirror, 0), 0]
    weight = weight * (across > 5.0)
    if weight.sum() < 1:
        return np.eye(3)
    x = (weight[:, None] * (vertices - vertices[np.maximum(model.mirror, 0)])).sum(0)
    x /= np.linalg.norm(x)
    if x[0] < np.cos(np.radians(10.0)):
        return np.eye(3)
    z = np.array([0.0, 0.0, 1.0])
    y = np.cross(z, x)
    y /= np.linalg.norm(y)
    return np.stack([x, y, np.cross(x, y)])


def frontal_camera(
    model: FaceModel, vertices: np.ndarray, distance_mm: float = 3000.0, turn: float = 0.0
) -> Camera:
    """The camera that puts a neutral face into the layout of the frontal picture.

    Parameters
    ----------
    model : FaceModel
    vertices : (V, 3)
        Neutral, model axes, mm.
    distance_mm : float
        To the eyes.
    turn : float
        Yaw of the head beyond its own straight ahead, degrees.

    Returns
    -------
    Camera
        Whose projections of the two eye centres (means of the lid contours' projections) are
        `EYES` exactly.
    """
    R = head_rotation(turn, 0.0, 0.0) @ straight_ahead(model, vertices)
    return layout_camera(model, vertices, R, distance_mm)


def layout_camera(
    model: FaceModel, vertices: np.ndarray, R: np.ndarray, distance_mm: float
) -> Camera:
    """The camera that shows a head in a given pose in the layout of the frontal picture.

    Parameters
    ----------
    model : FaceModel
    vertices : (V, 3), model axes, mm
    R : (3, 3)
        Model to camera; the layout decides about its roll.
    distance_mm : float
        To the eyes.

    Returns
    -------
    Camera
        With the two eye centres at `EYES`.
    """
    lids = landmark_points(model, vertices)[[*RIGHT_LID, *LEFT_LID]]
    t = np.array([0.0, 0.0, distance_mm]) - R @ np.nanmean(lids, axis=0)
    plain = project(lids, np.eye(3), R, t)
    right, left = np.nanmean(plain[:16], 0), np.nanmean(plain[16:], 0)
    # What is left is a similarity of the picture: a roll about the axis, a focal length, a shift.
    angle = -np.arctan2(left[1] - right[1], left[0] - right[0])
    c, s = np.cos(angle), np.sin(angle)
    roll = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    focal = (EYES[1, 0] - EYES[0, 0]) / np.hypot(*(left - right))
    centre = EYES.mean(0) - focal * (roll[:2, :2] @ (left + right) / 2)
    K = np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1.0]])
    return Camera(K, roll @ R, roll @ t, (SIZE, SIZE))


def with_eyes_in_place(camera: Camera, seen: np.ndarray) -> Camera:
    """Zoom, shift and roll a frontal camera until eyes that were seen elsewhere are at `EYES`.

    Parameters
    ----------
    camera : Camera
        Of the picture in which they were seen.
    seen : (2, 2) px
        Centres of the right and the left eye.

    Returns
    -------
    Camera
        The one given where an eye is farther off than `MAX_MISPLACED`.
    """
    across, wanted = seen[1] - seen[0], EYES[1] - EYES[0]
    off = np.linalg.norm(seen - EYES, axis=1)
    if off.max() > MAX_MISPLACED * np.hypot(*wanted):
        return camera
    zoom = np.hypot(*wanted) / np.hypot(*across)
    angle = np.arctan2(wanted[1], wanted[0]) - np.arctan2(across[1], across[0])
    c, s = np.cos(angle), np.sin(angle)
    roll = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    K = camera.K.copy()
    K[:2, :2] *= zoom
    K[:2, 2] = EYES.mean(0) + zoom * roll[:2, :2] @ (camera.K[:2, 2] - seen.mean(0))
    return Camera(K, roll @ camera.R, roll @ camera.t, camera.size)
