"""Differentiable rasterisation behind one interface, shading and texture lookup.

Names are loaded on first use, so that importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

_WHERE = {
    "Fragments": "fragments",
    "Rasteriser": "interface",
    "get_rasteriser": "interface",
    "rasterise": "interface",
    "interpolate_attributes": "attributes",
    "vertex_normals": "attributes",
}

__all__ = sorted(_WHERE)

if TYPE_CHECKING:
    from recon3d.rendering.attributes import interpolate_attributes, vertex_normals
    from recon3d.rendering.fragments import Fragments
    from recon3d.rendering.interface import Rasteriser, get_rasteriser, rasterise


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
