"""Stage results on disk, so that an interrupted run can go on where it stopped.

One compressed .npz a result: arrays as arrays, everything else as one JSON text. Nothing is
pickled, so a state file can be read without running code from it.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from recon3d import types
from recon3d.files import atomic_write
from recon3d.types import FaceModel

_TYPES = {
    name: value
    for name, value in vars(types).items()
    if isinstance(value, type) and dataclasses.is_dataclass(value)
}


def save_state(path: Path, value, key: str) -> None:
    """Write a result (dataclasses of `recon3d.types`, containers, arrays) under a fingerprint.

    A `FaceModel` inside the value is stored by name only.
    """
    arrays: dict[str, np.ndarray] = {}
    document = {"key": key, "value": _encode(value, arrays)}
    # Packed in memory first: a zip file that cannot be finished on a full disk complains once more
    # when it is collected.
    stream = io.BytesIO()
    np.savez_compressed(stream, __json__=np.array(json.dumps(document)), **arrays)
    atomic_write(path, stream.getbuffer())


def load_state(path: Path, key: str, model: Callable[[str], FaceModel]):
    """Read a result back.

    Parameters
    ----------
    path : Path
    key : str
        The fingerprint it must have been saved under.
    model : callable
        Gives the face model of a name.

    Returns
    -------
    The value, or None where the file is missing, damaged or of another fingerprint.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            document = json.loads(str(archive["__json__"]))
            if document["key"] != key:
                return None
            return _decode(document["value"], archive, model)
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    except Exception as error:
        # zipfile and zlib raise their own errors on a file that was cut off
        if type(error).__module__ in ("zipfile", "zlib"):
            return None
        raise


def _encode(value, arrays: dict[str, np.ndarray]):
    if isinstance(value, FaceModel):
        return {"@model": value.name}
    if dataclasses.is_dataclass(value):
        fields = {
            f.name: _encode(getattr(value, f.name), arrays) for f in dataclasses.fields(value)
        }
        return {"@type": type(value).__name__, "fields": fields}
    if isinstance(value, np.ndarray):
        name = f"a{len(arrays)}"
        arrays[name] = value
        return {"@array": name}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple):
        return {"@tuple": [_encode(v, arrays) for v in value]}
    if isinstance(value, list):
        return [_encode(v, arrays) for v in value]
    if isinstance(value, dict):
        return {"@dict": [[str(k), _encode(v, arrays)] for k, v in value.items()]}
    return value


def _decode(value, archive, model):
    if isinstance(value, list):
        return [_decode(v, archive, model) for v in value]
    if not isinstance(value, dict):
        return value
    if "@model" in value:
        return model(value["@model"])
    if "@array" in value:
        return archive[value["@array"]]
    if "@tuple" in value:
        return tuple(_decode(v, archive, model) for v in value["@tuple"])
    if "@dict" in value:
        return {k: _decode(v, archive, model) for k, v in value["@dict"]}
    kind = _TYPES[value["@type"]]
    return kind(**{k: _decode(v, archive, model) for k, v in value["fields"].items()})
