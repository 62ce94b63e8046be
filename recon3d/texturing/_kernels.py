"""Numba kernels: gathering from vertices and pixels, scattering to texels and pixels."""

from __future__ import annotations

import numpy as np
from numba import njit


def kernel(function):
    """Compile lazily without the GIL; cached on disk where that is possible."""
    try:
        return njit(cache=True, nogil=True, fastmath=True)(function)
    except RuntimeError:  # no writable place for the cache
        return njit(nogil=True, fastmath=True)(function)


@kernel
def interpolate(values, corners, barycentric):
    """(V, C) at vertices to (P, C) inside triangles."""
    p, c = len(corners), values.shape[1]
    out = np.empty((p, c), np.float32)
    for i in range(p):
        a, b, d = corners[i, 0], corners[i, 1], corners[i, 2]
        u, v, w = barycentric[i, 0], barycentric[i, 1], barycentric[i, 2]
        for k in range(c):
            out[i, k] = u * values[a, k] + v * values[b, k] + w * values[d, k]
    return out


@kernel
def splat(values, x, y, height, width):
    """Scatter (Q, C) values onto pixels with bilinear weights; outside is lost."""
    q, c = values.shape
    out = np.zeros((height, width, c), np.float32)
    for i in range(q):
        px, py = x[i] - np.float32(0.5), y[i] - np.float32(0.5)
        j, r = int(np.floor(px)), int(np.floor(py))
        if j < 0 or r < 0 or j >= width - 1 or r >= height - 1:
            continue
        fx, fy = px - j, py - r
        for k in range(c):
            value = values[i, k]
            low, high = value * (1 - fy), value * fy
            out[r, j, k] += low * (1 - fx)
            out[r, j + 1, k] += low * fx
            out[r + 1, j, k] += high * (1 - fx)
            out[r + 1, j + 1, k] += high * fx
    return out


@kernel
def gather(image, x, y):
    """Adjoint of `splat`: (H, W, C) pixels to (Q, C)."""
    height, width, c = image.shape
    q = len(x)
    out = np.zeros((q, c), np.float32)
    for i in range(q):
        px, py = x[i] - np.float32(0.5), y[i] - np.float32(0.5)
        j, r = int(np.floor(px)), int(np.floor(py))
        if j < 0 or r < 0 or j >= width - 1 or r >= height - 1:
            continue
        fx, fy = px - j, py - r
        for k in range(c):
            out[i, k] = (1 - fy) * ((1 - fx) * image[r, j, k] + fx * image[r, j + 1, k]) + fy * (
                (1 - fx) * image[r + 1, j, k] + fx * image[r + 1, j + 1, k]
            )
    return out


@kernel
def splat_texture(texture, index, factor, x, y, height, width):
    """`splat` of ``factor * texture[index]`` without forming the product."""
    q = len(index)
    out = np.zeros((height, width, 3), np.float32)
    for i in range(q):
        px, py = x[i] - np.float32(0.5), y[i] - np.float32(0.5)
        j, r = int(np.floor(px)), int(np.floor(py))
        if j < 0 or r < 0 or j >= width - 1 or r >= height - 1:
            continue
        fx, fy = px - j, py - r
        at = index[i]
        for k in range(3):
            value = factor[i, k] * texture[at, k]
            low, high = value * (1 - fy), value * fy
            out[r, j, k] += low * (1 - fx)
            out[r, j + 1, k] += low * fx
            out[r + 1, j, k] += high * (1 - fx)
            out[r + 1, j + 1, k] += high * fx
    return out


@kernel
def gather_texture(out, image, index, factor, x, y):
    """Adjoint of `splat_texture`, added to ``out`` (P, 3)."""
    height, width, _ = image.shape
    for i in range(len(index)):
        px, py = x[i] - np.float32(0.5), y[i] - np.float32(0.5)
        j, r = int(np.floor(px)), int(np.floor(py))
        if j < 0 or r < 0 or j >= width - 1 or r >= height - 1:
            continue
        fx, fy = px - j, py - r
        at = index[i]
        for k in range(3):
            value = (1 - fy) * ((1 - fx) * image[r, j, k] + fx * image[r, j + 1, k]) + fy * (
                (1 - fx) * image[r + 1, j, k] + fx * image[r + 1, j + 1, k]
            )
            out[at, k] += factor[i, k] * value


