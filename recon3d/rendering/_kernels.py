"""Numba kernels of the native rasteriser.

All kernels work in camera coordinates. With the ray ``d = K^-1 (x, y, 1)`` of a pixel and the
triangle's corners v0, v1, v2, the edge functions ``e_i = (v_j x v_k) . d`` are linear in the
pixel and ::

    barycentric_i = e_i / (e_0 + e_1 + e_2)        depth = det / (e_0 + e_1 + e_2)

with ``det = v0 . (v1 x v2)``: perspective-correct, and valid for triangles that reach behind the
camera, so that no clipping is needed (Olano and Greer, Triangle scan conversion using 2D
homogeneous coordinates, 1997). Neighbours compute a shared edge's function with exactly opposite
signs, which makes the coverage watertight.

Every sum is kept in double precision and the kernels allow no reassociation (no fastmath):
watertightness and the sign tests rest on it. They hold no lock and write to disjoint memory.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from recon3d.rendering._constants import MIN_AREA

TINY = 5e-324


def kernel(function):
    """Compile lazily without the GIL; cached on disk where that is possible."""
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:  # no writable place for the cache
        return njit(nogil=True, error_model="numpy")(function)


@kernel
def setup_triangles(
    vertices, triangles, K, Kinv, height, width, near, cull, start, stop, edges, inverse, box
):
    """Edge functions, 1 / det and pixel bounds of the triangles start..stop.

    edges (F, 9) holds (a, b, c) of the three edge functions a x + b y + c, orientation normalised
    so that inside is positive; inverse (F,) = 1 / |det|; box (F, 4) = first and last row, first
    and last column, empty (first > last) where nothing is drawn.
    """
    v = np.empty((3, 3))
    for f in range(start, stop):
        box[f, 0] = 0
        box[f, 1] = -1
        box[f, 2] = 0
        box[f, 3] = -1
        for i in range(3):
            for k in range(3):
                v[i, k] = vertices[triangles[f, i], k]
        in_front = 0
        for i in range(3):
            if v[i, 2] >= near:
                in_front += 1
        if in_front == 0:
            continue
        for i in range(3):
            j = (i + 1) % 3
            k = (i + 2) % 3
            n0 = v[j, 1] * v[k, 2] - v[j, 2] * v[k, 1]
            n1 = v[j, 2] * v[k, 0] - v[j, 0] * v[k, 2]
            n2 = v[j, 0] * v[k, 1] - v[j, 1] * v[k, 0]
            for m in range(3):
                edges[f, 3 * i + m] = n0 * Kinv[0, m] + n1 * Kinv[1, m] + n2 * Kinv[2, m]
            if i == 0:
                det = v[0, 0] * n0 + v[0, 1] * n1 + v[0, 2] * n2
        if not math.isfinite(det) or det == 0.0:
            continue
        if cull and det > 0:
            continue
        # bounds: the visible corners and the points where edges pierce the near plane
        x_min = math.inf
        x_max = -math.inf
        y_min = math.inf
        y_max = -math.inf
        for i in range(3):
            j = (i + 1) % 3
            if v[i, 2] >= near:
                x = (K[0, 0] * v[i, 0] + K[0, 1] * v[i, 1]) / v[i, 2] + K[0, 2]
                y = (K[1, 0] * v[i, 0] + K[1, 1] * v[i, 1]) / v[i, 2] + K[1, 2]
                x_min = min(x_min, x)
                x_max = max(x_max, x)
                y_min = min(y_min, y)
                y_max = max(y_max, y)
            if (v[i, 2] >= near) != (v[j, 2] >= near):
                s = (near - v[i, 2]) / (v[j, 2] - v[i, 2])
                px = v[i, 0] + s * (v[j, 0] - v[i, 0])
                py = v[i, 1] + s * (v[j, 1] - v[i, 1])
                x = (K[0, 0] * px + K[0, 1] * py) / near + K[0, 2]
                y = (K[1, 0] * px + K[1, 1] * py) / near + K[1, 2]
                x_min = min(x_min, x)
                x_max = max(x_max, x)
                y_min = min(y_min, y)
                y_max = max(y_max, y)
        if not (x_max > 0 and y_max > 0 and x_min < width and y_min < height):
            continue
        if in_front == 3:
            area = (
                abs(det)
                / (v[0, 2] * v[1, 2] * v[2, 2])
                * abs(K[0, 0] * K[1, 1] - K[0, 1] * K[1, 0])
            )
            if area < MIN_AREA:
                continue
        else:
            size = 1.0
            for i in range(3):
                size *= math.sqrt(v[i, 0] ** 2 + v[i, 1] ** 2 + v[i, 2] ** 2)
            if abs(det) < 1e-12 * size:
                continue
        # a hair of slack: the edge functions decide, the bounds must only never lose a pixel
        r0 = math.ceil(max(y_min, 0.0) - 0.500001)
        r1 = math.floor(min(y_max, float(height)) - 0.499999)
        c0 = math.ceil(max(x_min, 0.0) - 0.500001)
        c1 = math.floor(min(x_max, float(width)) - 0.499999)
        r0 = max(r0, 0)
        c0 = max(c0, 0)
        r1 = min(r1, height - 1)
        c1 = min(c1, width - 1)
        if r1 < r0 or c1 < c0:
            continue
        if det < 0:
            for m in range(9):
                edges[f, m] = -edges[f, m]
        inverse[f] = 1.0 / abs(det)
        box[f, 0] = r0
        box[f, 1] = r1
        box[f, 2] = c0
        box[f, 3] = c1


@kernel
def bin_triangles(box, band_rows, bands):
    """Triangles of each band of rows, in ascending order.

    Returns offsets (bands + 1,) and the triangle indices of all bands one after the other.
    """
    offsets = np.zeros(bands + 1, np.int64)
    for f in range(len(box)):
        if box[f, 1] >= box[f, 0]:
            for b in range(box[f, 0] // band_rows, box[f, 1] // band_rows + 1):
                offsets[b + 1] += 1
    for b in range(bands):
        offsets[b + 1] += offsets[b]
    order = np.empty(offsets[bands], np.int32)
    cursor = offsets[:-1].copy()
    for f in range(len(box)):
        if box[f, 1] >= box[f, 0]:
            for b in range(box[f, 0] // band_rows, box[f, 1] // band_rows + 1):
                order[cursor[b]] = f
                cursor[b] += 1
    return offsets, order


@kernel
def rasterise_band(
    edges, inverse, box, order, first, last, row0, row1, near, face_out, zbuf_out, bary_out
):
    """Draw the triangles order[first:last] into the rows row0..row1 (exclusive)."""
    width = face_out.shape[1]
    nearest = np.zeros((row1 - row0, width))  # 1 / z of what was drawn so far
    winner = np.full((row1 - row0, width), -1, np.int32)
    limit = 1.0 / near
    for index in range(first, last):
        f = order[index]
        a0, s0, k0 = edges[f, 0], edges[f, 1], edges[f, 2]
        a1, s1, k1 = edges[f, 3], edges[f, 4], edges[f, 5]
        a2, s2, k2 = edges[f, 6], edges[f, 7], edges[f, 8]
        # a pixel centre on an edge belongs to exactly one of the two triangles that share it
        t0 = 0.0 if a0 > 0 or (a0 == 0 and s0 > 0) else TINY
        t1 = 0.0 if a1 > 0 or (a1 == 0 and s1 > 0) else TINY
        t2 = 0.0 if a2 > 0 or (a2 == 0 and s2 > 0) else TINY
        scale = inverse[f]
        c_first = box[f, 2]
        c_last = box[f, 3]
        wide = c_last - c_first > 6
        q0 = q1 = q2 = 0.0
        if wide:
            q0 = -1.0 / a0 if a0 != 0 else 0.0
            q1 = -1.0 / a1 if a1 != 0 else 0.0
            q2 = -1.0 / a2 if a2 != 0 else 0.0
        for r in range(max(box[f, 0], row0), min(box[f, 1], row1 - 1) + 1):
            y = r + 0.5
            b0 = s0 * y + k0
            b1 = s1 * y + k1
            b2 = s2 * y + k2
            lo = c_first
            hi = c_last
            if wide:
                # shrink the row to where all edge functions may be positive, a pixel to spare
                left = lo - 1.0
                right = hi + 2.0
                if a0 > 0:
                    left = max(left, b0 * q0)
                elif a0 < 0:
                    right = min(right, b0 * q0)
                if a1 > 0:
                    left = max(left, b1 * q1)
                elif a1 < 0:
                    right = min(right, b1 * q1)
                if a2 > 0:
                    left = max(left, b2 * q2)
                elif a2 < 0:
                    right = min(right, b2 * q2)
                if not left <= right + 1e-3:
                    continue
                lo = max(lo, int(left - 0.51))
                hi = min(hi, int(right + 0.51))
            near_row = nearest[r - row0]
            winner_row = winner[r - row0]
            for c in range(lo, hi + 1):
                x = c + 0.5
                e0 = a0 * x + b0
                e1 = a1 * x + b1
                e2 = a2 * x + b2
                # one branch for all three: they are hard to predict
                if (e0 >= t0) & (e1 >= t1) & (e2 >= t2):
                    w = (e0 + e1 + e2) * scale
                    if w > near_row[c] and w <= limit:
                        near_row[c] = w
                        winner_row[c] = f
    for r in range(row0, row1):
        y = r + 0.5
        for c in range(width):
            f = winner[r - row0, c]
            face_out[r, c] = f
            if f < 0:
                zbuf_out[r, c] = -1
                bary_out[r, c, 0] = -1
                bary_out[r, c, 1] = -1
                bary_out[r, c, 2] = -1
                continue
            x = c + 0.5
            e0 = edges[f, 0] * x + (edges[f, 1] * y + edges[f, 2])
            e1 = edges[f, 3] * x + (edges[f, 4] * y + edges[f, 5])
            e2 = edges[f, 6] * x + (edges[f, 7] * y + edges[f, 8])
            s = 1.0 / (e0 + e1 + e2)
            zbuf_out[r, c] = s / inverse[f]
            bary_out[r, c, 0] = e0 * s
            bary_out[r, c, 1] = e1 * s
            bary_out[r, c, 2] = e2 * s


@kernel
def interpolate_rows(face, bary, attributes, triangles, row0, row1, out):
    """out[r, c] = sum_i bary_i attributes[triangles[face, i]], 0 where empty."""
    channels = attributes.shape[1]
    for r in range(row0, row1):
        for c in range(face.shape[1]):
            f = face[r, c]
            if f < 0:
                for k in range(channels):
                    out[r, c, k] = 0
                continue
            i0 = triangles[f, 0]
            i1 = triangles[f, 1]
            i2 = triangles[f, 2]
            for k in range(channels):
                out[r, c, k] = (
                    bary[r, c, 0] * attributes[i0, k]
                    + bary[r, c, 1] * attributes[i1, k]
                    + bary[r, c, 2] * attributes[i2, k]
                )


@kernel
def interpolate_rows_backward(
    face, bary, attributes, triangles, row0, row1, grad, grad_bary, grad_attributes
):
    """Adjoint of `interpolate_rows`: writes grad_bary, adds to grad_attributes."""
    channels = attributes.shape[1]
    for r in range(row0, row1):
        for c in range(face.shape[1]):
            f = face[r, c]
            g0 = 0.0
            g1 = 0.0
            g2 = 0.0
            if f >= 0:
                i0 = triangles[f, 0]
                i1 = triangles[f, 1]
                i2 = triangles[f, 2]
                w0 = bary[r, c, 0]
                w1 = bary[r, c, 1]
                w2 = bary[r, c, 2]
                for k in range(channels):
                    g = grad[r, c, k]
                    g0 += g * attributes[i0, k]
                    g1 += g * attributes[i1, k]
                    g2 += g * attributes[i2, k]
                    grad_attributes[i0, k] += w0 * g
                    grad_attributes[i1, k] += w1 * g
                    grad_attributes[i2, k] += w2 * g
            grad_bary[r, c, 0] = g0
            grad_bary[r, c, 1] = g1
            grad_bary[r, c, 2] = g2


@kernel
def rasterise_rows_backward(
    det, face, zbuf, bary, grad_zbuf, grad_bary, row0, row1, moments, grad_det
):
    """Gather the gradient per triangle.

    The edge functions are ``e_i = (Kinv^T n_i) . (x, y, 1)``; what reaches them is a sum over
    pixels of ``de_i (x, y, 1)``, added to moments (F, 9), and what reaches the determinants is
    added to grad_det (F,).
    """
    for r in range(row0, row1):
        y = r + 0.5
        for c in range(face.shape[1]):
            f = face[r, c]
            if f < 0:
                continue
            gz = grad_zbuf[r, c]
            g0 = grad_bary[r, c, 0]
            g1 = grad_bary[r, c, 1]
            g2 = grad_bary[r, c, 2]
            if gz == 0 and g0 == 0 and g1 == 0 and g2 == 0:
                continue
            x = c + 0.5
            z = zbuf[r, c]
            inverse_sum = z / det[f]  # 1 / (e0 + e1 + e2) = z / det
            common = g0 * bary[r, c, 0] + g1 * bary[r, c, 1] + g2 * bary[r, c, 2] + gz * z
            d0 = (g0 - common) * inverse_sum
            d1 = (g1 - common) * inverse_sum
            d2 = (g2 - common) * inverse_sum
            moments[f, 0] += d0 * x
            moments[f, 1] += d0 * y
            moments[f, 2] += d0
            moments[f, 3] += d1 * x
            moments[f, 4] += d1 * y
            moments[f, 5] += d1
            moments[f, 6] += d2 * x
            moments[f, 7] += d2 * y
            moments[f, 8] += d2
            grad_det[f] += gz * inverse_sum


@kernel
def triangle_determinants(vertices, triangles, out):
    """out (F,) = v0 . (v1 x v2)."""
    for f in range(len(triangles)):
        a = triangles[f, 0]
        b = triangles[f, 1]
        c = triangles[f, 2]
        n0 = vertices[b, 1] * vertices[c, 2] - vertices[b, 2] * vertices[c, 1]
        n1 = vertices[b, 2] * vertices[c, 0] - vertices[b, 0] * vertices[c, 2]
        n2 = vertices[b, 0] * vertices[c, 1] - vertices[b, 1] * vertices[c, 0]
        out[f] = vertices[a, 0] * n0 + vertices[a, 1] * n1 + vertices[a, 2] * n2


@kernel
def scatter_triangle_gradients(
    vertices, triangles, Kinv, moments, grad_det, grad_vertices, grad_Kinv
):
    """From the gathered moments (F, 9) and grad_det (F,) to vertices and K^-1 (both added to)."""
    n = np.empty((3, 3))
    dn = np.empty(3)
    for f in range(len(triangles)):
        used = grad_det[f] != 0
        for m in range(9):
            used = used or moments[f, m] != 0
        if not used:
            continue
        for i in range(3):
            j = triangles[f, (i + 1) % 3]
            k = triangles[f, (i + 2) % 3]
            n[i, 0] = vertices[j, 1] * vertices[k, 2] - vertices[j, 2] * vertices[k, 1]
            n[i, 1] = vertices[j, 2] * vertices[k, 0] - vertices[j, 0] * vertices[k, 2]
            n[i, 2] = vertices[j, 0] * vertices[k, 1] - vertices[j, 1] * vertices[k, 0]
        for i in range(3):
            a = triangles[f, i]
            j = triangles[f, (i + 1) % 3]
            k = triangles[f, (i + 2) % 3]
            for row in range(3):
                grad_vertices[a, row] += grad_det[f] * n[i, row]
                dn[row] = 0.0
                for m in range(3):
                    dn[row] += Kinv[row, m] * moments[f, 3 * i + m]
                    grad_Kinv[row, m] += n[i, row] * moments[f, 3 * i + m]
            # n_i = v_j x v_k
            grad_vertices[j, 0] += vertices[k, 1] * dn[2] - vertices[k, 2] * dn[1]
            grad_vertices[j, 1] += vertices[k, 2] * dn[0] - vertices[k, 0] * dn[2]
            grad_vertices[j, 2] += vertices[k, 0] * dn[1] - vertices[k, 1] * dn[0]
            grad_vertices[k, 0] += dn[1] * vertices[j, 2] - dn[2] * vertices[j, 1]
            grad_vertices[k, 1] += dn[2] * vertices[j, 0] - dn[0] * vertices[j, 2]
            grad_vertices[k, 2] += dn[0] * vertices[j, 1] - dn[1] * vertices[j, 0]


@kernel
def barycentric_jacobian_rows(vertices, triangles, Kinv, det, face, zbuf, bary, row0, row1, out):
    """out (H, W, 3, 2): derivative of the barycentric coordinates by the pixel's x and y."""
    gx = np.empty(3)
    gy = np.empty(3)
    for r in range(row0, row1):
        for c in range(face.shape[1]):
            f = face[r, c]
            if f < 0:
                for i in range(3):
                    out[r, c, i, 0] = 0
                    out[r, c, i, 1] = 0
                continue
            inverse_sum = zbuf[r, c] / det[f]
            for i in range(3):
                j = triangles[f, (i + 1) % 3]
                k = triangles[f, (i + 2) % 3]
                n0 = vertices[j, 1] * vertices[k, 2] - vertices[j, 2] * vertices[k, 1]
                n1 = vertices[j, 2] * vertices[k, 0] - vertices[j, 0] * vertices[k, 2]
                n2 = vertices[j, 0] * vertices[k, 1] - vertices[j, 1] * vertices[k, 0]
                gx[i] = n0 * Kinv[0, 0] + n1 * Kinv[1, 0] + n2 * Kinv[2, 0]
                gy[i] = n0 * Kinv[0, 1] + n1 * Kinv[1, 1] + n2 * Kinv[2, 1]
            sx = gx[0] + gx[1] + gx[2]
            sy = gy[0] + gy[1] + gy[2]
            for i in range(3):
                out[r, c, i, 0] = (gx[i] - bary[r, c, i] * sx) * inverse_sum
                out[r, c, i, 1] = (gy[i] - bary[r, c, i] * sy) * inverse_sum


