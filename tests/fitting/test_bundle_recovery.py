"""The joint fit on synthetic truth: noise, frames, outliers and degenerate tracks."""

import itertools
import time
from dataclasses import replace

import numpy as np
import pytest
from synthetic_head import synthetic_track

from recon3d.errors import InputError
from recon3d.fitting import FittingSettings, fit_track
from recon3d.fitting.initialisation import weak_perspective
from recon3d.fitting.visibility import Visibility
from recon3d.geometry import head_rotation, project, so3_log, umeyama, vertex_normals

# Landmarks without a common error, independent of one another: the statistics of these tests.
HONEST = FittingSettings(
    bias_mm=0,
    bias_depth_mm=0,
    believed_pixel_mm=1e6,
    landmarks=478,
    effective_landmarks=478,
    landmark_floor_mm=0.05,
    contour_tangent=1,
    iris_mm=None,
    depth_std_mm=None,
    rounds=4,
    iterations=8,
)


def _turn_error(fit, truth):
    return np.degrees(np.linalg.norm(so3_log(fit.R @ truth["R"].transpose(0, 2, 1)), axis=1))


def _shape_error(fit, truth):
    gap = fit.neutral - fit.model.vertices(truth["identity"])
    return float(np.sqrt((gap**2).sum(1).mean()))


def _surface_error(model, fit, truth):
    """Mean distance along the normals once the similarity between the two is taken off, mm."""
    true = model.vertices(truth["identity"])
    s, R, t = umeyama(fit.neutral, true)
    gap = s * fit.neutral @ R.T + t - true
    return float(np.abs((gap * vertex_normals(true, model.triangles)).sum(1)).mean())


def _track(model, seed=1, **options):
    return synthetic_track(model, np.random.default_rng(seed), **options)


def test_truth_is_recovered_from_clean_landmarks(model):
    track, truth = _track(model, n_views=12, noise_px=0.01)
    fit = fit_track(track, model, HONEST)
    assert _turn_error(fit, truth).mean() < 0.05
    assert _shape_error(fit, truth) < 0.05
    assert fit.K[0, 0, 0] == pytest.approx(truth["focal"][0], rel=0.01)
    np.testing.assert_allclose(fit.t, truth["t"], rtol=0.02, atol=1.0)
    # fields that move landmarks by several mm are found in every view
    assert np.median(np.abs(fit.expression - truth["expression"])) < 0.03
    assert fit.info["reprojection_px"] < 0.1


def test_large_pixels_leave_identity_to_the_mean(model):
    track, truth = _track(model, n_views=12, noise_px=0.1)
    pixels = (1e6, 2.0, 0.2)
    fits = [
        fit_track(track, model, HONEST.model_copy(update={"believed_pixel_mm": size}))
        for size in pixels
    ]
    norms = [np.linalg.norm(fit.identity) for fit in fits]
    assert norms[0] > norms[1] > norms[2]
    open_ = [np.trace(fit.identity_covariance) for fit in fits]
    assert open_[0] < open_[1] < open_[2]
    # apparent shape, and with it every pose, is as free as before
    for fit in fits:
        assert _turn_error(fit, truth).mean() < 0.2


def test_error_falls_with_noise_and_with_frames(model):
    by_noise = []
    for noise in (2.0, 0.5, 0.1):
        track, truth = _track(model, n_views=10, noise_px=noise)
        fit = fit_track(track, model, HONEST)
        by_noise.append((_shape_error(fit, truth), _turn_error(fit, truth).mean()))
    assert by_noise[0][0] > by_noise[1][0] > by_noise[2][0]
    assert by_noise[0][1] > by_noise[1][1] > by_noise[2][1]
    by_frames = []
    for n_views in (1, 5, 20):
        errors = []
        for seed in range(2):
            track, truth = _track(model, seed, n_views=n_views, noise_px=1.0)
            errors.append(_shape_error(fit_track(track, model, HONEST), truth))
        by_frames.append(np.mean(errors))
    assert by_frames[0] > by_frames[1] > by_frames[2]


