"""`recon3d model`: the morphable models."""

from __future__ import annotations

from pathlib import Path

import typer

app = typer.Typer(
    no_args_is_help=True,
    help="The morphable face models: what is installed, and how to build the embedded one.",
)


@app.command("list")
def list_(as_json: bool = typer.Option(False, "--json", help="Machine-readable.")) -> None:
    """List the models that `--model NAME` accepts."""
    import json

    from recon3d.morphable import list_models

    models = list_models()
    if as_json:
        typer.echo(json.dumps([str(name) for name in models]))
        return
    for name in models:
        typer.echo(str(name))


@app.command("info")
def info(name: str = typer.Argument("recon3d", help="A model's name or path.")) -> None:
    """Print what a model holds, its licence and citation."""
    from recon3d.morphable import load_model

    model = load_model(name)
    rows = {
        "name": model.name,
        "vertices": model.n_vertices,
        "triangles": len(model.triangles),
        "identity modes": len(model.identity),
        "expressions": f"{len(model.expression)} ({', '.join(model.expression_names)})",
        "albedo modes": 0 if model.albedo_modes is None else len(model.albedo_modes),
        "regions": ", ".join(sorted(model.regions)),
        "licence": model.licence,
        "origin": model.origin,
        "citation": model.citation,
    }
    for key, value in rows.items():
        typer.echo(f"{key + ':':<16}{value}")


@app.command("build")
def build(
    photos: Path = typer.Option(..., help="Folder or tar of photographs (with metadata.csv)."),
    out: Path = typer.Option(
        Path("assets/face_model/recon3d_face.npz"), help="The model file to write."
    ),
    assignments: list[str] = typer.Option(
        None, "--set", metavar="KEY=VALUE", help="One build setting, such as identity_modes=80."
    ),
) -> None:
    """Build the embedded face model from a folder of photographs."""
    import yaml
    from pydantic import ValidationError

    from recon3d.errors import InputError
    from recon3d.morphable import BuildSettings, build_model, save_model
    from recon3d.progress import Reporter

    values = {}
    for line in assignments or []:
        key, equals, text = line.partition("=")
        if not equals:
            raise InputError(f"--set wants key=value, got {line!r}")
        values[key.strip()] = yaml.safe_load(text)
    try:
        settings = BuildSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"setting {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    with Reporter().stage("building the face model") as move:
        model, report = build_model(photos, settings, progress=move)
    save_model(model, out)
    for key, value in report.items():
        typer.echo(f"{key}: {value}")
    typer.echo(f"wrote {out}")
