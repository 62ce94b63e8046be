"""Landmark sources behind one small interface: pictures of one face in, points out."""

from __future__ import annotations

import os
import queue
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from recon3d.errors import BackendUnavailable, InputError
from recon3d.tracking.quiet import quiet_native_logs
from recon3d.tracking.settings import TrackingSettings
from recon3d.types import N_LANDMARKS


@dataclass(frozen=True)
class CropLandmarks:
    """Landmarks in one crop.

    Attributes
    ----------
    points : (478, 2) float64
        Crop px, pixel centres at half-integers.
    depth : (478,) float64
        Relative z in crop px, smaller is nearer; zeros where the source has none.
    known : (478,) bool
        Points that this source speaks of.
    """

    points: np.ndarray
    depth: np.ndarray
    known: np.ndarray


class Landmarker(Protocol):
    """A landmark source.

    `detect` says whether it can be used here, `describe` what it is; calling it finds one face in
    each square crop, upright and in the middle, None where it finds none.
    """

    name: ClassVar[str]

    @classmethod
    def detect(cls, settings: TrackingSettings) -> str | None:
        """None if usable, else the one line that says what is missing and how to mend it."""

    @classmethod
    def describe(cls) -> dict[str, str]:
        """Points, licence and origin of the weights."""

    def __call__(self, crops: Sequence[np.ndarray]) -> list[CropLandmarks | None]: ...

    def close(self) -> None: ...


def n_threads(settings: TrackingSettings) -> int:
    """Threads for the networks."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return settings.threads or max(1, min(4, cores or 1))


class MediaPipeMesh:
    """MediaPipe's face mesh with irises (`mp.solutions`, weights inside the wheel).

    One graph a thread: a graph is not safe to share, and Python is free while one runs.
    """

    name: ClassVar[str] = "mediapipe"

    def __init__(self, settings: TrackingSettings):
        missing = self.detect(settings)
        if missing:
            raise BackendUnavailable(missing)
        with quiet_native_logs():
            from mediapipe.python.solutions.face_mesh import FaceMesh

            self._graphs: queue.SimpleQueue = queue.SimpleQueue()
            count = n_threads(settings)
            for _ in range(count):
                graph = FaceMesh(
                    # Unrelated crops: the tracking mode would carry the last face over.
                    static_image_mode=True,
                    max_num_faces=1,
                    refine_landmarks=True,
                    # A crop is only cut where a face is expected, and bad meshes show
                    # themselves by their mirror images: be generous here.
                    min_detection_confidence=0.1,
                    min_tracking_confidence=0.1,
                )
                # The graph starts its threads, and logs, at the first picture.
                graph.process(np.zeros((64, 64, 3), np.uint8))
                self._graphs.put([graph, False])
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="recon3d-mesh")

    @classmethod
    def detect(cls, settings: TrackingSettings) -> str | None:
        return _mediapipe_missing()

    @classmethod
    def describe(cls) -> dict[str, str]:
        return {
            "points": "478",
            "licence": "Apache-2.0",
            "origin": "MediaPipe face mesh with attention, in the mediapipe 0.10.21 wheel",
        }

    def __call__(self, crops: Sequence[np.ndarray]) -> list[CropLandmarks | None]:
        if len(crops) == 1:
            return [self._one(crops[0])]
        return list(self._pool.map(self._one, crops))

    def close(self) -> None:
        self._pool.shutdown()
        while not self._graphs.empty():
            self._graphs.get()[0].close()

    def _one(self, crop: np.ndarray) -> CropLandmarks | None:
        slot = self._graphs.get()
        graph, spoken = slot
        try:
            if spoken:
                found = graph.process(crop).multi_face_landmarks
            else:
                # It logs once more with the first face that it finds.
                with quiet_native_logs():
                    found = graph.process(crop).multi_face_landmarks
                slot[1] = bool(found)
        finally:
            self._graphs.put(slot)
        if not found:
            return None
        return _from_normalised(found[0].landmark, crop.shape)


class MediaPipeTasks:
    """MediaPipe's Face Landmarker bundle (a ``.task`` file that the user holds)."""

    name: ClassVar[str] = "mediapipe-tasks"

    def __init__(self, settings: TrackingSettings):
        missing = self.detect(settings)
        if missing:
            raise BackendUnavailable(missing)
        with quiet_native_logs():
            import mediapipe as mp
            from mediapipe.tasks import python as tasks

            options = tasks.vision.FaceLandmarkerOptions(
                base_options=tasks.BaseOptions(model_asset_path=settings.landmark_weights),
                num_faces=1,
                min_face_detection_confidence=0.1,
                min_face_presence_confidence=0.1,
            )
            try:
                self._graph = tasks.vision.FaceLandmarker.create_from_options(options)
            except (RuntimeError, ValueError) as error:
                line = str(error).splitlines()[0]
                raise InputError(
                    f"{settings.landmark_weights}: not a face landmarker bundle ({line})"
                ) from None
            self._image = mp.Image
            self._format = mp.ImageFormat.SRGB
        self._spoken = False

    @classmethod
    def detect(cls, settings: TrackingSettings) -> str | None:
        missing = _mediapipe_missing()
        if missing:
            return missing
        path = settings.landmark_weights
        if path is None or not os.path.isfile(path):
            where = f"{path} does not exist" if path else "no file was named"
            return (
                f"landmarks=mediapipe-tasks needs face_landmarker.task ({where}); download it from "
                "MediaPipe's Face Landmarker page and give its path as landmark_weights"
            )
        return None

    @classmethod
    def describe(cls) -> dict[str, str]:
        return {
            "points": "478",
            "licence": "Apache-2.0",
            "origin": "MediaPipe Face Landmarker bundle, the user's own file",
        }

    def __call__(self, crops: Sequence[np.ndarray]) -> list[CropLandmarks | None]:
        return [self._one(crop) for crop in crops]

    def close(self) -> None:
        self._graph.close()

    def _one(self, crop: np.ndarray) -> CropLandmarks | None:
        image = self._image(image_format=self._format, data=np.ascontiguousarray(crop))
        if self._spoken:
            found = self._graph.detect(image).face_landmarks
        else:
            with quiet_native_logs():
                found = self._graph.detect(image).face_landmarks
            self._spoken = bool(found)
        return _from_normalised(found[0], crop.shape) if found else None


