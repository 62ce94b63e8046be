"""Training pairs for the refiner: what this pipeline makes of a person, and how they look.

Pairs of two kinds: photos that turn (here), and heads of a face model that wear a photo as their
skin (`recon3d.refinement.heads`).

A photo is fitted and becomes a relief that carries its own pixels, hair and surroundings included.
The relief turns before bad cameras; the frames and a fit with errors like those of tracking go
through the same fusion and the same frontal render as at work, at the photo's own pose and
expression. The photo itself is the target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from recon3d.colour import linear_to_srgb, srgb_to_linear, to_uint8
from recon3d.errors import NoFaceError
from recon3d.frontal.camera import EYES, LEFT_LID, RIGHT_LID, SIZE, landmark_points, layout_camera
from recon3d.frontal.pyramid import broad_blur, push_pull
from recon3d.frontal.settings import FrontalSettings
from recon3d.frontal.surroundings import continued_depth
from recon3d.frontal.view import render_frontal
from recon3d.geometry import (
    FRONTAL,
    head_angles,
    head_rotation,
    intrinsics,
    project,
    so3_exp,
    transform,
    vertex_normals,
)
from recon3d.rendering import draw_mesh, over
from recon3d.rendering.native import rasterise_numpy
from recon3d.restoration import (
    H264,
    ColourTemperature,
    DropFrames,
    Interlace,
    Jpeg,
    LowLight,
    MotionBlur,
    OpticalBlur,
    Recipe,
    Sharpen,
    degrade_clip,
)
from recon3d.scenes.portraits import DARK, log_light
from recon3d.texturing.fusion import fuse_texture
from recon3d.texturing.settings import TexturingSettings
from recon3d.tracking.settings import TrackingSettings
from recon3d.types import (
    Camera,
    FaceFit,
    FaceModel,
    FaceObservation,
    FaceTrack,
    Frame,
    FrontalView,
    ImagePatch,
)

_BORDER = 0.35
"""The photo is continued by this share of its side, so that turned frames show no edge."""
_STRIDE = 2
"""Photo pixels between vertices of the relief; its colours keep the photo's resolution."""
_PIVOT = np.array([0.0, -60.0, -70.0])
"""Where a head turns on its neck, model axes, mm."""
_SMOOTH = 0.012
"""Deviation of the smoothing before pictures are registered, share of their side."""
_REGISTRATION = ((2, 100), (1, 30))
"""By what factor the two pictures are reduced, and how many steps are taken at most, in turn."""
LEAST_TO_PART = 9
"""Views of a clip from which on a part of them makes a pair of its own."""
MAX_YAW, MAX_PITCH = 22.0, 20.0
"""Photos turned further than this, degrees, show too little of one cheek to be a target."""


@dataclass(frozen=True)
class Portrait:
    """A photo with its fit, ready to be turned.

    Attributes
    ----------
    image : (H, W, 3) uint8 sRGB
    landmarks : (478, 2) px, as seen by the landmarker
    fit : FaceFit of this one view
    """

    image: np.ndarray
    landmarks: np.ndarray
    fit: FaceFit


@dataclass(frozen=True)
class Relief:
    """A portrait as a surface in the model's axes.

    Attributes
    ----------
    vertices : (V, 3) mm
    triangles : (F, 3)
    attributes : (V, 5): place in `picture` in px, shading normal
    picture : (h, w, 3) float32 linear, the continued photo
    skin : (V,) int64, nearest vertex of the face model, -1 beside the face
    """

    vertices: np.ndarray
    triangles: np.ndarray
    attributes: np.ndarray
    picture: np.ndarray
    skin: np.ndarray


@dataclass(frozen=True)
class Pair:
    """One training pair.

    Attributes
    ----------
    view : FrontalView
        What fusion made of the simulated clip, at the photo's pose.
    target : (512, 512, 3) uint8 sRGB
        The photo in the same layout and the same tones.
    info : dict
        How it came about.
    """

    view: FrontalView
    target: np.ndarray
    info: dict


