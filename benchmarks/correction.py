"""Landmarks of small and bad faces, as the landmarker sees them and corrected.

    recon3d model import ../shared/data/ict_facekit/ict_facekit_light.npz
    python benchmarks/correction.py --data ../shared/data/bench --clips ../shared/data/clips
        [--corrector FILE] [--only TEXT,...] [--page PAGE]

On the benchmark's clips the truth is known. Of real people it is not: parts of real clips are
reduced to small faces in other light, and what the landmarker sees in the frames of full size
stands for it. Clips are tracked once, without correction. Fills its section of docs/RESULTS.md if
nothing is left out.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from real import CAMERAS, LEAST, PARTS, reduced
from results import PAGE, machine, markdown_table, write_section
from truth import clip_truth, expressions_of, true_shape

from recon3d.calibration.training import FEATURES
from recon3d.evaluation import read_benchmark
from recon3d.frontal.camera import landmark_points
from recon3d.geometry import project
from recon3d.media import VideoWriter, iterate_frames, open_inputs
from recon3d.morphable import load_model
from recon3d.tracking import TrackingSettings, track_faces
from recon3d.tracking.correction import POINTS, Corrector, read_corrector
from recon3d.types import FaceTrack

AS_SEEN = TrackingSettings(correct=False)


@dataclass(frozen=True)
class Found:
    """Errors of one clip's landmarks, (N, 468, 2), share of the face's width; NaN where the truth
    lacks a point."""

    group: str
    name: str
    seen: np.ndarray
    corrected: np.ndarray


def corrected(track: FaceTrack, corrector: Corrector) -> np.ndarray:
    """(N, 478, 2) px."""
    origins = [np.asarray(v.patch.origin) for v in track.views]
    images = [v.patch.image for v in track.views]
    points = [v.landmarks - o for v, o in zip(track.views, origins, strict=True)]
    moved = corrector(images, points)
    return np.array([p + o for p, o in zip(moved, origins, strict=True)])


def errors(group: str, name: str, track, truth: np.ndarray, width, corrector) -> Found:
    """Of a track (N views), where its points are (N, 478, 2) and widths of the face (N,), px."""
    scale = np.asarray(width)[:, None, None]
    seen = np.array([v.landmarks for v in track.views])
    return Found(
        group,
        name,
        ((seen - truth) / scale)[:, :POINTS],
        ((corrected(track, corrector) - truth) / scale)[:, :POINTS],
    )


def of_benchmark(folder: Path, wanted, corrector) -> Iterator[Found]:
    """The benchmark's clips, with the truth on ICT-FaceKit's mesh."""
    model, benchmark = load_model("ict-facekit"), read_benchmark(folder)
    for case in benchmark.cases:
        if not wanted(case.name):
            continue
        shape = benchmark.subjects[case.subject].shape
        truth, head = clip_truth(case), true_shape(shape, model)
        track = track_faces(iterate_frames(open_inputs([str(case.clip)])), AS_SEEN).tracks[0]
        rows = [v.frame_index for v in track.views]
        neutral = model.vertices(head.identity) + head.displacement
        moved = np.tensordot(expressions_of(truth, model)[rows], model.expression, 1)
        points = [landmark_points(model, (neutral + m) @ head.R.T + head.t) for m in moved]
        where = project(
            np.array(points), np.repeat(truth.K[None], len(rows), 0), truth.R[rows], truth.t[rows]
        )
        width = np.ptp(shape.points[:, 0]) * truth.K[0, 0] / truth.t[rows, 2]
        yield errors(case.condition, case.name, track, where, width, corrector)


def of_real_clips(folder: Path, wanted, corrector) -> Iterator[Found]:
    """Real clips made small, against what is seen in their frames of full size."""
    for part, (file, begin, end) in PARTS.items():
        if not any(wanted(f"{part}, {camera}") for camera in CAMERAS):
            continue
        frames = list(islice(iterate_frames(open_inputs([str(folder / file)])), begin, end))
        # all frames are views: the small clip may choose others
        every = AS_SEEN.model_copy(update={"max_views": len(frames)})
        whole = track_faces(frames, every).tracks[0]
        first = frames[0].index
        seen = {v.frame_index - first: v.landmarks for v in whole.views}
        face_px = float(np.median(whole.face_px))
        pictures = [frame.image for frame in frames]
        height, width = pictures[0].shape[:2]
        for name, camera in CAMERAS.items():
            if not wanted(f"{part}, {name}"):
                continue
            with tempfile.TemporaryDirectory() as scratch:
                clip = Path(scratch) / "clip.mp4"
                with VideoWriter(clip, fps=25, crf=camera.crf) as writer:
                    for picture in reduced(pictures, face_px, camera):
                        writer.write(picture)
                tracks = track_faces(iterate_frames(open_inputs([str(clip)])), AS_SEEN).tracks
            if not tracks:
                continue
            scale = camera.face_px / face_px
            size = np.array([2 * round(scale * x / 2) for x in (width, height)])
            edge = [max(0, least - x) // 2 for least, x in zip(LEAST, size, strict=True)]
            place = {k: points * (size / [width, height]) + edge for k, points in seen.items()}
            # what continues a frame is its mirror image, and may be followed as well
            track = min((only(t, place) for t in tracks), key=lambda t: astray(t, place))
            truth = np.array([place[v.frame_index] for v in track.views])
            px = np.full(len(truth), camera.face_px)
            yield errors(name, f"{part}, {name}", track, truth, px, corrector)


def only(track: FaceTrack, frames) -> FaceTrack:
    """The track with those views alone whose frames are among some."""
    return replace(track, views=tuple(v for v in track.views if v.frame_index in frames))


def astray(track: FaceTrack, place: dict[int, np.ndarray]) -> float:
    """Mean distance of a track's landmarks from where they should be, px."""
    gaps = [np.abs(v.landmarks - place[v.frame_index]).mean() for v in track.views]
    return float(np.mean(gaps)) if gaps else np.inf


