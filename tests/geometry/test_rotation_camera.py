"""Rotations and cameras against their definitions."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recon3d.geometry import (
    FRONTAL,
    crop_camera,
    head_angles,
    head_rotation,
    intrinsics,
    project,
    seen_angles,
    skew,
    so3_exp,
    so3_log,
    transform,
)
from recon3d.types import Camera

vectors = arrays(np.float64, 3, elements=st.floats(-3, 3))
angles = st.floats(-170, 170)


@settings(deadline=None)
@given(vectors, vectors)
def test_skew_is_the_cross_product(a, b):
    assert np.allclose(skew(a) @ b, np.cross(a, b))


@settings(deadline=None)
@given(vectors)
def test_exponential_is_a_rotation(w):
    R = so3_exp(w)
    assert np.allclose(R @ R.T, np.eye(3), atol=1e-12)
    assert np.isclose(np.linalg.det(R), 1)
    assert np.allclose(R @ w, w, atol=1e-9)


@settings(deadline=None)
@given(arrays(np.float64, 3, elements=st.floats(-1.7, 1.7)))
def test_log_undoes_exponential(w):
    assert np.allclose(so3_log(so3_exp(w)), w, atol=1e-7)


@settings(deadline=None)
@given(st.floats(-9, -3))
def test_exponential_is_accurate_for_small_angles(exponent):
    w = np.array([0.6, -0.3, 0.7]) * 10.0**exponent
    W = skew(w)
    series = np.eye(3) + W + W @ W / 2 + W @ W @ W / 6
    assert np.allclose(so3_exp(w), series, atol=1e-13)


def test_exponential_of_batches():
    w = np.random.default_rng(0).normal(size=(4, 5, 3))
    assert np.allclose(so3_exp(w)[2, 3], so3_exp(w[2, 3]))
    assert np.allclose(so3_log(so3_exp(w * 0.5)), w * 0.5)


@settings(max_examples=200, deadline=None)
@given(angles, st.floats(-85, 85), angles)
def test_head_angles_undo_head_rotation(yaw, pitch, roll):
    assert np.allclose(head_angles(head_rotation(yaw, pitch, roll)), [yaw, pitch, roll], atol=1e-6)


def test_signs_of_the_head_angles():
    nose = np.array([0.0, 0, 1])
    top = np.array([0.0, 1, 0])
    assert np.allclose(head_rotation(0, 0, 0), FRONTAL)
    assert (head_rotation(20, 0, 0) @ nose)[0] > 0, "yaw > 0 turns to the right of the picture"
    assert (head_rotation(0, 20, 0) @ nose)[1] < 0, "pitch > 0 looks up, y points down"
    assert (head_rotation(0, 0, 20) @ top)[0] < 0, "roll > 0 is counter-clockwise in the picture"


@settings(deadline=None)
@given(st.floats(-85, 85), st.floats(-80, 80), st.floats(200, 5000))
def test_a_head_on_the_axis_is_seen_as_it_is_turned(yaw, pitch, distance):
    seen = seen_angles(head_rotation(yaw, pitch, 0), np.array([0, 0, distance]))
    assert np.allclose(seen, [yaw, pitch], atol=1e-6)


@settings(deadline=None)
@given(st.floats(-60, 60), st.floats(-60, 60), st.floats(-60, 60), vectors)
def test_how_a_head_is_seen_does_not_depend_on_where_the_camera_points(yaw, pitch, roll, w):
    R, t = head_rotation(yaw, pitch, roll), np.array([50.0, -20, 700])
    turned = so3_exp(w)
    assert np.allclose(seen_angles(turned @ R, turned @ t), seen_angles(R, t), atol=1e-6)


def test_a_head_beside_the_axis_shows_its_side():
    # it looks along the axis, and stands to the right of it
    yaw, pitch = seen_angles(FRONTAL, np.array([300.0, 0, 1000]))
    assert np.isclose(yaw, np.degrees(np.arctan(0.3))) and np.isclose(pitch, 0)
    assert seen_angles(FRONTAL, np.array([0, -300.0, 1000]))[1] > 0, "above the axis: from below"
    with np.testing.assert_raises(ValueError):
        seen_angles(FRONTAL, np.zeros(3))


def test_projection_by_hand():
    K = intrinsics(500.0, (640, 480))
    points = np.array([[0.0, 0, 0], [10, 0, 0], [0, -10, 0]])
    pixels = project(points, K, np.eye(3), np.array([0, 0, 1000.0]))
    assert np.allclose(pixels, [[320, 240], [325, 240], [320, 235]])


def test_batched_poses_agree_with_single_ones():
    rng = np.random.default_rng(1)
    x, w = rng.normal(size=(7, 3)), rng.normal(size=(3, 3)) * 0.3
    R, t = so3_exp(w), rng.normal(size=(3, 3)) + [0, 0, 20]
    K = np.tile(intrinsics(300.0, (100, 100)), (3, 1, 1))
    together = project(np.tile(x, (3, 1, 1)), K, R, t)
    for n in range(3):
        assert np.allclose(together[n], project(x, K[n], R[n], t[n]))
        assert np.allclose(transform(x, R[n], t[n]), x @ R[n].T + t[n])


@settings(deadline=None)
@given(
    st.floats(-200, 200),
    st.floats(-200, 200),
    st.floats(0.1, 5),
    arrays(np.float64, 3, elements=st.floats(-50, 50)),
)
def test_crop_camera_moves_pixels_like_the_crop(x0, y0, scale, point):
    camera = Camera(intrinsics(700.0, (640, 480)), FRONTAL, np.array([3.0, -2, 900]), (640, 480))
    crop = crop_camera(camera, (x0, y0), scale, (64, 64))
    whole = project(point[None], camera.K, camera.R, camera.t)
    part = project(point[None], crop.K, crop.R, crop.t)
    assert np.allclose(part, (whole - [x0, y0]) * scale, atol=1e-8)
    assert crop.size == (64, 64)
