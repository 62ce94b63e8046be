"""Noise: measured as Poisson-Gaussian in linear light, removed where it is stable."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from recon3d.colour import srgb_to_linear
from recon3d.restoration.common import StepReport, enter, leave, luma

_LAPLACE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6
"""Immerkaer's mask: blind to planes, unit variance for white noise."""

NOISE_FLOOR = 1.5 / 255
"""Noise below this (sRGB, standard deviation) is left alone: it is hardly above rounding."""

_DCT3 = np.array(
    [[3**-0.5] * 3, [2**-0.5, 0, -(2**-0.5)], [6**-0.5, -2 * 6**-0.5, 6**-0.5]], np.float32
)
"""Orthonormal colour transform: brightness and two opponents."""


@dataclass(frozen=True)
class NoiseModel:
    """Variance ``photon * x + floor`` at linear light x in [0, 1].

    Attributes
    ----------
    photon : float
        Slope of the variance (Poisson part).
    floor : float
        Variance in the dark (Gaussian part).
    """

    photon: float
    floor: float

    def sigma(self, srgb: np.ndarray) -> np.ndarray:
        """Standard deviation on the sRGB scale at sRGB levels in [0, 1]."""
        u = np.clip(np.asarray(srgb, np.float64), 0, 1)
        x = srgb_to_linear(u.astype(np.float32)).astype(np.float64)
        slope = np.where(u <= 0.04045, 1 / 12.92, 2.4 / 1.055 * ((u + 0.055) / 1.055) ** 1.4)
        return np.sqrt(np.maximum(self.photon * x + self.floor, 1e-12)) / slope


