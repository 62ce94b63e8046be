"""Is the portrait frontal? The landmarker looks at it, and the camera follows.

Landmarkers see less turn in a turned head than there is, the same way in every frame; a fit to
their points can therefore hold the texture a few degrees beside the surface. The surface's own
plane of symmetry does not show that. The picture does.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from recon3d.errors import Recon3DError
from recon3d.tracking import MIRROR, TrackingSettings, load_landmarker

MAX_TURN = 10.0
"""Largest correction, degrees. More is no bias but a failed fit."""
ENOUGH = 0.3
"""A portrait turned by less than this is straight, degrees."""
ROUNDS = 3


def apparent_yaw(points: np.ndarray, depth: np.ndarray) -> float:
    """Yaw of a face from its landmarks, by the direction from right points to their left twins.

    Parameters
    ----------
    points : (478, 2) px
    depth : (478,) px, smaller is nearer

    Returns
    -------
    float, degrees, > 0 where the subject turns to their own left
    """
    across = points[:468] - points[MIRROR[:468]]
    behind = depth[:468] - depth[MIRROR[:468]]
    # Each pair stands in the sum twice, once with either sign; count it once, left minus right.
    left = across[:, 0] > 0
    return float(np.degrees(np.arctan2(behind[left].sum(), across[left, 0].sum())))


def picture_yaw(landmarker, picture: np.ndarray) -> float | None:
    """Yaw that a landmarker sees in a portrait, free of its own preference for a side.

    Parameters
    ----------
    landmarker : Landmarker
    picture : (S, S, 3) uint8

    Returns
    -------
    float or None
        Half the difference between the picture and its mirror image, degrees; None where no face
        is found.
    """
    plain, turned = landmarker([picture, np.ascontiguousarray(picture[:, ::-1])])
    if plain is None or turned is None:
        return None
    yaw = apparent_yaw(plain.points, plain.depth)
    return 0.5 * (yaw - apparent_yaw(turned.points, turned.depth))


def level_turn(draw: Callable[[float], np.ndarray]) -> tuple[float, float | None]:
    """The turn of the head that makes its portrait look straight ahead.

    Parameters
    ----------
    draw : callable
        Gives the portrait, (S, S, 3) uint8, of the head turned by so many degrees.

    Returns
    -------
    turn : float, degrees, within `MAX_TURN`
    seen : float or None
        Yaw seen in the portrait before any correction; None where that could not be measured (then
        the turn is 0).
    """
    try:
        landmarker = load_landmarker(TrackingSettings())
    except Recon3DError:
        return 0.0, None
    turn, first, best = 0.0, None, (np.inf, 0.0)
    try:
        for _ in range(ROUNDS):
            yaw = picture_yaw(landmarker, draw(turn))
            if yaw is None:
                break
            first = yaw if first is None else first
            best = min(best, (abs(yaw), turn))
            if abs(yaw) < ENOUGH:
                break
            turn = float(np.clip(turn - yaw, -MAX_TURN, MAX_TURN))
    finally:
        landmarker.close()
    return (best[1], first) if first is not None else (0.0, None)
