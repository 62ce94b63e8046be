"""How far the frontal picture is from the truth, pixel by pixel, predicted.

Errors multiply rather than add: the same displacement costs more where there is more detail, and
more again where the frames disagree. The deviation is a product of powers,

    log sigma(p) = c_0 + sum_k c_k f_k(p),    c_k >= 0,

in units of the picture's 0 to 255 range. No coefficient is negative: nothing that makes a pixel
doubtful can make it look sure. They are learned on rendered people with known truth, whose skin is
photographs (``benchmarks/deviation.py``), and kept in `FrontalSettings`; no clip of the benchmark
had a part in them. From the same people comes the prior of place, ``assets/deviation/place.png``:
where in the layout the others leave errors unexplained, whoever it is (`place_prior`).

The deviation also says how much of a pixel observation determines: beside a picture of which
nothing is known but that it is a face, the share of variance that is gone (`determined_share`).
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from recon3d.assets import asset_path
from recon3d.errors import InputError
from recon3d.morphable.topology import BROWS, LIDS, LIPS, NOSE_BASE, NOSE_WINGS

SOURCES = (
    "floor",
    "detail",
    "coarse",
    "noise",
    "bright",
    "place",
    "brows",
    "nose",
    "lids",
    "lips",
)
"""What the coefficients belong to, in order; `error_sources` says what each is."""

UNSEEN_DEVIATION = 22.0
"""Standard deviation of a pixel's luma over people relative to what lies around it (a 32nd of the
picture's width), faces aligned by their eyes: what skin tone and light do not tell, and so what is
not known where nothing is observed (``benchmarks/deviation.py`` measures it)."""

FEW_PIXELS = 0.002
"""Observed pixels to one of the picture at which half of a pixel counts as observed at all: a tenth
of one frame of a face of 28 px. What is seen but badly is told by the deviation, which knows better
than the number of pixels does: ten times as high, red picks out the worst pixels of the people of
``benchmarks/doubt.py`` less well than the deviation alone."""

CONFIRMED_PIXELS = 0.02
"""The same for what the refiner's network is shown as support: about one frame of such a face."""

COARSE = 3.0
"""Standard deviation of the smoothing before the coarse gradient, px."""

