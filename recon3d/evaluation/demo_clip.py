"""Turn one portrait into a short CCTV-like clip of a turning head.

    python -m recon3d.evaluation.demo_clip --out assets/demo/astronaut_cctv.mp4

The portrait becomes a relief in two layers, head and body: the fitted face model gives the depth of
the face, hair and body are rounded off from their outlines, and the back of the head mirrors its
front. The relief turns before a plain room under a ceiling lamp, and what a cheap camera does to
pictures is then done to it by `recon3d.restoration`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from recon3d.colour import linear_to_srgb, srgb_to_linear, to_uint8
from recon3d.errors import NoFaceError
from recon3d.geometry import FRONTAL, head_rotation, intrinsics, so3_exp
from recon3d.rendering import draw_mesh, over
from recon3d.scenes.drawing import room
from recon3d.types import Camera, FaceFit, FaceObservation

FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152,
    148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
"""MediaPipe points round the face, in order."""
_JAW_CORNERS, _MOUTH_CORNERS, _EYE_CORNERS = [172, 397], [61, 291], [33, 263]
_TOP, _CHIN = 10, 152

# Measures of heads, mm: the outline of a head seen from the front lies this far behind the outer
# eye corners; half axes of a cranium with hair; a neck's radius.
_OUTLINE_BEHIND_EYES = 68.0
_HEAD = (82.0, 118.0, 95.0)
_NECK_RADIUS = 56.0
_BODY = (260.0, 420.0, 120.0)
_PIVOT = np.array([0.0, -70.0, -75.0])
"""Where the head turns on the neck, model axes, mm."""


@dataclass(frozen=True)
class Relief:
    """A surface over the pixels of a picture.

    Attributes
    ----------
    vertices : (V, 3), mm, model axes (y up, z out of the face)
    triangles : (F, 3)
    colours : (V, 4) linear RGB and opacity
    """

    vertices: np.ndarray
    triangles: np.ndarray
    colours: np.ndarray


def render_demo(
    portrait: np.ndarray,
    *,
    n_frames: int = 90,
    size: tuple[int, int] = (640, 480),
    face_px: float = 60.0,
    seed: int = 5,
) -> Iterator[np.ndarray]:
    """Clean frames of the turning portrait.

    Parameters
    ----------
    portrait : (H, W, 3) uint8 sRGB, one face looking at the camera, head and shoulders
    n_frames : int
    size : (width, height), px
    face_px : float
        Width of the face in the clip.
    seed : int
        Of the room.

    Yields
    ------
    (height, width, 3) uint8 sRGB

    Raises
    ------
    NoFaceError
        If no face is found in the portrait.
    """
    view, fit = fit_portrait(portrait)
    head, body = build_reliefs(portrait, view, fit)
    background = room(size, np.random.default_rng(seed))
    # The camera hangs high, looks down, and is far enough away for little perspective.
    distance, tilt = 2600.0, 11.0
    face_mm = np.ptp(view.landmarks[:468, 0]) * fit.t[0, 2] / fit.K[0, 0, 0]
    K = intrinsics(face_px * distance / face_mm, size)
    down = so3_exp(np.radians([tilt, 0.0, 0.0]))
    for i in range(n_frames):
        yaw, pitch, roll, shift = motion(i / max(n_frames - 1, 1))
        t = np.array([shift[0], 25.0 + shift[1], distance])
        picture = background
        for relief, R in (
            # The body follows the head by a fifth of its turn.
            (body, down @ head_rotation(0.2 * yaw, 0.0, 0.2 * roll)),
            (head, down @ head_rotation(yaw, pitch, roll)),
        ):
            drawn, _ = draw_mesh(
                relief.vertices,
                relief.triangles,
                relief.colours,
                Camera(K, R, t - R @ _PIVOT, size),
                finish=_relight(FRONTAL @ down.T @ R),
            )
            picture = over(picture, drawn[..., :3], drawn[..., 3])
        yield to_uint8(linear_to_srgb(picture))


def motion(phase: float) -> tuple[float, float, float, np.ndarray]:
    """Yaw, pitch, roll (degrees) and shift (2,) in mm at a phase in [0, 1] of the clip."""
    turn = 2 * np.pi * phase
    yaw = 45.0 * np.sin(turn)
    pitch = -1.0 + 8.0 * np.sin(1.6 * turn + 0.6)
    roll = 4.0 * np.sin(0.9 * turn + 2.0)
    shift = np.array([22.0 * np.sin(0.7 * turn + 0.4), 6.0 * np.sin(1.3 * turn)])
    return float(yaw), float(pitch), float(roll), shift


def cctv_camera():
    """What the camera does to the clean frames, except for the encoder: that writes the file."""
    from recon3d.restoration import (
        ColourTemperature,
        LowLight,
        MotionBlur,
        OpticalBlur,
        Recipe,
        Sharpen,
    )

    return Recipe(
        name="indoor camera",
        steps=(
            ColourTemperature(kelvin=4300.0),
            OpticalBlur(sigma=0.7),
            MotionBlur(length=2.0, angle=0.0),
            LowLight(exposure=0.16, full_well=4000.0, read_noise=8.0, compensation=0.85),
            Sharpen(amount=0.6, sigma=1.0),
        ),
    )


def write_demo(
    out: Path,
    portrait: np.ndarray,
    *,
    crf: int = 28,
    seed: int = 5,
    progress: Callable[[float, float | None], None] | None = None,
) -> None:
    """Render, degrade and encode the clip (25 frames a second)."""
    from recon3d.media import VideoWriter
    from recon3d.restoration import degrade_clip

    out.parent.mkdir(parents=True, exist_ok=True)
    n_frames = 90
    frames = render_demo(portrait, n_frames=n_frames, seed=seed)
    with VideoWriter(out, fps=25, crf=crf) as writer:
        for i, frame in enumerate(degrade_clip(frames, cctv_camera(), np.random.default_rng(seed))):
            writer.write(frame)
            if progress is not None:
                progress(i + 1, n_frames)


# ------------------------------------------------------------------------------ the relief
def fit_portrait(portrait: np.ndarray) -> tuple[FaceObservation, FaceFit]:
    """Landmarks and fit of the one face of a picture.

    Raises
    ------
    NoFaceError
    """
    from recon3d.fitting import fit_track
    from recon3d.morphable import load_model
    from recon3d.tracking import track_faces
    from recon3d.types import Frame

    tracks = track_faces([Frame(portrait, 0, 0.0)]).tracks
    if not tracks:
        raise NoFaceError("no face is found in the portrait")
    return tracks[0].views[0], fit_track(tracks[0], load_model("recon3d"))


def build_reliefs(
    portrait: np.ndarray, view: FaceObservation, fit: FaceFit
) -> tuple[Relief, Relief]:
    """Head and body of a portrait as surfaces.

    Parameters
    ----------
    portrait : (H, W, 3) uint8 sRGB
    view : FaceObservation
    fit : FaceFit of that one view

    Returns
    -------
    head, body : Relief
        The head is closed behind; the body is a front only.
    """
    landmarks = view.landmarks
    person = segment_person(portrait)
    head, oval, neck = _head_masks(person, landmarks)
    pixel = fit.t[0, 2] / fit.K[0, 0, 0]
    depth = _face_depth(fit, portrait.shape[:2])
    rows = np.clip(landmarks[_EYE_CORNERS, 1].astype(int), 0, portrait.shape[0] - 1)
    columns = np.clip(landmarks[_EYE_CORNERS, 0].astype(int), 0, portrait.shape[1] - 1)
    plane = float(np.nanmean(depth[rows, columns])) + _OUTLINE_BEHIND_EYES

    # Squares of heights above the plane of the outline are what is interpolated: that of an
    # ellipsoid has a constant Laplacian, and the root rounds the surface off at the outline.
    known = np.full(head.shape, np.nan)
    inner = cv2.erode(oval.astype(np.uint8), np.ones((7, 7))) > 0
    inner &= np.isfinite(depth)
    known[inner] = np.maximum(plane - depth[inner], 0) ** 2
    known = _add_neck(known, neck & ~oval, pixel)
    front = np.sqrt(inflate(head, known, _curvature(_HEAD, pixel), open_below=True))
    nape = _add_neck(np.full(head.shape, np.nan), neck & ~oval, pixel)
    behind = np.sqrt(inflate(head, nape, _curvature(_HEAD, pixel), open_below=True))

    linear = srgb_to_linear(portrait).astype(np.float32)
    picture = _inside_out(linear, head)
    mouth = int(landmarks[_MOUTH_CORNERS, 1].mean())
    # Under the ears lies the shadow of hair and chin, which a studio's light from ahead fills.
    below = np.clip((np.arange(len(head)) - mouth + 12) / 24, 0, 1)[:, None]
    ahead = np.clip((front - 15) / 60, 0, 1)
    picture = picture * (1 - below * 0.6 * (1 - ahead))[..., None].astype(np.float32)
    hair = _fill(picture, cv2.dilate((oval | neck).astype(np.uint8), np.ones((9, 9))) > 0, head)
    head_relief = _close(
        _grid(head, plane - front, picture, fit), _grid(head, plane + behind, hair, fit)
    )

    body = person.copy()
    body[:mouth] &= ~head[:mouth]
    hidden = cv2.dilate(head.astype(np.uint8), np.ones((7, 7))) > 0
    body_picture = _fill(_inside_out(linear, body), hidden & body, body & ~hidden)
    # The body shows its outline in all frames: it is soft, on a surface that reaches beyond it.
    opacity = cv2.GaussianBlur(body.astype(np.float32), (0, 0), 1.0)
    wide = cv2.dilate(body.astype(np.uint8), _disc(4)) > 0
    unknown = np.full(body.shape, np.nan)
    height = np.sqrt(inflate(wide, unknown, _curvature(_BODY, pixel), open_edges=True))
    return head_relief, _grid(wide, plane + 25.0 - height, body_picture, fit, opacity)


def segment_person(image: np.ndarray) -> np.ndarray:
    """(H, W) bool, where the largest person is, by MediaPipe's segmentation."""
    import mediapipe

    with mediapipe.solutions.selfie_segmentation.SelfieSegmentation(model_selection=0) as model:
        probability = model.process(np.ascontiguousarray(image)).segmentation_mask
    # The network works at 256 px; the picture's own edges sharpen its outline.
    guide = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    refined = _guided_filter(guide, probability.astype(np.float32), 6, 1e-3)
    mask = (refined > 0.5).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    if count < 2:
        raise NoFaceError("no person is found in the portrait")
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    return cv2.morphologyEx((labels == largest).astype(np.uint8), cv2.MORPH_CLOSE, _disc(3)) > 0


