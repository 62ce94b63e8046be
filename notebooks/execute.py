#!/usr/bin/env python3
"""Execute the notebooks, and keep their outputs small enough to be committed.

python notebooks/execute.py [--write] [NAME ...]
"""

from __future__ import annotations

import argparse
import base64
import os
import re
import time
from pathlib import Path

import cv2
import nbformat
import numpy as np
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent
LARGEST = 600 * 1024
"""Bytes of a committed notebook."""

_PICTURE = 30 * 1024
_PAGE = 100 * 1024


def notebooks() -> list[Path]:
    """The notebooks in the order in which they are meant to be read."""
    return sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))


def execute(path: Path, cache: Path | None = None, timeout: int = 300) -> nbformat.NotebookNode:
    """Run every cell in a kernel of its own, in the notebooks' folder.

    Parameters
    ----------
    path : Path
    cache : Path, optional
        Where the notebooks share what they computed; ``out/notebooks`` otherwise.
    timeout : int
        Seconds that one cell may take.

    Returns
    -------
    NotebookNode with its outputs

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        With the cell and its traceback.
    """
    notebook = nbformat.read(path, as_version=4)
    environment = {**os.environ, **({"RECON3D_CACHE": str(cache)} if cache else {})}
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(FOLDER)}},
    )
    client.execute(env=environment)
    return notebook


def slim(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Outputs as they are committed: no progress lines, pictures as JPEG, meshes as stills."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        kept = [o for o in cell.outputs if not (o.output_type == "stream" and o.name == "stderr")]
        for output in kept:
            data = output.get("data", {})
            if len(data.get("image/png", "")) > _PICTURE:
                data["image/jpeg"] = _as_jpeg(data.pop("image/png"))
            page = data.get("text/html", "")
            if len(page) > _PAGE:
                still = re.search(r'<img class="r3d-still" src="([^"]+)"', page)
                picture = f'<img width="360" src="{still[1]}" alt="The mesh"><br>' if still else ""
                data["text/html"] = picture + "<em>Run the cell to turn the mesh.</em>"
        cell.outputs = kept
    return notebook


def _as_jpeg(png: str) -> str:
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(png), np.uint8), cv2.IMREAD_UNCHANGED)
    if picture.ndim == 3 and picture.shape[2] == 4:
        share = picture[..., 3:] / 255
        picture = (picture[..., :3] * share + 255 * (1 - share)).astype(np.uint8)
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 82])[1]
    return base64.b64encode(data.tobytes()).decode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="Beginnings of file names; all when left out.")
    parser.add_argument("--write", action="store_true", help="Keep the outputs in the notebooks.")
    arguments = parser.parse_args()
    for path in notebooks():
        if arguments.names and not path.name.startswith(tuple(arguments.names)):
            continue
        start = time.perf_counter()
        notebook = slim(execute(path))
        print(f"{path.name}: {time.perf_counter() - start:.1f} s")
        if arguments.write:
            nbformat.write(notebook, path)
            print(f"  {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
