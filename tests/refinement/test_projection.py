import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refinement_scenes import make_view

from recon3d.refinement.projection import (
    Reduction,
    added_share,
    binding,
    observed_residual,
    project_on_evidence,
)


def test_an_unchanged_picture_stays():
    view, _ = make_view(1)
    out = project_on_evidence(view.raw.astype(np.float32), view.raw, view.evidence)
    np.testing.assert_allclose(out, view.raw, atol=1e-3)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1000), resolution=st.floats(0.06, 0.6), size=st.floats(2, 60))
def test_what_was_observed_is_observed_again(seed, resolution, size):
    view, _ = make_view(seed, resolution=resolution)
    rng = np.random.default_rng(seed)
    change = cv2.GaussianBlur(rng.normal(0, 1, (512, 512, 3)).astype(np.float32), (0, 0), size)
    change *= 25 / change.std()
    out = project_on_evidence(view.raw + change, view.raw, view.evidence)
    assert observed_residual(out, view.raw, view.evidence) <= 2.0


def test_detail_beyond_the_observation_is_kept():
    view, truth = make_view(3, blur=3.0, resolution=0.15)
    out = project_on_evidence(truth.astype(np.float32), view.raw, view.evidence)
    strong = view.evidence[..., 0] > 204
    before = np.abs(view.raw[strong].astype(float) - truth[strong]).mean()
    after = np.abs(out[strong] - truth[strong]).mean()
    assert after < 0.75 * before


def test_pixels_without_support_are_free():
    view, _ = make_view(4)
    changed = np.clip(view.raw.astype(np.float32) + 30, 0, 255)
    out = project_on_evidence(changed, view.raw, view.evidence)
    free = cv2.erode((view.evidence[..., 0] == 0).astype(np.uint8), np.ones((9, 9))) > 0
    np.testing.assert_allclose(out[free], changed[free], atol=1e-3)
    assert binding(view.evidence)[free].max() == 0


def test_mirrored_pixels_are_not_held_to_a_guess():
    view, _ = make_view(5)
    evidence = view.evidence.copy()
    evidence[..., 2] = 255
    assert binding(evidence).max() == 0


def test_no_supported_pixel_has_no_residual():
    view, _ = make_view(6, support=0.2)
    assert observed_residual(view.raw, view.raw, view.evidence) is None


def test_reduction_keeps_constants_and_blurs_more_where_resolution_is_low():
    evidence = np.zeros((64, 64, 3), np.uint8)
    evidence[:, :32, 1], evidence[:, 32:, 1] = 255, 20
    reduce = Reduction(evidence)
    flat = np.full((64, 64, 3), 7, np.float32)
    np.testing.assert_allclose(reduce(flat), flat, rtol=1e-5)
    noise = np.random.default_rng(0).normal(0, 1, (64, 64, 3)).astype(np.float32)
    out = reduce(noise)
    assert out[:, 48:].std() < 0.5 * out[:, :16].std()


def test_added_share_is_nothing_for_nothing():
    view, truth = make_view(7)
    assert added_share(view.raw, view.raw).max() == 0
    share = added_share(truth, view.raw)
    assert share.min() >= 0 and share.max() < 1
    # Most is added where the drawing is sharp: at the eyes.
    assert share[215:235, 170:200].mean() > share[330:350, 245:265].mean()


@pytest.mark.parametrize("value", [0, 255])
def test_the_result_is_a_picture(value):
    view, _ = make_view(8)
    out = project_on_evidence(np.full((512, 512, 3), value, np.float32), view.raw, view.evidence)
    assert out.min() >= 0 and out.max() <= 255


def test_no_more_is_taken_back_than_the_bound_asks_for():
    view, _ = make_view(8, resolution=0.15)
    rng = np.random.default_rng(8)
    change = cv2.GaussianBlur(rng.normal(0, 1, (512, 512, 3)).astype(np.float32), (0, 0), 12)
    small = view.raw + change / change.std()
    np.testing.assert_allclose(
        project_on_evidence(small, view.raw, view.evidence, 1.5), np.clip(small, 0, 255), atol=1e-3
    )
    large = project_on_evidence(view.raw + 6 * change / change.std(), view.raw, view.evidence, 1.5)
    assert 0.8 < observed_residual(large, view.raw, view.evidence) <= 1.5
