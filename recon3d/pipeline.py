"""The stages in order: frames -> tracks -> fit -> texture -> frontal view -> files.

Each stage is a plain function from typed input to typed output that lives in its own package; what
happens here is bookkeeping: progress, time and memory, results kept for `--resume`, and the order.
"""

from __future__ import annotations

import hashlib
import json
import platform
import resource
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import recon3d
from recon3d import licences
from recon3d.errors import BackendUnavailable, InputError, NoFaceError, Recon3DError
from recon3d.progress import Reporter
from recon3d.settings import RunSettings
from recon3d.state import load_state, save_state
from recon3d.types import FaceFit, FaceModel, FaceTexture, FaceTrack, FrontalView, Reconstruction

if TYPE_CHECKING:
    from recon3d.media import MediaInput
    from recon3d.refinement.refiners import Refiner
    from recon3d.tracking import TrackingResult

STAGES = ("tracking", "fitting", "texturing", "frontal", "refinement", "exporting")
SCHEMA_VERSION = 1


@dataclass
class StageRecord:
    """Seconds and peak memory of one stage (of one track)."""

    stage: str
    track: int | None
    seconds: float
    peak_mib: float
    resumed: bool = False

    def as_dict(self) -> dict:
        return {
            "stage": self.stage,
            "track": self.track,
            "seconds": round(self.seconds, 3),
            "peak_memory_mib": round(self.peak_mib, 1),
            "resumed": self.resumed,
        }


@dataclass
class RunResult:
    """What a run found and wrote.

    Attributes
    ----------
    manifest : dict, as written to manifest.json
    reconstructions : list of Reconstruction
        In memory only as long as the caller wants them: `keep` of `run`.
    """

    manifest: dict
    reconstructions: list[Reconstruction] = field(default_factory=list)


def run(
    inputs: Sequence[str | MediaInput],
    out: Path,
    settings: RunSettings | None = None,
    *,
    until: str | None = None,
    resume: bool = False,
    permissive_only: bool = False,
    keep: bool = False,
    reporter: Reporter | None = None,
    tracked: TrackingResult | None = None,
    notes: dict | None = None,
) -> RunResult:
    """The main job: clips or pictures in, a folder of results out.

    Parameters
    ----------
    inputs : sequence of str
        Files, folders or globs; each is one camera. What `open_inputs` made of them does, too.
    out : Path
        Created where it does not exist.
    settings : RunSettings, optional
    until : str, optional
        Stop after this stage (one of `STAGES`); its result is kept for `resume`.
    resume : bool
        Use what an earlier run with the same inputs and settings finished.
    permissive_only : bool
        Refuse models and weights whose licence restricts their use.
    keep : bool
        Return the reconstructions too.
    reporter : Reporter, optional
    tracked : TrackingResult, optional
        What was tracked already: the inputs' frames are not looked at.
    notes : dict, optional
        More groups of the manifest.

    Returns
    -------
    RunResult

    Raises
    ------
    InputError
        A bad call or input, before anything is written where that can be known.
    NoFaceError
        No usable face; the report and the manifest with the reasons are written first.
    """
    from recon3d.media import open_inputs

    settings = settings or RunSettings()
    reporter = reporter or Reporter(quiet=True)
    if until is not None and until not in STAGES:
        raise InputError(f"--until {until}: no such stage; there are {', '.join(STAGES)}")
    out = Path(out)
    media = open_inputs(list(inputs))
    warnings: list[str] = []
    model, refiner, ledger = load_parts(settings, warnings, permissive_only)
    prepare_folder(out)
    job = _Job(out, settings, media, model, refiner, ledger, warnings, reporter, resume)
    job.tracked, job.notes = tracked, notes or {}
    try:
        return job.run(until, keep)
    except KeyboardInterrupt:
        job.write_manifest("interrupted")
        raise


