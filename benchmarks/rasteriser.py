"""Milliseconds a view of every rasteriser that is present.

    python benchmarks/rasteriser.py [--sizes 128 256 512] [--triangles 2000 20000 100000]
                                    [--repeats 15] [--budget 20] [--markdown FILE]

One view of a bumpy closed surface that fills about 70 % of the picture; forward is
`rasterise`, forward+backward adds the interpolation of three attributes and the gradient of a
weighted sum down to the vertices, and the last columns add the antialiasing of outlines. The
minimum over repeats is printed, because whatever else the machine does only ever adds to a time.
A cell whose first call alone takes longer than the budget is measured by that call.
"""

from __future__ import annotations

import argparse
import functools
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from recon3d.rendering import (
    antialias,
    available_backends,
    get_rasteriser,
    interpolate_attributes,
    rasterise,
)


def surface(triangles: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A bumpy sphere of 85 mm with about that many triangles, (V, 3) mm and (F, 3)."""
    rings = max(3, round((triangles / 4) ** 0.5))
    around = 2 * rings
    polar, azimuth = np.meshgrid(
        np.linspace(0.02, np.pi - 0.02, rings + 1),
        np.arange(around) / around * 2 * np.pi,
        indexing="ij",
    )
    radius = 85 + 4 * np.sin(5 * polar) * np.cos(6 * azimuth)
    vertices = np.stack(
        [
            radius * np.sin(polar) * np.cos(azimuth),
            radius * np.cos(polar),
            radius * np.sin(polar) * np.sin(azimuth),
        ],
        -1,
    ).reshape(-1, 3)
    row, col = np.mgrid[0:rings, 0:around]
    a = (row * around + col).ravel()
    b = (row * around + (col + 1) % around).ravel()
    faces = np.concatenate(
        [np.stack([a, b, b + around], -1), np.stack([a, b + around, a + around], -1)]
    )
    return torch.tensor(vertices, dtype=torch.float32), torch.tensor(faces)


def milliseconds(function: Callable[[], object], repeats: int, budget: float) -> float:
    start = time.perf_counter()
    function()
    first = time.perf_counter() - start
    if first > budget:
        return 1e3 * first
    best, spent = float("inf"), 0.0
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        elapsed = time.perf_counter() - start
        best, spent = min(best, elapsed), spent + elapsed
        if spent > budget:
            break
    return 1e3 * best


@functools.cache
def warm_up(backend: str) -> None:
    """Compile and load everything once, on a small picture."""
    vertices, faces = surface(200)
    vertices.requires_grad_()
    K, R = torch.tensor([[60.0, 0, 12], [0, 60, 12], [0, 0, 1]]), torch.eye(3)
    t = torch.tensor([0.0, 0.0, 480.0])
    fragments = rasterise(vertices, faces, K, R, t, (24, 24), get_rasteriser(backend))
    image = interpolate_attributes(fragments, vertices, faces)
    antialias(image, fragments, vertices, faces, K, R, t).sum().backward()


def measure(backend: str, size: int, triangles: int, repeats: int, budget: float):
    """Forward, forward+backward, the same with antialiasing (ms), and the covered share."""
    vertices, faces = surface(triangles)
    warm_up(backend)
    focal = 2.6 * size
    K = torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
    R, t = torch.eye(3), torch.tensor([0.0, 0.0, 480.0])
    member = get_rasteriser(backend)
    attributes = torch.rand(len(vertices), 3, generator=torch.Generator().manual_seed(0))
    weights = torch.rand(1, size, size, 3, generator=torch.Generator().manual_seed(1))

    def forward():
        return rasterise(vertices, faces, K, R, t, (size, size), member)

    def both(smooth: bool):
        moved = vertices.clone().requires_grad_()
        colours = attributes.clone().requires_grad_()
        fragments = rasterise(moved, faces, K, R, t, (size, size), member)
        image = interpolate_attributes(fragments, colours, faces)
        if smooth:
            image = antialias(image, fragments, moved, faces, K, R, t)
        torch.autograd.grad(image, (moved, colours), weights)

    covered = float(forward().mask.float().mean())
    return (
        milliseconds(forward, repeats, budget),
        milliseconds(lambda: both(False), repeats, budget),
        milliseconds(lambda: both(True), repeats, budget),
        covered,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--triangles", type=int, nargs="+", default=[2_000, 20_000, 100_000])
    parser.add_argument("--backends", nargs="+", help="all that are present by default")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--budget", type=float, default=20.0, help="seconds a cell")
    parser.add_argument("--markdown", type=Path, help="write the table there, too")
    arguments = parser.parse_args()
    present = [state.name for state in available_backends() if state.available]
    backends = arguments.backends or present
    lines = [
        f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, torch {torch.__version__}; "
        "milliseconds a view",
        "",
        "| pixels | triangles | back end | forward | forward+backward | with antialiasing "
        "| forward relative to native |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    print("\n".join(lines))
    for size in arguments.sizes:
        for triangles in arguments.triangles:
            base = None
            for backend in backends:
                if backend == "reference" and size * size * triangles > 2e9:
                    continue  # hours, for a number nobody needs
                forward, both, smooth, _ = measure(
                    backend, size, triangles, arguments.repeats, arguments.budget
                )
                base = forward if backend == "native" else base
                ratio = f"{forward / base:.1f}" if base else ""
                lines.append(
                    f"| {size} | {len(surface(triangles)[1])} | {backend} | {forward:.2f} "
                    f"| {both:.2f} | {smooth:.2f} | {ratio} |"
                )
                print(lines[-1], flush=True)
    if arguments.markdown:
        arguments.markdown.parent.mkdir(parents=True, exist_ok=True)
        arguments.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
