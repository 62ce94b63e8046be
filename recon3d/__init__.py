"""recon3d: a short, bad, many-angled clip of a face in; a mesh, a frontal view and a map of what
was seen out."""

__version__ = "0.1.0"

NOTICE = (
    "This picture is a computed reconstruction and not a photograph; parts of it may be inferred. "
    "It must not be used as the sole means of identifying a person."
)
"""The sentence that travels with every picture and report."""
