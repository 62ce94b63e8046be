"""Square, upright, enlarged crops of faces, and the way back from them to the frame."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class FacePlace:
    """Where a face is: centre (2,) px, size px (the longer side of its box), roll in degrees.

    Roll is counter-clockwise in the picture, as in the contract.
    """

    centre: np.ndarray
    size: float
    roll: float


@dataclass(frozen=True)
class Crop:
    """A square picture of a face and its affine map.

    Attributes
    ----------
    image : (S, S, 3) uint8 RGB
    to_frame : (2, 3) float64
        Takes points of the crop to the frame; pixel centres at half-integers in both.
    mirrored : bool
        Whether the map contains a reflection.
    """

    image: np.ndarray
    to_frame: np.ndarray
    mirrored: bool

    def points_to_frame(self, points: np.ndarray) -> np.ndarray:
        """(P, 2) crop px to (P, 2) frame px."""
        return points @ self.to_frame[:, :2].T + self.to_frame[:, 2]

    @property
    def scale(self) -> float:
        """Frame px per crop px."""
        return float(np.sqrt(abs(np.linalg.det(self.to_frame[:, :2]))))


def cut_crop(
    image: np.ndarray,
    place: FacePlace,
    *,
    size: int,
    margin: float,
    mirrored: bool = False,
) -> Crop:
    """Cut the square of `margin` face sizes around a face, upright, resampled to `size` px.

    Parameters
    ----------
    image : (H, W, 3) uint8
    place : FacePlace
    size : int
    margin : float
    mirrored : bool
        Flip left and right.

    Returns
    -------
    Crop
    """
    scale = margin * place.size / size
    angle = np.radians(place.roll)
    c, s = np.cos(angle) * scale, np.sin(angle) * scale
    # Crop x runs along the head's own horizontal: a head rolled counter-clockwise by r has its
    # horizontal at (cos r, -sin r) in a picture whose y points down.
    A = np.array([[c, s], [-s, c]])
    if mirrored:
        A = A @ np.diag([-1.0, 1.0])
    to_frame = np.column_stack([A, np.asarray(place.centre, np.float64) - A @ [size / 2, size / 2]])
    # OpenCV has pixel centres at integers.
    shifted = to_frame.copy()
    shifted[:, 2] += A @ [0.5, 0.5] - 0.5
    source = image
    if scale > 1.5:
        # Averaging before sampling, over the neighbourhood only: large faces would alias.
        source, shifted = _reduced(image, shifted, size, scale)
    interpolation = cv2.INTER_CUBIC if scale < 1 else cv2.INTER_LINEAR
    picture = cv2.warpAffine(
        source,
        shifted,
        (size, size),
        flags=interpolation | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return Crop(picture, to_frame, mirrored)


def _reduced(image, affine, size, scale):
    corners = np.array([[0, 0, 1], [size, 0, 1], [0, size, 1], [size, size, 1]]) @ affine.T
    limit = np.array([image.shape[1], image.shape[0]])
    low = np.clip(np.floor(corners.min(0)).astype(int) - 4, 0, limit - 2)
    high = np.clip(np.ceil(corners.max(0)).astype(int) + 4, low + 2, limit)
    part = image[low[1] : high[1], low[0] : high[0]]
    factor = 1 / scale
    target = np.maximum(np.round((high - low) * factor).astype(int), 1)
    small = cv2.resize(part, (int(target[0]), int(target[1])), interpolation=cv2.INTER_AREA)
    real = target / (high - low)
    moved = affine.copy()
    moved[:, 2] -= low
    # Scaling about pixel corners: x' + 0.5 = (x + 0.5) * real.
    moved[:, 2] = (moved[:, 2] + 0.5) * real - 0.5
    moved[:, :2] = moved[:, :2] * real[:, None]
    return small, moved


def face_brightness(image: np.ndarray, place: FacePlace) -> float:
    """Mean sRGB value, 0 to 1, of the middle of a face."""
    x, y = place.centre
    r = 0.35 * place.size
    h, w = image.shape[:2]
    x0, x1 = int(np.clip(x - r, 0, w - 1)), int(np.clip(x + r + 1, 1, w))
    y0, y1 = int(np.clip(y - r, 0, h - 1)), int(np.clip(y + r + 1, 1, h))
    if x1 <= x0 or y1 <= y0:
        return 0.0
    step = max(1, (x1 - x0) // 48)
    return float(image[y0:y1:step, x0:x1:step].mean()) / 255


def normalise_exposure(image: np.ndarray, target: float = 0.45) -> np.ndarray:
    """A copy for the networks: gain and gamma to a usual brightness, lightly denoised.

    Parameters
    ----------
    image : (H, W, 3) uint8
    target : float
        Wanted median, sRGB value from 0 to 1.

    Returns
    -------
    (H, W, 3) uint8
    """
    smooth = cv2.GaussianBlur(image, (0, 0), 1.0)
    grey = smooth[..., 1]
    low, high = np.percentile(grey[::2, ::2], [1, 99])
    x = np.clip((np.arange(256) - low) / max(high - low, 8.0), 0, 1)
    median = np.clip((np.median(grey[::2, ::2]) - low) / max(high - low, 8.0), 0.02, 0.98)
    gamma = np.clip(np.log(target) / np.log(median), 0.35, 1.5)
    return (x**gamma * 255 + 0.5).astype(np.uint8)[smooth]
