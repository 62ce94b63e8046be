"""Every differentiable step in double precision, and outlines against finite differences."""

import math

import numpy as np
import pytest
import torch
from rendering_scenes import camera, icosphere, soup
from torch.autograd import gradcheck

from recon3d.rendering import (
    Fragments,
    antialias,
    edge_neighbours,
    interpolate_attributes,
    interpolate_attributes_adjoint,
    irradiance,
    irradiance_adjoint,
    rasterise,
    sample_texture,
    sample_texture_adjoint,
    shade,
    spherical_harmonics,
    vertex_normals,
    vertex_normals_adjoint,
)
from recon3d.rendering.reference import (
    antialias_reference,
    barycentric_jacobian_reference,
    interpolate_attributes_reference,
)
from recon3d.rendering.texture import attribute_derivatives

SIZE = (8, 9)


def leaves(*tensors):
    return tuple(tensor.detach().clone().requires_grad_() for tensor in tensors)


def check(function, inputs, **options):
    """`gradcheck` of three random projections of the output (of all of it would take minutes)."""

    def projected(*args):
        out = function(*args)
        out = out if isinstance(out, tuple) else (out,)
        generator = torch.Generator().manual_seed(11)
        return sum(
            (x.flatten() * torch.randn(3, x.numel(), generator=generator).double()).sum(1)
            for x in out
        )

    return gradcheck(projected, inputs, **options)


def scene(views=2, seed=0):
    vertices, triangles = soup(7, seed)
    return vertices, triangles, *camera(SIZE, views=views, seed=seed + 1)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("seed", range(2))
def test_fragments_with_respect_to_vertices_and_camera(backend, seed):
    vertices, triangles, K, R, t = scene(seed=seed)

    def depth_and_barycentric(vertices, K, R, t):
        fragments = rasterise(vertices, triangles, K, R, t, SIZE, backend)
        return fragments.zbuf, fragments.barycentric

    assert check(depth_and_barycentric, leaves(vertices, K, R, t), atol=1e-4)


def test_fragments_across_the_near_plane():
    vertices, triangles, K, R, _ = scene(views=1, seed=3)
    t = torch.tensor([[0.0, 0.0, 25.0]]).double()

    def barycentric(vertices, K, t):
        return rasterise(vertices, triangles, K, R, t, SIZE, near=4.0).barycentric

    assert check(barycentric, leaves(vertices, K, t), atol=1e-4)


def test_native_gradient_equals_reference_gradient():
    vertices, triangles = icosphere(3)
    weights = torch.randn(3, 40, 48, 4, generator=torch.Generator().manual_seed(0)).double()
    found = []
    for backend in ("native", "reference"):
        inputs = leaves(vertices, *camera(views=3))
        fragments = rasterise(inputs[0], triangles, *inputs[1:], (40, 48), backend)
        values = torch.cat([fragments.barycentric, fragments.zbuf[..., None]], -1)
        found.append(torch.autograd.grad((values * weights).sum(), inputs))
    for a, b in zip(*found):
        assert float((a - b).norm()) < 1e-8 * float(b.norm())


@pytest.mark.parametrize("shared", [True, False])
def test_interpolation(shared):
    vertices, triangles, K, R, t = scene()
    fragments = rasterise(vertices, triangles, K, R, t, SIZE)
    attributes = torch.rand(*(() if shared else (2,)), len(vertices), 2).double()

    def interpolate(barycentric, attributes):
        f = Fragments(fragments.pix_to_face, fragments.zbuf, barycentric)
        return interpolate_attributes(f, attributes, triangles)

    assert check(interpolate, leaves(fragments.barycentric, attributes))
    batched = attributes[None] if shared else attributes
    expected = interpolate_attributes_reference(fragments, batched, triangles)
    assert torch.allclose(interpolate(fragments.barycentric, attributes), expected)


def test_interpolation_adjoint():
    vertices, triangles, K, R, t = scene()
    fragments = rasterise(vertices, triangles, K, R, t, SIZE)
    x, y = torch.rand(len(vertices), 2).double(), torch.rand(2, *SIZE, 2).double()
    left = (interpolate_attributes(fragments, x, triangles) * y).sum()
    right = (x * interpolate_attributes_adjoint(fragments, y, triangles, len(x))).sum()
    assert float(left) == pytest.approx(float(right), rel=1e-12)


