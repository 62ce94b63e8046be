"""What a rasteriser returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Fragments:
    """The nearest surface point behind each pixel centre, for N views.

    The meaning is PyTorch3D's with one face per pixel, but for ``pix_to_face``, which counts
    within the mesh of its own view.

    Attributes
    ----------
    pix_to_face : (N, H, W) int64
        Triangle seen at the pixel, -1 where there is none.
    zbuf : (N, H, W)
        Depth along the camera's axis, mm; -1 where empty.
    barycentric : (N, H, W, 3)
        Perspective-correct barycentric coordinates in that triangle; -1 where empty.
    """

    pix_to_face: Tensor
    zbuf: Tensor
    barycentric: Tensor

    @property
    def mask(self) -> Tensor:
        """(N, H, W) bool, where something is seen."""
        return self.pix_to_face >= 0

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return tuple(self.pix_to_face.shape[-2:])
