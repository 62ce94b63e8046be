"""The matrix of conditions: which clips, what is measured, resuming, tables, the page."""

import json

import numpy as np
import pandas
import pytest

from recon3d.errors import InputError, NoFaceError
from recon3d.evaluation import matrix
from recon3d.evaluation.expectations import level_name, markdown_rows, write_page
from recon3d.evaluation.matrix import (
    FACTORS,
    QUICK,
    Plan,
    format_conditions,
    observation_metrics,
    run_matrix,
    stored_rows,
    summarise,
    write_tables,
)
from recon3d.evaluation.metrics import load_descriptor
from recon3d.scenes.scene import Scene, scene_truth
from recon3d.types import FaceFit, FaceObservation, FaceTrack


@pytest.fixture(scope="module")
def model():
    from recon3d.morphable import load_model

    return load_model("recon3d")


@pytest.fixture(scope="module")
def truth(model):
    scene = Scene(n_frames=4, face_px=64, yaw_span_deg=20)
    return scene_truth(scene, model, np.full((8, 8, 3), 0.3, np.float32))


def seen(truth, frames, shift=0.0) -> FaceTrack:
    """A track whose landmarks are the true ones, moved to the right by so many px."""
    views = []
    for i in frames:
        points = (truth.landmarks(i) @ truth.R[i].T + truth.t[i]) @ truth.K.T
        pixels = points[:, :2] / points[:, 2:] + [shift, 0]
        box = np.concatenate([pixels.min(0), pixels.max(0)])
        covariance = np.repeat(np.eye(2)[None], 478, 0)
        zeros = np.zeros(478)
        views.append(
            FaceObservation(i, 0, i / 25, truth.size, box, pixels, covariance, zeros, 0, 0, 0, 1)
        )
    n = len(views)
    flat = np.zeros(n, np.float32)
    return FaceTrack(0, tuple(views), np.array(frames), np.zeros(n, int), *[flat] * 5)


def fit_of(truth, frames, turn_deg=0.0) -> FaceFit:
    from recon3d.geometry import so3_exp

    n, model = len(frames), truth.model
    turn = so3_exp(np.radians([0.0, turn_deg, 0.0]))
    return FaceFit(
        model,
        truth.identity,
        truth.expression[frames],
        turn @ truth.R[frames],
        truth.t[frames],
        np.repeat(truth.K[None], n, 0),
        truth.displacement,
        np.zeros((n, 478, 2)),
        np.ones((n, 478)),
        np.zeros(model.n_vertices),
        np.eye(len(truth.identity)),
        np.ones(n),
    )


# ------------------------------------------------------------------------------------ the plan
def test_the_matrix_is_every_combination():
    plan = Plan()
    scenes = plan.scenes()
    assert len(plan.cells()) == len(scenes) == 5 * 5 * 2 * 3
    assert len({scene for _, scene in scenes.values()}) == 150
    people = {p: {f: set() for f in FACTORS} for p in range(plan.people)}
    for cell, scene in scenes.values():
        assert (scene.light, scene.face_px, scene.blur) == (cell.light, cell.face_px, cell.blur)
        assert scene.yaw_span_deg == cell.yaw_span
        for factor in FACTORS:
            people[scene.person][factor].add(getattr(cell, factor))
    # No level is measured on some people only.
    for met in people.values():
        assert all(met[factor] == set(levels) for factor, levels in FACTORS.items())
    assert len(plan.group("blur", "none")) == 75
    assert len(Plan(clips=2).scenes()) == 300


def test_the_quick_one_varies_one_thing_at_a_time():
    cells = QUICK.cells()
    assert len(cells) == 1 + 4 + 4 + 1 + 2
    assert {scene.person for _, scene in QUICK.scenes().values()} == {QUICK.person}
    for factor, levels in FACTORS.items():
        for level in levels:
            (cell,) = QUICK.group(factor, level)
            assert getattr(cell, factor) == level


