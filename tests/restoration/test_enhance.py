"""Files in, files out: sound and times kept, no flicker, no half files."""

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from recon3d.errors import InputError
from recon3d.restoration import degradations as d
from recon3d.restoration.enhance import EnhanceSettings, enhance_path, restore_frames

TIMES = [0, 40, 80, 140, 180, 220, 300, 340, 380, 420, 460, 500]  # ms: an uneven rate


def scene(n, width=95, height=71):
    rng = np.random.default_rng(3)
    wide = cv2.GaussianBlur(rng.random((height, width + 2 * n, 3)).astype(np.float32), (0, 0), 3)
    wide = np.clip((wide - 0.5) * 4 + 0.5, 0.05, 0.95)
    for i in range(n):
        yield (wide[:, 2 * i : 2 * i + width] * 255).astype(np.uint8)


def dark_clip(n=12, width=96, height=72):
    recipe = d.Recipe(steps=(d.LowLight(exposure=0.04, full_well=8000.0, compensation=0.0),))
    return list(d.degrade_clip(scene(n, width, height), recipe, np.random.default_rng(0)))


def write_clip(path, frames, times, *, sound=True):
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt, video.options = "yuv420p", {"crf": "5"}
        video.codec_context.time_base = Fraction(1, 1000)
        audio = container.add_stream("aac", rate=16000, layout="mono") if sound else None
        for frame, time in zip(frames, times):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = time, Fraction(1, 1000)
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        if sound:
            for i in range(8):
                wave = np.sin(np.arange(1024) / 9 + i).astype(np.float32)[None] * 0.5
                block = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
                block.sample_rate, block.pts, block.time_base = 16000, 1024 * i, Fraction(1, 16000)
                container.mux(audio.encode(block))
            container.mux(audio.encode(None))
    return path


def read_clip(path):
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        times = [round(float(f.pts * f.time_base) * 1000) for f in frames]
        pictures = [f.to_ndarray(format="rgb24") for f in frames]
    with av.open(str(path)) as container:
        sound = []
        if container.streams.audio:
            for packet in container.demux(audio=0):
                if packet.size:
                    sound.append((round(float(packet.pts * packet.time_base), 4), bytes(packet)))
    return times, pictures, sound


def test_video_keeps_times_and_sound_and_gets_light(tmp_path):
    source = write_clip(tmp_path / "dark.mp4", dark_clip(), TIMES)
    seen = []
    report = enhance_path(
        source, tmp_path / "out" / "light.mp4", progress=lambda done, total: seen.append(done)
    )
    old_times, old, old_sound = read_clip(source)
    times, pictures, sound = read_clip(tmp_path / "out" / "light.mp4")
    assert times == old_times == TIMES
    kept = [packet for packet in old_sound if packet[0] >= 0]
    assert sound == kept and len(sound) >= 7
    assert np.mean(pictures) > 3 * np.mean(old)
    assert report.frames == len(TIMES) == seen[-1] and report.acted["brighten"] == 1.0
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["light.mp4"]


def test_brightness_does_not_flicker():
    # The light of the scene trembles by a tenth; the gain must not.
    rng = np.random.default_rng(0)
    frames = [
        d.to_uint8(d.expose(f.astype(np.float32) / 255, 0.05 * rng.uniform(0.9, 1.1)))
        for f in scene(30)
    ]
    settings = EnhanceSettings(temporal=False, denoise=False, deblur=False, white_balance=False)
    gains = [
        next(r.applied["gain"] for r in reports if r.step == "brighten")
        for _, reports in restore_frames(frames, settings)
    ]
    assert np.abs(np.diff(np.log(gains))).max() < 0.04


def test_interlaced_video_is_noticed(tmp_path):
    progressive = list(scene(14, 96, 96))
    recipe = d.Recipe(steps=(d.Interlace(),))
    woven = list(d.degrade_clip(progressive, recipe, np.random.default_rng(0)))
    settings = EnhanceSettings(
        denoise=False, brighten=False, white_balance=False, deblur=False, deblock=False
    )
    out = [image for image, _ in restore_frames(woven, settings)]
    assert len(out) == 14

    def error(frames):
        pairs = zip(frames[2:-2], progressive[2:-2])
        return np.mean([(a.astype(float) - b) ** 2 for a, b in pairs])

    assert error(out) < 0.8 * error(woven)


def test_picture_to_picture(tmp_path):
    dark = dark_clip(1)[0]
    cv2.imwrite(str(tmp_path / "dark.png"), dark[..., ::-1])
    for name in ("a.png", "b.jpg"):
        report = enhance_path(tmp_path / "dark.png", tmp_path / name, EnhanceSettings(scale=2))
        image = cv2.imread(str(tmp_path / name))
        assert image.shape == (144, 192, 3) and image.mean() > 3 * dark.mean()
        assert report.frames == 1
    assert b"recon3d:notice" in (tmp_path / "a.png").read_bytes()


def test_wrong_calls(tmp_path):
    source = write_clip(tmp_path / "clip.mp4", dark_clip(3), [0, 40, 80], sound=False)
    with pytest.raises(InputError, match="name an output in"):
        enhance_path(source, tmp_path / "out.png")
    with pytest.raises(InputError, match="input itself"):
        enhance_path(source, source)
    with pytest.raises(InputError):
        enhance_path(tmp_path / "missing.mp4", tmp_path / "out.mp4")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        enhance_path(source, tmp_path / "file" / "out.mp4")
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"clip.mp4", "file"}


def test_a_full_disk_leaves_no_half_video(tmp_path):
    import resource

    source = write_clip(tmp_path / "clip.mp4", dark_clip(8), [40 * i for i in range(8)])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        with pytest.raises(InputError, match="cannot be written"):
            enhance_path(source, tmp_path / "out.mp4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]
