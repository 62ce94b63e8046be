"""Pages that are made from the code itself while the documentation is built.

`commands.md` comes from the Typer application, `settings.md` from the pydantic models and the
shipped configurations, so that neither can fall behind.
"""

from __future__ import annotations

import types as python_types
from pathlib import Path
from typing import Literal, Union, get_args, get_origin

import typer
import yaml
from mkdocs.structure.files import File
from pydantic import BaseModel

from recon3d.cli.main import app
from recon3d.settings import RunSettings, config_folder

GENERATED = {"commands.md": lambda: commands_page(), "settings.md": lambda: settings_page()}

OPTIONAL_PAGES = (("Refiner", "refiner.md", "How it works"),)
"""Title, file and the entry after which it stands, for pages that a checkout may lack."""


def on_config(config):
    """Put pages that are there into the navigation."""
    for title, name, after in OPTIONAL_PAGES:
        if (Path(config.docs_dir) / name).is_file():
            titles = [next(iter(entry)) for entry in config.nav]
            config.nav.insert(titles.index(after) + 1, {title: name})
    return config


def on_files(files, config):
    """Add the generated pages."""
    for name, make in GENERATED.items():
        files.append(File.generated(config, name, content=make()))
    return files


def commands_page() -> str:
    """Every command with its arguments and options."""
    parts = [
        "# Commands",
        "Made from the program itself; `recon3d COMMAND --help` says the same.",
        "Exit status: 0 done; 1 ran, and found no usable face; 2 the call or the input is wrong "
        "(one line on standard error); 3 a fault of ours (traceback in `DIR/error.log`); "
        "130 interrupted. Long stages show a bar on a terminal (name, frames per second, time "
        "left) and one line elsewhere.",
    ]
    root = typer.main.get_command(app)
    for path, command in _commands(root, ("recon3d",)):
        parts += _command(path, command)
    return "\n\n".join(parts) + "\n"


def _commands(command, path):
    if hasattr(command, "commands"):
        for name, child in command.commands.items():
            yield from _commands(child, (*path, name))
    else:
        yield path, command


def _command(path: tuple[str, ...], command) -> list[str]:
    arguments = [_name(p) for p in command.params if p.param_type_name == "argument"]
    usage = " ".join([*path, "[OPTIONS]", *arguments])
    parts = [f"## {' '.join(path)}", f"```\n{usage}\n```", (command.help or "").strip()]
    rows = [_parameter(p) for p in command.params if getattr(p, "help", None) or p.opts]
    if rows:
        table = ["| argument or option | default | |", "| --- | --- | --- |", *rows]
        parts.append("\n".join(table))
    return parts


def _parameter(parameter) -> str:
    if parameter.param_type_name == "argument":
        name = f"`{_name(parameter)}`"
    else:
        flags = [*parameter.opts, *parameter.secondary_opts]
        name = ", ".join(f"`{flag}`" for flag in flags)
    default = parameter.default
    if callable(default) or default is None or default is False or default == [] or _unset(default):
        shown = "required" if parameter.required else ""
    else:
        shown = f"`{default}`"
    return f"| {name} | {shown} | {_cell(getattr(parameter, 'help', None) or '')} |"


def _name(argument) -> str:
    return argument.metavar or argument.name.upper()


def _unset(value) -> bool:
    return type(value).__name__ in ("Sentinel", "UNSET")


def settings_page() -> str:
    """Every setting with type, default and meaning, and the shipped configurations."""
    parts = [
        "# Settings",
        "Everything that decides what `recon3d run` computes. A value is changed on the command "
        "line by `--set group.name=value` (read as YAML), in a file given by `--config`, or in "
        'Python by a tree: `recon3d.reconstruct(clip, {"tracking": {"max_views": 24}})`.',
        "Made from the models in the code; what a run used stands in its `manifest.json` and in "
        "its report.",
        "## Shipped configurations",
        "Names for `--config`; what they do not mention keeps its default.",
    ]
    for path in sorted(config_folder().glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        comment = " ".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
        parts += [f"### {path.stem}", comment]
        tree = yaml.safe_load(text)
        if tree:
            parts.append(f"```yaml\n{yaml.safe_dump(tree, sort_keys=False).strip()}\n```")
    own = {n: f for n, f in RunSettings.model_fields.items() if not _is_group(f.annotation)}
    parts += ["## Of the run as a whole", _table("", own)]
    for name, field in RunSettings.model_fields.items():
        if _is_group(field.annotation):
            parts += _group(name, field.annotation)
    return "\n\n".join(parts) + "\n"


def _group(prefix: str, model: type[BaseModel]) -> list[str]:
    parts = [f"## {prefix}", (model.__doc__ or "").strip().split("\n\n")[0].replace("\n    ", " ")]
    fields = {n: f for n, f in model.model_fields.items() if not _is_group(f.annotation)}
    parts.append(_table(prefix + ".", fields))
    for name, field in model.model_fields.items():
        if _is_group(field.annotation):
            parts += _group(f"{prefix}.{name}", field.annotation)
    return parts


def _table(prefix: str, fields: dict) -> str:
    rows = ["| setting | type | default | |", "| --- | --- | --- | --- |"]
    for name, field in fields.items():
        default = field.get_default(call_default_factory=True)
        shown = "empty" if default is None else str(default)
        limits = _limits(field)
        kind = _type(field.annotation) + (f", {limits}" if limits else "")
        rows.append(f"| `{prefix}{name}` | {kind} | `{shown}` | {_cell(field.description or '')} |")
    return "\n".join(rows)


def _limits(field) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = [
        f"{sign} {getattr(item, key):g}"
        for item in field.metadata
        for key, sign in signs.items()
        if getattr(item, key, None) is not None
    ]
    return ", ".join(found)


def _type(annotation) -> str:
    origin = get_origin(annotation)
    if origin is Literal:
        return ", ".join(f"`{a}`" for a in get_args(annotation))
    if origin in (Union, python_types.UnionType):
        return " or ".join("empty" if a is type(None) else _type(a) for a in get_args(annotation))
    if origin in (list, tuple):
        return "list of " + _type(get_args(annotation)[0])
    names = {int: "whole number", float: "number", bool: "true or false", str: "text"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _is_group(annotation) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
