"""recon3d: a short, bad, many-angled clip of a face in; a mesh, a frontal view and a map of what
was seen out."""

__version__ = "0.1.0"
