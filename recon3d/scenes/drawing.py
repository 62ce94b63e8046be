"""Plain places to put heads in."""

from __future__ import annotations

import cv2
import numpy as np


def room(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A plain interior, slightly out of focus.

    Parameters
    ----------
    size : (width, height), px
    rng : Generator
        Chooses colours and where door and skirting lie.

    Returns
    -------
    (height, width, 3) float32, linear RGB
    """
    width, height = size
    wall = rng.uniform(0.18, 0.42) * (1 + rng.normal(0, 0.06, 3))
    picture = np.empty((height, width, 3), np.float32)
    picture[:] = wall
    # A door or a cupboard, darker or lighter than the wall, and its frame.
    x = int(width * rng.uniform(0.05, 0.75))
    wide, top = int(width * rng.uniform(0.14, 0.24)), int(height * rng.uniform(0.02, 0.3))
    frame = max(width // 90, 2)
    picture[top:, x - frame : x + wide + frame] = wall * 0.55
    picture[top + frame :, x : x + wide] = wall * rng.uniform(0.4, 0.8) * [1.15, 0.95, 0.75]
    floor = int(height * rng.uniform(0.8, 0.92))
    picture[floor:] = wall * rng.uniform(0.25, 0.5)
    picture[floor : floor + frame] = wall * 0.75
    # Light falls off from one corner; plaster is uneven.
    u, v = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    lamp = rng.uniform(-1, 1), rng.uniform(-1.2, -0.6)
    picture *= (1.25 / (1 + 0.35 * ((u - lamp[0]) ** 2 + (v - lamp[1]) ** 2)))[..., None]
    coarse = rng.normal(0, 1, (height // 8 + 1, width // 8 + 1)).astype(np.float32)
    uneven = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    picture *= 1 + 0.025 * uneven[..., None]
    return np.clip(cv2.GaussianBlur(picture, (0, 0), width / 500), 0, 1).astype(np.float32)


def shoulders(collar_y: float, centre_z: float) -> tuple[np.ndarray, np.ndarray]:
    """A plain bust for a head to stand on: rings from the collar over the shoulders downwards.

    Parameters
    ----------
    collar_y, centre_z : float
        Height of the collar and depth of the neck's axis, model axes, mm.

    Returns
    -------
    vertices : (V, 3) mm; triangles : (F, 3), counter-clockwise seen from outside
    """
    # Drop below the collar, half width, half depth of the rings.
    rings = np.array(
        [
            [0, 62, 62],
            [12, 74, 70],
            [26, 105, 78],
            [42, 150, 86],
            [62, 185, 94],
            [95, 208, 104],
            [150, 218, 112],
            [420, 225, 118],
        ],
        float,
    )
    fine = np.linspace(0, 1, 40) ** 1.5 * 420
    drop, wide, deep = fine, *(np.interp(fine, rings[:, 0], rings[:, k]) for k in (1, 2))
    n = 64
    around = np.linspace(0, 2 * np.pi, n, endpoint=False)
    x = wide[:, None] * np.sin(around)
    z = centre_z + deep[:, None] * np.cos(around)
    y = np.broadcast_to(collar_y - drop[:, None], x.shape)
    vertices = np.stack([x, y, z], -1).reshape(-1, 3)
    ring, step = np.meshgrid(np.arange(len(drop) - 1), np.arange(n), indexing="ij")
    a, b = (ring * n + step).ravel(), (ring * n + (step + 1) % n).ravel()
    c, d = a + n, b + n
    return vertices, np.concatenate([np.stack([a, c, d], 1), np.stack([a, d, b], 1)])
