"""A person from many frames, and who of a gallery is near."""

import io
import json

import numpy as np
import pytest

from recon3d.cli.main import main
from recon3d.errors import InputError, ShapeError
from recon3d.recognition import EMBEDDERS, Gallery, make_template, track_template
from recon3d.types import FaceObservation, FaceTrack, ImagePatch


class Plain:
    """A descriptor that says how bright a picture is, and how wide its face."""

    name = "plain"
    threshold = 0.6

    def __call__(self, image, landmarks):
        return np.array([image.mean() / 255, np.ptp(landmarks[:, 0]) / 100])


class Other(Plain):
    name = "other"


def track_of(levels, yaw=0.0):
    rng = np.random.default_rng(0)
    shape = rng.uniform(10, 50, (478, 2))
    views = tuple(
        FaceObservation(
            frame_index=k,
            source=0,
            time=k / 25,
            image_size=(200, 100),
            box=np.array([110.0, 10, 150, 50]),
            landmarks=shape + [100, 0],
            covariance=np.tile(np.eye(2), (478, 1, 1)),
            depth=np.zeros(478),
            yaw=yaw + 10.0 * k,
            pitch=0.0,
            roll=0.0,
            quality=0.8,
            patch=ImagePatch(np.full((60, 60, 3), level, np.uint8), (100, 0)),
        )
        for k, level in enumerate(levels)
    )
    many = np.zeros(len(levels), np.float32)
    index = np.arange(len(levels))
    return FaceTrack(0, views, index, 0 * index, many, many, many, many, many)


def test_the_frames_that_look_ahead_are_asked():
    track = track_of([51, 102, 153, 204])
    found = track_template(track, Plain(), count=2)
    assert found.frames == 2 and not found.fused and found.embedder == "plain"
    np.testing.assert_allclose(found.vector[0], 0.3)
    assert found.face_px == pytest.approx(40, abs=1)
    assert track_template(track, Plain()).vector[0] == pytest.approx(0.5)


def test_frames_and_the_fused_view_count_the_same():
    both = make_template([np.array([0.0, 1]), np.array([0.4, 1])], Plain(), fused=np.array([1, 1]))
    np.testing.assert_allclose(both.vector, [0.6, 1])
    alone = make_template([], Plain(), fused=np.array([1.0, 1]))
    assert alone.frames == 0 and alone.fused and both.distance(alone) == pytest.approx(0.4)
    with pytest.raises(ShapeError):
        make_template([], Plain())
    with pytest.raises(InputError, match="cannot be compared"):
        both.distance(make_template([np.zeros(2)], Other()))


def test_a_gallery_survives_the_disk(tmp_path):
    people = Gallery()
    for name, level in (("anna", 0.2), ("b/c#1", 0.5), ("dora", 0.9)):
        people.add(name, make_template([np.array([level, 0])], Plain(), face_px=64.0))
    with pytest.raises(InputError, match="anna"):
        people.add("anna", people["dora"])
    back = Gallery.load(people.save(tmp_path / "people.npz"))
    assert list(back) == ["anna", "b/c#1", "dora"] and back["anna"].face_px == 64
    nearest = back.nearest(make_template([np.array([0.6, 0])], Plain()))
    assert [name for name, _ in nearest] == ["b/c#1", "dora", "anna"]
    np.testing.assert_allclose([d for _, d in nearest], [0.1, 0.3, 0.4])
    np.testing.assert_allclose(back.distances()[0], [0, 0.3, 0.7])
    assert Gallery().distances().shape == (0, 0)


def test_other_files_are_no_galleries(tmp_path):
    path = tmp_path / "x.npz"
    with pytest.raises(InputError, match="no such file"):
        Gallery.load(path)
    path.write_bytes(b"PK nothing")
    with pytest.raises(InputError, match="not a gallery"):
        Gallery.load(path)
    stream = io.BytesIO()
    np.savez(stream, about=np.array([{"a": 1}], object), allow_pickle=True)
    path.write_bytes(stream.getvalue())
    with pytest.raises(InputError, match="not a gallery"):
        Gallery.load(path)


@pytest.mark.skipif(bool(EMBEDDERS["dlib"].detect()), reason="dlib is not installed")
def test_the_command(tmp_path, capsys):
    pytest.importorskip("mediapipe")
    from skimage.data import astronaut

    from recon3d.media import write_png

    face = np.ascontiguousarray(astronaut()[:300, 70:370])
    dark = (face * 0.6).astype(np.uint8)
    mirrored = np.ascontiguousarray(face[:, ::-1])
    for name, image in (("a", face), ("b", dark), ("c", mirrored)):
        write_png(tmp_path / f"{name}.png", image)
    a, b, c = (str(tmp_path / f"{name}.png") for name in "abc")
    people = str(tmp_path / "people.npz")
    assert main(["compare", a, b, "--save", people, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [p["frames"] for p in found["people"]] == [1, 1] and "never proof" in found["caution"]
    assert 0 < found["distances"][0][1] < 0.3 and found["distances"][0][0] == 0
    assert main(["compare", c, "--gallery", people]) == 0
    out = capsys.readouterr().out
    assert "face" in out and out.index(a) > 0 and b in out and "never proof" in out
    assert main(["compare", a, people]) == 2, "the name is taken"
    assert main(["compare", a]) == 2
    assert "nobody to compare with" in capsys.readouterr().err.splitlines()[-1]
    write_png(tmp_path / "wall.png", np.full((80, 80, 3), 99, np.uint8))
    assert main(["compare", a, str(tmp_path / "wall.png")]) == 1
    assert main(["compare", a, b, "--save", str(tmp_path / "x.txt")]) == 2
    assert not (tmp_path / "x.txt").exists()
