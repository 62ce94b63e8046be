"""`recon3d enhance`: the picture and video enhancer by itself."""

from __future__ import annotations

from pathlib import Path

import typer


def enhance(
    source: Path = typer.Argument(..., metavar="IN", help="A picture or a video."),
    out: Path = typer.Option(..., "--out", "-o", help="The file to write."),
    auto: bool = typer.Option(
        True, "--auto/--no-auto", help="Every step that measures a need; else only those named."
    ),
    deinterlace: bool = typer.Option(None, "--deinterlace/--no-deinterlace"),
    deblock: bool = typer.Option(None, "--deblock/--no-deblock"),
    denoise: bool = typer.Option(None, "--denoise/--no-denoise"),
    brighten: bool = typer.Option(None, "--brighten/--no-brighten"),
    white_balance: bool = typer.Option(None, "--white-balance/--no-white-balance"),
    deblur: bool = typer.Option(None, "--deblur/--no-deblur"),
    scale: int = typer.Option(1, min=1, max=8, help="Enlargement."),
    upscaler: str = typer.Option(None, help="ONNX super-resolution network of your own."),
    as_json: bool = typer.Option(False, "--json", help="Machine-readable report."),
) -> None:
    """Restore a picture or a video; sound and timestamps are kept."""
    from recon3d.errors import InputError
    from recon3d.progress import Reporter
    from recon3d.restoration import EnhanceSettings, enhance_path

    if not source.is_file():
        raise InputError(f"no such file: {source}")
    switches = {
        "deinterlace": deinterlace,
        "deblock": deblock,
        "denoise": denoise,
        "brighten": brighten,
        "white_balance": white_balance,
        "deblur": deblur,
    }
    chosen = {k: auto if v is None else v for k, v in switches.items()}
    settings = EnhanceSettings(**chosen, scale=scale, upscaler=upscaler)
    reporter = Reporter()
    with reporter.stage("enhancing") as move:
        report = enhance_path(source, out, settings, progress=move)
    for text in report.warnings:
        reporter.warn(text)
    if as_json:
        typer.echo(report.model_dump_json())
        return
    for name, share in report.acted.items():
        typer.echo(f"{name}: {100 * share:.0f} % of {report.frames} picture(s)")
    typer.echo(f"wrote {out}")
