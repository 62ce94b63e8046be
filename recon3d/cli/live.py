"""`recon3d live`: a camera or stream, watched as it comes."""

from __future__ import annotations

from pathlib import Path

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
    Verbose,
)


def live(
    source: str = typer.Argument(
        ...,
        metavar="SOURCE",
        help="Address (rtsp://..., http://...), camera (/dev/video0), or a video that stands for "
        "one.",
    ),
    out: Path = typer.Option(..., "--out", "-o", help="Folder for the results."),
    seconds: float = typer.Option(
        None, min=0.1, help="Watch for so long; until it ends or Ctrl-C without."
    ),
    every: float = typer.Option(
        20.0, min=0.0, help="Seconds between reconstructions while watching, at least; 0: none."
    ),
    config: Config = None,
    assignments: Assignments = None,
    model: Model = None,
    device: Device = None,
    refine: Refine = None,
    max_tracks: MaxTracks = None,
    permissive_only: PermissiveOnly = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
    log_file: LogFile = None,
) -> None:
    """Watch a stream: faces followed in real time, results kept up to date, Ctrl-C finishes."""
    import signal

    from recon3d.cli.run import finish, handling
    from recon3d.live import LiveSession
    from recon3d.progress import Reporter, configure_logging
    from recon3d.settings import load_settings

    configure_logging(verbose, log_file)
    reporter = Reporter()
    session = LiveSession(
        source,
        out,
        load_settings(
            config,
            assignments,
            model=model,
            device=device,
            refine=refine,
            max_tracks=max_tracks,
        ),
        seconds=seconds,
        every_s=every,
        permissive_only=permissive_only,
        reporter=reporter,
    )

    def stop(_signal, _frame):
        # The first time the watching ends and the job is finished; the second time all of it.
        if session.stopped:
            raise KeyboardInterrupt("every file that is there is whole")
        session.stop()

    reporter.line(f"watching; look at {out / 'live.html'}; Ctrl-C ends it and finishes the job")
    with handling({signal.SIGINT: stop, signal.SIGTERM: stop}):
        finish(session.run, out, as_json)
