"""A camera that hunts for its focus: the main job with and without the blur of every view known.

    python benchmarks/focus.py --data ../shared/data/bench [--out DIR]

The benchmark's sharper clips are put out of focus anew, by a disc that grows and shrinks to and
fro, encoded again, and reconstructed twice. Finished runs are kept in --out: after a change of code
start with an empty folder.
"""

from __future__ import annotations

from before import ROOT  # isort: split

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from results import PAGE, machine, markdown_table, write_section

from recon3d import pipeline
from recon3d.colour import to_uint8
from recon3d.evaluation import load_descriptor, read_benchmark
from recon3d.evaluation.metrics import picture_metrics
from recon3d.media import VideoWriter, iterate_frames, open_inputs, read_picture
from recon3d.progress import Reporter
from recon3d.restoration.degradations import optical_blur
from recon3d.settings import load_settings

FACES = {"clean110": 110.0, "bright64": 64.0}
"""Conditions that have detail to lose, and the width of their faces, px."""
RADIUS = 0.06
"""Of the disc at its largest, in widths of the face."""
VARIANTS = {"unknown": ["texturing.focus=false"], "known": []}
PICTURES = {"fused": "frontal_raw.png", "refined": "frontal.png"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the benchmark folder")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "focus")
    parser.add_argument("--no-page", action="store_true", help="leave docs/RESULTS.md alone")
    a = parser.parse_args()
    benchmark = read_benchmark(a.data)
    cases = [case for case in benchmark.cases if case.condition in FACES]
    describe = load_descriptor()
    rows = []
    with Reporter().stage("focus") as move:
        for k, case in enumerate(cases):
            clip = hunting_clip(case, a.out)
            for n, (variant, changes) in enumerate(VARIANTS.items()):
                truth = benchmark.subjects[case.subject].picture
                folder = a.out / variant / case.name
                for picture, scores in measure(clip, folder, changes, truth, describe).items():
                    rows.append({"case": case.name, "variant": variant, "picture": picture})
                    rows[-1] |= scores
                move(len(VARIANTS) * k + n + 1, len(VARIANTS) * len(cases))
    text = report(pd.DataFrame(rows))
    print(text)
    if not a.no_page:
        write_section("focus", text, PAGE)
        print(f"wrote {PAGE}")


def hunting_clip(case, out: Path) -> Path:
    """The case's clip, out of focus to and fro; phase and period are drawn from its name."""
    path = out / "clips" / f"{case.name}.mp4"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(case.name.encode()))
    phase, period = rng.uniform(0, np.pi), rng.uniform(12, 25)
    largest = RADIUS * FACES[case.condition]
    with VideoWriter(path, fps=25, crf=20) as writer:
        for i, frame in enumerate(iterate_frames(open_inputs([str(case.clip)]))):
            radius = largest * abs(np.sin(phase + np.pi * i / period))
            writer.write(to_uint8(optical_blur(frame.image, defocus=radius)))
    return path


def measure(clip: Path, folder: Path, changes: list[str], truth, describe) -> dict[str, dict]:
    """Scores of the fused and the refined view of one run."""
    kept = folder / "scores.json"
    if not kept.exists():
        settings = load_settings(None, changes, max_tracks=1)
        pipeline.run([str(clip)], folder, settings)
        blur = json.loads((folder / "track_000" / "metrics.json").read_text())["blur_mm"]
        scores = {}
        for name, file in PICTURES.items():
            view = read_picture(folder / "track_000" / file)
            found = picture_metrics(view, truth, describe) or {}
            scores[name] = {k: found.get(k) for k in ("psnr", "ssim", "id_dist", "nme")}
            scores[name]["blur_mm"] = blur["most"]
        kept.write_text(json.dumps(scores), encoding="utf-8")
    return json.loads(kept.read_text(encoding="utf-8"))


def report(frame: pd.DataFrame) -> str:
    """The section of docs/RESULTS.md."""
    table = []
    for (picture, case), group in frame.groupby(["picture", "case"], sort=False):
        table.append([f"{picture}, {case}", *_cells(group)])
    for picture, group in frame.groupby("picture", sort=False):
        table.append([f"{picture}, all", *_cells(group)])
    headings = ["", "PSNR, dB", "known", "identity", "known", "landmarks, %", "known"]
    headings += ["most blur found, mm"]
    fused = frame[frame.picture == "fused"].groupby("variant")[["psnr", "id_dist"]].mean()
    gain = fused.loc["known"] - fused.loc["unknown"]
    return "\n\n".join(
        [
            "## A camera that hunts for its focus",
            "```\npython benchmarks/focus.py --data ../shared/data/bench\n```",
            f"Machine: {machine()}. Clips of the benchmark, put out of focus by a disc of up to "
            f"{100 * RADIUS:g} % of the face's width in radius, to and fro, and encoded again; "
            "scored as the benchmark does, without and with the blur of every view known "
            "(`texturing.focus`).",
            markdown_table(headings, table),
            f"- the fused view gains {gain.psnr:+.2f} dB and {gain.id_dist:+.3f} in identity "
            "distance (less is better)",
        ]
    )


def _cells(group: pd.DataFrame) -> list[str]:
    mean = group.groupby("variant")[["psnr", "id_dist", "nme", "blur_mm"]].mean()
    cells = []
    for key, digits in (("psnr", 2), ("id_dist", 3), ("nme", 2)):
        cells += [f"{mean.loc[variant, key]:.{digits}f}" for variant in VARIANTS]
    return [*cells, f"{mean.loc['known', 'blur_mm']:.1f}"]


if __name__ == "__main__":
    main()
