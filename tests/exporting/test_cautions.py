"""Sentences about a result, on reconstructions whose weakness is known."""

from dataclasses import replace

import numpy as np
import pytest

from recon3d.exporting import cautions, track_metrics
from recon3d.exporting.cautions import turn_from_camera
from recon3d.geometry.rotation import head_rotation


def with_yaws(reconstruction, yaw, face_px=90.0):
    n = len(yaw)
    fit = reconstruction.fit
    rows = np.arange(n) % len(fit.R)
    fit = replace(
        fit,
        R=head_rotation(np.asarray(yaw, float), np.zeros(n), np.zeros(n)),
        t=np.tile([0.0, 0.0, 600.0], (n, 1)),
        K=fit.K[rows],
        expression=fit.expression[rows],
        residuals=fit.residuals[rows],
        weights=fit.weights[rows],
        view_weight=np.ones(n),
    )
    track = reconstruction.track
    track = replace(
        track,
        views=tuple(track.views[r] for r in rows),
        face_px=np.full(len(track.face_px), face_px, np.float32),
    )
    frontal = replace(reconstruction.frontal, generated_share=0.1)
    return replace(reconstruction, fit=fit, track=track, frontal=frontal, metrics={})


def test_nothing_is_said_of_a_good_clip(reconstruction):
    good = with_yaws(reconstruction, [-30, -10, 0, 20, 40])
    assert cautions(good, {}) == []
    assert track_metrics(good)["cautions"] == []


@pytest.mark.parametrize(
    ("yaw", "face_px", "said"),
    [
        ([46, 55, 60], 90, "turned by 46 degrees"),
        ([5], 90, "One view only"),
        ([0, 2, 5], 90, "nearly one direction .views differ by 5"),
        ([-30, 0, 30], 28, "28 px wide"),
    ],
)
def test_what_stands_out_is_said(reconstruction, yaw, face_px, said):
    import re

    found = cautions(with_yaws(reconstruction, yaw, face_px), {})
    assert len(found) == 1
    assert re.search(said, found[0])


def test_guesses_and_strangers(reconstruction):
    made = with_yaws(reconstruction, [-30, 0, 30])
    made = replace(made, frontal=replace(made.frontal, generated_share=0.62))
    found = cautions(made, {"identity_consistency": {"to_best_frames_median": 0.71}})
    assert [s.split()[0] for s in found] == ["62", "To"]


def test_turn_is_measured_against_the_line_of_sight():
    """A face beside the optical axis that looks at the camera is not turned."""
    angle = 30.0
    R = head_rotation(np.array([0.0, angle]), np.zeros(2), np.zeros(2))
    towards = np.array([np.sin(np.radians(angle)), 0, -np.cos(np.radians(angle))])
    sign = np.sign(R[1, 0, 2]) or 1
    t = np.array([[0, 0, 600.0], -600 * towards * [sign, 1, 1]])
    assert np.allclose(turn_from_camera(R, t), 0, atol=1e-3)
