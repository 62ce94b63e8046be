"""Stage results survive the disk, and damaged ones are noticed."""

import numpy as np

from recon3d.state import load_state, save_state
from recon3d.types import FaceObservation, ImagePatch


def _observation() -> FaceObservation:
    rng = np.random.default_rng(0)
    return FaceObservation(
        frame_index=3,
        source=1,
        time=0.12,
        image_size=(64, 48),
        box=np.array([1.0, 2.0, 30.0, 40.0]),
        landmarks=rng.normal(size=(478, 2)),
        covariance=rng.normal(size=(478, 2, 2)),
        depth=rng.normal(size=478),
        yaw=1.0,
        pitch=-2.0,
        roll=0.5,
        quality=np.float32(0.25),
        patch=ImagePatch(rng.integers(0, 255, (8, 9, 3), np.uint8), (4, 5)),
    )


def test_round_trip(tmp_path):
    value = {"views": (_observation(),), "note": ["x", None, 2]}
    save_state(tmp_path / "s.npz", value, "key")
    back = load_state(tmp_path / "s.npz", "key", lambda name: None)
    seen, made = back["views"][0], value["views"][0]
    assert seen.patch.origin == (4, 5)
    assert np.array_equal(seen.patch.image, made.patch.image)
    assert np.array_equal(seen.landmarks, made.landmarks)
    assert seen.quality == 0.25 and back["note"] == ["x", None, 2]


def test_other_key_or_damage_is_no_state(tmp_path):
    path = tmp_path / "s.npz"
    save_state(path, {"a": np.arange(5000.0)}, "key")
    assert load_state(path, "another", lambda name: None) is None
    assert load_state(tmp_path / "missing.npz", "key", lambda name: None) is None
    data = path.read_bytes()
    for cut in (0, 10, len(data) // 2, len(data) - 30):
        path.write_bytes(data[:cut])
        assert load_state(path, "key", lambda name: None) is None
