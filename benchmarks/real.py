"""People in front of a camera: real clips made small and bad, against their own good frames.

    python benchmarks/real.py --clips ../shared/data/clips [--only TEXT,...] [--page PAGE]

What is trained on people who do not exist has to work on those who do. Parts of real clips are
reduced to faces of 32 to 64 px in other light and go through the main job; the person's descriptor
is that of the frames of full size that look ahead with open eyes (dlib's, the mean). There is no
truth but that, so what is told is how near pictures are to the person: fused, refined, and the best
single frame. No picture is kept. Fills its section of docs/RESULTS.md if nothing is left out.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from results import PAGE, machine, markdown_table, write_section

from recon3d import pipeline
from recon3d.errors import NoFaceError
from recon3d.evaluation.baselines import single_frame
from recon3d.evaluation.metrics import FaceDescriptor
from recon3d.media import VideoWriter, iterate_frames, open_inputs
from recon3d.restoration import ColourTemperature, LowLight, Recipe, degrade_clip
from recon3d.scenes.truth import portrait_landmarks
from recon3d.settings import load_settings
from recon3d.tracking import best_portraits, eyes_open, track_faces
from recon3d.types import FaceObservation, FaceTrack

PARTS = {
    "talking, first": ("talking_512.mp4", 0, 75),
    "talking, later": ("talking_512.mp4", 100, 175),
    "turning, first": ("turning_512.mp4", 0, 100),
    "turning, later": ("turning_512.mp4", 150, 250),
    "outdoor": ("outdoor_720x1364.mp4", 0, 90),
}
"""File, first frame and the one after the last."""
AHEAD = 12.0
"""Frames turned no further than this, degrees of yaw and pitch beside the straightest's, are what
the person looks like."""
LEAST = (320, 240)
"""A frame is continued to this size, px, as a small face stands in a large picture."""


@dataclass(frozen=True)
class Camera:
    """What becomes of a clip: width of the face, px; light; strength of the encoder."""

    face_px: float
    crf: int
    steps: tuple = ()


CAMERAS = {
    "64 px": Camera(64, 23),
    "48 px": Camera(48, 28),
    "32 px": Camera(32, 28),
    "40 px, warm": Camera(40, 28, (ColourTemperature(kelvin=3000),)),
    "40 px, cold": Camera(40, 28, (ColourTemperature(kelvin=9000),)),
    "48 px, dark": Camera(48, 30, (LowLight(exposure=0.18),)),
}
COLUMNS = ("best single frame", "fused", "refined")


def person(track: FaceTrack, describe: FaceDescriptor) -> np.ndarray:
    """(128,) mean descriptor of the frames that look ahead with open eyes."""
    first = best_portrait(track)
    opened = eyes_open(np.array([view.landmarks for view in track.views]))
    found = []
    for view, is_open in zip(track.views, opened, strict=True):
        turned = max(abs(view.yaw), abs(view.pitch - first.pitch))
        if view.patch is None or is_open < 0.5 or turned > AHEAD:
            continue
        found.append(described(as_portrait(track, view), describe))
    return np.mean([x for x in found if x is not None], axis=0)


def best_portrait(track: FaceTrack) -> FaceObservation:
    return track.views[best_portraits(track.views, 1)[0]]


def as_portrait(track: FaceTrack, view: FaceObservation) -> np.ndarray:
    """The frame alone, enlarged, its eyes in place."""
    return single_frame(replace(track, views=(view,))).frontal


def described(picture: np.ndarray, describe: FaceDescriptor) -> np.ndarray | None:
    landmarks = portrait_landmarks(picture)
    return None if landmarks is None else describe(picture, landmarks)


def reduced(frames: list[np.ndarray], face_px: float, camera: Camera) -> Iterator[np.ndarray]:
    """Frames as the camera shows them, before its encoder."""
    scale = camera.face_px / face_px
    height, width = (2 * round(scale * x / 2) for x in frames[0].shape[:2])
    small = (cv2.resize(x, (width, height), interpolation=cv2.INTER_AREA) for x in frames)
    if camera.steps:
        small = degrade_clip(
            small, Recipe(name="camera", steps=camera.steps), np.random.default_rng(0)
        )
    left, top = (max(0, least - x) // 2 for least, x in zip(LEAST, (width, height), strict=True))
    for picture in small:
        yield cv2.copyMakeBorder(picture, top, top, left, left, cv2.BORDER_REFLECT)


def measure(frames, face_px: float, camera: Camera, is_like: np.ndarray, describe) -> dict:
    """Distances of descriptors by kind of picture; NaN where no face is found."""
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        with VideoWriter(clip, fps=25, crf=camera.crf) as writer:
            for picture in reduced(frames, face_px, camera):
                writer.write(picture)
        settings = load_settings(None, ["max_tracks=1"])
        out = Path(folder) / "out"
        try:
            made = pipeline.run([str(clip)], out, settings, keep=True)
        except NoFaceError:
            return dict.fromkeys(COLUMNS, float("nan"))
        best = made.reconstructions[0]
        single = as_portrait(best.track, best_portrait(best.track))
        pictures = (single, best.frontal.raw, best.frontal.image)
    found = [described(x, describe) for x in pictures]
    return {
        name: float("nan") if x is None else float(np.linalg.norm(x - is_like))
        for name, x in zip(COLUMNS, found, strict=True)
    }


def report(rows: dict[tuple[str, str], dict], others: float) -> str:
    """The section of docs/RESULTS.md."""

    def line(name: str, chosen: list[dict]) -> list[str]:
        values = np.array([[row[c] for c in COLUMNS] for row in chosen])
        lost = int(np.isnan(values[:, -1]).sum())
        mean = np.nanmean(values, axis=0)
        change = 100 * (mean[2] / mean[1] - 1)
        return [name, str(len(chosen)), str(lost), *(f"{x:.3f}" for x in mean), f"{change:+.1f} %"]

    by_camera = [line(c, [r for k, r in rows.items() if k[1] == c]) for c in CAMERAS]
    by_part = [line(p, [r for k, r in rows.items() if k[0] == p]) for p in PARTS]
    table = [x for x in by_camera + by_part if x[1] != "0"] + [line("**all**", list(rows.values()))]
    headings = ["", "clips", "lost", *COLUMNS, "refined to fused"]
    whole = np.array([[row[c] for c in COLUMNS] for row in rows.values()])
    change = whole[:, 2] - whole[:, 1]
    error = np.nanstd(change) / max(np.sum(~np.isnan(change)), 1) ** 0.5
    return f"""## Real people

