"""The landmark correction: its windows, what it does with a network's answer, its file."""

import cv2
import numpy as np
import pytest
import torch

from recon3d.errors import ModelError
from recon3d.scenes.truth import portrait_landmarks
from recon3d.tracking import TrackingSettings
from recon3d.tracking.correction import (
    POINTS,
    RADIUS,
    WINDOW,
    CorrectionNetwork,
    Corrector,
    cut_window,
    load_corrector,
    mirrored,
    read_corrector,
    save_corrector,
    window_place,
)


class Says(torch.nn.Module):
    """A network that moves all points alike."""

    def __init__(self, x, y):
        super().__init__()
        self.move = torch.tensor([x, y])

    def forward(self, images, points):
        return self.move.expand(len(images), POINTS, 2)


@pytest.fixture(scope="module")
def mesh(astronaut):
    """Landmarks of a frontal face (478, 2), upright, about its middle, px."""
    points = portrait_landmarks(astronaut)[:, :2]
    points = points - points[:POINTS].mean(0)
    return placed(points, np.ptp(points[:POINTS, 0]), 0.0, -window_place(points).roll)


def placed(mesh, width, middle, roll=0.0):
    angle = np.radians(roll)
    # counter-clockwise in a picture whose y points down
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return mesh * width / np.ptp(mesh[:POINTS, 0]) @ turn.T + middle


@pytest.mark.parametrize("width", (25.0, 60.0, 130.0))
@pytest.mark.parametrize("roll", (0.0, 20.0))
def test_a_window_shows_what_lies_under_its_points(mesh, width, roll):
    points = placed(mesh, width, (151.3, 148.6), roll)
    # a spot under the tip of the nose
    y, x = np.mgrid[:300, :300] + 0.5
    spot = np.exp(-((x - points[4, 0]) ** 2 + (y - points[4, 1]) ** 2) / (0.03 * width) ** 2 / 2)
    window = cut_window(np.repeat(255 * spot[..., None], 3, 2).astype(np.uint8), points)
    light = window.image[..., 0].astype(float)
    y, x = np.mgrid[:WINDOW, :WINDOW] + 0.5
    seen = np.array([(x * light).sum(), (y * light).sum()]) / light.sum()
    assert np.abs(seen - window.points[4]).max() < 0.15
    spread = np.sqrt(((window.points - WINDOW / 2) ** 2).sum(1).mean())
    assert np.isclose(spread, RADIUS, rtol=1e-5)
    eyes = window.points[[33, 263]]
    assert abs(eyes[1, 1] - eyes[0, 1]) < 0.02 * (eyes[1, 0] - eyes[0, 0])
    assert np.isclose(
        window_place(points).roll - window_place(placed(mesh, width, (0, 0))).roll, roll
    )


def test_moves_are_the_pictures_and_irises_go_with_their_eyes(mesh):
    image = np.zeros((300, 300, 3), np.uint8)
    points = placed(mesh, 50, (150, 150), 90)
    (found,) = Corrector(Says(0.0, 8.0))([image], [points])
    zoom = window_place(points).size / RADIUS
    # down in the window is to the right in a picture of a head that lies on its right ear
    right, down = (found - points).T
    assert np.ptp(right) < 1e-6 and np.abs(down).max() < 0.02 * right[0]
    assert 0.95 * 8 * zoom < right[0] < 8 * zoom


def test_slight_corrections_are_hardly_made(mesh):
    image = np.zeros((300, 300, 3), np.uint8)
    points = placed(mesh, 50, (150, 150))
    zoom = window_place(points).size / RADIUS
    made = [
        (Corrector(Says(0.0, y))([image], [points])[0] - points)[0, 1] / (y * zoom)
        for y in (0.2, 0.8, 3.0)
    ]
    assert made[0] < 0.2 < made[1] < 0.7 < 0.85 < made[2] < 1


def test_what_a_mirror_image_contradicts_is_not_done(mesh):
    image = np.zeros((300, 300, 3), np.uint8)
    points = placed(mesh, 50, (150, 150))
    (found,) = Corrector(Says(3.0, 0.0))([image], [points])
    assert np.allclose(found, points, atol=1e-6)


