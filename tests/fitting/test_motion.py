"""The prior on how heads move: paths that are smooth cost nothing, jitter does."""

import numpy as np
import pytest

from recon3d.fitting.motion import Motion
from recon3d.geometry import so3_exp, so3_log

LEAST = np.array([np.radians(200.0)] * 3 + [300.0])


def motion_of(times, sources=None):
    sources = np.zeros(len(times), int) if sources is None else sources
    return Motion(np.asarray(times, float), sources, gap=0.5, stride=0.2)


def swing(times, hertz, degrees):
    """(N, 3, 3) turns about an upright axis."""
    angle = np.radians(degrees) * np.sin(2 * np.pi * hertz * np.asarray(times))
    return so3_exp(np.outer(angle, [0.0, 1.0, 0.0]))


def smoothed(motion, R, sigma):
    """The most probable rotations, seen to within sigma radians, by Gauss-Newton steps."""
    best = R
    for _ in range(6):
        path = np.zeros((len(R), 1))
        precision, gradient = motion.terms(best, path, LEAST)
        step = np.empty((len(R), 3))
        for j in range(3):
            seen = so3_log(R @ best.transpose(0, 2, 1))[:, j]
            A = precision[j] + np.eye(len(R)) / sigma**2
            step[:, j] = np.linalg.solve(A, seen / sigma**2 - gradient[j])
        best = so3_exp(step) @ best
    return best


def angles(A, B):
    return np.degrees(np.linalg.norm(so3_log(A @ B.transpose(0, 2, 1)), axis=1))


def test_a_steady_path_costs_nothing():
    # Uneven times: third differences of squares of time vanish all the same.
    times = np.cumsum([0, 0.04, 0.04, 0.08, 0.04, 0.12, 0.04, 0.04])
    motion = motion_of(times)
    path = (3 + 20 * times - 400 * times**2)[:, None]
    turn = so3_exp(np.outer(1.2 * times, [0.0, 1.0, 0.0]))
    precision, gradient = motion.terms(turn, path, LEAST)
    assert precision.shape == (4, 8, 8) and gradient.shape == (4, 8)
    assert np.abs(gradient).max() < 1e-6 * precision.max()


def test_the_density_of_a_noise_is_found():
    rng = np.random.default_rng(3)
    dt, root, fine = 0.04, 700.0, 50
    noise = rng.normal(0, root / np.sqrt(dt / fine), 1000 * fine)
    x = noise
    for _ in range(3):
        x = np.cumsum(x) * dt / fine
    path = x[::fine, None]
    motion = motion_of(dt * np.arange(len(path)))
    still = np.tile(np.eye(3), (len(path), 1, 1))
    for part in (motion._near, motion._far):
        assert np.sqrt((part(still, path)[:, 3] ** 2).mean()) == pytest.approx(root, rel=0.1)


@pytest.mark.parametrize("hertz, gain", [(0.5, 0.65), (1.1, 0.8), (2.5, 1.02)])
def test_jitter_is_smoothed_and_motion_is_kept(hertz, gain):
    rng = np.random.default_rng(5)
    times = 0.04 * np.arange(60)
    true = swing(times, hertz, 50.0 if hertz < 2 else 15.0)
    sigma = np.radians(2.0)
    seen = so3_exp(rng.normal(0, sigma, (60, 3))) @ true
    found = smoothed(motion_of(times), seen, sigma)
    assert angles(found, true).mean() < gain * angles(seen, true).mean()


def test_nothing_is_tied_across_cuts_pauses_and_sources():
    times = np.concatenate([0.04 * np.arange(6), 3 + 0.04 * np.arange(6), 0.04 * np.arange(5)])
    sources = np.repeat([0, 1], [12, 5])
    path = np.repeat([0.0, 500.0, -300.0], [6, 6, 5])[:, None]
    motion = motion_of(times, sources)
    precision, gradient = motion.terms(np.tile(np.eye(3), (17, 1, 1)), path, LEAST)
    assert np.abs(gradient).max() < 1e-9
    block = np.repeat([0, 1, 2], [6, 6, 5])
    assert (precision[0][block[:, None] != block] == 0).all()
    assert (precision[0][block[:, None] == block] != 0).any()


@pytest.mark.parametrize("n", [0, 1, 3])
def test_few_views_are_not_tied(n):
    precision, gradient = motion_of(0.04 * np.arange(n)).terms(
        np.tile(np.eye(3), (n, 1, 1)), np.zeros((n, 1)), LEAST
    )
    assert precision.shape == (4, n, n) and not precision.any() and not gradient.any()
