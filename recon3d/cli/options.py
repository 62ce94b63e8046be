"""Options that several commands have, said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[
    str | None, typer.Option(help="A YAML file, or a shipped one: default, cctv, fast, studio.")
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="One setting, such as tracking.max_views=32."),
]
Model = Annotated[str | None, typer.Option(help="Face model: a name or a path.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu or cuda.")]
Refine = Annotated[bool | None, typer.Option("--refine/--no-refine", help="Use the refiner.")]
MaxTracks = Annotated[int | None, typer.Option(help="At most this many people.")]
PermissiveOnly = Annotated[
    bool,
    typer.Option("--permissive-only", help="Refuse models whose licence restricts their use."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from an earlier, unfinished run.")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable last line.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")]
LogFile = Annotated[Path | None, typer.Option(help="Write a detailed log there.")]
Seed = Annotated[int | None, typer.Option(help="Of everything random.")]
Threads = Annotated[int | None, typer.Option(help="Threads of the CPU that torch may use.")]
Photos = Annotated[
    Path,
    typer.Option(help="Folder or tar of portraits; a metadata.csv beside them may name splits."),
]
GoOn = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")]
