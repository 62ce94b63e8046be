"""Fragments: against PyTorch3D's numbers, between members, and on input that is not nice."""

import multiprocessing
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rendering_scenes import GOLDEN_SCENES, camera, golden, icosphere, soup

from recon3d.errors import BackendUnavailable, InputError, ShapeError
from recon3d.rendering import (
    Fragments,
    available_backends,
    get_rasteriser,
    interpolate_attributes,
    rasterise,
    vertex_normals,
)
from recon3d.rendering._threads import run_chunks, set_num_threads
from recon3d.rendering.native import rasterise_numpy, rasterise_uv

MEMBERS = ("native", "reference")


def parity(scene: str, backend: str, device: str = "cpu") -> dict[str, float]:
    """Disagreement of a back end with the golden numbers of a scene."""
    g = {name: value.to(device) for name, value in golden(scene).items()}
    vertices = g["vertices"].requires_grad_()
    triangles = g["triangles"].long()
    size = tuple(int(n) for n in g["size"])
    fragments = rasterise(vertices, triangles, g["K"], g["R"], g["t"], size, backend)
    image = interpolate_attributes(fragments, g["attributes"], triangles)
    (image * g["loss_weights"]).sum().backward()
    fragments = Fragments(*(x.detach() for x in vars(fragments).values()))
    image = image.detach()
    same = fragments.pix_to_face[0] == g["pix_to_face"]
    both = same & (g["pix_to_face"] >= 0)
    grad = vertices.grad - g["grad_vertices"]
    return {
        "equal": float(same.double().mean()),
        "zbuf": float((fragments.zbuf[0] / g["zbuf"] - 1)[both].abs().max()),
        "barycentric": float((fragments.barycentric[0] - g["bary"])[both].abs().max()),
        "image": float((image[0] - g["image"])[both].abs().max()),
        "grad_vertices": float(grad.norm() / g["grad_vertices"].norm()),
    }


def assert_parity(found: dict[str, float]) -> None:
    # over all pixels, those at triangle edges included: stricter than away from a band
    assert found["equal"] >= 0.999
    assert found["zbuf"] < 1e-4
    assert found["barycentric"] < 1e-3
    assert found["grad_vertices"] < 1e-2


@pytest.mark.parametrize("scene", GOLDEN_SCENES)
def test_native_agrees_with_the_numbers_of_pytorch3d(scene):
    assert_parity(parity(scene, "native"))


@pytest.mark.parametrize("scene", GOLDEN_SCENES[:3])
def test_reference_agrees_with_the_numbers_of_pytorch3d(scene):
    assert_parity(parity(scene, "reference"))


@pytest.mark.parametrize("scene", GOLDEN_SCENES[:3])
def test_pytorch3d_agrees_with_its_numbers(scene):
    pytest.importorskip("pytorch3d", reason="PyTorch3D is not installed")
    assert_parity(parity(scene, "pytorch3d"))


def assert_same(a, b, tolerance=1e-7):
    assert torch.equal(a.pix_to_face, b.pix_to_face)
    assert torch.allclose(a.zbuf, b.zbuf, rtol=tolerance, atol=tolerance)
    assert torch.allclose(a.barycentric, b.barycentric, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("cull", [False, True])
@pytest.mark.parametrize("mesh", [icosphere(), soup(60)])
def test_native_equals_reference(mesh, cull):
    vertices, triangles = mesh
    arguments = (vertices, triangles, *camera(views=3), (40, 48))
    a, b = (rasterise(*arguments, backend=name, cull_backfaces=cull) for name in MEMBERS)
    assert a.mask.any() and not a.mask.all()
    assert_same(a, b)


@pytest.mark.parametrize("seed", range(4))
def test_native_equals_reference_across_the_near_plane(seed):
    vertices, triangles = soup(40, seed)
    K, R, t = camera(seed=seed, distance=20.0)
    a, b = (
        rasterise(vertices, triangles, K, R, t, (40, 48), backend=name, near=5.0)
        for name in MEMBERS
    )
    assert a.mask.any()
    assert float(a.zbuf[a.mask].min()) >= 5.0
    assert_same(a, b, 1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), height=st.integers(1, 30), width=st.integers(1, 30))
def test_native_equals_reference_on_any_picture(seed, height, width):
    vertices, triangles = soup(12, seed)
    arguments = (vertices, triangles, *camera((height, width), seed=seed), (height, width))
    a, b = (rasterise(*arguments, backend=name) for name in MEMBERS)
    assert_same(a, b)


