"""Embeddings: of one person near, of others far, whatever the size of the picture."""

import cv2
import numpy as np
import pytest

from recon3d.errors import InputError, ShapeError
from recon3d.recognition import EMBEDDERS, distance, load_embedder, verify

pytest.importorskip("mediapipe")
if EMBEDDERS["dlib"].detect():
    pytest.skip("dlib or its weights are not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def embedder():
    return load_embedder()


@pytest.fixture(scope="module")
def portrait():
    from recon3d.tracking import TrackingSettings, track_faces
    from recon3d.types import Frame

    image = pytest.importorskip("skimage.data").astronaut()
    settings = TrackingSettings(jitter=2)
    (view,) = track_faces([Frame(image, 0, 0.0)], settings).tracks[0].views
    return image, view.landmarks


def test_agrees_with_dlibs_own_alignment(embedder, portrait):
    import dlib

    image, landmarks = portrait
    vector = embedder(image, landmarks)
    assert vector.shape == (128,)
    # The five points that dlib's own predictor gives for this picture.
    points = [(255, 104), (238, 105), (195, 101), (212, 103), (224, 135)]
    shape = dlib.full_object_detection(
        dlib.rectangle(170, 70, 277, 177), dlib.points([dlib.point(*p) for p in points])
    )
    network = dlib.face_recognition_model_v1(str(embedder.weights_path()))
    own = np.array(network.compute_face_descriptor(image, shape, 0, 0.25))
    assert distance(vector, own) < 0.15


@pytest.mark.parametrize(("width", "limit"), [(64, 0.25), (28, 0.5)])
def test_small_pictures_of_one_person(embedder, portrait, width, limit):
    image, landmarks = portrait
    factor = width / np.ptp(landmarks[:468, 0])
    small = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    a, b = embedder(image, landmarks), embedder(small, landmarks * factor)
    assert distance(a, b) < limit and verify(a, b)


def test_something_else_is_far(embedder, portrait):
    image, landmarks = portrait
    other = np.random.default_rng(0).integers(0, 255, image.shape, np.uint8)
    assert not verify(embedder(image, landmarks), embedder(other, landmarks))


def test_bad_calls(embedder, portrait):
    image, landmarks = portrait
    with pytest.raises(InputError, match="nobody"):
        load_embedder("nobody")
    with pytest.raises(ShapeError):
        embedder(image[..., 0], landmarks)
    with pytest.raises(InputError, match="uint8"):
        embedder(image.astype(np.float32), landmarks)
    with pytest.raises(InputError, match="outside"):
        embedder(image, landmarks + 5000)
