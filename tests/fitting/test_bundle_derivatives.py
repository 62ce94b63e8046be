"""Analytic derivatives of the bundle adjustment against automatic ones, and its linear algebra."""

from dataclasses import replace

import numpy as np
import pytest
from synthetic_head import synthetic_track

from recon3d.fitting.bundle import (
    Priors,
    Problem,
    _initial_state,
    _Renewal,
    _with_smoothness,
    left_jacobian_inverse,
)
from recon3d.fitting.projection import (
    pose_derivatives,
    project_with_derivatives,
    rotate_project,
    translation,
)
from recon3d.fitting.settings import FittingSettings
from recon3d.fitting.shape_basis import common_error_modes, shape_basis
from recon3d.fitting.solver import solve_arrow
from recon3d.fitting.visibility import Visibility, surface_points
from recon3d.geometry import head_rotation, skew, so3_exp, so3_log

torch = pytest.importorskip("torch")


def _torch_exp(w):
    zero = torch.zeros((), dtype=w.dtype)
    W = torch.stack([zero, -w[2], w[1], w[2], zero, -w[0], -w[1], w[0], zero]).reshape(3, 3)
    return torch.linalg.matrix_exp(W)


def test_projection_derivatives_match_autograd():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2, 3, 5)) * 40
    R = head_rotation([20.0, -50.0], [5.0, -10.0], [3.0, 8.0])
    place = np.array([[300.0, 200.0, 0.3], [420.0, 100.0, -0.8]])
    log_focal, centre = np.log([800.0, 500.0]), np.array([[320.0, 240.0], [320.0, 240.0]])
    ours = project_with_derivatives(X, R, place, log_focal, centre)
    by_pose = pose_derivatives(ours.by_camera, ours.rotated, place, log_focal, centre)
    for n in range(2):

        def image(x, pose, phi, n=n):
            turned = x @ (_torch_exp(pose[:3]) @ torch.tensor(R[n])).T
            uv = pose[3:5] + torch.tensor(place[n, :2])
            scale = torch.exp(pose[5] + place[n, 2])
            f = torch.exp(phi)
            t = torch.cat([uv - torch.tensor(centre[n]), f[None]]) / scale
            y = turned + t
            return torch.tensor(centre[n]) + f * y[:, :2] / y[:, 2:]

        at = (
            torch.tensor(X[n].T),
            torch.zeros(6, dtype=torch.float64),
            torch.tensor(log_focal[n]),
        )
        by_x, by_change, by_phi = torch.autograd.functional.jacobian(image, at)
        # landmarks come last in our arrays and first in automatic ones
        k = np.arange(5)
        by_point = np.einsum("kil,ij->lkj", ours.by_camera[n], R[n])
        np.testing.assert_allclose(ours.points[n].T, image(*at), rtol=1e-12)
        np.testing.assert_allclose(by_point, by_x.numpy()[k, :, k], atol=1e-10)
        np.testing.assert_allclose(by_pose[n].transpose(2, 1, 0), by_change, atol=1e-9, rtol=1e-10)
        np.testing.assert_allclose(ours.by_focal[n].T, by_phi, atol=1e-9)
    plain, rotated = rotate_project(X, R, place, log_focal, centre)
    np.testing.assert_allclose(plain, ours.points)
    np.testing.assert_allclose(rotated, ours.rotated)


def test_place_is_the_pixel_of_the_origin_whatever_the_focal_length():
    place, centre = np.array([[300.0, 200.0, 0.3]]), np.array([[320.0, 240.0]])
    for focal in (300.0, 3000.0):
        t = translation(place, np.log([focal]), centre)
        np.testing.assert_allclose(centre + focal * t[:, :2] / t[:, 2:], place[:, :2])
        np.testing.assert_allclose(focal / t[:, 2], np.exp(place[:, 2]))


def test_points_behind_the_camera_cost_much_but_stay_finite():
    X = np.array([[[0.0], [0.0], [500.0]]])
    points, _ = rotate_project(
        X,
        head_rotation(0, 0, 0)[None],
        np.array([[5.0, 5.0, 1.0]]),
        np.log([100.0]),
        np.zeros((1, 2)),
    )
    assert np.isfinite(points).all()


