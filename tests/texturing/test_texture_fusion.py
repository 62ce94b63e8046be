"""Texture fusion against an ellipsoid head whose skin is known."""

import dataclasses
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from head_scene import make_model, make_scene, make_skin, relative_error

from recon3d.errors import InputError
from recon3d.fitting.visibility import surface_points
from recon3d.geometry import project
from recon3d.texturing import TexturingSettings, fuse_texture, plain_average
from recon3d.texturing.atlas import build_atlas
from recon3d.texturing.filling import bleed, membrane
from recon3d.texturing.observation import gaze_mm, gaze_weights, pose_all
from recon3d.texturing.superresolution import build_operator, gaussian_psf

SWEEP = np.array([[yaw, pitch] for yaw in (-38, -19, 0, 19, 38) for pitch in (-6, 6)])
SMALL = TexturingSettings(size=128)


def front_of(texture, margin=0.75):
    """Mask of the middle of the face in texture space."""
    n = len(texture.albedo)
    y, x = np.mgrid[:n, :n] / n - 0.5
    return texture.valid & (np.abs(x) < 0.17 * margin / 0.75) & (np.abs(y) < 0.22)


def test_texture_of_known_cameras_is_the_skin_and_improves_with_frames():
    errors = []
    for count in (1, 3, 10):
        pick = np.argsort(np.abs(SWEEP[:, 0]), kind="stable")[:count]
        track, fit, skin = make_scene(SWEEP[pick], noise=0.012)
        texture = fuse_texture(track, fit, SMALL)
        errors.append(relative_error(texture, skin, front_of(texture)))
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 0.8 * errors[0]
    assert errors[2] < 0.12


def test_solution_is_nearer_to_the_skin_than_the_mean_of_small_faces():
    track, fit, skin = make_scene(SWEEP, noise=0.004, face_px=24)
    mean = fuse_texture(track, fit, SMALL.model_copy(update={"solve": False}))
    solved = fuse_texture(track, fit, SMALL)
    mask = front_of(mean)
    assert relative_error(solved, skin, mask) < 0.9 * relative_error(mean, skin, mask)


def test_turned_views_count_less_where_the_surface_is_not_where_it_should_be():
    track, fit, skin = make_scene(SWEEP)
    # Waves of 4 mm across the face that the fit believes in and the head has not.
    x = fit.model.mean[:, 0]
    wrong = np.zeros_like(fit.model.mean)
    wrong[:, 2] = 4.0 * np.sin(x / 12.0)
    fit = dataclasses.replace(fit, displacement=wrong)
    errors = []
    for depth in (0.0, 4.0):
        plain = SMALL.model_copy(update={"depth_mm": depth, "registration_rounds": 0})
        texture = fuse_texture(track, fit, plain)
        errors.append(relative_error(texture, skin, front_of(texture)))
    assert errors[1] < 0.95 * errors[0]


def test_threads_change_no_byte():
    from recon3d.rendering._threads import set_num_threads
    from recon3d.rendering.native import get_num_threads

    track, fit, _ = make_scene(SWEEP[::4])
    try:
        made = []
        for threads in (1, 3):
            set_num_threads(threads)
            assert get_num_threads() == threads
            made.append(fuse_texture(track, fit, SMALL).albedo)
    finally:
        set_num_threads(None)
    assert np.array_equal(*made)


def test_flow_normal_equations_are_those_of_the_dense_basis():
    from recon3d.texturing._kernels import flow_normal_equations
    from recon3d.texturing.registration import _cubic

    rng = np.random.default_rng(3)
    n, nx, ny = 200, 6, 5
    u, v = rng.uniform(0, nx - 3, n), rng.uniform(0, ny - 3, n)
    gx, gy, step = rng.normal(size=(3, n))
    weight = rng.uniform(0, 1, n)
    basis = (_cubic(v, ny)[:, :, None] * _cubic(u, nx)[:, None, :]).reshape(n, -1)
    basis = np.concatenate([basis, np.ones((n, 1))], axis=1)
    jacobian = np.concatenate([basis * gx[:, None], basis * gy[:, None]], axis=1)
    normal, right = flow_normal_equations(u, v, nx, ny, gx, gy, weight, step)
    assert np.allclose(normal, (jacobian * weight[:, None]).T @ jacobian)
    assert np.allclose(right, (jacobian * weight[:, None]).T @ step)


