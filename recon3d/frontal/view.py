"""The pose-normalised picture: neutral pose, expression and light."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import cv2
import numpy as np

from recon3d.colour import linear_to_srgb, to_uint8
from recon3d.errors import InputError
from recon3d.frontal.camera import SIZE, frontal_camera, landmark_points, with_eyes_in_place
from recon3d.frontal.deviation import (
    confirmed_share,
    determined_share,
    error_sources,
    predicted_deviation,
)
from recon3d.frontal.levelling import level_turn
from recon3d.frontal.pyramid import blend, broad_blur, push_pull
from recon3d.frontal.settings import FrontalSettings
from recon3d.frontal.surroundings import RIM, bring_surroundings, continued_depth
from recon3d.frontal.tone import bright_luminance, compress, neutral_gains
from recon3d.geometry import project, transform, vertex_normals
from recon3d.rendering.native import rasterise_numpy
from recon3d.types import Camera, FaceFit, FaceTexture, FaceTrack, FrontalView

SUPERSAMPLING = 2
"""The surface is drawn finer by this factor and averaged down, which smooths its outline."""

SINGLE_FRAME_NOISE = 0.2
"""Relative deviation of what lies around the fused surface, brought from frames as they are."""


def render_frontal(
    track: FaceTrack,
    fit: FaceFit,
    texture: FaceTexture,
    settings: FrontalSettings | None = None,
    progress: Callable[[float, float | None], None] | None = None,
    *,
    vertices: np.ndarray | None = None,
    camera: Camera | None = None,
) -> FrontalView:
    """Draw the frontal picture.

    Parameters
    ----------
    track : FaceTrack
        Whose frames show what lies around the face.
    fit : FaceFit
    texture : FaceTexture
    settings : FrontalSettings
    progress : callable, optional
        Told how much is done and how much there is.
    vertices : (V, 3), optional
        Another surface than the neutral one, model axes, mm.
    camera : Camera, optional
        Another camera of the same size than the one straight ahead.

    Returns
    -------
    FrontalView
        With ``image`` equal to ``raw``; a refiner may replace it.

    Raises
    ------
    InputError
        If the neutral surface is not finite.
    """
    settings = settings or FrontalSettings()
    report = progress or (lambda done, total=None: None)
    start = time.perf_counter()
    vertices = fit.neutral if vertices is None else vertices
    if not np.isfinite(vertices).all():
        raise InputError("the fitted surface is not finite; fit the track again")
    turn, seen_yaw, eyes = 0.0, None, None
    if settings.level and camera is None:

        def portrait(turn: float) -> np.ndarray:
            camera = frontal_camera(fit.model, vertices, settings.distance_mm, turn)
            return draw_portrait(fit, texture, camera, vertices)

        turn, seen_yaw, eyes = level_turn(portrait)
    if camera is None:
        camera = frontal_camera(fit.model, vertices, settings.distance_mm, turn)
        if eyes is not None:
            camera = with_eyes_in_place(camera, eyes)
    surface = _draw(fit, texture, camera, vertices)
    report(1, 3)

    shade = (1 - settings.modelling) + settings.modelling * np.clip(surface["facing"], 0, 1)
    face = surface["colour"] * shade[..., None] * _symmetric_light(surface, settings.keep_light)
    inside = _face_mask(surface)
    around = None
    if settings.surroundings:
        depth = continued_depth(surface["depth"], surface["covered"], RIM)
        around = bring_surroundings(
            track,
            fit,
            camera,
            depth,
            settings.surroundings_views,
            settings.surroundings_together,
        )
    report(2, 3)
    if around is not None:
        matched = _match_to_face(around.image, face, inside, surface["coverage"])
        linear = _composite(face, matched, inside)
        seen, density = around.seen, around.density
        used = around.views
    else:
        linear = push_pull(face, surface["coverage"])
        seen = density = np.zeros((SIZE, SIZE), np.float32)
        used = []

    skin = surface["colour"][(inside > 0.9) & (surface["plain"] > 0.5)]
    views = (track.views[i] for i in texture.info.get("views", range(len(track.views))))
    gains = neutral_gains(
        skin,
        bright=bright_luminance([v.patch.image for v in views if v.patch is not None]),
        balance=settings.white_balance,
        exposure=settings.exposure,
    )
    raw = to_uint8(linear_to_srgb(compress((linear * gains).clip(0))))
    reference = raw
    if around is not None:
        reference = to_uint8(linear_to_srgb(compress((matched * gains).clip(0))))
    landmarks = project(landmark_points(fit.model, vertices), camera.K, camera.R, camera.t).astype(
        np.float32
    )
    outside = 1 - inside
    resolution = inside * surface["resolution"] + outside * seen * density
    generated = inside * surface["generated"] + outside * (1 - seen)
    sources = _sources(surface, raw, landmarks, inside)
    sigma = predicted_deviation(sources, settings.error_coefficients)
    # Around the surface a single frame speaks: less support than fused skin, and what no frame
    # shows is made up.
    single = seen * density**2
    pixels = _pixels(surface)
    support = inside * determined_share(sigma, pixels) + outside * single / (single + 0.5)
    evidence = np.stack([support, resolution, generated], axis=-1)
    share = float((inside * surface["generated"]).sum() / max(inside.sum(), 1e-6))
    report(3, 3)
    return FrontalView(
        image=raw,
        raw=raw,
        evidence=to_uint8(evidence),
        face_mask=inside.astype(np.float32),
        normals=surface["normals"],
        landmarks=landmarks,
        camera=camera,
        generated_share=share,
        reference=reference,
        sigma=sigma,
        confirmed=inside * confirmed_share(pixels) + outside,
        info={
            "gains": [round(float(g), 4) for g in gains],
            "surrounding_views": used,
            "yaw_seen_deg": None if seen_yaw is None else round(seen_yaw, 2),
            "turned_deg": round(turn, 2),
            "eyes_seen_px": None if eyes is None else eyes.round(2).tolist(),
            "seconds": round(time.perf_counter() - start, 2),
        },
    )


def draw_portrait(
    fit: FaceFit, texture: FaceTexture, camera: Camera, vertices: np.ndarray
) -> np.ndarray:
    """The fused surface alone, continued around it, for a landmarker to look at.

    Parameters
    ----------
    fit, texture : FaceFit, FaceTexture
    camera : Camera, of a square picture of `SIZE` px
    vertices : (V, 3) mm

    Returns
    -------
    (512, 512, 3) uint8
    """
    surface = _draw(fit, texture, camera, vertices, ("colour", "coverage", "plain"))
    plain = push_pull(surface["colour"], surface["coverage"])
    skin = surface["colour"][(surface["plain"] > 0.5) & (surface["coverage"] > 0.9)]
    return to_uint8(linear_to_srgb(compress((plain * neutral_gains(skin)).clip(0))))


def draw_generated(
    fit: FaceFit, texture: FaceTexture, camera: Camera, vertices: np.ndarray
) -> np.ndarray:
    """(512, 512) share of each pixel of the surface that was mirrored or filled; see
    `draw_portrait`."""
    return _draw(fit, texture, camera, vertices, ("generated",))["generated"]


def frontal_error_sources(fit: FaceFit, texture: FaceTexture, view: FrontalView) -> np.ndarray:
    """(512, 512, K) maps of `deviation.error_sources` of a neutral frontal view, drawn again."""
    surface = _draw(fit, texture, view.camera, fit.neutral)
    return _sources(surface, view.raw, view.landmarks, view.face_mask)


def _sources(surface, raw, landmarks, inside) -> np.ndarray:
    noise = surface["sigma"] / (surface["colour"].mean(-1) + 0.02)
    noise = inside * noise + (1 - inside) * SINGLE_FRAME_NOISE
    return error_sources(raw, landmarks, noise=noise)


def _pixels(surface) -> np.ndarray:
    # The texture keeps its pixels as a share: n / (n + 0.5).
    share = np.clip(surface["support"], 0, 0.999)
    return 0.5 * share / (1 - share)


def _draw(
    fit: FaceFit, texture: FaceTexture, camera, vertices, only: tuple[str, ...] | None = None
) -> dict[str, np.ndarray]:
    """Maps of the drawn surface by name, all of them or those that are asked for."""
    model = fit.model
    n = SIZE * SUPERSAMPLING
    K = np.diag([SUPERSAMPLING, SUPERSAMPLING, 1.0]) @ camera.K
    seen = transform(vertices, camera.R, camera.t)
    # A model's ears are nobody's: the person's own come with what lies around the face.
    ears = model.regions.get("ears", np.zeros(model.n_vertices))
    drawn_triangles = np.flatnonzero(ears[model.triangles].max(1) == 0)
    face, depth, barycentric = rasterise_numpy(seen, model.triangles[drawn_triangles], K, (n, n))
    # Looked at is the box around what is drawn, of whole pixels.
    whole = cv2.resize((face >= 0).astype(np.float32), (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    left, top, width, height = cv2.boundingRect((whole > 0).astype(np.uint8))
    if width == 0:
        left, top, width, height = 0, 0, SIZE, SIZE
    box = slice(top, top + height), slice(left, left + width)
    fine = tuple(slice(SUPERSAMPLING * s.start, SUPERSAMPLING * s.stop) for s in box)
    face, depth, barycentric = face[fine], depth[fine], barycentric[fine]
    row, column = np.nonzero(face >= 0)
    triangle = drawn_triangles[face[row, column]]
    weight = barycentric[row, column].astype(np.float64)
    side = len(texture.albedo)
    uv = np.einsum("pk,pkc->pc", weight, model.uv[model.triangles_uv[triangle]])
    x = np.full(face.shape, -1, np.float32)
    y = np.full(face.shape, -1, np.float32)
    x[row, column], y[row, column] = uv[:, 0] * side - 0.5, (1 - uv[:, 1]) * side - 0.5
    coverage = (face >= 0).astype(np.float32)

    def average(image):
        total, inside = whole[box], coverage
        if image.ndim > 2:
            total, inside = total[..., None], inside[..., None]
        out = np.zeros((SIZE, SIZE, *image.shape[2:]), np.float32)
        small = cv2.resize(image * inside, (width, height), interpolation=cv2.INTER_AREA)
        out[box] = small.reshape(out[box].shape) / np.maximum(total, 1e-6)
        return out

    def texel(image, flag=cv2.INTER_LINEAR):
        return cv2.remap(image.astype(np.float32), x, y, flag, borderMode=cv2.BORDER_REPLICATE)

    share = weight.astype(np.float32)

    def at_pixels(values):
        corners = np.asarray(values, np.float32)[model.triangles[triangle]]
        return np.einsum("pk,pk...->p...", share, corners)

    def spread(values):
        out = np.zeros((*face.shape, *values.shape[1:]), np.float32)
        out[row, column] = values
        return out

    def attribute(values):
        return spread(at_pixels(values))

    toward = camera.R[2].astype(np.float32) * -1.0
    zero = np.zeros(model.n_vertices, np.float32)
    region = model.regions.get("face", zero + 1)
    moving = model.regions.get("eyes", zero) + model.regions.get("mouth", zero)

    @cache
    def evidence():
        layers = (texture.support, texture.resolution, texture.generated, texture.sigma)
        return average(texel(np.stack(layers, axis=-1)))

    @cache
    def normals():
        out = at_pixels(vertex_normals(vertices, model.triangles))
        return out / np.maximum(np.sqrt(np.einsum("pc,pc->p", out, out)), 1e-6)[:, None]

    def small_normals():
        out = average(spread(normals()))
        out /= np.maximum(np.linalg.norm(out, axis=-1, keepdims=True), 1e-6)
        out[whole < 0.25] = 0
        return out

    maps = {
        "colour": lambda: average(texel(texture.albedo, cv2.INTER_CUBIC)).clip(0),
        "lit": lambda: average(texel(texture.lit, cv2.INTER_CUBIC)).clip(0),
        "support": lambda: evidence()[..., 0],
        "resolution": lambda: evidence()[..., 1],
        "generated": lambda: evidence()[..., 2].clip(0, 1),
        "sigma": lambda: evidence()[..., 3],
        "facing": lambda: average(spread(normals() @ toward)),
        "normals": small_normals,
        "face": lambda: average(attribute(region)),
        "plain": lambda: average(attribute(np.clip(1 - 2 * moving, 0, 1))),
        "coverage": lambda: whole,
        "covered": lambda: whole > 0.99,
        "depth": lambda: average(np.where(depth > 0, depth, 0).astype(np.float32)),
    }
    return {name: maps[name]() for name in only or maps}


def _symmetric_light(surface, keep: float) -> np.ndarray:
    """Factors that give back the part of the clip's light that both halves of the face share.

    Where light comes from above or from the front it is hardly told from skin, and a portrait may
    well be lit so. What comes from the side is told from skin by the other side of the face.
    """
    if keep == 0:
        return np.ones((SIZE, SIZE, 1), np.float32)
    level = 2e-3
    seen = (surface["coverage"] > 0.5).astype(np.float32)
    log = np.log((surface["lit"] + level) / (surface["colour"] + level)).mean(-1)
    # In the layout the plane of symmetry is the middle column.
    both = seen * seen[:, ::-1]
    even = 0.5 * (log + log[:, ::-1]) * both
    weight = cv2.GaussianBlur(both, (0, 0), 6.0)
    smooth = cv2.GaussianBlur(even.astype(np.float32), (0, 0), 6.0) / np.maximum(weight, 0.05)
    return np.exp(keep * np.clip(smooth, -1, 1))[..., None]


def _face_mask(surface) -> np.ndarray:
    """Where the fused surface is shown: the face, softly ending where it has turned away.

    Skin that is hardly turned this way is stretched out of a few texels; turned frames saw these
    from the front. Where none did, the frames themselves show as much.
    """
    region = np.clip((surface["face"] - 0.02) / 0.2, 0, 1)
    middle = np.clip((surface["facing"] - 0.25) / 0.3, 0, 1)
    rim = np.clip((surface["facing"] - 0.1) / 0.15, 0, 1) * (surface["generated"] < 0.5)
    mask = region * np.maximum(middle, rim) * (surface["coverage"] > 0.99)
    mask = cv2.erode(mask.astype(np.float32), np.ones((5, 5), np.uint8))
    # One piece without holes: nostrils and lids turn away, too, and belong to the face.
    solid = (mask > 0.5).astype(np.uint8)
    outline, _ = cv2.findContours(solid, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not outline:
        return mask
    largest = max(outline, key=cv2.contourArea)
    filled = np.zeros_like(solid)
    cv2.drawContours(filled, [largest], -1, 1, -1)
    inner = cv2.distanceTransform(filled, cv2.DIST_L2, 5)
    return np.clip(inner / 6.0, 0, 1).astype(np.float32)


def _match_to_face(image, face, inside, coverage) -> np.ndarray:
    """Give the surroundings the light of the rendered face, smoothly beyond its border."""
    distance = cv2.distanceTransform((inside > 0.02).astype(np.uint8), cv2.DIST_L2, 5)
    rim = np.clip(distance / 4.0, 0, 1) * np.clip(2 - distance / 30.0, 0.05, 1)
    rim = (rim * (coverage > 0.99) * (inside > 0.02)).astype(np.float32)
    if rim.sum() < 10:
        return image
    # Local near the face, one gain for all far from it.
    near = _ratio(face, image, rim, 14.0)
    middle = _ratio(face, image, rim, 50.0)
    overall = (middle * rim[..., None]).sum((0, 1)) / rim.sum()
    outer = cv2.distanceTransform((inside <= 0.02).astype(np.uint8), cv2.DIST_L2, 5)[..., None]
    a, b = np.clip(outer / 25.0, 0, 1), np.clip((outer - 20.0) / 90.0, 0, 1)
    log = (1 - a) * near + a * ((1 - b) * middle + b * overall)
    return image * np.exp(cv2.GaussianBlur(log.astype(np.float32), (0, 0), 5.0))


def _ratio(a, b, weight, blur) -> np.ndarray:
    w = broad_blur(weight, blur)[..., None]
    x = broad_blur(a * weight[..., None], blur)
    y = broad_blur(b * weight[..., None], blur)
    log = np.clip(np.log((x + 5e-3 * w + 1e-9) / (y + 5e-3 * w + 1e-9)), -1.5, 1.5)
    trust = np.clip(w * 50, 0, 1)
    overall = (log * weight[..., None]).sum((0, 1)) / weight.sum()
    return trust * log + (1 - trust) * overall


def _composite(face, around, inside) -> np.ndarray:
    # Blended in the picture's own tones: in linear light bright detail would spread too far.
    # Beyond the face's border the front picture is continued by the back one.
    a = np.maximum(face, 0) ** (1 / 2.2)
    b = np.maximum(around, 0) ** (1 / 2.2)
    known = (inside > 0.02).astype(np.float32)[..., None]
    a = known * a + (1 - known) * b
    return np.maximum(blend(a, b, inside, 4), 0) ** 2.2
