"""dlib's network in torch: the same answers, and gradients that point at the person."""

import numpy as np
import pytest
import torch

from recon3d.errors import ModelError, ShapeError
from recon3d.recognition import EMBEDDERS
from recon3d.recognition.differentiable import (
    CHIP,
    DlibNetwork,
    chip_from_picture,
    cut_chips,
)
from recon3d.recognition.embedders import DlibEmbedder

if EMBEDDERS["dlib"].detect():
    pytest.skip("dlib or its weights are not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def network():
    return DlibNetwork()


@pytest.fixture(scope="module")
def face():
    """A picture and rough places of dlib's five points in it."""
    image = pytest.importorskip("skimage.data").astronaut()
    points = np.zeros((478, 2))
    points[list(DlibEmbedder.POINTS)] = [(255, 104), (238, 105), (195, 101), (212, 103), (224, 135)]
    return image, points


def test_describes_a_chip_as_dlib_does(network, face):
    import dlib

    image, points = face
    shape = dlib.full_object_detection(
        dlib.rectangle(170, 70, 277, 177),
        dlib.points([dlib.point(*map(int, points[k])) for k in DlibEmbedder.POINTS]),
    )
    chip = dlib.get_face_chip(image, shape, CHIP, 0.25)
    own = dlib.face_recognition_model_v1(str(DlibEmbedder.weights_path()))
    expected = np.array(own.compute_face_descriptor(chip))
    found = network.describe(torch.from_numpy(chip).permute(2, 0, 1)[None].float())[-1][0]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    # dlib's points are pixels, ours are places: half a pixel apart.
    picture = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    to_chip = torch.from_numpy(chip_from_picture(points + 0.5))[None]
    cut = cut_chips(picture, to_chip)[0].permute(1, 2, 0).numpy()
    # dlib smooths before it shrinks; edges differ, nothing is displaced.
    assert np.abs(cut - chip).mean() < 6
    whole = network(picture, to_chip)[-1][0].numpy()
    assert np.linalg.norm(whole - expected) < 0.15


def test_a_chip_is_cut_where_the_points_say(face):
    _, points = face
    matrix = chip_from_picture(points)
    at = points[list(DlibEmbedder.POINTS)] @ matrix[:, :2].T + matrix[:, 2]
    # The outer corners of the eyes are level, as far apart as dlib has them, the nose below.
    assert np.abs(at[0] - [111.0, 46.9]).max() < 5 and np.abs(at[2] - [37.1, 46.9]).max() < 5
    assert at[4, 1] > at[:4, 1].max() + 25
    ramp = torch.arange(512.0).expand(1, 3, 512, 512)
    cut = cut_chips(ramp, torch.from_numpy(matrix)[None])[0, 0]
    middle = np.linalg.solve(matrix[:, :2], np.array([75.5, 75.5]) - matrix[:, 2])
    assert float(cut[75, 75]) == pytest.approx(middle[0] - 0.5, abs=1e-3)


def test_gradients_bring_a_picture_nearer_to_the_person(network, face):
    image, points = face
    truth = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    to_chip = torch.from_numpy(chip_from_picture(points + 0.5))[None]
    goal = network(truth, to_chip)[-1]
    small = torch.nn.functional.avg_pool2d(truth, 8)
    picture = torch.nn.functional.interpolate(small, scale_factor=8.0, mode="bilinear")
    picture.requires_grad_()
    distance = (network(picture, to_chip)[-1] - goal).norm()
    distance.backward()
    step = picture.grad / picture.grad.abs().max()
    with torch.no_grad():
        nearer = (network(picture - 4 * step, to_chip)[-1] - goal).norm()
    assert nearer < 0.97 * distance
    assert all(p.grad is None for p in network.parameters())


def test_only_that_network_is_read(network, tmp_path):
    for content in (b"", b"\x01\x01\x01\rloss_metric_2 and nothing else", b"PK" * 100):
        (tmp_path / "x.dat").write_bytes(content)
        with pytest.raises(ModelError, match="not dlib"):
            DlibNetwork(tmp_path / "x.dat")
    with pytest.raises(ModelError, match="No such file"):
        DlibNetwork(tmp_path / "none.dat")
    with pytest.raises(ShapeError):
        network.describe(torch.zeros(1, 3, 100, 100))
