"""recon3d: a short, bad, many-angled clip of a face in; a mesh, a frontal view and a map of what
was seen out.

Examples
--------
>>> import recon3d
>>> sorted(recon3d.__all__)
['Reconstruction', 'RunSettings', '__version__', 'load_settings', 'reconstruct', 'reconstruct_all']
"""

__version__ = "0.1.0"

__all__ = [
    "Reconstruction",
    "RunSettings",
    "__version__",
    "load_settings",
    "reconstruct",
    "reconstruct_all",
]

_HOMES = {
    "Reconstruction": "recon3d.api",
    "reconstruct": "recon3d.api",
    "reconstruct_all": "recon3d.api",
    "RunSettings": "recon3d.settings",
    "load_settings": "recon3d.settings",
}


def __getattr__(name: str):
    # `import recon3d` stays cheap: the command line asks it for nothing but its version.
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
