"""Views side by side: pictures' functions, kernels and products release the interpreter's lock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def over(function: Callable[[A], B], items: Iterable[A]) -> list[B]:
    """``[function(item) for item in items]`` on as many threads as the kernels may use.

    Results come in the order of the items, so that what is summed of them does not depend on the
    number of threads.
    """
    # importing the kernels takes a while
    from recon3d.rendering.native import run_chunks

    items = list(items)
    results: list = [None] * len(items)

    def one(i: int) -> None:
        results[i] = function(items[i])

    run_chunks(one, len(items))
    return results