def test_normals():
    vertices, triangles = icosphere(1, radius=5.0)
    stretched = vertices * torch.tensor([1.0, 2.0, 0.5]).double()
    # of an ellipsoid: the gradient of its quadric
    expected = stretched / torch.tensor([1.0, 2.0, 0.5]).double() ** 2
    expected = expected / expected.norm(dim=1, keepdim=True)
    fine, fine_triangles = icosphere(4, radius=5.0)
    fine_stretched = fine * torch.tensor([1.0, 2.0, 0.5]).double()
    found = vertex_normals(fine_stretched, fine_triangles)[: len(expected)]
    assert float((found * expected).sum(1).min()) > 0.999
    assert check(lambda v: vertex_normals(v, triangles), leaves(stretched[None]))
    with_loose = torch.cat([vertices, vertices[:1]]).requires_grad_()  # a vertex of no triangle
    normals = vertex_normals(with_loose, triangles)
    assert (normals[-1] == 0).all()
    normals.sum().backward()
    assert torch.isfinite(with_loose.grad).all()
    x, y = torch.randn_like(vertices), torch.randn_like(vertices)
    _, forward = torch.autograd.functional.jvp(lambda v: vertex_normals(v, triangles), vertices, x)
    backward = vertex_normals_adjoint(vertices, triangles, y)
    assert float((forward * y).sum()) == pytest.approx(float((x * backward).sum()))


@pytest.mark.parametrize("mip", [False, True])
@pytest.mark.parametrize("shared", [True, False])
def test_texture_lookup(mip, shared):
    generator = torch.Generator().manual_seed(4)
    texture = torch.rand(*(() if shared else (2,)), 5, 6, 2, generator=generator).double()
    uv = torch.rand(2, 3, 4, 2, generator=generator).double() * 1.3 - 0.15
    level = (torch.rand(2, 3, 4, generator=generator).double() * 6 - 1,) if mip else ()
    mask = torch.rand(2, 3, 4, generator=generator) > 0.2

    def look_up(texture, uv, *level):
        return sample_texture(texture, uv, *(level or (None,)), mask=mask)

    assert check(look_up, leaves(texture, uv, *level))
    assert (look_up(texture, uv, *level)[~mask] == 0).all()
    if shared:
        y = torch.rand(2, 3, 4, 2, generator=generator).double()
        left = (look_up(texture, uv, *level) * y).sum()
        splat = sample_texture_adjoint(y, uv, (5, 6), *(level or (None,)), mask=mask)
        assert float(left) == pytest.approx(float((texture * splat).sum()), rel=1e-12)


def test_spherical_harmonics():
    generator = torch.Generator().manual_seed(5)
    normals = torch.nn.functional.normalize(torch.randn(40, 3, generator=generator).double(), dim=1)
    light = torch.randn(9, 3, generator=generator).double()
    albedo = torch.rand(40, 3, generator=generator).double()
    assert check(shade, leaves(albedo, normals, light))
    y = torch.rand(40, 3, generator=generator).double()
    left = (irradiance(normals, light) * y).sum()
    right = (light * irradiance_adjoint(normals, y)).sum()
    assert float(left) == pytest.approx(float(right), rel=1e-12)
    per_view = torch.stack([light, 2 * light])[:, None]
    both = irradiance(normals.expand(2, -1, -1), per_view)
    assert torch.allclose(both[1], 2 * both[0])


def test_irradiance_is_the_cosine_weighted_integral_of_the_light():
    """Against direct integration over the sphere of a light that has only those nine terms."""
    polar, azimuth = np.meshgrid(
        (np.arange(400) + 0.5) / 400 * math.pi, (np.arange(800) + 0.5) / 800 * 2 * math.pi
    )
    directions = torch.tensor(
        np.stack(
            [
                np.sin(polar) * np.cos(azimuth),
                np.sin(polar) * np.sin(azimuth),
                np.cos(polar),
            ],
            -1,
        )
    )
    weight = torch.tensor(np.sin(polar)) * (math.pi / 400) * (2 * math.pi / 800)
    basis = spherical_harmonics(directions)
    gram = torch.einsum("hwi,hwj,hw->ij", basis, basis, weight)
    assert torch.allclose(gram, torch.eye(9).double(), atol=1e-4)
    light = torch.randn(9, 1, generator=torch.Generator().manual_seed(6)).double()
    for normal in torch.eye(3).double():
        cosine = (directions @ normal).clamp(min=0)
        expected = ((basis @ light)[..., 0] * cosine * weight).sum() / math.pi
        assert float(irradiance(normal, light)) == pytest.approx(float(expected), abs=1e-4)


