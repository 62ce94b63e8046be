"""Learn the law of the frontal picture's predicted deviation on rendered people.

    python benchmarks/deviation.py --photos ../shared/data/synthetic_faces --ict ict-facekit.npz
    python benchmarks/deviation.py --pairs PAIRS... [--write]

People with photographed skin, their lenses, cameras and lights are those of `own_scenes`: every
condition with two people. Each clip goes through tracking, fitting, texturing and the frontal
view, once with all its frames and once with those of one side only, so that there is something
filled; the errors of luma against the known picture are explained by `recon3d.frontal.deviation`.
``--scenes`` takes clips of a quality matrix (``cells/`` and ``people/``) instead of rendering.
``--pairs`` takes training pairs of rendered heads, or of photos, as
``recon3d train refiner --pairs-only`` leaves them, alone or beside the others: they are many, and
cost nothing more. Printed: how well clips of people that were left out are explained, the
coefficients for `FrontalSettings.error_coefficients`, and, with ``--photos``, the deviation of luma
over people (`UNSEEN_DEVIATION`). ``--write`` writes the prior of place, of which the coefficients
are half, to ``assets/deviation``.
"""

from __future__ import annotations

from before import ROOT  # isort: split

import argparse
from dataclasses import dataclass, replace
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
    PLACE_SIDE,
    PLACE_STEP,
    SOURCES,
    UNSEEN_DEVIATION,
    error_sources,
    learn_coefficients,
    learn_place,
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

PLACE = ROOT / "assets" / "deviation" / "place.png"
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
FIRST_PEOPLE = (300, 340)
"""Of the own scenes; other benchmarks use other people."""
ONE_SIDE_DEG = 18.0
"""Yaw beyond which frames show one side of the face."""


@dataclass(frozen=True)
class Errors:
    """Some pixels of one clip's frontal picture.

    Attributes
    ----------
    name, person : str
        Clips of one person are learned from or tested on together.
    sources : (N, K) float32, of `SOURCES`
    error : (N,) of luma, levels of 255
    at : (N, 2)
        Share of the picture's width and height.
    scored : bool
        Whether errors are as the scores have them; a pair's target has its tones matched coarsely.
    """

    name: str
    person: str
    sources: np.ndarray
    error: np.ndarray
    at: np.ndarray
    scored: bool = True


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "deviation")
    parser.add_argument("--photos", type=Path, help="portraits for the skin of own scenes")
    parser.add_argument("--ict", type=Path, help="ICT-FaceKit, of which the truth is drawn")
    parser.add_argument(
        "--pairs", type=Path, nargs="*", default=[], help="folders of training pairs"
    )
    parser.add_argument(
        "--law",
        type=float,
        nargs=len(SOURCES),
        default=FrontalSettings().error_coefficients,
        metavar="C",
        help="coefficients of the code that made the pairs, where they are not today's",
    )
    parser.add_argument("--write", action="store_true", help=f"write {PLACE.name}")
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
    elif not a.pairs:
        parser.error("one of --photos and --ict, --scenes, or --pairs")
    pairs = read_pairs(a.pairs, np.array(a.law, np.float32))
    measured = sorted((a.out / "errors").glob("*.npz")) if a.scenes or a.photos else []
    learn([read_errors(path) for path in measured] + pairs, a.write)


def read_errors(path: Path) -> Errors:
    """Each seventh pixel of what `keep_errors` left."""
    with np.load(path) as z:
        parts = {key: z[key][::7] for key in ("sources", "error", "at")}
    # A clip and the side of it show the same person.
    return Errors(path.stem, path.stem.removesuffix("_side"), **parts)


