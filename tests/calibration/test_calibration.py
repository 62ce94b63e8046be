"""Learning what the landmarker gets wrong: lessons, their disturbance, training."""

import numpy as np
import pytest
import torch

from recon3d.calibration import CalibrationSettings, Lessons, make_lessons, read_lessons, train
from recon3d.calibration.lessons import OUTER
from recon3d.calibration.training import disturbed, error_modes, measure
from recon3d.errors import InputError
from recon3d.tracking.correction import POINTS, WINDOW, read_corrector


def painted(count: int, seed: int = 0, spread: float = 3.0) -> Lessons:
    """Windows whose truth is plain to see: a bright disc where the face is, the mesh beside it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:OUTER, :OUTER] + 0.5
    mesh = rng.uniform(-14, 14, (POINTS, 2))
    move = rng.normal(0, spread, (count, 1, 2))
    middle = OUTER / 2 + move[:, 0]
    disc = ((x - middle[:, :1, None]) ** 2 + (y - middle[:, 1:, None]) ** 2) < 14**2
    images = np.repeat((60 + 120 * disc)[..., None], 3, 3).astype(np.uint8)
    points = np.broadcast_to(OUTER / 2 + mesh, (count, POINTS, 2))
    moves = np.broadcast_to(move, (count, POINTS, 2))
    return Lessons(
        images, points.astype(np.float32), moves.astype(np.float32), np.arange(count) // 4
    )


def test_windows_and_points_are_disturbed_alike():
    lessons = painted(24, spread=2.0)
    nose = 4  # on the midline: its own partner in a mirror
    y, x = np.mgrid[:OUTER, :OUTER] + 0.5
    at = (lessons.points + lessons.moves)[:, nose]
    light = np.exp(-((x - at[:, :1, None]) ** 2 + (y - at[:, 1:, None]) ** 2) / 2 / 1.5**2)
    images = torch.from_numpy(np.repeat((255 * light)[..., None], 3, 3).astype(np.uint8))
    y, x = np.mgrid[:WINDOW, :WINDOW] + 0.5
    looked = 0
    for seed in range(6):
        pictures, points, moves = disturbed(
            images,
            torch.from_numpy(lessons.points),
            torch.from_numpy(lessons.moves),
            np.random.default_rng(seed),
            1.0,
        )
        assert pictures.shape == (24, 3, WINDOW, WINDOW)
        for picture, said in zip(pictures.mean(1).numpy(), (points + moves)[:, nose], strict=True):
            said = said.numpy()
            near = np.hypot(x - said[0], y - said[1]) < 6
            weight = np.where(near, np.maximum(picture - 25, 0), 0)
            if len(np.unique(picture[near])) < near.sum() / 2:
                continue  # covered
            seen = np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()
            assert np.linalg.norm(said - seen) < 0.5
            looked += 1
        # the mesh stays in the middle of its window
        assert torch.allclose(points.mean(1), torch.full((24, 2), WINDOW / 2), atol=1e-3)
    assert looked > 100


def test_modes_are_the_ways_of_erring():
    rng = np.random.default_rng(0)
    wanted = np.linalg.qr(rng.normal(size=(2 * POINTS, 3)))[0].T
    moves = rng.normal(size=(500, 3)) * [9, 5, 2] @ wanted * 30
    modes, scales = error_modes(moves.reshape(-1, POINTS, 2), 6)
    assert np.allclose(modes @ modes.T, np.eye(6), atol=1e-8)
    assert (np.diff(scales) <= 0).all()
    assert np.linalg.norm(wanted @ modes[:5].T, axis=1).min() > 0.98


SMALL = dict(widths=(8, 16), modes=4, batch=16, checkpoint_every=5, device="cpu")


def test_it_learns_and_writes_what_can_be_read(tmp_path):
    settings = CalibrationSettings(steps=150, average=0.9, learning_rate=4e-3, **SMALL)
    val = painted(32, seed=0, spread=3.5)
    lines = []
    path = train(painted(200), val, tmp_path, settings, about={"licence": "MIT"}, note=lines.append)
    before, after = measure(read_corrector(path).network, val)["all"]
    assert after < 0.6 * before
    assert len(lines) == 30 and "step 150: all" in lines[-1]
    rows = (tmp_path / "scalars.csv").read_text().splitlines()
    assert rows[0].startswith("step,all as seen,all left") and len(rows) == 31


def test_a_run_that_stopped_goes_on_as_if_it_had_not(tmp_path):
    lessons, val = painted(40), painted(8, seed=1)
    whole = train(lessons, val, tmp_path / "a", CalibrationSettings(steps=10, **SMALL))
    for step in (5, 10):
        settings = CalibrationSettings(steps=10, **SMALL)
        if step == 5:
            with pytest.raises(KeyboardInterrupt):
                train(lessons, val, tmp_path / "b", settings, progress=_stops_after(7))
        else:
            again = train(lessons, val, tmp_path / "b", settings, resume=True)
    one, two = (read_corrector(path).network.state_dict() for path in (whole, again))
    assert all(torch.equal(one[key], two[key]) for key in one)
    (tmp_path / "b" / "checkpoint.pt").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot go on from"):
        train(lessons, val, tmp_path / "b", CalibrationSettings(steps=12, **SMALL), resume=True)


def _stops_after(step):
    def progress(done, _total):
        if done == step:
            raise KeyboardInterrupt

    return progress


@pytest.mark.slow
def test_lessons_of_a_photo(tmp_path):
    """A photo that turns and a head that wears it, the same however often they are made."""
    import cv2

    from recon3d.morphable import load_model

    data = pytest.importorskip("skimage.data")
    (tmp_path / "photos").mkdir()
    face = cv2.resize(data.astronaut()[0:256, 96:352], (512, 512), interpolation=cv2.INTER_CUBIC)
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / "photos" / f"{name}.png"), face[..., ::-1])
    model = load_model()
    made = []
    for folder in ("one", "two"):
        paths = make_lessons(
            tmp_path / "photos", tmp_path / folder, model, clips=2, seed=3, heads=(model,)
        )
        made.append(read_lessons(paths))
    one, two = made
    assert len(one) > 6 and set(one.clip) <= set(range(8))
    for key in ("images", "points", "moves"):
        assert np.array_equal(getattr(one, key), getattr(two, key))
    # a landmarker is wrong about such faces, but not by half a face
    size = np.linalg.norm(one.moves, axis=2).mean() / 40
    assert 0.003 < size < 0.2
    with pytest.raises(InputError, match="another origin"):
        make_lessons(tmp_path / "photos", tmp_path / "one", model, clips=2, seed=4)


def test_bad_lessons_are_refused(tmp_path):
    (tmp_path / "train_00000.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="cannot be read as lessons"):
        read_lessons([tmp_path / "train_00000.npz"])
    with pytest.raises(InputError, match="no lessons"):
        read_lessons([])
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError):
        make_lessons(tmp_path / "photos", tmp_path / "out", None, clips=1)
    assert not (tmp_path / "out").exists()
