"""Brightness and the colour of the light."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np

from recon3d.colour import linear_to_srgb, srgb_to_linear
from recon3d.restoration.common import StepReport, enter, leave, luminance
from recon3d.restoration.light import REFERENCE_KELVIN, light_gains

KEY = 0.11
"""Log-average luminance of an ordinary, well exposed picture."""

_DARK = 0.37
"""A picture whose log-average lies below this share of `KEY` counts as dark."""

_KNEE = 0.75

SKIN = np.array([0.67, -0.39])
"""Mean log(R/G), log(B/G) of skin in linear sRGB under neutral light; see docs/restoration.md."""

_SKIN_SPREAD = np.array([0.2, 0.2])


def brighten(
    image: np.ndarray, *, max_gain: float = 40.0, local_contrast: float = 0.0
) -> tuple[np.ndarray, StepReport]:
    """Give a dark picture the brightness of an ordinary one.

    A gain in linear light, a shoulder that keeps the highlights, and, on request, a share of
    contrast-limited adaptive histogram equalisation. Noise should be removed before.

    Parameters
    ----------
    image : (H, W, 3) uint8, or float in [0, 1], sRGB
    max_gain : float
    local_contrast : float in [0, 1]
        Share of CLAHE on the lightness; helps detection, not faithfulness.

    Returns
    -------
    image, StepReport

    References
    ----------
    Reinhard et al., Photographic tone reproduction for digital images, SIGGRAPH 2002. Zuiderveld,
    Contrast limited adaptive histogram equalization, Graphics Gems IV, 1994.
    """
    u = enter(image)
    measured = exposure_statistics(u)
    if not is_dark(measured):
        belief = f"log-average luminance {measured['log_average']:.3f}: bright enough"
        return image, StepReport(step="brighten", belief=belief, acted=False, measured=measured)
    gain = min(max_gain, KEY / max(measured["log_average"], 1e-6))
    result = apply_gain(u, gain)
    if local_contrast > 0:
        result = _clahe(result, local_contrast)
    return leave(result, image), StepReport(
        step="brighten",
        belief=f"log-average luminance {measured['log_average']:.4f}: "
        f"{np.log2(gain):.1f} stops too dark",
        acted=True,
        measured=measured,
        applied={"gain": float(gain), "local_contrast": float(local_contrast)},
    )


def exposure_statistics(image: np.ndarray) -> dict[str, float]:
    """Log-average, median and 99th percentile of the luminance (linear)."""
    y = luminance(enter(image))
    return {
        # The offset keeps black borders from ruling the mean.
        "log_average": float(np.exp(np.log(y + 1e-3).mean()) - 1e-3),
        "median": float(np.median(y)),
        "p99": float(np.quantile(y, 0.99)),
    }


def is_dark(statistics: dict[str, float]) -> bool:
    """Whether a picture is underexposed: dark on the whole, and nothing in it bright."""
    return statistics["log_average"] < _DARK * KEY and statistics["p99"] < 0.55


def apply_gain(image: np.ndarray, gain: float) -> np.ndarray:
    """Multiply the light, bending what would clip into a shoulder; (H, W, 3) float32 sRGB.

    The gain is applied to all channels alike according to the brightest, so that hues stay.
    """
    linear = srgb_to_linear(enter(image)) * gain
    peak = linear.max(-1, keepdims=True)
    room = 1 - _KNEE
    bent = _KNEE + room * (1 - np.exp(-(np.maximum(peak, _KNEE) - _KNEE) / room))
    scale = np.where(peak > _KNEE, bent / np.maximum(peak, 1e-9), 1.0)
    return linear_to_srgb(linear * scale)


def white_balance(
    image: np.ndarray,
    *,
    method: Literal["auto", "shades_of_grey", "grey_edge"] = "auto",
    skin: np.ndarray | None = None,
) -> tuple[np.ndarray, StepReport]:
    """Take the colour of the light out.

    The light is sought among daylight and black bodies, where nearly all lamps lie: that one
    number cannot be led astray as three gains can.

    Parameters
    ----------
    image : (H, W, 3) uint8, or float in [0, 1], sRGB
    method : {"auto", "shades_of_grey", "grey_edge"}
        "auto" takes the mean of both, in log-chromaticity.
    skin : (H, W) bool, optional
        Pixels known to be skin: the light is then the one under which they look like skin, as far
        as skin is known, weighed against the picture's own statistics.

    Returns
    -------
    image, StepReport

    References
    ----------
    Finlayson and Trezzi, Shades of gray and colour constancy, CIC 2004. van de Weijer, Gevers,
    Gijsenij, Edge-based color constancy, IEEE TIP 16(9), 2007. Stoerring, Andersen, Granum, Skin
    colour detection under changing lighting conditions, SIRS 1999.
    """
    u = enter(image)
    kelvin, measured = estimate_light(u, method=method, skin=skin)
    gains = light_gains(kelvin)
    cosine = gains.sum() / (3**0.5 * np.linalg.norm(gains))
    cast = float(np.degrees(np.arccos(min(cosine, 1.0))))
    measured["cast_deg"] = cast
    # Ordinary pictures of coloured things read as casts of up to some six degrees.
    limit = 3.0 if skin is not None and skin.any() else 7.0
    if cast < limit:
        return image, StepReport(
            step="white_balance",
            belief=f"light of about {kelvin:.0f} K: near enough to neutral",
            acted=False,
            measured=measured,
        )
    result = remove_light(u, kelvin)
    return leave(result, image), StepReport(
        step="white_balance",
        belief=f"light of about {kelvin:.0f} K, {cast:.0f} degrees from neutral",
        acted=True,
        measured=measured,
        applied={"kelvin": float(kelvin)},
    )


def estimate_light(
    image: np.ndarray,
    *,
    method: Literal["auto", "shades_of_grey", "grey_edge"] = "auto",
    skin: np.ndarray | None = None,
) -> tuple[float, dict[str, float]]:
    """Colour temperature of the light, and what it was read from.

    Returns
    -------
    kelvin : float, 1 800 to 15 000
    measured : dict
        log(R/G) and log(B/G) of the light by each way of looking.
    """
    u = enter(image)
    linear = srgb_to_linear(u)
    sound = (u.max(-1) < 0.98) & (u.min(-1) > 0.01)
    if sound.sum() < 100:
        return REFERENCE_KELVIN, {}
    sightings: list[tuple[np.ndarray, np.ndarray]] = []  # log-chromaticity, standard deviation
    measured: dict[str, float] = {}

    def sight(name, rgb, spread):
        chroma = np.log(np.maximum(rgb[[0, 2]], 1e-6) / max(rgb[1], 1e-6))
        measured[f"{name}_log_rg"], measured[f"{name}_log_bg"] = map(float, chroma)
        sightings.append((chroma, spread))

    if method in ("auto", "shades_of_grey"):
        sight("grey", (linear[sound].astype(np.float64) ** 4).mean(0) ** (1 / 4), np.full(2, 0.2))
    if method in ("auto", "grey_edge"):
        smooth = cv2.GaussianBlur(linear, (0, 0), 2)
        edge = np.hypot(cv2.Sobel(smooth, -1, 1, 0), cv2.Sobel(smooth, -1, 0, 1))
        sight("edge", (edge[sound].astype(np.float64) ** 4).mean(0) ** (1 / 4), np.full(2, 0.2))
    if skin is not None and (np.asarray(skin, bool) & sound).sum() >= 20:
        seen = np.median(linear[np.asarray(skin, bool) & sound].astype(np.float64), 0)
        sight("skin", seen / np.exp([SKIN[0], 0, SKIN[1]]), _SKIN_SPREAD)
    grid = 1e6 / np.linspace(1e6 / 1800, 1e6 / 15_000, 300)  # even in reciprocal temperature
    locus = np.log(np.stack([light_gains(k)[[0, 2]] for k in grid]))
    cost = sum((((locus - chroma) / spread) ** 2).sum(1) for chroma, spread in sightings)
    # Most pictures were balanced by their camera: 60 reciprocal megakelvins is one deviation.
    cost = cost + (((1e6 / grid - 1e6 / REFERENCE_KELVIN) / 150) ** 2)
    return float(grid[np.argmin(cost)]), measured


def remove_light(image: np.ndarray, kelvin: float) -> np.ndarray:
    """Divide by the colour of a light, keeping luminance; (H, W, 3) float32 sRGB."""
    linear = srgb_to_linear(enter(image))
    # What was lost to noise in a starved channel must not come back as a flood of it.
    gains = np.maximum(light_gains(kelvin), 0.08).astype(np.float32)
    return linear_to_srgb(linear / gains)


def _clahe(image: np.ndarray, share: float) -> np.ndarray:
    lab = cv2.cvtColor(image.astype(np.float32), cv2.COLOR_RGB2LAB)
    lightness = np.round(lab[..., 0] * 2.55).astype(np.uint8)
    equal = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(lightness)
    lab[..., 0] += share * (equal.astype(np.float32) - lightness) / 2.55
    return np.clip(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), 0, 1)