@dataclass(frozen=True)
class SimulatedClip:
    """A simulated clip, tracked and fitted.

    Attributes
    ----------
    track : FaceTrack
    fit : FaceFit
    pair : callable (track, fit) -> Pair
        Fuses what it is given, all views or some, and sets the answer beside it.
    for_real : bool
        Whether track and fit are the pipeline's own.
    """

    track: FaceTrack
    fit: FaceFit
    pair: Callable[[FaceTrack, FaceFit], Pair]
    for_real: bool

    def pairs(self, rng: np.random.Generator) -> Iterator[Pair]:
        """A pair of all views; where they were tracked, which takes longest, one of a part, too."""
        yield self.pair(self.track, self.fit)
        if self.for_real and len(self.track.views) >= LEAST_TO_PART:
            yield self.pair(*some_views(self.track, self.fit, rng))


def some_views(
    track: FaceTrack, fit: FaceFit, rng: np.random.Generator
) -> tuple[FaceTrack, FaceFit]:
    """A third to two thirds of the views, one after the other: as if the clip had been shorter."""
    n = len(track.views)
    count = int(rng.integers(-(-n // 3), 2 * n // 3 + 1))
    first = int(rng.integers(n - count + 1))
    part = slice(first, first + count)
    by_view = ("expression", "R", "t", "K", "residuals", "weights", "view_weight")
    return (
        replace(track, views=track.views[part]),
        replace(fit, **{name: getattr(fit, name)[part] for name in by_view}),
    )


def fit_portrait(
    image: np.ndarray, model: FaceModel, tracking: TrackingSettings | None = None
) -> Portrait:
    """Find and fit the one face of a photo.

    Parameters
    ----------
    image : (H, W, 3) uint8 sRGB
    model : FaceModel
    tracking : TrackingSettings, optional

    Raises
    ------
    NoFaceError
        If no face is found, or it is turned away too far to be a target.
    """
    from recon3d.fitting import fit_track
    from recon3d.tracking import track_faces

    tracks = track_faces([Frame(image, 0, 0.0)], tracking).tracks
    if not tracks:
        raise NoFaceError("no face is found in the photo")
    fit = fit_track(tracks[0], model)
    yaw, pitch, _ = head_angles(fit.R)[0]
    if abs(yaw) > MAX_YAW or abs(pitch) > MAX_PITCH:
        raise NoFaceError(f"the face is turned by {yaw:.0f}, {pitch:.0f} degrees")
    return Portrait(image, tracks[0].views[0].landmarks, fit)


def random_evenness(rng: np.random.Generator) -> tuple[float, float]:
    """How much of a portrait's own light is taken out, and the contrast of what is left.

    Portraits are lit with care: shade on one cheek is easily seen in the worst of clips, and a
    refiner that meets nothing else gains half as much on people in ordinary light.
    """
    even = float(rng.uniform(0.2, 1.0)) if rng.random() < 0.8 else 0.0
    return even, float(rng.uniform(0.6, 1.0))


def in_even_light(portrait: Portrait, even: float, contrast: float = 1.0) -> Portrait:
    """A portrait as in more even light.

    Parameters
    ----------
    portrait : Portrait
    even : float
        Share of the light on the face that is taken out (`recon3d.scenes.portraits.log_light`);
        beside the face it is continued smoothly.
    contrast : float
        Factor of what is left, of the logarithm's deviation from that of the mean skin.
    """
    fit, image = portrait.fit, portrait.image
    shape = image.shape[:2]
    posed = transform(fit.posed(0), fit.R[0], fit.t[0])
    triangle, _, barycentric = rasterise_numpy(posed, fit.model.triangles, fit.K[0], shape)
    covered = triangle >= 0
    corners = fit.model.triangles[triangle[covered]]
    surface = fit.posed(0)
    normals, place = (
        np.einsum("pk,pkc->pc", barycentric[covered], values[corners])
        for values in (vertex_normals(surface, fit.model.triangles), surface)
    )
    face = np.asarray(fit.model.regions["face"], np.float64)[corners]
    skin = np.einsum("pk,pk->p", barycentric[covered], face) > 0.5
    skin &= normals[:, 2] > 0.3
    if skin.sum() < 500:
        return portrait
    log = np.log(srgb_to_linear(image).astype(np.float32) + DARK)
    if even > 0:
        light = np.zeros((*shape, 3), np.float32)
        light[covered] = log_light(log[covered], normals, place, skin)
        log = log - even * push_pull(light, covered.astype(np.float32))
    middle = log[covered][skin].mean(0)
    linear = np.maximum(np.exp(middle + contrast * (log - middle)) - DARK, 0)
    return replace(portrait, image=to_uint8(linear_to_srgb(linear)))


def build_relief(portrait: Portrait, rng: np.random.Generator | None = None) -> Relief:
    """Give every pixel of a portrait a depth.

    On the face it is the fitted surface's; beside it the depth is continued towards the plane of
    the silhouette, as the frontal view does with what lies around a face.

    Parameters
    ----------
    portrait : Portrait
    rng : Generator, optional
        Draws how the person's face differs from every face of the model, which is what a fit meets
        at work: with none the model contains the answer.
    """
    fit, image = portrait.fit, portrait.image
    height, width = image.shape[:2]
    border = round(_BORDER * max(height, width))
    picture = cv2.copyMakeBorder(image, *(border,) * 4, cv2.BORDER_REFLECT)
    K = fit.K[0] + np.array([[0, 0, border], [0, 0, border], [0, 0, 0.0]])
    h, w = picture.shape[:2]
    posed = transform(fit.posed(0), fit.R[0], fit.t[0])
    triangle, depth, barycentric = rasterise_numpy(posed, fit.model.triangles, K, (h, w))
    covered = triangle >= 0
    # What turns away at the model's own outline would tear the relief.
    covered &= depth < np.median(depth[covered]) + 75.0
    if rng is not None:
        depth = _unlike_the_model(depth, covered, K, rng)
    depth = continued_depth(depth, covered)

    normals = np.zeros((h, w, 3), np.float32)
    surface = vertex_normals(fit.posed(0), fit.model.triangles)
    corners = fit.model.triangles[triangle[covered]]
    normals[covered] = np.einsum("pk,pkc->pc", barycentric[covered], surface[corners])
    normals = push_pull(normals, covered.astype(np.float32))
    nearest = np.full((h, w), -1)
    nearest[covered] = np.take_along_axis(corners, barycentric[covered].argmax(1)[:, None], axis=1)[
        :, 0
    ]

    row, column = np.mgrid[_STRIDE // 2 : h : _STRIDE, _STRIDE // 2 : w : _STRIDE]
    shape = row.shape
    row, column = row.ravel(), column.ravel()
    pixel = np.stack([column + 0.5, row + 0.5, np.ones(len(row))], 1)
    points = (pixel @ np.linalg.inv(K).T) * depth[row, column][:, None]
    vertices = (points - fit.t[0]) @ fit.R[0]
    number = np.arange(len(row)).reshape(shape)
    a, b, c, d = (
        x.ravel() for x in (number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:])
    )
    triangles = np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)])
    attributes = np.concatenate([pixel[:, :2], normals[row, column]], 1)
    return Relief(
        vertices,
        triangles,
        attributes.astype(np.float32),
        srgb_to_linear(picture).astype(np.float32),
        nearest[row, column],
    )


