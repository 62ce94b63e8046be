"""Texture space: unwrapping, multi-frame fusion, light removal, evidence."""

from recon3d.texturing.fusion import choose_views, fuse_texture
from recon3d.texturing.settings import TexturingSettings

__all__ = ["TexturingSettings", "choose_views", "fuse_texture"]
