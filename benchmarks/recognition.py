"""How well people are told apart: by their best frame, by many, by the fused view, by all of it.

    python benchmarks/recognition.py --data ../shared/data/bench [--out DIR]

Clips of one person under different conditions, and of different people, are compared with one
another and with everybody's good picture. Tracks and fits are those that `texture.py` keeps.
"""

from __future__ import annotations

from before import ROOT  # isort: split

import argparse
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from results import PAGE, machine, markdown_table, write_section
from texture import fitted, shipped_refiner

from recon3d.evaluation import read_benchmark
from recon3d.frontal import FrontalSettings, render_frontal
from recon3d.progress import Reporter
from recon3d.recognition import VERIFY_THRESHOLD, load_embedder, make_template, track_template
from recon3d.refinement.refine import refine_frontal
from recon3d.texturing import fuse_texture
from recon3d.types import FrontalView

WAYS = (
    "the best frame",
    "5 frames",
    "12 frames",
    "fused view",
    "fused view and 12 frames",
    "refined view",
)
USED = WAYS[4]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the benchmark folder")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "texture")
    parser.add_argument("--page", type=Path, default=PAGE, help="where the section goes")
    a = parser.parse_args()
    benchmark = read_benchmark(a.data)
    embedder = load_embedder()
    clips = {}
    with Reporter().stage("recognition") as move:
        for done, case in enumerate(benchmark.cases):
            clips[case.name] = case.subject, templates(case, a.out, embedder)
            move(done + 1, len(benchmark.cases))
    pictures = {}
    for name, subject in benchmark.subjects.items():
        seen = subject.picture
        found = embedder(seen.image, np.asarray(seen.landmarks)[:, :2])
        pictures[name] = name, dict.fromkeys(WAYS, make_template([found], embedder))
    pairs = {
        "clip and clip": list(itertools.combinations(clips.values(), 2)),
        "clip and picture": list(itertools.product(clips.values(), pictures.values())),
    }
    write_section("recognition", page(pairs, len(clips), len(pictures)), a.page)
    print(f"wrote {a.page}")


def templates(case, out: Path, embedder) -> dict:
    """What is remembered of a clip's person, each way."""
    track, fit = fitted(case, out)
    view = render_frontal(track, fit, fuse_texture(track, fit), FrontalSettings())
    refined = refine_frontal(view, shipped_refiner())

    def alone(picture: np.ndarray, seen: FrontalView):
        return make_template([], embedder, fused=embedder(picture, seen.landmarks))

    return {
        WAYS[0]: track_template(track, embedder, count=1),
        WAYS[1]: track_template(track, embedder, count=5),
        WAYS[2]: track_template(track, embedder),
        WAYS[3]: alone(view.raw, view),
        WAYS[4]: track_template(track, embedder, view),
        WAYS[5]: alone(refined.image, refined),
    }


def page(pairs: dict, n_clips: int, n_people: int) -> str:
    """The section of docs/RESULTS.md."""
    parts = [
        "## Telling people apart",
        f"{n_clips} clips of {n_people} people, faces 28 to 110 px wide, and one good picture of "
        "each. Distances of dlib's descriptors, mean and range. AUC: share of pairs of one person "
        "that are nearer than pairs of two. `recon3d compare` takes the fused view and 12 frames; "
        "refined views stand here to show that nothing is gained by them, as their refiner was "
        "trained through this descriptor and they are no witness.",
        "```\npython benchmarks/recognition.py --data ../shared/data/bench\n```",
        f"Machine: {machine()}.",
    ]
    verdicts = []
    for kind, both in pairs.items():
        rows = []
        for way in WAYS:
            same, other = split(both, lambda x, y, way=way: x[way].distance(y[way]))
            rows.append([way, spread(same), spread(other), f"{auc(same, other):.3f}"])
        parts.append(f"{kind.capitalize()}, {len(both)} pairs:")
        parts.append(markdown_table(["", "one person", "two people", "AUC"], rows))
        best = auc(*split(both, lambda x, y: x[WAYS[0]].distance(y[WAYS[0]])))
        used = auc(*split(both, lambda x, y: x[USED].distance(y[USED])))
        verdicts.append(
            f"- {kind}: AUC {used:.3f} against {best:.3f} of the best frame (wanted not less): "
            f"{'reached' if used >= best else '**missed**'}"
        )
        same, other = split(both, lambda x, y: x[USED].distance(y[USED]))
        verdicts.append(
            f"- {kind}, at the usual limit of {VERIFY_THRESHOLD}: {100 * np.mean(other < 0.6):.0f} "
            f"% of two people would pass for one, {100 * np.mean(same >= 0.6):.0f} % of one for "
            "two. The limit is one of single good pictures; means lie nearer to one another"
        )
    return "\n\n".join([*parts, "\n".join(verdicts)])


def split(both: list, measure: Callable) -> tuple[np.ndarray, np.ndarray]:
    """Distances of pairs of one person, and of two."""
    found = [(x[0] == y[0], measure(x[1], y[1])) for x, y in both]
    return tuple(np.array([d for same, d in found if same == want]) for want in (True, False))


def spread(values: np.ndarray) -> str:
    return f"{values.mean():.2f} ({values.min():.2f} to {values.max():.2f})"


def auc(same: np.ndarray, other: np.ndarray) -> float:
    """Share of pairs of one person nearer than pairs of two, ties half."""
    nearer = same[:, None] < other[None]
    return float((nearer + 0.5 * (same[:, None] == other[None])).mean())


if __name__ == "__main__":
    main()