def _unlike_the_model(depth, covered, K, rng: np.random.Generator) -> np.ndarray:
    """Depths of a face that no coefficients give: flatter or deeper, and with smooth bumps.

    The bumps are 10 to 25 mm wide and 0.5 to 2.5 mm high (RMS); residuals of scans against linear
    face models are of that kind.
    """
    middle = float(np.median(depth[covered]))
    pixel_mm = middle / K[0, 0]
    noise = rng.normal(0, 1, depth.shape).astype(np.float32)
    bumps = cv2.GaussianBlur(noise, (0, 0), float(rng.uniform(10, 25)) / pixel_mm)
    bumps *= float(rng.uniform(0.5, 2.5)) / max(float(bumps[covered].std()), 1e-9)
    stretch = 1 + float(np.clip(rng.normal(0, 0.05), -0.12, 0.12))
    changed = middle + stretch * (depth - middle) + bumps - float(bumps[covered].mean())
    return np.where(covered, changed, depth).astype(depth.dtype)


def simulate(portrait: Portrait, rng: np.random.Generator, *, whole_pipeline: bool = False) -> Pair:
    """Make one training pair of a portrait: `simulate_clip`, fused from all its views."""
    clip = simulate_clip(portrait, rng, whole_pipeline=whole_pipeline)
    return clip.pair(clip.track, clip.fit)


