"""From the views of a track to one texture."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np

from recon3d.errors import InputError
from recon3d.geometry import project, seen_angles
from recon3d.texturing._kernels import add_samples
from recon3d.texturing._threads import over
from recon3d.texturing.atlas import Atlas, build_atlas
from recon3d.texturing.filling import bleed, fill, outweighed
from recon3d.texturing.focus import crispness, extra_blur
from recon3d.texturing.light import Light, fit_light
from recon3d.texturing.observation import (
    expression_weights,
    gaze_mm,
    gaze_weights,
    observe,
    pose_all,
    sample,
)
from recon3d.texturing.registration import register
from recon3d.texturing.settings import TexturingSettings
from recon3d.texturing.shutter import open_share, path_psf, steadiness
from recon3d.texturing.superresolution import build_operator, solve
from recon3d.types import FaceFit, FaceTexture, FaceTrack

OUTPUT_PIXEL_MM = 0.45
"""Size on the face of a pixel of the frontal picture, to which resolution is compared."""


def fuse_texture(
    track: FaceTrack,
    fit: FaceFit,
    settings: TexturingSettings | None = None,
    progress: Callable[[float, float | None], None] | None = None,
) -> FaceTexture:
    """Fuse all views of a track into the model's texture.

    Parameters
    ----------
    track : FaceTrack
        Its views carry the pixels.
    fit : FaceFit
        One entry a view of the track.
    settings : TexturingSettings
    progress : callable, optional
        Told how much is done and how much there is.

    Returns
    -------
    FaceTexture

    Raises
    ------
    InputError
        If fit and track do not belong together, or no view shows the surface.
    """
    settings = settings or TexturingSettings()
    report = progress or (lambda done, total=None: None)
    if len(fit.R) != len(track.views):
        raise InputError(
            f"the fit has {len(fit.R)} views and the track {len(track.views)}; fit this track"
        )
    start = time.perf_counter()
    model = fit.model
    views = choose_views(track, fit, settings.max_views)
    if not views:
        raise InputError("no view of the track has both a picture and a fit to texture from")
    size = _working_size(track, fit, views, settings)
    atlas = build_atlas(model, size)
    texel_mm = atlas.texel_mm(fit.neutral)
    steps = 3 * len(views) + 2
    posed = pose_all(fit, views)
    aside, pixel_mm = gaze_mm(track, fit, views, posed)
    expression = expression_weights(fit, posed, pixel_mm, settings.expression_mm)
    eyes = np.clip(np.asarray(model.regions.get("eyes", np.zeros(model.n_vertices))), 0, 1)
    gaze = gaze_weights(aside, pixel_mm, settings.gaze_mm)
    expression = expression * (1 - eyes + gaze[:, None] * eyes).astype(np.float32)

    def look(k):
        seen = observe(atlas, fit, track.views[views[k]], views[k], texel_mm, settings, posed[k])
        if seen is not None:
            seen.weight *= np.maximum(atlas.interpolate(expression[k])[seen.index], 1e-4)
        return seen

    found = over(look, range(len(views)))
    report(len(views), steps)
    samples = [s for s in found if s is not None and s.weight.max() > 0]
    if not samples:
        raise InputError(
            "no view shows the fitted surface: the fit is off, or the track has no pictures"
        )

    skin = _skin(model, atlas)
    # Photos of one folder have seen as many lamps; a cut may show another room.
    shots = track.shots[[s.view for s in samples]]
    light = fit_light(atlas, samples, shots, skin, settings)
    report(len(views) + 1, steps)

    shades = over(lambda k: light.shading(k, samples[k].normal), range(len(samples)))
    # Only the face is registered and solved for; hair and neck follow no mesh that closely.
    face = atlas.interpolate(model.regions.get("face", np.ones(model.n_vertices)))
    inside = face > 0.02
    albedo, variance, trust = _robust_mean(atlas, samples, shades, light.noise, settings)
    report(len(views) + 2, steps)
    paths = motion_px(track, fit, samples)
    shutter = settings.exposure_fraction
    blurs = np.zeros(len(samples), np.float32)
    moved = [0.0] * len(samples)

    def psfs_with(blurs_px: np.ndarray) -> list[np.ndarray]:
        widths = np.hypot(settings.blur_px, blurs_px)
        return [path_psf(p, shutter or 0.0, width) for p, width in zip(paths, widths)]

    def mean_of(weights: np.ndarray):
        some = _weighted(samples, weights)
        return _robust_mean(atlas, some, shades, light.noise, settings, albedo)

    psfs = psfs_with(blurs)
    solution: dict = {}
    if len(samples) > 1 and settings.registration_rounds > 0:
        for _ in range(settings.registration_rounds):
            moved = _register_all(samples, shades, albedo, inside, texel_mm, settings, psfs)
            if shutter is None:
                sharp, _, _ = mean_of(steadiness(paths))
                shutter = open_share(
                    samples, shades, paths, sharp, inside, texel_mm, settings.blur_px
                )
            if settings.focus:
                # The sharper the texture is with which views are compared, the more of their
                # blur shows, and the better is known which of them are sharp.
                for _ in range(2):
                    sharp, _, _ = mean_of(crispness(blurs) ** 2)
                    known = psfs_with(np.zeros_like(blurs))
                    blurs = extra_blur(samples, shades, sharp, known, inside, texel_mm)
            psfs = psfs_with(blurs)
            albedo, variance, trust = mean_of(crispness(blurs))
    report(2 * len(views) + 2, steps)
    if settings.solve:
        solved, solution = _solve(
            atlas, samples, shades, albedo, inside, trust, texel_mm, settings, psfs
        )
        share = np.clip((face[:, None] - 0.02) / 0.2, 0, 1)
        albedo = albedo + share * (solved - albedo)
    drawn_px = (shutter or 0.0) * np.hypot(*paths.T)
    evidence = _evidence(atlas, samples, trust, drawn_px, crispness(blurs))
    known = evidence["known"] * outweighed(atlas, evidence["pixels"])
    mirrored = np.zeros(len(atlas), np.float32)
    if settings.fill:
        albedo, mirrored = fill(atlas, model, albedo, known)
    lit = albedo * _mean_shading(atlas, samples, shades, light)
    report(steps, steps)

    relative = np.sqrt(np.maximum(variance, 1e-6) / np.maximum(evidence["pixels"], 0.02))
    sigma = relative * (albedo.mean(1) + 0.02) + 0.25 * (1 - known) * albedo.mean(1)
    full = atlas if size == settings.size else build_atlas(model, settings.size)
    valid = full.valid
    inner = atlas.valid

    def picture(values: np.ndarray) -> np.ndarray:
        image = bleed(atlas.image(np.asarray(values, np.float32)), inner)
        if size != settings.size:
            image = cv2.resize(image, (settings.size,) * 2, interpolation=cv2.INTER_CUBIC)
        return np.maximum(image, 0)

    def bounded(values: np.ndarray) -> np.ndarray:
        return np.where(valid, np.minimum(picture(values), 1), 0).astype(np.float32)

    return FaceTexture(
        albedo=picture(albedo),
        lit=picture(lit),
        support=bounded(evidence["support"]),
        resolution=bounded(evidence["resolution"]),
        generated=bounded(1 - known),
        sigma=np.where(valid, picture(sigma), 0).astype(np.float32),
        valid=valid,
        info={
            "views": [int(s.view) for s in samples],
            "view_trust": [round(float(x), 4) for x in trust],
            "log_gain": np.round(light.gain, 4).tolist(),
            "light": np.round(light.harmonics, 4).tolist(),
            "light_offset": np.round(light.offset, 4).tolist(),
            "noise": round(light.noise, 4),
            "mirrored_share": round(float(mirrored.mean()), 4),
            "observed_share": round(float(known.mean()), 4),
            "shutter": round(float(shutter or 0.0), 3),
            "blur_mm": [round(float(b * s.pixel_mm), 3) for b, s in zip(blurs, samples)],
            "flow_px": [round(float(m), 3) for m in moved],
            "solution_noise": [round(float(x), 4) for x in solution.get("noise", [])],
            "working_size": size,
            "seconds": round(time.perf_counter() - start, 2),
        },
    )


def choose_views(track: FaceTrack, fit: FaceFit, limit: int) -> list[int]:
    """Numbers of the views to fuse, at most `limit`, the best of every direction.

    Views are taken in turns from bins of yaw and pitch, best first, so that a long stretch of one
    pose does not crowd out the others.
    """
    usable = [
        i
        for i, view in enumerate(track.views)
        if view.patch is not None and fit.view_weight[i] > 0 and np.isfinite(fit.t[i]).all()
    ]
    if len(usable) <= limit:
        return usable
    angles = seen_angles(fit.R[usable], fit.t[usable])
    worth = np.array([fit.view_weight[i] * track.views[i].quality for i in usable])
    cells: dict[tuple[int, int], list[int]] = {}
    for k in np.argsort(-worth, kind="stable"):
        cell = tuple(np.round(angles[k] / np.array([12.0, 15.0])).astype(int))
        cells.setdefault(cell, []).append(usable[k])
    chosen: list[int] = []
    depth = 0
    while len(chosen) < limit:
        layer = [members[depth] for members in cells.values() if len(members) > depth]
        chosen += layer[: limit - len(chosen)]
        depth += 1
    return sorted(chosen)


def _working_size(track, fit: FaceFit, views: list[int], settings) -> int:
    """Side of the texture that the frames can fill; a finer one costs time and holds no more."""
    probe = 128
    texel = float(np.median(build_atlas(fit.model, probe).texel_mm(fit.neutral)))
    pixel = min(fit.t[i, 2] / fit.K[i, 0, 0] for i in views)
    wanted = probe * texel * settings.texels_per_pixel / max(pixel, 1e-6)
    return int(min(settings.size, max(160, 32 * np.ceil(wanted / 32))))


def _skin(model, atlas: Atlas) -> np.ndarray:
    face = model.regions.get("face", np.ones(model.n_vertices))
    moving = sum(model.regions.get(name, 0 * face) for name in ("eyes", "mouth"))
    return atlas.interpolate(np.clip(face, 0, 1) * np.clip(1 - 2 * moving, 0, 1))


def _robust_mean(atlas, samples, shades, noise, settings, start=None):
    """Weighted mean of light-free colours; texels of a frame that disagree lose weight."""
    n, p = len(samples), len(atlas)
    trust = np.ones(n, np.float32)
    mean = np.zeros((p, 3), np.float32) if start is None else start
    bound = np.float32((3 if start is None else 1.5) * settings.robust * max(noise, 0.03))
    values = over(lambda s: sample(s.image, s.x, s.y), samples)
    # A first guess saves the sweep that trusts everybody, and the one that repairs it.
    for sweep in range(3) if start is None else (1,):
        total = np.full(p, 1e-9, np.float32)
        colour = np.zeros((p, 3), np.float32)
        square = np.zeros(p, np.float32)
        disagreement = np.zeros(n)
        for k, s in enumerate(samples):
            density = s.density * np.float32(OUTPUT_PIXEL_MM)
            weight = s.weight * trust[k]
            error = add_samples(
                total,
                colour,
                square,
                s.index,
                values[k],
                shades[k],
                weight,
                density,
                mean,
                bound,
                sweep > 0,
            )
            if sweep > 0:
                disagreement[k] = np.median(error[::7])
        mean = colour / total[:, None]
        if sweep > 0:
            typical = max(float(np.median(disagreement)), 1e-3)
            bound = np.float32(settings.robust * max(1.5 * typical, 0.02))
            trust = (1 / (1 + (disagreement / (2.5 * typical)) ** 4)).astype(np.float32)
    return mean, square / total, trust


def motion_px(track: FaceTrack, fit: FaceFit, samples) -> np.ndarray:
    """How far the face moves from one frame to the next at each view, px of the samples' pictures.

    From the fitted poses of the views around; zero where there are none close enough in time.

    Returns
    -------
    (N, 2)
    """
    region = np.asarray(fit.model.regions.get("face", np.ones(fit.model.n_vertices)))
    centre = np.average(fit.neutral, axis=0, weights=np.maximum(region, 1e-6))
    at = np.array([project(centre[None], *pose)[0] for pose in zip(fit.K, fit.R, fit.t)])
    out, shots = np.zeros((len(samples), 2)), track.shots
    for k, s in enumerate(samples):
        here = track.views[s.view]
        near = [
            i
            for i in (s.view - 1, s.view, s.view + 1)
            if 0 <= i < len(track.views)
            and shots[i] == shots[s.view]
            and abs(track.views[i].frame_index - here.frame_index) <= 2
            and np.isfinite(at[i]).all()
            and fit.view_weight[i] > 0
        ]
        frames = track.views[near[-1]].frame_index - track.views[near[0]].frame_index if near else 0
        if frames > 0:
            shrink = fit.t[s.view, 2] / fit.K[s.view, 0, 0] / s.pixel_mm
            out[k] = (at[near[-1]] - at[near[0]]) / frames * shrink
    return out


def _register_all(samples, shades, albedo, inside, texel_mm, settings, psfs) -> list[float]:
    def align(k):
        s = samples[k]
        operator = build_operator(s, shades[k], texel_mm, psfs[k], inside[s.index])
        field = register(
            operator,
            albedo,
            s.image.shape[:2],
            spacing_mm=settings.flow_spacing_mm,
            spread_mm=settings.flow_mm,
            shift_mm=settings.shift_mm,
        )
        if field is None:
            return 0.0
        move = sample(field, s.x, s.y, cubic=False)
        s.x += move[:, 0]
        s.y += move[:, 1]
        return float(np.sqrt(np.einsum("qc,qc->q", move, move).mean()))

    return over(align, range(len(samples)))


def _weighted(samples, weights):
    return [replace(s, weight=s.weight * w) for s, w in zip(samples, weights)]


def _solve(atlas, samples, shades, albedo, inside, trust, texel_mm, settings, psfs):
    worth = np.array([t * s.weight.sum() for s, t in zip(samples, trust)])
    chosen = np.sort(np.argsort(-worth, kind="stable")[: settings.solve_views])

    def build(k):
        s = samples[k]
        operator = build_operator(s, shades[k], texel_mm, psfs[k], inside[s.index])
        operator.belief *= trust[k]
        return operator

    operators = over(build, chosen)
    return solve(
        atlas,
        operators,
        albedo,
        regularisation=settings.regularisation,
        robust=settings.robust,
        reweightings=settings.reweightings,
        iterations=settings.iterations,
    )


def _evidence(atlas, samples, trust, drawn_px, crisp) -> dict[str, np.ndarray]:
    pixels = np.zeros(len(atlas), np.float32)
    resolution = np.zeros(len(atlas), np.float32)
    views = np.zeros(len(atlas), np.float32)
    typical = max(float(np.median([np.percentile(s.weight, 95) for s in samples])), 1e-9)
    for k, s in enumerate(samples):
        share = np.clip(s.weight / typical, 0, 1) * trust[k]
        density = s.density * OUTPUT_PIXEL_MM
        # A pixel that moves is as if it were longer, in the one direction.
        longer = float(np.hypot(1.0, drawn_px[k]))
        pixels[s.index] += share * density**2 * crisp[k] / longer
        views[s.index] += share
        best = density * np.sqrt(crisp[k]) / longer * np.clip(4 * share, 0, 1)
        resolution[s.index] = np.maximum(resolution[s.index], best)
    # Half support where the frames hold one pixel for every two of the picture.
    return {
        "pixels": pixels,
        "support": pixels / (pixels + 0.5),
        "resolution": np.clip(resolution, 0, 1),
        "known": (views / (views + 0.02)).clip(0, 1) * (views > 0),
    }


def _mean_shading(atlas, samples, shades, light: Light) -> np.ndarray:
    total = np.full(len(atlas), 1e-6, np.float32)
    shading = np.full((len(atlas), 3), 1e-6, np.float32)
    for k, s in enumerate(samples):
        exposure = np.exp(np.clip(light.gain[k], -3, 3)).astype(np.float32)
        total[s.index] += s.weight
        shading[s.index] += s.weight[:, None] * (shades[k] / exposure)
    return shading / total[:, None]
