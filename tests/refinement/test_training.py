import csv
import json

import cv2
import numpy as np
import pytest
import torch
from refinement_scenes import make_pairs

from recon3d.errors import InputError
from recon3d.frontal.camera import frontal_camera, landmark_points
from recon3d.geometry import project
from recon3d.morphable import load_model
from recon3d.morphable.topology import NOSTRILS
from recon3d.refinement.augmentation import disturb, morph, mosaic, vary_nostrils, vary_skin, warp
from recon3d.refinement.settings import TrainingSettings
from recon3d.refinement.training import Trainer, train
from recon3d.refinement.weights import load_generator
from recon3d.settings import validated

FAST = dict(
    widths=(8, 12),
    blocks=1,
    batch=2,
    crop=96,
    checkpoint_every=2,
    validate_every=100,
    precision="float32",
    device="cpu",
)


@pytest.fixture(scope="module")
def pairs():
    return make_pairs(4), make_pairs(2, first=50)


def _weights(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.generator.parameters()])


def test_a_batch_depends_on_seed_and_step_alone(pairs, tmp_path):
    settings = TrainingSettings(**FAST)
    a = Trainer(*pairs, tmp_path, settings).batch(5)
    torch.manual_seed(99)
    b = Trainer(*pairs, tmp_path, settings).batch(5)
    c = Trainer(*pairs, tmp_path, settings).batch(6)
    assert torch.equal(a["inputs"], b["inputs"]) and not torch.equal(a["inputs"], c["inputs"])
    assert a["inputs"].shape == (2, 15, 96, 96) and a["target"].shape == (2, 3, 96, 96)