def test_two_cameras_get_a_focal_length_each(model):
    track, truth = _track(model, n_views=16, noise_px=0.2, sources=2)
    fit = fit_track(track, model, HONEST)
    np.testing.assert_allclose(fit.info["focal_px"], truth["focal"], rtol=0.04)
    assert fit.K[0, 0, 0] != fit.K[-1, 0, 0]
    known = fit_track(track, model, HONEST.model_copy(update={"focal_px": [900.0, 1170.0]}))
    np.testing.assert_allclose(known.info["focal_px"], [900.0, 1170.0], rtol=1e-3)
    with pytest.raises(InputError, match="focal_px"):
        fit_track(track, model, FittingSettings(focal_px=[1.0, 2.0, 3.0]))


def test_uncertainty_is_of_the_size_of_the_error(model):
    """Over people, (a - a_hat) whitened by the posterior has variance near one."""
    settings = HONEST.model_copy(update={"landmark_floor_mm": 0.01, "student_dof": 100.0})
    whitened, vertex_error, vertex_sigma = [], [], []
    for seed in range(4):
        track, truth = _track(model, seed, n_views=3, noise_px=2.0)
        fit = fit_track(track, model, settings)
        L = np.linalg.cholesky(fit.identity_covariance)
        whitened.append(np.linalg.solve(L, fit.identity - truth["identity"]))
        vertex_error.append(_surface_error(model, fit, truth))
        vertex_sigma.append(np.sqrt(fit.uncertainty**2 - settings.model_error_mm**2).mean())
    assert 0.5 < np.std(whitened) < 2.0
    assert 0.4 < np.mean(vertex_error) / np.mean(vertex_sigma) < 1.6


def test_a_common_error_is_not_believed_however_many_frames_repeat_it(model):
    rng = np.random.default_rng(5)
    bumps = np.random.default_rng(6).normal(size=(model.n_vertices, 3))
    d2 = ((model.mean[:, None] - model.mean[None]) ** 2).sum(-1)
    kernel = np.exp(-0.5 * d2 / 25.0**2)
    lie = kernel @ bumps
    lie *= 2.0 / np.sqrt((lie**2).sum(1).mean())
    liar = replace(model, mean=model.mean + lie)
    trusting = HONEST.model_copy(update={"landmark_floor_mm": 1.3})
    track, truth = synthetic_track(liar, rng, n_views=20, noise_px=0.5, identity_scale=0.3)
    careful = fit_track(track, model, FittingSettings(iris_mm=None))
    assert _shape_error(careful, truth) < 0.8 * _shape_error(
        fit_track(track, model, trusting), truth
    )
    # and more frames do not shrink the uncertainty to nothing
    few = fit_track(replace(track, views=track.views[::3]), model, FittingSettings(iris_mm=None))
    assert careful.uncertainty.mean() > 0.7 * few.uncertainty.mean()


def test_irises_decide_size_as_far_as_they_are_trusted(model):
    """Pictures show shape up to scale; size comes from the irises and the population."""
    track, truth = _track(model, n_views=10, noise_px=0.1)
    length = []
    for view, R, t in zip(track.views, truth["R"], truth["t"], strict=True):
        # outlines of two irises of 12 mm, facing forward
        views = []
        for side in (-32, 32):
            ring = np.array([[6, 0, 0], [0, 6, 0], [-6, 0, 0], [0, -6, 0]]) + [side, 20, 30]
            views.append(project(ring, np.diag([900, 900, 1.0]), R, t) + [320, 240])
        points = view.landmarks.copy()
        points[469:473], points[474:478] = views
        length.append(replace(view, landmarks=points))
    track = replace(track, views=tuple(length))
    size = []
    for iris_mm in (11.0, 13.0):
        fit = fit_track(track, model, FittingSettings(iris_mm=iris_mm, iris_log_std=0.01))
        size.append(fit.info["size"])
        # the scene grows with the face: pictures stay what they were
        assert fit.info["reprojection_of_eye_distance"] < 0.05
    assert size[1] > 1.005 * size[0]