def test_exposure_of_frames_is_matched():
    rng = np.random.default_rng(2)
    gain = np.exp(rng.uniform(-0.5, 0.5, len(SWEEP)))
    track, fit, skin = make_scene(SWEEP, gain=gain)
    texture = fuse_texture(track, fit, SMALL)
    assert relative_error(texture, skin, front_of(texture)) < 0.12
    found = np.mean(texture.info["log_gain"], axis=1)
    assert np.std(found - np.log(gain)) < 0.05


def test_side_light_does_not_stay_in_the_albedo():
    track, fit, skin = make_scene(SWEEP, side_light=0.5)
    mask = None
    slopes = {}
    for light in (False, True):
        texture = fuse_texture(track, fit, SMALL.model_copy(update={"light": light}))
        mask = front_of(texture, 1.2)
        truth = cv2.resize(skin, texture.albedo.shape[1::-1], interpolation=cv2.INTER_AREA)
        ratio = np.log(texture.albedo[..., 1] + 1e-3) - np.log(truth[..., 1])
        x = np.broadcast_to(np.arange(len(ratio)) / len(ratio), ratio.shape)
        slopes[light] = abs(np.polyfit(x[mask], ratio[mask], 1)[0])
    assert slopes[True] < 0.5 * slopes[False]


def test_a_lamp_is_not_taken_for_the_cameras_exposure():
    track, fit, _ = make_scene(SWEEP, side_light=0.8)
    exposures, across = [], []
    for change in (3.0, SMALL.exposure_change):
        info = fuse_texture(track, fit, SMALL.model_copy(update={"exposure_change": change})).info
        exposures.append(np.std(np.mean(info["log_gain"], axis=1)))
        across.append(np.array(info["light"])[:, 0].mean())
    # The head is brighter as a whole where it faces the lamp; the camera's exposure never changed.
    assert exposures[1] < 0.6 * exposures[0]
    assert abs(across[1] - 0.8) < 0.7 * abs(across[0] - 0.8)


def test_photos_of_a_folder_have_exposures_of_their_own():
    gain = np.exp(np.random.default_rng(2).uniform(-0.7, 0.7, len(SWEEP)))
    track, fit, _ = make_scene(SWEEP, gain=gain)
    # No clock ties them: each is a shot.
    views = tuple(dataclasses.replace(v, source=k) for k, v in enumerate(track.views))
    album = dataclasses.replace(track, views=views)
    assert len(np.unique(album.shots)) == len(SWEEP)
    texture = fuse_texture(album, fit, SMALL)
    found = np.mean(texture.info["log_gain"], axis=1)
    assert np.std(found - np.log(gain)) < 0.05


def test_an_occluded_frame_loses_its_weight():
    clear, fit, skin = make_scene(SWEEP)
    hidden, _, _ = make_scene(SWEEP, occluded=(6,))
    texture = fuse_texture(clear, fit, SMALL)
    robust = fuse_texture(hidden, fit, SMALL)
    mask = front_of(texture)
    assert relative_error(robust, skin, mask) < relative_error(texture, skin, mask) + 0.02


def test_an_open_mouth_does_not_reach_the_lips():
    expression = np.where(np.arange(len(SWEEP)) % 2, 1.0, 0.0)
    _, fit, _ = make_scene(SWEEP, expression=expression)
    from recon3d.texturing.observation import expression_weights

    posed = pose_all(fit, list(range(len(SWEEP))))
    assert np.allclose(posed[1], fit.posed(1), atol=1e-4)
    fine = np.full(len(SWEEP), 0.5)
    weight = expression_weights(fit, posed, fine, 2.0)
    lips = fit.model.regions["mouth"] > 0.9
    assert weight[0, lips].min() > 0.99
    assert weight[1, lips].max() < 0.05
    assert weight[:, fit.model.regions["mouth"] == 0].min() > 0.99


