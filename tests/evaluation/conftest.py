"""An egg for a head, a public-domain portrait for its picture, and a benchmark made of both."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from recon3d.scenes.truth import ShapeTruth

NOW7_DIRECTIONS = np.array(
    [
        [-0.45, 0.2, 1.0],
        [-0.15, 0.2, 1.0],
        [0.15, 0.2, 1.0],
        [0.45, 0.2, 1.0],
        [0.0, -0.15, 1.0],
        [-0.3, -0.45, 1.0],
        [0.3, -0.45, 1.0],
    ]
)


def bumpy_egg(n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """An egg with two bumps: no rotation maps it onto itself."""
    polar, around = np.meshgrid(
        np.linspace(0.15, np.pi - 0.15, n), np.linspace(-np.pi, np.pi, n), indexing="ij"
    )
    x = np.stack([np.sin(polar) * np.sin(around), np.cos(polar), np.sin(polar) * np.cos(around)], 2)
    grow = 1 + 0.25 * np.exp(-8 * ((x - [0, 0.1, 1]) ** 2).sum(2))
    grow += 0.15 * np.exp(-12 * ((x - [0.6, 0.5, 0.6]) ** 2).sum(2))
    vertices = (x * grow[..., None] * [70, 100, 85]).reshape(-1, 3)
    i = (np.arange(n - 1)[:, None] * n + np.arange(n - 1)).ravel()
    quads = np.stack([i, i + n, i + n + 1, i + 1], 1)
    return vertices, np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


@pytest.fixture(scope="session")
def egg() -> tuple[np.ndarray, np.ndarray]:
    """Vertices (1600, 3) mm and triangles (3042, 3)."""
    return bumpy_egg()


@pytest.fixture(scope="session")
def egg_truth(egg) -> ShapeTruth:
    vertices, triangles = egg
    toward = vertices / np.linalg.norm(vertices, axis=1, keepdims=True)
    wanted = NOW7_DIRECTIONS / np.linalg.norm(NOW7_DIRECTIONS, axis=1, keepdims=True)
    now7 = vertices[(toward @ wanted.T).argmax(0)]
    mask = (vertices[:, 2] > 10) & (np.abs(vertices[:, 1]) < 80)
    return ShapeTruth(vertices, triangles, mask, now7, vertices[vertices[:, 2].argmax()])


@pytest.fixture(scope="session")
def portrait() -> np.ndarray:
    """(300, 300, 3) uint8 sRGB: one face, 110 px wide."""
    import skimage.data

    return np.ascontiguousarray(skimage.data.astronaut()[0:300, 80:380])


@pytest.fixture(scope="session")
def portrait_mask(portrait) -> np.ndarray:
    mask = np.zeros(portrait.shape[:2], np.uint8)
    cv2.ellipse(mask, (144, 120), (52, 74), 0, 0, 360, 1, -1)
    return mask > 0


@pytest.fixture
def benchmark_folder(tmp_path, egg_truth, portrait, portrait_mask) -> Path:
    """One subject, three cases in two conditions."""
    folder = tmp_path / "bench"
    subject = folder / "subjects" / "egg"
    subject.mkdir(parents=True)
    np.savez(
        subject / "gt.npz",
        vertices=egg_truth.vertices,
        triangles=egg_truth.triangles,
        face_mask=egg_truth.mask,
        now7=egg_truth.now7,
        nose_tip=egg_truth.nose_tip,
    )
    cv2.imwrite(str(subject / "frontal.png"), portrait[..., ::-1])
    cv2.imwrite(str(subject / "frontal_mask.png"), portrait_mask.astype(np.uint8) * 255)
    cases = [("egg_dark_1", "dark"), ("egg_dark_2", "dark"), ("egg_clean", "clean")]
    manifest = {
        "name": "egg bench",
        "subjects": [
            {
                "id": "egg",
                "gt": "subjects/egg/gt.npz",
                "frontal": "subjects/egg/frontal.png",
                "frontal_mask": "subjects/egg/frontal_mask.png",
            }
        ],
        "cases": [
            {"case": n, "subject": "egg", "condition": c, "clip": f"cases/{n}/clip.mp4"}
            for n, c in cases
        ],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="session")
def shared() -> Path:
    default = Path(__file__).resolve().parents[3] / "shared"
    folder = Path(os.environ.get("RECON3D_SHARED", default))
    if not (folder / "eval" / "score.py").exists():
        pytest.skip(f"the shared benchmark is not there ({folder})")
    return folder
