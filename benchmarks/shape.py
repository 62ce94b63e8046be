"""Shape and pose by stage, against each model's mean face, with and without true cameras.

    recon3d model import ../shared/data/ict_facekit/ict_facekit_light.npz
    python benchmarks/shape.py --data ../shared/data/bench [--models recon3d,ict-facekit]
        [--photos ../shared/data/synthetic_faces] [--cases TEXT,...] [--parts clips,cameras,...]

Parts: ``clips`` (every clip with every model), ``cameras`` (true cameras and expressions handed
in), ``curve`` (1 to all frames), ``own`` (clips that are not the benchmark's; needs --photos).
What is finished lies in --out and is not done again; --fresh does it again, as is needed after a
change of code. A run of all clips fills its section of docs/RESULTS.md.
"""

from __future__ import annotations

from before import ROOT  # isort: split

import argparse
import functools
import json
import resource
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from models import track_of
from own_scenes import OwnScene, frames_of, own_scenes, portraits
from results import PAGE, machine, markdown_table, write_section
from truth import NOW7, ClipTruth, clip_truth, expressions_of, true_fit, true_shape

from recon3d import pipeline
from recon3d.evaluation import read_benchmark
from recon3d.evaluation.metrics import shape_metrics
from recon3d.evaluation.surfaces import Surface
from recon3d.fitting import DenseSettings, FittingSettings, fit_track
from recon3d.fitting.dense import align_shape, refine_fit
from recon3d.fitting.visibility import surface_points
from recon3d.geometry import project, so3_log, umeyama
from recon3d.morphable import load_model
from recon3d.refinement import load_refiner
from recon3d.scenes.portraits import portrait_texture
from recon3d.settings import load_settings
from recon3d.texturing import fuse_texture

FRAMES = (1, 2, 4, 8, 16, 50)
CURVE_CASES = ("ict002_clean110", "ict002_warm40", "james_bright64")
HELD = (
    {"motion": False}
    | dict.fromkeys(
        ("rotation_bias", "rotation_law", "rotation_own", "shift_bias", "shift_law", "shift_own"),
        0.01,
    )
    | dict.fromkeys(("distance_bias", "distance_law", "distance_own"), 1e-5)
)
"""Landmark errors of a fit whose cameras are the true ones: next to none."""
MADE: list[str] = []
"""Rows that this call did not find finished."""
OWN_PERSON = 200
"""First of the people of the scenes reported; settings were chosen on those from 100."""


# --------------------------------------------------------------------------------- measures
def distances(model, vertices, shape) -> tuple[float, float]:
    """Median distance with the size fitted, and as it is, mm."""
    now7 = surface_points(vertices, model.triangles, model.landmarks)[list(NOW7)]
    found = shape_metrics(vertices, model.triangles, now7, shape)
    return found["nonmetric_median"], found["metric_median"]


def pose_error(fit, track, truth, *, alike: bool = False) -> float:
    """Mean angle to the true poses at yaws up to 45 degrees, after one constant rotation: that of
    all views, or (`alike`) of those that are judged."""
    rows = [v.frame_index for v in track.views]
    R = truth.R[rows]
    counted = fit.view_weight > 0
    if alike:
        counted &= np.abs(truth.yaw[rows]) <= 45
    U, _, Vt = np.linalg.svd((fit.R.transpose(0, 2, 1) @ R)[counted].mean(0))
    left = (fit.R @ (U @ Vt)).transpose(0, 2, 1) @ R
    angle = np.degrees(np.linalg.norm(so3_log(left), axis=1))
    return float(angle[np.abs(truth.yaw[rows]) <= 45].mean())


def projection_error(fit, track, truth, head, shape, *, placed: bool = False) -> float:
    """Mean distance of projected surface points from the true ones, share of the face's width; or
    (`placed`) what would be left of it if in every frame the mesh were shifted, scaled and rolled
    to where its points are nearest to theirs."""
    rows = np.array([v.frame_index for v in track.views])
    skin = np.flatnonzero(head.known & (np.asarray(fit.model.regions["face"]) > 0.5))[::7]
    used = (np.abs(truth.yaw[rows]) <= 45) & (fit.view_weight > 0)
    neutral = fit.model.vertices(head.identity) + head.displacement
    moved = np.tensordot(expressions_of(truth, fit.model)[rows], fit.model.expression[:, skin], 1)
    at_truth = (neutral[skin] + moved) @ head.R.T + head.t
    K = np.repeat(truth.K[None], len(rows), 0)
    wanted = project(at_truth, K, truth.R[rows], truth.t[rows])
    mine = (fit.model.vertices(fit.identity, fit.expression) + fit.displacement)[:, skin]
    found = project(mine, fit.K, fit.R, fit.t)
    width = np.ptp(shape.points[:, 0]) * truth.K[0, 0] / truth.t[rows, 2]
    gap = found - wanted
    if placed:
        a, b = (np.ascontiguousarray(x - x.mean(1, keepdims=True)) for x in (found, wanted))
        a, b = (x.view(np.complex128)[..., 0] for x in (a, b))
        factor = (a.conj() * b).sum(1) / (a.conj() * a).sum(1)
        gap = (factor[:, None] * a - b)[..., None].view(np.float64)
    return float((np.linalg.norm(gap, axis=-1) / width[:, None])[used].mean())


