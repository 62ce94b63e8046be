"""From a portrait to albedo: on a head that was rendered, and with lights that are known."""

import numpy as np
import pytest

from recon3d.geometry import head_rotation, project
from recon3d.morphable import load_model
from recon3d.texturing.atlas import build_atlas
from recon3d.texturing.filling import expected_skin, fill
from recon3d.texturing.light import FLOOR, harmonics
from recon3d.texturing.portraits import (
    AlbedoSettings,
    Portraits,
    fit_portrait,
    mirrored_pairs,
    remove_light,
)


@pytest.fixture(scope="module")
def model():
    return load_model()


def test_fit_brings_the_mesh_under_the_landmarks(model):
    rng = np.random.default_rng(2)
    identity = rng.normal(0, 0.7, len(model.identity))
    smile = np.zeros(52)
    smile[model.expression_names.index("mouthSmileLeft")] = 0.6
    shape = model.vertices(identity, smile)[:478]
    R = head_rotation(np.array([18.0]), np.array([-6.0]), np.array([2.0]))[0]
    K = np.array([[830.0, 0, 128], [0, 830, 128], [0, 0, 1]])
    t = np.array([2.0, 5.0, 1000.0])
    pixels = project(shape, K, R, t)
    depth = (shape @ R.T + t)[:, 2] * 0.83
    fit = fit_portrait(model, np.c_[pixels, depth - depth.mean()])
    got = project(fit.posed(0)[:478], fit.K[0], fit.R[0], fit.t[0])
    assert np.sqrt(((got - pixels)[:468] ** 2).sum(1).mean()) < 0.4
    turn = np.degrees(np.arccos(np.clip((np.trace(fit.R[0] @ R.T) - 1) / 2, -1, 1)))
    assert turn < 6  # turn and the person's asymmetry look alike in one view


def test_pairs_are_mirror_images(model):
    atlas = build_atlas(model, 64)
    first, second = mirrored_pairs(atlas, np.ones(len(atlas), bool))
    assert len(first) > 0.45 * len(atlas)
    assert (atlas.column[first] + atlas.column[second] == 63).all()
    assert (atlas.row[first] == atlas.row[second]).all()


def lit_people(n=40, side=48, seed=0):
    """People whose albedo differs by a spot each, under lights of their own."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : side * 1j, 0 : 0.5 : side * 1j]
    skin = 0.35 * np.exp(-0.4 * np.hypot(x - 0.2, y - 0.5))[..., None] * [1.0, 0.7, 0.55]
    normals = []
    for sign in (-1, 1):
        normal = np.stack([1.6 * sign * (0.5 - x), 1.4 * (y - 0.5), -np.ones_like(x)], -1)
        normals.append(normal / np.linalg.norm(normal, axis=-1, keepdims=True))
    normal = np.stack(normals).reshape(2, -1, 3)
    albedo = np.empty((n, 2, side * side, 3))
    log = np.empty_like(albedo)
    for k in range(n):
        light = rng.normal(0, 0.2, 8) * [1, 1, 1, 0.3, 0.3, 0.3, 0.3, 0.3]
        spot = np.exp(
            -((x - rng.uniform(0.1, 0.4)) ** 2 + (y - rng.uniform(0.2, 0.8)) ** 2) / 0.004
        )
        for s in range(2):
            albedo[k, s] = (skin * (1 - 0.5 * spot[..., None])).reshape(-1, 3)
            shade = harmonics(normal[s].astype(np.float32)) @ light
            log[k, s] = np.log(albedo[k, s] * np.exp(shade)[:, None] + FLOOR)
    h = side * side
    people = Portraits(
        atlas=None,
        first=np.arange(h),
        second=np.arange(h),
        names=np.arange(n).astype(str),
        log=log.astype(np.float32),
        weight=np.ones((n, 2, h), np.float32),
        normal=np.broadcast_to(normal, (n, 2, h, 3)).astype(np.float16),
    )
    return people, albedo


def test_light_is_told_from_skin():
    from recon3d.colour import srgb_to_linear

    people, truth = lit_people()
    found, weight = remove_light(people, AlbedoSettings())
    assert weight.min() >= 0 and weight.max() <= 1

    def contrast(values):
        # What is left beside brightness and tint, which are a matter of convention.
        log = np.log(np.maximum(values, 1e-3))
        return log - log.mean((1, 2), keepdims=True)

    lit = np.exp(people.log) - FLOOR
    before = np.abs(contrast(lit) - contrast(truth)).mean()
    after = np.abs(contrast(srgb_to_linear(found)) - contrast(truth)).mean()
    assert after < 0.35 * before


def test_unseen_skin_follows_the_population(model):
    """Half of a person, far darker and redder than the mean: the other half is filled alike."""
    import dataclasses

    from recon3d.colour import srgb_to_linear

    rng = np.random.default_rng(8)
    z = rng.normal(size=len(model.albedo_modes))
    z[0] = 1.5
    encoded = model.albedo_mean + np.tensordot(z, model.albedo_modes.astype(np.float32), 1)
    gain = np.array([0.5, 0.4, 0.35])
    atlas = build_atlas(model, 256)
    truth = srgb_to_linear(np.clip(encoded, 0, 1))[atlas.row, atlas.column] * gain
    face = atlas.interpolate(model.regions["face"]) > 0.5
    known = (atlas.column < 140).astype(np.float32)
    # Without mirror images, so that only the population can tell.
    alone = dataclasses.replace(atlas, mirror_x=-np.ones(len(atlas)), mirror_y=-np.ones(len(atlas)))
    bare = dataclasses.replace(model, albedo_modes=None)
    error = {}
    for name, used in (("smooth", bare), ("population", model)):
        filled, mirrored = fill(alone, used, truth * known[:, None], known)
        assert not mirrored.any()
        assert np.abs(filled - truth)[known > 0].max() < 1e-3
        hidden = face & (known == 0)
        error[name] = np.abs(np.log(filled + 0.01) - np.log(truth + 0.01))[hidden].mean()
    assert error["population"] < 0.7 * error["smooth"]


def test_nothing_seen_suggests_nothing(model):
    atlas = build_atlas(model, 64)
    nothing = expected_skin(atlas, model, np.zeros((len(atlas), 3)), np.zeros(len(atlas)))
    assert nothing.shape == (len(atlas), 3) and not nothing.any()
