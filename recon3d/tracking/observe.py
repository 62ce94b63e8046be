"""From a place in a frame to an observed face: mesh, agreement, covariance, quality."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np

from recon3d.tracking.crops import (
    Crop,
    FacePlace,
    cut_crop,
    face_brightness,
    normalise_exposure,
)
from recon3d.tracking.landmarks import CropLandmarks, Landmarker
from recon3d.tracking.pose import rough_pose
from recon3d.tracking.settings import TrackingSettings
from recon3d.tracking.topology import MIRROR

# Sides of crops in face sizes. Tight ones give the best meshes, wide ones find a face that is not
# quite where it was expected; a bad first look is mended by the median of several.
_FIRST = (1.3,)
_WIDE = (1.9, 3.0)
_MORE = (1.2, 1.45, 1.6)
_DOUBTFUL = 0.08
# Mean change of shape from one frame to the next, in eye distances, that a turning head may show.
_LIKE = 0.16
# Standard deviations below which no landmark is believed: px, and share of the face's size.
_FLOOR_PX = 0.15
_FLOOR_SHARE = 0.006
_UNKNOWN = 10.0


@dataclass(frozen=True)
class Mesh:
    """One face's landmarks in one frame.

    Attributes
    ----------
    landmarks : (478, 2) px of the frame
    depth : (478,) px
    disagreement : float
        Mean distance between the meshes of the crop and of its mirror image over the eye distance
        that a frontal face of this size has.
    angles : (3,) degrees, yaw, pitch, roll
    tilt : float, degrees
        Counter-clockwise lean of the head's vertical in the picture (roll, seen).
    scale : float, px per mm
    brightness : float, 0 to 1
    """

    landmarks: np.ndarray
    depth: np.ndarray
    disagreement: float
    angles: np.ndarray
    tilt: float
    scale: float
    brightness: float

    @cached_property
    def box(self) -> np.ndarray:
        """(4,) x0, y0, x1, y1."""
        points = self.landmarks[:468]
        return np.concatenate([points.min(0), points.max(0)])

    @property
    def face_px(self) -> float:
        """Width of the box, px."""
        box = self.box
        return float(box[2] - box[0])

    @cached_property
    def place(self) -> FacePlace:
        """Where it is: from the head's size and turn, so that it does not breathe with them."""
        points = self.landmarks[:468]
        angle = np.radians(self.tilt)
        axes = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        upright = points @ axes.T
        low, high = upright.min(0), upright.max(0)
        return FacePlace((low + high) / 2 @ axes, float((high - low).max()), self.tilt)


def observe(
    image: np.ndarray,
    places: Sequence[FacePlace],
    landmarker: Landmarker,
    settings: TrackingSettings,
    previous: Sequence[Mesh | None] | None = None,
) -> list[Mesh | None]:
    """The mesh at each place from crops and their mirror images; None where either find no face.

    Parameters
    ----------
    image : (H, W, 3) uint8 RGB
    places : sequence of FacePlace
    landmarker : Landmarker, of all 478 points
    settings : TrackingSettings
    previous : sequence of Mesh or None, optional
        The same faces a moment ago. Where looks at a turned face disagree, those that are like it
        are believed, if there are enough.

    Returns
    -------
    list of Mesh or None
    """
    light = [face_brightness(image, place) for place in places]
    looks: list[_Looks] = [_Looks() for _ in places]

    def look(numbers: Sequence[int], at: Sequence[FacePlace], margins: Sequence[float]) -> None:
        plan = [(i, p, m, f) for i, p in zip(numbers, at) for m in margins for f in (False, True)]
        crops = [
            _prepare(image, place, light[i], settings, margin=margin, mirrored=mirrored)
            for i, place, margin, mirrored in plan
        ]
        for (i, _, _, _), crop, found in zip(plan, crops, landmarker([c.image for c in crops])):
            if found is not None:
                looks[i].add(crop, found)

    everyone = range(len(places))
    look(everyone, places, _FIRST)
    lost = [i for i in everyone if not looks[i].complete]
    look(lost, [places[i] for i in lost], _WIDE)
    meshes = [seen.mesh(bright) for seen, bright in zip(looks, light)]
    again: list[tuple[int, FacePlace]] = []
    for i, mesh in enumerate(meshes):
        if mesh is not None and mesh.disagreement > _DOUBTFUL and _plausible(mesh, places[i]):
            again.append((i, mesh.place))
        elif mesh is None and previous is not None and previous[i] is not None:
            again.append((i, places[i]))
    look([i for i, _ in again], [place for _, place in again], _MORE)
    for i, _ in again:
        meshes[i] = looks[i].mesh(light[i])
        bad = meshes[i] is None or meshes[i].disagreement > settings.max_mirror_disagreement
        if bad and previous is not None and previous[i] is not None:
            like = looks[i].like(previous[i], light[i], settings.max_mirror_disagreement)
            meshes[i] = like or meshes[i]
    return meshes


