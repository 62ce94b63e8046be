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

from dataclasses import dataclass

import numpy as np

from recon3d.checks import check_shape
from recon3d.colour import srgb_to_linear
from recon3d.errors import ModelError
from recon3d.types import FaceModel

TEXELS_PER_SAMPLE = 4.0
"""What the modes leave over is alike in neighbouring texels: so many count as one observation."""
CHUNK = 2048


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
        encoded = encoded + np.tensordot(z, np.asarray(model.albedo_modes[: len(z)], np.float32), 1)
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
    _require(model, modes=True)
    size = model.albedo_mean.shape[0]
    check_shape(values, f"{size} {size} 3", "values")
    check_shape(weights, f"{size} {size}", "weights")
    sigma = float(model.albedo_noise if noise is None else noise)
    if not sigma > 0:
        raise ModelError(f"the noise of an albedo observation must be positive, got {sigma}")
    count = len(model.albedo_modes)
    mean = np.asarray(model.albedo_mean, np.float32)
    modes = np.asarray(model.albedo_modes, np.float32).reshape(count, -1, 3)
    weight = np.maximum(np.nan_to_num(np.asarray(weights, np.float32)), 0).ravel()
    seen = np.flatnonzero(weight > 0)
    precision = weight[seen] / (TEXELS_PER_SAMPLE * sigma**2)
    rows = modes[:, seen]  # (A, S, 3)
    weighted = (rows * precision[:, None]).reshape(count, -1)
    difference = np.asarray(values, np.float32).reshape(-1, 3)[seen] - mean.reshape(-1, 3)[seen]
    information = (weighted @ rows.reshape(count, -1).T).astype(np.float64) + np.eye(count)
    covariance = np.linalg.inv(information)
    covariance = (covariance + covariance.T) / 2
    coefficients = covariance @ (weighted @ difference.ravel()).astype(np.float64)
    flat = modes.reshape(count, -1)
    expected = mean + (coefficients.astype(np.float32) @ flat).reshape(mean.shape)
    spread = np.einsum("ap,ap->p", flat, covariance.astype(np.float32) @ flat)
    return AlbedoPosterior(
        coefficients,
        covariance,
        expected,
        (np.maximum(spread, 0) + sigma**2).reshape(mean.shape).astype(np.float32),
    )


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
    progress=None,
) -> PrincipalAlbedo:
    """Principal components of symmetric data with holes, by expectation maximisation.

    Every person counts together with their mirror image, so a mode is either the same on both
    sides or opposite; the mirrored half needs no arithmetic of its own, its coefficients being
    those of the person with the odd ones negated. Each texel's row of W is a regression on the
    people who show it, with their coefficients' covariance (Tipping and Bishop 1999, section 3.3
    and appendix B, holes left out of the sums).

    Parameters
    ----------
    values : (N, 2, H, 3) float32
        People, side, pairs of texels, channel; whatever stands where the weight is 0.
    weights : (N, 2, H) float32 in [0, 1]
    n_modes : int
    iterations : int
    progress : callable(done, total), optional

    Returns
    -------
    PrincipalAlbedo
    """
    n, _, h, _ = values.shape
    n_modes = min(n_modes, 2 * n - 1)
    total = weights.sum((0, 1)) + 1e-6
    mean = np.einsum("nsh,nshc->hc", weights, values) / total[:, None]
    modes, parity = _first_modes(values, weights, mean, n_modes)
    noise2 = 0.05**2
    upper = np.triu_indices(n_modes)
    sign = parity[upper[0]] * parity[upper[1]]
    step = max(1, h // 6000)
    for done in range(iterations):
        z, covariance = _expect(values, weights, mean, modes, parity, noise2, step)
        second = (z[:, :, None] * z[:, None, :] + covariance)[:, upper[0], upper[1]]
        second = second.astype(np.float32)
        residual2, count = 0.0, 0.0
        for start in range(0, h, CHUNK):
            part = slice(start, min(start + CHUNK, h))
            w = weights[:, :, part]
            gram = w[:, 0].T @ second + (w[:, 1].T @ second) * sign
            square = np.empty((gram.shape[0], n_modes, n_modes), np.float32)
            square[:, upper[0], upper[1]] = gram
            square[:, upper[1], upper[0]] = gram
            right = np.zeros((gram.shape[0], n_modes, 3), np.float32)
            old = modes[:, part]
            moved = np.zeros_like(mean[part])
            for side, flip in ((0, np.ones(n_modes, np.float32)), (1, parity)):
                weighted = w[:, side, :, None] * (values[:, side, part] - mean[part])
                signed = z * flip
                right += np.einsum("na,nhc->hac", signed, weighted, optimize=True)
                left = weighted - w[:, side, :, None] * np.tensordot(signed, old, 1)
                moved += left.sum(0)
                residual2 += float(
                    (left[:, ::step] ** 2 / np.maximum(w[:, side, ::step, None], 1e-3)).sum()
                )
                count += 3 * float(w[:, side, ::step].sum())
            # The prior of W is flat where people show a texel; where few do, it is kept small.
            square += np.eye(n_modes, dtype=np.float32)
            modes[:, part] = np.linalg.solve(square, right).transpose(1, 0, 2)
            mean[part] += moved / total[part, None]
        # The part of the noise that the uncertainty of z hides is small beside what modes miss.
        noise2 = residual2 / max(count, 1.0)
        if progress:
            progress(done + 1, iterations)
    modes, parity = _principal(modes, parity)
    return PrincipalAlbedo(mean.astype(np.float32), modes, parity, float(np.sqrt(noise2)))


def _first_modes(values, weights, mean, n_modes):
    """Modes of the data with holes filled by each person's mean difference, (A, H, 3)."""
    n, _, h, _ = values.shape
    grams = []
    step = max(1, h // 6000)
    filled = np.empty((n, 2, len(range(0, h, step)), 3), np.float32)
    for k in range(n):
        w = weights[k, :, ::step, None]
        difference = values[k, :, ::step] - mean[::step]
        typical = (w * difference).sum((0, 1)) / max(float(w.sum()), 1e-6)
        filled[k] = w * difference + (1 - w) * typical
    parts = ((filled[:, 0] + filled[:, 1]) / 2, (filled[:, 0] - filled[:, 1]) / 2)
    found = []
    for sign, part in zip((1.0, -1.0), parts, strict=True):
        flat = part.reshape(n, -1)
        value, vector = np.linalg.eigh((flat @ flat.T).astype(np.float64) / n)
        grams.append(vector)
        found += [(float(value[j]), sign, vector[:, j]) for j in np.argsort(-value)[:n_modes]]
    found.sort(key=lambda item: -item[0])
    found = found[:n_modes]
    # Regression of the whole texture on the components found on a sparse grid.
    parity = np.array([sign for _, sign, _ in found], np.float32)
    z = np.stack([vector for _, _, vector in found], 1).astype(np.float32) * np.sqrt(n)
    modes = np.empty((len(found), h, 3), np.float32)
    for start in range(0, h, CHUNK):
        part = slice(start, min(start + CHUNK, h))
        both = weights[:, :, part, None] * (values[:, :, part] - mean[part])
        even, odd = (both[:, 0] + both[:, 1]) / 2, (both[:, 0] - both[:, 1]) / 2
        modes[parity > 0, part] = np.tensordot(z[:, parity > 0].T, even, 1) / n
        modes[parity < 0, part] = np.tensordot(z[:, parity < 0].T, odd, 1) / n
    return modes, parity


def _expect(values, weights, mean, modes, parity, noise2, step):
    """Posterior means (N, A) and covariances (N, A, A) of all people, on every step-th texel."""
    n = len(values)
    a = len(modes)
    rows = modes[:, ::step]  # (A, H', 3)
    outer = np.einsum("ahc,bhc->hab", rows, rows, optimize=True).reshape(rows.shape[1], -1)
    sign = (parity[:, None] * parity[None]).ravel()
    scale = np.float32(step / (TEXELS_PER_SAMPLE * noise2))
    w = weights[:, :, ::step]
    information = (w[:, 0] @ outer + (w[:, 1] @ outer) * sign) * scale
    information = information.reshape(n, a, a).astype(np.float64) + np.eye(a)
    covariance = np.linalg.inv(information)
    right = np.zeros((n, a))
    for side, flip in ((0, np.ones(a, np.float32)), (1, parity)):
        weighted = w[:, side, :, None] * (values[:, side, ::step] - mean[::step])
        right += np.tensordot(weighted, rows, ((1, 2), (1, 2))) * flip * scale
    z = np.einsum("nab,nb->na", covariance, right)
    return z.astype(np.float32), covariance


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
