"""The landmarker as an instrument: what it gets wrong about a turned head, and if that can help.

    recon3d model import ../shared/data/ict_facekit/ict_facekit_light.npz
    python benchmarks/landmarker.py --photos ../shared/data/synthetic_faces [--clips 30] [--dense 0]

Renders people of both models under many cameras, sizes and lights, fits landmarks with either
model and regresses the error of the poses on the turn that landmarks show. The law of all other
people is then used to correct a clip: a correction is worth having if that lowers the error of
poses, and (--dense, the number of clips) if what is gained is still there after the dense
alignment. Rendered clips lie in --out and are not made again. Fills its section of
docs/RESULTS.md.
"""

from __future__ import annotations

from before import ROOT  # isort: split

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from own_scenes import OwnScene, frames_of, portraits
from results import PAGE, machine, markdown_table, write_section

from recon3d.fitting import DenseSettings, FittingSettings, fit_track
from recon3d.fitting.dense import refine_fit
from recon3d.geometry import head_angles, so3_exp, so3_log
from recon3d.morphable import load_model
from recon3d.scenes.portraits import portrait_texture
from recon3d.scenes.scene import Scene
from recon3d.state import load_state, save_state
from recon3d.tracking import TrackingSettings, track_faces

PERSON = 900
"""First of these people; the scenes of the other benchmarks begin at 100 and 200."""
PHOTO = 800
"""First of the portraits: others than in the other benchmarks."""
MODELS = ("ict-facekit", "recon3d")
SIZES = ((0, 32), (32, 50), (50, 70), (70, 1000))
"""Width of the face in px."""
FACE_MM = 140.0
PHOTOS = "../shared/data/synthetic_faces"
STATE = "clip of benchmarks/landmarker.py"
"""What the files of clips are signed with."""
UNIT = 30.0
"""Degrees that the terms of a law are in."""

LAWS: dict[str, tuple[tuple[str, ...], ...]] = {
    "pitch by pitch": (("p",), (), ()),
    "and yaw by yaw": (("p",), ("y",), ()),
    "pitch by pitch, lean by yaw x pitch": (("p",), (), ("yp",)),
    "second order": (("p", "yy", "pp"), ("y", "yp"), ("y", "yp")),
}
"""Terms of the error about the head's x, y and z axis; a mirrored head errs in mirror image."""


@dataclass(frozen=True)
class Reading:
    """Poses of one clip as landmarks show them, and the true ones.

    Attributes
    ----------
    clip, model : str
        The clip, and the model that it was fitted with.
    shown, true : (N, 3, 3)
    counted : (N,) bool
    face_px : float
    """

    clip: str
    model: str
    shown: np.ndarray
    true: np.ndarray
    counted: np.ndarray
    face_px: float


# ------------------------------------------------------------------------------------- clips
def scenes(count: int) -> list[OwnScene]:
    """Sizes and camera heights in a balanced order, the rest at random."""
    rng = np.random.default_rng(PERSON)
    out = []
    for k in range(count):
        lights = ["medium", "warm", "bright", "cold", "low"]
        light = str(rng.choice(lights, p=[0.3, 0.2, 0.3, 0.15, 0.05]))
        blur = "strong" if rng.random() < 0.15 else "none"
        distance = float(rng.choice([900, 2500, 2500, 6000]))
        scene = Scene(
            person=PERSON + k,
            seed=PERSON + k,
            n_frames=36,
            yaw_span_deg=55,
            pitch_span_deg=float(rng.choice([10, 18])),
            camera_tilt_deg=-22 + 44 * ((k * 0.7549 + 0.1) % 1),
            face_px=float(np.exp(np.log(24) + ((k * 0.618 + 0.31) % 1) * np.log(110 / 24))),
            light=light,
            blur=blur,
            distance_mm=distance,
            crf=float(rng.uniform(20, 30)),
        )
        out.append(OwnScene(f"tr{PERSON + k}", MODELS[k % 2], scene))
    return out


