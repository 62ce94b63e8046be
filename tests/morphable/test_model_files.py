"""Models on disk: what is written comes back, what is damaged is refused in one line."""

import dataclasses
import zipfile

import numpy as np
import pytest

from recon3d.assets import asset_path
from recon3d.errors import ModelError
from recon3d.morphable import load_model, save_model
from recon3d.morphable.storage import check_model


@pytest.fixture(scope="module")
def model():
    return load_model()


def test_round_trip_and_same_bytes(model, tmp_path):
    first, second = tmp_path / "a.npz", tmp_path / "b.npz"
    save_model(first, model)
    again = load_model(first)
    save_model(second, again)
    assert first.read_bytes() == second.read_bytes()
    for field in dataclasses.fields(model):
        a, b = getattr(model, field.name), getattr(again, field.name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype and (a == b).all(), field.name
        elif isinstance(a, (str, tuple)):
            assert a == b
    assert (model.landmarks.triangle == again.landmarks.triangle).all()
    assert not list(tmp_path.glob(".*")), "no partial file is left"


def test_unknown_name_says_what_there_is():
    with pytest.raises(ModelError, match="recon3d model build"):
        load_model("no-such-model")


def test_not_a_model_file(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="damaged"):
        load_model(path)
    np.savez(path, mean=np.zeros((3, 3)))
    with pytest.raises(ModelError, match="lacks"):
        load_model(path)


def test_cut_off_file(model, tmp_path):
    path = tmp_path / "x.npz"
    save_model(path, model)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ModelError, match=str(path)):
        load_model(path)


def test_pickles_are_never_opened(model, tmp_path):
    path = tmp_path / "x.npz"
    save_model(path, model)
    with zipfile.ZipFile(path, "a") as archive, archive.open("name2.npy", "w") as file:
        np.lib.format.write_array(file, np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(ModelError):
        load_model(path)


def test_arrays_that_do_not_belong_together(model):
    broken = dataclasses.replace(model, mirror=model.mirror[:-1])
    with pytest.raises(ModelError, match="mirror has shape"):
        check_model(broken, "here")
    triangles = model.triangles.copy()
    triangles[0, 0] = model.n_vertices
    with pytest.raises(ModelError, match="points outside"):
        check_model(dataclasses.replace(model, triangles=triangles), "here")


def test_folder_that_cannot_be_written(model, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises((ModelError, OSError)):
        save_model(blocked / "x.npz", model)


def test_assets_are_looked_for_where_the_environment_says(tmp_path, monkeypatch):
    (tmp_path / "face_model").mkdir()
    (tmp_path / "face_model" / "thing").write_text("")
    monkeypatch.setenv("RECON3D_ASSETS", str(tmp_path))
    assert asset_path("face_model", "thing") == tmp_path / "face_model" / "thing"
    assert asset_path("face_model", "recon3d_face.npz").parent.parent != tmp_path