def error_and_sigma(fit, head, shape) -> tuple[np.ndarray, np.ndarray]:
    """Distance of skin vertices to the true surface, and what was predicted of it, mm."""
    model = fit.model
    skin = np.flatnonzero(head.known & (np.asarray(model.regions["face"]) > 0.5))
    true = (model.vertices(head.identity) + head.displacement) @ head.R.T + head.t
    s, R, t = umeyama(fit.neutral[skin], true[skin])
    skin = skin[:: max(len(skin) // 800, 1)]
    _, distance = Surface(shape.vertices, shape.triangles).closest(s * fit.neutral[skin] @ R.T + t)
    return distance, fit.uncertainty[skin]


def best_rank_correlation(sigma) -> float:
    """Of deviations that are all right: with errors drawn from them, mean of 20 draws."""
    rng = np.random.default_rng(0)
    drawn = np.abs(rng.normal(size=(20, len(sigma)))) * np.asarray(sigma)
    return float(np.mean([rank_correlation(error, sigma) for error in drawn]))


def rank_correlation(a, b) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)


# ------------------------------------------------------------------------------------ parts
@functools.cache
def main_job():
    """Settings of the main job, and the refiner that its mesh is settled through."""
    return load_settings(), load_refiner()


def settled_fit(fit, track):
    """The fit as the main job ends with it: poses moved to where the face is seen."""
    settings, refiner = main_job()
    texture = fuse_texture(track, fit, settings.texturing)
    settled, _ = pipeline.portray(track, fit, texture, settings, refiner)
    return settled[0] if settled else fit


def measure(track, truth, shape, model) -> dict:
    """All that is said of one clip and one model."""
    landmarks = FittingSettings(dense=DenseSettings(enabled=False))
    first = fit_track(track, model, landmarks)
    began = time.process_time()
    fit = refine_fit(first, track, DenseSettings())
    seconds = time.process_time() - began + first.info["seconds"]
    head = true_shape(shape, model)
    error, sigma = error_and_sigma(fit, head, shape)
    ending = settled_fit(fit, track)
    return {
        "mean": distances(model, model.mean, shape),
        "landmarks": distances(model, first.neutral, shape),
        "shape": distances(model, fit.neutral, shape),
        "pose_landmarks": pose_error(first, track, truth),
        "pose": pose_error(fit, track, truth),
        "pose_alike": pose_error(fit, track, truth, alike=True),
        "projection": projection_error(fit, track, truth, head, shape),
        "settled": projection_error(ending, track, truth, head, shape),
        "placed": projection_error(ending, track, truth, head, shape, placed=True),
        "kept": [fit.info["dense"]["pose"], fit.info["dense"]["shape"]],
        "seconds": seconds,
        "spearman": rank_correlation(error, sigma),
        "error": [round(float(x), 3) for x in error],
        "sigma": [round(float(x), 3) for x in sigma],
    }


def with_true_cameras(case, subject, track, model) -> dict:
    start = true_fit(case, subject, track, model, shape="mean")
    fit = align_shape(start, track, DenseSettings(**HELD))
    return {"shape": distances(model, fit.neutral, subject.shape)}


def by_frames(track, shape, model) -> dict:
    out = {}
    for count in FRAMES:
        rows = np.unique(np.linspace(0, len(track.views) - 1, count + 2).round().astype(int)[1:-1])
        views = tuple(track.views[k] for k in rows)
        fit = fit_track(replace(track, views=views), model)
        out[str(count)] = distances(model, fit.neutral, shape)[0]
    return out


def own_clips(a, models: dict) -> dict:
    """Results of the clips that are not the benchmark's, by name and model of the fit."""
    rows: dict = {}
    scenes = own_scenes(OWN_PERSON)[:: a.own_step]
    photos: list = []
    for number, own in enumerate(scenes):
        keys = {name: f"own_{own.name}_{name}" for name in models}
        found = None
        if a.fresh or not all(kept_path(a, key).exists() for key in keys.values()):
            photos = photos or list(portraits(a.photos, 3 * OWN_PERSON, len(scenes)))
            found = own_clip(own, models[own.model], photos[number])
            if found is None:
                continue
        for name, key in keys.items():
            rows[own.name, name] = kept(
                a, key, lambda found=found, name=name: measure(*found, models[name])
            )
    return rows


def own_clip(own: OwnScene, model, photo) -> tuple | None:
    """Track, truth by frame and true shape of a clip; None where no face is found."""
    from recon3d.tracking import track_faces

    texture = portrait_texture(model, *photo, own.scene.person)
    scene, frames = frames_of(own, model, texture)
    tracks = track_faces(frames).tracks
    if not tracks:
        return None
    truth = ClipTruth(
        K=scene.K,
        R=scene.R,
        t=scene.t,
        yaw=scene.angles[:, 0],
        expression=scene.expression,
        expression_names=model.expression_names,
    )
    return tracks[0], truth, scene.shape_truth()


def kept_path(a, key: str) -> Path:
    return a.out / "rows" / f"{key}.json"


def kept(a, key: str, make) -> dict:
    """A finished row, or a new one."""
    path = kept_path(a, key)
    if path.exists() and not a.fresh:
        return json.loads(path.read_text())
    found = make()
    MADE.append(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))
    short = {k: v for k, v in found.items() if k not in ("error", "sigma")}
    print(key, json.dumps(short, default=float), flush=True)
    return found


