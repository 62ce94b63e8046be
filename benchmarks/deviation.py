"""Learn the coefficients of the frontal picture's predicted deviation on rendered people.

    python benchmarks/deviation.py [--out DIR] [--scenes DIR]

People, motion, light and size are drawn by `recon3d.evaluation.scenes`; each clip goes through
tracking, fitting, texturing and the frontal view, and the errors of luma against the known picture
are explained by `recon3d.frontal.deviation`. Printed: the coefficients for
`FrontalSettings.error_coefficients`, and the calibration on clips that were left out. ``--scenes``
takes clips of a quality matrix (``cells/`` and ``people/``) instead of rendering.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("GLOG_minloglevel", "3")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

import numpy as np  # noqa: E402
from texture import FULL, auc, fitted, keep_errors, settings_of  # noqa: E402

from recon3d.errors import Recon3DError  # noqa: E402
from recon3d.evaluation import read_benchmark  # noqa: E402
from recon3d.evaluation.benchmark import Case, Subject  # noqa: E402
from recon3d.evaluation.scenes import (  # noqa: E402
    SUBJECT_FILES,
    Scene,
    load_scene,
    subject_key,
    write_benchmark,
)
from recon3d.frontal import FrontalSettings, render_frontal  # noqa: E402
from recon3d.frontal.deviation import (  # noqa: E402
    SOURCES,
    learn_coefficients,
    predicted_deviation,
)
from recon3d.morphable import load_model  # noqa: E402
from recon3d.texturing import fuse_texture  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "deviation")
    parser.add_argument("--scenes", type=Path, help="a quality matrix's folder")
    parser.add_argument("--only", nargs="*", help="names of its cells")
    a = parser.parse_args()
    model = load_model("recon3d")
    clips = matrix_clips(a.scenes, a.only) if a.scenes else rendered(a.out, model)
    for case, subject in clips:
        path = a.out / "errors" / f"{case.name}.npz"
        if path.exists():
            continue
        try:
            track, fit = fitted(case, a.out)
            texture = fuse_texture(track, fit, settings_of(FULL))
        except (Recon3DError, IndexError) as error:
            print(f"{case.name}: left out ({error})")
            continue
        view = render_frontal(track, fit, texture, FrontalSettings())
        keep_errors(path, fit, texture, view, subject.picture)
        print(case.name, flush=True)
    learn(sorted((a.out / "errors").glob("*.npz")))


def rendered(out: Path, model) -> list[tuple]:
    """Clips of own scenes: every light at three sizes."""
    scenes = {}
    grid = itertools.product(("bright", "medium", "low", "warm", "cold"), (28.0, 44.0, 72.0))
    for number, (light, size) in enumerate(grid):
        blur = "strong" if number % 5 == 2 else "none"
        scenes[f"{light}{size:.0f}"] = Scene(
            person=100 + number, seed=number, light=light, face_px=size, blur=blur, n_frames=40
        )
    folder = out / "scenes"
    if not (folder / "manifest.json").exists():
        write_benchmark(scenes, model, folder)
    benchmark = read_benchmark(folder)
    return [(c, benchmark.subjects[c.subject]) for c in benchmark.cases]


def matrix_clips(folder: Path, only: list[str] | None) -> list[tuple]:
    """Clips of a quality matrix whose truth is there."""
    found = []
    for cell in sorted((folder / "cells").iterdir()):
        if only and cell.name not in only:
            continue
        key = subject_key(load_scene(cell / "scene.json"))
        paths = [folder / "people" / key / name for name in SUBJECT_FILES]
        if all(p.exists() for p in paths):
            case = Case(cell.name, key, "own", cell / "clip.mp4")
            found.append((case, Subject(key, *paths)))
    return found


def learn(paths: list[Path]) -> None:
    """Coefficients of all clips, and how well those of the others do on each third."""
    data = []
    for path in paths:
        with np.load(path) as z:
            seen = z["evidence"][:, 2] < 2
            data.append((z["sources"][seen][::7], z["error"][seen][::7]))

    def fit(members):
        return learn_coefficients(*(np.concatenate([data[k][j] for k in members]) for j in (0, 1)))

    numbers = range(len(data))
    for part in range(3):
        theta = fit([k for k in numbers if k % 3 != part])
        for k in numbers:
            if k % 3 == part:
                s, e = predicted_deviation(data[k][0], theta), np.abs(data[k][1])
                rank = np.corrcoef(np.argsort(np.argsort(s)), np.argsort(np.argsort(e)))[0, 1]
                print(
                    f"{paths[k].stem:28s} Spearman {rank:.2f}, inside one {np.mean(e <= s):.2f}, "
                    f"two {np.mean(e <= 2 * s):.2f}, AUC {auc(s, e):.2f}, RMS {e.std():.1f}"
                )
    for name, value in zip(SOURCES, fit(numbers)):
        print(f"{name:14s} {value:.5g}")
    print("(" + ", ".join(f"{v:.3g}" for v in fit(numbers)) + ")")


if __name__ == "__main__":
    main()
