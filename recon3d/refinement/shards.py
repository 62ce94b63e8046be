"""Training pairs on disk: small archives that can be made bit by bit and read without pickles."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from recon3d.errors import InputError, NoFaceError
from recon3d.files import atomic_write
from recon3d.refinement.conditioning import CHANNELS, WORKING, condition
from recon3d.types import FaceModel
from recon3d.workers import done_by

if TYPE_CHECKING:
    from recon3d.refinement.simulation import Pair, SimulatedClip

SHARD = 8
"""Pairs in one file."""
_WHOLE_PIPELINE_SHARE = 0.4
"""Of the pairs of photos those that are tracked and fitted for real; heads always are."""
HEADS_SHARE = 0.3
"""Of pairs that are rendered heads, where there are models to draw them from."""
_LEAVE_OUT = ("sunglasses", "grayscale", "dark")


def photo_names(photos: Path, split: str) -> list[str]:
    """Names of the usable photos of a split, in order.

    Without a ``metadata.csv`` every photo belongs to ``train``, but each twentieth to ``val``.
    """
    from recon3d.morphable.photos import read_metadata, read_photos

    metadata = read_metadata(photos)
    if metadata:
        return sorted(
            name
            for name, row in metadata.items()
            if row.get("split", "train") == split
            and not any(flag in row.get("flags", "") for flag in _LEAVE_OUT)
        )
    names = [name for name, _ in read_photos(photos)]
    return [n for k, n in enumerate(sorted(names)) if (k % 20 == 0) == (split == "val")]


def frontal_names(photos: Path, split: str) -> list[str]:
    """`photo_names` but those that ``metadata.csv`` knows to be turned too far for a target."""
    from recon3d.morphable.photos import read_metadata
    from recon3d.refinement.simulation import MAX_PITCH, MAX_YAW

    def beyond(row: dict, column: str, limit: float) -> bool:
        try:
            return abs(float(row.get(column) or 0)) > limit
        except ValueError:
            return False

    metadata = read_metadata(photos)
    # A fit measures a pose a little otherwise than whoever wrote it down.
    return [
        name
        for name in photo_names(photos, split)
        if not beyond(metadata.get(name, {}), "yaw", MAX_YAW)
        and not beyond(metadata.get(name, {}), "pitch", MAX_PITCH + 2)
    ]


def make_shards(
    photos: Path,
    out: Path,
    model: FaceModel,
    *,
    pairs: int,
    split: str = "train",
    seed: int = 0,
    heads: Sequence[FaceModel] = (),
    heads_share: float = HEADS_SHARE,
    workers: int = 1,
    progress: Callable[[float, float | None], None] | None = None,
) -> list[Path]:
    """Simulate training pairs; files that are there already are kept.

    Each photo is seen by another camera in each round over the photos. A clip that is tracked and
    fitted for real gives two pairs, of all its views and of a part of them, and the photo after its
    own gives none. The same seed gives the same pairs, in whatever order or however often the work
    was interrupted.

    Parameters
    ----------
    photos : Path
        Folder or tar archive of portraits, with an optional ``metadata.csv``.
    out : Path
    model : FaceModel
    pairs : int
        How many to make, about: photos without a usable face give none.
    split : str
        ``train`` or ``val``.
    seed : int
    heads : sequence of FaceModel
        Models from which rendered heads are drawn for a share of the pairs
        (`recon3d.refinement.heads`); with none, all pairs are photos that turn.
    heads_share : float
        Share of the pairs that are heads, where the photo allows it.
    workers : int
        Processes, of one thread each, that share the work.
    progress : callable, optional

    Returns
    -------
    list of Path, in order

    Raises
    ------
    InputError
        If the photos cannot be read, or a shard's folder belongs to other photos or another seed.
    """
    names = frontal_names(photos, split)
    if not names:
        raise InputError(f"{photos}: no usable photo in the split {split}")
    out.mkdir(parents=True, exist_ok=True)
    origin = {"seed": seed, "split": split, "photos": len(names), "model": model.name}
    if heads:
        origin["heads"] = [m.name for m in heads]
        if heads_share != HEADS_SHARE:
            origin["heads_share"] = heads_share
    check_origin(out, origin)
    paths = [out / f"{split}_{number:05d}.npz" for number in range(-(-pairs // SHARD))]
    missing = [number for number, path in enumerate(paths) if not path.exists()]
    source = _Source(photos, split, model, seed, tuple(heads), heads_share)
    done = len(paths) - len(missing)
    for _ in done_by(source, [(paths[n], n * SHARD, pairs) for n in missing], workers):
        done += 1
        if progress is not None:
            progress(min(done * SHARD, pairs), pairs)
    return paths


@dataclass
class _Source:
    """Where pairs come from; a process that makes some has its own."""

    photos: Path
    split: str
    model: FaceModel
    seed: int
    heads: tuple[FaceModel, ...]
    heads_share: float

    def open(self) -> _Source:
        from recon3d.morphable.photos import read_photos

        self.names = frontal_names(self.photos, self.split)
        self.order = np.random.default_rng([self.seed, 1]).permutation(len(self.names))
        wanted = set(self.names)
        # A quarter of a gigabyte for a thousand photos: less than one fit needs.
        self.images = {n: image for n, image in read_photos(self.photos) if n in wanted}
        return self

    def write(self, path: Path, first: int, pairs: int) -> None:
        numbers = range(first, min(first + SHARD, pairs))
        chosen = [self.names[self.order[k % len(self.names)]] for k in numbers]
        _write(
            path,
            list(_simulated(self, chosen, numbers)),
        )


def _simulated(source: _Source, names: list[str], numbers: range) -> Iterator[dict]:
    taken = 0
    for name, number in zip(names, numbers, strict=True):
        # A clip that gave two pairs stands for the photo after its own, too.
        if taken > number:
            continue
        rng = np.random.default_rng([source.seed, 2, number])
        taken = number
        try:
            for pair in _clip(source.images[name], source, rng).pairs(rng):
                if taken == numbers.stop:
                    break
                taken += 1
                yield _row(pair, name)
        except (NoFaceError, InputError, KeyError):
            continue


def _row(pair: Pair, name: str) -> dict:
    target = cv2.resize(pair.target, (WORKING, WORKING), interpolation=cv2.INTER_AREA)
    landmarks = pair.view.landmarks * (WORKING / pair.target.shape[0])
    return {
        **condition(pair.view),
        "target": target,
        "points": landmarks.astype(np.float32),
        "name": name,
        "info": json.dumps(pair.info),
    }


def _clip(image: np.ndarray, source: _Source, rng: np.random.Generator) -> SimulatedClip:
    """A clip of a photo, of the kind that the dice say and the photo allows."""
    from recon3d.refinement.heads import simulate_head_clip
    from recon3d.refinement.simulation import fit_portrait, simulate_clip
    from recon3d.scenes.portraits import usable_as_skin
    from recon3d.scenes.truth import portrait_landmarks

    model, heads = source.model, source.heads
    head_share, whole_share = _shares_of_clips(source.heads_share, _WHOLE_PIPELINE_SHARE)
    whole = bool(rng.random() < whole_share)
    if heads and rng.random() < head_share:
        points = portrait_landmarks(image)
        if points is not None and usable_as_skin(points):
            return simulate_head_clip(image, points, heads[rng.integers(len(heads))], model, rng)
    return simulate_clip(fit_portrait(image, model), rng, whole_pipeline=whole)


def _shares_of_clips(heads: float, whole: float) -> tuple[float, float]:
    """Shares of the clips that give these shares of the pairs.

    Heads, and photos tracked and fitted for real, give two pairs, other photos one.

    Parameters
    ----------
    heads : float
        Share of all pairs that are heads.
    whole : float
        Share of the photos' pairs that are tracked and fitted for real.

    Returns
    -------
    heads, whole : float
    """
    whole = whole / (2 - whole)
    of_a_photo = 1 + whole
    return heads * of_a_photo / (2 * (1 - heads) + heads * of_a_photo), whole


def _write(path: Path, rows: list[dict]) -> None:
    arrays = {}
    for key in (*CHANNELS, "target"):
        shape = (0, WORKING, WORKING, CHANNELS.get(key, 3))
        arrays[key] = np.stack([r[key] for r in rows]) if rows else np.zeros(shape, np.uint8)
    arrays["points"] = (
        np.stack([r["points"] for r in rows]) if rows else np.zeros((0, 478, 2), np.float32)
    )
    arrays["name"] = np.array([r["name"] for r in rows], np.str_)
    arrays["info"] = np.array([r["info"] for r in rows], np.str_)
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    atomic_write(path, stream.getbuffer())


def find_shards(folder: Path) -> list[Path]:
    """Shards of training pairs in a folder, in order; those of people held out are left out.

    Raises
    ------
    InputError
        If there are none.
    """
    found = sorted(folder.glob("train_[0-9]*.npz"))
    if not found:
        raise InputError(f"{folder} holds no training pairs")
    return found


def read_shards(paths: list[Path]) -> dict[str, np.ndarray]:
    """All pairs of some shards, concatenated.

    Returns
    -------
    dict: the inputs of `condition` and ``target`` as (N, 256, 256, C) uint8, ``points``
    (N, 478, 2), ``name`` and ``info`` (N,)

    Raises
    ------
    InputError
        If a file is damaged, or there is no pair at all.
    """
    found: dict[str, list[np.ndarray]] = {}
    for path in paths:
        try:
            with np.load(path, allow_pickle=False) as archive:
                for key in archive.files:
                    found.setdefault(key, []).append(archive[key])
        except Exception as error:
            raise InputError(f"{path} is not a shard of training pairs: {error}") from error
    if not found or not sum(len(x) for x in found["target"]):
        raise InputError("there are no training pairs: make some from photos first")
    return {key: np.concatenate(parts) for key, parts in found.items()}


def check_origin(out: Path, origin: dict) -> None:
    """Write what a folder's files come from (their ``split`` too), or compare with what is there.

    Raises
    ------
    InputError
        If it is another origin, or cannot be read.
    """
    path = out / f"origin_{origin['split']}.json"
    if path.exists():
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read: {error}") from error
        if known != origin:
            raise InputError(
                f"{out} holds files of another origin ({known}, now {origin}); choose another one"
            )
        return
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(origin), encoding="utf-8")
    os.replace(temporary, path)
