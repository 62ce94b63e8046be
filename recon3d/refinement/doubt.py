"""What the refiner's network thinks of the fused view.

Fusion predicts its own errors from what it can see of itself: detail, noise, place. It cannot see
that a nose is none. A network that has met many people can; three estimates of the variance of the
fused view's error come together,

    sigma'^2 = (sigma_fusion^2 + sigma_network^2 + G * (made - fused)^2) / 2,

the last being what the network would change, smoothed by a Gaussian G. Each alone is about the
size of the error and says least where it is wrong most; half of their sum is the size again, on
clips of people that neither fusion's law nor the network was learned on.
"""

from __future__ import annotations

import cv2
import numpy as np

from recon3d.colour import to_uint8
from recon3d.frontal.deviation import UNSEEN_DEVIATION
from recon3d.types import FrontalView

NEAR = 8.0 / 512
"""Reach within which a change is a sign of doubt, standard deviation, share of the side."""
SHARE = 0.5
"""Of the sum of the three variances; set on 43 clips of people that no law was learned on."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def fused_deviation(view: FrontalView, made: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Deviation of the fused view's luma, the network's opinion counted.

    Parameters
    ----------
    view : FrontalView
        With ``sigma``.
    made : (H, W, 3) float32
        What the network makes of it, at full strength, levels of 255.
    sigma : (H, W) float32
        The deviation that it predicts for that, levels of 255.

    Returns
    -------
    (H, W) float32, levels of 255; beside the face as it was
    """
    change = (made - view.raw) @ _LUMA
    near = NEAR * len(change)
    total = view.sigma**2 + sigma**2 + cv2.GaussianBlur(change**2, (0, 0), near)
    doubted = np.sqrt(SHARE * total)
    return (view.sigma + view.face_mask * (doubted - view.sigma)).astype(np.float32)


def doubted_support(support: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Support when the deviation is another than was thought.

    Parameters
    ----------
    support : (H, W) uint8
        Red of the evidence, made with the deviation `before`
        (`recon3d.frontal.deviation.determined_share`).
    before, after : (H, W) levels of 255

    Returns
    -------
    (H, W) uint8
    """
    unseen = UNSEEN_DEVIATION**2
    changed = (unseen + np.square(before)) / (unseen + np.square(after))
    return to_uint8(support.astype(np.float32) / 255 * changed)
