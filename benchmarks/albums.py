"""Photos instead of a film: the frames of a clip in any order, as a folder of pictures.

    python benchmarks/albums.py --data ../shared/data/bench [--photos 24] [--cases TEXT,...]

Three folders of each clip: frames in their order, in any order, and in any order with every
picture enlarged or reduced (0.6 to 2 times) and cut out off its middle, as photos of an album are.
Wanted is that none is lost and that poses are about as good as those of the clip. Fills its
section of docs/RESULTS.md if all clips are run.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from results import PAGE, machine, markdown_table, write_section
from shape import pose_error
from truth import clip_truth

from recon3d.evaluation.benchmark import read_benchmark
from recon3d.fitting import fit_track
from recon3d.media import iterate_frames, open_inputs
from recon3d.media.pictures import write_png
from recon3d.morphable import load_model
from recon3d.recognition import load_embedder
from recon3d.tracking import track_faces

KINDS = {
    "film": "in their order",
    "shuffled": "in any order",
    "album": "in any order, sizes and cuts",
}


def changed(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A picture of another size, cut out off its middle."""
    zoom = float(rng.uniform(0.6, 2.0))
    how = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
    picture = cv2.resize(picture, None, fx=zoom, fy=zoom, interpolation=how)
    height, width = picture.shape[:2]
    left, right = (int(rng.uniform(0, 0.15) * width) for _ in range(2))
    top, bottom = (int(rng.uniform(0, 0.12) * height) for _ in range(2))
    return picture[top : height - bottom, left : width - right]


def measure(case, count: int, model, embedder) -> dict:
    """Share of pictures used and pose error in degrees, by kind of folder."""
    clip = [frame.image for frame in iterate_frames(open_inputs([str(case.clip)]))]
    truth = clip_truth(case)
    out = {}
    for kind in KINDS:
        rng = np.random.default_rng(0)
        order = np.arange(len(clip))
        if kind != "film":
            order = rng.permutation(len(clip))[:count]
        with tempfile.TemporaryDirectory() as folder:
            for number, k in enumerate(order):
                picture = changed(clip[k], rng) if kind == "album" else clip[k]
                write_png(Path(folder) / f"{number:03d}.png", np.ascontiguousarray(picture))
            frames = iterate_frames(open_inputs([folder]))
            tracks = track_faces(frames, embedder=embedder).tracks
        if not tracks:
            out[kind] = {"used": 0.0, "people": 0, "pose": float("nan")}
            continue
        fit = fit_track(tracks[0], model)
        true = replace(
            truth,
            R=truth.R[order],
            t=truth.t[order],
            yaw=truth.yaw[order],
            expression=truth.expression[order],
        )
        out[kind] = {
            "used": float((fit.view_weight > 0).sum() / len(order)),
            "people": len(tracks),
            "pose": pose_error(fit, tracks[0], true),
        }
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the benchmark folder")
    parser.add_argument("--photos", type=int, default=24, help="pictures of a shuffled folder")
    parser.add_argument("--cases", help="only cases whose name contains one of these (commas)")
    parser.add_argument("--page", type=Path, default=PAGE, help="where the section goes")
    a = parser.parse_args()
    cases = read_benchmark(a.data).cases
    parts = a.cases.split(",") if a.cases else [""]
    chosen = [case for case in cases if any(part in case.name for part in parts)]
    model, embedder = load_model("recon3d"), load_embedder()
    rows = {}
    for case in chosen:
        rows[case.name] = measure(case, a.photos, model, embedder)
        print(case.name, rows[case.name], flush=True)
    table = []
    for condition in [*sorted({case.condition for case in chosen}), "all"]:
        group = [rows[c.name] for c in chosen if condition in ("all", c.condition)]
        cells = [
            f"{np.nanmean([r[kind][key] for r in group]):.2f}"
            for kind in KINDS
            for key in ("used", "people", "pose")
        ]
        table.append([condition, *cells])
    headings = [f"{label}: {key}" for label in KINDS.values() for key in ("used", "people", "deg")]
    text = f"""## Photos instead of a film

Frames of the clips as a folder of pictures, which has no clock: all 50 in their order, and
{a.photos} of them in any order, as they are, and each of another size and cut out off its middle.
Share of the pictures used, people found (there is one), error of poses at yaws up to 45 degrees.
Cut off its middle, a picture no longer says where its lens pointed: that costs a degree or so.

```
python benchmarks/albums.py --data ../shared/data/bench
```

Machine: {machine()}.

{markdown_table(["", *headings], table)}"""
    print(text)
    if len(chosen) == len(cases):
        write_section("albums", text, a.page)
        print(f"wrote {a.page}")


if __name__ == "__main__":
    main()