def load_parts(
    settings: RunSettings, warnings: list[str], permissive_only: bool = False
) -> tuple[FaceModel, Refiner | None, list[licences.LedgerEntry]]:
    """Face model, refiner and the licences of both: what can be wrong before any work is done.

    Parameters
    ----------
    settings : RunSettings
    warnings : list of str
        Gets a line for what is missing and can be done without.
    permissive_only : bool
        Refuse models and weights whose licence restricts their use.

    Raises
    ------
    Recon3DError
        If something asked for cannot be had.
    """
    model = _load_model(settings.model)
    refiner = _optional_refiner(settings, warnings)
    ledger = _ledger(model, settings)
    if refiner is not None:
        ledger.append(refiner.licence)
    if permissive_only:
        licences.require_permissive(ledger)
    return model, refiner, ledger


class _Job:
    """One run's bookkeeping."""

    def __init__(self, out, settings, media, model, refiner, ledger, warnings, reporter, resume):
        self.out: Path = out
        self.settings: RunSettings = settings
        self.media = media
        self.model: FaceModel = model
        self.refiner = refiner
        self.ledger = ledger
        self.reporter: Reporter = reporter
        self.resume: bool = resume
        self.records: list[StageRecord] = []
        self.tracks: list[dict] = []
        self.dropped: list[dict] = []
        self.warnings: list[str] = warnings
        self.n_frames = 0
        self.tracked: TrackingResult | None = None
        self.notes: dict = {}
        self.started = datetime.now(UTC)
        self.state = out / ".state"
        self.embedder = optional_embedder(self.warnings)
        if self.embedder is not None:
            self.ledger.append(licences.DLIB)

    # ---------------------------------------------------------------- the order of things
    def run(self, until: str | None, keep: bool) -> RunResult:
        if self.tracked is not None:
            result = _kept_of(self.tracked, [])
        else:
            result = self._stage("tracking", None, self._fingerprint("tracking"), self._track)
        tracks, self.dropped, self.n_frames, warnings = result
        self.warnings += [w for w in warnings if w not in self.warnings]
        if not tracks:
            manifest = self.write_manifest("no face")
            self._report([])
            raise NoFaceError(_no_face_message(self.n_frames, self.dropped))
        stale = {p.name for p in self.out.glob("track_*")}
        reconstructions: list[Reconstruction] = []
        pages: list[Path] = []
        for track in tracks[: self.settings.max_tracks]:
            try:
                done = self._one_track(track, until)
            except Recon3DError as error:
                if isinstance(error, InputError):
                    raise
                self.dropped.append({"reason": str(error), "frames": track.n_frames})
                self.reporter.warn(f"track {track.id} dropped: {error}")
                continue
            stale.discard(_folder(track))
            if done is not None:
                pages.append(self.out / _folder(track))
                if keep:
                    reconstructions.append(done)
        if until not in (None, "exporting"):
            manifest = self.write_manifest(f"stopped after {until}")
            return RunResult(manifest, reconstructions)
        for name in stale:
            shutil.rmtree(self.out / name, ignore_errors=True)
        if not pages:
            self.write_manifest("no face")
            self._report([])
            raise NoFaceError(_no_face_message(self.n_frames, self.dropped))
        manifest = self.write_manifest("done")
        with self._measure("report", None):
            self._report(pages)
        manifest = self.write_manifest("done")
        return RunResult(manifest, reconstructions)

    def _one_track(self, track: FaceTrack, until: str | None) -> Reconstruction | None:
        from recon3d.fitting import fit_track
        from recon3d.texturing import fuse_texture

        s, suffix = self.settings, f" of track {track.id}" if track.id else ""
        entry = _track_entry(track)
        if until == "tracking":
            self.tracks.append(entry)
            return None
        fit: FaceFit = self._stage(
            "fitting",
            track.id,
            self._fingerprint("fitting"),
            lambda move: fit_track(track, self.model, s.fitting, progress=move),
            suffix,
        )
        if until == "fitting":
            self.tracks.append(entry)
            return None
        texture: FaceTexture = self._stage(
            "texturing",
            track.id,
            self._fingerprint("texturing"),
            lambda move: fuse_texture(track, fit, s.texturing, progress=move),
            suffix,
        )
        if until == "texturing":
            self.tracks.append(entry)
            return None
        settled, frontal = self._stage(
            "frontal",
            track.id,
            self._fingerprint("frontal"),
            lambda move: portray(track, fit, texture, s, self.refiner, move),
            suffix,
        )
        fit, texture = settled or (fit, texture)
        if until == "frontal":
            self.tracks.append(entry)
            return None
        if self.refiner is not None:
            from recon3d.refinement import refine_frontal

            fused = frontal
            frontal = self._stage(
                "refinement",
                track.id,
                self._fingerprint("refinement"),
                lambda move: refine_frontal(fused, self.refiner, s.refinement, self.embedder),
                suffix,
            )
        if until == "refinement":
            self.tracks.append(entry)
            return None
        made = Reconstruction(track, fit, texture, frontal)
        with self._measure("exporting", track.id):
            from recon3d.exporting import cautions, write_track

            metrics = {
                "identity_consistency": identity_consistency(made, self.embedder),
                "refiner": frontal.info.get("refiner") or self._unrefined(),
            }
            made = Reconstruction(track, fit, texture, frontal, metrics)
            write_track(
                made,
                self.out / _folder(track),
                version=recon3d.__version__,
                settings=s.exporting,
            )
        entry["generated_share"] = round(frontal.generated_share, 4)
        entry["cautions"] = cautions(made, metrics)
        self.tracks.append(entry)
        self.write_manifest("running")
        return made

    def _unrefined(self) -> dict:
        why = "no weights in assets/refiner: train some or give --refiner PATH"
        if not self.settings.refine:
            why = "switched off (--no-refine)"
        return {"applied": False, "why": why}

    # ---------------------------------------------------------------- stages
    def _track(self, move: Callable) -> tuple:
        from recon3d.media import iterate_frames
        from recon3d.tracking import track_faces

        warnings: list[str] = []

        def warn(text: str) -> None:
            warnings.append(text)
            self.reporter.warn(text)

        total = sum(m.n_frames or 0 for m in self.media) or None
        frames = iterate_frames(self.media, on_warning=warn)
        result = track_faces(
            frames,
            self.settings.tracking,
            progress=lambda done, _=None: move(done, total),
            embedder=self.embedder,
        )
        return _kept_of(result, warnings)

    def _stage(self, name: str, track: int | None, key: str, work: Callable, suffix: str = ""):
        path = self.state / (name + ("" if track is None else f"_{track:03d}") + ".npz")
        start = time.perf_counter()
        if self.resume:
            value = load_state(path, key, lambda _: self.model)
            if value is not None:
                seconds = time.perf_counter() - start
                self.records.append(StageRecord(name, track, seconds, _peak_mib(), True))
                self.reporter.line(f"{name}{suffix}: taken from the earlier run")
                return value
        with self._measure(name, track), self.reporter.stage(name + suffix) as move:
            value = work(move)
        save_state(path, value, key)
        return value

    @contextmanager
    def _measure(self, name: str, track: int | None):
        _reset_peak()
        start = time.perf_counter()
        yield
        self.records.append(StageRecord(name, track, time.perf_counter() - start, _peak_mib()))

    def _fingerprint(self, stage: str) -> str:
        """A hash of everything that the stage's result depends on."""
        chosen = self.settings.model_dump(mode="json")
        kept = STAGES[: STAGES.index(stage) + 1]
        parts = {
            "version": recon3d.__version__,
            "inputs": [m.sha256 for m in self.media],
            "model": None if stage == "tracking" else _model_digest(self.model),
            "embedder": self.embedder is not None,
            "tracked": self.tracked is not None,
            "settings": {k: chosen[k] for k in kept if k in chosen},
        }
        corrector = _load_corrector(self.settings)
        if corrector is not None:
            parts["corrector"] = corrector.sha256
        if stage == "refinement" or (stage == "frontal" and _looks_through(self.refiner)):
            parts["refiner"] = self.refiner.licence.as_dict() | {"sha256": self.refiner.sha256}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    # ---------------------------------------------------------------- what is written
    def write_manifest(self, status: str) -> dict:
        from recon3d.exporting import NOTICE, write_json

        manifest = {
            "schema_version": SCHEMA_VERSION,
            "status": status,
            "created": self.started.isoformat(timespec="seconds"),
            "notice": NOTICE,
            "inputs": [
                {
                    "path": m.shown,
                    "kind": m.kind,
                    "sha256": m.sha256,
                    "frames": m.n_frames,
                    "fps": m.fps,
                    "size": [m.width, m.height],
                }
                for m in self.media
            ],
            "frames_read": self.n_frames,
            "versions": versions(),
            "config": self.settings.model_dump(mode="json"),
            "device": {"requested": self.settings.device, "machine": platform.machine()},
            "stages": [r.as_dict() for r in self.records],
            "tracks": self.tracks,
            "dropped": self.dropped,
            "warnings": self.warnings,
            "licences": [entry.as_dict() for entry in self.ledger],
            **self.notes,
        }
        write_json(self.out / "manifest.json", manifest)
        return manifest

    def _report(self, folders: list[Path]) -> None:
        from recon3d.exporting import write_report

        write_report(self.out, folders)


