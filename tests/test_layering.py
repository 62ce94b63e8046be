"""Data flows downwards only: no package imports one that lies below it."""

import ast
from pathlib import Path

import pytest

import recon3d

ROOT = Path(recon3d.__file__).parent
ORDER = (
    "geometry",
    "media",
    "restoration",
    "tracking",
    "rendering",  # meshes and cameras, no model: landmark embeddings are found by rendering
    "morphable",
    "fitting",
    "texturing",
    "frontal",
    "scenes",
    "refinement",
    "calibration",
    "recognition",
    "evaluation",
    "exporting",
    "viewing",
    "pipeline",
    "live",
    "comparing",
    "cli",
)


def imported(path: Path):
    """(line, first name below recon3d) of every import, those inside functions included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
            if node.module == "recon3d":
                names = [f"recon3d.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "recon3d" and len(parts) > 1:
                yield node.lineno, parts[1]


@pytest.mark.parametrize("package", ORDER)
def test_imports_only_what_lies_above(package):
    files = sorted((ROOT / package).rglob("*.py")) or [ROOT / f"{package}.py"]
    allowed = set(ORDER[: ORDER.index(package) + 1])
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in files
        for line, name in imported(path)
        if name in ORDER and name not in allowed
    ]
    assert not wrong