def test_outlier_views_are_rejected_and_do_no_harm(model):
    track, truth = _track(model, n_views=16, noise_px=0.5, outliers=(3, 9))
    fit = fit_track(track, model, HONEST)
    assert (fit.view_weight[[3, 9]] == 0).all()
    assert (np.delete(fit.view_weight, [3, 9]) > 0.8).all()
    assert np.delete(_turn_error(fit, truth), [3, 9]).max() < 1.5
    assert np.isnan(fit.residuals[[3, 9]]).all()
    # a rejected view takes its pose from its neighbours
    assert _turn_error(fit, truth)[[3, 9]].max() < 25
    assert fit.info["views_rejected"] == 2


def test_wild_landmarks_lose_their_weight(model):
    track, truth = _track(model, n_views=8, noise_px=0.3)
    rng = np.random.default_rng(7)
    views = []
    for view in track.views:
        points = view.landmarks.copy()
        wild = rng.choice(478, 60, replace=False)
        points[wild] += rng.normal(size=(60, 2)) * 60
        views.append(replace(view, landmarks=points))
    fit = fit_track(replace(track, views=tuple(views)), model, HONEST)
    assert _turn_error(fit, truth).mean() < 0.5
    assert _shape_error(fit, truth) < 0.6


def test_one_view_is_the_same_code(model):
    track, truth = _track(model, n_views=1, noise_px=0.3)
    fit = fit_track(track, model)
    assert fit.expression.shape == (1, 8)
    assert fit.residuals.shape == (1, 478, 2)
    assert _turn_error(fit, truth)[0] < 6
    mean_error = np.sqrt(((model.mean - model.vertices(truth["identity"])) ** 2).sum(1).mean())
    assert _shape_error(fit, truth) < mean_error


def test_hidden_landmarks_do_not_count(model):
    """Landmarks on the far side may lie anywhere: the fit does not follow them."""
    # no outline paths: here hidden points are drawn where they are, not on the outline
    model = replace(model, contour=None)
    track, _truth = _track(model, n_views=1, noise_px=0.2)
    view = track.views[0]
    R = head_rotation(55.0, 0, 0)
    visibility = Visibility(model)
    toward = -(R.T @ np.array([0, 0, 1.0]))[None]
    hidden = (visibility.cosines(toward)[0] < -0.1) | ~visibility.unobstructed(toward)[0]
    assert 20 < hidden.sum() < 300
    x = visibility.points
    points = project(x, np.array([[900, 0, 320], [0, 900, 240], [0, 0, 1.0]]), R, [0, 0, 700.0])
    view = replace(view, depth=900 / 700 * (x @ R.T)[:, 2])
    lied = points.copy()
    lied[hidden] += [25.0, 10.0]
    fits = [
        fit_track(replace(track, views=(replace(view, landmarks=p, yaw=55.0),)), model)
        for p in (points, lied)
    ]
    turn = [np.degrees(np.linalg.norm(so3_log(f.R[0] @ R.T))) for f in fits]
    assert turn[1] < turn[0] + 3.0
    assert np.isnan(fits[1].residuals[0, hidden]).mean() > 0.7


def test_the_nose_hides_the_cheek_behind_it(model):
    visibility = Visibility(model)
    front, side = np.array([[0, 0, 1.0]]), np.array([[np.sin(1.2), 0, np.cos(1.2)]])
    assert visibility.unobstructed(front).mean() > 0.95
    assert visibility.unobstructed(side).mean() < 0.9


def test_expressions_stay_in_their_box(model):
    track, _ = _track(model, n_views=6, noise_px=3.0)
    fit = fit_track(track, model)
    assert fit.expression.min() >= 0
    assert fit.expression.max() <= 1