_BEST_FRAMES = 5
"""Frames that the frontal view's identity is compared with."""


def identity_consistency(made: Reconstruction, embedder) -> dict:
    """Distances of face descriptors between the frontal view and the best frames: those that show
    the person as a portrait does, looking ahead with open eyes.

    Parameters
    ----------
    made : Reconstruction
    embedder : FaceEmbedder or None

    Returns
    -------
    dict, JSON-able
    """
    from recon3d.tracking import best_portraits

    if embedder is None:
        return {"available": False, "why": "no face embedder installed (extra: recognition)"}
    frontal = made.frontal
    try:
        reference = embedder(frontal.image, frontal.landmarks)
        raw = embedder(frontal.raw, frontal.landmarks)
        views = made.track.views
        best = [views[k] for k in best_portraits(views, _BEST_FRAMES)]
        distances = [
            float(
                np.linalg.norm(
                    embedder(v.patch.image, v.landmarks - np.asarray(v.patch.origin)) - reference
                )
            )
            for v in best
        ]
    except Recon3DError as error:
        return {"available": False, "why": str(error)}
    return {
        "available": True,
        "to_best_frames_median": _round(np.median(distances)),
        "refined_to_fused": _round(np.linalg.norm(raw - reference)),
        "note": "Euclidean distance of 128-D descriptors; below 0.6 is usually one person",
    }