@kernel
def _cell(coordinate, length):
    """The two texels that a coordinate lies between, clamped to the border, and its fraction."""
    x = coordinate * length - 0.5
    if not x > -1.0:  # also catches NaN, which must not become an index
        x = -1.0
    if x > length:
        x = float(length)
    low = math.floor(x)
    first = min(max(low, 0), length - 1)
    second = min(max(low + 1, 0), length - 1)
    return first, second, x - low


@kernel
def _levels(level, count):
    """First mip level, number of levels to blend (1 or 2), and the share of the second."""
    if not level > 0:
        return 0, 1, 0.0
    if level >= count - 1:
        return count - 1, 1, 0.0
    first = int(level)
    share = level - first
    return first, 1 if share == 0 else 2, share


@kernel
def sample_rows(pyramid, table, uv, level, mask, row0, row1, out):
    """Trilinear lookup. pyramid (P, C): all levels flattened; table (L, 3): offset, rows, cols."""
    channels = pyramid.shape[1]
    for r in range(row0, row1):
        for c in range(uv.shape[1]):
            for k in range(channels):
                out[r, c, k] = 0
            if not mask[r, c]:
                continue
            first, blended, share = _levels(level[r, c], len(table))
            for step in range(blended):
                weight = 1.0 - share if step == 0 else share
                offset = table[first + step, 0]
                rows = table[first + step, 1]
                cols = table[first + step, 2]
                x0, x1, fx = _cell(uv[r, c, 0], cols)
                y0, y1, fy = _cell(1.0 - uv[r, c, 1], rows)
                w00 = weight * (1 - fy) * (1 - fx)
                w01 = weight * (1 - fy) * fx
                w10 = weight * fy * (1 - fx)
                w11 = weight * fy * fx
                for k in range(channels):
                    out[r, c, k] += (
                        w00 * pyramid[offset + y0 * cols + x0, k]
                        + w01 * pyramid[offset + y0 * cols + x1, k]
                        + w10 * pyramid[offset + y1 * cols + x0, k]
                        + w11 * pyramid[offset + y1 * cols + x1, k]
                    )


