"""How fast, and with how much memory: the whole job on a 10 s clip and on one four times as long.

    python benchmarks/speed.py

The clips (640x480, 25 frames per second, one face) are the bundled one played forth and back, so
nothing else is needed. Every run is a process of its own: its time includes starting Python and
importing, its memory is the process's peak.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

from results import PAGE, machine, markdown_table, write_section  # noqa: E402

from recon3d.assets import asset_path  # noqa: E402
from recon3d.evaluation.benchmark import read_manifest  # noqa: E402

CLIP_SECONDS, FPS = 10, 25
WANTED_SECONDS, WANTED_MIB, WANTED_HELP = 60.0, 2048.0, 0.7


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", help="settings, as of recon3d run")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--page", type=Path, default=PAGE, help="where the section goes")
    a = parser.parse_args()
    options = ["--config", a.config] if a.config else []
    options += [word for line in a.set for word in ("--set", line)]

    rows, stages = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for name, factor in (("10 s clip", 1), ("40 s clip", 4)):
            clip = Path(folder) / f"{factor}.mp4"
            frames = make_clip(clip, factor * CLIP_SECONDS * FPS)
            out = Path(folder) / f"out{factor}"
            command = ["run", str(clip), "--out", str(out), "--max-tracks", "1", *options]
            seconds, peak, status = child(command)
            if status:
                raise SystemExit(f"recon3d {' '.join(command)} ended with status {status}")
            rows.append((name, frames, seconds, peak))
            stages[name] = (read_manifest(out) or {}).get("stages", [])
            print(f"{name}: {frames} frames, {seconds:.1f} s, peak {peak:.0f} MiB", flush=True)
    started = [child(["--help"])[0] for _ in range(5)]
    help_seconds = statistics.median(started)
    print(f"recon3d --help: {help_seconds:.2f} s (median of {len(started)})")
    write_section("speed", page(rows, stages, help_seconds, options), a.page)
    print(f"wrote {a.page}")


def make_clip(path: Path, n_frames: int) -> int:
    """The bundled clip forth and back until it has that many frames."""
    from recon3d.media import VideoWriter, iterate_frames, open_inputs

    source = asset_path("demo", "astronaut_cctv.mp4")
    images = [frame.image for frame in iterate_frames(open_inputs([str(source)]))]
    there_and_back = [*range(len(images)), *range(len(images) - 2, 0, -1)]
    with VideoWriter(path, fps=FPS, crf=28) as writer:
        for i in range(n_frames):
            writer.write(images[there_and_back[i % len(there_and_back)]])
    return n_frames


def child(arguments: list[str]) -> tuple[float, float, int]:
    """Seconds, peak memory in MiB and exit status of one call of the command line."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "recon3d.cli.main", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    scale = 1024**2 if sys.platform == "darwin" else 1024
    return seconds, usage.ru_maxrss / scale, process.returncode


def page(rows, stages, help_seconds: float, options: list[str]) -> str:
    """The section of docs/RESULTS.md."""
    (_, _, seconds, peak), (_, _, _, long_peak) = rows
    names = list(dict.fromkeys(s["stage"] for value in stages.values() for s in value))
    table = []
    for name, frames, total, memory in rows:
        spent = {s["stage"]: s["seconds"] for s in stages[name]}
        cells = [f"{spent.get(n, 0.0):.1f}" for n in names]
        table.append([name, str(frames), f"{total:.1f}", f"{memory:.0f}", *cells])

    def verdict(reached: bool) -> str:
        return "reached" if reached else "**missed**"

    lines = [
        f"- 10 s, 640x480, one face, end to end {seconds:.1f} s (wanted at most "
        f"{WANTED_SECONDS:g}): {verdict(seconds <= WANTED_SECONDS)}",
        f"- peak memory {max(peak, long_peak):.0f} MiB (wanted at most {WANTED_MIB:g}): "
        f"{verdict(max(peak, long_peak) <= WANTED_MIB)}",
        f"- memory of the clip four times as long {long_peak / peak:.2f} times that of the short "
        f"one (wanted flat): {verdict(long_peak <= 1.1 * peak)}",
        f"- `recon3d --help` {help_seconds:.2f} s (wanted under {WANTED_HELP:g}): "
        f"{verdict(help_seconds < WANTED_HELP)}",
    ]
    command = " ".join(["python benchmarks/speed.py", *options])
    return "\n\n".join(
        [
            "## Time and memory of the main job",
            f"```\n{command}\n```",
            f"Machine: {machine()}.",
            markdown_table(
                ["clip", "frames", "seconds in all", "peak MiB", *(f"{n} s" for n in names)], table
            ),
            "\n".join(lines),
        ]
    )


if __name__ == "__main__":
    main()
