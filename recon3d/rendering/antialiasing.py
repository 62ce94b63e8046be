"""Gradients at outlines: the analytic antialiasing step.

Point sampling makes a picture jump when an outline passes a pixel centre, so that the outline
itself has no gradient. This step finds the outlines between neighbouring pixel centres and blends
the two pixels by where exactly the edge crosses the way between them, which is a smooth function
of the edge's ends.

References
----------
Laine et al., Modular primitives for high-performance differentiable rendering, ACM TOG 39(6),
2020, section 3.6. There an outline must belong to the triangle seen at the nearer pixel; here the
way between the centres is walked over the surface until it ends, because at the rim of a fine mesh
several triangles lie between two centres.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from recon3d.checks import check_shape
from recon3d.errors import InputError
from recon3d.rendering._constants import MAX_STEPS
from recon3d.rendering.fragments import Fragments

_CACHE_SIZE = 8
_neighbour_cache: list[tuple[np.ndarray, np.ndarray]] = []


def antialias(
    image: Tensor,  # (N, H, W, C)
    fragments: Fragments,
    vertices: Tensor,  # (V, 3) or (N, V, 3) mm
    triangles: Tensor,  # (F, 3)
    K: Tensor,
    R: Tensor,
    t: Tensor,
) -> Tensor:
    """Smooth the outlines of a picture, so that they move with the mesh.

    Silhouettes against the empty background and edges where one part of the mesh hides another
    are treated alike. The inside of a surface stays as it is.

    Parameters
    ----------
    image : (N, H, W, C)
        Drawn from ``fragments``; the background may hold anything.
    fragments : Fragments
        What `rasterise` returned for the vertices and camera given here.
    vertices, triangles, K, R, t : as in `rasterise`
        The triangles must share vertices where the surface is connected: an edge without a
        neighbour counts as an outline.

    Returns
    -------
    (N, H, W, C)
        Differentiable with respect to image, vertices, K, R and t.

    Raises
    ------
    ShapeError, InputError
    """
    from recon3d.rendering.interface import invert, to_camera

    check_shape(image, "N H W C", "image")
    if image.shape[:3] != fragments.pix_to_face.shape:
        raise InputError(
            f"image is {tuple(image.shape[:3])}, fragments {tuple(fragments.pix_to_face.shape)}"
        )
    points, K = to_camera(vertices, K, R, t)
    Kinv = invert(K)
    neighbours = edge_neighbours(triangles)
    if image.device.type == "cpu" and points.device.type == "cpu":
        from recon3d.rendering.autograd import AntialiasNative
        from recon3d.rendering.native import check_triangles

        return AntialiasNative.apply(
            image,
            points,
            Kinv,
            fragments.pix_to_face,
            fragments.zbuf.detach(),
            check_triangles(triangles.numpy(), points.shape[-2]),
            neighbours,
            MAX_STEPS,
        )
    from recon3d.rendering.reference import antialias_reference

    on_device = torch.from_numpy(neighbours).to(triangles.device, torch.int64)
    return antialias_reference(image, fragments, points, triangles, Kinv, on_device)


def edge_neighbours(triangles: Tensor | np.ndarray) -> np.ndarray:
    """What lies across each edge of each triangle.

    Parameters
    ----------
    triangles : (F, 3) int

    Returns
    -------
    (F, 3, 2) int32
        For the edge opposite corner i: the neighbouring triangle, and which of its corners lies
        opposite the same edge. (-1, 0) at borders and where more than two triangles meet.
        The answer for the last few topologies is remembered.
    """
    faces = triangles.cpu().numpy() if isinstance(triangles, Tensor) else np.asarray(triangles)
    check_shape(faces, "F 3", "triangles")
    for known, answer in _neighbour_cache:
        if known.shape == faces.shape and np.array_equal(known, faces):
            return answer
    count = len(faces)
    ends = np.stack([faces[:, [1, 2, 0]], faces[:, [2, 0, 1]]], -1).reshape(-1, 2)
    low, high = ends.min(1).astype(np.int64), ends.max(1).astype(np.int64)
    key = low * (int(faces.max(initial=0)) + 1) + high
    order = np.argsort(key, kind="stable")
    _, first, size = np.unique(key[order], return_index=True, return_counts=True)
    first = first[size == 2]
    a, b = order[first], order[first + 1]
    answer = np.zeros((3 * count, 2), np.int32)
    answer[:, 0] = -1
    answer[a] = np.stack([b // 3, b % 3], -1)
    answer[b] = np.stack([a // 3, a % 3], -1)
    answer = answer.reshape(count, 3, 2)
    _neighbour_cache.insert(0, (faces.copy(), answer))
    del _neighbour_cache[_CACHE_SIZE:]
    return answer
