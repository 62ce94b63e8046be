"""Scenes with known truth: random people, seen by a bad camera, rendered from a face model.

A `Scene` is a seeded recipe that can be written down; `render_scene` gives its frames one by one
and everything that is true about them. The truth lies partly off the model (a smooth displacement),
so that no fit of the same model can be perfect.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recon3d.colour import linear_to_srgb, to_uint8
from recon3d.errors import InputError
from recon3d.geometry import FRONTAL, head_rotation, intrinsics, project, so3_exp, vertex_normals
from recon3d.morphable.topology import NOW7
from recon3d.rendering import draw_mesh, over
from recon3d.restoration import (
    H264,
    ColourTemperature,
    LowLight,
    MotionBlur,
    Recipe,
    degrade_clip,
)
from recon3d.restoration.kernels import convolve, motion_kernel
from recon3d.scenes.drawing import room, shoulders
from recon3d.scenes.painting import lookup
from recon3d.scenes.shadows import lit_share
from recon3d.scenes.truth import PictureTruth, ShapeTruth
from recon3d.types import Camera, FaceModel

LightName = Literal["warm", "cold", "low", "medium", "bright"]
BlurName = Literal["none", "strong"]

SUBJECT_FILES = ("gt.npz", "frontal.png", "frontal_mask.png")
"""A person's shape, picture, and the mask of what is compared in it."""

_FACE_REACH_MM = 95.0
_PIVOT = np.array([0.0, -60.0, -70.0])


@dataclass(frozen=True)
class Lamp:
    """Light of a scene: colour, how much of it, and from where.

    Attributes
    ----------
    kelvin : float
    exposure : float
        Share of the light a good picture needs.
    direction : (3,), towards the lamp: the picture's right, up, towards the camera
    ambient : float
        Share that comes from everywhere.
    radius_deg : float, optional
        Of its disc; the head then casts shadows on itself. With none it casts no shadow.
    """

    kelvin: float
    exposure: float
    direction: tuple[float, float, float]
    ambient: float
    radius_deg: float | None = None


LAMPS: dict[str, Lamp] = {
    "warm": Lamp(3000.0, 0.5, (0.2, 0.9, 0.4), 0.5),
    "cold": Lamp(9000.0, 0.55, (0.9, 0.35, 0.3), 0.25),
    "low": Lamp(4800.0, 0.06, (-0.3, 0.7, 0.6), 0.5),
    "medium": Lamp(5200.0, 0.4, (-0.4, 0.6, 0.7), 0.55),
    "bright": Lamp(6500.0, 1.0, (0.2, 0.5, 0.85), 0.65),
}


