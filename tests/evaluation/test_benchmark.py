"""Folders in, tables out; and the same figures as the outside scorer."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import trimesh

from recon3d.errors import InputError, NoFaceError
from recon3d.evaluation.benchmark import (
    WORST,
    aggregate,
    format_table,
    read_benchmark,
    run_cases,
    run_costs,
    score_results,
    scored_track,
    to_frame,
)
from recon3d.evaluation.metrics import load_descriptor


def write_result(folder, vertices, triangles, now7, picture) -> None:
    """What a run leaves of what is scored."""
    folder.mkdir(parents=True, exist_ok=True)
    trimesh.Trimesh(vertices, triangles, process=False).export(folder / "mesh.ply")
    (folder / "landmarks.json").write_text(json.dumps({"now7": np.asarray(now7).tolist()}))
    cv2.imwrite(str(folder / "frontal.png"), np.asarray(picture)[..., ::-1])


def test_truth_as_result_scores_perfectly_and_what_is_missing_fails(
    benchmark_folder, tmp_path, egg_truth, portrait
):
    benchmark = read_benchmark(benchmark_folder)
    results = tmp_path / "results"
    truth = egg_truth.vertices, egg_truth.triangles, egg_truth.now7
    write_result(results / "egg_dark_1" / "track_000", *truth, portrait)
    write_result(results / "egg_clean" / "track_000", *truth, np.full_like(portrait, 90))
    rows = score_results(benchmark, results, None)
    assert [row["mesh_ok"] for row in rows] == [True, False, True]
    assert [row["image_ok"] for row in rows] == [True, False, False]
    assert rows[0]["metric_median"] < 1e-3
    assert rows[0]["psnr"] > 60
    assert rows[1]["notes"] == ["no output"]
    assert rows[2]["notes"] == ["frontal.png: no face found"]

    means = aggregate(rows)
    assert means["overall"]["mesh_failed"] == 1
    assert means["overall"]["image_failed"] == 2
    assert means["by_condition"]["dark"]["cases"] == 2
    assert means["overall"]["all"]["metric_median"] == pytest.approx(10 / 3, abs=1e-2)
    expected = (rows[0]["psnr"] + 2 * WORST["psnr"]) / 3
    assert means["overall"]["all"]["psnr"] == pytest.approx(expected)
    assert "id_dist" not in means["overall"]["all"]
    lines = format_table(means).splitlines()
    assert [line.split()[0] for line in lines] == ["condition", "clean", "dark", "ALL"]
    assert len({len(line) for line in lines}) == 1
    assert list(to_frame(rows)["case"]) == [case.name for case in benchmark.cases]


def test_the_track_with_most_frames_is_scored(tmp_path):
    for name in ("track_000", "track_001"):
        (tmp_path / name).mkdir()
    assert scored_track(tmp_path).name == "track_000"
    tracks = [{"id": 0, "frames": 10, "path": "track_000"}, {"frames": 30, "path": "track_001"}]
    (tmp_path / "manifest.json").write_text(json.dumps({"tracks": tracks}))
    assert scored_track(tmp_path).name == "track_001"


def test_runs_are_resumed_and_failures_recorded(benchmark_folder, tmp_path):
    benchmark = read_benchmark(benchmark_folder)
    out, calls = tmp_path / "out", []

    def reconstruct(inputs, folder):
        calls.append(folder.name)
        if folder.name == "egg_dark_2":
            raise NoFaceError("no usable face in 3 frames")
        stages = [
            {"stage": "tracking", "seconds": 1.5, "peak_memory_mib": 300.0},
            {"stage": "fitting", "seconds": 2.0, "peak_memory_mib": 200.0},
        ]
        folder.mkdir(parents=True)
        manifest = {"status": "done", "stages": stages, "inputs": inputs}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return manifest

    first = run_cases(benchmark, out, reconstruct)
    assert calls == ["egg_dark_1", "egg_dark_2", "egg_clean"]
    assert first["egg_dark_2"]["status"] == "failed"
    assert run_costs(first["egg_clean"]) == {"seconds": 3.5, "peak_mib": 300.0}
    second = run_cases(benchmark, out, reconstruct)
    assert calls[3:] == ["egg_dark_2"]
    assert second["egg_clean"] == first["egg_clean"]
    run_cases(benchmark, out, reconstruct, finished=lambda manifest: True)
    assert calls[4:] == ["egg_dark_2"]


def test_bad_manifests_are_named(tmp_path, benchmark_folder):
    with pytest.raises(InputError, match=r"manifest\.json"):
        read_benchmark(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="not a benchmark"):
        read_benchmark(tmp_path)
    with pytest.raises(InputError, match="no case"):
        read_benchmark(benchmark_folder).select(["nobody"])


@pytest.mark.slow
def test_agrees_with_the_outside_scorer(shared, tmp_path, capsys):
    """Distorted truth of three cases: every figure as score.py's, to better than 3 digits, and
    the command prints the same tables."""
    from recon3d.cli.main import main

    bench = shared / "data" / "bench"
    benchmark = read_benchmark(bench).select(["james_warm40", "ict001_tiny28", "ict002_clean110"])
    rng = np.random.default_rng(1)
    for case in benchmark.cases:
        subject = benchmark.subjects[case.subject]
        vertices, now7 = subject.shape.vertices, subject.shape.now7
        nearest = np.linalg.norm(vertices[None] - now7[:, None], axis=2).argmin(1)
        wrong = vertices * (1 + 0.02 * rng.normal()) + 3 * np.sin(
            vertices / 40 + rng.normal(size=3)
        )
        picture = cv2.resize(subject.picture.image, (96, 96), interpolation=cv2.INTER_AREA)
        picture = cv2.resize(picture, (400, 400), interpolation=cv2.INTER_CUBIC)
        folder = tmp_path / case.name / "track_000"
        write_result(folder, wrong, subject.shape.triangles, wrong[nearest], picture)
    ours = score_results(benchmark, tmp_path, load_descriptor())
    command = [sys.executable, str(shared / "eval" / "score.py"), "--bench", str(bench)]
    command += ["--results", str(tmp_path), "--json", str(tmp_path / "theirs.json")]
    command += ["--cases", ",".join(case.name for case in benchmark.cases)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    theirs = json.loads((tmp_path / "theirs.json").read_text())
    for mine, row in zip(ours, theirs["cases"], strict=True):
        figures = {key: value for key, value in row.items() if isinstance(value, float)}
        assert len(figures) >= 18
        assert {key: mine[key] for key in figures} == pytest.approx(figures, rel=5e-4, abs=5e-4)
    means = aggregate(ours)["overall"]
    for which in ("scored", "all"):
        expected = theirs["aggregate"]["overall"][which]
        assert means[which] == pytest.approx(expected, rel=5e-4, abs=5e-4)
    command = ["bench", "--data", str(bench), "--out", str(tmp_path), "--score-only"]
    assert main([*command, "--cases", ",".join(case.name for case in benchmark.cases)]) == 0

    def tables(text: str) -> dict[str, list[float]]:
        """Figures by condition."""
        lines = (line.split() for line in text.splitlines())
        return {
            words[0]: [float(word) for word in words[1:]]
            for words in lines
            if len(words) == 16 and words[0] != "condition"
        }

    wanted, got = tables(printed), tables(capsys.readouterr().out)
    assert list(got) == list(wanted) == ["clean110", "tiny28", "warm40", "ALL"]
    for name, figures in wanted.items():
        # Half a unit of the last printed digit may be rounded either way.
        assert got[name] == pytest.approx(figures, rel=5e-4, abs=0.0011), name


@pytest.mark.slow
def test_another_person_scores_worse_than_the_truth(shared):
    """Every subject's truth in another's place: as bad as the benchmark's notes say."""
    from recon3d.evaluation.metrics import picture_metrics, shape_metrics

    describe = load_descriptor()
    subjects = list(read_benchmark(shared / "data" / "bench").subjects.values())[:4]
    wrong = []
    for one, other in zip(subjects, subjects[1:] + subjects[:1], strict=True):
        shape = other.shape
        wrong.append(shape_metrics(shape.vertices, shape.triangles, shape.now7, one.shape))
        wrong[-1].update(picture_metrics(other.picture.image, one.picture, describe))
        same = picture_metrics(one.picture.image, one.picture, describe)
        assert same["psnr"] > 60
        assert wrong[-1]["psnr"] < 24
        assert wrong[-1]["nonmetric_median"] > 0.5
        if describe is not None:
            assert same["id_dist"] < 1e-3
            assert wrong[-1]["id_dist"] > 0.5
    assert np.mean([row["nonmetric_median"] for row in wrong]) > 0.9


def test_the_command_scores_a_folder(benchmark_folder, tmp_path, egg_truth, portrait, capsys):
    from recon3d.cli.main import main

    out = tmp_path / "results"
    truth = egg_truth.vertices, egg_truth.triangles, egg_truth.now7
    for case in ("egg_dark_1", "egg_dark_2", "egg_clean"):
        write_result(out / case / "track_000", *truth, portrait)
    command = ["bench", "--data", str(benchmark_folder), "--out", str(out), "--score-only"]
    assert main(command) == 0
    assert "ALL            3     0     0" in capsys.readouterr().out
    written = json.loads((out / "bench.json").read_text())
    assert written["aggregate"]["overall"]["scored"]["psnr"] > 60
    assert (out / "cases.csv").read_text().startswith("case,subject,condition")
    assert main(["bench", "--data", str(tmp_path / "none"), "--out", str(out)]) == 2
    assert "manifest.json" in capsys.readouterr().err
