"""Views side by side: kernels and pictures' functions release the interpreter's lock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def over(function: Callable[[A], B], items: Iterable[A]) -> list[B]:
    """``[function(item) for item in items]`` on as many threads as the kernels may use."""
    from recon3d.rendering.native import get_num_threads

    items = list(items)
    threads = min(get_num_threads(), len(items))
    if threads < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, items))
