"""Frontal views and training pairs made of drawn faces, for tests of the refiner."""

import cv2
import numpy as np

from recon3d.frontal.camera import EYES, SIZE
from recon3d.refinement.conditioning import CHANNELS, WORKING, condition
from recon3d.types import Camera, FrontalView


def drawn_face(seed: int, side: int = SIZE) -> np.ndarray:
    """(side, side, 3) uint8: a face-like drawing with sharp edges in the frontal layout."""
    rng = np.random.default_rng(seed)
    k = side / SIZE
    skin = rng.uniform(90, 200) * np.array([1.0, 0.8, 0.7])
    image = np.full((side, side, 3), rng.uniform(30, 120), np.uint8)
    centre = (round(side / 2), round(0.52 * side))
    cv2.ellipse(image, centre, (round(165 * k), round(215 * k)), 0, 0, 360, skin.tolist(), -1)
    for eye in EYES * k:
        at = tuple(int(x) for x in np.round(eye))
        cv2.ellipse(image, at, (round(32 * k), round(13 * k)), 0, 0, 360, (235, 235, 235), -1)
        cv2.circle(image, at, round(12 * k), (rng.uniform(20, 90, 3)).tolist(), -1)
        brow = (at[0], round(at[1] - 34 * k))
        cv2.ellipse(image, brow, (round(40 * k), round(7 * k)), 0, 180, 360, (40, 30, 25), -1)
    mouth = (round(side / 2), round(0.74 * side))
    wide = round(rng.uniform(45, 70) * k)
    cv2.ellipse(image, mouth, (wide, round(14 * k)), 0, 0, 360, (150, 70, 70), -1)
    texture = cv2.GaussianBlur(rng.normal(0, 25, (side, side)).astype(np.float32), (0, 0), 1.5)
    return np.clip(image + texture[..., None], 0, 255).astype(np.uint8)


def landmarks(side: int = SIZE) -> np.ndarray:
    """(478, 2) points: the lids' about the eyes, everything else in the middle."""
    from recon3d.frontal.camera import LEFT_LID, RIGHT_LID

    points = np.full((478, 2), [0.5, 0.6]) * side
    for ring, eye in ((RIGHT_LID, EYES[0]), (LEFT_LID, EYES[1])):
        around = np.linspace(0, 2 * np.pi, len(ring), endpoint=False)
        points[list(ring)] = (eye + np.stack([30 * np.cos(around), 12 * np.sin(around)], 1)) * (
            side / SIZE
        )
    points[[61, 291, 13, 14]] = (
        np.array([[0.4, 0.74], [0.6, 0.74], [0.5, 0.72], [0.5, 0.76]]) * side
    )
    for iris, eye in ((468, EYES[0]), (473, EYES[1])):
        ring = np.array([[0, 0], [12, 0], [0, 12], [-12, 0], [0, -12]])
        points[iris : iris + 5] = (eye + ring) * (side / SIZE)
    return points.astype(np.float32)


def make_view(seed: int = 0, *, blur: float = 6.0, support: float = 0.9, resolution: float = 0.2):
    """A frontal view whose picture is a blurred drawing.

    Returns
    -------
    view : FrontalView; truth : (512, 512, 3) uint8
    """
    truth = drawn_face(seed)
    raw = cv2.GaussianBlur(truth, (0, 0), blur)
    mask = np.zeros((SIZE, SIZE), np.float32)
    cv2.ellipse(mask, (SIZE // 2, round(0.52 * SIZE)), (160, 210), 0, 0, 360, 1.0, -1)
    evidence = np.zeros((SIZE, SIZE, 3), np.uint8)
    evidence[..., 0] = np.round(255 * support * mask)
    evidence[..., 1] = round(255 * resolution)
    camera = Camera(np.diag([1000.0, 1000.0, 1.0]), np.eye(3), np.zeros(3), (SIZE, SIZE))
    view = FrontalView(
        image=raw,
        raw=raw,
        evidence=evidence,
        face_mask=mask,
        normals=np.dstack([np.zeros((SIZE, SIZE, 2)), mask]).astype(np.float32),
        landmarks=landmarks(),
        camera=camera,
        generated_share=0.0,
        reference=raw,
    )
    return view, truth


def make_pairs(count: int, first: int = 0) -> dict[str, np.ndarray]:
    """Pairs as `read_shards` returns them."""
    rows = []
    for k in range(count):
        view, truth = make_view(first + k, blur=5.0)
        target = cv2.resize(truth, (WORKING, WORKING), interpolation=cv2.INTER_AREA)
        rows.append({**condition(view), "target": target, "points": landmarks(WORKING)})
    names = (*CHANNELS, "target", "points")
    return {name: np.stack([row[name] for row in rows]) for name in names}
