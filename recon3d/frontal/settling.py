"""Does the mesh lie where the face is? The landmarker looks at the fused portrait.

On faces of thirty pixels a landmarker is wrong by pixels, and in all frames alike. What the frames
show of the skin then agrees perfectly well, a tenth of the face beside where the mesh has it, and
no alignment of frames with one another can tell. In the portrait, many frames together and many
times as large, the features stand clear, and the mesh's own can be moved there.

What a landmarker sees in a blurred portrait is not exact either: it sees the eyes too high, and
small distances are chance. In the refiner's picture, whose features are where the fused view has
them, it is exact enough for smaller ones.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from recon3d.errors import Recon3DError
from recon3d.fitting import shifted
from recon3d.fitting.shape_basis import FACE_OVAL
from recon3d.frontal.camera import SIZE, frontal_camera, landmark_points
from recon3d.frontal.levelling import Sight, look_at
from recon3d.frontal.settings import FrontalSettings
from recon3d.frontal.view import draw_generated, draw_portrait
from recon3d.geometry import project
from recon3d.tracking import TrackingSettings, load_landmarker
from recon3d.types import Camera, FaceFit, FaceTexture, FrontalView


class Limits(NamedTuple):
    """Distances between the mesh's features and the ones seen, shares of the picture's width (the
    eyes are 0.28 apart).

    Attributes
    ----------
    chance : float
        What says nothing: moving by less does as much harm as good.
    certain : float
        What is taken to be true as it is; between the two a part of it is.
    apart : float
        What picture and mirror image may have features apart, however near the mesh's are.
    """

    chance: float
    certain: float
    apart: float


FUSED = Limits(0.015, 0.025, 0.0)
"""In the fused portrait. Of meshes slid on purpose by 0.025 and up to twice as much, a third of the
distance was left."""
REFINED = Limits(0.005, 0.009, 0.01)
"""In the refiner's picture, which has features 0.002 to 0.009 from those of its mirror image. Where
it shows them farther from the mesh's, surface points come nearer to the truth in most clips."""
FARTHEST = 0.1
"""What is seen beyond this is something else than the face."""
ALIKE = 0.5
"""Picture and mirror image must have features nearer to each other than this share of the distance,
or than `Limits.apart`."""
MADE_UP = 0.25
"""A portrait of whose features more than this share was mirrored or filled is no witness."""
ROUNDS = 10

FEATURES = np.setdiff1d(np.arange(468), FACE_OVAL)
"""Points between hairline and chin. The outline is the model's more than the picture's."""


class Slide(NamedTuple):
    """How far the mesh lies beside the face that it carries.

    Attributes
    ----------
    seen : (2,)
        From the mesh's features to those seen in the portrait, right and down, share of its width.
    shift_mm : (3,)
        By which the head is to be moved, model axes; zero where what was seen may be chance.
    """

    seen: np.ndarray
    shift_mm: np.ndarray


def settle(
    fit: FaceFit,
    texture: FaceTexture,
    settings: FrontalSettings | None = None,
    refined: tuple[FrontalView, np.ndarray] | None = None,
) -> FaceFit | None:
    """Move the mesh to where the face is seen in what it carries.

    Parameters
    ----------
    fit : FaceFit
    texture : FaceTexture
        Fused by that fit.
    settings : FrontalSettings
    refined : (FrontalView, (512, 512, 3) uint8 sRGB), optional
        The frontal view of that fit and texture, and what a refiner makes of it: looked at instead
        of the portrait.

    Returns
    -------
    FaceFit or None
        With other poses, ``info["settled_mm"]`` and ``info["settled_seen"]``: the texture has to be
        fused again. None where there is nothing to move.
    """
    settings = settings or FrontalSettings()
    if not settings.settle or not np.isfinite(fit.neutral).all():
        return None
    if refined is None:
        camera = frontal_camera(fit.model, fit.neutral, settings.distance_mm)
    else:
        camera = refined[0].camera
    points = landmark_points(fit.model, fit.neutral)
    if _made_up(fit, texture, camera, points) > MADE_UP:
        return None
    try:
        landmarker = load_landmarker(TrackingSettings())
    except Recon3DError:
        return None
    try:
        if refined is None:
            picture = draw_portrait(fit, texture, camera, fit.neutral)
        else:
            picture = refined[1]
        sight = look_at(landmarker, picture)
    finally:
        landmarker.close()
    if sight is None:
        return None
    slide = slide_of(sight, points, camera, FUSED if refined is None else REFINED)
    if not slide.shift_mm.any():
        return None
    moved = shifted(fit, slide.shift_mm)
    before = np.array(fit.info.get("settled_mm", (0.0, 0.0, 0.0)))
    moved.info["settled_mm"] = [round(float(x), 2) for x in before + slide.shift_mm]
    moved.info["settled_seen"] = [round(float(x), 4) for x in slide.seen]
    return moved


def slide_of(sight: Sight, points: np.ndarray, camera: Camera, limits: Limits = FUSED) -> Slide:
    """What a look at the portrait says about the place of the mesh.

    Parameters
    ----------
    sight : Sight
    points : (478, 3) mm
        The mesh's landmarks, model axes; NaN where it has none.
    camera : Camera
        Of the portrait.
    limits : Limits

    Returns
    -------
    Slide
    """
    own = project(points, camera.K, camera.R, camera.t)
    used = FEATURES[np.isfinite(own[FEATURES]).all(1)]
    away = sight.points[used] - own[used]
    weight = np.ones(len(used))
    for _ in range(ROUNDS):
        # Faces differ from the fit's in a feature or two: the shift is that of most.
        middle = (weight[:, None] * away).sum(0) / weight.sum()
        beyond = np.linalg.norm(away - middle, axis=1)
        weight = 1 / (1 + (beyond / (2 * np.median(beyond) + 1e-6)) ** 2)
    far = np.linalg.norm(middle)
    apart = np.median(sight.apart[used])
    seen = middle / SIZE
    share = np.clip((far / SIZE - limits.chance) / (limits.certain - limits.chance), 0, 1)
    if far / SIZE > FARTHEST or apart > max(ALIKE * far, limits.apart * SIZE):
        share = 0.0
    depth = (points[used] @ camera.R.T + camera.t)[:, 2].mean()
    in_camera = np.array([*middle, 0.0]) * depth / camera.K[0, 0]
    return Slide(seen, share * camera.R.T @ in_camera)


def _made_up(fit, texture, camera, points) -> float:
    """Share of the features that no frame shows."""
    own = project(points, camera.K, camera.R, camera.t)[FEATURES]
    own = own[np.isfinite(own).all(1)].astype(np.float32)
    generated = draw_generated(fit, texture, camera, fit.neutral)
    x, y = (own - 0.5).T
    return float(cv2.remap(generated, x, y, cv2.INTER_LINEAR).mean())
