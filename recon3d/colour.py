"""The sRGB transfer curve (IEC 61966-2-1). Photometric work is done in linear light."""

import numpy as np


def srgb_to_linear(image: np.ndarray) -> np.ndarray:
    """Decode sRGB to linear light.

    Parameters
    ----------
    image : (...) uint8, or float in [0, 1]

    Returns
    -------
    (...) float32, linear, [0, 1]
    """
    if image.dtype == np.uint8:
        return _DECODE[image]
    x = np.asarray(image, np.float32)
    return np.where(x <= 0.04045, x / 12.92, ((np.maximum(x, 0) + 0.055) / 1.055) ** 2.4).astype(
        np.float32
    )


def linear_to_srgb(image: np.ndarray) -> np.ndarray:
    """Encode linear light as sRGB, clipped to [0, 1].

    Parameters
    ----------
    image : (...) float, linear

    Returns
    -------
    (...) float32 in [0, 1]
    """
    x = np.clip(np.asarray(image, np.float32), 0.0, 1.0)
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055).astype(np.float32)


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Round a float picture in [0, 1] to uint8."""
    return (np.clip(image, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def _decode_table() -> np.ndarray:
    x = np.arange(256, dtype=np.float64) / 255
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4).astype(np.float32)


_DECODE = _decode_table()