def row(name: str, found: list[Found]) -> list[str]:
    """Mean distance in all frames, and how far the mean of a clip's errors is from nothing."""

    def both(measure) -> str:
        before = np.mean([measure(f.seen) for f in found])
        after = np.mean([measure(f.corrected) for f in found])
        return f"{100 * before:.1f} > {100 * after:.1f}"

    def common(points):
        return lambda e: np.linalg.norm(np.nanmean(e[:, list(points)], axis=(0, 1)))

    every = both(lambda e: np.nanmean(np.linalg.norm(e, axis=2)))
    return [name, str(len(found)), every, *(both(common(p)) for p in FEATURES.values())]


def table(found: list[Found]) -> str:
    groups = list(dict.fromkeys(f.group for f in found))
    rows = [row(g, [f for f in found if f.group == g]) for g in groups]
    return markdown_table(["", "clips", "all points", *FEATURES], [*rows, row("**all**", found)])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the benchmark's folder")
    parser.add_argument("--clips", type=Path, required=True, help="folder of real clips")
    parser.add_argument("--corrector", type=Path, help="weights; the shipped ones by default")
    parser.add_argument("--only", help="only clips whose name contains one of these (commas)")
    parser.add_argument("--page", type=Path, help="where the section goes")
    a = parser.parse_args()
    texts = a.only.split(",") if a.only else [""]
    corrector = read_corrector(a.corrector)

    def wanted(name: str) -> bool:
        return any(text in name for text in texts)

    tables = []
    for make, folder in ((of_benchmark, a.data), (of_real_clips, a.clips)):
        found = []
        for one in make(folder, wanted, corrector):
            print(" | ".join(row(one.name, [one])), flush=True)
            found.append(one)
        tables.append(table(found) if found else "")
    text = f"""## Landmarks, as seen and corrected

What `recon3d.tracking.correction` makes of MediaPipe's meshes, in per cent of the face's width,
before and after. All points: mean distance in all frames. Features: how far the mean of a clip's
errors is from nothing, which no mean over frames takes away. The benchmark's clips, whose truth is
known:

```
python benchmarks/correction.py --data ../shared/data/bench --clips ../shared/data/clips
```

Machine: {machine()}.

{tables[0]}

Parts of real clips, reduced to small faces in other light; what the landmarker sees in the frames
of full size stands for the truth, its own errors there included:

{tables[1]}
"""
    print(text)
    page = a.page or (PAGE if not a.only and a.corrector is None else None)
    if page:
        write_section("correction", text, page)


if __name__ == "__main__":
    main()