def _plausible(mesh: Mesh, place: FacePlace) -> bool:
    return bool(
        0.4 < mesh.place.size / place.size < 2.5
        and np.linalg.norm(mesh.place.centre - place.centre) < place.size
    )


class _Looks:
    """Meshes of one face, plain and mirrored apart."""

    def __init__(self):
        self._points: dict[bool, list[np.ndarray]] = {False: [], True: []}
        self._depth: list[np.ndarray] = []

    def add(self, crop: Crop, landmarks: CropLandmarks) -> None:
        points, depth, _ = _to_frame(crop, landmarks)
        self._points[crop.mirrored].append(points)
        self._depth.append(depth)

    @property
    def complete(self) -> bool:
        return bool(self._points[False] and self._points[True])

    def mesh(self, light: float) -> Mesh | None:
        """The mean of the two kinds' medians; None without both kinds."""
        if not self.complete:
            return None
        a, b = (np.median(self._points[kind], axis=0) for kind in (False, True))
        return self._as_mesh((a + b) / 2, np.linalg.norm(a - b, axis=1).mean(), light)

    def like(self, previous: Mesh, light: float, limit: float) -> Mesh | None:
        """The mean of the looks that resemble an earlier mesh up to place and size, if at least a
        third do and they agree among themselves. It counts as a doubtful mesh whatever its spread,
        because its mirror image did not confirm it."""
        points = np.array(self._points[False] + self._points[True])
        if len(points) < 3:
            return None
        before = previous.landmarks - previous.landmarks.mean(0)
        eyes = 63.0 * previous.scale
        centred = points - points.mean(1, keepdims=True)
        zoom = np.clip(np.einsum("kpi,pi->k", centred, before) / (before**2).sum(), 0.8, 1.25)
        change = np.linalg.norm(centred / zoom[:, None, None] - before, axis=2).mean(1) / eyes
        kept = points[change < _LIKE]
        if len(kept) < max(3, len(points) / 3):
            return None
        middle = np.median(kept, axis=0)
        spread = np.linalg.norm(kept - middle, axis=2).mean()
        return self._as_mesh(middle, max(2 * spread, 1.2 * limit * eyes), light)

    def _as_mesh(self, landmarks: np.ndarray, difference: float, light: float) -> Mesh:
        angles, scale, R = rough_pose(landmarks)
        # 63 mm between the pupils of the mean head.
        disagreement = float(difference / (63.0 * scale + 1e-9))
        depth = np.mean(self._depth, axis=0)
        return Mesh(landmarks, depth, disagreement, angles, _tilt(R), scale, light)


