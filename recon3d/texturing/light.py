"""Light and exposure of every frame, found together from how the skin's colour changes.

In the logarithm of linear light a sample is albedo plus light plus exposure,

    log I_f(x) = a(x) + B(n_f(x)) . (l + d_f) + g_f,

with spherical harmonics B of the normal in camera axes, one light l for each shot, its small
change d_f and an exposure g_f for each frame. All are linear, and a(x) is eliminated texel by
texel. A turning head tells light from skin; the mirror image helps where it does not turn.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from recon3d.texturing.atlas import Atlas
from recon3d.texturing.observation import ViewSamples, sample
from recon3d.texturing.settings import TexturingSettings

FLOOR = 0.004
"""Linear light below which a camera's output says little, added before logarithms."""
LIMIT = np.float32(0.9)
"""Log shading is bent to stay within this."""
INDEPENDENT = 0.003
"""Share of the samples that say something of their own: what is left over is mostly misfit, the
same for whole regions."""
EXPOSURE = 3.0
"""Standard deviation of a shot's log exposure: anything."""


@dataclass(frozen=True)
class Light:
    """Fitted light.

    Attributes
    ----------
    harmonics : (N, 8, 3)
        Of log light per view and channel: degree one (x, y, z) and two, camera axes.
    gain : (N, 3)
        Log exposure per view and channel; zero on average.
    offset : (3,)
        Subtracted from log shading so that it is zero on average over what was seen.
    noise : float
        Robust standard deviation of the residuals of log colour.
    """

    harmonics: np.ndarray
    gain: np.ndarray
    offset: np.ndarray
    noise: float

    def shading(self, view: int, normal: np.ndarray) -> np.ndarray:
        """(Q, 3) factors by which albedo is multiplied in a view."""
        gain = np.exp(np.clip(self.gain[view], -3, 3)).astype(np.float32)
        return self.shading_without_exposure(view, normal) * gain

    def shading_without_exposure(self, view: int, normal: np.ndarray) -> np.ndarray:
        """(Q, 3) as `shading`, at the common exposure."""
        log = harmonics(normal) @ self.harmonics[view].astype(np.float32)
        log -= self.offset.astype(np.float32)
        # Few samples look sideways or down, and what is extrapolated there must stay moderate.
        return np.exp(LIMIT * np.tanh(log / LIMIT)).astype(np.float32)


def harmonics(normal: np.ndarray) -> np.ndarray:
    """Real spherical harmonics of degree one and two, up to factors.

    Parameters
    ----------
    normal : (Q, 3)

    Returns
    -------
    (Q, 8)
    """
    x, y, z = normal.T
    return np.stack(
        [x, y, z, x * y, y * z, 0.5 * (3 * z * z - 1), x * z, 0.5 * (x * x - y * y)], axis=1
    ).astype(np.float32)


