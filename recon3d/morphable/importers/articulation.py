"""Turns of jaw and eyeballs as expression fields.

A model with joints moves its jaw and eyes by rotation. The fit is linear in its expressions, so
each ARKit movement becomes the chord of a moderate turn: within it, a chord and its arc differ by
less than the eighth of the angle squared, 1.5 % of the distance from the joint at 20 degrees.
"""

from __future__ import annotations

import numpy as np

JAW_OPEN, JAW_SIDE, EYE_TURN = np.radians([20.0, 7.0, 25.0])


def turned(
    vertices: np.ndarray,
    joint: np.ndarray,
    weight: np.ndarray,
    turn: np.ndarray,
    corrective: np.ndarray | None = None,
) -> np.ndarray:
    """Displacement of skinned vertices when one joint turns.

    Parameters
    ----------
    vertices : (V, 3)
    joint : (3,), its place
    weight : (V,), how far each vertex follows
    turn : (3,), rotation vector in radians
    corrective : (V, 3, 9), optional
        Displacement per entry of the rotation matrix less the identity, row by row.

    Returns
    -------
    (V, 3)
    """
    from recon3d.geometry import so3_exp

    R = so3_exp(np.asarray(turn, np.float64))
    moved = weight[:, None] * ((vertices - joint) @ R.T + joint - vertices)
    if corrective is not None:
        moved = moved + corrective @ (R - np.eye(3)).ravel()
    return moved


def jaw_fields(vertices, joint, weight, corrective=None) -> dict[str, np.ndarray]:
    """``jawOpen``, ``jawLeft``, ``jawRight`` (x to the subject's left, y up, z out)."""
    turns = {
        "jawOpen": (JAW_OPEN, 0, 0),
        "jawLeft": (0, JAW_SIDE, 0),
        "jawRight": (0, -JAW_SIDE, 0),
    }
    return {n: turned(vertices, joint, weight, t, corrective) for n, t in turns.items()}


def eye_fields(vertices, joint, weight, corrective=None) -> dict[str, np.ndarray]:
    """``eyeLookUpLeft`` and the like for the eyeball on the joint's side."""
    left = joint[0] > 0
    side, inward = ("Left", -1.0) if left else ("Right", 1.0)
    turns = {
        "Up": (-EYE_TURN, 0, 0),
        "Down": (EYE_TURN, 0, 0),
        "In": (0, inward * EYE_TURN, 0),
        "Out": (0, -inward * EYE_TURN, 0),
    }
    return {
        f"eyeLook{n}{side}": turned(vertices, joint, weight, t, corrective)
        for n, t in turns.items()
    }
