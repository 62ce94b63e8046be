"""Find faces: MediaPipe's two detectors, on the whole frame and on overlapping tiles."""

from __future__ import annotations

import queue
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from recon3d.tracking.crops import FacePlace
from recon3d.tracking.landmarks import n_threads
from recon3d.tracking.quiet import quiet_native_logs
from recon3d.tracking.settings import TrackingSettings

# A detector sees at most 192 px; a face should fill this share of the tile to be found for sure.
_SHARE_OF_TILE = 0.08


@dataclass(frozen=True)
class Detection:
    """One detected face: where, and how sure (0 to 1)."""

    place: FacePlace
    score: float


def tile_grid(width: int, height: int, min_face_px: float) -> list[tuple[int, int, int, int]]:
    """Overlapping square tiles (x0, y0, x1, y1) from coarse to fine, so that small faces are found.

    The sides halve until a face of `min_face_px` fills enough of a tile. Neighbours overlap by
    a third. The whole frame is not among them.
    """
    tiles = []
    side = min(width, height)
    finest = max(min_face_px / _SHARE_OF_TILE, 64)
    if max(width, height) > 1.4 * side:  # a long frame: squares of its full short side first
        tiles += _tiles(width, height, side)
    while side > finest * 1.2:
        side = max(side // 2, int(finest))
        tiles += _tiles(width, height, side)
    return tiles


def _tiles(width, height, side):
    def starts(length):
        if length <= side:
            return [0]
        count = int(np.ceil((length - side) / (side * 2 / 3))) + 1
        return np.linspace(0, length - side, count).round().astype(int).tolist()

    return [(x, y, x + side, y + side) for y in starts(height) for x in starts(width)]


class FaceDetector:
    """Both detectors, one pair a thread."""

    def __init__(self, settings: TrackingSettings):
        self._min_face = settings.min_face_px
        with quiet_native_logs():
            from mediapipe.python.solutions.face_detection import FaceDetection

            self._graphs: queue.SimpleQueue = queue.SimpleQueue()
            count = n_threads(settings)
            for _ in range(count):
                pair = [
                    FaceDetection(min_detection_confidence=0.3, model_selection=model)
                    for model in (0, 1)
                ]
                for graph in pair:
                    graph.process(np.zeros((64, 64, 3), np.uint8))
                self._graphs.put(pair)
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="recon3d-detect")

    def __call__(
        self, image: np.ndarray, regions: list[tuple[int, int, int, int]], *, whole: bool = True
    ) -> list[Detection]:
        """Detect in the whole frame (both detectors) and in the given tiles.

        Parameters
        ----------
        image : (H, W, 3) uint8 RGB
        regions : list of x0, y0, x1, y1
        whole : bool
            Whether to search the whole frame.

        Returns
        -------
        list of Detection, surest first, overlapping ones merged
        """
        height, width = image.shape[:2]
        jobs = [((0, 0, width, height), model) for model in (0, 1)] if whole else []
        jobs += [(tuple(region), model) for region in regions for model in (0, 1)]
        found = self._pool.map(lambda job: self._one(image, *job), jobs)
        return _merge([detection for part in found for detection in part])

    def close(self) -> None:
        self._pool.shutdown()
        while not self._graphs.empty():
            for graph in self._graphs.get():
                graph.close()

    def _one(self, image, region, model) -> list[Detection]:
        x0, y0, x1, y1 = region
        tile = np.ascontiguousarray(image[max(y0, 0) : y1, max(x0, 0) : x1])
        if min(tile.shape[:2]) < 16:
            return []
        pair = self._graphs.get()
        try:
            found = pair[model].process(tile).detections
        finally:
            self._graphs.put(pair)
        out = []
        height, width = tile.shape[:2]
        for detection in found or ():
            box = detection.location_data.relative_bounding_box
            w, h = box.width * width, box.height * height
            if not np.isfinite([w, h]).all() or max(w, h) < 0.6 * self._min_face:
                continue
            if x1 - x0 < image.shape[1] and _cut_by_tile(box, region, image.shape):
                continue  # a neighbour sees the whole of it
            points = detection.location_data.relative_keypoints
            right, left = points[0], points[1]
            roll = np.degrees(np.arctan2(-(left.y - right.y) * height, (left.x - right.x) * width))
            centre = np.array(
                [x0 + (box.xmin + box.width / 2) * width, y0 + (box.ymin + box.height / 2) * height]
            )
            # The detector's box ends at the brows, the mesh's at the hair line.
            up = -0.08 * max(w, h)
            angle = np.radians(roll)
            centre += [up * np.sin(angle), up * np.cos(angle)]
            place = FacePlace(centre, 1.2 * max(w, h), float(roll))
            out.append(Detection(place, float(detection.score[0])))
        return out


def _cut_by_tile(box, region, shape) -> bool:
    """Whether the box touches an inner edge of its tile."""
    x0, y0, x1, y1 = region
    return (
        (box.xmin < 0 and x0 > 0)
        or (box.ymin < 0 and y0 > 0)
        or (box.xmin + box.width > 1 and x1 < shape[1])
        or (box.ymin + box.height > 1 and y1 < shape[0])
    )


def _merge(detections: list[Detection]) -> list[Detection]:
    kept: list[Detection] = []
    for new in sorted(detections, key=lambda d: -d.score):
        if all(not same_place(new.place, old.place) for old in kept):
            kept.append(new)
    return kept


def same_place(a: FacePlace, b: FacePlace, reach: float = 0.45) -> bool:
    """Whether two places are one face: centres within `reach` of the smaller size, sizes alike."""
    ratio = max(a.size, b.size) / max(min(a.size, b.size), 1e-6)
    near = np.linalg.norm(a.centre - b.centre) < reach * min(a.size, b.size)
    return bool(near and ratio < 2.2)