def test_large_faces_are_left_alone(mesh):
    image = np.zeros((600, 600, 3), np.uint8)
    corrector = Corrector(Says(0.0, 2.0))
    moved = []
    for width in (60, 100, 200):
        points = placed(mesh, width, (300, 300))
        moved.append(np.abs(corrector([image], [points])[0] - points).max() / width)
    assert moved[0] > moved[1] > moved[2] == 0


def test_a_mirror_image_of_a_mirror_image(mesh):
    points = torch.from_numpy(placed(mesh, 40, (32, 32))[None, :POINTS].astype(np.float32))
    twice = mirrored(mirrored(points))
    assert torch.allclose(twice, points)
    # a face is about its own mirror image
    assert (mirrored(points) - points).norm(dim=-1).mean() < 2


def test_a_file_gives_the_network_back(tmp_path):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    network = CorrectionNetwork((8, 8), rng.normal(size=(5, 2 * POINTS)), np.ones(5), 16).eval()
    save_corrector(tmp_path / "net.safetensors", network, {"licence": "MIT", "name": "mine"})
    read = read_corrector(tmp_path / "net.safetensors")
    images, points = torch.rand(2, 3, WINDOW, WINDOW) * 255, torch.rand(2, POINTS, 2) * WINDOW
    with torch.inference_mode():
        a, b = network(images, points), read.network(images, points)
    assert torch.allclose(a, b, atol=0.02 * float(a.abs().max()))
    entry = read.describe()
    assert (entry.name, entry.kind, entry.licence) == ("mine", "landmarks", "MIT")


def test_bad_files_are_refused_in_one_line(tmp_path):
    with pytest.raises(ModelError, match="no such landmark correction"):
        read_corrector(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match="cannot be read as safetensors"):
        read_corrector(tmp_path / "bad.safetensors")
    from safetensors.numpy import save_file

    save_file({"modes": np.eye(2, 4, dtype=np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="holds no landmark correction"):
        read_corrector(tmp_path / "other.safetensors")
    save_file(
        {"modes": np.eye(2, 4, dtype=np.float32)},
        tmp_path / "half.safetensors",
        {"format": "recon3d-landmarks-1", "shape": '{"widths": [8], "hidden": 4}'},
    )
    with pytest.raises(ModelError, match="do not fit their own description"):
        read_corrector(tmp_path / "half.safetensors")


def test_settings_choose(tmp_path):
    assert load_corrector(TrackingSettings(correct=False)) is None
    assert load_corrector(TrackingSettings()).describe().permissive
    with pytest.raises(ModelError):
        load_corrector(TrackingSettings(corrector=str(tmp_path / "none.safetensors")))


def test_the_shipped_correction_brings_meshes_of_small_faces_nearer(astronaut):
    """A photo reduced to faces of 24 to 40 px, out of focus, against the photo itself."""
    from recon3d.tracking import track_faces
    from recon3d.types import Frame

    truth = portrait_landmarks(astronaut)[:, :2]
    width = np.ptp(truth[:POINTS, 0])
    errors = {False: [], True: []}
    for px in (24, 30, 36):
        zoom = px / width
        small = cv2.resize(astronaut, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
        small = cv2.GaussianBlur(small, (0, 0), 0.04 * px)
        small = cv2.copyMakeBorder(small, 60, 60, 60, 60, cv2.BORDER_REFLECT)
        real = truth * (np.array(small.shape[1::-1]) - 120) / astronaut.shape[1::-1] + 60
        for correct, found in errors.items():
            tracks = track_faces([Frame(small, 0, 0.0)], TrackingSettings(correct=correct)).tracks
            seen = tracks[0].views[0].landmarks
            found.append(np.linalg.norm(seen - real, axis=1)[:POINTS].mean() / px)
    print(errors)
    assert np.mean(errors[True]) < 0.9 * np.mean(errors[False])
