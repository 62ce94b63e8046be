"""The Open3D window and stills of a result. Never the renderer of record."""

from recon3d.viewing.scene import MODES, ViewScene, load_scene
from recon3d.viewing.still import render_still

__all__ = ["MODES", "ViewScene", "load_scene", "render_still"]
