"""PyTorch3D's rasteriser behind our interface, imported on use."""

from __future__ import annotations

import importlib.metadata
import importlib.util

import torch

from recon3d.errors import BackendUnavailable, InputError
from recon3d.rendering.fragments import Fragments
from recon3d.rendering.interface import BackendStatus, Rasteriser

REMEDY = (
    'pip install --no-build-isolation "git+https://github.com/facebookresearch/pytorch3d.git@v0.7.9"'
    "  (see third_party/README.md)"
)


class PyTorch3DRasteriser(Rasteriser):
    """`pytorch3d.renderer.MeshRasterizer` with one face per pixel and no blur.

    Differs from ours in details: pixel centres that lie exactly on an edge belong to no triangle,
    and K must have no skew.

    Raises
    ------
    BackendUnavailable
        If the library cannot be imported.

    References
    ----------
    Ravi et al., Accelerating 3D deep learning with PyTorch3D, arXiv:2007.08501.
    """

    name = "pytorch3d"

    def __init__(self):
        try:
            import pytorch3d.renderer
            import pytorch3d.structures
            import pytorch3d.utils
        except ImportError as error:
            raise BackendUnavailable(
                f"the rasteriser pytorch3d cannot be used here ({error}); install it with\n  "
                f"{REMEDY}"
            ) from error
        self._library = pytorch3d

    def rasterise(self, vertices, triangles, K, size, *, near, cull_backfaces):
        library = self._library
        views = len(vertices)
        if not len(triangles):
            empty = vertices.new_full((views, *size), -1.0)
            return Fragments(empty.long(), empty, vertices.new_full((views, *size, 3), -1.0))
        if bool((K[:, 0, 1] != 0).any()):
            raise InputError("the rasteriser pytorch3d cannot take a K with skew; use native")
        identity = torch.eye(3, dtype=K.dtype, device=K.device).expand(views, 3, 3)
        cameras = library.utils.cameras_from_opencv_projection(
            R=identity,
            tvec=K.new_zeros(views, 3),
            camera_matrix=K,
            image_size=torch.tensor([size], device=K.device).expand(views, 2),
        )
        rasteriser = library.renderer.MeshRasterizer(
            cameras=cameras,
            raster_settings=library.renderer.RasterizationSettings(
                image_size=size,
                blur_radius=0.0,
                faces_per_pixel=1,
                perspective_correct=True,
                cull_backfaces=cull_backfaces,
                z_clip_value=near,
                # coarse-to-fine overflows its bins on fine meshes and there is none on the CPU
                bin_size=0,
            ),
        )
        meshes = library.structures.Meshes(verts=list(vertices), faces=[triangles.long()] * views)
        found = rasteriser(meshes)
        packed = found.pix_to_face[..., 0]
        offset = torch.arange(views, device=packed.device)[:, None, None] * len(triangles)
        return Fragments(
            torch.where(packed >= 0, packed - offset, packed),
            found.zbuf[..., 0],
            found.bary_coords[..., 0, :],
        )


def status() -> BackendStatus:
    """Whether PyTorch3D is here, found without importing it."""
    if importlib.util.find_spec("pytorch3d") is None:
        return BackendStatus("pytorch3d", False, "not installed (optional)", REMEDY)
    try:
        version = importlib.metadata.version("pytorch3d")
    except importlib.metadata.PackageNotFoundError:
        version = "unknown version"
    devices = "CPU and CUDA" if torch.cuda.is_available() else "CPU"
    return BackendStatus("pytorch3d", True, f"{version}, {devices}")
