"""What the mesh mis-explains: a small, smooth flow between each frame and the fused texture.

Lucas-Kanade on a coarse grid of cubic B-splines with a normal prior for every control point, so
that the flow is smooth and bounded by construction, and zero where the picture says nothing [1]_.

References
----------
.. [1] R. Szeliski and J. Coughlan, Spline-based image registration, IJCV 22(3), 1997.
"""

from __future__ import annotations

import cv2
import numpy as np

from recon3d.texturing._kernels import flow_normal_equations
from recon3d.texturing.superresolution import Operator, channel_mean


def register(
    operator: Operator,
    texture: np.ndarray,
    size: tuple[int, int],
    *,
    spacing_mm: float,
    spread_mm: float,
    shift_mm: float,
) -> np.ndarray | None:
    """The flow that takes a view's texels to where its picture agrees best with the texture.

    Parameters
    ----------
    operator : Operator
    texture : (P, 3) linear
    size : (h, w)
        Of the samples' picture.
    spacing_mm : float
        Between control points.
    spread_mm : float
        Standard deviation of a control point's movement.
    shift_mm : float
        Standard deviation of the whole view's shift.

    Returns
    -------
    (h, w, 2) float32 or None
        Movement in px for points of the samples' picture; None where it shows too little.
    """
    s = operator
    weight = operator.belief / max(float(operator.belief.max()), 1e-12)
    if np.count_nonzero(weight > 0.1) < 30:
        return None
    predicted = _tone(operator.forward(texture))
    observed = _tone(s.image)
    # Both are looked at through the same small blur: gradients of noise are no signal.
    sigma = 0.7
    inside = (operator.inverse > 0).astype(np.float32)
    share = np.maximum(cv2.GaussianBlur(inside, (0, 0), sigma), 1e-3)
    predicted = cv2.GaussianBlur(predicted * inside, (0, 0), sigma) / share
    observed_same = cv2.GaussianBlur(observed * inside, (0, 0), sigma) / share
    whole = cv2.GaussianBlur(observed, (0, 0), sigma)
    mixed = 0.5 * (predicted * inside + whole * (1 - inside)) + 0.5 * whole
    gx = cv2.Sobel(mixed, cv2.CV_32F, 1, 0, scale=1 / 8)
    gy = cv2.Sobel(mixed, cv2.CV_32F, 0, 1, scale=1 / 8)
    weight = cv2.erode(weight, np.ones((3, 3), np.uint8))
    rows, columns = np.nonzero(weight > 0.02)
    if len(rows) < 30:
        return None
    spacing = spacing_mm / s.pixel_mm
    x0, y0 = columns.min(), rows.min()
    nx = int(np.ceil((columns.max() - x0) / spacing)) + 3
    ny = int(np.ceil((rows.max() - y0) / spacing)) + 3
    step = (predicted - observed_same)[rows, columns]
    noise = max(1.48 * float(np.median(np.abs(step))), 0.004)
    agree = 1 / (1 + (step / (2.5 * noise)) ** 2) ** 2
    w = weight[rows, columns] * agree
    # The blur makes neighbouring pixels repeat one another: count one in four.
    normal, right = flow_normal_equations(
        (columns - x0) / spacing,
        (rows - y0) / spacing,
        nx,
        ny,
        gx[rows, columns],
        gy[rows, columns],
        w * np.float32(0.25 / noise**2),
        step,
    )
    prior = np.full(nx * ny + 1, (s.pixel_mm / spread_mm) ** 2)
    prior[-1] = (s.pixel_mm / shift_mm) ** 2
    flow = np.linalg.solve(normal + np.diag(np.tile(prior, 2)), right)
    x0, y0 = x0 + s.origin[0], y0 + s.origin[1]
    height, width = size
    bx = _cubic((np.arange(width) - x0) / spacing, nx)
    by = _cubic((np.arange(height) - y0) / spacing, ny)
    fields = [by @ part[:-1].reshape(ny, nx) @ bx.T + part[-1] for part in np.split(flow, 2)]
    bound = 3 * spread_mm / s.pixel_mm
    return np.clip(np.stack(fields, axis=-1), -bound, bound).astype(np.float32)


def _tone(image: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(channel_mean(image), 0) + 0.002)


def _cubic(at: np.ndarray, n: int) -> np.ndarray:
    """Values of n uniform cubic B-splines centred at -1, 0, 1, ... (len(at), n)."""
    d = np.abs(at[:, None] - (np.arange(n) - 1)[None])
    near = 2 / 3 - d**2 + d**3 / 2
    far = np.maximum(2 - d, 0) ** 3 / 6
    return np.where(d < 1, near, far)
