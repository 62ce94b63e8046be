"""The rasteriser and its companions in plain torch: readable, slow, on any device.

The native kernels are held against these functions; autograd does all the differentiation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from recon3d.rendering._constants import MAX_STEPS, MIN_AREA
from recon3d.rendering.fragments import Fragments
from recon3d.rendering.interface import Rasteriser


class ReferenceRasteriser(Rasteriser):
    """Tests every pixel against every triangle."""

    name = "reference"

    def rasterise(self, vertices, triangles, K, size, *, near, cull_backfaces):
        views = [
            _rasterise_view(v, triangles, k, size, near, cull_backfaces)
            for v, k in zip(vertices, K)
        ]
        return Fragments(*(torch.stack(parts) for parts in zip(*views)))


def edge_normals(vertices: Tensor, triangles: Tensor) -> tuple[Tensor, Tensor]:
    """n_i = v_j x v_k (F, 3, 3) and det = v0 . (v1 x v2) (F,) of each triangle."""
    v0, v1, v2 = vertices[triangles].unbind(1)
    normals = torch.stack(
        [torch.linalg.cross(v1, v2), torch.linalg.cross(v2, v0), torch.linalg.cross(v0, v1)], 1
    )
    return normals, (v0 * normals[:, 0]).sum(-1)


def pixel_centres(size: tuple[int, int], like: Tensor) -> Tensor:
    """Homogeneous pixel centres (H, W, 3)."""
    y = torch.arange(size[0], dtype=like.dtype, device=like.device) + 0.5
    x = torch.arange(size[1], dtype=like.dtype, device=like.device) + 0.5
    y, x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)], -1)


def _rasterise_view(vertices, triangles, K, size, near, cull_backfaces):
    pixels = pixel_centres(size, vertices).flatten(0, 1)
    with torch.no_grad():
        face = _nearest_triangle(
            vertices.double(), triangles, K.double(), pixels.double(), near, cull_backfaces
        )
    # the winners are known; what follows is differentiated
    seen = torch.nonzero(face >= 0)[:, 0]
    winner = face[seen]
    # tied to the vertices, so that an empty view has a gradient, too: 0
    zbuf = vertices.new_full((len(pixels),), -1.0) + 0 * vertices.sum()
    barycentric = zbuf[:, None].expand(-1, 3)
    if len(seen):
        # in double precision, because n and det are small differences of large products
        normals, det = edge_normals(vertices.double(), triangles)
        rays = pixels[seen].double() @ torch.linalg.inv(K.double()).mT
        edge = torch.einsum("pik,pk->pi", normals[winner], rays)
        total = edge.sum(-1)
        zbuf = zbuf.index_put((seen,), (det[winner] / total).to(zbuf.dtype))
        barycentric = barycentric.index_put((seen,), (edge / total[:, None]).to(zbuf.dtype))
    height, width = size
    return (
        face.reshape(height, width),
        zbuf.reshape(height, width),
        barycentric.reshape(height, width, 3),
    )


def _nearest_triangle(vertices, triangles, K, pixels, near, cull_backfaces):
    """Index (P,) of the triangle seen at each pixel, -1 where there is none."""
    face = torch.full((len(pixels),), -1, dtype=torch.int64, device=pixels.device)
    if not len(triangles):
        return face
    normals, det = edge_normals(vertices, triangles)
    depth = vertices[triangles][..., 2]
    length = vertices[triangles].norm(dim=-1)
    area = det.abs() / depth.prod(-1) * (K[0, 0] * K[1, 1] - K[0, 1] * K[1, 0]).abs()
    in_front = (depth >= near).all(-1)
    drawn = torch.where(in_front, area >= MIN_AREA, det.abs() >= 1e-12 * length.prod(-1))
    drawn &= (depth >= near).any(-1) & (det != 0)
    if cull_backfaces:
        drawn &= det < 0
    lines = (normals @ torch.linalg.inv(K)) * torch.sign(det)[:, None, None]
    a, b, _ = lines.unbind(-1)
    owns_border = (a > 0) | ((a == 0) & (b > 0))
    step = max(1, 4_000_000 // len(triangles))
    for start in range(0, len(pixels), step):
        edge = torch.einsum("fik,pk->pfi", lines, pixels[start : start + step])
        inside = ((edge > 0) | ((edge == 0) & owns_border)).all(-1) & drawn
        nearness = edge.sum(-1) / det.abs()  # 1 / z
        nearness = torch.where(inside & (nearness <= 1 / near), nearness, 0.0)
        best = nearness.amax(1)
        index = torch.arange(len(triangles), device=pixels.device)
        first = torch.where(nearness == best[:, None], index, len(triangles)).amin(1)
        face[start : start + step] = torch.where(best > 0, first, -1)
    return face


def interpolate_attributes_reference(fragments, attributes: Tensor, triangles: Tensor) -> Tensor:
    """`interpolate_attributes` in plain torch; attributes (1 or N, V, C)."""
    face = fragments.pix_to_face.clamp(min=0)
    view = torch.arange(len(face), device=face.device) if len(attributes) > 1 else face.new_zeros(1)
    corners = attributes[view[:, None, None, None], triangles[face]]
    values = (fragments.barycentric[..., None] * corners).sum(-2)
    return torch.where(fragments.mask[..., None], values, torch.zeros_like(values))


def barycentric_jacobian_reference(fragments, vertices, triangles, Kinv) -> Tensor:
    """d barycentric / d (x, y) of the pixel: (N, H, W, 3, 2), 0 where empty."""
    out = []
    for n, points in enumerate(vertices):
        normals, det = edge_normals(points.double(), triangles)
        face = fragments.pix_to_face[n].clamp(min=0)
        slopes = (normals @ Kinv[n].double())[face][..., :2]
        inverse_sum = (fragments.zbuf[n] / det[face])[..., None, None]
        barycentric = fragments.barycentric[n][..., None]
        value = (slopes - barycentric * slopes.sum(-2, keepdim=True)) * inverse_sum
        out.append(torch.where(fragments.mask[n][..., None, None], value, 0.0).to(vertices.dtype))
    return torch.stack(out)


def sample_pyramid_reference(pyramid, table, uv, level, mask) -> Tensor:
    """`sample_texture` in plain torch: pyramid (1 or N, P, C) with its table of levels."""
    view = torch.arange(len(uv), device=uv.device) if len(pyramid) > 1 else uv.new_zeros(1).long()
    view = view[:, None, None]
    level = level.clamp(0, len(table) - 1)
    lower = level.detach().floor().clamp(max=max(len(table) - 2, 0)).long()
    out = uv.new_zeros(*uv.shape[:3], pyramid.shape[-1])
    for index, (offset, rows, cols) in enumerate(table):
        x = uv[..., 0] * cols - 0.5
        y = (1 - uv[..., 1]) * rows - 0.5
        x0, y0 = x.detach().floor(), y.detach().floor()
        fx, fy = (x - x0)[..., None], (y - y0)[..., None]

        def texel(row, col, offset=offset, rows=rows, cols=cols):
            row = row.clamp(0, rows - 1).long()
            col = col.clamp(0, cols - 1).long()
            return pyramid[view, offset + row * cols + col]

        top = (1 - fx) * texel(y0, x0) + fx * texel(y0, x0 + 1)
        bottom = (1 - fx) * texel(y0 + 1, x0) + fx * texel(y0 + 1, x0 + 1)
        share = torch.where(
            lower == index,
            1 - (level - lower),
            torch.where(lower + 1 == index, level - lower, torch.zeros_like(level)),
        )
        out = out + share[..., None] * ((1 - fy) * top + fy * bottom)
    return torch.where(mask[..., None], out, torch.zeros_like(out))


def antialias_reference(image, fragments, vertices, triangles, Kinv, neighbours) -> Tensor:
    """`antialias` in plain torch; vertices (N, V, 3) in camera axes, neighbours (F, 3, 2)."""
    out = []
    for n, picture in enumerate(image):
        points = vertices[n].double()
        normals, det = edge_normals(points, triangles)
        lines = normals @ Kinv[n].double()
        with torch.no_grad():
            pairs = _silhouette_pairs(
                fragments.pix_to_face[n],
                fragments.zbuf[n],
                lines,
                normals,
                det,
                points,
                triangles,
                neighbours,
            )
        front, back, face, edge = pairs
        centres = pixel_centres(picture.shape[:2], lines).flatten(0, 1)
        line = lines[face, edge]
        at_front = (line * centres[front]).sum(-1)
        at_back = (line * centres[back]).sum(-1)
        crossing = at_front / (at_front - at_back)
        flat = picture.flatten(0, 1)
        # the edge lies at `crossing` between the centres: past the middle it covers part of the
        # far pixel, before it it leaves part of the near one open
        change = (crossing - 0.5).to(flat.dtype)[:, None] * (flat[front] - flat[back])
        receiver = torch.where(crossing.detach() >= 0.5, back, front)
        out.append(flat.index_add(0, receiver, change).reshape(picture.shape))
    return torch.stack(out)


def _outlines(normals, det, points, triangles, neighbours):
    """Whether the surface ends at, or folds behind, each edge (F, 3) as seen here."""
    other, its_edge = neighbours.unbind(-1)
    opposite = triangles[other.clamp(min=0), its_edge]
    side = (normals * points[opposite]).sum(-1)
    return (other < 0) | (side * det[:, None] >= 0)


def _joined(first, second, outline, neighbours):
    """Whether the surface runs on from one triangle to the other over an edge, no outline."""
    touching = (neighbours[first.clamp(min=0), :, 0] == second[:, None]) & ~outline[first]
    return touching.any(1) & (first >= 0) & (second >= 0)


def _silhouette_pairs(face, zbuf, lines, normals, det, points, triangles, neighbours):
    """Neighbouring pixels with an outline between them: front and back pixel, triangle, edge."""
    height, width = face.shape
    index = torch.arange(height * width, device=face.device).reshape(height, width)
    outline = _outlines(normals, det, points, triangles, neighbours)
    found = []
    for horizontal in (True, False):
        first = index[:, :-1] if horizontal else index[:-1]
        second = index[:, 1:] if horizontal else index[1:]
        first, second = first.flatten(), second.flatten()
        flat_face, flat_z = face.flatten(), zbuf.flatten()
        different = flat_face[first] != flat_face[second]
        different &= ~_joined(flat_face[first], flat_face[second], outline, neighbours)
        first, second = first[different], second[different]
        face_1, face_2 = flat_face[first], flat_face[second]
        swap = (face_1 < 0) | ((face_2 >= 0) & (flat_z[second] < flat_z[first]))
        front = torch.where(swap, second, first)
        back = torch.where(swap, first, second)
        hit, triangle, edge, passed = _walk(
            front, back, flat_face, lines, det, outline, neighbours, width
        )
        # the nearer pixel's surface runs on below the other: it is the other that ends
        again = passed & (flat_face[back] >= 0)
        hit_2, triangle_2, edge_2, _ = _walk(
            back[again], front[again], flat_face, lines, det, outline, neighbours, width
        )
        for h, f, b, tri, e in (
            (hit, front, back, triangle, edge),
            (hit_2, back[again], front[again], triangle_2, edge_2),
        ):
            slope = lines[tri, e].abs()
            # each outline is used along the axis it crosses more steeply, so it counts once
            steep = slope[:, 0] >= slope[:, 1] if horizontal else slope[:, 0] < slope[:, 1]
            keep = h & steep
            found.append((f[keep], b[keep], tri[keep], e[keep]))
    return tuple(torch.cat(parts) for parts in zip(*found))


def _walk(start, stop, pixel_face, lines, det, outline, neighbours, width):
    """Walk over the surface from one pixel centre towards another until it ends.

    Returns whether an outline was crossed, at which triangle and edge, and whether the walk
    arrived below ``stop`` on another triangle than the one seen there.
    """

    def centre(pixel):
        x = (pixel % width) + 0.5
        y = torch.div(pixel, width, rounding_mode="floor") + 0.5
        return torch.stack([x, y, torch.ones_like(x)], -1).to(lines)

    a, b = centre(start), centre(stop)
    triangle = pixel_face[start].clone()
    entry = torch.full_like(triangle, -1)
    edge = torch.zeros_like(triangle)
    hit = torch.zeros_like(triangle, dtype=torch.bool)
    passed = torch.zeros_like(hit)
    active = torch.ones_like(hit)
    for _ in range(MAX_STEPS):
        active = active & (det[triangle] != 0)
        sign = torch.sign(det[triangle])[:, None]
        at_a = torch.einsum("pik,pk->pi", lines[triangle], a) * sign
        at_b = torch.einsum("pik,pk->pi", lines[triangle], b) * sign
        falling = (at_b < at_a) & (torch.arange(3, device=at_a.device) != entry[:, None])
        exits = torch.where(falling, at_a / torch.where(falling, at_a - at_b, 1.0), torch.inf)
        nearest, local = exits.min(1)
        arrived = active & (nearest >= 1)
        passed |= arrived & (triangle != pixel_face[stop])
        active = active & ~arrived
        other, its_edge = neighbours[triangle, local].unbind(-1)
        ends = active & outline[triangle, local]
        edge = torch.where(ends, local, edge)
        hit |= ends
        active = active & ~ends
        # step over the edge; remember it, so that rounding cannot send the walk back
        entry = torch.where(active, its_edge, entry)
        triangle = torch.where(active, other, triangle)
    return hit & _between(lines[triangle, edge], a, b), triangle, edge, passed


def _between(line, a, b):
    """Whether a line crosses the way between two points."""
    at_a, at_b = (line * a).sum(-1), (line * b).sum(-1)
    crossing = at_a / torch.where(at_a == at_b, 1.0, at_a - at_b)
    return (at_a != at_b) & (crossing >= 0) & (crossing <= 1)