@pytest.mark.slow
def test_same_seed_same_steps_and_resuming_changes_nothing(pairs, tmp_path):
    settings = TrainingSettings(**FAST, steps=4, adversarial_from=0.4)
    whole = train(*pairs, tmp_path / "a", settings)
    again = train(*pairs, tmp_path / "b", settings)
    assert torch.equal(_weights(whole), _weights(again))

    class Stopped(Exception):
        pass

    def stop(step, total=None):
        # After the checkpoint of step 2, in the middle of the way to the next.
        if step == 3:
            raise Stopped

    with pytest.raises(Stopped):
        train(*pairs, tmp_path / "c", settings, progress=stop)
    resumed = train(*pairs, tmp_path / "c", settings, resume=True)
    assert resumed.step == 4
    assert torch.equal(_weights(whole), _weights(resumed))
    with open(tmp_path / "c" / "scalars.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["step", "name", "value"] and any(r[1] == "val_psnr" for r in rows)
    assert (tmp_path / "c" / "refiner.safetensors").exists()
    assert list((tmp_path / "c" / "panels").glob("*.png"))


@pytest.mark.slow
def test_training_sharpens_what_it_has_seen(pairs, tmp_path):
    settings = TrainingSettings(
        **{**FAST, "batch": 4, "widths": (16, 24)},
        steps=250,
        adversarial=0.0,
        learning_rate=2e-3,
        average=0.9,
    )
    trainer = train(pairs[0], pairs[0], tmp_path, settings)
    found = trainer.validate()
    assert found["psnr"] > found["psnr_raw"] + 0.7


def test_there_must_be_a_checkpoint_to_resume(pairs, tmp_path):
    with pytest.raises(InputError, match="no checkpoint"):
        Trainer(*pairs, tmp_path, TrainingSettings(**FAST)).load()
    (tmp_path / "checkpoint.pt").write_bytes(b"cut off")
    with pytest.raises(InputError, match="is no checkpoint"):
        Trainer(*pairs, tmp_path, TrainingSettings(**FAST)).load()


def test_resuming_with_other_settings_is_refused(pairs, tmp_path):
    Trainer(*pairs, tmp_path, TrainingSettings(**FAST)).save()
    with pytest.raises(InputError, match="seed"):
        Trainer(*pairs, tmp_path, TrainingSettings(**FAST, seed=3)).load()


def test_resumes_what_an_earlier_version_began(pairs, tmp_path):
    settings = TrainingSettings(**FAST)
    Trainer(*pairs, tmp_path, settings).save()
    path = tmp_path / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    known = json.loads(state["settings"])
    del known["warp"], known["bands"]
    torch.save(state | {"settings": json.dumps(known)}, path)
    resumed = Trainer(*pairs, tmp_path, settings)
    resumed.load()
    assert len(resumed.history) == 2


class Describer(torch.nn.Module):
    """A face descriptor that any machine has: the middle of the aligned face, shrunk."""

    @staticmethod
    def align(points):
        eyes = points[[33, 263]]
        scale = 20.0 / np.linalg.norm(eyes[1] - eyes[0])
        shift = np.array([16.0, 12.0]) - scale * eyes.mean(0)
        return np.column_stack([scale * np.eye(2), shift])

    def forward(self, pictures, to_chip):
        places = torch.linspace(-0.5, 31.5, 32)
        at = torch.stack(torch.meshgrid(places, places, indexing="xy"), -1)
        scale = to_chip[:, 0, 0].view(-1, 1, 1, 1)
        at = (at[None] - to_chip[:, None, None, :, 2]) / scale
        grid = 2 * at / pictures.shape[-1] - 1
        small = torch.nn.functional.grid_sample(pictures / 255, grid, align_corners=False)
        return [small, small.flatten(1)]


def test_the_identity_loss_sees_the_aligned_face(pairs, tmp_path):
    settings = TrainingSettings(
        **{**FAST, "batch": 8, "crop": 224}, steps=2, adversarial=0.0, skin=0.0, nostrils=0.0
    )
    trainer = Trainer(*pairs, tmp_path, settings, describer=Describer())
    # Flipped or not, the right eye of the picture lies where the descriptor expects one.
    for step in range(3):
        batch = trainer.batch(step)
        chips = trainer.describer(
            127.5 * (batch["target"][: batch["n_face"]] + 1), batch["to_chip"]
        )
        dark = 1 - chips[0].mean(1)
        for x in (6, 26):
            eye = dark[:, 10:15, x - 2 : x + 3].amax((1, 2))
            assert (eye > dark[:, 16:22, 4:28].mean((1, 2))).all()
    found = trainer.advance()
    assert found["identity"] > 0 and found["likeness"] > 0
    without = Trainer(*pairs, tmp_path, settings.model_copy(update={"identity": 0, "likeness": 0}))
    assert "identity" not in without.advance()


def test_warps_take_points_along(pairs, tmp_path):
    still = Trainer(*pairs, tmp_path, TrainingSettings(**{**FAST, "crop": 224}, warp=0))
    picture = torch.zeros(1, 224, 224)
    points = np.array([[60.5, 70.5], [120.5, 100.5], [150.5, 160.5]])
    for x, y in points.astype(int):
        picture[0, y - 2 : y + 3, x - 2 : x + 3] = 1
    for seed in range(5):
        x, y, place, outline = warp(
            picture, picture, points, points, 4.0, np.random.default_rng(seed)
        )
        assert torch.equal(x, y) and np.array_equal(place, outline)
        assert np.abs(place - points).max() > 1
        for px, py in place:
            patch = x[0, int(py) - 6 : int(py) + 7, int(px) - 6 : int(px) + 7]
            row, column = np.argwhere(patch.numpy() > 0.5).mean(0) - 6
            assert abs(row) < 1.2 and abs(column) < 1.2
    assert still.batch(0)["inputs"].shape[-1] == 224


def test_a_morph_lies_between_two_faces():
    rng = np.random.default_rng(2)
    base = rng.uniform(60, 190, (478, 2)).round() + 0.5
    marked = [[80.5, 90.5], [140.5, 100.5], [110.5, 170.5]]
    pairs = []
    for shift in ([-6, 2], [6, -2]):
        points = base.copy()
        points[:3] = marked
        points += shift
        picture = torch.zeros(1, 256, 256)
        for x, y in points[:3].astype(int):
            picture[0, y - 2 : y + 3, x - 2 : x + 3] = 1
        pairs.append((picture, picture.expand(3, -1, -1), points))
    x, y, points = morph(*pairs, 0.5)
    np.testing.assert_allclose(points[:3], marked)
    assert torch.equal(x.expand(3, -1, -1), y)
    for px, py in points[:3]:
        patch = x[0, int(py) - 8 : int(py) + 9, int(px) - 8 : int(px) + 9].numpy()
        # Both marks have come to the same place, so that they add up to one.
        assert patch.max() > 0.9
        row, column = np.argwhere(patch > 0.5).mean(0) - 8
        assert abs(row) < 1 and abs(column) < 1
    all_of_a = morph(*pairs, 0.0)[0]
    assert (all_of_a - pairs[0][0]).abs().max() < 1e-4
    lost = pairs[1][2].copy()
    lost[5] = np.nan
    assert torch.equal(morph(pairs[0], (*pairs[1][:2], lost), 0.5)[0], pairs[0][0])


def test_morphs_follow_the_seed_and_may_be_left_out(pairs, tmp_path):
    with_morphs, again, without = (
        Trainer(*pairs, tmp_path, TrainingSettings(**FAST | {"morph": m, "mosaic": 1 - m}))
        for m in (1, 1, 0)
    )
    assert torch.equal(with_morphs.batch(3)["inputs"], again.batch(3)["inputs"])
    assert not torch.equal(with_morphs.batch(3)["target"], without.batch(3)["target"])


def test_a_mosaic_has_the_features_of_both_and_stays_sharp(pairs):
    points = pairs[0]["points"][0].astype(float)
    stripes = ((torch.arange(256) // 4) % 2).float()
    people = []
    for picture in (stripes.expand(256, 256), stripes[:, None].expand(256, 256)):
        inputs = torch.ones(15, 256, 256)
        inputs[:3] = picture - 0.5
        people.append((inputs, inputs[:3].clone(), points))
    shares = []
    for seed in range(8):
        x, y, where = mosaic(*people, np.random.default_rng(seed))
        np.testing.assert_allclose(where, points)
        assert torch.equal(x[:3], y)
        of_a, of_b = ((x[0] - p[0][0]).abs() < 0.1 for p in people)
        # What is neither is a border, and borders are narrow.
        assert (of_a | of_b).float().mean() > 0.8
        shares.append(float((of_b & ~of_a).sum() / (of_a ^ of_b).sum()))
    assert min(shares) < 0.35 and max(shares) > 0.65
    lost = points.copy()
    lost[5] = np.nan
    assert torch.equal(
        mosaic(people[0], (*people[1][:2], lost), np.random.default_rng(0))[0], people[0][0]
    )


def test_a_mosaic_has_the_tones_of_the_first():
    points = np.random.default_rng(4).uniform(60, 190, (478, 2))
    ramp = torch.linspace(-1, 1, 256).expand(256, 256)
    pairs = []
    for mean, spread in ((0.1, 0.3), (-0.2, 0.2)):
        inputs = torch.ones(15, 256, 256)
        inputs[:3] = mean + spread * ramp
        pairs.append((inputs, inputs[:3] + 0.05, points))
    for seed in range(4):
        x, y, _ = mosaic(*pairs, np.random.default_rng(seed))
        assert (x[:3] - pairs[0][0][:3]).abs().max() < 0.01
        assert (y - pairs[0][1]).abs().max() < 0.03


def test_errors_of_the_picture_alone():
    x = torch.zeros(15, 96, 96)
    rng = np.random.default_rng(1)
    disturbed = torch.stack([disturb(x, 3.0, rng) for _ in range(20)])
    assert torch.equal(disturbed[:, 3:], x[3:].expand(20, -1, -1, -1))
    # Luma and chroma together, each of at most three of 255; the weights of a channel are normal.
    spread = 127.5 * disturbed[:, :3].std((2, 3))
    assert 0.8 < spread.mean() < 4
    assert torch.equal(
        disturb(x, 3.0, np.random.default_rng(7)), disturb(x, 3.0, np.random.default_rng(7))
    )


def test_marks_on_the_skin_are_in_picture_and_target_alike():
    model = load_model("recon3d")
    camera = frontal_camera(model, model.mean, 3000.0)
    points = project(landmark_points(model, model.mean), camera.K, camera.R, camera.t) / 2
    x = torch.zeros(15, 256, 256)
    x[-1, :, :128] = -1  # no face there
    x[-1, :, 128:] = 1
    y = torch.zeros(3, 256, 256)
    bearded = 0
    for seed in range(30):
        marked, target = vary_skin(x, y, points, 3.0, 0.12, np.random.default_rng(seed))
        assert not target[:, :, :126].any() and torch.equal(marked[6:], x[6:])
        assert torch.equal(marked[:3], marked[3:6])
        # The picture shows what the target has, at the picture's own resolution.
        shown, meant = (
            cv2.GaussianBlur(np.log1p(p.numpy()).transpose(1, 2, 0), (0, 0), 6.0)[:, 150:]
            for p in (marked[:3], target)
        )
        assert np.abs(shown - meant).max() < 0.06
        column, row = points[[17, 152]].mean(0).astype(int)
        bearded += bool(target[:, row, max(column - 4, 130) : column + 12].mean() < -0.1)
    assert 1 <= bearded <= 15
    again = vary_skin(x, y, points, 3.0, 0.12, np.random.default_rng(29))
    assert torch.equal(again[0], marked) and torch.equal(again[1], target)
    lost = np.full_like(points, np.nan)
    assert torch.isfinite(vary_skin(x, y, lost, 3.0, 0.12, np.random.default_rng(0))[1]).all()


def test_nostrils_are_darkened_in_the_answer_and_coarser_in_the_picture():
    model = load_model("recon3d")
    camera = frontal_camera(model, model.mean, 3000.0)
    points = project(landmark_points(model, model.mean), camera.K, camera.R, camera.t) / 2
    x, y = torch.zeros(15, 256, 256), torch.zeros(3, 256, 256)
    x[6] = 1.0  # everything was seen
    made, answer = vary_nostrils(x, y, points, 4.0, np.random.default_rng(1))
    for ring in NOSTRILS:
        column, row = np.round(points[list(ring)].mean(0)).astype(int)
        near = (slice(row - 6, row + 7), slice(column - 8, column + 9))
        assert answer[(0, *near)].min() < made[(0, *near)].min() - 0.03
        assert answer[(0, *near)].min() < -0.25 and made[(0, *near)].min() < -0.02
        # As much light is lost in both, as blur loses none.
        assert torch.equal(made[0], made[5])
    total = float(answer[0].sum())
    assert float(made[0].sum()) == pytest.approx(total, rel=0.3) and total < -10
    assert torch.equal(made[6:], x[6:])
    assert float(answer[:, :90].abs().max()) == 0
    # A camera that looked down on them shows none, but the face has some.
    x[6] = -1.0
    hidden, same = vary_nostrils(x, y, points, 4.0, np.random.default_rng(1))
    assert torch.equal(hidden, x) and torch.equal(same, answer)
    lost = np.full_like(points, np.nan)
    assert vary_nostrils(x, y, lost, 4.0, np.random.default_rng(1))[1] is y


def test_begins_with_earlier_weights(pairs, tmp_path):
    settings = TrainingSettings(**FAST, steps=1)
    earlier = Trainer(*pairs, tmp_path, settings)
    for parameter in earlier.average.parameters():
        parameter.add_(0.25)
    earlier.save()
    later = Trainer(*pairs, tmp_path, settings.model_copy(update={"seed": 9}))
    later.begin_with(tmp_path / "refiner.safetensors")
    expected = torch.cat([p.flatten() for p in earlier.average.parameters()])
    torch.testing.assert_close(_weights(later), expected, atol=2e-3, rtol=2e-3)
    assert later.history[0]["start"]["seed"] == "0"
    wider = Trainer(*pairs, tmp_path, TrainingSettings(**{**FAST, "widths": (8, 16)}))
    with pytest.raises(InputError, match="cannot grow"):
        wider.begin_with(tmp_path / "refiner.safetensors")


def test_a_checkpoint_of_other_critics_is_refused_in_one_line(pairs, tmp_path):
    trainer = Trainer(*pairs, tmp_path, TrainingSettings(**FAST, steps=1))
    del trainer.critics.nose
    trainer.save()
    again = Trainer(*pairs, tmp_path, TrainingSettings(**FAST, steps=1))
    with pytest.raises(InputError, match="other networks than this version"):
        again.load()


def test_grows_from_a_smaller_network_whose_answers_it_keeps(pairs, tmp_path):
    smaller = Trainer(*pairs, tmp_path, TrainingSettings(**FAST, steps=1))
    for parameter in smaller.average.parameters():
        parameter.add_(0.02)
    smaller.save()
    grown = Trainer(*pairs, tmp_path, TrainingSettings(**{**FAST, "blocks": (1, 3)}, steps=1))
    grown.begin_with(tmp_path / "refiner.safetensors")
    batch = grown.batch(0)
    # In half precision on disk, both after it.
    expected = load_generator(tmp_path / "refiner.safetensors")[0](batch["inputs"])
    for network in (grown.generator, grown.average):
        for made, wanted in zip(network(batch["inputs"]), expected, strict=True):
            torch.testing.assert_close(made, wanted)
    before = _weights(grown)
    grown.advance()
    new = [k for k, _ in grown.generator.named_parameters() if k.startswith("down.1.2")]
    assert len(new) == 4 and not torch.equal(before, _weights(grown))
    assert grown.generator.state_dict()["down.1.2.second.weight"].abs().max() > 0
    grown.save()
    again, _ = load_generator(tmp_path / "refiner.safetensors")
    assert again.blocks == (1, 3)
    with pytest.raises(InputError, match="cannot grow"):
        smaller.begin_with(tmp_path / "refiner.safetensors")


@pytest.mark.parametrize(
    "wrong", [{"blocks": (1, 2, 3)}, {"blocks": 0}, {"blocks": (1, 0)}, {"blocks": ()}]
)
def test_blocks_that_do_not_fit_the_levels_are_refused(wrong):
    with pytest.raises(InputError, match="setting blocks"):
        validated(TrainingSettings, tree={**FAST, **wrong})


def test_mirrored_crops_stay_aligned(pairs, tmp_path):
    # In every crop, flipped or not, the eyes' places must point at dark irises of the target.
    trainer = Trainer(*pairs, tmp_path, TrainingSettings(**{**FAST, "batch": 8, "crop": 160}))
    seen = 0
    for step in range(4):
        batch = trainer.batch(step)
        for k in range(batch["n_face"]):
            for x, y in batch["places"][k, :2].numpy():
                row, column = int(y), int(x)
                patch = batch["target"][k].mean(0)
                iris = patch[row - 2 : row + 3, column - 2 : column + 3].mean()
                white = patch[row - 1 : row + 2, column + 9 : column + 12].mean()
                assert iris < white
                seen += 1
            # Between eyes and mouth, in the middle: the nostrils.
            right, left, mouth, nose = batch["places"][k].numpy()
            down = (mouth - (right + left) / 2) / np.linalg.norm(mouth - (right + left) / 2)
            along = (nose - (right + left) / 2) @ down
            assert 0.4 < along / np.linalg.norm(mouth - (right + left) / 2) < 0.9
            assert abs((nose - mouth) @ np.array([-down[1], down[0]])) < 8
    assert seen == 48
    assert np.isfinite(trainer.batch(0)["inputs"].numpy()).all()
