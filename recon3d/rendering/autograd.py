"""The native kernels as differentiable torch functions (CPU tensors)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from recon3d.errors import InputError
from recon3d.rendering import _kernels as kernels
from recon3d.rendering import native


class ToCameraNative(torch.autograd.Function):
    """Vertices (N or 1, V, 3), R (N or 1, 3, 3) and t (N or 1, 3) to camera axes, (N, V, 3).

    A product with so small a matrix is not worth waking a thread pool for, as torch's would.
    """

    @staticmethod
    def forward(ctx, vertices, R, t):
        arrays = _arrays(vertices, R, t)
        views = max(len(array) for array in arrays)
        out = np.empty((views, vertices.shape[1], 3))
        bad = 0
        for n in range(views):
            bad += kernels.transform_points(*(_row(a, n) for a in arrays), out[n])
        if bad:
            wrong = int((~np.isfinite(arrays[0]).all(-1)).sum())
            raise InputError(
                f"vertices: {wrong} of them are not finite"
                if wrong
                else "R or t is not finite, or they move the vertices beyond all bounds"
            )
        ctx.arrays = arrays
        return torch.from_numpy(out).to(vertices.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        gradients = [np.zeros(array.shape) for array in ctx.arrays]
        vertices, R, _ = ctx.arrays
        (grad,) = _arrays(grad)
        for n, part in enumerate(grad):
            kernels.transform_points_backward(
                _row(vertices, n), _row(R, n), part, *(_row(g, n) for g in gradients)
            )
        return tuple(torch.from_numpy(g.astype(grad.dtype, copy=False)) for g in gradients)


class InverseNative(torch.autograd.Function):
    """The inverse of matrices (N, 3, 3)."""

    @staticmethod
    def forward(ctx, K):
        (matrix,) = _arrays(K)
        try:
            ctx.inverse = np.linalg.inv(matrix.astype(np.float64))
        except np.linalg.LinAlgError:
            raise InputError("K is not an invertible intrinsic matrix") from None
        return torch.from_numpy(ctx.inverse)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        transposed = ctx.inverse.swapaxes(1, 2)
        return torch.from_numpy(-transposed @ grad.double().numpy() @ transposed)


class RasteriseNative(torch.autograd.Function):
    """Camera-space vertices (N, V, 3) and K^-1 (N, 3, 3) to fragments."""

    @staticmethod
    def forward(ctx, vertices, Kinv, triangles, K, size, near, cull_backfaces):
        points = vertices.detach().numpy().astype(np.float64)
        inverse = Kinv.detach().numpy().astype(np.float64)
        dtype = torch.float64 if vertices.dtype == torch.float64 else torch.float32
        shape = (len(points), *size)
        pix_to_face = torch.empty(shape, dtype=torch.int64)
        zbuf = torch.empty(shape, dtype=dtype)
        barycentric = torch.empty((*shape, 3), dtype=dtype)
        out = zip(pix_to_face.numpy(), zbuf.numpy(), barycentric.numpy())
        for p, k, ki, view in zip(points, K, inverse, out):
            native.draw(p, triangles, k, ki, size, near, cull_backfaces, view)
        face = pix_to_face.numpy()
        ctx.arrays = (points, inverse, triangles, face)
        ctx.save_for_backward(zbuf, barycentric)
        ctx.mark_non_differentiable(pix_to_face)
        ctx.set_materialize_grads(False)
        return pix_to_face, zbuf, barycentric

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, _, grad_zbuf, grad_barycentric):
        if grad_zbuf is None and grad_barycentric is None:
            return (None,) * 7
        points, inverse, triangles, face = ctx.arrays
        zbuf, barycentric = ctx.saved_tensors
        grad_zbuf = torch.zeros_like(zbuf) if grad_zbuf is None else grad_zbuf.contiguous()
        if grad_barycentric is None:
            grad_barycentric = torch.zeros_like(barycentric)
        grad_barycentric = grad_barycentric.contiguous()
        gradients = [
            native.draw_backward(points[n], triangles, inverse[n], face[n], *arrays)
            for n, arrays in enumerate(
                zip(*(x.numpy() for x in (zbuf, barycentric, grad_zbuf, grad_barycentric)))
            )
        ]
        grad_vertices = torch.from_numpy(np.stack([g[0] for g in gradients])).to(zbuf.dtype)
        grad_Kinv = torch.from_numpy(np.stack([g[1] for g in gradients]))
        return grad_vertices, grad_Kinv, None, None, None, None, None


class InterpolateNative(torch.autograd.Function):
    """Attributes (N or 1, V, C) at the fragments of N views."""

    @staticmethod
    def forward(ctx, barycentric, attributes, pix_to_face, triangles):
        face = pix_to_face.numpy()
        bary = barycentric.detach().contiguous().numpy()
        values = attributes.detach().contiguous().numpy()
        shared = len(values) == 1
        out = np.empty((*face.shape, values.shape[-1]), values.dtype)
        for n, (f, b) in enumerate(zip(face, bary)):
            native.interpolate(f, b, values[0 if shared else n], triangles, out[n])
        ctx.arrays = (face, triangles)
        ctx.save_for_backward(barycentric, attributes)
        return torch.from_numpy(out)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        face, triangles = ctx.arrays
        barycentric, attributes = ctx.saved_tensors
        bary = barycentric.contiguous().numpy()
        values = attributes.contiguous().numpy()
        grad = grad.contiguous().numpy()
        shared = len(values) == 1
        grad_barycentric = np.empty_like(bary)
        results = [
            native.interpolate_backward(
                f, b, values[0 if shared else n], triangles, g, grad_barycentric[n]
            )
            for n, (f, b, g) in enumerate(zip(face, bary, grad))
        ]
        grad_attributes = np.stack(results)
        if shared:
            grad_attributes = grad_attributes.sum(0, keepdims=True)
        return (
            torch.from_numpy(grad_barycentric),
            torch.from_numpy(grad_attributes),
            None,
            None,
        )


def _row(array: np.ndarray, view: int) -> np.ndarray:
    """The part of a view; arrays with one row serve all views."""
    return array[0 if len(array) == 1 else view]


class SampleNative(torch.autograd.Function):
    """Pyramid (N or 1, P, C), uv (N, H, W, 2) and level (N, H, W) to (N, H, W, C)."""

    @staticmethod
    def forward(ctx, pyramid, uv, level, mask, table):
        rows = np.asarray(table, np.int64)
        flat, places, levels, wanted = _arrays(pyramid, uv, level, mask)
        shared = len(flat) == 1
        out = [
            native.sample(flat[0 if shared else n], rows, *view)
            for n, view in enumerate(zip(places, levels, wanted))
        ]
        ctx.table = rows
        ctx.save_for_backward(pyramid, uv, level, mask)
        return torch.from_numpy(np.stack(out))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        pyramid, uv, level, mask = ctx.saved_tensors
        flat, places, levels, wanted, grad = _arrays(pyramid, uv, level, mask, grad)
        shared = len(flat) == 1
        grad_pyramid = grad_uv = grad_level = None
        views = list(enumerate(zip(places, levels, wanted)))
        if ctx.needs_input_grad[0]:
            parts = [native.sample_adjoint(ctx.table, *view, grad[n]) for n, view in views]
            grad_pyramid = np.sum(parts, 0)[None] if shared else np.stack(parts)
            grad_pyramid = torch.from_numpy(grad_pyramid)
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            parts = [
                native.sample_coordinates(flat[0 if shared else n], ctx.table, *view, grad[n])
                for n, view in views
            ]
            grad_uv = torch.from_numpy(np.stack([part[0] for part in parts]))
            grad_level = torch.from_numpy(np.stack([part[1] for part in parts]))
        return grad_pyramid, grad_uv, grad_level, None, None


class AntialiasNative(torch.autograd.Function):
    """Image (N, H, W, C), camera-space vertices (N, V, 3) and K^-1 (N, 3, 3) to an image."""

    @staticmethod
    def forward(ctx, image, vertices, Kinv, pix_to_face, zbuf, triangles, neighbours, max_steps):
        points, inverse = _arrays(vertices.double(), Kinv.double())
        pictures, face, depth = _arrays(image, pix_to_face, zbuf)
        found = [
            native.outlines(p, triangles, neighbours, ki, f, z, max_steps)
            for p, ki, f, z in zip(points, inverse, face, depth)
        ]
        ctx.arrays = (points, inverse, triangles, found)
        ctx.dtype = vertices.dtype
        ctx.save_for_backward(image)
        return torch.from_numpy(
            np.stack([native.blend(p, *view[1:]) for p, view in zip(pictures, found)])
        )

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        points, inverse, triangles, found = ctx.arrays
        (pictures,) = _arrays(*ctx.saved_tensors)
        parts = [
            native.blend_backward(p, triangles, ki, picture, *view, g)
            for p, ki, picture, view, g in zip(points, inverse, pictures, found, grad.numpy())
        ]
        grad_image, grad_points, grad_Kinv = (torch.from_numpy(np.stack(p)) for p in zip(*parts))
        return grad_image, grad_points.to(ctx.dtype), grad_Kinv, None, None, None, None, None


def splat(table, uv: Tensor, level: Tensor, mask: Tensor, grad: Tensor) -> Tensor:
    """Adjoint of the texture lookup, summed over views: (P, C)."""
    rows = np.asarray(table, np.int64)
    total = None
    for view in zip(*_arrays(uv, level, mask, grad)):
        part = native.sample_adjoint(rows, *view)
        total = part if total is None else total + part
    return torch.from_numpy(total)


def barycentric_jacobian(fragments, points: Tensor, triangles: Tensor, Kinv: Tensor) -> Tensor:
    """d barycentric / d (x, y) of the pixel: (N, H, W, 3, 2)."""
    corners = native.check_triangles(triangles.numpy(), points.shape[-2])
    views = zip(
        *_arrays(points.double(), Kinv.double()),
        *_arrays(fragments.pix_to_face, fragments.zbuf, fragments.barycentric),
    )
    return torch.from_numpy(
        np.stack([native.barycentric_jacobian(p, corners, *rest) for p, *rest in views])
    )


def _arrays(*tensors: Tensor) -> tuple[np.ndarray, ...]:
    return tuple(tensor.detach().contiguous().numpy() for tensor in tensors)
