"""Decoding, one frame at a time, a few frames ahead of whoever asks."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import cv2
import numpy as np

from recon3d.errors import InputError
from recon3d.media.inputs import MediaInput, shown_path
from recon3d.media.pictures import picture_focal, read_picture
from recon3d.types import Frame

SILENCE_S = 10.0
"""A stream from which nothing comes for so long has ended."""
PICTURE_RATE = 25.0
"""Nominal rate that gives pictures without a clock their times, 1/s."""


def iterate_frames(
    inputs: Sequence[MediaInput],
    *,
    on_warning: Callable[[str], None] | None = None,
    ahead: int = 6,
    max_frames: int | None = None,
) -> Iterator[Frame]:
    """Decode all inputs, one after the other, in a thread that runs a few frames ahead.

    Parameters
    ----------
    inputs : sequence of MediaInput, from `open_inputs`
    on_warning : callable taking one line, optional
        Told about what could not be decoded.
    ahead : int
        Frames that may wait decoded: the bound on memory, whatever the length of the clip.
    max_frames : int, optional
        Stop each input after so many (streams have no end).

    Yields
    ------
    Frame
        Upright, with `source` the number of the input.

    Raises
    ------
    InputError
        If an input that could be opened yields no frame at all.
    """
    waiting: queue.Queue = queue.Queue(max(1, ahead))
    stop = threading.Event()
    end = object()

    def put(item) -> bool:
        while not stop.is_set():
            try:
                waiting.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for source, media in enumerate(inputs):
                with closing(frames_of(media, source, on_warning)) as frames:
                    for number, frame in enumerate(frames):
                        if max_frames is not None and number >= max_frames:
                            break
                        if not put(frame):
                            return
            put(end)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=work, name="recon3d-decode", daemon=True)
    thread.start()
    try:
        while (item := waiting.get()) is not end:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join(timeout=5)


def open_container(path: str):
    """Open a video file or stream with PyAV.

    Raises
    ------
    InputError
        If it is not a video, or cut off before its index.
    """
    import av

    options: dict[str, str] = {"rtsp_transport": "tcp"} if path.startswith("rtsp") else {}
    form = "v4l2" if path.startswith("/dev/video") else None
    # Text of any kind opens as a teletext-like "tty" or subtitle file: no picture is in there.
    # A camera that has fallen silent would hold everything up for good.
    timeout = SILENCE_S if "://" in path and not path.startswith("file:") else None
    try:
        container = av.open(path, format=form, options=options, timeout=timeout)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{shown_path(path)}: {_why_closed(path, error)}") from None
    textual = container.format.name in ("tty", "ass", "srt", "webvtt", "bin", "xbin", "idf", "adf")
    if not container.streams.video or textual:
        container.close()
        raise InputError(f"{shown_path(path)}: not a picture or video")
    return container


def decode_video(
    path: str, on_warning: Callable[[str], None] | None
) -> Iterator[tuple[np.ndarray, float | None]]:
    """Upright RGB pictures of a video and their times in seconds (None where it has none)."""
    import av

    broken, count = 0, 0
    ended_early = ""
    with open_container(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        declared = stream.frames
        start = stream.start_time or 0
        # Containers without a frame count still say how long they should be.
        length = container.duration / 1e6 if container.duration and not declared else 0.0
        reached = 0.0
        packets = container.demux(stream)
        while True:
            packet = None
            try:
                packet = next(packets)
            except StopIteration:
                break
            except (av.error.FFmpegError, OSError) as error:
                ended_early = str(getattr(error, "strerror", error))
            try:
                # What the decoder still holds back of a stream that broke off is good.
                frames = (
                    packet.decode() if packet is not None else stream.codec_context.decode(None)
                )
            except av.error.EOFError:
                break
            except av.error.FFmpegError:
                broken += 1
                if packet is None:
                    break
                continue
            for frame in frames:
                seconds = None
                if frame.pts is not None and frame.time_base:
                    seconds = float((frame.pts - start) * frame.time_base)
                    reached = max(reached, seconds)
                count += 1
                yield _upright_rgb(frame, stream), seconds
            if packet is None:
                break
    if on_warning is None:
        return
    short = count < declared if declared else reached < 0.9 * length - 1.0
    if ended_early or broken or short:
        parts = [f"{count} of {declared} frames" if declared else f"{count} frames"]
        if broken:
            parts.append(f"{broken} broken packets left out")
        if ended_early:
            parts.append(f"reading ended early: {ended_early}")
        using = f"damaged or cut off; using what decodes ({', '.join(parts)})"
        on_warning(f"{shown_path(path)}: {using}")


def frames_of(media: MediaInput, source: int, on_warning) -> Iterator[Frame]:
    pictures = media.kind in ("image", "folder", "glob")
    decode = (
        _decode_pictures(media, on_warning)
        if pictures
        else decode_video(media.files[0], on_warning)
    )
    rate = media.fps or PICTURE_RATE
    count, last = 0, -1.0
    with closing(decode):
        for index, (image, seconds, *focal) in enumerate(decode):
            # Broken streams jump back in time; later stages want a clock that runs forward.
            time = index / rate if seconds is None or seconds < last else seconds
            last = max(last, time)
            count += 1
            yield Frame(image, index, time, source, not pictures, *focal)
    if not count:
        raise InputError(f"{media.shown}: nothing in it could be decoded")


def _decode_pictures(
    media: MediaInput, on_warning
) -> Iterator[tuple[np.ndarray, None, float | None]]:
    for file in media.files:
        try:
            image = read_picture(file)
            yield image, None, picture_focal(file, image.shape[1::-1])
        except InputError as error:
            if on_warning is not None:
                on_warning(f"{error}; left out")


def _upright_rgb(frame, stream) -> np.ndarray:
    image = frame.to_ndarray(format="rgb24")
    aspect = frame.sample_aspect_ratio if hasattr(frame, "sample_aspect_ratio") else None
    aspect = aspect or stream.sample_aspect_ratio
    if aspect and aspect != 1 and 0.2 < float(aspect) < 5:
        # Oblong pixels would make oblong heads: enlarge the shorter axis.
        height, width = image.shape[:2]
        ratio = float(aspect)
        size = (round(width * ratio), height) if ratio > 1 else (width, round(height / ratio))
        image = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
    quarter_turns = round(float(getattr(frame, "rotation", 0) or 0) / 90) % 4
    if quarter_turns:
        image = np.rot90(image, quarter_turns)
    return np.ascontiguousarray(image)


def _why_closed(path: str, error: Exception) -> str:
    message = str(getattr(error, "strerror", None) or error)
    if os.path.isfile(path):
        with open(path, "rb") as file:
            head = file.read(12)
        if head[4:8] == b"ftyp":
            return "the video is cut off before its index (moov), or damaged; nothing decodes"
        return "not a picture or video"
    return f"cannot be opened ({message})"