@kernel
def sample_rows_adjoint(table, uv, level, mask, row0, row1, grad, out):
    """Transpose of `sample_rows`: adds grad (H, W, C) to out (P, C)."""
    channels = out.shape[1]
    for r in range(row0, row1):
        for c in range(uv.shape[1]):
            if not mask[r, c]:
                continue
            first, blended, share = _levels(level[r, c], len(table))
            for step in range(blended):
                weight = 1.0 - share if step == 0 else share
                offset = table[first + step, 0]
                rows = table[first + step, 1]
                cols = table[first + step, 2]
                x0, x1, fx = _cell(uv[r, c, 0], cols)
                y0, y1, fy = _cell(1.0 - uv[r, c, 1], rows)
                w00 = weight * (1 - fy) * (1 - fx)
                w01 = weight * (1 - fy) * fx
                w10 = weight * fy * (1 - fx)
                w11 = weight * fy * fx
                for k in range(channels):
                    g = grad[r, c, k]
                    out[offset + y0 * cols + x0, k] += w00 * g
                    out[offset + y0 * cols + x1, k] += w01 * g
                    out[offset + y1 * cols + x0, k] += w10 * g
                    out[offset + y1 * cols + x1, k] += w11 * g


@kernel
def sample_rows_coordinates(pyramid, table, uv, level, mask, row0, row1, grad, grad_uv, grad_level):
    """Gradient of `sample_rows` with respect to uv and level."""
    channels = pyramid.shape[1]
    for r in range(row0, row1):
        for c in range(uv.shape[1]):
            du = 0.0
            dv = 0.0
            dl = 0.0
            if mask[r, c]:
                first, blended, share = _levels(level[r, c], len(table))
                for step in range(blended):
                    weight = 1.0 - share if step == 0 else share
                    offset = table[first + step, 0]
                    rows = table[first + step, 1]
                    cols = table[first + step, 2]
                    x0, x1, fx = _cell(uv[r, c, 0], cols)
                    y0, y1, fy = _cell(1.0 - uv[r, c, 1], rows)
                    along = 0.0
                    down = 0.0
                    value = 0.0
                    for k in range(channels):
                        p00 = pyramid[offset + y0 * cols + x0, k]
                        p01 = pyramid[offset + y0 * cols + x1, k]
                        p10 = pyramid[offset + y1 * cols + x0, k]
                        p11 = pyramid[offset + y1 * cols + x1, k]
                        g = grad[r, c, k]
                        along += g * ((1 - fy) * (p01 - p00) + fy * (p11 - p10))
                        down += g * ((1 - fx) * (p10 - p00) + fx * (p11 - p01))
                        value += g * (
                            (1 - fy) * ((1 - fx) * p00 + fx * p01)
                            + fy * ((1 - fx) * p10 + fx * p11)
                        )
                    du += weight * along * cols
                    dv -= weight * down * rows
                    if blended == 2:
                        dl += -value if step == 0 else value
            grad_uv[r, c, 0] = du
            grad_uv[r, c, 1] = dv
            grad_level[r, c] = dl