def test_smoothness_helps_noisy_frames(model):
    # the shape is known, so that what is left is each frame's own noise
    track, truth = _track(model, n_views=40, noise_px=16.0, identity_scale=0.0)
    settings = HONEST.model_copy(update={"identity_modes": 0})
    smooth = fit_track(track, model, settings)
    rough = fit_track(track, model, settings.model_copy(update={"smooth": False}))
    assert _turn_error(smooth, truth).mean() < 0.9 * _turn_error(rough, truth).mean()


def test_photos_in_any_order_are_not_tied(model):
    track, truth = _track(model, n_views=24, noise_px=1.0)
    order = np.random.default_rng(2).permutation(24)
    photos = [
        replace(track.views[k], frame_index=n, time=n / 25, shot=n) for n, k in enumerate(order)
    ]
    apart = fit_track(replace(track, views=tuple(photos)), model, HONEST)
    tied = [replace(view, shot=0) for view in photos]
    tied = fit_track(replace(track, views=tuple(tied)), model, HONEST)
    mixed = {"R": truth["R"][order]}
    assert _turn_error(apart, mixed).mean() < 1.0
    assert _turn_error(apart, mixed).mean() < 0.5 * _turn_error(tied, mixed).mean()


def test_photos_of_another_size_have_a_focal_length_of_their_own(model):
    track, truth = _track(model, n_views=12, noise_px=0.5)
    views = list(track.views)
    for n in range(0, 12, 2):
        v = views[n]
        views[n] = replace(
            v,
            landmarks=2 * v.landmarks,
            covariance=4 * v.covariance,
            depth=2 * v.depth,
            image_size=tuple(2 * x for x in v.image_size),
        )
    fit = fit_track(replace(track, views=tuple(views)), model, HONEST)
    assert fit.info["sources"] == [0, 0]
    np.testing.assert_allclose(fit.K[::2, 0, 0], 2 * fit.K[1, 0, 0], rtol=0.1)
    assert _turn_error(fit, truth).mean() < 1.0
    known = fit_track(track, model, HONEST.model_copy(update={"focal_px": 900.0}))
    np.testing.assert_allclose(known.K[:, 0, 0], 900.0, rtol=1e-3)


def test_a_focal_length_that_the_camera_wrote_down_is_believed(model):
    track, truth = _track(model, n_views=8, noise_px=0.5)
    true = truth["focal"][0]
    views = tuple(
        replace(v, focal_px=2.0 * true if n % 2 else None) for n, v in enumerate(track.views)
    )
    fit = fit_track(replace(track, views=views), model, HONEST)
    # A lens that zooms has several. Perspective, plain in this clip, says otherwise, and is heard.
    assert (fit.K[1::2, 0, 0] > 1.5 * true).all()
    assert (fit.K[::2, 0, 0] < 1.25 * true).all()
    honest = tuple(replace(v, focal_px=true) for v in track.views)
    fit = fit_track(replace(track, views=honest), model, HONEST)
    np.testing.assert_allclose(fit.K[:, 0, 0], true, rtol=0.03)


def test_a_picture_cut_out_around_the_face_is_not_taken_from_arms_length(model):
    track, _ = _track(model, n_views=1, noise_px=0.5)
    (view,) = track.views
    low, high = view.landmarks.min(0), view.landmarks.max(0)
    cut = replace(
        view, landmarks=view.landmarks - low, image_size=tuple(int(x) for x in high - low)
    )
    fit = fit_track(replace(track, views=(cut,)), model)
    assert fit.t[0, 2] > 350


