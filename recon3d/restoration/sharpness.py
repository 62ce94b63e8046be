"""Blur and halos: how wide, and undone as far as the noise allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from recon3d.colour import linear_to_srgb, srgb_to_linear
from recon3d.restoration.common import StepReport, enter, leave, luma, luminance
from recon3d.restoration.kernels import disc_kernel, gaussian_kernel, motion_kernel
from recon3d.restoration.noise import NoiseModel, estimate_noise

NATURAL_BLUR = 0.5
"""Width in px of the edges of a picture that nobody would call blurred."""

_DERIVATIVE = 1.0  # width of the Gaussian derivative that measures gradients, px
_REBLUR = 1.6


@dataclass(frozen=True)
class BlurEstimate:
    """What kind of blur a picture seems to have.

    Attributes
    ----------
    kind : {"none", "gaussian", "defocus", "motion"}
    sigma : float, px
        Width of the sharpest edges.
    length, angle : float, px and degrees
        Of the smear, where the kind is "motion".
    confidence : float
        Depth of the cepstral dip over its surroundings, in standard deviations.
    radius : float, px
        Of the disc of confusion, where the kind is "defocus".
    """

    kind: Literal["none", "gaussian", "defocus", "motion"]
    sigma: float
    length: float
    angle: float
    confidence: float
    radius: float = 0.0


def estimate_blur(image: np.ndarray, noise: NoiseModel | None = None) -> BlurEstimate:
    """Find a Gaussian width from edges and a linear smear from the cepstrum.

    Parameters
    ----------
    image : (H, W, 3) uint8, or float in [0, 1], sRGB
    noise : NoiseModel, optional

    Returns
    -------
    BlurEstimate

    References
    ----------
    Zhuo and Sim, Defocus map estimation from a single image, Pattern Recognition 44(9), 2011.
    Rom, On the cepstrum of two-dimensional functions, IEEE Trans. Inf. Theory 21(2), 1975.
    """
    u = enter(image)
    noise = noise or estimate_noise(u)
    sigma = _edge_width(u, noise)
    cepstrum = _cepstrum(u)
    length, angle, confidence = _cepstral_motion(cepstrum)
    # Repeated structures (railings, towers) reach about 10.
    if confidence > 12.0 and length >= 4.0:
        return BlurEstimate("motion", sigma, length, angle, confidence)
    radius = _cepstral_disc(cepstrum)
    if radius > 0:
        return BlurEstimate("defocus", sigma, 0.0, 0.0, confidence, radius)
    kind = "gaussian" if sigma > NATURAL_BLUR + 0.4 else "none"
    return BlurEstimate(kind, sigma, 0.0, 0.0, confidence)


def deblur(
    image: np.ndarray,
    blur: BlurEstimate | None = None,
    *,
    method: Literal["tv", "richardson_lucy"] = "tv",
    noise: NoiseModel | None = None,
) -> tuple[np.ndarray, StepReport]:
    """Undo an estimated blur in linear light.

    Parameters
    ----------
    image : (H, W, 3) uint8, or float in [0, 1], sRGB
    blur : BlurEstimate, optional
        Measured where it is not given.
    method : {"tv", "richardson_lucy"}
        `deconvolve`, or scikit-image's Richardson-Lucy iteration.
    noise : NoiseModel, optional

    Returns
    -------
    image, StepReport

    References
    ----------
    Richardson, Bayesian-based iterative method of image restoration, JOSA 62(1), 1972.
    """
    u = enter(image)
    noise = noise or estimate_noise(u)
    blur = blur or estimate_blur(u, noise)
    measured = {
        "edge_sigma_px": blur.sigma,
        "motion_px": blur.length,
        "motion_deg": blur.angle,
        "motion_confidence": blur.confidence,
        "defocus_px": blur.radius,
    }
    if blur.kind == "none":
        belief = f"edges {blur.sigma:.1f} px wide: sharp"
        return image, StepReport(step="deblur", belief=belief, acted=False, measured=measured)
    if blur.kind == "motion":
        kernel = motion_kernel(blur.length, blur.angle)
        belief = f"smeared over {blur.length:.0f} px at {blur.angle:.0f} degrees"
    elif blur.kind == "defocus":
        kernel = disc_kernel(blur.radius)
        belief = f"out of focus by a disc of {blur.radius:.1f} px radius"
    else:
        # Only what exceeds a natural edge is undone.
        width = float(np.sqrt(max(blur.sigma**2 - NATURAL_BLUR**2, 0.04)))
        kernel = gaussian_kernel(width)
        belief = f"edges {blur.sigma:.1f} px wide"
    linear = srgb_to_linear(u)
    if method == "richardson_lucy":
        from skimage.restoration import richardson_lucy

        pad = len(kernel)
        wide = np.pad(linear, ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
        steps = 15
        planes = [richardson_lucy(wide[..., c] + 1e-4, kernel, steps) for c in range(3)]
        sharp = np.stack(planes, -1)[pad:-pad, pad:-pad]
    else:
        variance = noise.photon * float(linear.mean()) + noise.floor
        sharp = deconvolve(linear, kernel, variance)
    return leave(linear_to_srgb(sharp), image), StepReport(
        step="deblur",
        belief=belief,
        acted=True,
        measured=measured,
        applied={"method": method, "kernel_px": float(len(kernel))},
    )


def deconvolve(
    linear: np.ndarray,
    kernel: np.ndarray,
    variance: float,
    *,
    iterations: int = 60,
    corner: float = 0.01,
) -> np.ndarray:
    """The picture that, blurred, explains what was seen, with as few edges as that takes.

    Minimises half the squared misfit plus a Huber-smoothed total variation by accelerated
    gradient descent. Beyond the border the picture is unknown rather than mirrored, and clipped
    pixels say nothing: both would otherwise ring through the whole picture.

    Parameters
    ----------
    linear : (H, W, C) float32
    kernel : (k, k), normalised
    variance : float
        Of the white noise in `linear`.
    iterations : int
    corner : float
        Gradient at which the penalty turns from quadratic to linear.

    Returns
    -------
    (H, W, C) float32

    References
    ----------
    Rudin, Osher, Fatemi, Nonlinear total variation based noise removal algorithms, Physica D 60,
    1992. Nesterov, A method for solving the convex programming problem with convergence rate
    O(1/k^2), 1983. Almeida and Figueiredo, Deconvolving images with unknown boundaries using the
    alternating direction method of multipliers, IEEE TIP 22(8), 2013.
    """
    from scipy.fft import irfft2, next_fast_len, rfft2

    # Maximum a posteriori for gradients of mean length about 0.02, and a floor for the error of
    # the kernel itself.
    penalty = 1e-4 + 60 * variance
    pad = len(kernel) // 2 + 2
    h, w = linear.shape[:2]
    size = (next_fast_len(h + 2 * pad, True), next_fast_len(w + 2 * pad, True))
    transfer = _transfer(kernel, size)[..., None]
    inside = slice(pad, pad + h), slice(pad, pad + w)
    seen = np.pad(
        linear,
        ((pad, size[0] - h - pad), (pad, size[1] - w - pad), (0, 0)),
        mode="symmetric",
    ).astype(np.float32)
    known = np.zeros((*size, 1), np.float32)
    known[inside] = (linear.max(-1) < 0.97)[..., None]

    def blurred(a, response):
        return irfft2(response * rfft2(a, axes=(0, 1)), s=size, axes=(0, 1))

    x, ahead, momentum = seen, seen, 1.0
    step = 1 / (1 + 8 * penalty / corner)
    for _ in range(iterations):
        gradient = blurred(known * (blurred(ahead, transfer) - seen), np.conj(transfer))
        dx, dy = np.roll(ahead, -1, 1) - ahead, np.roll(ahead, -1, 0) - ahead
        norm = np.maximum(np.sqrt((dx**2 + dy**2).sum(-1, keepdims=True)), corner)
        dx, dy = dx / norm, dy / norm
        gradient -= penalty * (dx - np.roll(dx, 1, 1) + dy - np.roll(dy, 1, 0))
        following = np.clip(ahead - step * gradient, 0, 1.5).astype(np.float32)
        faster = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = following + np.float32((momentum - 1) / faster) * (following - x)
        x, momentum = following, faster
    return x[inside]


HALO_LIMIT = 1.65
"""Overshoot of strong edges from which a picture counts as sharpened."""


def remove_halos(image: np.ndarray) -> tuple[np.ndarray, StepReport]:
    """Undo unsharp masking, measured by how far edges overshoot.

    Rather too little than too much: detail that stands alone looks like a halo too.

    Parameters
    ----------
    image : (H, W, 3) uint8, or float in [0, 1], sRGB

    Returns
    -------
    image, StepReport
    """
    u = enter(image)
    overshoot, edges = halo_statistics(u)
    measured = {"overshoot": overshoot, "edges": float(edges)}
    belief = f"brightness beside edges is {overshoot:.2f} times that farther off"
    if edges < 20 or overshoot < HALO_LIMIT:
        return image, StepReport(step="remove_halos", belief=belief, acted=False, measured=measured)
    amount, sigma = float(np.clip(overshoot - 1.3, 0, 1)), 1.5
    result = undo_sharpening(u, amount, sigma)
    return leave(result, image), StepReport(
        step="remove_halos",
        belief=belief,
        acted=True,
        measured=measured,
        applied={"amount": amount, "sigma_px": sigma},
    )


def undo_sharpening(image: np.ndarray, amount: float, sigma: float) -> np.ndarray:
    """Solve ``y = x + amount (x - G x)`` for x by fixed-point iteration, (H, W, 3) float32."""
    x = image.copy()
    for _ in range(12):
        smooth = cv2.GaussianBlur(x, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
        x = (image + amount * smooth) / (1 + amount)
    return np.clip(x, 0, 1)


def halo_statistics(image: np.ndarray) -> tuple[float, int]:
    """How much farther strong edges swing next to their crest than 4 px away, and their count.

    About 1.0 to 1.6 in ordinary pictures.

    Parameters
    ----------
    image : (H, W, 3) float32 sRGB
    """
    y = luma(image)
    smooth = cv2.GaussianBlur(y, (0, 0), 1.0)
    gx, gy = cv2.Sobel(smooth, -1, 1, 0, scale=1 / 8), cv2.Sobel(smooth, -1, 0, 1, scale=1 / 8)
    magnitude = np.hypot(gx, gy)
    reach = 5
    crest = (magnitude >= cv2.dilate(magnitude, np.ones((3, 3)))) & (
        magnitude > max(0.01, float(np.quantile(magnitude, 0.97)))
    )
    crest[: reach + 1], crest[-reach - 1 :] = False, False
    crest[:, : reach + 1], crest[:, -reach - 1 :] = False, False
    rows, columns = (a[:30_000] for a in np.nonzero(crest))
    if len(rows) < 20:
        return 1.0, len(rows)
    height = magnitude[rows, columns]
    nx, ny = gx[rows, columns] / height, gy[rows, columns] / height
    s = np.arange(-reach, reach + 1, dtype=np.float32)
    profile = cv2.remap(
        y,
        (columns[:, None] + nx[:, None] * s).astype(np.float32),
        (rows[:, None] + ny[:, None] * s).astype(np.float32),
        cv2.INTER_LINEAR,
    )
    # What is clipped has lost its overshoot.
    profile = profile[(profile.max(1) < 0.97) & (profile.min(1) > 0.03)]
    if len(profile) < 20:
        return 1.0, len(profile)
    odd = np.median(0.5 * (profile[:, reach:] - profile[:, reach::-1]), 0)
    return float(0.5 * (odd[1] + odd[2]) / max(float(odd[4]), 0.05 * float(odd.max()))), len(
        profile
    )


def _edge_width(u: np.ndarray, noise: NoiseModel) -> float:
    """Width in px of the sharpest well-defined edges."""
    y = luminance(u)

    def gradient(a):
        smooth = cv2.GaussianBlur(a, (0, 0), _DERIVATIVE, borderType=cv2.BORDER_REFLECT)
        gx, gy = cv2.Sobel(smooth, -1, 1, 0, scale=1 / 8), cv2.Sobel(smooth, -1, 0, 1, scale=1 / 8)
        return np.hypot(gx, gy)

    first = gradient(y)
    again = gradient(cv2.GaussianBlur(y, (0, 0), _REBLUR, borderType=cv2.BORDER_REFLECT))
    crest = first >= cv2.dilate(first, np.ones((3, 3)))
    crest[:3], crest[-3:], crest[:, :3], crest[:, -3:] = False, False, False, False
    # Of a smoothed derivative, white noise of deviation s leaves about 0.2 s.
    level = 4 * 0.2 * np.sqrt(noise.photon * float(y.mean()) + noise.floor)
    crest &= first > max(level, float(np.quantile(first, 0.9)), 1e-4)
    if crest.sum() < 20:
        return NATURAL_BLUR
    ratio = first[crest] / np.maximum(again[crest], 1e-9)
    ratio = ratio[ratio > 1.02]
    if len(ratio) < 20:
        return 6.0
    # An edge of width s, seen through a derivative of width d (Sobel itself adds half a pixel).
    total = _REBLUR / np.sqrt(ratio**2 - 1)
    width = np.sqrt(np.maximum(total**2 - _DERIVATIVE**2 - 0.5, 0.05))
    return float(np.quantile(width, 0.5))


def _cepstrum(u: np.ndarray) -> np.ndarray:
    """Power cepstrum of the luminance, origin in the middle; empty for pictures too small."""
    y = luminance(u)
    side = min(512, *(n // 2 * 2 for n in y.shape))
    if side < 48:
        return np.zeros((0, 0))
    window = np.outer(np.hanning(side), np.hanning(side))
    tiles = []
    for top in np.unique(np.linspace(0, y.shape[0] - side, 2).astype(int)):
        for left in np.unique(np.linspace(0, y.shape[1] - side, 2).astype(int)):
            tile = y[top : top + side, left : left + side]
            spectrum = np.abs(np.fft.fft2((tile - tile.mean()) * window)) ** 2
            tiles.append(np.log(spectrum + 1e-3 * np.median(spectrum) + 1e-12))
    return np.fft.fftshift(np.fft.ifft2(np.mean(tiles, 0)).real)


def _cepstral_disc(cepstrum: np.ndarray) -> float:
    """Radius of a disc of confusion in px, 0 where its ring is not found."""
    if not len(cepstrum):
        return 0.0
    half = len(cepstrum) // 2
    axis = np.arange(len(cepstrum)) - half
    ring = np.round(np.hypot(axis[:, None], axis[None])).astype(int)
    reach = min(24, half - 1)
    inside = ring <= reach
    count = np.bincount(ring[inside])
    # Times the radius: the sum along a ring, as the disc's own zeros make it.
    sums = np.bincount(ring[inside], cepstrum[inside]) / count * np.arange(len(count))
    pairs = 0.5 * (sums[4:-1] + sums[5:])
    lowest = int(np.argmin(pairs))
    # Sharp and Gaussian pictures stay above -0.08, discs of 3 px and more fall to -0.17 and below.
    if pairs[lowest] > -0.13:
        return 0.0
    # The zeros of the disc's transfer function lie 1 / (2 r) apart.
    weights = np.maximum(-sums[3 + lowest : 7 + lowest], 0)
    lag = float((weights * np.arange(3 + lowest, 3 + lowest + len(weights))).sum() / weights.sum())
    return 0.5 * (lag + 0.5)


def _cepstral_motion(cepstrum: np.ndarray) -> tuple[float, float, float]:
    """Length, angle and significance of the deepest dip of the cepstrum."""
    if not len(cepstrum):
        return 0.0, 0.0, 0.0
    half = len(cepstrum) // 2
    reach = min(40, len(cepstrum) // 4)
    part = cepstrum[half - reach : half + reach + 1, half - reach : half + reach + 1]
    part = cv2.GaussianBlur(part, (0, 0), 0.7)
    axis = np.arange(-reach, reach + 1)
    x, yy = np.meshgrid(axis, -axis)
    distance = np.hypot(x, yy)
    # What depends on the distance alone is no smear: compare within rings.
    ring = np.round(distance).astype(int)
    z = np.zeros_like(part)
    for r in range(4, reach + 1):
        near = np.abs(ring - r) <= 1
        middle = np.median(part[near])
        spread = 1.4826 * np.median(np.abs(part[near] - middle)) + 1e-12
        z[ring == r] = (part[ring == r] - middle) / spread
    z[distance < 4] = 0
    z[distance > reach] = 0
    lowest = np.unravel_index(np.argmin(z), z.shape)
    dx, dy = float(x[lowest]), float(yy[lowest])
    angle = float(np.degrees(np.arctan2(dy, dx)))
    angle = (angle + 90) % 180 - 90
    return float(np.hypot(dx, dy)), angle, float(-z[lowest])


def _transfer(kernel: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    from scipy.fft import rfft2

    wide = np.zeros(size)
    k = len(kernel)
    wide[:k, :k] = kernel
    return rfft2(np.roll(wide, (-(k // 2), -(k // 2)), (0, 1))).astype(np.complex64)
