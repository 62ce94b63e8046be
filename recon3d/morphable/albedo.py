"""Probabilistic principal components of skin colour, and what a few texels say of all others.

A person's albedo, sRGB-encoded so that a step counts as the eye counts it, is

    x = mean + W z + noise,   z ~ N(0, I),   noise ~ N(0, s^2 I)      (Tipping and Bishop [1]_),

W having a column a mode. Given some texels the posterior of z is Gaussian and closed, and with it
that of every unseen texel: filling a texture is the mean of it, and how sure that is its variance.

References
----------
.. [1] M. Tipping, C. Bishop, Probabilistic principal component analysis, Journal of the Royal
   Statistical Society B 61(3), 1999.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recon3d.checks import check_shape
from recon3d.colour import srgb_to_linear
from recon3d.errors import ModelError
from recon3d.types import FaceModel

TEXELS_PER_SAMPLE = 200.0
"""What the modes leave over is alike within a dozen texels of a texture of 256: so many count as
one observation. With few, half a face is followed so closely that the other half is foretold
worse than by the mean; 100 to 1000 differ little on the photos kept for validation."""
EXPOSURE_SHARE = (0.5, 0.7)
"""What of a photo's brightness, and of its tint, against the mean of all is taken for exposure and
white balance; the rest is skin. One photo does not tell, so this is an assumption."""
CHUNK = 2048


class AlbedoSettings(BaseModel):
    """How albedo modes are learned from portraits."""

    model_config = ConfigDict(extra="forbid")

    size: int = Field(256, ge=32, le=1024, description="Side of the texture in texels.")
    modes: int = Field(80, ge=1, le=300, description="Albedo modes kept.")
    iterations: int = Field(12, ge=1, description="Rounds of expectation maximisation.")
    light_rounds: int = Field(3, ge=1, description="Times that light and mean albedo alternate.")
    light_prior: float = Field(
        0.25, gt=0, description="Standard deviation of the harmonics of a photo's log light."
    )
    light_colour: float = Field(
        0.3, gt=0, le=1, description="How much light varies in colour, compared to strength."
    )
    min_chroma: float = Field(
        4.0, ge=0, description="Mean CIELAB chroma below which a photo counts as grey."
    )
    min_brightness: float = Field(
        0.02, ge=0, description="Mean linear light of the face below which a photo is too dark."
    )


@dataclass(frozen=True)
class AlbedoPosterior:
    """Albedo of one person given some of its texels.

    Attributes
    ----------
    coefficients : (A,) float64
        Posterior mean of the modes' coefficients.
    covariance : (A, A) float64
        Their posterior covariance.
    mean : (T, T, 3) float32
        Expected albedo, sRGB-encoded.
    variance : (T, T, 3) float32
        Its predictive variance, the noise included.
    """

    coefficients: np.ndarray
    covariance: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


def model_albedo(model: FaceModel, coefficients: np.ndarray | None = None) -> np.ndarray:
    """Albedo of a person of the model.

    Parameters
    ----------
    model : FaceModel
    coefficients : (A,) or shorter, optional
        Standard normal over the population; the mean without.

    Returns
    -------
    (T, T, 3) float32, linear RGB, row 0 at v = 1

    Raises
    ------
    ModelError
        If the model knows nothing of albedo.
    """
    _require(model)
    encoded = np.asarray(model.albedo_mean, np.float32)
    if coefficients is not None and model.albedo_modes is not None:
        z = np.asarray(coefficients, np.float32)
        encoded = encoded + np.tensordot(z, _single(model.albedo_modes[: len(z)]), 1)
    return srgb_to_linear(np.clip(encoded, 0, 1))


def albedo_posterior(
    model: FaceModel,
    values: np.ndarray,
    weights: np.ndarray,
    *,
    noise: float | None = None,
) -> AlbedoPosterior:
    """What observed texels say of a person's whole albedo.

    With the observed rows W_o and their precisions ``D = diag(w / s^2)``, the posterior of z is
    Gaussian with covariance ``C = (I + W_o' D W_o)^-1`` and mean ``C W_o' D (x_o - mean)``
    (Tipping and Bishop 1999, section 3, with rows left out).

    Parameters
    ----------
    model : FaceModel
        With albedo modes.
    values : (T, T, 3) float
        sRGB-encoded albedo; whatever stands where the weight is 0.
    weights : (T, T) float
        0 where nothing was seen, 1 for a texel as good as a photo's, between and beyond for
        observations of less and more precision.
    noise : float, optional
        Standard deviation s of an observation of weight 1, sRGB-encoded; the model's own without.

    Returns
    -------
    AlbedoPosterior

    Raises
    ------
    ModelError
        If the model has no albedo modes.
    ShapeError
    """
    sigma = _noise(model, noise)
    coefficients, covariance = albedo_coefficients(model, values, weights, noise=noise)
    mean = np.asarray(model.albedo_mean, np.float32)
    flat = _single(model.albedo_modes).reshape(len(coefficients), -1)
    expected = mean + (coefficients.astype(np.float32) @ flat).reshape(mean.shape)
    spread = np.einsum("ap,ap->p", flat, covariance.astype(np.float32) @ flat)
    return AlbedoPosterior(
        coefficients,
        covariance,
        expected,
        (np.maximum(spread, 0) + sigma**2).reshape(mean.shape).astype(np.float32),
    )


def albedo_coefficients(
    model: FaceModel,
    values: np.ndarray,
    weights: np.ndarray,
    *,
    noise: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean (A,) and covariance (A, A) of the modes' coefficients.

    Parameters
    ----------
    model, values, weights, noise : as for `albedo_posterior`
    """
    _require(model, modes=True)
    size = model.albedo_mean.shape[0]
    check_shape(values, f"{size} {size} 3", "values")
    check_shape(weights, f"{size} {size}", "weights")
    sigma = _noise(model, noise)
    count = len(model.albedo_modes)
    weight = np.maximum(np.nan_to_num(np.asarray(weights, np.float32)), 0).ravel()
    seen = np.flatnonzero(weight > 0)
    precision = weight[seen] / (TEXELS_PER_SAMPLE * sigma**2)
    root = np.sqrt(precision)[:, None].astype(np.float32)
    # A row at a time: all of them at once are more than caches hold.
    rows = np.empty((count, 3 * len(seen)), np.float32)
    for row, mode in zip(rows, model.albedo_modes.reshape(count, -1, 3), strict=True):
        np.multiply(_single(mode)[seen], root, out=row.reshape(-1, 3))
    mean = np.asarray(model.albedo_mean, np.float32).reshape(-1, 3)[seen]
    difference = root * (np.asarray(values, np.float32).reshape(-1, 3)[seen] - mean)
    information = (rows @ rows.T).astype(np.float64) + np.eye(count)
    covariance = np.linalg.inv(information)
    covariance = (covariance + covariance.T) / 2
    return covariance @ (rows @ difference.ravel()).astype(np.float64), covariance


def _single(values: np.ndarray) -> np.ndarray:
    """Half precision, in which models travel, as float32: several times as fast as NumPy does."""
    import torch

    if values.dtype != np.float16:
        return np.asarray(values, np.float32)
    # Arrays of a file that is mapped into memory cannot be written to, which no one does here.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writ")
        return torch.from_numpy(np.ascontiguousarray(values)).float().numpy()


def _noise(model: FaceModel, noise: float | None) -> float:
    sigma = float(model.albedo_noise if noise is None else noise)
    if not sigma > 0:
        raise ModelError(f"the noise of an albedo observation must be positive, got {sigma}")
    return sigma


def _require(model: FaceModel, modes: bool = False) -> None:
    if model.albedo_mean is None or (modes and model.albedo_modes is None):
        raise ModelError(
            f"the face model {model.name} has no albedo{' modes' if modes else ''}; the embedded "
            "model has, and `recon3d model build` learns them"
        )


# ------------------------------------------------------------------------------------ learning
@dataclass(frozen=True)
class PrincipalAlbedo:
    """Mean and modes of a symmetric population over H pairs of mirrored texels.

    Attributes
    ----------
    mean : (H, 3) float32
        The same on both sides.
    modes : (A, H, 3) float32
        On the first side, the strongest first; on the second the same times `parity`.
    parity : (A,) float32, 1 or -1
    noise : float
        Standard deviation of what the modes leave over.
    """

    mean: np.ndarray
    modes: np.ndarray
    parity: np.ndarray
    noise: float


def fit_ppca(
    values: np.ndarray,
    weights: np.ndarray,
    n_modes: int,
    *,
    iterations: int = 8,
    sparse: int = 9,
    texels_per_sample: float = TEXELS_PER_SAMPLE,
    progress=None,
) -> PrincipalAlbedo:
    """Principal components of symmetric data with holes, by expectation maximisation.

    Every person counts together with their mirror image, so a mode is either the same on both
    sides or opposite; the mirrored half needs no arithmetic of its own, its coefficients being
    those of the person with the odd ones negated. Each texel's row of W is a regression on the
    people who show it, with their coefficients' covariance (Tipping and Bishop 1999, section 3.3
    and appendix B, holes left out of the sums).

    Coefficients are found on every `sparse`-th texel, which holds all that a few dozen of them can
    mean; the rows of all texels are regressed once at the end.

    Parameters
    ----------
    values : (N, 2, H, 3) float32
        People, side, pairs of texels, channel; whatever stands where the weight is 0.
    weights : (N, 2, H) float32 in [0, 1]
    n_modes : int
    iterations, sparse : int
    texels_per_sample : float
        Texels whose noise counts as one observation.
    progress : callable(done, total), optional

    Returns
    -------
    PrincipalAlbedo
    """
    n, _, h, _ = values.shape
    sparse = max(1, min(sparse, h // (2 * n_modes)))
    worth = sparse / texels_per_sample
    some = np.ascontiguousarray(values[:, :, ::sparse])
    seen = np.ascontiguousarray(weights[:, :, ::sparse])
    mean = _mean(some, seen)
    modes, parity = _first_modes(some, seen, mean, min(n_modes, 2 * n - 1))
    noise2 = 0.05**2
    for done in range(iterations):
        z, covariance = _expect(some, seen, mean, modes, parity, noise2, worth)
        mean, modes, noise2 = _maximise(some, seen, z, covariance, mean, modes, parity)
        if progress:
            progress(done + 1, iterations + 2)
    z, covariance = _expect(some, seen, mean, modes, parity, noise2, worth)
    mean = _mean(values, weights)
    blank = np.zeros((len(modes), h, 3), np.float32)
    # Twice, since mean and modes of holes wait for each other.
    for done in range(2):
        mean, blank, noise2 = _maximise(values, weights, z, covariance, mean, blank, parity)
        if progress:
            progress(iterations + 1 + done, iterations + 2)
    modes, parity = _principal(blank, parity)
    return PrincipalAlbedo(mean.astype(np.float32), modes, parity, float(np.sqrt(noise2)))


def _mean(values, weights):
    """Weighted mean over people and both sides, (H, 3)."""
    total = np.full(values.shape[2], 1e-6)
    out = np.zeros(values.shape[2:])
    for x, w in zip(values, weights, strict=True):
        total += w.sum(0)
        out += (w[..., None] * x).sum(0)
    return (out / total[:, None]).astype(np.float32)


def _maximise(values, weights, z, covariance, mean, modes, parity):
    """Mean, modes and noise given everybody's coefficients.

    Returns
    -------
    mean : (H, 3), modes : (A, H, 3), noise2 : float
        Mean square of what the old mean and modes leave over.
    """
    count = len(modes)
    upper = np.triu_indices(count)
    sign = (parity[upper[0]] * parity[upper[1]]).astype(np.float32)
    second = (covariance + z[:, :, None] * z[:, None, :])[:, upper[0], upper[1]].astype(np.float32)
    mean, modes = mean.copy(), modes.copy()
    square_left, square_weight = 0.0, 0.0
    for start in range(0, values.shape[2], CHUNK):
        part = slice(start, start + CHUNK)
        sides = [np.ascontiguousarray(weights[:, side, part].T) for side in range(2)]
        gram = sides[0] @ second + (sides[1] @ second) * sign
        size = len(gram)
        square = np.empty((size, count, count), np.float32)
        square[:, upper[0], upper[1]] = gram
        square[:, upper[1], upper[0]] = gram
        # The prior of W is flat where people show a texel; where few do, it keeps W small.
        square += np.eye(count, dtype=np.float32)
        right = np.zeros((count, size * 3), np.float32)
        moved = np.zeros((size, 3))
        for side, flip in ((0, np.ones_like(parity)), (1, parity)):
            w = weights[:, side, part, None]
            weighted = w * (values[:, side, part] - mean[part])
            signed = z * flip
            right += signed.T @ weighted.reshape(len(z), -1)
            left = weighted - w * (signed @ modes[:, part].reshape(count, -1)).reshape(
                weighted.shape
            )
            moved += left.sum(0)
            square_left += float((left**2 / np.maximum(w, 1e-3)).sum())
            square_weight += 3 * float(w.sum())
        total = sides[0].sum(1) + sides[1].sum(1) + 1e-6
        right = right.reshape(count, size, 3).transpose(1, 0, 2)
        modes[:, part] = np.linalg.solve(square, right).transpose(1, 0, 2)
        mean[part] += (moved / total[:, None]).astype(np.float32)
    return mean, modes, square_left / max(square_weight, 1.0)


def _first_modes(values, weights, mean, n_modes):
    """Modes of the data with holes filled by each person's mean difference.

    Returns
    -------
    modes : (A, H, 3), parity : (A,)
    """
    n = len(values)
    w = weights[..., None]
    difference = w * (values - mean)
    typical = difference.sum((1, 2)) / np.maximum(w.sum((1, 2)), 1e-6)
    filled = difference + (1 - w) * typical[:, None, None]
    found = []
    for sign, part in (
        (1.0, (filled[:, 0] + filled[:, 1]) / 2),
        (-1.0, (filled[:, 0] - filled[:, 1]) / 2),
    ):
        flat = part.reshape(n, -1)
        value, vector = np.linalg.eigh((flat @ flat.T).astype(np.float64) / n)
        for j in np.argsort(-value)[:n_modes]:
            z = (np.sqrt(n) * vector[:, j]).astype(np.float32)
            found.append((float(value[j]), sign, (z @ flat / n).reshape(part.shape[1:])))
    found.sort(key=lambda item: -item[0])
    _, parity, modes = zip(*found[:n_modes], strict=True)
    return np.stack(modes), np.array(parity, np.float32)


def _expect(values, weights, mean, modes, parity, noise2, worth):
    """Posterior means (N, A) and covariances (N, A, A) of all people's coefficients."""
    n, a = len(values), len(modes)
    upper = np.triu_indices(a)
    outer = sum(modes[upper[0], :, c] * modes[upper[1], :, c] for c in range(3)).T
    sign = (parity[upper[0]] * parity[upper[1]]).astype(np.float32)
    scale = np.float32(worth / noise2)
    information = np.zeros((n, a, a))
    sides = [np.ascontiguousarray(weights[:, side]) for side in range(2)]
    gram = (sides[0] @ outer + (sides[1] @ outer) * sign) * scale
    information[:, upper[0], upper[1]] = gram
    information[:, upper[1], upper[0]] = gram
    covariance = np.linalg.inv(information + np.eye(a))
    right = np.zeros((n, a))
    flat = modes.reshape(a, -1)
    for side, flip in ((0, np.ones_like(parity)), (1, parity)):
        weighted = weights[:, side, :, None] * (values[:, side] - mean)
        right += (weighted.reshape(n, -1) @ flat.T) * flip * scale
    return np.einsum("nab,nb->na", covariance, right).astype(np.float32), covariance


def _principal(modes, parity):
    """Rotate modes to orthogonal principal axes, even and odd ones apart, strongest first."""
    out, strength, signs = [], [], []
    for sign in (1.0, -1.0):
        chosen = modes[parity == sign]
        if not len(chosen):
            continue
        flat = chosen.reshape(len(chosen), -1).astype(np.float64)
        value, vector = np.linalg.eigh(flat @ flat.T)
        turned = vector.T @ flat
        # The sign of an axis is free; fixed so that the same data give the same file.
        largest = turned[np.arange(len(turned)), np.abs(turned).argmax(1)]
        turned *= np.where(largest < 0, -1.0, 1.0)[:, None]
        out.append(turned.reshape(chosen.shape))
        strength.append(value)
        signs.append(np.full(len(chosen), sign))
    order = np.argsort(-np.concatenate(strength), kind="stable")
    modes = np.concatenate(out)[order].astype(np.float32)
    return modes, np.concatenate(signs)[order].astype(np.float32)