# ----------------------------------------------------------------------------------- telling
def average(rows, get) -> float:
    values = [get(r) for r in rows]
    return float(np.mean(values)) if values else float("nan")


def stage_tables(names, clips: dict, cases) -> list[str]:
    conditions = sorted({c.condition for c in cases})
    people = sorted({c.subject for c in cases})
    stages = (("mean", "mean face"), ("landmarks", "landmarks"), ("shape", "+ pose + shape"))
    table = []
    for name in names:
        for key, label in stages:
            groups = [
                *([c for c in cases if c.condition == x] for x in conditions),
                *([c for c in cases if c.subject == x] for x in people),
            ]
            cells = [
                average([clips[c.name, name] for c in g], lambda r, key=key: r[key][0])
                for g in groups
            ]
            every = [clips[c.name, name] for c in cases]
            both = [average(every, lambda r, key=key, k=k: r[key][k]) for k in (0, 1)]
            table.append([f"{name}, {label}", *(f"{x:.2f}" for x in [*both, *cells])])
    first = markdown_table(["mm", "all", "all, metric", *conditions, *people], table)
    other = []
    for name in names:
        every = [clips[c.name, name] for c in cases]
        other.append(
            [
                name,
                *(
                    f"{average(every, lambda r, k=k: r[k]):.2f}"
                    for k in ("pose_landmarks", "pose", "pose_alike")
                ),
                f"{100 * average(every, lambda r: r['projection']):.2f}",
                *(
                    f"{100 * average(every, lambda r, k=k: r[k]):.2f}"
                    for k in ("settled", "placed")
                ),
                f"{average(every, lambda r: r['spearman']):.2f}",
                f"{average(every, lambda r: best_rank_correlation(r['sigma'])):.2f}",
                f"{pooled(every):.2f}",
                f"{sum(r['kept'][0] for r in every)} / {sum(r['kept'][1] for r in every)}",
                f"{max(r['seconds'] for r in every):.1f}",
            ]
        )
    heads = [
        "",
        "pose after landmarks, deg",
        "after the picture",
        "constant of the views judged",
        "projection, % of width",
        "settled",
        "settled, each frame then placed at best",
        "Spearman in a clip",
        "were errors drawn from sigma",
        "Spearman over all clips",
        "poses / shapes kept",
        "slowest fit, s",
    ]
    return [first, markdown_table(heads, other)]


def pooled(rows) -> float:
    return rank_correlation(*(np.concatenate([r[k] for r in rows]) for k in ("error", "sigma")))


