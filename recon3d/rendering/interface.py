"""One interface to several rasterisers."""

from __future__ import annotations

import abc
import importlib.util
from dataclasses import dataclass

import torch
from torch import Tensor

from recon3d.checks import check_shape
from recon3d.errors import InputError
from recon3d.rendering._constants import DEFAULT_NEAR
from recon3d.rendering.fragments import Fragments


class Rasteriser(abc.ABC):
    """Finds the nearest triangle behind every pixel centre.

    All members take the same batched arguments, checked by `rasterise`, and return the same
    `Fragments`, with gradients to vertices, K, R and t through torch's autograd.
    """

    name: str

    @abc.abstractmethod
    def rasterise(
        self,
        vertices: Tensor,  # (N, V, 3) camera axes, mm
        triangles: Tensor,  # (F, 3)
        K: Tensor,  # (N, 3, 3) px
        size: tuple[int, int],
        *,
        near: float,
        cull_backfaces: bool,
    ) -> Fragments:
        """Rasterise N views of meshes given in camera coordinates."""


class NativeRasteriser(Rasteriser):
    """Numba kernels on the CPU; tensors of other devices are brought there and back."""

    name = "native"

    def rasterise(self, vertices, triangles, K, size, *, near, cull_backfaces):
        from recon3d.rendering.autograd import RasteriseNative
        from recon3d.rendering.native import check_triangles

        device = vertices.device
        corners = check_triangles(triangles.cpu().numpy(), vertices.shape[-2])
        cpu_K = K.cpu()
        pix_to_face, zbuf, barycentric = RasteriseNative.apply(
            vertices.cpu(),
            invert(cpu_K),
            corners,
            cpu_K.detach().double().numpy(),
            size,
            near,
            cull_backfaces,
        )
        return Fragments(pix_to_face.to(device), zbuf.to(device), barycentric.to(device))


def rasterise(
    vertices: Tensor,  # (V, 3) or (N, V, 3) mm, world
    triangles: Tensor,  # (F, 3)
    K: Tensor,  # (3, 3) or (N, 3, 3) px
    R: Tensor,  # (3, 3) or (N, 3, 3)
    t: Tensor,  # (3,) or (N, 3) mm
    size: tuple[int, int],
    backend: str | Rasteriser = "auto",
    *,
    near: float = DEFAULT_NEAR,
    cull_backfaces: bool = False,
) -> Fragments:
    """Rasterise a mesh, or one mesh a view, in N views.

    Parameters
    ----------
    vertices : (V, 3) or (N, V, 3) float, world axes, mm
    triangles : (F, 3) int64
    K : (3, 3) or (N, 3, 3), px
    R, t : (3, 3) and (3,), or (N, 3, 3) and (N, 3), world to camera: ``x_cam = R x + t``
    size : (H, W)
    backend : {"auto", "native", "reference", "pytorch3d"} or Rasteriser
        ``auto`` takes pytorch3d for CUDA tensors where it is installed, native otherwise.
    near : float, mm
        Surface nearer than this is not drawn.
    cull_backfaces : bool
        Leave out triangles seen from behind.

    Returns
    -------
    Fragments
        Differentiable with respect to vertices, K, R and t inside triangles; `antialias` adds the
        gradient at outlines.

    Raises
    ------
    ShapeError, InputError
        If an argument has the wrong shape, or a vertex is not finite.
    BackendUnavailable
        If the back end cannot be used here.

    Examples
    --------
    >>> import torch
    >>> vertices = torch.tensor([[-1.0, -1.0, 5.0], [1.0, -1.0, 5.0], [0.0, 1.0, 5.0]])
    >>> K = torch.tensor([[20.0, 0.0, 4.0], [0.0, 20.0, 4.0], [0.0, 0.0, 1.0]])
    >>> f = rasterise(vertices, torch.tensor([[0, 1, 2]]), K, torch.eye(3), torch.zeros(3), (8, 8))
    >>> f.pix_to_face.shape, int(f.mask.sum())
    (torch.Size([1, 8, 8]), 32)
    """
    from recon3d.rendering.native import check_size

    size = check_size(size)
    check_shape(vertices, "... V 3", "vertices")
    check_shape(triangles, "F 3", "triangles")
    dtype = vertices.dtype
    if not dtype.is_floating_point:
        raise InputError(f"vertices must be floating point, got {dtype}")
    in_camera, K = to_camera(vertices, K, R, t)
    member = backend if isinstance(backend, Rasteriser) else get_rasteriser(backend, vertices)
    return member.rasterise(in_camera, triangles, K, size, near=near, cull_backfaces=cull_backfaces)


