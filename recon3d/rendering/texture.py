"""Texture lookup with mip levels, and its adjoint."""

from __future__ import annotations

import torch
from torch import Tensor

from recon3d.checks import check_shape
from recon3d.errors import InputError
from recon3d.rendering.fragments import Fragments


def sample_texture(
    texture: Tensor,  # (T, S, C) or (N, T, S, C)
    uv: Tensor,  # (N, H, W, 2)
    level: Tensor | None = None,  # (N, H, W)
    mask: Tensor | None = None,  # (N, H, W) bool
) -> Tensor:
    """Look a texture up, bilinearly and, where levels are given, between two mip levels.

    Row 0 of the texture is at v = 1; texel (row, col) has its centre at u = (col + 0.5) / S,
    v = 1 - (row + 0.5) / T. Beyond the outermost centres the border's colour is returned.
    Differentiable with respect to texture, uv and level.

    Parameters
    ----------
    texture : (T, S, C) for all views or (N, T, S, C)
    uv : (N, H, W, 2)
    level : (N, H, W), optional
        Mip level: 0 is the texture itself, 1 half its size, ... See `texture_level`.
    mask : (N, H, W) bool, optional
        Pixels to fill, such as ``fragments.mask``; the others become 0.

    Returns
    -------
    (N, H, W, C)

    References
    ----------
    Williams, Pyramidal parametrics, SIGGRAPH 1983.
    """
    if texture.ndim == 3:
        texture = texture[None]
    check_shape(texture, "N T S C", "texture")
    uv, level, mask = _lookup(uv.to(texture), level, mask)
    if len(texture) not in (1, len(uv)):
        raise InputError(f"texture is for {len(texture)} views, uv for {len(uv)}")
    levels = 1 if level is None else _level_count(*texture.shape[1:3])
    pyramid, table = _flatten(mip_pyramid(texture, levels))
    if level is None:
        level = torch.zeros_like(uv[..., 0])
    if texture.device.type == "cpu":
        from recon3d.rendering.autograd import SampleNative

        return SampleNative.apply(pyramid, uv, level, mask, table)
    from recon3d.rendering.reference import sample_pyramid_reference

    return sample_pyramid_reference(pyramid, table, uv, level, mask)


