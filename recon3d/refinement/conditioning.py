"""What the refiner's network is shown: picture, frames, evidence, normals and landmarks."""

from __future__ import annotations

import cv2
import numpy as np

from recon3d.morphable.topology import (
    BROWS,
    LIDS,
    LIPS,
    NOSE_BASE,
    NOSE_BRIDGE,
    NOSE_WINGS,
)
from recon3d.types import FrontalView

WORKING = 256
"""Side of the pictures inside the network, px; half of the frontal picture's."""

CHANNELS = {
    "picture": 3,
    "reference": 3,
    "evidence": 3,
    "normals": 3,
    "landmarks": 2,
    "mask": 1,
}
"""Input channels in order."""
GUIDES = ("reference", "evidence", "normals", "landmarks", "mask")
"""What the generator may be deprived of: it then sees the picture alone."""

NO_NORMAL = 128
"""Code of all three components where there is no surface."""

_OPEN_LINES = (*BROWS, NOSE_BRIDGE, NOSE_BASE, *NOSE_WINGS)
_CLOSED_LINES = (*LIDS, *LIPS)
_IRISES = ((468, 469, 470, 471, 472), (473, 474, 475, 476, 477))
MOUTH = (61, 291, 13, 14)
"""MediaPipe points whose mean is taken as the middle of the mouth."""
_SUBPIXEL = 4


def landmark_map(landmarks: np.ndarray, side: int = WORKING) -> np.ndarray:
    """Draw landmarks as lines and irises.

    Parameters
    ----------
    landmarks : (478, 2), px of a picture of `side`, centres at half-integers
    side : int

    Returns
    -------
    (side, side, 2) uint8: contours of brows, lids, nose and lips; openings of the eyes and irises
    """
    points = np.nan_to_num(np.asarray(landmarks, np.float64) - 0.5, nan=-1e4)
    fixed = np.clip(np.round(points * 2**_SUBPIXEL), -(2**20), 2**20).astype(np.int32)
    lines = np.zeros((side, side), np.uint8)
    areas = np.zeros((side, side), np.uint8)
    style = dict(thickness=1, lineType=cv2.LINE_AA, shift=_SUBPIXEL)
    for numbers in _OPEN_LINES:
        cv2.polylines(lines, [fixed[list(numbers)]], False, 255, **style)
    for numbers in _CLOSED_LINES:
        cv2.polylines(lines, [fixed[list(numbers)]], True, 255, **style)
    for numbers in _CLOSED_LINES[:2]:
        cv2.fillPoly(areas, [fixed[list(numbers)]], 128, cv2.LINE_AA, _SUBPIXEL)
    for numbers in _IRISES:
        centre = points[numbers[0]]
        radius = np.linalg.norm(points[list(numbers[1:])] - centre, axis=1).mean()
        if 0 < radius < side:
            at = tuple(int(x) for x in fixed[numbers[0]])
            cv2.circle(areas, at, round(radius * 2**_SUBPIXEL), 255, -1, cv2.LINE_AA, _SUBPIXEL)
    return np.stack([lines, areas], -1)


def condition(view: FrontalView) -> dict[str, np.ndarray]:
    """The network's input for a frontal view, at its working size.

    Parameters
    ----------
    view : FrontalView

    Returns
    -------
    dict of (256, 256, C) uint8 by the names of `CHANNELS`; normals are coded as `NO_NORMAL` + 127 n
    """
    small = (WORKING, WORKING)

    def down(image):
        return cv2.resize(image, small, interpolation=cv2.INTER_AREA)

    reference = view.raw if view.reference is None else view.reference
    evidence = view.evidence
    if view.confirmed is not None:
        evidence = evidence.copy()
        evidence[..., 0] = np.round(evidence[..., 0] * view.confirmed)
    normals = np.clip(NO_NORMAL + 127 * down(view.normals.astype(np.float32)), 0, 255)
    return {
        "picture": down(view.raw),
        "reference": down(reference),
        "evidence": down(evidence),
        "normals": np.round(normals).astype(np.uint8),
        "landmarks": landmark_map(view.landmarks * (WORKING / view.raw.shape[0])),
        "mask": np.round(255 * down(view.face_mask)).astype(np.uint8)[..., None],
    }


def as_tensor(inputs: dict[str, np.ndarray], without: tuple[str, ...] = ()):
    """Stack inputs for the network.

    Parameters
    ----------
    inputs : dict of (256, 256, C) or (N, 256, 256, C) uint8
    without : names of inputs to leave out; they are zero

    Returns
    -------
    torch.Tensor (N, 15, 256, 256) float32 in [-1, 1]
    """
    import torch

    parts = []
    for name in CHANNELS:
        part = np.asarray(inputs[name])
        part = part[None] if part.ndim == 3 else part
        part = torch.from_numpy(np.ascontiguousarray(part)).permute(0, 3, 1, 2)
        part = part.float() / 127.5 - 1
        parts.append(torch.zeros_like(part) if name in without else part)
    return torch.cat(parts, 1)
