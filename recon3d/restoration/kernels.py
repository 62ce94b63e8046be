"""Point spread functions, shared by the blur and its inverse."""

from __future__ import annotations

import cv2
import numpy as np

_FINE = 8  # sub-samples a pixel and axis


def gaussian_kernel(sigma: float) -> np.ndarray:
    """Normalised (k, k) float64 Gaussian, cut at 4 sigma."""
    radius = max(1, int(np.ceil(4 * sigma)))
    line = cv2.getGaussianKernel(2 * radius + 1, max(sigma, 1e-3), cv2.CV_64F)
    return line @ line.T


def disc_kernel(radius: float) -> np.ndarray:
    """Normalised (k, k) float64 disc of that radius in px, its edge antialiased."""
    half = int(np.ceil(radius + 0.5))
    side = (2 * half + 1) * _FINE
    axis = (np.arange(side) + 0.5) / _FINE - half - 0.5
    inside = (axis[:, None] ** 2 + axis[None] ** 2 <= max(radius, 0.3) ** 2).astype(np.float64)
    kernel = inside.reshape(2 * half + 1, _FINE, 2 * half + 1, _FINE).mean((1, 3))
    return kernel / kernel.sum()


def motion_kernel(length: float, angle: float) -> np.ndarray:
    """Normalised (k, k) float64 straight smear.

    Parameters
    ----------
    length : float, px
    angle : float, degrees
        0 is horizontal, counter-clockwise in the picture.
    """
    half = int(np.ceil(max(length, 1.0) / 2)) + 1
    kernel = np.zeros((2 * half + 1, 2 * half + 1))
    steps = max(2, int(np.ceil(length * _FINE)))
    along = ((np.arange(steps) + 0.5) / steps - 0.5) * length
    x = half + along * np.cos(np.radians(angle))
    y = half - along * np.sin(np.radians(angle))
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    for dx in (0, 1):
        for dy in (0, 1):
            weight = np.abs(1 - dx - (x - x0)) * np.abs(1 - dy - (y - y0))
            np.add.at(kernel, (y0 + dy, x0 + dx), weight)
    return kernel / kernel.sum()


def convolve(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolve (H, W) or (H, W, C) float32 with a symmetric kernel, reflecting at the border."""
    return cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT)
