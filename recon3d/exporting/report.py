"""The manifest's human twin: one self-contained HTML page."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from recon3d.errors import InputError
from recon3d.exporting import report_charts as charts
from recon3d.exporting.records import YAW_BIN, dump_json
from recon3d.exporting.surface import read_surface, surface_error
from recon3d.exporting.track import NOTICE
from recon3d.exporting.web import data_uri, viewer_script, web_mesh
from recon3d.files import atomic_write
from recon3d.tracking import eyes_open, portrait_worth

_TEMPLATE = Path(__file__).with_name("report.html")
_PICTURE_SIDE = 512
_VIEW_SIDE = 300


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
    page = template.render(
        manifest=manifest,
        notice=NOTICE,
        inputs=", ".join(Path(i["path"]).name for i in manifest["inputs"]),
        tracks=tracks,
        script=viewer_script(),
        # The page is HTML and the text stands in a script element: "<" must not end it early.
        meshes=json.dumps(meshes).replace("<", "\\u003c"),
        stages=_stages(manifest["stages"]),
        settings=list(_flat(manifest["config"])),
        versions=sorted(manifest["versions"].items()),
        device=list(_flat(manifest["device"])),
    )
    return atomic_write(out / "report.html", page)


def _track(folder: Path, entry: dict) -> dict:
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    with np.load(folder / "fit.npz", allow_pickle=False) as archive:
        fit = {name: archive[name] for name in archive.files}
    final, raw = _read(folder / "frontal.png"), _read(folder / "frontal_raw.png")
    refined = not np.array_equal(final, raw)
    refiner = metrics.get("refiner")
    return {
        **entry,
        "before": _before(folder, fit),
        "after": data_uri(final, _PICTURE_SIDE),
        "raw": data_uri(raw, _PICTURE_SIDE) if refined else None,
        "refiner": _refiner(refiner) if isinstance(refiner, dict) else [],
        "evidence": data_uri(_read(folder / "evidence.png"), _PICTURE_SIDE),
        "generated_share": metrics["generated_share"],
        "cautions": metrics["cautions"],
        "coverage_svg": _coverage(fit["track_yaw"]),
        "charts": _over_time(fit),
        "figures": _figures(metrics),
        "views": [_view(path) for path in sorted(_landmark_views(folder), key=_frame_of)],
    }


_REFINER_WORDS = {
    "projected": "held to what was observed",
    "residual_rms_255": "left of the difference there, of 255",
    "drift": "identity drift",
    "drift_limit": "drift allowed",
    "blend": "share of it that was kept",
    "added_share": "share of the face it drew",
}
"""How the page says what metrics.json has under `refiner`; other names speak for themselves."""


def _refiner(found: dict) -> list[tuple[str, str]]:
    return [(_REFINER_WORDS.get(k, k.replace("_", " ")), v) for k, v in _flat(found)]


def _figures(metrics: dict) -> list[tuple[str, str]]:
    identity = metrics.get("identity_consistency") or {}
    if not isinstance(identity, dict):
        identity = {"to_best_frames_median": identity}
    reprojection = metrics["reprojection"]
    photometric = metrics.get("photometric_error")
    rows = [
        ("frames with this face", str(metrics["frames"])),
        ("views fitted", f"{metrics['views_used']} of {metrics['views']}"),
        ("landmark error, median", _unit(reprojection["median_px"], "px")),
        ("landmark error, of eye distance", _unit(reprojection["median_percent_iod"], "%")),
        ("shape uncertainty, median", _unit(metrics["uncertainty_mm_median"], "mm")),
        ("generated share of the face", _unit(100 * metrics["generated_share"], "%", 0)),
        ("identity distance to best frames", _unit(identity.get("to_best_frames_median"), "")),
    ]
    if isinstance(photometric, int | float):
        rows.insert(4, ("photometric error, linear", _unit(photometric, "", 4)))
    return rows


def _landmark_views(folder: Path) -> list[Path]:
    return list((folder / "views").glob("*_landmarks.png"))


def _frame_of(path: Path) -> tuple[int, int]:
    """Input and frame number in a view's file name."""
    _, source, frame = path.stem.removesuffix("_landmarks").split("_")
    return int(source.removeprefix("input")), int(frame.removeprefix("frame"))


