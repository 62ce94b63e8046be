"""Which frames show somebody as a portrait would: looking at the camera, with open eyes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recon3d.checks import check_shape
from recon3d.types import N_LANDMARKS, FaceObservation

_EYES = ((33, 133, 159, 145), (362, 263, 386, 374))
"""Corners and lids of the two eyes, MediaPipe numbers."""
_OPEN, _CLOSED = 0.65, 0.4
"""Eyes open by this share of what a quarter of the frames exceed count as open, as closed."""
_LEAST = 0.1
"""What is left of a frame's worth when its eyes are closed: better than none where all are."""
_TURN_DEG = 14.0
"""Turn at which a frame's worth has fallen by exp(-1/2)."""
_PITCH_SHARE = 0.6
"""A nod shows less of a face otherwise than a turn of the head does."""


def eyes_open(landmarks: np.ndarray) -> np.ndarray:
    """How open the eyes are, compared to how open this person's eyes are.

    Parameters
    ----------
    landmarks : (N, 478, 2) float
        Of one person's frames; each at whatever scale.

    Returns
    -------
    (N,) float64
        1 where the lids are apart as usual, falling to 0.1 where they meet. Of a single frame
        nothing is known to compare with: 1.

    Raises
    ------
    ShapeError
        If the array has another shape.
    """
    check_shape(landmarks, "N 478 2", "landmarks")
    points = np.asarray(landmarks, np.float64)
    openings = []
    for outer, inner, upper, lower in _EYES:
        width = np.linalg.norm(points[:, outer] - points[:, inner], axis=1)
        gap = np.linalg.norm(points[:, upper] - points[:, lower], axis=1)
        openings.append(gap / np.maximum(width, 1e-6))
    # An eye turned away is narrow, which makes it look open: the other one tells.
    opening = np.min(openings, axis=0)
    if not len(opening):
        return opening
    share = opening / max(float(np.percentile(opening, 75)), 1e-6)
    return _LEAST + (1 - _LEAST) * np.clip((share - _CLOSED) / (_OPEN - _CLOSED), 0, 1)


def portrait_worth(
    opened: np.ndarray, yaw: np.ndarray, pitch: np.ndarray, quality: np.ndarray
) -> np.ndarray:
    """How well each frame would do as a portrait of the person.

    Parameters
    ----------
    opened : (N,)
        Of `eyes_open`.
    yaw, pitch : (N,) degrees
    quality : (N,)
        0 to 1, of the frame.

    Returns
    -------
    (N,) float64, the larger the better, at most 1
    """
    turned = np.hypot(np.asarray(yaw, np.float64), _PITCH_SHARE * np.asarray(pitch, np.float64))
    return np.asarray(quality, np.float64) * np.exp(-0.5 * (turned / _TURN_DEG) ** 2) * opened


def best_portraits(views: Sequence[FaceObservation], count: int) -> list[int]:
    """The frames that show a person best as a portrait does.

    Parameters
    ----------
    views : sequence of FaceObservation
        Of one person; those without pixels are never chosen, but tell how open eyes can be.
    count : int
        At most so many.

    Returns
    -------
    list of int
        Positions in `views`, the best first.
    """
    landmarks = np.array([view.landmarks for view in views]).reshape(-1, N_LANDMARKS, 2)
    angles = (np.array([getattr(view, key) for view in views]) for key in ("yaw", "pitch"))
    quality = np.array([view.quality for view in views])
    worth = portrait_worth(eyes_open(landmarks), *angles, quality)
    order = np.argsort(-worth, kind="stable")
    return [int(i) for i in order if views[i].patch is not None][:count]
