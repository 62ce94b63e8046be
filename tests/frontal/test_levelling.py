"""The portrait is levelled by what a landmarker sees in it."""

import numpy as np
import pytest
import skimage.data

from recon3d.frontal.camera import landmark_points
from recon3d.frontal.levelling import MAX_TURN, apparent_yaw, level_turn, picture_yaw
from recon3d.geometry import head_rotation
from recon3d.morphable import load_model
from recon3d.tracking import TrackingSettings, load_landmarker


@pytest.mark.parametrize("yaw", [-12.0, -3.0, 0.0, 5.0])
def test_apparent_yaw_of_known_turns(yaw):
    model = load_model("recon3d")
    points = landmark_points(model, model.mean) @ head_rotation(yaw, 6.0, 0.0).T
    # The order of MediaPipe's points leaves a fraction of a degree from pairs that are not twins.
    assert apparent_yaw(points[:, :2], points[:, 2]) == pytest.approx(yaw, abs=0.7)


def test_a_picture_and_its_mirror_image_are_opposite():
    picture = np.ascontiguousarray(skimage.data.astronaut()[0:256, 96:352])
    landmarker = load_landmarker(TrackingSettings())
    try:
        one = picture_yaw(landmarker, picture)
        two = picture_yaw(landmarker, np.ascontiguousarray(picture[:, ::-1]))
    finally:
        landmarker.close()
    assert one == pytest.approx(-two, abs=0.05)


def test_no_face_means_no_turn():
    assert level_turn(lambda turn: np.zeros((256, 256, 3), np.uint8)) == (0.0, None)


def test_the_turn_is_bounded():
    """A portrait that always looks turned is left within the bound."""
    picture = np.ascontiguousarray(skimage.data.astronaut()[0:256, 96:352])
    turn, seen = level_turn(lambda turn: picture)
    assert seen is not None and abs(turn) <= MAX_TURN
