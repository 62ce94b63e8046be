"""Rotations: the exponential map, and the head angles of the output contract."""

import numpy as np

from recon3d.geometry.memory import packed

FRONTAL = np.diag([1.0, -1.0, -1.0])
"""Model axes (y up, z out of the face) to camera axes (y down, z forward) of a frontal head."""


def skew(w: np.ndarray) -> np.ndarray:
    """Cross-product matrix of (..., 3) vectors, (..., 3, 3)."""
    w = np.asarray(w, np.float64)
    out = np.zeros((*w.shape[:-1], 3, 3))
    out[..., 0, 1], out[..., 0, 2], out[..., 1, 2] = -w[..., 2], w[..., 1], -w[..., 0]
    out[..., 1, 0], out[..., 2, 0], out[..., 2, 1] = w[..., 2], -w[..., 1], w[..., 0]
    return out


def so3_exp(w: np.ndarray) -> np.ndarray:
    """Rotation matrices of rotation vectors (Rodrigues' formula).

    Parameters
    ----------
    w : (..., 3), radians

    Returns
    -------
    (..., 3, 3)

    Examples
    --------
    >>> np.allclose(so3_exp(np.array([0.0, 0.0, np.pi / 2])) @ [1, 0, 0], [0, 1, 0])
    True
    """
    w = np.asarray(w, np.float64)
    angle2 = (w**2).sum(-1)[..., None, None]
    angle = np.sqrt(angle2)
    small = angle < 1e-4
    safe = np.where(small, 1.0, angle)
    a = np.where(small, 1 - angle2 / 6, np.sin(safe) / safe)
    b = np.where(small, 0.5 - angle2 / 24, (1 - np.cos(safe)) / safe**2)
    W = skew(w)
    return np.eye(3) + a * W + b * (W @ W)


def so3_log(R: np.ndarray) -> np.ndarray:
    """Rotation vectors of rotation matrices.

    Parameters
    ----------
    R : (..., 3, 3)

    Returns
    -------
    (..., 3), radians, length at most pi
    """
    from scipy.spatial.transform import Rotation

    R = np.asarray(R, np.float64)
    return Rotation.from_matrix(R.reshape(-1, 3, 3)).as_rotvec().reshape(R.shape[:-1])


def head_rotation(yaw, pitch, roll) -> np.ndarray:
    """Model-to-camera rotation of a head turned by yaw, pitch and roll.

    ``R = FRONTAL Ry(yaw) Rx(-pitch) Rz(roll)``: yaw > 0 turns to the subject's left (the right of
    the picture), pitch > 0 looks up, roll > 0 is counter-clockwise in the picture.

    Parameters
    ----------
    yaw, pitch, roll : float or (...), degrees

    Returns
    -------
    (..., 3, 3)
    """
    angles = (np.radians(np.asarray(a, np.float64)) for a in (yaw, pitch, roll))
    yaw, pitch, roll = np.broadcast_arrays(*angles)
    zero = np.zeros_like(yaw)
    Ry = so3_exp(np.stack([zero, yaw, zero], -1))
    Rx = so3_exp(np.stack([-pitch, zero, zero], -1))
    Rz = so3_exp(np.stack([zero, zero, roll], -1))
    return FRONTAL @ Ry @ Rx @ Rz


def head_angles(R: np.ndarray) -> np.ndarray:
    """Yaw, pitch and roll of model-to-camera rotations, the inverse of `head_rotation`.

    Parameters
    ----------
    R : (..., 3, 3)

    Returns
    -------
    (..., 3) degrees: yaw, pitch, roll
    """
    H = FRONTAL @ np.asarray(R, np.float64)
    # The third column of Ry(yaw) Rx(-pitch) Rz(roll) is (sin y cos p, sin p, cos y cos p), its
    # second row (cos p sin r, cos p cos r, sin p).
    yaw = np.arctan2(packed(H[..., 0, 2]), packed(H[..., 2, 2]))
    pitch = np.arcsin(np.clip(H[..., 1, 2], -1, 1))
    roll = np.arctan2(packed(H[..., 1, 0]), packed(H[..., 1, 1]))
    return np.degrees(np.stack([yaw, pitch, roll], -1))


def seen_angles(R: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Yaw and pitch of the side from which a camera sees a head.

    A head that looks along the camera's axis shows its side where it stands beside that axis. For a
    head on the axis that does not roll they are those of `head_angles`.

    Parameters
    ----------
    R : (..., 3, 3)
        Model to camera.
    t : (..., 3)
        Any unit.

    Returns
    -------
    (..., 2) degrees: yaw, pitch

    Raises
    ------
    ValueError
        When a head is where the camera is.
    """
    # Where the camera is in the head's axes; the third row of Ry(yaw) Rx(-pitch) is
    # (-sin y, -cos y sin p, cos y cos p).
    camera = -np.einsum("...ji,...j->...i", np.asarray(R, np.float64), np.asarray(t, np.float64))
    distance = np.linalg.norm(camera, axis=-1)
    if (distance == 0).any():
        raise ValueError("a head cannot be seen from within: t is zero")
    yaw = np.arcsin(np.clip(-camera[..., 0] / distance, -1, 1))
    pitch = np.arctan2(-camera[..., 1], camera[..., 2])
    return np.degrees(np.stack([yaw, pitch], -1))
