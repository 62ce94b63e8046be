"""A picture or a video in, the same restored out."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recon3d.errors import InputError
from recon3d.restoration.auto import ClipRestorer, RestoreSettings, auto_restore
from recon3d.restoration.common import StepReport
from recon3d.restoration.fields import COMB_LIMIT, combing, deinterlace_frames, repair_repeats
from recon3d.restoration.noise import denoise_frames
from recon3d.restoration.superresolution import OnnxUpscaler

NOTICE = "This picture was processed by recon3d and is not what the camera recorded."

_CLOCK = Fraction(1, 90_000)
"""Time base of the videos that are written: every usual frame rate fits it."""

_PICTURES = (".png", ".jpg", ".jpeg")
_VIDEOS = (".mp4", ".mkv", ".mov", ".avi")


class EnhanceSettings(RestoreSettings):
    """What `enhance_path` may do."""

    temporal: bool = Field(
        True, description="Denoise videos along motion over neighbouring frames."
    )
    repair_repeats: bool = Field(
        False, description="Replace frames that repeat the one before by interpolated ones."
    )
    crf: int = Field(16, ge=0, le=51, description="Quality of the video written; less is better.")
    upscaler: str | None = Field(
        None, description="ONNX super-resolution network to enlarge single pictures with."
    )


class EnhanceReport(BaseModel):
    """What was done to a file."""

    model_config = ConfigDict(extra="forbid")

    frames: int = Field(description="Pictures written.")
    acted: dict[str, float] = Field(description="Share of the pictures each step changed.")
    steps: list[StepReport] = Field(description="Reports of the first picture, in order.")
    warnings: list[str] = Field(default_factory=list, description="What was odd in the input.")


def enhance_path(
    source: str | os.PathLike,
    out: str | os.PathLike,
    settings: EnhanceSettings | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> EnhanceReport:
    """Restore a picture or a video file.

    Parameters
    ----------
    source : path
        Picture or video.
    out : path
        Picture (.png, .jpg) or video (.mp4, .mkv, .mov, .avi), as the input. Videos keep their
        times and their sound.
    settings : EnhanceSettings, optional
    progress : callable, optional
        Called with the frames done and their number where it is known.

    Returns
    -------
    EnhanceReport

    Raises
    ------
    InputError
        If the input cannot be read or the output not written; no half file is left.
    """
    from recon3d.media import open_inputs

    settings = settings or EnhanceSettings()
    out = Path(out)
    opened = open_inputs(str(source))
    if len(opened) != 1 or opened[0].kind not in ("image", "video"):
        raise InputError(f"{source}: enhance takes one picture or one video file")
    media = opened[0]
    wanted = _PICTURES if media.kind == "image" else _VIDEOS
    if out.suffix.lower() not in wanted:
        kind = "picture" if media.kind == "image" else "video"
        raise InputError(f"{out}: the input is a {kind}; name an output in {', '.join(wanted)}")
    if out.exists() and os.path.samefile(source, out):
        raise InputError(f"{out}: is the input itself; choose another name")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror})") from None
    if media.kind == "image":
        report = _picture(Path(media.files[0]), out, settings)
        if progress is not None:
            progress(1, 1)
        return report
    return _video(media, out, settings, progress)


def restore_frames(
    frames: Iterable[np.ndarray], settings: EnhanceSettings | None = None
) -> Iterator[tuple[np.ndarray, list[StepReport]]]:
    """Restore the frames of a clip, one for one, holding a few at a time.

    Parameters
    ----------
    frames : iterable of (H, W, 3) uint8 sRGB, one size
    settings : EnhanceSettings, optional

    Yields
    ------
    image, list of StepReport
    """
    settings = settings or EnhanceSettings()
    stream = iter(frames)
    early: deque[StepReport] = deque()
    if settings.deinterlace:
        first = list(islice(stream, 12))
        stream = chain(first, stream)
        # Fields are a property of the recording; a still frame of it shows no combs.
        combed = sum(combing(frame) > COMB_LIMIT for frame in first)
        if combed >= max(2, len(first) // 4):
            stream = deinterlace_frames(stream)
    if settings.repair_repeats:
        stream = (image for image, _ in repair_repeats(stream))
    temporal = settings.temporal and settings.denoise
    if temporal:
        stream = _noted(denoise_frames(stream), early)
    fields = set(RestoreSettings.model_fields)
    kept = settings.model_dump(include=fields)
    kept.update(deinterlace=False, denoise=settings.denoise and not temporal)
    restorer = ClipRestorer(RestoreSettings(**kept))
    for frame in stream:
        image, reports = restorer(frame)
        yield image, ([early.popleft()] if temporal else []) + reports


def _noted(pairs, notes: deque) -> Iterator[np.ndarray]:
    for image, report in pairs:
        notes.append(report)
        yield image


def _picture(source: Path, out: Path, settings: EnhanceSettings) -> EnhanceReport:
    from recon3d.media import read_picture, write_png

    upscaler = OnnxUpscaler.load(settings.upscaler) if settings.upscaler else None
    fields = set(RestoreSettings.model_fields)
    image, reports = auto_restore(
        read_picture(source),
        RestoreSettings(**settings.model_dump(include=fields)),
        upscaler=upscaler,
    )
    if out.suffix.lower() == ".png":
        write_png(out, image, {"recon3d:notice": NOTICE})
    else:
        _, data = cv2.imencode(
            ".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 95]
        )
        temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
        try:
            temporary.write_bytes(data.tobytes())
            os.replace(temporary, out)
        except OSError as error:
            raise InputError(f"{out}: cannot be written ({error.strerror or error})") from None
        finally:
            temporary.unlink(missing_ok=True)
    return EnhanceReport(frames=1, acted={r.step: float(r.acted) for r in reports}, steps=reports)


def _video(media, out: Path, settings: EnhanceSettings, progress) -> EnhanceReport:
    import av

    temporary = out.with_name(f".{out.stem}.{os.getpid()}.tmp{out.suffix}")
    warnings: list[str] = []
    acted: Counter = Counter()
    first: list[StepReport] = []
    count = 0
    try:
        with _Muxer(media.files[0], temporary, out, media.fps or 25.0, settings.crf) as muxer:
            times: deque[float] = deque()
            frames = _timed(media, times, warnings.append)
            for image, reports in restore_frames(frames, settings):
                muxer.write(image, times.popleft())
                acted.update(r.step for r in reports if r.acted)
                first = first or reports
                count += 1
                if progress is not None:
                    progress(count, media.n_frames)
        if not count:
            raise InputError(f"{media.shown}: nothing in it could be decoded")
        os.replace(temporary, out)
    except av.error.FFmpegError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror})") from None
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror or error})") from None
    finally:
        temporary.unlink(missing_ok=True)
    shares = {step: n / count for step, n in sorted(acted.items())}
    return EnhanceReport(frames=count, acted=shares, steps=first, warnings=warnings)


def _timed(media, times: deque, on_warning) -> Iterator[np.ndarray]:
    from recon3d.media import iterate_frames

    for frame in iterate_frames([media], on_warning=on_warning):
        times.append(frame.time)
        yield frame.image


class _Muxer:
    """Writes restored pictures at their old times and copies the sound packets between them."""

    def __init__(self, source: str, temporary: Path, out: Path, fps: float, crf: int):
        self.source, self.temporary, self.out, self.fps, self.crf = (
            source, temporary, out, fps, crf,
        )  # fmt: skip
        self._container = self._video = self._input = None
        self._sound: Iterator | None = None
        self._waiting = None
        self._last = -1

    def __enter__(self) -> _Muxer:
        return self

    def write(self, image: np.ndarray, time: float) -> None:
        import av

        if self._container is None:
            self._open(image.shape[1], image.shape[0])
        padded = np.pad(
            image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)), mode="edge"
        )
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24")
        # Times must rise, whatever a broken file says.
        self._last = max(self._last + 1, round(time / _CLOCK))
        frame.pts, frame.time_base = self._last, _CLOCK
        self._copy_sound(until=time + 0.5)
        self._container.mux(self._video.encode(frame))

    def __exit__(self, kind, error, trace) -> None:
        if self._container is not None:
            try:
                if kind is None:
                    self._container.mux(self._video.encode(None))
                    self._copy_sound(until=float("inf"))
            finally:
                self._container.close()
        if self._input is not None:
            self._input.close()

    def _open(self, width: int, height: int) -> None:
        import av

        self._container = av.open(str(self.temporary), "w")
        rate = Fraction(self.fps).limit_denominator(1001)
        self._video = self._container.add_stream("libx264", rate=rate)
        self._video.width, self._video.height = width + width % 2, height + height % 2
        self._video.pix_fmt = "yuv420p"
        self._video.codec_context.time_base = _CLOCK
        self._video.options = {"crf": str(self.crf), "preset": "medium"}
        self._input = av.open(str(self.source))
        if not self._input.streams.audio:
            return
        stream = self._input.streams.audio[0]
        try:
            copy = self._container.add_stream_from_template(stream)
        except (ValueError, av.error.FFmpegError):
            raise InputError(
                f"{self.out}: sound of the kind {stream.codec_context.name} does not go into "
                f"{self.out.suffix}; name an .mkv instead"
            ) from None
        picture = self._input.streams.video[0]
        origin = float((picture.start_time or 0) * picture.time_base)

        def packets():
            for packet in self._input.demux(stream):
                if packet.pts is None:
                    continue
                # Pictures are timed from the first of them, and so is the sound.
                shift = round(origin / packet.time_base)
                packet.pts -= shift
                packet.dts = packet.pts if packet.dts is None else packet.dts - shift
                moment = float(packet.pts * packet.time_base)
                if moment >= 0:
                    packet.stream = copy
                    yield moment, packet

        self._sound = packets()
        self._waiting = next(self._sound, None)

    def _copy_sound(self, until: float) -> None:
        # Written as the pictures go: a muxer that got one stream first would hold it in memory.
        while self._waiting is not None and self._waiting[0] <= until:
            self._container.mux(self._waiting[1])
            self._waiting = next(self._sound, None)
