"""Probabilistic principal components: against the closed formula and on data of known modes."""

import dataclasses

import numpy as np
import pytest

from recon3d.errors import ModelError, ShapeError
from recon3d.morphable import albedo_posterior, load_model, model_albedo, save_model
from recon3d.morphable.albedo import TEXELS_PER_SAMPLE, fit_ppca


def small_model(side=12, count=5, noise=0.05, seed=0):
    rng = np.random.default_rng(seed)
    modes = rng.normal(0, 0.1, (count, side, side, 3))
    modes[:3] = (modes[:3] + modes[:3, :, ::-1]) / 2
    modes[3:] = (modes[3:] - modes[3:, :, ::-1]) / 2
    return dataclasses.replace(
        load_model(),
        albedo_mean=np.full((side, side, 3), 0.5, np.float32),
        albedo_modes=modes.astype(np.float16),
        albedo_noise=noise,
    )


def test_posterior_is_the_conditional_of_the_joint_gaussian():
    model = small_model()
    rng = np.random.default_rng(1)
    side, sigma = 12, 0.05
    values = rng.uniform(0, 1, (side, side, 3))
    weights = rng.uniform(0.2, 1, (side, side)) * (rng.uniform(size=(side, side)) < 0.4)
    got = albedo_posterior(model, values, weights)
    # The same by conditioning the full joint covariance, which PPCA never forms.
    W = model.albedo_modes.astype(np.float64).reshape(5, -1).T
    precision = np.repeat(weights.ravel(), 3) / (TEXELS_PER_SAMPLE * sigma**2)
    seen = precision > 0
    joint = W @ W.T
    gain = joint[:, seen] @ np.linalg.inv(joint[np.ix_(seen, seen)] + np.diag(1 / precision[seen]))
    expected = 0.5 + gain @ (values.ravel() - 0.5)[seen]
    spread = np.diag(joint - gain @ joint[seen]) + sigma**2
    np.testing.assert_allclose(got.mean.ravel(), expected, atol=2e-4)
    np.testing.assert_allclose(got.variance.ravel(), spread, rtol=2e-3, atol=1e-6)
    assert np.linalg.eigvalsh(got.covariance).min() > 0


def test_posterior_between_nothing_and_everything():
    model = small_model()
    side = 12
    nothing = albedo_posterior(model, np.full((side, side, 3), np.nan), np.zeros((side, side)))
    np.testing.assert_allclose(nothing.mean, model.albedo_mean)
    np.testing.assert_allclose(nothing.covariance, np.eye(5))
    z = np.array([1.0, -0.5, 2.0, 0.3, -1.0])
    person = model.albedo_mean + np.tensordot(z, model.albedo_modes.astype(np.float64), 1)
    all_seen = albedo_posterior(model, person, np.ones((side, side)), noise=1e-3)
    np.testing.assert_allclose(all_seen.coefficients, z, atol=1e-2)
    left = np.zeros((side, side))
    left[:, :6] = 1
    half = albedo_posterior(model, person, left, noise=0.02)
    assert np.trace(all_seen.covariance) < np.trace(half.covariance) < 5
    missed = np.abs(half.mean - person)[:, 6:].mean()
    assert missed < 0.3 * np.abs(model.albedo_mean - person)[:, 6:].mean()


def test_wrong_arguments():
    model = small_model()
    with pytest.raises(ShapeError, match="values"):
        albedo_posterior(model, np.zeros((3, 3, 3)), np.zeros((12, 12)))
    with pytest.raises(ModelError, match="noise"):
        albedo_posterior(model, np.zeros((12, 12, 3)), np.zeros((12, 12)), noise=0.0)
    bare = dataclasses.replace(model, albedo_modes=None)
    with pytest.raises(ModelError, match="albedo modes"):
        albedo_posterior(bare, np.zeros((12, 12, 3)), np.zeros((12, 12)))
    with pytest.raises(ModelError, match="no albedo"):
        model_albedo(dataclasses.replace(bare, albedo_mean=None))


