"""How long work tells the user where it is: bars on a terminal, a line a stage elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger("recon3d")

Callback = Callable[[float, float | None], None]
"""Called with how much is done and how much there is (None where that is not known)."""


class Reporter:
    """Shows stages on standard error.

    Parameters
    ----------
    quiet : bool
        Say nothing at all (for `--json` pipelines and tests).
    """

    def __init__(self, quiet: bool = False):
        self.quiet = quiet
        self.terminal = not quiet and sys.stderr.isatty()

    def line(self, text: str) -> None:
        """One line for the user, above any bar."""
        log.info(text)
        if not self.quiet:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def warn(self, text: str) -> None:
        self.line(f"warning: {text}")

    @contextmanager
    def stage(self, name: str) -> Iterator[Callback]:
        """Show one stage; yields the callback that moves its bar."""
        start = time.perf_counter()
        log.debug("stage %s begins", name)
        if self.terminal:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            columns = (
                TextColumn("{task.description:<24}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
            )
            with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
                task = bar.add_task(name, total=None, rate="")

                def move(done: float, total: float | None = None) -> None:
                    rate = done / max(time.perf_counter() - start, 1e-6)
                    bar.update(task, completed=done, total=total, rate=f"{rate:.1f}/s")

                yield move
        else:
            yield lambda done, total=None: None
        self.line(f"{name}: {time.perf_counter() - start:.1f} s")
