"""Fields, and frames that are missing or shown twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction

import cv2
import numpy as np

from recon3d.restoration.common import StepReport, enter, leave, luma
from recon3d.restoration.noise import optical_flow, warp_to

COMB_LIMIT = 1.2


def combing(image: np.ndarray) -> float:
    """Vertical contrast between neighbouring lines over that between next but one.

    Where two fields show different moments, lines differ more from their neighbours than from
    the next line of their own field. About 0.5 to 0.9 in a progressive picture.

    Parameters
    ----------
    image : (H, W, 3) uint8, or float in [0, 1]

    Returns
    -------
    float
    """
    y = luma(enter(image))
    if y.shape[0] < 8:
        return 0.0
    near = np.abs(np.diff(y, axis=0))[:-1]
    far = np.abs(y[2:] - y[:-2])
    # Judged where something happens; motion shows in parts of a picture only.
    busy = near > max(float(np.quantile(near, 0.9)), 2 / 255)
    if not busy.any():
        return 0.0
    return float(near[busy].mean() / (far[busy].mean() + 0.5 / 255))


def deinterlace(image: np.ndarray, *, keep: str = "top") -> tuple[np.ndarray, StepReport]:
    """Rebuild one field's missing lines from its own, where a picture shows combs.

    Parameters
    ----------
    image : (H, W, 3) uint8, or float in [0, 1], sRGB
    keep : {"top", "bottom"}
        The field whose moment is kept.

    Returns
    -------
    image, StepReport

    References
    ----------
    Doyle and Looymans, Progressive scan conversion using edge information, Signal Processing of
    HDTV II, 1990.
    """
    u = enter(image)
    ratio = combing(u)
    measured = {"combing": ratio}
    if ratio < COMB_LIMIT or u.shape[0] < 8:
        belief = f"neighbouring lines differ {ratio:.2f} times as much as next but one: no fields"
        return image, StepReport(step="deinterlace", belief=belief, acted=False, measured=measured)
    first = 0 if keep == "top" else 1
    result = u.copy()
    lines = np.arange(1 - first, u.shape[0], 2)
    result[lines] = _between_lines(u[first::2], lines, first)
    return leave(result, image), StepReport(
        step="deinterlace",
        belief=f"combs: neighbouring lines differ {ratio:.2f} times as much as next but one",
        acted=True,
        measured=measured,
        applied={"kept": keep},
    )


def deinterlace_frames(
    frames: Iterable[np.ndarray], *, top_first: bool = True
) -> Iterator[np.ndarray]:
    """Deinterlace a clip with FFmpeg's motion-adaptive bwdif filter, one frame for one.

    Parameters
    ----------
    frames : iterable of (H, W, 3) uint8 sRGB, one size
    top_first : bool

    Yields
    ------
    (H, W, 3) uint8 sRGB
    """
    import av

    graph = source = sink = None

    def drain():
        while True:
            try:
                yield sink.pull().to_ndarray(format="rgb24")
            except (av.error.BlockingIOError, av.error.EOFError):
                return

    for i, frame in enumerate(frames):
        if graph is None:
            graph = av.filter.Graph()
            height, width = frame.shape[:2]
            source = graph.add_buffer(
                width=width, height=height, format="gbrp", time_base=Fraction(1, 25)
            )
            parity = "tff" if top_first else "bff"
            bwdif = graph.add("bwdif", f"mode=send_frame:parity={parity}:deint=all")
            sink = graph.add("buffersink")
            source.link_to(bwdif)
            bwdif.link_to(sink)
            graph.configure()
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture = picture.reformat(format="gbrp")
        picture.pts, picture.time_base = i, Fraction(1, 25)
        source.push(picture)
        yield from drain()
    if graph is not None:
        source.push(None)
        yield from drain()


def interpolate(before: np.ndarray, after: np.ndarray, moment: float = 0.5) -> np.ndarray:
    """The picture between two others, along their optical flow.

    Parameters
    ----------
    before, after : (H, W, 3) uint8 or float in [0, 1]
    moment : float in [0, 1]

    Returns
    -------
    (H, W, 3), type of `before`
    """
    a, b = enter(before), enter(after)
    grey = [(luma(x) * 255).astype(np.uint8) for x in (a, b)]
    forward, backward = optical_flow(grey[0], grey[1]), optical_flow(grey[1], grey[0])
    # Flow at the new moment, to first order, from either side.
    from_a = warp_to(a, -moment * forward)
    from_b = warp_to(b, -(1 - moment) * backward)
    mixed = (1 - moment) * from_a + moment * from_b
    # Where the two disagree the flow is wrong; cross-fading is the lesser evil.
    apart = cv2.blur(np.abs(from_a - from_b).mean(-1), (5, 5))
    trust = np.exp(-((apart / 0.08) ** 2))[..., None]
    return leave(trust * mixed + (1 - trust) * ((1 - moment) * a + moment * b), before)


def repair_repeats(
    frames: Iterable[np.ndarray],
) -> Iterator[tuple[np.ndarray, StepReport]]:
    """Replace frames that repeat the one before by what lies between their neighbours.

    Runs of up to four repeats are repaired where the clip moves before or after; a scene that
    stands still, and a repeat at a cut or at the end, stay.

    Parameters
    ----------
    frames : iterable of (H, W, 3) uint8 sRGB, one size

    Yields
    ------
    image, StepReport
    """
    last = None
    held: list[np.ndarray] = []
    usual: list[float] = []

    def keep(frame, change):
        return frame, StepReport(
            step="repair_repeats",
            belief=f"differs from the frame before by {change:.1f} grey levels",
            acted=False,
            measured={"change_255": change},
        )

    for frame in frames:
        if last is None:
            last = frame
            yield keep(frame, 255.0)
            continue
        change = _change(last, frame)
        normal = float(np.median(usual)) if usual else 0.0
        # Codecs make a repeated frame differ a little.
        repeated = change < 0.12 * normal if usual else change < 0.05
        if repeated and len(held) < 4:
            held.append(frame)
            continue
        for i, old in enumerate(held):
            moment = (i + 1) / (len(held) + 1)
            if normal > 0 and change < 2.5 * normal * (len(held) + 1) and not repeated:
                yield (
                    interpolate(last, frame, moment),
                    StepReport(
                        step="repair_repeats",
                        belief="the same picture as the frame before, in a clip that moves",
                        acted=True,
                        measured={"usual_change_255": normal},
                        applied={"moment": moment},
                    ),
                )
            else:
                yield keep(old, 0.0)
        held.clear()
        usual = (usual + [change])[-25:] if change > 0.05 else usual
        last = frame
        yield keep(frame, change)
    for old in held:
        yield keep(old, 0.0)


def _change(a: np.ndarray, b: np.ndarray) -> float:
    return float(cv2.absdiff(a, b).mean())


def _between_lines(field: np.ndarray, lines: np.ndarray, first: int) -> np.ndarray:
    """Missing lines from the lines of a field, along the edges that cross them.

    Parameters
    ----------
    field : (h, W, 3) float32
    lines : (n,) int, lines of the whole picture that are missing
    first : int, the whole picture's line on which the field begins

    Returns
    -------
    (n, W, 3) float32
    """
    above = np.clip((lines - 1 - first) // 2, 0, len(field) - 1)
    below = np.clip((lines + 1 - first) // 2, 0, len(field) - 1)
    a, b = field[above], field[below]
    best, lowest = 0.5 * (a + b), None
    for shift in (0, -1, 1, -2, 2):
        left, right = np.roll(a, shift, 1), np.roll(b, -shift, 1)
        cost = cv2.blur(np.abs(left - right).mean(-1), (5, 1))
        # Slanted only where it is plainly better: a wrong slant is seen at once.
        cost = cost + (0.0 if shift == 0 else 0.01 + 0.006 * abs(shift))
        mean = 0.5 * (left + right)
        if lowest is None:
            best, lowest = mean, cost
        else:
            better = cost < lowest
            best = np.where(better[..., None], mean, best)
            lowest = np.minimum(cost, lowest)
    return best
