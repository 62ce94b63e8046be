"""`recon3d run`: the main job."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from recon3d.cli.options import (
    AsJson,
    Assignments,
    Config,
    Device,
    LogFile,
    MaxTracks,
    Model,
    PermissiveOnly,
    Refine,
    Resume,
    Verbose,
)

if TYPE_CHECKING:
    from recon3d.pipeline import RunResult


def run(
    inputs: list[str] = typer.Argument(
        ..., metavar="INPUT...", help="Videos, pictures, folders or globs; each is one camera."
    ),
    out: Path = typer.Option(..., "--out", "-o", help="Folder for the results."),
    config: Config = None,
    assignments: Assignments = None,
    model: Model = None,
    device: Device = None,
    refine: Refine = None,
    refiner: str = typer.Option(
        None, help="A refiner of your own: .safetensors, .onnx, or .pth through spandrel."
    ),
    max_tracks: MaxTracks = None,
    until: str = typer.Option(
        None, help="Stop after: tracking, fitting, texturing, frontal, refinement, exporting."
    ),
    resume: Resume = False,
    permissive_only: PermissiveOnly = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
    log_file: LogFile = None,
) -> None:
    """Clips or pictures in; mesh, frontal view and evidence map out."""
    import json

    from recon3d.settings import load_settings

    assignments = list(assignments or [])
    if refiner is not None:
        assignments.append(f"refinement.path={json.dumps(refiner)}")
    settings = load_settings(
        config,
        assignments,
        model=model,
        device=device,
        refine=refine,
        max_tracks=max_tracks,
    )
    execute(
        inputs,
        out,
        settings,
        until=until,
        resume=resume,
        permissive_only=permissive_only,
        as_json=as_json,
        verbose=verbose,
        log_file=log_file,
    )


def execute(
    inputs: list[str],
    out: Path,
    settings,
    *,
    until: str | None = None,
    resume: bool = False,
    permissive_only: bool = False,
    as_json: bool = False,
    verbose: bool = False,
    log_file: Path | None = None,
) -> None:
    """Run the pipeline with a terminal's manners; shared by `run` and `demo`."""
    import signal

    from recon3d import pipeline
    from recon3d.progress import Reporter, configure_logging

    configure_logging(verbose, log_file)

    def stop(_signal, _frame):
        raise KeyboardInterrupt

    def work():
        return pipeline.run(
            inputs,
            out,
            settings,
            until=until,
            resume=resume,
            permissive_only=permissive_only,
            reporter=Reporter(),
        )

    with handling({signal.SIGTERM: stop}):
        finish(work, out, as_json)


@contextmanager
def handling(handlers: dict) -> Iterator[None]:
    """Have signals handled inside the block, and as before after it."""
    import signal

    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def finish(work: Callable[[], RunResult], out: Path, as_json: bool) -> None:
    """Do a job and say what came of it, also where nothing did."""
    import json

    from recon3d.errors import NoFaceError, Recon3DError

    try:
        result = work()
    except NoFaceError as error:
        if as_json:
            typer.echo(json.dumps({"status": "no face", "out": str(out), "reason": str(error)}))
        raise
    except Recon3DError:
        raise
    except Exception as error:
        error.recon3d_out = str(out)
        raise
    say_result(result.manifest, out, as_json)


def say_result(manifest: dict, out: Path, as_json: bool) -> None:
    """What was found and where it lies, for people or for programs."""
    import json

    if as_json:
        typer.echo(
            json.dumps(
                {"status": manifest["status"], "out": str(out), "tracks": manifest["tracks"]}
            )
        )
        return
    for track in manifest["tracks"]:
        low, high = track["yaw_range_deg"]
        typer.echo(
            f"{out / track['path']}: {track['frames']} frames, "
            f"face {track['face_px']:.0f} px wide, yaw {low:.0f} to {high:.0f} degrees"
        )
        for sentence in track.get("cautions", ()):
            typer.echo(f"  caution: {sentence}")
    if manifest["status"] == "done":
        typer.echo(f"Look at {out / 'report.html'}")