class FaceAlignment:
    """The 68 points of `face-alignment` (Bulat and Tzimiropoulos, ICCV 2017).

    Its weights come from its own host on first use; here they are only ever read from a folder,
    and the face's box is known, so that its detectors, with more downloads, are not needed.
    """

    name: ClassVar[str] = "face-alignment"
    FILE: ClassVar[str] = "2DFAN4-11f355bf06.pth.tar"

    def __init__(self, settings: TrackingSettings):
        missing = self.detect(settings)
        if missing:
            raise BackendUnavailable(missing)
        import torch
        from face_alignment.models import FAN

        path = self.folder(settings) / self.FILE
        try:
            weights = torch.load(str(path), map_location="cpu", weights_only=True)
            self._network = FAN(4)
            self._network.load_state_dict(weights)
        except Exception as error:
            line = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"{path}: not the weights of face-alignment ({line})") from None
        self._network.eval()

    @classmethod
    def folder(cls, settings: TrackingSettings) -> Path:
        """Where its weight file is looked for: the setting, or torch's own download folder."""
        if settings.landmark_weights:
            return Path(settings.landmark_weights)
        home = os.environ.get("TORCH_HOME") or os.path.join(
            os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "torch"
        )
        return Path(home) / "hub" / "checkpoints"

    @classmethod
    def detect(cls, settings: TrackingSettings) -> str | None:
        import importlib.util

        if importlib.util.find_spec("face_alignment") is None:
            return "landmarks=face-alignment needs its package: pip install 'face-alignment>=1.5'"
        folder = cls.folder(settings)
        if not (folder / cls.FILE).is_file():
            return (
                f"landmarks=face-alignment needs its weights: put {cls.FILE} (from the "
                f"authors' page, www.adrianbulat.com/face-alignment) into {folder}"
            )
        return None

    @classmethod
    def describe(cls) -> dict[str, str]:
        return {
            "points": "68",
            "licence": "BSD-3-Clause code; see its project for the weights",
            "origin": "face-alignment 2DFAN4, the user's own copy",
        }

    def __call__(self, crops: Sequence[np.ndarray]) -> list[CropLandmarks | None]:
        return [self._one(crop) for crop in crops]

    def close(self) -> None:
        pass

    def _one(self, crop: np.ndarray) -> CropLandmarks | None:
        import cv2
        import torch

        from recon3d.tracking.topology import IBUG68

        size = crop.shape[0]
        image = cv2.resize(crop, (256, 256), interpolation=cv2.INTER_AREA)
        x = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            output = self._network(x)
        heatmaps = (output[-1] if isinstance(output, list | tuple) else output)[0].numpy()
        if heatmaps.reshape(68, -1).max(1).mean() < 0.1:
            return None
        points = np.zeros((N_LANDMARKS, 2))
        known = np.zeros(N_LANDMARKS, bool)
        points[IBUG68] = heatmap_peaks(heatmaps) * (size / heatmaps.shape[-1])
        known[IBUG68] = True
        return CropLandmarks(points, np.zeros(N_LANDMARKS), known)