def test_fragments_hit_the_surface():
    """The interpolated corner lies on the ray of the pixel centre, at the depth of zbuf."""
    vertices, triangles = icosphere()
    K, R, t = camera(views=2)
    fragments = rasterise(vertices, triangles, K, R, t, (40, 48))
    points = interpolate_attributes(fragments, vertices, triangles)
    for n in range(2):
        row, col = torch.nonzero(fragments.mask[n], as_tuple=True)
        inside = points[n, row, col] @ R[n].T + t[n]
        assert torch.allclose(inside[:, 2], fragments.zbuf[n, row, col])
        pixel = inside @ K[n].T
        pixel = pixel[:, :2] / pixel[:, 2:]
        assert torch.allclose(pixel, torch.stack([col + 0.5, row + 0.5], -1).double(), atol=1e-9)


def test_shared_edges_leave_no_gap_and_no_overlap():
    """A grid whose edges run through pixel centres covers each pixel exactly once."""
    n = 9
    y, x = np.mgrid[0:n, 0:n]
    vertices = np.stack([x.ravel() * 2 + 0.5, y.ravel() * 2 + 0.5, np.ones(n * n)], -1)
    corner = (y[:-1, :-1] * n + x[:-1, :-1]).ravel()
    triangles = np.concatenate(
        [
            np.stack([corner, corner + 1, corner + n + 1], -1),
            np.stack([corner, corner + n + 1, corner + n], -1),
        ]
    )
    size = (17, 17)
    face, _, _ = rasterise_numpy(vertices, triangles, np.eye(3), size)
    count = np.zeros(size, int)
    for triangle in triangles:
        alone, _, _ = rasterise_numpy(vertices, triangle[None], np.eye(3), size)
        count += alone >= 0
    assert (count[:-1, :-1] == 1).all()
    assert ((face >= 0) == (count > 0)).all()


def test_culling_keeps_the_side_that_faces_the_camera():
    vertices, triangles = icosphere()
    K, R, t = camera()
    all_of_it = rasterise(vertices, triangles, K, R, t, (40, 48))
    front = rasterise(vertices, triangles, K, R, t, (40, 48), cull_backfaces=True)
    assert torch.equal(all_of_it.pix_to_face, front.pix_to_face)
    inside_out = rasterise(vertices, triangles.flip(1), K, R, t, (40, 48), cull_backfaces=True)
    far = inside_out.zbuf[inside_out.mask] - all_of_it.zbuf[inside_out.mask]
    assert inside_out.mask.sum() > 100 and float(far.min()) > 0
    normals = vertex_normals(vertices, triangles)
    seen = interpolate_attributes(front, normals, triangles)[front.mask]
    assert float((seen @ R[0].T)[:, 2].max()) < 0.2  # towards the camera, but for the rim


def test_batches_equal_single_views():
    vertices, triangles = icosphere()
    batch = torch.stack([vertices, 1.2 * vertices, 0.7 * vertices])
    K, R, t = camera(views=3)
    together = rasterise(batch, triangles, K, R, t, (40, 48))
    values = interpolate_attributes(together, batch, triangles)
    for n in range(3):
        alone = rasterise(batch[n], triangles, K[n], R[n], t[n], (40, 48))
        assert torch.equal(alone.pix_to_face[0], together.pix_to_face[n])
        single = interpolate_attributes(alone, batch[n], triangles)
        assert torch.allclose(single[0], values[n])


def test_float32_agrees_with_float64():
    vertices, triangles = icosphere()
    K, R, t = camera()
    fine = rasterise(vertices, triangles, K, R, t, (40, 48))
    coarse = rasterise(vertices.float(), triangles, K, R, t, (40, 48))
    assert coarse.zbuf.dtype == coarse.barycentric.dtype == torch.float32
    assert float((fine.pix_to_face == coarse.pix_to_face).double().mean()) > 0.998


def test_texture_space_has_row_0_at_v_1():
    uv = np.array([[0.0, 0.5], [1.0, 0.5], [1.0, 1.0], [0.0, 1.0], [0.2, 0.1], [0.4, 0.1]])
    face, barycentric = rasterise_uv(uv, np.array([[0, 1, 2], [0, 2, 3]]), 16)
    assert (face[:8] >= 0).all() and (face[8:] == -1).all()
    rows, cols = np.nonzero(face >= 0)
    corners = uv[np.array([[0, 1, 2], [0, 2, 3]])[face[rows, cols]]]
    where = (barycentric[rows, cols][..., None] * corners).sum(1)
    expected = np.stack([(cols + 0.5) / 16, 1 - (rows + 0.5) / 16], -1)
    assert np.allclose(where, expected, atol=1e-6)
    again, z, _ = rasterise_numpy(
        uv, np.array([[0, 1, 2], [0, 2, 3]]), None, (16, 16), uv_space=True
    )
    assert (again == face).all() and np.allclose(z[:8], 1)


