"""The refiner's weights on disk: safetensors in half precision, with what they came from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from recon3d.errors import InputError, ModelError
from recon3d.files import atomic_write
from recon3d.refinement.networks import Generator

FORMAT = "recon3d-refiner-1"


def save_generator(path: Path, generator: Generator, about: dict[str, str]) -> None:
    """Write a generator.

    Parameters
    ----------
    path : Path, ``.safetensors``
    generator : Generator
    about : dict of str
        Where it comes from: steps, seed, data; goes into the file's header.
    """
    from safetensors.torch import save

    shape = json.dumps({"widths": list(generator.widths), "blocks": generator.blocks})
    tensors = {
        name: value.detach().to("cpu", torch.float16, memory_format=torch.contiguous_format)
        for name, value in generator.state_dict().items()
    }
    atomic_write(path, save(tensors, {"format": FORMAT, "shape": shape, **about}))


def load_generator(path: Path) -> tuple[Generator, dict[str, str]]:
    """Read a generator.

    Returns
    -------
    generator : Generator, float32, in evaluation mode
    about : dict of str

    Raises
    ------
    ModelError
        If the file is missing, damaged, or holds something else.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise ModelError(f"no such refiner: {path}")
    try:
        with safe_open(str(path), "pt") as file:
            about = dict(file.metadata() or {})
            if about.get("format") != FORMAT:
                raise ModelError(
                    f"{path} holds no refiner of this kind: expected format {FORMAT}, found "
                    f"{about.get('format', 'none')}"
                )
            generator = Generator(**_shape(path, about))
            weights = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} cannot be read as safetensors: {error}") from error
    try:
        generator.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise ModelError(f"{path}: weights do not fit their own description: {first}") from error
    return generator.eval().to(memory_format=torch.channels_last), about


def average_generators(paths: Sequence[Path], out: Path) -> None:
    """Write the mean of several refiners of one width, such as an earlier one and what further
    training made of it: on new people it does what either does well [1]_.

    A block that one of them lacks counts there as one that adds nothing, as it does where a network
    has grown (`Generator.grow_from`).

    Parameters
    ----------
    paths : sequence of Path
        The first one's header is kept, all are named in it.
    out : Path, ``.safetensors``

    Raises
    ------
    InputError
        If their networks differ in their levels' widths.
    ModelError
        If one cannot be read.

    References
    ----------
    .. [1] M. Wortsman et al., Model soups: averaging weights of multiple fine-tuned models improves
       accuracy without increasing inference time, ICML 2022.
    """
    read = [load_generator(path) for path in paths]
    first, about = read[0]
    for path, (generator, _) in zip(paths, read, strict=True):
        if generator.widths != first.widths:
            raise InputError(f"{path} and {paths[0]} are networks of unlike size; no mean of them")
    blocks = tuple(max(counts) for counts in zip(*(g.blocks for g, _ in read), strict=True))
    mean = Generator(first.widths, blocks)
    states = [generator.state_dict() for generator, _ in read]
    mean.load_state_dict({key: _mean_of(key, states) for key in mean.state_dict()})
    kept = {key: value for key, value in about.items() if key not in ("format", "shape")}
    parts = [
        {"steps": facts.get("steps", "?"), "pairs": facts.get("pairs", "?")} for _, facts in read
    ]
    save_generator(out, mean, {**kept, "mean_of": json.dumps(parts)})


def _mean_of(key: str, states: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    """Mean of one tensor; a network without that block would do the same with a block whose second
    convolution is zero, whatever the first one is."""
    found = [state[key] for state in states if key in state]
    count = len(states) if ".second." in key else len(found)
    return torch.stack(found).sum(0) / count


def _shape(path: Path, about: dict[str, str]) -> dict:
    try:
        shape = json.loads(about["shape"])
        widths = tuple(int(w) for w in shape["widths"])
        blocks = shape["blocks"]
        if isinstance(blocks, list):
            blocks = tuple(int(count) for count in blocks)
            if len(blocks) != len(widths):
                raise ValueError(f"{len(widths)} levels, blocks for {len(blocks)}")
        else:  # one number for all levels
            blocks = int(blocks)
        return {"widths": widths, "blocks": blocks}
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: the header does not describe a network ({error})") from error