@kernel
def add_samples(total, colour, square, index, value, shade, weight, density, mean, bound, robust):
    """Add light-free samples to running sums, each weighted by how well it agrees.

    The weight of a sample is its belief times its information (the square of sampling density and
    of the light on it), less where a channel is saturated. Returns (Q,) relative errors.
    """
    error = np.zeros(len(index), np.float32)
    for i in range(len(index)):
        at = index[i]
        peak = max(value[i, 0], max(value[i, 1], value[i, 2]))
        unsaturated = min(max((np.float32(0.995) - peak) * 20, np.float32(0.02)), np.float32(1))
        light = density[i] * shade[i, 1]
        w = weight[i] * light * light * unsaturated
        a = max(value[i, 0], np.float32(0)) / shade[i, 0]
        b = max(value[i, 1], np.float32(0)) / shade[i, 1]
        c = max(value[i, 2], np.float32(0)) / shade[i, 2]
        if robust:
            level = np.float32(0.09) + mean[at, 0] + mean[at, 1] + mean[at, 2]
            e = (abs(a - mean[at, 0]) + abs(b - mean[at, 1]) + abs(c - mean[at, 2])) / level
            error[i] = e
            r = 1 / (1 + (e / bound) * (e / bound))
            w = w * r * r
            square[at] += w * e * e
        total[at] += w
        colour[at, 0] += w * a
        colour[at, 1] += w * b
        colour[at, 2] += w * c
    return error


@kernel
def pair_laplacian(x, pairs, weights):
    """``L x`` of a weighted graph given by its edges, (P, 3)."""
    out = np.zeros_like(x)
    for e in range(len(pairs)):
        i, j, w = pairs[e, 0], pairs[e, 1], weights[e]
        for k in range(3):
            d = w * (x[i, k] - x[j, k])
            out[i, k] += d
            out[j, k] -= d
    return out


@kernel
def flow_normal_equations(u, v, nx, ny, gx, gy, weight, step):
    """Normal equations of a cubic B-spline flow plus one shift, from points of a picture.

    Only the 4 x 4 control points around a point, and the shift, have a part in it. ``u, v`` are
    places in units of the control points' spacing; unknowns are all x movements (row by row, the
    shift last), then all y movements.
    """
    k = nx * ny + 1
    normal = np.zeros((2 * k, 2 * k))
    right = np.zeros(2 * k)
    place = np.empty(17, np.int64)
    basis = np.empty(17)
    bx = np.empty(4)
    by = np.empty(4)
    place[16] = k - 1
    basis[16] = 1.0
    for i in range(len(u)):
        if weight[i] <= 0:
            continue
        j, r = int(np.floor(u[i])), int(np.floor(v[i]))
        for axis in range(2):
            f = u[i] - j if axis == 0 else v[i] - r
            b = bx if axis == 0 else by
            b[0] = (1 - f) ** 3 / 6
            b[1] = (3 * f**3 - 6 * f**2 + 4) / 6
            b[2] = (-3 * f**3 + 3 * f**2 + 3 * f + 1) / 6
            b[3] = f**3 / 6
        for a in range(4):
            for c in range(4):
                place[4 * a + c] = (r + a) * nx + j + c
                basis[4 * a + c] = by[a] * bx[c]
        w = weight[i]
        xx, xy, yy = w * gx[i] * gx[i], w * gx[i] * gy[i], w * gy[i] * gy[i]
        for a in range(17):
            p = place[a]
            right[p] += w * gx[i] * basis[a] * step[i]
            right[k + p] += w * gy[i] * basis[a] * step[i]
            for c in range(17):
                q = place[c]
                both = basis[a] * basis[c]
                normal[p, q] += xx * both
                normal[p, k + q] += xy * both
                normal[k + p, k + q] += yy * both
    for p in range(k):
        for q in range(k):
            normal[k + q, p] = normal[p, k + q]
    return normal, right
