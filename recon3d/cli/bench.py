"""`recon3d bench`: quality over made conditions, or over a folder of clips with known truth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import typer

from recon3d.cli.options import AsJson, Assignments, Config, Model


def bench(
    data: Path = typer.Option(
        None,
        help="Benchmark folder: manifest.json, cases/, subjects/ with the truth. Without it clips "
        "are made: light x face width x blur x turn of the head.",
    ),
    quick: bool = typer.Option(
        False, "--quick", help="One condition at a time, short clips, fast settings."
    ),
    clips: int = typer.Option(1, min=1, help="Made clips a cell."),
    out: Path = typer.Option(
        None, "--out", "-o", help="Folder for the results (out/bench; out/matrix; out/quick)."
    ),
    cases: str = typer.Option(None, help="Only cases whose name contains one of these (commas)."),
    config: Config = None,
    assignments: Assignments = None,
    model: Model = None,
    fresh: bool = typer.Option(False, "--fresh", help="Run finished cases again."),
    score_only: bool = typer.Option(False, "--score-only", help="Score what lies in --out."),
    as_json: AsJson = False,
) -> None:
    """Reconstruct clips whose truth is known, score them, print the table.

    Finished cases are not run again while version and settings stay the same. With --data, writes
    bench.json and cases.csv beside the result folders; without it, clips and conditions as CSV and
    Parquet, figures, and expect.html: what to expect from your camera.
    """
    if data is None:
        if cases:
            raise typer.BadParameter("--cases selects among the clips of --data")
        out = out or Path("out/quick" if quick else "out/matrix")
        _matrix(out, quick, clips, config, assignments, model, fresh, score_only, as_json)
        return
    if quick:
        raise typer.BadParameter("--quick is about made clips: leave out --data")
    out = out or Path("out/bench")
    _folder(data, out, cases, config, assignments, model, fresh, score_only, as_json)


def _matrix(out, quick, clips, config, assignments, model, fresh, score_only, as_json) -> None:
    """The made conditions."""
    import json

    from recon3d.evaluation.matrix import format_conditions
    from recon3d.progress import Reporter

    plan, rows, summary = run_conditions(
        out,
        quick=quick,
        clips=clips,
        config=config,
        assignments=assignments,
        model=model,
        fresh=fresh,
        score_only=score_only,
        reporter=Reporter(),
    )
    if as_json:
        overall = summary[summary["factor"] == "all"].set_index("method")
        typer.echo(json.dumps({"out": str(out), "overall": json.loads(overall.T.to_json())}))
        return
    typer.echo(format_conditions(summary))
    made, wanted = len({row["case"] for row in rows}), len(plan.scenes())
    if made < wanted:
        typer.echo(f"{made} of {wanted} clips are finished")
    typer.echo(f"Look at {out / 'expect.html'}")


def run_conditions(
    out: Path,
    *,
    quick: bool = False,
    clips: int = 1,
    config: str | None = None,
    assignments: list[str] | None = None,
    model: str | None = None,
    fresh: bool = False,
    score_only: bool = False,
    reporter=None,
):
    """Run the matrix and write its tables and page; what `recon3d bench` does without --data.

    Returns
    -------
    plan : Plan
    rows : list of dict
    summary : DataFrame
    """
    import recon3d
    from recon3d import pipeline
    from recon3d.evaluation import load_descriptor
    from recon3d.evaluation.expectations import write_page
    from recon3d.evaluation.matrix import (
        QUICK,
        QUICK_SETTINGS,
        Plan,
        run_matrix,
        stored_rows,
        summarise,
        write_tables,
    )
    from recon3d.morphable import load_model
    from recon3d.progress import Reporter
    from recon3d.settings import load_settings

    reporter = reporter or Reporter(quiet=True)
    plan = QUICK if quick else Plan()
    plan = plan.model_copy(update={"clips": clips})
    fast = list(QUICK_SETTINGS) if quick and config is None else []
    settings = load_settings(config, [*fast, *(assignments or [])], model=model)

    def reconstruct(inputs: list[str], folder: Path):
        result = pipeline.run(inputs, folder, settings, keep=True)
        return result.manifest, result.reconstructions

    if score_only:
        rows = stored_rows(plan, out)
    else:
        with reporter.stage("conditions") as move:
            rows = run_matrix(
                plan,
                load_model(settings.model),
                out,
                reconstruct,
                configuration={
                    "version": recon3d.__version__,
                    "settings": settings.model_dump(mode="json"),
                    "refiner": _refiner_digest(settings),
                },
                describe=load_descriptor(),
                fresh=fresh,
                progress=move,
            )
    summary = summarise(plan, rows)
    write_tables(plan, rows, out)
    write_page(plan, rows, out, version=recon3d.__version__)
    return plan, rows, summary


def _refiner_digest(settings) -> str | None:
    """A hash of the refiner's weights; None where none are used."""
    import hashlib

    from recon3d.refinement import shipped_path

    path = Path(settings.refinement.path or shipped_path())
    if not settings.refine or not path.is_file():
        return None
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _folder(data, out, cases, config, assignments, model, fresh, score_only, as_json) -> None:
    """A benchmark folder."""
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
