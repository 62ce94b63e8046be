"""What to expect from which camera: `recon3d bench` over made conditions, and its section of
docs/RESULTS.md.

    python benchmarks/conditions.py --quick     # twelve clips, under four minutes on two cores
    python benchmarks/conditions.py             # all 150, hours; a second call goes on

Tables, figures and the page expect.html lie in --out, exactly as `recon3d bench` leaves them.
Finished clips are not run again while version and settings stay the same.
"""

from __future__ import annotations

from before import ROOT  # isort: split

import argparse
from pathlib import Path

from results import PAGE, machine, markdown_table, write_section

from recon3d.cli.bench import run_conditions
from recon3d.evaluation.expectations import markdown_rows
from recon3d.evaluation.matrix import QUICK_SETTINGS, format_conditions
from recon3d.progress import Reporter


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one condition at a time")
    parser.add_argument("--out", type=Path, help="out/matrix, or out/quick")
    parser.add_argument("--clips", type=int, default=1, help="clips a cell")
    parser.add_argument("--config", help="settings, as of recon3d run")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--page", type=Path, default=PAGE, help="where the section goes")
    parser.add_argument("--score-only", action="store_true", help="tables of what is finished")
    a = parser.parse_args()
    out = a.out or ROOT / "out" / ("quick" if a.quick else "matrix")
    plan, rows, summary = run_conditions(
        out,
        quick=a.quick,
        clips=a.clips,
        config=a.config,
        assignments=a.set,
        score_only=a.score_only,
        reporter=Reporter(),
    )
    print(format_conditions(summary))
    write_section("matrix_quick" if a.quick else "matrix", page(a, plan, rows, summary), a.page)
    print(f"wrote {a.page}")


def page(a: argparse.Namespace, plan, rows: list[dict], summary) -> str:
    """The section of docs/RESULTS.md."""
    ours = [row for row in rows if row["method"] == "recon3d"]
    processor = sum(row["processor_s"] for row in ours)
    options = " --quick" if a.quick else ""
    options += f" --clips {a.clips}" if a.clips > 1 else ""
    options += f" --config {a.config}" if a.config else ""
    options += "".join(f" --set {line}" for line in a.set)
    if a.quick:
        what = (
            "One condition at a time around a face of 64 px in room light, sharp, turning 30 "
            f"degrees to both sides: {len(ours)} clips of {plan.n_frames} frames of one person, "
            f"compared with {plan.people}. One clip a line, so differences of a few hundredths "
            "mean nothing. Fast settings: " + ", ".join(f"`{s}`" for s in QUICK_SETTINGS) + "."
        )
    else:
        what = (
            f"{len(ours)} of {len(plan.scenes())} clips of {plan.n_frames} frames, "
            f"{plan.people} people; a line is the mean over all other conditions."
        )
    about = (
        "The people are painted on random heads of the embedded model, 1 mm (RMS) off it: their "
        "heads lie nearer to the model's mean than real ones do, so the mean face is a harder "
        "baseline here than on other clips. Found: share of frames with a track on the face. "
        "Landmarks: error on visible skin, percent of the distance of the outer eye corners. Told "
        "apart: share of the other people whose true picture is further from the result than the "
        "right one's (0.5 is chance). Means over what could be scored."
    )
    headings, cells = markdown_rows(summary)
    seconds = sum(row.get("seconds", 0.0) for row in ours)
    peaks = [row["peak_mib"] for row in ours if "peak_mib" in row]
    cost = (
        f"The main job took {processor:.0f} processor seconds over all clips ({seconds:.0f} s by "
        f"the clock, other work on the machine included); peak memory "
        f"{min(peaks, default=0):.0f} to {max(peaks, default=0):.0f} MiB in one process."
    )
    return "\n\n".join(
        [
            "## What to expect from which camera" + (", the quick run" if a.quick else ""),
            what,
            about,
            f"```\npython benchmarks/conditions.py{options}\n```",
            f"Machine: {machine()}. `recon3d bench{options}` gives the same tables, with figures "
            "and a page to read (expect.html).",
            markdown_table(headings, cells),
            cost,
        ]
    )


if __name__ == "__main__":
    main()
