"""The refiner: training pairs, training, inference, and what holds it to the evidence."""

from recon3d.refinement.settings import RefinementSettings, TrainingSettings

SHIPPED_LICENCE = "MIT"
"""Of the weights in ``assets/refiner``."""

__all__ = [
    "SHIPPED_LICENCE",
    "RefinementSettings",
    "TrainingSettings",
    "load_refiner",
    "project_on_evidence",
    "refine_frontal",
    "shipped_path",
]

_WHERE = {
    "load_refiner": "refiners",
    "project_on_evidence": "projection",
    "refine_frontal": "refine",
    "shipped_path": "refiners",
}


def __getattr__(name: str):
    # Networks are loaded with the first picture, not with the command line.
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
