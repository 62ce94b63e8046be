"""Seconds of the landmark bundle adjustment over the number of views.

    python benchmarks/bundle_adjustment.py

Views are projections of a random face of the model with noise, at the size of a face on a
surveillance clip. Without an installed model the synthetic head of the tests is taken.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("--model", default=None, help="name or path; the default model when not given")
parser.add_argument("--threads", type=int, default=1, help="threads of the linear algebra")
parser.add_argument("--views", type=int, nargs="+", default=[10, 50, 100, 200, 300, 500, 1000])
parser.add_argument("--repeat", type=int, default=3, help="the fastest of so many counts")
parser.add_argument("--page", type=Path, help="where the section goes; docs/RESULTS.md if empty")
arguments = parser.parse_args()
# before numpy is imported: its linear algebra library reads them once
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = str(arguments.threads)

import numpy as np  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent), str(ROOT / "tests" / "fitting")]

from results import PAGE, machine, markdown_table, write_section  # noqa: E402
from synthetic_head import synthetic_model, synthetic_track  # noqa: E402

from recon3d.errors import Recon3DError  # noqa: E402
from recon3d.fitting import DenseSettings, FittingSettings, fit_track  # noqa: E402

WANTED_VIEWS, WANTED_SECONDS = 50, 1.5
WANTED_GROWTH = 1.2
"""A view of the longest track may cost so many times what one of 100 costs, step for step."""


def read_model(name: str | None):
    if name == "synthetic":
        return synthetic_model()
    try:
        from recon3d.morphable import load_model

        return load_model(name) if name else load_model()
    except (ImportError, Recon3DError) as error:
        print(f"model {name!r} cannot be loaded ({error}): synthetic head instead")
        return synthetic_model()


def main() -> None:
    model = read_model(arguments.model)
    what = (
        f"{model.name}: {model.n_vertices} vertices, {len(model.identity)} identity modes, "
        f"{len(model.expression)} expressions"
    )
    load = os.getloadavg()[0]
    print(f"{what}; {machine()}; load {load:.1f}")
    print(f"{'views':>6} {'seconds':>8} {'CPU s':>8} {'ms/view':>8} {'steps':>6} {'peak MiB':>9}")
    rows = []
    for n_views in arguments.views:
        row = measure(model, n_views)
        rows.append(row)
        seconds, cpu, steps, peak = row[1:]
        print(
            f"{n_views:>6} {seconds:>8.2f} {cpu:>8.2f} {1000 * seconds / n_views:>8.1f} "
            f"{steps:>6} {peak:>9.0f}",
            flush=True,
        )
    where = arguments.page or PAGE
    write_section("bundle_adjustment", page(rows, what, load), where)
    print(f"wrote {where}")


def measure(model, n_views: int) -> tuple[int, float, float, int, float]:
    """Views, seconds, processor seconds, steps and the process's peak memory in MiB."""
    track, _ = synthetic_track(
        model,
        np.random.default_rng(0),
        n_views=n_views,
        noise_px=0.7,
        focal=1000.0,
        distance=2000.0,
    )
    landmarks = FittingSettings(dense=DenseSettings(enabled=False))
    best = cpu = np.inf
    for _ in range(arguments.repeat):
        start, start_cpu = time.perf_counter(), time.process_time()
        fit = fit_track(track, model, landmarks)
        best = min(best, time.perf_counter() - start)
        cpu = min(cpu, time.process_time() - start_cpu)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    scale = 1024**2 if sys.platform == "darwin" else 1024
    return n_views, best, cpu, fit.info["steps"], peak / scale


def page(rows: list[tuple], what: str, load: float) -> str:
    """The section of docs/RESULTS.md."""
    table = [
        [
            str(n),
            f"{seconds:.2f}",
            f"{cpu:.2f}",
            f"{1000 * seconds / n:.1f}",
            str(steps),
            f"{1000 * cpu / n / steps:.2f}",
            f"{peak:.0f}",
        ]
        for n, seconds, cpu, steps, peak in rows
    ]
    found = {n: (seconds, cpu / n / steps) for n, seconds, cpu, steps, _ in rows}
    lines = []
    if WANTED_VIEWS in found:
        seconds = found[WANTED_VIEWS][0]
        lines.append(
            f"- {WANTED_VIEWS} views {seconds:.2f} s (wanted at most {WANTED_SECONDS:g}): "
            f"{verdict(seconds <= WANTED_SECONDS)}"
        )
    most = max(found)
    if 100 in found and most > 100:
        growth = found[most][1] / found[100][1]
        lines.append(
            f"- a step costs {growth:.2f} times as much a view with {most} views as with 100 "
            f"(processor time; wanted at most {WANTED_GROWTH:g}, linear is 1): "
            f"{verdict(growth <= WANTED_GROWTH)}"
        )
    threads = f"{arguments.threads} thread" + "s" * (arguments.threads > 1)
    return "\n\n".join(
        [
            "## Bundle adjustment",
            "Landmarks of all views of a face at once: poses, expressions, focal length, shape. "
            f"Fastest of {arguments.repeat}, {threads}, model {what}.",
            f"```\n{' '.join(['python benchmarks/bundle_adjustment.py', *sys.argv[1:]])}\n```",
            f"Machine: {machine()}; load of other work when it began {load:.1f}.",
            markdown_table(
                [
                    "views",
                    "seconds",
                    "processor s",
                    "ms a view",
                    "steps",
                    "ms a view and step",
                    "peak MiB",
                ],
                table,
            ),
            "\n".join(lines),
        ]
    )


def verdict(reached: bool) -> str:
    return "reached" if reached else "**missed**"


if __name__ == "__main__":
    main()