def test_rotation_change_has_the_left_jacobian():
    rng = np.random.default_rng(1)
    R1, R2 = so3_exp(rng.normal(size=3)), so3_exp(rng.normal(size=3) * 0.3)
    R2 = R2 @ R1
    base = so3_log(R2 @ R1.T)
    J = left_jacobian_inverse(base[None])[0]
    h = 1e-6
    for k in range(3):
        step = so3_exp(h * np.eye(3)[k])
        np.testing.assert_allclose((so3_log(step @ R2 @ R1.T) - base) / h, J[:, k], atol=1e-5)
        np.testing.assert_allclose((so3_log(R2 @ (step @ R1).T) - base) / h, -J.T[:, k], atol=1e-5)
    np.testing.assert_allclose(left_jacobian_inverse(np.zeros((1, 3)))[0], np.eye(3))
    assert skew(base).shape == (3, 3)


def _problem(model, *, seed=0, **settings):
    rng = np.random.default_rng(seed)
    options = FittingSettings(**settings)
    track, _ = synthetic_track(model, rng, n_views=5, noise_px=0.5, sources=2)
    basis = shape_basis(model, options)
    renewal = _Renewal(track, model, basis, options, Visibility(model))
    start = Priors(
        np.log([900.0, 1000.0]),
        np.full(2, 0.3),
        np.zeros(5, bool),
        np.zeros((5, 6)),
        np.zeros((5, 6)),
    )
    state, _ = _initial_state(renewal, basis, start)
    priors = _with_smoothness(start, track, state, options)
    state = replace(
        state,
        q=0.3 * rng.normal(size=state.q.shape),
        e=rng.uniform(0.1, 0.6, state.e.shape),
        log_focal=state.log_focal + 0.1,
        R=so3_exp(0.05 * rng.normal(size=(5, 3))) @ state.R,
    )
    return Problem(basis, options, renewal(state, np.ones(5)), priors), state


def _moved(state, x, y, G):
    return replace(
        state,
        q=state.q + x[:G],
        log_focal=state.log_focal + x[G:],
        R=so3_exp(y[:, :3]) @ state.R,
        place=state.place + y[:, 3:6],
        e=state.e + y[:, 6:],
    )


def test_gradient_of_the_whole_cost(model):
    problem, state = _problem(model)
    assert problem.priors.pair.sum() == 3  # neither the end nor the change of camera
    system = problem.normal(state)
    rng = np.random.default_rng(2)
    T, (N, P), h = problem.G + 2, system.b.shape, 1e-5
    # one kind of unknown at a time: a mistake in a small term must not hide behind a large one
    kinds = {
        "shape": (np.r_[np.ones(problem.G), 0, 0], np.zeros(P)),
        "focal": (np.r_[np.zeros(problem.G), 1, 1], np.zeros(P)),
        "rotation": (np.zeros(T), np.r_[1, 1, 1, np.zeros(P - 3)]),
        "place": (np.zeros(T), np.r_[np.zeros(3), 1, 1, 1e-2, np.zeros(P - 6)]),
        "expression": (np.zeros(T), np.r_[np.zeros(6), np.ones(P - 6)]),
    }
    for name, (scale_x, scale_y) in kinds.items():
        x, y = rng.normal(size=T) * scale_x, rng.normal(size=(N, P)) * scale_y
        up = problem.cost(_moved(state, h * x, h * y, problem.G))
        down = problem.cost(_moved(state, -h * x, -h * y, problem.G))
        expected = (up - down) / (2 * h)
        assert system.g @ x + (system.b * y).sum() == pytest.approx(expected, rel=1e-4), name


def test_relative_depth_enters_cost_and_gradient(model):
    with_it, state = _problem(model)
    without, _ = _problem(model, depth_std_mm=None)
    assert with_it.cost(state) > without.cost(state)
    assert not np.allclose(with_it.normal(state).g, without.normal(state).g)


def test_held_coefficients_are_struck_out_of_the_system(model):
    problem, state = _problem(model)
    e = state.e.copy()
    e[:, ::2] = 0.0
    e[1] = 1.0
    state = replace(state, e=e)
    whole, small = problem.normal(state), problem.normal(state, strike=True)
    np.testing.assert_allclose(small.b, whole.b)
    np.testing.assert_allclose(small.H, whole.H)
    held = ((e <= 0) & (whole.b[:, 6:] > 0)) | ((e >= 1) & (whole.b[:, 6:] < 0))
    # views differ in how many unknowns they have
    assert len(set(held.sum(1))) > 1
    assert small.V.shape[1] == whole.V.shape[1] - held.sum(1).min()
    for n, columns in enumerate(small.columns):
        there = columns < problem.P
        kept = columns[there]
        assert set(kept) == {*range(6), *(6 + np.flatnonzero(~held[n]))}
        np.testing.assert_allclose(small.V[n][np.ix_(there, there)], whole.V[n][np.ix_(kept, kept)])
        np.testing.assert_array_equal(small.V[n][~there], np.eye(len(columns))[~there])
        np.testing.assert_allclose(small.W[n][:, there], whole.W[n][:, kept])
        assert not small.W[n][:, ~there].any()
        if n < len(e) - 1:
            after = small.columns[n + 1]
            also = after < problem.P
            np.testing.assert_allclose(
                small.C[n][np.ix_(there, also)], whole.C[n][np.ix_(kept, after[also])]
            )
            assert not small.C[n][~there].any() and not small.C[n][:, ~also].any()
    moved, _ = problem.step(state, small, 1e-3)
    np.testing.assert_array_equal(moved.e[held], e[held])


