"""A folder of clips with known truth: run all of it, score it, put it in a table.

The folder's ``manifest.json`` lists ``subjects`` (``id``, ``gt`` with vertices, triangles,
face_mask, now7 and nose_tip in an .npz, ``frontal`` and ``frontal_mask`` pictures) and ``cases``
(``case``, ``subject``, ``condition``, ``clip``). Results lie in one folder a case, as a run
writes them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from recon3d.errors import InputError, Recon3DError
from recon3d.evaluation.metrics import FaceDescriptor, picture_metrics, shape_metrics
from recon3d.scenes.truth import PictureTruth, ShapeTruth

log = logging.getLogger("recon3d")

WORST = {
    "metric_median": 10.0,
    "metric_mean": 10.0,
    "metric_cover": 0.0,
    "nonmetric_median": 10.0,
    "nonmetric_mean": 10.0,
    "nonmetric_cover": 0.0,
    "psnr": 8.0,
    "ssim": 0.0,
    "ssim_y": 0.0,
    "id_dist": 1.2,
    "nme": 30.0,
    "yaw": 45.0,
}
"""What a failure counts as in means over all cases."""

COLUMNS = (
    ("metric_median", "met.med", 2),
    ("metric_mean", "met.mean", 2),
    ("metric_cover", "cov5", 3),
    ("nonmetric_median", "nm.med", 2),
    ("nonmetric_mean", "nm.mean", 2),
    ("psnr", "PSNR", 2),
    ("ssim", "SSIM", 3),
    ("ssim_y", "SSIM_Y", 3),
    ("id_dist", "ID", 3),
    ("nme", "NME%", 2),
    ("yaw", "|yaw|", 1),
    ("sharpness", "sharp", 2),
)
"""Field, heading and decimals of the table."""

_RAW = "raw_"
_FIELDS = (
    *(key for key, _, _ in COLUMNS),
    "metric_std",
    "nonmetric_std",
    "nonmetric_cover",
    "scale",
    "yaw_signed",
    "pitch_signed",
    *(_RAW + k for k in ("psnr", "ssim", "ssim_y", "id_dist", "nme", "yaw", "sharpness")),
)


@dataclass(frozen=True)
class Case:
    """One clip of a benchmark."""

    name: str
    subject: str
    condition: str
    clip: Path


@dataclass(frozen=True)
class Subject:
    """The truth about one person, read when it is first needed.

    Attributes
    ----------
    id : str
    shape_file, picture_file, mask_file : Path
    """

    id: str
    shape_file: Path
    picture_file: Path
    mask_file: Path

    @cached_property
    def shape(self) -> ShapeTruth:
        with np.load(self.shape_file) as archive:
            return ShapeTruth(
                archive["vertices"].astype(np.float64),
                archive["triangles"].astype(np.int64),
                archive["face_mask"].astype(bool),
                archive["now7"].astype(np.float64),
                archive["nose_tip"].astype(np.float64),
            )

    @cached_property
    def picture(self) -> PictureTruth:
        mask = _read_picture(self.mask_file)
        landmarks = None
        with np.load(self.shape_file) as archive:
            if "frontal_landmarks478" in archive:
                landmarks = archive["frontal_landmarks478"].astype(np.float64)
        mask = mask if mask.ndim == 2 else mask[..., 0]
        return PictureTruth.from_image(_read_picture(self.picture_file), mask > 127, landmarks)


@dataclass(frozen=True)
class Benchmark:
    """A benchmark folder."""

    name: str
    folder: Path
    cases: tuple[Case, ...]
    subjects: dict[str, Subject]

    def select(self, parts: Iterable[str]) -> Benchmark:
        """The benchmark with only those cases whose name contains one of the strings."""
        parts = list(parts)
        chosen = tuple(c for c in self.cases if any(part in c.name for part in parts))
        if not chosen:
            raise InputError(f"no case of {self.folder} is named like {', '.join(parts)}")
        return Benchmark(self.name, self.folder, chosen, self.subjects)


def read_benchmark(folder: Path) -> Benchmark:
    """Read a benchmark's manifest.

    Raises
    ------
    InputError
        If there is none, or it lacks what is needed.
    """
    folder = Path(folder)
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        subjects = {
            s["id"]: Subject(
                s["id"], folder / s["gt"], folder / s["frontal"], folder / s["frontal_mask"]
            )
            for s in manifest["subjects"]
        }
        cases = tuple(
            Case(c["case"], c["subject"], c["condition"], folder / c["clip"])
            for c in manifest["cases"]
        )
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a benchmark's manifest: {error!r}") from error
    unknown = {c.subject for c in cases} - set(subjects)
    if unknown:
        raise InputError(f"{path}: cases of unknown subjects {', '.join(sorted(unknown))}")
    return Benchmark(str(manifest.get("name", folder.name)), folder, cases, subjects)


# ------------------------------------------------------------------------------------ running
def run_cases(
    benchmark: Benchmark,
    out: Path,
    reconstruct: Callable[[list[str], Path], dict],
    *,
    finished: Callable[[dict], bool] | None = None,
    progress: Callable[[float, float | None], None] | None = None,
) -> dict[str, dict]:
    """Reconstruct every clip into ``out/<case>``, leaving out what is finished.

    Parameters
    ----------
    benchmark : Benchmark
    out : Path
    reconstruct : callable (inputs, folder) -> manifest
        The main job; what it raises of our own errors is recorded as a failed case.
    finished : callable (manifest) -> bool, optional
        Whether an earlier run's manifest may stand; by default its status is "done".
    progress : callable (done, total), optional

    Returns
    -------
    dict of case name to the run's manifest, or to ``{"status": "failed", "error": ...}``
    """
    out = Path(out)
    if finished is None:

        def finished(manifest: dict) -> bool:
            return manifest.get("status") == "done"

    manifests: dict[str, dict] = {}
    for number, case in enumerate(benchmark.cases):
        folder = out / case.name
        manifest = read_manifest(folder)
        if manifest is None or not finished(manifest):
            try:
                manifest = reconstruct([str(case.clip)], folder)
            except Recon3DError as error:
                log.warning("%s: %s", case.name, error)
                manifest = {"status": "failed", "error": str(error)}
        manifests[case.name] = manifest
        if progress is not None:
            progress(number + 1, len(benchmark.cases))
    return manifests


def read_manifest(folder: Path) -> dict | None:
    """The manifest of a run, or None where there is none that can be read."""
    try:
        manifest = json.loads((Path(folder) / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) else None


def run_costs(manifest: dict) -> dict[str, float]:
    """Seconds and peak memory of a run from its manifest; empty where it was resumed."""
    stages = manifest.get("stages") or []
    if not stages or any(s.get("resumed") for s in stages):
        return {}
    return {
        "seconds": float(sum(s["seconds"] for s in stages)),
        "peak_mib": float(max(s["peak_memory_mib"] for s in stages)),
    }


# ------------------------------------------------------------------------------------ scoring
def score_results(
    benchmark: Benchmark,
    results: Path,
    describe: FaceDescriptor | None,
    *,
    progress: Callable[[float, float | None], None] | None = None,
) -> list[dict]:
    """Score the result folders of all cases.

    Parameters
    ----------
    benchmark : Benchmark
    results : Path
        Holds one folder a case.
    describe : FaceDescriptor or None
        None leaves the identity distance out.

    Returns
    -------
    list of dict, one a case, as `score_case` gives them
    """
    rows = []
    for number, case in enumerate(benchmark.cases):
        rows.append(score_case(benchmark, case, Path(results) / case.name, describe))
        if progress is not None:
            progress(number + 1, len(benchmark.cases))
    return rows


def score_case(
    benchmark: Benchmark, case: Case, folder: Path, describe: FaceDescriptor | None
) -> dict:
    """Score one result folder.

    Returns
    -------
    dict
        ``case``, ``subject``, ``condition``, ``mesh_ok``, ``image_ok``, ``notes`` and the metrics
        of `shape_metrics` and `picture_metrics`; those of ``frontal_raw.png`` begin with ``raw_``.
    """
    subject = benchmark.subjects[case.subject]
    row: dict = {
        "case": case.name,
        "subject": case.subject,
        "condition": case.condition,
        "mesh_ok": False,
        "image_ok": False,
        "notes": [],
    }
    if not folder.is_dir():
        row["notes"].append("no output")
        return row
    track = scored_track(folder)
    _score_mesh(row, track, subject)
    for name, prefix in (("frontal.png", ""), ("frontal_raw.png", _RAW)):
        path = track / name
        if not path.exists():
            if not prefix:
                row["notes"].append("no frontal")
            continue
        try:
            found = picture_metrics(_read_picture(path), subject.picture, describe)
        except (Recon3DError, ValueError) as error:
            row["notes"].append(f"{name}: {error}")
            continue
        if found is None:
            row["notes"].append(f"{name}: no face found")
            continue
        row.update({prefix + key: value for key, value in found.items()})
        row["image_ok"] = row["image_ok"] or not prefix
    return row


def _score_mesh(row: dict, track: Path, subject: Subject) -> None:
    path = next((p for p in (track / "mesh.ply", track / "mesh.obj") if p.exists()), None)
    if path is None:
        row["notes"].append("no mesh")
        return
    try:
        vertices, triangles = read_mesh(path)
        now7 = _read_now7(track / "landmarks.json")
        if now7 is None:
            row["notes"].append("no now7 landmarks: blind alignment")
        row.update(shape_metrics(vertices, triangles, now7, subject.shape))
        row["mesh_ok"] = True
    except (Recon3DError, ValueError, np.linalg.LinAlgError) as error:
        row["notes"].append(f"mesh: {error}")


def scored_track(folder: Path) -> Path:
    """The track folder that is scored: the one with most frames, by the run's manifest."""
    manifest = read_manifest(folder) or {}
    tracks = [t for t in manifest.get("tracks", []) if isinstance(t, dict)]

    def frames(track: dict) -> float:
        value = track.get("frames") or 0
        return float(len(value) if isinstance(value, list) else value)

    for track in sorted(tracks, key=frames, reverse=True):
        path = track.get("path") or track.get("id")
        if path is not None and str(path) and (folder / str(path)).is_dir():
            return folder / str(path)
    numbered = [folder / "track_000", *sorted(folder.glob("track_*"))]
    return next((path for path in numbered if path.is_dir()), folder)


