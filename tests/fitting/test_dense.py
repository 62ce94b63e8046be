"""Dense alignment on rendered heads with known poses and shape."""

from dataclasses import replace

import numpy as np
import pytest
from dense_scene import head_model, pose_error, scene, shape_error, turned_too_little

from recon3d.fitting.dense import Alignment, align_shape, compare, refine_fit, shape_basis_of
from recon3d.fitting.photometric import Pictures, choose_samples, visible_samples
from recon3d.fitting.settings import DenseSettings
from recon3d.geometry import head_rotation, intrinsics
from recon3d.rendering._threads import set_num_threads

POSES = DenseSettings(samples=700, iterations=4, shape=False)
SHAPE = DenseSettings(samples=700, iterations=4, shape=True, displacement_mm=0.0)


@pytest.fixture(scope="module")
def model():
    return head_model()


def test_compressed_yaw_is_recovered(model):
    track, truth = scene(model)
    start = turned_too_little(truth)
    fit = refine_fit(start, track, POSES)
    assert fit.info["dense"]["pose"]
    assert pose_error(start, truth).mean() > 2.5
    assert pose_error(fit, truth).mean() < 0.5
    # the rest of the fit is as it was
    np.testing.assert_array_equal(fit.identity, start.identity)
    np.testing.assert_array_equal(fit.K, start.K)


def test_true_poses_stay(model):
    track, truth = scene(model, seed=3)
    fit = refine_fit(truth, track, POSES)
    assert pose_error(fit, truth).mean() < 0.4


@pytest.mark.parametrize("focal, distance, tilt", [(300.0, 400.0, -20.0), (1500.0, 2000.0, 15.0)])
def test_other_lenses_and_cameras(model, focal, distance, tilt):
    track, truth = scene(model, focal=focal, distance=distance, tilt=tilt, seed=5)
    start = turned_too_little(truth, seed=5)
    fit = refine_fit(start, track, POSES)
    assert pose_error(fit, truth).mean() < 0.3 * pose_error(start, truth).mean()


def test_identity_is_found(model):
    rng = np.random.default_rng(4)
    identity = rng.normal(size=len(model.identity))
    track, truth = scene(model, identity=identity, yaw=np.linspace(-45, 45, 13))
    start = replace(turned_too_little(truth), identity=np.zeros(len(identity)))
    fit = refine_fit(start, track, SHAPE)
    assert fit.info["dense"]["shape"]
    assert shape_error(fit, truth) < 0.4 * shape_error(start, truth)
    assert pose_error(fit, truth).mean() < 1.0
    assert fit.uncertainty.mean() < start.uncertainty.mean()
    assert np.linalg.eigvalsh(fit.identity_covariance).max() <= 1.0 + 1e-6


def test_poses_gain_from_a_shape_that_is_refused(model):
    identity = np.random.default_rng(4).normal(size=len(model.identity))
    track, truth = scene(model, identity=identity, yaw=np.linspace(-45, 45, 13))
    start = replace(turned_too_little(truth), identity=np.zeros(len(identity)))
    never = SHAPE.model_copy(update={"shape_sure": 1e9})
    fit, alone = refine_fit(start, track, never), refine_fit(start, track, POSES)
    assert not fit.info["dense"]["shape"] and fit.info["dense"]["reason"]
    np.testing.assert_array_equal(fit.identity, start.identity)
    np.testing.assert_array_equal(fit.uncertainty, start.uncertainty)
    assert pose_error(fit, truth).mean() < 0.8 * pose_error(alone, truth).mean()


HELD = dict.fromkeys(
    ("rotation_bias", "rotation_law", "rotation_own", "shift_bias", "shift_law", "shift_own"), 0.01
) | dict.fromkeys(("distance_bias", "distance_law", "distance_own"), 1e-5)


def test_shape_alone_under_true_cameras(model):
    identity = np.random.default_rng(4).normal(size=len(model.identity))
    track, truth = scene(model, identity=identity, yaw=np.linspace(-45, 45, 13))
    start = replace(truth, identity=np.zeros(len(identity)))
    fit = align_shape(start, track, SHAPE.model_copy(update=HELD))
    assert shape_error(fit, truth) < 0.3 * shape_error(start, truth)
    assert pose_error(fit, truth).mean() < 0.1


def test_the_less_a_picture_is_trusted_the_nearer_the_mean(model):
    identity = np.random.default_rng(4).normal(size=len(model.identity))
    track, truth = scene(model, identity=identity, yaw=np.linspace(-45, 45, 13))
    start = replace(truth, identity=np.zeros(len(identity)))
    fits = [
        align_shape(start, track, SHAPE.model_copy(update={**HELD, "shape_trust": trust}))
        for trust in (1.0, 1e-3, 1e-6)
    ]
    moved = [shape_error(fit, start) for fit in fits]
    assert moved[0] > moved[1] > moved[2]
    assert moved[2] < 0.05 * moved[0]
    # and says so
    assert fits[0].uncertainty.mean() < fits[1].uncertainty.mean() < fits[2].uncertainty.mean()


