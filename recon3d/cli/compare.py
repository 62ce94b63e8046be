"""`recon3d compare`: how near people are to one another for a face descriptor."""

from __future__ import annotations

from pathlib import Path

import typer

CAUTION = (
    "A distance is a hint, never proof of who somebody is: small, dark and blurred faces drift "
    "towards one another, relatives are near, and descriptors are not equally good for all people."
)


def compare(
    inputs: list[str] = typer.Argument(
        ...,
        metavar="INPUT...",
        help="Results of a run, clips, pictures, folders or globs of pictures, galleries (.npz).",
    ),
    gallery: Path = typer.Option(
        None, help="People to look among (.npz): the nearest of them for everybody."
    ),
    save: Path = typer.Option(None, help="Write everybody found to this gallery (.npz)."),
    limit: int = typer.Option(5, min=1, help="How many of the gallery are listed."),
    as_json: bool = typer.Option(False, "--json", help="Machine-readable output."),
) -> None:
    """Compare people: the distance of their face descriptors, over all frames there are."""
    import json

    from recon3d.comparing import people_of
    from recon3d.errors import InputError
    from recon3d.progress import Reporter
    from recon3d.recognition import Gallery, load_embedder

    if save is not None and save.suffix != ".npz":
        raise InputError(f"--save {save}: the name of a gallery ends in .npz")
    embedder = load_embedder()
    known = None if gallery is None else Gallery.load(gallery)
    people = Gallery()
    reporter = Reporter(quiet=as_json)
    for path in inputs:
        for name, template in people_of(path, embedder, reporter=reporter).items():
            people.add(name, template)
    if known is None and len(people) == 1 and save is None:
        (name,) = people
        raise InputError(f"{name}: one person, and nobody to compare with")
    if save is not None:
        people.save(save)
    nearest = None
    if known is not None:
        nearest = {name: known.nearest(t)[:limit] for name, t in people.items()}
    if as_json:
        about = [
            {"name": n, "frames": t.frames, "fused": t.fused, "face_px": _number(t.face_px)}
            for n, t in people.items()
        ]
        document = {"embedder": embedder.name, "people": about, "caution": CAUTION}
        if nearest is None:
            document["distances"] = people.distances().round(4).tolist()
        else:
            document["nearest"] = {
                n: [{"name": other, "distance": round(d, 4)} for other, d in found]
                for n, found in nearest.items()
            }
        typer.echo(json.dumps(document))
        return
    for number, (name, t) in enumerate(people.items(), 1):
        parts = [f"{t.frames} frame" + "s" * (t.frames != 1)] if t.frames else []
        parts += ["fused view"] if t.fused else []
        width = f", face {t.face_px:.0f} px wide" if t.face_px == t.face_px else ""
        typer.echo(f"{number}  {name}: {' and '.join(parts)}{width}")
        for other, found in (nearest or {}).get(name, []):
            typer.echo(f"     {found:.3f}  {other}")
    if nearest is None and len(people) > 1:
        typer.echo("")
        typer.echo("    " + "".join(f"{k:>7}" for k in range(1, len(people) + 1)))
        for k, row in enumerate(people.distances(), 1):
            cells = ("      -" if j == k else f"{d:7.3f}" for j, d in enumerate(row, 1))
            typer.echo(f"{k:>4}" + "".join(cells))
    if save is not None:
        typer.echo(f"wrote {save}: biometric data, to be kept as such")
    typer.echo("")
    typer.echo(CAUTION)
    typer.echo("What distances mean, measured: docs/recognition.md.")


def _number(value: float) -> float | None:
    return round(value, 1) if value == value else None
