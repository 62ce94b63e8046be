"""The smaller commands answer, for people and for programs."""

import json
import subprocess
import sys

from recon3d.cli.main import main


def test_doctor_json(capsys):
    assert main(["doctor", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["rasteriser native"]["ok"] and rows["face model"]["ok"] and rows["self-test"]["ok"]
    for row in rows.values():
        assert row["ok"] or row["mend"], row
    assert rows["torch"]["version"] and rows["python"]["version"].startswith("3.11")
    assert rows["face model"]["licence"] == "MIT"
    assert rows["landmark networks"]["licence"] == "Apache-2.0"


def test_doctor_for_people(capsys):
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "Optional parts" in text and "[Apache-2.0]" in text
    assert text.splitlines()[-1].startswith("recon3d works here")


def test_help_is_quick():
    """Wanted under 0.7 s on a quiet machine; the libraries that make it slow stay out."""
    script = (
        "import sys; from recon3d.cli.main import main; main(['--help']);"
        "slow = {'torch', 'numpy', 'cv2', 'mediapipe', 'pydantic', 'trimesh', 'open3d'};"
        "sys.exit(', '.join(slow & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_model_commands(capsys):
    assert main(["model", "list"]) == 0
    assert "recon3d" in capsys.readouterr().out
    assert main(["model", "info"]) == 0
    text = capsys.readouterr().out
    assert "MIT" in text and "jawOpen" in text


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip()[0].isdigit()


def test_view_without_a_result(tmp_path, capsys):
    assert main(["view", str(tmp_path)]) == 2
    assert "holds no result" in capsys.readouterr().err