def verdict_lines(names, clips: dict, cases) -> list[str]:
    def line(text: str, reached: bool) -> str:
        return f"- {text}: " + ("reached" if reached else "**missed**")

    out = []
    for name in names:
        rows = {c.name: clips[c.name, name] for c in cases}
        got = average(rows.values(), lambda r: r["shape"][0])
        bound = 0.9 if name == "ict-facekit" else 1.05
        out.append(line(f"{name}, non-metric {got:.2f} mm (wanted {bound})", got <= bound))
        if name == "ict-facekit":
            even = [r for n, r in rows.items() if n.endswith("clean110") or n.endswith("bright64")]
            got = average(even, lambda r: r["shape"][0])
            out.append(line(f"{name}, clean110 and bright64 {got:.2f} (wanted 0.80)", got <= 0.8))
            got = average(rows.values(), lambda r: r["shape"][1])
            out.append(line(f"{name}, metric {got:.2f} (wanted 0.95)", got <= 0.95))
        scan = [r for n, r in rows.items() if n.startswith("james")]
        if scan:
            got, mean = (average(scan, lambda r, k=k: r[k][0]) for k in ("shape", "mean"))
            text = (
                f"{name}, the real scan {got:.2f} (wanted no more than its mean face's {mean:.2f})"
            )
            out.append(line(text, round(got, 2) <= round(mean, 2)))
        losing = {n: r["shape"][0] - r["mean"][0] for n, r in rows.items()}
        losing = {n: d for n, d in losing.items() if d > 0.1}
        said = ", ".join(f"{n} by {d:.2f}" for n, d in losing.items()) or "none"
        out.append(line(f"{name}, worse than the mean face by more than 0.1: {said}", not losing))
        got, alike = (average(rows.values(), lambda r, k=k: r[k]) for k in ("pose", "pose_alike"))
        text = f"{name}, poses {got:.2f} degrees (wanted 2.0; {alike:.2f} with the constant "
        out.append(line(text + "rotation of the views up to 45 degrees)", got <= 2.0))
        before, got = (
            100 * average(rows.values(), lambda r, k=k: r[k]) for k in ("projection", "settled")
        )
        text = f"{name}, projection as the main job ends {got:.2f} % of width (wanted 1.5; "
        out.append(line(text + f"{before:.2f} as fitted)", got <= 1.5))
        got = pooled(list(rows.values()))
        out.append(line(f"{name}, Spearman over all clips {got:.2f} (wanted 0.4)", got >= 0.4))
        got = average(rows.values(), lambda r: r["spearman"])
        out.append(line(f"{name}, Spearman in a clip {got:.2f} (wanted 0.4)", got >= 0.4))
        got = max(r["seconds"] for r in rows.values())
        out.append(line(f"{name}, slowest fit {got:.1f} s (wanted 30)", got <= 30))
    return out


def camera_lines(rows: dict, clips: dict, cases, name: str) -> tuple[str, list[str]]:
    conditions = sorted({c.condition for c in cases})
    bounds = {"clean110": 0.55, "bright64": 0.7, "blur56": 0.7}
    table, lines = [[], []], []
    for condition in conditions:
        group = [c for c in cases if c.condition == condition]
        got = average([rows[c.name] for c in group], lambda r: r["shape"][0])
        mean = average([clips[c.name, name] for c in group], lambda r: r["mean"][0])
        bound = bounds.get(condition, round(mean, 2))
        table[0].append(f"{mean:.2f}")
        table[1].append(f"{got:.2f}")
        ok = round(got, 2) <= bound
        lines.append(
            f"- true cameras, {condition} {got:.2f} mm (wanted {bound:.2f}): "
            + ("reached" if ok else "**missed**")
        )
    head = [f"{name}, true cameras", *conditions]
    body = [["mean face", *table[0]], ["dense alignment alone", *table[1]]]
    return markdown_table(head, body), lines


