"""Is the portrait frontal, and are its eyes in place? The landmarker looks, the camera follows.

Landmarkers see less turn in a turned head than there is, the same way in every frame; a fit to
their points can therefore hold the texture a few degrees beside the surface, and a fit to small
faces holds it a few per cent too small or too low: frames that agree with one another cannot tell.
Neither the surface's own plane of symmetry nor its lids show that. The picture does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from recon3d.errors import Recon3DError
from recon3d.frontal.camera import LEFT_LID, RIGHT_LID
from recon3d.tracking import MIRROR, TrackingSettings, load_landmarker

MAX_TURN = 10.0
"""Largest correction, degrees. More is no bias but a failed fit."""
ENOUGH = 0.3
"""A portrait turned by less than this is straight, degrees."""
ROUNDS = 3
SAME_EYES = 0.1
"""How far picture and mirror image may have an eye apart, of the distance between both eyes. On
portraits of 28 px faces they are up to half of this apart, on painted noise twice of it."""


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


class Sight(NamedTuple):
    """What a landmarker sees in a portrait, free of its own preference for a side.

    Attributes
    ----------
    yaw : float, degrees
    eyes : (2, 2) px or None
        Centres of the right and the left eye: means of the lid contours. None where picture and
        mirror image have them in different places: the landmarker makes them up.
    points : (478, 2) px
        All landmarks, means of picture and mirror image.
    apart : (478,) px
        How far the two have each of them apart.
    """

    yaw: float
    eyes: np.ndarray | None
    points: np.ndarray
    apart: np.ndarray


class Levelled(NamedTuple):
    """How a portrait is to be drawn, see `level_turn`.

    Attributes
    ----------
    turn : float, degrees, within `MAX_TURN`
    seen : float or None
        Yaw seen in the portrait before any correction; None where that could not be measured (then
        the turn is 0).
    eyes : (2, 2) px or None
        Centres of the right and the left eye seen in the portrait of the head turned by ``turn``;
        None where none were seen surely.
    """

    turn: float
    seen: float | None
    eyes: np.ndarray | None


def look_at(landmarker, picture: np.ndarray) -> Sight | None:
    """Look at a portrait and at its mirror image, and take what both say.

    Parameters
    ----------
    landmarker : Landmarker
    picture : (S, S, 3) uint8

    Returns
    -------
    Sight or None
        None where no face is found.
    """
    plain, turned = landmarker([picture, np.ascontiguousarray(picture[:, ::-1])])
    if plain is None or turned is None:
        return None
    yaw = apparent_yaw(plain.points, plain.depth) - apparent_yaw(turned.points, turned.depth)
    back = (turned.points[:, :2] * [-1, 1] + [picture.shape[1], 0])[MIRROR]
    points = (plain.points[:, :2] + back) / 2
    eyes, one, two = (
        np.stack([p[list(lid)].mean(0) for lid in (RIGHT_LID, LEFT_LID)])
        for p in (points, plain.points, back)
    )
    off = np.linalg.norm(one - two, axis=1).max()
    sure = off < SAME_EYES * np.linalg.norm(eyes[1] - eyes[0])
    apart = np.linalg.norm(plain.points[:, :2] - back, axis=1)
    return Sight(0.5 * yaw, eyes if sure else None, points, apart)


def level_turn(draw: Callable[[float], np.ndarray]) -> Levelled:
    """The turn of the head that makes its portrait look straight ahead.

    Parameters
    ----------
    draw : callable
        Gives the portrait, (S, S, 3) uint8, of the head turned by so many degrees.

    Returns
    -------
    Levelled
    """
    nothing = Levelled(0.0, None, None)
    try:
        landmarker = load_landmarker(TrackingSettings())
    except Recon3DError:
        return nothing
    turn, first, best = 0.0, None, (np.inf, nothing)
    try:
        for _ in range(ROUNDS):
            sight = look_at(landmarker, draw(turn))
            if sight is None:
                break
            first = sight.yaw if first is None else first
            if abs(sight.yaw) < best[0]:
                best = abs(sight.yaw), Levelled(turn, first, sight.eyes)
            if abs(sight.yaw) < ENOUGH:
                break
            turn = float(np.clip(turn - sight.yaw, -MAX_TURN, MAX_TURN))
    finally:
        landmarker.close()
    return best[1]
