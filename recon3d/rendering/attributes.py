"""Vertex attributes at the pixels, and vertex normals."""

from __future__ import annotations

import torch
from torch import Tensor

from recon3d.checks import check_shape
from recon3d.errors import InputError
from recon3d.rendering.fragments import Fragments


def interpolate_attributes(
    fragments: Fragments,
    attributes: Tensor,  # (V, C) or (N, V, C)
    triangles: Tensor,  # (F, 3)
) -> Tensor:
    """Interpolate attributes given at vertices.

    Differentiable with respect to the attributes and, through the barycentric coordinates, to the
    vertices and the camera. With ``triangles`` = the texture triangles and ``attributes`` =
    texture coordinates it gives the texture coordinates of every pixel.

    Parameters
    ----------
    fragments : Fragments of N views
    attributes : (V, C) for all views or (N, V, C)
    triangles : (F, 3) int64, the corners of each triangle in ``attributes``

    Returns
    -------
    (N, H, W, C), 0 where empty
    """
    if attributes.ndim == 2:
        attributes = attributes[None]
    check_shape(attributes, "N V C", "attributes")
    check_shape(triangles, "F 3", "triangles")
    views = len(fragments.pix_to_face)
    if len(attributes) not in (1, views):
        raise InputError(f"attributes are for {len(attributes)} views, fragments for {views}")
    attributes = attributes.to(fragments.barycentric.dtype)
    if attributes.device.type == "cpu" and fragments.barycentric.device.type == "cpu":
        from recon3d.rendering.autograd import InterpolateNative
        from recon3d.rendering.native import check_triangles

        corners = check_triangles(triangles.numpy(), attributes.shape[1])
        return InterpolateNative.apply(
            fragments.barycentric, attributes, fragments.pix_to_face, corners
        )
    from recon3d.rendering.reference import interpolate_attributes_reference

    return interpolate_attributes_reference(fragments, attributes, triangles)


def interpolate_attributes_adjoint(
    fragments: Fragments,
    grad: Tensor,  # (N, H, W, C)
    triangles: Tensor,  # (F, 3)
    count: int,
) -> Tensor:
    """The transpose of `interpolate_attributes`: gather pictures at the vertices.

    Parameters
    ----------
    fragments : Fragments of N views
    grad : (N, H, W, C)
    triangles : (F, 3) int64
    count : int, number of vertices V

    Returns
    -------
    (V, C), summed over views
    """
    check_shape(grad, "N H W C", "grad")
    with torch.enable_grad():
        attributes = grad.new_zeros((count, grad.shape[-1])).requires_grad_()
        frozen = Fragments(
            fragments.pix_to_face, fragments.zbuf.detach(), fragments.barycentric.detach()
        )
        image = interpolate_attributes(frozen, attributes, triangles)
        return torch.autograd.grad(image, attributes, grad.to(image.dtype))[0]


def vertex_normals(
    vertices: Tensor,  # (..., V, 3) mm
    triangles: Tensor,  # (F, 3)
) -> Tensor:
    """Unit normals at the vertices, the mean of the adjoining triangles weighted by area.

    Parameters
    ----------
    vertices : (..., V, 3)
    triangles : (F, 3) int64, counter-clockwise seen from outside

    Returns
    -------
    (..., V, 3), pointing outside; 0 at vertices without a triangle of positive area
    """
    check_shape(vertices, "... V 3", "vertices")
    check_shape(triangles, "F 3", "triangles")
    corners = vertices[..., triangles, :]
    face = torch.linalg.cross(
        corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :]
    )
    total = torch.zeros_like(vertices)
    for i in range(3):
        total = total.index_add(-2, triangles[:, i], face)
    return normalise(total)


def vertex_normals_adjoint(vertices: Tensor, triangles: Tensor, grad: Tensor) -> Tensor:
    """The transposed Jacobian of `vertex_normals` at ``vertices``, applied to ``grad``.

    Parameters
    ----------
    vertices, grad : (..., V, 3)
    triangles : (F, 3) int64

    Returns
    -------
    (..., V, 3)
    """
    with torch.enable_grad():
        point = vertices.detach().requires_grad_()
        return torch.autograd.grad(vertex_normals(point, triangles), point, grad)[0]


def normalise(vectors: Tensor) -> Tensor:
    """Vectors (..., 3) of length 1; those of length 0 stay 0, with gradient 0."""
    square = (vectors * vectors).sum(-1, keepdim=True)
    usable = square > 0
    # the square root is kept away from 0, where its derivative is infinite
    return torch.where(
        usable, vectors * torch.rsqrt(torch.where(usable, square, 1.0)), torch.zeros_like(vectors)
    )
