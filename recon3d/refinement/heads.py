"""Training pairs of rendered heads: faces of any shape, with the skin of a photo.

A photo that turns (`recon3d.refinement.simulation`) has its own hair and surroundings, but its
face is always one that its own fit explains, seen with the photo's expression. Heads drawn from a
face model bring what that leaves out: shapes and skins that do not belong together, talking and
blinking, a camera that looks down, and an answer at the neutral pose. The clip goes through the
whole pipeline.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from recon3d.errors import NoFaceError
from recon3d.frontal.settings import FrontalSettings
from recon3d.frontal.view import render_frontal
from recon3d.refinement.simulation import (
    Pair,
    SimulatedClip,
    draw_at,
    fitting_settings,
    match_tones,
    random_evenness,
    random_recipe,
    texture_size,
    where_shown,
)
from recon3d.restoration import Recipe, degrade_clip
from recon3d.scenes.portraits import portrait_texture
from recon3d.scenes.scene import Lamp, Scene, SceneTruth, clean_frames, scene_truth
from recon3d.texturing.fusion import fuse_texture
from recon3d.texturing.settings import TexturingSettings
from recon3d.types import FaceFit, FaceModel, FaceTrack, Frame, FrontalView


def random_scene(rng: np.random.Generator) -> Scene:
    """A head's clip: size of the face, lens, camera, motion and expression, all drawn."""
    # Small faces more often: there is more to be made good.
    face_px = float(24 * np.exp(np.log(5) * rng.uniform(0, 1) ** 1.4))
    n_frames = int(rng.integers(14, 37))
    side = max(int(16 * np.ceil(2.7 * face_px / 16)), 96)
    person, seed = (int(rng.integers(2**31)) for _ in range(2))
    # Indoors the shutter is open for most of the time, in the sun it is not.
    shutter = np.random.default_rng([seed, 17])
    return Scene(
        person=person,
        seed=seed,
        n_frames=n_frames,
        # About one sweep to both sides, however many frames there are.
        fps=n_frames / float(rng.uniform(1.3, 2.6)),
        width=side,
        height=side,
        face_px=face_px,
        distance_mm=float(np.exp(rng.uniform(np.log(800), np.log(6000)))),
        camera_tilt_deg=float(np.clip(rng.normal(10, 10), -25, 32)),
        yaw_span_deg=float(rng.uniform(12, 58)),
        pitch_span_deg=float(rng.uniform(3, 14)),
        roll_span_deg=float(rng.uniform(1, 9)),
        expression=float(rng.uniform(0.2, 1.2)),
        identity=float(rng.uniform(0.7, 1.2)),
        displacement_mm=float(rng.uniform(0.5, 2.0)),
        supersample=3 if face_px < 48 else 2,
        shutter=float(shutter.uniform(0.2, 1.0)) if shutter.random() < 0.5 else 0.0,
    )


def random_lamp(rng: np.random.Generator) -> Lamp:
    """Light from above and in front, mostly; hard or soft. Its colour is the camera's business."""
    direction = rng.normal(0, 1, 3) * [1.0, 0.5, 0.3] + [0.0, 0.5, 0.6]
    x, y, z = (float(v) for v in direction / np.linalg.norm(direction))
    radius = float(rng.uniform(1, 12)) if rng.random() < 0.7 else None
    return Lamp(6500.0, 1.0, (x, y, z), float(rng.uniform(0.15, 0.9)), radius)


@dataclass(frozen=True)
class HeadFilm:
    """A rendered head before a bad camera.

    Attributes
    ----------
    truth : SceneTruth
    lamp : Lamp
    recipe : Recipe
        The camera's faults.
    even, contrast : float
        What was done to the light of the skin's photo.
    frames : list of (H, W, 3) uint8 sRGB
    """

    truth: SceneTruth
    lamp: Lamp
    recipe: Recipe
    even: float
    contrast: float
    frames: list[np.ndarray]


