"""Differentiable rasterisation behind one interface, shading and texture lookup.

Names are loaded on first use, so that importing this package costs nothing.
"""

from __future__ import annotations

import importlib

_WHERE = {
    "BackendStatus": "interface",
    "Fragments": "fragments",
    "Rasteriser": "interface",
    "antialias": "antialiasing",
    "attribute_derivatives": "texture",
    "available_backends": "interface",
    "draw_mesh": "drawing",
    "edge_neighbours": "antialiasing",
    "get_rasteriser": "interface",
    "interpolate_attributes": "attributes",
    "interpolate_attributes_adjoint": "attributes",
    "irradiance": "shading",
    "irradiance_adjoint": "shading",
    "mip_pyramid": "texture",
    "over": "drawing",
    "rasterise": "interface",
    "sample_texture": "texture",
    "sample_texture_adjoint": "texture",
    "shade": "shading",
    "spherical_harmonics": "shading",
    "texture_level": "texture",
    "vertex_normals": "attributes",
    "vertex_normals_adjoint": "attributes",
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
