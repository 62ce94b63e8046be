"""How long work tells the user where it is: bars on a terminal, a line a stage elsewhere."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger("recon3d")

Callback = Callable[[float, float | None], None]
"""Called with how much is done and how much there is (None where that is not known)."""

UNITS = {"tracking": "frames", "scoring": "cases", "reconstructing": "cases"}
"""What a stage counts, by the first word of its name; the others count steps of their own."""

_LOG_EVERY_S = 5.0
_SHOWN = {"shown": True}
"""Marks a log record that the user has already seen on standard error."""


class Reporter:
    """Shows stages on standard error.

    On a terminal each stage has a bar with its name, its rate (frames per second where it counts
    frames), and the time gone and left; it leaves one line. Elsewhere there is only that line.

    Parameters
    ----------
    quiet : bool
        Say nothing at all (for `--json` pipelines and tests). The log is written all the same.
    console : rich.console.Console, optional
        Where bars are drawn; standard error if it is a terminal, otherwise none are.
    """

    def __init__(self, quiet: bool = False, console: Console | None = None):
        self.quiet = quiet
        self.terminal = not quiet and (console is not None or sys.stderr.isatty())
        self._console = console
        self._live = False

    def line(self, text: str) -> None:
        """One line for the user, above any bar."""
        log.info(text, extra={} if self.quiet else _SHOWN)
        if self.quiet:
            return
        if self._live:
            self._bars().print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def warn(self, text: str) -> None:
        self.line(f"warning: {text}")

    @contextmanager
    def stage(self, name: str) -> Iterator[Callback]:
        """Show one stage; yields the callback that moves its bar.

        A stage that raises leaves no line: what went wrong is said elsewhere.
        """
        start = last = time.perf_counter()
        unit = UNITS.get(name.split()[0]) if name else None
        state = {"done": 0.0, "total": None}
        log.debug("%s begins", name)

        def note(done: float, total: float | None = None) -> None:
            nonlocal last
            state.update(done=done, total=total)
            now = time.perf_counter()
            if now - last > _LOG_EVERY_S:
                last = now
                of = "" if total is None else f" of {total:g}"
                log.debug("%s: %g%s after %.0f s", name, done, of, now - start)

        if self.terminal:
            with self._bar(name, unit) as move:

                def both(done: float, total: float | None = None) -> None:
                    note(done, total)
                    move(done, total)

                yield both
        else:
            yield note
        seconds = time.perf_counter() - start
        rate = ""
        if unit == "frames" and state["done"] and seconds > 0.05:
            rate = f", {state['done'] / seconds:.1f} frames/s"
        self.line(f"{name}: {seconds:.1f} s{rate}")

    @contextmanager
    def _bar(self, name: str, unit: str | None) -> Iterator[Callback]:
        from rich.progress import (
            BarColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            SpinnerColumn("line"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
        )
        start = time.perf_counter()
        with Progress(*columns, console=self._bars(), transient=True) as bars:
            task = bars.add_task(f"{name:<12}", total=None, count="")
            self._live = True

            def move(done: float, total: float | None = None) -> None:
                count = f"{100 * done / total:3.0f} %" if total else ""
                if unit is not None:
                    rate = done / max(time.perf_counter() - start, 1e-6)
                    of = f"/{total:g}" if total else ""
                    count = f"{done:g}{of} {unit}, {rate:.1f}/s"
                bars.update(task, completed=done, total=total, count=count)

            try:
                yield move
            finally:
                self._live = False

    def _bars(self) -> Console:
        if self._console is None:
            from rich.console import Console

            self._console = Console(stderr=True)
        return self._console


def configure_logging(verbose: bool = False, log_file: str | os.PathLike | None = None) -> None:
    """What `-v` and `--log-file` do.

    Parameters
    ----------
    verbose : bool
        Write every log record that was not shown anyway to standard error.
    log_file : path-like, optional
        Write all of them, with times, to this file as well.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    from recon3d.errors import InputError

    log.setLevel(logging.DEBUG if verbose or log_file else logging.WARNING)
    for handler in log.handlers:
        handler.close()
    log.handlers.clear()
    if verbose:
        screen = logging.StreamHandler()
        screen.addFilter(lambda record: not getattr(record, "shown", False))
        log.addHandler(screen)
    if log_file is not None:
        try:
            handler = logging.FileHandler(Path(log_file), encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot write --log-file {log_file}: {error.strerror}") from error
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
        log.addHandler(handler)
