"""What an encoder takes: the same clips in full and as H.264 of rising strength.

    python benchmarks/coding.py --photos ../shared/data/synthetic_faces [--people 3] [--out DIR]

Own scenes, small and bad as the benchmark's, but with the encoder left out or of a chosen strength,
are tracked, fitted, fused and refined, and fused once more with true shape, cameras and expressions
handed in. (The mesh is not settled as the main job does; heads are drawn from the model that fits
them, displaced by a millimetre of what it does not contain.) So it shows what more frames and the
solver bring when noise and blur are all that ails the frames, and what is left of that when one
frame is predicted from another and hardly anything is written of the difference. Finished rows are
kept in --out: after a change of code start with an empty folder. ``--part`` takes every so many-th
clip, for several processes.
"""

from __future__ import annotations

from before import ROOT  # isort: split

import argparse
import functools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from own_scenes import portraits
from results import PAGE, machine, markdown_table, write_section

from recon3d.evaluation import load_descriptor
from recon3d.evaluation.metrics import picture_metrics
from recon3d.fitting import FittingSettings, fit_track
from recon3d.frontal import FrontalSettings, render_frontal
from recon3d.morphable import load_model
from recon3d.progress import Reporter
from recon3d.refinement import load_refiner
from recon3d.refinement.refine import refine_frontal
from recon3d.scenes.portraits import portrait_texture
from recon3d.scenes.scene import Scene, SceneTruth, render_scene
from recon3d.texturing import TexturingSettings, fuse_texture, plain_average
from recon3d.tracking import track_faces
from recon3d.types import FaceFit, FaceTrack, Frame

FIRST_PERSON, FIRST_PHOTO = 700, 300
FRAMES = 32
CAMERAS = {
    "tiny28": dict(face_px=28, light="medium"),
    "warm40": dict(face_px=40, light="warm"),
    "blur56": dict(face_px=56, light="medium", blur="strong"),
}
STRENGTHS = (None, 18.0, 23.0, 28.0, 33.0)
"""Constant rate factors of H.264; none: the frames as the camera had them."""
COLUMNS = ("one frame", "average", "solver", "refined", "true, average", "true, solver")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True, help="portraits: skins of the heads")
    parser.add_argument("--people", type=int, default=3, help="of each camera")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "coding")
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1), metavar=("K", "OF"))
    parser.add_argument("--no-page", action="store_true", help="leave docs/RESULTS.md alone")
    a = parser.parse_args()
    jobs = [
        (camera, person, crf)
        for person in range(a.people)
        for camera in CAMERAS
        for crf in STRENGTHS
    ]
    reporter = Reporter()
    photos = list(portraits(a.photos, FIRST_PHOTO, a.people * len(CAMERAS)))
    rows = []
    with reporter.stage("clips") as move:
        for number, job in enumerate(jobs):
            path = a.out / "rows" / "{}_{}_{}.json".format(*job)
            if not path.exists() and number % a.part[1] == a.part[0]:
                row = measure(*job, photos)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(row), encoding="utf-8")
            if path.exists():
                rows += [
                    dict(zip(("camera", "person", "crf"), job)) | r
                    for r in json.loads(path.read_text())
                ]
            move(number + 1, len(jobs))
    text = report(pd.DataFrame(rows), a.people)
    print(text)
    if not a.no_page:
        write_section("coding", text, PAGE)
        print(f"wrote {PAGE}")


@functools.cache
def own_model():
    return load_model("recon3d")


@functools.cache
def tools():
    return load_descriptor(), load_refiner()


