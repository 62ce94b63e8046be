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