@pytest.mark.parametrize("kind", ["identical", "few landmarks", "blank view", "no iris"])
def test_degenerate_tracks_do_not_crash(model, kind):
    track, truth = _track(model, n_views=6, noise_px=0.3)
    views = list(track.views)
    if kind == "identical":
        views = [replace(views[0], frame_index=n, time=n / 25) for n in range(6)]
    elif kind == "few landmarks":
        for n, view in enumerate(views):
            points = np.full((478, 2), np.nan)
            points[::50] = view.landmarks[::50]
            views[n] = replace(view, landmarks=points)
    elif kind == "blank view":
        views[2] = replace(views[2], landmarks=np.full((478, 2), np.nan))
    elif kind == "no iris":
        for n, view in enumerate(views):
            points = view.landmarks.copy()
            points[468:] = np.nan
            views[n] = replace(view, landmarks=points)
    fit = fit_track(replace(track, views=tuple(views)), model)
    for value in (fit.identity, fit.expression, fit.R, fit.t, fit.K, fit.uncertainty):
        assert np.isfinite(value).all()
    np.testing.assert_allclose(
        fit.R @ fit.R.transpose(0, 2, 1), np.tile(np.eye(3), (6, 1, 1)), atol=1e-9
    )
    if kind == "blank view":
        assert fit.view_weight[2] == 0
        assert _turn_error(fit, truth)[2] < 25


def test_no_views_and_no_landmarks_are_said_clearly(model):
    track, _ = _track(model, n_views=2)
    with pytest.raises(InputError, match="no views"):
        fit_track(replace(track, views=()), model)
    blank = tuple(replace(v, landmarks=np.full((478, 2), np.nan)) for v in track.views)
    with pytest.raises(InputError, match="finite landmarks"):
        fit_track(replace(track, views=blank), model)


def test_same_input_same_output_and_progress_reaches_the_end(model):
    track, _ = _track(model, n_views=4, noise_px=0.5)
    seen = []
    a = fit_track(track, model, progress=lambda done, total: seen.append((done, total)))
    b = fit_track(track, model)
    np.testing.assert_array_equal(a.identity, b.identity)
    np.testing.assert_array_equal(a.R, b.R)
    assert seen[-1][0] == seen[-1][1]
    assert all(x[0] <= y[0] for x, y in itertools.pairwise(seen))


def test_an_interrupt_passes_through(model):
    track, _ = _track(model, n_views=4, noise_px=0.5)

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_track(track, model, progress=stop)


def test_model_without_modes_gives_pose(model):
    bare = replace(
        model, identity=model.identity[:0], expression=model.expression[:0], expression_names=()
    )
    track, truth = _track(model, n_views=3, noise_px=0.3, identity_scale=0.2)
    fit = fit_track(track, bare)
    assert fit.identity.shape == (0,)
    assert fit.expression.shape == (3, 0)
    assert _turn_error(fit, truth).mean() < 5


def test_weak_perspective_finds_the_pose():
    rng = np.random.default_rng(8)
    X = rng.normal(size=(60, 3)) * [40, 50, 25]
    R = head_rotation(rng.uniform(-50, 50, 7), rng.uniform(-20, 20, 7), rng.uniform(-30, 30, 7))
    points = 0.8 * np.einsum("nij,lj->nli", R, X)[..., :2] + [320, 240]
    points[:, :5] += 80  # outliers
    found, place, error = weak_perspective(X, points, np.ones((7, 60)), rounds=12)
    assert np.degrees(np.linalg.norm(so3_log(found @ R.transpose(0, 2, 1)), axis=1)).max() < 0.5
    np.testing.assert_allclose(np.exp(place[:, 2]), 0.8, rtol=0.01)
    assert (error < 5).all()
    points[3] = np.nan
    assert weak_perspective(X, points, np.ones((7, 60)))[2][3] == np.inf


def test_time_is_linear_in_views(model):
    """A coarse guard: eight times the views must not take twenty times as long."""
    settings = FittingSettings(rounds=1, iterations=2, tolerance=1e-12)
    seconds = []
    for n_views in (20, 160):
        track, _ = _track(model, n_views=n_views, noise_px=0.5)
        best = np.inf
        for _ in range(2):
            start = time.perf_counter()
            fit_track(track, model, settings)
            best = min(best, time.perf_counter() - start)
        seconds.append(best)
    assert seconds[1] < 20 * seconds[0]
