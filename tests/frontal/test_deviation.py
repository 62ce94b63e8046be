"""Predicted deviation: coefficients are recovered, and edges are where errors of place are."""

import cv2
import numpy as np

from recon3d.frontal.deviation import (
    SOURCES,
    error_sources,
    learn_coefficients,
    predicted_deviation,
)


def test_coefficients_of_simulated_errors_are_found_and_calibrated():
    rng = np.random.default_rng(3)
    sources = rng.gamma(0.7, 2.0, (20000, 4))
    true = np.array([0.5, 2.0, 0.0, 0.1])
    error = rng.normal(size=20000) * np.sqrt(sources**2 @ true)
    found = learn_coefficients(sources, error)
    np.testing.assert_allclose(found, true, atol=0.05, rtol=0.12)
    sigma = predicted_deviation(sources, tuple(found))
    inside = [(np.abs(error) <= n * sigma).mean() for n in (1, 2)]
    np.testing.assert_allclose(inside, [0.683, 0.954], atol=0.015)


def test_sources_grow_where_they_should():
    raw = np.full((64, 64, 3), 90, np.uint8)
    raw[:, 32:] = 160
    flat = np.ones((64, 64), np.float32)
    known = dict(noise=0.05 * flat, generated=0 * flat, facing=flat, plain=flat)
    sharp = error_sources(raw, resolution=flat, **known)
    coarse = error_sources(raw, resolution=0.25 * flat, **known)
    assert sharp.shape == (64, 64, len(SOURCES)) and np.isfinite(sharp).all()
    at = SOURCES.index
    for name in ("shift", "lost"):
        assert sharp[32, 32, at(name)] > 10 * sharp[32, 4, at(name)]
    assert np.allclose(coarse[32, 32, at("lost")], 4 * sharp[32, 32, at("lost")])
    for name in ("oblique", "moving", "filled"):
        assert not sharp[..., at(name)].any()


def test_shift_predicts_the_error_of_a_displaced_picture():
    rng = np.random.default_rng(1)
    texture = cv2.GaussianBlur(rng.normal(size=(128, 128)).astype(np.float32), (0, 0), 6)
    texture = 128 + 40 * texture / texture.std()
    raw = np.repeat(np.clip(texture, 0, 255).astype(np.uint8)[..., None], 3, 2)
    moved = cv2.warpAffine(raw, np.float32([[1, 0, 1], [0, 1, 0.0]]), (128, 128))
    error = np.abs(moved[..., 0].astype(float) - raw[..., 0])[8:-8, 8:-8]
    flat = np.ones((128, 128), np.float32)
    known = dict(noise=flat, generated=flat, facing=flat, plain=flat)
    shift = error_sources(raw, resolution=flat, **known)[8:-8, 8:-8, SOURCES.index("shift")]
    assert np.corrcoef(error.ravel(), shift.ravel())[0, 1] > 0.4