def fit_light(
    atlas: Atlas,
    samples: list[ViewSamples],
    shots: np.ndarray,
    skin: np.ndarray,
    settings: TexturingSettings,
    *,
    n_points: int = 3000,
) -> Light:
    """Fit light and exposure to the skin.

    Parameters
    ----------
    atlas : Atlas
    samples : list of N ViewSamples
    shots : (N,) int
        Views of the same shot are under the same light.
    skin : (P,) float
        How much a texel is plain, rigid skin.
    settings : TexturingSettings
    n_points : int
        Texels looked at.

    Returns
    -------
    Light
    """
    n = len(samples)
    # Every k-th texel in raster order is an even cover of the charts.
    candidates = np.flatnonzero(skin > 0.5)
    if len(candidates) < 50:
        candidates = np.arange(len(atlas))
    points = candidates[:: max(1, len(candidates) // n_points)]
    place = np.full(len(atlas), -1)
    place[points] = np.arange(len(points))
    m = len(points)
    value = np.zeros((n, m, 3))
    weight = np.zeros((n, m))
    basis = np.zeros((n, m, 8))
    for f, s in enumerate(samples):
        keep = place[s.index] >= 0
        # Light is smooth and noise is not: look through a small blur, and squarely, so that it
        # does not bring in the background from beyond the outline.
        blurred = cv2.GaussianBlur(s.image, (0, 0), max(0.5, 2.0 / s.pixel_mm))
        colour = sample(blurred, s.x[keep], s.y[keep], cubic=False)
        at = place[s.index[keep]]
        value[f, at] = np.log(np.maximum(colour, 0) + FLOOR)
        trust = colour.mean(1) / (colour.mean(1) + 0.02)
        bright = np.clip((0.98 - colour.max(1)) / 0.08, 0.02, 1)
        square = np.clip((s.cosine[keep] - 0.5) / 0.2, 1e-3, 1)
        weight[f, at] = s.weight[keep] * trust**2 * bright * square
        basis[f, at] = harmonics(s.normal[keep])
    order = _mirror_of(atlas, points)
    cameras = np.unique(shots)
    camera = np.searchsorted(cameras, shots)
    ell, delta, gain, noise = _solve(value, weight, basis, camera, order, settings)
    total = ell[camera] + np.pad(delta, ((0, 0), (0, 5), (0, 0)))
    shade = np.einsum("fmk,fkc->fmc", basis, total)
    offset = (shade * weight[..., None]).sum((0, 1)) / max(weight.sum(), 1e-9)
    return Light(total, gain, offset, noise)


def _mirror_of(atlas: Atlas, points: np.ndarray) -> np.ndarray:
    from scipy.spatial import cKDTree

    at = np.stack([atlas.column[points] + 0.5, atlas.row[points] + 0.5], axis=1)
    image = np.stack([atlas.mirror_x[points], atlas.mirror_y[points]], axis=1)
    distance, nearest = cKDTree(at).query(image)
    spacing = np.sqrt(atlas.size**2 / max(len(points), 1))
    return np.where((image[:, 0] >= 0) & (distance < spacing), nearest, -1)


def _solve(value, weight, basis, camera, mirror, settings):
    n, m, _ = value.shape
    n_cameras = int(camera.max()) + 1
    shared, per_frame = 8 * n_cameras, 4
    size = shared + per_frame * n
    # Design of every (frame, point): 8 of its camera's light, an exposure, 3 of its own change.
    local = np.concatenate([np.ones((n, m, 1)), basis[..., :3]], axis=2)
    seen = weight.sum(0)
    same = (camera[:, None] == camera[None]).astype(float)
    noise = 0.1
    change = settings.exposure_change
    robust = np.ones_like(weight)
    theta = np.zeros((size, 3))
    if not settings.light:
        basis = basis * 0
        local = local * np.array([1.0, 0, 0, 0])
    for _ in range(5):
        w = weight * robust
        total = w.sum(0) + 1e-12
        scale = (w > 0).sum() / max(w.sum(), 1e-12)
        normal = np.zeros((size, size))
        right = np.zeros((size, 3))
        mean = np.zeros((m, size))
        mean_value = np.einsum("fm,fmc->mc", w, value) / total[:, None]
        for f in range(n):
            a = slice(8 * camera[f], 8 * camera[f] + 8)
            b = slice(shared + per_frame * f, shared + per_frame * (f + 1))
            wf = w[f][:, None]
            normal[a, a] += (basis[f] * wf).T @ basis[f]
            normal[b, b] += (local[f] * wf).T @ local[f]
            cross = (basis[f] * wf).T @ local[f]
            normal[a, b] += cross
            normal[b, a] += cross.T
            right[a] += (basis[f] * wf).T @ value[f]
            right[b] += (local[f] * wf).T @ value[f]
            mean[:, a] += basis[f] * wf
            mean[:, b] = local[f] * wf
        normal -= (mean / total[:, None]).T @ mean
        right -= mean.T @ mean_value
        prior = _prior(n_cameras, same, per_frame, settings, change)
        information = INDEPENDENT * scale / noise**2
        normal *= information
        right *= information
        pair = np.flatnonzero((mirror >= 0) & (seen > 0) & (seen[mirror] > 0))
        if len(pair) and settings.light:
            average = mean / total[:, None]
            difference = average[pair] - average[mirror[pair]]
            step = mean_value[pair] - mean_value[mirror[pair]]
            strength = 100.0 / len(pair) / settings.symmetry**2
            normal += strength * difference.T @ difference
            right += strength * difference.T @ step
        # Light has more shape than colour: what the channels share and how they differ have
        # priors of their own.
        shared_part = right.mean(1, keepdims=True)
        theta = np.linalg.solve(normal + prior, shared_part) + np.linalg.solve(
            normal + prior / settings.light_colour**2, right - shared_part
        )
        # Exposures that change more than a lamp explains show it: a camera that meters, or a cloud.
        exposure = theta[shared:].reshape(n, per_frame, 3)[:, 0].mean(1)
        exposure = exposure - (same @ exposure) / same.sum(1)
        change = max(settings.exposure_change, float(np.sqrt((exposure**2).mean())))
        residual = value - basis @ theta[:shared].reshape(-1, 8, 3)[camera]
        residual -= local @ theta[shared:].reshape(n, per_frame, 3)
        residual -= (np.einsum("fm,fmc->mc", w, residual) / total[:, None])[None]
        size_of = np.sqrt(np.einsum("fmc,fmc->fm", residual, residual) / 3)
        used = weight > 0
        noise = max(float(1.48 * np.median(size_of[used])), 0.02) if used.any() else 0.1
        robust = 1 / (1 + (size_of / (settings.robust * noise)) ** 2) ** 2
    tail = theta[shared:].reshape(n, per_frame, 3)
    gain = tail[:, 0] - tail[:, 0].mean(0)
    return theta[:shared].reshape(-1, 8, 3), tail[:, 1:], gain, noise


def _prior(n_cameras, same, per_frame, settings, exposure_change: float) -> np.ndarray:
    """Inverse covariance of all unknowns: harmonics of degree one, of degree two, frames' own."""
    n = len(same)
    spread = np.tile([1.0, 1, 1, 0.4, 0.4, 0.4, 0.4, 0.4], n_cameras) * settings.light_prior
    tail = np.tile([1.0, *[settings.light_change] * (per_frame - 1)], n)
    out = np.diag(1 / np.concatenate([spread, tail]) ** 2)
    exposures = np.arange(n) * per_frame + len(spread)
    covariance = EXPOSURE**2 * same + exposure_change**2 * np.eye(n)
    out[np.ix_(exposures, exposures)] = np.linalg.inv(covariance)
    return out