def test_light_from_the_side_does_no_harm(model):
    identity = np.random.default_rng(6).normal(size=len(model.identity))
    side = np.array([-0.9, -0.1, -0.4])
    track, truth = scene(model, identity=identity, light=side)
    start = replace(turned_too_little(truth), identity=np.zeros(len(identity)))
    fit = refine_fit(start, track, SHAPE)
    # a hard terminator is beyond the light model: better poses, and a shape that is not worse
    assert pose_error(fit, truth).mean() < pose_error(start, truth).mean()
    assert shape_error(fit, truth) <= shape_error(start, truth)


def test_frames_of_different_people_are_refused(model):
    track, truth = scene(model, skins=np.arange(11))
    start = turned_too_little(truth)
    fit = refine_fit(start, track, SHAPE)
    assert not fit.info["dense"]["pose"] and not fit.info["dense"]["shape"]
    assert fit.info["dense"]["reason"]
    np.testing.assert_array_equal(fit.R, start.R)
    np.testing.assert_array_equal(fit.identity, start.identity)


def test_poses_start_again_until_held_out_skin_agrees(model):
    track, truth = scene(model, yaw=np.linspace(-30, 30, 7))
    start = turned_too_little(truth)

    def agreement(**changed):
        settings = POSES.model_copy(update={"stray_ratio": None, **changed})
        return refine_fit(start, track, settings).info["dense"]

    once = agreement(starts=3, starts_until=-1.0)
    assert once["starts"] == 1
    thrice = agreement(starts=3, starts_until=1.0)
    assert thrice["starts"] == 3
    assert thrice["agreement"] >= once["agreement"] == agreement(starts=1)["agreement"]


@pytest.mark.parametrize("yaw", [[0.0], np.linspace(-2, 2, 9)])
def test_without_parallax_nothing_changes(model, yaw):
    track, truth = scene(model, yaw=yaw)
    # nodding turns the head as well: only its yaw is under test
    R = np.stack([head_rotation(y, 0.0, 0.0) for y in yaw])
    truth = replace(truth, R=R)
    fit = refine_fit(truth, track, SHAPE)
    assert not fit.info["dense"]["pose"]
    np.testing.assert_array_equal(fit.R, truth.R)
    np.testing.assert_array_equal(fit.neutral, truth.neutral)


def test_views_without_pictures_are_left_to_the_landmarks(model):
    track, truth = scene(model)
    bare = replace(track, views=tuple(replace(v, patch=None) for v in track.views))
    fit = refine_fit(truth, bare, SHAPE)
    assert not fit.info["dense"]["pose"]
    np.testing.assert_array_equal(fit.t, truth.t)


def test_same_input_same_answer(model):
    track, truth = scene(model, yaw=np.linspace(-30, 30, 6))
    start = turned_too_little(truth)
    a, b = (refine_fit(start, track, POSES) for _ in range(2))
    np.testing.assert_array_equal(a.R, b.R)


def test_jacobian_against_differences(model):
    """The derivative of what a view reads, by pose, light and shape."""
    track, truth = scene(model, yaw=[-20, 0, 20])
    settings = SHAPE
    pictures = Pictures(track)
    samples = choose_samples(model, 800, np.random.default_rng(0))
    basis = shape_basis_of(truth, settings)
    problem = Alignment(
        truth,
        pictures,
        samples,
        settings,
        np.arange(3.0),
        np.zeros(3),
        np.zeros(3),
        basis.fields,
    )
    start = problem.start()
    look = problem.look(start, 4.0, np.ones(3, bool))
    pictures = problem.blurred(look, np.ones(3, bool))
    reading = problem.read(start, look, pictures)
    J = problem.jacobian(start, look, reading, 0, np.arange(len(samples.index)))
    by_point = reading.gradient[0] @ start.R[0].astype(np.float32)
    J = np.concatenate([J, np.einsum("mi,gmi->mg", by_point, basis.fields[:, samples.index])], 1)
    seen = reading.weight[0] > 0.3
    assert seen.sum() > 100

    def residual(k, h):
        from recon3d.geometry import so3_exp

        if k >= 15:
            shape = start.shape.copy()
            shape[k - 15] += h
            return problem.read(replace(start, shape=shape), look, pictures).value[0]
        c = start.R[0] @ problem.middle + start.t[0]
        step = np.zeros(6)
        step[k] = h
        R = so3_exp(step[:3]) @ start.R[0]
        new = c * np.exp(step[5])
        new[:2] += step[3:5]
        moved = replace(
            start,
            R=np.stack([R, *start.R[1:]]),
            t=np.stack([new - R @ problem.middle, *start.t[1:]]),
        )
        return problem.read(moved, look, pictures).value[0]

    for k, h in [(0, 5e-3), (1, 5e-3), (2, 5e-3), (3, 0.4), (4, 0.4), (5, 5e-3), (15, 0.3)]:
        numeric = (residual(k, h) - residual(k, -h)) / (2 * h)
        a, b = numeric[seen], J[seen, k]
        # bilinear samples of central differences: close, not equal
        assert np.linalg.norm(a - b) < 0.1 * np.linalg.norm(a), k


