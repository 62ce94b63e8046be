#!/usr/bin/env python3
"""Draw the pictures of the documentation from the demo's run.

python benchmarks/docs_figures.py [--result out/demo] [--out docs/images] [--screens]

`--screens` also photographs the report (needs chromium) and the viewer (needs Xvfb, ImageMagick
and a graphics driver for Open3D).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import cv2
import matplotlib
import numpy as np

import recon3d
from recon3d.assets import asset_path
from recon3d.exporting.pictures import best_views, draw_landmarks
from recon3d.frontal import FrontalSettings, render_frontal
from recon3d.geometry import project
from recon3d.texturing import TexturingSettings, fuse_texture

matplotlib.use("Agg")
import matplotlib.pyplot as plt

TESTS = Path(__file__).resolve().parents[1] / "tests" / "exporting"


def row(pictures: list[tuple[str, np.ndarray]], height: float = 2.7):
    """Pictures side by side with titles."""
    figure, axes = plt.subplots(1, len(pictures), figsize=(height * len(pictures), height + 0.35))
    for axis, (title, picture) in zip(np.atleast_1d(axes), pictures):
        axis.imshow(picture)
        axis.set_title(title, fontsize=9)
        axis.axis("off")
    figure.tight_layout(pad=0.4)
    return figure


def save(figure, path: Path) -> None:
    """As a JPEG of about 1000 px, or as it is drawn for plots."""
    figure.savefig(path, dpi=96, pil_kwargs={"quality": 86})
    plt.close(figure)
    print(f"wrote {path} ({path.stat().st_size / 1024:.0f} KiB)")


def tracking(result) -> plt.Figure:
    """Views over the yaw range with landmarks and their ellipses."""
    views = [result.track.views[k] for k in best_views(result.track)]
    chosen = [views[k] for k in np.linspace(0, len(views) - 1, 4).round().astype(int)]
    return row([(f"yaw {v.yaw:+.0f}°", draw_landmarks(v)) for v in chosen])


def choice(result) -> plt.Figure:
    """Which frames were kept as views."""
    track = result.track
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 2.6))
    left.plot(track.time, track.yaw, ".", color="0.75", label="every frame")
    left.plot([v.time for v in track.views], [v.yaw for v in track.views], "o", ms=3.5,
              color="#2f5fb3", label="views")  # fmt: skip
    left.set(xlabel="time, s", ylabel="yaw, degrees")
    left.legend(fontsize=8)
    right.scatter(track.yaw, track.pitch, s=8, color="0.75")
    right.scatter([v.yaw for v in track.views], [v.pitch for v in track.views], s=14,
                  color="#2f5fb3")  # fmt: skip
    right.set(xlabel="yaw, degrees", ylabel="pitch, degrees")
    figure.tight_layout()
    return figure


def fitting(result) -> plt.Figure:
    """The fitted surface over a view, the shape, how sure it is and how far landmarks lie off."""
    fit, track = result.fit, result.track
    number = best_views(track)[0]
    view = track.views[number]
    face = fit.model.regions["face"] > 0.5
    points = project(fit.posed(number)[face], fit.K[number], fit.R[number], fit.t[number])
    scale = 4
    canvas = cv2.resize(view.patch.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    for x, y in (points[::2] - np.asarray(view.patch.origin)) * scale:
        cv2.circle(canvas, (round(x), round(y)), 1, (60, 230, 255), -1, cv2.LINE_AA)
    return row(
        [
            ("projected into a view", canvas),
            ("shape", result.still("plain", yaw=30)),
            ("uncertainty, 0 to 4 mm", result.still("uncertainty", yaw=30)),
            ("landmark error, 0 to 6 mm", result.still("error", yaw=30)),
        ]
    )


def fusion(result) -> plt.Figure:
    """One view, the mean of all, and the solution."""

    def crop(**changes) -> np.ndarray:
        texture = fuse_texture(result.track, result.fit, TexturingSettings(**changes))
        plain = FrontalSettings(surroundings=False)
        view = render_frontal(result.track, result.fit, texture, plain)
        return np.asarray(view)[140:400, 110:402]

    return row(
        [
            ("one view", crop(max_views=1, solve=False)),
            ("robust mean of 32 views", crop(solve=False)),
            ("solved from the views", crop()),
        ],
        3.3,
    )


def evidence(result) -> plt.Figure:
    """The frontal view and the three channels of its evidence."""
    inside = result.frontal.face_mask > 0.5
    pictures = [("frontal view", np.asarray(result.frontal))]
    table = (plt.get_cmap("viridis")(np.arange(256))[:, :3] * 255).astype(np.uint8)
    for name, channel in zip(("support", "resolution", "generated"),
                             np.moveaxis(result.evidence, -1, 0)):  # fmt: skip
        shown = np.where(inside[..., None], table[channel], 245)
        pictures.append((f"{name}, mean {channel[inside].mean() / 255:.2f}", shown))
    return row(pictures)


def report(folder: Path, out: Path) -> None:
    """The report at the width of a desktop and of a phone."""
    sys.path.insert(0, str(TESTS))
    from browser import Page

    for name, width, height in (("report", 1180, 900), ("report_phone", 390, 844)):
        with Page(folder / "report.html", width, height) as page:
            page.wait("document.querySelector('.r3d').dataset.drawn === 'texture'")
            shot = out / f"{name}.png"
            page.screenshot(shot, whole=False)
        picture = cv2.imread(str(shot))
        shot.unlink()
        cv2.imwrite(str(out / f"{name}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 84])
        print(f"wrote {out / name}.jpg")


def viewer(folder: Path, out: Path) -> None:
    """The window under a virtual display, with cameras."""
    display = ":93"
    script = textwrap.dedent(f"""
        import subprocess
        from recon3d.viewing import load_scene
        from recon3d.viewing.window import Viewer

        viewer = Viewer(load_scene({str(folder)!r}), size=(1180, 800))
        shot = ["import", "-window", "root", {str(out / "viewer.png")!r}]
        viewer.run([
            (3, lambda v: v.show_comparison(True)),
            (4, lambda v: subprocess.Popen(shot)),
            (4, lambda v: v.close()),
        ])
    """)
    server = subprocess.Popen(["Xvfb", display, "-noreset", "-screen", "0", "1180x800x24"])
    try:
        subprocess.run([sys.executable, "-c", script], check=True, timeout=120,
                       env={**os.environ, "DISPLAY": display})  # fmt: skip
    finally:
        server.terminate()
        server.wait()
    picture = cv2.imread(str(out / "viewer.png"))
    (out / "viewer.png").unlink()
    cv2.imwrite(str(out / "viewer.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 86])
    print(f"wrote {out / 'viewer.jpg'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--result", type=Path, default=Path("out/demo"))
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--screens", action="store_true", help="Photograph report and viewer too.")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    clip = asset_path("demo", "astronaut_cctv.mp4")
    result = recon3d.reconstruct(clip, "cctv", out=arguments.result, resume=True)
    for name, draw in (("how_tracking", tracking), ("how_views", choice), ("how_fit", fitting),
                       ("how_fusion", fusion), ("how_evidence", evidence)):  # fmt: skip
        save(draw(result), arguments.out / f"{name}.jpg")
    if arguments.screens:
        report(arguments.result, arguments.out)
        if shutil.which("Xvfb") and shutil.which("import"):
            viewer(arguments.result, arguments.out)


if __name__ == "__main__":
    main()
