"""Run the benchmark of 18 clips with known truth, score it, and write docs/RESULTS.md.

    python benchmarks/benchmark18.py --data ../shared/data/bench --out out/bench

Finished cases are not run again (--fresh does). Beside the pipeline stand what it has to beat: the
model's own mean face for everybody, the best single frame, the average of warped frames.
"""

from __future__ import annotations

from before import ROOT  # isort: split

import argparse
from pathlib import Path

from results import PAGE, machine, markdown_table, write_section

from recon3d.cli.bench import case_runner
from recon3d.evaluation import (
    aggregate,
    format_table,
    frame_average,
    load_descriptor,
    mean_face_rows,
    read_benchmark,
    run_cases,
    run_costs,
    score_results,
    single_frame,
    to_frame,
)
from recon3d.progress import Reporter
from recon3d.settings import load_settings

WANTED = {
    "metric_median": ("<=", 1.55),
    "metric_cover": (">=", 0.90),
    "nonmetric_median": ("<=", 1.30),
    "psnr": (">=", 22.0),
    "id_dist": ("<=", 0.45),
    "nme": ("<=", 5.0),
    "yaw": ("<=", 2.0),
}
"""What is asked of the whole benchmark."""

TABLE = (
    ("metric_median", "metric median mm", 2),
    ("metric_mean", "metric mean mm", 2),
    ("metric_cover", "cov5", 3),
    ("nonmetric_median", "non-metric median mm", 2),
    ("nonmetric_mean", "non-metric mean mm", 2),
    ("psnr", "PSNR dB", 2),
    ("ssim", "SSIM", 3),
    ("id_dist", "identity", 3),
    ("nme", "NME %", 2),
    ("yaw", "yaw deg", 1),
    ("sharpness", "sharpness", 2),
)
BASELINES = {"single": single_frame, "average": frame_average}
TITLES = {
    "single": "best single frame, bicubic; MediaPipe's mesh",
    "average": "average of warped frames; mean of MediaPipe's meshes",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the benchmark folder")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "bench")
    parser.add_argument("--cases", help="only cases whose name contains one of these (commas)")
    parser.add_argument("--config", help="settings, as of recon3d run")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--model")
    parser.add_argument("--fresh", action="store_true", help="run finished cases again")
    parser.add_argument(
        "--page", type=Path, help="where the section goes (docs/RESULTS.md if all cases are run)"
    )
    a = parser.parse_args()

    benchmark = read_benchmark(a.data)
    if a.cases:
        benchmark = benchmark.select(a.cases.split(","))
    settings = load_settings(a.config, a.set, model=a.model)
    reporter = Reporter()

    def keep_baselines(folder: Path, result) -> None:
        if result.reconstructions:
            write_baselines(a.out, folder.name, result.reconstructions[0].track)

    reconstruct, finished = case_runner(settings, a.fresh, keep_baselines)
    with reporter.stage("reconstructing") as move:
        manifests = run_cases(benchmark, a.out, reconstruct, finished=finished, progress=move)
    with reporter.stage("baselines") as move:
        for number, case in enumerate(benchmark.cases):
            if any(not baseline_done(a.out, name, case.name) for name in BASELINES):
                write_baselines(a.out, case.name, track_clip(case.clip, settings))
            move(number + 1, len(benchmark.cases))

    from recon3d.morphable import load_model

    describe = load_descriptor()
    scores = {}
    with reporter.stage("scoring") as move:
        scores["recon3d"] = score_results(benchmark, a.out, describe, progress=move)
        for name in BASELINES:
            folder = a.out / "baselines" / name
            scores[name] = score_results(benchmark, folder, describe, progress=move)
        scores["mean"] = mean_face_rows(benchmark, load_model(settings.model))
    means = {name: aggregate(rows) for name, rows in scores.items()}
    to_frame(scores["recon3d"]).to_csv(a.out / "cases.csv", index=False)

    print("recon3d, means over scored cases")
    print(format_table(means["recon3d"]))
    overall = means["recon3d"]["overall"]
    if overall["mesh_failed"] or overall["image_failed"]:
        print("\nmeans over all cases, failures at their worst value")
        print(format_table(means["recon3d"], "all"))
    for row in scores["recon3d"]:
        if row["notes"]:
            print(f"{row['case']}: {'; '.join(row['notes'])}")
    for name, title in (*TITLES.items(), ("mean", f"mean face of the model {settings.model}")):
        print(f"\n{title}")
        print(format_table(means[name]))
    costs = {name: run_costs(manifest) for name, manifest in manifests.items()}
    print("\n" + describe_costs(costs))
    if a.page or not a.cases:
        target = a.page or PAGE
        write_section("benchmark18", page(a, benchmark, means, costs, manifests), target)
        print(f"wrote {target}")


def baseline_done(out: Path, name: str, case: str) -> bool:
    return (out / "baselines" / name / case / "track_000" / "frontal.png").exists()


def write_baselines(out: Path, case: str, track) -> None:
    if track is not None:
        for name, make in BASELINES.items():
            make(track).write(out / "baselines" / name / case)


def track_clip(clip: Path, settings):
    """The longest track of a clip, or None."""
    from recon3d.media import iterate_frames, open_inputs
    from recon3d.tracking import track_faces

    tracks = track_faces(iterate_frames(open_inputs([str(clip)])), settings.tracking).tracks
    return tracks[0] if tracks else None


def describe_costs(costs: dict[str, dict]) -> str:
    """Seconds and memory in one sentence."""
    known = [c for c in costs.values() if c]
    if not known:
        return "Time and memory were not measured: every case was taken from an earlier run."
    seconds = sorted(c["seconds"] for c in known)
    peak = max(c["peak_mib"] for c in known)
    return (
        f"{len(known)} clips of 50 frames: {sum(seconds) / len(seconds):.1f} s a clip (mean; "
        f"{seconds[0]:.1f} to {seconds[-1]:.1f}), peak memory {peak:.0f} MiB in one process."
    )


def stage_seconds(manifests: dict[str, dict]) -> dict[str, float]:
    """Mean seconds of every stage."""
    total: dict[str, list[float]] = {}
    for manifest in manifests.values():
        own: dict[str, float] = {}
        for stage in manifest.get("stages", []):
            if not stage.get("resumed"):
                own[stage["stage"]] = own.get(stage["stage"], 0.0) + stage["seconds"]
        for name, seconds in own.items():
            total.setdefault(name, []).append(seconds)
    return {name: sum(values) / len(values) for name, values in total.items()}


def figure(values: dict, key: str, digits: int) -> str:
    return f"{values[key]:.{digits}f}" if key in values else "-"


def verdicts(means: dict) -> list[str]:
    """What is wanted, what was got, and whether that is enough: lines of a list."""
    overall = means["recon3d"]["overall"]
    got = overall["scored"]
    lines = [
        f"- failed meshes {overall['mesh_failed']}, failed pictures {overall['image_failed']} "
        "(wanted 0 and 0): "
        + ("reached" if not overall["mesh_failed"] + overall["image_failed"] else "**missed**")
    ]
    for key, heading, digits in TABLE:
        if key in WANTED and key in got:
            sign, bound = WANTED[key]
            reached = got[key] <= bound if sign == "<=" else got[key] >= bound
            sense = "at most" if sign == "<=" else "at least"
            word = "reached" if reached else "**missed**"
            lines.append(f"- {heading} {got[key]:.{digits}f} (wanted {sense} {bound:g}): {word}")
    for key in ("metric_median", "nonmetric_median"):
        mean = means["mean"]["overall"]["scored"].get(key)
        if key in got and mean is not None:
            word = "not worse" if got[key] <= mean + 0.005 else "**worse**"
            name = key.replace("_", " ").replace("nonmetric", "non-metric")
            lines.append(f"- {name} {got[key]:.2f} mm against {mean:.2f} of the mean face: {word}")
    return lines


def page(a, benchmark, means: dict, costs: dict, manifests: dict) -> str:
    """The section of docs/RESULTS.md."""
    headings = ["", "cases", "failed mesh / picture", *(heading for _, heading, _ in TABLE)]
    rows = []
    for name, entry in [
        *means["recon3d"]["by_condition"].items(),
        ("**recon3d, all**", means["recon3d"]["overall"]),
        *((TITLES[name], means[name]["overall"]) for name in BASELINES),
        ("the model's mean face for everybody", means["mean"]["overall"]),
    ]:
        picture = entry["image_failed"] if "psnr" in entry["scored"] else "-"
        cells = [figure(entry["scored"], key, digits) for key, _, digits in TABLE]
        rows.append([name, str(entry["cases"]), f"{entry['mesh_failed']} / {picture}", *cells])
    wanted = [
        (("≤ " if WANTED[key][0] == "<=" else "≥ ") + f"{WANTED[key][1]:g}")
        if key in WANTED
        else ""
        for key, _, _ in TABLE
    ]
    rows.append(["wanted of all", "", "0 / 0", *wanted])
    subjects = [
        [name, *(figure(entry["scored"], key, digits) for key, _, digits in TABLE)]
        for name, entry in means["recon3d"]["by_subject"].items()
    ]
    stages = stage_seconds(manifests)
    given = (("cases", a.cases), ("config", a.config), ("model", a.model))
    options = "".join(f" --{k} {v}" for k, v in given if v)
    options += "".join(f" --set {line}" for line in a.set)
    parts = [
        "## The main job on clips with known truth",
        f"{len(benchmark.cases)} clips (50 frames, 640x480) of {len(subjects)} heads under "
        f"{len(means['recon3d']['by_condition'])} conditions; geometry against the "
        "true mesh, pictures against the true frontal view.",
        f"```\npython benchmarks/benchmark18.py --data ../shared/data/bench{options}\n```",
        f"Machine: {machine()}.",
        markdown_table(headings, rows),
        "\n".join(verdicts(means)),
        "By person (`james` is a real scan, the others are synthetic):",
        markdown_table(["", *(heading for _, heading, _ in TABLE)], subjects),
        describe_costs(costs),
    ]
    if stages:
        listed = ", ".join(f"{name} {seconds:.1f}" for name, seconds in stages.items())
        parts.append(f"Seconds by stage, mean over clips: {listed}.")
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
