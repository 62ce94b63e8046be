"""Texture space: unwrapping, multi-frame super-resolution, light removal, evidence."""

from recon3d.texturing.settings import TexturingSettings, plain_average

__all__ = ["TexturingSettings", "choose_views", "fuse_texture", "plain_average"]


def __getattr__(name: str):
    # The kernels' compiler is loaded with the first texture, not with the command line.
    if name in ("choose_views", "fuse_texture"):
        from recon3d.texturing import fusion

        return getattr(fusion, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