PLACE_SIDE = 64
"""Side of the prior of place; it is smooth over about one of its cells, 8 px of the picture."""
PLACE_STEP = 0.01
"""Of the logarithm of the deviation, from one grey level of the prior's picture to the next."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_NEAR = 6.0 / 512
"""Reach of a feature's lines, standard deviation, share of the picture's width."""


def error_sources(
    raw: np.ndarray,
    landmarks: np.ndarray,
    *,
    noise: np.ndarray,
) -> np.ndarray:
    """What makes a pixel doubtful, as terms of the logarithm of its deviation.

    Parameters
    ----------
    raw : (H, W, 3) uint8 sRGB
    landmarks : (478, 2)
        MediaPipe's points in the picture, px.
    noise : (H, W)
        Standard deviation of the fused texture relative to its brightness.

    Returns
    -------
    (H, W, K) float32, of `SOURCES`
        ``floor``: one; ``detail`` and ``coarse``: log gradient of the picture, fine and coarse, for
        what is blurred or drawn a little or far beside its place; ``noise``: log relative deviation
        of the frames from each other, over the root of their number, large where nothing was
        observed; ``bright``: log luma, since light and noise are relative; ``place``: the prior of
        place (`place_prior`); ``brows``, ``nose``, ``lids``, ``lips``: one on the lines of these
        features, which move, and which a fit misses by more than it misses skin.
    """
    luma = raw.astype(np.float32) @ _LUMA
    maps = {
        "floor": np.ones_like(luma),
        "detail": np.log(luma_gradient(luma, 1.0) + 0.5),
        "coarse": np.log(luma_gradient(luma, COARSE) + 0.25),
        "noise": np.log(np.clip(noise, 0.01, 1)),
        "bright": np.log(luma + 10),
        "place": place_prior(luma.shape),
        "brows": _near(landmarks, BROWS, luma.shape),
        "nose": _near(landmarks, (NOSE_BASE, *NOSE_WINGS), luma.shape),
        "lids": _near(landmarks, LIDS, luma.shape, closed=True),
        "lips": _near(landmarks, LIPS, luma.shape, closed=True),
    }
    return np.stack([maps[name] for name in SOURCES], axis=-1).astype(np.float32)


@lru_cache(maxsize=4)
def place_prior(shape: tuple[int, int]) -> np.ndarray:
    """How much larger errors are at a place of the layout than the other sources say.

    The layout puts everybody's eyes at the same place, so that brows, nose, mouth and outline are
    near theirs: contours that a fit misses, eyes that move, lips that are never quite still.

    Parameters
    ----------
    shape : (H, W)
        Of the picture in the layout of `recon3d.frontal.camera`.

    Returns
    -------
    (H, W) float32, at least 0, of the logarithm of the deviation; the same left and right

    Raises
    ------
    InputError
        If the asset is missing or damaged.
    """
    path = asset_path("deviation", "place.png")
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.shape != (PLACE_SIDE, PLACE_SIDE) or image.dtype != np.uint8:
        raise InputError(f"{path} is not the prior of place; restore it with git checkout assets")
    found = cv2.resize(image.astype(np.float32) * PLACE_STEP, shape[::-1])
    found.flags.writeable = False
    return found


def predicted_deviation(sources: np.ndarray, coefficients: tuple[float, ...]) -> np.ndarray:
    """(H, W) standard deviation from the maps and their coefficients."""
    return np.exp(sources @ np.asarray(coefficients, np.float32)).astype(np.float32)


def determined_share(
    sigma: np.ndarray, pixels: np.ndarray, unseen: float = UNSEEN_DEVIATION
) -> np.ndarray:
    """How much of every pixel observation determines.

    The share of a pixel's variance over people that is gone once it was observed with an error of
    ``sigma``, ``unseen^2 / (unseen^2 + sigma^2)``, as far as it was observed at all. It grows with
    the number of observed pixels and falls with the deviation.

    Parameters
    ----------
    sigma : (H, W)
        Predicted deviation of luma.
    pixels : (H, W)
        Frames' pixels to one of the picture, summed over the frames.
    unseen : float
        Deviation of what was not observed.

    Returns
    -------
    (H, W) float32 in [0, 1]
    """
    observed = pixels / (pixels + FEW_PIXELS)
    return (observed * unseen**2 / (unseen**2 + np.square(sigma))).astype(np.float32)


def confirmed_share(pixels: np.ndarray) -> np.ndarray:
    """How much less of the support is left for a network that has been taught to wait for more.

    The refiner was trained on a support with `CONFIRMED_PIXELS` in the place of `FEW_PIXELS`; the
    support times this share is that.

    Parameters
    ----------
    pixels : (H, W)
        As of `determined_share`.

    Returns
    -------
    (H, W) float32 in [0.1, 1]
    """
    return ((pixels + FEW_PIXELS) / (pixels + CONFIRMED_PIXELS)).astype(np.float32)


def learn_coefficients(
    sources: np.ndarray, error: np.ndarray, *, ridge: float = 1e-3
) -> np.ndarray:
    """Coefficients under which the errors are the most likely.

    Errors are taken to be Laplacian [1]_: a normal law lets the few largest decide. Their negative
    logarithmic likelihood, ``log b + |e| / b`` with ``sigma = sqrt(2) b``, is convex in the
    coefficients.

    Parameters
    ----------
    sources : (N, K)
        The first column is one, and its coefficient alone may be negative.
    error : (N,)
    ridge : float
        Holds coefficients that the data say little about to zero.

    Returns
    -------
    (K,)

    References
    ----------
    .. [1] A. Kendall and Y. Gal, What uncertainties do we need in Bayesian deep learning for
       computer vision?, NIPS 2017.
    """
    from scipy.optimize import minimize

    f = np.asarray(sources, np.float64)
    # Rounding to 8 bits alone is an error of about a quarter.
    size = np.sqrt(2) * (np.abs(np.asarray(error, np.float64)) + 0.25)
    held = np.r_[0.0, np.full(f.shape[1] - 1, ridge)]

    def cost(c):
        log = f @ c
        ratio = size * np.exp(-log)
        slope = f.T @ (1 - ratio) / len(f) + 2 * held * c
        return float((log + ratio).mean() + held @ c**2), slope

    start = np.zeros(f.shape[1])
    start[0] = np.log(size.mean())
    bounds = [(None, None)] + [(0, None)] * (f.shape[1] - 1)
    return minimize(cost, start, jac=True, method="L-BFGS-B", bounds=bounds).x


def learn_place(over: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The prior of place from what the other sources leave.

    Parameters
    ----------
    over : (N,)
        Sizes of errors relative to their prediction.
    at : (N, 2)
        Where they are, share of the layout's width and height.

    Returns
    -------
    (S, S) uint8, S = `PLACE_SIDE`, in steps of `PLACE_STEP`
    """
    cells = np.clip((np.asarray(at) * PLACE_SIDE).astype(int), 0, PLACE_SIDE - 1)
    total = np.zeros((PLACE_SIDE, PLACE_SIDE, 2), np.float32)
    np.add.at(total, (cells[:, 1], cells[:, 0]), np.column_stack([over, np.ones(len(over))]))
    # People are about the same on both sides, and so are cameras.
    total = cv2.GaussianBlur(total + total[:, ::-1], (0, 0), 1.0)
    typical = total[..., 0].sum() / total[..., 1].sum()
    # A cell's likeliest scale is the mean of its errors, as they are taken to be Laplacian. Where
    # hardly anybody has skin nothing is known, and it is as everywhere.
    weak = 0.02 * np.percentile(total[..., 1], 95)
    log = np.log((total[..., 0] + weak * typical) / (total[..., 1] + weak) / typical)
    log -= log[total[..., 1] > weak].min()
    return np.clip(np.round(log / PLACE_STEP), 0, 255).astype(np.uint8)


def luma_gradient(luma: np.ndarray, sigma: float) -> np.ndarray:
    """(H, W) gradient a pixel of a picture smoothed by `sigma`, RMS over its surroundings."""
    smooth = cv2.GaussianBlur(luma, (0, 0), sigma)
    gx = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8)
    gy = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8)
    # An error of place moves the edge itself: its surroundings share its uncertainty.
    return np.sqrt(cv2.GaussianBlur(gx**2 + gy**2, (0, 0), 3.0 * sigma))


def _near(landmarks: np.ndarray, lines, shape: tuple[int, int], closed: bool = False) -> np.ndarray:
    """One on lines through landmarks, falling to zero beside them."""
    away = np.full(shape, 255, np.uint8)
    points = np.nan_to_num(np.asarray(landmarks, np.float64) - 0.5, nan=-1e4)
    fixed = np.clip(np.round(points * 16), -(2**20), 2**20).astype(np.int32)
    for numbers in lines:
        cv2.polylines(away, [fixed[list(numbers)]], closed, 0, 1, cv2.LINE_8, 4)
    if away.all():
        return np.zeros(shape, np.float32)
    distance = cv2.distanceTransform(away, cv2.DIST_L2, 5)
    return np.exp(-0.5 * (distance / (_NEAR * shape[1])) ** 2)
