"""What the user names on the command line, looked at before any work is done."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from recon3d.errors import InputError
from recon3d.media.pictures import PICTURE_SUFFIXES, picture_size, read_picture


@dataclass(frozen=True)
class MediaInput:
    """One input, that is: one camera.

    Attributes
    ----------
    path : str
        As given.
    shown : str
        The same, as it may be shown: without a password that an address carries.
    kind : str
        ``video``, ``image``, ``folder``, ``glob`` or ``stream``.
    sha256 : str
        Of the file's bytes; of the names and digests of its files for a folder or glob; empty for a
        stream.
    width, height : int
        Upright size of its first picture in px.
    fps : float or None
        Nominal rate; None for pictures.
    n_frames : int or None
        None where the container does not say.
    files : tuple of str
        The files read, in order.
    """

    path: str
    kind: str
    sha256: str
    width: int
    height: int
    fps: float | None
    n_frames: int | None
    files: tuple[str, ...]

    @property
    def shown(self) -> str:
        return shown_path(self.path)


def open_inputs(
    paths: Iterable[str | os.PathLike | MediaInput] | str | os.PathLike,
) -> list[MediaInput]:
    """Check and describe inputs.

    Parameters
    ----------
    paths : paths of videos, pictures, folders of pictures, globs, or stream addresses
        Each is one camera; those that were opened before are handed on. ``rtsp://...`` and the
        like, and ``/dev/video0``, are streams. A folder that holds no picture but one video is that
        video.

    Returns
    -------
    list of MediaInput, in the order given

    Raises
    ------
    InputError
        If one is missing, empty, neither picture nor video, or nothing in it can be decoded.
    """
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    inputs = [p if isinstance(p, MediaInput) else _open(os.fspath(p)) for p in paths]
    if not inputs:
        raise InputError("no input was given; name a video, a picture, a folder or a glob")
    return inputs


_LOGIN = re.compile(r"^([a-zA-Z][a-zA-Z0-9+.-]*://[^/@:]*):(?!\d{1,5}(?:[/?#]|$)).*@")
"""A name and a password before a host; digits up to a slash are a port."""
_SECRET = re.compile(r"(?i)((?:^|[/?&;_])(?:pass(?:word|wd|code)?|pwd|token|secret)=)[^&;#]*")
"""What many cameras and recorders want among the words behind the host."""


def shown_path(path: str) -> str:
    """A path or address as it may be shown: without the password that an address may carry.

    Examples
    --------
    >>> shown_path("rtsp://admin:secret@10.0.0.7/door")
    'rtsp://admin:***@10.0.0.7/door'
    >>> shown_path("http://10.0.0.7/video?user=admin&pwd=secret&channel=1")
    'http://10.0.0.7/video?user=admin&pwd=***&channel=1'
    """
    if "://" not in path:
        return path
    return _SECRET.sub(r"\1***", _LOGIN.sub(r"\1:***@", path))


def _open(path: str) -> MediaInput:
    if re.match(r"^[a-zA-Z][a-zA-Z0-9+.-]+://", path) or _is_device(path):
        return _probe_stream(path)
    if os.path.isdir(path):
        return _open_folder(path)
    if not os.path.exists(path):
        if any(letter in path for letter in "*?["):
            files = _natural(file for file in glob.glob(path, recursive=True) if _is_picture(file))
            if not files:
                raise InputError(f"{path}: no picture matches this pattern")
            return _open_pictures(path, "glob", files)
        raise InputError(f"{path}: no such file or folder")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: cannot be read (permission denied)")
    if os.path.getsize(path) == 0:
        raise InputError(f"{path}: the file is empty")
    return _open_pictures(path, "image", [path]) if _is_picture(path) else _probe_video(path)


def _open_folder(path: str) -> MediaInput:
    entries = [os.path.join(path, name) for name in os.listdir(path) if not name.startswith(".")]
    pictures = _natural(entry for entry in entries if _is_picture(entry) and os.path.isfile(entry))
    if pictures:
        return _open_pictures(path, "folder", pictures)
    videos = []
    for entry in _natural(entry for entry in entries if os.path.isfile(entry)):
        try:
            videos.append(_probe_video(entry))
        except InputError:
            continue
    if len(videos) == 1:
        return videos[0]
    if videos:
        raise InputError(
            f"{path}: the folder holds {len(videos)} videos; name each as an input of its own"
        )
    raise InputError(f"{path}: the folder holds no picture and no video")


def _open_pictures(path: str, kind: str, files: Sequence[str]) -> MediaInput:
    size = None
    for file in files:
        try:
            # The header alone can lie about a damaged file, so the first one is decoded.
            read_picture(file)
            size = picture_size(file)
            break
        except InputError:
            if kind == "image":
                raise
    if size is None:
        raise InputError(f"{path}: none of its {len(files)} picture files can be decoded")
    if kind == "image":
        digest = _sha256(files[0])
    else:
        lines = "".join(f"{_sha256(file)}  {os.path.basename(file)}\n" for file in files)
        digest = hashlib.sha256(lines.encode()).hexdigest()
    return MediaInput(path, kind, digest, *size, None, len(files), tuple(files))


def _probe_video(path: str) -> MediaInput:
    width, height, fps, n_frames = _probe(path)
    return MediaInput(path, "video", _sha256(path), width, height, fps, n_frames, (path,))


def _probe_stream(path: str) -> MediaInput:
    width, height, fps, _ = _probe(path)
    return MediaInput(path, "stream", "", width, height, fps, None, (path,))


def _probe(path: str) -> tuple[int, int, float | None, int | None]:
    """Decode one frame: upright width, height, nominal rate, number of frames."""
    from recon3d.media.reading import decode_video, open_container

    with open_container(path) as container:
        stream = container.streams.video[0]
        rate = stream.average_rate or stream.guessed_rate or stream.base_rate
        fps = float(rate) if rate else None
        n_frames = stream.frames or None
        if n_frames is None and fps and stream.duration and stream.time_base:
            n_frames = round(float(stream.duration * stream.time_base) * fps) or None
    frames = decode_video(path, on_warning=None)
    try:
        image, _ = next(frames)
    except StopIteration:
        raise InputError(f"{shown_path(path)}: no frame of this video can be decoded") from None
    finally:
        frames.close()
    return image.shape[1], image.shape[0], fps, n_frames


def _is_picture(path: str) -> bool:
    return Path(path).suffix.lower() in PICTURE_SUFFIXES


def _is_device(path: str) -> bool:
    try:
        return stat.S_ISCHR(os.stat(path).st_mode) and path.startswith("/dev/video")
    except OSError:
        return False


def _natural(files: Iterable[str]) -> list[str]:
    """Sort so that frame 10 comes after frame 9."""

    def key(file: str):
        parts = re.split(r"(\d+)", file)
        return [(int(part), "") if part.isdigit() else (-1, part) for part in parts], file

    return sorted(files, key=key)


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