Parts of three real clips, reduced to small faces in other light, through the main job. Distance of
dlib's descriptors to the person's, which is the mean of the clip's own frames of full size that
look ahead with open eyes; the three people are {others:.2f} apart. Poses and expressions differ, so
the distance cannot come down to nothing. These people mostly look ahead, and talk and laugh: the
single frame has an expression of the good frames, where fusion draws a neutral face, and needs no
turning.

```
python benchmarks/real.py --clips ../shared/data/clips
```

Machine: {machine()}.

{markdown_table(headings, table)}

- refining moves the distance by {np.nanmean(change):+.4f} (standard error {error:.4f}, were the
  cases independent: they are of three people)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=Path, required=True, help="folder of the clips")
    parser.add_argument("--only", help="only parts whose name contains one of these (commas)")
    parser.add_argument("--page", type=Path, help="where the section goes")
    a = parser.parse_args()
    texts = a.only.split(",") if a.only else [""]
    describe, rows, people = FaceDescriptor(), {}, {}
    for part, (name, begin, end) in PARTS.items():
        if not any(text in part for text in texts):
            continue
        stream = iterate_frames(open_inputs([str(a.clips / name)]))
        frames = list(islice(stream, begin, end))
        track = track_faces(frames).tracks[0]
        is_like = person(track, describe)
        people.setdefault(name, []).append(is_like)
        face_px = float(np.median(track.face_px))
        pictures = [frame.image for frame in frames]
        for camera_name, camera in CAMERAS.items():
            rows[part, camera_name] = measure(pictures, face_px, camera, is_like, describe)
            print(part, camera_name, rows[part, camera_name], flush=True)
    means = [np.mean(found, axis=0) for found in people.values()]
    apart = [np.linalg.norm(x - y) for i, x in enumerate(means) for y in means[:i]]
    text = report(rows, float(np.mean(apart)) if apart else float("nan"))
    print(text)
    if a.page or not a.only:
        write_section("real", text, a.page or PAGE)


if __name__ == "__main__":
    main()
