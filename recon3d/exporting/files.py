"""Pictures with metadata, and folders whose files arrive together or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np

from recon3d.errors import InputError, ShapeError
from recon3d.files import atomic_write, write_error

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_IHDR_END = len(_PNG_MAGIC) + 25  # length, type, 13 bytes and checksum of the first chunk


@contextlib.contextmanager
def staged_folder(folder: str | os.PathLike) -> Iterator[Path]:
    """A scratch folder whose files move into `folder` together, or not at all.

    Parameters
    ----------
    folder : path-like
        Made when missing. Files of other names that lie in it are left alone.

    Yields
    ------
    Path
        Write here; sub-folders are allowed. On leaving without an error every file is renamed to
        its place; on an error nothing in `folder` has changed.

    Raises
    ------
    InputError
        If anything cannot be written.
    """
    folder = Path(folder)
    made: list[Path] = []
    scratch: Path | None = None
    done = False
    try:
        missing = folder
        while not missing.exists():
            made.append(missing)
            missing = missing.parent
        folder.mkdir(parents=True, exist_ok=True)
        # What a killed run left behind.
        for stale in folder.glob(".partial-*"):
            shutil.rmtree(stale, ignore_errors=True)
        scratch = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder))
        yield scratch
        files = sorted(p for p in scratch.rglob("*") if p.is_file())
        for file in files:
            target = folder / file.relative_to(scratch)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)
        done = True
    except OSError as error:
        name = Path(error.filename) if error.filename else folder
        if scratch is not None and scratch in name.parents:
            name = folder / name.relative_to(scratch)
        raise write_error(error, name) from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)
        if not done:
            for path in made:
                with contextlib.suppress(OSError):
                    path.rmdir()


def encode_png(image: np.ndarray, text: Mapping[str, str] | None = None) -> bytes:
    """A picture as PNG bytes with text metadata.

    Parameters
    ----------
    image : (H, W) or (H, W, 3) uint8, RGB
    text : mapping of str to str, optional
        Keys of 1 to 79 Latin-1 characters.

    Returns
    -------
    bytes

    References
    ----------
    Portable Network Graphics (PNG) Specification, third edition, 11.3.3 (tEXt and iTXt).
    """
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
        raise ShapeError(
            f"a picture to write has shape {image.shape} and type {image.dtype}, expected "
            "(H, W) or (H, W, 3) uint8"
        )
    pixels = image if image.ndim == 2 else np.ascontiguousarray(image[..., ::-1])
    ok, encoded = cv2.imencode(".png", pixels)
    if not ok:
        raise ShapeError(f"a picture of shape {image.shape} cannot be encoded as PNG")
    data = encoded.tobytes()
    # cv2 cannot write text, so the chunks go in behind the header, where readers that stop at
    # the first picture data still find them.
    chunks = b"".join(_text_chunk(key, value) for key, value in (text or {}).items())
    return data[:_IHDR_END] + chunks + data[_IHDR_END:]


def write_png(
    path: str | os.PathLike, image: np.ndarray, text: Mapping[str, str] | None = None
) -> Path:
    """Write a picture as PNG with text metadata, whole or not at all.

    Parameters
    ----------
    path : path-like
    image : (H, W) or (H, W, 3) uint8, RGB
    text : mapping of str to str, optional

    Returns
    -------
    Path

    Raises
    ------
    InputError
        If it cannot be written.
    """
    return atomic_write(path, encode_png(image, text))


def png_text(path: str | os.PathLike) -> dict[str, str]:
    """The text metadata of a PNG file (tEXt and uncompressed iTXt).

    Parameters
    ----------
    path : path-like

    Returns
    -------
    dict of str to str

    Raises
    ------
    InputError
        If it cannot be read or is not a PNG file.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    if not data.startswith(_PNG_MAGIC):
        raise InputError(f"{path} is not a PNG file")
    found: dict[str, str] = {}
    at = len(_PNG_MAGIC)
    while at + 12 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        if kind == b"tEXt":
            key, _, value = body.partition(b"\0")
            found[key.decode("latin-1")] = value.decode("latin-1")
        elif kind == b"iTXt":
            key, _, rest = body.partition(b"\0")
            if rest[:1] == b"\0":
                found[key.decode("latin-1")] = rest[2:].split(b"\0", 2)[2].decode()
        at += 12 + length
    return found


def _text_chunk(key: str, value: str) -> bytes:
    name = key.encode("latin-1")
    if not 1 <= len(name) <= 79:
        raise ValueError(f"PNG text key {key!r} must have 1 to 79 characters")
    if value.isascii():
        kind, body = b"tEXt", name + b"\0" + value.encode("ascii")
    else:
        kind, body = b"iTXt", name + b"\0\0\0\0\0" + value.encode()
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
