"""The network's doubt of the fused view, counted in evidence and deviation."""

from dataclasses import replace

import numpy as np
from refinement_scenes import make_view

from recon3d.frontal.deviation import UNSEEN_DEVIATION, determined_share
from recon3d.licences import LedgerEntry
from recon3d.refinement.doubt import doubted_support, fused_deviation
from recon3d.refinement.refine import refine_frontal


def _seen(sigma: float = 8.0):
    """A view that takes its errors to be `sigma`, wholly observed."""
    view, truth = make_view()
    deviation = np.full(view.face_mask.shape, sigma, np.float32)
    share = determined_share(deviation, np.full_like(deviation, 1e6))
    evidence = view.evidence.copy()
    evidence[..., 0] = np.round(255 * share)
    return replace(view, sigma=deviation, evidence=evidence), truth


class _Network:
    kind = "test"

    def __init__(self, made, sigma):
        self.made, self.sigma = made, sigma

    @property
    def licence(self):
        return LedgerEntry("test", "refiner", "MIT", "")

    def __call__(self, view):
        return self.made, self.sigma


TOGETHER = (0.5 * np.log(3 / 2), 1.0, 0.0)
"""No regard for detail, and the sum of the variances halved."""


def test_three_opinions_of_one_error():
    view, _ = _seen(8.0)
    made = view.raw.astype(np.float32)
    agreed = fused_deviation(view, made, np.full_like(view.sigma, 8.0), TOGETHER)
    inside = view.face_mask > 0.99
    # Two that agree, and a network that would change nothing.
    np.testing.assert_allclose(agreed[inside], 8.0, rtol=1e-3)
    np.testing.assert_allclose(agreed[view.face_mask == 0], 8.0)
    changed = made.copy()
    changed[200:260, 200:260] += 30
    doubted = fused_deviation(view, changed, np.full_like(view.sigma, 8.0), TOGETHER)
    assert doubted[230, 230] > 20 and abs(doubted[400, 256] - 8) < 0.01
    # The reach is some pixels, so that an edge drawn beside its place counts on both its sides.
    assert doubted[230, 195] > 10


def test_detail_of_the_network_is_doubtful():
    view, truth = _seen()
    flat = np.full(view.sigma.shape, 8.0, np.float32)
    coefficients = (0.0, 0.7, 0.3)
    smooth = fused_deviation(view, view.raw.astype(np.float32), flat, coefficients)
    sharp = fused_deviation(view, truth.astype(np.float32), flat, coefficients)
    # About the eyes the drawing has edges that the blurred view has not.
    assert sharp[225, 184] > 1.1 * smooth[225, 184]


def test_support_follows_the_deviation():
    shape, pixels = (4, 5), np.full((4, 5), 0.3)
    before, after = np.full(shape, 6.0), np.full(shape, 20.0)
    red = np.round(255 * determined_share(before, pixels)).astype(np.uint8)
    wanted = 255 * determined_share(after, pixels)
    assert np.abs(doubted_support(red, before, after) - wanted).max() <= 1.0
    assert (doubted_support(red, before, before) == red).all()
    assert doubted_support(np.full(shape, 255, np.uint8), after, before).max() == 255
    assert UNSEEN_DEVIATION > 20


def test_what_the_network_would_redraw_loses_support():
    view, _ = _seen()
    made = view.raw.astype(np.float32)
    made[300:360, 220:300] += 40 * np.sign(np.sin(np.arange(80) / 3))[:, None]
    refined = refine_frontal(view, _Network(made, np.full_like(view.sigma, 6.0)))
    red, was = (v.evidence[..., 0].astype(int) for v in (refined, view))
    assert red[330, 260] < was[330, 260] - 60
    # What it leaves alone in a smooth place stands about as it was.
    assert abs(red[150, 256] - was[150, 256]) < 60 < was[330, 260] - red[330, 260]
    assert (red[view.face_mask == 0] == was[view.face_mask == 0]).all()
    assert refined.sigma[330, 260] > 15 and (view.sigma == 8).all()


def test_a_network_that_does_not_say_how_sure_it_is_has_no_part():
    view, truth = _seen()
    refined = refine_frontal(view, _Network(truth.astype(np.float32), None))
    assert (refined.evidence[..., 0] == view.evidence[..., 0]).all()
    assert refined.sigma is view.sigma
    # Nor has one that meets a view without a deviation of its own.
    bare = replace(view, sigma=None)
    refined = refine_frontal(bare, _Network(truth.astype(np.float32), np.ones_like(view.sigma)))
    assert refined.sigma is None and (refined.evidence[..., 0] == view.evidence[..., 0]).all()
