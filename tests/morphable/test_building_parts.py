"""The parts of the model builder on known answers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon3d.geometry import mesh_edges, so3_exp, subdivide
from recon3d.morphable import closest_embedding, embed, embedding_of_vertices, load_model
from recon3d.morphable.anthropometry import DEPTHS, INTERPUPILLARY, learn_correction
from recon3d.morphable.build import LIP_GAP, aligned_shapes, close_mouth
from recon3d.morphable.fields import FieldSpreader, reflect, symmetrise
from recon3d.morphable.parameterisation import convex_embedding, midpoint_map, overlap_count
from recon3d.morphable.quality import intersecting_triangles
from recon3d.morphable.topology import (
    boundary_loops,
    control_mesh,
    face_triangles,
    landmark_mirror,
)
from recon3d.tracking.topology import IBUG68
from recon3d.types import LandmarkEmbedding


@pytest.fixture(scope="module")
def face():
    model = load_model()
    return embed(model.mean, model.triangles, model.landmarks)


def octahedron(n=2):
    v = np.array([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    f = np.array(
        [[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]]
    )
    S, f = subdivide(f, 6, n, to_limit=n > 0)
    return S @ v, f


def test_mediapipe_triangles_are_a_face_with_three_holes():
    triangles = face_triangles()
    assert triangles.shape == (852, 3)
    assert [len(loop) for loop in boundary_loops(triangles)] == [36, 20, 16, 16]
    half = {(a, b) for t in triangles.tolist() for a, b in zip(t, [*t[1:], t[0]], strict=True)}
    assert len(half) == 3 * 852, "consistently oriented"


def test_landmark_mirror_is_an_involution_with_the_known_midline():
    mirror = landmark_mirror()
    assert (mirror[mirror] == np.arange(478)).all()
    assert {1, 4, 10, 13, 14, 152, 168} <= set(np.flatnonzero(mirror == np.arange(478)))
    assert mirror[33] == 263 and mirror[61] == 291 and mirror[468] == 473


def test_ibug_correspondence_is_symmetric():
    mirror = landmark_mirror()
    jaw = [int(mirror[p]) for p in IBUG68[:17]][::-1]
    assert jaw == IBUG68[:17].tolist() and len(IBUG68) == 68


def test_control_mesh_is_a_symmetric_disk():
    mesh = control_mesh()
    edges, _, _ = mesh_edges(mesh.triangles)
    assert mesh.n_vertices - len(edges) + len(mesh.triangles) == 1
    known = {tuple(sorted(t)) for t in mesh.triangles.tolist()}
    assert len(known) == len(mesh.triangles)
    assert {tuple(sorted(mesh.mirror[list(t)])) for t in known} == known
    assert len(boundary_loops(mesh.triangles)) == 1


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_embedding_is_linear_and_finds_its_own_points(seed):
    rng = np.random.default_rng(seed)
    v, f = octahedron()
    bary = rng.dirichlet(np.ones(3), 5)
    e = LandmarkEmbedding(rng.integers(0, len(f), 5), bary)
    points = embed(v, f, e)
    again, distance = closest_embedding(points, v, f)
    assert distance.max() < 1e-9
    assert np.allclose(embed(v, f, again), points)
    assert np.allclose(embed(np.stack([v, 2 * v]), f, e), np.stack([points, 2 * points]))


def test_embedding_of_vertices_and_missing_points():
    v, f = octahedron()
    e = embedding_of_vertices(np.array([3, -1, 10]), f)
    points = embed(v, f, e)
    assert np.allclose(points[[0, 2]], v[[3, 10]]) and np.isnan(points[1]).all()


def test_field_spreader_keeps_values_and_constants():
    v, f = octahedron(3)
    spreader = FieldSpreader(v, f, stiffness=0.0)
    points = np.array([0, 7, 20])
    out = spreader.spread(points, np.ones((3, 2)))
    assert np.allclose(out, 1, atol=1e-6)
    value = np.random.default_rng(0).normal(size=(3, 2))
    assert np.allclose(spreader.spread(points, value)[points], value)


def test_symmetrise_and_reflect():
    mirror = landmark_mirror()
    x = np.random.default_rng(0).normal(size=(478, 3))
    even = symmetrise(x, mirror)
    assert np.allclose(reflect(even, mirror), even)
    assert np.allclose(reflect(reflect(x, mirror), mirror), x)


def test_convex_embedding_never_flips():
    v, f = octahedron(3)
    f = f[(v[f][..., 2] > -0.3).all(1)]
    f = f[np.isin(f, np.unique(f)).all(1)]
    loop = boundary_loops(f)[0]
    angle = np.unwrap(np.arctan2(v[loop, 1], v[loop, 0]))
    place = 0.5 + 0.45 * np.stack([np.cos(angle), np.sin(angle)], 1)
    for rounds in (0, 3):
        uv = convex_embedding(v, f, loop, place, rounds=rounds)
        found = overlap_count(uv, f, 256)
        assert found["flipped"] == found["overlapping"] == 0


def test_overlap_count_sees_flips_and_overlaps():
    uv = np.array([[0.1, 0.1], [0.9, 0.1], [0.1, 0.9], [0.8, 0.8]])
    good = np.array([[0, 1, 2], [1, 3, 2]])
    assert overlap_count(uv, good, 64) == {"flipped": 0, "degenerate": 0, "overlapping": 0}
    bad = np.array([[0, 1, 2], [0, 3, 2]])
    found = overlap_count(uv, bad, 64)
    assert found["overlapping"] > 0
    assert overlap_count(uv, good[:, ::-1], 64)["flipped"] == 2


def test_midpoint_map_has_the_numbering_of_subdivision():
    v, f = octahedron(0)
    _, fine = subdivide(f, len(v), 2)
    w = midpoint_map(f, len(v), 2) @ v
    assert np.abs(np.abs(w).sum(1) - 1).max() < 1e-12, "still on the octahedron"
    assert fine.max() + 1 == len(w)


def test_intersections_are_found_and_touching_is_not_one():
    v, f = octahedron()
    assert intersecting_triangles(v, f) == 0
    apart = np.concatenate([v, v + [5, 0, 0]])
    both = np.concatenate([f, f + len(v)])
    assert intersecting_triangles(apart, both) == 0
    through = np.concatenate([v, v @ so3_exp(np.array([0.1, 0.2, 0.3])).T + [0.4, 0.1, 0.05]])
    assert intersecting_triangles(through, both) > 10


def test_correction_reaches_the_published_numbers(face):
    flat = face * [1.05, 1.0, 0.88]
    correct = learn_correction(flat, distance=1000.0)
    out = correct(flat)
    assert np.linalg.norm(out[473] - out[468]) == pytest.approx(INTERPUPILLARY, abs=0.3)
    depth = {d.name: (out[list(d.points), 2] - out[2, 2]).mean() for d in DEPTHS}
    before = {d.name: (flat[list(d.points), 2] - flat[2, 2]).mean() for d in DEPTHS}
    miss = [abs(depth[d.name] - d.depth) for d in DEPTHS]
    was = [abs(before[d.name] - d.depth) for d in DEPTHS]
    assert np.mean(miss) < 1.2 and np.mean(miss) < 0.75 * np.mean(was)
    assert np.allclose(out[landmark_mirror()] * [-1, 1, 1], out, atol=1e-9)


def test_aligned_shapes_undo_moves(face):
    rng = np.random.default_rng(0)
    pictures = np.stack(
        [
            rng.uniform(1, 3) * face @ so3_exp(rng.normal(size=3) * 0.3).T + rng.normal(size=3) * 50
            for _ in range(5)
        ]
    ) * [1.0, -1.0, -1.0]
    shapes, reference, _ = aligned_shapes(pictures)
    assert np.abs(shapes - reference).max() < 0.2
    assert np.linalg.norm(reference[468] - reference[473]) == pytest.approx(63)


def test_closing_the_mouth_leaves_the_gap(face):
    opened = face.copy()
    opened[[14, 87, 317, 88, 318, 178, 402, 95, 324], 1] -= 8
    closed = close_mouth(opened)
    assert closed[13, 1] - closed[14, 1] == pytest.approx(LIP_GAP, abs=0.01)
    assert np.abs(closed[[4, 33, 152]] - opened[[4, 33, 152]]).max() == 0
