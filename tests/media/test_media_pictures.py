"""Pictures of every kind in, PNG out."""

import cv2
import numpy as np
import pytest
from PIL import Image

from recon3d.errors import InputError
from recon3d.media import iterate_frames, open_inputs, read_picture, write_png
from recon3d.media.pictures import picture_focal


@pytest.fixture
def picture():
    y, x = np.mgrid[:37, :53]
    return np.stack([x * 4, y * 6, 255 - x * 2], -1).astype(np.uint8)


def only_frame(path):
    frames = list(iterate_frames(open_inputs([path])))
    assert len(frames) == 1
    return frames[0]


def test_png_comes_back_with_its_text(tmp_path, picture):
    path = write_png(tmp_path / "a.png", picture, {"recon3d:version": "0.1", "note": "Größe µ"})
    assert np.array_equal(read_picture(path), picture)
    with Image.open(path) as image:
        assert image.text == {"recon3d:version": "0.1", "note": "Größe µ"}
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_png_that_cannot_be_written_leaves_nothing(tmp_path, picture):
    with pytest.raises(InputError, match="cannot be written"):
        write_png(tmp_path / "missing" / "a.png", picture)
    assert list(tmp_path.iterdir()) == []


def test_odd_size_jpeg(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "a.jpg", quality=98, subsampling=0)
    frame = only_frame(tmp_path / "a.jpg")
    assert frame.image.shape == (37, 53, 3)
    assert np.abs(frame.image.astype(int) - picture).mean() < 2
    assert (frame.index, frame.time, frame.source) == (0, 0.0, 0)


def test_greyscale_is_repeated(tmp_path, picture):
    Image.fromarray(picture[..., 0]).save(tmp_path / "a.png")
    image = only_frame(tmp_path / "a.png").image
    assert np.array_equal(image, np.repeat(picture[..., :1], 3, 2))


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bit(tmp_path, picture, channels):
    deep = picture[..., :channels].astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / "a.png"), deep[..., ::-1] if channels == 3 else deep[..., 0])
    image = only_frame(tmp_path / "a.png").image
    assert image.dtype == np.uint8
    assert np.array_equal(image, np.broadcast_to(picture[..., :channels], image.shape))


def test_transparency_is_laid_over_grey(tmp_path, picture):
    alpha = np.zeros(picture.shape[:2], np.uint8)
    alpha[:, :20] = 255
    alpha[:, 20:30] = 51
    Image.fromarray(np.dstack([picture, alpha])).save(tmp_path / "a.png")
    image = only_frame(tmp_path / "a.png").image
    assert np.array_equal(image[:, :20], picture[:, :20])
    assert (image[:, 30:] == 128).all()
    expected = 0.2 * picture[:, 20:30] + 0.8 * 128
    assert np.abs(image[:, 20:30] - expected).max() <= 0.51


def test_palette_picture(tmp_path, picture):
    Image.fromarray(picture).quantize(32).save(tmp_path / "a.png")
    assert only_frame(tmp_path / "a.png").image.shape == picture.shape


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, picture, orientation):
    # What a camera stores for an upright scene, by the standard's table.
    stored = {
        1: picture,
        2: picture[:, ::-1],
        3: picture[::-1, ::-1],
        4: picture[::-1],
        5: picture.transpose(1, 0, 2),
        6: picture.transpose(1, 0, 2)[::-1],
        7: picture.transpose(1, 0, 2)[::-1, ::-1],
        8: picture.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    media = open_inputs([tmp_path / "a.png"])[0]
    assert (media.width, media.height) == (53, 37)
    assert np.array_equal(only_frame(tmp_path / "a.png").image, picture)


def test_folder_in_natural_order_with_a_bad_file(tmp_path, picture):
    for number in (10, 9, 1):
        write_png(tmp_path / f"frame{number}.png", np.full((8, 9, 3), number, np.uint8))
    (tmp_path / "frame5.png").write_bytes(b"not a picture")
    (tmp_path / "notes.txt").write_text("x")
    warnings = []
    (media,) = open_inputs([tmp_path])
    assert (media.kind, media.n_frames) == ("folder", 4)
    frames = list(iterate_frames([media], on_warning=warnings.append))
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [1, 9, 10]
    assert len(warnings) == 1 and "frame5.png" in warnings[0] and "\n" not in warnings[0]


def test_glob_and_several_inputs(tmp_path):
    for number in range(3):
        write_png(tmp_path / f"a{number}.png", np.full((8, 9, 3), number, np.uint8))
    inputs = open_inputs([str(tmp_path / "a*.png"), tmp_path / "a2.png"])
    assert [media.kind for media in inputs] == ["glob", "image"]
    frames = list(iterate_frames(inputs))
    assert [(f.source, f.index) for f in frames] == [(0, 0), (0, 1), (0, 2), (1, 0)]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.png", b"", "empty"),
        ("a.png", b"hello", "not a picture"),
        ("a.mp4", b"", "empty"),
        ("a.mp4", b"this is a text file, not a video\n" * 40, "not a picture or video"),
        ("a.txt", b"line\n" * 100, "not a picture or video"),
        ("a.bin", bytes(range(256)) * 8, "not a picture or video"),
    ],
)
def test_what_is_not_media(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        open_inputs([path])
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_and_empty(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        open_inputs([tmp_path / "nothing.mp4"])
    with pytest.raises(InputError, match="no picture and no video"):
        open_inputs([tmp_path])
    with pytest.raises(InputError, match="matches"):
        open_inputs([str(tmp_path / "*.png")])
    with pytest.raises(InputError, match="no input"):
        open_inputs([])


def _with_focal(path, size, film, taken=None):
    exif = Image.Exif()
    tags = exif.get_ifd(0x8769)
    tags[0xA405] = film
    if taken is not None:
        tags[0xA002], tags[0xA003] = taken
    Image.new("RGB", size).save(path, exif=exif)
    return picture_focal(path, size)


def test_the_focal_length_of_a_photo(tmp_path):
    """A normal lens of 50 mm has a focal length of 1.156 diagonals of 35 mm film."""
    found = _with_focal(tmp_path / "a.jpg", (300, 200), 50)
    assert found == pytest.approx(50 / np.hypot(36, 24) * np.hypot(300, 200))
    # Reduced, or stored on its side, it is the same lens; cut, nothing is known any more.
    assert _with_focal(tmp_path / "b.jpg", (300, 200), 50, (6000, 4000)) == pytest.approx(found)
    assert _with_focal(tmp_path / "c.jpg", (200, 300), 50, (6000, 4000)) == pytest.approx(found)
    assert _with_focal(tmp_path / "d.jpg", (200, 200), 50, (6000, 4000)) is None


def test_no_focal_length_or_nonsense(tmp_path):
    assert _with_focal(tmp_path / "a.jpg", (300, 200), 0) is None
    assert _with_focal(tmp_path / "b.jpg", (300, 200), 60000) is None
    Image.new("RGB", (30, 20)).save(tmp_path / "c.png")
    assert picture_focal(tmp_path / "c.png", (30, 20)) is None
    (tmp_path / "d.jpg").write_bytes(b"no picture")
    assert picture_focal(tmp_path / "d.jpg", (30, 20)) is None


def test_frames_of_photos_carry_the_focal_length(tmp_path):
    wanted = _with_focal(tmp_path / "a.jpg", (300, 200), 35)
    Image.new("RGB", (300, 200)).save(tmp_path / "b.jpg")
    first, second = iterate_frames(open_inputs([str(tmp_path)]))
    assert first.focal_px == pytest.approx(wanted)
    assert second.focal_px is None
