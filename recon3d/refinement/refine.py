"""The refinement stage: network, projection onto the evidence, gate on the identity."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from recon3d.colour import to_uint8
from recon3d.errors import Recon3DError
from recon3d.refinement.doubt import doubted_support, fused_deviation
from recon3d.refinement.projection import added_share, observed_residual, project_on_evidence
from recon3d.refinement.refiners import Refiner
from recon3d.refinement.settings import RefinementSettings
from recon3d.types import FrontalView

_BLENDS = (1.0, 0.75, 0.5, 0.25)
"""Shares of the refinement that are tried, most first, until its drift is within the limit."""


def refine_frontal(
    view: FrontalView,
    refiner: Refiner,
    settings: RefinementSettings | None = None,
    embedder: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> FrontalView:
    """Refine a frontal view.

    Parameters
    ----------
    view : FrontalView
        As `render_frontal` made it.
    refiner : Refiner
    settings : RefinementSettings
    embedder : callable (image, landmarks) -> descriptor, optional
        Watches the drift of the identity; without one, no gate.

    Returns
    -------
    FrontalView
        With a new ``image``, ``uncertainty``, and the refiner's additions counted in ``evidence``
        and ``generated_share``; ``raw`` stays. Where the refiner says how sure it is, its doubt of
        the fused view is counted in ``sigma`` and in the support, the evidence's red.
        ``info["refiner"]`` says what was done.
    """
    settings = settings or RefinementSettings()
    start = time.perf_counter()
    changed, sigma = refiner(view)
    raw = view.raw.astype(np.float32)
    made = raw + settings.strength * (changed - raw)
    if settings.project:
        made = project_on_evidence(made, view.raw, view.evidence, settings.residual_255)
    picture, drift, blend = _gate(view, made, settings, embedder)
    share = added_share(picture, view.raw)
    evidence, deviation = view.evidence.copy(), view.sigma
    if sigma is not None and view.sigma is not None:
        deviation = fused_deviation(view, changed, sigma, settings.doubt_coefficients)
        evidence[..., 0] = doubted_support(evidence[..., 0], view.sigma, deviation)
    observed = 1 - evidence[..., 2].astype(np.float32) / 255
    evidence[..., 2] = to_uint8(1 - observed * (1 - share))
    inside = view.face_mask
    generated = float(
        (inside * evidence[..., 2].astype(np.float32)).sum() / max(255 * inside.sum(), 1e-6)
    )
    residual = observed_residual(picture, view.raw, view.evidence)
    entry = refiner.licence
    info = {
        "applied": blend > 0,
        "name": entry.name,
        "kind": refiner.kind,
        "licence": entry.licence,
        "projected": settings.project,
        "residual_rms_255": None if residual is None else round(residual, 3),
        "drift": None if drift is None else round(drift, 4),
        "drift_limit": settings.drift_limit,
        "blend": blend,
        "added_share": round(float((inside * share).sum() / max(inside.sum(), 1e-6)), 4),
        "seconds": round(time.perf_counter() - start, 2),
    }
    return replace(
        view,
        image=picture,
        evidence=evidence,
        uncertainty=sigma,
        sigma=deviation,
        generated_share=generated,
        info={**view.info, "refiner": info},
    )


def _gate(view, made, settings, embedder) -> tuple[np.ndarray, float | None, float]:
    """The refined picture, blended back until its identity stays near enough.

    Returns
    -------
    picture : (512, 512, 3) uint8; drift : float or None; blend : float, the share that was kept
    """

    def mixed(share: float) -> np.ndarray:
        return np.clip(np.round(view.raw + share * (made - view.raw)), 0, 255).astype(np.uint8)

    if embedder is None:
        return mixed(1.0), None, 1.0
    try:
        fused = embedder(view.raw, view.landmarks)
        for share in _BLENDS:
            picture = mixed(share)
            drift = float(np.linalg.norm(embedder(picture, view.landmarks) - fused))
            if drift <= settings.drift_limit:
                return picture, drift, share
    except Recon3DError:
        # A face that cannot be described cannot be watched either.
        return mixed(1.0), None, 1.0
    return view.raw.copy(), 0.0, 0.0
