"""Frames as a camera films: newest first served, at their own pace, opened again when lost."""

import http.server
import threading
import time

import av
import numpy as np
import pytest

from recon3d.errors import InputError
from recon3d.media import LiveFrames, VideoWriter, open_inputs, write_png


def ramp(number):
    """A frame that tells its number by its brightness."""
    return np.full((48, 64, 3), 40 + 3 * number, np.uint8)


def number_of(frame):
    return round((float(np.median(frame.image)) - 40) / 3)


@pytest.fixture
def film(tmp_path):
    path = tmp_path / "film.mp4"
    with VideoWriter(path, 25) as writer:
        for number in range(30):
            writer.write(ramp(number))
    (media,) = open_inputs([path])
    return media


def test_a_film_comes_at_its_own_pace(film):
    live = LiveFrames(film)
    start = time.monotonic()
    frames = [(frame, time.monotonic() - start) for frame in live]
    assert [number_of(frame) for frame, _ in frames] == list(range(30))
    assert live.received == 30 and live.dropped == 0
    early = min(at - frame.time for frame, at in frames)
    assert early > -0.01 and 29 / 25 <= frames[-1][1] < 3


def test_who_is_slow_gets_the_newest(film):
    live = LiveFrames(film, waiting=2)
    seen = []
    for frame in live:
        seen.append(number_of(frame))
        assert frame.index == seen[-1]
        time.sleep(0.15)
    assert live.received == 30 and live.dropped == 30 - len(seen)
    assert len(seen) < 15 and (np.diff(seen) > 0).all() and seen[-1] == 29


def test_it_stops_when_told(film):
    live = LiveFrames(film)
    seen = 0
    for _ in live:
        seen += 1
        if seen == 3:
            live.stop()
    assert seen == 3
    assert [number_of(f) for f in LiveFrames(film, seconds=0.2)] == list(range(5))


def test_pictures_have_no_clock(tmp_path):
    write_png(tmp_path / "a.png", ramp(3))
    (media,) = open_inputs([tmp_path / "a.png"])
    with pytest.raises(InputError, match="neither a stream nor a video"):
        LiveFrames(media)


@pytest.fixture
def camera(tmp_path):
    """An address that sends a transport stream of 10 frames to whoever asks, `left` times."""
    path = tmp_path / "camera.ts"
    with av.open(str(path), "w", format="mpegts") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(ramp(number), format="rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    data = path.read_bytes()

    class Camera(http.server.BaseHTTPRequestHandler):
        left = 3

        def do_GET(self):
            if Camera.left <= 0:
                self.send_error(404)
                return
            Camera.left -= 1
            self.send_response(200)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/camera.ts", Camera
    finally:
        server.shutdown()
        server.server_close()


def test_a_lost_stream_is_opened_again(camera, monkeypatch):
    monkeypatch.setattr("recon3d.media.live._RETRY_S", 0.05)
    address, server = camera
    server.left = 5  # looking at it first takes two of them
    (media,) = open_inputs([address])
    assert media.kind == "stream"
    server.left = 2
    said = []
    live = LiveFrames(media, waiting=50, patience_s=0.4, on_warning=said.append)
    frames = list(live)
    assert len(frames) == live.received == 20 and live.reopened == 1
    assert [frame.index for frame in frames] == list(range(20))
    assert (np.diff([frame.time for frame in frames]) > 0).all()
    assert any("trying to open it again" in text for text in said)


def test_a_stream_that_never_comes_says_so(camera, monkeypatch):
    monkeypatch.setattr("recon3d.media.live._RETRY_S", 0.05)
    address, server = camera
    (media,) = open_inputs([address])
    server.left = 0
    with pytest.raises(InputError, match="no frame came"):
        list(LiveFrames(media, patience_s=0.3))