def versions() -> dict:
    """Versions of Python and of the libraries that decide a result."""
    names = ("torch", "mediapipe", "numpy", "opencv-python", "scipy", "numba", "av", "trimesh")
    found = {"recon3d": recon3d.__version__, "python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def _round(value, digits: int = 4) -> float:
    return round(float(value), digits)


def _kept_of(result: TrackingResult, warnings: list[str]) -> tuple:
    """What is kept of tracking: tracks, dropped frames by reason, frames looked at, warnings."""
    dropped = [dict(d) for d in result.dropped]
    return tuple(result.tracks), dropped, int(result.n_frames), warnings


def _folder(track: FaceTrack) -> str:
    return f"track_{track.id:03d}"


def _track_entry(track: FaceTrack) -> dict:
    return {
        "id": track.id,
        "path": _folder(track),
        "frames": track.n_frames,
        "views": len(track.views),
        "inputs": sorted({int(s) for s in track.source}),
        "first_frame": int(track.frame_index[0]),
        "last_frame": int(track.frame_index[-1]),
        "face_px": round(float(np.median(track.face_px)), 1),
        "yaw_range_deg": [
            round(float(np.percentile(track.yaw, 2)), 1),
            round(float(np.percentile(track.yaw, 98)), 1),
        ],
        "quality": round(float(np.median(track.quality)), 3),
    }


def _no_face_message(n_frames: int, dropped: list[dict]) -> str:
    reasons = "; ".join(f"{d['reason']}: {d['frames']}" for d in dropped) or "nothing detected"
    return f"no usable face in {n_frames} frame{'s' * (n_frames != 1)} ({reasons})"


def _model_digest(model: FaceModel) -> str:
    digest = hashlib.sha256(model.name.encode())
    for array in (model.mean, model.identity, model.expression, model.triangles, model.uv):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _load_model(name: str) -> FaceModel:
    from recon3d.morphable import load_model

    return load_model(name)


def _load_corrector(settings: RunSettings):
    from recon3d.tracking.correction import load_corrector

    return load_corrector(settings.tracking)


def _ledger(model: FaceModel, settings: RunSettings) -> list[licences.LedgerEntry]:
    source = str(getattr(settings.tracking, "landmarks", "mediapipe"))
    entries = [licences.of_model(model), licences.MEDIAPIPE]
    if source == "face-alignment":
        entries.append(licences.FACE_ALIGNMENT)
    corrector = _load_corrector(settings)
    if corrector is not None:
        entries.append(corrector.describe())
    return entries


def optional_embedder(warnings: list[str]):
    from recon3d.recognition import load_embedder

    try:
        return load_embedder()
    except BackendUnavailable as error:
        warnings.append(str(error))
        return None


def portray(
    track: FaceTrack,
    fit: FaceFit,
    texture: FaceTexture,
    settings: RunSettings,
    refiner: Refiner | None = None,
    progress: Callable[[float, float | None], None] | None = None,
) -> tuple[tuple[FaceFit, FaceTexture] | None, FrontalView]:
    """The frontal view, the mesh settled where the face is seen.

    Parameters
    ----------
    track : FaceTrack
    fit : FaceFit
    texture : FaceTexture
        Fused from the track by that fit.
    settings : RunSettings
    refiner : Refiner, optional
        The project's own: its picture of the fused view tells more exactly where features are.
        Others may draw a face anywhere, and are not asked.
    progress : callable, optional

    Returns
    -------
    settled : (FaceFit, FaceTexture) or None
        Where the mesh had to be moved, and what was fused by that.
    view : FrontalView
        Not refined.
    """
    from recon3d.frontal import render_frontal, settle
    from recon3d.texturing import fuse_texture

    s, settled = settings.frontal, None

    def fused_again(moved: FaceFit) -> tuple[FaceFit, FaceTexture]:
        return moved, fuse_texture(track, moved, settings.texturing, progress=progress)

    moved = settle(fit, texture, s)
    if moved is not None:
        settled = fit, texture = fused_again(moved)
    view = render_frontal(track, fit, texture, s, progress=progress)
    if s.settle and _looks_through(refiner):
        picture = np.clip(np.round(refiner(view)[0]), 0, 255).astype(np.uint8)
        moved = settle(fit, texture, s, (view, picture))
        if moved is not None:
            settled = fit, texture = fused_again(moved)
            view = render_frontal(track, fit, texture, s, progress=progress)
    return settled, view


def _looks_through(refiner: Refiner | None) -> bool:
    """Whether the place of the mesh is judged in the refiner's picture."""
    return refiner is not None and refiner.kind == "recon3d"


def _optional_refiner(settings: RunSettings, warnings: list[str]):
    """The refiner of the settings; None where it is switched off or its weights do not ship."""
    if not settings.refine:
        return None
    from recon3d.refinement import load_refiner, shipped_path

    if settings.refinement.path is None and not shipped_path().is_file():
        warnings.append(
            f"no refiner weights in {shipped_path().parent}: the frontal view stays as fused"
        )
        return None
    return load_refiner(
        settings.refinement.path, licence=settings.refinement.licence, device=_device(settings)
    )


def _device(settings: RunSettings) -> str:
    """cpu or cuda; asking for CUDA where there is none is an error.

    Raises
    ------
    BackendUnavailable
    """
    if settings.device == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if settings.device == "cuda":
        raise BackendUnavailable("--device cuda: no CUDA device is usable here; try --device cpu")
    return "cpu"


def prepare_folder(out: Path) -> None:
    """Create the output folder and see that it can be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".write-test"
        probe.write_bytes(b"")
        probe.unlink()
    except FileExistsError as error:
        raise InputError(f"--out {out} is a file, not a folder") from error
    except OSError as error:
        raise InputError(f"cannot write to --out {out}: {error.strerror or error}") from error


def _reset_peak() -> None:
    """Start counting the peak of resident memory anew, where the system allows it (Linux)."""
    try:
        with open("/proc/self/clear_refs", "w") as stream:
            stream.write("5")
    except OSError:
        pass


def _peak_mib() -> float:
    """Peak resident memory in MiB since `_reset_peak`, or of the whole process elsewhere."""
    try:
        with open("/proc/self/status") as stream:
            for line in stream:
                if line.startswith("VmHWM"):
                    return int(line.split()[1]) / 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)
