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

NOW7 = (33, 133, 362, 263, 2, 61, 291)
"""MediaPipe points of the seven NoW landmarks: lid corners, nose base, mouth corners."""

# Lines of the features, right before left, open lines from one end to the other.
BROWS = ((70, 63, 105, 66, 107), (300, 293, 334, 296, 336))
NOSE_BRIDGE = (168, 6, 197, 195, 5, 4)
NOSE_BASE = (98, 97, 2, 326, 327)
NOSE_WINGS = ((129, 102, 48, 115), (358, 331, 278, 344))
NOSTRILS = ((79, 239, 238, 20, 60, 75, 166), (309, 459, 458, 250, 290, 305, 392))
"""Around either of them, closed."""
LIDS = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
)
"""Contours of the eyes' openings, closed."""
LIPS = (
    (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146),
    (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95),
)
"""Outer and inner contour of the lips, closed."""


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
    faces = [c for c in sorted(cycles) if not {(c[0], c[1]), (c[1], c[2]), (c[0], c[2])} <= crowded]
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


LID_RIGHT = (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7)
"""Right lid ring from the outer corner over the upper lid, every second point once."""
INNER_LIP_UPPER = (191, 80, 81, 82, 13, 312, 311, 310, 415)
INNER_LIP_LOWER = (95, 88, 178, 87, 14, 317, 402, 318, 324)
LIP_CORNERS = (78, 308)
N_MIDDLE = 8
"""Points of the ring between lids and iris."""
SHELL_RINGS = 6
"""Rings behind the face oval: the first has its 36 points, the others half as many."""


class ControlMesh:
    """The coarse mesh: face, eyes, mouth and the shell that makes it a head.

    Attributes
    ----------
    triangles : (F, 3) int64, mirror-symmetric, counter-clockwise from outside
    mirror : (V,) int64
    n_vertices : int
    oval : (36,) the face oval from `FOREHEAD_TOP` by the subject's right side
    eye_middle : (2, N_MIDDLE) ring between lids and iris: right, left
    mouth_middle : (9,) line inside the mouth, from the right corner to the left
    rings : list of arrays, the shell from the face oval (exclusive) to the neck
    """

    def __init__(self):
        face = face_triangles()
        landmark = landmark_mirror()
        self.oval = boundary_loops(face)[0]
        count = 478
        self.eye_middle = count + np.arange(2 * N_MIDDLE).reshape(2, N_MIDDLE)
        count += 2 * N_MIDDLE
        self.mouth_middle = count + np.arange(9)
        count += 9
        self.rings = []
        for number in range(SHELL_RINGS):
            size = 36 if number == 0 else 18
            self.rings.append(count + np.arange(size))
            count += size
        self.n_vertices = count

        mirror = np.arange(count)
        mirror[:478] = landmark
        mirror[self.eye_middle[0]], mirror[self.eye_middle[1]] = self.eye_middle[::-1]
        mirror[self.mouth_middle] = self.mouth_middle[::-1]
        for ring in self.rings:
            mirror[ring] = np.roll(ring[::-1], 1)
        self.mirror = mirror

        # One side is written down and mirrored: MediaPipe's own diagonals are not symmetric.
        middle = np.flatnonzero(mirror[:478] == np.arange(478))
        right = _right_side(face, middle)
        triangles = [face[np.isin(face, right).any(1)]]
        triangles.append(self._right_eye())
        triangles.append(self._right_mouth())
        triangles.append(self._right_shell())
        half = np.concatenate(triangles)
        self.triangles = np.concatenate([half, mirror[half][:, ::-1]])

    def _right_eye(self) -> np.ndarray:
        ring = np.array(LID_RIGHT)
        middle = self.eye_middle[0]
        out = []
        for k in range(N_MIDDLE):
            a, b, c = ring[2 * k], ring[2 * k + 1], ring[(2 * k + 2) % 16]
            m, n = middle[k], middle[(k + 1) % N_MIDDLE]
            out += [(a, m, b), (b, m, n), (b, n, c)]
        # Iris ring in the same sense: outer, top, inner, bottom.
        iris = np.array([471, 470, 469, 472])
        for k in range(4):
            a, b, c = middle[2 * k], middle[2 * k + 1], middle[(2 * k + 2) % N_MIDDLE]
            i, j = iris[k], iris[(k + 1) % 4]
            out += [(a, i, b), (b, i, j), (b, j, c), (i, IRIS_RIGHT, j)]
        return np.array(out)

    def _right_mouth(self) -> np.ndarray:
        corner = LIP_CORNERS[0]
        middle, upper, lower = self.mouth_middle, INNER_LIP_UPPER, INNER_LIP_LOWER
        out = [(corner, middle[0], upper[0]), (corner, lower[0], middle[0])]
        for k in range(4):
            out += [(upper[k], middle[k], upper[k + 1]), (upper[k + 1], middle[k], middle[k + 1])]
            out += [(lower[k], lower[k + 1], middle[k]), (lower[k + 1], middle[k + 1], middle[k])]
        return np.array(out)

    def _right_shell(self) -> np.ndarray:
        out = []
        inner, first = self.oval, self.rings[0]
        for k in range(18):
            a, b, m, n = inner[k], inner[k + 1], first[k], first[k + 1]
            out += [(a, m, b), (b, m, n)] if k % 2 else [(a, m, n), (a, n, b)]
        second = self.rings[1]
        for k in range(9):
            a, b, c = first[2 * k], first[2 * k + 1], first[2 * k + 2]
            m, n = second[k], second[k + 1]
            out += [(a, m, b), (b, m, n), (b, n, c)]
        for near, far in zip(self.rings[1:], self.rings[2:], strict=False):
            for k in range(9):
                a, b, m, n = near[k], near[k + 1], far[k], far[k + 1]
                out += [(a, m, b), (b, m, n)] if k % 2 else [(a, m, n), (a, n, b)]
        return np.array(out)


@lru_cache(maxsize=1)
def control_mesh() -> ControlMesh:
    """The coarse mesh of the embedded model."""
    return ControlMesh()


def _right_side(face: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """Points of the face mesh strictly on the subject's right: 33 and what it reaches."""
    reached, stack = {33}, [33]
    blocked = set(middle.tolist())
    near: dict[int, set[int]] = {}
    for a, b, c in face.tolist():
        near.setdefault(a, set()).update((b, c))
        near.setdefault(b, set()).update((a, c))
        near.setdefault(c, set()).update((a, b))
    while stack:
        for other in near[stack.pop()] - reached - blocked:
            reached.add(other)
            stack.append(other)
    return np.array(sorted(reached))
