"""How long the shutter was open, from how blurred the face is where it moves fast.

The fit tells how far the face moves from one frame to the next; while the shutter is open, it draws
a part of that path in the picture. Heads turn to and fro: in some frames the face stands, and what
these show says how sharp it is. Which part of the path has to be drawn with it until it looks like
the frames in which it moves, is the share of the time that the shutter is open [1]_.

References
----------
.. [1] H. Park and K. M. Lee, Joint estimation of camera pose, depth, deblurring, and
   super-resolution from a blurred image sequence, ICCV 2017: blur from the path of the camera, as
   here from that of the face.
"""

from __future__ import annotations

import cv2
import numpy as np

from recon3d.texturing._threads import over
from recon3d.texturing.superresolution import LEVEL, build_operator, channel_mean, gaussian_psf

LONGEST = 16.0
"""Paths are cut at so many px of the frame; what moves farther in one frame shows nothing."""
STEADY = 2.0
"""Path from frame to frame, px, at which a view counts half for how sharp the face is."""
_MOVING = 1.0
"""Path, px, from which on a view tells anything of the shutter,"""
_LEAST = 4
"""and how many of them have to."""
_STEPS = np.linspace(0, 1, 8)
_WORTH = 0.02
"""Blur is believed in where it explains so much of the residual, as a share. Pictures that have
none are explained by it a little better, too, as the fused texture is never as sharp as they are;
of the clips looked at by 0.007 at most, and by 0.06 or more where there was blur."""


def path_psf(path: np.ndarray, share: float, blur_px: float) -> np.ndarray:
    """Blur of a view along the part of its path that is drawn while the shutter is open.

    Parameters
    ----------
    path : (2,) px, from one frame to the next
    share : float
        Of the time between frames that the shutter is open.
    blur_px : float
        Standard deviation of the camera's own blur, px.

    Returns
    -------
    (k, k) float32
    """
    drawn = share * np.asarray(path, np.float64)
    drawn = drawn * min(1.0, LONGEST / max(float(np.hypot(*drawn)), 1e-9))
    return gaussian_psf(blur_px, (float(drawn[0]), float(drawn[1])))


def steadiness(paths: np.ndarray) -> np.ndarray:
    """(N,) float32, how much views count for how sharp the face is, by their paths (N, 2) px."""
    return (1 / (1 + (np.hypot(*np.asarray(paths).T) / STEADY) ** 2)).astype(np.float32)


def open_share(samples, shades, paths, sharp, inside, texel_mm, blur_px: float) -> float:
    """Share of the time between frames that the shutter was open.

    Parameters
    ----------
    samples : list of ViewSamples
    shades : list of (Q, 3)
    paths : (N, 2) px
        Of every view, from frame to frame (`recon3d.texturing.fusion.motion_px`).
    sharp : (P, 3)
        The texture, from views in which the face stands (`steadiness`).
    inside : (P,) bool
        Texels that are looked at.
    texel_mm : (P,)
    blur_px : float
        Standard deviation of the camera's own blur, px.

    Returns
    -------
    float in [0, 1]; 0 where too few views move, or blur explains nothing
    """
    moving = np.flatnonzero(np.hypot(*np.asarray(paths).T) > _MOVING)
    if len(moving) < _LEAST:
        return 0.0

    def unexplained(k: int, path: np.ndarray, shares: np.ndarray) -> np.ndarray:
        s, found = samples[k], []
        for share in shares:
            psf = path_psf(path, share, blur_px)
            operator = build_operator(s, shades[k], texel_mm, psf, inside[s.index])
            drawn, image = operator.forward(sharp), operator.image
            level = 0.5 * channel_mean(drawn + cv2.GaussianBlur(image, (0, 0), 1.0)) + LEVEL
            error = channel_mean(np.abs(drawn - image)) / level
            core = operator.belief > 0.1 * operator.belief.max()
            found.append(float(np.sqrt((error[core] ** 2).mean())) if core.any() else np.nan)
        return np.array(found)

    residual = np.nanmean(over(lambda k: unexplained(k, paths[k], _STEPS), moving), axis=0)
    best = int(np.argmin(residual))
    if not residual[best] < (1 - _WORTH) * residual[0]:
        return 0.0
    # Noise is less beside anything that is smoother: that the same smear across the path does as
    # well, and no more than that along it may.
    across = [paths[k][::-1] * [1, -1] for k in moving]
    control = over(
        lambda n: unexplained(moving[n], across[n], _STEPS[best : best + 1]), range(len(moving))
    )
    if not residual[best] < (1 - _WORTH) * float(np.nanmean(control)):
        return 0.0
    if best == len(_STEPS) - 1:
        return 1.0
    # The vertex of the parabola through the best and its neighbours.
    before, at, after = residual[best - 1 : best + 2]
    offset = 0.5 * (before - after) / max(before - 2 * at + after, 1e-12)
    return float(np.clip(_STEPS[best] + offset * _STEPS[1], 0, 1))
