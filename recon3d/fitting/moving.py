"""Fits with other poses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recon3d.fitting.visibility import surface_points
from recon3d.geometry import project
from recon3d.types import FaceFit


def with_poses(fit: FaceFit, R: np.ndarray, t: np.ndarray) -> FaceFit:
    """The fit with other poses; landmark residuals move with them.

    Parameters
    ----------
    fit : FaceFit
    R, t : (N, 3, 3), (N, 3) mm

    Returns
    -------
    FaceFit
    """
    return follow(fit, replace(fit, R=R, t=t))


def shifted(fit: FaceFit, shift_mm: np.ndarray) -> FaceFit:
    """The fit whose head lies elsewhere in its own axes, in all views alike.

    Parameters
    ----------
    fit : FaceFit
    shift_mm : (3,), model axes

    Returns
    -------
    FaceFit
        With its own copy of ``info``.
    """
    moved = with_poses(fit, fit.R, fit.t + fit.R @ np.asarray(shift_mm, np.float64))
    return replace(moved, info=dict(fit.info))


def follow(old: FaceFit, new: FaceFit) -> FaceFit:
    """Landmark residuals of a fit that was made from another one."""
    model = old.model
    at = []
    for f in (old, new):
        posed = model.vertices(f.identity, f.expression) + f.displacement
        points = surface_points(posed, model.triangles, model.landmarks)
        at.append(project(np.nan_to_num(points), f.K, f.R, f.t))
    return replace(new, residuals=old.residuals - (at[1] - at[0]))
