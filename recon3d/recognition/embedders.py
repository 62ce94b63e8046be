"""Face embedders behind one small interface: a picture and its landmarks in, a vector out."""

from __future__ import annotations

import importlib.metadata
import threading
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np

from recon3d.checks import check_shape
from recon3d.errors import BackendUnavailable, InputError, ModelError

VERIFY_THRESHOLD = 0.6
"""Embedding distance below which dlib's authors call two faces the same person."""


class FaceEmbedder(Protocol):
    """A face embedder.

    `detect` says whether it can be used here, `describe` what it is; calling it embeds one face.
    """

    name: ClassVar[str]
    threshold: ClassVar[float]

    @classmethod
    def detect(cls) -> str | None:
        """None if usable, else the one line that mends it."""

    @classmethod
    def describe(cls) -> dict[str, str]:
        """Size, licence and origin of the weights."""

    def __call__(self, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray: ...


class DlibEmbedder:
    """dlib's ResNet of 128 dimensions, fed with eye and nose points of the face mesh [1]_.

    The weights lie in the package ``face_recognition_models`` (CC0). That package cannot be
    imported with recent setuptools, so that its files are looked up in its metadata.

    References
    ----------
    .. [1] D. E. King, Dlib-ml: a machine learning toolkit, JMLR 10, 2009; model
       ``dlib_face_recognition_resnet_model_v1``.
    """

    name: ClassVar[str] = "dlib"
    threshold: ClassVar[float] = VERIFY_THRESHOLD
    FILE: ClassVar[str] = "dlib_face_recognition_resnet_model_v1.dat"
    # Outer and inner corner of the left eye, of the right eye, and the base of the nose: the five
    # points of dlib's own aligner.
    POINTS: ClassVar[tuple[int, ...]] = (263, 362, 33, 133, 2)

    def __init__(self):
        missing = self.detect()
        if missing:
            raise BackendUnavailable(missing)
        import dlib

        path = self.weights_path()
        self._dlib = dlib
        try:
            self._network = dlib.face_recognition_model_v1(str(path))
        except RuntimeError as error:
            raise ModelError(f"{path}: not dlib's face recognition model ({error})") from None
        self._lock = threading.Lock()

    @classmethod
    def detect(cls) -> str | None:
        import importlib.util

        mend = "pip install 'recon3d[recognition]'"
        if importlib.util.find_spec("dlib") is None:
            return f"face recognition needs dlib: {mend}"
        if cls.weights_path() is None:
            return f"face recognition needs the weights of face_recognition_models: {mend}"
        return None

    @classmethod
    def describe(cls) -> dict[str, str]:
        return {
            "size": "128",
            "licence": "CC0-1.0 (weights), BSL-1.0 (dlib)",
            "origin": f"{cls.FILE} of the package face_recognition_models",
        }

    def __call__(self, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """Embed a face.

        Parameters
        ----------
        image : (H, W, 3) uint8 RGB
        landmarks : (478, 2) px, pixel centres at half-integers

        Returns
        -------
        (128,) float64
        """
        check_shape(image, "H W 3", "image")
        check_shape(landmarks, "478 2", "landmarks")
        if image.dtype != np.uint8:
            raise InputError(f"image has type {image.dtype}, expected uint8")
        dlib = self._dlib
        # dlib has pixel centres at integers and takes whole ones only: enlarge small faces first,
        # or the eyes of a face of 20 px are misplaced by a tenth of their distance.
        image, points = _at_usual_size(image, landmarks[list(self.POINTS)])
        x, y = np.round(points - 0.5).astype(int).T
        low, high = points.min(0).astype(int), points.max(0).astype(int)
        box = dlib.rectangle(int(low[0]), int(low[1]), int(high[0]), int(high[1]))
        shape = dlib.full_object_detection(
            box, dlib.points([dlib.point(int(a), int(b)) for a, b in zip(x, y)])
        )
        with self._lock:  # the network keeps its activations
            return np.array(self._network.compute_face_descriptor(image, shape, 0, 0.25))

    @classmethod
    def weights_path(cls) -> Path | None:
        try:
            files = importlib.metadata.files("face_recognition_models") or ()
        except importlib.metadata.PackageNotFoundError:
            return None
        for file in files:
            if file.name == cls.FILE:
                path = Path(str(file.locate()))
                return path if path.is_file() else None
        return None


EMBEDDERS: dict[str, type[FaceEmbedder]] = {adapter.name: adapter for adapter in (DlibEmbedder,)}
"""Adapters by name."""


def load_embedder(name: str = "dlib") -> FaceEmbedder:
    """Load a face embedder.

    Raises
    ------
    BackendUnavailable
        With the one line that installs it.
    InputError
        If there is no embedder of that name.
    """
    if name not in EMBEDDERS:
        raise InputError(f"face embedder {name}: not one of {', '.join(EMBEDDERS)}")
    return EMBEDDERS[name]()


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Euclidean distance of two embeddings; `VERIFY_THRESHOLD` is the usual same-person limit."""
    return float(np.linalg.norm(np.asarray(a, np.float64) - np.asarray(b, np.float64)))


def verify(a: np.ndarray, b: np.ndarray, threshold: float = VERIFY_THRESHOLD) -> bool:
    """Whether two embeddings are taken to be of one person."""
    return distance(a, b) < threshold


def _at_usual_size(image: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    import cv2

    spread = float(np.linalg.norm(np.ptp(points, axis=0)))
    # The network's crop of 150 px holds these points about 90 px apart.
    factor = 90.0 / max(spread, 1.0)
    low = np.maximum(np.floor(points.min(0) - 1.5 * spread), 0).astype(int)
    high = np.ceil(points.max(0) + 1.5 * spread).astype(int)
    high = np.minimum(high, [image.shape[1], image.shape[0]])
    part = image[low[1] : high[1], low[0] : high[0]]
    if part.size == 0:
        raise InputError("landmarks lie outside the image")
    if 0.8 < factor <= 1.0:
        return np.ascontiguousarray(part), points - low
    size = np.maximum(np.round(np.array(part.shape[1::-1]) * factor).astype(int), 8)
    how = cv2.INTER_CUBIC if factor > 1 else cv2.INTER_AREA
    enlarged = cv2.resize(part, (int(size[0]), int(size[1])), interpolation=how)
    return enlarged, (points - low) * (size / part.shape[1::-1])
