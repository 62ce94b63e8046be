"""The pinhole camera."""

import numpy as np

from recon3d.types import Camera


def transform(points: np.ndarray, R: np.ndarray, t: np.ndarray) -> np.ndarray:
    """``R @ x + t`` for (P, 3) points and one pose, or batches (N, P, 3), (N, 3, 3), (N, 3)."""
    return np.einsum("...ij,...pj->...pi", R, points) + np.expand_dims(t, -2)


def project(points: np.ndarray, K: np.ndarray, R: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Project world points.

    Parameters
    ----------
    points : (P, 3) or (N, P, 3), mm
    K, R, t : (3, 3), (3, 3), (3,) or batches (N, 3, 3), (N, 3, 3), (N, 3)

    Returns
    -------
    (P, 2) or (N, P, 2) px, pixel centres at half-integers
    """
    x = transform(points, R, t)
    uvw = np.einsum("...ij,...pj->...pi", K, x)
    return uvw[..., :2] / uvw[..., 2:]


def intrinsics(focal: float, size: tuple[int, int]) -> np.ndarray:
    """K (3, 3) of a camera with square pixels and its principal point in the middle.

    Parameters
    ----------
    focal : float, px
    size : (width, height), px
    """
    return np.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1.0]])


def crop_camera(camera: Camera, origin, scale: float, size: tuple[int, int]) -> Camera:
    """The camera of a crop that was then resized.

    Parameters
    ----------
    camera : Camera
    origin : (2,) px, the crop's upper left corner in the picture
    scale : float, crop pixels per picture pixel
    size : (width, height) of the result, px
    """
    K = np.diag([scale, scale, 1.0]) @ (
        camera.K - np.array([[0, 0, origin[0]], [0, 0, origin[1]], [0, 0, 0.0]])
    )
    return Camera(K, camera.R, camera.t, size)
