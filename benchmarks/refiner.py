"""What the refiner gains, on people it never saw and on clips with known truth.

    python benchmarks/refiner.py --photos ../shared/data/synthetic_faces --data ../shared/data/bench

Validation people are simulated as training pairs are, with another seed; their photos are the
truth. The clips go through the main job. Fused views are kept in --out and used again.
"""

from __future__ import annotations

from before import ROOT  # isort: split

import argparse
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from results import PAGE, machine, markdown_table, write_section

from recon3d import pipeline
from recon3d.errors import NoFaceError, Recon3DError
from recon3d.evaluation import load_descriptor, read_benchmark
from recon3d.evaluation.metrics import picture_metrics
from recon3d.morphable import load_model
from recon3d.morphable.photos import read_photos
from recon3d.progress import Reporter
from recon3d.recognition import load_embedder
from recon3d.refinement.conditioning import GUIDES
from recon3d.refinement.projection import observed_residual
from recon3d.refinement.refine import refine_frontal
from recon3d.refinement.refiners import OwnRefiner, load_refiner
from recon3d.refinement.settings import RefinementSettings
from recon3d.refinement.shards import photo_names
from recon3d.scenes.truth import PictureTruth
from recon3d.settings import load_settings
from recon3d.state import load_state, save_state

SEED = 7001
"""Of the validation people's cameras; training uses small seeds."""
TABLE = (
    ("id_dist", "identity", 3),
    ("hog", "HOG", 3),
    ("psnr", "PSNR dB", 2),
    ("ssim", "SSIM", 4),
    ("nme", "NME %", 2),
    ("sharpness", "sharpness", 2),
)
TITLES = {
    "raw": "fused view (frontal_raw.png)",
    "gan": "GAN at full strength",
    "projected": "GAN at full strength, projected",
    "refined": "GAN, projected, gated, as shipped (frontal.png)",
    "alone": "as shipped, without geometry and evidence",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="the benchmark folder")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "refiner")
    parser.add_argument("--people", type=int, default=48)
    parser.add_argument("--heads", type=int, default=24, help="clips of rendered heads")
    parser.add_argument("--refiner", type=Path, help="weights; by default the shipped ones")
    parser.add_argument("--panel", type=Path, default=ROOT / "docs" / "images" / "refiner.jpg")
    parser.add_argument("--no-page", action="store_true", help="leave docs/RESULTS.md alone")
    a = parser.parse_args()
    reporter = Reporter()
    path = a.refiner or load_refiner().path
    with reporter.stage("people") as move:
        people = simulated(a.photos, a.out / "people", a.people, turned_photo, move)
    with reporter.stage("heads") as move:
        heads = simulated(a.photos, a.out / "heads", a.heads, rendered_head, move)
    with reporter.stage("clips") as move:
        clips = clip_views(a.data, a.out, OwnRefiner(path), move)
    variants = make_variants(path)
    describe = load_descriptor()
    rows, panels = [], {}
    with reporter.stage("scoring") as move:
        sets = {"people": people, "heads": heads, "clips": clips}
        jobs = [(group, *case) for group, cases in sets.items() for case in cases]
        for done, (group, name, condition, view, truth) in enumerate(jobs):
            shown = {}
            for variant, make in variants.items():
                result = make(view)
                scores = picture_metrics(result.image, truth, describe)
                if scores is None:
                    continue
                scores["hog"] = form_distance(result.image, truth.image)
                info = result.info.get("refiner", {})
                residual = observed_residual(result.image, view.raw, view.evidence)
                rows.append(
                    {"set": group, "case": name, "condition": condition, "variant": variant}
                    | scores
                    | {"blend": info.get("blend"), "drift": info.get("drift")}
                    | {"residual": residual, "seconds": info.get("seconds")}
                )
                shown[variant] = result.image
            panels[group, name] = (shown, truth.image)
            move(done + 1, len(jobs))
    frame = pd.DataFrame(rows)
    frame.to_csv(a.out / "cases.csv", index=False)
    text = report(frame, path, a.people, a.heads)
    print(text)
    write_panel(a.panel, frame, panels)
    if not a.no_page:
        write_section("refiner", text, PAGE)
        print(f"wrote {PAGE} and {a.panel}")


def turned_photo(image: np.ndarray, model, rng: np.random.Generator):
    """A photo that turns before a bad camera, fitted with errors like those of tracking."""
    from recon3d.refinement.simulation import fit_portrait, simulate

    return simulate(fit_portrait(image, model), rng)


