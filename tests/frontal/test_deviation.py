"""Predicted deviation: coefficients are recovered, and doubt is where errors are."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon3d.frontal.deviation import (
    CONFIRMED_PIXELS,
    FEW_PIXELS,
    PLACE_SIDE,
    PLACE_STEP,
    SOURCES,
    UNSEEN_DEVIATION,
    confirmed_share,
    determined_share,
    error_sources,
    learn_coefficients,
    learn_place,
    place_prior,
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


def test_coarse_detail_reaches_further_than_fine_detail():
    raw = np.full((256, 256, 3), 90, np.uint8)
    raw[:, 128:] = 160
    got = maps(raw)
    fine, coarse = (got[128, :, AT(name)] - got[128, 4, AT(name)] for name in ("detail", "coarse"))
    assert fine[128] > 2 and coarse[128] > 2
    assert fine[142] < 0.2 < coarse[142]
    rng = np.random.default_rng(2)
    grain = np.clip(rng.normal(90, 8, (256, 256, 1)), 0, 255).astype(np.uint8).repeat(3, 2)
    grainy = maps(grain)
    added = [(grainy - got)[128, 4, AT(name)] for name in ("detail", "coarse")]
    assert added[0] > added[1] + 0.3


def test_place_prior_of_simulated_errors_is_found():
    rng = np.random.default_rng(4)
    at = rng.uniform(size=(400000, 2))
    true = 0.8 * np.exp(-0.5 * (np.abs(at[:, 0] - 0.5) - 0.14) ** 2 / 0.03**2)
    true *= np.exp(-0.5 * (at[:, 1] - 0.44) ** 2 / 0.03**2)
    # Skin on the one side only: the other learns from it.
    right = at[:, 0] < 0.5
    size = rng.exponential(size=len(at)) * np.exp(true)
    got = learn_place(size[right], at[right])
    assert got.shape == (PLACE_SIDE, PLACE_SIDE) and got.dtype == np.uint8
    np.testing.assert_array_equal(got, got[:, ::-1])
    row, column = int(0.44 * PLACE_SIDE), int(0.36 * PLACE_SIDE)
    assert got[row, column] * PLACE_STEP == pytest.approx(0.75, abs=0.15)
    assert got[row, PLACE_SIDE // 2] * PLACE_STEP < 0.2


def test_place_prior_says_nothing_where_nobody_was():
    rng = np.random.default_rng(4)
    at = rng.uniform(0.3, 0.7, size=(50000, 2))
    got = learn_place(rng.exponential(size=len(at)), at) * PLACE_STEP
    inside = got[24:40, 24:40]
    assert abs(got[2, 2] - inside.mean()) < 0.1


@pytest.mark.parametrize("shape", [(512, 512), (256, 256), (64, 64)])
def test_shipped_place_prior_is_symmetric_and_sees_eyes_and_chin(shape):
    place = place_prior(shape)
    assert place.shape == shape and place.dtype == np.float32
    assert place.min() >= 0 and place.max() < 2.56
    np.testing.assert_allclose(place, place[:, ::-1], atol=1e-5)

    def at(x, y):
        return place[int(y * shape[0]), int(x * shape[1])]

    # Brows and lips have sources of their own.
    cheek = at(0.29, 0.63)
    for x, y in ((0.36, 0.41), (0.64, 0.41), (0.5, 0.86)):
        assert at(x, y) > cheek + 0.2
    with pytest.raises(ValueError):
        place[0, 0] = 1


def test_a_missing_place_prior_is_named(tmp_path, monkeypatch):
    from recon3d.errors import InputError

    (tmp_path / "deviation").mkdir()
    (tmp_path / "deviation" / "place.png").write_bytes(b"no picture")
    monkeypatch.setenv("RECON3D_ASSETS", str(tmp_path))
    place_prior.cache_clear()
    with pytest.raises(InputError, match=r"place\.png"):
        place_prior((32, 32))
    monkeypatch.undo()
    place_prior.cache_clear()
    assert place_prior((32, 32)).shape == (32, 32)


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


def test_the_network_waits_for_more_pixels_than_evidence_does():
    pixels = np.geomspace(1e-5, 1e3, 50)
    waited = determined_share(0 * pixels, pixels) * confirmed_share(pixels)
    assert np.allclose(waited, pixels / (pixels + CONFIRMED_PIXELS), rtol=1e-5)
    assert confirmed_share(np.zeros(())) == pytest.approx(FEW_PIXELS / CONFIRMED_PIXELS)


def test_determined_share_at_its_ends():
    one = np.ones(())
    assert determined_share(0 * one, 0 * one) == 0
    assert determined_share(0 * one, 1e6 * one) == pytest.approx(1, abs=1e-6)
    half = determined_share(UNSEEN_DEVIATION * one, 1e6 * one)
    assert half == pytest.approx(0.5, abs=1e-6)
    assert determined_share(0 * one, FEW_PIXELS * one) == pytest.approx(0.5)