def to_camera(vertices: Tensor, K: Tensor, R: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Vertices in camera axes, and K, both with one row a view.

    Parameters
    ----------
    vertices, K, R, t : as in `rasterise`

    Returns
    -------
    vertices : (N, V, 3) mm
    K : (N, 3, 3) px
    """
    K, R, t = (value.to(vertices) for value in (K, R, t))
    K = K[None] if K.ndim == 2 else K
    R = R[None] if R.ndim == 2 else R
    t = t[None] if t.ndim == 1 else t
    check_shape(vertices, "... V 3", "vertices")
    check_shape(K, "N 3 3", "K")
    check_shape(R, "N 3 3", "R")
    check_shape(t, "N 3", "t")
    if not bool(torch.isfinite(K).all()):
        raise InputError("K is not finite")
    counts = {len(K), len(R), len(t)} | ({len(vertices)} if vertices.ndim == 3 else set())
    views = max(counts)
    if not counts <= {1, views}:
        raise InputError(f"vertices, K, R and t are for different numbers of views: {counts}")
    vertices = vertices[None] if vertices.ndim == 2 else vertices
    if vertices.device.type == "cpu":
        from recon3d.rendering.autograd import ToCameraNative

        points = ToCameraNative.apply(vertices, R, t)
    else:
        points = vertices @ R.mT + t[:, None, :]
        if not bool(torch.isfinite(points).all()):
            raise InputError("vertices, R or t are not finite")
    return points.expand(views, -1, -1), K.expand(views, 3, 3)


def invert(K: Tensor) -> Tensor:
    """K^-1 (N, 3, 3), in double precision on the CPU.

    Raises
    ------
    InputError
        If a matrix has no inverse.
    """
    if K.device.type == "cpu":
        from recon3d.rendering.autograd import InverseNative

        return InverseNative.apply(K)
    return torch.linalg.inv(K)


@dataclass(frozen=True)
class BackendStatus:
    """Whether a rasteriser can be used here.

    Attributes
    ----------
    name : str
    available : bool
    detail : str
        Version and devices, or what is missing.
    remedy : str
        The one line that makes it available; empty where it is.
    """

    name: str
    available: bool
    detail: str
    remedy: str = ""


def get_rasteriser(name: str = "auto", like: Tensor | None = None) -> Rasteriser:
    """The rasteriser of that name.

    Parameters
    ----------
    name : {"auto", "native", "reference", "pytorch3d"}
    like : Tensor, optional
        Tells ``auto`` the device.

    Raises
    ------
    InputError
        If there is no such rasteriser.
    BackendUnavailable
        If its library is not installed.
    """
    if name == "auto":
        on_gpu = like is not None and like.device.type == "cuda"
        name = "pytorch3d" if on_gpu and importlib.util.find_spec("pytorch3d") else "native"
    if name == "native":
        return NativeRasteriser()
    if name == "reference":
        from recon3d.rendering.reference import ReferenceRasteriser

        return ReferenceRasteriser()
    if name == "pytorch3d":
        from recon3d.rendering.pytorch3d import PyTorch3DRasteriser

        return PyTorch3DRasteriser()
    raise InputError(
        f"there is no rasteriser {name!r}; there are auto, native, reference and pytorch3d"
    )


def available_backends() -> list[BackendStatus]:
    """What rasterisers can be used here, the one that ``auto`` takes on a CPU first."""
    import numba

    from recon3d.rendering._threads import get_num_threads
    from recon3d.rendering.pytorch3d import status

    return [
        BackendStatus(
            "native", True, f"numba {numba.__version__}, CPU, {get_num_threads()} threads"
        ),
        BackendStatus("reference", True, f"torch {torch.__version__}, slow"),
        status(),
    ]
