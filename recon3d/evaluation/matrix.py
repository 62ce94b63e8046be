"""What a camera costs: scenes over light, face width, blur and turn of the head, each reconstructed
and compared with what is true about it.

A `Plan` says which conditions are made and who is seen in them; `run_matrix` makes each clip, runs
the main job on it, scores the result and the baselines, and leaves a small folder a clip, so that
an interrupted run goes on where it was. `summarise` turns the rows into means a condition.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recon3d.errors import InputError, Recon3DError
from recon3d.evaluation.baselines import frame_average, model_now7, single_frame
from recon3d.evaluation.benchmark import (
    WORST,
    Benchmark,
    Case,
    Subject,
    run_costs,
    score_case,
    scored_track,
)
from recon3d.evaluation.metrics import FaceDescriptor, identity_distances, shape_metrics
from recon3d.files import atomic_write
from recon3d.scenes.scene import (
    SUBJECT_FILES,
    Scene,
    SceneTruth,
    scene_truth,
    subject_key,
    write_clip,
    write_subject,
)
from recon3d.scenes.truth import PictureTruth
from recon3d.types import FaceFit, FaceModel, FaceTrack, Reconstruction

if TYPE_CHECKING:
    import pandas

log = logging.getLogger("recon3d")

FACTORS: dict[str, tuple] = {
    "light": ("low", "medium", "bright", "warm", "cold"),
    "face_px": (24, 32, 48, 64, 96),
    "blur": ("none", "strong"),
    "yaw_span": (10, 30, 60),
}
"""What is varied, and over which values."""

METHODS = {
    "recon3d": "recon3d",
    "single": "best single frame, MediaPipe's mesh",
    "average": "average of warped frames, mean of MediaPipe's meshes",
    "mean": "the model's mean face for everybody",
}

CHANCE = {**WORST, "verification": 0.5}
"""What a failure counts as in means over all clips; of what is not listed there is no value."""

METRICS = (
    ("detected", "faces found, share of frames"),
    ("landmark_nme", "landmarks, % of eye distance"),
    ("pose_deg", "head pose, degrees"),
    ("metric_median", "shape, mm"),
    ("nonmetric_median", "shape without size, mm"),
    ("psnr", "frontal picture, PSNR dB"),
    ("ssim", "frontal picture, SSIM"),
    ("id_dist", "identity distance"),
    ("verification", "told from others, share"),
    ("generated_share", "guessed share of the face"),
    ("seconds", "seconds"),
    ("processor_s", "processor seconds"),
    ("peak_mib", "peak memory, MiB"),
)
"""Columns that are averaged, and what they are."""

_ROWS = "rows.json"
_QUICK_CENTRE = {"light": "medium", "face_px": 64, "blur": "none", "yaw_span": 30}


@dataclass(frozen=True)
class Cell:
    """One combination of conditions."""

    light: str
    face_px: int
    blur: str
    yaw_span: int

    @property
    def name(self) -> str:
        blur = "blurred" if self.blur == "strong" else "sharp"
        return f"{self.light}_{self.face_px:02d}px_{blur}_yaw{self.yaw_span:02d}"


class Plan(BaseModel):
    """Which clips a matrix consists of. Same plan, same model, same machine: same clips."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    quick: bool = Field(False, description="Vary one condition at a time instead of all.")
    people: int = Field(7, ge=1, description="Random people; each result is compared with all.")
    person: int | None = Field(
        None, ge=0, description="Film only this one; empty: another person in every cell."
    )
    clips: int = Field(1, ge=1, description="Clips a cell, of different people and motion.")
    n_frames: int = Field(50, ge=2, description="Frames a clip.")
    fps: float = Field(25.0, gt=0, description="Frames a second.")
    supersample: int = Field(3, ge=1, le=6, description="Sub-pixels along a pixel's side.")

    def cells(self) -> list[Cell]:
        """All combinations; with `quick` those that differ from a middle one in one way."""
        every = [Cell(*values) for values in product(*FACTORS.values())]
        if not self.quick:
            return every
        return [c for c in every if len(_off_centre(c)) <= 1]

    def group(self, factor: str, level) -> list[Cell]:
        """The cells that say what a level of a factor does."""
        return [
            c
            for c in self.cells()
            if getattr(c, factor) == level and (not self.quick or _off_centre(c) <= {factor})
        ]

    def scenes(self) -> dict[str, tuple[Cell, Scene]]:
        """The clips by name."""
        out = {}
        for number, cell in enumerate(self.cells()):
            for clip in range(self.clips):
                # Where the number of people has no divisor in common with those of the levels,
                # counting on puts every person into every level.
                film = number + clip if self.person is None else self.person
                person = film % self.people
                name = cell.name + (f"_{clip}" if self.clips > 1 else "")
                out[name] = (cell, self.scene(cell, person, clip))
        return out

    def scene(self, cell: Cell, person: int, seed: int = 0) -> Scene:
        return Scene(
            person=person,
            seed=seed,
            n_frames=self.n_frames,
            fps=self.fps,
            face_px=cell.face_px,
            yaw_span_deg=cell.yaw_span,
            light=cell.light,
            blur=cell.blur,
            supersample=self.supersample,
        )


