"""Projection of landmarks with its derivatives.

A view's pose is a rotation and the triple (u, v, lambda): the pixel where the model's origin
appears, and the logarithm of its size in px per mm. Unlike a translation in millimetres these do
not change with the focal length, which landmarks hardly observe.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Projection(NamedTuple):
    """Landmarks of N views in the picture, and their derivatives.

    Attributes
    ----------
    points : (N, L, 2) px
    rotated : (N, L, 3) mm, points in camera axes about the model's origin
    by_point : (N, L, 2, 3) px per mm of the point in model axes
    by_pose : (N, L, 2, 6) px per (rotation vector applied on the left, u, v, lambda)
    by_focal : (N, L, 2) px per unit of log focal length
    """

    points: np.ndarray
    rotated: np.ndarray
    by_point: np.ndarray
    by_pose: np.ndarray
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
    scale = np.exp(place[:, 2:])
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
    X : (N, L, 3) mm, model axes
    R : (N, 3, 3)
    place, log_focal, centre : as in `translation`

    Returns
    -------
    points : (N, L, 2) px
    rotated : (N, L, 3) mm
    """
    Y = X @ R.transpose(0, 2, 1)
    x = Y + translation(place, log_focal, centre)[:, None]
    z = np.maximum(x[..., 2:], 1.0)
    return centre[:, None] + np.exp(log_focal)[:, None, None] * x[..., :2] / z, Y


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
    Y = X @ R.transpose(0, 2, 1)
    t = translation(place, log_focal, centre)
    x = Y + t[:, None]
    z = np.maximum(x[..., 2], 1.0)
    f = np.exp(log_focal)[:, None]
    a = f / z
    points = centre[:, None] + a[..., None] * x[..., :2]
    # P = d(pixel) / d(camera point)
    P = np.zeros((*z.shape, 2, 3))
    P[..., 0, 0] = P[..., 1, 1] = a
    P[..., 0, 2] = -a * x[..., 0] / z
    P[..., 1, 2] = -a * x[..., 1] / z
    by_point = P @ R[:, None]
    by_pose = np.empty((*z.shape, 2, 6))
    # row . d(exp(w) Y)/dw = (Y x row); written out, np.cross being several times slower
    y = Y[:, :, None]
    by_pose[..., 0] = y[..., 1] * P[..., 2] - y[..., 2] * P[..., 1]
    by_pose[..., 1] = y[..., 2] * P[..., 0] - y[..., 0] * P[..., 2]
    by_pose[..., 2] = y[..., 0] * P[..., 1] - y[..., 1] * P[..., 0]
    inverse_scale = np.exp(-place[:, 2])[:, None, None]
    by_pose[..., 3] = P[..., 0] * inverse_scale
    by_pose[..., 4] = P[..., 1] * inverse_scale
    by_pose[..., 5] = -(P @ t[:, None, :, None])[..., 0]
    by_focal = (points - centre[:, None]) + P[..., 2] * t[:, None, 2:]
    return Projection(points, Y, by_point, by_pose, by_focal)
