"""The best observed frames, as they are and with landmarks drawn."""

from __future__ import annotations

import cv2
import numpy as np

from recon3d.exporting.records import yaw_bin
from recon3d.tracking import eyes_open
from recon3d.types import N_LANDMARKS, FaceObservation, FaceTrack

CONTOURS = (
    # lips, eyes, brows and the outline of MediaPipe's mesh
    (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185, 61),
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246, 33),
    (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466, 263),
    (46, 53, 52, 65, 55),
    (276, 283, 282, 295, 285),
    (168, 6, 197, 195, 5, 4),
)  # fmt: skip

_DRAWN_WIDTH = 480


def best_views(track: FaceTrack, weight: np.ndarray | None = None) -> list[int]:
    """The best view of each yaw bin, from the subject's right to the left: good frames with open
    eyes.

    Parameters
    ----------
    track : FaceTrack
    weight : (N,) float, optional
        Views of weight 0 are passed over where their bin holds another.

    Returns
    -------
    list of int
        Positions in ``track.views``; views without pixels are never among them.
    """
    best: dict[int, tuple[float, int]] = {}
    landmarks = np.array([view.landmarks for view in track.views]).reshape(-1, N_LANDMARKS, 2)
    opened = eyes_open(landmarks)
    for i, view in enumerate(track.views):
        if view.patch is None:
            continue
        score = view.quality * opened[i] * (1.0 if weight is None or weight[i] > 0 else 1e-3)
        key = int(yaw_bin(view.yaw))
        if key not in best or score > best[key][0]:
            best[key] = (score, i)
    return [best[key][1] for key in sorted(best)]


def view_name(view: FaceObservation) -> str:
    """File name without suffix: rounded yaw, input and frame number."""
    return f"yaw{round(view.yaw):+03d}_input{view.source}_frame{view.frame_index:06d}"


def draw_landmarks(view: FaceObservation) -> np.ndarray:
    """The view enlarged, with its landmarks and their one-sigma ellipses.

    Parameters
    ----------
    view : FaceObservation
        With a patch.

    Returns
    -------
    (h, w, 3) uint8 RGB, at least 480 px wide unless the patch is larger
    """
    patch = view.patch
    scale = max(1.0, _DRAWN_WIDTH / patch.image.shape[1])
    size = (round(patch.image.shape[1] * scale), round(patch.image.shape[0] * scale))
    canvas = cv2.resize(patch.image, size, interpolation=cv2.INTER_CUBIC)
    points = (view.landmarks - np.asarray(patch.origin)) * scale - 0.5
    shift = 4  # sub-pixel drawing: 4 binary places
    fixed = np.round(points * (1 << shift)).astype(np.int32)
    for contour in CONTOURS:
        cv2.polylines(canvas, [fixed[list(contour)]], False, (80, 220, 255), 1, cv2.LINE_AA, shift)
    values, vectors = np.linalg.eigh(view.covariance)
    radius = np.sqrt(np.maximum(values, 0)) * scale
    for point, r, axes in zip(fixed, radius, vectors):
        if r[1] > 1.5:
            angle = float(np.degrees(np.arctan2(axes[1, 1], axes[0, 1])))
            size = (round(float(r[1]) * (1 << shift)), round(float(r[0]) * (1 << shift)))
            centre = (int(point[0]), int(point[1]))
            cv2.ellipse(canvas, centre, size, angle, 0, 360, (255, 190, 60), 1, cv2.LINE_AA, shift)
        cv2.circle(
            canvas, (int(point[0]), int(point[1])), 1 << shift, (90, 255, 120), -1, cv2.LINE_AA,
            shift,
        )  # fmt: skip
    return canvas