def test_normal_matrix_is_that_of_the_whole_jacobian(model):
    """Shape enters by what moves the points, summed over views: the same as view by view."""
    track, truth = scene(model, yaw=[-20, 0, 20])
    samples = choose_samples(model, 400, np.random.default_rng(0))
    fields = shape_basis_of(truth, SHAPE).fields
    problem = Alignment(
        truth, Pictures(track), samples, SHAPE, np.arange(3.0), np.zeros(3), np.zeros(3), fields
    )
    start, views = problem.start(), np.ones(3, bool)
    look = problem.look(start, 4.0, views)
    reading = problem.read(start, look, problem.blurred(look, views))
    M, G = len(samples.index), problem.G
    state: dict = {}
    problem.step(start, look, reading, keep=np.ones(M), state=state)
    share = np.minimum(look.independent, 1 / state["coherence"])
    k = reading.weight * state["robust"] * (share / state["noise"] ** 2)[:, None]
    # residuals of every view by all unknowns, against the mean over views
    J = np.zeros((3, M, 45 + G))
    for n in range(3):
        J[n, :, 15 * n : 15 * n + 15] = problem.jacobian(start, look, reading, n, np.arange(M))
        J[n, :, 45:] = np.einsum(
            "mi,gmi->mg", reading.gradient[n] @ start.R[n], fields[:, samples.index]
        )
    mean = (k[..., None] * J).sum(0) / np.maximum(k.sum(0), 1e-9)[:, None]
    expected = np.einsum("nm,nma,nmb->ab", k, J - mean, J - mean, optimize=True)
    for j in range(15):
        expected[j:45:15, j:45:15] += problem.prior[j]
    assert state["trust"] == min(1.0, SHAPE.shape_trust / np.median(state["noise"]))
    expected[45:, 45:] += np.eye(G) / state["trust"]
    size = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(
        state["normal"] / np.outer(size, size), expected / np.outer(size, size), atol=1e-4
    )


def test_threads_do_not_change_the_answer(model):
    track, truth = scene(model, yaw=np.linspace(-30, 30, 10))
    start, found = turned_too_little(truth), []
    for threads in (1, 3):
        set_num_threads(threads)
        try:
            found.append(refine_fit(start, track, SHAPE))
        finally:
            set_num_threads(None)
    np.testing.assert_array_equal(found[0].R, found[1].R)
    np.testing.assert_array_equal(found[0].neutral, found[1].neutral)


def test_what_hides_a_vertex():
    """Of two squares one behind the other, the far one is not seen, nor is its back."""
    square = np.array([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * 40
    vertices = np.concatenate([square, square * 0.5 - [0, 0, 30]])
    inner = square * 0.2
    vertices = np.concatenate([vertices, inner, inner - [0, 0, 30]])
    quad = np.array([[0, 1, 2], [0, 2, 3]])
    triangles = np.concatenate([quad + 4 * k for k in range(4)])
    K, R = intrinsics(500.0, (320, 240)), head_rotation(0.0, 0.0, 0.0)
    t = np.array([0, 0, 600.0])
    inside = np.arange(8, 16)
    cosine, _, _ = visible_samples(vertices, triangles, inside, K, R, t, 2.0)
    assert (cosine[:4] > 0.9).all() and (cosine[4:] == 0).all()
    back, _, _ = visible_samples(vertices, triangles[:, ::-1], inside, K, R, t, 2.0)
    assert (back == 0).all()


def test_poses_are_judged_by_views_and_shape_by_patches():
    rng = np.random.default_rng(0)
    cell = np.repeat(np.arange(10), 20)
    old = rng.normal(0, 0.1, (30, 200))
    # every patch but one gains a little in every view; a shadow makes that one much worse
    new = 0.8 * old
    new[:, cell == 3] = 5 * old[:, cell == 3]
    assert compare(old, 0.8 * old, None, 0.03).better
    assert compare(old, 0.8 * old, cell, 0.03).better
    assert not compare(old, new, cell, 0.03).better
    # a third of the views gains much: not what most of them say
    few = old.copy()
    few[:10] *= 0.1
    few[10:] *= 1.001
    assert not compare(old, few, None, 0.03).better
    # a margin is asked for all the same
    assert not compare(old, 0.99 * old, None, 0.03).better
