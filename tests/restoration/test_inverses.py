"""Each degradation followed by its inverse gains PSNR over doing nothing, by what
docs/restoration.md states, on photographs that lie in the scikit-image wheel."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from recon3d.colour import srgb_to_linear
from recon3d.errors import InputError, ModelError, ShapeError
from recon3d.restoration import (
    Jpeg,
    LowLight,
    MotionBlur,
    NoiseModel,
    OnnxUpscaler,
    OpticalBlur,
    Recipe,
    RestoreSettings,
    auto_restore,
    brighten,
    deblock,
    deblur,
    degrade,
    deinterlace,
    denoise,
    denoise_frames,
    estimate_blur,
    estimate_light,
    estimate_noise,
    interpolate,
    remove_halos,
    repair_repeats,
    super_resolve,
    white_balance,
)
from recon3d.restoration import degradations as d
from recon3d.restoration.compression import estimate_jpeg_quality

_SPEC = importlib.util.spec_from_file_location(
    "benchmark_restoration", Path(__file__).parents[2] / "benchmarks" / "restoration.py"
)
benchmark = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = benchmark
_SPEC.loader.exec_module(benchmark)

# dB over doing nothing: mean over the pictures, and the worst of them. docs/restoration.md.
STATED = {
    "noise (2 000 e-, read 8)": (4.0, 3.0),
    "strong noise (300 e-, read 4)": (6.0, 4.0),
    "strong noise, non-local means": (5.0, 3.0),
    "strong noise, clip": (8.0, 5.0),
    "exposure x 0.1": (12.0, 2.0),
    "low light x 0.04": (11.0, 8.0),
    "2 800 K": (9.0, 3.0),
    "12 000 K": (1.0, 0.0),
    "Gaussian blur 2 px": (2.5, 0.5),
    "Gaussian blur 2 px, Richardson-Lucy": (1.7, 0.5),
    "defocus 3 px": (3.0, 1.5),
    "motion blur 11 px, 25 degrees": (6.0, 4.0),
    "downsampling by 2 (nothing: bilinear)": (1.1, 0.1),
    "downsampling by 4 (nothing: bilinear)": (0.8, 0.1),
    "sharpening x 1.5, 1.5 px": (8.0, 5.0),
    "JPEG 15": (0.35, 0.2),
    "JPEG 40": (0.25, 0.1),
    "H.264 crf 40, picture": (0.12, 0.08),
    "interlacing, one field": (7.0, 5.0),
    "interlacing, bwdif": (8.0, 6.0),
    "repeated frames 30 %": (15.0, 10.0),
}
QUICK = {
    "noise (2 000 e-, read 8)",
    "exposure x 0.1",
    "2 800 K",
    "motion blur 11 px, 25 degrees",
    "downsampling by 2 (nothing: bilinear)",
    "sharpening x 1.5, 1.5 px",
    "JPEG 15",
    "H.264 crf 40, picture",
    "interlacing, bwdif",
    "repeated frames 30 %",
}


@pytest.fixture(scope="module")
def photographs():
    return benchmark.pictures()


@pytest.mark.parametrize(
    "case", [c for c in benchmark.CASES if c.name in QUICK], ids=lambda c: c.name
)
def test_inverse_gains_on_a_portrait(case, photographs):
    image = photographs["astronaut"]
    if case.name.startswith(("noise", "motion", "H.264")):  # the slow ones
        image = image[40:200, 40:280]
    before, after = benchmark.measure(case, image)
    assert after > before + STATED[case.name][1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [c for c in benchmark.CASES if c.name in STATED], ids=lambda c: c.name
)
def test_inverse_gains_what_the_docs_state(case, photographs):
    table = np.array([benchmark.measure(case, image) for image in photographs.values()])
    gain = table[:, 1] - table[:, 0]
    mean, worst = STATED[case.name]
    assert gain.mean() >= mean and gain.min() >= worst, gain


@pytest.mark.parametrize("photon, floor", [(1 / 500, 0.0), (1 / 4000, 2e-4), (0.0, 1e-3)])
def test_noise_model_is_recovered(photon, floor, photographs):
    image = np.repeat(np.linspace(0.15, 0.9, 256, dtype=np.float32)[None], 256, 0)
    image = np.repeat(image[..., None], 3, -1)
    linear = srgb_to_linear(image)
    rng = np.random.default_rng(0)
    noisy = linear + rng.normal(size=linear.shape) * np.sqrt(photon * linear + floor)
    from recon3d.colour import linear_to_srgb

    found = estimate_noise(linear_to_srgb(noisy))
    levels = np.array([0.4, 0.6, 0.8])
    expected = NoiseModel(photon, floor).sigma(levels)
    np.testing.assert_allclose(found.sigma(levels), expected, rtol=0.15)


def test_blur_is_measured(photographs):
    rng = np.random.default_rng(0)
    image = photographs["astronaut"]
    widths = [
        estimate_blur(degrade(image, Recipe(steps=(OpticalBlur(sigma=s),)), rng)).sigma
        for s in (0.5, 1.5, 2.5, 4.0)
    ]
    assert np.all(np.diff(widths) > 0.4)
    smear = estimate_blur(degrade(image, Recipe(steps=(MotionBlur(length=9, angle=40),)), rng))
    assert smear.kind == "motion"
    lens = estimate_blur(degrade(image, Recipe(steps=(OpticalBlur(sigma=0.0, defocus=4.0),)), rng))
    assert lens.kind == "defocus" and lens.radius == pytest.approx(4, abs=0.5)
    assert smear.length == pytest.approx(9, abs=1.5) and smear.angle == pytest.approx(40, abs=8)


@pytest.mark.parametrize("name", benchmark.PICTURES)
def test_good_pictures_are_hardly_touched(name, photographs):
    image = photographs[name]
    for inverse in (denoise, deblock, deinterlace, remove_halos, brighten, deblur):
        same, report = inverse(image)
        assert not report.acted, report.belief
        assert same is image


def test_jpeg_quality_is_read_from_the_ghost(photographs):
    for quality, name in ((12, "astronaut"), (45, "rocket"), (70, "motorcycle")):
        image = degrade(
            photographs[name], Recipe(steps=(Jpeg(quality=quality),)), np.random.default_rng(0)
        )
        found, depth = estimate_jpeg_quality(image)
        assert found == pytest.approx(quality, abs=1) and depth > 0.5


@pytest.mark.parametrize("crf", [24, 40])
def test_a_video_codec_is_not_taken_for_a_jpeg(crf, photographs):
    recipe = Recipe(steps=(d.Exposure(exposure=0.1), d.H264(crf=crf)))
    image = degrade(photographs["astronaut"], recipe, np.random.default_rng(0))
    same, report = deblock(image)
    assert not report.acted and same is image


def test_light_is_estimated(photographs):
    warm = (d.colour_temperature(photographs["astronaut"] / np.float32(255), 3000)) * 255
    kelvin, _ = estimate_light(warm.astype(np.uint8))
    assert 2600 < kelvin < 4200


def test_skin_tells_the_light_where_the_room_is_red():
    # A face before a red wall: statistics of the picture alone blame the light.
    from recon3d.colour import linear_to_srgb, to_uint8
    from recon3d.restoration.tone import SKIN

    rng = np.random.default_rng(0)
    linear = np.zeros((120, 120, 3), np.float32)
    linear[:] = (0.4, 0.12, 0.05)
    skin = np.zeros((120, 120), bool)
    skin[40:80, 40:80] = True
    linear[skin] = 0.3 * np.exp([SKIN[0], 0, SKIN[1]])
    linear *= rng.uniform(0.8, 1.0, (120, 120, 1))
    image = to_uint8(linear_to_srgb(linear))
    without, _ = estimate_light(image)
    told, _ = estimate_light(image, skin=skin)
    assert abs(1e6 / told - 1e6 / 6504) < 0.8 * abs(1e6 / without - 1e6 / 6504)


def test_neighbouring_frames_help(photographs):
    clip = benchmark.pan(photographs["chelsea"][40:140, :200], 5)
    recipe = Recipe(steps=(LowLight(exposure=1, full_well=300.0, read_noise=4.0),))
    noisy = list(d.degrade_clip(clip, recipe, np.random.default_rng(0)))
    alone = denoise(noisy[2])[0]
    together = [image for image, _ in denoise_frames(noisy)][2]
    assert benchmark.psnr(clip[2], together) > benchmark.psnr(clip[2], alone) + 0.5
    assert len(list(denoise_frames(noisy[:1]))) == 1
    assert list(denoise_frames([])) == []


def test_super_resolution_explains_what_was_seen(photographs):
    image = photographs["coffee"][:120, :160]
    large, report = super_resolve(image, 3)
    assert large.shape == (360, 480, 3)
    again = d.downsample(large.astype(np.float32) / 255, 3)
    assert np.abs(again * 255 - image).mean() < 1.0
    assert report.measured["inconsistency_after"] < report.measured["inconsistency_before"]
    with pytest.raises(InputError, match="expected 2 to 8"):
        super_resolve(image, 1)


def _field(number: int, value) -> bytes:
    """One field of a protocol buffer: an integer, bytes or text."""

    def varint(n: int) -> bytes:
        out = b""
        while True:
            n, low = n >> 7, n & 127
            out += bytes([low | (128 if n else 0)])
            if not n:
                return out

    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def nearest_network(scale: int) -> bytes:
    """A valid ONNX model that enlarges by repetition, written by hand: one Resize node."""
    scales = np.array([1, 1, scale, scale], np.float32).tobytes()
    tensor = _field(1, 4) + _field(2, 1) + _field(8, "scales") + _field(9, scales)
    mode = _field(1, "mode") + _field(4, b"nearest") + _field(20, 3)
    rounding = _field(1, "nearest_mode") + _field(4, b"floor") + _field(20, 3)
    where = _field(1, "coordinate_transformation_mode") + _field(4, b"asymmetric") + _field(20, 3)
    node = _field(1, "x") + _field(1, "") + _field(1, "scales") + _field(2, "y")
    node += _field(4, "Resize") + _field(5, mode) + _field(5, rounding) + _field(5, where)

    def value(name: str) -> bytes:
        sizes = b"".join(
            _field(1, _field(1, n) if isinstance(n, int) else _field(2, n))
            for n in (1, 3, "h", "w")
        )
        kind = _field(1, _field(1, 1) + _field(2, sizes))
        return _field(1, name) + _field(2, kind)

    output = _field(1, "y") + _field(2, _field(1, _field(1, 1)))
    graph = _field(1, node) + _field(2, "g") + _field(5, tensor)
    graph += _field(11, value("x")) + _field(12, output)
    return _field(1, 8) + _field(7, graph) + _field(8, _field(1, "") + _field(2, 13))


def test_a_network_that_the_user_brings(tmp_path, photographs):
    pytest.importorskip("onnxruntime")
    path = tmp_path / "nearest.onnx"
    path.write_bytes(nearest_network(2))
    upscaler = OnnxUpscaler.load(path, tile=50)
    assert upscaler.scale == 2
    image = photographs["chelsea"][:90, :130].astype(np.float32) / 255
    expected = image.repeat(2, 0).repeat(2, 1)
    np.testing.assert_allclose(upscaler(image), expected, atol=1e-6)
    large, report = super_resolve(photographs["chelsea"][:90, :130], upscaler=upscaler)
    assert large.shape == (180, 260, 3) and report.applied["by"] == "nearest.onnx"
    path.write_bytes(b"not a network")
    with pytest.raises(ModelError, match="cannot be run"):
        OnnxUpscaler.load(path)
    with pytest.raises(InputError, match="no such"):
        OnnxUpscaler.load(tmp_path / "missing.onnx")


def test_still_scenes_and_cuts_keep_their_frames(photographs):
    still = [photographs["chelsea"]] * 6
    assert not any(report.acted for _, report in repair_repeats(still))
    clip = benchmark.pan(photographs["chelsea"], 4)
    cut = clip[:3] + [clip[2]] + [np.full_like(clip[0], 20)]
    out = list(repair_repeats(cut))
    assert len(out) == 5 and not out[3][1].acted
    np.testing.assert_array_equal(out[3][0], clip[2])


def test_interpolation_meets_both_ends(photographs):
    a, b = benchmark.pan(photographs["coffee"], 4)[:2]
    assert benchmark.psnr(interpolate(a, b, 0.0), a) > 35
    assert benchmark.psnr(interpolate(a, b, 1.0), b) > 35


def test_everything_at_once_is_better_than_nothing(photographs):
    image = photographs["astronaut"]
    recipe = Recipe(
        steps=(
            d.ColourTemperature(kelvin=3000.0),
            LowLight(exposure=0.08, full_well=8000.0, compensation=0.3),
            Jpeg(quality=85),
        )
    )
    spoilt = degrade(image, recipe, np.random.default_rng(0))
    restored, reports = auto_restore(spoilt)
    assert benchmark.psnr(image, restored) > benchmark.psnr(image, spoilt) + 6
    acted = {report.step for report in reports if report.acted}
    assert {"white_balance", "brighten"} <= acted
    assert all(report.belief for report in reports)
    again, _ = auto_restore(spoilt)
    np.testing.assert_array_equal(restored, again)


def test_sizes_and_types(photographs):
    rng = np.random.default_rng(0)
    for shape in ((1, 1, 3), (7, 5, 3), (33, 20, 3)):
        image = rng.integers(0, 255, shape).astype(np.uint8)
        out, _ = auto_restore(image, RestoreSettings(halos=True, scale=2))
        assert out.shape == (2 * shape[0], 2 * shape[1], 3) and out.dtype == np.uint8
    black, _ = auto_restore(np.zeros((40, 40, 3), np.uint8))
    assert black.max() <= 2
    floating, _ = auto_restore(photographs["chelsea"][:40, :40].astype(np.float64) / 255)
    assert floating.dtype == np.float32
    with pytest.raises(ShapeError):
        white_balance(np.zeros((4, 4), np.uint8))
    with pytest.raises(InputError, match="expected uint8"):
        white_balance(np.zeros((4, 4, 3), np.int32))
