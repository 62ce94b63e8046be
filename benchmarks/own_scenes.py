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

from recon3d.morphable.photos import read_photos
from recon3d.scenes.portraits import FRONTAL_WITHIN, sideways
from recon3d.scenes.scene import Scene, SceneTruth, render_scene
from recon3d.scenes.truth import portrait_landmarks
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
        if points is None or sideways(points) > FRONTAL_WITHIN:
            continue
        yield image, points
        found += 1
        if found == count:
            return


def frames_of(
    own: OwnScene, model: FaceModel, texture: np.ndarray | None
) -> tuple[SceneTruth, Iterator[Frame]]:
    """A scene's truth, and its frames as the tracker takes them."""
    truth, pictures = render_scene(own.scene, model, person_texture=texture)
    fps = own.scene.fps
    return truth, (Frame(image, k, k / fps, 0) for k, image in enumerate(pictures))
