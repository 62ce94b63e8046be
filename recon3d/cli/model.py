"""`recon3d model`: the morphable models."""

from __future__ import annotations

from pathlib import Path

import typer

from recon3d.cli.options import Device, GoOn, Photos, Seed, Threads

app = typer.Typer(
    no_args_is_help=True,
    help="The morphable face models: what is installed, how to build, import or install one.",
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
    from recon3d.texturing.portraits import learn_albedo

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
        model, report = build_model(photos, settings, progress=move, learn_albedo=learn_albedo)
    save_model(out, model)
    for key, value in report.items():
        typer.echo(f"{key}: {value}")
    typer.echo(f"wrote {out}")


@app.command("calibrate")
def calibrate(
    photos: Photos,
    out: Path = typer.Option(..., "--out", "-o", help="Folder for lessons, checkpoint, weights."),
    clips: int = typer.Option(None, help="Clips to simulate, about."),
    steps: int = typer.Option(None, help="Steps of the optimiser."),
    device: Device = None,
    seed: Seed = None,
    assignments: list[str] = typer.Option(
        None, "--set", metavar="KEY=VALUE", help="One setting, such as batch=32."
    ),
    model: str = typer.Option("recon3d", help="Face model that photos are fitted with."),
    heads: list[str] = typer.Option(
        None,
        help="Face models, names or paths, of which rendered heads are drawn; --model's own by "
        "default, 'none' for photos alone.",
    ),
    also: list[Path] = typer.Option(
        None, "--also", help="Folder of another run whose training lessons are used too."
    ),
    lessons_only: bool = typer.Option(False, "--lessons-only", help="Simulate and stop."),
    resume: GoOn = False,
    threads: Threads = None,
    workers: int = typer.Option(
        0, help="Processes that simulate; 0 takes the machine's cores, at most 8."
    ),
) -> None:
    """Learn what the landmarker gets wrong about small and bad faces, from simulated clips.

    Writes landmarks.safetensors; try it with --set tracking.corrector=PATH. What is simulated is
    kept, and --resume goes on from the last checkpoint.
    """
    import os

    import torch

    from recon3d.calibration import CalibrationSettings, make_lessons, read_lessons, train
    from recon3d.errors import InputError
    from recon3d.morphable import load_model
    from recon3d.progress import Reporter
    from recon3d.settings import validated

    settings = validated(
        CalibrationSettings, assignments, clips=clips, steps=steps, device=device, seed=seed
    )
    if threads is not None:
        torch.set_num_threads(threads)
    if not photos.exists():
        raise InputError(f"no such folder of photos: {photos}")
    face_model = load_model(model)
    head_models = [load_model(name) for name in heads or [model] if name != "none"]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to --out {out}: {error.strerror or error}") from error
    reporter = Reporter()
    files = {}
    for split, count in (("val", settings.val_clips), ("train", settings.clips)):
        with reporter.stage(f"lessons ({split})") as move:
            files[split] = make_lessons(
                photos,
                out / "lessons",
                face_model,
                clips=count,
                split=split,
                seed=settings.seed,
                heads=head_models,
                workers=workers or min(os.cpu_count() or 1, 8),
                progress=move,
            )
    if lessons_only:
        return
    more = [path for folder in also or [] for path in sorted((folder / "lessons").glob("train_*"))]
    with reporter.stage("training") as move:
        path = train(
            read_lessons([*files["train"], *(p for p in more if p.suffix == ".npz")]),
            read_lessons(files["val"]),
            out,
            settings,
            resume=resume,
            about={
                "name": "landmark correction",
                "licence": face_model.licence or "unknown",
                "origin": "recon3d model calibrate",
                "heads": ", ".join(m.name for m in head_models),
            },
            note=reporter.line,
            progress=move,
        )
    typer.echo(f"weights: {path}; try them with recon3d run --set tracking.corrector={path}")


@app.command("import")
def import_(
    path: Path = typer.Argument(..., help="The publisher's file or folder."),
    name: str = typer.Option(None, help="Name for `--model`; the family's by default."),
) -> None:
    """Convert a licensed model (ICT-FaceKit, FLAME, Basel, Surrey, GNM) and keep it."""
    from recon3d.morphable.importers import recognise

    family = recognise(path)
    typer.echo(f"{path}: {family.name}")
    _convert(path, name)


@app.command("install")
def install(
    name: str = typer.Argument(..., help="A model that may be downloaded: ict-facekit."),
    url: str = typer.Option(None, help="A mirror of the publisher's folder."),
) -> None:
    """Download a model whose licence allows it, check it and convert it."""
    from recon3d.morphable.install import download, source
    from recon3d.progress import Reporter

    wanted = source(name)
    typer.echo(wanted.notice)
    with Reporter().stage(f"downloading {name}") as move:
        folder = download(wanted, url=url, progress=move)
    _convert(folder, name)


def _convert(path: Path, name: str | None) -> None:
    """Import, save among the user's models, and say what it is and under which licence."""
    from recon3d.errors import InputError
    from recon3d.morphable import save_model
    from recon3d.morphable.importers.convert import convert
    from recon3d.morphable.importers.families import recognise
    from recon3d.morphable.storage import models_home
    from recon3d.progress import Reporter

    if name is not None and (not name or any(c in name for c in "/\\") or name.startswith(".")):
        raise InputError(f"--name wants a plain name, got {name!r}")
    raw = recognise(path).read(path)
    with Reporter().stage("converting the face model") as move:
        model = convert(raw, name=name, progress=move)
    out = models_home() / "models" / f"{model.name}.npz"
    save_model(out, model)
    found = int((model.landmarks.triangle >= 0).sum())
    typer.echo(
        f"{model.name}: {model.n_vertices} vertices, {len(model.identity)} identity modes, "
        f"{len(model.expression)} expressions ({raw.expression_range}), {found} of "
        f"{len(model.landmarks.triangle)} landmarks found"
    )
    typer.echo(f"licence: {model.licence}")
    typer.echo(f"origin: {model.origin}")
    typer.echo(f"citation: {model.citation}")
    typer.echo(f"wrote {out}; use it with --model {model.name}")
