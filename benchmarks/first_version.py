"""The texture as the first version of this project made it, from today's tracks and fits.

    git worktree add --detach ../first d7b2c87
    python benchmarks/texture.py ... --first ../first

That version fused a weighted average of warped frames, with light and exposure taken out. Its own
code runs, in a process of its own; what it is given and what it answers are files.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np


def first_picture(checkout: Path, track, fit, max_views: int, folder: Path) -> np.ndarray:
    """(H, W, 3) uint8, the frontal view of the checkout's code.

    Raises
    ------
    subprocess.CalledProcessError
        If that code fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    given, drawn = folder / "given.npz", folder / "drawn.png"
    arrays: dict[str, np.ndarray] = {}
    document = _flat((track, fit), arrays)
    np.savez(given, __json__=np.array(json.dumps(document)), **arrays)
    command = [sys.executable, __file__, str(given), str(max_views), str(drawn)]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(checkout.resolve())})
    given.unlink()
    return cv2.imread(str(drawn))[..., ::-1]


def _flat(value, arrays: dict[str, np.ndarray]):
    if isinstance(value, np.ndarray):
        key = f"a{len(arrays)}"
        arrays[key] = value
        return {"@array": key}
    if dataclasses.is_dataclass(value):
        fields = {f.name: _flat(getattr(value, f.name), arrays) for f in dataclasses.fields(value)}
        return {"@type": type(value).__name__, "fields": fields}
    if isinstance(value, dict):
        return {"@dict": {str(k): _flat(v, arrays) for k, v in value.items()}}
    if isinstance(value, (list, tuple)):
        return {"@tuple": [_flat(v, arrays) for v in value]}
    return value.item() if isinstance(value, np.generic) else value


def _nouns(value, archive, types):
    """Back again, in the nouns of that version; what it did not know is left out."""
    if not isinstance(value, dict):
        return value
    if "@array" in value:
        return archive[value["@array"]]
    if "@tuple" in value:
        return tuple(_nouns(v, archive, types) for v in value["@tuple"])
    if "@dict" in value:
        return {k: _nouns(v, archive, types) for k, v in value["@dict"].items()}
    noun = getattr(types, value["@type"])
    known = {f.name for f in dataclasses.fields(noun)}
    fields = {k: _nouns(v, archive, types) for k, v in value["fields"].items() if k in known}
    return noun(**fields)


def main() -> None:
    given, max_views, drawn = sys.argv[1:]
    from recon3d import types
    from recon3d.frontal import render_frontal
    from recon3d.texturing import TexturingSettings, fuse_texture

    with np.load(given, allow_pickle=False) as archive:
        track, fit = _nouns(json.loads(str(archive["__json__"])), archive, types)
    texture = fuse_texture(track, fit, TexturingSettings(max_views=int(max_views)))
    cv2.imwrite(drawn, render_frontal(track, fit, texture).raw[..., ::-1])


if __name__ == "__main__":
    main()