def measure(camera: str, person: int, crf: float | None, photos) -> list[dict]:
    """Scores of every way to a picture; empty where no face is found."""
    number = FIRST_PERSON + 10 * person + list(CAMERAS).index(camera)
    scene = Scene(
        person=number, seed=number, yaw_span_deg=50, camera_tilt_deg=14, crf=crf, **CAMERAS[camera]
    )
    model = own_model()
    photo = photos[person * len(CAMERAS) + list(CAMERAS).index(camera)]
    truth, pictures = render_scene(
        scene, model, person_texture=portrait_texture(model, *photo, number)
    )
    tracks = track_faces(Frame(x, k, k / scene.fps, 0) for k, x in enumerate(pictures)).tracks
    if not tracks:
        return []
    track = tracks[0]
    fit = fit_track(track, model, FittingSettings())
    exact = true_fit(truth, track, fit)
    describe, refiner = tools()
    answer = truth.picture_truth()
    full = TexturingSettings(max_views=FRAMES)
    found = []
    for name, of, settings in (
        ("one frame", fit, TexturingSettings(max_views=1)),
        ("average", fit, plain_average(full)),
        ("solver", fit, full),
        ("true, average", exact, plain_average(full)),
        ("true, solver", exact, full),
    ):
        view = render_frontal(track, of, fuse_texture(track, of, settings), FrontalSettings())
        pictures = {name: view.raw}
        if name == "solver":
            pictures["refined"] = refine_frontal(view, refiner).image
        for title, picture in pictures.items():
            scores = picture_metrics(picture, answer, describe)
            if scores is not None:
                found.append({"way": title, "psnr": scores["psnr"], "identity": scores["id_dist"]})
    return found


def true_fit(truth: SceneTruth, track: FaceTrack, fit: FaceFit) -> FaceFit:
    """A fit whose shape, cameras and expressions are those of the scene."""
    frames = [view.frame_index for view in track.views]
    return replace(
        fit,
        identity=truth.identity,
        displacement=truth.displacement,
        expression=truth.expression[frames],
        R=truth.R[frames],
        t=truth.t[frames],
        K=np.repeat(truth.K[None], len(frames), 0),
        view_weight=np.ones(len(frames)),
    )


def report(rows: pd.DataFrame, people: int) -> str:
    """The section of docs/RESULTS.md."""
    # Only clips that are there in every strength: means over others would compare people.
    counts = rows.groupby(["camera", "person"])[["crf", "way"]].apply(len)
    whole = counts[counts == counts.max()].index
    rows = rows.set_index(["camera", "person"]).loc[whole].reset_index()
    strengths = [("none", None)] + [(f"crf {crf:.0f}", crf) for crf in STRENGTHS if crf is not None]

    def cell(part: pd.DataFrame, way: str) -> str:
        of = part[part["way"] == way]
        return f"{of['psnr'].mean():.2f} / {of['identity'].mean():.3f}" if len(of) else "-"

    body, gains = [], []
    for title, crf in strengths:
        of = rows[rows["crf"].isna() if crf is None else rows["crf"] == crf]
        body.append([title, *(cell(of, way) for way in COLUMNS)])
        mean = of.groupby(["camera", "way"])["psnr"].mean()
        for camera in CAMERAS:
            if camera not in mean:
                continue
            ways = mean[camera]
            gains.append(
                [
                    title,
                    camera,
                    f"{ways['solver'] - ways['one frame']:+.2f}",
                    f"{ways['solver'] - ways['average']:+.2f}",
                    f"{ways['true, solver'] - ways['true, average']:+.2f}",
                ]
            )
    mean = rows.assign(crf=rows["crf"].fillna(0)).groupby(["crf", "way"])["identity"].mean()
    spared = "; ".join(
        f"{title} {100 * (mean[crf or 0]['solver'] / mean[crf or 0]['average'] - 1):+.1f} %"
        for title, crf in strengths
    )
    table = markdown_table(["H.264", *COLUMNS], body)
    by_camera = markdown_table(
        [
            "H.264",
            "camera",
            f"{FRAMES} frames over one",
            "solver over average",
            "the same, all true",
        ],
        gains,
    )
    return f"""## What the encoder takes

The same clips of {len(whole)} rendered heads with and without H.264 (own scenes of {people} people
to a camera, 28 to 56 px, noise and blur as such cameras have), before the refiner but for its own
column: PSNR in dB and distance of dlib's descriptors to the truth.

```
python benchmarks/coding.py --photos ../shared/data/synthetic_faces --people {people}
```

Machine: {machine()}.

{table}

- what the solver does to the identity distance of the plain average: {spared}

Gains in dB by camera:

{by_camera}
"""


if __name__ == "__main__":
    main()