@kernel
def edge_lines(vertices, triangles, Kinv, lines, det):
    """Edge functions (F, 9) of all triangles with their own sign, and det (F,)."""
    for f in range(len(triangles)):
        for i in range(3):
            j = triangles[f, (i + 1) % 3]
            k = triangles[f, (i + 2) % 3]
            n0 = vertices[j, 1] * vertices[k, 2] - vertices[j, 2] * vertices[k, 1]
            n1 = vertices[j, 2] * vertices[k, 0] - vertices[j, 0] * vertices[k, 2]
            n2 = vertices[j, 0] * vertices[k, 1] - vertices[j, 1] * vertices[k, 0]
            for m in range(3):
                lines[f, 3 * i + m] = n0 * Kinv[0, m] + n1 * Kinv[1, m] + n2 * Kinv[2, m]
            if i == 0:
                a = triangles[f, 0]
                det[f] = vertices[a, 0] * n0 + vertices[a, 1] * n1 + vertices[a, 2] * n2


@kernel
def find_outlines(vertices, triangles, neighbours, lines, det, outline):
    """outline (F, 3): whether the surface ends at, or folds behind, an edge as seen here."""
    for f in range(len(triangles)):
        for i in range(3):
            g = neighbours[f, i, 0]
            if g < 0:
                outline[f, i] = True
                continue
            w = triangles[g, neighbours[f, i, 1]]
            j = triangles[f, (i + 1) % 3]
            k = triangles[f, (i + 2) % 3]
            n0 = vertices[j, 1] * vertices[k, 2] - vertices[j, 2] * vertices[k, 1]
            n1 = vertices[j, 2] * vertices[k, 0] - vertices[j, 0] * vertices[k, 2]
            n2 = vertices[j, 0] * vertices[k, 1] - vertices[j, 1] * vertices[k, 0]
            side = n0 * vertices[w, 0] + n1 * vertices[w, 1] + n2 * vertices[w, 2]
            outline[f, i] = side * det[f] >= 0


