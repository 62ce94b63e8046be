"""The texture that explains all frames.

Each frame is a linear function of the texture: texels are shaded, carried to the frame, and summed
over the footprint of a pixel and the blur of the camera,

    y_f = D^-1 B S_f diag(a_f s_f) X,    D = B S_f a_f,

with a_f the projected area of a texel, s_f its shading, S_f the bilinear scatter and B the blur.
The texture minimises

    sum_f sum_p w_fp (y_f - I_f)^2 / (level_fp sigma)^2 + lambda sum_ij psi(X_i - X_j) / level_ij^2

by conjugate gradients inside iterative reweighting (robust w, edge-preserving psi) [1]_ [2]_.

References
----------
.. [1] M. Irani and S. Peleg, Improving resolution by image registration, CVGIP 53(3), 1991.
.. [2] S. Farsiu et al., Fast and robust multiframe super resolution, IEEE TIP 13(10), 2004.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from recon3d.texturing import _kernels as kernels
from recon3d.texturing._threads import over
from recon3d.texturing.atlas import Atlas
from recon3d.texturing.observation import ViewSamples

LEVEL = 0.02
"""Linear light added before dividing by brightness: errors count by how visible they are."""


@dataclass
class Operator:
    """One frame as a linear function of the texture.

    Attributes
    ----------
    index, x, y : (Q,)
        Texels and where they fall, px.
    image : (h, w, 3) float32
        What the frame shows.
    pixel_mm : float
    factor : (Q, 3) float32
        Projected area times shading.
    psf : (k, k) float32
        Blur of the camera beyond the pixel's own footprint.
    inverse : (h, w) float32
        1 / D, zero where the surface does not cover the pixel.
    belief : (h, w) float32
        Weight of a pixel before its residual was looked at.
    origin : x, y of `image` in the samples' picture, px.
    """

    index: np.ndarray
    x: np.ndarray
    y: np.ndarray
    image: np.ndarray
    pixel_mm: float
    factor: np.ndarray
    psf: np.ndarray
    inverse: np.ndarray
    belief: np.ndarray
    origin: tuple[int, int]

    def blur(self, image: np.ndarray) -> np.ndarray:
        return cv2.filter2D(image, -1, self.psf, borderType=cv2.BORDER_CONSTANT)

    def forward(self, texture: np.ndarray) -> np.ndarray:
        """(P, 3) texture to the (h, w, 3) picture it would give, zero off the surface."""
        height, width = self.inverse.shape
        image = kernels.splat_texture(
            texture, self.index, self.factor, self.x, self.y, height, width
        )
        return self.blur(image) * self.inverse[..., None]

    def adjoint(self, image: np.ndarray, out: np.ndarray) -> None:
        """Add the adjoint of `forward` to ``out`` (P, 3)."""
        blurred = self.blur(image * self.inverse[..., None])
        kernels.gather_texture(out, blurred, self.index, self.factor, self.x, self.y)


def build_operator(
    samples: ViewSamples,
    shade: np.ndarray,
    texel_mm: np.ndarray,
    psf: np.ndarray,
    keep: np.ndarray,
) -> Operator:
    """Set up the operator of one view.

    Parameters
    ----------
    samples : ViewSamples
    shade : (Q, 3)
    texel_mm : (P,)
        Side of a texel on the surface.
    psf : (k, k)
        Symmetric, sum 1.
    keep : (Q,) bool
        Samples of texels that are solved for; pixels that show others are left out.

    Returns
    -------
    Operator
        On the part of the picture that shows these texels.
    """
    s = samples
    keep = np.flatnonzero(keep)
    index, x, y = s.index[keep], s.x[keep], s.y[keep]
    height, width = s.image.shape[:2]
    margin = 3 + len(psf) // 2
    x0, x1 = _span(x, margin, width)
    y0, y1 = _span(y, margin, height)
    x, y = x - np.float32(x0), y - np.float32(y0)
    image = np.ascontiguousarray(s.image[y0:y1, x0:x1])
    area = ((texel_mm[index] / s.pixel_mm) ** 2 * s.cosine[keep]).astype(np.float32)
    stack = np.stack([area, area * s.weight[keep]], axis=1)
    drawn = kernels.splat(stack, x, y, y1 - y0, x1 - x0)
    drawn = cv2.filter2D(drawn, -1, psf, borderType=cv2.BORDER_CONSTANT)
    cover, belief = drawn[..., 0], drawn[..., 1]
    # The scatter's own area is 1 on a fully covered pixel; less means an outline or an occluder.
    whole = np.clip((cover - 0.6) / 0.3, 0, 1)
    inverse = np.where(cover > 0.3, 1 / np.maximum(cover, 0.3), 0).astype(np.float32)
    bright = np.clip((0.99 - image.max(-1)) / 0.05, 0.02, 1)
    factor = (area[:, None] * shade[keep]).astype(np.float32)
    belief = (whole * belief * inverse * bright).astype(np.float32)
    return Operator(index, x, y, image, s.pixel_mm, factor, psf, inverse, belief, (x0, y0))


def _span(at: np.ndarray, margin: int, length: int) -> tuple[int, int]:
    if len(at) == 0:
        return 0, min(length, 2 * margin)
    low = max(0, int(np.floor(at.min())) - margin)
    return low, min(length, int(np.ceil(at.max())) + margin)


def gaussian_psf(sigma: float, motion: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """Gaussian blur along a straight path.

    Parameters
    ----------
    sigma : float, px
    motion : (2,) px
        From one end of the path to the other.

    Returns
    -------
    (k, k) float32, symmetric, sum 1
    """
    reach = int(np.ceil(3 * sigma + np.hypot(*motion) / 2))
    at = np.arange(-reach, reach + 1, dtype=np.float64)
    out = np.zeros((len(at), len(at)))
    n = max(1, int(np.ceil(np.hypot(*motion) * 4)))
    for step in (np.arange(n) + 0.5) / n - 0.5:
        gx = np.exp(-((at - step * motion[0]) ** 2) / (2 * sigma**2))
        gy = np.exp(-((at - step * motion[1]) ** 2) / (2 * sigma**2))
        out += gy[:, None] * gx[None]
    return (out / out.sum()).astype(np.float32)


def solve(
    atlas: Atlas,
    operators: list[Operator],
    start: np.ndarray,
    *,
    regularisation: float,
    robust: float = 2.5,
    reweightings: int = 2,
    iterations: int = 8,
    progress=None,
) -> tuple[np.ndarray, dict]:
    """Find the texture.

    Parameters
    ----------
    atlas : Atlas
    operators : list of Operator
    start : (P, 3)
    regularisation : float
        Variance of relative noise over variance of relative differences of neighbouring texels,
        at a noise of 5 %.
    robust : float
        Residuals beyond this many deviations lose weight.
    reweightings, iterations : int
        Outer and inner.
    progress : callable, optional

    Returns
    -------
    texture : (P, 3) float32
    info : dict
        ``noise``: relative standard deviation of the residuals, before and after.
    """
    valid = atlas.valid
    pairs = _Pairs(atlas, valid)
    x = start.astype(np.float32).copy()
    level = 1.0 / (start + LEVEL).astype(np.float32)
    history = []
    for outer in range(reweightings):
        weights, noise, mean_weight = _pixel_weights(operators, x, robust)
        history.append(noise)
        edge = pairs.weights(x * level, scale=max(0.05, 1.0 * noise)) * (
            regularisation * mean_weight * (noise / 0.05) ** 2
        )

        def apply(v, weights=weights, edge=edge):
            def add(out, k):
                operators[k].adjoint(operators[k].forward(v) * weights[k], out)

            return _sum(add, len(operators), v) + level * pairs.laplacian(level * v, edge)

        def add_right(out, k, weights=weights):
            operators[k].adjoint(operators[k].image * weights[k], out)

        right = _sum(add_right, len(operators), x)
        # Texels that no pixel informs keep what they had.
        anchor = 1e-4 * mean_weight * level**2
        right += anchor * x
        preconditioner = 1 / (
            _diagonal(operators, weights, len(x)) + level**2 * pairs.degree(edge) + anchor
        )
        x = _conjugate_gradients(
            lambda v, apply=apply, anchor=anchor: apply(v) + anchor * v,
            right,
            x,
            preconditioner,
            iterations,
        )
        x = np.maximum(x, 0)
        if progress:
            progress(outer + 1, reweightings)
    _, noise, _ = _pixel_weights(operators, x, robust)
    history.append(noise)
    return x, {"noise": history}


def channel_mean(image: np.ndarray) -> np.ndarray:
    """(h, w, 3) to (h, w), several times as fast as a mean over the last axis."""
    return cv2.transform(image, np.full((1, 3), 1 / 3, np.float32))


def _pixel_weights(operators, x, robust):
    def residual(operator):
        y = operator.forward(x)
        image = operator.image
        level = 0.5 * channel_mean(y + cv2.GaussianBlur(image, (0, 0), 1.0)) + LEVEL
        return channel_mean(np.abs(y - image)) / level, level

    residuals = over(residual, operators)
    pooled = np.concatenate(
        [e[o.belief > 0.1 * o.belief.max()][::3] for o, (e, _) in zip(operators, residuals)]
    )
    noise = max(1.48 * float(np.median(pooled)), 0.004) if len(pooled) else 0.05
    weights = []
    total, count = 0.0, 0
    for operator, (e, level) in zip(operators, residuals, strict=True):
        core = operator.belief > 0.1 * operator.belief.max()
        own = max(1.48 * float(np.median(e[core])), 0.5 * noise) if core.any() else noise
        agree = 1 / (1 + (e / (robust * own)) ** 2) ** 2
        weight = operator.belief * agree * (noise / own) ** 2
        total += float(weight.sum())
        count += int((weight > 0).sum())
        weights.append((weight / level**2)[..., None].astype(np.float32))
    # The prior is measured against an average pixel's weight, brightness aside.
    return weights, noise, total / max(count, 1)


def _diagonal(operators, weights, n) -> np.ndarray:
    # Of the normal matrix, with the blur's overlap left out: a preconditioner need not be exact.
    out = np.zeros((n, 3), np.float32)
    for operator, w in zip(operators, weights, strict=True):
        image = operator.blur(w * operator.inverse[..., None])
        image = image if image.ndim == 3 else image[..., None]
        image = np.repeat(image, 3, axis=2)
        kernels.gather_texture(out, image, operator.index, operator.factor, operator.x, operator.y)
    return out


def _sum(add, n: int, like: np.ndarray) -> np.ndarray:
    # Two halves whatever the number of threads: the order of a sum is part of its result.
    def half(which):
        out = np.zeros_like(like)
        for k in range(which, n, 2):
            add(out, k)
        return out

    a, b = over(half, (0, 1))
    return a + b


def _conjugate_gradients(apply, right, x, preconditioner, iterations):
    residual = right - apply(x)
    z = preconditioner * residual
    p = z.copy()
    rho = (residual * z).sum((0,), dtype=np.float64)
    for _ in range(iterations):
        q = apply(p)
        # Channels are independent systems and have their own steps.
        alpha = (rho / np.maximum((p * q).sum(0, dtype=np.float64), 1e-30)).astype(np.float32)
        x = x + alpha * p
        residual = residual - alpha * q
        z = preconditioner * residual
        new = (residual * z).sum(0, dtype=np.float64)
        p = z + (new / np.maximum(rho, 1e-30)).astype(np.float32) * p
        rho = new
    return x


class _Pairs:
    """Neighbouring texels, right and below, both on the surface."""

    def __init__(self, atlas: Atlas, valid: np.ndarray):
        number = np.full(valid.shape, -1, np.int64)
        number[atlas.row, atlas.column] = np.arange(len(atlas))
        pairs = []
        for a, b in ((number[:, :-1], number[:, 1:]), (number[:-1], number[1:])):
            both = (a >= 0) & (b >= 0)
            pairs.append(np.stack([a[both], b[both]], axis=1))
        self.pairs = np.concatenate(pairs)
        self.n = len(atlas)

    def weights(self, x: np.ndarray, scale: float) -> np.ndarray:
        """Edge-preserving: what differs much already is held less together."""
        i, j = self.pairs.T
        step = ((x[i] - x[j]) ** 2).mean(1)
        return (1 / np.sqrt(1 + step / scale**2)).astype(np.float32)

    def laplacian(self, x: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return kernels.pair_laplacian(x, self.pairs, weights)

    def degree(self, weights: np.ndarray) -> np.ndarray:
        i, j = self.pairs.T
        total = np.bincount(i, weights, self.n) + np.bincount(j, weights, self.n)
        return total[:, None].astype(np.float32)