@dataclass(frozen=True)
class PortraitFilm:
    """A portrait that turns before a bad camera.

    Attributes
    ----------
    portrait : Portrait
        In the light that it is seen in.
    even, contrast : float
        What was done to that light.
    plan : dict
        True motion and camera of the frames, and its faults.
    frames : list of (H, W, 3) uint8 sRGB
    """

    portrait: Portrait
    even: float
    contrast: float
    plan: dict
    frames: list[np.ndarray]

    def landmarks(self, frame: int) -> np.ndarray:
        """(478, 2) px where the points that the landmarker sees in the photo are in a frame.

        The fitted surface carries them; what it leaves of them in the photo goes along with the
        face's size, and with the cosine of its turn across.
        """
        fit, plan = self.portrait.fit, self.plan
        seen = project(_points(fit, fit.expression[0]), fit.K[0], fit.R[0], fit.t[0])
        rest = np.nan_to_num(self.portrait.landmarks[:, :2] - seen)
        R, t, K = plan["R"][frame], plan["t"][frame], plan["K"]
        zoom = (K[0, 0] / t[2]) / (fit.K[0, 0, 0] / fit.t[0, 2])
        turn = np.cos(np.radians(head_angles(R[None])[0, 0]))
        moved = _points(fit, fit.expression[0] + plan["expression"][frame])
        return project(moved, K, R, t) + rest * zoom * np.array([turn, 1.0])


def _points(fit: FaceFit, expression: np.ndarray) -> np.ndarray:
    """(478, 3) mm landmarks of a fit's face with an expression (E,)."""
    vertices = fit.model.vertices(fit.identity, expression) + fit.displacement
    return landmark_points(fit.model, vertices)


def film_portrait(
    portrait: Portrait, rng: np.random.Generator, most: int | None = None
) -> PortraitFilm:
    """A clip of a portrait that turns.

    Parameters
    ----------
    portrait : Portrait
    rng : Generator
    most : int, optional
        No more frames than these, spread over the motion.
    """
    even, contrast = random_evenness(rng)
    portrait = in_even_light(portrait, even, contrast)
    relief = build_relief(portrait, rng)
    plan = _plan(portrait, rng)
    if most is not None and len(plan["R"]) > most:
        rows = np.linspace(0, len(plan["R"]) - 1, most).round().astype(int)
        plan |= {key: plan[key][rows] for key in ("R", "t", "expression")}
    frames = list(degrade_clip(_render(portrait, relief, plan, rng), plan["recipe"], rng))
    return PortraitFilm(portrait, even, contrast, plan, frames[: len(plan["R"])])


def simulate_clip(
    portrait: Portrait, rng: np.random.Generator, *, whole_pipeline: bool = False
) -> SimulatedClip:
    """A clip of a portrait that turns before a bad camera.

    Parameters
    ----------
    portrait : Portrait
    rng : Generator
    whole_pipeline : bool
        Track and fit the clip for real instead of disturbing the true fit.

    Returns
    -------
    SimulatedClip

    Raises
    ------
    NoFaceError
        If the whole pipeline finds no face in the clip.
    """
    film = film_portrait(portrait, rng)
    portrait, plan, frames = film.portrait, film.plan, film.frames
    if whole_pipeline:
        track, fit, R, expression = _fit_for_real(frames, portrait, plan)
    else:
        track, fit, R, expression = _disturbed(frames, portrait, plan, rng)
    size = texture_size(plan["face_px"])
    vertices = fit.model.vertices(fit.identity, expression) + fit.displacement
    camera = layout_camera(fit.model, vertices, R, float(portrait.fit.t[0, 2]))
    answer = _in_layout(portrait)
    info = {
        "face_px": round(plan["face_px"], 1),
        "frames": len(frames),
        "yaw_span_deg": round(plan["yaw_span"], 1),
        "whole_pipeline": whole_pipeline,
        "even": round(film.even, 2),
        "contrast": round(film.contrast, 2),
        "recipe": plan["recipe"].model_dump(mode="json"),
    }

    def pair(track: FaceTrack, fit: FaceFit) -> Pair:
        texture = fuse_texture(track, fit, TexturingSettings(size=size))
        view = render_frontal(
            track, fit, texture, FrontalSettings(), vertices=vertices, camera=camera
        )
        target = match_tones(draw_at(answer, where_shown(answer, view)), view)
        return Pair(view, target, {**info, "views": len(track.views)})

    return SimulatedClip(track, fit, pair, whole_pipeline)


def texture_size(face_px: float) -> int:
    """Side of the texture for a face of so many px: no finer than what the frames can show."""
    return int(np.clip(32 * np.ceil(5.0 * face_px / 32), 192, 512))


