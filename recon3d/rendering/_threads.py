"""Threads for the Numba kernels.

The kernels release the GIL, so ordinary threads run them side by side. Numba's own parallel
loops are not used: their thread layers differ between machines, may not be entered from two
threads at once, and do not survive a fork.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

_pool: ThreadPoolExecutor | None = None
_pool_key: tuple[int, int] | None = None
_limit: int | None = None


def get_num_threads() -> int:
    """Number of threads that the kernels use.

    The value of `set_num_threads` if it was called, else ``OMP_NUM_THREADS``, else the number of
    cores this process may run on.
    """
    if _limit is not None:
        return _limit
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_num_threads(number: int | None) -> None:
    """Set the number of threads that the kernels use; None returns to the default."""
    global _limit
    if number is not None and number < 1:
        raise ValueError(f"the number of threads must be at least 1, got {number}")
    _limit = number


def run_chunks(work: Callable[[int], None], count: int) -> None:
    """Call ``work(0) ... work(count - 1)``, each once, on as many threads as are allowed.

    The calling thread takes part. An exception of any chunk is raised here.
    """
    helpers = min(get_num_threads(), count) - 1
    if helpers < 1:
        for i in range(count):
            work(i)
        return
    counter = itertools.count()

    def drain() -> None:
        # next() on a counter is atomic under the GIL, so no chunk is taken twice
        while (i := next(counter)) < count:
            work(i)

    pool = _get_pool(get_num_threads())
    futures = [pool.submit(drain) for _ in range(helpers)]
    try:
        drain()
    finally:
        for future in futures:
            # a helper that has not started has nothing left to do (and might, when the pool is
            # busy with callers that wait in the same way, never start)
            if not future.cancel():
                future.result()


def _get_pool(threads: int) -> ThreadPoolExecutor:
    global _pool, _pool_key
    key = (os.getpid(), threads)
    if _pool is None or _pool_key != key:
        _pool = ThreadPoolExecutor(max_workers=max(threads, 1), thread_name_prefix="recon3d")
        _pool_key = key
    return _pool
