"""The frontal portrait: layout, evidence, tone, and what lies around the face."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon3d.frontal import FrontalSettings, frontal_camera, render_frontal
from recon3d.frontal.camera import EYES, LEFT_LID, RIGHT_LID, landmark_points
from recon3d.frontal.deviation import determined_share, predicted_deviation
from recon3d.frontal.pyramid import blend, push_pull
from recon3d.frontal.surroundings import bring_surroundings
from recon3d.frontal.tone import LUMINANCE, bright_luminance, compress, neutral_gains
from recon3d.frontal.view import _draw, _face_mask, _pixels, _sources
from recon3d.geometry import head_angles, project, so3_exp
from recon3d.texturing import TexturingSettings, fuse_texture


def _scene_module():
    path = Path(__file__).parents[1] / "texturing" / "head_scene.py"
    spec = importlib.util.spec_from_file_location("frontal_head_scene", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


scene = _scene_module()


@pytest.fixture(scope="module")
def portrait():
    angles = np.array([[-30.0, 0], [-12, 5], [0, 0], [12, -5], [30, 0]])
    track, fit, skin = scene.make_scene(angles)
    texture = fuse_texture(track, fit, TexturingSettings(size=192))
    return track, fit, texture, skin, render_frontal(track, fit, texture)


def test_eye_centres_lie_where_the_contract_says(portrait):
    view = portrait[-1]
    for lid, eye in ((RIGHT_LID, EYES[0]), (LEFT_LID, EYES[1])):
        assert np.allclose(view.landmarks[list(lid)].mean(0), eye, atol=0.01)


@given(
    turn=st.tuples(*[st.floats(-0.1, 0.1)] * 3),
    scale=st.floats(0.7, 1.4),
    distance=st.floats(600, 10000),
)
@settings(max_examples=20, deadline=None)
def test_layout_holds_for_turned_and_scaled_heads(turn, scale, distance):
    model = MODEL
    vertices = scale * model.mean @ so3_exp(np.array(turn)).T
    camera = frontal_camera(model, vertices, distance)
    x = project(landmark_points(model, vertices), camera.K, camera.R, camera.t)
    assert np.allclose(x[list(RIGHT_LID)].mean(0), EYES[0], atol=1e-6)
    assert np.allclose(x[list(LEFT_LID)].mean(0), EYES[1], atol=1e-6)
    # A yaw of the shape within its axes is undone, whatever its sign.
    turned = head_angles(camera.R @ so3_exp(np.array(turn)))
    assert abs(turned[0]) < 0.7


MODEL = scene.make_model()


def test_shapes_ranges_and_types(portrait):
    view = portrait[-1]
    assert view.image.shape == view.raw.shape == view.evidence.shape == (512, 512, 3)
    assert view.image.dtype == view.raw.dtype == view.evidence.dtype == np.uint8
    assert np.array_equal(view.image, view.raw)
    assert view.face_mask.shape == (512, 512)
    assert view.face_mask.min() >= 0 and view.face_mask.max() == 1
    length = np.linalg.norm(view.normals, axis=-1)
    assert np.allclose(length[view.face_mask > 0.5], 1, atol=1e-3)
    assert view.landmarks.shape == (478, 2)
    assert 0 <= view.generated_share < 0.1


def test_evidence_is_support_resolution_and_generation(portrait):
    track, fit, _, _, view = portrait
    inside = view.face_mask > 0.95
    assert view.evidence[inside][:, 0].mean() > 20
    assert view.evidence[inside][:, 2].mean() < 20
    # A clip shows nearly every pixel often enough, and around the surface frames speak alone.
    assert view.confirmed.min() >= 0.1 and 0.6 < view.confirmed[inside].mean() <= 1
    assert (view.confirmed[view.face_mask == 0] == 1).all()
    # Far outside the patches nothing was seen and everything is made up.
    alone = render_frontal(track, fit, portrait[2], FrontalSettings(surroundings=False))
    outside = alone.face_mask == 0
    assert alone.evidence[outside][:, 0].max() == 0
    assert alone.evidence[outside][:, 2].min() == 255


def test_skin_at_the_rim_is_shown_as_far_as_frames_saw_it():
    y, x = np.mgrid[:512, :512] + 0.5 - 256
    sphere = np.clip(1 - (x**2 + y**2) / 200.0**2, 0, 1)
    surface = {
        "face": np.ones((512, 512), np.float32),
        "facing": np.sqrt(sphere),
        "coverage": (sphere > 0).astype(np.float32),
        "generated": (x > 0).astype(np.float32),
    }
    shown = _face_mask(surface)[256] > 0.5
    left, right = 256 - np.flatnonzero(shown)[0], np.flatnonzero(shown)[-1] - 256
    # sqrt(1 - r^2) is 0.18 where what was seen ends, and 0.4 where what was made up does.
    assert 185 < left < 200 and 165 < right < 185


def _around(track, fit, together):
    camera = frontal_camera(fit.model, fit.neutral)
    depth = np.full((512, 512), float(camera.t[2]), np.float32)
    return bring_surroundings(track, fit, camera, depth, 1, together)


def test_frames_turned_alike_are_merged_around_the_face():
    angles = np.array([[0.0, 0], [1, 0], [-1, 0], [0, 1], [0, -1], [25, 0]])
    clean = _around(*scene.make_scene(angles[:1], noise=0.0)[:2], 1)
    track, fit, _ = scene.make_scene(angles, noise=0.03)
    alone, merged = _around(track, fit, 1), _around(track, fit, 5)
    assert len(alone.views) == 1
    assert len(merged.views) == 5 and 5 not in merged.views
    seen = (clean.seen > 0.9) & (alone.seen > 0.9)
    error = [np.abs(x.image - clean.image).mean(-1)[seen].mean() for x in (alone, merged)]
    assert error[1] < 0.7 * error[0]


def test_photos_of_an_album_are_not_merged():
    track, fit, _ = scene.make_scene(np.array([[0.0, 0], [1, 0], [-1, 0]]))
    views = tuple(replace(view, shot=k) for k, view in enumerate(track.views))
    assert len(_around(track, fit, 3).views) == 3
    assert len(_around(replace(track, views=views), fit, 3).views) == 1


def test_what_one_frame_alone_shows_around_the_face_is_not_merged():
    angles = np.array([[0.0, 0], [1, 0], [-1, 0]])
    track, fit, _ = scene.make_scene(angles, noise=0.01)
    plain = _around(track, fit, 3)
    main = plain.views[0]
    views = list(track.views)
    for k, view in enumerate(views):
        if k != main:
            image = view.patch.image.copy()
            image[:, : image.shape[1] // 6] = 255
            views[k] = replace(view, patch=replace(view.patch, image=image))
    passer = _around(replace(track, views=tuple(views)), fit, 3)
    assert passer.views == plain.views
    alone = _around(track, fit, 1)
    off = np.abs(passer.image - alone.image).mean(-1)[alone.seen > 0.9]
    assert np.quantile(off, 0.99) < 0.1


def test_the_face_has_the_colours_of_the_skin_up_to_a_gain(portrait):
    from recon3d.colour import srgb_to_linear

    view = portrait[-1]
    inside = view.face_mask > 0.99
    linear = srgb_to_linear(view.raw)[inside].mean(0)
    truth = portrait[3].mean((0, 1))
    assert np.abs(np.log(linear / linear[1]) - np.log(truth / truth[1])).max() < 0.45


def test_light_from_above_is_kept_and_light_from_the_side_is_not():
    from recon3d.frontal.view import _symmetric_light

    y, x = (np.mgrid[:512, :512] - 255.5) / 256
    colour = np.full((512, 512, 3), 0.3, np.float32)
    lit = colour * np.exp(-0.3 * y + 0.5 * x)[..., None].astype(np.float32)
    surface = {"colour": colour, "lit": lit, "coverage": np.ones((512, 512))}
    kept = np.log(_symmetric_light(surface, 1.0)[..., 0])
    middle = np.s_[60:-60, 60:-60]
    assert np.abs(kept + 0.3 * y)[middle].max() < 0.03
    assert np.abs(np.log(_symmetric_light(surface, 0.5)[..., 0]) - kept / 2).max() < 1e-5
    assert (_symmetric_light(surface, 0.0) == 1).all()


def test_one_turned_view_gives_a_finite_picture():
    track, fit, _ = scene.make_scene(np.array([[35.0, 0]]), noise=0.02)
    texture = fuse_texture(track, fit, TexturingSettings(size=128))
    view = render_frontal(track, fit, texture)
    assert np.isfinite(view.normals).all()
    assert view.raw.std() > 5
    assert view.generated_share > 0.02


def test_gains_neutralise_a_warm_dark_face():
    rng = np.random.default_rng(0)
    skin = np.array([0.40, 0.22, 0.15]) * rng.uniform(0.9, 1.1, (500, 1))
    warm = skin * np.array([1.6, 1.0, 0.45]) * 0.1
    plain = np.median(skin * neutral_gains(skin), 0)
    mended = np.median(warm * neutral_gains(warm), 0)
    before = np.abs(np.log(np.array([1.6, 0.45])))
    after = np.abs(np.log(mended / mended[1]) - np.log(plain / plain[1]))[[0, 2]]
    assert (after < 0.4 * before).all()
    assert 0.5 < mended[1] / plain[1] < 1.2
    assert np.array_equal(neutral_gains(np.zeros((0, 3))), np.ones(3))


def test_skin_keeps_its_own_brightness_in_good_light():
    def level(luminance, bright, **settings):
        skin = np.full((50, 3), luminance)
        gains = neutral_gains(skin, bright=bright, balance=0, **settings)
        return float(np.median(skin * gains, 0) @ LUMINANCE)

    dark, usual, fair = (level(x, 0.5) for x in (0.06, 0.27, 0.5))
    assert 0.1 <= dark < 0.16 and usual == pytest.approx(0.27) and 0.33 < fair < 0.5
    # In a dark picture the light is to blame; a window in the picture says nothing of a face.
    assert level(0.06, 0.06) > 1.6 * dark
    assert level(0.06, 1.0) == pytest.approx(dark)
    assert level(0.001, 0.6) == pytest.approx(0.1)
    assert level(0.06, 0.05, exposure=0.0) == pytest.approx(0.06)
    levels = [level(x, 0.4) for x in np.geomspace(0.02, 0.9, 20)]
    assert (np.diff(levels) >= -1e-9).all()


def test_bright_luminance_is_that_of_the_usual_picture():
    half = np.zeros((40, 40, 3), np.uint8)
    half[:, 10:] = 188
    white = np.full((20, 20, 3), 255, np.uint8)
    assert bright_luminance([half, half, white]) == pytest.approx(0.5, abs=0.01)
    assert bright_luminance([]) is None


def test_compress_keeps_the_dark_and_stays_below_one():
    x = np.array([[0.2, 0.1, 0.1], [4.0, 2.0, 1.0]])
    y = compress(x)
    assert np.allclose(y[0], x[0])
    assert y.max() < 1
    assert np.allclose(y[1] / y[1, 0], x[1] / x[1, 0])


def test_blend_of_a_picture_with_itself_is_the_picture():
    rng = np.random.default_rng(1)
    image = rng.uniform(size=(96, 96, 3)).astype(np.float32)
    mask = np.zeros((96, 96), np.float32)
    mask[30:60, 30:60] = 1
    assert np.allclose(blend(image, image, mask), image, atol=1e-5)


def test_push_pull_keeps_what_is_known_and_fills_constants():
    image = np.full((65, 47, 3), 0.3, np.float32)
    weight = np.zeros((65, 47), np.float32)
    weight[10:20, 5:15] = 1
    out = push_pull(image * weight[..., None], weight)
    assert np.allclose(out[12:18, 7:13], 0.3, atol=1e-4)
    assert np.allclose(out, 0.3, atol=0.02)


def test_support_of_more_and_better_frames_is_higher(portrait):
    _, fit, texture, _, view = portrait
    poor = replace(texture, support=0.5 * texture.support, sigma=3 * texture.sigma)
    sigma, support = {}, {}
    for name, made in (("all", texture), ("poor", poor)):
        surface = _draw(fit, made, view.camera, fit.neutral)
        sigma[name] = predicted_deviation(
            _sources(surface, view.raw, view.landmarks, view.face_mask),
            FrontalSettings().error_coefficients,
        )
        support[name] = determined_share(sigma[name], _pixels(surface))
    face = view.face_mask > 0.9
    assert (sigma["poor"] >= sigma["all"])[face].all()
    assert (support["poor"] <= support["all"])[face].all()
    assert support["poor"][face].mean() < 0.95 * support["all"][face].mean()
