"""The truth scores perfectly, and what is wrong costs what it should."""

import cv2
import numpy as np
import pytest

from recon3d.errors import BackendUnavailable
from recon3d.evaluation.metrics import (
    FaceDescriptor,
    picture_metrics,
    pixel_placement,
    shape_metrics,
    ssim,
)
from recon3d.geometry import so3_exp
from recon3d.scenes.truth import PictureTruth, eye_alignment, eye_centres, portrait_landmarks


@pytest.fixture(scope="module")
def picture_truth(portrait, portrait_mask):
    return PictureTruth.from_image(portrait, portrait_mask)


@pytest.fixture(scope="module")
def descriptor():
    try:
        return FaceDescriptor()
    except BackendUnavailable as error:
        pytest.skip(str(error))


# ------------------------------------------------------------------------------------ shape
def test_true_shape_in_another_frame_scores_perfectly(egg_truth):
    R, t = so3_exp(np.array([0.3, -0.5, 0.2])), np.array([30.0, -10.0, 55.0])
    moved, now7 = egg_truth.vertices @ R.T + t, egg_truth.now7 @ R.T + t
    found = shape_metrics(moved, egg_truth.triangles, now7, egg_truth)
    assert found["metric_median"] < 1e-3
    assert found["metric_mean"] < 1e-3
    assert found["metric_cover"] == 1
    assert found["nonmetric_median"] < 1e-3
    assert found["scale"] == pytest.approx(1, abs=1e-4)


def test_wrong_size_costs_metric_and_not_nonmetric(egg_truth):
    found = shape_metrics(
        1.1 * egg_truth.vertices, egg_truth.triangles, 1.1 * egg_truth.now7, egg_truth
    )
    assert found["metric_median"] > 0.5
    assert found["nonmetric_median"] < 0.02
    assert found["scale"] == pytest.approx(1 / 1.1, abs=1e-3)


def test_another_shape_costs_as_much_as_it_differs(egg_truth):
    x = egg_truth.vertices

    def found(amount):
        other = x + amount * np.stack(
            [np.sin(x[:, 1] / 15), np.cos(x[:, 2] / 18), np.sin(x[:, 0] / 12)], 1
        )
        return shape_metrics(other, egg_truth.triangles, egg_truth.now7, egg_truth)

    small, large = found(1.0), found(4.0)
    assert 0.1 < small["nonmetric_median"] < 1.0
    assert large["nonmetric_median"] > 2.5 * small["nonmetric_median"]
    assert large["metric_cover"] < 1


def test_without_landmarks_the_axes_and_the_nose_align(egg_truth):
    found = shape_metrics(egg_truth.vertices + [40, 10, -60], egg_truth.triangles, None, egg_truth)
    assert found["metric_median"] < 0.05


# --------------------------------------------------------------------------------- pictures
def test_true_picture_scores_perfectly(picture_truth, portrait, descriptor):
    found = picture_metrics(portrait, picture_truth, descriptor)
    assert found["psnr"] > 60
    assert found["ssim"] > 0.9999
    assert found["ssim_y"] > 0.9999
    assert found["sharpness"] == pytest.approx(1, abs=1e-3)
    assert found["nme"] < 1e-6
    assert found["yaw"] < 1e-3
    assert found["id_dist"] < 1e-3


def test_size_place_exposure_and_balance_cost_little(picture_truth, portrait, descriptor):
    M = cv2.getRotationMatrix2D((150, 150), 4.0, 1.5)
    moved = cv2.warpAffine(portrait, M, (420, 400), flags=cv2.INTER_CUBIC, borderMode=1)
    tinted = np.clip(moved * np.array([0.9, 0.8, 0.65]) + [4, 2, 12], 0, 255).astype(np.uint8)
    found = picture_metrics(tinted, picture_truth, descriptor)
    assert found["psnr"] > 28
    assert found["ssim"] > 0.9
    assert found["nme"] < 2
    assert found["id_dist"] < 0.25


def test_blur_costs_sharpness_and_a_mirror_costs_likeness(picture_truth, portrait, descriptor):
    blurred = picture_metrics(cv2.GaussianBlur(portrait, (0, 0), 3), picture_truth, descriptor)
    mirrored = picture_metrics(portrait[:, ::-1].copy(), picture_truth, descriptor)
    assert blurred["sharpness"] < 0.6
    assert mirrored["psnr"] < blurred["psnr"]
    assert mirrored["id_dist"] > 0.1


def test_a_picture_without_a_face_has_no_score(picture_truth):
    nobody = np.full((200, 200, 3), 90, np.uint8)
    assert picture_metrics(nobody, picture_truth) is None
    assert pixel_placement(nobody, picture_truth) is None


def test_pixels_place_a_soft_picture_better_than_its_eyes(picture_truth, portrait):
    soft = cv2.GaussianBlur(portrait, (0, 0), 4)
    M = cv2.getRotationMatrix2D((150, 150), 3.0, 1.2)
    size = (360, 360)
    moved = cv2.warpAffine(soft, M, size, flags=cv2.INTER_CUBIC, borderMode=1)
    psnr, found = pixel_placement(moved, picture_truth)
    assert psnr >= picture_metrics(moved, picture_truth)["psnr"]
    # Where it lay: the way there and back moves nothing.
    there = np.vstack([M, [0, 0, 1]])
    true = eye_alignment(portrait_landmarks(portrait), picture_truth.landmarks)
    corners = np.array([[80, 80, 1], [220, 80, 1], [150, 220, 1]], float)
    np.testing.assert_allclose(corners @ (found @ there).T, corners @ true.T, atol=1.5)


def test_transparent_and_grey_pictures_are_read(picture_truth, portrait):
    grey = cv2.cvtColor(portrait, cv2.COLOR_RGB2GRAY)
    assert picture_metrics(grey, picture_truth)["nme"] < 3
    opaque = np.dstack([portrait, np.full(portrait.shape[:2], 255, np.uint8)])
    assert picture_metrics(opaque, picture_truth)["psnr"] > 60


def test_landmarks_do_not_depend_on_the_size_of_the_picture(portrait):
    small = portrait_landmarks(portrait)
    large = portrait_landmarks(cv2.resize(portrait, None, fx=4, fy=4, interpolation=2))
    apart = np.linalg.norm(eye_centres(small)[1] - eye_centres(small)[0])
    offset = np.linalg.norm(large[:468, :2] / 4 - small[:468, :2], axis=1).mean()
    assert offset < 0.03 * apart


def test_eye_alignment_puts_the_eyes_where_they_belong(portrait):
    landmarks = portrait_landmarks(portrait)
    target = np.array([[184.32, 225.28], [327.68, 225.28]])
    M = eye_alignment(landmarks, target)
    np.testing.assert_allclose(eye_centres(landmarks) @ M[:, :2].T + M[:, 2], target, atol=1e-9)


def test_ssim_falls_with_noise():
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 255, (64, 64))
    weak, strong = (ssim(x, x + rng.normal(0, sigma, x.shape)) for sigma in (5, 40))
    assert 1 > weak > strong > 0