def estimate_noise(image: np.ndarray) -> NoiseModel:
    """Fit a Poisson-Gaussian model to the flat parts of one picture.

    Parameters
    ----------
    image : (H, W, 3) uint8, or float in [0, 1], sRGB

    Returns
    -------
    NoiseModel

    Notes
    -----
    Noise that was correlated by demosaicing, scaling or compression reads as less than it is.

    References
    ----------
    Immerkaer, Fast noise variance estimation, CVIU 64(2), 1996. Foi et al., Practical
    Poissonian-Gaussian noise modeling and fitting for single-image raw-data, IEEE TIP 17(10), 2008.
    """
    from scipy.optimize import nnls

    u = enter(image)
    side = 8
    h, w = (n // side * side for n in u.shape[:2])
    if h < 2 * side or w < 2 * side:
        return NoiseModel(0.0, 0.0)

    def blocks(a):
        a = a[:h, :w].reshape(h // side, side, w // side, side, -1)
        return a.transpose(0, 2, 4, 1, 3).reshape(-1, side * side)

    residual = blocks(cv2.filter2D(u, -1, _LAPLACE, borderType=cv2.BORDER_REFLECT))
    smooth = cv2.GaussianBlur(u, (0, 0), 1.5)
    texture = blocks(smooth).std(1)
    level = blocks(u).mean(1)
    # Median of |n| is 0.6745 sigma.
    sigma = np.median(np.abs(residual), 1) / 0.6745
    keep = (level > 0.02) & (level < 0.97)
    if keep.sum() < 20:
        keep = np.ones(len(level), bool)
    level, sigma, texture = level[keep], sigma[keep], texture[keep]
    rows, values, weights = [], [], []
    edges = np.quantile(level, np.linspace(0, 1, 13))
    for low, high in itertools.pairwise(edges):
        inside = (level >= low) & (level <= high)
        if inside.sum() < 8:
            continue
        # Smooth blocks tell of the noise; the rest of texture.
        flat = inside & (texture <= np.quantile(texture[inside], 0.2))
        u0, s = float(np.median(level[flat])), float(np.median(sigma[flat]))
        x0 = float(srgb_to_linear(np.float32(u0)))
        slope = 1 / 12.92 if u0 <= 0.04045 else 2.4 / 1.055 * ((u0 + 0.055) / 1.055) ** 1.4
        variance = (s * slope) ** 2
        rows.append((x0, 1.0))
        values.append(variance)
        # A variance is known to within a share of itself.
        weights.append(1 / (variance + 1e-8))
    if not rows:
        return NoiseModel(0.0, 0.0)
    rows, values, weights = np.array(rows), np.array(values), np.array(weights)
    (photon, floor), _ = nnls(rows * weights[:, None], values * weights)
    return NoiseModel(float(photon), float(floor))


def mean_sigma(image: np.ndarray, noise: NoiseModel) -> float:
    """Root mean square standard deviation of the noise over a picture, sRGB scale."""
    u = enter(image)[::4, ::4]
    # Pixels clipped at black do not swing.
    return float(np.sqrt((noise.sigma(np.clip(u, 0.03, 1)) ** 2).mean()))


def denoise(
    image: np.ndarray,
    noise: NoiseModel | None = None,
    *,
    method: Literal["dct", "nlm"] = "dct",
    strength: float = 1.0,
    stride: int = 2,
) -> tuple[np.ndarray, StepReport]:
    """Remove Poisson-Gaussian noise after stabilising its variance.

    Parameters
    ----------
    image : (H, W, 3) uint8, or float in [0, 1], sRGB
    noise : NoiseModel, optional
        Measured in the picture where it is not given.
    method : {"dct", "nlm"}
        Two-step shrinkage of overlapping DCT blocks, or non-local means (scikit-image).
    strength : float
        Factor on the noise believed in.
    stride : int
        Distance between DCT blocks in px; 4 is four times faster than 2.

    Returns
    -------
    image, StepReport

    References
    ----------
    Yu and Sapiro, DCT image denoising: a simple and effective image denoising algorithm, IPOL,
    2011. Buades, Coll, Morel, A non-local algorithm for image denoising, CVPR 2005.
    """
    u = enter(image)
    noise = noise or estimate_noise(u)
    sigma = mean_sigma(u, noise)
    measured = {"sigma_255": 255 * sigma, "photon": noise.photon, "floor": noise.floor}
    if sigma < NOISE_FLOOR:
        belief = f"noise of {255 * sigma:.1f} grey levels: nothing to remove"
        return image, StepReport(step="denoise", belief=belief, acted=False, measured=measured)
    grid, curve = _stabiliser(noise)
    stable = np.interp(u, grid, curve).astype(np.float32)
    if method == "nlm":
        from skimage.restoration import denoise_nl_means

        clean = denoise_nl_means(
            stable, h=0.7 * strength, sigma=strength, patch_size=5, patch_distance=6,
            fast_mode=True, channel_axis=-1,
        )  # fmt: skip
    else:
        clean = dct_shrink(stable, strength, stride)
    result = np.interp(clean, curve, grid)
    return leave(result, image), StepReport(
        step="denoise",
        belief=f"noise of {255 * sigma:.1f} grey levels",
        acted=True,
        measured=measured,
        applied={"method": method, "strength": strength},
    )


def denoise_frames(
    frames: Iterable[np.ndarray], noise: NoiseModel | None = None, *, radius: int = 2
) -> Iterator[tuple[np.ndarray, StepReport]]:
    """Average along motion over neighbouring frames, then remove what noise is left.

    Neighbours are brought into place by dense inverse search optical flow, and count where they
    agree with the frame to within the noise; so a wrong flow costs noise and not detail.

    Parameters
    ----------
    frames : iterable of (H, W, 3) uint8 sRGB, one size
    noise : NoiseModel, optional
        Measured and smoothed over time where it is not given.
    radius : int
        Frames to either side; they are all the memory that is held.

    Yields
    ------
    image, StepReport

    References
    ----------
    Kroeger et al., Fast optical flow using dense inverse search, ECCV 2016.
    """
    window: deque = deque(maxlen=2 * radius + 1)
    models: list[NoiseModel] = []
    ready = 0  # position in the window of the next frame to give out

    def give(position):
        nonlocal models
        centre = window[position]
        model = noise
        if model is None:
            models = (models + [estimate_noise(centre)])[-9:]
            model = NoiseModel(
                float(np.median([m.photon for m in models])),
                float(np.median([m.floor for m in models])),
            )
        others = [f for i, f in enumerate(window) if i != position]
        return _temporal(centre, others, model)

    for frame in frames:
        if len(window) == window.maxlen:
            ready -= 1
        window.append(frame)
        if len(window) - 1 - ready >= radius:
            yield give(ready)
            ready += 1
    while ready < len(window):
        yield give(ready)
        ready += 1


def warp_to(frame: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Sample (H, W, C) where a flow field (H, W, 2) px points."""
    h, w = flow.shape[:2]
    x, y = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
    return cv2.remap(
        frame, x + flow[..., 0], y + flow[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )


def optical_flow(here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Where each pixel of `here` lies in `there`: (H, W, 2) float32 px; inputs (H, W) uint8."""
    finder = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    if min(here.shape) < 32:  # too small for its pyramid
        return np.zeros((*here.shape, 2), np.float32)
    return finder.calc(here, there, None)


def _temporal(
    centre: np.ndarray, others: list[np.ndarray], noise: NoiseModel
) -> tuple[np.ndarray, StepReport]:
    u = enter(centre)
    sigma = mean_sigma(u, noise)
    measured = {"sigma_255": 255 * sigma, "frames": float(1 + len(others))}
    if sigma < NOISE_FLOOR:
        belief = f"noise of {255 * sigma:.1f} grey levels: nothing to remove"
        return centre, StepReport(
            step="denoise_frames", belief=belief, acted=False, measured=measured
        )
    grid, curve = _stabiliser(noise)
    stable = np.interp(u, grid, curve).astype(np.float32)
    # Flow sees a smoothed picture: noise has no motion.
    blur = 1.5
    see = (np.clip(cv2.GaussianBlur(luma(u), (0, 0), blur), 0, 1) * 255).astype(np.uint8)
    total, weight = stable.copy(), np.ones(stable.shape[:2], np.float32)
    for other in others:
        v = enter(other)
        target = (np.clip(cv2.GaussianBlur(luma(v), (0, 0), blur), 0, 1) * 255).astype(np.uint8)
        warped = warp_to(np.interp(v, grid, curve).astype(np.float32), optical_flow(see, target))
        # Mean square difference over a patch; 2 is what two noisy copies of one thing show.
        apart = cv2.blur(((warped - stable) ** 2).mean(-1), (7, 7))
        agree = np.exp(-np.maximum(apart - 2.0, 0) / 0.7).astype(np.float32)
        total += agree[..., None] * warped
        weight += agree
    averaged = total / weight[..., None]
    left = float(np.sqrt(np.mean(1 / weight)))
    clean = dct_shrink(averaged, left, 4)
    return leave(np.interp(clean, curve, grid), centre), StepReport(
        step="denoise_frames",
        belief=f"noise of {255 * sigma:.1f} grey levels",
        acted=True,
        measured=measured,
        applied={"method": "flow+dct", "frames_in_agreement": float(weight.mean())},
    )


def _stabiliser(noise: NoiseModel) -> tuple[np.ndarray, np.ndarray]:
    """sRGB grid and its image under the map that gives the noise unit variance."""
    grid = np.linspace(0, 1, 2049)
    sigma = np.maximum(noise.sigma(grid), 0.2 / 255)
    curve = np.concatenate([[0], np.cumsum(2 / (sigma[1:] + sigma[:-1]) * np.diff(grid))])
    return grid, curve


def dct_shrink(y: np.ndarray, sigma: float, stride: int, block: int = 8) -> np.ndarray:
    """Two steps over overlapping blocks: hard threshold, then an empirical Wiener filter."""
    from scipy.fft import dctn, idctn

    height, width = y.shape[:2]
    right, bottom = (-(width + block) % stride, -(height + block) % stride)
    # Sizes for which the last block ends at the border.
    padding = ((block, block + bottom), (block, block + right), (0, 0))
    coloured = np.pad(
        (y @ _DCT3.T).astype(np.float32), padding, mode="reflect" if min(height, width) > block
        else "edge",
    )  # fmt: skip
    views = np.lib.stride_tricks.sliding_window_view

    def sweep(reference: np.ndarray | None) -> np.ndarray:
        total, weights = np.zeros_like(coloured), np.zeros_like(coloured)
        rows = (coloured.shape[0] - block) // stride + 1
        for first in range(0, rows, 32):
            last = min(rows, first + 32)
            part = slice(first * stride, (last - 1) * stride + block)

            def blocks(a, part=part):
                return views(a[part], (block, block), (0, 1))[::stride, ::stride]

            spectrum = dctn(blocks(coloured), axes=(-2, -1), norm="ortho")
            if reference is None:
                gain = (np.abs(spectrum) > 2.7 * sigma).astype(np.float32)
            else:
                power = dctn(blocks(reference), axes=(-2, -1), norm="ortho") ** 2
                gain = power / (power + sigma**2)
            gain[..., 0, 0] = 1
            # Blocks that needed few coefficients are the cleaner ones.
            weight = 1 / np.maximum((gain**2).sum((-2, -1)), 1)
            out = idctn(gain * spectrum, axes=(-2, -1), norm="ortho") * weight[..., None, None]
            n, m = out.shape[:2]
            into, count = total[part], weights[part]
            for i in range(block):
                for j in range(block):
                    at = (
                        slice(i, i + stride * (n - 1) + 1, stride),
                        slice(j, j + stride * (m - 1) + 1, stride),
                    )
                    into[at] += out[..., i, j]
                    count[at] += weight
        return total / np.maximum(weights, 1e-12)

    clean = sweep(sweep(None))[block : block + height, block : block + width]
    return clean @ _DCT3


__all__ = [
    "NoiseModel",
    "dct_shrink",
    "denoise",
    "denoise_frames",
    "estimate_noise",
    "mean_sigma",
    "optical_flow",
    "warp_to",
]
