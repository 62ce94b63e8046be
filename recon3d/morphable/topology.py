"""Connectivity of the embedded face: MediaPipe's face mesh, closed and wrapped into a head.

Points 0 to 467 are the face mesh, 468 to 477 the irises, as MediaPipe numbers them. Triangles come
from the edge list that the mediapipe wheel carries; what it leaves open (eyes, mouth, everything
behind the face oval) is closed here by rule.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

N_FACE = 468

# Mouth corners, lid corners and midline points: facts of MediaPipe's numbering.
FOREHEAD_TOP, CHIN = 10, 152
IRIS_RIGHT, IRIS_LEFT = 468, 473

IBUG68 = (
    # jaw line, subject's right to left, on the face oval and its lower neighbours
    [127, 234, 93, 132, 58, 136, 150, 176, 152, 400, 379, 365, 288, 361, 323, 454, 356]
    + [70, 63, 105, 66, 107, 336, 296, 334, 293, 300]  # brows
    + [168, 197, 5, 4, 75, 97, 2, 326, 305]  # nose bridge and base
    + [33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380]  # lids
    + [61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181]  # outer lips
    + [78, 82, 13, 312, 308, 317, 14, 87]  # inner lips
)
"""MediaPipe point of each iBUG-68 point, the correspondence that is commonly published."""

NOW7 = (33, 133, 362, 263, 2, 61, 291)
"""MediaPipe points of the seven NoW landmarks: lid corners, nose base, mouth corners."""


@lru_cache(maxsize=1)
def face_triangles() -> np.ndarray:
    """Triangles of the face mesh, recovered from MediaPipe's directed edge list.

    Returns
    -------
    (852, 3) int64, counter-clockwise seen from outside (x to the subject's left, y up)
    """
    from mediapipe.python.solutions.face_mesh_connections import FACEMESH_TESSELATION

    edges = {(int(a), int(b)) for a, b in FACEMESH_TESSELATION}
    near: dict[int, set[int]] = {}
    for a, b in edges:
        near.setdefault(a, set()).add(b)
        near.setdefault(b, set()).add(a)
    cycles = {tuple(sorted((a, b, c))) for a, b in edges for c in near[a] & near[b]}
    # A three-cycle whose every edge has a third common neighbour surrounds a vertex of valence 3.
    crowded = {tuple(sorted((a, b))) for a, b in edges if len(near[a] & near[b]) > 2}
    faces = [
        c for c in sorted(cycles) if not {(c[0], c[1]), (c[1], c[2]), (c[0], c[2])} <= crowded
    ]
    # A boundary edge is listed once, in the sense of its one triangle; the rest follow from it.
    by_edge: dict[tuple[int, int], list[int]] = {}
    for number, (a, b, c) in enumerate(faces):
        for edge in ((a, b), (b, c), (a, c)):
            by_edge.setdefault(edge, []).append(number)
    triangles: dict[int, tuple[int, int, int]] = {}
    stack = [min((a, b) for a, b in edges if (b, a) not in edges)]
    while stack:
        a, b = stack.pop()
        for number in by_edge[(min(a, b), max(a, b))]:
            if number not in triangles:
                (c,) = set(faces[number]) - {a, b}
                triangles[number] = (a, b, c)
                stack += [(b, a), (c, b), (a, c)]
    return np.array([triangles[number] for number in sorted(triangles)], np.int64)


def boundary_loops(triangles: np.ndarray) -> list[np.ndarray]:
    """Boundary loops of a mesh, each in the direction of its triangles, longest first."""
    half = {(int(t[k]), int(t[(k + 1) % 3])) for t in triangles for k in range(3)}
    follow = {a: b for a, b in sorted(half) if (b, a) not in half}
    loops = []
    while follow:
        loop = [min(follow)]
        while (after := follow.pop(loop[-1])) != loop[0]:
            loop.append(after)
        loops.append(np.array(loop))
    return sorted(loops, key=lambda x: (-len(x), int(x[0])))


@lru_cache(maxsize=1)
def landmark_mirror() -> np.ndarray:
    """Mirror image of each of the 478 landmarks, (478,) int64.

    The mesh's points are symmetric and some diagonals of its quadrilaterals are not, so the graph
    is laid out in the plane (Tutte's embedding, face oval on a circle) and points are paired by
    place.
    """
    from scipy.optimize import linear_sum_assignment

    triangles = face_triangles()
    oval = boundary_loops(triangles)[0]
    angle = 2 * np.pi * np.arange(len(oval)) / len(oval)  # from FOREHEAD_TOP, the smallest index
    place = np.zeros((N_FACE, 2))
    place[oval] = np.stack([-np.sin(angle), np.cos(angle)], 1)
    neighbours = np.zeros((N_FACE, N_FACE))
    for a, b in ((0, 1), (1, 2), (2, 0)):
        neighbours[triangles[:, a], triangles[:, b]] = 1
        neighbours[triangles[:, b], triangles[:, a]] = 1
    inner = np.setdiff1d(np.arange(N_FACE), oval)
    laplacian = np.diag(neighbours.sum(1)) - neighbours
    place[inner] = np.linalg.solve(
        laplacian[np.ix_(inner, inner)], -laplacian[np.ix_(inner, oval)] @ place[oval]
    )
    distance = np.linalg.norm(place[:, None] * [-1, 1] - place, axis=-1)
    mirror = np.empty(478, np.int64)
    mirror[:N_FACE] = linear_sum_assignment(distance + distance.T)[1]
    mirror[N_FACE:] = [473, 476, 475, 474, 477, 468, 471, 470, 469, 472]
    return mirror
