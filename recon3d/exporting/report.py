"""The manifest's human twin: one self-contained HTML page."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import cv2
import numpy as np

from recon3d.errors import InputError
from recon3d.exporting.files import atomic_write
from recon3d.exporting.records import dump_json
from recon3d.exporting.track import NOTICE

_TEMPLATE = Path(__file__).with_name("report.html")
_PICTURE_SIDE = 512
_VIEW_SIDE = 240


def write_json(path: Path, value) -> Path:
    """Write nested values as JSON, whole or not at all."""
    return atomic_write(path, dump_json(value, indent=1) + "\n")


def write_report(out: Path, folders: list[Path]) -> Path:
    """Write ``report.html`` from what lies in a run's folder.

    Parameters
    ----------
    out : Path
        Holds ``manifest.json``.
    folders : list of Path
        The tracks' folders, most frames first; may be empty when no face was found.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        If a file is missing or the page cannot be written.
    """
    import jinja2

    try:
        manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
        entries = {entry["path"]: entry for entry in manifest["tracks"]}
        tracks = [_track(folder, entries[folder.name]) for folder in folders]
        meshes = {str(t["id"]): _mesh(f) for t, f in zip(tracks, folders)}
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{out} is not a complete run: {error}") from error
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    details = {k: manifest[k] for k in ("inputs", "config", "versions", "device")}
    page = template.render(
        manifest=manifest,
        notice=NOTICE,
        inputs=", ".join(Path(i["path"]).name for i in manifest["inputs"]),
        tracks=tracks,
        # The page is HTML and the text stands in a script element: "<" must not end it early.
        meshes=json.dumps(meshes).replace("<", "\\u003c"),
        details=json.dumps(details, indent=1),
    )
    return atomic_write(out / "report.html", page)


def _track(folder: Path, entry: dict) -> dict:
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    views = sorted((folder / "views").glob("*_landmarks.png"))
    with np.load(folder / "fit.npz", allow_pickle=False) as fit:
        residuals, weights = fit["residuals"], fit["weights"]
        used = weights > 0.05
        distance = np.where(used, np.linalg.norm(residuals, axis=-1), np.nan)
        with np.errstate(invalid="ignore"):
            error = np.array(
                [np.median(d[np.isfinite(d)]) if np.isfinite(d).any() else 0.0 for d in distance]
            )
        yaw = fit["track_yaw"]
        best = _before(folder, fit)
    identity = metrics.get("identity_consistency") or {}
    reprojection = metrics["reprojection"]
    figures = [
        ("frames with this face", metrics["frames"]),
        ("views fitted", metrics["views_used"]),
        ("landmark error, median", _unit(reprojection["median_px"], "px")),
        ("landmark error, of eye distance", _unit(reprojection["median_percent_iod"], "%")),
        ("shape uncertainty, median", _unit(metrics["uncertainty_mm_median"], "mm")),
        ("generated share of the face", _unit(100 * metrics["generated_share"], "%", 0)),
        ("identity distance to best frames", _unit(identity.get("to_best_frames_median"), "")),
    ]
    return {
        **entry,
        "before": best,
        "after": _picture(folder / "frontal.png", _PICTURE_SIDE),
        "evidence": _picture(folder / "evidence.png", _PICTURE_SIDE),
        "generated_share": metrics["generated_share"],
        "coverage_svg": _coverage(yaw),
        "error_svg": _bars(error, "px", "view"),
        "figures": figures,
        "views": [{"name": v.stem, "src": _picture(v, _VIEW_SIDE)} for v in views],
    }


def _before(folder: Path, fit) -> str:
    """The most frontal of the shown views, moved so that its eyes lie where the frontal's do."""
    names = sorted(p for p in (folder / "views").glob("*.png") if "landmarks" not in p.stem)
    if not names:
        return ""

    def yaw(path: Path) -> float:
        return abs(float(path.stem.split("_")[0].removeprefix("yaw")))

    path = min(names, key=yaw)
    picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    source = int(path.stem.split("input")[1].split("_")[0])
    frame = int(path.stem.split("frame")[1])
    row = np.flatnonzero((fit["frame_index"] == frame) & (fit["source"] == source))
    origin = fit["patch_origin"][row[0]]
    eyes = fit["landmarks"][row[0]][[33, 133, 362, 263]] - origin
    right, left = eyes[:2].mean(0), eyes[2:].mean(0)
    side = _PICTURE_SIDE
    here, there = left - right, np.array([0.28 * side, 0.0])
    # A similarity that takes one eye pair to the other, written with complex numbers.
    turn = complex(*there) / complex(*here)
    A = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    shift = np.array([0.36 * side, 0.44 * side]) - A @ right
    moved = cv2.warpAffine(
        picture,
        np.c_[A, shift],
        (side, side),
        flags=cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return _data_uri(moved)


def _picture(path: Path, side: int) -> str:
    picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError(f"{path.name} cannot be decoded")
    scale = side / max(picture.shape[:2])
    if scale < 1:
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return _data_uri(picture)


def _data_uri(bgr: np.ndarray) -> str:
    ok, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 88])
    if not ok:
        raise ValueError("a picture cannot be encoded")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def _mesh(folder: Path) -> dict:
    """The textured mesh as base64 arrays for WebGL, centred and scaled to about one unit."""
    import trimesh

    mesh = trimesh.load(folder / "mesh.obj", process=False, maintain_order=True)
    uv = np.asarray(mesh.visual.uv, np.float32)
    vertices = np.asarray(mesh.vertices, np.float32)
    normals = np.asarray(mesh.vertex_normals, np.float32)
    low, high = vertices.min(0), vertices.max(0)
    vertices = (vertices - (low + high) / 2) / max(float((high - low).max()) / 2, 1e-6)
    if len(vertices) > 65535:
        return {}
    return {
        "position": _base64(vertices.astype(np.float32)),
        "normal": _base64(normals),
        "uv": _base64(uv),
        "index": _base64(np.asarray(mesh.faces, np.uint16)),
        "texture": _picture(folder / "texture.png", 1024),
    }


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _unit(value, unit: str, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f} {unit}".strip()


