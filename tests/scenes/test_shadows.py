"""Shadows: what stands before the lamp takes its light."""

import numpy as np
import pytest

from recon3d.geometry import project
from recon3d.scenes.scene import Lamp, Scene, clean_frames, scene_truth
from recon3d.scenes.shadows import lit_share


def plate(z: float, half: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    """A square grid that faces the viewer."""
    line = np.linspace(-half, half, n)
    vertices = np.column_stack([*(a.ravel() for a in np.meshgrid(line, line)), np.full(n * n, z)])
    a = (np.arange(n - 1)[:, None] * n + np.arange(n - 1)).ravel()
    triangles = np.concatenate(
        [np.stack([a, a + 1, a + n], 1), np.stack([a + 1, a + n + 1, a + n], 1)]
    )
    return vertices, triangles


@pytest.fixture(scope="module")
def two_plates():
    wall, faces = plate(0.0, 100.0, 61)
    screen, more = plate(40.0, 20.0, 9)
    return np.concatenate([wall, screen]), np.concatenate([faces, more + len(wall)]), len(wall)


@pytest.mark.parametrize("aside", [0.0, 1.0])
def test_a_screen_throws_its_shadow_away_from_the_lamp(two_plates, aside):
    vertices, triangles, n_wall = two_plates
    toward = np.array([aside, 0.0, 1.0]) / np.hypot(aside, 1)
    lit = lit_share(vertices, triangles, toward, 0.5)
    # The shadow of a square at 40 mm lies 40 mm times the slope of the light aside.
    x, y = vertices[:n_wall, 0] + 40 * aside, vertices[:n_wall, 1]
    inside = np.maximum(abs(x), abs(y)) < 16
    outside = np.maximum(abs(x), abs(y)) > 24
    assert lit[:n_wall][inside].max() == 0
    assert lit[:n_wall][outside].min() == 1
    assert lit[n_wall:].min() == 1


def test_a_larger_lamp_makes_softer_shadows(two_plates):
    vertices, triangles, n_wall = two_plates
    toward = np.array([0.3, 0.2, 1.0]) / np.linalg.norm([0.3, 0.2, 1.0])
    between = [
        np.mean((lit > 0) & (lit < 1))
        for lit in (lit_share(vertices, triangles, toward, r)[:n_wall] for r in (0.5, 12.0))
    ]
    assert between[1] > 2 * between[0] > 0


def test_a_head_shades_itself():
    from recon3d.morphable import load_model

    scene = Scene(n_frames=1, width=160, height=160, face_px=64, supersample=1)
    truth = scene_truth(scene, load_model("recon3d"), np.full((64, 64, 3), 0.4, np.float32))
    high = dict(kelvin=6500.0, exposure=1.0, direction=(0.0, 0.9, 0.3), ambient=0.2)
    plain, shaded = (
        next(iter(clean_frames(truth, Lamp(**high, radius_deg=r)))).astype(int) for r in (None, 2.0)
    )
    change = plain.mean(2) - shaded.mean(2)
    assert change.min() > -2
    # No light is lost on the forehead, much between the nose and the lip.
    points = truth.landmarks(0)[[10, 2, 0]]
    forehead, nose, lip = project(points, truth.K, truth.R[0], truth.t[0]).astype(int)
    assert change[forehead[1] + 3, forehead[0]] < 3
    assert change[nose[1] : lip[1] + 1, nose[0] - 6 : nose[0] + 7].max() > 30
