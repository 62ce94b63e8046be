"""Photos as skin: their own light is taken out, their features are not."""

import numpy as np
import pytest

from recon3d.scenes.portraits import without_light


@pytest.fixture(scope="module")
def face():
    """A dome lit from one side, in warm light, with two dark patches on skin of one colour."""
    y, x = np.mgrid[-1:1:90j, -1:1:70j]
    inside = x**2 + y**2 < 0.9
    x, y = x[inside], y[inside]
    z = np.sqrt(1 - x**2 - y**2)
    normals = np.column_stack([x, y, z])
    place = 70 * normals
    eyes = np.hypot(np.abs(x) - 0.4, y - 0.2) < 0.12
    albedo = np.where(eyes[:, None], 0.08, [0.4, 0.3, 0.25])
    shading = np.exp(np.column_stack([0.9 * x, 0.7 * x + 0.2 * y, 0.5 * x]))
    return albedo * shading, albedo, normals, place, eyes


def spread(colour, skin):
    return np.log(colour[skin]).std(0).max()


def test_even_skin_stays_even_when_its_light_is_taken_out(face):
    lit, albedo, normals, place, eyes = face
    found = without_light(lit, normals, place, np.ones(len(lit), bool), 1.0)
    assert spread(lit, ~eyes) > 0.4
    assert spread(found, ~eyes) < 0.05
    # What is dark in any light is as much darker than the skin as before.
    ratio = found[eyes].mean(0) / found[~eyes].mean(0)
    np.testing.assert_allclose(ratio, albedo[eyes].mean(0) / albedo[~eyes].mean(0), rtol=0.2)


def test_a_share_of_the_light_stays_if_wanted(face):
    lit, _, normals, place, eyes = face
    every = np.ones(len(lit), bool)
    half = spread(without_light(lit, normals, place, every, 0.5), ~eyes)
    assert half == pytest.approx(0.5 * spread(lit, ~eyes), rel=0.15)
    assert without_light(lit, normals, place, every, 0.0) is lit


def test_contrast_is_of_the_logarithm_about_the_mean_skin(face):
    _, albedo, normals, place, _ = face
    every = np.ones(len(albedo), bool)
    found = without_light(albedo, normals, place, every, 0.0, 0.5)
    before = np.ptp(np.log(albedo + 0.02), axis=0)
    np.testing.assert_allclose(np.ptp(np.log(found + 0.02), axis=0), 0.5 * before, rtol=1e-3)
