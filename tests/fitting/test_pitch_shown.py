"""Landmarks that show too little pitch are turned to the pitch that the head has."""

from types import SimpleNamespace

import numpy as np

from recon3d.fitting.bundle import _Renewal
from recon3d.geometry import head_rotation


def shown(share: float, pitch: float) -> tuple[SimpleNamespace, np.ndarray, float]:
    """Landmarks of a head at a share of its pitch, and where they should be."""
    rng = np.random.default_rng(0)
    X = rng.normal(0, 40, (30, 3))
    scale, R = 0.7, head_rotation([20.0], [share * pitch], [5.0])
    place = np.array([[100.0, 80.0, np.log(scale)]])
    at = scale * X @ R[0].T
    seen = SimpleNamespace(
        settings=SimpleNamespace(pitch_shown=share),
        basis=SimpleNamespace(mean=X, middle=np.zeros(3)),
        points=at[None, :, :2] + place[:, None, :2],
        depth=at[None, :, 2],
        usable=np.ones((1, 30), bool),
        depth_usable=np.ones((1, 30), bool),
    )
    _Renewal.undo_pitch(seen, R, place)
    return seen, X, scale


def test_the_landmarks_come_to_lie_where_the_true_pitch_puts_them():
    seen, X, scale = shown(0.7, -20.0)
    # without roll the turn about the head's x axis is one in pitch; with a little, nearly so
    true = scale * X @ head_rotation(20.0, -20.0, 5.0).T
    assert np.abs(seen.points[0] - true[:, :2] - [100, 80]).max() < 1.0
    assert np.abs(seen.depth[0] - true[:, 2]).max() < 1.0


def test_landmarks_taken_at_their_word_stay():
    seen, X, scale = shown(1.0, -20.0)
    true = scale * X @ head_rotation(20.0, -20.0, 5.0).T
    np.testing.assert_allclose(seen.points[0], true[:, :2] + [100, 80])
