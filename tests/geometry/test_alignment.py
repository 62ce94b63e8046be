"""Alignment recovers known moves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon3d.errors import ShapeError
from recon3d.geometry import procrustes_mean, so3_exp, umeyama


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.2, 5), st.integers(4, 30))
def test_umeyama_recovers_a_similarity(seed, scale, count):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 3))
    R, t = so3_exp(rng.normal(size=3)), rng.normal(size=3)
    s, Q, u = umeyama(x, scale * x @ R.T + t)
    assert s == pytest.approx(scale)
    assert np.allclose(Q, R) and np.allclose(u, t)


@settings(deadline=None)
@given(st.integers(0, 1000))
def test_umeyama_never_reflects(seed):
    x = np.random.default_rng(seed).normal(size=(10, 3))
    _, R, _ = umeyama(x, x * [-1, 1, 1])
    assert np.linalg.det(R) == pytest.approx(1)


def test_umeyama_in_the_plane_and_without_scale():
    x = np.random.default_rng(2).normal(size=(8, 2))
    c, s = np.cos(0.4), np.sin(0.4)
    R = np.array([[c, -s], [s, c]])
    scale, Q, t = umeyama(x, 3 * x @ R.T + 1, scale=False)
    assert scale == 1.0 and np.allclose(Q, R)
    assert np.allclose(t, (3 * x @ R.T + 1).mean(0) - Q @ x.mean(0))


def test_weights_take_outliers_out():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(12, 3))
    y = 2 * x + 5
    y[0] += 100
    weights = np.ones(12)
    weights[0] = 0
    s, R, t = umeyama(x, y, weights=weights)
    assert s == pytest.approx(2) and np.allclose(R, np.eye(3)) and np.allclose(t, 5)


def test_noise_grows_the_error_no_faster_than_itself():
    rng = np.random.default_rng(4)
    x = rng.normal(size=(200, 3)) * 50
    for sigma in (0.1, 1.0, 5.0):
        y = x @ so3_exp(np.array([0.2, 0.4, -0.1])).T + rng.normal(size=x.shape) * sigma
        _, R, _ = umeyama(x, y)
        wrong = np.arccos((np.trace(R @ so3_exp(np.array([0.2, 0.4, -0.1])).T) - 1) / 2)
        assert wrong < 4 * sigma / 50 / np.sqrt(200)


def test_procrustes_mean_of_moved_copies():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(15, 3))
    copies = np.stack(
        [
            rng.uniform(0.5, 2) * x @ so3_exp(rng.normal(size=3)).T + rng.normal(size=3)
            for _ in range(9)
        ]
    )
    mean, aligned = procrustes_mean(copies)
    assert np.allclose(aligned, copies[0], atol=1e-6)
    assert np.allclose(mean, copies[0], atol=1e-6)


def test_mismatched_sets_are_refused():
    with pytest.raises(ShapeError, match="target"):
        umeyama(np.zeros((4, 3)), np.zeros((5, 3)))