@pytest.mark.parametrize("coupled", [False, True])
def test_schur_solution_equals_the_dense_one(coupled):
    rng = np.random.default_rng(3)
    G, N, P = 7, 6, 4
    size = G + N * P
    A = rng.normal(size=(size, size))
    full = A @ A.T + size * np.eye(size)
    V, W, C = np.zeros((N, P, P)), np.zeros((N, G, P)), np.zeros((N - 1, P, P))
    keep = np.zeros_like(full)
    keep[:G, :] = keep[:, :G] = 1
    for n in range(N):
        a = slice(G + n * P, G + (n + 1) * P)
        keep[a, a] = 1
        # view 3 starts a new shot
        if coupled and n < N - 1 and n != 2:
            b = slice(a.stop, a.stop + P)
            keep[a, b] = keep[b, a] = 1
    full *= keep
    full += 3 * size * np.eye(size)
    for n in range(N):
        a = slice(G + n * P, G + (n + 1) * P)
        V[n], W[n] = full[a, a], full[:G, a]
        if n < N - 1:
            C[n] = full[a, a.stop : a.stop + P]
    rhs = rng.normal(size=size)
    x, y, S = solve_arrow(full[:G, :G], rhs[:G], V, rhs[G:].reshape(N, P), W, C)
    np.testing.assert_allclose(np.r_[x, y.ravel()], np.linalg.solve(full, rhs), rtol=1e-9)
    # the Schur complement is the inverse of the globals' block of the covariance
    np.testing.assert_allclose(np.linalg.inv(S), np.linalg.inv(full)[:G, :G], rtol=1e-8)


def test_a_system_that_is_not_positive_definite_is_refused():
    V = np.stack([np.eye(2), -np.eye(2)])
    C = 0.1 * np.eye(2)[None]
    with pytest.raises(np.linalg.LinAlgError):
        solve_arrow(np.eye(1), np.ones(1), V, np.ones((2, 2)), np.zeros((2, 1, 2)), C)


def test_identity_follows_from_apparent_shape_by_regression(model):
    """The reduced basis gives the posterior of identity that the full one gives."""
    settings = FittingSettings(shape_modes=500)
    basis = shape_basis(model, settings)
    modes = surface_points(model.identity, model.triangles, model.landmarks)
    centred = basis.mean - basis.middle
    modes = modes - basis.size_by_identity[:, None, None] * centred
    B = modes.reshape(len(modes), -1).T
    D = common_error_modes(basis.mean, settings).reshape(len(B), -1)
    Z = basis.modes.reshape(len(B), -1)
    np.testing.assert_allclose(Z @ Z.T, B @ B.T + D @ D.T, atol=2e-3)
    rng = np.random.default_rng(4)
    z = B @ rng.normal(size=B.shape[1]) + D @ rng.normal(size=D.shape[1])
    noise = np.eye(len(z))
    total = B @ B.T + D @ D.T + noise
    expected = B.T @ np.linalg.solve(total, z)
    covariance = np.eye(B.shape[1]) - B.T @ np.linalg.solve(total, B)
    information = Z.T @ Z + np.eye(Z.shape[1])
    q = np.linalg.solve(information, Z.T @ z)
    np.testing.assert_allclose(basis.identity(q), expected, atol=0.02)
    np.testing.assert_allclose(
        basis.identity_covariance(np.linalg.inv(information)), covariance, atol=0.01
    )


def test_common_error_is_no_motion_and_no_size(model):
    points = shape_basis(model, FittingSettings()).mean
    modes = common_error_modes(points, FittingSettings())
    x = points - points.mean(0)
    np.testing.assert_allclose(modes.sum(0), 0, atol=1e-8)
    np.testing.assert_allclose(np.einsum("lc,lcm->m", x, modes), 0, atol=1e-6)
    turning = np.cross(x[:, :, None].swapaxes(1, 2), modes.swapaxes(1, 2)).sum(0)
    np.testing.assert_allclose(turning, 0, atol=1e-6)
