"""The relief behind the demo's clip, and the clip itself."""

import numpy as np
import pytest

from recon3d.assets import asset_path
from recon3d.evaluation.demo_clip import Relief, _close, inflate, motion


def test_an_ellipse_inflates_to_an_ellipsoid():
    a, b, height = 40.0, 30.0, 25.0
    x, y = np.meshgrid(np.arange(-50, 51.0), np.arange(-40, 41.0))
    exact = np.maximum(1 - (x / a) ** 2 - (y / b) ** 2, 0) * height**2
    mask = exact > 0
    curvature = 2 * height**2 * (1 / a**2 + 1 / b**2)
    found = inflate(mask, np.full(mask.shape, np.nan), curvature)
    assert np.abs(np.sqrt(found) - np.sqrt(exact))[exact > 60].max() < 1.5
    assert found[~mask].max() == 0


def test_known_heights_are_kept_and_an_open_side_has_no_slope():
    mask = np.ones((30, 30), bool)
    known = np.full(mask.shape, np.nan)
    known[10:12, 10:12] = 90.0
    found = inflate(mask, known, 0.5, open_below=True)
    np.testing.assert_allclose(found[10:12, 10:12], 90.0)
    assert abs(found[-1, 15] - found[-2, 15]) < abs(found[0, 15] - found[1, 15])
    flat = inflate(mask, known, 0.0, open_edges=True)
    np.testing.assert_allclose(flat, 90.0, atol=1e-6)


def test_a_closed_relief_is_watertight():
    import trimesh

    y, x = np.mgrid[0:5, 0:6]
    front = np.column_stack([x.ravel(), -y.ravel(), np.ones(30)]).astype(float)
    quad = (y[:-1, :-1] * 6 + x[:-1, :-1]).ravel()
    a, b, c, d = quad, quad + 6, quad + 7, quad + 1
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    colours = np.ones((30, 4))
    closed = _close(
        Relief(front, triangles, colours), Relief(front * [1, 1, -1], triangles, colours)
    )
    mesh = trimesh.Trimesh(closed.vertices, closed.triangles, process=False)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.volume == pytest.approx(5 * 4 * 2)


def test_the_head_turns_45_degrees_to_both_sides():
    yaw = [motion(phase)[0] for phase in np.linspace(0, 1, 90)]
    assert min(yaw) == pytest.approx(-45, abs=0.5)
    assert max(yaw) == pytest.approx(45, abs=0.5)


def test_the_bundled_clip_is_small_and_plays():
    from recon3d.media import iterate_frames, open_inputs

    path = asset_path("demo", "astronaut_cctv.mp4")
    assert path.stat().st_size < 2**20
    assert path.with_name("CARD.md").is_file()
    frames = list(iterate_frames(open_inputs([str(path)])))
    assert len(frames) == 90
    assert frames[0].image.shape == (480, 640, 3)
