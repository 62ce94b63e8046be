"""A stream watched as it comes: faces followed in real time, the reconstruction brought up to date
beside it, and finished when the stream ends.

Following faces is quick enough for a camera's pace, reconstructing is not. So the tracker keeps the
best views of everybody, within bounds that do not grow; another process makes tracks, meshes and
pictures of what there is, whenever it is through with what there was; and at the end the main job
does it once more with everything that was seen.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from recon3d import pipeline
from recon3d.errors import NoFaceError, Recon3DError
from recon3d.media import LiveFrames, MediaInput, open_inputs
from recon3d.progress import Reporter
from recon3d.settings import RunSettings
from recon3d.tracking import FaceTracker, SeenFace, TrackerState
from recon3d.types import Frame

PICTURE_EVERY_S = 0.5
LINE_EVERY_S = 10.0
_REMEMBERED = 1500
"""Frames over which rates and delays are taken."""


@dataclass
class LiveFigures:
    """How well a stream was kept up with.

    Attributes
    ----------
    frames : int
        Frames looked at.
    seconds : float
        Since the first of them.
    updates : int
        Reconstructions finished meanwhile.
    """

    frames: int = 0
    seconds: float = 0.0
    updates: int = 0
    _at: deque = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    _delays: deque = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    _began: float | None = None

    def count(self, delay: float) -> None:
        """Note a frame that was looked at, so many seconds after it came."""
        now = time.monotonic()
        self._began = now if self._began is None else self._began
        self.frames += 1
        self.seconds = now - self._began
        self._at.append(now)
        self._delays.append(delay)

    def rate(self) -> float:
        """Frames a second, lately."""
        span = self._at[-1] - self._at[0] if len(self._at) > 1 else 0.0
        return (len(self._at) - 1) / span if span > 0 else 0.0

    def delay_ms(self, share: float = 0.5) -> float:
        """Quantile of how long after its coming a frame was done with, lately."""
        return 1e3 * float(np.quantile(self._delays, share)) if self._delays else 0.0


class LiveSession:
    """Watch one stream and reconstruct who is in it.

    Parameters
    ----------
    source : str or MediaInput
        Address of a stream, a camera's device, or a video that stands for one.
    out : Path
        Folder for the results; as that of `recon3d run`, with ``live.html`` and ``live.jpg``.
    settings : RunSettings, optional
    seconds : float, optional
        Watch for so long; until the stream ends or `stop` without.
    every_s : float
        Least time between reconstructions while watching; 0 for none before the end.
    waiting : int
        Frames that may wait to be looked at; more are left out.
    permissive_only : bool
        Refuse models and weights whose licence restricts their use.
    reporter : Reporter, optional

    Raises
    ------
    InputError
        If the source cannot be opened or has no clock, or the folder cannot be written.
    """

    def __init__(
        self,
        source: str | MediaInput,
        out: Path,
        settings: RunSettings | None = None,
        *,
        seconds: float | None = None,
        every_s: float = 20.0,
        waiting: int = 8,
        permissive_only: bool = False,
        reporter: Reporter | None = None,
    ):
        self.settings = settings or RunSettings()
        self.reporter = reporter or Reporter(quiet=True)
        self.out = Path(out)
        (self.media,) = open_inputs([source])
        self.frames = LiveFrames(
            self.media, seconds=seconds, waiting=waiting, on_warning=self._warn
        )
        self.every_s = every_s
        self.permissive_only = permissive_only
        self.figures = LiveFigures()
        self.warnings: list[str] = []
        # What is wrong with the call is said now and not when the stream has ended.
        pipeline.load_parts(self.settings, [], permissive_only)
        pipeline.prepare_folder(self.out)

    def stop(self) -> None:
        """End the watching, not the job: what was seen is reconstructed. From anywhere."""
        self.frames.stop()

    @property
    def stopped(self) -> bool:
        """Whether the watching is over, or about to be."""
        return self.frames.stopped

    def run(self) -> pipeline.RunResult:
        """Watch until the end, then do the main job with all that was seen.

        Raises
        ------
        NoFaceError
            If nobody was seen; report and manifest say so.
        InputError
            If no frame came.
        """
        from recon3d.viewing import write_live_page

        write_live_page(self.out, self.media.shown, self.settings.max_tracks)
        embedder = pipeline.optional_embedder([])
        with FaceTracker(self.settings.tracking, embedder=embedder) as tracker:
            # The first look at anything is slow: not while the stream waits.
            tracker.warm_up((self.media.height, self.media.width))
            updates = self._updates()
            try:
                self._watch(tracker, updates)
            finally:
                if updates is not None:
                    self.figures.updates = updates.finished
                    updates.close()
            with self.reporter.stage("looking again"):
                found = tracker.result()
        return pipeline.run(
            [self.media],
            self.out,
            self.settings,
            permissive_only=self.permissive_only,
            reporter=self.reporter,
            tracked=found,
            notes={"live": self.summary()},
        )

    def summary(self) -> dict:
        """What the manifest says of the watching, JSON-able."""
        figures, frames = self.figures, self.frames
        return {
            "seconds": round(figures.seconds, 1),
            "frames_received": frames.received,
            "frames_looked_at": figures.frames,
            "frames_left_out": frames.dropped,
            "frames_per_second": round(figures.rate(), 2),
            "delay_ms_median": round(figures.delay_ms(), 1),
            "delay_ms_95": round(figures.delay_ms(0.95), 1),
            "stream_reopened": frames.reopened,
            "updates": figures.updates,
            "warnings": self.warnings,
        }

    def _updates(self) -> Updates | None:
        if not self.every_s:
            return None
        return Updates(self.media, self.out, self.settings, self.permissive_only)

    def _watch(self, tracker: FaceTracker, updates: Updates | None) -> None:
        picture, line = Due(PICTURE_EVERY_S), Due(LINE_EVERY_S)
        update = Due(self.every_s, at_once=False)
        for frame in self.frames:
            faces = tracker.step(frame)
            self.figures.count(self.frames.delay())
            if picture():
                self._draw(frame, faces)
            if line():
                self.reporter.line(f"{self.figures.seconds:.0f} s: {self._line(faces)}")
            if updates is None:
                continue
            for text in updates.news():
                self.reporter.line(text)
            if updates.idle and update():
                updates.begin(tracker.state())

    def _line(self, faces: list[SeenFace]) -> str:
        share = 100 * self.frames.dropped / max(self.frames.received, 1)
        people = "no face" if not faces else f"{len(faces)} face" + "s" * (len(faces) > 1)
        return (
            f"{self.figures.rate():.1f} frames/s, {share:.1f} % left out, "
            f"{self.figures.delay_ms():.0f} ms behind, {people}"
        )

    def _draw(self, frame: Frame, faces: list[SeenFace]) -> None:
        from recon3d.viewing import draw_live, write_live

        write_live(self.out, draw_live(frame.image, faces, self._line(faces)))

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)
        self.reporter.warn(text)


class Due:
    """Says once in a while that something is due.

    Parameters
    ----------
    every_s : float
    at_once : bool
        Whether it is due the first time, or that long after it.
    """

    def __init__(self, every_s: float, at_once: bool = True):
        self.every_s = every_s
        self._last = -np.inf if at_once else time.monotonic()

    def __call__(self) -> bool:
        now = time.monotonic()
        if now - self._last < self.every_s:
            return False
        self._last = now
        return True


class Updates:
    """Reconstructions in a process beside the watching, one at a time.

    Attributes
    ----------
    idle : bool
        Whether it can take another state.
    finished : int
        Reconstructions written.
    """

    def __init__(
        self, media: MediaInput, out: Path, settings: RunSettings, permissive_only: bool = False
    ):
        import multiprocessing

        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(
            target=_keep_up_to_date,
            args=(other, media, out, settings, permissive_only),
            name="recon3d-updates",
            daemon=True,
        )
        self._process.start()
        other.close()
        self._lost = False
        self._known: frozenset = frozenset()
        self.idle = True
        self.finished = 0

    def begin(self, state: TrackerState) -> bool:
        """Reconstruct what was gathered, unless nothing is new; whether it was begun."""
        if not self.idle or not state.views or state.views == self._known:
            return False
        self._known = state.views
        self.idle = False
        # Large: from a thread, so that no frame is missed while it is handed over.
        threading.Thread(target=self._send, args=(state,), daemon=True).start()
        return True

    def news(self) -> list[str]:
        """Lines about what has happened since it was last asked."""
        lines = []
        try:
            while not self._lost and self._pipe.poll():
                done, text = self._pipe.recv()
                self.finished += done
                self.idle = True
                lines.append(text)
        except (EOFError, OSError):
            self._lost, self.idle = True, False
            lines.append("warning: updates have ended; the result is made when the stream ends")
        return lines

    def close(self) -> None:
        """End the process; what it has written is whole."""
        self._process.terminate()
        self._process.join(10)
        self._pipe.close()

    def _send(self, state: TrackerState) -> None:
        # A process that is gone is noticed where it is listened to.
        with contextlib.suppress(OSError, ValueError):
            self._pipe.send(state)


def _keep_up_to_date(pipe, media: MediaInput, out: Path, settings: RunSettings, permissive) -> None:
    """The other process: a state comes, a line goes back."""
    import os
    import signal

    from recon3d.workers import leave_with_parent, one_thread

    # Ctrl-C is for the process that watches; told to end, this one tidies up first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    leave_with_parent()
    os.nice(10)
    one_thread()
    with FaceTracker(settings.tracking, embedder=pipeline.optional_embedder([])) as tracker:

        def update(state: TrackerState) -> str:
            start = time.monotonic()
            found = tracker.result(state)
            if not found.tracks:
                raise NoFaceError("nobody was seen for long enough")
            notes = {"live": {"so_far": True, "frames_looked_at": state.n_frames}}
            made = pipeline.run(
                [media], out, settings, permissive_only=permissive, tracked=found, notes=notes
            )
            people = "; ".join(
                f"{t['path']} from {t['views']} views" for t in made.manifest["tracks"]
            )
            return f"reconstructed in {time.monotonic() - start:.0f} s: {people}"

        while True:
            try:
                state = pipe.recv()
            except EOFError:
                return
            try:
                answer = True, update(state)
            except Recon3DError as error:
                answer = False, f"not reconstructed yet: {error}"
            except Exception as error:
                answer = False, f"warning: an update failed ({type(error).__name__}: {error})"
            pipe.send(answer)
