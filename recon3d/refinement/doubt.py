"""What the refiner's network thinks of the fused view.

Fusion predicts its own errors from what it can see of itself: detail, noise, place. It cannot see
that a nose is none. A network that has met many people can. Three estimates of the variance of the
fused view's error come together: fusion's own, the network's, and what the network would change
nearby. Each is about the size of the error, and they err at different places. And where the
network sees detail there is more to get wrong than the blurred picture shows:

    log sigma' = c_0 + c_1 log sqrt((sigma_fusion^2 + sigma_network^2 + G * change^2) / 3)
                 + c_2 log(|grad made| + 1/4),    c_1, c_2 >= 0,

with a Gaussian G. The coefficients are learned on people that the network was not trained on
(``benchmarks/doubt.py``) and kept in `RefinementSettings`.
"""

from __future__ import annotations

import cv2
import numpy as np

from recon3d.colour import to_uint8
from recon3d.frontal.deviation import UNSEEN_DEVIATION, luma_gradient, predicted_deviation
from recon3d.types import FrontalView

OPINIONS = ("floor", "together", "detail")
"""What the coefficients belong to, in order; `opinions` says what each is."""
NEAR = 8.0 / 512
"""Reach within which a change is a sign of doubt, standard deviation, share of the side."""
DETAIL = 2.0
"""Standard deviation of the smoothing before the gradient, px."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def opinions(view: FrontalView, made: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """What is said of the fused view's error, as terms of the logarithm of its deviation.

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
    (H, W, K) float32, of `OPINIONS`
        ``floor``: one; ``together``: log root mean of the three variances; ``detail``: log gradient
        of what the network makes.
    """
    change = np.asarray(made - view.raw, np.float32) @ _LUMA
    near = cv2.GaussianBlur(change**2, (0, 0), NEAR * len(change))
    variance = (view.sigma**2 + sigma**2 + near) / 3
    maps = {
        "floor": np.ones_like(change),
        "together": 0.5 * np.log(variance + 0.01),
        "detail": np.log(luma_gradient(np.asarray(made, np.float32) @ _LUMA, DETAIL) + 0.25),
    }
    return np.stack([maps[name] for name in OPINIONS], axis=-1).astype(np.float32)


def fused_deviation(
    view: FrontalView, made: np.ndarray, sigma: np.ndarray, coefficients: tuple[float, ...]
) -> np.ndarray:
    """Deviation of the fused view's luma, the network's opinion counted.

    Parameters
    ----------
    view, made, sigma
        As of `opinions`.
    coefficients : (K,) of `OPINIONS`

    Returns
    -------
    (H, W) float32, levels of 255; beside the face as it was
    """
    doubted = predicted_deviation(opinions(view, made, sigma), coefficients)
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