def read_pairs(folders: list[Path], law: np.ndarray, count: int = 1200) -> list[Errors]:
    """Some observed pixels of each training pair of the refiner.

    A pair holds no deviation of its frames, but its red was made from the predicted deviation:
    taken back through the law that made it, what no other source explains is ``noise``. What was
    filled has no red, and is left out.

    Parameters
    ----------
    folders : list of Path
        Of `recon3d train refiner --pairs-only`.
    law : (K,)
        Coefficients, in the order of `SOURCES`, of the code that made the pairs.
    count : int
        Pixels of each.
    """
    rng = np.random.default_rng(0)
    noise = SOURCES.index("noise")
    size = (SIZE, SIZE)
    found = []
    for path in sorted(p for folder in folders for p in folder.glob("*_[0-9]*.npz")):
        with np.load(path) as z:
            pairs = {key: z[key] for key in ("picture", "target", "evidence", "mask", "points")}
            names = z["name"]
        for k, name in enumerate(names):
            raw, target, evidence, mask = (
                cv2.resize(pairs[key][k], size, interpolation=cv2.INTER_CUBIC)
                for key in ("picture", "target", "evidence", "mask")
            )
            drawn = np.flatnonzero((mask > 252) & (evidence[..., 2] < 128))
            if len(drawn) < 8000:
                continue
            pick = rng.choice(drawn, count, replace=False)
            landmarks = pairs["points"][k] * (SIZE / pairs["picture"].shape[1])
            maps = error_sources(raw, landmarks, noise=np.ones(size, np.float32))
            sources = maps.reshape(-1, len(SOURCES))[pick]
            red = np.clip(evidence[..., 0].ravel()[pick] / 255.0, 0.01, 0.99)
            left = np.log(UNSEEN_DEVIATION * np.sqrt(1 / red - 1)) - sources @ law
            # As small and as large as `error_sources` lets it be.
            sources[:, noise] = np.clip(left / law[noise], np.log(0.01), 0)
            error = (raw.astype(np.float32) - target).reshape(-1, 3)[pick] @ LUMA
            at = (np.column_stack([pick % SIZE, pick // SIZE]) + 0.5) / SIZE
            number = f"{path.stem}_{k}"
            found.append(Errors(number, str(name), sources, error, at, scored=False))
    return found


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
        luma = aligned.astype(np.float32) @ LUMA
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


def learn(data: list[Errors], write: bool = False) -> None:
    """Law of all clips, and how well that of the others does on each third of the people."""
    people = np.unique([d.person for d in data], return_inverse=True)[1]
    scores = []
    for part in range(3):
        theta, place = learn_law([d for d, p in zip(data, people) if p % 3 != part])
        for d, p in zip(data, people):
            if p % 3 == part:
                s = predicted_deviation(with_place(d.sources, d.at, place), theta)
                e = np.abs(d.error)
                rank = np.corrcoef(np.argsort(np.argsort(s)), np.argsort(np.argsort(e)))[0, 1]
                rms = np.sqrt((e**2).mean())
                scores.append([rank, np.mean(e <= s), np.mean(e <= 2 * s), auc(s, e), rms])
                print(f"{d.name:28s} {line(scores[-1])}")
    print(f"{'mean':28s} {line(np.mean(scores, axis=0))}")
    theta, place = learn_law(data)
    for name, value in zip(SOURCES, theta):
        print(f"{name:14s} {value:.5g}")
    print("(" + ", ".join(f"{v:.3g}" for v in theta) + ")")
    if write:
        PLACE.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(PLACE), place)
        print(f"wrote {PLACE}")


def line(scores) -> str:
    return "Spearman {:.2f}, inside one {:.2f}, two {:.2f}, AUC {:.3f}, RMS {:.1f}".format(*scores)


def learn_law(data: list[Errors], rounds: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and prior of place, each in turn given the other.

    What differs within pictures is learned from all. How large errors are altogether is learned
    from those that are as the scores have them, where there are some.
    """
    sources, error, at = (
        np.concatenate([getattr(d, name) for d in data]) for name in ("sources", "error", "at")
    )
    counts = [len(d.error) for d in data]
    clips = np.repeat(np.arange(len(data)), counts)
    size = np.abs(error) + 0.25
    place = np.zeros((PLACE_SIDE, PLACE_SIDE), np.uint8)
    for _ in range(rounds):
        theta = learn_coefficients(with_place(sources, at, place), error)
        alone = with_place(sources, at, np.zeros_like(place))
        over = size / predicted_deviation(alone, theta)
        # Whose picture is bad everywhere says no more about places than anybody else.
        over /= (np.bincount(clips, over) / np.bincount(clips))[clips]
        place = learn_place(over, at)
    sources = with_place(sources, at, place)
    theta = learn_coefficients(sources, error)
    scored = np.repeat([d.scored for d in data], counts)
    if scored.any():
        over = size[scored] / predicted_deviation(sources[scored], theta)
        theta[0] += np.log(np.sqrt(2) * over.mean())
    return theta, place


def with_place(sources: np.ndarray, at: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Sources (N, K) with another prior of place, looked up at ``at`` (N, 2)."""
    image = cv2.resize(place.astype(np.float32) * PLACE_STEP, (SIZE, SIZE))
    x, y = np.clip((at * SIZE).astype(int), 0, SIZE - 1).T
    out = sources.copy()
    out[:, SOURCES.index("place")] = image[y, x]
    return out


if __name__ == "__main__":
    main()
