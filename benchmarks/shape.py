"""Shape and pose by stage: landmarks, poses from the picture, shape from the picture.

    python benchmarks/shape.py --data DIR [--model NAME|PATH] [--cases TEXT ...] [--threads N]

DIR is a benchmark folder as `recon3d.evaluation.benchmark` reads it, with ``gt.npz`` beside each
clip (``T_head_to_cam``, ``ypr_deg``). Printed for each case: median surface distance in mm with
the size fitted / not fitted, for the model's mean face and after each stage, and the mean angular
error of the poses at yaws up to 45 degrees, after one constant rotation a clip.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--data", type=Path, required=True)
parser.add_argument("--model", default=None, help="name or path; the default model when not given")
parser.add_argument("--cases", nargs="*", default=None, help="only cases whose name contains one")
parser.add_argument("--threads", type=int, default=2)
arguments = parser.parse_args()
# before numpy is imported: its linear algebra library reads them once
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = str(arguments.threads)

import numpy as np  # noqa: E402

from recon3d.evaluation.benchmark import read_benchmark  # noqa: E402
from recon3d.evaluation.metrics import shape_metrics  # noqa: E402
from recon3d.fitting import DenseSettings, FittingSettings, fit_track  # noqa: E402
from recon3d.fitting.dense import refine_fit  # noqa: E402
from recon3d.fitting.visibility import surface_points  # noqa: E402
from recon3d.geometry import so3_log  # noqa: E402
from recon3d.media import iterate_frames, open_inputs  # noqa: E402
from recon3d.morphable import load_model  # noqa: E402
from recon3d.tracking import track_faces  # noqa: E402

NOW7 = [33, 133, 362, 263, 2, 61, 291]
"""MediaPipe's numbers of the seven landmarks by which a scan is aligned."""


def pose_error(fit, track, truth) -> float:
    rows = [v.frame_index for v in track.views]
    R = truth["T_head_to_cam"][rows, :3, :3].astype(np.float64)
    counted = fit.view_weight > 0
    U, _, Vt = np.linalg.svd((fit.R.transpose(0, 2, 1) @ R)[counted].mean(0))
    left = (fit.R @ (U @ Vt)).transpose(0, 2, 1) @ R
    angle = np.degrees(np.linalg.norm(so3_log(left), axis=1))
    return float(angle[np.abs(truth["ypr_deg"][rows, 0]) <= 45].mean())


def distances(model, vertices, subject) -> tuple[float, float]:
    now7 = surface_points(vertices, model.triangles, model.landmarks)[NOW7]
    found = shape_metrics(vertices, model.triangles, now7, subject.shape)
    return found["nonmetric_median"], found["metric_median"]


def main() -> None:
    data, model = read_benchmark(arguments.data), load_model(arguments.model or "recon3d")
    landmarks = FittingSettings(dense=DenseSettings(enabled=False))
    stages = {"pose": DenseSettings(shape=False), "shape": DenseSettings(shape=True)}
    print(
        f"{model.name}: {model.n_vertices} vertices; {platform.machine()}, {arguments.threads} of "
        f"{os.cpu_count()} cores; mm: size fitted / not fitted; degrees; processor seconds"
    )
    columns = ["mean face", "landmarks", "dense", "landm. deg", "+pose deg", "+shape deg", "CPU s"]
    print("case".ljust(18), *[c.rjust(11) for c in columns], " shape kept")
    rows = []
    for case in data.cases:
        if arguments.cases and not any(text in case.name for text in arguments.cases):
            continue
        tracks = track_faces(iterate_frames(open_inputs([str(case.clip)]))).tracks
        if not tracks:
            print(case.name.ljust(18), "no face found")
            continue
        track, subject = tracks[0], data.subjects[case.subject]
        truth = np.load(case.clip.parent / "gt.npz")
        first = fit_track(track, model, landmarks)
        posed = refine_fit(first, track, stages["pose"])
        began = time.process_time()
        dense = refine_fit(first, track, stages["shape"])
        seconds = time.process_time() - began
        row = [
            *distances(model, model.mean, subject),
            *distances(model, first.neutral, subject),
            *distances(model, dense.neutral, subject),
            *[pose_error(f, track, truth) for f in (first, posed, dense)],
            seconds,
        ]
        rows.append(row)
        print(case.name.ljust(18), *cells(row), " yes" if dense.info["dense"]["shape"] else " no")
    if rows:
        print("MEAN".ljust(18), *cells(np.mean(rows, 0)))


def cells(row) -> list[str]:
    pairs = [f"{row[k]:.2f} / {row[k + 1]:.2f}" for k in (0, 2, 4)]
    return [text.rjust(11) for text in [*pairs, *[f"{x:.2f}" for x in row[6:]]]]


if __name__ == "__main__":
    main()
