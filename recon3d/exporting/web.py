"""A surface as the page's WebGL viewer wants it: small integers, base64."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np

from recon3d.exporting.surface import RANGES_MM, Surface, colour_table, length_colours

MODE_LABELS = {
    "texture": "texture",
    "evidence": "evidence",
    "uncertainty": "shape uncertainty",
    "error": "landmark error",
    "plain": "bare surface",
}
"""Colour modes of every viewer, and what people are shown."""

EVIDENCE_LEGEND = (
    '<span class="r3d-key" style="background:#e03030"></span>support '
    '<span class="r3d-key" style="background:#30a030"></span>resolution '
    '<span class="r3d-key" style="background:#3050e0"></span>generated or mirrored'
)


def viewer_script() -> str:
    """The JavaScript that defines ``recon3dMesh(host, mesh)``."""
    return Path(__file__).with_name("report_mesh.js").read_text(encoding="utf-8")


def web_mesh(
    surface: Surface,
    texture: np.ndarray,
    evidence: np.ndarray | None = None,
    lengths: dict[str, np.ndarray] | None = None,
    *,
    first: str = "texture",
    side: int = 1024,
) -> dict:
    """What ``recon3dMesh`` draws.

    Parameters
    ----------
    surface : Surface
    texture, evidence : (T, T, 3) uint8 RGB
    lengths : dict of str to (V,), mm
        Vertex values of the modes in `RANGES_MM`.
    first : str
        Mode shown at first.
    side : int
        Largest side of the pictures, px.

    Returns
    -------
    dict, JSON-able: positions in 16 bits over the largest side of the box, normals in 8
    """
    low, high = surface.vertices.min(0), surface.vertices.max(0)
    reach = max(float((high - low).max()) / 2, 1e-6)
    position = (surface.vertices - (low + high) / 2) / reach
    count = len(position)
    modes = [_picture_mode("texture", texture, side, 0.3, "the fused skin, its light taken out")]
    if evidence is not None:
        modes.append(_picture_mode("evidence", evidence, side // 2, 0.35, EVIDENCE_LEGEND))
    for name, value in (lengths or {}).items():
        modes.append(
            {
                "name": name,
                "label": MODE_LABELS[name],
                "shade": 0.5,
                "colour": _base64(length_colours(value, RANGES_MM[name])),
                "legend": scale_legend(RANGES_MM[name]),
            }
        )
    plain = {"name": "plain", "label": MODE_LABELS["plain"], "shade": 1.0, "legend": "shape alone"}
    return {
        "count": count,
        "first": first,
        "position": _base64(np.round(position * 32767).astype("<i2")),
        "normal": _base64(np.round(surface.normals * 127).astype(np.int8)),
        "uv": _base64(np.round(np.clip(surface.uv, 0, 1) * 65535).astype("<u2")),
        "index": _base64(surface.triangles.astype("<u4" if count > 65535 else "<u2")),
        "modes": [*modes, plain],
    }


def scale_legend(top: float) -> str:
    """A bar of the colour scale from 0 to `top` mm, as HTML."""
    stops = ", ".join(f"#{bytes(colour).hex()}" for colour in colour_table()[:: 255 // 5])
    return (
        f'0 <span class="r3d-bar" style="background:linear-gradient(90deg, {stops})"></span> '
        f"{top:g} mm and more"
    )


def data_uri(rgb: np.ndarray, side: int | None = None, quality: int = 88) -> str:
    """A picture as a JPEG in a data URI, made no larger than `side` px."""
    if side is not None and max(rgb.shape[:2]) > side:
        scale = side / max(rgb.shape[:2])
        rgb = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    ok, data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise ValueError("a picture cannot be encoded")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def _picture_mode(name: str, picture: np.ndarray, side: int, shade: float, legend: str) -> dict:
    return {
        "name": name,
        "label": MODE_LABELS[name],
        "shade": shade,
        "picture": data_uri(picture, side),
        "legend": legend,
    }


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
