"""Colour of light: the CIE daylight and Planckian loci as gains in linear sRGB."""

from __future__ import annotations

import numpy as np

REFERENCE_KELVIN = 6504.0
"""Correlated colour temperature of D65, the white of sRGB."""

XYZ_TO_RGB = np.array(
    [
        [3.2404542, -1.5371385, -0.4985314],
        [-0.9692660, 1.8760108, 0.0415560],
        [0.0556434, -0.2040259, 1.0572252],
    ]
)
"""Linear sRGB of CIE XYZ (IEC 61966-2-1)."""

LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)
"""Relative luminance of linear sRGB."""


def chromaticity(kelvin: float) -> tuple[float, float]:
    """CIE 1931 x, y of a light of that colour temperature.

    Parameters
    ----------
    kelvin : float
        1 667 to 25 000. From 4 000 on the daylight locus, below it the Planckian one.

    Returns
    -------
    x, y : float

    References
    ----------
    CIE 15:2004 Colorimetry, 3.1 (daylight). Kim et al., Design of advanced color temperature
    control system for HDTV applications, J. Korean Phys. Soc. 41, 2002 (Planckian).
    """
    if not 1667 <= kelvin <= 25_000:
        raise ValueError(f"colour temperature is {kelvin} K, expected 1667 to 25000")
    r = 1000.0 / kelvin
    if kelvin >= 4000:
        if kelvin <= 7000:
            x = -4.6070 * r**3 + 2.9678 * r**2 + 0.09911 * r + 0.244063
        else:
            x = -2.0064 * r**3 + 1.9018 * r**2 + 0.24748 * r + 0.237040
        return x, -3.0 * x * x + 2.870 * x - 0.275
    x = -0.2661239 * r**3 - 0.2343589 * r**2 + 0.8776956 * r + 0.179910
    if kelvin < 2222:
        y = -1.1063814 * x**3 - 1.34811020 * x**2 + 2.18555832 * x - 0.20219683
    else:
        y = -0.9549476 * x**3 - 1.37418593 * x**2 + 2.09137015 * x - 0.16748867
    return x, y


def light_gains(kelvin: float) -> np.ndarray:
    """What such a light does to a camera balanced for daylight.

    Parameters
    ----------
    kelvin : float

    Returns
    -------
    (3,) float64
        Linear RGB gains, green 1; about (1, 1, 1) at 6 504 K. Blue ends at 0.02, because the
        warmest lights leave sRGB's gamut.

    Examples
    --------
    >>> light_gains(2800)[0] > 1 > light_gains(2800)[2]
    True
    """

    def rgb(t):
        x, y = chromaticity(t)
        return np.maximum(XYZ_TO_RGB @ np.array([x / y, 1.0, (1 - x - y) / y]), 1e-6)

    gains = rgb(kelvin) / rgb(REFERENCE_KELVIN)
    return np.maximum(gains / gains[1], 0.02)
