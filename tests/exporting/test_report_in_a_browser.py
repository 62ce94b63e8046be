"""report.html in a real browser: it draws, it slides, it turns, it asks the network for nothing."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from browser import Page, find_chromium

from recon3d import pipeline
from recon3d.exporting import write_json, write_report, write_track
from recon3d.settings import RunSettings
from recon3d.types import Reconstruction

chromium = pytest.mark.skipif(find_chromium() is None, reason="chromium is not installed")

REFINER = {
    "applied": True,
    "name": "tiny_network_with_a_long_name_that_must_not_leave_its_card.safetensors",
    "residual_rms_255": 1.25,
    "drift": 0.11,
    "drift_limit": 0.3,
    "blend": 0.8,
    "licence": "MIT",
}


def make_report(made: Reconstruction, out):
    folder = out / "track_000"
    write_track(made, folder, version="1.2.3")
    manifest = {
        "versions": {**pipeline.versions(), "recon3d": "1.2.3"},
        "created": "2026-01-01T00:00:00+00:00",
        "frames_read": 50,
        "inputs": [
            {"path": "a </script> & clip.mp4", "sha256": "ab" * 32, "frames": 50, "fps": 25.0,
             "size": [160, 120], "kind": "video"}
        ],
        "config": RunSettings().model_dump(mode="json"),
        "device": {"requested": "auto"},
        "stages": [
            {"stage": "tracking", "track": None, "seconds": 3.5, "peak_memory_mib": 400.0,
             "resumed": False},
            {"stage": "fitting", "track": 0, "seconds": 9.0, "peak_memory_mib": 500.0,
             "resumed": False},
        ],
        "tracks": [
            {"id": 0, "path": "track_000", "frames": 50, "face_px": 40.0,
             "yaw_range_deg": [-40.0, 33.0]}
        ],
        "dropped": [{"reason": "no face", "frames": 3}],
        "warnings": [],
        "licences": [
            {"name": "egg", "kind": "face model", "licence": "MIT", "origin": "tests",
             "permissive": True}
        ],
    }  # fmt: skip
    write_json(out / "manifest.json", manifest)
    return write_report(out, [folder])


@pytest.fixture
def report(reconstruction, tmp_path):
    metrics = {**reconstruction.metrics, "refiner": REFINER}
    parts = (getattr(reconstruction, n) for n in ("track", "fit", "texture", "frontal"))
    return make_report(Reconstruction(*parts, metrics), tmp_path)


def test_it_is_one_file_of_bounded_size(report):
    page = report.read_text()
    assert len(page) < 6 * 2**20
    assert not re.search(r"""(src|href)=["'](?!data:|#|\{)""", page.split("<script>")[0])
    assert "http://" not in page and "https://" not in page
    assert "a </script>" not in page


def test_every_picture_has_words(report):
    page = report.read_text()
    for tag in re.findall(r"<img[^>]*>", page):
        assert "alt=" in tag
    for tag in re.findall(r"<(?:canvas|svg viewBox)[^>]*>", page):
        assert "aria-label=" in tag and 'role="img"' in tag
    assert page.count("not a photograph") >= 1 and 'lang="en"' in page


def test_the_refiner_is_shown_where_there_was_one(report, reconstruction, tmp_path):
    page = report.read_text()
    assert "What the refiner did" in page and "drift allowed" in page and "tiny" in page
    assert "The frontal view before the refiner" in page
    same = reconstruction.frontal
    plain = type(same)(**{**vars(same), "raw": same.image})
    parts = (reconstruction.track, reconstruction.fit, reconstruction.texture, plain)
    page = make_report(Reconstruction(*parts), tmp_path / "plain").read_text()
    assert "What the refiner did" not in page


def test_settings_stages_and_licences_are_there(report):
    page = report.read_text()
    for text in ("tracking.max_views", "fitting, person 0", "ab" * 32, "tests", "no face"):
        assert text in page


def pixels(page: Page) -> np.ndarray:
    """What the canvas shows, (n, 4) uint8."""
    text = page.evaluate(
        "(() => { const c = document.querySelector('canvas.mesh'), gl = c.getContext('webgl');"
        "const d = new Uint8Array(c.width * c.height * 4);"
        "gl.readPixels(0, 0, c.width, c.height, gl.RGBA, gl.UNSIGNED_BYTE, d);"
        "return JSON.stringify(Array.from(d)); })()"
    )
    return np.array(json.loads(text), np.uint8).reshape(-1, 4)


@chromium
@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_in_chromium(report, width):
    with Page(report, width) as page:
        page.wait("document.querySelector('.r3d').dataset.drawn === 'texture'")
        # Stop it turning, so that a change is the key's doing.
        page.evaluate("document.querySelector('canvas.mesh').scrollIntoView({block: 'center'})")
        page.evaluate("document.querySelector('canvas.mesh').focus()")
        page.key("ArrowRight")
        first = pixels(page)
        background = (np.abs(first[:, :3].astype(int) - [233, 236, 242]).max(1) <= 2).mean()
        assert 0.2 < background < 0.9, "the canvas is blank"
        assert len(np.unique(first[:, :3], axis=0)) > 500
        page.key("ArrowRight", 3)
        assert (np.abs(pixels(page).astype(int) - first).max(1) > 8).mean() > 0.05, "no turn"
        for mode in ("evidence", "uncertainty", "error", "plain"):
            page.evaluate(
                "(() => { const s = document.querySelector('.r3d-mode'); "
                f"s.value = '{mode}'; s.dispatchEvent(new Event('change')); }})()"
            )
            page.wait(f"document.querySelector('.r3d').dataset.drawn === '{mode}'")

        # The before/after slider, by keys and by hand.
        where = "document.querySelector('.slides').style.getPropertyValue('--cut')"
        page.evaluate("document.querySelector('.slide').focus()")
        page.key("ArrowRight", 5)
        assert page.evaluate(where) == "55%"
        page.evaluate("document.querySelector('.slides').scrollIntoView({block: 'center'})")
        box = json.loads(
            page.evaluate(
                "JSON.stringify(document.querySelector('.slides').getBoundingClientRect())"
            )
        )
        y = box["y"] + box["height"] / 2
        page.drag((box["x"] + box["width"] / 2, y), (box["x"] + 0.2 * box["width"], y))
        assert abs(float(page.evaluate(where).rstrip("%")) - 20) < 1

        # The frames, by keys.
        page.evaluate("document.querySelector('.frame').focus()")
        before = page.evaluate("document.querySelector('.said').textContent")
        page.key("ArrowRight")
        assert page.evaluate("document.querySelector('.said').textContent") != before

        assert page.evaluate("document.documentElement.scrollWidth") <= width, "scrolls sideways"
        wide = page.evaluate(
            "Array.from(document.querySelectorAll('.card table')).filter(t =>"
            "t.offsetParent && t.scrollWidth > t.closest('.card').clientWidth).length"
        )
        assert wide == 0, "a table leaves its card"
        small = page.evaluate(
            "Array.from(document.querySelectorAll('button, select')).filter("
            "b => b.offsetParent && b.getBoundingClientRect().height < 32).length"
        )
        assert small == 0, "too small for a finger"
        assert len(page.pdf()) > 20_000
        assert page.errors == []
        assert page.requests == [report.resolve().as_uri()]
