"""The Open3D window, notebook widgets and stills of a result. Never the renderer of record."""

from recon3d.viewing.live import draw_live, write_live, write_live_page
from recon3d.viewing.scene import MODES, ViewScene, load_scene, make_scene
from recon3d.viewing.still import render_still

__all__ = [
    "MODES",
    "ViewScene",
    "draw_live",
    "in_notebook",
    "load_scene",
    "make_scene",
    "render_still",
    "write_live",
    "write_live_page",
]


def in_notebook() -> bool:
    """Whether what is displayed is shown by a notebook that understands HTML."""
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    shell = get_ipython()
    return shell is not None and getattr(shell, "kernel", None) is not None