# --------------------------------------------------------------------------------- the metrics
def test_true_observations_are_perfect(truth):
    frames = [0, 1, 3]
    found = observation_metrics([(seen(truth, frames), fit_of(truth, frames))], truth)
    assert found["detected"] == 0.75
    assert found["false_tracks"] == 0
    assert found["landmark_nme"] == pytest.approx(0, abs=1e-6)
    assert found["pose_deg"] == pytest.approx(0, abs=1e-3)


def test_errors_cost_what_they_are(truth):
    frames = [0, 1, 2, 3]
    eyes = np.linalg.norm(truth.landmarks()[33] - truth.landmarks()[263])
    shift = 0.1 * eyes * truth.K[0, 0] / truth.scene.distance_mm
    wrong = seen(truth, frames, shift), fit_of(truth, frames, 7.0)
    elsewhere = seen(truth, frames, 200.0), None
    found = observation_metrics([wrong, elsewhere], truth)
    assert found["landmark_nme"] == pytest.approx(10)
    assert found["pose_deg"] == pytest.approx(7, abs=1e-6)
    assert found["detected"] == 1
    assert found["false_tracks"] == 1
    assert observation_metrics([], truth) == {"detected": 0, "false_tracks": 0}


@pytest.mark.slow
def test_true_pictures_are_told_apart(model):
    describe = load_descriptor()
    if describe is None:
        pytest.skip("dlib is not installed")
    people = [scene_truth(Scene(person=p, n_frames=1), model).picture_truth() for p in (0, 3, 6)]
    right = matrix.told_apart(people[1].image, people, 1, describe)
    assert right["verification"] == 1
    assert matrix.told_apart(people[1].image, people, 0, describe)["verification"] == 0.5
    assert matrix.told_apart(people[0].image, people[:1], 0, describe) == {}


# -------------------------------------------------------------------------------------- tables
def made_rows(plan: Plan) -> list[dict]:
    rows = []
    for i, (name, (cell, scene)) in enumerate(plan.scenes().items()):
        common = {
            "case": name,
            "condition": cell.name,
            "subject": "p",
            "person": scene.person,
            **{factor: getattr(cell, factor) for factor in FACTORS},
            "mesh_ok": True,
            "notes": [],
        }
        mean = {"method": "mean", "image_ok": False, "nonmetric_median": 1.0}
        ours = {
            "method": "recon3d",
            "image_ok": cell.face_px > 24,
            "nonmetric_median": 2.0 if cell.face_px == 24 else 0.5,
            "detected": 0.1 if cell.face_px == 24 else 1.0,
            "seconds": 1.0 + i,
        }
        if ours["image_ok"]:
            ours |= {"id_dist": 0.3, "verification": 1.0, "psnr": 25.0}
        single = {"method": "single", "image_ok": True, "id_dist": 0.4, "nonmetric_median": 1.5}
        rows += [common | one for one in (ours, single, mean)]
    return rows


def test_means_by_condition(tmp_path):
    plan = Plan()
    rows = made_rows(plan)
    summary = summarise(plan, rows).set_index(["factor", "level", "method"])
    assert summary.loc[("face_px", "24", "recon3d"), "detected"] == pytest.approx(0.1)
    assert summary.loc[("face_px", "24", "recon3d"), "image_failed"] == 30
    everything = summary.loc[("all", "all", "recon3d")]
    assert everything["clips"] == 150
    assert everything["psnr"] == pytest.approx(25)
    # A failure counts as chance.
    assert everything["all_verification"] == pytest.approx((120 + 30 * 0.5) / 150)
    assert everything["all_psnr"] == pytest.approx((120 * 25 + 30 * 8) / 150)
    paths = write_tables(plan, rows, tmp_path)
    assert [p.name for p in paths] == [
        "clips.csv",
        "clips.parquet",
        "conditions.csv",
        "conditions.parquet",
    ]
    for csv, parquet in (paths[:2], paths[2:]):
        pandas.testing.assert_frame_equal(
            pandas.read_csv(csv, keep_default_na=False, na_values=[""]).drop(
                columns="notes", errors="ignore"
            ),
            pandas.read_parquet(parquet).drop(columns="notes", errors="ignore"),
            check_dtype=False,
        )
    text = format_conditions(summarise(plan, rows))
    assert len({len(line) for line in text.splitlines()}) == 1