# ------------------------------------------------------------------------------ the clip
def random_recipe(rng: np.random.Generator, face_px: float) -> Recipe:
    """A camera's faults, drawn from everything that `recon3d.restoration` models.

    Parameters
    ----------
    rng : Generator
    face_px : float
        Width of the face; motion blur and the encoder's strength go with it.
    """
    steps: list = []
    if rng.random() < 0.6:
        steps.append(
            ColourTemperature(kelvin=float(np.exp(rng.uniform(np.log(2700), np.log(11000)))))
        )
    if rng.random() < 0.6:
        defocus = float(rng.uniform(0, 1.0)) if rng.random() < 0.3 else 0.0
        steps.append(OpticalBlur(sigma=float(rng.uniform(0.3, 1.1)), defocus=defocus))
    if rng.random() < 0.4:
        length = float(rng.uniform(1.0, max(1.5, 0.1 * face_px)))
        steps.append(MotionBlur(length=length, angle=(-25.0, 25.0)))
    if rng.random() < 0.75:
        exposure = float(np.exp(rng.uniform(np.log(0.05), 0)))
        steps.append(
            LowLight(
                exposure=exposure,
                full_well=float(rng.uniform(3000, 9000)),
                read_noise=float(rng.uniform(2, 8)),
                compensation=float(rng.uniform(0.55, 1.0)),
            )
        )
    if rng.random() < 0.35:
        steps.append(
            Sharpen(amount=float(rng.uniform(0.2, 1.0)), sigma=float(rng.uniform(0.6, 1.4)))
        )
    if rng.random() < 0.08:
        steps.append(Interlace(top_first=bool(rng.random() < 0.5)))
    if rng.random() < 0.08:
        steps.append(DropFrames(drop=0.0, repeat=0.15))
    if rng.random() < 0.8:
        steps.append(H264(crf=float(rng.uniform(17, 33))))
    elif rng.random() < 0.7:
        steps.append(Jpeg(quality=float(rng.uniform(25, 92))))
    return Recipe(name="random camera", steps=tuple(steps))


def _plan(portrait: Portrait, rng: np.random.Generator) -> dict:
    """Motion, camera, light and faults of a clip; its first frame has the photo's own pose."""
    own = head_angles(portrait.fit.R)[0]
    n = int(rng.integers(1, 4)) if rng.random() < 0.12 else int(rng.integers(6, 31))
    span = float(rng.choice([8.0, 20.0, 35.0, 50.0]) * rng.uniform(0.7, 1.2))
    phase = np.linspace(0, 2 * np.pi, n, endpoint=False)
    one_sided = rng.random() < 0.2
    sweep = np.abs(np.sin(phase)) * rng.choice([-1, 1]) if one_sided else np.sin(phase)
    angles = (
        own
        + np.stack(
            [
                span * sweep,
                rng.uniform(2, 12) * np.sin(1.6 * phase + rng.uniform(0, 6)),
                rng.uniform(1, 6) * np.sin(0.9 * phase + rng.uniform(0, 6)),
            ],
            1,
        )
        * (phase > 0)[:, None]
    )
    tilt = so3_exp(np.radians([rng.normal(0, 11.0), 0.0, 0.0]))
    tilt = np.stack([np.eye(3)] + [tilt] * (n - 1))
    R = tilt @ head_rotation(*angles.T)
    face_px = float(np.exp(rng.uniform(np.log(24), np.log(120))))
    side = int(2 * np.ceil(1.25 * face_px))
    distance = float(rng.uniform(900, 3500))
    skin = portrait.fit.model.regions["face"] > 0.5
    span_mm = float(np.ptp(portrait.fit.neutral[skin, 0]))
    K = intrinsics(face_px * distance / span_mm, (side, side))
    sway = rng.normal(0, 8.0, (n, 2)) + rng.uniform(-0.4, 0.4, 2) * distance / K[0, 0]
    t = np.column_stack([sway, np.full(n, distance)])
    # The head turns on its neck; the picture is centred on the face.
    t = t - np.einsum("nij,j->ni", R, _PIVOT) + FRONTAL @ _PIVOT
    expression = np.zeros((n, len(portrait.fit.model.expression_names)))
    if n > 1 and rng.random() < 0.7:
        expression = _chatter(portrait.fit.model, phase, rng)
    direction = rng.normal(0, 1, 3) * [1.0, 0.6, 0.3] + [0.0, 0.4, 0.8]
    return {
        "R": R,
        "t": t,
        "K": K,
        "size": (side, side),
        "face_px": face_px,
        "yaw_span": span,
        "expression": expression,
        "light": direction / np.linalg.norm(direction),
        "ambient": float(rng.uniform(0.3, 1.0)),
        "recipe": random_recipe(rng, face_px),
    }