@kernel
def walk(f, stop, ax, ay, bx, by, lines, det, outline, neighbours, max_steps):
    """Walk over the surface from (ax, ay) in triangle f towards (bx, by) until it ends.

    Returns the triangle and edge at which it ends, (-1, 0) if it does not, (-1, 1) if the walk
    arrives on another triangle than stop.
    """
    entry = -1
    for _ in range(max_steps):
        if det[f] == 0:
            return -1, 0
        sign = 1.0 if det[f] > 0 else -1.0
        nearest = math.inf
        local = -1
        for i in range(3):
            if i == entry:
                continue
            at_a = (lines[f, 3 * i] * ax + (lines[f, 3 * i + 1] * ay + lines[f, 3 * i + 2])) * sign
            at_b = (lines[f, 3 * i] * bx + (lines[f, 3 * i + 1] * by + lines[f, 3 * i + 2])) * sign
            if at_b < at_a:
                s = at_a / (at_a - at_b)
                if s < nearest:
                    nearest = s
                    local = i
        if nearest >= 1:
            return -1, 1 if f != stop else 0
        if outline[f, local]:
            return f, local
        g = neighbours[f, local, 0]
        entry = neighbours[f, local, 1]
        f = g
    return -1, 0


@kernel
def joined(f, g, outline, neighbours):
    """Whether the surface runs on from triangle f to g over an edge that is no outline."""
    if f < 0 or g < 0:
        return False
    for i in range(3):  # noqa: SIM110 (numba has no any() over a generator)
        if neighbours[f, i, 0] == g and not outline[f, i]:
            return True
    return False


