"""Whether a camera is kept up with: frames a second, frames left out, delay.

    python benchmarks/live.py

The bundled clip, forth and back and beside itself, comes at the pace of a camera of 25 frames a
second; `recon3d live` watches it with and without reconstructing meanwhile. Every run is a process
of its own. Other work on the machine spoils the figures: its load is printed.
"""

from __future__ import annotations

from before import ROOT  # isort: split

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from results import PAGE, machine, markdown_table, write_section

from recon3d.assets import asset_path
from recon3d.evaluation.benchmark import read_manifest
from recon3d.media import VideoWriter, iterate_frames, open_inputs

FPS = 25
SCENES = (
    # name, size, faces across and down
    ("one face, 640x480", (640, 480), (1, 1)),
    ("one face, 1280x720", (1280, 720), (1, 1)),
    ("two faces, 1280x480", (1280, 480), (2, 1)),
    ("four faces, 1280x960", (1280, 960), (2, 2)),
)
WANTED_LEFT_OUT, WANTED_DELAY_MS = 1.0, 200.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="of watching, each")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between updates")
    parser.add_argument("--page", type=Path, default=PAGE, help="where the section goes")
    a = parser.parse_args()
    load = os.getloadavg()[0]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for k, (name, size, faces) in enumerate(SCENES):
            clip = Path(folder) / f"{k}.mp4"
            make_clip(clip, size, faces, round(FPS * (a.seconds + 1)))
            for every in (0.0, a.every):
                found = watch(clip, Path(folder) / f"out{k}_{every:g}", a.seconds, every)
                rows.append((name, every, found))
                print(name, f"every {every:g} s" if every else "no updates", found, flush=True)
    write_section("live", page(rows, load, a), a.page)
    print(f"wrote {a.page}")


def make_clip(path: Path, size: tuple[int, int], faces: tuple[int, int], n_frames: int) -> None:
    """The bundled clip's people side by side, each at another moment of it."""
    source = asset_path("demo", "astronaut_cctv.mp4")
    images = [frame.image for frame in iterate_frames(open_inputs([str(source)]))]
    order = [*range(len(images)), *range(len(images) - 2, 0, -1)]
    across, down = faces
    part = size[0] // across, size[1] // down
    with VideoWriter(path, fps=FPS, crf=23) as writer:
        for i in range(n_frames):
            rows = []
            for r in range(down):
                row = []
                for c in range(across):
                    image = images[order[(i + 37 * (r * across + c)) % len(order)]]
                    if c % 2:
                        image = image[:, ::-1]
                    row.append(cv2.resize(image, part, interpolation=cv2.INTER_CUBIC))
                rows.append(np.hstack(row))
            writer.write(np.ascontiguousarray(np.vstack(rows)))


def watch(clip: Path, out: Path, seconds: float, every: float) -> dict:
    """The group ``live`` of the manifest of one run, with its peak memory in MiB."""
    command = [sys.executable, "-m", "recon3d", "live", str(clip), "--out", str(out)]
    command += ["--seconds", f"{seconds:g}", "--every", f"{every:g}", "--config", "fast"]
    subprocess.run(
        command,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return read_manifest(out)["live"]


def page(rows, load: float, a) -> str:
    """The section of docs/RESULTS.md."""
    table = [
        [
            name,
            f"{every:g} s" if every else "none",
            f"{found['frames_per_second']:.1f}",
            f"{left_out(found):.1f}",
            f"{found['delay_ms_median']:.0f}",
            f"{found['delay_ms_95']:.0f}",
            str(found["updates"]),
        ]
        for name, every, found in rows
    ]
    single = [(every, found) for name, every, found in rows if name == SCENES[0][0]]
    verdicts = []
    for every, found in single:
        share, delay = left_out(found), found["delay_ms_median"]
        how = f"updates every {every:g} s" if every else "no updates"
        reached = share <= WANTED_LEFT_OUT and delay <= WANTED_DELAY_MS
        verdicts.append(
            f"- {SCENES[0][0]}, {how}: {share:.1f} % left out (wanted at most "
            f"{WANTED_LEFT_OUT:g}), {delay:.0f} ms behind (wanted {WANTED_DELAY_MS:.0f}): "
            f"{'reached' if reached else '**missed**'}"
        )
    return "\n\n".join(
        [
            "## Live streams",
            f"A camera of {FPS} frames a second, watched for {a.seconds:g} s each "
            "([live streams](live.md)). Left out: share of its frames that nobody had time for. "
            "Behind: from a frame's coming to its faces' being known. Updates: reconstructions "
            "that were finished while watching; one takes longer than ten seconds, so that a short "
            "run shows what they cost and finishes none.",
            "```\npython benchmarks/live.py\n```",
            f"Machine: {machine()}; load of other work when it began {load:.1f}.",
            markdown_table(
                ["", "updates", "frames/s", "left out %", "ms behind", "95 %", "finished"], table
            ),
            "\n".join(verdicts),
        ]
    )


def left_out(found: dict) -> float:
    """Per cent of the frames."""
    return 100 * found["frames_left_out"] / max(found["frames_received"], 1)


if __name__ == "__main__":
    main()
