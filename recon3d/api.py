"""The Python interface: `reconstruct` a clip, look at the result, save it.

`recon3d.types.Reconstruction` is what the stages hand on, and knows nothing of the packages below
it. What a person does with a result (mesh, show, save) needs those packages, so it lives in a
subclass here, at the end of the data's way, and the stages stay free of it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import recon3d
from recon3d import types
from recon3d.errors import InputError
from recon3d.progress import Reporter
from recon3d.settings import RunSettings, load_settings

if TYPE_CHECKING:
    import trimesh

Settings = RunSettings | Mapping[str, Any] | str | os.PathLike | None
"""What may say how to reconstruct: settings, a tree of them, the name of a shipped configuration
(``"cctv"``), the path of a YAML file, or nothing."""

Inputs = str | os.PathLike | Sequence[str | os.PathLike]
"""A video, picture, folder or glob; several are several cameras."""


@dataclass(frozen=True)
class Reconstruction(types.Reconstruction):
    """Everything known about one person, and what can be done with it.

    Attributes
    ----------
    track : FaceTrack
        Where and how the face was seen.
    fit : FaceFit
        Identity, cameras, poses and expressions; `fit.neutral` are the vertices in mm.
    texture : FaceTexture
        The fused skin and what is known of it.
    frontal : FrontalView
        The pose-normalised picture; ``np.asarray(result.frontal)`` and
        ``plt.imshow(result.frontal)`` take it as (512, 512, 3) uint8.
    metrics : dict
        As in ``metrics.json``, so far as they were computed.
    manifest : dict
        Of the run: inputs, versions, settings, seconds by stage, licences.
    """

    manifest: dict = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        track = self.track
        return (
            f"Reconstruction(person {track.id}: {track.n_frames} frames, {len(track.views)} views, "
            f"{self.fit.model.n_vertices} vertices, "
            f"{100 * self.frontal.generated_share:.0f} % of the frontal face generated)"
        )

    @property
    def evidence(self) -> np.ndarray:
        """(512, 512, 3) uint8, same pixels as the frontal view: R support, G resolution, B
        generated share."""
        return self.frontal.evidence

    @property
    def mesh(self) -> trimesh.Trimesh:
        """The neutral head, textured; mm, y up, z out of the face.

        Vertices on seams of the texture stand twice; ``vertex_attributes["model_vertex"]`` is the
        model's number of each.
        """
        import trimesh
        from PIL import Image

        from recon3d.exporting import mesh_texture

        surface = _surface(self)
        material = trimesh.visual.material.PBRMaterial(
            baseColorTexture=Image.fromarray(mesh_texture(self)),
            metallicFactor=0.0,
            roughnessFactor=0.9,
        )
        return trimesh.Trimesh(
            surface.vertices,
            surface.triangles,
            vertex_normals=surface.normals,
            vertex_attributes={"model_vertex": surface.original.astype(np.uint32)},
            visual=trimesh.visual.TextureVisuals(uv=surface.uv, material=material),
            process=False,
        )

    def still(
        self,
        mode: str = "texture",
        *,
        yaw: float = 25.0,
        pitch: float = 0.0,
        size: tuple[int, int] = (512, 512),
    ) -> np.ndarray:
        """Draw the mesh from a chosen side.

        Parameters
        ----------
        mode : str, one of `recon3d.viewing.MODES`
        yaw, pitch : float, degrees
        size : (width, height), px

        Returns
        -------
        (H, W, 3) uint8 sRGB
        """
        from recon3d.viewing import make_scene, render_still

        return render_still(make_scene(self), mode=mode, yaw=yaw, pitch=pitch, size=size)

    def show(self, mode: str = "texture") -> None:
        """Look at the mesh: inline in a notebook, else in an Open3D window.

        Parameters
        ----------
        mode : str, one of `recon3d.viewing.MODES`

        Raises
        ------
        BackendUnavailable
            Outside a notebook, where Open3D or a display is missing.
        """
        from recon3d.viewing import in_notebook, make_scene

        scene = make_scene(self)
        if in_notebook():
            from recon3d.viewing.notebook import display_mesh

            display_mesh(scene, mode)
        else:
            from recon3d.viewing.window import show

            show(scene, mode)

    def save(self, folder: str | os.PathLike) -> Path:
        """Write the files of a run: meshes, pictures, records, manifest and report.

        Parameters
        ----------
        folder : path-like
            As ``--out`` of `recon3d run`; made when missing.

        Returns
        -------
        Path of the folder

        Raises
        ------
        InputError
            If it cannot be written.
        """
        from recon3d.exporting import write_json, write_report, write_track

        if not self.manifest:
            raise InputError("this reconstruction carries no manifest; make it with reconstruct()")
        folder = Path(folder)
        entry = next(t for t in self.manifest["tracks"] if t["id"] == self.track.id)
        settings = RunSettings.model_validate(self.manifest["config"])
        write_track(
            self, folder / entry["path"], version=recon3d.__version__, settings=settings.exporting
        )
        write_json(folder / "manifest.json", {**self.manifest, "tracks": [entry]})
        write_report(folder, [folder / entry["path"]])
        return folder

    def _repr_html_(self) -> str:
        from recon3d.viewing.notebook import summary_html

        return summary_html(self)


def reconstruct(
    inputs: Inputs,
    settings: Settings = None,
    *,
    out: str | os.PathLike | None = None,
    resume: bool = False,
    permissive_only: bool = False,
    progress: bool = True,
) -> Reconstruction:
    """Reconstruct the person whom most frames show.

    Parameters
    ----------
    inputs : path-like or sequence of path-like
        A video, picture, folder or glob; several are several cameras.
    settings : RunSettings, mapping, str or path-like, optional
        Settings, a tree of them (``{"tracking": {"max_views": 24}}``), a shipped configuration
        (``"cctv"``) or a YAML file.
    out : path-like, optional
        Keep the files of the run there, as `recon3d run` does. Without it nothing is left on disk.
    resume : bool
        With `out`: take over the stages that an earlier run there finished.
    permissive_only : bool
        Refuse models and weights whose licence restricts their use.
    progress : bool
        Show bars on a terminal and a line a stage elsewhere, on standard error.

    Returns
    -------
    Reconstruction

    Raises
    ------
    InputError
        The input or a setting is wrong.
    NoFaceError
        No usable face.
    """
    settings = _settings(settings).model_copy(update={"max_tracks": 1})
    return _run(inputs, settings, out, resume, permissive_only, progress)[0]


def reconstruct_all(
    inputs: Inputs,
    settings: Settings = None,
    *,
    out: str | os.PathLike | None = None,
    resume: bool = False,
    permissive_only: bool = False,
    progress: bool = True,
) -> list[Reconstruction]:
    """Reconstruct everybody in a clip, most frames first.

    Parameters are those of `reconstruct`; `settings.max_tracks` limits how many.

    Returns
    -------
    list of Reconstruction, at least one

    Raises
    ------
    InputError
        The input or a setting is wrong.
    NoFaceError
        No usable face.
    """
    return _run(inputs, _settings(settings), out, resume, permissive_only, progress)


def _settings(given: Settings) -> RunSettings:
    if isinstance(given, RunSettings):
        return given
    if given is None:
        return RunSettings()
    if isinstance(given, Mapping):
        return load_settings(None, **given)
    return load_settings(os.fspath(given))


def _run(inputs, settings, out, resume, permissive_only, progress) -> list[Reconstruction]:
    from recon3d import pipeline

    single = isinstance(inputs, str | os.PathLike)
    paths = [os.fspath(p) for p in ([inputs] if single else inputs)]
    with tempfile.TemporaryDirectory(prefix="recon3d-") as scratch:
        result = pipeline.run(
            paths,
            Path(scratch if out is None else out),
            settings,
            resume=resume,
            permissive_only=permissive_only,
            keep=True,
            reporter=Reporter(quiet=not progress),
        )
    names = [f.name for f in fields(types.Reconstruction)]
    return [
        Reconstruction(**{n: getattr(made, n) for n in names}, manifest=result.manifest)
        for made in result.reconstructions
    ]


def _surface(made: types.Reconstruction):
    from recon3d.exporting.surface import split_seams

    model = made.fit.model
    return split_seams(made.fit.neutral, model.triangles, model.uv, model.triangles_uv)