def test_expressions_are_not_told_apart_by_less_than_a_pixel():
    openness = 0.3 + 0.05 * np.arange(len(SWEEP))
    _, fit, _ = make_scene(SWEEP, expression=openness)
    from recon3d.texturing.observation import expression_weights

    posed = pose_all(fit, list(range(len(SWEEP))))
    lips = fit.model.regions["mouth"] > 0.9

    def views_that_count(pixel_mm):
        weight = expression_weights(fit, posed, np.full(len(SWEEP), pixel_mm), 2.0)[:, lips]
        return float((weight.sum(0) ** 2 / (weight**2).sum(0)).mean())

    assert views_that_count(8.0) > 1.5 * views_that_count(0.5)


def _looking(model, offsets, closed=()):
    """A track and a fit of views whose irises stand off by so many mm along the eyes."""
    n = len(offsets)
    angles = np.column_stack([np.linspace(-20, 20, n), np.zeros(n)])
    track, fit, _ = make_scene(angles)
    fit = dataclasses.replace(fit, model=model)
    views = []
    for k, view in enumerate(track.views):
        points = surface_points(fit.posed(k), model.triangles, model.landmarks)
        for iris, outer, inner in ((468, 33, 133), (473, 362, 263)):
            along = points[inner] - points[outer]
            points[iris] += offsets[k] * along / np.linalg.norm(along)
        if k in closed:
            points[[159, 386]] = points[[145, 374]]
        seen = project(points, fit.K[k], fit.R[k], fit.t[k])
        views.append(dataclasses.replace(view, landmarks=seen))
    return dataclasses.replace(track, views=tuple(views)), fit


@pytest.fixture(scope="module")
def eyed():
    """The ellipsoid with irises and lids between the corners of its eyes."""
    model = make_model()
    front = np.flatnonzero(model.mean[model.triangles].mean(1)[:, 2] > 0)
    middle = model.mean[model.triangles[front]].mean(1)
    triangle = model.landmarks.triangle.copy()
    for side, numbers in ((-1, (468, 33, 133, 159, 145)), (1, (473, 362, 263, 386, 374))):
        for number, (x, y) in zip(
            numbers, ((32, 22), (44, 22), (20, 22), (32, 30), (32, 14)), strict=True
        ):
            # From the outer corner to the inner one, as seen from the left.
            at = [side * x if side < 0 else 64 - x, y]
            triangle[number] = front[np.argmin(np.hypot(*(middle[:, :2] - at).T))]
    landmarks = dataclasses.replace(model.landmarks, triangle=triangle)
    return dataclasses.replace(model, landmarks=landmarks)


def test_gaze_is_measured_on_the_surface_and_closed_eyes_have_none(eyed):
    wanted = np.array([0.0, 3.0, -2.0, 0.0, 1.0, 0.0])
    track, fit = _looking(eyed, wanted, closed=(3,))
    views = list(range(6))
    offset, pixel = gaze_mm(track, fit, views, pose_all(fit, views))
    assert np.isnan(offset[3]).all()
    seen = [0, 1, 2, 4, 5]
    np.testing.assert_allclose(offset[seen, 0], wanted[seen], atol=0.4)
    np.testing.assert_allclose(offset[seen, 1], 0, atol=0.4)
    np.testing.assert_allclose(pixel, 1500 / fit.K[0, 0, 0], rtol=0.05)


def test_eyes_are_taken_from_views_that_look_alike():
    offset = np.array([[0.1, 0], [-0.1, 0.1], [0, 0.2], [4.0, 0], [np.nan, np.nan], [0.3, -0.1]])
    weight = gaze_weights(offset, np.full(6, 0.3), 1.0)
    assert weight[[0, 1, 2, 5]].min() > 0.8
    assert weight[[3, 4]].max() < 1e-3
    # Of small faces an iris is not known to 4 mm.
    assert gaze_weights(offset, np.full(6, 6.0), 1.0)[3] > 0.5
    # Nobody looks ahead: those that look most nearly so say where.
    assert gaze_weights(offset + 5, np.full(6, 0.3), 1.0)[[0, 1, 2]].min() > 0.5
    nothing = np.full((3, 2), np.nan)
    np.testing.assert_array_equal(gaze_weights(nothing, np.ones(3), 1.0), 1)


