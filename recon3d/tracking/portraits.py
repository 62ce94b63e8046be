"""Which frames show somebody as a portrait would: looking at the camera, with open eyes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recon3d.checks import check_shape
from recon3d.types import N_LANDMARKS, FaceObservation

_EYES = ((33, 133, 159, 145, 468), (362, 263, 386, 374, 473))
"""Corners in the same order, lids and irises of the two eyes, MediaPipe numbers."""
_OPEN, _CLOSED = 0.65, 0.4
"""Eyes open by this share of what a quarter of the frames exceed count as open, as closed."""
_ASIDE = 0.1
"""An iris so far from the middle of its eye, of the eye's width, looks aside: worth exp(-1)."""
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
    opening = eye_opening(landmarks)
    return open_worth(opening, usual_opening(opening))


def eye_opening(landmarks: np.ndarray) -> np.ndarray:
    """How far apart the lids are, relative to the width of the eye.

    Parameters
    ----------
    landmarks : (N, 478, 2) float

    Returns
    -------
    (N,) float64, of the eye that is less open

    Raises
    ------
    ShapeError
        If the array has another shape.
    """
    check_shape(landmarks, "N 478 2", "landmarks")
    points = np.asarray(landmarks, np.float64)
    openings = []
    for first, last, upper, lower, _ in _EYES:
        width = np.linalg.norm(points[:, first] - points[:, last], axis=1)
        gap = np.linalg.norm(points[:, upper] - points[:, lower], axis=1)
        openings.append(gap / np.maximum(width, 1e-6))
    # An eye turned away is narrow, which makes it look open: the other one tells.
    return np.min(openings, axis=0)


def usual_opening(opening: np.ndarray) -> float:
    """What a quarter of somebody's frames exceed, of `eye_opening`."""
    return float(np.percentile(opening, 75)) if len(opening) else 0.0


def open_worth(opening: np.ndarray, usual: float) -> np.ndarray:
    """As `eyes_open`, of openings that are known already."""
    share = np.asarray(opening) / max(usual, 1e-6)
    return _LEAST + (1 - _LEAST) * np.clip((share - _CLOSED) / (_OPEN - _CLOSED), 0, 1)


def ahead_worth(landmarks: np.ndarray) -> np.ndarray:
    """How nearly the irises stand in the middle between the corners of their eyes.

    Parameters
    ----------
    landmarks : (N, 478, 2) float

    Returns
    -------
    (N,) float64
        1 where they do, falling to nothing where the eyes look aside of where the head looks.

    Raises
    ------
    ShapeError
        If the array has another shape.
    """
    check_shape(landmarks, "N 478 2", "landmarks")
    points = np.asarray(landmarks, np.float64)
    aside = []
    for first, last, _, _, iris in _EYES:
        across = points[:, last] - points[:, first]
        away = points[:, iris] - (points[:, last] + points[:, first]) / 2
        width = np.maximum(np.einsum("nc,nc->n", across, across), 1e-12)
        aside.append(np.einsum("nc,nc->n", away, across) / width)
    # Both eyes look the same way: what differs between them is the landmarks' own squint.
    return np.exp(-((np.mean(aside, axis=0) / _ASIDE) ** 2))


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
