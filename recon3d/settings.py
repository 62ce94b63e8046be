"""The settings of a run: one model a stage, gathered; YAML files and `--set` lines on top."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recon3d.errors import InputError
from recon3d.exporting import ExportSettings
from recon3d.fitting import FittingSettings
from recon3d.frontal import FrontalSettings
from recon3d.refinement import RefinementSettings
from recon3d.texturing import TexturingSettings
from recon3d.tracking import TrackingSettings

Settings = TypeVar("Settings", bound=BaseModel)


class RunSettings(BaseModel):
    """Everything that decides what `recon3d run` computes."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field("recon3d", description="Face model: a name or the path of an imported one.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where torch computes.")
    refine: bool = Field(True, description="Use the refiner where its weights are present.")
    max_tracks: int = Field(8, ge=1, description="At most this many people, most frames first.")
    tracking: TrackingSettings = Field(default_factory=TrackingSettings)
    fitting: FittingSettings = Field(default_factory=FittingSettings)
    texturing: TexturingSettings = Field(default_factory=TexturingSettings)
    frontal: FrontalSettings = Field(default_factory=FrontalSettings)
    refinement: RefinementSettings = Field(default_factory=RefinementSettings)
    exporting: ExportSettings = Field(default_factory=ExportSettings)


def config_folder() -> Path:
    """Where the shipped `configs/*.yaml` lie."""
    override = os.environ.get("RECON3D_CONFIGS")
    return Path(override) if override else Path(__file__).resolve().parent.parent / "configs"


def load_settings(
    config: str | None = None, assignments: list[str] | None = None, **options: Any
) -> RunSettings:
    """Read settings: defaults, then a YAML file, then options, then `key=value` lines.

    Parameters
    ----------
    config : str, optional
        Path of a YAML file, or the bare name of a shipped one (``cctv``).
    assignments : list of str, optional
        Lines such as ``tracking.max_views=32``; values are read as YAML.
    **options
        Top-level fields; None means not given.

    Raises
    ------
    InputError
        With the first thing that is wrong, in one line.
    """
    return validated(
        RunSettings, assignments, {} if config is None else _read_yaml(config), **options
    )


def validated(
    schema: type[Settings],
    assignments: list[str] | None = None,
    tree: dict[str, Any] | None = None,
    **options: Any,
) -> Settings:
    """Settings of any kind from a tree of values, options, then `key=value` lines.

    Parameters
    ----------
    schema : type
        The pydantic model.
    assignments : list of str, optional
        Lines such as ``tracking.max_views=32``; values are read as YAML.
    tree : dict, optional
    **options
        Top-level fields; None means not given.

    Raises
    ------
    InputError
        With the first thing that is wrong, in one line.
    """
    tree = dict(tree or {})
    tree.update({k: v for k, v in options.items() if v is not None})
    for line in assignments or []:
        key, equals, text = line.partition("=")
        if not equals or not key.strip():
            raise InputError(f"--set wants key=value, got {line!r}")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InputError(f"--set {key}: {text!r} is not a YAML value") from error
        node = tree
        *parents, leaf = key.strip().split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise InputError(f"--set {key}: {parent} is not a group of settings")
        node[leaf] = value
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"]
        if first["type"] == "extra_forbidden":
            known = ", ".join(_known(schema, first["loc"][:-1]))
            message = f"no such setting; known there: {known}"
        raise InputError(f"setting {where}: {message}") from error


def _known(schema: type[BaseModel], parents: tuple) -> list[str]:
    fields = schema.model_fields
    for parent in parents:
        fields = getattr(fields[parent].annotation, "model_fields", {})
    return sorted(fields)


def _read_yaml(config: str) -> dict[str, Any]:
    path = Path(config)
    if not path.exists() and (config_folder() / f"{config}.yaml").exists():
        path = config_folder() / f"{config}.yaml"
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in config_folder().glob("*.yaml")))
        raise InputError(f"no such config file: {config} (shipped: {shipped})")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not readable YAML: {str(error).splitlines()[0]}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise InputError(f"{path} holds no mapping of settings")
    return tree
