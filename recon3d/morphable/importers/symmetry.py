"""The mirror image of every vertex, found from the shape or carried over the connectivity."""

from __future__ import annotations

import numpy as np

TIGHT = 0.2
"""mm within which a mirrored vertex counts as the same place."""


def find_mirror(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Pair vertices by reflection in the plane x = 0.

    Places that agree to `TIGHT` are paired at once. Where the mean face is not quite symmetric
    but its connectivity is, the pairing spreads from there over neighbouring triangles; what is
    left is paired by place if both sides choose one another within half an edge.

    Parameters
    ----------
    vertices : (V, 3) mm
    triangles : (F, 3) int

    Returns
    -------
    (V,) int64; -1 where no partner was found
    """
    from scipy.spatial import cKDTree

    V = len(vertices)
    edge = np.linalg.norm(vertices[triangles[:, 0]] - vertices[triangles[:, 1]], axis=1)
    length = float(np.median(edge))
    distance, nearest = cKDTree(vertices).query(vertices * [-1, 1, 1])
    mutual = nearest[nearest] == np.arange(V)
    mirror = np.where(mutual & (distance < TIGHT), nearest, -1)
    if (mirror >= 0).mean() < 0.98:
        spread = _spread(vertices, triangles, nearest, distance, mutual, length)
        if (spread >= 0).mean() > (mirror >= 0).mean():
            mirror = spread
        rest = (mirror < 0) & mutual & (distance < 0.5 * length) & (mirror[nearest] < 0)
        mirror[rest] = nearest[rest]
    paired = mirror >= 0
    paired[paired] = mirror[mirror[paired]] == np.flatnonzero(paired)
    return np.where(paired, mirror, -1).astype(np.int64)


def _spread(vertices, triangles, nearest, distance, mutual, length) -> np.ndarray:
    """Carry a pairing of edges from triangle to triangle, from the best seeds on."""
    directed = {}
    for a, b, c in triangles.tolist():
        directed[(a, b)], directed[(b, c)], directed[(c, a)] = c, a, b
    mirror = np.full(len(vertices), -1, np.int64)
    flipped = vertices * [-1, 1, 1]
    edges = [
        (a, b)
        for a, b in directed
        if mutual[a] and mutual[b] and (int(nearest[b]), int(nearest[a])) in directed
    ]
    edges.sort(key=lambda e: distance[e[0]] + distance[e[1]])
    for seed in edges:
        if mirror[seed[0]] >= 0 or mirror[seed[1]] >= 0:
            continue
        if distance[seed[0]] + distance[seed[1]] > length:
            break
        # the image of an edge runs the other way: reflection turns triangles round
        pairs = {seed[0]: int(nearest[seed[0]]), seed[1]: int(nearest[seed[1]])}
        stack, seen, sound = [(seed, (pairs[seed[1]], pairs[seed[0]]))], set(), True
        while stack:
            (a, b), (image_b, image_a) = stack.pop()
            if (a, b) in seen:
                continue
            seen.add((a, b))
            apex, image = directed.get((a, b)), directed.get((image_b, image_a))
            if apex is not None and image is not None:
                gap = np.linalg.norm(flipped[apex] - vertices[image])
                if gap > distance[apex] + 0.6 * length:
                    continue  # connectivity and place disagree: go round
                if pairs.setdefault(apex, image) != image:
                    sound = False
                    break
                stack += [((b, apex), (image, image_b)), ((apex, a), (image_a, image))]
            if (b, a) in directed and (image_a, image_b) in directed and (b, a) not in seen:
                stack.append(((b, a), (image_a, image_b)))
        if sound and all(pairs.get(j, i) == i for i, j in pairs.items()):
            for i, j in pairs.items():
                if mirror[i] < 0 and mirror[j] < 0:
                    mirror[i], mirror[j] = j, i
    return mirror