def rendered_head(image: np.ndarray, model, rng: np.random.Generator):
    """A head of any shape with the photo as its skin, through the whole pipeline."""
    from recon3d.refinement.heads import simulate_head
    from recon3d.scenes.portraits import usable_as_skin
    from recon3d.scenes.truth import portrait_landmarks

    points = portrait_landmarks(image)
    if points is None or not usable_as_skin(points):
        raise NoFaceError("not frontal, or the mouth is open")
    return simulate_head(image, points, model, model, rng)


def simulated(photos: Path, out: Path, count: int, make, move, seed: int = SEED) -> list[tuple]:
    """Fused views of validation people with their true pictures."""
    model = load_model("recon3d")
    names = photo_names(photos, "val")
    wanted = [names[k] for k in np.random.default_rng(seed).permutation(len(names))]
    images = {n: i for n, i in read_photos(photos) if n in set(wanted)}
    found = []
    for number, name in enumerate(wanted):
        if len(found) == count:
            break
        path = out / f"{Path(name).stem}.npz"
        key = f"{seed} {number} {model.name}"
        kept = load_state(path, key, lambda _: model)
        if kept is None:
            try:
                pair = make(images[name], model, np.random.default_rng([seed, number]))
            except Recon3DError:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = (pair.view, pair.target, pair.info)
            save_state(path, kept, key)
        view, target, info = kept
        mask = view.face_mask > 0.5
        try:
            truth = PictureTruth.from_image(target, mask)
        except Recon3DError:
            continue
        bins = np.digitize(info["face_px"], [40, 70])
        condition = ("under 40 px", "40 to 70 px", "over 70 px")[int(bins)]
        found.append((name, condition, view, truth))
        move(len(found), count)
    return found


def clip_views(data: Path, out: Path, refiner: OwnRefiner, move) -> list[tuple]:
    """Fused views of the benchmark's clips, as the main job with that refiner makes them, with
    their true pictures."""
    benchmark = read_benchmark(data)
    settings = load_settings(None, ["frontal.settle=false"], refine=False, max_tracks=1)
    as_run = load_settings()
    found = []
    for number, case in enumerate(benchmark.cases):
        folder = out / "clips" / case.name
        result = pipeline.run([str(case.clip)], folder, settings, resume=True, keep=True)
        made = result.reconstructions[0]
        _, view = pipeline.portray(made.track, made.fit, made.texture, as_run, refiner)
        found.append((case.name, case.condition, view, benchmark.subjects[case.subject].picture))
        move(number + 1, len(benchmark.cases))
    return found


def form_distance(image: np.ndarray, truth: np.ndarray) -> float:
    """Relative distance of histograms of oriented gradients over the face [1]_.

    The refiner is trained through the descriptor that `id_dist` is measured with; this one it has
    never met.

    References
    ----------
    .. [1] N. Dalal, B. Triggs, Histograms of oriented gradients for human detection, CVPR 2005.
    """
    from skimage.feature import hog

    found = []
    for picture in (image, truth):
        face = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[100:500, 56:456]
        face = cv2.resize(face, (128, 128), interpolation=cv2.INTER_AREA)
        found.append(hog(face, 9, (8, 8), (2, 2)))
    return float(np.linalg.norm(found[0] - found[1]) / np.linalg.norm(found[1]))


def make_variants(path: Path) -> dict:
    """Every line of the ablation as a function of a fused view."""
    full, alone = OwnRefiner(path), OwnRefiner(path, without=GUIDES)
    embed = load_embedder()
    free = RefinementSettings(project=False, strength=1.0)
    whole = RefinementSettings(strength=1.0)
    bound = RefinementSettings()
    return {
        "raw": lambda view: replace(view, image=view.raw),
        "gan": lambda view: refine_frontal(view, full, free),
        "projected": lambda view: refine_frontal(view, full, whole),
        "refined": lambda view: refine_frontal(view, full, bound, embed),
        "alone": lambda view: refine_frontal(view, alone, bound, embed),
    }


