"""Work that several processes share: each does whole jobs, in any order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol


class Source(Protocol):
    """What jobs are done with; it travels to a process before it is opened there."""

    def open(self) -> Source:
        """Read what all jobs need."""

    def write(self, *job) -> None:
        """Do a job."""


def done_by(source: Source, jobs: list[tuple], workers: int) -> Iterator[None]:
    """Do jobs, one by one here or by several processes; yields after each that is done.

    Parameters
    ----------
    source : Source
    jobs : list of tuple
        Arguments of `Source.write`.
    workers : int
        Processes, of one thread each.
    """
    if not jobs:
        return
    if workers <= 1:
        source.open()
        for job in jobs:
            source.write(*job)
            yield
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed

    # Fresh processes: one that is copied while threads run inherits their locks.
    pool = ProcessPoolExecutor(
        min(workers, len(jobs)), multiprocessing.get_context("spawn"), _begin_work, (source,)
    )
    try:
        for future in as_completed([pool.submit(_work, job) for job in jobs]):
            future.result()
            yield
    finally:
        pool.shutdown(cancel_futures=True)


_OWN: dict[str, Source] = {}


def leave_with_parent() -> None:
    """End this process when the one that began it ends, however that was: a killed command leaves
    nobody behind who works on."""
    import multiprocessing
    import os
    import threading
    from multiprocessing.connection import wait

    parent = multiprocessing.parent_process()

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    if parent is not None:
        threading.Thread(target=watch, daemon=True).start()


def one_thread() -> None:
    """Let the libraries use one thread in this process."""
    import cv2
    import torch

    from recon3d.rendering._threads import set_num_threads

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    set_num_threads(1)


def _begin_work(source: Source) -> None:
    leave_with_parent()
    one_thread()
    _OWN["source"] = source.open()


def _work(job: tuple) -> None:
    _OWN["source"].write(*job)
