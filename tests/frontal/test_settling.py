"""A mesh that lies beside the face is moved to where the landmarker sees the face."""

from dataclasses import replace

import numpy as np
import pytest

from recon3d import pipeline
from recon3d.assets import asset_path
from recon3d.fitting import DenseSettings, FittingSettings, fit_track, shifted
from recon3d.fitting.visibility import surface_points
from recon3d.frontal import FrontalSettings, frontal_camera, settle
from recon3d.frontal.camera import SIZE, landmark_points
from recon3d.frontal.levelling import Sight
from recon3d.frontal.settling import CERTAIN, CHANCE, FARTHEST, FEATURES, slide_of
from recon3d.geometry import project
from recon3d.media import iterate_frames, open_inputs
from recon3d.morphable import load_model
from recon3d.settings import load_settings
from recon3d.texturing import TexturingSettings, fuse_texture
from recon3d.tracking import track_faces

SEEN = TexturingSettings(size=256, max_views=8)


@pytest.fixture(scope="module")
def model():
    return load_model("recon3d")


@pytest.fixture(scope="module")
def demo(model):
    """Track and fit of some frames of the demo's clip."""
    path = asset_path("demo", "astronaut_cctv.mp4")
    frames = list(iterate_frames(open_inputs([str(path)])))[::7]
    track = track_faces(iter(frames)).tracks[0]
    return track, fit_track(track, model, FittingSettings(dense=DenseSettings(enabled=False)))


def looked(model, share, apart=1.0):
    """A look that sees all features beside the mesh's, and what comes of it."""
    points = landmark_points(model, model.mean)
    camera = frontal_camera(model, model.mean)
    own = project(points, camera.K, camera.R, camera.t)
    seen = own + SIZE * np.asarray(share)
    return points, camera, seen, Sight(0.0, None, seen, np.full(len(own), apart))


def test_features_come_to_where_they_are_seen(model):
    points, camera, seen, sight = looked(model, (-0.03, 0.02))
    # the nose is another person's
    sight.points[[1, 4, 5, 195]] += 60
    slide = slide_of(sight, points, camera)
    assert slide.seen == pytest.approx([-0.03, 0.02], abs=5e-4)
    moved = project(points + slide.shift_mm, camera.K, camera.R, camera.t)
    assert np.median(np.abs(moved - seen)[FEATURES]) < 0.2


@pytest.mark.parametrize(
    ("far", "apart", "share"),
    [
        (0.9 * CHANCE, 1.0, 0.0),
        (0.5 * (CHANCE + CERTAIN), 1.0, 0.5),
        (1.1 * CERTAIN, 1.0, 1.0),
        (1.1 * CERTAIN, 0.7 * CERTAIN * SIZE, 0.0),
        (1.1 * FARTHEST, 1.0, 0.0),
    ],
)
def test_chance_and_contradiction_move_nothing(model, far, apart, share):
    points, camera, _, sight = looked(model, (0.0, far), apart)
    slide = slide_of(sight, points, camera)
    moved = project(points + slide.shift_mm, camera.K, camera.R, camera.t)
    own = project(points, camera.K, camera.R, camera.t)
    assert (moved - own)[FEATURES, 1].mean() / SIZE == pytest.approx(share * far, abs=5e-4)


def test_residuals_move_with_the_head(demo):
    fit = demo[1]
    moved = shifted(fit, [3.0, -2.0, 1.0])
    posed = fit.model.vertices(fit.identity, fit.expression) + fit.displacement
    points = surface_points(posed, fit.model.triangles, fit.model.landmarks)
    step = np.array([3.0, -2.0, 1.0])
    at = [project(p, fit.K, fit.R, fit.t) for p in (points, points + step)]
    used = np.isfinite(fit.residuals).all(-1)
    assert used.any()
    np.testing.assert_allclose(
        (fit.residuals - moved.residuals)[used], (at[1] - at[0])[used], atol=1e-9
    )
    assert moved.info is not fit.info


def test_a_slid_mesh_is_put_back(demo):
    """Moved by a quarter of the distance between the eyes, it comes most of the way back."""
    track, fit = demo
    assert settle(fit, fuse_texture(track, fit, SEEN)) is None
    slid = np.array([6.0, -8.0, 0.0])
    wrong = shifted(fit, slid)
    texture = fuse_texture(track, wrong, SEEN)
    assert settle(wrong, texture, FrontalSettings(settle=False)) is None
    made_up = replace(texture, generated=np.maximum(texture.generated, 0.5))
    assert settle(wrong, made_up) is None
    found = settle(wrong, texture)
    left = slid + found.info["settled_mm"]
    assert np.linalg.norm(left) < 0.3 * np.linalg.norm(slid)
    assert "settled_mm" not in wrong.info
    assert np.linalg.norm(found.info["settled_seen"]) > CERTAIN
    np.testing.assert_allclose(
        found.t, wrong.t + wrong.R @ np.array(found.info["settled_mm"]), atol=0.02
    )


def test_a_run_goes_on_with_the_moved_mesh(demo, tmp_path, monkeypatch):
    """Mesh, texture and records are those of the moved fit, in a resumed run too."""
    path = asset_path("demo", "astronaut_cctv.mp4")
    settings = load_settings(
        None,
        ["fitting.dense.enabled=false", "texturing.size=256", "texturing.max_views=4"],
        refine=False,
    )
    calls = []

    def moved(fit, texture, settings):
        calls.append(fit)
        return replace(shifted(fit, [1.0, 2.0, 0.0]), info={**fit.info, "settled_mm": [1, 2, 0]})

    monkeypatch.setattr("recon3d.frontal.settling.settle", moved)
    first = pipeline.run([str(path)], tmp_path, settings, keep=True).reconstructions[0]
    again = pipeline.run([str(path)], tmp_path, settings, keep=True, resume=True)
    again = again.reconstructions[0]
    assert len(calls) == 1
    for made in (first, again):
        np.testing.assert_allclose(made.fit.t, calls[0].t + calls[0].R @ [1.0, 2.0, 0.0])
        assert made.fit.info["settled_mm"] == [1, 2, 0]
    np.testing.assert_array_equal(first.texture.albedo, again.texture.albedo)
