"""A mesh that lies beside the face is moved to where the landmarker sees the face."""

from dataclasses import replace

import numpy as np
import pytest

from recon3d import pipeline
from recon3d.assets import asset_path
from recon3d.fitting import DenseSettings, FittingSettings, fit_track, shifted
from recon3d.fitting.visibility import surface_points
from recon3d.frontal import FrontalSettings, frontal_camera, render_frontal, settle
from recon3d.frontal.camera import SIZE, landmark_points
from recon3d.frontal.levelling import Sight
from recon3d.frontal.settling import FARTHEST, FEATURES, FUSED, REFINED, slide_of
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
        (0.9 * FUSED.chance, 1.0, 0.0),
        (0.5 * sum(FUSED[:2]), 1.0, 0.5),
        (1.1 * FUSED.certain, 1.0, 1.0),
        (1.1 * FUSED.certain, 0.7 * FUSED.certain * SIZE, 0.0),
        (1.1 * FARTHEST, 1.0, 0.0),
    ],
)
def test_chance_and_contradiction_move_nothing(model, far, apart, share):
    points, camera, _, sight = looked(model, (0.0, far), apart)
    slide = slide_of(sight, points, camera)
    moved = project(points + slide.shift_mm, camera.K, camera.R, camera.t)
    own = project(points, camera.K, camera.R, camera.t)
    assert (moved - own)[FEATURES, 1].mean() / SIZE == pytest.approx(share * far, abs=5e-4)


def test_in_a_refined_picture_less_is_believed(model):
    points, camera, _, sight = looked(model, (0.0, 0.5 * sum(REFINED[:2])))
    assert not slide_of(sight, points, camera).shift_mm.any()
    slide = slide_of(sight, points, camera, REFINED)
    moved = project(points + slide.shift_mm, camera.K, camera.R, camera.t)
    own = project(points, camera.K, camera.R, camera.t)
    shown = (moved - own)[FEATURES, 1].mean() / SIZE
    assert shown == pytest.approx(0.25 * sum(REFINED[:2]), abs=2e-4)
    # Picture and mirror image are as far apart as they are from the mesh.
    sight = looked(model, (0.0, 1.1 * REFINED.certain), 0.9 * REFINED.apart * SIZE)[3]
    assert slide_of(sight, points, camera, REFINED).shift_mm.any()
    sight = looked(model, (0.0, 1.1 * REFINED.certain), 1.1 * REFINED.apart * SIZE)[3]
    assert not slide_of(sight, points, camera, REFINED).shift_mm.any()


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
    # Looked at once more, in a picture where everything is 2 % lower: both movements are told.
    np.testing.assert_allclose(
        found.t, wrong.t + wrong.R @ np.array(found.info["settled_mm"]), atol=0.02
    )
    texture = fuse_texture(track, found, SEEN)
    view = render_frontal(track, found, texture, FrontalSettings(surroundings=False, level=False))
    lower = np.roll(view.raw, 10, axis=0)
    again = settle(found, texture, None, (view, lower))
    assert again.info["settled_seen"][1] > REFINED.certain
    assert again.info["settled_mm"][1] < found.info["settled_mm"][1] - 2
    assert np.linalg.norm(found.info["settled_seen"]) > FUSED.certain


class _Clear:
    """A refiner that leaves the picture as it is."""

    def __init__(self, kind):
        self.kind, self.asked = kind, 0

    def __call__(self, view):
        self.asked += 1
        return view.raw.astype(np.float32), None


def test_only_the_own_refiner_is_asked_where_the_face_is(demo, monkeypatch):
    track, fit = demo
    settings = load_settings(
        None, ["texturing.size=256", "texturing.max_views=4", "frontal.surroundings=false"]
    )
    texture = fuse_texture(track, fit, settings.texturing)
    looks = []

    def look(fit, texture, settings, refined=None):
        looks.append(refined)
        return None if refined is None else shifted(fit, [0.0, 1.0, 0.0])

    monkeypatch.setattr("recon3d.frontal.settling.settle", look)
    own, other = _Clear("recon3d"), _Clear("onnx")
    settled, view = pipeline.portray(track, fit, texture, settings, own)
    assert own.asked == 1 and len(looks) == 2
    assert (looks[1][1] == looks[1][0].raw).all()
    np.testing.assert_allclose(settled[0].t, fit.t + fit.R @ [0.0, 1.0, 0.0])
    assert not np.array_equal(view.raw, looks[1][0].raw)
    assert pipeline.portray(track, fit, texture, settings, other)[0] is None
    assert other.asked == 0
    off = settings.model_copy(
        update={"frontal": settings.frontal.model_copy(update={"settle": False})}
    )
    assert pipeline.portray(track, fit, texture, off, own)[0] is None and own.asked == 1


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
