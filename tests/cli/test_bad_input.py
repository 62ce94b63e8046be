"""Bad input gets one clear line, the right exit status, and nothing half written."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data

from recon3d.cli.main import main

FILES = """
mesh.ply mesh.glb mesh.obj mesh.mtl texture.png landmarks.json frontal.png frontal_raw.png
evidence.png texture_evidence.png fit.npz metrics.json
""".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    """(360, 360, 3) uint8 RGB, one face about 95 px wide."""
    return np.ascontiguousarray(skimage.data.astronaut()[:360, 40:400])


@pytest.fixture(scope="module")
def clip(tmp_path_factory, portrait) -> Path:
    """Twelve frames in which the face drifts and turns a little."""
    from recon3d.media import VideoWriter

    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with VideoWriter(path, fps=12) as writer:
        for k in range(12):
            M = cv2.getRotationMatrix2D((180, 180), 2.0 * np.sin(k / 2), 0.8)
            M[:, 2] += [2.0 * k - 12, 3 * np.cos(k)]
            writer.write(cv2.warpAffine(portrait, M, (360, 360), borderMode=cv2.BORDER_REFLECT))
    return path


def run(*arguments: str, capsys=None) -> tuple[int, str, str]:
    status = main(["run", *arguments])
    seen = capsys.readouterr()
    return status, seen.out, seen.err


def one_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith("recon3d:")]
    assert len(lines) == 1, text
    assert "Traceback" not in text
    return lines[0]


def nothing_but_done(folder: Path) -> None:
    """No temporary files are left."""
    for path in folder.rglob("*"):
        assert not path.name.endswith(".part"), path
        assert not path.name.startswith((".partial", ".mesh", ".frontal", ".manifest")), path


def test_missing_file(tmp_path, capsys):
    status, _, err = run(str(tmp_path / "no.mp4"), "--out", str(tmp_path / "o"), capsys=capsys)
    assert status == 2 and "no.mp4" in one_line(err)
    assert not (tmp_path / "o").exists()


def test_missing_landmark_correction(tmp_path, capsys, clip):
    corrector = tmp_path / "none.safetensors"
    status, _, err = run(
        str(clip),
        *("--out", str(tmp_path / "o"), "--set", f"tracking.corrector={corrector}"),
        capsys=capsys,
    )
    assert status == 2 and "none.safetensors" in one_line(err)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("--photos", "{none}"), "no such folder of photos"),
        (("--photos", "{here}", "--set", "batch=1"), "batch"),
        (("--photos", "{here}", "--set", "pace=1"), "pace"),
    ],
)
def test_wrong_calibrations(tmp_path, capsys, arguments, said):
    filled = [x.format(none=tmp_path / "none", here=tmp_path) for x in arguments]
    status = main(["model", "calibrate", *filled, "--out", str(tmp_path / "o")])
    assert status == 2 and said in one_line(capsys.readouterr().err)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("content", [b"", b"just a text file\n" * 50])
@pytest.mark.parametrize("name", ["clip.mp4", "picture.png", "strange.xyz"])
def test_not_media(tmp_path, capsys, content, name):
    path = tmp_path / name
    path.write_bytes(content)
    status, _, err = run(str(path), "--out", str(tmp_path / "o"), capsys=capsys)
    assert status == 2 and name in one_line(err)
    assert not (tmp_path / "o").exists()


def test_no_face_is_status_one_with_a_report(tmp_path, capsys):
    path = tmp_path / "coffee.png"
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.uniform(0, 255, (300, 400, 3)).astype(np.float32), (0, 0), 9)
    cv2.imwrite(str(path), noise)
    status, _, err = run(str(path), "--out", str(tmp_path / "o"), capsys=capsys)
    assert status == 1 and "no usable face" in one_line(err)
    manifest = json.loads((tmp_path / "o" / "manifest.json").read_text())
    assert manifest["tracks"] == [] and manifest["frames_read"] == 1
    assert sum(d["frames"] for d in manifest["dropped"]) == 1
    assert "No usable face" in (tmp_path / "o" / "report.html").read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--set", "tracking.nonsense=1"],
        ["--set", "no_equals_sign"],
        ["--config", "no_such_config"],
        ["--until", "tea"],
        ["--model", "no_such_model"],
        ["--device", "abacus"],
    ],
)
def test_wrong_calls(tmp_path, capsys, portrait, arguments):
    path = tmp_path / "p.png"
    cv2.imwrite(str(path), portrait[..., ::-1])
    status, _, err = run(str(path), "--out", str(tmp_path / "o"), *arguments, capsys=capsys)
    assert status == 2
    one_line(err)
    assert not (tmp_path / "o").exists()


def test_out_is_a_file(tmp_path, capsys, portrait):
    path = tmp_path / "p.png"
    cv2.imwrite(str(path), portrait[..., ::-1])
    status, _, err = run(str(path), "--out", str(path), capsys=capsys)
    assert status == 2 and "not a folder" in one_line(err)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_out_cannot_be_written(tmp_path, capsys, portrait):
    path = tmp_path / "p.png"
    cv2.imwrite(str(path), portrait[..., ::-1])
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    status, _, err = run(str(path), "--out", str(locked / "o"), capsys=capsys)
    assert status == 2 and "cannot write" in one_line(err)


def test_out_below_a_file_cannot_be_made(tmp_path, capsys, portrait):
    path = tmp_path / "p.png"
    cv2.imwrite(str(path), portrait[..., ::-1])
    status, _, err = run(str(path), "--out", str(path / "o"), capsys=capsys)
    assert status == 2 and "cannot write" in one_line(err)


def variants(portrait: np.ndarray) -> dict[str, np.ndarray]:
    bgr = portrait[..., ::-1]
    alpha = np.full((*portrait.shape[:2], 1), 255, np.uint8)
    return {
        "grey": cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY),
        "rgba": np.concatenate([bgr, alpha], -1),
        "sixteen": bgr.astype(np.uint16) * 257,
    }


@pytest.mark.parametrize("kind", ["grey", "rgba", "sixteen"])
def test_unusual_pictures_track(tmp_path, capsys, portrait, kind):
    path = tmp_path / f"{kind}.png"
    cv2.imwrite(str(path), variants(portrait)[kind])
    out = tmp_path / "o"
    status, text, err = run(
        str(path), "--out", str(out), "--until", "tracking", "--json", capsys=capsys
    )
    assert status == 0, err
    tracks = json.loads(text.splitlines()[-1])["tracks"]
    assert len(tracks) == 1 and tracks[0]["frames"] == 1


def test_single_picture_gives_every_file(tmp_path, capsys, portrait):
    path = tmp_path / "p.png"
    cv2.imwrite(str(path), portrait[..., ::-1])
    out = tmp_path / "o"
    status, text, err = run(str(path), "--out", str(out), "--json", capsys=capsys)
    assert status == 0, err
    assert json.loads(text.splitlines()[-1])["status"] == "done"
    for name in FILES:
        assert (out / "track_000" / name).stat().st_size > 0, name
    assert (out / "report.html").stat().st_size < 6 * 2**20
    assert list((out / "track_000" / "views").glob("*.png"))
    frontal = cv2.imread(str(out / "track_000" / "frontal.png"))
    assert frontal.shape == (512, 512, 3)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["schema_version"] == 1
    assert {s["stage"] for s in manifest["stages"]} >= {"tracking", "fitting", "exporting"}
    nothing_but_done(out)


def test_cut_off_video_uses_what_decodes(tmp_path, capsys, clip, portrait):
    from recon3d.media import VideoWriter

    # Matroska keeps no index at the end, so half of it is still a video.
    whole = tmp_path / "whole.mkv"
    with VideoWriter(whole, fps=12) as writer:
        # Grain gives every frame its bytes, so that the cut falls among them.
        rng = np.random.default_rng(0)
        for _ in range(20):
            grain = rng.normal(0, 12, portrait.shape)
            writer.write(np.clip(portrait + grain, 0, 255).astype(np.uint8))
    cut = tmp_path / "cut.mkv"
    data = whole.read_bytes()
    cut.write_bytes(data[: int(len(data) * 0.7)])
    status, _, err = run(
        str(cut), "--out", str(tmp_path / "o"), "--until", "tracking", "--json", capsys=capsys
    )
    assert status == 0, err
    assert "Traceback" not in err
    manifest = json.loads((tmp_path / "o" / "manifest.json").read_text())
    assert 0 < manifest["frames_read"] < 20


def test_full_disk_leaves_nothing_half_written(tmp_path, portrait):
    """A file size limit stands for a disk that fills up while results are written."""
    path = tmp_path / "p.png"
    cv2.imwrite(str(path), portrait[..., ::-1])
    out = tmp_path / "o"

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "recon3d.cli.main", "run", str(path), "--out", str(out)],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 2, done.stderr
    assert "cannot write" in done.stderr and "Traceback" not in done.stderr
    nothing_but_done(out)


def test_interrupt_then_resume(tmp_path, clip):
    """SIGINT after tracking: what is finished stays valid, `--resume` takes it from there."""
    out = tmp_path / "o"
    command = [sys.executable, "-m", "recon3d.cli.main", "run", str(clip), "--out", str(out)]
    # A shell that starts the tests in the background has them, and so the child, ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    deadline = time.monotonic() + 240
    state = out / ".state" / "tracking.npz"
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert json.loads((out / "manifest.json").read_text())["status"] == "interrupted"
    nothing_but_done(out)
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert "taken from the earlier run" in done.stderr
    assert (out / "track_000" / "frontal.png").exists()
    assert json.loads((out / "manifest.json").read_text())["status"] == "done"


def test_help_is_quick():
    """The command line imports heavy things late."""
    code = (
        "import recon3d.cli.main, sys; "
        "print([m for m in ('torch', 'mediapipe', 'numba', 'cv2', 'numpy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