def film_head(
    photo: np.ndarray,
    points: np.ndarray,
    heads: FaceModel,
    rng: np.random.Generator,
    change: dict | None = None,
) -> HeadFilm:
    """A clip of a random head that wears a photo.

    Parameters
    ----------
    photo : (H, W, 3) uint8 sRGB
    points : (478, 2 or 3) px
        Its landmarks.
    heads : FaceModel
        The head is drawn from this model.
    rng : Generator
    change : dict, optional
        Fields of the scene that are not left to chance.
    """
    scene, lamp = random_scene(rng), random_lamp(rng)
    scene = scene.model_copy(update=change or {})
    recipe = random_recipe(rng, scene.face_px)
    size = 512 if scene.face_px < 90 else 1024
    even, contrast = random_evenness(rng)
    skin = portrait_texture(heads, photo, points, scene.person, size, even=even, contrast=contrast)
    skin = np.clip(skin * np.exp(rng.uniform(np.log(0.6), np.log(1.3))), 0.002, 0.95)
    truth = scene_truth(scene, heads, skin.astype(np.float32))
    frames = list(degrade_clip(clean_frames(truth, lamp), recipe, rng))[: scene.n_frames]
    return HeadFilm(truth, lamp, recipe, even, contrast, frames)


def simulate_head(
    photo: np.ndarray,
    points: np.ndarray,
    heads: FaceModel,
    model: FaceModel,
    rng: np.random.Generator,
) -> Pair:
    """Make one training pair of a rendered head: `simulate_head_clip`, fused from all its views."""
    clip = simulate_head_clip(photo, points, heads, model, rng)
    return clip.pair(clip.track, clip.fit)


def simulate_head_clip(
    photo: np.ndarray,
    points: np.ndarray,
    heads: FaceModel,
    model: FaceModel,
    rng: np.random.Generator,
) -> SimulatedClip:
    """A clip of a rendered head.

    Parameters
    ----------
    photo : (H, W, 3) uint8 sRGB
        A frontal portrait, mouth closed (`recon3d.scenes.portraits.usable_as_skin`).
    points : (478, 2 or 3) px
        Its landmarks.
    heads : FaceModel
        The head is drawn from this model,
    model : FaceModel
        and fitted with this one.
    rng : Generator

    Returns
    -------
    SimulatedClip
        Beside the head the targets are the fused view itself: nothing is to be drawn there.

    Raises
    ------
    NoFaceError
        If no face is found in the clip.
    """
    from recon3d.fitting import fit_track
    from recon3d.tracking import TrackingSettings, track_faces

    film = film_head(photo, points, heads, rng)
    truth, scene, lamp = film.truth, film.truth.scene, film.lamp
    frames = film.frames
    stream = (Frame(frame, k, k / scene.fps) for k, frame in enumerate(frames))
    tracks = track_faces(stream, TrackingSettings(max_views=24)).tracks
    if not tracks:
        raise NoFaceError("no face is found in the simulated clip")
    fit = fit_track(tracks[0], model, fitting_settings())
    size = texture_size(scene.face_px)
    info = {
        "face_px": round(scene.face_px, 1),
        "frames": len(frames),
        "yaw_span_deg": round(scene.yaw_span_deg, 1),
        "whole_pipeline": True,
        "heads": heads.name,
        "light": [*lamp.direction, lamp.ambient, lamp.radius_deg],
        "even": round(film.even, 2),
        "contrast": round(film.contrast, 2),
        "recipe": film.recipe.model_dump(mode="json"),
    }
    picture, cover, _ = truth.frontal_picture()

    def pair(track: FaceTrack, fit: FaceFit) -> Pair:
        texture = fuse_texture(track, fit, TexturingSettings(size=size))
        view = render_frontal(track, fit, texture, FrontalSettings())
        return Pair(view, _target(picture, cover, view), {**info, "views": len(track.views)})

    return SimulatedClip(tracks[0], fit, pair, True)


def _target(image: np.ndarray, cover: np.ndarray, view: FrontalView) -> np.ndarray:
    """(512, 512, 3) uint8, the true picture where the fused view shows the face."""
    matrix = where_shown(image, view)
    head = match_tones(draw_at(image, matrix), view)
    alpha = cv2.GaussianBlur(draw_at(cover, matrix), (0, 0), 1.0)[..., None]
    return np.clip(np.round(alpha * head + (1 - alpha) * view.raw), 0, 255).astype(np.uint8)