def known_population(n=300, h=400, count=6, holes=0.4, noise=0.02, seed=0):
    """People made of known modes, with whole stretches of each missing on one side."""
    rng = np.random.default_rng(seed)
    t = np.linspace(0, 1, h)
    modes = np.stack([np.sin(2 * np.pi * (k + 1) * t + k) for k in range(count)])
    modes = (0.1 / np.sqrt(1 + np.arange(count)))[:, None, None] * modes[..., None] * [1, 0.8, 0.6]
    parity = np.array([1.0, -1, 1, 1, -1, 1])
    z = rng.normal(size=(n, count))
    sides = [np.tensordot(z, modes, 1), np.tensordot(z * parity, modes, 1)]
    clean = 0.5 + np.stack(sides, 1)
    weights = np.ones((n, 2, h), np.float32)
    for k in range(n):
        start = rng.integers(0, h)
        weights[k, rng.integers(2), start : start + int(holes * h)] = 0
    values = (clean + rng.normal(0, noise, clean.shape)).astype(np.float32)
    values[weights == 0] = 7.0  # must not matter
    return values, weights, modes, parity


def test_learning_recovers_known_modes_in_spite_of_holes():
    values, weights, modes, parity = known_population()
    learned = fit_ppca(values, weights, 6, iterations=15, texels_per_sample=1)
    assert sorted(learned.parity) == sorted(parity)
    assert learned.noise == pytest.approx(0.02, rel=0.15)
    np.testing.assert_allclose(learned.mean, 0.5, atol=0.03)
    for sign in (1, -1):
        true = modes[parity == sign].reshape((parity == sign).sum(), -1)
        found = learned.modes[learned.parity == sign].reshape(len(true), -1)
        overlap = np.linalg.svd(
            np.linalg.qr(true.T)[0].T @ np.linalg.qr(found.T)[0], compute_uv=False
        )
        assert overlap.min() > 0.98
        # Their strength is the population's.
        np.testing.assert_allclose(
            np.linalg.norm(found, axis=1).max(), np.linalg.norm(true, axis=1).max(), rtol=0.25
        )


def test_same_data_same_modes():
    values, weights, *_ = known_population(n=60, h=120)
    a, b = fit_ppca(values, weights, 4), fit_ppca(values, weights, 4)
    assert (a.modes == b.modes).all() and a.noise == b.noise


def test_modes_survive_the_disk(tmp_path):
    model = small_model()
    save_model(tmp_path / "m.npz", model)
    again = load_model(tmp_path / "m.npz")
    top = np.abs(model.albedo_modes.astype(float)).max((1, 2, 3))
    error = np.abs(again.albedo_modes.astype(float) - model.albedo_modes.astype(float))
    assert (error.max((1, 2, 3)) <= top / 120).all()
    assert again.albedo_noise == model.albedo_noise
    for k, sign in enumerate((1, 1, 1, -1, -1)):
        assert (again.albedo_modes[k] == sign * again.albedo_modes[k][:, ::-1]).all()


def test_damaged_modes_are_refused(tmp_path):
    path = tmp_path / "m.npz"
    save_model(path, small_model())
    with np.load(path) as z:
        data = dict(z)
    data["albedo_steps"] = data["albedo_steps"][:-1]
    np.savez(path, **data)
    with pytest.raises(ModelError, match="cut off"):
        load_model(path)


# --------------------------------------------------------------------- the shipped model
def test_embedded_albedo_is_symmetric_skin():
    model = load_model()
    assert model.albedo_mean.shape == (256, 256, 3)
    assert len(model.albedo_modes) >= 64 and 0 < model.albedo_noise < 0.1
    assert np.abs(model.albedo_mean - model.albedo_mean[:, ::-1]).max() < 2e-3
    for mode in model.albedo_modes:
        image = mode[:, ::-1]
        assert min(np.abs(mode - image).max(), np.abs(mode + image).max()) < 1e-6
    cheek = model_albedo(model)[120:140, 70:85].mean((0, 1))
    assert cheek[0] > cheek[1] > cheek[2] and 0.15 < cheek[0] < 0.7


def test_embedded_albedo_predicts_the_hidden_half():
    """A person of the population, half hidden: the posterior beats the mean by far."""
    model = load_model()
    rng = np.random.default_rng(4)
    z = rng.normal(size=len(model.albedo_modes))
    person = model.albedo_mean + np.tensordot(z, model.albedo_modes.astype(np.float32), 1)
    person += rng.normal(0, model.albedo_noise, person.shape)
    weights = np.zeros((256, 256), np.float32)
    weights[40:216, 24:128] = 1
    found = albedo_posterior(model, person, weights)
    hidden = np.s_[40:216, 128:232]
    error = np.abs(found.mean - person)[hidden].mean()
    assert error < 0.75 * np.abs(model.albedo_mean - person)[hidden].mean()
    sure = np.sqrt(found.variance)
    assert sure[hidden].mean() > sure[40:216, 24:128].mean()