def measure(
    image: np.ndarray,
    place: FacePlace,
    landmarker: Landmarker,
    settings: TrackingSettings,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """Landmark mean and covariance over slightly moved, scaled, turned and mirrored crops.

    Parameters
    ----------
    image : (H, W, 3) uint8 RGB
    place : FacePlace
    landmarker : Landmarker
    settings : TrackingSettings
    rng : Generator

    Returns
    -------
    mean : (478, 2) px; covariance : (478, 2, 2) px^2; depth : (478,) px; known : (478,) bool
        None if fewer than two crops show a face.
    """
    light = face_brightness(image, place)
    crops = []
    for i in range(settings.jitter):
        # Antithetic pairs: what one crop is moved by, the next is moved by the other way.
        if i % 2 == 0:
            shift, zoom, turn = rng.normal(0, 0.02, 2), rng.normal(0, 0.04), rng.normal(0, 2.5)
        sign = 1 if i % 2 == 0 else -1
        moved = FacePlace(
            place.centre + sign * shift * place.size,
            place.size * float(np.exp(sign * np.clip(zoom, -0.1, 0.1))),
            place.roll + sign * float(np.clip(turn, -7, 7)),
        )
        crops.append(_prepare(image, moved, light, settings, margin=1.3, mirrored=i % 4 in (1, 2)))
    found = [
        (crop, landmarks)
        for crop, landmarks in zip(crops, landmarker([crop.image for crop in crops]))
        if landmarks is not None
    ]
    if len(found) < 2:
        return None
    placed = [_to_frame(crop, landmarks) for crop, landmarks in found]
    points = np.stack([p for p, _, _ in placed])
    depth = np.mean([d for _, d, _ in placed], axis=0)
    known = np.all([k for _, _, k in placed], axis=0)
    # One crop that went astray must not drag the mean: weigh crops by distance from the median.
    middle = np.median(points[:, known], axis=0)
    error = np.linalg.norm(points[:, known] - middle, axis=2).mean(1)
    weight = 1 / (1 + (error / (2 * np.median(error) + 1e-6)) ** 2)
    # Mirrored and plain crops err to opposite sides: give each kind half of the say.
    mirrored = np.array([crop.mirrored for crop, _ in found])
    if mirrored.any() and not mirrored.all():
        for kind in (mirrored, ~mirrored):
            weight[kind] *= 0.5 / weight[kind].sum()
    weight /= weight.sum()
    mean = np.einsum("k,kpi->pi", weight, points)
    offset = points - mean
    spread = np.einsum("k,kpi,kpj->pij", weight, offset, offset) / (1 - (weight**2).sum())
    return mean, stabilised_covariance(spread, place.size, known), depth, known


def stabilised_covariance(
    spread: np.ndarray, face_size: float, known: np.ndarray | None = None
) -> np.ndarray:
    """Make sample covariances of a few crops usable: shrunk and floored, never singular.

    A covariance of half a dozen samples is noisy: each is shrunk half way to a round one of the
    same size, sizes are drawn a third of the way to the face's median, and a floor that grows with
    the face is added, because crops of one picture share their errors.

    Parameters
    ----------
    spread : (478, 2, 2) px^2
    face_size : float, px
    known : (478,) bool, optional
        Others get a covariance so large that they say nothing.

    Returns
    -------
    (478, 2, 2) px^2
    """
    known = np.ones(len(spread), bool) if known is None else known
    size = np.trace(spread, axis1=1, axis2=2) / 2
    median = np.median(size[known]) if known.any() else 0.0
    round_part = (2 / 3 * size + 1 / 3 * median)[:, None, None] * np.eye(2)
    floor = _FLOOR_PX**2 + (_FLOOR_SHARE * face_size) ** 2
    out = 0.5 * spread + 0.5 * round_part + floor * np.eye(2)
    out[~known] = (_UNKNOWN * face_size) ** 2 * np.eye(2)
    return out


def mesh_with(mesh: Mesh, landmarks: np.ndarray, covariance: np.ndarray) -> Mesh:
    """The mesh with better landmarks, its pose taken again."""
    angles, scale, R = rough_pose(landmarks, covariance)
    return replace(mesh, landmarks=landmarks, angles=angles, scale=scale, tilt=_tilt(R))


def _tilt(R: np.ndarray) -> float:
    # Where the head's y axis points in the picture; upright is (0, -1).
    return float(np.degrees(np.arctan2(-R[0, 1], -R[1, 1])))


def sharpness(image: np.ndarray, place: FacePlace) -> float:
    """Share of fine detail among all detail of a face, about 0 (blurred) to 1 (crisp).

    Taken at a face of 48 px, so that it compares frames of one clip: the energy of the finest
    octave relative to that of the next two, after subtracting what white noise would give.
    """
    size = 64
    margin = 64 / 48 * 0.8
    crop = cut_crop(image, place, size=size, margin=margin).image
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32)
    a = cv2.GaussianBlur(grey, (0, 0), 0.7)
    b = cv2.GaussianBlur(grey, (0, 0), 1.4)
    c = cv2.GaussianBlur(grey, (0, 0), 5.0)
    fine, coarse = float(np.std(a - b)), float(np.std(b - c))
    # The median absolute Laplacian is noise, where the picture is smooth.
    noise = float(np.median(np.abs(cv2.Laplacian(grey, cv2.CV_32F)))) / (0.6745 * np.sqrt(20))
    fine = np.sqrt(max(fine**2 - (0.25 * noise) ** 2, 0))
    return float(np.clip(2.2 * fine / (coarse + 1.0), 0, 1))


def quality(mesh: Mesh, crispness: float, settings: TrackingSettings) -> float:
    """From 0 to 1: size, sharpness, exposure and landmark agreement, each able to spoil it.

    The face's height stands for its size, because a turned face is not a smaller one.
    """
    size = mesh.place.size / 1.25
    by_size = np.clip(np.log(size / (0.6 * settings.min_face_px)) / np.log(20.0), 0.05, 1)
    light = mesh.brightness
    by_light = np.clip(light / 0.2, 0.2, 1) * np.clip((1.02 - light) / 0.12, 0.3, 1)
    by_agreement = np.exp(-((mesh.disagreement / settings.max_mirror_disagreement) ** 2))
    by_sharpness = max(crispness, 0.05)
    return float((by_size * by_light * by_agreement * by_sharpness) ** 0.5)


def _prepare(image, place, light, settings, *, margin, mirrored) -> Crop:
    crop = cut_crop(image, place, size=settings.crop_px, margin=margin, mirrored=mirrored)
    if light < settings.enhance_below:
        return replace(crop, image=normalise_exposure(crop.image))
    return crop


def _to_frame(crop: Crop, landmarks: CropLandmarks):
    """Points, depth and known of the subject (left is left again), in frame px."""
    points = crop.points_to_frame(landmarks.points)
    depth, known = landmarks.depth * crop.scale, landmarks.known
    if crop.mirrored:
        points, depth, known = points[MIRROR], depth[MIRROR], known[MIRROR]
    return points, depth, known