def _chatter(model: FaceModel, phase: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N, E) talking and blinking on top of the photo's expression; none in the first frame."""
    number = {name: i for i, name in enumerate(model.expression_names)}
    out = np.zeros((len(phase), len(model.expression_names)))
    talk = np.clip(np.sin(rng.uniform(3, 9) * phase + rng.uniform(0, 6)), 0, 1) * (phase > 0)
    for name, amount in (("jawOpen", 0.25), ("mouthFunnel", 0.2), ("browInnerUp", 0.3)):
        if name in number:
            out[:, number[name]] = amount * rng.random() * talk
    for name in ("mouthSmileLeft", "mouthSmileRight"):
        if name in number:
            out[:, number[name]] = 0.3 * np.roll(talk, 1) * (phase > 0)
    return out


def _render(portrait: Portrait, relief: Relief, plan: dict, rng: np.random.Generator):
    model = portrait.fit.model
    # Fewer sub-pixels than photo pixels would alias.
    supersample = 3 if plan["face_px"] < 48 else 2
    photo_face = np.ptp(portrait.landmarks[:468, 0])
    shrink = photo_face / (plan["face_px"] * supersample)
    picture = relief.picture
    if shrink > 1.1:
        picture = cv2.GaussianBlur(picture, (0, 0), 0.4 * shrink)
    wall = (rng.uniform(0.05, 0.5) * (1 + rng.normal(0, 0.05, 3))).astype(np.float32)
    on_face = relief.skin >= 0
    for R, t, expression in zip(plan["R"], plan["t"], plan["expression"], strict=True):
        vertices = relief.vertices
        if expression.any():
            moved = model.moved(expression)
            vertices = vertices.copy()
            vertices[on_face] += moved[relief.skin[on_face]]
        toward = R.T @ (FRONTAL @ plan["light"])

        def finish(values, _normals, toward=toward):
            colour = _look_up(picture, values[:, :2])
            normal = values[:, 2:5]
            length = np.sqrt(np.einsum("pc,pc->p", normal, normal))
            straight = normal @ toward / np.maximum(length, 1e-6)
            direct = np.clip((straight + 0.15) / 1.15, 0, None)
            shade = plan["ambient"] + 1.2 * (1 - plan["ambient"]) * direct
            return colour * shade[:, None]

        drawn, cover = draw_mesh(
            vertices,
            relief.triangles,
            relief.attributes,
            Camera(plan["K"], R, t, plan["size"]),
            supersample=supersample,
            finish=finish,
            normals=False,
        )
        yield to_uint8(linear_to_srgb(over(wall, drawn, cover)))