QUICK = Plan(quick=True, people=4, person=3, n_frames=16, fps=8.0, supersample=2)
"""Twelve clips of 2 s, at a third of the usual frames, of one person, so that they differ by the
camera alone. Of the first seven people it is the one in the middle by distance from the mean face
(0.63 mm), which is what the baselines have to be seen against."""

QUICK_SETTINGS = (
    "tracking.jitter=2",
    "tracking.detect_every=8",
    "tracking.tiles_per_frame=2",
    "fitting.dense.samples=1000",
    "fitting.dense.displacement_modes=30",
    "texturing.max_views=12",
    "texturing.solve_views=10",
    "texturing.registration_rounds=1",
    "exporting.animation=false",
)
"""Settings of the main job that go with `QUICK`."""


def _off_centre(cell: Cell) -> set[str]:
    return {name for name, value in _QUICK_CENTRE.items() if getattr(cell, name) != value}


# ------------------------------------------------------------------------------------ running
Reconstruct = Callable[[list[str], Path], tuple[dict, Sequence[Reconstruction]]]
"""The main job: inputs and a folder, to the run's manifest and what was reconstructed."""


def run_matrix(
    plan: Plan,
    model: FaceModel,
    out: Path,
    reconstruct: Reconstruct,
    *,
    configuration: dict | None = None,
    describe: FaceDescriptor | None = None,
    fresh: bool = False,
    progress: Callable[[float, float | None], None] | None = None,
) -> list[dict]:
    """Make, reconstruct and score every clip of a plan, leaving out those that are finished.

    One clip is in work at a time, and of each stay the clip, a frame, the pictures and a table:
    memory does not grow with their number.

    Parameters
    ----------
    plan : Plan
    model : FaceModel
        The people are made from it, and it is the mean face of the baseline.
    out : Path
        Gets ``people/`` and ``cells/``.
    reconstruct : callable (inputs, folder) -> (manifest, reconstructions)
    configuration : dict, optional
        JSON-able; versions and settings that the results depend on. A clip that was finished under
        another one is run again.
    describe : FaceDescriptor, optional
        Adds identity and verification.
    fresh : bool
        Run finished clips again.
    progress : callable (done, total), optional

    Returns
    -------
    list of dict
        A row for each clip and method, as `score_case` gives them, with ``light``, ``face_px``,
        ``blur``, ``yaw_span``, ``person``, ``method``; `observation_metrics`; ``verification``
        (see `told_apart`); ``generated_share``, ``seconds``, ``processor_s``, ``peak_mib``.
    """
    out = Path(out)
    stamp = _fingerprint(plan, model, configuration, describe is not None)
    scenes = plan.scenes()
    maker: _People | None = None
    rows: list[dict] = []
    for number, (name, (cell, scene)) in enumerate(scenes.items()):
        folder = out / "cells" / name
        found = None if fresh else finished_rows(folder, stamp(scene))
        if found is None:
            # Nothing is painted or measured for a run that is complete.
            maker = maker or _People(plan, model, out / "people", stamp)
            found = _one_clip(name, cell, scene, model, folder, maker, reconstruct, describe)
            write_text(folder / _ROWS, {"fingerprint": stamp(scene), "rows": found})
        rows += found
        if progress is not None:
            progress(number + 1, len(scenes))
    return rows


