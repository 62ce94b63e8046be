"""Projection of landmarks with its derivatives.

A view's pose is a rotation and the triple (u, v, lambda): the pixel where the model's origin
appears, and the logarithm of its size in px per mm. Unlike a translation in millimetres these do
not change with the focal length, which landmarks hardly observe.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recon3d.geometry import packed


class Projection(NamedTuple):
    """Landmarks of N views in the picture, and their derivatives.

    Coordinates come before landmarks in every array: elementwise work then runs along memory.

    Attributes
    ----------
    points : (N, 2, L) px
    rotated : (N, 3, L) mm, points in camera axes about the model's origin
    by_camera : (N, 2, 3, L) px per mm of the point in camera axes
    by_focal : (N, 2, L) px per unit of log focal length
    """

    points: np.ndarray
    rotated: np.ndarray
    by_camera: np.ndarray
    by_focal: np.ndarray


def translation(place: np.ndarray, log_focal: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Translation in mm of the image-space pose.

    Parameters
    ----------
    place : (N, 3), u and v in px and log(px per mm)
    log_focal : (N,)
    centre : (N, 2) px, principal points

    Returns
    -------
    (N, 3) mm
    """
    scale = np.exp(packed(place[:, 2:]))
    return np.concatenate([place[:, :2] - centre, np.exp(log_focal)[:, None]], 1) / scale


def rotate_project(
    X: np.ndarray,
    R: np.ndarray,
    place: np.ndarray,
    log_focal: np.ndarray,
    centre: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks in the picture and in camera axes, without derivatives.

    Parameters
    ----------
    X : (N, 3, L) mm, model axes
    R : (N, 3, 3)
    place, log_focal, centre : as in `translation`

    Returns
    -------
    points : (N, 2, L) px
    rotated : (N, 3, L) mm
    """
    Y = R @ X
    x = Y + translation(place, log_focal, centre)[:, :, None]
    a = np.exp(log_focal)[:, None] / np.maximum(x[:, 2], 1.0)
    return centre[:, :, None] + a[:, None] * x[:, :2], Y


def project_with_derivatives(
    X: np.ndarray,
    R: np.ndarray,
    place: np.ndarray,
    log_focal: np.ndarray,
    centre: np.ndarray,
) -> Projection:
    """As `rotate_project`, with analytic derivatives.

    Points closer to the camera than 1 mm are treated as lying there, so that a wild step gives
    a large finite cost and not a sign change.
    """
    Y = R @ X
    t = translation(place, log_focal, centre)
    x = Y + t[:, :, None]
    z = np.maximum(x[:, 2], 1.0)
    a = np.exp(log_focal)[:, None] / z
    shift = a[:, None] * x[:, :2]
    by_camera = np.zeros((len(X), 2, *Y.shape[1:]))
    by_camera[:, 0, 0] = by_camera[:, 1, 1] = a
    by_camera[:, :, 2] = -shift / z[:, None]
    by_focal = shift + by_camera[:, :, 2] * t[:, 2, None, None]
    return Projection(centre[:, :, None] + shift, Y, by_camera, by_focal)


def pose_derivatives(
    by_camera: np.ndarray,
    rotated: np.ndarray,
    place: np.ndarray,
    log_focal: np.ndarray,
    centre: np.ndarray,
) -> np.ndarray:
    """Derivatives by the pose of what has derivatives by the point in camera axes.

    Parameters
    ----------
    by_camera : (N, K, 3, L)
        Of K quantities of each landmark, per mm; combinations of the picture's coordinates.
    rotated : (N, 3, L) mm, as of `rotate_project`
    place, log_focal, centre : as in `translation`

    Returns
    -------
    (N, 6, K, L) per (rotation vector applied on the left, u, v, lambda)
    """
    N, K, _, L = by_camera.shape
    out = np.empty((N, 6, K, L))
    x, y, z = (by_camera[:, :, k] for k in range(3))
    X, Y, Z = (rotated[:, k, None] for k in range(3))
    # row . d(exp(w) Y)/dw = (Y x row); written out, np.cross being several times slower
    out[:, 0] = Y * z - Z * y
    out[:, 1] = Z * x - X * z
    out[:, 2] = X * y - Y * x
    inverse_scale = np.exp(-place[:, 2])[:, None, None]
    out[:, 3] = x * inverse_scale
    out[:, 4] = y * inverse_scale
    t = translation(place, log_focal, centre)[:, :, None, None]
    out[:, 5] = -(x * t[:, 0] + y * t[:, 1] + z * t[:, 2])
    return out
