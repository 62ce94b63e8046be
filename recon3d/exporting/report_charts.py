"""Small charts as inline SVG: no script, sharp on paper, spoken by a screen reader."""

from __future__ import annotations

import numpy as np

_WIDTH, _HEIGHT = 360, 132
_LEFT, _BOTTOM, _TOP = 34, 20, 8
_COLOURS = ("#2f5fb3", "#b4501e", "#2e7d4f", "#7a3fa0", "#8a6d00", "#a0303c")


def bars(values: np.ndarray, labels: list[str], what: str) -> str:
    """A bar to each value.

    Parameters
    ----------
    values : (N,), not negative
    labels : list of N str
        Every third is written below its bar.
    what : str
        For those who hear the chart.

    Returns
    -------
    str, an ``svg`` element
    """
    values = np.asarray(values, np.float64)
    top = max(float(values.max(initial=0)), 1e-6)
    said = ", ".join(f"{label} {value:g}" for label, value in zip(labels, values) if value)
    step = (_WIDTH - _LEFT) / max(len(values), 1)
    floor = _HEIGHT - _BOTTOM
    parts = [_head(f"{what}: {said or 'none'}"), _scale(0, top)]
    for i, (label, value) in enumerate(zip(labels, values)):
        tall = (floor - _TOP) * value / top
        x = _LEFT + i * step
        parts.append(
            f'<rect x="{x + 1:.1f}" y="{floor - tall:.1f}" width="{max(step - 2, 0.6):.1f}" '
            f'height="{tall:.1f}" fill="{_COLOURS[0]}"><title>{label}: {value:g}</title></rect>'
        )
        if i % 3 == 0:
            middle = x + step / 2
            parts.append(f'<text x="{middle:.1f}" y="{_HEIGHT - 6}" {_MIDDLE}>{label}</text>')
    return "".join(parts) + "</svg>"


def points(
    time: np.ndarray, values: np.ndarray, sources: np.ndarray, unit: str, top: float | None = None
) -> str:
    """Values over time, one line to an input; gaps of a second and more stay open.

    Parameters
    ----------
    time : (N,), s
    values : (N,), NaN where there is none
    sources : (N,) int
    unit : str
    top : float, optional
        Upper end of the scale; the largest value otherwise.

    Returns
    -------
    str, an ``svg`` element
    """
    values, time = np.asarray(values, np.float64), np.asarray(time, np.float64)
    known = np.isfinite(values)
    if not known.any():
        return _head("no values") + "</svg>"
    low = min(0.0, float(values[known].min()))
    high = max(top if top is not None else float(values[known].max()), low + 1e-6)
    begin, end = float(time.min()), float(time.max())
    span = max(end - begin, 1e-6)
    floor = _HEIGHT - _BOTTOM
    median = float(np.median(values[known]))
    said = (
        f"{known.sum()} values over {span:.1f} seconds: from {values[known].min():.3g} to "
        f"{values[known].max():.3g} {unit}, median {median:.3g}"
    )
    parts = [_head(said), _scale(low, high)]
    if low < 0:
        zero = floor - (floor - _TOP) * -low / (high - low)
        parts.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{zero:.1f}" y2="{zero:.1f}" stroke="#c9cfda"/>'
        )
    x = _LEFT + 3 + (_WIDTH - _LEFT - 8) * (time - begin) / span
    y = floor - (floor - _TOP) * (np.clip(values, low, high) - low) / (high - low)
    for source in np.unique(sources):
        colour = _COLOURS[int(source) % len(_COLOURS)]
        rows = np.flatnonzero((np.asarray(sources) == source) & known)
        rows = rows[np.argsort(time[rows], kind="stable")]
        breaks = np.flatnonzero(np.diff(time[rows]) > 1.0) + 1
        for piece in np.split(rows, breaks):
            line = " ".join(f"{x[i]:.1f},{y[i]:.1f}" for i in piece)
            parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" opacity=".6"/>')
        if len(rows) <= 120:
            parts += [
                f'<circle cx="{x[i]:.1f}" cy="{y[i]:.1f}" r="2" fill="{colour}">'
                f"<title>{time[i]:.2f} s: {values[i]:.3g} {unit}</title></circle>"
                for i in rows
            ]
    for at, anchor in ((begin, "start"), (end, "end")):
        place = _LEFT if anchor == "start" else _WIDTH - 2
        parts.append(
            f'<text x="{place}" y="{_HEIGHT - 6}" text-anchor="{anchor}">{at:.1f} s</text>'
        )
    return "".join(parts) + "</svg>"


_MIDDLE = 'text-anchor="middle"'


def _head(said: str) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{said}">'


def _scale(low: float, high: float) -> str:
    floor = _HEIGHT - _BOTTOM
    return (
        f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{floor}" y2="{floor}" stroke="#9aa3b2"/>'
        f'<text x="{_LEFT - 4}" y="{_TOP + 6}" text-anchor="end">{high:.3g}</text>'
        f'<text x="{_LEFT - 4}" y="{floor}" text-anchor="end">{low:.3g}</text>'
    )
