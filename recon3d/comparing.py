"""Whom results, clips and pictures show, as a face descriptor knows them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from recon3d.errors import InputError, NoFaceError
from recon3d.media import iterate_frames, open_inputs, read_picture, shown_path
from recon3d.progress import Reporter
from recon3d.recognition import FaceEmbedder, FaceTemplate, Gallery, make_template, track_template
from recon3d.tracking import TrackingSettings, track_faces

_VIEW = re.compile(r"yaw[+-]\d+_input(\d+)_frame(\d+)\.png")


def people_of(
    path: str,
    embedder: FaceEmbedder,
    settings: TrackingSettings | None = None,
    reporter: Reporter | None = None,
) -> Gallery:
    """Everybody whom an input shows.

    Parameters
    ----------
    path : str
        Folder of a run or of one of its tracks, gallery (.npz), clip, picture, folder or glob of
        pictures.
    embedder : FaceEmbedder
    settings : TrackingSettings, optional
        For clips and pictures.
    reporter : Reporter, optional

    Returns
    -------
    Gallery
        Named by the input; by the input and a number where it shows several.

    Raises
    ------
    InputError
        If it is none of these.
    NoFaceError
        If nobody is found in it.
    """
    reporter = reporter or Reporter(quiet=True)
    name = shown_path(str(path)).rstrip("/")
    folder = Path(path)
    if folder.suffix == ".npz":
        return Gallery.load(folder)
    tracks = [folder] if (folder / "fit.npz").is_file() else sorted(folder.glob("track_*"))
    if (folder / "manifest.json").is_file() or (folder / "fit.npz").is_file():
        found = [result_template(track, embedder) for track in tracks]
    else:
        with reporter.stage(f"tracking of {name}") as move:
            frames = iterate_frames(open_inputs([path]), on_warning=reporter.warn)
            tracked = track_faces(
                frames, settings, progress=lambda done: move(done, None), embedder=embedder
            )
        found = [track_template(track, embedder) for track in tracked.tracks]
    if not found:
        raise NoFaceError(f"{name}: nobody is found in it")
    if len(found) == 1:
        return Gallery({name: found[0]})
    names = [f"{name}/{t.name}" for t in tracks] if tracks else []
    return Gallery(dict(zip(names or [f"{name}#{k}" for k in range(len(found))], found)))


def result_template(folder: Path, embedder: FaceEmbedder) -> FaceTemplate:
    """What the files of a track say of a person: its fused view and its frames.

    Parameters
    ----------
    folder : Path
        Of one track, as `recon3d run` wrote it.
    embedder : FaceEmbedder

    Raises
    ------
    InputError
        If a file is missing or damaged.
    """
    from recon3d.scenes.truth import portrait_landmarks

    try:
        with np.load(folder / "fit.npz", allow_pickle=False) as archive:
            fit = {k: archive[k] for k in ("landmarks", "patch_origin", "frame_index", "source")}
    except Exception as error:
        raise InputError(f"{folder} is not a complete result: {error}; run it again") from None
    at = {
        (int(s), int(f)): k
        for k, (s, f) in enumerate(zip(fit["source"], fit["frame_index"], strict=True))
    }
    found, widths = [], []
    for file in sorted((folder / "views").glob("yaw*.png")):
        match = _VIEW.fullmatch(file.name)
        k = at.get((int(match[1]), int(match[2]))) if match else None
        if k is None:
            continue
        landmarks = fit["landmarks"][k] - fit["patch_origin"][k]
        found.append(embedder(read_picture(file), landmarks))
        widths.append(np.ptp(landmarks[:, 0]))
    raw = read_picture(folder / "frontal_raw.png")
    landmarks = portrait_landmarks(raw)
    fused = None if landmarks is None else embedder(raw, landmarks[:, :2])
    if not found and fused is None:
        raise InputError(f"{folder}: no face can be found in its pictures")
    return make_template(
        found, embedder, fused=fused, face_px=float(np.median(widths)) if widths else np.nan
    )
