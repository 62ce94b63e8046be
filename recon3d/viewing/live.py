"""What there is to see while a stream is watched: the newest frame, and a page that shows it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from recon3d.exporting import NOTICE
from recon3d.exporting.pictures import CONTOURS
from recon3d.files import atomic_write
from recon3d.tracking import SeenFace

_TEMPLATE = Path(__file__).with_name("live.html")
_WIDTH = 960
_PICTURES = (
    ("frontal.png", "Frontal view, a reconstruction"),
    ("frontal_raw.png", "Before the refiner"),
    ("evidence.png", "Red: how much was seen; green: how finely; blue: guessed"),
)
_BOX, _LINES, _TEXT = (255, 190, 60), (80, 220, 255), (255, 255, 255)


def draw_live(image: np.ndarray, faces: Sequence[SeenFace], line: str) -> np.ndarray:
    """A frame with the faces in it marked.

    Parameters
    ----------
    image : (H, W, 3) uint8 RGB
    faces : sequence of SeenFace
    line : str
        Written above.

    Returns
    -------
    (h, w, 3) uint8 RGB
        At most 960 px wide.
    """
    zoom = min(1.0, _WIDTH / image.shape[1])
    size = round(image.shape[1] * zoom), round(image.shape[0] * zoom)
    canvas = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if zoom < 1 else image.copy()
    for face in faces:
        points = np.round((face.landmarks * zoom - 0.5) * 16).astype(np.int32)
        for contour in CONTOURS:
            cv2.polylines(canvas, [points[list(contour)]], False, _LINES, 1, cv2.LINE_AA, 4)
        x0, y0, x1, y1 = (int(v) for v in np.round(face.box * zoom))
        cv2.rectangle(canvas, (x0, y0), (x1, y1), _BOX, 1)
        text = f"{face.person}: {face.views} views, {face.face_px:.0f} px, yaw {face.yaw:.0f}"
        _write(canvas, text, (x0, max(y0 - 4, 24)))
    _write(canvas, line, (6, 16))
    return canvas


def write_live(out: Path, picture: np.ndarray) -> Path:
    """Write a picture as ``live.jpg``, whole or not at all."""
    _, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    return atomic_write(out / "live.jpg", data.tobytes())


def write_live_page(out: Path, source: str, people: int) -> Path:
    """Write ``live.html``, which shows ``live.jpg`` and the pictures of so many people as they
    come, without a server.

    Parameters
    ----------
    out : Path
    source : str
        What is watched, as the user calls it.
    people : int
    """
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        source=source,
        notice=NOTICE,
        folders=[f"track_{number:03d}" for number in range(people)],
        pictures=_PICTURES,
    )
    return atomic_write(out / "live.html", page)


def _write(canvas: np.ndarray, text: str, at: tuple[int, int]) -> None:
    style = cv2.FONT_HERSHEY_SIMPLEX, 0.42
    cv2.putText(canvas, text, at, *style, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.putText(canvas, text, at, *style, _TEXT, 1, cv2.LINE_AA)