def test_attribute_derivatives_against_neighbouring_rays():
    """d uv / d pixel equals the difference of the picture of a camera moved by a fraction."""
    vertices, triangles = icosphere(1)
    K, R, t = camera((20, 24), views=2)
    fragments = rasterise(vertices, triangles, K, R, t, (20, 24))
    uv = torch.rand(len(vertices), 2, generator=torch.Generator().manual_seed(7)).double()
    found = attribute_derivatives(fragments, vertices, triangles, K, R, t, uv, triangles)
    base = interpolate_attributes(fragments, uv, triangles)
    step = 1e-5
    for axis in range(2):
        moved = K.clone()
        moved[:, axis, 2] -= step  # the picture slides by a step: each pixel sees its neighbour
        other = rasterise(vertices, triangles, moved, R, t, (20, 24))
        difference = (interpolate_attributes(other, uv, triangles) - base) / step
        same = (other.pix_to_face == fragments.pix_to_face) & fragments.mask
        assert torch.allclose(found[..., axis][same], difference[same], rtol=1e-3, atol=1e-6)
    Kinv = torch.linalg.inv(K)
    reference = barycentric_jacobian_reference(
        fragments, vertices @ R.mT + t[:, None], triangles, Kinv
    )
    corners = uv[triangles[fragments.pix_to_face.clamp(min=0)]]
    assert torch.allclose(found, torch.einsum("nhwic,nhwid->nhwcd", corners, reference))


# Outlines


@pytest.mark.parametrize("mesh", ["sphere", "soup"])
def test_antialiasing_with_respect_to_everything(mesh):
    vertices, triangles = icosphere(1) if mesh == "sphere" else soup(9)
    K, R, t = camera(SIZE, views=2)
    fragments = rasterise(vertices, triangles, K, R, t, SIZE)
    image = torch.rand(2, *SIZE, 2, generator=torch.Generator().manual_seed(0)).double()

    def smooth(image, vertices, K, R, t):
        return antialias(image, fragments, vertices, triangles, K, R, t)

    assert not torch.equal(smooth(image, vertices, K, R, t), image)
    assert check(smooth, leaves(image, vertices, K, R, t), atol=1e-4)


@pytest.mark.parametrize("mesh", [icosphere(3), soup(40)])
def test_antialiasing_equals_its_reference(mesh):
    vertices, triangles = mesh
    K, R, t = camera(views=2)
    fragments = rasterise(vertices, triangles, K, R, t, (40, 48))
    image = torch.rand(2, 40, 48, 3).double()
    neighbours = torch.from_numpy(edge_neighbours(triangles)).long()
    found = []
    for native in (True, False):
        inputs = leaves(image, vertices, K, R, t)
        if native:
            out = antialias(inputs[0], fragments, inputs[1], triangles, *inputs[2:])
        else:
            picture, points, K_, R_, t_ = inputs
            out = antialias_reference(
                picture,
                fragments,
                points @ R_.mT + t_[:, None],
                triangles,
                torch.linalg.inv(K_),
                neighbours,
            )
        weights = torch.linspace(-1, 1, out.numel()).double().reshape(out.shape)
        found.append((out.detach(), *torch.autograd.grad((out * weights).sum(), inputs)))
    for a, b in zip(*found):
        assert torch.allclose(a, b, rtol=1e-7, atol=1e-9)


def covered_area(vertices, triangles, K, R, t, size):
    fragments = rasterise(vertices, triangles, K, R, t, size)
    mask = fragments.mask[..., None].to(vertices.dtype)
    return antialias(mask, fragments, vertices, triangles, K, R, t).sum((1, 2, 3))


@pytest.mark.parametrize("subdivisions", [1, 2, 4])
def test_area_of_a_sphere_and_its_derivative(subdivisions):
    """Against the exact area of the projected outline, from coarse to sub-pixel triangles."""
    from scipy.spatial import ConvexHull

    vertices, triangles = icosphere(subdivisions)
    size = (64, 64)
    K, R, t = camera(size, views=4, seed=2)

    def exact(scale):
        points = (vertices.numpy() * scale) @ R.numpy().swapaxes(1, 2) + t.numpy()[:, None]
        pixels = points @ K.numpy().swapaxes(1, 2)
        return np.array([ConvexHull(p[:, :2] / p[:, 2:]).volume for p in pixels])

    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    area = covered_area(vertices * scale, triangles, K, R, t, size)
    assert np.allclose(area.detach().numpy(), exact(1.0), rtol=3e-3)
    (slope,) = torch.autograd.grad(area.mean(), scale)
    expected = (exact(1.001) - exact(0.999)).mean() / 0.002
    assert float(slope) == pytest.approx(expected, rel=0.03)


