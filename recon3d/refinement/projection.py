"""Holding a refined picture to what was observed.

The fused view, reduced to the resolution at which its pixels were observed, is the observation. A
refiner may add what that reduction removes and nothing else: its change, reduced in the same way,
must vanish where the evidence is strong. This is iterative back-projection [1]_ with a reduction
that differs from pixel to pixel.

References
----------
.. [1] M. Irani, S. Peleg, Improving resolution by image registration, CVGIP: Graphical Models and
   Image Processing 53(3), 1991.
"""

from __future__ import annotations

import cv2
import numpy as np

STRONG = 0.8
"""Support from which on a pixel is bound entirely; below 0.6 it is free: there a picture of nobody
in particular would be nearly as near to the truth."""
_FREE = 0.6
_SIGMA = 0.5
"""Standard deviation of an observed pixel's blur, in such pixels."""
_SMALLEST, _LARGEST = 0.8, 8.0
_ROUNDS = 12


class Reduction:
    """Blur of every pixel to the resolution at which it was observed.

    Parameters
    ----------
    evidence : (H, W, 3) uint8
        Support, resolution and generated share.
    """

    def __init__(self, evidence: np.ndarray):
        resolution = evidence[..., 1].astype(np.float32) / 255
        sigma = np.clip(_SIGMA / np.maximum(resolution, 1e-3), _SMALLEST, _LARGEST)
        # Smooth, so that neighbours are compared by nearly the same blur.
        level = cv2.GaussianBlur(2 * np.log2(sigma / _SMALLEST).astype(np.float32), (0, 0), 4.0)
        count = int(np.ceil(level.max() - 1e-6)) + 1
        self.first = int(np.floor(level.min() + 1e-6))
        self.count = count
        self._level = level

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Reduce an (H, W, C) float32 picture."""
        out = np.zeros_like(image)
        for k in range(self.first, self.count + 1):
            share = np.clip(1 - np.abs(self._level - k), 0, 1)
            if not share.any():
                continue
            blurred = cv2.GaussianBlur(image, (0, 0), _SMALLEST * 2 ** (k / 2))
            out += share[..., None] * blurred.reshape(image.shape)
        return out


def binding(evidence: np.ndarray) -> np.ndarray:
    """How firmly each pixel is held, (H, W) float32 in [0, 1]."""
    support = evidence[..., 0].astype(np.float32) / 255
    observed = 1 - evidence[..., 2].astype(np.float32) / 255
    x = np.clip((support - _FREE) / (STRONG - _FREE), 0, 1)
    return x * x * (3 - 2 * x) * observed


def project_on_evidence(
    refined: np.ndarray, raw: np.ndarray, evidence: np.ndarray, residual_255: float = 1.5
) -> np.ndarray:
    """Take out of a refinement what contradicts the observation.

    Parameters
    ----------
    refined : (H, W, 3) float32, 0 to 255
    raw : (H, W, 3) uint8
        The fused view.
    evidence : (H, W, 3) uint8
        As `FrontalView.evidence`.
    residual_255 : float
        RMS of the reduced change, over pixels with support above 0.8, at which to stop.

    Returns
    -------
    (H, W, 3) float32, within 0 to 255
    """
    firm = binding(evidence)
    change = refined.astype(np.float32) - raw
    if firm.max() <= 0:
        return np.clip(refined, 0, 255).astype(np.float32)
    reduce = Reduction(evidence)
    strong = _strong(evidence)
    where = strong if strong.any() else firm > 0.5
    held, seen = change, reduce(change)
    for _ in range(_ROUNDS):
        if not where.any() or _rms(seen[where]) <= 0.9 * residual_255:
            break
        again = reduce(seen)
        # No further than need be: what is within the bound stays.
        share = _share_that_reaches(seen[where], again[where], 0.9 * residual_255)
        held, seen = held - share * seen, seen - share * again
    picture = np.clip(raw + change + firm[..., None] * (held - change), 0, 255)
    # What free pixels add reaches over their border, and clipping cuts: both are made good.
    entirely = (firm**8)[..., None]
    for _ in range(_ROUNDS):
        seen = reduce(picture - raw)
        if not strong.any() or _rms(seen[strong]) <= residual_255:
            break
        picture = np.clip(picture - entirely * seen, 0, 255)
    return picture.astype(np.float32)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt((values**2).mean()))


def _share_that_reaches(a: np.ndarray, b: np.ndarray, bound: float) -> float:
    """The least share s of 1 with an RMS of a - s b within the bound; 1 if there is none."""
    aa, ab, bb = (float((x * y).mean()) for x, y in ((a, a), (a, b), (b, b)))
    under = ab**2 - bb * (aa - bound**2)
    if bb <= 0 or under < 0:
        return 1.0
    return float(np.clip((ab - np.sqrt(under)) / bb, 0.0, 1.0))


def observed_residual(picture: np.ndarray, raw: np.ndarray, evidence: np.ndarray) -> float | None:
    """RMS of the reduced difference of two pictures over pixels with support above 0.8.

    Returns
    -------
    float, of 255; None where no pixel has that support
    """
    strong = _strong(evidence)
    if not strong.any():
        return None
    difference = Reduction(evidence)(picture.astype(np.float32) - raw.astype(np.float32))
    return float(np.sqrt((difference[strong] ** 2).mean()))


def _strong(evidence: np.ndarray) -> np.ndarray:
    return evidence[..., 0] > STRONG * 255


def added_share(picture: np.ndarray, raw: np.ndarray) -> np.ndarray:
    """How much of each pixel's local contrast a refinement added, (H, W) float32 in [0, 1].

    The amplitude of the change, over its sum with the contrast that was there.
    """
    change = picture.astype(np.float32).mean(-1) - raw.astype(np.float32).mean(-1)
    grey = raw.astype(np.float32).mean(-1)
    amplitude = np.sqrt(cv2.GaussianBlur(change**2, (0, 0), 3.0))
    mean = cv2.GaussianBlur(grey, (0, 0), 6.0)
    contrast = np.sqrt(np.maximum(cv2.GaussianBlur(grey**2, (0, 0), 6.0) - mean**2, 0))
    # A change by less than two levels of 255 is not seen.
    amplitude = np.maximum(amplitude - 2.0, 0)
    return (amplitude / (amplitude + contrast + 2.0)).astype(np.float32)