@pytest.mark.parametrize("plan", [Plan(), QUICK], ids=["full", "quick"])
def test_the_page_is_whole_and_says_what_is_true(plan, tmp_path):
    path = write_page(plan, made_rows(plan), tmp_path, version="1.2.3")
    page = path.read_text()
    assert "http" not in page.replace("http-equiv", "")
    assert page.count("<section>") == len(FACTORS) + (not plan.quick)
    assert "24 px: the face was found in 10 % of the frames and no picture came out." in page
    assert "nearer to the person than a mean face (1.00 mm)" in page
    assert "more like the person than the best single frame (0.30 against 0.40)" in page
    assert "Unfinished" not in page
    names = {p.name for p in (tmp_path / "figures").iterdir()}
    assert names >= {f"{factor}.png" for factor in FACTORS}
    headings, cells = markdown_rows(summarise(plan, made_rows(plan)))
    assert {len(row) for row in cells} == {len(headings)}
    assert level_name("yaw_span", 30) == "30°"


def test_an_unfinished_run_says_so(tmp_path):
    page = write_page(QUICK, made_rows(QUICK)[:6], tmp_path).read_text()
    assert "Unfinished: 2 of 12 clips." in page


# ------------------------------------------------------------------------------------- resuming
@pytest.mark.slow
def test_an_interrupted_run_goes_on(model, tmp_path, monkeypatch):
    monkeypatch.setitem(FACTORS, "light", ("medium",))
    monkeypatch.setitem(FACTORS, "face_px", (24, 64))
    monkeypatch.setitem(FACTORS, "blur", ("none",))
    monkeypatch.setitem(FACTORS, "yaw_span", (30,))
    plan = Plan(people=1, n_frames=2, supersample=1)
    calls: list[str] = []

    def reconstruct(inputs, folder):
        calls.append(folder.parent.parent.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        raise NoFaceError("no usable face in 2 frames")

    def go(**options):
        return run_matrix(plan, model, tmp_path, reconstruct, **options)

    with pytest.raises(InputError, match="no finished clip"):
        stored_rows(plan, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        go(configuration={"a": 1})
    small, large = plan.scenes()
    assert calls == [small, large]
    assert len(stored_rows(plan, tmp_path)) == 4
    rows = go(configuration={"a": 1})
    assert calls[2:] == [large]
    assert go(configuration={"a": 1}) == rows == stored_rows(plan, tmp_path)
    assert calls[3:] == []
    go(configuration={"a": 2})
    assert calls[3:] == [small, large]
    ours = [row for row in rows if row["method"] == "recon3d"]
    assert [row["detected"] for row in ours] == [0, 0]
    assert not any(row["mesh_ok"] for row in ours)
    mean = next(row for row in rows if row["method"] == "mean")
    assert 0.2 < mean["metric_median"] < 2
    # What stays of a clip is small, and nothing of the work is left.
    for name in (small, large):
        left = {p.name for p in (tmp_path / "cells" / name).iterdir()}
        assert left == {"clip.mp4", "gt.npz", "scene.json", "rows.json"}
    json.loads((tmp_path / "cells" / small / "rows.json").read_text())


def test_the_command_refuses_what_does_not_go_together(tmp_path, capsys):
    from recon3d.cli.main import main

    assert main(["bench", "--quick", "--data", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert main(["bench", "--cases", "a", "--out", str(tmp_path)]) == 2
    assert main(["bench", "--quick", "--score-only", "--out", str(tmp_path / "none")]) == 2
    assert "no finished clip" in capsys.readouterr().err