def test_derivative_of_the_rendered_area_by_finite_differences():
    """The slope of the rendered area itself, over a step of more than one pixel."""
    vertices, triangles = icosphere(3)
    size = (64, 64)
    K, R, t = camera(size, views=4, seed=2)
    steps = torch.linspace(-0.03, 0.03, 13).double()
    areas, slopes = [], []
    for step in steps:
        scale = (1 + step).clone().requires_grad_()
        area = covered_area(vertices * scale, triangles, K, R, t, size).mean()
        areas.append(float(area.detach()))
        slopes.append(float(torch.autograd.grad(area, scale)[0]))
    measured = np.polyfit(steps.numpy(), areas, 1)[0]
    assert np.mean(slopes) == pytest.approx(measured, rel=0.01)


def test_an_edge_that_hides_another_part_of_the_mesh_pulls_it():
    """A bright square before a dark wall: moving it sideways trades one border for the other."""
    square = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]).double()
    vertices = torch.cat([square * 6 + torch.tensor([0.3, 0.1, 0]), square * 60])
    vertices[4:, 2] = 30.0
    triangles = torch.tensor([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    colours = torch.tensor([0.9] * 4 + [0.2] * 4).double()[:, None]
    K, R = torch.tensor([[200.0, 0, 12], [0, 200, 12], [0, 0, 1]]).double(), torch.eye(3).double()
    t = torch.tensor([0.0, 0.0, 200.0]).double()
    columns = torch.arange(24).double() + 0.5

    def moment(vertices):
        fragments = rasterise(vertices, triangles, K, R, t, (24, 24))
        image = interpolate_attributes(fragments, colours, triangles)
        image = antialias(image, fragments, vertices, triangles, K, R, t)
        return image.sum(), (image[..., 0] * columns).sum()

    moved = vertices.clone().requires_grad_()
    total, first_moment = moment(moved)
    (grad_total,) = torch.autograd.grad(total, moved, retain_graph=True)
    (grad_moment,) = torch.autograd.grad(first_moment, moved)
    # 1 mm is 1 px here and the square is 12 px wide
    assert float(total.detach()) == pytest.approx(0.2 * 576 + 0.7 * 144, rel=2e-3)
    assert abs(float(grad_total[:4, 0].sum())) < 1e-9
    assert float(grad_total[[1, 2], 0].sum()) == pytest.approx(0.7 * 12, rel=0.02)
    assert float(grad_moment[:4, 0].sum()) == pytest.approx(0.7 * 144, rel=0.02)
    assert float(grad_total[4:].abs().max()) < 1e-12


def test_an_outline_pulls_a_shape_into_place():
    vertices, triangles = icosphere(2)
    size = (48, 48)
    K, R, _ = camera(size, seed=3)
    truth = torch.tensor([[7.0, -5.0, 430.0]]).double()

    def draw(t):
        fragments = rasterise(vertices, triangles, K, R, t, size)
        mask = fragments.mask[..., None].to(vertices.dtype)
        return antialias(mask, fragments, vertices, triangles, K, R, t)

    target = draw(truth)
    t = torch.tensor([[0.0, 0.0, 480.0]]).double().requires_grad_()
    optimiser = torch.optim.LBFGS([t], max_iter=40, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = (draw(t) - target).square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    error = (t.detach() - truth).abs()[0]
    assert float(error[:2].max()) < 0.2 and float(error[2]) < 2.0


def test_antialiasing_leaves_the_inside_alone():
    vertices, triangles = icosphere(3)
    K, R, t = camera()
    fragments = rasterise(vertices, triangles, K, R, t, (40, 48))
    image = torch.rand(1, 40, 48, 1).double()
    smooth = antialias(image, fragments, vertices, triangles, K, R, t)
    inside = torch.nn.functional.max_pool2d((~fragments.mask).double(), 3, 1, 1) == 0
    assert torch.equal(smooth[inside], image[inside])
    assert not torch.equal(smooth[fragments.mask], image[fragments.mask])


def test_neighbours():
    triangles = torch.tensor([[0, 1, 2], [2, 1, 3], [4, 5, 6], [5, 4, 7], [4, 5, 8]])
    found = edge_neighbours(triangles)
    assert found[0].tolist() == [[1, 2], [-1, 0], [-1, 0]]
    assert found[1, 2].tolist() == [0, 0]
    assert (found[2:, :, 0] == -1).all()  # three triangles at one edge: none is its neighbour
    _, sphere = icosphere(2)
    found = edge_neighbours(sphere)
    back = found[found[..., 0], found[..., 1]]
    assert (back[..., 0] == np.arange(len(sphere))[:, None]).all()
    assert (back[..., 1] == np.arange(3)).all()
    assert edge_neighbours(sphere) is found
