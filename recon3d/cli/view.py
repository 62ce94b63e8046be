"""`recon3d view`: a result in an Open3D window, or a still of it."""

from __future__ import annotations

from pathlib import Path

import typer


def view(
    folder: Path = typer.Argument(..., metavar="DIR", help="What `recon3d run` wrote."),
    screenshot: Path = typer.Option(None, help="Draw off-screen into this PNG and end."),
    mode: str = typer.Option("texture", help="texture, evidence, uncertainty or plain."),
    yaw: float = typer.Option(25.0, help="Turn of the head in the still, degrees."),
    size: int = typer.Option(768, min=64, max=4096, help="Side of the still, px."),
) -> None:
    """Turn the mesh; keys 1-4 change its colours, C shows the cameras, S takes a picture."""
    from recon3d.errors import BackendUnavailable, InputError
    from recon3d.exporting import write_png
    from recon3d.viewing import MODES, load_scene, render_still

    if mode not in MODES:
        raise InputError(f"--mode {mode}: no such mode; there are {', '.join(MODES)}")
    scene = load_scene(folder)
    from recon3d.viewing import window

    if screenshot is None:
        window.show(scene, mode)
        return
    try:
        picture = window.offscreen(scene, mode, (size, size), yaw)
    except BackendUnavailable as error:
        typer.echo(f"{error}; drawn by recon3d's own rasteriser instead", err=True)
        picture = render_still(scene, mode=mode, yaw=yaw, size=(size, size))
    write_png(screenshot, picture)
    typer.echo(f"wrote {screenshot}")
