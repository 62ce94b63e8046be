"""Mesh operators on shapes whose answers are known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon3d.errors import ShapeError
from recon3d.geometry import (
    cotangent_laplacian,
    graph_laplacian,
    interpolating_control,
    loop_limit,
    loop_subdivision,
    mesh_edges,
    so3_exp,
    subdivide,
    triangle_normals,
    vertex_normals,
)


def icosahedron():
    g = (1 + 5**0.5) / 2
    v = np.array(
        [[-1, g, 0], [1, g, 0], [-1, -g, 0], [1, -g, 0], [0, -1, g], [0, 1, g],
         [0, -1, -g], [0, 1, -g], [g, 0, -1], [g, 0, 1], [-g, 0, -1], [-g, 0, 1]], float
    )  # fmt: skip
    f = np.array(
        [[0, 11, 5], [0, 5, 1], [0, 1, 7], [0, 7, 10], [0, 10, 11], [1, 5, 9], [5, 11, 4],
         [11, 10, 2], [10, 7, 6], [7, 1, 8], [3, 9, 4], [3, 4, 2], [3, 2, 6], [3, 6, 8],
         [3, 8, 9], [4, 9, 5], [2, 4, 11], [6, 2, 10], [8, 6, 7], [9, 8, 1]]
    )  # fmt: skip
    return v / np.linalg.norm(v[0]), f


def grid(n=6, spacing=1.0):
    """A flat sheet of n x n vertices, triangles counter-clockwise seen from +z."""
    x, y = np.meshgrid(np.arange(n), np.arange(n))
    v = np.stack([x.ravel(), y.ravel(), np.zeros(n * n)], 1) * spacing
    f = []
    for j in range(n - 1):
        for i in range(n - 1):
            a = j * n + i
            f += [(a, a + 1, a + n + 1), (a, a + n + 1, a + n)]
    return v, np.array(f)


def volume(v, f):
    return np.einsum("fi,fi->", v[f[:, 0]], np.cross(v[f[:, 1]], v[f[:, 2]])) / 6


def test_normals_of_a_sphere_point_outwards():
    v, f = icosahedron()
    S, fine = subdivide(f, len(v), 2)
    w = S @ v
    normals = vertex_normals(w, fine)
    radial = w / np.linalg.norm(w, axis=1, keepdims=True)
    assert (normals * radial).sum(1).min() > 0.999
    assert np.allclose(np.linalg.norm(normals, axis=1), 1)


def test_degenerate_triangles_and_lone_vertices_give_zero_normals():
    v = np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [5, 5, 5]])
    f = np.array([[0, 1, 2]])
    assert not vertex_normals(v, f).any()
    assert not triangle_normals(v, f).any()


def test_wrong_shapes_are_refused():
    with pytest.raises(ShapeError, match="vertices"):
        vertex_normals(np.zeros((4, 2)), np.zeros((1, 3), int))


def test_edges_of_a_closed_and_an_open_mesh():
    _, f = icosahedron()
    edges, of_triangle, boundary = mesh_edges(f)
    assert len(edges) == 30 and not boundary.any()
    for t in range(len(f)):
        for k in range(3):
            assert set(edges[of_triangle[t, k]]) == {f[t, k], f[t, (k + 1) % 3]}
    _, g = grid(5)
    assert mesh_edges(g)[2].sum() == 16


def test_subdivision_counts_and_orientation():
    v, f = icosahedron()
    S, fine = loop_subdivision(f, len(v))
    assert S.shape == (12 + 30, 12) and fine.shape == (80, 3)
    assert np.allclose(S.sum(1), 1), "affine invariance"
    assert volume(S @ v, fine) > 0


def test_valence_six_vertex_keeps_five_eighths():
    # Loop 1987: beta(6) = 1/16, so an old vertex keeps 10/16 of itself.
    v, f = grid(7)
    S, _ = loop_subdivision(f, len(v))
    inner = 3 * 7 + 3
    assert S[inner, inner] == pytest.approx(10 / 16)
    assert np.sort(S[inner].data)[:-1] == pytest.approx(1 / 16)


def test_flat_sheet_stays_flat_and_keeps_straight_boundaries():
    v, f = grid(6)
    S, fine = subdivide(f, len(v), 3)
    w = S @ v
    assert np.abs(w[:, 2]).max() < 1e-12
    assert w[:, 0].min() == pytest.approx(v[:, 0].min(), abs=0.35)  # only corners round off
    assert (triangle_normals(w, fine)[:, 2] > 0).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_limit_operator_is_what_many_steps_converge_to(seed):
    v, f = icosahedron()
    v = v + np.random.default_rng(seed).normal(scale=0.1, size=v.shape)
    exact = loop_limit(f, len(v)) @ v
    S, _ = subdivide(f, len(v), 5, to_limit=False)
    assert np.abs((S @ v)[:12] - exact).max() < 2e-3


def test_limit_of_the_limit_operator_does_not_depend_on_the_level():
    v, f = icosahedron()
    a = subdivide(f, 12, 1)[0] @ v
    b = subdivide(f, 12, 3)[0] @ v
    assert np.allclose(a[:12], b[:12])


def test_boundary_limit_is_the_cubic_spline():
    v, f = grid(5)
    v[:, 2] = np.random.default_rng(0).normal(size=len(v))
    exact = loop_limit(f, len(v)) @ v
    # On the lower side vertex 2 has neighbours 1 and 3: (1, 4, 1) / 6.
    assert exact[2] == pytest.approx((v[1] + 4 * v[2] + v[3]) / 6)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_interpolating_control_reproduces_points(seed):
    v, f = icosahedron()
    v = v + np.random.default_rng(seed).normal(scale=0.1, size=v.shape)
    S, _ = subdivide(f, len(v), 2)
    assert np.abs((S @ interpolating_control(S, v))[:12] - v).max() < 1e-10


def test_interpolation_weight_zero_leaves_control_points():
    v, f = icosahedron()
    S, _ = subdivide(f, len(v), 2)
    weight = np.ones(12)
    weight[3] = 0
    control = interpolating_control(S, v, weight=weight)
    assert control[3] == pytest.approx(v[3])
    assert (S @ control)[5] == pytest.approx(v[5])


def test_laplacians_vanish_on_constants_and_are_positive():
    v, f = icosahedron()
    for L in (graph_laplacian(f, 12), cotangent_laplacian(v, f)[0]):
        assert np.abs(L @ np.ones(12)).max() < 1e-12
        assert np.linalg.eigvalsh(L.toarray()).min() > -1e-9
        assert np.abs((L - L.T).toarray()).max() < 1e-12


def test_cotangent_laplacian_is_the_dirichlet_energy_of_linear_functions():
    v, f = grid(6, 0.7)
    R = so3_exp(np.array([0.3, -0.8, 0.5]))
    L, mass = cotangent_laplacian(v @ R.T, f)
    slope = np.array([1.5, -0.4])
    u = v[:, :2] @ slope
    area = (5 * 0.7) ** 2
    assert u @ L @ u == pytest.approx((slope**2).sum() * area)
    assert mass.sum() == pytest.approx(area)
