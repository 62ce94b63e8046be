"""Block artefacts of JPEG and of old video codecs."""

from __future__ import annotations

import cv2
import numpy as np

from recon3d.restoration.common import StepReport, enter, leave, luma
from recon3d.restoration.noise import dct_shrink


def blockiness(image: np.ndarray, block: int = 8) -> tuple[float, tuple[int, int]]:
    """How much steeper brightness changes across the block grid than beside it.

    Parameters
    ----------
    image : (H, W, 3) float32 sRGB
    block : int

    Returns
    -------
    ratio : float
        1 without a grid.
    origin : (x, y)
        Where the grid begins.
    """
    y = luma(image)
    total, origin = [], []
    for axis in (1, 0):
        step = np.abs(np.diff(y, axis=axis))
        # The second difference does not answer to smooth gradients.
        kink = np.abs(np.diff(y, 2, axis=axis))
        line = np.minimum(step[:, 1:], kink) if axis == 1 else np.minimum(step[1:], kink)
        line = line.mean(1 - axis)
        if len(line) < 3 * block:
            return 1.0, (0, 0)
        phase = np.array([line[i::block].mean() for i in range(block)])
        best = int(phase.argmax())
        # line[i] lies between samples i + 1 and i + 2.
        origin.append((best + 2) % block)
        rest = np.median(np.delete(phase, [best, (best - 1) % block, (best + 1) % block]))
        total.append(phase[best] / max(rest, 1e-6))
    return float(np.sqrt(total[0] * total[1])), (origin[0], origin[1])


GHOST = 0.3
"""Depth of a dip from which a picture counts as a JPEG; video codecs show about 0."""


def estimate_jpeg_quality(image: np.ndarray) -> tuple[int, float]:
    """The JPEG quality at which encoding again changes remarkably little.

    Parameters
    ----------
    image : (H, W, 3) uint8 sRGB
        With its block grid at the origin.

    Returns
    -------
    quality : int
    depth : float
        How far the change there lies below that of its neighbours, relative to them; near 0 for a
        picture that was never a JPEG.

    References
    ----------
    Farid, Exposing digital forgeries from JPEG ghosts, IEEE TIFS 4(1), 2009.
    """
    # The middle is enough, cut along the grid.
    side = 384
    top, left = (max(0, (n - side) // 16 * 8) for n in image.shape[:2])
    grey = cv2.cvtColor(
        np.ascontiguousarray(image[top : top + side, left : left + side]), cv2.COLOR_RGB2GRAY
    )
    qualities = np.arange(4, 98)
    change = np.array([_jpeg_change(grey, int(q)) for q in qualities])
    depth = np.zeros(len(qualities))
    for i in range(4, len(qualities) - 2):
        around = min(np.median(change[i - 4 : i - 1]), np.median(change[i + 2 : i + 5]))
        depth[i] = 1 - change[i] / max(around, 1e-9)
    # Steps that divide the true ones make dips as well, at higher qualities: the lowest counts.
    clear = np.flatnonzero(depth > max(GHOST, 0.4 * float(depth.max())))
    best = int(clear[0]) if len(clear) else int(depth.argmax())
    for i in range(best, min(best + 3, len(depth))):  # the bottom of that dip
        best = i if depth[i] > depth[best] else best
    return int(qualities[best]), float(depth[best])


def deblock(image: np.ndarray, *, quality: int | None = None) -> tuple[np.ndarray, StepReport]:
    """Average re-applications of JPEG to shifted copies of a blocky picture.

    Parameters
    ----------
    image : (H, W, 3) uint8, or float in [0, 1], sRGB
    quality : int, optional
        JPEG quality; measured where it is not given.

    Returns
    -------
    image, StepReport

    References
    ----------
    Nosratinia, Enhancement of JPEG-compressed images by re-application of JPEG, J. VLSI Signal
    Processing 27, 2001.
    """
    u = enter(image)
    ratio, origin = blockiness(u)
    measured = {"blockiness": ratio}
    if ratio < 1.25:
        belief = f"block borders {100 * (ratio - 1):.0f} % steeper than the rest: no blocks"
        return image, StepReport(step="deblock", belief=belief, acted=False, measured=measured)
    # The grid is brought to the origin, so that shifts by 0 meet it.
    aligned = np.ascontiguousarray((u * 255 + 0.5).astype(np.uint8)[origin[1] :, origin[0] :])
    if quality is None:
        quality, depth = estimate_jpeg_quality(aligned)
        measured["ghost_depth"] = depth
        if depth < GHOST:
            belief = "blocks, but not those of a JPEG: left alone"
            return image, StepReport(step="deblock", belief=belief, acted=False, measured=measured)
    measured["quality"] = float(quality)
    if quality > 90:
        belief = f"JPEG of quality {quality}: nothing to gain"
        return image, StepReport(step="deblock", belief=belief, acted=False, measured=measured)
    # Measured best half-way between the picture's own quality and none: coarser rounding of the
    # shifted copies costs more than it smooths.
    again_at = round((quality + 100) / 2)
    total = np.zeros_like(u)
    shifts = [(x, y) for y in range(0, 8, 2) for x in range(0, 8, 2)]
    pixels = (u * 255 + 0.5).astype(np.uint8)
    for x, y in shifts:
        padded = np.pad(pixels, ((8 - y, 8 + y), (8 - x, 8 + x), (0, 0)), mode="edge")
        again = _jpeg(padded, again_at)
        total += again[8 - y : 8 - y + u.shape[0], 8 - x : 8 - x + u.shape[1]]
    result = total / (255 * len(shifts))
    return leave(result, image), StepReport(
        step="deblock",
        belief=f"blocks of a JPEG of quality about {quality}",
        acted=True,
        measured=measured,
        applied={"shifts": float(len(shifts)), "quality": float(quality)},
    )


def soften_coding(image: np.ndarray, sigma: float = 10 / 255) -> tuple[np.ndarray, StepReport]:
    """Shrink the ringing of a video codec whose own filter already removed the blocks.

    What the quantiser took cannot be seen in the picture alone, so the strength is the caller's.

    Parameters
    ----------
    image : (H, W, 3) uint8, or float in [0, 1], sRGB
    sigma : float
        Size of the ringing on the sRGB scale; 10 / 255 suits poor H.264 (crf 30 to 40).

    Returns
    -------
    image, StepReport
    """
    u = enter(image)
    result = dct_shrink(u / sigma, 1.0, 2) * sigma
    return leave(result, image), StepReport(
        step="soften_coding",
        belief="a poor video codec, as the caller said",
        acted=True,
        applied={"sigma_255": 255 * sigma},
    )


def _jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    ok, data = cv2.imencode(
        ".jpg", np.ascontiguousarray(pixels[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    assert ok
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1].astype(np.float32)


def _jpeg_change(grey: np.ndarray, quality: int) -> float:
    _, data = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, quality])
    again = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    return float(np.mean((again.astype(np.float32) - grey) ** 2))
