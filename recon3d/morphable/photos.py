"""Landmarks and blendshape scores of a folder of photos, the data of `build_model`."""

from __future__ import annotations

import csv
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recon3d.errors import InputError, ModelError
from recon3d.morphable.topology import landmark_mirror

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
CROP = 256
"""Side of the crops that the landmarker sees, px: the mesh network's own input is 192."""


@dataclass(frozen=True)
class PhotoLandmarks:
    """What the landmarker saw in N photos.

    Attributes
    ----------
    names : (N,) str
    split : (N,) str, ``train``, ``val``, ``test``
    points : (N, 478, 3) float64
        x, y in px of the photo and relative depth z at the same scale (smaller is nearer), the
        mean over moved and mirrored crops.
    spread : (N, 478) float64
        Standard deviation of a point over the crops, px.
    scores : (N, 52) float64 or None
        ARKit blendshape scores in [0, 1], where the landmarker bundle was given.
    score_names : tuple of str
    """

    names: np.ndarray
    split: np.ndarray
    points: np.ndarray
    spread: np.ndarray
    scores: np.ndarray | None
    score_names: tuple[str, ...]


def read_photos(source: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Photos of a folder or tar archive, in order of name.

    Yields
    ------
    name, image : str, (H, W, 3) uint8 sRGB

    Raises
    ------
    InputError
        If the source is neither, or holds no picture.
    """
    import cv2

    source = Path(source)
    if source.is_dir():
        archives = sorted(source.glob("*.tar"))
        paths = sorted(p for p in source.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        if not paths and archives:
            source = archives[0]
        elif not paths:
            raise InputError(f"{source}: no pictures and no .tar of pictures in this folder")
    if source.is_dir():
        for path in paths:
            image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
            if image is not None:
                yield path.name, cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        return
    if not source.exists() or not tarfile.is_tarfile(source):
        raise InputError(f"{source}: not a folder or tar archive of pictures")
    with tarfile.open(source) as archive:
        members = [m for m in archive if Path(m.name).suffix.lower() in IMAGE_SUFFIXES]
        if not members:
            raise InputError(f"{source}: no pictures in this archive")
        for member in sorted(members, key=lambda m: m.name):
            data = np.frombuffer(archive.extractfile(member).read(), np.uint8)
            image = cv2.imdecode(data, cv2.IMREAD_COLOR)
            if image is not None:
                yield Path(member.name).name, cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_metadata(source: Path) -> dict[str, dict[str, str]]:
    """Rows of the optional ``metadata.csv`` next to the photos, by file name."""
    source = Path(source)
    path = (source if source.is_dir() else source.parent) / "metadata.csv"
    if not path.exists():
        return {}
    with open(path, newline="", encoding="utf-8") as file:
        return {row["file"]: row for row in csv.DictReader(file) if row.get("file")}


def measure_photos(
    source: Path,
    *,
    crops: int = 6,
    seed: int = 0,
    bundle: Path | None = None,
    max_spread: float = 0.05,
    progress: Callable[[str, int], None] | None = None,
) -> PhotoLandmarks:
    """Find the face mesh in every photo, in several moved and mirrored crops.

    Photos without a face, with covered eyes (``sunglasses`` in the metadata's flags) or on which
    the crops disagree are left out.

    Parameters
    ----------
    source : Path
        Folder or tar archive; ``metadata.csv`` beside it may have columns file, split, flags.
    crops : int
        Crops per photo, half of them mirrored.
    seed : int
    bundle : Path, optional
        MediaPipe's ``face_landmarker.task``, for the blendshape scores.
    max_spread : float
        Largest RMS disagreement of crops, as a share of the eye distance.
    progress : callable(name, done), optional

    Raises
    ------
    InputError
        If there are no photos, or fewer than 20 of them show a usable face.
    """
    import cv2
    import mediapipe as mp

    rng = np.random.default_rng(seed)
    mirror = landmark_mirror()
    metadata = read_metadata(source)
    scorer = _Scorer(bundle) if bundle else None
    names, splits, points, spreads, scores = [], [], [], [], []
    with mp.solutions.face_mesh.FaceMesh(
        static_image_mode=True,
        refine_landmarks=True,
        max_num_faces=1,
        min_detection_confidence=0.3,
    ) as mesh:
        for done, (name, image) in enumerate(read_photos(source)):
            if progress:
                progress(name, done)
            row = metadata.get(name, {})
            if "sunglasses" in row.get("flags", ""):
                continue
            first = _detect(mesh, image)
            if first is None:
                continue
            found = []
            for number in range(crops):
                M = _crop_matrix(first, rng)
                crop = cv2.warpAffine(
                    image,
                    M,
                    (CROP, CROP),
                    flags=cv2.INTER_AREA if np.hypot(*M[0, :2]) < 1 else cv2.INTER_CUBIC,
                    borderMode=cv2.BORDER_REPLICATE,
                )
                flip = number % 2 == 1
                seen = _detect(mesh, crop[:, ::-1] if flip else crop)
                if seen is None:
                    continue
                if flip:
                    seen[:, 0] = CROP - seen[:, 0]
                    seen = seen[mirror]
                A = M[:, :2]
                xy = (seen[:, :2] - M[:, 2]) @ np.linalg.inv(A).T
                found.append(np.c_[xy, seen[:, 2] / np.sqrt(np.linalg.det(A))])
            if len(found) < max(2, crops // 2):
                continue
            stack = np.stack(found)
            mean = stack.mean(0)
            spread = stack[..., :2].std(0, ddof=1).mean(-1)
            eyes = np.linalg.norm(mean[[33, 133]].mean(0) - mean[[263, 362]].mean(0))
            if np.sqrt((spread[:468] ** 2).mean()) > max_spread * eyes:
                continue
            score = scorer(image) if scorer else None
            if scorer and score is None:
                continue
            names.append(name)
            splits.append(row.get("split") or _split_of(name))
            points.append(mean)
            spreads.append(spread)
            scores.append(score)
    if len(names) < 20:
        raise InputError(f"{source}: {len(names)} usable faces, at least 20 are needed")
    return PhotoLandmarks(
        np.array(names),
        np.array(splits),
        np.stack(points),
        np.stack(spreads),
        np.stack(scores) if scorer else None,
        scorer.names if scorer else (),
    )


def save_landmarks(path: Path, landmarks: PhotoLandmarks) -> None:
    """Keep measured landmarks, so that a rebuilt model need not measure again."""
    np.savez_compressed(
        path,
        names=landmarks.names.astype("U"),
        split=landmarks.split.astype("U"),
        points=landmarks.points,
        spread=landmarks.spread.astype(np.float32),
        scores=np.zeros((0, 0)) if landmarks.scores is None else landmarks.scores,
        score_names=np.array(landmarks.score_names, "U"),
    )


def load_landmarks(path: Path) -> PhotoLandmarks:
    """The counterpart of `save_landmarks`.

    Raises
    ------
    ModelError
        If the file is not one.
    """
    try:
        with np.load(path, allow_pickle=False) as z:
            scores = z["scores"]
            return PhotoLandmarks(
                z["names"],
                z["split"],
                z["points"],
                z["spread"].astype(np.float64),
                scores if scores.size else None,
                tuple(str(n) for n in z["score_names"]),
            )
    except (OSError, KeyError, ValueError) as error:
        raise ModelError(f"{path}: not a landmark cache ({error}); delete it") from error


def _split_of(name: str) -> str:
    """A stable split for photos without metadata: about one in ten is held out."""
    import hashlib

    return "test" if hashlib.sha1(name.encode()).digest()[0] < 26 else "train"


def _detect(mesh, image: np.ndarray) -> np.ndarray | None:
    height, width = image.shape[:2]
    result = mesh.process(np.ascontiguousarray(image))
    if not result.multi_face_landmarks:
        return None
    face = result.multi_face_landmarks[0].landmark
    return np.array([[p.x * width, p.y * height, p.z * width] for p in face])


def _crop_matrix(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(2, 3) map from photo to a slightly moved, turned and scaled crop of the face."""
    low, high = points[:468, :2].min(0), points[:468, :2].max(0)
    eyes = points[[263, 362], :2].mean(0) - points[[33, 133], :2].mean(0)
    side = (high - low).max() * rng.uniform(1.5, 1.85)
    angle = -np.arctan2(eyes[1], eyes[0]) + np.radians(rng.uniform(-6, 6))
    centre = (low + high) / 2 + rng.uniform(-0.04, 0.04, 2) * side
    c, s = np.cos(angle) * CROP / side, np.sin(angle) * CROP / side
    A = np.array([[c, -s], [s, c]])
    return np.c_[A, CROP / 2 - A @ centre]


class _Scorer:
    """ARKit blendshape scores of a photo, averaged with those of its mirror image."""

    def __init__(self, bundle: Path):
        import mediapipe as mp

        if not Path(bundle).exists():
            raise InputError(f"{bundle}: no such landmarker bundle")
        vision = mp.tasks.vision
        self._mp = mp
        self._landmarker = vision.FaceLandmarker.create_from_options(
            vision.FaceLandmarkerOptions(
                base_options=mp.tasks.BaseOptions(model_asset_path=str(bundle)),
                output_face_blendshapes=True,
                num_faces=1,
                min_face_detection_confidence=0.3,
            )
        )
        self.names: tuple[str, ...] = ()

    def _scores(self, image: np.ndarray) -> np.ndarray | None:
        picture = self._mp.Image(
            image_format=self._mp.ImageFormat.SRGB, data=np.ascontiguousarray(image)
        )
        result = self._landmarker.detect(picture)
        if not result.face_blendshapes:
            return None
        categories = result.face_blendshapes[0]
        self.names = tuple(c.category_name for c in categories)
        return np.array([c.score for c in categories])

    def __call__(self, image: np.ndarray) -> np.ndarray | None:
        plain, mirrored = self._scores(image), self._scores(image[:, ::-1])
        if plain is None or mirrored is None:
            return None
        swapped = [
            n.replace("Left", "#").replace("Right", "Left").replace("#", "Right")
            for n in self.names
        ]
        order = [self.names.index(n) if n in self.names else i for i, n in enumerate(swapped)]
        return (plain + mirrored[order]) / 2
