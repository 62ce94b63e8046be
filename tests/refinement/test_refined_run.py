"""The main job with a refiner, from the command line to the files."""

import json

import cv2
import numpy as np
import pytest
import skimage.data
from test_refiners import write_onnx

from recon3d.cli.main import main


@pytest.fixture(scope="module")
def portrait(tmp_path_factory):
    path = tmp_path_factory.mktemp("portrait") / "portrait.png"
    image = cv2.resize(skimage.data.astronaut()[:360, 40:400], (180, 180))
    cv2.imwrite(str(path), image[..., ::-1])
    return path


def _picture(path):
    return cv2.imread(str(path)).astype(int)


@pytest.mark.slow
def test_a_run_with_a_refiner_of_ones_own(portrait, tmp_path):
    pytest.importorskip("onnxruntime")
    network = write_onnx(tmp_path / "net.onnx", amount=2.0)
    out = tmp_path / "out"
    options = ["--refiner", str(network), "--set", "refinement.licence=Apache-2.0"]
    assert main(["run", str(portrait), "--out", str(out), *options]) == 0
    track = out / "track_000"
    refiner = json.loads((track / "metrics.json").read_text())["refiner"]
    assert refiner["applied"] and refiner["kind"] == "onnx"
    residual = refiner["residual_rms_255"]
    assert residual is None or residual <= 2.0
    manifest = json.loads((out / "manifest.json").read_text())
    assert {"refinement"} <= {s["stage"] for s in manifest["stages"]}
    entry = [x for x in manifest["licences"] if x["kind"] == "refiner"]
    assert len(entry) == 1 and entry[0]["licence"] == "Apache-2.0" and entry[0]["permissive"]
    frontal, raw = _picture(track / "frontal.png"), _picture(track / "frontal_raw.png")
    assert np.abs(frontal - raw).max() > 5

    # Switched off, the rest is taken from the earlier run and nothing is refined.
    assert main(["run", str(portrait), "--out", str(out), "--no-refine", "--resume"]) == 0
    metrics = json.loads((track / "metrics.json").read_text())
    assert metrics["refiner"] == {"applied": False, "why": "switched off (--no-refine)"}
    np.testing.assert_array_equal(
        _picture(track / "frontal.png"), _picture(track / "frontal_raw.png")
    )


def test_permissive_only_refuses_a_refiner_of_unknown_licence(portrait, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    network = write_onnx(tmp_path / "net.onnx")
    out = tmp_path / "out"
    status = main(
        ["run", str(portrait), "--out", str(out), "--refiner", str(network), "--permissive-only"]
    )
    assert status == 2 and "net.onnx" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("name", ["missing.onnx", "notes.txt"])
def test_a_bad_refiner_is_one_line(portrait, tmp_path, capsys, name):
    (tmp_path / "notes.txt").write_text("x")
    out = tmp_path / "out"
    status = main(["run", str(portrait), "--out", str(out), "--refiner", str(tmp_path / name)])
    seen = capsys.readouterr().err
    assert status == 2 and name in seen and seen.count("\n") == 1
    assert not out.exists()
