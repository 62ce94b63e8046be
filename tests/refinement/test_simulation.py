"""Training pairs from a real portrait: the public-domain astronaut that scikit-image carries."""

import json

import cv2
import numpy as np
import pytest

from recon3d.errors import InputError, NoFaceError
from recon3d.frontal.camera import EYES, LEFT_LID, RIGHT_LID
from recon3d.geometry import head_angles
from recon3d.morphable import load_model
from recon3d.refinement.conditioning import CHANNELS
from recon3d.refinement.shards import (
    SHARD,
    find_shards,
    frontal_names,
    make_shards,
    photo_names,
    read_shards,
)
from recon3d.refinement.simulation import (
    build_relief,
    draw_at,
    fit_portrait,
    random_recipe,
    simulate,
    some_views,
    where_shown,
)
from recon3d.restoration import Recipe
from recon3d.types import FaceFit, FaceTrack


def _astronaut(side: int = 256) -> np.ndarray:
    from skimage.data import astronaut

    return cv2.resize(astronaut()[0:250, 100:350], (side, side), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def portrait():
    return fit_portrait(_astronaut(), load_model("recon3d"))


def test_a_relief_seen_from_its_own_camera_is_the_photo(portrait):
    relief = build_relief(portrait)
    fit = portrait.fit
    at = relief.vertices @ fit.R[0].T + fit.t[0]
    pixel = at @ fit.K[0].T
    pixel = pixel[:, :2] / pixel[:, 2:]
    border = (relief.picture.shape[0] - portrait.image.shape[0]) // 2
    np.testing.assert_allclose(pixel + border, relief.attributes[:, :2], atol=1e-2)
    assert (relief.skin >= 0).sum() > 1000
    # The nose stands before the cheeks.
    depth = at[:, 2]
    nose = np.linalg.norm(pixel - portrait.landmarks[4], axis=1).argmin()
    ear = np.linalg.norm(pixel - portrait.landmarks[234], axis=1).argmin()
    assert depth[nose] < depth[ear] - 40


def test_a_relief_may_differ_from_every_face_of_the_model(portrait):
    plain = build_relief(portrait)
    other = build_relief(portrait, np.random.default_rng(3))
    skin = plain.skin >= 0
    moved = np.linalg.norm(other.vertices - plain.vertices, axis=1)[skin]
    assert 0.5 < moved.mean() < 8
    # Along the photo's rays alone: from its own camera nothing changes.
    np.testing.assert_array_equal(other.attributes[:, :2], plain.attributes[:, :2])
    at = other.vertices @ portrait.fit.R[0].T + portrait.fit.t[0]
    pixel = at @ portrait.fit.K[0].T
    pixel = pixel[:, :2] / pixel[:, 2:]
    border = (plain.picture.shape[0] - portrait.image.shape[0]) // 2
    np.testing.assert_allclose(pixel + border, plain.attributes[:, :2], atol=1e-2)


@pytest.mark.slow
def test_a_pair_shows_one_person_in_one_layout(portrait):
    pair = simulate(portrait, np.random.default_rng(2))
    view = pair.view
    for lid, eye in ((RIGHT_LID, EYES[0]), (LEFT_LID, EYES[1])):
        np.testing.assert_allclose(view.landmarks[list(lid)].mean(0), eye, atol=0.05)
    assert pair.target.shape == view.raw.shape == (512, 512, 3)
    inside = view.face_mask > 0.5
    a = cv2.GaussianBlur(pair.target, (0, 0), 12)[inside].astype(float)
    b = cv2.GaussianBlur(view.raw, (0, 0), 12)[inside].astype(float)
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.7
    # The photo's own pose, but for the errors that were put in.
    assert np.abs(head_angles(view.camera.R[None]) - head_angles(portrait.fit.R)).max() < 8
    assert json.loads(json.dumps(pair.info))["face_px"] > 20


def test_a_part_of_a_clip_keeps_views_and_their_fit_together():
    n = 11
    numbers = np.arange(n)
    nothing = np.zeros(0)
    views = tuple(f"view {k}" for k in range(n))
    track = FaceTrack(0, views, numbers, 0 * numbers, *([numbers.astype(np.float32)] * 5))
    by_view = ("expression", "R", "t", "K", "residuals", "weights", "view_weight")
    whole = ("model", "identity", "displacement", "uncertainty", "identity_covariance")
    fit = FaceFit(**{name: numbers for name in by_view}, **{name: nothing for name in whole})
    counts = set()
    for seed in range(30):
        part, own = some_views(track, fit, np.random.default_rng(seed))
        count = len(part.views)
        counts.add(count)
        first = views.index(part.views[0])
        assert part.views == views[first : first + count]
        for name in by_view:
            np.testing.assert_array_equal(getattr(own, name), numbers[first : first + count])
        assert own.identity is nothing
    assert counts == {4, 5, 6, 7}


def test_cameras_are_drawn_from_all_degradations():
    kinds = set()
    for seed in range(120):
        recipe = random_recipe(np.random.default_rng(seed), 40.0)
        assert Recipe.from_yaml(recipe.to_yaml()) == recipe
        kinds |= {step.kind for step in recipe.steps}
    assert kinds >= {
        "colour_temperature",
        "optical_blur",
        "motion_blur",
        "low_light",
        "sharpen",
        "interlace",
        "drop_frames",
        "h264",
        "jpeg",
    }


def test_a_picture_without_a_face_makes_no_pair():
    with pytest.raises(NoFaceError):
        fit_portrait(np.full((256, 256, 3), 90, np.uint8), load_model("recon3d"))


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for k, image in enumerate((_astronaut(), _astronaut()[:, ::-1])):
        cv2.imwrite(str(folder / f"p{k}.png"), image[..., ::-1])
    return folder


def test_photos_without_metadata_are_split(photos):
    assert photo_names(photos, "val") == ["p0.png"] and photo_names(photos, "train") == ["p1.png"]


def test_photos_that_are_known_to_be_turned_are_not_simulated(photos):
    rows = ["file,split,yaw,pitch", "p0.png,train,-31,2", "p1.png,train,12,"]
    (photos / "metadata.csv").write_text("\n".join(rows), encoding="utf-8")
    assert photo_names(photos, "train") == ["p0.png", "p1.png"]
    assert frontal_names(photos, "train") == ["p1.png"]


@pytest.mark.slow
def test_shards_are_the_same_however_often_the_work_stops(photos, tmp_path):
    model = load_model("recon3d")
    out = tmp_path / "pairs"
    paths = make_shards(photos, out, model, pairs=2, seed=1)
    first = paths[0].read_bytes()
    stamp = paths[0].stat().st_mtime_ns
    make_shards(photos, out, model, pairs=2, seed=1)
    assert paths[0].stat().st_mtime_ns == stamp
    again = make_shards(photos, tmp_path / "again", model, pairs=2, seed=1, workers=2)
    a, b = read_shards(paths), read_shards(again)
    assert len(first) and SHARD >= 2
    for name in (*CHANNELS, "target", "points"):
        np.testing.assert_array_equal(a[name], b[name])
    assert a["picture"].shape == (2, 256, 256, 3) and a["picture"].dtype == np.uint8
    with pytest.raises(InputError, match="another origin"):
        make_shards(photos, out, model, pairs=2, seed=2)


def test_damaged_shards_are_named(tmp_path):
    path = tmp_path / "train_00000.npz"
    path.write_bytes(b"cut off")
    with pytest.raises(InputError, match="train_00000"):
        read_shards([path])
    with pytest.raises(InputError, match="no training pairs"):
        read_shards([])


def test_shards_of_another_run_leave_held_out_people_alone(tmp_path):
    for name in ("train_00001.npz", "train_00000.npz", "val_00000.npz", "origin_train.json"):
        (tmp_path / name).write_bytes(b"")
    assert [p.name for p in find_shards(tmp_path)] == ["train_00000.npz", "train_00001.npz"]
    with pytest.raises(InputError, match="no training pairs"):
        find_shards(tmp_path / "elsewhere")


def test_the_answer_is_moved_to_where_the_view_shows_it():
    from refinement_scenes import make_view

    view, truth = make_view(blur=5.0)
    A, shift = 1.02 * np.eye(2), np.array([5.0, -9.0])
    middle = np.array([256.0, 266.0])
    known = np.column_stack([A, middle + shift - A @ middle])
    displaced = cv2.warpAffine(truth, known, (512, 512), borderMode=cv2.BORDER_REFLECT)
    found = where_shown(displaced, view)
    face = np.array([[170, 180, 1], [340, 180, 1], [256, 266, 1], [200, 400, 1], [310, 400, 1.0]])
    np.testing.assert_allclose(face @ found.T, face @ known.T, atol=2)
    back = draw_at(displaced, found)[100:460, 150:360].astype(float)
    assert np.abs(back - truth[100:460, 150:360]).mean() < 6


def test_an_answer_that_is_elsewhere_stays():
    from refinement_scenes import make_view

    view, truth = make_view()
    np.testing.assert_array_equal(where_shown(np.full_like(truth, 90), view), np.eye(2, 3))
