"""Face embeddings and verification."""

from recon3d.recognition.embedders import (
    EMBEDDERS,
    VERIFY_THRESHOLD,
    FaceEmbedder,
    distance,
    load_embedder,
    verify,
)

__all__ = [
    "EMBEDDERS",
    "VERIFY_THRESHOLD",
    "FaceEmbedder",
    "distance",
    "load_embedder",
    "verify",
]