@kernel
def outline_crossings(face, zbuf, lines, det, outline, neighbours, row0, row1, max_steps):
    """Outlines between the pixels of the rows row0..row1 and their right and lower neighbours.

    Returns records (M, 4) of front pixel, back pixel, triangle and edge, and crossings (M,), the
    share of the way from the front to the back centre at which the edge lies.
    """
    height, width = face.shape
    records = np.empty((256, 4), np.int64)
    crossings = np.empty(256)
    count = 0
    for r in range(row0, row1):
        for c in range(width):
            for horizontal in (True, False):
                r2 = r if horizontal else r + 1
                c2 = c + 1 if horizontal else c
                if r2 >= height or c2 >= width or face[r, c] == face[r2, c2]:
                    continue
                if joined(face[r, c], face[r2, c2], outline, neighbours):
                    continue
                if face[r, c] < 0 or (face[r2, c2] >= 0 and zbuf[r2, c2] < zbuf[r, c]):
                    ra, ca, rb, cb = r2, c2, r, c
                else:
                    ra, ca, rb, cb = r, c, r2, c2
                f, edge = walk(
                    face[ra, ca],
                    face[rb, cb],
                    ca + 0.5,
                    ra + 0.5,
                    cb + 0.5,
                    rb + 0.5,
                    lines,
                    det,
                    outline,
                    neighbours,
                    max_steps,
                )
                if f < 0 and edge == 1 and face[rb, cb] >= 0:
                    # the nearer pixel's surface runs on below the other: it is the other that ends
                    ra, ca, rb, cb = rb, cb, ra, ca
                    f, edge = walk(
                        face[ra, ca],
                        face[rb, cb],
                        ca + 0.5,
                        ra + 0.5,
                        cb + 0.5,
                        rb + 0.5,
                        lines,
                        det,
                        outline,
                        neighbours,
                        max_steps,
                    )
                if f < 0:
                    continue
                a = lines[f, 3 * edge]
                b = lines[f, 3 * edge + 1]
                # each outline is used along the axis it crosses more steeply, so it counts once
                if (abs(a) >= abs(b)) != horizontal:
                    continue
                at_a = a * (ca + 0.5) + (b * (ra + 0.5) + lines[f, 3 * edge + 2])
                at_b = a * (cb + 0.5) + (b * (rb + 0.5) + lines[f, 3 * edge + 2])
                if at_a == at_b:
                    continue
                s = at_a / (at_a - at_b)
                if not (s >= 0 and s <= 1):
                    continue
                if count == len(records):
                    more = np.empty((2 * count, 4), np.int64)
                    more[:count] = records
                    records = more
                    more_crossings = np.empty(2 * count)
                    more_crossings[:count] = crossings
                    crossings = more_crossings
                records[count, 0] = ra * width + ca
                records[count, 1] = rb * width + cb
                records[count, 2] = f
                records[count, 3] = edge
                crossings[count] = s
                count += 1
    return records[:count], crossings[:count]


