"""Learn the coefficients of the frontal picture's predicted deviation on rendered people.

    python benchmarks/deviation.py --photos ../shared/data/synthetic_faces --ict ict-facekit.npz

People with photographed skin, their lenses, cameras and lights are those of `own_scenes`: every
condition with two people. Each clip goes through tracking, fitting, texturing and the frontal
view, once with all its frames and once with those of one side only, so that there is something
filled; the errors of luma against the known picture are explained by `recon3d.frontal.deviation`.
Printed: the coefficients for `FrontalSettings.error_coefficients`, the calibration on clips that
were left out, and the deviation of luma over people (`UNSEEN_DEVIATION`). ``--scenes`` takes clips
of a quality matrix (``cells/`` and ``people/``) instead of rendering.
"""

from __future__ import annotations

from before import ROOT  # isort: split

import argparse
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from own_scenes import frames_of, own_scenes, portraits
from texture import FULL, auc, fitted, keep_errors, settings_of

from recon3d.errors import Recon3DError
from recon3d.evaluation.benchmark import Case, Subject
from recon3d.fitting import FittingSettings, fit_track
from recon3d.frontal import FrontalSettings, render_frontal
from recon3d.frontal.camera import EYES, LEFT_LID, RIGHT_LID, SIZE
from recon3d.frontal.deviation import (
    SOURCES,
    learn_coefficients,
    predicted_deviation,
)
from recon3d.geometry import head_angles, umeyama
from recon3d.morphable import load_model
from recon3d.scenes.portraits import portrait_texture
from recon3d.scenes.scene import (
    SUBJECT_FILES,
    load_scene,
    subject_key,
)
from recon3d.texturing import fuse_texture
from recon3d.tracking import track_faces

FIRST_PEOPLE = (300, 340)
"""Of the own scenes; other benchmarks use other people."""
ONE_SIDE_DEG = 18.0
"""Yaw beyond which frames show one side of the face."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "deviation")
    parser.add_argument("--photos", type=Path, help="portraits for the skin of own scenes")
    parser.add_argument("--ict", type=Path, help="ICT-FaceKit, of which the truth is drawn")
    parser.add_argument("--scenes", type=Path, help="a quality matrix's folder")
    parser.add_argument("--only", nargs="*", help="names of its cells")
    a = parser.parse_args()
    if a.scenes:
        clips = matrix_clips(a.scenes, a.only)
        for case, subject in clips:
            measure(a.out, case.name, lambda case=case: fitted(case, a.out), subject.picture)
    elif a.photos and a.ict:
        deviation_over_people(a.photos)
        measure_own(a)
    else:
        parser.error("either --photos and --ict, or --scenes")
    learn(sorted((a.out / "errors").glob("*.npz")))


def measure_own(a) -> None:
    """Clips of own scenes."""
    ict, model = load_model(a.ict), load_model("recon3d")
    scenes = [s for first in FIRST_PEOPLE for s in own_scenes(first) if s.model == "ict-facekit"]
    for own, photo in zip(scenes, portraits(a.photos, 0, len(scenes))):
        skin = portrait_texture(ict, *photo, own.scene.person)
        truth, frames = frames_of(own, ict, skin)
        picture = truth.picture_truth()

        def fit(frames=frames):
            track = track_faces(frames).tracks[0]
            return track, fit_track(track, model, FittingSettings())

        measure(a.out, f"{own.name}_{own.scene.person}", fit, picture, one_side=True)


def deviation_over_people(photos: Path, count: int = 150) -> float:
    """Deviation of luma over people, of what skin tone and light alone do not tell.

    Photos are brought together by their eyes as `frontal.png` is; what is coarser than a 32nd of
    the width is taken out of each.
    """
    side = 256
    goal = EYES * (side / SIZE)
    details = []
    for image, points in portraits(photos, 0, count):
        eyes = [points[list(lid), :2].mean(0) for lid in (RIGHT_LID, LEFT_LID)]
        s, R, t = umeyama(np.array(eyes), goal)
        matrix = np.column_stack([s * R, t + s * R @ [0.5, 0.5] - 0.5])
        aligned = cv2.warpAffine(image, matrix, (side, side), borderMode=cv2.BORDER_REFLECT)
        luma = aligned.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
        details.append(luma - cv2.GaussianBlur(luma, (0, 0), side / 32))
    # About what the face covers in that layout.
    spread = np.var(details, axis=0, ddof=1)[60:220, 70:186].mean() ** 0.5
    print(f"deviation of luma over {len(details)} people: {spread:.1f}")
    return float(spread)


def measure(out: Path, name: str, make, picture, *, one_side: bool = False) -> None:
    """Errors of one clip, and of those of its frames that show one side."""
    paths = [out / "errors" / f"{name}{end}.npz" for end in (("", "_side") if one_side else ("",))]
    if all(path.exists() for path in paths):
        return
    try:
        track, fit = make()
        yaw = head_angles(fit.R)[:, 0]
        side = np.where(yaw > ONE_SIDE_DEG, fit.view_weight, 0)
        for path, weight in zip(paths, (fit.view_weight, side)):
            part = replace(fit, view_weight=weight)
            texture = fuse_texture(track, part, settings_of(FULL))
            view = render_frontal(track, part, texture, FrontalSettings())
            keep_errors(path, part, texture, view, picture)
            print(path.stem, flush=True)
    except (Recon3DError, IndexError) as error:
        print(f"{name}: left out ({error})")


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
            data.append((z["sources"][::7], z["error"][::7]))

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
                    f"two {np.mean(e <= 2 * s):.2f}, AUC {auc(s, e):.2f}, "
                    f"RMS {np.sqrt((e**2).mean()):.1f}"
                )
    for name, value in zip(SOURCES, fit(numbers)):
        print(f"{name:14s} {value:.5g}")
    print("(" + ", ".join(f"{v:.3g}" for v in fit(numbers)) + ")")


if __name__ == "__main__":
    main()
