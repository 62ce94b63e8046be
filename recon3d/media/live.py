"""Frames of a camera as it films: the newest ones, none waited for, none kept for long."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

from recon3d.errors import InputError
from recon3d.media.inputs import MediaInput
from recon3d.media.reading import PICTURE_RATE, frames_of
from recon3d.types import Frame

_RETRY_S = 1.0


class LiveFrames:
    """Frames of a stream, handed out in order and left out where whoever takes them is too slow.

    A thread decodes as frames come. A few may wait; when one more comes the oldest is dropped, so
    that what is handed out is never older than those few. A video file stands for the camera that
    filmed it: its frames come at the pace at which they were taken.

    A stream that ends or falls silent is opened again, for as long as `patience_s`.

    Parameters
    ----------
    media : MediaInput
        A stream or a video, from `open_inputs`.
    seconds : float, optional
        Stop so long after the first frame.
    waiting : int
        Frames that may wait, which bounds memory and delay.
    patience_s : float
        How long a lost stream is tried again before it counts as ended.
    on_warning : callable taking one line, optional
        Told about what could not be decoded and about streams that were lost.

    Attributes
    ----------
    received, dropped : int
        Frames decoded, and those of them that nobody took in time.
    reopened : int
        Times that the stream was lost and came back.

    Raises
    ------
    InputError
        If the input is neither stream nor video; on iteration, if no frame comes at all.
    """

    def __init__(
        self,
        media: MediaInput,
        *,
        seconds: float | None = None,
        waiting: int = 8,
        patience_s: float = 20.0,
        on_warning: Callable[[str], None] | None = None,
    ):
        if media.kind not in ("stream", "video"):
            raise InputError(f"{media.shown}: neither a stream nor a video, so there is no clock")
        self._media, self._name = media, media.shown
        self._seconds = seconds
        self._waiting: deque[tuple[Frame, float]] = deque()
        self._capacity = max(1, waiting)
        self._patience = patience_s
        self._warn = on_warning or (lambda text: None)
        self._change = threading.Condition()
        self._stopped = threading.Event()
        self._ended = False
        self._error: BaseException | None = None
        self._came = 0.0
        self.received = self.dropped = self.reopened = 0

    def stop(self) -> None:
        """End the iteration; from any thread or a signal's handler."""
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        """Whether the iteration has ended, or was told to."""
        return self._stopped.is_set()

    def delay(self) -> float:
        """Seconds since the frame that was handed out last had come."""
        return time.monotonic() - self._came

    def __iter__(self) -> Iterator[Frame]:
        threading.Thread(target=self._decode, name="recon3d-live", daemon=True).start()
        until = None
        try:
            while True:
                with self._change:
                    while not (self._waiting or self._ended or self._stopped.is_set()):
                        # A signal's handler may not take the lock, so nobody is told of a stop.
                        self._change.wait(0.1)
                    if self._stopped.is_set() or not self._waiting:
                        break
                    frame, self._came = self._waiting.popleft()
                    self._change.notify_all()
                if until is None:
                    until = frame.time + self._seconds if self._seconds else float("inf")
                if frame.time >= until:
                    break
                yield frame
        finally:
            self._stopped.set()
        if self._error is not None:
            raise self._error

    def _decode(self) -> None:
        try:
            self._decode_again_and_again()
        except BaseException as error:
            self._error = error
        finally:
            with self._change:
                self._ended = True
                self._change.notify_all()

    def _decode_again_and_again(self) -> None:
        began = alive = time.monotonic()
        first_index, offset = 0, 0.0
        while not self._stopped.is_set():
            known = self.received
            try:
                with closing(frames_of(self._media, 0, self._warn)) as frames:
                    for frame in frames:
                        self.reopened += self.received == known > 0
                        numbered = replace(
                            frame, index=first_index + frame.index, time=offset + frame.time
                        )
                        if not self._put(numbered, began):
                            return
                first_index = numbered.index + 1
                alive = time.monotonic()
            except InputError:
                # The first connection worked when the input was looked at: it may come back.
                if self._media.kind == "video":
                    raise
            if self._media.kind == "video" or time.monotonic() - alive > self._patience:
                break
            if self.received > known:
                self._warn(f"{self._name}: the stream ended; trying to open it again")
            self._stopped.wait(_RETRY_S)
            # The clock goes on while there is no stream.
            elapsed = time.monotonic() - began
            offset = max(elapsed, numbered.time + 1 / PICTURE_RATE) if self.received else elapsed
        if not self.received and not self._stopped.is_set():
            raise InputError(f"{self._name}: no frame came within {self._patience:g} s")

    def _put(self, frame: Frame, began: float) -> bool:
        if self._media.kind == "video":
            self._stopped.wait(max(0.0, began + frame.time - time.monotonic()))
        with self._change:
            if self._stopped.is_set():
                return False
            self.received += 1
            self._waiting.append((frame, time.monotonic()))
            while len(self._waiting) > self._capacity:
                self._waiting.popleft()
                self.dropped += 1
            self._change.notify_all()
        return True
