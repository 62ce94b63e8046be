"""The answers that need no reconstruction."""

import numpy as np
import pytest

from recon3d.errors import InputError
from recon3d.evaluation.baselines import (
    EYES,
    IRIS_MM,
    best_frame,
    frame_average,
    metric_mesh,
    single_frame,
)
from recon3d.scenes.truth import eye_centres, portrait_landmarks
from recon3d.types import FaceObservation, FaceTrack, ImagePatch


def observe(image: np.ndarray, yaw: float = 0.0, origin=(40, 30)) -> FaceObservation:
    """A view whose patch lies somewhere in a larger frame."""
    found = portrait_landmarks(image)
    landmarks = found[:, :2] + origin
    return FaceObservation(
        frame_index=0,
        source=0,
        time=0.0,
        image_size=(640, 480),
        box=np.concatenate([landmarks.min(0), landmarks.max(0)]),
        landmarks=landmarks,
        covariance=np.repeat(np.eye(2)[None], 478, 0),
        depth=found[:, 2],
        yaw=yaw,
        pitch=0.0,
        roll=0.0,
        quality=0.8,
        patch=ImagePatch(image, origin),
    )


def track_of(*views: FaceObservation) -> FaceTrack:
    n = np.zeros(len(views))
    return FaceTrack(0, views, n.astype(int), n.astype(int), n, n, n, n, n)


@pytest.fixture(scope="module")
def views(portrait):
    moved = np.ascontiguousarray(np.roll(portrait, 7, axis=1))
    return observe(portrait, 3.0), observe(moved, -20.0, (11, 5))


def test_the_frame_that_looks_ahead_is_taken(views):
    assert best_frame(track_of(views[1], views[0])) is views[0]
    with pytest.raises(InputError):
        best_frame(track_of())


def test_a_mesh_is_sized_by_its_iris(views):
    view = views[0]
    mesh = metric_mesh(view.landmarks, view.depth)
    assert mesh.shape == (468, 3)
    doubled = metric_mesh(2 * view.landmarks, 2 * view.depth)
    np.testing.assert_allclose(mesh, doubled, atol=1e-9)
    iris = np.linalg.norm(view.landmarks[469] - view.landmarks[471])
    assert np.linalg.norm(mesh[33, :2] - mesh[263, :2]) == pytest.approx(
        np.linalg.norm(view.landmarks[33] - view.landmarks[263]) * IRIS_MM / iris, rel=0.1
    )
    assert mesh[10, 1] > mesh[152, 1]
    assert mesh[4, 2] > mesh[127, 2]


@pytest.mark.parametrize("make", [single_frame, frame_average])
def test_eyes_lie_where_the_layout_has_them(views, make, tmp_path):
    answer = make(track_of(*views))
    assert answer.frontal.shape == (512, 512, 3)
    found = eye_centres(portrait_landmarks(answer.frontal))
    assert np.linalg.norm(found - EYES, axis=1).max() < 6
    answer.write(tmp_path / "case")
    names = {path.name for path in (tmp_path / "case" / "track_000").iterdir()}
    assert names == {"mesh.ply", "landmarks.json", "frontal.png"}
