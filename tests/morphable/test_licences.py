"""The ledger: what a run rests on, and what --permissive-only makes of it."""

import dataclasses

import cv2
import numpy as np
import pytest

from recon3d import licences
from recon3d.cli.main import main
from recon3d.errors import ModelError
from recon3d.morphable import load_model, save_model


def test_embedded_model_is_permissive():
    entry = licences.of_model(load_model())
    assert entry.kind == "face model" and entry.permissive and entry.origin
    assert entry.as_dict()["permissive"] is True
    licences.require_permissive([entry, licences.MEDIAPIPE, licences.DLIB])


@pytest.mark.parametrize("licence", ["CC-BY-NC-SA-4.0", "non-commercial research", ""])
def test_conditions_are_refused_by_name(licence):
    model = dataclasses.replace(load_model(), name="theirs", licence=licence)
    with pytest.raises(ModelError, match=r"theirs.*--permissive-only"):
        licences.require_permissive([licences.MEDIAPIPE, licences.of_model(model)])


def test_run_refuses_before_it_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RECON3D_HOME", str(tmp_path / "home"))
    model = dataclasses.replace(load_model(), name="theirs", licence="CC-BY-NC-SA-4.0")
    save_model(tmp_path / "home" / "models" / "theirs.npz", model)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((64, 64, 3), np.uint8))
    out = tmp_path / "out"
    arguments = ["run", str(tmp_path / "a.png"), "--out", str(out), "--model", "theirs"]
    assert main([*arguments, "--permissive-only"]) == 2
    assert "CC-BY-NC-SA-4.0" in capsys.readouterr().err
    assert not out.exists()
