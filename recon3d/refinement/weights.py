"""The refiner's weights on disk: safetensors in half precision, with what they came from."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from recon3d.errors import ModelError
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


def _shape(path: Path, about: dict[str, str]) -> dict:
    try:
        shape = json.loads(about["shape"])
        widths = tuple(int(w) for w in shape["widths"])
        return {"widths": widths, "blocks": int(shape["blocks"])}
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: the header does not describe a network ({error})") from error
