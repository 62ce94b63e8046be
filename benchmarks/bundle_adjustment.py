"""Seconds of the landmark bundle adjustment over the number of views.

    python benchmarks/bundle_adjustment.py [--model NAME|PATH] [--threads N] [--views 10 50 ...]

Views are projections of a random face of the model with noise, at the size of a face on a
surveillance clip. Without an installed model the synthetic head of the tests is taken.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--model", default=None, help="name or path; the default model when not given")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--views", type=int, nargs="+", default=[10, 50, 100, 300, 1000])
parser.add_argument("--repeat", type=int, default=2)
arguments = parser.parse_args()
# before numpy is imported: its linear algebra library reads them once
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = str(arguments.threads)

import numpy as np  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "fitting"))
from synthetic_head import synthetic_model, synthetic_track  # noqa: E402

from recon3d.errors import Recon3DError  # noqa: E402
from recon3d.fitting import fit_track  # noqa: E402


def load(name: str | None):
    if name == "synthetic":
        return synthetic_model()
    try:
        from recon3d.morphable import load_model

        return load_model(name) if name else load_model()
    except (ImportError, Recon3DError) as error:
        print(f"model {name!r} cannot be loaded ({error}): synthetic head instead")
        return synthetic_model()


def main() -> None:
    model = load(arguments.model)
    print(
        f"{model.name}: {model.n_vertices} vertices, {len(model.identity)} identity modes, "
        f"{len(model.expression)} expressions; {platform.processor() or platform.machine()}, "
        f"{arguments.threads} of {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    print(f"{'views':>6} {'seconds':>8} {'CPU s':>8} {'ms/view':>8} {'steps':>6} {'peak MiB':>9}")
    for n_views in arguments.views:
        track, _ = synthetic_track(
            model,
            np.random.default_rng(0),
            n_views=n_views,
            noise_px=0.7,
            focal=1000.0,
            distance=2000.0,
        )
        best = cpu = np.inf
        for _ in range(arguments.repeat):
            start, start_cpu = time.perf_counter(), time.process_time()
            fit = fit_track(track, model)
            best = min(best, time.perf_counter() - start)
            cpu = min(cpu, time.process_time() - start_cpu)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{n_views:>6} {best:>8.2f} {cpu:>8.2f} {1000 * best / n_views:>8.1f} "
            f"{fit.info['steps']:>6} {peak:>9.0f}"
        )


if __name__ == "__main__":
    main()