def own_table(rows: dict, names) -> str:
    scenes = sorted({n for n, _ in rows})
    heads = ["own clip (truth's model)"]
    heads += [f"{n}: {x}" for n in names for x in ("mean face", "landmarks", "fit", "pose, deg")]
    body = []
    for scene in scenes:
        cells = []
        for name in names:
            r = rows[scene, name]
            cells += [*(f"{r[k][0]:.2f}" for k in ("mean", "landmarks", "shape"))]
            cells += [f"{r['pose']:.2f}"]
        body.append([scene, *cells])
    means = ["mean"]
    for name in names:
        group = [rows[s, name] for s in scenes]
        means += [f"{average(group, lambda r, k=k: r[k][0]):.2f}" for k in ("mean", "landmarks")]
        means += [f"{average(group, lambda r: r['shape'][0]):.2f}"]
        means += [f"{average(group, lambda r: r['pose']):.2f}"]
    return markdown_table(heads, [*body, means])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the benchmark folder")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "shape")
    parser.add_argument("--models", default="recon3d,ict-facekit", help="names or paths (commas)")
    parser.add_argument("--cases", help="only cases whose name contains one of these (commas)")
    parser.add_argument("--parts", default="clips,cameras,curve,own")
    parser.add_argument("--photos", type=Path, help="portraits to project on own scenes")
    parser.add_argument("--own-step", type=int, default=1, help="of own scenes, every so many-th")
    parser.add_argument("--fresh", action="store_true", help="do what is finished again")
    parser.add_argument("--page", type=Path, help="where the section goes")
    a = parser.parse_args()
    benchmark = read_benchmark(a.data)
    if a.cases:
        benchmark = benchmark.select(a.cases.split(","))
    settings, parts = load_settings(None, []), a.parts.split(",")
    models = {name: load_model(name) for name in a.models.split(",")}
    names, cases = list(models), list(benchmark.cases)
    last = names[-1]
    tracks = {}

    def track(case):
        if case.name not in tracks:
            tracks.clear()
            tracks[case.name] = track_of(a.out, case, settings)
        return tracks[case.name]

    options = f" --parts {a.parts}"
    if "own" in parts:
        options += f" --photos ../shared/data/synthetic_faces --own-step {a.own_step}"
    text = [
        "## Shape and pose from many views",
        f"Median surface distance in mm, size fitted unless it says metric, of {len(cases)} clips; "
        "each model's mean face stands beside. Where the picture's shape is refused, the line "
        "`+ pose + shape` holds the landmarks' shape with the picture's poses. Settled: after the "
        "main job has looked at the portrait, which moves the mesh and nothing else.",
        f"```\npython benchmarks/shape.py --data ../shared/data/bench{options}\n```",
        f"Machine: {machine()}; seconds are of the processor, one thread, beside other work.",
    ]
    lines: list[str] = []
    clips: dict = {}
    if "clips" in parts:
        for name in reversed(names):
            for case in cases:
                shape = benchmark.subjects[case.subject].shape
                clips[case.name, name] = kept(
                    a,
                    f"{case.name}_{name}",
                    lambda c=case, s=shape, n=name: measure(track(c), clip_truth(c), s, models[n]),
                )
        text += stage_tables(names, clips, cases)
        lines += verdict_lines(names, clips, cases)
    if "cameras" in parts and clips:
        rows = {
            c.name: kept(
                a,
                f"cameras_{c.name}_{last}",
                lambda c=c: with_true_cameras(
                    c, benchmark.subjects[c.subject], track(c), models[last]
                ),
            )
            for c in cases
        }
        table, said = camera_lines(rows, clips, cases, last)
        text.append(table)
        lines += said
    if "curve" in parts:
        chosen = [c for c in cases if any(x in c.name for x in CURVE_CASES)]
        rows = [
            kept(
                a,
                f"curve_{c.name}_{last}",
                lambda c=c: by_frames(track(c), benchmark.subjects[c.subject].shape, models[last]),
            )
            for c in chosen
        ]
        if rows:
            curve = [average(rows, lambda r, n=n: r[str(n)]) for n in FRAMES]
            text.append(
                markdown_table(
                    [f"{last}, frames", *map(str, FRAMES)],
                    [
                        *(
                            [c.name, *(f"{r[str(n)]:.2f}" for n in FRAMES)]
                            for c, r in zip(chosen, rows, strict=True)
                        ),
                        ["mean", *(f"{x:.2f}" for x in curve)],
                    ],
                )
            )
            falls = all(y <= x + 0.02 for x, y in pairwise(curve))
            lines.append(
                "- the mean over these clips falls or is flat (0.02 mm) with frames: "
                + ("reached" if falls else "**missed**")
            )
    if "own" in parts and a.photos:
        rows = own_clips(a, models)
        text.append(own_table(rows, names))
        for name in names:
            group = [r for (_, n), r in rows.items() if n == name]
            got, mean = (average(group, lambda r, k=k: r[k][0]) for k in ("shape", "mean"))
            lines.append(
                f"- own clips, {name} {got:.2f} mm against its mean face's {mean:.2f}: "
                + ("reached" if got < mean else "**missed**")
            )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    text.append("\n".join(lines))
    if "own" not in parts:
        text.append(
            "Clips that are not the benchmark's (`--parts own`) were not measured this time."
        )
    if MADE:
        # of kept rows alone it would say nothing
        text.append(f"Peak memory of the process, tracking and scoring included: {peak:.0f} MiB.")
    page = "\n\n".join(text)
    print(page)
    if a.page or not a.cases:
        write_section("shape", page, a.page or PAGE)


if __name__ == "__main__":
    main()
