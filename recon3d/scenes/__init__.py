"""Scenes with known truth: people who do not exist, seen by bad cameras.

Names are loaded on first use, so that importing this package costs nothing.
"""

from __future__ import annotations

import importlib

_WHERE = {
    "portrait_texture": "portraits",
    "Lamp": "scene",
    "Scene": "scene",
    "SceneTruth": "scene",
    "load_scene": "scene",
    "render_scene": "scene",
    "write_benchmark": "scene",
    "PictureTruth": "truth",
    "ShapeTruth": "truth",
    "portrait_landmarks": "truth",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
