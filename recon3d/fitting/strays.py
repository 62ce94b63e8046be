"""Views whose pose went astray: another start for them, from the views around.

On a small or half turned face a landmarker now and then draws, frame after frame, a face turned
quite another way. No step on the picture leads back from there: it is further than a blur is wide.
Such views betray themselves, because what they show of the skin does not agree with what all the
others do; and the head was, a moment before and after, where other views saw it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from recon3d.geometry import so3_exp, so3_log

if TYPE_CHECKING:
    from recon3d.fitting.dense import Alignment, Scene


STARTS = (False, True, False, True)
"""How often views are started again at most, and whether their places move too: a view put right
helps those beside it."""


def astray(agreement: np.ndarray, ratio: float, least: float) -> np.ndarray:
    """Which views agree much less with the others than views commonly do.

    Parameters
    ----------
    agreement : (N,)
        Correlation of each view with the others, NaN where too little is seen.
    ratio : float
        How much farther from 1 than the median view.
    least : float
        ...and at least so far.

    Returns
    -------
    (N,) bool
    """
    known = np.isfinite(agreement)
    if known.sum() < 3:
        return np.zeros(len(agreement), bool)
    lack = 1 - np.where(known, agreement, 1.0)
    return known & (lack > max(ratio * float(np.median(lack[known])), least))


def between(
    scene: Scene,
    middle: np.ndarray,
    wanted: np.ndarray,
    good: np.ndarray,
    times: np.ndarray,
    shots: np.ndarray,
    *,
    gap: float,
    move: bool,
) -> tuple[Scene, np.ndarray]:
    """Give views the pose that good views of the same shot around them had.

    Parameters
    ----------
    scene : Scene
    middle : (3,) mm, the point of the face about which poses turn
    wanted, good : (N,) bool
        Views to place, and those to go by.
    times, shots : (N,)
    gap : float
        A good view farther away in time says nothing, s.
    move : bool
        Place them as well, not only turn them: a landmarker that has the turn wrong may well
        have the place right.

    Returns
    -------
    scene : Scene
    placed : (N,) bool, views that a good view was near to
    """
    R, change = scene.R.copy(), scene.change.copy()
    centre = scene.R @ middle + scene.t
    placed = np.zeros(len(R), bool)
    for n in np.flatnonzero(wanted):
        near = np.flatnonzero(good & (shots == shots[n]) & (np.abs(times - times[n]) <= gap))
        before, after = near[times[near] <= times[n]], near[times[near] > times[n]]
        if not len(near):
            continue
        a = before[-1] if len(before) else after[0]
        b = after[0] if len(after) else a
        share = 0.0 if a == b else (times[n] - times[a]) / (times[b] - times[a])
        turn = so3_log((scene.R[b] @ scene.R[a].T)[None])[0]
        R[n] = so3_exp(share * turn[None])[0] @ scene.R[a]
        # what landmarks get wrong in all views, they would have got wrong in this one
        change[n] = (1 - share) * scene.change[a] + share * scene.change[b]
        if move:
            centre[n] = (1 - share) * centre[a] + share * centre[b]
        placed[n] = True
    t = np.where(placed[:, None], centre - R @ middle, scene.t)
    return replace(scene, R=R, t=t, change=change), placed


def start_again(
    problem: Alignment,
    scene: Scene,
    views: np.ndarray,
    train: np.ndarray,
    times: np.ndarray,
    shots: np.ndarray,
    tick: Callable[[], None],
) -> tuple[Scene, np.ndarray]:
    """Start views that went astray again; keep, view by view, what agrees better with the others.

    Parameters
    ----------
    problem : Alignment
    scene : Scene
        After poses were refined.
    views : (N,) bool, views in use
    train : (M,) samples by which poses are found
    times, shots : (N,)
    tick : callable

    Returns
    -------
    scene : Scene
    lost : (N,) bool
        Views that still disagree: what they show is not to be believed.
    """
    s = problem.settings

    everything = np.ones_like(train)

    def judged(state: Scene) -> np.ndarray:
        # six numbers of a pose do not bend hundreds of samples, and the held-out ones alone are
        # too few to judge a view from the side
        return problem.agreement(state, views, everything, everything)

    agreement = judged(scene)
    stray = astray(agreement, s.stray_ratio, s.stray_least)
    vain = 0
    for move in STARTS:
        good = views & np.isfinite(agreement) & ~stray
        tried, placed = between(
            scene, problem.middle, stray, good, times, shots, gap=s.stray_gap, move=move
        )
        if vain == 2 or not placed.any():
            break
        tried = problem.run(tried, s.blur_mm, views, train, tick)
        better = placed & (np.nan_to_num(judged(tried), nan=-1.0) > agreement)
        scene = _chosen(better | ~stray, tried, scene)
        vain = 0 if better.any() else vain + 1
        agreement = judged(scene)
        stray = astray(agreement, s.stray_ratio, s.stray_least)
    return scene, stray


def _chosen(which: np.ndarray, a: Scene, b: Scene) -> Scene:
    """View by view the one scene or the other."""
    return replace(
        b,
        R=np.where(which[:, None, None], a.R, b.R),
        t=np.where(which[:, None], a.t, b.t),
        change=np.where(which[:, None], a.change, b.change),
        light=np.where(which[:, None], a.light, b.light),
    )
