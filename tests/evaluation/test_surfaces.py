"""Distances and alignment on surfaces whose answers are known."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recon3d.errors import InputError
from recon3d.evaluation.surfaces import (
    Surface,
    align_to_scan,
    closest_on_triangles,
    split_long_edges,
)
from recon3d.geometry import so3_exp, vertex_normals

coordinate = st.floats(-10, 10, allow_nan=False, width=32)


@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, (4, 3), elements=coordinate))
def test_closest_point_beats_a_dense_sampling_of_the_triangle(x):
    p, a, b, c = x
    # Surfaces leave out triangles without area.
    assume(np.linalg.norm(np.cross(b - a, c - a)) > 1e-3)
    found = closest_on_triangles(p, a, b, c)
    u, v = np.meshgrid(np.linspace(0, 1, 41), np.linspace(0, 1, 41))
    u, v = u[u + v <= 1], v[u + v <= 1]
    sampled = a + u[:, None] * (b - a) + v[:, None] * (c - a)
    best = np.linalg.norm(sampled - p, axis=1).min()
    assert np.linalg.norm(found - p) <= best + 1e-6
    # ... and it lies in the triangle: the sampling comes close to it.
    step = max(np.linalg.norm(b - a), np.linalg.norm(c - a)) / 40
    assert np.linalg.norm(sampled - found, axis=1).min() <= 2 * step + 1e-6


def test_splitting_keeps_area_and_shortens_edges(egg):
    vertices, triangles = egg

    def area(v, t):
        return np.linalg.norm(np.cross(v[t[:, 1]] - v[t[:, 0]], v[t[:, 2]] - v[t[:, 0]]), axis=1)

    fine_vertices, fine = split_long_edges(vertices, triangles, 5.0)
    assert area(fine_vertices, fine).sum() == pytest.approx(area(vertices, triangles).sum())
    corners = fine_vertices[fine]
    assert np.linalg.norm(corners - np.roll(corners, -1, 1), axis=2).max() <= 5.0


def test_points_lifted_off_the_surface_have_their_height_as_distance(egg):
    vertices, triangles = egg
    normals = vertex_normals(vertices, triangles)
    surface = Surface(vertices, triangles)
    inner = (np.abs(vertices[:, 1]) < 80) & (vertices[:, 2] > -40)
    _, distance = surface.closest((vertices + 2.0 * normals)[inner])
    assert np.median(distance) == pytest.approx(2.0, abs=0.02)
    closest, distance = surface.closest(vertices[inner])
    assert distance.max() < 1e-9
    np.testing.assert_allclose(closest, vertices[inner], atol=1e-9)


@pytest.mark.parametrize("fit_scale", [False, True])
def test_alignment_recovers_a_known_motion(egg, fit_scale):
    vertices, triangles = egg
    normals = vertex_normals(vertices, triangles)
    R, t = so3_exp(np.array([0.08, -0.1, 0.06])), np.array([4.0, -3.0, 5.0])
    s = 1.06 if fit_scale else 1.0
    predicted = ((vertices - t) @ R) / s
    start = (1.0, np.eye(3), np.zeros(3))
    found = align_to_scan(
        Surface(predicted, triangles), vertices, normals, start, scale=fit_scale, iterations=60
    )
    assert found[0] == pytest.approx(s, abs=2e-3)
    moved = found[0] * predicted @ found[1].T + found[2]
    assert np.linalg.norm(moved - vertices, axis=1).mean() < 0.25


def test_meshes_without_surface_are_refused():
    with pytest.raises(InputError):
        Surface(np.zeros((3, 3)), np.zeros((0, 3), int))
    with pytest.raises(InputError):
        Surface(np.full((3, 3), np.nan), np.array([[0, 1, 2]]))
    with pytest.raises(InputError):
        Surface(np.zeros((3, 3)), np.array([[0, 1, 2]]))