def clips(photos: Path, count: int, models: dict, folder: Path) -> list[dict]:
    """Track and true poses of every scene on which a face is found."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = scenes(count)
    files = [folder / f"{s.name}.npz" for s in wanted]
    if not all(f.exists() for f in files):
        for own, file, (image, points) in zip(
            wanted, files, portraits(photos, PHOTO, count), strict=False
        ):
            if file.exists():
                continue
            model = models[own.model]
            texture = portrait_texture(model, image, points, own.scene.person)
            truth, frames = frames_of(own, model, texture)
            tracks = track_faces(iter(list(frames)), TrackingSettings(correct=False)).tracks
            if tracks:
                row = dict(name=own.name, model=own.model, track=tracks[0], R=truth.R)
                save_state(file, row, STATE)
            print(own.name, own.model, len(tracks), file=sys.stderr, flush=True)
    found = [load_state(f, STATE, models.__getitem__) for f in files]
    return [row for row in found if row is not None]


def reading(clip: dict, name: str, model) -> Reading:
    """Landmark poses after one round: smoothed over time, the shape only begun."""
    fit = fit_track(
        clip["track"],
        model,
        FittingSettings(rounds=1, pitch_shown=1, dense=DenseSettings(enabled=False)),
    )
    true = clip["R"][[v.frame_index for v in clip["track"].views]]
    return Reading(clip["name"], name, fit.R, true, fit.view_weight > 0, width_px(fit))


def middle_of(model) -> np.ndarray:
    return model.mean[np.asarray(model.regions["face"]) > 0.5].mean(0)


def width_px(fit) -> float:
    depth = (fit.R @ middle_of(fit.model) + fit.t)[:, 2]
    return FACE_MM * float(np.median(fit.K[:, 0, 0] / depth))


# --------------------------------------------------------------------------------------- law
def terms(R: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """(N, T) terms of a law at the turns shown."""
    yaw, pitch, _ = head_angles(R).T / UNIT
    known = {"y": yaw, "p": pitch, "yy": yaw**2, "yp": yaw * pitch, "pp": pitch**2}
    return np.stack([known[n] for n in names], 1) if names else np.zeros((len(R), 0))


def learn(readings: list[Reading], law: tuple[tuple[str, ...], ...]) -> list[np.ndarray]:
    """Coefficients about each axis, degrees; what a clip has in every frame is its own affair."""
    out = []
    for axis, names in enumerate(law):
        A, b = 1e-3 * np.eye(len(names)), np.zeros(len(names))
        for r in readings:
            left = np.degrees(so3_log(r.shown.transpose(0, 2, 1) @ r.true))[:, axis]
            use = r.counted & (np.abs(head_angles(r.true)[:, 0]) <= 50)
            if use.sum() < 10:
                continue
            X = terms(r.shown, names)[use]
            X, y = X - X.mean(0), np.clip(left[use] - left[use].mean(), -25, 25)
            A, b = A + X.T @ X / len(y), b + X.T @ y / len(y)
        out.append(np.linalg.solve(A, b) if len(b) else b)
    return out


def corrected(R: np.ndarray, law, coefficients: list[np.ndarray]) -> np.ndarray:
    turn = np.stack([terms(R, n) @ c for n, c in zip(law, coefficients, strict=True)], 1)
    return R @ so3_exp(np.radians(turn))


def pose_error(R: np.ndarray, true: np.ndarray, counted: np.ndarray) -> float:
    """Mean angle at yaws up to 45 degrees, after one constant rotation, as in shape.py."""
    U, _, Vt = np.linalg.svd((R.transpose(0, 2, 1) @ true)[counted].mean(0))
    left = np.linalg.norm(so3_log((R @ (U @ Vt)).transpose(0, 2, 1) @ true), axis=1)
    return float(np.degrees(left[counted & (np.abs(head_angles(true)[:, 0]) <= 45)]).mean())


def others(readings: list[Reading], clip: str) -> list[Reading]:
    return [r for r in readings if r.clip != clip]


# ------------------------------------------------------------------------------------ tables
def size_table(readings: list[Reading]) -> str:
    law, rows = LAWS["second order"], []
    for low, high in SIZES:
        group = [r for r in readings if low < r.face_px <= high]
        if not group:
            continue
        x, y, z = learn(group, law)
        raw = np.mean([pose_error(r.shown, r.true, r.counted) for r in group])
        row = [f"{low} to {high}" if high < 1000 else f"over {low}", str(len(group))]
        row += [f"{v:+.1f}" for v in (x[0], y[0], z[1])]
        rows.append([*row, f"{raw:.2f}"])
    heads = ["face, px", "fits", "pitch by pitch", "yaw by yaw", "lean by yaw x pitch"]
    return markdown_table([*heads, "pose error, deg"], rows)


def law_table(readings: list[Reading]) -> str:
    raw = np.array([pose_error(r.shown, r.true, r.counted) for r in readings])
    rows = [["none", f"{raw.mean():.2f}", ""]]
    for name, law in LAWS.items():
        got = []
        for r in readings:
            found = learn(others(readings, r.clip), law)
            got.append(pose_error(corrected(r.shown, law, found), r.true, r.counted))
        better = np.mean(np.array(got) < raw)
        rows.append([name, f"{np.mean(got):.2f}", f"{100 * better:.0f} %"])
    return markdown_table(["law of the other people", "pose error, deg", "fits improved"], rows)


def dense_table(chosen: list[dict], readings: list[Reading], models: dict) -> str:
    """Poses after dense alignment from landmark poses as they are and as corrected."""
    law, rows = LAWS["second order"], []
    for clip in chosen:
        # looked at with the model that it was not made of
        name = MODELS[1 - MODELS.index(clip["model"])]
        fit = fit_track(
            clip["track"],
            models[name],
            FittingSettings(pitch_shown=1, dense=DenseSettings(enabled=False)),
        )
        R = corrected(fit.R, law, learn(others(readings, clip["name"]), law))
        middle = middle_of(fit.model)
        moved = replace(fit, R=R, t=fit.t + (fit.R - R) @ middle)
        true = clip["R"][[v.frame_index for v in clip["track"].views]]
        row = []
        for start in (fit, moved):
            end = refine_fit(start, clip["track"])
            row += [pose_error(f.R, true, f.view_weight > 0) for f in (start, end)]
        rows.append((f"{clip['name']}, {width_px(fit):.0f} px", *row))
    rows.append(("mean", *np.mean([r[1:] for r in rows], axis=0)))
    heads = ["clip", "landmarks", "after the picture", "corrected", "after the picture"]
    return markdown_table(heads, [[r[0], *(f"{v:.2f}" for v in r[1:])] for r in rows])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True, help="portraits for the skin")
    parser.add_argument("--clips", type=int, default=30, help="how many people")
    parser.add_argument("--dense", type=int, default=0, help="clips that dense alignment goes over")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "landmarker")
    parser.add_argument("--page", type=Path, default=PAGE, help="where the section goes")
    a = parser.parse_args()
    models = {name: load_model(name) for name in MODELS}
    made = clips(a.photos, a.clips, models, a.out)
    readings = [reading(clip, name, models[name]) for clip in made for name in MODELS]
    options = f" --clips {a.clips} --dense {a.dense}"
    text = [
        "## The landmarker as an instrument",
        f"```\npython benchmarks/landmarker.py --photos {PHOTOS}{options}\n```",
        f"Machine: {machine()}. {len(made)} clips of our own, every one another person, camera, "
        "size and light, fitted with either model; poses of landmarks after one round, in degrees, "
        "after one constant rotation a clip.",
        "What is missing from the turn shown, degrees for 30 degrees of it (yaw x pitch: 30 of "
        "both). Negative about pitch: the head looks further up or down than landmarks say.",
        size_table(readings),
        "Corrected by the law learned from all other people:",
        law_table(readings),
    ]
    if a.dense:
        step = max(len(made) // a.dense, 1)
        text += [
            "Before and after dense alignment, poses corrected first (second order) or not:",
            dense_table(made[::step][: a.dense], readings, models),
        ]
    page = "\n\n".join(text)
    print(page)
    write_section("landmarker", page, a.page)


if __name__ == "__main__":
    main()
