"""One person's folder: written whole, read back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recon3d.checks import check_shape
from recon3d.errors import InputError
from recon3d.exporting.files import encode_png, staged_folder
from recon3d.exporting.meshes import (
    encode_glb,
    encode_obj,
    encode_ply,
    fit_clips,
    mesh_texture,
    vertex_colours,
)
from recon3d.exporting.pictures import best_views, draw_landmarks, view_name
from recon3d.exporting.records import (
    dump_json,
    fit_archive,
    landmarks_json,
    texture_generated_share,
    track_metrics,
)
from recon3d.types import FaceTexture, Reconstruction

NOTICE = (
    "This picture is a reconstruction and not a photograph: parts of it were computed and may be "
    "guessed. It must not be used as proof of a person's identity."
)
VIEW_NOTICE = (
    "This picture is cut from a frame of the input; every other picture of this folder is a "
    "reconstruction and not a photograph."
)


class ExportSettings(BaseModel):
    """How results are written."""

    model_config = ConfigDict(extra="forbid")

    surface: Literal["albedo", "lit"] = Field(
        "albedo",
        description="Texture of the meshes: with the light taken out, in the neutral light and at "
        "the exposure of the frontal view (albedo), or as seen (lit).",
    )
    animation: bool = Field(
        True, description="Whether mesh.glb carries head pose and expression over the views."
    )


@dataclass(frozen=True)
class TrackResult:
    """What lies in a track's folder.

    Attributes
    ----------
    folder : Path
    vertices : (V, 3) float64, mm
    triangles : (F, 3) int64
    colours : (V, 3) uint8 sRGB
    landmarks : dict of str to (L, 3) float64
        "now7", "ibug68", "mediapipe478" in mm; NaN where the model has no such point.
    metrics : dict
    frontal, frontal_raw, evidence : (512, 512, 3) uint8
    """

    folder: Path
    vertices: np.ndarray
    triangles: np.ndarray
    colours: np.ndarray
    landmarks: dict[str, np.ndarray]
    metrics: dict = field(default_factory=dict)
    frontal: np.ndarray | None = None
    frontal_raw: np.ndarray | None = None
    evidence: np.ndarray | None = None


def evidence_picture(texture: FaceTexture) -> np.ndarray:
    """Support, resolution and generated share of the texture as (T, T, 3) uint8."""
    maps = np.stack([texture.support, texture.resolution, texture.generated], -1)
    maps = np.clip(np.nan_to_num(maps), 0, 1) * np.asarray(texture.valid, bool)[..., None]
    return (maps * 255 + 0.5).astype(np.uint8)


def write_track(
    reconstruction: Reconstruction,
    folder: str | Path,
    *,
    version: str,
    settings: ExportSettings | None = None,
) -> dict[str, Path]:
    """Write a person's results as the output contract says, except for the report.

    Everything is made beside its place first and then renamed, so that a failure leaves the
    folder as it was.

    Parameters
    ----------
    reconstruction : Reconstruction
    folder : Path
        For example ``DIR/track_000``; made when missing.
    version : str
        Of recon3d, for the pictures' metadata.
    settings : ExportSettings, optional

    Returns
    -------
    dict of str to Path
        File name relative to the folder, to path.

    Raises
    ------
    InputError
        If the folder cannot be written or the disk is full.
    """
    settings = settings or ExportSettings()
    fit, frontal, texture = reconstruction.fit, reconstruction.frontal, reconstruction.texture
    model, track = fit.model, reconstruction.track
    vertices = fit.neutral
    check_shape(vertices, "V 3", "neutral vertices")
    if not np.isfinite(vertices).all():
        raise ValueError("the fitted mesh has vertices that are not finite")

    def text(share: float, notice: str = NOTICE) -> dict[str, str]:
        return {
            "recon3d:version": version,
            "recon3d:generated_share": f"{share:.4f}",
            "recon3d:notice": notice,
        }

    share = float(frontal.generated_share)
    texture_share = texture_generated_share(reconstruction)
    picture = mesh_texture(reconstruction, settings.surface)
    texture_png = encode_png(picture, text(texture_share))
    comments = (
        f"recon3d {version}",
        "millimetres; x to the subject's left, y up, z out of the face; neutral expression",
        NOTICE.replace("This picture", "This mesh"),
    )
    clips = []
    if settings.animation and len(track.views) == len(fit.R):
        clips = fit_clips(
            fit,
            np.array([v.source for v in track.views]),
            np.array([v.frame_index for v in track.views]),
            np.array([v.time for v in track.views], np.float64),
        )
    extras = {"notice": comments[-1], "generatedShare": texture_share, "version": version}
    obj, mtl = encode_obj(vertices, model.triangles, model.uv, model.triangles_uv, comments)
    colours = vertex_colours(model, picture)
    contents: dict[str, bytes] = {
        "mesh.ply": encode_ply(vertices, model.triangles, colours, comments),
        "mesh.glb": encode_glb(model, vertices, texture_png, clips, extras),
        "mesh.obj": obj,
        "mesh.mtl": mtl,
        "texture.png": texture_png,
        "texture_evidence.png": encode_png(evidence_picture(texture), text(texture_share)),
        "landmarks.json": landmarks_json(fit).encode(),
        "frontal.png": encode_png(frontal.image, text(share)),
        "frontal_raw.png": encode_png(frontal.raw, text(share)),
        "evidence.png": encode_png(frontal.evidence, text(share)),
        "fit.npz": fit_archive(reconstruction),
        "metrics.json": dump_json(track_metrics(reconstruction), indent=1).encode(),
    }
    for name, sigma in (("frontal", frontal.uncertainty), ("frontal_raw", frontal.sigma)):
        if sigma is not None:
            deviation = np.clip(np.round(sigma), 0, 255).astype(np.uint8)
            contents[f"{name}_uncertainty.png"] = encode_png(deviation, text(share))
    for i in best_views(track, fit.view_weight):
        view = track.views[i]
        name, plain = view_name(view), text(0.0, VIEW_NOTICE)
        contents[f"views/{name}.png"] = encode_png(view.patch.image, plain)
        contents[f"views/{name}_landmarks.png"] = encode_png(draw_landmarks(view), plain)

    folder = Path(folder)
    with staged_folder(folder) as scratch:
        (scratch / "views").mkdir()
        for name, data in contents.items():
            (scratch / name).write_bytes(data)
    # Views of an earlier run would pass for this one's.
    for old in (folder / "views").glob("yaw*.png"):
        if f"views/{old.name}" not in contents:
            old.unlink(missing_ok=True)
    return {name: folder / name for name in contents}


def load_result(folder: str | Path) -> TrackResult:
    """Read a track's folder.

    Parameters
    ----------
    folder : Path
        A track's folder, or a run's (then its first track).

    Returns
    -------
    TrackResult

    Raises
    ------
    InputError
        If it is not such a folder or a file in it is damaged.
    """
    folder = Path(folder)
    if not (folder / "mesh.ply").exists() and (folder / "track_000" / "mesh.ply").exists():
        folder = folder / "track_000"
    if not (folder / "mesh.ply").exists():
        raise InputError(f"{folder} holds no result (no mesh.ply); give the --out of a run")
    import trimesh

    try:
        mesh = trimesh.load(folder / "mesh.ply", process=False)
        landmarks = json.loads((folder / "landmarks.json").read_text())
        metrics = json.loads((folder / "metrics.json").read_text())
        points = {
            name: np.array([p or [np.nan] * 3 for p in landmarks[name]], np.float64)
            for name in ("now7", "ibug68", "mediapipe478")
        }
        pictures = {n: _read_rgb(folder / f"{n}.png") for n in _PICTURES}
        return TrackResult(
            folder=folder,
            vertices=np.asarray(mesh.vertices, np.float64),
            triangles=np.asarray(mesh.faces, np.int64),
            colours=np.asarray(mesh.visual.vertex_colors)[:, :3].astype(np.uint8),
            landmarks=points,
            metrics=metrics,
            **pictures,
        )
    except (OSError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise InputError(f"{folder} is not a complete result: {error}; run it again") from error


_PICTURES = ("frontal", "frontal_raw", "evidence")


def _read_rgb(path: Path) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError(f"{path.name} cannot be decoded")
    return np.ascontiguousarray(picture[..., ::-1])
