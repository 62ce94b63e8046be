"""The fast rasteriser on arrays: Numba kernels over bands of rows, for the CPU.

Nothing here needs torch; `recon3d.rendering.rasterise` builds the differentiable function on it.
"""

from __future__ import annotations

import threading

import numpy as np

from recon3d.checks import check_shape
from recon3d.errors import InputError
from recon3d.rendering import _kernels as kernels
from recon3d.rendering._constants import DEFAULT_NEAR
from recon3d.rendering._threads import get_num_threads, run_chunks

SMALL = 128 * 128
"""Pictures up to this many pixels are drawn by the calling thread alone."""


def rasterise_numpy(
    vertices_cam: np.ndarray,
    triangles: np.ndarray,
    K: np.ndarray,
    size: tuple[int, int],
    *,
    near: float = DEFAULT_NEAR,
    cull_backfaces: bool = False,
    uv_space: bool = False,
    dtype=np.float32,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rasterise one mesh in one view.

    Parameters
    ----------
    vertices_cam : (V, 3) float, mm, camera axes (x right, y down, z forward)
    triangles : (F, 3) int
    K : (3, 3) float, px
    size : (H, W)
    near : float
        Surface nearer than this is not drawn; triangles may reach across it and behind the camera.
    cull_backfaces : bool
        Leave out triangles seen from behind (clockwise on screen from the front is behind).
    uv_space : bool
        Take vertices_cam as texture coordinates (V, 2) in [0, 1], v up; K is not used and zbuf
        is 1 wherever a texel is covered. See `rasterise_uv`.
    dtype : float32 or float64, of zbuf and barycentric

    Returns
    -------
    pix_to_face : (H, W) int32, -1 where empty
    zbuf : (H, W) float, -1 where empty
    barycentric : (H, W, 3) float, perspective-correct, -1 where empty

    Raises
    ------
    ShapeError
        If an argument has the wrong shape.
    InputError
        If a vertex is not finite, an index lies outside the vertices or K cannot be inverted.
    """
    height, width = check_size(size)
    if uv_space:
        uv = np.asarray(vertices_cam, np.float64)
        vertices = np.ones((len(uv), 3))
        vertices[:, 0] = uv[:, 0] * width
        vertices[:, 1] = (1.0 - uv[:, 1]) * height
        K = np.eye(3)
        near = 0.5
    else:
        vertices = np.ascontiguousarray(vertices_cam, np.float64)
    check_shape(vertices, "V 3", "vertices_cam")
    check_finite(vertices, "vertices_cam")
    triangles = check_triangles(triangles, len(vertices))
    K, Kinv = check_intrinsics(K)
    if not near > 0:
        raise InputError(f"near must be positive, got {near}")
    out = (
        np.empty((height, width), np.int32),
        np.empty((height, width), dtype),
        np.empty((height, width, 3), dtype),
    )
    draw(vertices, triangles, K, Kinv, (height, width), near, cull_backfaces, out)
    return out


def rasterise_uv(
    uv: np.ndarray, triangles_uv: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rasterise the unwrapped mesh into its texture.

    The centre of texel (row, col) lies at u = (col + 0.5) / T, v = 1 - (row + 0.5) / T: row 0 is
    at v = 1.

    Parameters
    ----------
    uv : (U, 2) float in [0, 1]
    triangles_uv : (F, 3) int
    size : int, T

    Returns
    -------
    pix_to_face : (T, T) int32, -1 where no triangle lies
    barycentric : (T, T, 3) float32, -1 where empty
    """
    check_shape(uv, "U 2", "uv")
    face, _, barycentric = rasterise_numpy(uv, triangles_uv, np.eye(3), (size, size), uv_space=True)
    return face, barycentric


def draw(vertices, triangles, K, Kinv, size, near, cull_backfaces, out):
    """Rasterise one view into ``out``, the arrays pix_to_face, zbuf and barycentric.

    All arguments are checked, contiguous arrays, geometry in float64.
    """
    height, width = size
    count = len(triangles)
    edges, inverse, box = _scratch(count)
    threads = get_num_threads()
    chunks = 1 if threads == 1 or count < 2000 else 2 * threads
    starts = np.linspace(0, count, chunks + 1).astype(int)

    def setup(i):
        kernels.setup_triangles(
            vertices,
            triangles,
            K,
            Kinv,
            height,
            width,
            near,
            cull_backfaces,
            starts[i],
            starts[i + 1],
            edges,
            inverse,
            box,
        )

    run_chunks(setup, chunks)
    # a band's depth buffer should stay in the nearest cache, whatever the number of threads
    band_rows = min(height, max(8, min(64, 16384 // width)))
    bands = -(-height // band_rows)
    offsets, order = kernels.bin_triangles(box, band_rows, bands)
    parallel = height * width > SMALL
    tasks = bands if parallel else 1

    def band(i):
        for b in range(i, i + 1) if parallel else range(bands):
            kernels.rasterise_band(
                edges,
                inverse,
                box,
                order,
                offsets[b],
                offsets[b + 1],
                b * band_rows,
                min((b + 1) * band_rows, height),
                near,
                *out,
            )

    run_chunks(band, tasks)


_thread = threading.local()


def _scratch(count: int):
    """Work space for the triangle set-up, kept by each calling thread between calls."""
    kept = getattr(_thread, "scratch", None)
    if kept is None or len(kept[1]) < count:
        kept = np.empty((count, 9)), np.empty(count), np.empty((count, 4), np.int32)
        _thread.scratch = kept
    return tuple(array[:count] for array in kept)


def draw_backward(vertices, triangles, Kinv, face, zbuf, barycentric, grad_zbuf, grad_barycentric):
    """Gradient of `draw` with respect to camera-space vertices (V, 3) and K^-1 (3, 3)."""
    count = len(triangles)
    det = np.empty(count)
    kernels.triangle_determinants(vertices, triangles, det)
    starts = row_chunks(face.shape)
    chunks = len(starts) - 1
    moments = np.zeros((chunks, count, 9))
    grad_det = np.zeros((chunks, count))

    def rows(i):
        kernels.rasterise_rows_backward(
            det,
            face,
            zbuf,
            barycentric,
            grad_zbuf,
            grad_barycentric,
            starts[i],
            starts[i + 1],
            moments[i],
            grad_det[i],
        )

    run_chunks(rows, chunks)
    return finish_gradient(vertices, triangles, Kinv, moments, grad_det)


def finish_gradient(vertices, triangles, Kinv, moments, grad_det):
    """Bring the per-chunk moments (C, F, 9) and grad_det (C, F) to vertices and K^-1."""
    for part, part_det in zip(moments[1:], grad_det[1:]):
        moments[0] += part
        grad_det[0] += part_det
    grad_vertices = np.zeros_like(vertices)
    grad_Kinv = np.zeros((3, 3))
    kernels.scatter_triangle_gradients(
        vertices, triangles, Kinv, moments[0], grad_det[0], grad_vertices, grad_Kinv
    )
    return grad_vertices, grad_Kinv


def interpolate(face, barycentric, attributes, triangles, out):
    """Attributes (V, C) at the fragments of one view into ``out`` (H, W, C), 0 where empty."""
    starts = row_chunks(face.shape)

    def rows(i):
        kernels.interpolate_rows(
            face, barycentric, attributes, triangles, starts[i], starts[i + 1], out
        )

    run_chunks(rows, len(starts) - 1)


def interpolate_backward(face, barycentric, attributes, triangles, grad, grad_barycentric):
    """Adjoint of `interpolate`: fills grad_barycentric, returns the gradient of attributes."""
    starts = row_chunks(face.shape)
    chunks = len(starts) - 1
    grad_attributes = np.zeros((chunks, *attributes.shape))

    def rows(i):
        kernels.interpolate_rows_backward(
            face,
            barycentric,
            attributes,
            triangles,
            starts[i],
            starts[i + 1],
            grad,
            grad_barycentric,
            grad_attributes[i],
        )

    run_chunks(rows, chunks)
    return grad_attributes.sum(0).astype(attributes.dtype, copy=False)


def row_chunks(shape) -> np.ndarray:
    """First rows of as many chunks as threads are worth starting, and the end."""
    height, width = shape[:2]
    chunks = 1 if height * width <= SMALL else min(get_num_threads(), height)
    return np.linspace(0, height, max(chunks, 1) + 1).astype(int)


def check_size(size) -> tuple[int, int]:
    height, width = (int(n) for n in size)
    if height < 1 or width < 1:
        raise InputError(f"size must be (height, width) of at least one pixel, got {tuple(size)}")
    return height, width


def check_finite(array: np.ndarray, name: str) -> None:
    if not np.isfinite(array).all():
        bad = np.flatnonzero(~np.isfinite(array).all(-1).reshape(-1))
        raise InputError(f"{name}: {len(bad)} rows are not finite, the first is row {bad[0]}")


def check_triangles(triangles: np.ndarray, n_vertices: int) -> np.ndarray:
    """Contiguous (F, 3) integers within the vertices, or an error that says which is not."""
    triangles = np.ascontiguousarray(triangles)
    check_shape(triangles, "F 3", "triangles")
    if triangles.dtype not in (np.int64, np.int32):
        if triangles.size and not np.issubdtype(triangles.dtype, np.integer):
            raise InputError(f"triangles must be integers, got {triangles.dtype}")
        triangles = triangles.astype(np.int64)
    if triangles.size and (triangles.min() < 0 or triangles.max() >= n_vertices):
        raise InputError(
            f"triangles refer to vertices {triangles.min()} to {triangles.max()}, "
            f"but there are {n_vertices} vertices"
        )
    return triangles


def check_intrinsics(K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    K = np.ascontiguousarray(K, np.float64)
    check_shape(K, "3 3", "K")
    determinant = K[0, 0] * K[1, 1] - K[0, 1] * K[1, 0]
    if not np.isfinite(K).all() or determinant == 0:
        raise InputError(f"K is not an invertible intrinsic matrix: {K.tolist()}")
    return K, np.linalg.inv(K)


def barycentric_jacobian(vertices, triangles, Kinv, face, zbuf, barycentric):
    """Derivative (H, W, 3, 2) of the barycentric coordinates by the pixel's x and y."""
    det = np.empty(len(triangles))
    kernels.triangle_determinants(vertices, triangles, det)
    out = np.empty((*face.shape, 3, 2), barycentric.dtype)
    starts = row_chunks(face.shape)

    def rows(i):
        kernels.barycentric_jacobian_rows(
            vertices,
            triangles,
            Kinv,
            det,
            face,
            zbuf,
            barycentric,
            starts[i],
            starts[i + 1],
            out,
        )

    run_chunks(rows, len(starts) - 1)
    return out


def sample(pyramid, table, uv, level, mask):
    """Texture lookup of one view: pyramid (P, C), table (L, 3), uv (H, W, 2) -> (H, W, C)."""
    out = np.empty((*uv.shape[:2], pyramid.shape[1]), pyramid.dtype)
    starts = row_chunks(uv.shape)

    def rows(i):
        kernels.sample_rows(pyramid, table, uv, level, mask, starts[i], starts[i + 1], out)

    run_chunks(rows, len(starts) - 1)
    return out


def sample_adjoint(table, uv, level, mask, grad):
    """Transpose of `sample`: grad (H, W, C) -> (P, C)."""
    starts = row_chunks(uv.shape)
    chunks = len(starts) - 1
    texels = int(table[-1, 0] + table[-1, 1] * table[-1, 2])
    out = np.zeros((chunks, texels, grad.shape[-1]), grad.dtype)

    def rows(i):
        kernels.sample_rows_adjoint(table, uv, level, mask, starts[i], starts[i + 1], grad, out[i])

    run_chunks(rows, chunks)
    for part in out[1:]:
        out[0] += part
    return out[0]


def sample_coordinates(pyramid, table, uv, level, mask, grad):
    """Gradient of `sample` with respect to uv (H, W, 2) and level (H, W)."""
    grad_uv = np.empty(uv.shape, pyramid.dtype)
    grad_level = np.empty(uv.shape[:2], pyramid.dtype)
    starts = row_chunks(uv.shape)

    def rows(i):
        kernels.sample_rows_coordinates(
            pyramid,
            table,
            uv,
            level,
            mask,
            starts[i],
            starts[i + 1],
            grad,
            grad_uv,
            grad_level,
        )

    run_chunks(rows, len(starts) - 1)
    return grad_uv, grad_level


def outlines(vertices, triangles, neighbours, Kinv, face, zbuf, max_steps):
    """Outlines between neighbouring pixels of one view.

    Returns
    -------
    lines : (F, 9), records : (M, 4), crossings : (M,), see `_kernels.outline_crossings`
    """
    lines = np.empty((len(triangles), 9))
    det = np.empty(len(triangles))
    outline = np.empty((len(triangles), 3), np.bool_)
    kernels.edge_lines(vertices, triangles, Kinv, lines, det)
    kernels.find_outlines(vertices, triangles, neighbours, lines, det, outline)
    starts = row_chunks(face.shape)
    parts = [None] * (len(starts) - 1)

    def rows(i):
        parts[i] = kernels.outline_crossings(
            face, zbuf, lines, det, outline, neighbours, starts[i], starts[i + 1], max_steps
        )

    run_chunks(rows, len(parts))
    return (
        lines,
        np.concatenate([part[0] for part in parts]),
        np.concatenate([part[1] for part in parts]),
    )


def blend(image, records, crossings):
    """Antialias one view: image (H, W, C) -> (H, W, C)."""
    flat = image.reshape(-1, image.shape[-1])
    out = flat.copy()
    kernels.blend_outlines(flat, records, crossings, out)
    return out.reshape(image.shape)


def blend_backward(vertices, triangles, Kinv, image, lines, records, crossings, grad):
    """Gradients of `blend`: image (H, W, C), vertices (V, 3), K^-1 (3, 3)."""
    flat = image.reshape(-1, image.shape[-1])
    grad = np.ascontiguousarray(grad).reshape(flat.shape)
    grad_image = grad.copy()
    moments = np.zeros((1, len(triangles), 9))
    kernels.blend_outlines_backward(
        flat, records, crossings, lines, image.shape[1], grad, grad_image, moments[0]
    )
    grad_det = np.zeros((1, len(triangles)))
    return grad_image.reshape(image.shape), *finish_gradient(
        vertices, triangles, Kinv, moments, grad_det
    )
