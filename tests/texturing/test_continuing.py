"""Setting a guess into what is known: values stay, no border shows, far detail is the guess's."""

import numpy as np
import pytest
from head_scene import make_model

from recon3d.texturing.atlas import build_atlas
from recon3d.texturing.filling import continue_into


@pytest.fixture(scope="module")
def atlas():
    return build_atlas(make_model(), 256)


def picture(atlas, values):
    out = np.full((atlas.size, atlas.size), np.nan)
    out[atlas.row, atlas.column] = values
    return out


def test_an_offset_guess_leaves_no_step_and_keeps_its_detail(atlas):
    column, row = atlas.column, atlas.row
    edge = int(np.median(column))
    known = (column < edge).astype(np.float32)
    smooth = 0.5 * np.sin(row / 40.0)
    detail = 0.2 * np.sin(column / 2.0)
    values = smooth[:, None]
    guess = (smooth + detail + 0.8)[:, None]
    out = continue_into(atlas, values, guess, known)[:, 0]
    np.testing.assert_allclose(out[known > 0.5], values[known > 0.5, 0], atol=1e-6)
    image, valid = picture(atlas, out), picture(atlas, guess[:, 0])
    across = np.abs(image[:, edge] - image[:, edge - 1])
    before = np.abs(valid[:, edge] - smooth.mean())
    assert np.nanmean(across) < 0.05 < np.nanmean(before)
    # Well beyond the border steps from texel to texel are those of the guess.
    steps, wanted = (
        np.diff(image[:, edge + 12 : edge + 40]),
        np.diff(valid[:, edge + 12 : edge + 40]),
    )
    both = np.isfinite(steps) & np.isfinite(wanted)
    assert np.corrcoef(steps[both], wanted[both])[0, 1] > 0.98


def test_a_narrow_slit_is_a_membrane_whatever_the_guess(atlas):
    edge = int(np.median(atlas.column))
    known = np.ones(len(atlas), np.float32)
    known[np.abs(atlas.column - edge) <= 1] = 0
    values = (0.01 * atlas.column)[:, None]
    noise = np.random.default_rng(0).normal(0, 1, (len(atlas), 1))
    out = continue_into(atlas, values, noise, known)
    inside = (known == 0) & (np.abs(atlas.row - np.median(atlas.row)) < 20)
    np.testing.assert_allclose(out[inside], values[inside], atol=0.02)


def test_with_nothing_known_the_guess_stays(atlas):
    guess = np.linspace(0, 1, len(atlas))[:, None]
    out = continue_into(atlas, 0 * guess, guess, np.zeros(len(atlas), np.float32))
    np.testing.assert_allclose(out, guess, atol=1e-6)


def test_little_known_pulls_by_as_much(atlas):
    column = atlas.column
    edge = int(np.median(column))
    values, guess = np.ones((len(atlas), 1)), np.zeros((len(atlas), 1))
    some = [np.where(column < edge, 1.0, share).astype(np.float32) for share in (0.0, 0.2, 0.9)]
    far = column > edge + 20
    means = [continue_into(atlas, values, guess, known)[far].mean() for known in some]
    assert means[0] < means[1] < means[2] and means[2] > 0.9