def _view(path: Path) -> dict:
    source, frame = _frame_of(path)
    yaw = int(path.stem.split("_")[0].removeprefix("yaw"))
    return {
        "src": data_uri(_read(path), _VIEW_SIDE),
        "name": f"input {source + 1}, frame {frame}, yaw {yaw:+d}°",
    }


def _over_time(fit: dict[str, np.ndarray]) -> list[tuple[str, str]]:
    """Heading and picture of what changes over the clip."""
    used = (fit["weights"] > 0.05) & np.isfinite(fit["residuals"]).all(-1)
    length = np.where(used, np.linalg.norm(np.nan_to_num(fit["residuals"]), axis=-1), np.nan)
    some = used.any(1)
    error = np.full(len(length), np.nan)
    error[some] = np.nanmedian(length[some], axis=1)
    times, sources = fit["time"], fit["source"]
    track = (fit["track_time"], fit["track_source"])
    return [
        ("Landmark error of each view, px", charts.points(times, error, sources, "px")),
        ("Yaw of the head, degrees", charts.points(track[0], fit["track_yaw"], track[1], "°")),
        ("Width of the face, px", charts.points(track[0], fit["track_face_px"], track[1], "px")),
        (
            "Quality of each frame, 0 to 1",
            charts.points(track[0], fit["track_quality"], track[1], "", top=1.0),
        ),
    ]


def _coverage(yaw: np.ndarray) -> str:
    edges = np.arange(-6, 8) * YAW_BIN - YAW_BIN / 2
    counts, _ = np.histogram(yaw, edges)
    return charts.bars(counts, [f"{c:+.0f}°" for c in edges[:-1] + YAW_BIN / 2], "frames by yaw")


def _stages(records: list[dict]) -> list[dict]:
    longest = max((r["seconds"] for r in records), default=0) or 1
    most = max((r["peak_memory_mib"] for r in records), default=0) or 1
    return [
        {
            "name": r["stage"] + ("" if r["track"] is None else f", person {r['track']}"),
            "resumed": r["resumed"],
            "seconds": r["seconds"],
            "mib": r["peak_memory_mib"],
            "time_share": round(100 * r["seconds"] / longest, 1),
            "memory_share": round(100 * r["peak_memory_mib"] / most, 1),
        }
        for r in records
    ]


def _flat(tree: dict, prefix: str = ""):
    """Nested settings as (``group.name``, value) pairs."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            if isinstance(value, bool):
                value = "yes" if value else "no"
            elif isinstance(value, float):
                value = f"{value:.6g}"
            yield prefix + key, "–" if value is None else str(value)


def _before(folder: Path, fit) -> str:
    """The best portrait of the shown views, moved so that its eyes lie where the frontal's do."""
    names = sorted(p for p in (folder / "views").glob("*.png") if "landmarks" not in p.stem)
    if not names:
        return ""
    # Each one's row among the views, and among all frames.
    rows, frames = (
        [
            np.flatnonzero((fit[f"{of}source"] == s) & (fit[f"{of}frame_index"] == f))[0]
            for s, f in map(_frame_of, names)
        ]
        for of in ("", "track_")
    )
    angles = (fit[key][frames] for key in ("track_yaw", "track_pitch", "track_quality"))
    worth = portrait_worth(eyes_open(fit["landmarks"])[rows], *angles)
    path, row = names[int(np.argmax(worth))], rows[int(np.argmax(worth))]
    picture = _read(path)
    origin = fit["patch_origin"][row]
    eyes = fit["landmarks"][row][[33, 133, 362, 263]] - origin
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
    return data_uri(moved)


def _mesh(folder: Path) -> dict:
    """The textured mesh with its colour modes, for the page's viewer."""
    surface, neutral, landmarks = read_surface(folder)
    with np.load(folder / "fit.npz", allow_pickle=False) as fit:
        error = surface_error(
            neutral, landmarks, fit["residuals"], fit["weights"], fit["K"], fit["t"]
        )
        lengths = {
            "uncertainty": fit["uncertainty"][surface.original],
            "error": error[surface.original],
        }
    texture, evidence = _read(folder / "texture.png"), _read(folder / "texture_evidence.png")
    return web_mesh(surface, texture, evidence, lengths)


def _read(path: Path) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError(f"{path.name} cannot be decoded")
    return np.ascontiguousarray(picture[..., ::-1])


def _unit(value, unit: str, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f} {unit}".strip()
