"""Degradations: what they do to numbers that are known, and that a seed repeats them."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon3d.colour import srgb_to_linear
from recon3d.errors import InputError, ShapeError
from recon3d.restoration import (
    H264,
    ColourTemperature,
    Downsample,
    DropFrames,
    Exposure,
    Interlace,
    Jpeg,
    LowLight,
    MotionBlur,
    OpticalBlur,
    Recipe,
    Sharpen,
    cctv_recipe,
    degrade,
    degrade_clip,
)
from recon3d.restoration import degradations as d
from recon3d.restoration.kernels import disc_kernel, gaussian_kernel, motion_kernel
from recon3d.restoration.light import chromaticity, light_gains

ALL = (
    Exposure(exposure=(0.3, 0.6)),
    ColourTemperature(kelvin=(2500, 9000)),
    OpticalBlur(sigma=(0.5, 1.0), defocus=1.5),
    MotionBlur(length=5, angle=(0, 180)),
    Downsample(factor=2),
    LowLight(exposure=(0.1, 0.4)),
    Sharpen(),
    Interlace(),
    DropFrames(drop=0.2, repeat=0.2),
    Jpeg(quality=(30, 60)),
    H264(crf=35),
)


def clip(n=8, height=61, width=83, seed=0):
    """A textured scene that pans, of odd size."""
    rng = np.random.default_rng(seed)
    scene = cv2.GaussianBlur(rng.random((height, width + 4 * n, 3)).astype(np.float32), (0, 0), 2)
    scene = np.clip((scene - 0.5) * 3 + 0.5, 0, 1)
    for i in range(n):
        yield (scene[:, 4 * i : 4 * i + width] * 255).astype(np.uint8)


def test_every_step_survives_json_and_yaml():
    recipe = Recipe(name="all", steps=ALL)
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe


@pytest.mark.parametrize("step", ALL, ids=lambda s: s.kind)
def test_same_seed_same_bytes(step):
    recipe = Recipe(steps=(step,))
    runs = [list(degrade_clip(clip(), recipe, np.random.default_rng(5))) for _ in range(2)]
    assert len(runs[0]) == len(runs[1]) >= 4
    for a, b in zip(*runs):
        assert a.dtype == np.uint8
        np.testing.assert_array_equal(a, b)
    picture = degrade(next(clip()), recipe, np.random.default_rng(5))
    assert picture.dtype == np.uint8 and picture.ndim == 3


def test_lookahead_does_not_change_the_bytes():
    # Steps behind an encoder draw their numbers late; each step has its own stream.
    recipe = Recipe(steps=(LowLight(exposure=0.5), H264(crf=30), LowLight(exposure=0.5)))
    eager = list(degrade_clip(list(clip()), recipe, np.random.default_rng(1)))
    lazy = list(degrade_clip(clip(), recipe, np.random.default_rng(1)))
    np.testing.assert_array_equal(eager, lazy)
    assert len(eager) == 8 and eager[0].shape == (61, 83, 3)


def test_another_seed_gives_other_noise():
    recipe = Recipe(steps=(LowLight(),))
    a, b = (degrade(next(clip()), recipe, np.random.default_rng(s)) for s in (1, 2))
    assert (a != b).mean() > 0.2


def test_memory_does_not_grow_with_the_clip():
    alive = peak = 0

    def frames():
        nonlocal alive, peak
        for frame in clip(120):
            alive += 1
            peak = max(peak, alive)
            yield frame

    for _ in degrade_clip(frames(), Recipe(steps=(H264(), Interlace())), np.random.default_rng(0)):
        alive -= 1
    # libx264 looks about forty frames ahead at this preset, whatever the length.
    assert alive == 0 and peak < 60


def test_noise_has_the_promised_variance():
    grey = np.full((300, 300, 3), 0.5, np.float32)
    level = float(srgb_to_linear(grey)[0, 0, 0])
    noisy = d.sensor_noise(
        grey, np.random.default_rng(0), full_well=1000, read_noise=6, exposure=0.5, gain=2
    )
    linear = srgb_to_linear(noisy)
    expected = (level * 500 + 36) * (2 / 1000) ** 2
    assert linear.mean() == pytest.approx(level, rel=0.01)
    assert linear.var() == pytest.approx(expected, rel=0.03)


def test_exposure_scales_light():
    grey = np.full((4, 4, 3), 0.6, np.float32)
    np.testing.assert_allclose(
        srgb_to_linear(d.expose(grey, 0.25)), srgb_to_linear(grey) / 4, rtol=1e-4
    )


def test_daylight_is_neutral_and_candles_are_red():
    np.testing.assert_allclose(light_gains(6504), 1, atol=1e-12)
    # CIE 015: D65 and D50; Planckian 2856 K is illuminant A.
    np.testing.assert_allclose(chromaticity(6504), (0.3127, 0.3290), atol=5e-4)
    np.testing.assert_allclose(chromaticity(5003), (0.3457, 0.3585), atol=5e-4)
    np.testing.assert_allclose(chromaticity(2856), (0.4476, 0.4074), atol=1e-3)
    ratio = [light_gains(k)[0] / light_gains(k)[2] for k in range(1700, 12_000, 200)]
    assert np.all(np.diff(ratio) < 0)
    with pytest.raises(ValueError, match="colour temperature"):
        light_gains(500)


@given(st.floats(0.5, 12), st.floats(-180, 180))
@settings(max_examples=30, deadline=None)
def test_kernels_keep_the_light_and_stay_centred(size, angle):
    for kernel in (motion_kernel(size, angle), disc_kernel(size), gaussian_kernel(size / 2)):
        assert kernel.sum() == pytest.approx(1)
        axis = np.arange(len(kernel)) - len(kernel) // 2
        assert abs((kernel.sum(0) * axis).sum()) < 1e-9
        assert abs((kernel.sum(1) * axis).sum()) < 1e-9


def test_motion_kernel_lies_along_its_angle():
    kernel = motion_kernel(9, 30)
    axis = np.arange(len(kernel)) - len(kernel) // 2
    x, y = np.meshgrid(axis, -axis)
    cov = np.array([[(kernel * x * x).sum(), (kernel * x * y).sum()], [0, (kernel * y * y).sum()]])
    angle = 0.5 * np.degrees(np.arctan2(2 * cov[0, 1], cov[0, 0] - cov[1, 1]))
    assert angle == pytest.approx(30, abs=1)
    assert cov[0, 0] + cov[1, 1] == pytest.approx(81 / 12, rel=0.1)


def test_downsampling_does_not_alias():
    stripes = np.tile(np.array([0.0, 1.0], np.float32), 64)[None, :, None].repeat(64, 0)
    small = d.downsample(stripes.repeat(3, 2), 4)
    assert small.shape == (16, 32, 3) and np.ptp(small) < 1e-3
    assert srgb_to_linear(small).mean() == pytest.approx(0.5, abs=1e-3)


def test_sharpening_overshoots():
    step = np.full((20, 40, 3), 0.3, np.float32)
    step[:, 20:] = 0.7
    sharp = d.sharpen(step, 1.0, 1.5)
    assert sharp.max() > 0.8 and sharp.min() < 0.2


def test_compression_is_worse_at_worse_settings():
    frames = list(clip())

    def error(step):
        out = degrade_clip(frames, Recipe(steps=(step,)), np.random.default_rng(0))
        return np.mean([np.abs(a.astype(float) - b).mean() for a, b in zip(frames, out)])

    assert error(H264(crf=10)) < error(H264(crf=30)) < error(H264(crf=45))
    assert error(Jpeg(quality=90)) < error(Jpeg(quality=40)) < error(Jpeg(quality=5))


def test_interlacing_weaves_two_moments():
    frames = list(clip(3))
    out = list(degrade_clip(frames, Recipe(steps=(Interlace(),)), np.random.default_rng(0)))
    assert len(out) == 3
    np.testing.assert_array_equal(out[0][0::2], frames[0][0::2])
    np.testing.assert_array_equal(out[0][1::2], frames[1][1::2])
    np.testing.assert_array_equal(out[2], frames[2])


def test_dropping_and_repeating():
    frames = [np.full((4, 4, 3), i, np.uint8) for i in range(200)]
    recipe = Recipe(steps=(DropFrames(drop=0.1, repeat=0.2),))
    shown = [f[0, 0, 0] for f in degrade_clip(frames, recipe, np.random.default_rng(0))]
    assert shown[0] == 0 and shown == sorted(shown)
    assert len(shown) == pytest.approx(180, abs=15)
    assert len(shown) - len(set(shown)) == pytest.approx(40, abs=15)


def test_wrong_calls_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ShapeError):
        degrade(np.zeros((4, 4), np.uint8), cctv_recipe(), rng)
    with pytest.raises(InputError, match="uint8"):
        degrade(np.zeros((4, 4, 3), np.float32), cctv_recipe(), rng)
    with pytest.raises(InputError, match="one size"):
        mixed = [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 10, 3), np.uint8)]
        list(degrade_clip(mixed, Recipe(steps=(H264(),)), rng))
    with pytest.raises(InputError, match="not a degradation recipe"):
        Recipe.from_yaml("steps: [{kind: fog}]")
    with pytest.raises(ValueError, match="rising range"):
        OpticalBlur(sigma=(3, 1))


def test_the_camera_of_the_demo():
    out = list(degrade_clip(clip(6, 240, 320), cctv_recipe(), np.random.default_rng(0)))
    assert len(out) == 6 and out[0].shape == (60, 80, 3)
    assert out[0].mean() < 0.9 * np.mean(list(clip(6, 240, 320)))
