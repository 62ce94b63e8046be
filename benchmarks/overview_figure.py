#!/usr/bin/env python3
"""Compose the README's picture from a run: input frames, mesh, frontal view, evidence.

python benchmarks/overview_figure.py --result out/demo --out docs/images/overview.jpg
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np

from recon3d.media import iterate_frames, open_inputs
from recon3d.viewing import load_scene, render_still

SIDE = 300
GAP = 8
INK = (51, 36, 29)


def input_frames(manifest: dict, fit, count: int = 4) -> list[np.ndarray]:
    """Whole frames spread over the yaw range, cropped square round the face, enlarged plainly."""
    yaw = np.array([np.arctan2(R[0, 2], -R[2, 2]) for R in fit["R"]])
    chosen = [
        int(np.argmin(abs(yaw - y))) for y in np.quantile(yaw, np.linspace(0.03, 0.97, count))
    ]
    wanted = {int(fit["frame_index"][i]): i for i in chosen}
    pictures = {}
    for frame in iterate_frames(open_inputs([manifest["inputs"][0]["path"]])):
        if frame.index in wanted:
            points = fit["landmarks"][wanted[frame.index]]
            centre, width = points.mean(0), np.ptp(points[:, 0]) * 2.2 + 8
            M = np.array(
                [
                    [SIDE / width, 0, SIDE / 2 - centre[0] * SIDE / width],
                    [0, SIDE / width, SIDE / 2 - centre[1] * SIDE / width],
                ]
            )
            pictures[frame.index] = cv2.warpAffine(
                frame.image,
                M,
                (SIDE, SIDE),
                flags=cv2.INTER_NEAREST,
                borderMode=cv2.BORDER_REPLICATE,
            )
    return [pictures[k] for k in wanted]


def captioned(picture: np.ndarray, text: str) -> np.ndarray:
    """The picture on white with a line of text below."""
    out = np.full((SIDE + 30, SIDE, 3), 255, np.uint8)
    out[:SIDE] = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    cv2.putText(out, text, (4, SIDE + 21), cv2.FONT_HERSHEY_SIMPLEX, 0.5, INK[::-1], 1, cv2.LINE_AA)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--result", type=Path, default=Path("out/demo"))
    parser.add_argument("--out", type=Path, default=Path("docs/images/overview.jpg"))
    arguments = parser.parse_args()
    manifest = json.loads((arguments.result / "manifest.json").read_text())
    track = arguments.result / manifest["tracks"][0]["path"]
    with np.load(track / "fit.npz", allow_pickle=False) as archive:
        fit = {k: archive[k] for k in ("R", "frame_index", "landmarks")}
    scene = load_scene(track)
    size = (SIDE * 2, SIDE * 2)
    cells = [
        captioned(p, f"input frame {k + 1}") for k, p in enumerate(input_frames(manifest, fit))
    ]
    read = {n: cv2.imread(str(track / f"{n}.png"))[..., ::-1] for n in ("frontal", "evidence")}
    cells += [
        captioned(read["frontal"], "frontal view"),
        captioned(read["evidence"], "evidence: red seen, blue guessed"),
        captioned(render_still(scene, yaw=35, size=size), "textured mesh"),
        captioned(render_still(scene, mode="plain", yaw=35, size=size), "mesh"),
    ]
    gap = np.full((SIDE + 30, GAP, 3), 255, np.uint8)
    rows = []
    for start in (0, 4):
        row = [part for cell in cells[start : start + 4] for part in (cell, gap)][:-1]
        rows.append(np.hstack(row))
    figure = np.vstack(rows)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(arguments.out), figure[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