def test_unseen_texels_have_no_evidence_and_are_marked_mirrored():
    turned = np.array([[-55.0, 0], [-45, 0], [-60, 5]])
    track, fit, _ = make_scene(turned, skin=make_skin(symmetric=True))
    texture = fuse_texture(track, fit, SMALL)
    n = len(texture.albedo)
    left, right = np.zeros((2, n, n), bool)
    rows = slice(int(0.4 * n), int(0.6 * n))
    left[rows, int(0.85 * n) : int(0.95 * n)] = True
    right[rows, int(0.05 * n) : int(0.15 * n)] = True
    order = sorted((left, right), key=lambda side: texture.support[side].mean())
    unseen, seen = order
    assert texture.support[unseen].max() == 0
    assert texture.resolution[unseen].max() == 0
    assert texture.generated[unseen].min() > 0.99
    assert texture.generated[seen].mean() < 0.2
    assert texture.info["mirrored_share"] > 0.05
    mirrored = texture.albedo[:, ::-1]
    assert (
        np.corrcoef(np.log(texture.albedo[unseen]).ravel(), np.log(mirrored[unseen]).ravel())[0, 1]
        > 0.9
    )


def test_one_view_gives_finite_maps_in_range():
    track, fit, _ = make_scene(np.array([[10.0, 0]]), noise=0.02)
    texture = fuse_texture(track, fit, SMALL)
    for name in ("albedo", "lit", "support", "resolution", "generated", "sigma"):
        value = getattr(texture, name)
        assert value.dtype == np.float32
        assert np.isfinite(value).all()
        assert value.min() >= 0
    for name in ("support", "resolution", "generated"):
        assert getattr(texture, name).max() <= 1


def test_same_input_same_texture():
    track, fit, _ = make_scene(SWEEP[::4])
    a, b = fuse_texture(track, fit, SMALL), fuse_texture(track, fit, SMALL)
    assert np.array_equal(a.albedo, b.albedo)


def test_wrong_track_and_blind_track_are_named():
    track, fit, _ = make_scene(SWEEP[:2])
    with pytest.raises(InputError, match="fit"):
        fuse_texture(dataclasses.replace(track, views=track.views[:1]), fit, SMALL)
    blind = tuple(dataclasses.replace(view, patch=None) for view in track.views)
    with pytest.raises(InputError, match="no view"):
        fuse_texture(dataclasses.replace(track, views=blind), fit, SMALL)


def test_operator_and_its_adjoint_agree():
    track, fit, _ = make_scene(SWEEP[:1])
    from recon3d.texturing.observation import observe

    atlas = build_atlas(fit.model, 96)
    texel = atlas.texel_mm(fit.neutral)
    samples = observe(atlas, fit, track.views[0], 0, texel, SMALL)
    rng = np.random.default_rng(0)
    shade = rng.uniform(0.5, 1.5, (len(samples.index), 3)).astype(np.float32)
    psf = gaussian_psf(0.7, (1.5, -0.8))
    operator = build_operator(samples, shade, texel, psf, np.ones(len(samples.index), bool))
    x = rng.normal(size=(len(atlas), 3)).astype(np.float32)
    y = rng.normal(size=operator.image.shape).astype(np.float32)
    out = np.zeros_like(x)
    operator.adjoint(y, out)
    assert np.isclose((operator.forward(x) * y).sum(), (x * out).sum(), rtol=1e-3, atol=1e-2)
    # A plain texture in plain light gives a plain picture, and the blur moves nothing.
    flat = build_operator(
        samples, np.ones_like(shade), texel, psf, np.ones(len(samples.index), bool)
    )
    drawn = flat.forward(np.ones_like(x))
    assert np.abs(drawn[flat.belief > 0.5 * flat.belief.max()] - 1).max() < 1e-3


