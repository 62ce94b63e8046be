"""What restoration inside the tracker is worth: faces found and landmark error over darkness,
blur, noise and size, on scenes with known truth.

    python benchmarks/seeing.py            # all of it, and the section of docs/RESULTS.md
    python benchmarks/seeing.py --only darkness

The same frames are tracked four times: as they came ("nothing"), as `recon3d run` does it by
default ("as run"), with every frame brightened before tracking ("brightened") and with every frame
fully restored before it ("restored": noise, light and colour, blur). The kept pixels are those of
the input in every case; only what the networks look at differs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import before  # noqa: F401 isort: split
import numpy as np
from results import PAGE, machine, markdown_table, write_section

from recon3d.evaluation.benchmark import WORST
from recon3d.evaluation.matrix import observation_metrics
from recon3d.restoration import (
    H264,
    LowLight,
    MotionBlur,
    Recipe,
    RestoreSettings,
    auto_restore,
    degrade_clip,
)
from recon3d.scenes.scene import Scene, SceneTruth, render_scene, scene_truth
from recon3d.tracking import TrackingSettings, track_faces
from recon3d.types import FaceModel, Frame

LEVELS = {
    "darkness": (0.3, 0.1, 0.06, 0.04, 0.02),
    "noise": (6000.0, 600.0, 150.0, 50.0),
    "blur": (0.0, 4.0, 8.0, 12.0),
    "size": (24.0, 32.0, 64.0, 96.0),
}
"""Exposure; electrons of white; motion blur, px on a face of 64 px; face width, px."""

UNITS = {
    "darkness": "exposure {:g}",
    "noise": "{:g} electrons",
    "blur": "smear of {:g} px",
    "size": "face of {:g} px",
}
WANTED = 0.25
"""Least reduction of the landmark error at 4 % exposure."""

ONLY_LIGHT = RestoreSettings(
    deinterlace=False, deblock=False, denoise=False, white_balance=False, deblur=False
)
VARIANTS: dict[str, tuple[RestoreSettings | None, dict]] = {
    "nothing": (None, {"enhance_below": 0.0}),
    "as run": (None, {}),
    "brightened": (ONLY_LIGHT, {"enhance_below": 0.0}),
    "restored": (RestoreSettings(deinterlace=False, deblock=False), {"enhance_below": 0.0}),
}


def recipe(kind: str, level: float) -> Recipe:
    """The camera: one fault at a level, the others as they are in daylight; then H.264."""
    exposure = level if kind == "darkness" else 1.0
    electrons = level if kind == "noise" else 6000.0
    steps: list = []
    if kind == "blur" and level > 0:
        steps.append(MotionBlur(length=level, angle=(-15.0, 15.0)))
    steps.append(LowLight(exposure=exposure, compensation=0.0, full_well=electrons, read_noise=5.0))
    steps.append(H264(crf=26.0))
    return Recipe(name=f"{kind} {level:g}", steps=tuple(steps))


def scene(person: int, kind: str, level: float, n_frames: int) -> Scene:
    """A clean scene: one person turning to both sides, 5 frames a second."""
    return Scene(
        person=person,
        n_frames=n_frames,
        fps=5.0,
        width=480,
        height=360,
        face_px=level if kind == "size" else 64.0,
        yaw_span_deg=30.0,
        clean=True,
        supersample=2,
    )


class Clips:
    """Clean frames of the last scene; degraded ones on demand."""

    def __init__(self, model: FaceModel):
        self._model = model
        self._scene: Scene | None = None
        self._textures: dict[int, np.ndarray] = {}

    def __call__(self, which: Scene, camera: Recipe) -> tuple[SceneTruth, list[np.ndarray]]:
        if which != self._scene:
            if which.person not in self._textures:
                self._textures[which.person] = scene_truth(which, self._model).texture
            texture = self._textures[which.person]
            self._truth, frames = render_scene(which, self._model, person_texture=texture)
            self._frames, self._scene = list(frames), which
        rng = np.random.default_rng([which.person, 21])
        return self._truth, list(degrade_clip(self._frames, camera, rng))


def observe(
    truth: SceneTruth, frames: list[np.ndarray], restore: RestoreSettings | None, options: dict
) -> dict[str, float]:
    """Faces found and landmark error of one way to look at a clip."""

    def looked_at() -> Iterator[Frame]:
        for i, image in enumerate(frames):
            seen = image if restore is None else auto_restore(image, restore)[0]
            yield Frame(seen, i, i / truth.scene.fps)

    start = time.process_time()
    settings = TrackingSettings(min_track_frames=1, **options)
    tracks = track_faces(looked_at(), settings).tracks
    out = observation_metrics([(track, None) for track in tracks], truth)
    out["processor_s"] = (time.process_time() - start) / len(frames)
    return out


def measure(
    kinds: list[str], people: int, n_frames: int, model: FaceModel, say: Callable[[str], None]
) -> list[dict]:
    """A row for each fault, level and way to look: means over people."""
    clips, rows = Clips(model), []
    for kind in kinds:
        found: dict[tuple[float, str], list[dict]] = {}
        for person in range(people):
            for level in LEVELS[kind]:
                which = scene(person, kind, level, n_frames)
                truth, frames = clips(which, recipe(kind, level))
                for name, (restore, options) in VARIANTS.items():
                    one = observe(truth, frames, restore, options)
                    found.setdefault((level, name), []).append(one)
        for (level, name), each in found.items():
            rows.append({"kind": kind, "level": level, "variant": name, **mean(each)})
            say(
                " ".join(
                    f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}"
                    for k, v in rows[-1].items()
                )
            )
    return rows


def mean(each: list[dict]) -> dict[str, float]:
    """Means over clips; `nme_all` counts frames without a face as `WORST` says."""
    detected = np.array([one["detected"] for one in each])
    error = np.array([one.get("landmark_nme", WORST["nme"]) for one in each])
    out = {
        "detected": float(detected.mean()),
        "nme_all": float((detected * error + (1 - detected) * WORST["nme"]).mean()),
        "processor_s": float(np.mean([one["processor_s"] for one in each])),
    }
    if detected.any():
        # Every found frame counts the same.
        out["nme"] = float((detected * error).sum() / detected.sum())
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=list(LEVELS), help="one fault; writes no section")
    parser.add_argument("--people", type=int, default=2)
    parser.add_argument("--frames", type=int, default=8, help="frames a clip")
    parser.add_argument("--page", type=Path, default=PAGE, help="where the section goes")
    a = parser.parse_args()
    from recon3d.morphable import load_model

    kinds = [a.only] if a.only else list(LEVELS)
    rows = measure(
        kinds, a.people, a.frames, load_model("recon3d"), lambda text: print(text, flush=True)
    )
    if "darkness" in kinds:
        print(verdict(rows))
    if not a.only:
        write_section("seeing", page(rows, a.people, a.frames), a.page)
        print(f"wrote {a.page}")


def verdict(rows: list[dict]) -> str:
    """The landmark error at 4 % exposure with and without, against what is wanted."""
    at = {r["variant"]: r for r in rows if r["kind"] == "darkness" and r["level"] == 0.04}
    lines = []
    for key, what in (("nme", "in frames with a face"), ("nme_all", "a missed frame as 30 %")):
        if key not in at["nothing"] or key not in at["as run"]:
            continue
        without, given = at["nothing"][key], at["as run"][key]
        fall = 1 - given / without
        word = "reached" if fall >= WANTED else "**missed**"
        lines.append(
            f"- landmark error at 4 % exposure, {what}: {without:.1f} % without, {given:.1f} % as "
            f"run, {100 * fall:.0f} % lower (wanted at least {100 * WANTED:.0f} %): {word}"
        )
    return "\n".join(lines)


def page(rows: list[dict], people: int, n_frames: int) -> str:
    """The section of docs/RESULTS.md."""
    headings = ["", *(f"{name}: found / error %" for name in VARIANTS)]
    table = []
    for kind, levels in LEVELS.items():
        for level in levels:
            at = {r["variant"]: r for r in rows if r["kind"] == kind and r["level"] == level}
            cells = [
                f"{at[v]['detected']:.2f} / " + (f"{at[v]['nme']:.1f}" if "nme" in at[v] else "-")
                for v in VARIANTS
            ]
            table.append([UNITS[kind].format(level), *cells])
    cost = {v: np.mean([r["processor_s"] for r in rows if r["variant"] == v]) for v in VARIANTS}
    costs = ", ".join(f"{name} {seconds:.2f}" for name, seconds in cost.items())
    return "\n\n".join(
        [
            "## Seeing better: restoration before detection and landmarks",
            f"{people} painted people of {n_frames} frames a level, turning 30 degrees to both "
            "sides, 64 px wide where nothing else is said, in even light at full exposure, H.264 "
            "at crf 26. Found: share of frames with a track on the face. Error: landmarks on "
            "visible skin, percent of the distance of the outer eye corners, in frames where the "
            "face was found. Ways to look as `python benchmarks/seeing.py --help` explains them.",
            "```\npython benchmarks/seeing.py\n```",
            f"Machine: {machine()}.",
            markdown_table(headings, table),
            verdict(rows),
            f"Processor seconds a frame: {costs}.",
        ]
    )


if __name__ == "__main__":
    main()
