"""What to expect from your camera: figures and one page in plain words from a matrix's rows."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from recon3d.evaluation.matrix import FACTORS, METHODS, Plan, summarise

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

_TEMPLATE = Path(__file__).with_name("expectations.html")

TITLES = {
    "light": "Light",
    "face_px": "Size of the face in the picture",
    "blur": "Motion blur",
    "yaw_span": "How far the head turns",
}
QUESTIONS = {
    "light": "What lamp the face is under: dim, a room, daylight, warm street or bulb light, cold "
    "light from the side.",
    "face_px": "How many pixels wide the face is. A face fills about a tenth of the width of a "
    "640-pixel picture at 64.",
    "blur": "Whether the camera smears what moves.",
    "yaw_span": "How many degrees the head turns to each side during the clip.",
}
LEVELS = {
    ("light", "low"): "dim",
    ("light", "medium"): "room",
    ("light", "bright"): "daylight",
    ("light", "warm"): "warm",
    ("light", "cold"): "cold, from one side",
    ("blur", "none"): "sharp",
    ("blur", "strong"): "strongly smeared",
}

# Ratios of errors within which two methods count as equally good.
_NEARER, _FURTHER = 0.93, 1.1

_PANELS = (
    ("detected", "face found\n(share of frames)", ("recon3d",), True),
    ("nonmetric_median", "shape error\n(mm)", ("recon3d", "average", "mean"), False),
    ("id_dist", "distance from the true face\n(0: identical)", ("recon3d", "single"), False),
    ("verification", "nearer to its own person\n(share of others)", ("recon3d", "single"), True),
)
_COLOURS = {"recon3d": "#2f5fb3", "single": "#c9772b", "average": "#5d9b57", "mean": "#8a8f99"}
_SHORT = {
    "recon3d": "recon3d",
    "single": "best single frame",
    "average": "MediaPipe, averaged",
    "mean": "mean face for all",
}


def level_name(factor: str, level) -> str:
    """A level as a person would say it."""
    unit = {"face_px": " px", "yaw_span": "°"}.get(factor, "")
    return LEVELS.get((factor, str(level)), f"{level}{unit}")


def write_page(plan: Plan, rows: Sequence[dict], out: Path, *, version: str = "") -> Path:
    """Write ``expect.html``, which needs no other file, and its figures as PNG.

    Parameters
    ----------
    plan : Plan
    rows : sequence of dict
        As `run_matrix` gives them; conditions without any are left out.
    out : Path
        The matrix's folder: example pictures are taken from there.
    version : str
        Of recon3d.

    Returns
    -------
    Path
    """
    import jinja2

    from recon3d.evaluation.matrix import write_text

    out = Path(out)
    (out / "figures").mkdir(parents=True, exist_ok=True)
    summary = summarise(plan, rows)
    sections = []
    for factor in FACTORS:
        part = summary[summary["factor"] == factor]
        if part.empty:
            continue
        drawn = _png(condition_figure(summary, factor))
        (out / "figures" / f"{factor}.png").write_bytes(drawn)
        sections.append(
            {
                "title": TITLES[factor],
                "question": QUESTIONS[factor],
                "figure": _embed(drawn),
                "sentences": sentences(summary, factor),
                "examples": _examples(plan, rows, factor, out),
            }
        )
    heat = None
    if not plan.quick:
        drawn = _png(map_figure(rows))
        (out / "figures" / "map.png").write_bytes(drawn)
        heat = _embed(drawn)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    finished = len({row["case"] for row in rows})
    page = template.render(
        version=version,
        sections=sections,
        heat=heat,
        overall=overall(summary),
        n_clips=finished,
        n_wanted=len(plan.scenes()),
        n_frames=plan.n_frames,
        n_people=len({row["person"] for row in rows}),
        quick=plan.quick,
    )
    write_text(out / "expect.html", page)
    return out / "expect.html"


# ------------------------------------------------------------------------------------ figures
def condition_figure(summary: pandas.DataFrame, factor: str) -> Figure:
    """One condition: found, shape, likeness and being told apart over its levels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.0), layout="constrained")
    part = summary[summary["factor"] == factor]
    levels = [level for level in FACTORS[factor] if str(level) in set(part["level"])]
    x = np.arange(len(levels))
    named: dict = {}
    for axes, (key, title, methods, share) in zip(figure.subplots(1, len(_PANELS)), _PANELS):
        methods = [m for m in methods if key in part and part[part.method == m][key].notna().any()]
        for number, method in enumerate(methods):
            chosen = part[part["method"] == method].set_index("level")[key]
            values = [chosen.get(str(level), np.nan) for level in levels]
            width = 0.8 / len(methods)
            place = x + (number - (len(methods) - 1) / 2) * width
            axes.bar(place, values, width, color=_COLOURS[method], label=_SHORT[method])
        axes.set_title(title, fontsize=9)
        names = [level_name(factor, level) for level in levels]
        axes.set_xticks(x, names, fontsize=8, rotation=25 if len(names) > 3 else 0)
        axes.tick_params(axis="y", labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        if share:
            axes.set_ylim(0, 1.05)
        if key == "verification":
            axes.axhline(0.5, color="#555", linewidth=0.8, linestyle=":")
        for handle, label in zip(*axes.get_legend_handles_labels()):
            named.setdefault(label, handle)
    figure.legend(
        named.values(), named.keys(), loc="outside lower center", ncols=4, fontsize=8, frameon=False
    )
    return figure


def map_figure(rows: Sequence[dict]) -> Figure:
    """Light against face width: found, shape, likeness, over blur and turn of the head."""
    from matplotlib.figure import Figure

    ours = [row for row in rows if row["method"] == "recon3d"]
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    panels = (
        ("detected", "face found", "viridis"),
        ("nonmetric_median", "shape error, mm", "viridis_r"),
        ("id_dist", "distance from the true face", "viridis_r"),
    )
    for axes, (key, title, colours) in zip(figure.subplots(1, len(panels)), panels):
        table = np.full((len(FACTORS["light"]), len(FACTORS["face_px"])), np.nan)
        for i, light in enumerate(FACTORS["light"]):
            for j, width in enumerate(FACTORS["face_px"]):
                values = [
                    row[key]
                    for row in ours
                    if row["light"] == light and row["face_px"] == width and key in row
                ]
                if values:
                    table[i, j] = np.mean(values)
        axes.imshow(table, cmap=colours, aspect="auto")
        middle = np.nanmean(table) if np.isfinite(table).any() else 0
        for (i, j), value in np.ndenumerate(table):
            if np.isfinite(value):
                dark = (value > middle) == (colours == "viridis_r")
                ink = "white" if dark else "black"
                axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color=ink)
        axes.set_xticks(range(len(FACTORS["face_px"])), [f"{w} px" for w in FACTORS["face_px"]])
        names = [level_name("light", light) for light in FACTORS["light"]]
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(labelsize=8)
        axes.set_title(title, fontsize=9)
    return figure


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _embed(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


# -------------------------------------------------------------------------------------- words
def sentences(summary: pandas.DataFrame, factor: str) -> list[str]:
    """One sentence a level: what was found, how good it is, whether it is worth more than less
    work would be."""
    out = []
    part = summary[summary["factor"] == factor]
    for level in FACTORS[factor]:
        at = {row["method"]: row for row in part[part["level"] == str(level)].to_dict("records")}
        if "recon3d" in at:
            out.append(f"{level_name(factor, level)}: {_verdict(at)}")
    return out


def overall(summary: pandas.DataFrame) -> str:
    """The same over everything."""
    part = summary[summary["factor"] == "all"]
    return _verdict({row["method"]: row for row in part.to_dict("records")})


def _verdict(at: dict[str, dict]) -> str:
    ours = at["recon3d"]
    failed = int(ours["image_failed"])
    parts = [f"the face was found in {_percent(ours.get('detected'))} of the frames"]
    if failed == ours["clips"]:
        return parts[0] + " and no picture came out."
    if failed:
        parts.append(f"{failed} of {int(ours['clips'])} clips gave no picture")
    shape, mean = ours.get("nonmetric_median"), at.get("mean", {}).get("nonmetric_median")
    if _known(shape) and _known(mean):
        text = f"the shape is off by {shape:.2f} mm"
        if shape < _NEARER * mean:
            text += f", nearer to the person than a mean face ({mean:.2f} mm)"
        elif shape <= _FURTHER * mean:
            text += f", no better than a mean face ({mean:.2f} mm)"
        else:
            text += f", worse than a mean face would be ({mean:.2f} mm)"
        parts.append(text)
    own, single = ours.get("id_dist"), at.get("single", {}).get("id_dist")
    if _known(own) and _known(single):
        word = "more like" if own < _NEARER * single else None
        word = "less like" if own > _FURTHER * single else word
        like = f"{word} the person than" if word else "as like the person as"
        parts.append(
            f"the picture is {like} the best single frame ({own:.2f} against {single:.2f})"
        )
    told = ours.get("verification")
    if _known(told):
        if told >= 0.95:
            parts.append("and nearer to its own person than to nearly everybody else")
        else:
            parts.append(f"and nearer to its own person than to {_percent(told)} of the others")
    return "; ".join(parts) + "."


def _percent(value: float | None) -> str:
    return f"{100 * value:.0f} %" if _known(value) else "an unknown share"


def _known(value: float | None) -> bool:
    return value is not None and bool(np.isfinite(value))


# ----------------------------------------------------------------------------------- pictures
def _examples(plan: Plan, rows: Sequence[dict], factor: str, out: Path) -> list[dict]:
    """For each level the most ordinary clip that gave a picture: frame, result, truth."""
    from recon3d.scenes.scene import subject_key

    found = []
    for level in FACTORS[factor]:
        names = {cell.name for cell in plan.group(factor, level)}
        ours = [
            row
            for row in rows
            if row["method"] == "recon3d"
            and row["condition"] in names
            and (out / "cells" / row["case"] / "frontal.png").is_file()
        ]
        if not ours:
            continue
        ours.sort(key=lambda row: row.get("id_dist", np.inf))
        row = ours[len(ours) // 2]
        folder = out / "cells" / row["case"]
        person = subject_key(plan.scene(plan.cells()[0], row["person"]))
        found.append(
            {
                "name": level_name(factor, level),
                "frame": _thumbnail(folder / "frame.png", crisp=True),
                "frontal": _thumbnail(folder / "frontal.png"),
                "truth": _thumbnail(out / "people" / person / "frontal.png"),
            }
        )
    return found


def _thumbnail(path: Path, side: int = 150, crisp: bool = False) -> str:
    """An embedded JPEG; crisp keeps the pixels of a small picture visible."""
    import cv2

    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        return ""
    how = cv2.INTER_NEAREST if crisp and max(image.shape[:2]) < side else cv2.INTER_AREA
    scale = side / max(image.shape[:2])
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=how)
    return _embed(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes(), "jpeg")


# ------------------------------------------------------------------------------------ Markdown
def markdown_rows(summary: pandas.DataFrame) -> tuple[list[str], list[list[str]]]:
    """The conditions for a Markdown table: headings, and cells as text.

    Returns
    -------
    headings : list of str
    rows : list of list of str
        Every level for recon3d, then everything for recon3d and the baselines.
    """
    columns = (
        ("detected", "found", 2),
        ("landmark_nme", "landmarks %", 1),
        ("pose_deg", "pose deg", 1),
        ("metric_median", "metric mm", 2),
        ("nonmetric_median", "non-metric mm", 2),
        ("psnr", "PSNR dB", 2),
        ("ssim", "SSIM", 3),
        ("id_dist", "identity", 3),
        ("verification", "told apart", 2),
        ("generated_share", "guessed", 3),
        ("processor_s", "processor s", 1),
        ("peak_mib", "MiB", 0),
    )
    rows = []
    for of_all in (False, True):
        for row in summary.to_dict("records"):
            if (row["factor"] == "all") != of_all:
                continue
            if not of_all and row["method"] != "recon3d":
                continue
            if of_all:
                name = "**recon3d, all**" if row["method"] == "recon3d" else METHODS[row["method"]]
            else:
                name = f"{TITLES[row['factor']].lower()}: {level_name(row['factor'], row['level'])}"
            cells = [
                f"{row[key]:.{digits}f}" if _known(row.get(key)) else "-"
                for key, _, digits in columns
            ]
            picture = "-" if row["method"] == "mean" else str(int(row["image_failed"]))
            failed = f"{int(row['mesh_failed'])} / {picture}"
            rows.append([name, str(int(row["clips"])), failed, *cells])
    headings = ["", "clips", "failed mesh / picture", *(heading for _, heading, _ in columns)]
    return headings, rows
