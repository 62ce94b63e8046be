import numpy as np
import pytest
from refinement_scenes import make_view

from recon3d.errors import BackendUnavailable, InputError, ModelError
from recon3d.refinement.networks import Generator
from recon3d.refinement.projection import observed_residual
from recon3d.refinement.refine import refine_frontal
from recon3d.refinement.refiners import (
    OnnxRefiner,
    OwnRefiner,
    load_refiner,
    shipped_path,
    without_outline,
)
from recon3d.refinement.settings import RefinementSettings
from recon3d.refinement.weights import save_generator


def write_onnx(path, *, amount=0.8, size="side", signed=False, channels=3, extra=False):
    """A network that sharpens: x + amount (x - mean of its 5x5 neighbourhood)."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    kernel = np.zeros((channels, channels, 5, 5), np.float32)
    for c in range(channels):
        kernel[c, c] = -amount / 25
        kernel[c, c, 2, 2] += 1 + amount
    shape = [1, channels, size, size]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    nodes = [
        helper.make_node("Pad", ["x", "pads"], ["padded"], mode="edge"),
        helper.make_node("Conv", ["padded", "kernel"], ["sharp"]),
        helper.make_node("Clip", ["sharp", "low", "high"], ["y"]),
    ]
    if extra:
        inputs.append(helper.make_tensor_value_info("w", TensorProto.DOUBLE, [1]))
    graph = helper.make_graph(
        nodes,
        "sharpen",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [
            numpy_helper.from_array(np.array([0, 0, 2, 2, 0, 0, 2, 2], np.int64), "pads"),
            numpy_helper.from_array(kernel, "kernel"),
            numpy_helper.from_array(np.float32(-1.0 if signed else 0.0), "low"),
            numpy_helper.from_array(np.float32(1.0), "high"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("size", ["side", 256])
def test_an_onnx_network_refines(tmp_path, signed, size):
    pytest.importorskip("onnxruntime")
    view, truth = make_view(1, blur=2.0)
    refiner = OnnxRefiner(write_onnx(tmp_path / "net.onnx", signed=signed, size=size), "MIT")
    picture, sigma = refiner(view)
    assert picture.shape == (512, 512, 3) and sigma is None
    if size == "side":
        edge = np.s_[190:260, 150:220]
        before = np.abs(view.raw[edge].astype(float) - truth[edge]).mean()
        assert np.abs(picture[edge] - truth[edge]).mean() < before


def test_an_onnx_network_is_projected_and_listed(tmp_path):
    pytest.importorskip("onnxruntime")
    view, _ = make_view(2, blur=2.0)
    path = write_onnx(tmp_path / "net.onnx", amount=3.0, extra=True)
    refiner = load_refiner(path, licence="Apache-2.0")
    done = refine_frontal(view, refiner)
    assert observed_residual(done.image, view.raw, view.evidence) <= 2.0
    info = done.info["refiner"]
    assert info["applied"] and info["licence"] == "Apache-2.0" and info["drift"] is None
    assert refiner.licence.permissive and len(refiner.sha256) == 64
    assert np.array_equal(done.raw, view.raw) and not np.array_equal(done.image, view.raw)
    assert done.generated_share > view.generated_share


def test_networks_of_another_shape_are_refused(tmp_path):
    pytest.importorskip("onnxruntime")
    path = write_onnx(tmp_path / "four.onnx", channels=4)
    with pytest.raises(ModelError, match="expected one picture"):
        OnnxRefiner(path)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    with pytest.raises(ModelError, match="cannot be read as an ONNX network"):
        load_refiner(broken)


def test_checkpoints_need_spandrel(tmp_path):
    try:
        import spandrel  # noqa: F401
    except Exception:
        path = tmp_path / "gfpgan.pth"
        path.write_bytes(b"x")
        with pytest.raises(BackendUnavailable, match="spandrel"):
            load_refiner(path)
    else:
        pytest.skip("spandrel can be imported here")


def test_files_of_no_known_kind(tmp_path):
    with pytest.raises(InputError, match="no such refiner"):
        load_refiner(tmp_path / "none.onnx")
    path = tmp_path / "notes.txt"
    path.write_text("x")
    with pytest.raises(InputError, match="not a refiner"):
        load_refiner(path)


def _own(tmp_path):
    path = tmp_path / "own.safetensors"
    save_generator(path, Generator(widths=(8, 12, 16), blocks=1), {"steps": "0"})
    return OwnRefiner(path)


def test_our_own_gives_an_uncertainty(tmp_path):
    view, _ = make_view(3)
    done = refine_frontal(view, _own(tmp_path))
    assert done.uncertainty.shape == (512, 512) and (done.uncertainty > 0).all()
    # Untrained it hardly changes anything.
    assert np.abs(done.image.astype(int) - view.raw).max() < 12


class _Invert:
    """A refiner that makes somebody else of everybody."""

    kind = "test"

    def __init__(self, other):
        self.other = other

    @property
    def licence(self):
        from recon3d.licences import LedgerEntry

        return LedgerEntry("other", "refiner", "MIT", "test")

    sha256 = ""

    def __call__(self, view):
        return self.other.astype(np.float32), None


def test_the_gate_blends_back():
    view, _ = make_view(4, support=0.1)
    _, other = make_view(40)
    refiner = _Invert(other)

    def embed(image, landmarks):
        return image[200:400, 150:350].mean((0, 1)) / 255

    whole = float(np.linalg.norm(embed(other, None) - embed(view.raw, None)))
    loose = RefinementSettings(strength=1.0, drift_limit=2 * whole)
    free = refine_frontal(view, refiner, loose, embed)
    assert free.info["refiner"]["drift"] == pytest.approx(whole, rel=0.02)
    limit = whole * 0.6
    held = refine_frontal(view, refiner, RefinementSettings(strength=1.0, drift_limit=limit), embed)
    assert held.info["refiner"]["blend"] == 0.5 and held.info["refiner"]["drift"] <= limit
    tight = RefinementSettings(strength=1.0, drift_limit=whole * 0.01)
    never = refine_frontal(view, refiner, tight, embed)
    assert never.info["refiner"]["blend"] == 0 and not never.info["refiner"]["applied"]
    np.testing.assert_array_equal(never.image, view.raw)


@pytest.mark.skipif(not shipped_path().is_file(), reason="no refiner weights in assets/refiner")
def test_the_shipped_refiner_loads_and_is_small():
    refiner = load_refiner()
    assert refiner.licence.permissive
    assert shipped_path().stat().st_size < 24 * 2**20
    view, _ = make_view(5)
    picture, sigma = refiner(view)
    assert np.isfinite(picture).all() and np.isfinite(sigma).all()


def test_lines_along_the_outline_of_the_mesh_are_taken_out_and_nothing_else():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:256, :256] + 0.5 - 128
    away = np.hypot(x, y) - 90
    covered = away < 0
    content = np.repeat(rng.normal(0, 3, (256, 256, 1)), 3, -1).astype(np.float32)
    lines = 8 * np.cos(away / 1.3) * np.exp(-((away / 5) ** 2))
    found = without_outline(content + lines[..., None].astype(np.float32), covered)
    near, far = np.abs(away) < 6, np.abs(away) > 20
    left = np.sqrt(np.mean((found - content)[near] ** 2))
    assert left < 0.3 * np.sqrt(np.mean(lines[near] ** 2))
    np.testing.assert_allclose(found[far], content[far], atol=1e-4)


def test_a_picture_without_an_outline_is_left_alone():
    change = np.ones((64, 64, 3), np.float32)
    for covered in (np.zeros((64, 64), bool), np.ones((64, 64), bool)):
        assert without_outline(change, covered) is change
