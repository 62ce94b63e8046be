"""How blurred each view is beside the sharpest ones of its track.

Cameras hunt for focus, hands shake, encoders spend their bits on some frames and not on others: of
one face, the frames of a film differ in how sharp they are. The blur that is common to all of them
cannot be told from a face that has no detail; how they differ can: how much of the detail that the
fused texture has is found in a frame again, and after which blur it would be as much [1]_. Noise
of the frame does not change the expectation of it, where it would if frames were blurred to match.

References
----------
.. [1] T. Michaeli and M. Irani, Nonparametric blind super-resolution, ICCV 2013: the blur is that
   with which the sharp estimate explains the low-resolution picture best.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np

from recon3d.texturing._threads import over
from recon3d.texturing.superresolution import LEVEL, build_operator, channel_mean

HALF_PX = 1.0
"""Blur at which a view counts half for the texture's detail."""
LEAST_VIEWS = 4
"""Fewer have no sharpest ones."""
_WIDTHS = np.array([0.0, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 1.8, 2.2, 2.7, 3.3, 4.0])
"""Standard deviations that are tried, px."""
_BAND = (0.6, 1.6)
"""Detail is what lies between these blurs, px: finer is noise, broader is light."""
_SHARPEST = 0.2
"""Of the views, so many are taken for as sharp as the camera is."""
_CHANCE_PX = 0.5
"""So much blur is found by chance where there is none, in noise and in what an encoder makes of it:
it is taken off."""
_FEW_PIXELS = 30


def extra_blur(samples, shades, texture, psfs, inside, texel_mm) -> np.ndarray:
    """Blur of every view beyond that of the sharpest ones.

    Parameters
    ----------
    samples : list of N ViewSamples
    shades : list of (Q, 3)
    texture : (P, 3)
        What the views are compared with: the closer to the sharpest, the better is the answer.
    psfs : list of (k, k)
        Blur that is known already.
    inside : (P,) bool
        Texels that are looked at.
    texel_mm : (P,)

    Returns
    -------
    (N,) float32 px of the samples' pictures, standard deviations; zero for fewer than `LEAST_VIEWS`
    """
    if len(samples) < LEAST_VIEWS:
        return np.zeros(len(samples), np.float32)

    def variance(k: int) -> float:
        s = samples[k]
        operator = build_operator(s, shades[k], texel_mm, psfs[k], inside[s.index])
        return _variance(operator, texture)

    found = np.array(over(variance, range(len(samples))))
    known = found[np.isfinite(found)]
    if len(known) < LEAST_VIEWS:
        return np.zeros(len(samples), np.float32)
    beyond = np.where(np.isfinite(found), found, np.median(known)) - np.quantile(known, _SHARPEST)
    return np.sqrt(np.maximum(beyond - _CHANCE_PX**2, 0)).astype(np.float32)


def crispness(blur_px: np.ndarray) -> np.ndarray:
    """(N,) float32, how much views count for the texture's detail, by their blur (N,) px."""
    return (1 / (1 + (np.asarray(blur_px) / HALF_PX) ** 2)).astype(np.float32)


def _variance(operator, texture: np.ndarray) -> float:
    """Of the blur that takes the texture's detail to the frame's, px^2; below zero where the frame
    is the sharper one, NaN where it shows too little."""
    core = operator.belief > 0.1 * operator.belief.max()
    if np.count_nonzero(core) < _FEW_PIXELS:
        return np.nan
    mask = core.astype(np.float32)
    cover = np.divide(
        1, operator.inverse, out=np.zeros_like(operator.inverse), where=operator.inverse > 0
    )
    drawn, image = channel_mean(operator.forward(texture)), channel_mean(operator.image)
    level = 0.5 * (drawn + cv2.GaussianBlur(image, (0, 0), 1.0)) + LEVEL
    fine, broad = ((sigma, _spread(mask, sigma)) for sigma in _BAND)

    def detail(picture: np.ndarray) -> np.ndarray:
        seen = picture * mask
        return ((_blur(seen, *fine) - _blur(seen, *broad)) / level)[core]

    expected, found = detail(drawn), detail(image)
    error = np.abs(found - expected)
    agree = 1 / (1 + (error / (3 * np.median(error) + 1e-9)) ** 2) ** 2
    power = float((agree * expected**2).sum())
    if not power > 0:
        return np.nan

    def share(detail_: np.ndarray) -> float:
        return float((agree * expected * detail_).sum()) / power

    covered = drawn * cover

    @functools.cache
    def left(i: int) -> float:
        """Share of the detail that blur number i leaves; it falls with i."""
        if i == 0:
            return 1.0
        return share(detail(_blur(covered, _WIDTHS[i], _spread(cover, _WIDTHS[i]))))

    shown = share(found)
    if shown > 1:
        # A narrow Gaussian takes away detail in proportion to its variance; sharper is the reverse.
        slope = max(-np.log(max(left(1), 1e-3)) / _WIDTHS[1] ** 2, 0.05)
        return -min(np.log(shown) / slope, 4.0)
    # Between which two of the widths it is: a blur is dear, so as few of them as tell.
    low, high = 0, len(_WIDTHS) - 1
    if shown <= left(high):
        return float(_WIDTHS[high] ** 2)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if left(middle) > shown else (low, middle)
    span = left(low) - left(high)
    part = (left(low) - shown) / span if span > 0 else 0.5
    return float((1 - part) * _WIDTHS[low] ** 2 + part * _WIDTHS[high] ** 2)


def _spread(cover: np.ndarray, sigma: float) -> np.ndarray:
    """What `_blur` divides by: how much of the blur's window the surface covers."""
    return np.maximum(cv2.GaussianBlur(cover, (0, 0), sigma), 0.05)


def _blur(covered: np.ndarray, sigma: float, spread: np.ndarray) -> np.ndarray:
    """Blur of what the surface covers, as if there were nothing else."""
    return cv2.GaussianBlur(covered, (0, 0), sigma) / spread
