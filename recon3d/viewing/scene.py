"""What there is to look at in a result folder: mesh, colour modes, cameras."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from recon3d.errors import InputError

MODES = ("texture", "evidence", "uncertainty", "plain")
"""Colour modes of the viewer."""


@dataclass(frozen=True)
class ViewScene:
    """A track's mesh and cameras, ready to draw.

    Attributes
    ----------
    folder : Path of the track.
    vertices : (V, 3) mm; triangles : (F, 3); uv : (V, 2), v up. Seam vertices are split.
    normals : (V, 3)
    texture, evidence : (T, T, 3) uint8 RGB
    uncertainty : (V,) mm, posterior standard deviation
    R, t, K : (N, 3, 3), (N, 3), (N, 3, 3) of the fitted views
    image_size : (N, 2) px
    frames : paths of the kept views.
    metrics : dict
    """

    folder: Path
    vertices: np.ndarray
    triangles: np.ndarray
    uv: np.ndarray
    normals: np.ndarray
    texture: np.ndarray
    evidence: np.ndarray
    uncertainty: np.ndarray
    R: np.ndarray
    t: np.ndarray
    K: np.ndarray
    image_size: np.ndarray
    frames: tuple[Path, ...] = ()
    metrics: dict = field(default_factory=dict)

    def colours(self, mode: str) -> np.ndarray:
        """Picture that colours the surface in a mode of `MODES`.

        Returns
        -------
        (T, T, 3) uint8, to be looked up by `uv`; for ``uncertainty`` use `vertex_colours`.
        """
        if mode == "texture":
            return self.texture
        if mode == "evidence":
            return self.evidence
        return np.full((4, 4, 3), 190, np.uint8)

    def vertex_colours(self) -> np.ndarray:
        """(V, 3) uint8: uncertainty from dark blue (certain) to yellow (4 mm and more)."""
        level = np.clip(self.uncertainty / 4.0, 0, 1)
        table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)
        return table[(level * 255).astype(int), 0, ::-1].copy()


def load_scene(folder: str | Path) -> ViewScene:
    """Read a run's folder (its first track) or a track's folder.

    Raises
    ------
    InputError
        If it is not a complete result.
    """
    import trimesh

    folder = Path(folder)
    if not (folder / "mesh.obj").exists() and (folder / "track_000" / "mesh.obj").exists():
        folder = folder / "track_000"
    if not (folder / "mesh.obj").exists():
        raise InputError(f"{folder} holds no result (no mesh.obj); give the --out of a run")
    try:
        mesh = trimesh.load(folder / "mesh.obj", process=False, maintain_order=True)
        plain = trimesh.load(folder / "mesh.ply", process=False)
        vertices = np.asarray(mesh.vertices, np.float64)
        with np.load(folder / "fit.npz", allow_pickle=False) as fit:
            # The seam vertices of the OBJ are copies of those that the fit speaks of.
            from scipy.spatial import cKDTree

            _, original = cKDTree(np.asarray(plain.vertices)).query(vertices)
            uncertainty = fit["uncertainty"][original]
            cameras = {k: fit[k] for k in ("R", "t", "K", "image_size")}
        return ViewScene(
            folder=folder,
            vertices=vertices,
            triangles=np.asarray(mesh.faces, np.int64),
            uv=np.asarray(mesh.visual.uv, np.float64),
            normals=np.asarray(mesh.vertex_normals, np.float64),
            texture=_read(folder / "texture.png"),
            evidence=_read(folder / "texture_evidence.png"),
            uncertainty=uncertainty,
            frames=tuple(
                p for p in sorted((folder / "views").glob("*.png")) if "landmarks" not in p.stem
            ),
            metrics=json.loads((folder / "metrics.json").read_text(encoding="utf-8")),
            **cameras,
        )
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{folder} is not a complete result: {error}; run it again") from error


def _read(path: Path) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise ValueError(f"{path.name} cannot be decoded")
    return np.ascontiguousarray(picture[..., ::-1])