def inflate(
    mask: np.ndarray,
    known: np.ndarray,
    curvature: float,
    *,
    open_below: bool = False,
    open_edges: bool = False,
) -> np.ndarray:
    """Squared heights of a rounded surface over a mask: Poisson's equation.

    Parameters
    ----------
    mask : (H, W) bool
    known : (H, W)
        Squared heights where they are given, else NaN.
    curvature : float
        Minus the Laplacian, mm^2 per px^2.
    open_below : bool
        The mask's lower outline is a cut and not an outline: no slope across it.
    open_edges : bool
        The same for the edges of the picture.

    Returns
    -------
    (H, W), at least 0; 0 outside and on the outline
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.linalg import spsolve

    height, width = mask.shape
    number = np.full(mask.shape, -1)
    fixed = mask & np.isfinite(known)
    free = mask & ~fixed
    number[free] = np.arange(free.sum())
    y, x = np.nonzero(free)
    me = number[y, x]
    right_side = np.full(len(me), float(curvature))
    diagonal = np.zeros(len(me))
    rows, columns, values = [], [], []
    for dy, dx in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        v, u = y + dy, x + dx
        outside = (v < 0) | (v >= height) | (u < 0) | (u >= width)
        v, u = np.clip(v, 0, height - 1), np.clip(u, 0, width - 1)
        beyond = outside | ~mask[v, u]
        cut = (outside & open_edges) | (beyond & open_below & (dy == 1))
        diagonal += ~cut
        given = ~beyond & fixed[v, u]
        right_side[given] += known[v[given], u[given]]
        inside = ~beyond & ~given
        rows.append(me[inside])
        columns.append(number[v[inside], u[inside]])
        values.append(np.full(inside.sum(), -1.0))
    rows.append(me)
    columns.append(me)
    values.append(np.maximum(diagonal, 1e-6))
    A = coo_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    ).tocsc()
    result = np.where(fixed, np.nan_to_num(known), 0.0)
    result[free] = spsolve(A, right_side)
    return np.maximum(result, 0)


def _head_masks(
    person: np.ndarray, landmarks: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Head (with neck), face oval, neck.

    Above the mouth everything of the person is head; below, only the face and a column under it.
    """
    shape = person.shape
    oval = np.zeros(shape, np.uint8)
    cv2.fillPoly(oval, [np.round(landmarks[list(FACE_OVAL)] - 0.5).astype(np.int32)], 1)
    mouth = int(landmarks[_MOUTH_CORNERS, 1].mean())
    jaw = landmarks[_JAW_CORNERS, 0]
    centre, half = jaw.mean(), 0.45 * np.ptp(jaw)
    chin = landmarks[_CHIN, 1]
    bottom = int(chin + 0.5 * (chin - landmarks[_TOP, 1]))
    neck = np.zeros(shape, bool)
    neck[mouth:bottom, int(centre - half) : int(centre + half)] = True
    neck &= person
    head = person.copy()
    lower = (cv2.dilate(oval, np.ones((3, 3))) > 0) | neck
    head[mouth:] &= lower[mouth:]
    head = cv2.morphologyEx(head.astype(np.uint8), cv2.MORPH_OPEN, _disc(2)) > 0
    return head, (oval > 0) & head, neck & head


