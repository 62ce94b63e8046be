"""`recon3d demo`: the main job on the bundled clip."""

from __future__ import annotations

from pathlib import Path

import typer

from recon3d.cli.options import AsJson, LogFile, Resume, Verbose


def demo(
    out: Path = typer.Option(Path("out/demo"), "--out", "-o", help="Folder for the results."),
    resume: Resume = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
    log_file: LogFile = None,
) -> None:
    """Reconstruct the bundled CCTV-like clip, offline, and say where to look next."""
    from recon3d.assets import asset_path
    from recon3d.cli.run import execute
    from recon3d.settings import load_settings

    clip = asset_path("demo", "astronaut_cctv.mp4")
    execute(
        [str(clip)],
        out,
        load_settings("cctv"),
        resume=resume,
        as_json=as_json,
        verbose=verbose,
        log_file=log_file,
    )
    if not as_json:
        typer.echo(f"Before:    {clip}")
        typer.echo(f"After:     {out / 'track_000' / 'frontal.png'}")
        typer.echo(f"The mesh:  {out / 'track_000' / 'mesh.glb'}")
        typer.echo(f"Turn it:   recon3d view {out}")
        typer.echo(f"Your own:  recon3d run CLIP.mp4 --out {out.parent / 'mine'}")