@kernel
def blend_outlines(image, records, crossings, out):
    """Blend each pair of pixels; image and out (P, C), out a copy of image."""
    for m in range(len(records)):
        front = records[m, 0]
        back = records[m, 1]
        s = crossings[m]
        # past the middle the edge covers part of the far pixel, before it it leaves part of the
        # near one open
        receiver = back if s >= 0.5 else front
        for k in range(image.shape[1]):
            out[receiver, k] += (s - 0.5) * (image[front, k] - image[back, k])


@kernel
def blend_outlines_backward(image, records, crossings, lines, width, grad, grad_image, moments):
    """Adjoint of `blend_outlines`; grad_image starts as a copy of grad, moments (F, 9) at 0."""
    for m in range(len(records)):
        front = records[m, 0]
        back = records[m, 1]
        f = records[m, 2]
        edge = records[m, 3]
        s = crossings[m]
        receiver = back if s >= 0.5 else front
        grad_s = 0.0
        for k in range(image.shape[1]):
            g = grad[receiver, k]
            grad_s += g * (image[front, k] - image[back, k])
            grad_image[front, k] += (s - 0.5) * g
            grad_image[back, k] -= (s - 0.5) * g
        xa = front % width + 0.5
        ya = front // width + 0.5
        xb = back % width + 0.5
        yb = back // width + 0.5
        a = lines[f, 3 * edge]
        b = lines[f, 3 * edge + 1]
        c = lines[f, 3 * edge + 2]
        at_a = a * xa + (b * ya + c)
        at_b = a * xb + (b * yb + c)
        square = (at_a - at_b) ** 2
        da = -at_b / square * grad_s
        db = at_a / square * grad_s
        moments[f, 3 * edge] += da * xa + db * xb
        moments[f, 3 * edge + 1] += da * ya + db * yb
        moments[f, 3 * edge + 2] += da + db


@kernel
def transform_points(vertices, R, t, out):
    """out = R v + t in double precision; returns the number of results that are not finite."""
    bad = 0
    for p in range(len(vertices)):
        total = 0.0
        for i in range(3):
            value = (
                R[i, 0] * vertices[p, 0]
                + R[i, 1] * vertices[p, 1]
                + R[i, 2] * vertices[p, 2]
                + t[i]
            )
            out[p, i] = value
            total += value
        if not math.isfinite(total):
            bad += 1
    return bad


@kernel
def transform_points_backward(vertices, R, grad, grad_vertices, grad_R, grad_t):
    """Adjoint of `transform_points`; adds to all three."""
    for p in range(len(vertices)):
        for i in range(3):
            g = grad[p, i]
            if g != 0:
                grad_t[i] += g
                for j in range(3):
                    grad_vertices[p, j] += R[i, j] * g
                    grad_R[i, j] += g * vertices[p, j]