def _face_depth(fit: FaceFit, shape: tuple[int, int]) -> np.ndarray:
    """(H, W) camera depth of the fitted face, mm; NaN beside it."""
    import torch

    from recon3d.rendering import rasterise

    arrays = (fit.posed(0), fit.model.triangles, fit.K[0], fit.R[0], fit.t[0])
    drawn = rasterise(*(torch.from_numpy(np.ascontiguousarray(a)) for a in arrays), shape)
    depth = drawn.zbuf[0].double().numpy()
    return np.where(drawn.mask[0].numpy(), depth, np.nan)


def _add_neck(known: np.ndarray, neck: np.ndarray, pixel: float) -> np.ndarray:
    """Give the neck below the chin the squared heights of an upright cylinder."""
    known = known.copy()
    y, x = np.nonzero(neck)
    if len(y):
        low = y > (2 * y.min() + 3 * y.max()) / 5
        offset = (x - x.mean()) * pixel
        known[y[low], x[low]] = np.maximum(_NECK_RADIUS**2 - offset[low] ** 2, 0)
    return known


def _curvature(axes: tuple[float, float, float], pixel: float) -> float:
    """Minus the Laplacian of an ellipsoid's squared height, mm^2 per px^2."""
    a, b, h = axes
    return 2 * h**2 * (1 / a**2 + 1 / b**2) * pixel**2


