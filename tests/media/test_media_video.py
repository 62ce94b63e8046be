"""Videos: what decodes is used, in constant memory, upright."""

import gc
import threading
import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest

from recon3d.errors import InputError, ShapeError
from recon3d.media import VideoWriter, iterate_frames, open_inputs


def ramp(number, size=(64, 48)):
    """A frame that tells its number by its brightness, its orientation by a bright corner."""
    image = np.full((size[1], size[0], 3), 40 + 3 * number, np.uint8)
    image[:16, :16] = 250
    return image


def write_video(path, count=30, size=(64, 48), fps=25, **kwargs):
    with VideoWriter(path, fps, **kwargs) as writer:
        for number in range(count):
            writer.write(ramp(number, size))
    return path


def number_of(image):
    return round((float(np.median(image)) - 40) / 3)


def test_round_trip(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    (media,) = open_inputs([path])
    assert (media.kind, media.width, media.height, media.fps) == ("video", 64, 48, 25)
    assert media.n_frames == 30 and len(media.sha256) == 64
    frames = list(iterate_frames([media]))
    assert [number_of(frame.image) for frame in frames] == list(range(30))
    assert [frame.index for frame in frames] == list(range(30))
    assert np.allclose([frame.time for frame in frames], np.arange(30) / 25, atol=1e-6)


def test_odd_size_is_padded_by_the_writer(tmp_path):
    path = write_video(tmp_path / "a.mp4", 3, (63, 47))
    assert next(iterate_frames(open_inputs([path]))).image.shape == (48, 64, 3)


def test_writer_is_atomic(tmp_path):
    with pytest.raises(RuntimeError), VideoWriter(tmp_path / "a.mp4", 25) as writer:
        writer.write(ramp(0))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError), VideoWriter(tmp_path / "b.mp4", 25):
        pass
    with pytest.raises(ShapeError), VideoWriter(tmp_path / "c.mp4", 25) as writer:
        writer.write(ramp(0))
        writer.write(ramp(0, (32, 32)))
    assert list(tmp_path.iterdir()) == []


def _rotated(path, degrees):
    """An MP4 whose track header turns it, as phones write them."""
    write_video(path, 4)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4
    matrix = at + (52 if data[at] == 1 else 40)
    unit = {
        90: (0, 1, 0, -1, 0, 0),
        180: (-1, 0, 0, 0, -1, 0),
        270: (0, -1, 0, 1, 0, 0),
    }[degrees]
    values = [v * 65536 for v in unit] + [0, 0, 0x40000000]
    data[matrix : matrix + 36] = b"".join(v.to_bytes(4, "big", signed=True) for v in values)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotated_phone_video(tmp_path, degrees):
    (media,) = open_inputs([_rotated(tmp_path / "a.mp4", degrees)])
    shape = (48, 64) if degrees == 180 else (64, 48)
    assert (media.height, media.width) == shape
    image = next(iterate_frames([media])).image
    assert image.shape[:2] == shape
    # The matrix turns clockwise as players show it: the bright upper left corner moves along.
    expected = np.rot90(ramp(0), -degrees // 90)
    assert np.abs(image.astype(int) - expected).mean() < 6


def test_variable_frame_rate(tmp_path):
    path = tmp_path / "a.mkv"
    times = [0, 40, 80, 400, 410, 1000]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(ramp(number), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    frames = list(iterate_frames(open_inputs([path])))
    assert np.allclose([frame.time * 1000 for frame in frames], times, atol=1)


def test_truncated_video_uses_what_decodes(tmp_path):
    # Two frames a second, so that what is missing is more than a second.
    path = write_video(tmp_path / "a.mkv", 60, (320, 240), fps=2)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * 0.6)])
    warnings = []
    frames = list(iterate_frames(open_inputs([path]), on_warning=warnings.append))
    assert 5 < len(frames) < 60
    # The last frame or two may lack the one they were coded against.
    numbers = [number_of(frame.image) for frame in frames]
    assert numbers[:-3] == list(range(len(frames) - 3)) and numbers == sorted(numbers)
    assert len(warnings) == 1 and "cut off" in warnings[0]


def test_truncated_fragmented_mp4_says_so(tmp_path):
    # An index at the front and the pictures cut off: the usual failed upload.
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        rng = np.random.default_rng(0)
        for number in range(60):
            image = ramp(number, (320, 240))
            image[100:140] = rng.integers(0, 255, (40, 320, 3))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    whole = path.read_bytes()
    assert whole.index(b"moov") < whole.index(b"mdat")
    path.write_bytes(whole[: int(len(whole) * 0.6)])
    warnings = []
    frames = list(iterate_frames(open_inputs([path]), on_warning=warnings.append))
    assert 5 < len(frames) < 60
    assert len(warnings) == 1 and "cut off" in warnings[0] and "\n" not in warnings[0]


def test_video_without_its_index(tmp_path):
    path = write_video(tmp_path / "a.mp4", 30, (320, 240))
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b"moov") - 4])
    with pytest.raises(InputError, match="cut off"):
        open_inputs([path])


def test_broken_packets_are_left_out(tmp_path):
    path = write_video(tmp_path / "a.mkv", 60, (320, 240), codec="mpeg4")
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(1)
    middle = len(data) // 2
    data[middle : middle + 3000] = rng.integers(0, 256, 3000, np.uint8).tobytes()
    path.write_bytes(data)
    frames = list(iterate_frames(open_inputs([path]), on_warning=lambda line: None))
    assert len(frames) > 20


def test_oblong_pixels_are_made_square(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(2, 1)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(ramp(0), format="rgb24")))
        container.mux(stream.encode(None))
    (media,) = open_inputs([path])
    assert (media.width, media.height) == (128, 48)


def test_memory_does_not_grow_with_the_clip(tmp_path):
    # Decoding runs ahead by a bounded number of frames, however slow the taker is.
    size = (640, 480)
    path = write_video(tmp_path / "a.mp4", 120, size)
    inputs = open_inputs([path])
    gc.collect()
    tracemalloc.start()
    for _ in iterate_frames(inputs, ahead=4):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 * size[0] * size[1] * 3


def test_stopping_early_ends_the_thread(tmp_path):
    path = write_video(tmp_path / "a.mp4", 60)
    frames = iterate_frames(open_inputs([path]))
    next(frames)
    frames.close()
    assert not [t for t in threading.enumerate() if t.name == "recon3d-decode" and t.is_alive()]


def test_max_frames_and_sources(tmp_path):
    a, b = write_video(tmp_path / "a.mp4", 9), write_video(tmp_path / "b.mp4", 9)
    frames = list(iterate_frames(open_inputs([a, b]), max_frames=4))
    assert [(f.source, f.index) for f in frames] == [(s, i) for s in (0, 1) for i in range(4)]


def test_folder_with_one_video(tmp_path):
    write_video(tmp_path / "a.mp4", 3)
    (tmp_path / "readme.txt").write_text("hello " * 50)
    assert open_inputs([tmp_path])[0].kind == "video"
