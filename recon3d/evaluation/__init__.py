"""Metrics and benchmarks.

Names are loaded on first use, so that importing this package costs nothing.
"""

from __future__ import annotations

import importlib

_WHERE = {
    "best_frame": "baselines",
    "frame_average": "baselines",
    "mean_face_rows": "baselines",
    "single_frame": "baselines",
    "Benchmark": "benchmark",
    "aggregate": "benchmark",
    "format_table": "benchmark",
    "read_benchmark": "benchmark",
    "run_cases": "benchmark",
    "run_costs": "benchmark",
    "score_case": "benchmark",
    "score_results": "benchmark",
    "to_frame": "benchmark",
    "FaceDescriptor": "metrics",
    "load_descriptor": "metrics",
    "picture_metrics": "metrics",
    "shape_metrics": "metrics",
    "ssim": "metrics",
    "Surface": "surfaces",
    "align_to_scan": "surfaces",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
