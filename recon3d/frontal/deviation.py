"""How far the frontal picture is from the truth, pixel by pixel, predicted.

The variance of a pixel's luma is a sum of independent sources of error, each a known map times an
unknown coefficient,

    sigma^2(p) = sum_k c_k f_k(p)^2,

in units of the picture's 0 to 255 range. The coefficients are learned on rendered people with
known truth (``benchmarks/deviation.py``), by the likelihood of normal errors, and kept in
`FrontalSettings`; no clip with real skin had a part in them.
"""

from __future__ import annotations

import cv2
import numpy as np

SOURCES = (
    "floor",
    "noise",
    "shift",
    "lost",
    "oblique",
    "moving",
    "filled",
)
"""What the coefficients belong to, in order; `error_sources` says what each is."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def error_sources(
    raw: np.ndarray,
    *,
    noise: np.ndarray,
    resolution: np.ndarray,
    generated: np.ndarray,
    facing: np.ndarray,
    plain: np.ndarray,
) -> np.ndarray:
    """Standard deviations that each source of error would cause at coefficient one.

    Parameters
    ----------
    raw : (H, W, 3) uint8 sRGB
    noise : (H, W)
        Standard deviation of the fused texture relative to its brightness.
    resolution : (H, W) in [0, 1]
        Pixels of the best frame to one of the picture.
    generated : (H, W) in [0, 1]
    facing : (H, W)
        Cosine between the surface and the direction to the camera.
    plain : (H, W) in [0, 1]
        Zero on eyes and mouth.

    Returns
    -------
    (H, W, K) float32, of `SOURCES`
        ``floor``: one; ``noise``: that of the frames; ``shift``: gradient, for features drawn
        beside their place; ``lost``: gradient by the width of a frame's pixel, for detail that no
        frame resolved; ``oblique``: brightness where the surface turns away; ``moving``: brightness
        on eyes and mouth; ``filled``: brightness of what was filled in.
    """
    luma = raw.astype(np.float32) @ _LUMA
    fine = _gradient(luma, 1.5)
    coarse = _gradient(luma, 4.0)
    pixel = 1 / np.clip(resolution, 0.04, 1)
    # Encoded by a power of about 1/2.2, a relative error of light is so much of the luma.
    tone = luma / 2.2
    maps = {
        "floor": np.ones_like(luma),
        "noise": np.clip(noise, 0, 1) * tone,
        "shift": fine,
        "lost": coarse * np.minimum(pixel, 12.0),
        "oblique": 0.3 * luma * (1 - np.clip(facing, 0, 1)),
        "moving": 0.2 * luma * (1 - np.clip(plain, 0, 1)),
        "filled": 0.2 * luma * generated,
    }
    return np.stack([maps[name] for name in SOURCES], axis=-1).astype(np.float32)


def predicted_deviation(sources: np.ndarray, coefficients: tuple[float, ...]) -> np.ndarray:
    """(H, W) standard deviation from the maps and their coefficients."""
    return np.sqrt((sources**2) @ np.asarray(coefficients, np.float32)).astype(np.float32)


def learn_coefficients(
    sources: np.ndarray, error: np.ndarray, *, iterations: int = 300
) -> np.ndarray:
    """Coefficients under which normal errors are the most likely.

    Minimises ``sum log sigma^2 + e^2 / sigma^2`` over non-negative coefficients by the
    multiplicative steps of Itakura-Saito factorisation [1]_, which never leave the positive.

    Parameters
    ----------
    sources : (N, K)
    error : (N,)

    Returns
    -------
    (K,)

    References
    ----------
    .. [1] C. Fevotte, N. Bertin and J.-L. Durrieu, Nonnegative matrix factorization with the
       Itakura-Saito divergence, Neural Computation 21(3), 2009.
    """
    f = np.asarray(sources, np.float64) ** 2
    e = np.asarray(error, np.float64) ** 2
    theta = e.mean() / np.maximum(f.mean(0), 1e-9) / f.shape[1]
    for _ in range(iterations):
        v = f @ theta + 1e-9
        theta *= np.sqrt((f.T @ (e / v**2)) / np.maximum(f.T @ (1 / v), 1e-30))
    return theta


def _gradient(luma: np.ndarray, sigma: float) -> np.ndarray:
    smooth = cv2.GaussianBlur(luma, (0, 0), sigma)
    gx = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8)
    gy = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8)
    # An error of place moves the edge itself: its surroundings share its uncertainty.
    return np.sqrt(cv2.GaussianBlur(gx**2 + gy**2, (0, 0), 1.5 * sigma))
