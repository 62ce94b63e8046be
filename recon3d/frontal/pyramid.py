"""Multi-resolution blending and filling [1]_ [2]_.

References
----------
.. [1] P. Burt and E. Adelson, A multiresolution spline with application to image mosaics, ACM
   Transactions on Graphics 2(4), 1983.
.. [2] S. Gortler et al., The lumigraph, SIGGRAPH 1996 (push-pull interpolation).
"""

from __future__ import annotations

import cv2
import numpy as np


def blend(front: np.ndarray, back: np.ndarray, mask: np.ndarray, levels: int = 5) -> np.ndarray:
    """Put one picture over another, every scale of detail across a border of its own width.

    Parameters
    ----------
    front, back : (H, W, C) float32
    mask : (H, W) in [0, 1], 1 where the front shows
    levels : int

    Returns
    -------
    (H, W, C) float32
    """
    front, back, mask = (np.asarray(a, np.float32) for a in (front, back, mask))
    if levels == 0 or min(mask.shape) < 8:
        return back + mask[..., None] * (front - back)
    small = [cv2.pyrDown(a) for a in (front, back, mask)]
    size = mask.shape[::-1]
    coarse = cv2.pyrUp(blend(*small, levels - 1), dstsize=size)
    detail_front = front - cv2.pyrUp(small[0], dstsize=size)
    detail_back = back - cv2.pyrUp(small[1], dstsize=size)
    return coarse + detail_back + mask[..., None] * (detail_front - detail_back)


def broad_blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """A wide Gaussian blur, of a reduced picture: its cost does not grow with its width.

    Parameters
    ----------
    image : (H, W) or (H, W, C) float32
    sigma : float
        Standard deviation, px; below 8 px the picture is not reduced.

    Returns
    -------
    of the same shape, float32
    """
    image = np.asarray(image, np.float32)
    height, width = image.shape[:2]
    factor = int(min(sigma // 4, height, width))
    if factor < 2:
        return cv2.GaussianBlur(image, (0, 0), sigma)
    size = -(-width // factor), -(-height // factor)
    # Averaging and enlarging blur a little by themselves, by a box and a tent.
    own = (1 / 12 + 1 / 6) * factor**2
    edge = factor * size[1] - height, factor * size[0] - width
    image = cv2.copyMakeBorder(image, 0, edge[0], 0, edge[1], cv2.BORDER_REPLICATE)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), float(np.sqrt(sigma**2 - own)) / factor)
    large = (size[0] * factor, size[1] * factor)
    return cv2.resize(small, large, interpolation=cv2.INTER_LINEAR)[:height, :width]


def push_pull(image: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Fill in a picture smoothly where its weight is zero.

    Parameters
    ----------
    image : (H, W, C) float32
    weight : (H, W) in [0, 1]

    Returns
    -------
    (H, W, C) float32, equal to the image where the weight is 1
    """
    image, weight = np.asarray(image, np.float32), np.asarray(weight, np.float32)
    image = image.reshape(*weight.shape, -1)
    if min(weight.shape) < 2:
        total = max(float(weight.sum()), 1e-6)
        mean = (image * weight[..., None]).sum((0, 1)) / total
        return np.broadcast_to(mean, image.shape).astype(np.float32)
    height, width = weight.shape
    w = cv2.pyrDown(weight)
    x = (
        cv2.pyrDown(image * weight[..., None]).reshape(*w.shape, -1)
        / np.maximum(w, 1e-6)[..., None]
    )
    coarse = push_pull(x, np.minimum(4 * w, 1))
    up = cv2.pyrUp(coarse, dstsize=(width, height)).reshape(height, width, -1)
    return weight[..., None] * image + (1 - weight[..., None]) * up
