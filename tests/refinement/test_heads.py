"""Rendered heads as training pairs: a photo's skin on any head of a model."""

import cv2
import numpy as np
import pytest

from recon3d.frontal.camera import EYES
from recon3d.morphable import load_model
from recon3d.morphable.topology import NOSTRILS
from recon3d.refinement import heads
from recon3d.scenes import portrait_landmarks, portrait_texture
from recon3d.scenes.portraits import usable_as_skin
from recon3d.scenes.truth import eye_centres


@pytest.fixture(scope="module")
def photo():
    from skimage.data import astronaut

    return cv2.resize(astronaut()[0:250, 100:350], (256, 256), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def points(photo):
    return portrait_landmarks(photo)


def test_a_face_that_turns_or_laughs_is_no_skin(points):
    frontal = points.copy()
    frontal[[33, 263], :2] = [[100, 100], [160, 100]]
    frontal[[61, 291], :2] = [[110, 180], [150, 180]]
    frontal[[13, 14], :2] = [[130, 179], [130, 180]]
    frontal[4, :2] = [130, 140]
    assert usable_as_skin(frontal)
    turned, laughing = frontal.copy(), frontal.copy()
    turned[4, 0] += 10
    laughing[14, 1] += 12
    assert not usable_as_skin(turned)
    assert not usable_as_skin(laughing)


def test_a_photo_lies_on_the_model_where_its_landmarks_are(photo, points):
    model = load_model("recon3d")
    texture = portrait_texture(model, photo, points, 3, size=256)
    assert texture.shape == (256, 256, 3)
    assert texture.dtype == np.float32
    assert np.isfinite(texture).all() and texture.min() > 0 and texture.max() < 1
    # The lips of the photo, painted red, come out at the lips of the texture.
    red = photo.copy()
    lips = points[[61, 0, 291, 17], :2].round().astype(int)
    cv2.fillConvexPoly(red, lips, (255, 0, 0))
    moved = np.abs(portrait_texture(model, red, points, 3, size=256) - texture).max(2) > 0.1
    embedding = model.landmarks
    corners = model.uv[model.triangles_uv[embedding.triangle[[61, 0, 291, 17]]]]
    uv = np.einsum("lk,lkd->ld", embedding.barycentric[[61, 0, 291, 17]], corners)
    where = np.argwhere(moved).mean(0)
    np.testing.assert_allclose(where, [256 * (1 - uv[:, 1].mean()), 256 * uv[:, 0].mean()], atol=6)


def test_nostrils_are_dark_whatever_the_photo_shows(photo, points):
    model = load_model("recon3d")
    bright = np.full_like(photo, 190)
    texture = portrait_texture(model, bright, points, 3, size=512).mean(2)

    def at(numbers) -> float:
        numbers = list(numbers)
        corners = model.uv[model.triangles_uv[model.landmarks.triangle[numbers]]]
        u, v = np.einsum("lk,lkd->ld", model.landmarks.barycentric[numbers], corners).mean(0)
        return float(texture[int(512 * (1 - v)), int(512 * u)])

    tip, nostrils = at([1, 4]), [at(ring) for ring in NOSTRILS]
    assert max(nostrils) < 0.5 * tip
    assert min(at([205]), at([425])) > 0.8 * tip


@pytest.mark.slow
def test_a_rendered_head_is_its_own_answer(photo, points):
    """The answer lies where the fused view shows the eyes; the same seed gives the same pair."""
    model = load_model("recon3d")
    pair = heads.simulate_head(photo, points, model, model, np.random.default_rng(4))
    assert pair.target.shape == (512, 512, 3)
    assert pair.info["heads"] == model.name
    seen = eye_centres(portrait_landmarks(pair.target))
    assert np.abs(seen - eye_centres(portrait_landmarks(pair.view.raw))).max() < 4
    assert np.abs(seen - EYES).max() < 30
    # Beside the head there is nothing to be drawn.
    np.testing.assert_array_equal(pair.target[:4, :4], pair.view.raw[:4, :4])
    again = heads.simulate_head(photo, points, model, model, np.random.default_rng(4))
    np.testing.assert_array_equal(pair.target, again.target)
