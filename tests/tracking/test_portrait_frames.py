"""Which frames would do as a portrait, on landmarks whose eyes are set by hand."""

import numpy as np
import pytest

from recon3d.errors import ShapeError
from recon3d.tracking import best_portraits, eyes_open, portrait_worth
from recon3d.types import FaceObservation, ImagePatch


def meshes(gaps) -> np.ndarray:
    """(N, 478, 2): eyes 30 px wide whose lids are the given (right, left) px apart."""
    points = np.zeros((len(gaps), 478, 2))
    for n, gap in enumerate(gaps):
        for (outer, inner, upper, lower), x, g in zip(
            ((33, 133, 159, 145), (362, 263, 386, 374)), (0.0, 60.0), np.broadcast_to(gap, 2)
        ):
            points[n, outer], points[n, inner] = (x, 50), (x + 30, 50)
            points[n, upper], points[n, lower] = (x + 15, 50 - g / 2), (x + 15, 50 + g / 2)
    return points


def view(landmarks, number=0, yaw=0.0, quality=0.8, pixels=True) -> FaceObservation:
    patch = ImagePatch(np.zeros((4, 4, 3), np.uint8), (0, 0)) if pixels else None
    box = np.array([0, 0, 90, 90.0])
    none = np.zeros((478, 2, 2))
    angles = {"yaw": yaw, "pitch": 0.0, "roll": 0.0}
    return FaceObservation(
        number, 0, 0.0, (90, 90), box, landmarks, none, np.zeros(478),
        quality=quality, patch=patch, **angles,
    )  # fmt: skip


def test_closed_eyes_are_told_by_what_is_usual_for_the_person():
    narrow = eyes_open(meshes([5, 5, 5, 1.5]))
    np.testing.assert_allclose(narrow[:3], 1)
    assert narrow[3] == pytest.approx(0.1)
    # Half-closed lies between; a wink is not open, whichever eye it is.
    half, right, left = eyes_open(meshes([10, 10, 10, 5.2, (1, 10), (10, 1)]))[3:]
    assert 0.1 < half < 1 and right == left == pytest.approx(0.1)


def test_scale_and_roll_do_not_matter():
    plain = meshes([9, 6, 1])
    turned = 3 * plain @ np.array([[0.8, -0.6], [0.6, 0.8]]) + 100
    np.testing.assert_allclose(eyes_open(turned), eyes_open(plain))


def test_one_frame_has_nothing_to_be_compared_with():
    assert eyes_open(meshes([1])) == 1
    assert eyes_open(np.zeros((0, 478, 2))).shape == (0,)
    with pytest.raises(ShapeError):
        eyes_open(np.zeros((2, 68, 2)))


def test_worth_falls_with_turn_either_way_and_rises_with_quality():
    worth = portrait_worth(
        np.ones(5), [0, 20, -20, 0, 0], [0, 0, 0, 20, 0], [0.8, 0.8, 0.8, 0.8, 0.4]
    )
    assert worth[0] > worth[3] > worth[1] == worth[2] and worth[4] == worth[0] / 2


def test_best_portraits_prefers_open_eyes_to_sharp_ones():
    closed, opened = meshes([1, 10])
    views = [
        view(closed, quality=0.9),
        view(opened, quality=0.7),
        view(opened, yaw=40.0),
        view(opened, quality=1.0, pixels=False),
    ]
    assert best_portraits(views, 2) == [1, 0]
    assert best_portraits(views, 9) == [1, 0, 2]
    assert best_portraits([], 3) == []
