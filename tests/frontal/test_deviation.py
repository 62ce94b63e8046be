"""Predicted deviation: coefficients are recovered, and doubt is where errors are."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon3d.frontal.deviation import (
    FEW_PIXELS,
    SOURCES,
    UNSEEN_DEVIATION,
    determined_share,
    error_sources,
    learn_coefficients,
    predicted_deviation,
)
from recon3d.frontal.settings import FrontalSettings

AT = SOURCES.index


def maps(raw, landmarks=None, **changes):
    flat = np.ones(raw.shape[:2], np.float32)
    known = dict(noise=0.05 * flat) | changes
    landmarks = np.full((478, 2), np.nan) if landmarks is None else landmarks
    return error_sources(raw, landmarks, **known)


def test_coefficients_of_simulated_errors_are_found_and_calibrated():
    rng = np.random.default_rng(3)
    sources = np.column_stack([np.ones(20000), rng.normal(size=(20000, 3))])
    true = np.array([3.0, 0.5, 0.0, 0.2])
    error = rng.laplace(size=20000) * np.exp(sources @ true) / np.sqrt(2)
    found = learn_coefficients(sources, error)
    np.testing.assert_allclose(found, true, atol=0.05)
    sigma = predicted_deviation(sources, tuple(found))
    # Of a Laplacian law: 1 - exp(-sqrt(2) n).
    inside = [(np.abs(error) <= n * sigma).mean() for n in (1, 2)]
    np.testing.assert_allclose(inside, 1 - np.exp(-np.sqrt(2) * np.array([1, 2])), atol=0.015)


def test_no_source_can_make_a_pixel_look_sure():
    rng = np.random.default_rng(5)
    sources = np.column_stack([np.ones(5000), rng.normal(size=5000)])
    error = rng.normal(size=5000) * np.exp(-0.5 * sources[:, 1])
    assert learn_coefficients(sources, error)[1] == 0
    shipped = np.array(FrontalSettings().error_coefficients)
    assert len(shipped) == len(SOURCES) and (shipped[1:] >= 0).all()


def test_sources_grow_where_they_should():
    raw = np.full((64, 64, 3), 90, np.uint8)
    raw[:, 32:] = 160
    got = maps(raw)
    assert got.shape == (64, 64, len(SOURCES)) and np.isfinite(got).all()
    assert got[32, 32, AT("detail")] > got[32, 4, AT("detail")] + 2
    assert got[32, 60, AT("bright")] > got[32, 4, AT("bright")]
    for name in ("brows", "nose", "lids", "lips"):
        assert not got[..., AT(name)].any()
    noisy = maps(raw, noise=np.full((64, 64), 0.2, np.float32))
    assert (noisy[..., AT("noise")] > got[..., AT("noise")]).all()


def test_features_are_where_their_landmarks_are():
    landmarks = np.full((478, 2), np.nan)
    landmarks[[70, 63, 105, 66, 107]] = [(x, 100.0) for x in (80, 90, 100, 110, 120)]
    got = maps(np.full((512, 512, 3), 120, np.uint8), landmarks)[..., AT("brows")]
    assert got[100, 100] > 0.95 and got[130, 100] < 0.01
    assert got[100:106, 100].min() > 0.5


def test_detail_predicts_the_error_of_a_displaced_picture():
    rng = np.random.default_rng(1)
    texture = cv2.GaussianBlur(rng.normal(size=(128, 128)).astype(np.float32), (0, 0), 6)
    texture = 128 + 40 * texture / texture.std()
    raw = np.repeat(np.clip(texture, 0, 255).astype(np.uint8)[..., None], 3, 2)
    moved = cv2.warpAffine(raw, np.float32([[1, 0, 1], [0, 1, 0.0]]), (128, 128))
    error = np.abs(moved[..., 0].astype(float) - raw[..., 0])[8:-8, 8:-8]
    detail = maps(raw)[8:-8, 8:-8, AT("detail")]
    assert np.corrcoef(error.ravel(), detail.ravel())[0, 1] > 0.4


@given(
    sigma=st.floats(0, 100),
    more_sigma=st.floats(0.01, 50),
    pixels=st.floats(0, 50),
    more_pixels=st.floats(0.01, 50),
)
def test_determined_share_grows_with_pixels_and_falls_with_deviation(
    sigma, more_sigma, pixels, more_pixels
):
    share = determined_share(np.float64(sigma), np.float64(pixels))
    assert 0 <= share <= 1
    assert determined_share(np.float64(sigma), np.float64(pixels + more_pixels)) >= share
    assert determined_share(np.float64(sigma + more_sigma), np.float64(pixels)) <= share


def test_determined_share_at_its_ends():
    one = np.ones(())
    assert determined_share(0 * one, 0 * one) == 0
    assert determined_share(0 * one, 1e6 * one) == pytest.approx(1, abs=1e-6)
    half = determined_share(UNSEEN_DEVIATION * one, 1e6 * one)
    assert half == pytest.approx(0.5, abs=1e-6)
    assert determined_share(0 * one, FEW_PIXELS * one) == pytest.approx(0.5)