# Input that is not nice


@pytest.mark.parametrize("backend", MEMBERS)
def test_nothing_to_see(backend):
    vertices, triangles = icosphere(1)
    K, R, t = camera()
    for mesh, place in (
        ((vertices, triangles[:0]), t),
        ((vertices[:0], triangles[:0]), t),
        ((vertices, triangles), t - 900.0),  # behind the camera
        ((vertices, triangles), t + torch.tensor([5000.0, 0, 0])),  # beside the picture
    ):
        vertices_in = mesh[0].clone().requires_grad_()
        fragments = rasterise(vertices_in, mesh[1], K, R, place, (8, 9), backend)
        assert not fragments.mask.any()
        assert (fragments.zbuf == -1).all() and (fragments.barycentric == -1).all()
        values = interpolate_attributes(fragments, torch.ones(len(mesh[0]), 2).double(), mesh[1])
        assert (values == 0).all()
        (values.sum() + fragments.zbuf.sum() * 0).backward()
        assert (vertices_in.grad == 0).all()


@pytest.mark.parametrize("backend", MEMBERS)
def test_one_pixel(backend):
    vertices, triangles = icosphere(1)
    K = torch.tensor([[2.0, 0, 0.45], [0, 2, 0.55], [0, 0, 1]]).double()
    t = torch.tensor([1.0, 2.0, 300.0])
    fragments = rasterise(vertices, triangles, K, torch.eye(3), t, (1, 1), backend)
    assert fragments.pix_to_face.shape == (1, 1, 1) and bool(fragments.mask.all())
    assert float(fragments.barycentric.sum()) == pytest.approx(1)


