"""Single pictures: any common kind in, PNG out."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from recon3d.checks import check_shape
from recon3d.errors import InputError

PICTURE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".bmp", ".dib", ".tif", ".tiff", ".webp"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".hdr"}
)
"""File name endings that are read as single pictures."""

_FILM_DIAGONAL = float(np.hypot(36.0, 24.0))
_FILM_FOCAL = (8.0, 2000.0)
# Of the logarithm of width over height: pictures are reduced to whole pixels.
_SAME_SHAPE = 0.02

BACKGROUND = 128
"""sRGB grey that transparent pixels are laid over: what lies under them is not a picture."""


def read_picture(path: str | os.PathLike) -> np.ndarray:
    """Read one picture as upright 8-bit RGB.

    Greyscale is repeated over the channels, transparency is laid over mid-grey, 16-bit values are
    divided by 257, floats are taken as linear light in [0, 1], and the EXIF orientation is applied.

    Parameters
    ----------
    path : path of a picture file

    Returns
    -------
    (H, W, 3) uint8, sRGB

    Raises
    ------
    InputError
        If the file cannot be decoded.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if not len(data):
        raise InputError(f"{path}: the file is empty")
    image = _decode(data)
    if image is None:
        raise InputError(f"{path}: not a picture that can be decoded")
    return _upright(_to_rgb8(image), _orientation(path))


def picture_size(path: str | os.PathLike) -> tuple[int, int]:
    """Upright (width, height) of a picture, from its header where that is possible."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            width, height = picture.size
        return (height, width) if _orientation(path) >= 5 else (width, height)
    except Exception:
        height, width = read_picture(path).shape[:2]
        return width, height


def picture_focal(path: str | os.PathLike, size: tuple[int, int]) -> float | None:
    """The focal length of a picture, px, as its camera wrote it down (EXIF).

    From the length that a camera of 35 mm film would have needed, which is about the diagonal;
    ``FocalPlaneXResolution`` is wrong as often as right.

    Parameters
    ----------
    path : path of a picture file
    size : (width, height)
        Of the picture as it was decoded.

    Returns
    -------
    float or None
        None where nothing is written, or where the picture was cut since: it then has another
        shape than its camera says. What was cut to the same shape cannot be told from what was
        reduced.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            tags = picture.getexif().get_ifd(0x8769)
        film = float(tags.get(0xA405) or 0)
        taken = sorted(float(tags.get(tag) or 0) for tag in (0xA002, 0xA003))
    except Exception:
        return None
    if not _FILM_FOCAL[0] <= film <= _FILM_FOCAL[1]:
        return None
    now = sorted(size)
    if taken[0] > 0 and abs(np.log(taken[1] / taken[0] * now[0] / now[1])) > _SAME_SHAPE:
        return None
    return film * float(np.hypot(*size)) / _FILM_DIAGONAL


def write_png(
    path: str | os.PathLike, image: np.ndarray, text: dict[str, str] | None = None
) -> Path:
    """Write a PNG under a temporary name and rename it, so that no half file is ever seen.

    Parameters
    ----------
    path : path
    image : (H, W), (H, W, 3) or (H, W, 4) uint8, or (H, W) uint16
    text : dict, optional
        Text metadata (iTXt chunks).

    Returns
    -------
    Path written.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    if image.ndim != 2:
        check_shape(image, f"H W {4 if image.shape[-1] == 4 else 3}", "image")
    info = PngInfo()
    for key, value in (text or {}).items():
        info.add_itxt(key, str(value))
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        Image.fromarray(np.ascontiguousarray(image)).save(temporary, "PNG", pnginfo=info)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _decode(data: np.ndarray) -> np.ndarray | None:
    # UNCHANGED keeps depth and alpha; palettes and the rarer kinds are left to the second reader.
    try:
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        image = None
    if image is not None:
        return image
    import io

    from PIL import Image

    try:
        with Image.open(io.BytesIO(data.tobytes())) as picture:
            rgba = np.asarray(picture.convert("RGBA"))
    except Exception:
        return None
    return np.ascontiguousarray(rgba[..., [2, 1, 0, 3]])


def _to_rgb8(image: np.ndarray) -> np.ndarray:
    """BGR, BGRA or grey of any depth as RGB uint8."""
    if image.dtype == np.uint16:
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    elif image.dtype != np.uint8:
        from recon3d.colour import linear_to_srgb, to_uint8

        image = np.nan_to_num(image.astype(np.float32), nan=0.0, posinf=1.0, neginf=0.0)
        image = to_uint8(linear_to_srgb(image))
    if image.ndim == 2:
        return np.repeat(image[..., None], 3, axis=2)
    if image.shape[2] == 1:
        return np.repeat(image, 3, axis=2)
    if image.shape[2] == 2:  # grey and alpha
        image = image[..., [0, 0, 0, 1]]
    if image.shape[2] == 4:
        alpha = image[..., 3:].astype(np.uint32)
        over = image[..., :3] * alpha + BACKGROUND * (255 - alpha)
        image = ((over + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(image[..., 2::-1])


def _orientation(path) -> int:
    """The EXIF orientation, 1 to 8 (1 where there is none)."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            value = picture.getexif().get(0x0112, 1)
    except Exception:
        return 1
    return value if value in range(1, 9) else 1


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)
