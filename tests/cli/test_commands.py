"""The smaller commands answer, for people and for programs."""

import json

from recon3d.cli.main import main


def test_doctor_json(capsys):
    assert main(["doctor", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["rasteriser native"]["ok"] and rows["face model"]["ok"] and rows["self-test"]["ok"]
    for row in rows.values():
        assert row["ok"] or row["mend"], row


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
