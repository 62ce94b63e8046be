"""The notebooks run from the first cell to the last, and are committed with small outputs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="the extra 'notebook' is not installed")
pytest.importorskip("nbclient", reason="the extra 'notebook' is not installed")
pytest.importorskip("ipykernel", reason="the extra 'notebook' is not installed")

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
sys.path.insert(0, str(FOLDER))

from execute import LARGEST, execute, notebooks  # noqa: E402

NAMES = [
    "01_first_reconstruction",
    "02_inside_the_fit",
    "03_multi_frame_super_resolution",
    "04_own_models_and_refiners",
]


def outputs(notebook) -> list:
    return [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]


def test_all_are_there():
    assert [path.stem for path in notebooks()] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_committed_small_and_with_outputs(name):
    path = FOLDER / f"{name}.ipynb"
    assert path.stat().st_size < LARGEST
    text = path.read_text(encoding="utf-8")
    assert str(Path.home()) not in text and "/tmp/" not in text
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    kinds = {kind for o in outputs(notebook) for kind in o.get("data", {})}
    assert "image/jpeg" in kinds or "image/png" in kinds
    for output in outputs(notebook):
        assert output.output_type != "error" and output.get("name") != "stderr"
    # Explained, not only run: a word before every few cells.
    words = sum(len(c.source.split()) for c in notebook.cells if c.cell_type == "markdown")
    assert words > 200


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """Shared, so that the clip is reconstructed once."""
    return tmp_path_factory.mktemp("notebooks")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_runs(name, cache):
    notebook = execute(FOLDER / f"{name}.ipynb", cache)
    assert all(o.output_type != "error" for o in outputs(notebook))
    if name == NAMES[0]:
        pages = [o.data.get("text/html", "") for o in outputs(notebook) if "data" in o]
        assert any("recon3dMesh(host" in page for page in pages), "no mesh inline"