def finished_rows(folder: Path, stamp: str | None = None) -> list[dict] | None:
    """The rows of a finished clip, or None where there are none or they are of another run."""
    try:
        stored = json.loads((folder / _ROWS).read_text(encoding="utf-8"))
        return stored["rows"] if stamp in (None, stored["fingerprint"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def stored_rows(plan: Plan, out: Path) -> list[dict]:
    """The rows of all finished clips of a plan, whatever the settings were.

    Raises
    ------
    InputError
        If there are none.
    """
    found = [finished_rows(Path(out) / "cells" / name) for name in plan.scenes()]
    rows = [row for part in found if part is not None for row in part]
    if not rows:
        raise InputError(f"no finished clip of this matrix lies in {out}")
    return rows


class _People:
    """The truth about everybody in a plan, written once and read when it is needed."""

    def __init__(self, plan: Plan, model: FaceModel, folder: Path, stamp: Callable):
        self._model = model
        self._textures: dict[int, np.ndarray] = {}
        self.subjects: dict[int, Subject] = {}
        for person in range(plan.people):
            scene = plan.scene(plan.cells()[0], person)
            place = folder / subject_key(scene)
            mark = place / "fingerprint"
            # Without noise, motion and conditions: the stamp of the person.
            own = stamp(Scene(person=person))
            if not (mark.is_file() and mark.read_text() == own):
                truth = scene_truth(scene, model, self.texture(scene))
                write_subject(truth, place)
                write_text(mark, own)
            shape, picture, mask = (place / name for name in SUBJECT_FILES)
            self.subjects[person] = Subject(subject_key(scene), shape, picture, mask)

    def texture(self, scene: Scene) -> np.ndarray:
        """(T, T, 3) linear albedo; painting one takes longer than drawing a frame with it."""
        if scene.person not in self._textures:
            alone = scene.model_copy(update={"n_frames": 1})
            self._textures[scene.person] = scene_truth(alone, self._model).texture
        return self._textures[scene.person]

    def pictures(self) -> list[PictureTruth]:
        return [subject.picture for subject in self.subjects.values()]


def _one_clip(
    name: str,
    cell: Cell,
    scene: Scene,
    model: FaceModel,
    folder: Path,
    people: _People,
    reconstruct: Reconstruct,
    describe: FaceDescriptor | None,
) -> list[dict]:
    shutil.rmtree(folder, ignore_errors=True)
    truth = write_clip(scene, model, folder, person_texture=people.texture(scene))
    subject = people.subjects[scene.person]
    case = Case(name, subject.id, cell.name, folder / "clip.mp4")
    benchmark = Benchmark("matrix", folder, (case,), {subject.id: subject})
    common = {
        "light": cell.light,
        "face_px": cell.face_px,
        "blur": cell.blur,
        "yaw_span": cell.yaw_span,
        "person": scene.person,
    }
    work = folder / "work"
    # Methods that wrote nothing have a folder without anything in it.
    places = {method: work / method for method in ("recon3d", "single", "average")}
    for place in places.values():
        place.mkdir(parents=True)
    began = time.process_time()
    made: Sequence[Reconstruction] = ()
    try:
        manifest, made = reconstruct([str(case.clip)], places["recon3d"])
        extra = run_costs(manifest)
    except Recon3DError as error:
        log.warning("%s: %s", name, error)
        extra = {}
    extra["processor_s"] = time.process_time() - began
    extra |= observation_metrics([(m.track, m.fit) for m in made], truth)
    main = _on_the_face(made, truth)
    if main is not None:
        extra["generated_share"] = float(main.frontal.generated_share)
        for method, make in (("single", single_frame), ("average", frame_average)):
            make(main.track).write(places[method])
        _keep_pictures(folder, main, scored_track(places["recon3d"]))

    rows = []
    for method, place in places.items():
        row = {"method": method, **common, **score_case(benchmark, case, place, describe)}
        picture = scored_track(place) / "frontal.png"
        if describe is not None and row["image_ok"]:
            row |= told_apart(_read(picture), people.pictures(), scene.person, describe)
        rows.append(row | (extra if method == "recon3d" else {}))
    mean = shape_metrics(model.mean, model.triangles, model_now7(model, model.mean), subject.shape)
    rows.append(
        {
            "method": "mean",
            **common,
            **{key: rows[0][key] for key in ("case", "subject", "condition")},
            "mesh_ok": True,
            "image_ok": False,
            "notes": ["no picture"],
            **mean,
        }
    )
    shutil.rmtree(work)
    return rows


def _keep_pictures(folder: Path, made: Reconstruction, track: Path) -> None:
    """What the page shows: the face in its straightest frame, and the frontal view."""
    from recon3d.evaluation.baselines import best_frame
    from recon3d.media.pictures import write_png

    view = best_frame(made.track)
    write_png(folder / "frame.png", view.patch.image)
    if (track / "frontal.png").is_file():
        shutil.copyfile(track / "frontal.png", folder / "frontal.png")


def _read(path: Path) -> np.ndarray:
    import cv2

    return np.ascontiguousarray(cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1])


# ------------------------------------------------------------------------------------ metrics
def observation_metrics(
    found: Sequence[tuple[FaceTrack, FaceFit | None]], truth: SceneTruth
) -> dict[str, float]:
    """How much of a scene's face was found, where its landmarks are, and how its head is turned.

    Parameters
    ----------
    found : sequence of (FaceTrack, FaceFit or None)
        Everything that tracking took for a face, with its fit if there is one.
    truth : SceneTruth

    Returns
    -------
    dict
        ``detected``: share of the frames with a track that lies on the true face.
        ``false_tracks``: tracks that do not.
        ``landmark_nme``: mean distance of the landmarks on visible skin from the true ones, percent
        of the distance between the outer eye corners of the head seen from the front; over views.
        ``pose_deg``: mean angle between the fitted rotation and the true one, over views in use.
    """
    frames: set[int] = set()
    false_tracks = 0
    nme: list[float] = []
    pose: list[float] = []
    for track, fit in found:
        errors = [_landmark_errors(view, truth) for view in track.views]
        if np.median([away for _, away in errors]) > 0.5:
            false_tracks += 1
            continue
        frames |= {int(i) for i in track.frame_index}
        nme += [error for error, _ in errors]
        if fit is None:
            continue
        for i, view in enumerate(track.views):
            if fit.view_weight[i] > 0:
                turn = fit.R[i] @ truth.R[view.frame_index].T
                cosine = np.clip((np.trace(turn) - 1) / 2, -1, 1)
                pose.append(float(np.degrees(np.arccos(cosine))))
    out = {
        "detected": len(frames) / truth.scene.n_frames,
        "false_tracks": float(false_tracks),
    }
    if nme:
        out["landmark_nme"] = 100 * float(np.mean(nme))
    if pose:
        out["pose_deg"] = float(np.mean(pose))
    return out


def _landmark_errors(view, truth: SceneTruth) -> tuple[float, float]:
    """Mean landmark error on visible skin over the eye distance, and how far the whole face lies
    from the true one in face widths."""
    from recon3d.geometry import vertex_normals

    frame = view.frame_index
    R, t = truth.R[frame], truth.t[frame]
    points = truth.landmarks(frame) @ R.T + t
    pixels = points @ truth.K.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    model = truth.model
    normals = vertex_normals(truth.posed(frame), model.triangles)
    triangle = np.maximum(model.landmarks.triangle, 0)
    facing = normals[model.triangles[triangle]].mean(1) @ R.T
    toward = (facing * points).sum(1) / np.linalg.norm(points, axis=1)
    used = (toward < -0.2) & (model.landmarks.triangle >= 0)
    # Irises move with the gaze, of which a scene knows nothing.
    used[468:] = False
    neutral = truth.landmarks()
    eyes = np.linalg.norm(neutral[33] - neutral[263]) * truth.K[0, 0] / truth.scene.distance_mm
    error = float(np.linalg.norm(view.landmarks - pixels, axis=1)[used].mean() / eyes)
    away = np.linalg.norm(view.landmarks[:468].mean(0) - pixels[:468].mean(0))
    return error, float(away / np.ptp(pixels[:468, 0]))


def _on_the_face(made: Sequence[Reconstruction], truth: SceneTruth) -> Reconstruction | None:
    """The reconstruction of the scene's person with most frames."""
    right = [
        m
        for m in made
        if observation_metrics([(m.track, None)], truth)["false_tracks"] == 0
        and any(view.patch is not None for view in m.track.views)
    ]
    return max(right, key=lambda m: m.track.n_frames, default=None)


def told_apart(
    image: np.ndarray, people: Sequence[PictureTruth], person: int, describe: FaceDescriptor
) -> dict[str, float]:
    """Whether a frontal picture is nearer to its own person than to others.

    Parameters
    ----------
    image : (H, W, 3) uint8 sRGB
    people : sequence of PictureTruth
    person : int
        Which of them it is.
    describe : FaceDescriptor

    Returns
    -------
    dict
        ``verification``: share of the others that are further away than the right one (1 is
        perfect, 0.5 is chance); ``nearest_other``: distance to the most similar other. Nothing
        where there are no others, or no face is found.
    """
    if len(people) < 2:
        return {}
    distances = identity_distances(image, people, describe)
    if distances is None:
        return {}
    others = np.delete(distances, person)
    return {
        "verification": float(np.mean(others > distances[person])),
        "nearest_other": float(others.min()),
    }


# ------------------------------------------------------------------------------------- tables
def to_table(rows: Sequence[dict]) -> pandas.DataFrame:
    """The rows as a table, one line a clip and method."""
    import pandas

    return pandas.DataFrame([{**row, "notes": "; ".join(row["notes"])} for row in rows])


def summarise(plan: Plan, rows: Sequence[dict]) -> pandas.DataFrame:
    """Means a condition and method, over what could be scored.

    Parameters
    ----------
    plan : Plan
    rows : sequence of dict from `run_matrix`; need not be complete

    Returns
    -------
    DataFrame
        ``factor``, ``level`` ("all" over everything), ``method``, ``clips``, ``mesh_failed``,
        ``image_failed``, and the columns of `METRICS`; those of ``all_*`` count failures as
        `CHANCE` says.
    """
    import pandas

    groups: list[tuple[str, object, set[str]]] = [("all", "all", {c.name for c in plan.cells()})]
    for factor, levels in FACTORS.items():
        for level in levels:
            groups.append((factor, level, {c.name for c in plan.group(factor, level)}))
    out = []
    for factor, level, names in groups:
        for method in METHODS:
            chosen = [r for r in rows if r["method"] == method and r["condition"] in names]
            if chosen:
                out.append(
                    {"factor": factor, "level": str(level), "method": method, **_mean(chosen)}
                )
    return pandas.DataFrame(out)


def _mean(rows: list[dict]) -> dict[str, float]:
    out: dict[str, float] = {
        "clips": len(rows),
        "mesh_failed": sum(not row["mesh_ok"] for row in rows),
        "image_failed": sum(not row["image_ok"] for row in rows),
    }
    for key, _ in METRICS:
        values = [row[key] for row in rows if key in row]
        if values:
            out[key] = float(np.mean(values))
            if key in CHANCE:
                out[f"all_{key}"] = float(np.mean([row.get(key, CHANCE[key]) for row in rows]))
    return out


def write_tables(plan: Plan, rows: Sequence[dict], out: Path) -> list[Path]:
    """Write clips and conditions as CSV and Parquet.

    Returns
    -------
    list of Path
        clips.csv, clips.parquet, conditions.csv, conditions.parquet
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, table in (("clips", to_table(rows)), ("conditions", summarise(plan, rows))):
        csv, parquet = out / f"{name}.csv", out / f"{name}.parquet"
        _replace(csv, lambda path, table=table: table.to_csv(path, index=False))
        _replace(parquet, lambda path, table=table: table.to_parquet(path, index=False))
        paths += [csv, parquet]
    return paths


def format_conditions(summary: pandas.DataFrame, which: str | None = None) -> str:
    """The conditions as text, one line each; by default those of recon3d and all baselines."""
    heads = ("found", "NME%", "pose", "met.mm", "nm.mm", "PSNR", "SSIM", "ID", "verif", "guess")
    digits = (2, 1, 1, 2, 2, 2, 3, 3, 2, 2)
    keys = [key for key, _ in METRICS[: len(heads)]]
    heading = f"{'condition':<18}{'clips':>6}{'failM':>6}{'failI':>6}"
    lines = [heading + "".join(f"{head:>8}" for head in heads) + f"{'s':>8}{'MiB':>7}"]
    for row in summary.to_dict("records"):
        if row["method"] != "recon3d" and row["factor"] != "all":
            continue
        if which is not None and row["factor"] != which:
            continue
        label = f"{row['factor']} {row['level']}"
        if row["factor"] == "all":
            label = row["method"] if row["method"] != "recon3d" else "recon3d, all"
        cells = "".join(_cell(row.get(k), d, 8) for k, d in zip(keys, digits, strict=True))
        cells += _cell(row.get("seconds"), 1, 8) + _cell(row.get("peak_mib"), 0, 7)
        counts = (int(row["clips"]), int(row["mesh_failed"]), int(row["image_failed"]))
        lines.append(f"{label:<18}" + "".join(f"{n:>6}" for n in counts) + cells)
    return "\n".join(lines)


def _cell(value: float | None, digits: int, width: int) -> str:
    missing = value is None or not np.isfinite(value)
    return f"{'-':>{width}}" if missing else f"{value:>{width}.{digits}f}"


# -------------------------------------------------------------------------------------- files
def _fingerprint(
    plan: Plan, model: FaceModel, configuration: dict | None, identity: bool
) -> Callable[[Scene], str]:
    """A hash of everything that the rows of a scene depend on."""
    digest = hashlib.sha256()
    for array in (model.mean, model.identity, model.expression, model.albedo_mean):
        if array is not None:
            digest.update(np.ascontiguousarray(array).tobytes())
    common = {
        "model": digest.hexdigest(),
        "configuration": configuration,
        # Every result is compared with everybody.
        "people": plan.people,
        "identity": identity,
    }

    def stamp(scene: Scene) -> str:
        parts = common | {"scene": scene.model_dump(mode="json")}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    return stamp


def write_text(path: Path, value: dict | str) -> None:
    text = value if isinstance(value, str) else json.dumps(value, indent=1)
    atomic_write(path, text)


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Have a file written under another name beside its place, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    try:
        write(Path(name))
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