def _look_up(picture: np.ndarray, places: np.ndarray) -> np.ndarray:
    width = 4096
    rows = -(-len(places) // width)
    grid = np.zeros((rows * width, 2), np.float32)
    grid[: len(places)] = places - 0.5
    grid = grid.reshape(rows, width, 2)
    out = cv2.remap(picture, grid, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return out.reshape(-1, 3)[: len(places)]


# ------------------------------------------------------------------------------ the fit
def _disturbed(frames, portrait: Portrait, plan: dict, rng: np.random.Generator):
    """A track and a fit with errors like those of tracking.

    Returns
    -------
    track, fit, R (3, 3) and expression (E,) at which the photo is seen
    """
    true, model, n = portrait.fit, portrait.fit.model, len(frames)
    # A small face is placed worse; the errors that all frames share do not average out.
    level = (40.0 / plan["face_px"]) ** 0.5
    shared = so3_exp(np.radians(rng.normal(0, 1.0, 3) * [0.8, 0.9, 0.3]))
    jitter = so3_exp(np.radians(rng.normal(0, 0.7 * min(level, 1.4), (n, 3))))
    R = jitter @ plan["R"] @ shared
    pixel_mm = plan["t"][:, 2] / plan["K"][0, 0]
    t = plan["t"].copy()
    t[:, :2] += rng.normal(0, 0.25, (n, 2)) * pixel_mm[:, None]
    t[:, 2] *= 1 + rng.normal(0, 0.004, n)
    identity = true.identity + rng.normal(0, rng.uniform(0.1, 0.5), len(true.identity))
    expression = true.expression[0] + plan["expression"]
    wrong = rng.normal(0, 0.08, expression.shape) * (rng.random(expression.shape) < 0.3)
    expression = np.clip(expression + wrong, 0, 1)
    shape = model.vertices(true.identity, true.expression[0] + plan["expression"])
    views = tuple(
        _observation(model, frame, k, shape[k] + true.displacement, plan, rng)
        for k, frame in enumerate(frames)
    )
    track = _track(views)
    fit = FaceFit(
        model=model,
        identity=identity,
        expression=expression[:n],
        R=R,
        t=t,
        K=np.broadcast_to(plan["K"], (n, 3, 3)).copy(),
        displacement=true.displacement,
        residuals=np.zeros((n, 478, 2)),
        weights=np.ones((n, 478)),
        uncertainty=np.ones(model.n_vertices),
        identity_covariance=np.eye(len(identity)),
        view_weight=np.ones(n),
    )
    return track, fit, plan["R"][0] @ shared, expression[0]


def _observation(model, frame, k: int, shape, plan: dict, rng) -> FaceObservation:
    points = landmark_points(model, shape)
    at = project(points, plan["K"], plan["R"][k], plan["t"][k])
    at = np.nan_to_num(at, nan=float(frame.shape[0] / 2))
    yaw, pitch, roll = (float(a) for a in head_angles(plan["R"][k]))
    low, high = at.min(0), at.max(0)
    return FaceObservation(
        frame_index=k,
        source=0,
        time=k / 25,
        image_size=(frame.shape[1], frame.shape[0]),
        box=np.array([*low, *high]),
        landmarks=at + rng.normal(0, 0.01 * plan["face_px"], at.shape),
        covariance=np.broadcast_to(np.eye(2), (len(at), 2, 2)).copy(),
        depth=np.zeros(len(at)),
        yaw=yaw,
        pitch=pitch,
        roll=roll,
        quality=float(np.clip(rng.normal(0.6, 0.1) * np.cos(np.radians(yaw)), 0.05, 1)),
        patch=ImagePatch(frame, (0, 0)),
    )


def _track(views: tuple[FaceObservation, ...]) -> FaceTrack:
    def column(name):
        return np.array([getattr(v, name) for v in views], np.float32)

    return FaceTrack(
        id=0,
        views=views,
        frame_index=np.array([v.frame_index for v in views]),
        source=np.zeros(len(views), int),
        time=column("time"),
        yaw=column("yaw"),
        pitch=column("pitch"),
        face_px=np.array([v.face_width for v in views], np.float32),
        quality=column("quality"),
    )


def fitting_settings():
    """Of clips that are fitted for real: as at work, but poses are found once only. Three times
    makes errors smaller and no others, and pairs a tenth fewer."""
    from recon3d.fitting import DenseSettings, FittingSettings

    return FittingSettings(dense=DenseSettings(starts=1))


def _fit_for_real(frames, portrait: Portrait, plan: dict):
    """Track and fit the clip; the photo's pose is that of the view nearest to the first frame."""
    from recon3d.fitting import fit_track
    from recon3d.tracking import track_faces

    stream = [Frame(frame, k, k / 25) for k, frame in enumerate(frames)]
    tracks = track_faces(stream, TrackingSettings(max_views=24)).tracks
    if not tracks:
        raise NoFaceError("no face is found in the simulated clip")
    track = tracks[0]
    fit = fit_track(track, portrait.fit.model, fitting_settings())
    first = int(np.argmin([v.frame_index for v in track.views]))
    seen = track.views[first].frame_index
    # From that view to the photo's pose by the true motion between the two.
    R = plan["R"][0] @ plan["R"][seen].T @ fit.R[first]
    return track, fit, R, fit.expression[first]


# ------------------------------------------------------------------------------ the target
def _in_layout(portrait: Portrait) -> np.ndarray:
    """(512, 512, 3) uint8, the photo with its eye centres where the layout wants them."""
    right = portrait.landmarks[list(RIGHT_LID)].mean(0)
    left = portrait.landmarks[list(LEFT_LID)].mean(0)
    across, wanted = left - right, EYES[1] - EYES[0]
    turn = complex(*wanted) / complex(*across)
    A = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    shift = EYES.mean(0) - A @ (left + right) / 2
    # OpenCV has pixel centres at integers.
    shift = shift + A @ [0.5, 0.5] - 0.5
    matrix = np.column_stack([A, shift])
    return cv2.warpAffine(
        portrait.image, matrix, (SIZE, SIZE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )


def where_shown(target: np.ndarray, view: FrontalView) -> np.ndarray:
    """Where the fused view shows what the answer shows.

    Fits of small faces are a few pixels off, and a landmarker sees the eyes of a blurred picture
    too high (by 0.04 of their distance at a blur of 0.03 face widths). An answer that is not where
    the observation is would teach the refiner to blur. The best affine map of the two pictures
    [1]_, smoothed and within the face, is reduced to a similarity: proportions are the answer's.

    Parameters
    ----------
    target : (H, W, 3) uint8 sRGB
    view : FrontalView

    Returns
    -------
    (2, 3) from the view's pixels to the answer's
        No change where no map is found, or one that is no small correction.

    References
    ----------
    .. [1] G. Evangelidis, E. Psarakis, Parametric image alignment using enhanced correlation
       coefficient maximization, PAMI 2008.
    """
    side = len(target)
    greys = [cv2.cvtColor(x, cv2.COLOR_RGB2GRAY).astype(np.float32) for x in (view.raw, target)]
    inside = (view.face_mask > 0.5).astype(np.uint8)
    start = np.eye(2, 3, dtype=np.float32)
    affine = start.copy()
    # Most of the way is gone at half the size, at a quarter of the cost.
    for factor, steps in _REGISTRATION:
        size = (side // factor, side // factor)
        seen, wanted = (
            cv2.GaussianBlur(
                cv2.resize(x, size, interpolation=cv2.INTER_AREA), (0, 0), _SMOOTH * side / factor
            )
            for x in greys
        )
        mask = cv2.resize(inside, size, interpolation=cv2.INTER_NEAREST)
        stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, steps, 1e-5)
        # Pixel centres are integers to it: those of a half lie between two of the whole.
        between = 0.5 * (factor - 1) * (1 - affine[:, :2].sum(1))
        affine[:, 2] = (affine[:, 2] - between) / factor
        try:
            _, affine = cv2.findTransformECC(seen, wanted, affine, cv2.MOTION_AFFINE, stop, mask, 5)
        except cv2.error:
            return start
        between = 0.5 * (factor - 1) * (1 - affine[:, :2].sum(1))
        affine[:, 2] = factor * affine[:, 2] + between
    row, column = np.nonzero(inside)
    middle = np.array([column.mean(), row.mean()])
    a, b = (affine[0, 0] + affine[1, 1]) / 2, (affine[1, 0] - affine[0, 1]) / 2
    moved = affine[:, :2] @ middle + affine[:, 2] - middle
    size, turn = np.hypot(a, b), np.degrees(np.arctan2(b, a))
    if np.linalg.norm(moved) > 0.05 * side or abs(size - 1) > 0.07 or abs(turn) > 5:
        return start
    A = np.array([[a, -b], [b, a]])
    return np.column_stack([A, middle + moved - A @ middle])


def draw_at(picture: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """A picture resampled by the map that `where_shown` gives."""
    how = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    size = picture.shape[1::-1]
    return cv2.warpAffine(picture, matrix, size, flags=how, borderMode=cv2.BORDER_REFLECT)


def match_tones(target: np.ndarray, view: FrontalView) -> np.ndarray:
    """Give the photo the fused view's brightness and colour: neither is the refiner's business.

    One gain and offset a channel, fitted over the face on what both show at low resolution.
    """
    weight = cv2.GaussianBlur(view.face_mask, (0, 0), 4.0)
    out = np.empty_like(target)
    for c in range(3):
        a, b = broad_blur(target[..., c], 12.0), broad_blur(view.raw[..., c], 12.0)
        total = max(float(weight.sum()), 1e-6)
        ma, mb = float((weight * a).sum() / total), float((weight * b).sum() / total)
        spread_a = float((weight * (a - ma) ** 2).sum() / total)
        spread_b = float((weight * (b - mb) ** 2).sum() / total)
        gain = np.clip(np.sqrt(spread_b / max(spread_a, 1e-6)), 0.7, 1.4)
        out[..., c] = np.clip(np.round((target[..., c] - ma) * gain + mb), 0, 255)
    return out
