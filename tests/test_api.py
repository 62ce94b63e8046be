"""The Python interface, frozen: what these tests name may grow and may not change."""

from __future__ import annotations

import inspect
import subprocess
import sys

import cv2
import numpy as np
import pytest

import recon3d
from recon3d import types
from recon3d.errors import InputError

SURFACE = {
    "reconstruct": "(inputs, settings=None, *, out=None, resume=False, permissive_only=False, "
    "progress=True)",
    "reconstruct_all": "(inputs, settings=None, *, out=None, resume=False, "
    "permissive_only=False, progress=True)",
    "load_settings": "(config=None, assignments=None, **options)",
}
METHODS = {
    "save": "(self, folder)",
    "show": "(self, mode='texture')",
    "still": "(self, mode='texture', *, yaw=25.0, pitch=0.0, size=(512, 512))",
}
PROPERTIES = {"evidence", "mesh"}
FIELDS = ("track", "fit", "texture", "frontal", "metrics", "manifest")


def bare(function) -> str:
    """The signature without its annotations."""
    signature = inspect.signature(function)
    empty = inspect.Parameter.empty
    parameters = [p.replace(annotation=empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=parameters, return_annotation=empty))


def test_names():
    assert set(recon3d.__all__) == {*SURFACE, "Reconstruction", "RunSettings", "__version__"}
    assert set(recon3d.__all__) <= set(dir(recon3d))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        recon3d.nonsense  # noqa: B018


@pytest.mark.parametrize("name", SURFACE)
def test_functions(name):
    function = getattr(recon3d, name)
    assert bare(function) == SURFACE[name] and function.__doc__


def test_reconstruction():
    kind = recon3d.Reconstruction
    assert issubclass(kind, types.Reconstruction)
    assert tuple(kind.__dataclass_fields__) == FIELDS
    public = {n for n in vars(kind) if not n.startswith("_")} - set(FIELDS)
    assert public == {*METHODS, *PROPERTIES}
    for name, signature in METHODS.items():
        assert bare(getattr(kind, name)) == signature
    for name in PROPERTIES:
        assert isinstance(vars(kind)[name], property) and vars(kind)[name].__doc__


def test_importing_is_cheap():
    script = (
        "import sys, recon3d; recon3d.__version__;"
        "sys.exit(', '.join({'numpy', 'torch', 'cv2', 'pydantic'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_nouns_import_nothing_below_them():
    script = (
        "import sys, recon3d.types;"
        "sys.exit(', '.join(m for m in sys.modules if m.startswith('recon3d.')"
        " and m != 'recon3d.types') or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def portrait(tmp_path_factory):
    import skimage.data

    path = tmp_path_factory.mktemp("portrait") / "face.png"
    cv2.imwrite(str(path), skimage.data.astronaut()[:360, 40:400, ::-1])
    return path


@pytest.fixture(scope="module")
def result(portrait):
    settings = {"texturing": {"size": 256}, "tracking": {"jitter": 2, "tiles_per_frame": 0}}
    return recon3d.reconstruct(portrait, settings, progress=False)


def test_what_comes_out(result):
    assert isinstance(result, recon3d.Reconstruction)
    assert "1 frames" in repr(result) and "11695 vertices" in repr(result)
    picture = np.asarray(result.frontal)
    assert picture.shape == (512, 512, 3) and picture.dtype == np.uint8
    assert np.array_equal(picture, result.frontal.image)
    assert np.asarray(result.frontal, np.float32).dtype == np.float32
    assert result.evidence.shape == (512, 512, 3)
    assert result.manifest["status"] == "done"
    assert "<img" in result._repr_html_()


def test_mesh(result):
    mesh = result.mesh
    model = result.fit.model
    original = np.asarray(mesh.vertex_attributes["model_vertex"], int)
    np.testing.assert_allclose(mesh.vertices, result.fit.neutral[original])
    assert len(mesh.faces) == len(model.triangles)
    assert mesh.visual.uv.shape == (len(mesh.vertices), 2)
    assert mesh.visual.material.baseColorTexture.size == (256, 256)
    assert mesh.export(file_type="glb")[:4] == b"glTF"


@pytest.mark.parametrize("mode", ["texture", "evidence", "uncertainty", "error", "plain"])
def test_still(result, mode):
    picture = result.still(mode, size=(120, 160))
    assert picture.shape == (160, 120, 3) and len(np.unique(picture.reshape(-1, 3), axis=0)) > 50


def test_saving_is_a_run(result, tmp_path):
    from recon3d.exporting import load_result

    folder = result.save(tmp_path / "kept")
    assert (folder / "report.html").stat().st_size > 100_000
    assert (folder / "manifest.json").is_file()
    again = load_result(folder)
    np.testing.assert_allclose(again.vertices, result.fit.neutral, atol=1e-4)
    np.testing.assert_array_equal(again.frontal, result.frontal.image)


def test_resuming_from_a_folder(portrait, tmp_path, result, capsys):
    settings = {"texturing": {"size": 256}, "tracking": {"jitter": 2, "tiles_per_frame": 0}}
    first = recon3d.reconstruct_all(portrait, settings, out=tmp_path, progress=False)
    assert len(first) == 1
    recon3d.reconstruct(portrait, settings, out=tmp_path, resume=True)
    assert "fitting: taken from the earlier run" in capsys.readouterr().err
    np.testing.assert_array_equal(first[0].frontal.image, result.frontal.image)


def test_wrong_settings_are_one_clear_error(portrait):
    with pytest.raises(InputError, match="no such setting"):
        recon3d.reconstruct(portrait, {"tracking": {"nonsense": 1}})
    with pytest.raises(InputError, match="no such config"):
        recon3d.reconstruct(portrait, "nonsense")
    with pytest.raises(InputError, match=r"no\.mp4"):
        recon3d.reconstruct("no.mp4")


def test_showing_in_a_notebook(result, monkeypatch):
    import IPython
    import IPython.display

    class Shell:
        kernel = object()

    shown = []
    monkeypatch.setattr(IPython, "get_ipython", lambda: Shell())
    monkeypatch.setattr(IPython.display, "display", shown.append)
    result.show("uncertainty")
    page = shown[0].data
    assert "recon3dMesh(host" in page and '"first": "uncertainty"' in page
    assert len(page) < 600_000 and "http" not in page
