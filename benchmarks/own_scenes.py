"""Clips that are not the benchmark's: other people, lenses, cameras and light, with known truth.

Shapes are drawn from one face model and looked at with another, so that truth and prior are not
the same; skin is a photograph of a person who does not exist, projected from the front. A module
for other benchmarks, not a command.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recon3d.colour import srgb_to_linear
from recon3d.evaluation.metrics import portrait_landmarks
from recon3d.evaluation.painting import paint_person
from recon3d.evaluation.scenes import Scene, SceneTruth, render_scene
from recon3d.fitting.visibility import surface_points
from recon3d.geometry import umeyama, vertex_normals
from recon3d.morphable.photos import read_photos
from recon3d.types import FaceModel, Frame


@dataclass(frozen=True)
class OwnScene:
    """One clip.

    Attributes
    ----------
    name : str
    model : str
        Of the truth: "ict-facekit" or "recon3d".
    scene : Scene
    """

    name: str
    model: str
    scene: Scene


CONDITIONS: tuple[tuple[str, dict], ...] = (
    ("clean110", dict(face_px=110, light="bright", crf=18)),
    ("bright64", dict(face_px=64, light="bright", crf=23)),
    ("wide64", dict(face_px=64, distance_mm=700, light="bright", crf=23)),
    ("long64", dict(face_px=64, distance_mm=9000, light="medium", crf=23)),
    ("up56", dict(face_px=56, camera_tilt_deg=-18, light="medium", crf=25)),
    ("blur56", dict(face_px=56, light="medium", blur="strong", crf=28)),
    ("low48", dict(face_px=48, light="low", crf=30)),
    ("warm40", dict(face_px=40, light="warm", crf=28)),
    ("cold40", dict(face_px=40, light="cold", crf=28)),
    ("tiny28", dict(face_px=28, light="medium", crf=30)),
)
"""Of a lens and a camera each as of light and size."""


def own_scenes(first_person: int) -> list[OwnScene]:
    """One clip of each condition and each model of the truth, everybody another person."""
    out = []
    for number, (name, settings) in enumerate(CONDITIONS):
        for k, model in enumerate(("ict-facekit", "recon3d")):
            person = first_person + 2 * number + k
            scene = Scene(
                person=person,
                seed=person,
                yaw_span_deg=50,
                **{"camera_tilt_deg": 14.0, **settings},
            )
            out.append(OwnScene(f"{name}_{model}", model, scene))
    return out


def portraits(photos: Path, first: int, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Photos on which landmarks are found and nearly frontal, with their landmarks (478, 3)."""
    found = 0
    for number, (_, image) in enumerate(read_photos(photos)):
        if number < first or number % 7:
            continue
        points = portrait_landmarks(image)
        if points is None:
            continue
        eyes = points[[33, 263]]
        side = abs(points[4, 0] - eyes[:, 0].mean()) / np.ptp(eyes[:, 0])
        if side > 0.05:
            continue
        yield image, points
        found += 1
        if found == count:
            return


def portrait_texture(
    model: FaceModel, image: np.ndarray, points: np.ndarray, seed: int, size: int = 1024
) -> np.ndarray:
    """A photo projected on a model's mean face, (size, size, 3) linear.

    A thin-plate spline takes the model's landmarks, seen from the front, to the photo's; what
    turns away from the front is painted (`paint_person`), with the photo's colour of skin.
    """
    from scipy.interpolate import RBFInterpolator
    from scipy.ndimage import map_coordinates

    from recon3d.evaluation.painting import texel_geometry

    place, normal, covered = texel_geometry(model, size)
    painted = paint_person(model, np.random.default_rng([seed, 15]), size)
    at = surface_points(model.mean, model.triangles, model.landmarks)
    facing = surface_points(
        vertex_normals(model.mean, model.triangles), model.triangles, model.landmarks
    )[:, 2]
    good = np.isfinite(at).all(1) & (facing > 0.35)
    # the coarse place by a similarity, the rest by a spline, smooth where landmarks are dense
    flat = at[good, :2] * [1, -1]
    s, R, t = umeyama(flat, points[good, :2])
    spline = RBFInterpolator(flat, points[good, :2] - (s * flat @ R.T + t), smoothing=1.0)
    want = covered & (normal[..., 2] > 0.1) & (np.abs(place[..., 0]) < 85) & (place[..., 1] > -110)
    q = place[want][:, :2] * [1, -1]
    pixel = s * q @ R.T + t + spline(q)
    linear = srgb_to_linear(image).astype(np.float32)
    seen = np.stack(
        [
            map_coordinates(linear[..., c], pixel.T[::-1] - 0.5, order=1, mode="reflect")
            for c in range(3)
        ],
        1,
    )
    inside = ((pixel > 2) & (pixel < np.array(image.shape[1::-1]) - 2)).all(1)
    # the face oval and a little around: hair of the photo stays where it hangs over the forehead
    middle = at[good].mean(0)
    radius = np.hypot((place[want][:, 0]) / 72, (place[want][:, 1] - middle[1]) / 95)
    share = np.clip((normal[want][:, 2] - 0.1) / 0.4, 0, 1) * np.clip((1.05 - radius) / 0.15, 0, 1)
    share = (share * inside)[:, None]
    skin = np.median(seen[inside & (normal[want][:, 2] > 0.7)], 0)
    factor = skin / np.maximum(np.median(painted[want], 0), 1e-3)
    out = painted * np.clip(factor, 0.3, 3)
    out[want] = share * seen + (1 - share) * out[want]
    # an albedo: about as bright as skin is
    level = np.median(out[want] @ np.array([0.2126, 0.7152, 0.0722]))
    return np.clip(out * (0.25 / max(float(level), 1e-3)) ** 0.5, 0.003, 0.95).astype(np.float32)


def frames_of(
    own: OwnScene, model: FaceModel, texture: np.ndarray | None
) -> tuple[SceneTruth, Iterator[Frame]]:
    """A scene's truth, and its frames as the tracker takes them."""
    truth, pictures = render_scene(own.scene, model, person_texture=texture)
    fps = own.scene.fps
    return truth, (Frame(image, k, k / fps, 0) for k, image in enumerate(pictures))
