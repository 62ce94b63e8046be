"""A stream is watched as it comes: kept up with, reconstructed meanwhile and at the end."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recon3d.assets import asset_path
from recon3d.cli.main import main
from recon3d.comparing import people_of
from recon3d.errors import InputError, NoFaceError
from recon3d.live import Due, LiveFigures, LiveSession, Updates
from recon3d.media import (
    MediaInput,
    VideoWriter,
    iterate_frames,
    open_inputs,
    shown_path,
    write_png,
)
from recon3d.recognition import EMBEDDERS, load_embedder
from recon3d.settings import load_settings
from recon3d.tracking import FaceTracker, track_faces

pytest.importorskip("mediapipe")

QUICK = [
    "tracking.jitter=2",
    "tracking.max_views=8",
    "texturing.max_views=6",
    "texturing.registration_rounds=1",
    "exporting.animation=false",
    "fitting.dense.samples=800",
    "fitting.dense.displacement_modes=20",
]


@pytest.fixture(scope="module")
def clip() -> Path:
    return asset_path("demo", "astronaut_cctv.mp4")


@pytest.fixture(scope="module")
def settings():
    return load_settings("fast", QUICK)


def test_what_is_gathered_does_not_change_with_what_follows(clip, settings):
    """A state tells the same as tracking that ends there, and twice the same."""
    frames = list(iterate_frames(open_inputs([clip]), max_frames=24))
    with FaceTracker(settings.tracking) as tracker:
        for frame in frames[:12]:
            faces = tracker.step(frame)
        (face,) = faces
        assert face.landmarks.shape == (478, 2) and face.views == 8 and face.face_px > 40
        assert (face.box[:2] < face.landmarks.min(0) + 1).all()
        state = tracker.state()
        for frame in frames[12:]:
            tracker.step(frame)
        assert tracker.n_frames == 24 and state.n_frames == 12
        found = [tracker.result(state), tracker.result(state), tracker.result()]
    ended = [track_faces(frames[:12], settings.tracking), track_faces(frames, settings.tracking)]
    for some, whole in zip(found, (ended[0], ended[0], ended[1])):
        (a,), (b,) = some.tracks, whole.tracks
        assert some.n_frames == whole.n_frames and some.dropped == whole.dropped
        assert a.frame_index.tolist() == b.frame_index.tolist()
        assert [v.frame_index for v in a.views] == [v.frame_index for v in b.views]
        for x, y in zip(a.views, b.views):
            assert (x.landmarks == y.landmarks).all()


def test_updates_are_made_beside_the_watching(clip, settings, tmp_path):
    (media,) = open_inputs([clip])
    with FaceTracker(settings.tracking) as tracker:
        frames = list(iterate_frames([media], max_frames=15))
        for frame in frames[:9]:
            # Somebody who shows a face for a moment, in a room that stays.
            hidden = frame.image.copy()
            hidden[150:310, 220:400] = 110
            turned_away = replace(frame, image=hidden)
            tracker.step(frame if frame.index in (4, 5) else turned_away)
        first = tracker.state()
        for frame in frames[9:]:
            tracker.step(frame)
        state = tracker.state()
    updates = Updates(media, tmp_path, settings)
    said = []
    try:
        for given in (first, state):
            assert updates.begin(given) and not updates.idle
            assert not updates.begin(given), "one at a time"
            end = time.monotonic() + 400
            while not updates.idle and time.monotonic() < end:
                said += updates.news()
                time.sleep(0.05)
        assert not updates.begin(state), "nothing is new"
        assert updates.finished == 1
        assert "not reconstructed yet: nobody was seen for long enough" in said[0]
        assert "track_000 from " in said[1]
        # A process that is gone is said, and is nobody's end.
        updates._process.kill()
        updates._process.join(10)
        assert "updates have ended" in updates.news()[0]
        assert not updates.idle and updates.news() == []
    finally:
        updates.close()
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["live"] == {"so_far": True, "frames_looked_at": 15}
    assert (tmp_path / "track_000" / "frontal.png").is_file()


def test_a_session_until_it_is_stopped(clip, settings, tmp_path):
    said = []

    class Reporter:
        quiet = True

        def line(self, text):
            said.append(text)

        warn = line

        def stage(self, name):
            from recon3d.progress import Reporter

            return Reporter(quiet=True).stage(name)

    session = LiveSession(clip, tmp_path, settings, every_s=0, reporter=Reporter())

    def stop_when_some_were_seen():
        while session.figures.frames < 12 and not session.stopped:
            time.sleep(0.01)
        session.stop()

    threading.Thread(target=stop_when_some_were_seen, daemon=True).start()
    result = session.run()
    live = result.manifest["live"]
    assert result.manifest["status"] == "done" and session.stopped
    assert 12 <= live["frames_looked_at"] <= live["frames_received"] < 90
    assert live["frames_left_out"] <= live["frames_received"] - live["frames_looked_at"]
    assert live["updates"] == 0 and 0 < live["delay_ms_median"] <= live["delay_ms_95"]
    (track,) = result.manifest["tracks"]
    assert track["frames"] <= live["frames_looked_at"]
    for name in ("live.html", "live.jpg", "report.html", "track_000/mesh.glb"):
        assert (tmp_path / name).stat().st_size > 1000
    page = (tmp_path / "live.html").read_text()
    assert "track_000/frontal.png" in page and "not a photograph" in page
    assert any("frames/s" in line for line in said)
    if not EMBEDDERS["dlib"].detect():
        # What was written is the person who was filmed.
        embedder = load_embedder()
        (written,) = people_of(str(tmp_path), embedder).values()
        (filmed,) = people_of(str(clip), embedder, settings.tracking).values()
        assert written.fused and written.frames and not filmed.fused
        assert written.distance(filmed) < 0.35


def test_nobody_comes_by(tmp_path, settings):
    with VideoWriter(tmp_path / "wall.mp4", 25) as writer:
        for _ in range(8):
            writer.write(np.full((96, 128, 3), 90, np.uint8))
    session = LiveSession(tmp_path / "wall.mp4", tmp_path / "out", settings, every_s=0)
    with pytest.raises(NoFaceError, match="no usable face in 8 frames"):
        session.run()
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["status"] == "no face" and manifest["live"]["frames_looked_at"] == 8


def test_bad_calls_are_one_line(tmp_path, capsys, clip):
    def failed(*arguments):
        assert main(["live", *arguments, "--out", str(tmp_path / "out")]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "no such file" in failed(str(tmp_path / "none.mp4"))
    assert "cannot be opened" in failed("http://127.0.0.1:9/x.ts")
    assert ":***@" in failed("http://me:secret@127.0.0.1:9/x.ts")
    assert "no such setting" in failed(str(clip), "--set", "tracking.none=1")
    assert not (tmp_path / "out").exists()


def test_passwords_are_not_shown():
    for address, shown in (
        ("rtsp://a:b@host:554/x", "rtsp://a:***@host:554/x"),
        ("rtsp://a:b/c@d@host/x", "rtsp://a:***@host/x"),
        (
            "rtsp://host:554/user=a&password=b&channel=1",
            "rtsp://host:554/user=a&password=***&channel=1",
        ),
        ("http://host/video.cgi?user=a&pwd=b", "http://host/video.cgi?user=a&pwd=***"),
    ):
        assert shown_path(address) == shown
        nothing = MediaInput(address, "folder", "", 8, 8, None, 0, ())
        with pytest.raises(InputError, match="nothing in it") as caught:
            list(iterate_frames([nothing]))
        assert shown in str(caught.value)
    for plain in ("rtsp://host:554/x@y", "http://host/a@b", "/a:b@c/pwd=d.mp4", "rtsp://a@host/x"):
        assert shown_path(plain) == plain


def test_figures():
    figures = LiveFigures()
    assert figures.rate() == 0 and figures.delay_ms() == 0
    for _ in range(5):
        figures.count(0.02)
        time.sleep(0.02)
    assert figures.frames == 5 and 20 < figures.rate() < 55
    assert figures.delay_ms(0.95) == pytest.approx(20)
    now, later = Due(10), Due(10, at_once=False)
    assert now() and not now() and not later()


@pytest.mark.slow
def test_ctrl_c_ends_the_watching_and_finishes_the_job(clip, tmp_path):
    settings = [part for line in QUICK for part in ("--set", line)]
    command = [sys.executable, "-m", "recon3d", "live", str(clip), "--out", str(tmp_path)]
    process = subprocess.Popen(
        [*command, "--config", "fast", "--json", *settings],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ},
    )
    while not (tmp_path / "live.jpg").exists():
        assert process.poll() is None
        time.sleep(0.1)
    time.sleep(0.8)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert json.loads(out.splitlines()[-1])["status"] == "done"


def test_a_source_without_a_clock(tmp_path, settings):
    picture = tmp_path / "a.png"
    write_png(picture, np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(InputError, match="neither a stream nor a video"):
        LiveSession(picture, tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()