class Scene(BaseModel):
    """The recipe of one clip. Same recipe, same model, same machine: same bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    person: int = Field(0, ge=0, description="Seed of shape and skin.")
    seed: int = Field(0, ge=0, description="Seed of everything else: motion, room, noise.")
    n_frames: int = Field(50, ge=1, description="Length of the clip.")
    fps: float = Field(25.0, gt=0, description="Frames a second.")
    width: int = Field(640, ge=16, description="Of the frames, px.")
    height: int = Field(480, ge=16, description="Of the frames, px.")
    face_px: float = Field(64.0, gt=4, description="Width of the frontal face, px.")
    distance_mm: float = Field(
        2500.0, gt=300, description="Camera to head; the focal length follows from face_px."
    )
    camera_tilt_deg: float = Field(
        12.0, ge=-60, le=60, description="How far the camera looks down (up where negative)."
    )
    yaw_span_deg: float = Field(45.0, ge=0, le=90, description="The head turns so far both ways.")
    pitch_span_deg: float = Field(10.0, ge=0, le=60, description="And nods so far.")
    roll_span_deg: float = Field(6.0, ge=0, le=60, description="And leans so far.")
    expression: float = Field(
        1.0, ge=0, le=1.5, description="Strength of talking, smiling and blinking; 0 is neutral."
    )
    identity: float = Field(1.0, ge=0, le=2, description="Spread of identity, standard deviations.")
    displacement_mm: float = Field(
        1.0, ge=0, le=5, description="RMS of what the model cannot make, over the face."
    )
    light: LightName = Field("bright", description="Lamp of the scene.")
    blur: BlurName = Field("none", description="Motion blur, the same in all frames.")
    shutter: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the time between frames that the shutter is open: so much of its own "
        "path the head draws in each of them.",
    )
    crf: float | None = Field(26.0, ge=0, le=51, description="Of H.264; none leaves it out.")
    clean: bool = Field(False, description="Leave the camera's faults out altogether.")
    supersample: int = Field(3, ge=1, le=6, description="Sub-pixels along a pixel's side.")


@dataclass(frozen=True)
class SceneTruth:
    """Everything that is true about a scene.

    Attributes
    ----------
    scene : Scene
    model : FaceModel
    identity : (I,); displacement : (V, 3) mm; neutral : (V, 3) mm
    expression : (N, E)
    K : (3, 3) px; R : (N, 3, 3), t : (N, 3) mm, model to camera
    angles : (N, 3) degrees
        The head's own yaw, pitch and roll; the camera's tilt is extra.
    texture : (T, T, 3) linear albedo
    """

    scene: Scene
    model: FaceModel
    identity: np.ndarray
    displacement: np.ndarray
    neutral: np.ndarray
    expression: np.ndarray
    K: np.ndarray
    R: np.ndarray
    t: np.ndarray
    angles: np.ndarray
    texture: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the frames, px."""
        return self.scene.width, self.scene.height

    def camera(self, frame: int) -> Camera:
        return Camera(self.K, self.R[frame], self.t[frame], self.size)

    def posed(self, frame: int) -> np.ndarray:
        """(V, 3) vertices of a frame with its expression, model axes, mm."""
        moved = np.tensordot(self.expression[frame], self.model.expression, 1)
        return self.neutral + moved

    def landmarks(self, frame: int | None = None) -> np.ndarray:
        """(478, 3) MediaPipe points, mm, model axes; neutral where no frame is given."""
        vertices = self.neutral if frame is None else self.posed(frame)
        embedding = self.model.landmarks
        corners = vertices[self.model.triangles[np.maximum(embedding.triangle, 0)]]
        return np.einsum("lk,lkd->ld", embedding.barycentric, corners)

    def shape_truth(self) -> ShapeTruth:
        """The neutral head as the metrics want it: skin within 95 mm of the nose tip, seen from
        the front, without eyes and the inside of the mouth."""
        tip = self.landmarks()[4]
        regions = self.model.regions
        normals = vertex_normals(self.neutral, self.model.triangles)
        mask = regions["face"] > 0.5
        mask &= np.linalg.norm(self.neutral - tip, axis=1) < _FACE_REACH_MM
        mask &= normals[:, 2] > 0.1
        for name in ("eyes", "mouth_interior"):
            if name in regions:
                mask &= regions[name] < 0.5
        points = self.landmarks()[list(NOW7)]
        return ShapeTruth(self.neutral, self.model.triangles, mask, points, tip)

    def frontal_picture(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The clean frontal picture: neutral expression, soft neutral light, frontal layout.

        Returns
        -------
        image : (512, 512, 3) uint8 sRGB
        cover : (512, 512) float32
            Share of a pixel that the head covers.
        mask : (512, 512) bool
            Pixels that are compared.
        """
        from recon3d.frontal import frontal_camera

        camera = frontal_camera(self.model, self.neutral)
        lamp = Lamp(6500.0, 1.0, (0.1, 0.4, 0.9), 0.7)
        region = self.shape_truth().mask.astype(np.float64)
        for name in ("eyes", "mouth"):
            region = np.maximum(region, self.model.regions.get(name, 0 * region))
        drawn, cover = _draw_head(self, self.neutral, camera, lamp, 2, region)
        picture = over(np.full(3, 0.18, np.float32), drawn[..., :3], cover)
        mask = (drawn[..., 3] > 0.9).astype(np.uint8)
        mask = cv2.erode(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((9, 9))), np.ones((3, 3)))
        return to_uint8(linear_to_srgb(picture)), cover, mask > 0

    def picture_truth(self) -> PictureTruth:
        """`frontal_picture` as the metrics want it."""
        from recon3d.frontal import frontal_camera

        camera = frontal_camera(self.model, self.neutral)
        image, _, mask = self.frontal_picture()
        points = self.landmarks() @ camera.R.T + camera.t
        pixels = points @ camera.K.T
        flat = pixels[:, :2] / pixels[:, 2:]
        depth = (points[:, 2] - points[4, 2]) * camera.K[0, 0] / pixels[:, 2].mean()
        return PictureTruth.from_image(image, mask, np.column_stack([flat, depth]))


def render_scene(
    scene: Scene, model: FaceModel, *, person_texture: np.ndarray | None = None
) -> tuple[SceneTruth, Iterator[np.ndarray]]:
    """Make a scene.

    Parameters
    ----------
    scene : Scene
    model : FaceModel
    person_texture : (T, T, 3) linear albedo, optional
        Instead of the person's own, which is painted.

    Returns
    -------
    truth : SceneTruth
    frames : iterator of (H, W, 3) uint8 sRGB
        Rendered when they are asked for.
    """
    truth = scene_truth(scene, model, person_texture)
    return truth, _frames(truth)


def scene_truth(
    scene: Scene, model: FaceModel, person_texture: np.ndarray | None = None
) -> SceneTruth:
    """What is true about a scene, without rendering it."""
    person = np.random.default_rng([scene.person, 11])
    coefficients = np.clip(person.normal(0, 1, len(model.identity)), -2, 2) * scene.identity
    displacement = off_model_displacement(model, scene.displacement_mm, person)
    neutral = model.vertices(coefficients) + displacement
    if person_texture is None:
        person_texture = _person_texture(model, scene.person)
    motion = np.random.default_rng([scene.seed, scene.person, 12])
    seconds = np.arange(scene.n_frames) / scene.fps
    angles = _head_motion(scene, seconds, motion)
    expression = scene.expression * _expressions(model, seconds, motion)
    tilt = so3_exp(np.radians([scene.camera_tilt_deg, 0.0, 0.0]))
    R = tilt @ head_rotation(*angles.T)
    span = np.ptp(neutral[model.regions["face"] > 0.5, 0])
    size = scene.width, scene.height
    K = intrinsics(scene.face_px * scene.distance_mm / span, size)
    # The head turns on its neck, and sways a little.
    view_mm = scene.distance_mm / K[0, 0]
    place = np.array([motion.uniform(-0.15, 0.15) * scene.width, 0.02 * scene.height]) * view_mm
    sway = np.stack([_wave(seconds, 0.35, motion), 0.4 * _wave(seconds, 0.5, motion)], 1) * 15.0
    t = np.column_stack([place + sway, np.full(len(seconds), scene.distance_mm)])
    t = t - np.einsum("nij,j->ni", R, _PIVOT) + tilt @ FRONTAL @ _PIVOT
    return SceneTruth(
        scene,
        model,
        coefficients,
        displacement,
        neutral,
        expression,
        K,
        R,
        t,
        angles,
        person_texture,
    )


def off_model_displacement(model: FaceModel, rms_mm: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth, mostly symmetric displacement with an RMS over the face, (V, 3) mm.

    A Gaussian process with a kernel of 22 mm, drawn through random Fourier features [1]_.

    References
    ----------
    .. [1] A. Rahimi, B. Recht, Random features for large-scale kernel machines, NIPS 2007.
    """
    if rms_mm == 0:
        return np.zeros_like(model.mean)
    frequency = rng.normal(0, 1 / 22.0, (128, 3))
    phase = rng.uniform(0, 2 * np.pi, 128)
    amplitude = rng.normal(0, 1, (128, 3))

    def field(x):
        return np.cos(x @ frequency.T + phase) @ amplitude

    flip = np.array([-1.0, 1.0, 1.0])
    moved = 0.85 * (field(model.mean) + field(model.mean * flip) * flip) + 0.5 * field(model.mean)
    face = model.regions["face"] > 0.5
    return moved * (rms_mm / np.sqrt((moved[face] ** 2).sum(1).mean()))


def camera_recipe(scene: Scene) -> Recipe:
    """What the scene's camera does to clean frames."""
    if scene.clean:
        return Recipe(name="clean", steps=())
    lamp = LAMPS[scene.light]
    steps: list = [ColourTemperature(kelvin=lamp.kelvin)]
    if scene.blur == "strong":
        steps.append(MotionBlur(length=max(0.09 * scene.face_px, 2.0), angle=(-15.0, 15.0)))
    noise = dict(full_well=6000.0, read_noise=5.0)
    compensation = 0.75 if lamp.exposure < 0.5 else 0.6
    steps.append(LowLight(exposure=lamp.exposure, compensation=compensation, **noise))
    if scene.crf is not None:
        steps.append(H264(crf=scene.crf))
    return Recipe(name=f"{scene.light}, blur {scene.blur}", steps=tuple(steps))


def write_benchmark(
    scenes: dict[str, Scene],
    model: FaceModel,
    folder: Path,
    *,
    conditions: dict[str, str] | None = None,
    progress=None,
) -> Path:
    """Render scenes into a benchmark folder, as `recon3d.evaluation.read_benchmark` reads it.

    Parameters
    ----------
    scenes : dict of case name to Scene
    model : FaceModel
    folder : Path
    conditions : dict of case name to condition, optional
        By default the light.
    progress : callable (done, total), optional

    Returns
    -------
    Path of the folder
    """
    subjects, cases = {}, []
    for number, (name, scene) in enumerate(scenes.items()):
        truth = write_clip(scene, model, folder / "cases" / name)
        key = subject_key(scene)
        if key not in subjects:
            write_subject(truth, folder / "subjects" / key)
            paths = (str(Path("subjects") / key / n) for n in SUBJECT_FILES)
            subjects[key] = dict(zip(("gt", "frontal", "frontal_mask"), paths, strict=True))
        condition = (conditions or {}).get(name, scene.light)
        clip = str(Path("cases") / name / "clip.mp4")
        cases.append({"case": name, "subject": key, "condition": condition, "clip": clip})
        if progress is not None:
            progress(number + 1, len(scenes))
    manifest = {
        "name": folder.name,
        "model": model.name,
        "subjects": [{"id": key, **value} for key, value in subjects.items()],
        "cases": cases,
    }
    # Last: a folder without it is unfinished.
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return folder


def write_clip(
    scene: Scene, model: FaceModel, folder: Path, *, person_texture: np.ndarray | None = None
) -> SceneTruth:
    """Write a scene's clip, its truth by frame and its recipe: clip.mp4, gt.npz, scene.json.

    Frames go from the renderer to the encoder one by one; the texture is as in `render_scene`.
    """
    from recon3d.media import VideoWriter

    truth, frames = render_scene(scene, model, person_texture=person_texture)
    folder.mkdir(parents=True, exist_ok=True)
    # The encoder is part of the recipe; what it left is kept.
    with VideoWriter(folder / "clip.mp4", fps=scene.fps, crf=8) as writer:
        for frame in frames:
            writer.write(frame)
    np.savez_compressed(
        folder / "gt.npz",
        K=truth.K,
        R=truth.R,
        t=truth.t,
        ypr_deg=truth.angles,
        expression=truth.expression,
        expression_names=np.array(model.expression_names, dtype=np.str_),
    )
    (folder / "scene.json").write_text(scene.model_dump_json(indent=1), encoding="utf-8")
    return truth


def write_subject(truth: SceneTruth, folder: Path) -> None:
    """Write what is true about a scene's person: `SUBJECT_FILES`, the picture last."""
    from recon3d.media.pictures import write_png

    folder.mkdir(parents=True, exist_ok=True)
    shape, picture = truth.shape_truth(), truth.picture_truth()
    shape_file, picture_file, mask_file = SUBJECT_FILES
    np.savez_compressed(
        folder / shape_file,
        vertices=shape.vertices,
        triangles=shape.triangles,
        face_mask=shape.mask,
        now7=shape.now7,
        nose_tip=shape.nose_tip,
        frontal_landmarks478=picture.landmarks,
    )
    write_png(folder / mask_file, picture.mask.astype(np.uint8) * 255)
    write_png(folder / picture_file, picture.image)


def subject_key(scene: Scene) -> str:
    """One name for all scenes whose person and shape are the same."""
    return f"person{scene.person:03d}_{scene.identity:g}_{scene.displacement_mm:g}"


def _frames(truth: SceneTruth) -> Iterator[np.ndarray]:
    scene = truth.scene
    noise = np.random.default_rng([scene.seed, scene.person, 14])
    yield from degrade_clip(clean_frames(truth), camera_recipe(scene), noise)


def clean_frames(truth: SceneTruth, lamp: Lamp | None = None) -> Iterable[np.ndarray]:
    """Frames of a scene, (H, W, 3) uint8 sRGB, before its camera's faults.

    Parameters
    ----------
    truth : SceneTruth
    lamp : Lamp, optional
        Instead of the scene's own; of it, direction and ambient share are drawn here, colour and
        exposure belong to the camera's recipe.
    """
    scene = truth.scene
    rng = np.random.default_rng([scene.seed, scene.person, 13])
    background = room(truth.size, rng)
    collar = float(truth.neutral[:, 1].min()) + 25.0
    bust, triangles = shoulders(collar, float(_PIVOT[2]))
    cloth = rng.uniform(0.02, 0.4, 3) * 0.5 + rng.uniform(0.02, 0.3) * 0.5
    colours = np.broadcast_to(cloth, bust.shape)
    tilt = so3_exp(np.radians([scene.camera_tilt_deg, 0.0, 0.0]))
    lamp = lamp or LAMPS[scene.light]
    face = truth.model.regions.get("face", np.ones(truth.model.n_vertices))
    middle = np.average(truth.neutral, axis=0, weights=np.maximum(face, 1e-6))[None]
    at = np.array([project(middle, truth.K, R, t)[0] for R, t in zip(truth.R, truth.t)])
    paths = scene.shutter * np.gradient(at, axis=0) if scene.n_frames > 1 else np.zeros_like(at)
    for i in range(scene.n_frames):
        # The body follows the head by a fifth of its turn.
        R = tilt @ head_rotation(0.2 * truth.angles[i, 0], 0.0, 0.0)
        camera = Camera(
            truth.K, R, truth.t[i] + (truth.R[i] - R) @ _PIVOT, (scene.width, scene.height)
        )
        shade = _shading(lamp, R)
        body, shown = draw_mesh(
            bust,
            triangles,
            colours,
            camera,
            supersample=scene.supersample,
            finish=lambda colour, normals, shade=shade: colour * shade(normals),
        )
        drawn, cover = _draw_head(truth, truth.posed(i), truth.camera(i), lamp, scene.supersample)
        if scene.shutter > 0:
            drawn, cover = (_along_path(x, paths[i]) for x in (drawn, cover))
        picture = over(over(background, body, shown), drawn, cover)
        yield to_uint8(linear_to_srgb(picture))


def _along_path(image: np.ndarray, path: np.ndarray) -> np.ndarray:
    """What is left of a linear, premultiplied picture (H, W, ...) that moves along `path`, (2,) px,
    while the shutter is open."""
    length, angle = np.hypot(*path), np.degrees(np.arctan2(-path[1], path[0]))
    return convolve(image, motion_kernel(float(length), float(angle)))


def _draw_head(
    truth: SceneTruth,
    vertices: np.ndarray,
    camera: Camera,
    lamp: Lamp,
    supersample: int,
    extra: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The head under a lamp, linear and premultiplied; one more channel for an extra attribute."""
    model = truth.model
    texture = _reduced(truth.texture, camera, supersample)
    rows, columns = texture.shape[:2]
    shade = _shading(lamp, camera.R)
    lit = np.ones(len(vertices))
    if lamp.radius_deg is not None:
        toward = _toward(lamp, camera.R)
        lit = lit_share(vertices, model.triangles, toward, lamp.radius_deg)
    extra = lit[:, None] if extra is None else np.column_stack([lit, extra])

    def finish(attributes: np.ndarray, normals: np.ndarray) -> np.ndarray:
        u = (attributes[:, 0] * columns - 0.5).astype(np.float32)
        v = ((1 - attributes[:, 1]) * rows - 0.5).astype(np.float32)
        albedo = lookup(texture, u, v)
        return np.column_stack([albedo * shade(normals, attributes[:, 2]), attributes[:, 3:]])

    # One row a corner: texture coordinates have seams, vertices have none.
    corners = model.triangles_uv
    attributes = np.column_stack([model.uv[corners.ravel()], extra[model.triangles.ravel()]])
    corners = np.arange(corners.size).reshape(-1, 3)
    return draw_mesh(
        vertices,
        model.triangles,
        attributes,
        camera,
        corners=corners,
        supersample=supersample,
        finish=finish,
    )


def _reduced(texture: np.ndarray, camera: Camera, supersample: int) -> np.ndarray:
    """The texture at about two texels a sub-pixel, so that it does not alias."""
    per_mm = camera.K[0, 0] / max(camera.t[2], 1.0) * supersample
    # The head's texture spans about 400 mm.
    wanted = 2 ** int(np.ceil(np.log2(max(2 * 400 * per_mm, 64))))
    if wanted >= texture.shape[0]:
        return texture
    return cv2.resize(texture, (wanted, wanted), interpolation=cv2.INTER_AREA)


def _shading(lamp: Lamp, R: np.ndarray):
    """Lambert's law for an ambient and a directional part, of which a share may be shaded."""
    toward = _toward(lamp, R)

    def shade(normals: np.ndarray, lit: np.ndarray | float = 1.0) -> np.ndarray:
        direct = lit * np.clip((normals @ toward + 0.1) / 1.1, 0, None)
        up = 0.5 + 0.5 * normals[:, 1]
        ambient = lamp.ambient * (0.75 + 0.25 * up)
        return (ambient + 1.15 * (1 - lamp.ambient) * direct)[:, None]

    return shade


def _toward(lamp: Lamp, R: np.ndarray) -> np.ndarray:
    """Unit vector towards the lamp in the axes of what R turns."""
    # The lamp hangs in the room: camera axes with y up and z towards the camera.
    direction = np.asarray(lamp.direction) / np.linalg.norm(lamp.direction)
    return R.T @ (FRONTAL @ direction)


def _head_motion(scene: Scene, seconds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N, 3) yaw, pitch, roll in degrees; yaw reaches its span on both sides in two seconds."""
    sign = rng.choice([-1.0, 1.0])
    yaw = sign * scene.yaw_span_deg * np.sin(2 * np.pi * 0.5 * seconds + rng.uniform(-0.4, 0.4))
    pitch = scene.pitch_span_deg * _wave(seconds, 0.7, rng)
    roll = scene.roll_span_deg * _wave(seconds, 0.6, rng)
    return np.stack([yaw, pitch, roll], 1)


def _wave(seconds: np.ndarray, hertz: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth, not quite periodic signal within -1 and 1."""
    a, b = rng.uniform(0, 2 * np.pi, 2)
    slow = np.sin(2 * np.pi * hertz * seconds + a)
    return 0.7 * slow + 0.3 * np.sin(2 * np.pi * 1.7 * hertz * seconds + b)


def _expressions(model: FaceModel, seconds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N, E) in [0, 1]: talking, a smile that comes and goes, blinks."""
    number = {name: i for i, name in enumerate(model.expression_names)}
    out = np.zeros((len(seconds), len(model.expression_names)))

    def add(name: str, values: np.ndarray) -> None:
        if name in number:
            out[:, number[name]] += np.clip(values, 0, 1)

    talk = np.clip(_wave(seconds, 0.25, rng) + 0.4, 0, 1)
    add("jawOpen", talk * 0.35 * (0.5 + 0.5 * _wave(seconds, 2.1, rng)))
    for name, amount, hertz in (
        ("mouthFunnel", 0.35, 1.3),
        ("mouthPucker", 0.3, 1.0),
        ("mouthLowerDownLeft", 0.3, 2.4),
        ("mouthLowerDownRight", 0.3, 2.4),
    ):
        add(name, talk * amount * _wave(seconds, hertz, rng))
    smile = 0.6 * np.clip(_wave(seconds, 0.3, rng), 0, 1)
    for side in ("Left", "Right"):
        add(f"mouthSmile{side}", smile * rng.uniform(0.8, 1.0))
        add(f"cheekSquint{side}", 0.4 * smile)
    raised = 0.5 * np.clip(_wave(seconds, 0.4, rng) - 0.3, 0, 1)
    for name in ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"):
        add(name, raised)
    blink = np.zeros(len(seconds))
    at = rng.uniform(0.2, 2.0)
    while at < seconds[-1] + 0.5:
        blink = np.maximum(blink, np.clip(1.4 - np.abs(seconds - at) / 0.09, 0, 1))
        at += rng.uniform(1.2, 4.0)
    for side in ("Left", "Right"):
        add(f"eyeBlink{side}", blink)
    return np.clip(out, 0, 1)


def _person_texture(model: FaceModel, person: int) -> np.ndarray:
    from recon3d.scenes.painting import paint_person

    # Painted, not drawn from the model's albedo modes: a truth that a stage under test also has as
    # its prior would flatter it, and hair and brows need more resolution than the modes have.
    return paint_person(model, np.random.default_rng([person, 15]))


def load_scene(path: Path) -> Scene:
    """Read a recipe from JSON.

    Raises
    ------
    InputError
    """
    from pydantic import ValidationError

    try:
        return Scene.model_validate_json(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}: {where}: {first['msg']}") from error
