"""White balance and exposure of the picture, judged by the skin.

Neither the colour of the light nor that of the skin is known. In the logarithm of linear channel
ratios the observed colour is their sum; with normal priors for both, the light's share of the
deviation from average skin follows from their variances. So a warm clip comes out nearly neutral,
and brown skin stays brown.

So it is with brightness, but that the frames tell more: where their bright parts are as bright as
those of any good picture, a dark face is dark skin and not too little light, and stays as it is.
"""

from __future__ import annotations

import numpy as np

from recon3d.colour import srgb_to_linear

SKIN_RATIO = np.array([0.60, -0.42])
"""Mean of log(red / green) and log(blue / green) of skin in neutral light (linear sRGB)."""
SKIN_SPREAD = np.array([0.17, 0.20])
LIGHT_SPREAD = np.array([0.30, 0.45])
"""Of light between candle and shade, after a camera's own imperfect balance."""
SKIN_LUMINANCE = (0.27, 0.74)
"""Median luminance of faces in portraits that are well exposed, and the spread of its logarithm."""
BRIGHT_LUMINANCE = (0.45, 0.8)
"""What a twentieth of such a picture exceeds. Over portraits it is 0.55, its logarithm spreads by
0.35 and hardly goes with that of the faces (correlation 0.2); rooms are darker and differ more."""
EXPOSURE_SPREAD = 1.2
LEGIBLE = 0.1
"""A face is made no darker than this, whatever the light: it is to be looked at."""
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])


def neutral_gains(
    skin: np.ndarray,
    *,
    bright: float | None = None,
    balance: float = 1.0,
    exposure: float = 1.0,
) -> np.ndarray:
    """Channel gains that bring a face to neutral light and normal exposure.

    Parameters
    ----------
    skin : (P, 3) linear colours of skin
    bright : float, optional
        Luminance that a twentieth of the frames' pixels exceed, of `bright_luminance`. Without it
        faces are taken for alike and brought to the same brightness.
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
    usual, spread = SKIN_LUMINANCE
    off = np.log(level / usual)
    if bright is None:
        return gains * np.exp(-exposure * off)
    # The exposure's mean after two normal observations of it: the face, and what is bright. That
    # there is something brighter than in other pictures says nothing: it may be a window.
    there, spread_there = BRIGHT_LUMINANCE
    weights = np.array([spread, spread_there, EXPOSURE_SPREAD]) ** -2.0
    seen = np.array([off, min(np.log(max(bright, 1e-4) / there), 0.0), 0.0])
    corrected = level * np.exp(-exposure * float(weights @ seen / weights.sum()))
    least = min(LEGIBLE, max(level, LEGIBLE * exposure))
    return gains * max(corrected, least) / level


def bright_luminance(pictures: list[np.ndarray]) -> float | None:
    """Luminance that a twentieth of a picture's pixels exceed, the median over pictures.

    Parameters
    ----------
    pictures : list of (h, w, 3) uint8 sRGB

    Returns
    -------
    float, linear; None without pictures
    """
    found = [
        float(np.quantile(srgb_to_linear(x[::2, ::2]) @ LUMINANCE.astype(np.float32), 0.95))
        for x in pictures
        if x.size
    ]
    return float(np.median(found)) if found else None


def compress(image: np.ndarray, knee: float = 0.75) -> np.ndarray:
    """Bend linear values above a knee smoothly below one, channels together, hue kept."""
    peak = image.max(axis=-1, keepdims=True)
    over = np.maximum(peak - knee, 0)
    bent = knee + (1 - knee) * over / (over + (1 - knee))
    return image * np.where(peak > knee, bent / np.maximum(peak, 1e-6), 1.0)
