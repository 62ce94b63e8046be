"""`recon3d view`: a result in an Open3D window, or a still of it."""

from __future__ import annotations

from pathlib import Path

import typer


def view(
    folder: Path = typer.Argument(..., metavar="DIR", help="What `recon3d run` wrote."),
    screenshot: Path = typer.Option(None, help="Draw off-screen into this PNG and end."),
    mode: str = typer.Option("texture", help="texture, evidence, uncertainty, error or plain."),
    yaw: float = typer.Option(25.0, help="Turn of the head in the still, degrees."),
    size: int = typer.Option(768, min=64, max=4096, help="Side of the still, px."),
    own: bool = typer.Option(
        False, "--own", help="Draw the still with recon3d's own rasteriser, not with Open3D."
    ),
) -> None:
    """Turn the mesh.

    Keys: 1-5 colours, C cameras, B before and after, L side light, R first view, S screenshot.
    """
    from recon3d.errors import BackendUnavailable, InputError
    from recon3d.exporting import write_png
    from recon3d.viewing import MODES, load_scene, render_still

    if mode not in MODES:
        raise InputError(f"--mode {mode}: no such mode; there are {', '.join(MODES)}")
    scene = load_scene(folder)
    if screenshot is None:
        from recon3d.viewing.window import show

        show(scene, mode)
        return
    picture = None
    if not own:
        from recon3d.viewing.window import offscreen

        try:
            picture = offscreen(scene, mode, (size, size), yaw)
        except BackendUnavailable as error:
            typer.echo(f"{error}; drawn by recon3d's own rasteriser instead", err=True)
    if picture is None:
        picture = render_still(scene, mode=mode, yaw=yaw, size=(size, size))
    write_png(screenshot, picture)
    typer.echo(f"wrote {screenshot}")