def read_mesh(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) and triangles (F, 3) of a mesh file, in the file's own order.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    import trimesh

    try:
        mesh = trimesh.load(path, process=False)
        if isinstance(mesh, trimesh.Scene):
            parts = [g for g in mesh.geometry.values() if hasattr(g, "faces")]
            mesh = trimesh.util.concatenate(parts)
        return np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)
    except Exception as error:
        # trimesh's readers raise whatever their parsing ran into.
        raise InputError(f"cannot read the mesh {path}: {error}") from error


def _read_now7(path: Path) -> np.ndarray | None:
    try:
        points = np.asarray(json.loads(path.read_text(encoding="utf-8")).get("now7"), np.float64)
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return points if points.shape == (7, 3) and np.isfinite(points).all() else None


def _read_picture(path: Path) -> np.ndarray:
    """A PNG as it is stored, RGB or RGBA or grey."""
    import cv2

    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise InputError(f"cannot read the picture {path}")
    if image.ndim == 3:
        order = [2, 1, 0, 3] if image.shape[2] == 4 else [2, 1, 0]
        image = np.ascontiguousarray(image[..., order])
    return image


# ------------------------------------------------------------------------------------- tables
def aggregate(rows: list[dict]) -> dict:
    """Means over cases: overall, by condition and by subject.

    Parameters
    ----------
    rows : list of dict from `score_results`

    Returns
    -------
    dict
        ``overall``, ``by_condition``, ``by_subject``; in each ``cases``, ``mesh_failed``,
        ``image_failed``, ``scored`` (means over what could be scored) and ``all`` (failures at
        their `WORST` value).
    """
    have_identity = any("id_dist" in row for row in rows)

    def mean(group: list[dict]) -> dict:
        scored, everything = {}, {}
        for key in _FIELDS:
            values = [row[key] for row in group if key in row]
            if values:
                scored[key] = float(np.mean(values))
            if key in WORST and (key != "id_dist" or have_identity):
                everything[key] = float(np.mean([row.get(key, WORST[key]) for row in group]))
        return {
            "cases": len(group),
            "mesh_failed": sum(not row["mesh_ok"] for row in group),
            "image_failed": sum(not row["image_ok"] for row in group),
            "scored": scored,
            "all": everything,
        }

    def groups(field: str, names: Iterable[str]) -> dict:
        return {name: mean([row for row in rows if row[field] == name]) for name in names}

    return {
        "overall": mean(rows),
        "by_condition": groups("condition", sorted({row["condition"] for row in rows})),
        "by_subject": groups("subject", dict.fromkeys(row["subject"] for row in rows)),
    }


def format_table(means: dict, which: str = "scored") -> str:
    """The table of an `aggregate` as text: a line a condition and one over all.

    Parameters
    ----------
    means : dict from `aggregate`
    which : {"scored", "all"}
    """
    headings = "".join(f"{heading:>9}" for _, heading, _ in COLUMNS)
    lines = [f"{'condition':<12}{'n':>4}{'failM':>6}{'failI':>6}{headings}"]
    for name, entry in [*means["by_condition"].items(), ("ALL", means["overall"])]:
        lines.append(
            f"{name:<12}{entry['cases']:>4}{entry['mesh_failed']:>6}{entry['image_failed']:>6}"
            + "".join(_cell(entry[which], key, digits) for key, _, digits in COLUMNS)
        )
    return "\n".join(lines)


def _cell(values: dict, key: str, digits: int) -> str:
    return f"{values[key]:>9.{digits}f}" if key in values else f"{'-':>9}"


def to_frame(rows: list[dict]):
    """The rows as a pandas table, one line a case, notes joined."""
    import pandas

    return pandas.DataFrame([{**row, "notes": "; ".join(row["notes"])} for row in rows])
