"""`recon3d bench`: quality over a folder of clips with known truth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import typer


def bench(
    data: Path = typer.Option(
        ..., help="Benchmark folder: manifest.json, cases/, subjects/ with the truth."
    ),
    out: Path = typer.Option(Path("out/bench"), "--out", "-o", help="Folder for the results."),
    cases: str = typer.Option(None, help="Only cases whose name contains one of these (commas)."),
    config: str = typer.Option(
        None, help="A YAML file, or a shipped one: default, cctv, fast, studio."
    ),
    assignments: list[str] = typer.Option(
        None, "--set", metavar="KEY=VALUE", help="One setting, such as tracking.max_views=32."
    ),
    model: str = typer.Option(None, help="Face model: a name or a path."),
    fresh: bool = typer.Option(False, "--fresh", help="Run finished cases again."),
    score_only: bool = typer.Option(False, "--score-only", help="Score what lies in --out."),
    as_json: bool = typer.Option(False, "--json", help="Machine-readable last line."),
) -> None:
    """Reconstruct every clip of a benchmark folder, score it against the truth, print the table.

    Finished cases are not run again while version and settings stay the same. Writes bench.json
    and cases.csv beside the result folders.
    """
    import json

    from recon3d.evaluation import (
        aggregate,
        format_table,
        load_descriptor,
        read_benchmark,
        run_cases,
        score_results,
        to_frame,
    )
    from recon3d.exporting import write_json
    from recon3d.progress import Reporter
    from recon3d.settings import load_settings

    benchmark = read_benchmark(data)
    if cases:
        benchmark = benchmark.select(cases.split(","))
    reporter = Reporter()
    if not score_only:
        reconstruct, finished = case_runner(load_settings(config, assignments, model=model), fresh)
        with reporter.stage("reconstructing") as move:
            run_cases(benchmark, out, reconstruct, finished=finished, progress=move)
    describe = load_descriptor()
    with reporter.stage("scoring") as move:
        rows = score_results(benchmark, out, describe, progress=move)
    means = aggregate(rows)
    write_json(out / "bench.json", {"bench": benchmark.name, "aggregate": means, "cases": rows})
    to_frame(rows).to_csv(out / "cases.csv", index=False)
    if as_json:
        typer.echo(json.dumps({"bench": benchmark.name, "overall": means["overall"]}))
        return
    skipped = "" if describe else "  (dlib is not installed: identity skipped)"
    typer.echo("means over scored cases" + skipped)
    typer.echo(format_table(means))
    if means["overall"]["mesh_failed"] or means["overall"]["image_failed"]:
        typer.echo("\nmeans over all cases, failures at their worst value")
        typer.echo(format_table(means, "all"))
        for row in rows:
            if row["notes"]:
                typer.echo(f"{row['case']}: {'; '.join(row['notes'])}")


def case_runner(
    settings, fresh: bool = False, on_result: Callable | None = None
) -> tuple[Callable[[list[str], Path], dict], Callable[[dict], bool]]:
    """The pipeline as `recon3d.evaluation.run_cases` wants it.

    Parameters
    ----------
    settings : RunSettings
    fresh : bool
        Take nothing from earlier runs.
    on_result : callable (folder, RunResult), optional
        Is handed the reconstructions of each case that was run.

    Returns
    -------
    reconstruct : callable (inputs, folder) -> manifest
    finished : callable (manifest) -> bool
    """
    import recon3d
    from recon3d import pipeline

    config = settings.model_dump(mode="json")

    def reconstruct(inputs: list[str], folder: Path) -> dict:
        result = pipeline.run(
            inputs, folder, settings, resume=not fresh, keep=on_result is not None
        )
        if on_result is not None:
            on_result(folder, result)
        return result.manifest

    def finished(manifest: dict) -> bool:
        return (
            not fresh
            and manifest.get("status") == "done"
            and manifest.get("config") == config
            and manifest.get("versions", {}).get("recon3d") == recon3d.__version__
        )

    return reconstruct, finished