def test_mirror_coordinates_return_to_where_they_came_from():
    atlas = build_atlas(make_model(), 64)
    assert np.allclose(atlas.mirror_x, 64 - (atlas.column + 0.5), atol=0.05)
    assert np.allclose(atlas.mirror_y, atlas.row + 0.5, atol=0.05)


def test_membrane_keeps_to_its_data_and_within_their_range():
    model = make_model()
    u = model.uv[:, 0]
    weight = np.where((u < 0.1) | (u > 0.9), 100.0, 0.0)
    field = membrane(model.triangles, u[:, None].copy(), weight, pull=1e-9)[:, 0]
    assert np.abs(field - u)[weight > 0].max() < 0.03
    assert field.min() > u.min() - 1e-9 and field.max() < u.max() + 1e-9
    columns = field.reshape(40, 60).mean(0)
    assert (np.diff(columns) > 0).all()


def test_bleed_keeps_the_charts_and_fills_the_rest():
    image = np.zeros((9, 9, 3), np.float32)
    valid = np.zeros((9, 9), bool)
    valid[3:6, 3:6] = True
    image[valid] = 0.5
    out = bleed(image, valid)
    assert (out == 0.5).all()


def test_a_side_seen_far_better_outweighs_its_mirror_image():
    from recon3d.morphable import load_model
    from recon3d.texturing.atlas import build_atlas
    from recon3d.texturing.filling import outweighed

    atlas = build_atlas(load_model("recon3d"), 96)
    paired = atlas.mirror_x >= 0
    even = outweighed(atlas, np.ones(len(atlas)))
    assert even.min() > 0.95
    # The subject's left side was seen well, the right one hardly.
    left = atlas.interpolate((load_model("recon3d").mean[:, 0] > 0).astype(np.float64)) > 0.5
    share = outweighed(atlas, np.where(left, 1.0, 0.02))
    assert np.median(share[paired & ~left]) < 0.05 and np.median(share[left]) > 0.99


def test_plain_average_is_the_mean_of_frames_and_the_solution_beats_it():
    track, fit, skin = make_scene(SWEEP, noise=0.004, face_px=24)
    mean = fuse_texture(track, fit, plain_average(SMALL))
    solved = fuse_texture(track, fit, SMALL)
    assert mean.info["solution_noise"] == [] and set(mean.info["flow_px"]) == {0.0}
    mask = front_of(mean)
    assert relative_error(solved, skin, mask) < 0.9 * relative_error(mean, skin, mask)


def test_motion_is_that_of_the_projected_face():
    track, fit, _ = make_scene(SWEEP)
    t = fit.t.copy()
    # 9 mm a frame to the right at 1500 mm.
    t[:, :2] = [[9.0 * i, 0.0] for i in range(len(t))]
    fit = dataclasses.replace(fit, t=t, R=np.repeat(fit.R[:1], len(t), 0))
    from recon3d.texturing.fusion import motion_px

    samples = [SimpleNamespace(view=i, pixel_mm=t[i, 2] / fit.K[i, 0, 0]) for i in range(len(t))]
    motion = motion_px(track, fit, samples)
    np.testing.assert_allclose(motion[:, 0], 9.0 * fit.K[0, 0, 0] / 1500.0, rtol=0.1)
    np.testing.assert_allclose(motion[:, 1], 0, atol=1e-6)


def _to_and_fro(n=16, reach_mm=45.0):
    """Places of a head that swings to and fro, and stands now and then."""
    return np.stack([reach_mm * np.sin(np.arange(n) * 2 * np.pi / 10), np.zeros(n)], 1)


@pytest.mark.parametrize("shutter", [0.0, 0.5, 0.9])
def test_the_shutter_is_known_from_how_blurred_a_moving_face_is(shutter):
    path = _to_and_fro()
    angles = np.stack([np.linspace(-20, 20, len(path)), np.zeros(len(path))], 1)
    track, fit, _ = make_scene(angles, path_mm=path, shutter=shutter, noise=0.006)
    texture = fuse_texture(track, fit, SMALL)
    assert texture.info["shutter"] == pytest.approx(shutter, abs=0.2)