def _coverage(yaw: np.ndarray) -> str:
    counts, edges = np.histogram(yaw, np.arange(-90, 91, 15))
    labels = [f"{int(e)}°" for e in edges[:-1]]
    return _bars(counts, "frames", "yaw", labels)


def _bars(values: np.ndarray, unit: str, axis: str, labels: list[str] | None = None) -> str:
    """A bar chart as inline SVG."""
    values = np.asarray(values, np.float64)
    top = max(float(values.max(initial=0)), 1e-6)
    width, height, left, bottom = 320, 120, 26, 16
    step = (width - left) / max(len(values), 1)
    parts = [
        f'<svg viewBox="0 0 {width} {height + 4}" role="img" '
        f'aria-label="{unit} by {axis}, highest {top:.3g}">',
        f'<text x="0" y="10">{top:.3g}</text><text x="0" y="{height - bottom}">0</text>',
    ]
    for i, value in enumerate(values):
        tall = (height - bottom - 4) * value / top
        parts.append(
            f'<rect x="{left + i * step:.1f}" y="{height - bottom - tall:.1f}" '
            f'width="{max(step - 1, 0.6):.1f}" height="{tall:.1f}" fill="#2f5fb3">'
            f"<title>{value:.3g} {unit}</title></rect>"
        )
        if labels and i % 2 == 0:
            parts.append(f'<text x="{left + i * step:.1f}" y="{height - 3}">{labels[i]}</text>')
    if not labels:
        parts.append(f'<text x="{left}" y="{height - 3}">{axis} (first to last), {unit}</text>')
    return "".join(parts) + "</svg>"
