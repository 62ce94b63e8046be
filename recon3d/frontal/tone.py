"""White balance and exposure of the picture, judged by the skin.

Neither the colour of the light nor that of the skin is known. In the logarithm of linear channel
ratios the observed colour is their sum; with normal priors for both, the light's share of the
deviation from average skin follows from their variances. So a warm clip comes out nearly neutral,
and brown skin stays brown.
"""

from __future__ import annotations

import numpy as np

SKIN_RATIO = np.array([0.60, -0.42])
"""Mean of log(red / green) and log(blue / green) of skin in neutral light (linear sRGB)."""
SKIN_SPREAD = np.array([0.17, 0.20])
LIGHT_SPREAD = np.array([0.30, 0.45])
"""Of light between candle and shade, after a camera's own imperfect balance."""
SKIN_LUMINANCE = (0.26, 0.45)
"""Median luminance of a normally exposed face, and the spread of its logarithm over people."""
EXPOSURE_SPREAD = 1.2
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])


def neutral_gains(skin: np.ndarray, *, balance: float = 1.0, exposure: float = 1.0) -> np.ndarray:
    """Channel gains that bring a face to neutral light and normal exposure.

    Parameters
    ----------
    skin : (P, 3) linear colours of skin
    balance, exposure : float in [0, 1]
        How much of each correction to apply.

    Returns
    -------
    (3,) factors
    """
    skin = np.asarray(skin, np.float64)
    skin = skin[np.isfinite(skin).all(1) & (skin.min(1) > 1e-5)]
    if len(skin) == 0:
        return np.ones(3)
    r, g, b = np.median(skin, axis=0)
    ratio = np.array([np.log(r / g), np.log(b / g)])
    share = LIGHT_SPREAD**2 / (LIGHT_SPREAD**2 + SKIN_SPREAD**2)
    red, blue = -balance * share * (ratio - SKIN_RATIO)
    gains = np.exp(np.array([red, 0.0, blue]))
    level = float(np.array([r, g, b]) * gains @ LUMINANCE)
    target, spread = SKIN_LUMINANCE
    share = EXPOSURE_SPREAD**2 / (EXPOSURE_SPREAD**2 + spread**2)
    gain = np.exp(exposure * share * (np.log(target) - np.log(level)))
    return gains * gain


def compress(image: np.ndarray, knee: float = 0.75) -> np.ndarray:
    """Bend linear values above a knee smoothly below one, channels together, hue kept."""
    peak = image.max(axis=-1, keepdims=True)
    over = np.maximum(peak - knee, 0)
    bent = knee + (1 - knee) * over / (over + (1 - knee))
    return image * np.where(peak > knee, bent / np.maximum(peak, 1e-6), 1.0)
