"""What a face looks like, roughly: enough to tell two people in one shot apart."""

from __future__ import annotations

import cv2
import numpy as np

from recon3d.tracking.crops import FacePlace, cut_crop

_SIDE = 20


def describe_face(image: np.ndarray, place: FacePlace) -> np.ndarray:
    """A coarse, lightness-normalised thumbnail of the face and the hair around it.

    Parameters
    ----------
    image : (H, W, 3) uint8 RGB
    place : FacePlace

    Returns
    -------
    (1200,) float32 of norm 1
    """
    crop = cut_crop(image, place, size=64, margin=1.5).image
    small = cv2.resize(crop, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32)
    lab[..., 0] -= lab[..., 0].mean()
    lab[..., 0] /= lab[..., 0].std() + 8.0
    # Chroma is kept as it is, about the neutral: skin and hair colour tell people apart.
    lab[..., 1:] = (lab[..., 1:] - 128.0) / 14.0
    vector = lab.ravel()
    return vector / (np.linalg.norm(vector) + 1e-6)


class Gallery:
    """A few descriptors of one person by yaw, each a running mean."""

    def __init__(self):
        self._entries: dict[int, tuple[np.ndarray, int]] = {}

    def add(self, vector: np.ndarray, yaw: float) -> None:
        """Take in one face."""
        key = int(np.round(yaw / 15.0))
        mean, count = self._entries.get(key, (vector, 0))
        count = min(count + 1, 25)
        self._entries[key] = (mean + (vector - mean) / count, count)

    def distance(self, vector: np.ndarray, yaw: float) -> float:
        """1 minus the correlation with the nearest yaw; nan where none is within 30 degrees."""
        key = int(np.round(yaw / 15.0))
        near = sorted((abs(k - key), k) for k in self._entries if abs(k - key) <= 2)
        if not near:
            return float("nan")
        mean = self._entries[near[0][1]][0]
        return float(1 - vector @ mean / (np.linalg.norm(mean) + 1e-6))

    def merge(self, other: Gallery) -> None:
        """Take over another gallery."""
        for key, entry in other._entries.items():
            self._entries.setdefault(key, entry)

    def distance_to(self, other: Gallery) -> float:
        """Smallest distance at a shared yaw; nan where they share none."""
        values = [self.distance(v, 15.0 * key) for key, (v, _) in other._entries.items()]
        values = [v for v in values if np.isfinite(v)]
        return float(np.median(values)) if values else float("nan")


class CutDetector:
    """Tell scene cuts from motion: a frame unlike the last in layout and in colours."""

    def __init__(self, threshold: float = 0.32):
        self.threshold = threshold
        self._last: tuple[np.ndarray, np.ndarray] | None = None
        self._usual = 0.02

    def __call__(self, image: np.ndarray) -> bool:
        """Whether this frame begins a new shot (the first frame of all does not)."""
        small = cv2.resize(image, (32, 24), interpolation=cv2.INTER_AREA)
        lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32)
        histogram = np.concatenate(
            [
                np.histogram(lab[..., channel], bins=24, range=(0, 256))[0] / 768.0
                for channel in range(3)
            ]
        ).reshape(3, 24)
        # Bins are smoothed so that a flicker of exposure is not a new histogram.
        histogram = cv2.blur(histogram.astype(np.float32), (5, 1))
        now, last = (lab, histogram), self._last
        self._last = now
        if last is None or last[0].shape != lab.shape:
            return False
        a, b = lab[..., 0] - lab[..., 0].mean(), last[0][..., 0] - last[0][..., 0].mean()
        layout = 1 - float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum() + 1e3))
        colours = float(np.abs(histogram - last[1]).sum(1).mean()) / 2
        change = min(1.0, layout) * 0.6 + min(1.0, 2 * colours) * 0.4
        cut = change > max(self.threshold, 4 * self._usual)
        if not cut:
            self._usual += 0.1 * (change - self._usual)
        return cut