def test_a_blurred_face_comes_out_sharper_than_without_its_path():
    path = _to_and_fro()
    angles = np.stack([np.linspace(-20, 20, len(path)), np.zeros(len(path))], 1)
    track, fit, skin = make_scene(angles, path_mm=path, shutter=0.9)
    closed = SMALL.model_copy(update={"exposure_fraction": 0.0})
    without, known = (fuse_texture(track, fit, s) for s in (closed, SMALL))
    mask = front_of(known)
    assert without.info["shutter"] == 0
    assert relative_error(known, skin, mask) < 0.9 * relative_error(without, skin, mask)
    # And the evidence says that fewer pixels saw it, and less finely.
    seen = without.support > 0.2
    assert (known.support[seen] < without.support[seen]).mean() > 0.95
    assert known.resolution[seen].mean() < without.resolution[seen].mean()


def test_a_face_that_stands_tells_nothing_of_the_shutter():
    track, fit, _ = make_scene(SWEEP, path_mm=np.zeros((len(SWEEP), 2)))
    assert fuse_texture(track, fit, SMALL).info["shutter"] == 0


def test_noise_that_any_smoothing_explains_is_no_blur():
    path = _to_and_fro()
    angles = np.stack([np.linspace(-20, 20, len(path)), np.zeros(len(path))], 1)
    track, fit, _ = make_scene(angles, path_mm=path, noise=0.06)
    assert fuse_texture(track, fit, SMALL).info["shutter"] == 0


def _out_of_focus(n=12):
    """Blur, px, of a camera that hunts for its focus."""
    return 1.6 * np.abs(np.sin(np.arange(n) * np.pi / 7))


HUNTING = np.stack([np.linspace(-25, 25, 12), np.zeros(12)], 1)


def test_it_is_known_which_views_are_out_of_focus():
    true = _out_of_focus()
    track, fit, _ = make_scene(HUNTING, blur_px=true, noise=0.006)
    info = fuse_texture(track, fit, SMALL).info
    pixel_mm = fit.t[0, 2] / fit.K[0, 0, 0]
    assert info["views"] == list(range(len(true)))
    found = np.array(info["blur_mm"]) / pixel_mm
    assert np.corrcoef(found, true)[0, 1] > 0.9
    assert (found[true < 0.3] < 0.5).all()
    assert (found[true > 1.3] > 0.8).all()


def test_what_some_views_show_sharply_comes_out_sharper_when_their_blur_is_known():
    track, fit, skin = make_scene(HUNTING, blur_px=_out_of_focus())
    without, known = (
        fuse_texture(track, fit, SMALL.model_copy(update={"focus": focus}))
        for focus in (False, True)
    )
    mask = front_of(known)
    assert relative_error(known, skin, mask) < 0.75 * relative_error(without, skin, mask)
    seen = without.support > 0.2
    assert (known.support[seen] <= without.support[seen] + 1e-6).all()
    assert known.support[seen].mean() < without.support[seen].mean()


@pytest.mark.parametrize("noise", [0.004, np.where(np.arange(12) % 2, 0.03, 0.004)])
def test_neither_a_common_blur_nor_noise_is_a_view_out_of_focus(noise):
    track, fit, _ = make_scene(HUNTING, blur_px=np.full(12, 0.8), noise=noise)
    info = fuse_texture(track, fit, SMALL).info
    pixel_mm = fit.t[0, 2] / fit.K[0, 0, 0]
    assert np.median(info["blur_mm"]) == 0
    assert max(info["blur_mm"]) < 0.4 * pixel_mm


def test_few_views_have_no_sharpest_among_them():
    track, fit, _ = make_scene(HUNTING[:3], blur_px=[0, 1.5, 0])
    assert fuse_texture(track, fit, SMALL).info["blur_mm"] == [0, 0, 0]