def sample_texture_adjoint(
    grad: Tensor,  # (N, H, W, C)
    uv: Tensor,  # (N, H, W, 2)
    texture_size: tuple[int, int],
    level: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """The transpose of `sample_texture`: splat pictures into one texture.

    ``(sample_texture(x, uv) * y).sum() == (x * sample_texture_adjoint(y, uv, size)).sum()``.

    Parameters
    ----------
    grad : (N, H, W, C)
    uv : (N, H, W, 2)
    texture_size : (T, S)
    level, mask : as in `sample_texture`

    Returns
    -------
    (T, S, C), summed over views
    """
    check_shape(grad, "N H W C", "grad")
    rows, cols = texture_size
    uv, level, mask = _lookup(uv.to(grad), level, mask)
    levels = 1 if level is None else _level_count(rows, cols)
    if level is None:
        level = torch.zeros_like(uv[..., 0])
    with torch.enable_grad():
        texture = torch.zeros(
            (1, rows, cols, grad.shape[-1]), dtype=grad.dtype, device=grad.device
        ).requires_grad_()
        pyramid, table = _flatten(mip_pyramid(texture, levels))
        if grad.device.type == "cpu":
            from recon3d.rendering.autograd import splat

            weights = splat(table, uv, level, mask, grad)[None]
        else:
            from recon3d.rendering.reference import sample_pyramid_reference

            samples = sample_pyramid_reference(pyramid, table, uv, level, mask)
            (weights,) = torch.autograd.grad(samples, pyramid, grad, retain_graph=True)
        if levels == 1:
            return weights.reshape(rows, cols, -1)
        return torch.autograd.grad(pyramid, texture, weights)[0][0]


def mip_pyramid(texture: Tensor, levels: int | None = None) -> list[Tensor]:
    """The texture and its repeated halvings by 2x2 means.

    Parameters
    ----------
    texture : (N, T, S, C)
    levels : int, optional
        How many, the texture included; all of them down to one texel by default.

    Returns
    -------
    list of (N, max(1, T >> l), max(1, S >> l), C)
    """
    check_shape(texture, "N T S C", "texture")
    levels = _level_count(*texture.shape[1:3]) if levels is None else levels
    pyramid = [texture]
    for _ in range(levels - 1):
        last = pyramid[-1].permute(0, 3, 1, 2)
        half = tuple(max(1, n // 2) for n in last.shape[-2:])
        # the adaptive mean equals the 2x2 mean for even sizes and covers all texels of odd ones
        pyramid.append(torch.nn.functional.adaptive_avg_pool2d(last, half).permute(0, 2, 3, 1))
    return pyramid


def attribute_derivatives(
    fragments: Fragments,
    vertices: Tensor,  # (V, 3) or (N, V, 3) mm
    triangles: Tensor,  # (F, 3)
    K: Tensor,
    R: Tensor,
    t: Tensor,
    attributes: Tensor,  # (U, C)
    attribute_triangles: Tensor,  # (F, 3)
) -> Tensor:
    """How fast an interpolated attribute changes from pixel to pixel.

    Exact within a triangle. No gradient flows through the result.

    Parameters
    ----------
    fragments : Fragments, what `rasterise` returned for the same vertices and camera
    vertices, triangles, K, R, t : as in `rasterise`
    attributes : (U, C), for example texture coordinates
    attribute_triangles : (F, 3), the corners of each triangle in ``attributes``

    Returns
    -------
    (N, H, W, C, 2)
        d attribute / d (x, y), units of the attribute per px; 0 where empty.
    """
    from recon3d.rendering.interface import invert, to_camera

    check_shape(attributes, "U C", "attributes")
    with torch.no_grad():
        points, K = to_camera(vertices, K, R, t)
        Kinv = invert(K)
        if points.device.type == "cpu":
            from recon3d.rendering.autograd import barycentric_jacobian

            jacobian = barycentric_jacobian(fragments, points, triangles, Kinv)
        else:
            from recon3d.rendering.reference import barycentric_jacobian_reference

            jacobian = barycentric_jacobian_reference(fragments, points, triangles, Kinv)
        corners = attributes.to(jacobian)[attribute_triangles[fragments.pix_to_face.clamp(min=0)]]
        return torch.einsum("nhwic,nhwid->nhwcd", corners, jacobian)


def texture_level(derivatives: Tensor, texture_size: tuple[int, int]) -> Tensor:
    """The mip level at which one texel is about as large as a pixel's longer footprint.

    Parameters
    ----------
    derivatives : (N, H, W, 2, 2)
        d uv / d (x, y), from `attribute_derivatives`.
    texture_size : (T, S)

    Returns
    -------
    (N, H, W), at least 0
    """
    check_shape(derivatives, "N H W 2 2", "derivatives")
    rows, cols = texture_size
    texels = derivatives * derivatives.new_tensor([cols, rows])[:, None]
    square = (texels * texels).sum(-2).amax(-1)
    return 0.5 * torch.log2(square.clamp(min=1.0))


def _lookup(uv, level, mask):
    check_shape(uv, "N H W 2", "uv")
    if level is not None:
        check_shape(level, "N H W", "level")
        level = level.to(uv)
    if mask is None:
        mask = torch.ones(uv.shape[:-1], dtype=torch.bool, device=uv.device)
    check_shape(mask, "N H W", "mask")
    for name, value in (("level", level), ("mask", mask)):
        if value is not None and value.shape != uv.shape[:-1]:
            raise InputError(f"{name} is {tuple(value.shape)}, uv is {tuple(uv.shape)}")
    return uv, level, mask


def _level_count(rows: int, cols: int) -> int:
    return max(rows, cols).bit_length()


def _flatten(pyramid: list[Tensor]):
    """All levels in one (N, P, C) tensor, and a table (L, 3) of offset, rows, cols."""
    table, offset = [], 0
    for part in pyramid:
        table.append((offset, part.shape[1], part.shape[2]))
        offset += part.shape[1] * part.shape[2]
    flat = [part.flatten(1, 2) for part in pyramid]
    return (flat[0] if len(flat) == 1 else torch.cat(flat, 1)), table