@pytest.mark.parametrize("backend", MEMBERS)
def test_degenerate_triangles_are_not_drawn_and_have_no_gradient(backend):
    good, triangles = soup(3)
    line = torch.tensor([[-40.0, -40, 0], [0, 0, 0], [40, 40, 0]], dtype=good.dtype)
    point = torch.zeros(3, 3, dtype=good.dtype)
    sliver = line + torch.tensor([[0, 0, 0], [0, 1e-9, 0], [0, 0, 0]], dtype=good.dtype)
    vertices = torch.cat([good, line, point, sliver]).requires_grad_()
    triangles = torch.cat([torch.arange(18).reshape(-1, 3), torch.tensor([[0, 0, 1]])])
    K, R, t = camera()
    fragments = rasterise(vertices, triangles, K, R, t, (40, 48), backend)
    assert int(fragments.pix_to_face.max()) <= 2
    (fragments.barycentric.square().sum() + fragments.zbuf.sum()).backward()
    assert torch.isfinite(vertices.grad).all()
    assert (vertices.grad[9:] == 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_gradients_stay_finite_for_thin_triangles_and_across_the_camera(seed):
    vertices, triangles = soup(200, seed)
    vertices = vertices.reshape(-1, 3, 3)
    thin = torch.logspace(0, -9, len(vertices), dtype=vertices.dtype)[:, None]
    vertices = torch.cat(
        [vertices[:, :2], (vertices[:, :1] + vertices[:, 1:2]) / 2 + thin[:, None] * 30], 1
    )
    vertices = vertices.reshape(-1, 3).float().requires_grad_()
    K, R, t = camera(seed=seed, distance=30.0, dtype=torch.float32)
    fragments = rasterise(vertices, triangles, K, R, t, (40, 48))
    (fragments.barycentric.square().sum() + fragments.zbuf.sum()).backward()
    assert fragments.mask.any() and torch.isfinite(vertices.grad).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_vertices_that_are_not_finite(value):
    vertices, triangles = icosphere(1)
    vertices = vertices.clone()
    vertices[7, 1] = value
    K, R, t = camera()
    for backend in MEMBERS:
        with pytest.raises(InputError, match="not finite"):
            rasterise(vertices, triangles, K, R, t, (8, 8), backend)
    with pytest.raises(InputError, match="row 7"):
        rasterise_numpy(vertices.numpy(), triangles.numpy(), K[0].numpy(), (8, 8))


def test_wrong_arguments():
    vertices, triangles = icosphere(1)
    K, R, t = camera()
    with pytest.raises(ShapeError, match="triangles"):
        rasterise(vertices, triangles[:, :2], K, R, t, (8, 8))
    with pytest.raises(ShapeError, match="vertices"):
        rasterise(vertices[:, :2], triangles, K, R, t, (8, 8))
    with pytest.raises(InputError, match="refer to vertices"):
        rasterise(vertices, triangles + 1, K, R, t, (8, 8))
    with pytest.raises(InputError, match="at least one pixel"):
        rasterise(vertices, triangles, K, R, t, (0, 8))
    with pytest.raises(InputError, match="different numbers of views"):
        rasterise(vertices.expand(2, -1, -1), triangles, K.expand(3, 3, 3), R, t, (8, 8))
    with pytest.raises(InputError, match="R or t is not finite"):
        rasterise(vertices, triangles, K, R * float("nan"), t, (8, 8))
    with pytest.raises(InputError, match="no rasteriser 'opengl'"):
        rasterise(vertices, triangles, K, R, t, (8, 8), "opengl")
    with pytest.raises(InputError, match="invertible"):
        rasterise_numpy(vertices.numpy(), triangles.numpy(), np.zeros((3, 3)), (8, 8))
    fragments = rasterise(vertices, triangles, K, R, t, (8, 8))
    with pytest.raises(InputError, match="refer to vertices"):
        interpolate_attributes(fragments, vertices[:5], triangles)


# The interface


def test_backends_are_listed_and_missing_ones_say_how_to_get_them():
    states = {state.name: state for state in available_backends()}
    assert set(states) == {"native", "reference", "pytorch3d"}
    assert states["native"].available and states["reference"].available
    assert get_rasteriser("auto").name == "native"
    if not states["pytorch3d"].available:
        assert "pip install" in states["pytorch3d"].remedy
        with pytest.raises(BackendUnavailable, match="pip install"):
            get_rasteriser("pytorch3d")


def test_the_notes_on_pytorch3d_are_what_the_program_prints():
    from recon3d.rendering.pytorch3d import REMEDY

    command, _, place = REMEDY.partition("  (see ")
    notes = Path(__file__).resolve().parents[2] / place.rstrip(")")
    assert command in notes.read_text(encoding="utf-8")


def test_importing_the_package_is_cheap():
    import subprocess
    import sys

    code = (
        "import sys, recon3d.rendering; "
        "print([m for m in ('torch', 'numba', 'scipy', 'pytorch3d') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# Threads


@pytest.fixture
def threads():
    yield set_num_threads
    set_num_threads(None)


def test_the_number_of_threads_does_not_change_the_picture(threads):
    vertices, triangles = icosphere(4)
    K = np.array([[560.0, 0, 100], [0, 560, 90], [0, 0, 1]])
    moved = vertices.numpy() + [0, 0, 450]
    results = []
    for number in (1, 2, 5):
        threads(number)
        results.append(rasterise_numpy(moved, triangles.numpy(), K, (180, 200)))
    for other in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(results[0], other))


def test_several_threads_may_draw_at_once(threads):
    threads(2)
    vertices, triangles = icosphere(3)
    K = np.array([[560.0, 0, 100], [0, 560, 90], [0, 0, 1]])
    moved = vertices.numpy() + [0, 0, 450]
    expected = rasterise_numpy(moved, triangles.numpy(), K, (180, 200))[0]
    same = []

    def draw():
        for _ in range(5):
            face, _, _ = rasterise_numpy(moved, triangles.numpy(), K, (180, 200))
            same.append(np.array_equal(face, expected))

    workers = [threading.Thread(target=draw) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert len(same) == 20 and all(same)


def _draw_in_child(queue):
    vertices, triangles = icosphere(3)
    K = np.array([[560.0, 0, 100], [0, 560, 90], [0, 0, 1]])
    face, _, _ = rasterise_numpy(vertices.numpy() + [0, 0, 450], triangles.numpy(), K, (180, 200))
    queue.put(int((face >= 0).sum()))


def test_a_forked_process_may_draw(threads):
    threads(2)
    context = multiprocessing.get_context("fork")
    here, there = context.Queue(), context.Queue()
    _draw_in_child(here)
    child = context.Process(target=_draw_in_child, args=(there,))
    child.start()
    assert there.get(timeout=30) == here.get(timeout=30)
    child.join(10)
    assert child.exitcode == 0


def test_an_error_in_a_chunk_is_raised(threads):
    threads(3)

    def work(i):
        if i == 4:
            raise InputError("chunk 4")

    with pytest.raises(InputError, match="chunk 4"):
        run_chunks(work, 8)
