"""What there is to look at in a result: mesh, colour modes, cameras with their frames."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from recon3d.errors import InputError, Recon3DError
from recon3d.exporting.surface import (
    RANGES_MM,
    Surface,
    length_colours,
    read_surface,
    split_seams,
    surface_error,
)
from recon3d.geometry import seen_angles
from recon3d.types import Reconstruction

MODES = ("texture", "evidence", "uncertainty", "error", "plain")
"""Colour modes of the viewer."""


@dataclass(frozen=True)
class CameraFrame:
    """A picture that one of the cameras took.

    Attributes
    ----------
    view : int
        Row of the view in the fit.
    image : (h, w, 3) uint8 RGB
    origin : (2,)
        Its upper left corner in the camera's frame, px.
    """

    view: int
    image: np.ndarray
    origin: tuple[float, float]


@dataclass(frozen=True)
class ViewScene:
    """A person's mesh and cameras, ready to draw.

    Attributes
    ----------
    title : str
    folder : Path or None
        Where screenshots go; None for a result that was never saved.
    surface : Surface
        Of the neutral head.
    texture, evidence : (T, T, 3) uint8 RGB
    uncertainty : (V,) mm
        Posterior standard deviation of each vertex.
    error : (V,) mm
        Median distance between landmarks and the fitted surface, spread over the skin near them;
        NaN where no landmark speaks.
    R, t, K : (N, 3, 3), (N, 3), (N, 3, 3) of the fitted views
    image_size : (N, 2) px
    frames : tuple of CameraFrame
    expression : (E, V, 3) float32 mm or None
        Where the face model is at hand.
    expression_names : tuple of str
    after : (512, 512, 3) uint8
        The frontal view.
    metrics : dict
    """

    title: str
    folder: Path | None
    surface: Surface
    texture: np.ndarray
    evidence: np.ndarray
    uncertainty: np.ndarray
    error: np.ndarray
    R: np.ndarray
    t: np.ndarray
    K: np.ndarray
    image_size: np.ndarray
    frames: tuple[CameraFrame, ...]
    after: np.ndarray
    expression: np.ndarray | None = None
    expression_names: tuple[str, ...] = ()
    metrics: dict = field(default_factory=dict)

    @property
    def before(self) -> np.ndarray | None:
        """The frame that sees the head most from the front, or None where no frame was kept."""
        if not self.frames:
            return None
        aside = np.linalg.norm(seen_angles(self.R, self.t), axis=1)
        return min(self.frames, key=lambda frame: aside[frame.view]).image

    def vertices(self, coefficients: dict[str, float] | None = None) -> np.ndarray:
        """(V, 3) vertices under expression coefficients by name, mm."""
        vertices = self.surface.vertices
        if coefficients and self.expression is not None:
            vertices = vertices.copy()
            for name, value in coefficients.items():
                if value:
                    vertices += value * self.expression[self.expression_names.index(name)]
        return vertices

    def picture(self, mode: str) -> np.ndarray | None:
        """(T, T, 3) uint8 that colours the surface by `uv` in a mode, None for vertex colours."""
        if mode == "texture":
            return self.texture
        if mode == "evidence":
            return self.evidence
        return None

    def vertex_colours(self, mode: str) -> np.ndarray:
        """(V, 3) uint8 in a mode without a picture: from dark blue (small) to yellow (large)."""
        if mode not in RANGES_MM:
            return np.full((len(self.surface.vertices), 3), 190, np.uint8)
        value = self.uncertainty if mode == "uncertainty" else self.error
        return length_colours(value, RANGES_MM[mode])


def make_scene(made: Reconstruction) -> ViewScene:
    """The scene of a reconstruction in memory."""
    from recon3d.exporting import landmark_points, mesh_texture
    from recon3d.exporting.pictures import best_views
    from recon3d.exporting.track import evidence_picture

    fit, views, model = made.fit, made.track.views, made.fit.model
    surface = split_seams(fit.neutral, model.triangles, model.uv, model.triangles_uv)
    points = landmark_points(fit.neutral, model.triangles, model.landmarks)
    error = surface_error(fit.neutral, points, fit.residuals, fit.weights, fit.K, fit.t)
    return ViewScene(
        title=f"person {made.track.id}",
        folder=None,
        surface=surface,
        texture=mesh_texture(made),
        evidence=evidence_picture(made.texture),
        uncertainty=np.asarray(fit.uncertainty)[surface.original],
        error=error[surface.original],
        R=fit.R,
        t=fit.t,
        K=fit.K,
        image_size=np.array([v.image_size for v in views]).reshape(-1, 2),
        frames=tuple(
            CameraFrame(i, views[i].patch.image, tuple(views[i].patch.origin))
            for i in best_views(made.track, np.asarray(fit.view_weight))
        ),
        after=made.frontal.image,
        expression=model.expression[:, surface.original],
        expression_names=model.expression_names,
        metrics=made.metrics,
    )


def load_scene(folder: str | Path) -> ViewScene:
    """Read a run's folder (its first track) or a track's folder.

    Raises
    ------
    InputError
        If it is not a complete result.
    """
    folder = Path(folder)
    if not (folder / "mesh.obj").exists() and (folder / "track_000" / "mesh.obj").exists():
        folder = folder / "track_000"
    if not (folder / "mesh.obj").exists():
        raise InputError(f"{folder} holds no result (no mesh.obj); give the --out of a run")
    try:
        surface, neutral, points = read_surface(folder)
        with np.load(folder / "fit.npz", allow_pickle=False) as archive:
            fit = {name: archive[name] for name in archive.files}
        error = surface_error(neutral, points, fit["residuals"], fit["weights"], fit["K"], fit["t"])
        expression, names = _expression(str(fit["model_name"]), len(neutral))
        return ViewScene(
            title=str(folder),
            folder=folder,
            surface=surface,
            texture=_read(folder / "texture.png"),
            evidence=_read(folder / "texture_evidence.png"),
            uncertainty=fit["uncertainty"][surface.original],
            error=error[surface.original],
            R=fit["R"],
            t=fit["t"],
            K=fit["K"],
            image_size=fit["image_size"],
            frames=_frames(folder, fit),
            after=_read(folder / "frontal.png"),
            expression=None if expression is None else expression[:, surface.original],
            expression_names=names,
            metrics=json.loads((folder / "metrics.json").read_text(encoding="utf-8")),
        )
    except (OSError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise InputError(f"{folder} is not a complete result: {error}; run it again") from error


def _expression(name: str, n_vertices: int) -> tuple[np.ndarray | None, Sequence[str]]:
    """Expression fields of the model that a result was made with, where it is installed here."""
    from recon3d.morphable import load_model

    try:
        model = load_model(name)
    except Recon3DError:
        return None, ()
    if model.n_vertices != n_vertices:
        return None, ()
    return model.expression, model.expression_names


def _frames(folder: Path, fit: dict[str, np.ndarray]) -> tuple[CameraFrame, ...]:
    """The kept views, each found in the fit by the numbers in its file name."""
    found = []
    for path in sorted((folder / "views").glob("yaw*_input*_frame*.png")):
        if path.stem.endswith("_landmarks"):
            continue
        _, source, frame = path.stem.split("_")
        row = np.flatnonzero(
            (fit["source"] == int(source.removeprefix("input")))
            & (fit["frame_index"] == int(frame.removeprefix("frame")))
        )
        if len(row):
            x, y = fit["patch_origin"][row[0]].tolist()
            found.append(CameraFrame(int(row[0]), _read(path), (x, y)))
    return tuple(found)


def _read(path: Path) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError(f"{path.name} cannot be decoded")
    return np.ascontiguousarray(picture[..., ::-1])