def heatmap_peaks(heatmaps: np.ndarray) -> np.ndarray:
    """Peaks of heat maps below the pixel: the centre of mass of 5x5 values around the maximum.

    Parameters
    ----------
    heatmaps : (P, S, S)

    Returns
    -------
    (P, 2) px of the map, pixel centres at half-integers
    """
    count, width = len(heatmaps), heatmaps.shape[2]
    best = heatmaps.reshape(count, -1).argmax(1)
    out = np.empty((count, 2))
    for i, (y, x) in enumerate(zip(*np.divmod(best, width), strict=True)):
        y0, x0 = max(0, y - 2), max(0, x - 2)
        part = np.maximum(heatmaps[i, y0 : y + 3, x0 : x + 3], 0) + 1e-12
        rows, columns = np.mgrid[: part.shape[0], : part.shape[1]]
        total = part.sum()
        out[i] = x0 + 0.5 + (part * columns).sum() / total, y0 + 0.5 + (part * rows).sum() / total
    return out


LANDMARKERS: dict[str, type[Landmarker]] = {
    adapter.name: adapter for adapter in (MediaPipeMesh, MediaPipeTasks, FaceAlignment)
}
"""Adapters by the name that the setting `landmarks` takes."""


def load_landmarker(settings: TrackingSettings, name: str | None = None) -> Landmarker:
    """The landmark source that the settings (or `name`) ask for.

    Raises
    ------
    BackendUnavailable
        With the one line that mends it.
    InputError
        If there is no such source, or its weight file is not one.
    """
    name = name or settings.landmarks
    if name not in LANDMARKERS:
        raise InputError(f"landmarks={name}: not one of {', '.join(LANDMARKERS)}")
    return LANDMARKERS[name](settings)


def _mediapipe_missing() -> str | None:
    import importlib.util

    if importlib.util.find_spec("mediapipe") is None:
        return "mediapipe is not installed: pip install mediapipe==0.10.21"
    return None


def _from_normalised(landmarks, shape) -> CropLandmarks:
    height, width = shape[:2]
    xyz = np.array([(point.x, point.y, point.z) for point in landmarks])
    # z comes in units of the picture's width, like x.
    return CropLandmarks(xyz[:, :2] * [width, height], xyz[:, 2] * width, np.ones(len(xyz), bool))
