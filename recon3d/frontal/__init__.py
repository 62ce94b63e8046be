"""The frontal view: layout, neutral render, and what lies around the face."""

from recon3d.frontal.settings import FrontalSettings

__all__ = ["FrontalSettings", "frontal_camera", "render_frontal", "settle"]


def __getattr__(name: str):
    # The rasteriser's compiler is loaded with the first picture, not with the command line.
    if name in ("render_frontal", "frontal_error_sources"):
        from recon3d.frontal import view

        return getattr(view, name)
    if name == "settle":
        from recon3d.frontal.settling import settle

        return settle
    if name == "frontal_camera":
        from recon3d.frontal.camera import frontal_camera

        return frontal_camera
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
