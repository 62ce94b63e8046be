"""Linear face models: load, save, evaluate and build them."""

from recon3d.morphable.albedo import (
    AlbedoPosterior,
    albedo_coefficients,
    albedo_posterior,
    model_albedo,
)
from recon3d.morphable.embedding import closest_embedding, embed, embedding_of_vertices
from recon3d.morphable.storage import check_model, list_models, load_model, save_model

__all__ = [
    "AlbedoPosterior",
    "BuildSettings",
    "albedo_coefficients",
    "albedo_posterior",
    "build_model",
    "check_model",
    "closest_embedding",
    "embed",
    "embedding_of_vertices",
    "list_models",
    "load_model",
    "model_albedo",
    "save_model",
]


def __getattr__(name: str):
    # Building pulls in solvers that loading a model does not need.
    if name in ("BuildSettings", "build_model"):
        from recon3d.morphable import build

        return getattr(build, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
