"""The viewer: what it shows is what was found, with and without a display."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest

import recon3d
from recon3d.cli.main import main
from recon3d.errors import InputError
from recon3d.exporting.surface import length_colours, split_seams, surface_error
from recon3d.exporting.web import web_mesh
from recon3d.viewing import MODES, load_scene, make_scene, render_still

BACKGROUND = np.array([233, 236, 242])


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> recon3d.Reconstruction:
    """One picture, quickly."""
    import skimage.data

    path = tmp_path_factory.mktemp("portrait") / "face.png"
    cv2.imwrite(str(path), skimage.data.astronaut()[:360, 40:400, ::-1])
    settings = {"texturing": {"size": 256}, "tracking": {"jitter": 2, "tiles_per_frame": 0}}
    return recon3d.reconstruct(path, settings, progress=False)


@pytest.fixture(scope="module")
def folder(result, tmp_path_factory):
    return result.save(tmp_path_factory.mktemp("viewing") / "run")


def test_from_memory_and_from_files_is_the_same(result, folder):
    here, there = make_scene(result), load_scene(folder)
    np.testing.assert_allclose(there.surface.vertices, here.surface.vertices, atol=1e-4)
    np.testing.assert_array_equal(there.texture, here.texture)
    np.testing.assert_array_equal(there.evidence, here.evidence)
    np.testing.assert_allclose(there.uncertainty, here.uncertainty, atol=1e-6)
    np.testing.assert_allclose(there.error, here.error, atol=1e-4)
    np.testing.assert_array_equal(there.after, here.after)
    assert there.expression_names == here.expression_names
    np.testing.assert_array_equal(there.expression, here.expression)
    assert [f.view for f in there.frames] == [f.view for f in here.frames]
    for mine, theirs in zip(here.frames, there.frames):
        np.testing.assert_array_equal(mine.image, theirs.image)
        assert tuple(map(float, mine.origin)) == theirs.origin


def test_expressions_move_the_vertices(result):
    scene = make_scene(result)
    opened = scene.vertices({"jawOpen": 1.0})
    moved = np.linalg.norm(opened - scene.surface.vertices, axis=1)
    assert moved.max() > 10 and np.median(moved) < 3
    model = result.fit.model
    field = model.expression[model.expression_names.index("jawOpen")]
    np.testing.assert_allclose(
        opened - scene.surface.vertices, field[scene.surface.original], atol=1e-4
    )
    np.testing.assert_array_equal(scene.vertices({"jawOpen": 0.0}), scene.surface.vertices)


def test_the_frame_before_is_the_most_frontal(result):
    scene = make_scene(result)
    np.testing.assert_array_equal(scene.before, result.track.views[0].patch.image)
    # Turned alike, but beside the camera's axis: such a camera sees the head's side.
    R, t = np.repeat(scene.R[:1], len(scene.R), 0), np.repeat(scene.t[:1], len(scene.R), 0)
    t[:, 0] = 0.3 * t[0, 2] * np.arange(1, len(t) + 1)
    last = scene.frames[-1].view
    t[last, 0] = 0.0
    beside = replace(scene, R=R, t=t)
    np.testing.assert_array_equal(beside.before, scene.frames[-1].image)


def test_surface_error_is_the_residual_as_a_length():
    """A residual of 2 px, seen at 500 mm through a focal length of 1000 px, is 1 mm."""
    vertices = np.array([[0.0, 0, 0], [3, 0, 0], [200, 0, 0]])
    landmarks = np.array([[0.0, 0, 0], [2, 0, 0], [np.nan] * 3])
    residuals = np.zeros((4, 3, 2))
    residuals[..., 0] = 2
    residuals[0] = np.nan  # a view in which nothing was used
    K = np.repeat(np.diag([1000.0, 1000, 1])[None], 4, 0)
    t = np.repeat(np.array([[0, 0, 500.0]]), 4, 0)
    error = surface_error(vertices, landmarks, residuals, np.ones((4, 3)), K, t)
    np.testing.assert_allclose(error[:2], 1.0)
    assert np.isnan(error[2])
    nothing = surface_error(vertices, landmarks, residuals, np.zeros((4, 3)), K, t)
    assert np.isnan(nothing).all()


def test_colours_of_lengths():
    colours = length_colours(np.array([0.0, 2.0, 4.0, 99.0, np.nan]), 4.0)
    np.testing.assert_array_equal(colours[2], colours[3])
    assert colours[0].sum() < colours[1].sum() < colours[2].sum()
    assert np.ptp(colours[4].astype(int)) < 20  # grey: nothing is known


def test_web_mesh_can_be_decoded():
    import base64

    grid = np.stack(np.meshgrid([0.0, 1], [0.0, 1]), -1).reshape(-1, 2)
    vertices = np.c_[grid * 100, [0, 0, 5, 0]]
    triangles = np.array([[0, 1, 3], [0, 3, 2]])
    surface = split_seams(vertices, triangles, grid, triangles)
    mesh = web_mesh(surface, np.zeros((8, 8, 3), np.uint8), lengths={"error": np.arange(4.0)})
    position = np.frombuffer(base64.b64decode(mesh["position"]), "<i2").reshape(-1, 3) / 32767
    np.testing.assert_allclose(position * 50 + [50, 50, 2.5], surface.vertices, atol=0.01)
    index = np.frombuffer(base64.b64decode(mesh["index"]), "<u2").reshape(-1, 3)
    np.testing.assert_array_equal(index, surface.triangles)
    assert [m["name"] for m in mesh["modes"]] == ["texture", "error", "plain"]


@pytest.mark.parametrize("mode", MODES)
def test_stills(folder, tmp_path, capsys, mode):
    target = tmp_path / "still.png"
    arguments = ["view", str(folder), "--own", "--screenshot", str(target)]
    assert main([*arguments, "--mode", mode, "--size", "200"]) == 0
    picture = cv2.imread(str(target))[..., ::-1].astype(int)
    assert picture.shape == (200, 200, 3)
    empty = (abs(picture - BACKGROUND).max(-1) <= 2).mean()
    assert 0.3 < empty < 0.85
    assert "wrote" in capsys.readouterr().out


def test_turning_turns(result):
    scene = make_scene(result)
    left, right = (render_still(scene, yaw=yaw, size=(96, 96)) for yaw in (-40, 40))
    assert abs(left.astype(int) - right).mean() > 5


def test_wrong_calls(folder, tmp_path, capsys):
    assert main(["view", str(folder), "--mode", "nonsense"]) == 2
    assert "no such mode" in capsys.readouterr().err
    broken = tmp_path / "broken"
    shutil.copytree(folder / "track_000", broken)
    (broken / "fit.npz").write_bytes(b"not a zip")
    with pytest.raises(InputError, match="not a complete result"):
        load_scene(broken)


def test_without_a_display_one_clear_line(folder, capsys, monkeypatch):
    pytest.importorskip("open3d", exc_type=ImportError)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert main(["view", str(folder)]) == 2
    err = capsys.readouterr().err
    assert "no display" in err and "--screenshot" in err and "Traceback" not in err


def open3d_draws(folder, target) -> bool:
    """Whether Open3D can draw off-screen here, and the still if so."""
    from recon3d.errors import BackendUnavailable
    from recon3d.exporting import write_png
    from recon3d.viewing.window import offscreen

    try:
        write_png(target, offscreen(load_scene(folder), "texture", (256, 256), 20.0))
    except BackendUnavailable:
        return False
    return True


@pytest.mark.slow
def test_open3d_draws_what_we_draw(folder, tmp_path):
    target = tmp_path / "still.png"
    if not open3d_draws(folder, target):
        pytest.skip("Open3D cannot render off-screen here (EGL or Vulkan driver missing)")
    theirs = cv2.imread(str(target))[..., ::-1].astype(int)
    ours = render_still(load_scene(folder), yaw=20.0, size=(256, 256)).astype(int)
    for picture in (theirs, ours):
        np.testing.assert_allclose(picture[3, 3], BACKGROUND, atol=3)
    # The same head in the same colours; framing and shading differ a little.
    heads = [p[abs(p - BACKGROUND).max(-1) > 12] for p in (theirs, ours)]
    assert 0.7 < len(heads[0]) / len(heads[1]) < 1.4
    np.testing.assert_allclose(heads[0].mean(0), heads[1].mean(0), atol=20)


def start_display():
    """A virtual display of its own number, or None."""
    if shutil.which("Xvfb") is None:
        return None
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-noreset", "-screen", "0", "1200x800x24"],
        pass_fds=[write],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    # The number comes in pieces; the server ends if it cannot write the last.
    with os.fdopen(read) as stream:
        number = stream.readline().strip()
    return (server, f":{number}") if number else None


@pytest.mark.slow
def test_the_window(folder, tmp_path):
    """Opened under a virtual display; keys are pressed; the screenshots show what they did."""
    if not open3d_draws(folder, tmp_path / "still.png"):
        pytest.skip("Open3D cannot render here (EGL or Vulkan driver missing)")
    display = start_display()
    if display is None:
        pytest.skip("Xvfb is not installed")
    server, name = display
    script = textwrap.dedent(f"""
        import json
        import os
        from recon3d.viewing import load_scene
        from recon3d.viewing.window import Viewer

        viewer = Viewer(load_scene({str(folder)!r}), size=(900, 600))

        def press(key):
            return lambda v: v.key(ord(key))

        viewer.run([
            (3, press("S")),
            (2, lambda v: v.set_expression("jawOpen", 1.0)), (1, press("s")),
            (2, press("3")), (1, press("S")),
            (2, press("C")), (1, press("B")), (1, press("L")), (1, press("S")),
            (3, press("R")),
            # A busy machine is late with its pictures.
            *[(2, lambda v: len(v.saved) == 4 and v.close())] * 60,
        ])
        print(json.dumps([str(p) for p in viewer.saved]), flush=True)
        os._exit(0)
    """)
    try:
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "DISPLAY": name},
            capture_output=True,
            text=True,
            timeout=240,
        )
    finally:
        server.terminate()
        server.wait()
        time.sleep(0.1)
    assert done.returncode == 0, done.stderr[-2000:]
    line = next(text for text in done.stdout.splitlines() if text.startswith('["'))
    saved = [cv2.imread(path).astype(int) for path in json.loads(line)]
    assert len(saved) == 4
    for before, after in pairwise(saved):
        assert (abs(after - before).max(-1) > 12).mean() > 0.005, "a key changed nothing"
    # Blue lines of the cameras are only in the last.
    blue = [((p[..., 0] > 150) & (p[..., 2] < 80)).mean() for p in saved]
    assert blue[3] > 5e-4 and max(blue[:3]) < 1e-4
