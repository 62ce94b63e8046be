"""Views whose landmarks went astray are found, started again, or left out."""

from dataclasses import replace

import numpy as np
import pytest
from dense_scene import head_model, pose_error, scene, turned_too_little

from recon3d.fitting.dense import Scene, refine_fit
from recon3d.fitting.settings import DenseSettings
from recon3d.fitting.strays import astray, between
from recon3d.geometry import head_rotation, so3_exp

POSES = DenseSettings(samples=700, iterations=4, shape=False)


@pytest.fixture(scope="module")
def model():
    return head_model()


def test_who_agrees_much_less_than_the_others_is_astray():
    agreement = np.array([0.95, 0.94, 0.96, 0.5, 0.93, np.nan])
    np.testing.assert_array_equal(np.flatnonzero(astray(agreement, 4.0, 0.15)), [3])
    # clean clips differ by little however large the ratio
    assert not astray(np.array([0.999, 0.998, 0.999, 0.98]), 4.0, 0.15).any()
    # nobody is odd among two, or where all disagree
    assert not astray(np.array([0.9, 0.1]), 4.0, 0.15).any()
    assert not astray(np.array([0.3, 0.2, 0.4, 0.25]), 4.0, 0.15).any()


@pytest.mark.parametrize("move", [False, True])
def test_a_view_is_placed_between_its_neighbours(move):
    middle = np.array([0.0, 5.0, 40.0])
    R = np.stack([head_rotation(yaw, 0.0, 0.0) for yaw in (0.0, -70.0, 20.0, 0.0)])
    centre = np.array([[0.0, 0, 600], [50, 0, 600], [20, 4, 640], [0, 0, 900]])
    change = np.zeros((4, 6))
    change[2] = 0.2
    start = Scene(R, centre - R @ middle, change, np.zeros((4, 9)), np.zeros(0))
    wanted = np.array([False, True, False, False])
    times, sources = np.array([0.0, 0.1, 0.4, 0.05]), np.array([0, 0, 0, 1])
    found, placed = between(start, middle, wanted, ~wanted, times, sources, gap=1.0, move=move)
    np.testing.assert_array_equal(placed, wanted)
    np.testing.assert_allclose(found.R[1], head_rotation(5.0, 0.0, 0.0), atol=1e-9)
    expected = [5.0, 1.0, 610.0] if move else centre[1]
    np.testing.assert_allclose(found.R[1] @ middle + found.t[1], expected, atol=1e-9)
    np.testing.assert_allclose(found.change[1], 0.05)
    np.testing.assert_array_equal(found.t[~wanted], start.t[~wanted])


def test_without_a_good_view_nearby_nothing_is_placed():
    R = np.stack([np.eye(3)] * 3)
    start = Scene(R, np.ones((3, 3)), np.zeros((3, 6)), np.zeros((3, 9)), np.zeros(0))
    wanted = np.array([False, True, False])
    times = np.array([0.0, 5.0, 9.0])
    found, placed = between(
        start, np.zeros(3), wanted, ~wanted, times, np.zeros(3), gap=1.0, move=True
    )
    assert not placed.any()
    np.testing.assert_array_equal(found.R, start.R)


def gone_astray(fit, views, degrees=45.0):
    """The fit with some views turned quite another way about the face."""
    R, t = fit.R.copy(), fit.t.copy()
    R[views] = so3_exp(np.radians([[0.0, 0.0, degrees]]))[0] @ R[views]
    R[views] = so3_exp(np.radians([[0.0, 0.6 * degrees, 0.0]]))[0] @ R[views]
    return replace(fit, R=R, t=t)


def test_views_that_went_astray_are_brought_back(model):
    track, truth = scene(model)
    views = [4, 5]
    start = gone_astray(turned_too_little(truth), views)
    # Other starts help a little by themselves, and are not what is tested here.
    once = {"stray_ratio": None, "starts": 1}
    alone = refine_fit(start, track, POSES.model_copy(update=once))
    fit = refine_fit(start, track, POSES)
    assert fit.info["dense"]["pose"] and fit.info["dense"]["lost_views"] == 0
    assert pose_error(alone, truth)[views].min() > 10
    assert pose_error(fit, truth).max() < 2.0


def test_a_view_of_somebody_else_is_left_out(model):
    skins = np.zeros(11, int)
    skins[3] = 7
    track, truth = scene(model, skins=skins)
    fit = refine_fit(turned_too_little(truth), track, POSES)
    assert fit.info["dense"]["pose"] and fit.info["dense"]["lost_views"] == 1
    np.testing.assert_array_equal(np.flatnonzero(fit.view_weight == 0), [3])
    assert fit.info["views_rejected"] == 1 and not fit.weights[3].any()
    others = np.arange(11) != 3
    assert pose_error(fit, truth)[others].max() < 1.0
