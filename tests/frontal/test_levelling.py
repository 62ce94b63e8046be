"""The portrait is levelled by what a landmarker sees in it."""

import numpy as np
import pytest
import skimage.data

from recon3d.frontal.camera import EYES, frontal_camera, landmark_points, with_eyes_in_place
from recon3d.frontal.levelling import MAX_TURN, apparent_yaw, level_turn, look_at
from recon3d.geometry import head_rotation, project
from recon3d.morphable import load_model
from recon3d.tracking import MIRROR, TrackingSettings, load_landmarker
from recon3d.tracking.landmarks import CropLandmarks


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
        one = look_at(landmarker, picture)
        two = look_at(landmarker, np.ascontiguousarray(picture[:, ::-1]))
    finally:
        landmarker.close()
    assert one.yaw == pytest.approx(-two.yaw, abs=0.05)
    # the right eye of the one is the left eye of the other, as far from the other border
    np.testing.assert_allclose(one.eyes[:, 0], 256 - two.eyes[::-1, 0], atol=0.1)
    np.testing.assert_allclose(one.eyes[:, 1], two.eyes[::-1, 1], atol=0.1)
    assert one.eyes[0, 0] < one.eyes[1, 0]


def test_no_face_means_no_turn():
    assert level_turn(lambda turn: np.zeros((256, 256, 3), np.uint8)) == (0.0, None, None)


def test_the_turn_is_bounded():
    """A portrait that always looks turned is left within the bound."""
    picture = np.ascontiguousarray(skimage.data.astronaut()[0:256, 96:352])
    turn, seen, eyes = level_turn(lambda turn: picture)
    assert seen is not None and abs(turn) <= MAX_TURN
    assert eyes.shape == (2, 2)


def test_eyes_seen_elsewhere_come_to_their_place():
    model = load_model("recon3d")
    camera = frontal_camera(model, model.mean, turn=3.0)
    # points of the head that the landmarker takes for its eyes: too high, too far apart, askew
    seen = EYES + [[-6.0, -9.0], [4.0, -5.0]]
    rays = np.c_[(seen - camera.K[:2, 2]) / camera.K[0, 0], np.ones(2)] * camera.t[2]
    points = (rays - camera.t) @ camera.R
    placed = with_eyes_in_place(camera, seen)
    np.testing.assert_allclose(project(points, placed.K, placed.R, placed.t), EYES, atol=1e-6)
    np.testing.assert_allclose(placed.R @ placed.R.T, np.eye(3), atol=1e-12)


@pytest.mark.parametrize("wrong", [[[-30.0, 0], [30.0, 0]], [[50.0, 0], [50.0, 0]]])
def test_what_cannot_be_the_eyes_is_not_believed(wrong):
    model = load_model("recon3d")
    camera = frontal_camera(model, model.mean)
    assert with_eyes_in_place(camera, EYES + wrong) is camera


@pytest.mark.parametrize(("beside", "believed"), [(5.0, True), (40.0, False)])
def test_eyes_that_the_mirror_image_has_elsewhere_are_made_up(beside, believed):
    model = load_model("recon3d")
    camera = frontal_camera(model, model.mean)
    points = landmark_points(model, model.mean)
    seen = project(points, camera.K, camera.R, camera.t)
    depth = points[:, 2]
    mirrored = (seen * [-1, 1] + [512 + beside, 0])[MIRROR]
    answers = [
        CropLandmarks(p, d, np.ones(len(p), bool))
        for p, d in ((seen, depth), (mirrored, depth[MIRROR]))
    ]
    sight = look_at(lambda pictures: answers, np.zeros((512, 512, 3), np.uint8))
    assert (sight.eyes is not None) == believed
    if believed:
        np.testing.assert_allclose(sight.eyes, EYES - [beside / 2, 0], atol=1.5)
