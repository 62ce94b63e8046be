"""Face embeddings, verification, and galleries of people."""

from recon3d.recognition.embedders import (
    EMBEDDERS,
    VERIFY_THRESHOLD,
    FaceEmbedder,
    distance,
    load_embedder,
    verify,
)
from recon3d.recognition.templates import (
    FaceTemplate,
    Gallery,
    make_template,
    track_template,
)

__all__ = [
    "EMBEDDERS",
    "VERIFY_THRESHOLD",
    "FaceEmbedder",
    "FaceTemplate",
    "Gallery",
    "distance",
    "load_embedder",
    "make_template",
    "track_template",
    "verify",
]