def report(frame: pd.DataFrame, path: Path, people: int, heads: int) -> str:
    """The section of docs/RESULTS.md."""
    headings = ["", *(title for _, title, _ in TABLE)]
    parts = [
        "## The refiner",
        "```\npython benchmarks/refiner.py --photos ../shared/data/synthetic_faces "
        f"--data ../shared/data/bench \\\n    --people {people} --heads {heads}\n```",
        f"Machine: {machine()}. Weights: {path.name}, "
        f"{path.stat().st_size / 2**20:.1f} MiB. Identity is the distance of dlib's descriptors "
        "to that of the truth; less is better. Training goes through that descriptor, so that it "
        "is no independent witness for the refined pictures; HOG (relative distance of histograms "
        "of oriented gradients, less is better) and the other columns are.",
    ]
    groups = {
        "people": "Validation people, never trained on, seen by simulated cameras:",
        "heads": "Rendered heads of random shape with such people's skin, tracked and fitted:",
        "clips": "Clips with known truth:",
    }
    for group, title in groups.items():
        part = frame[frame["set"] == group]
        if part.empty:
            continue
        means = part.groupby("variant")[[k for k, _, _ in TABLE]].mean()
        rows = [
            [TITLES[v], *(f"{means.loc[v, k]:.{d}f}" for k, _, d in TABLE)]
            for v in TITLES
            if v in means.index
        ]
        parts += [f"{title} {part['case'].nunique()} cases.", markdown_table(headings, rows)]
        parts.append(by_condition(part))
        parts.append("\n".join(verdicts(group, part)))
    timed = frame[(frame["variant"] == "refined")]["seconds"]
    word = "reached" if timed.median() <= 1.5 else "**missed**"
    parts.append(
        f"- 512x512 with projection and gate: {timed.median():.2f} s (median; wanted at most 1.5): "
        f"{word}"
    )
    parts.append("![fused, refined, truth](images/refiner.jpg)")
    return "\n\n".join(parts)


def by_condition(part: pd.DataFrame) -> str:
    """Fused against refined by condition."""
    headings = ["", "cases", "identity", "refined", "PSNR dB", "refined", "SSIM", "refined"]
    rows = []
    for condition, cases in part.groupby("condition"):
        means = cases.groupby("variant")[["id_dist", "psnr", "ssim"]].mean()
        cells = [condition, str(cases["case"].nunique())]
        for key, digits in (("id_dist", 3), ("psnr", 2), ("ssim", 4)):
            cells += [f"{means.loc[v, key]:.{digits}f}" for v in ("raw", "refined")]
        rows.append(cells)
    return markdown_table(headings, rows)


def verdicts(group: str, part: pd.DataFrame) -> list[str]:
    """What is wanted, what was got."""
    means = part.groupby("variant")[["id_dist", "psnr", "ssim", "nme"]].mean()
    raw, refined = means.loc["raw"], means.loc["refined"]
    gain = 100 * (1 - refined["id_dist"] / raw["id_dist"])
    checks = [
        (f"identity distance falls by {gain:.1f} % (wanted at least 8)", gain >= 8),
        (
            f"PSNR changes by {refined['psnr'] - raw['psnr']:+.2f} dB (wanted at least -0.2)",
            refined["psnr"] - raw["psnr"] >= -0.2,
        ),
        (
            f"SSIM changes by {refined['ssim'] - raw['ssim']:+.4f} (wanted not to fall)",
            refined["ssim"] >= raw["ssim"],
        ),
        (
            f"NME changes by {refined['nme'] - raw['nme']:+.2f} points (wanted not to rise)",
            refined["nme"] <= raw["nme"],
        ),
    ]
    residual = part[part["variant"] == "refined"]["residual"].max()
    if np.isfinite(residual):
        checks.append(
            (
                f"largest residual where support is above 0.8: {residual:.2f} of 255 "
                "(wanted at most 2)",
                residual <= 2,
            )
        )
    if group == "clips":
        good = part[part["condition"] == "clean110"].pivot_table(
            index="case", columns="variant", values="id_dist"
        )
        if len(good):
            worst = float((good["refined"] - good["raw"]).max())
            checks.append(
                (
                    f"on clean110 identity distance changes by at most {worst:+.3f} "
                    "(wanted at most 0.01)",
                    worst <= 0.01,
                )
            )
    return [f"- {text}: {'reached' if ok else '**missed**'}" for text, ok in checks]


def write_panel(path: Path, frame: pd.DataFrame, panels: dict) -> None:
    """Fused, refined and true picture of cases from the worst to the best, for the docs."""
    table = frame.pivot_table(index=["set", "case"], columns="variant", values="id_dist")
    rows = []
    for group in ("clips", "people"):
        if group not in table.index.get_level_values(0):
            continue
        cases = table.loc[group]["refined"].sort_values()
        for name in cases.index[np.linspace(0, len(cases) - 1, 4).round().astype(int)]:
            shown, truth = panels[group, name]
            if {"raw", "refined"} <= set(shown):
                truth = cv2.resize(truth, (256, 256), interpolation=cv2.INTER_AREA)
                parts = [
                    cv2.resize(shown[v], (256, 256), interpolation=cv2.INTER_AREA)
                    for v in ("raw", "refined")
                ]
                rows.append(np.hstack([*parts, truth]))
    if len(rows) % 2:
        rows.append(np.full_like(rows[0], 255))
    half = len(rows) // 2
    picture = np.hstack([np.vstack(rows[:half]), np.vstack(rows[half:])])
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    start = time.perf_counter()
    main()
    print(f"{time.perf_counter() - start:.0f} s")