def _inside_out(picture: np.ndarray, mask: np.ndarray, rim: int = 3) -> np.ndarray:
    """The picture with colours near the mask's outline taken from further inside.

    Pixels on the outline mix the person with what was behind.
    """
    inner = cv2.erode(mask.astype(np.uint8), _disc(rim)) > 0
    return _fill(picture, ~inner, inner)


def _fill(picture: np.ndarray, where: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Fill pixels by what surrounds them (Telea), looking only at the source mask."""
    encoded = to_uint8(linear_to_srgb(picture))
    needed = cv2.dilate(source.astype(np.uint8), np.ones((15, 15))) > 0
    hole = (where | ~source) & (needed | where)
    filled = cv2.inpaint(encoded, hole.astype(np.uint8), 4, cv2.INPAINT_TELEA)
    return np.where(hole[..., None], srgb_to_linear(filled), picture)


def _grid(
    mask: np.ndarray,
    depth: np.ndarray,
    picture: np.ndarray,
    fit: FaceFit,
    opacity: np.ndarray | None = None,
) -> Relief:
    """A vertex a pixel of the mask, two triangles between four of them."""
    y, x = np.nonzero(mask)
    number = np.full(mask.shape, -1)
    number[y, x] = np.arange(len(y))
    ray = np.column_stack([x + 0.5, y + 0.5, np.ones(len(x))]) @ np.linalg.inv(fit.K[0]).T
    vertices = (ray * depth[y, x][:, None] - fit.t[0]) @ fit.R[0]
    a, b, c, d = number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]
    whole = (a >= 0) & (b >= 0) & (c >= 0) & (d >= 0)
    a, b, c, d = (q[whole] for q in (a, b, c, d))
    # Rows run down: counter-clockwise as the camera's viewer sees it is a, b, c, d.
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    seen = np.ones(len(y)) if opacity is None else opacity[y, x]
    return Relief(vertices, triangles, np.column_stack([picture[y, x], seen]))


def _close(front: Relief, back: Relief) -> Relief:
    """Sew two reliefs over the same pixels together along their outline."""
    n = len(front.vertices)
    half = np.concatenate([front.triangles[:, [k, (k + 1) % 3]] for k in range(3)])
    key = half[:, 0] * n + half[:, 1]
    boundary = half[~np.isin(key, half[:, 1] * n + half[:, 0])]
    i, j = boundary.T
    seam = np.concatenate([np.stack([j, i, i + n], 1), np.stack([j, i + n, j + n], 1)])
    return Relief(
        np.concatenate([front.vertices, back.vertices]),
        np.concatenate([front.triangles, back.triangles[:, ::-1] + n, seam]),
        np.concatenate([front.colours, back.colours]),
    )


def _relight(turn: np.ndarray) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Shading under the room's lamp, after that of a studio is taken out.

    Parameters
    ----------
    turn : (3, 3)
        Model axes to the room's (x right, y up, z towards the camera).
    """
    lamp = np.array([-0.35, 0.8, 0.5])
    lamp /= np.linalg.norm(lamp)
    studio = np.array([0.1, 0.25, 0.96])

    def shade(colours: np.ndarray, normals: np.ndarray) -> np.ndarray:
        now = 0.55 + 0.45 * np.clip(0.3 + 0.7 * (normals @ turn.T @ lamp), 0, 1)
        before = 0.75 + 0.25 * np.clip(normals @ studio, 0, 1)
        shaded = colours[:, :3] * np.clip(now / before, 0.4, 1.15)[:, None]
        return np.column_stack([shaded * colours[:, 3:], colours[:, 3]])

    return shade


def _guided_filter(guide: np.ndarray, x: np.ndarray, radius: int, epsilon: float) -> np.ndarray:
    """Edge-preserving smoothing of x by a guide picture (He, Sun, Tang, ECCV 2010)."""
    size = (2 * radius + 1,) * 2

    def mean(a):
        return cv2.blur(a, size)

    mean_g, mean_x = mean(guide), mean(x)
    slope = (mean(guide * x) - mean_g * mean_x) / (mean(guide * guide) - mean_g**2 + epsilon)
    return mean(slope) * guide + mean(mean_x - slope * mean_g)


def _disc(radius: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)


def main(arguments: list[str] | None = None) -> None:
    """The command that makes the bundled clip."""
    import skimage.data

    from recon3d.progress import Reporter

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path("assets/demo/astronaut_cctv.mp4"))
    parser.add_argument("--seed", type=int, default=5)
    a = parser.parse_args(arguments)
    reporter = Reporter()
    with reporter.stage("demo clip") as move:
        write_demo(a.out, skimage.data.astronaut(), seed=a.seed, progress=move)
    reporter.line(f"wrote {a.out} ({a.out.stat().st_size / 1024:.0f} KiB)")


if __name__ == "__main__":
    main()
