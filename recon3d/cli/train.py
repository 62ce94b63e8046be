"""`recon3d train`: the refiner, from a folder of photos."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from recon3d.cli.options import Device, GoOn, Model, Photos, Seed, Threads

app = typer.Typer(no_args_is_help=True, help="Train the refiner.")


@app.callback()
def _group() -> None:
    """Keeps `refiner` a command of its own although it is the only one."""


@app.command("refiner")
def refiner(
    photos: Photos,
    out: Path = typer.Option(..., "--out", "-o", help="Folder for pairs, checkpoints, weights."),
    steps: int = typer.Option(None, help="Steps of the generator."),
    pairs: int = typer.Option(None, help="Training pairs to simulate, about."),
    device: Device = None,
    seed: Seed = None,
    batch: int = typer.Option(None, help="Crops in one step."),
    assignments: list[str] = typer.Option(
        None, "--set", metavar="KEY=VALUE", help="One training setting, such as crop=128."
    ),
    model: Model = "recon3d",
    heads: list[str] = typer.Option(
        None,
        help="Face models, names or paths, of which rendered heads are drawn for a share of the "
        "pairs; --model's own by default, 'none' for photos alone.",
    ),
    heads_share: float = typer.Option(
        0.3, min=0, max=1, help="Share of the pairs that are rendered heads."
    ),
    pairs_only: bool = typer.Option(False, "--pairs-only", help="Simulate pairs and stop."),
    also: list[Path] = typer.Option(
        None, "--also", help="Folder of another run whose training pairs are used too."
    ),
    start: Path = typer.Option(
        None, help="Weights of an earlier refiner to begin with; it may have fewer blocks."
    ),
    resume: GoOn = False,
    threads: Threads = None,
    workers: int = typer.Option(
        0, help="Processes that simulate pairs; 0 takes the machine's cores, at most 8."
    ),
) -> None:
    """Simulate training pairs from photos, train on them, write refiner.safetensors.

    Both can be interrupted: pairs that are there are kept, and --resume goes on from the last
    checkpoint. Watch with tensorboard --logdir OUT/events, or look at OUT/panels.
    """
    import torch

    from recon3d.errors import InputError
    from recon3d.morphable import load_model
    from recon3d.progress import Reporter
    from recon3d.refinement import TrainingSettings
    from recon3d.refinement.shards import find_shards, make_shards, read_shards
    from recon3d.refinement.training import train
    from recon3d.settings import validated

    settings = validated(
        TrainingSettings,
        assignments,
        steps=steps,
        pairs=pairs,
        device=device,
        seed=seed,
        batch=batch,
    )
    if threads is not None:
        torch.set_num_threads(threads)
    if not photos.exists():
        raise InputError(f"no such folder of photos: {photos}")
    more = [shard for folder in also or [] for shard in find_shards(folder / "pairs")]
    face_model = load_model(model)
    head_models = [load_model(name) for name in heads or [model] if name != "none"]
    reporter = Reporter()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to --out {out}: {error.strerror or error}") from error
    shards = {}
    for split, count in (("val", settings.val_pairs), ("train", settings.pairs)):
        with reporter.stage(f"pairs ({split})") as move:
            shards[split] = make_shards(
                photos,
                out / "pairs",
                face_model,
                pairs=count,
                split=split,
                seed=settings.seed,
                heads=head_models,
                heads_share=heads_share,
                workers=workers or min(os.cpu_count() or 1, 8),
                progress=move,
            )
    if pairs_only:
        return
    with reporter.stage("training") as move:
        train(
            read_shards(shards["train"] + more),
            read_shards(shards["val"]),
            out,
            settings,
            resume=resume,
            note=reporter.line,
            embed=_embedder(),
            describer=_describer(settings, reporter.line),
            start=start,
            progress=move,
        )
    typer.echo(f"weights: {out / 'refiner.safetensors'}; try them with recon3d run --refiner")


@app.command("average")
def average(
    weights: list[Path] = typer.Argument(..., help="Refiners of one width, .safetensors."),
    out: Path = typer.Option(..., "--out", "-o", help="The file to write, .safetensors."),
) -> None:
    """Write the mean of refiners: of an earlier one, and of stages of further training from it."""
    from recon3d.errors import InputError
    from recon3d.refinement.weights import average_generators

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        average_generators(weights, out)
    except OSError as error:
        raise InputError(f"cannot write to --out {out}: {error.strerror or error}") from error
    typer.echo(f"mean of {len(weights)} refiners: {out}")


def _embedder():
    """The face embedder that watches at validation, where one is installed."""
    from recon3d.errors import BackendUnavailable
    from recon3d.recognition import load_embedder

    try:
        return load_embedder()
    except BackendUnavailable:
        return None


def _describer(settings, note):
    """The network of the identity loss, where its weights are installed."""
    from recon3d.errors import BackendUnavailable
    from recon3d.recognition.differentiable import DlibNetwork

    if settings.identity + settings.likeness == 0:
        return None
    try:
        return DlibNetwork()
    except BackendUnavailable as error:
        note(f"training without an identity loss: {error}")
        return None
