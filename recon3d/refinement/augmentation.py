"""Pairs made unlike the ones at hand: the photos are few, and a network that remembers their faces
draws them.

A crop is a pair's inputs, its target and its landmarks; what is done to one is done to all three,
but for the noise, which the target does not have.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from recon3d.morphable.topology import LIPS, NOSE_BASE, NOSTRILS
from recon3d.refinement.conditioning import CHANNELS, MOUTH

_PARTS = (
    # What stays together: (landmarks of one side), (of the other side).
    ((33, 133), (362, 263)),  # eyes, with their brows
    (NOSE_BASE,),
    (MOUTH,),
    ((152,),),  # chin
    ((50, 205), (280, 425)),  # cheeks
    ((10,),),  # forehead
    ((234, 127), (454, 356)),  # sides of the face, hair
)


_BEARD = (
    # From ear to ear along the jaw, and back over the cheeks and under the nose.
    *(132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361),
    *(433, 427, 436, 391, 164, 165, 216, 207, 213),
)
_BARE = LIPS[0]
"""Where no beard grows inside of that."""
_SUPPORT = CHANNELS["picture"] + CHANNELS["reference"]
"""Number of the input channel that says how far a pixel was observed."""
_BEARDED = 0.25
"""Share of the crops with marks that get a beard."""


def vary_tones(x: torch.Tensor, y: torch.Tensor, rng: np.random.Generator):
    """The same change of brightness, contrast and colour for picture, reference and target."""
    gain = float(np.exp(rng.normal(0, 0.12))) * np.exp(rng.normal(0, 0.03, 3))
    offset = rng.normal(0, 0.05)
    gain = torch.from_numpy(gain.astype(np.float32)).view(3, 1, 1)
    x = x.clone()
    for part in (slice(0, 3), slice(3, 6)):
        x[part] = (x[part] * gain + offset).clamp(-1, 1)
    return x, (y * gain + offset).clamp(-1, 1)


def warp(x, y, place, outline, amount: float, rng: np.random.Generator):
    """The same smooth warp of inputs, target and points.

    People differ by more than the photos at hand show, and proportions that never go together in
    photos do in somebody. What the network may not learn is to pull a face towards them.

    Parameters
    ----------
    x, y : (C, S, S)
    place : (M, 2), outline : (478, 2) px
    amount : float
        Standard deviation of the displacement, px.
    """
    side = x.shape[-1]
    coarse = rng.normal(0, amount, (6, 6, 2)).astype(np.float32)
    field = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    # Wider or narrower as a whole, too.
    stretch = rng.normal(0, 0.008 * amount, 2)
    at = np.arange(side, dtype=np.float32) + 0.5
    field += (np.stack(np.meshgrid(at, at), -1) - side / 2) * stretch.astype(np.float32)
    grid = 2 * (np.stack(np.meshgrid(at, at), -1) + field) / side - 1
    both = torch.cat([x, y])[None]
    grid = torch.from_numpy(grid.astype(np.float32))[None]
    moved = F.grid_sample(both, grid, "bilinear", "border", align_corners=False)[0]

    def follow(points):
        # What lies at q is drawn where p + field(p) = q.
        found = points.copy()
        for _ in range(3):
            cell = np.clip(np.nan_to_num(found, nan=0.0), 0, side - 1).astype(int)
            found = points - field[cell[:, 1], cell[:, 0]]
        return found

    return moved[: len(x)], moved[len(x) :], follow(place), follow(outline)


def morph(a: tuple, b: tuple, share: float) -> tuple:
    """A pair between two pairs: both are warped to the landmarks between theirs, and blended [1]_.

    Parameters
    ----------
    a, b : (inputs (C, S, S), target (3, S, S), points (478, 2) px)
    share : float
        Of `b`, in shape and in colour.

    Returns
    -------
    The same of somebody between the two; `a` unchanged if a landmark is missing.

    References
    ----------
    .. [1] T. Beier, S. Neely, Feature-based image metamorphosis, SIGGRAPH 1992.
    """
    between = _between(a, b, share)
    if between is None:
        return a
    moved_a, moved_b, points = between
    mixed = torch.lerp(moved_a, moved_b, share)
    return mixed[: len(a[0])], mixed[len(a[0]) :], points


def mosaic(a: tuple, b: tuple, rng: np.random.Generator) -> tuple:
    """A pair of somebody who has some features of one person and the others of another.

    Blends of whole faces lie nearer to the mean than either; here every feature stays as sharp and
    as particular as it was, but not the company that it keeps.

    Parameters
    ----------
    a, b : (inputs (C, S, S), target (3, S, S), points (478, 2) px)
    rng : Generator
        Draws the shape between the two and which parts are whose.

    Returns
    -------
    The same of that somebody, in the tones of `a`; `a` unchanged if a landmark is missing.
    """
    between = _between(a, b, float(rng.uniform(0, 1)))
    whose = rng.random(len(_PARTS)) < 0.5
    softness = float(rng.uniform(8.0, 14.0))
    if between is None:
        return a
    moved_a, moved_b, points = between
    n, side = len(a[0]), moved_a.shape[-1]
    moved_b = _in_tones_of(moved_a, moved_b, n)
    at = (np.arange(side) + 0.5) * (256.0 / side)
    x, y = np.meshgrid(at, at)
    nearest = np.stack(
        [
            np.min(
                [(x - u) ** 2 + (y - v) ** 2 for u, v in _middles(points * (256.0 / side), part)],
                axis=0,
            )
            for part in _PARTS
        ]
    )
    # Squared distances over four times the softness and the spacing of features: borders that lie
    # halfway between two middles and are some `softness` px of 256 wide.
    weight = np.exp(-(nearest - nearest.min(0)) / (4 * softness * 12.0))
    share = (weight * whose[:, None, None]).sum(0) / weight.sum(0)
    share = torch.from_numpy(share.astype(np.float32))
    mixed = torch.lerp(moved_a, moved_b, share[None])
    return mixed[:n], mixed[n:], points


def _middles(points: np.ndarray, part: tuple) -> list[np.ndarray]:
    return [points[list(side)].mean(0) for side in part]


def _in_tones_of(a: torch.Tensor, b: torch.Tensor, n_inputs: int) -> torch.Tensor:
    """`b` with one gain and offset a channel, so that its picture of the face has the mean and the
    spread of `a`; the same for its reference and its target."""
    b = b.clone()
    masks = [((x[n_inputs - 1] + 1) / 2).clamp(0, 1) for x in (a, b)]
    for c in range(3):
        (mean_a, spread_a), (mean_b, spread_b) = (
            _mean_and_spread(x[c], mask) for x, mask in zip((a, b), masks)
        )
        gain = float(np.clip(spread_a / max(spread_b, 1e-3), 0.6, 1.6))
        for channel in (c, 3 + c, n_inputs + c):
            b[channel] = ((b[channel] - mean_b) * gain + mean_a).clamp(-1, 1)
    return b


def _mean_and_spread(x: torch.Tensor, weight: torch.Tensor) -> tuple[float, float]:
    total = float(weight.sum()) + 1e-6
    mean = float((x * weight).sum()) / total
    return mean, (float(((x - mean) ** 2 * weight).sum()) / total) ** 0.5


def _between(a: tuple, b: tuple, share: float):
    """Both pairs warped to the landmarks between theirs, inputs and target stacked, and those
    landmarks; None if one is missing."""
    from scipy.interpolate import LinearNDInterpolator

    (x_a, y_a, points_a), (x_b, y_b, points_b) = a, b
    if not (np.isfinite(points_a).all() and np.isfinite(points_b).all()):
        return None
    side = x_a.shape[-1]
    # The frame stays where it is, and everything between it and the face is stretched.
    frame = (-0.1, 0.5, 1.1)
    edge = np.array([(i, j) for i in frame for j in frame if (i, j) != (0.5, 0.5)])
    points = (1 - share) * points_a + share * points_b
    corners = [np.vstack([p, side * edge]) for p in (points, points_a, points_b)]
    whence = LinearNDInterpolator(corners[0], np.hstack(corners[1:]))
    at = np.arange(2.0, side, 4.0)
    field = whence(np.stack(np.meshgrid(at, at), -1)).astype(np.float32)
    field = cv2.resize(field, (side, side), interpolation=cv2.INTER_LINEAR)
    moved = []
    for x, y, where in ((x_a, y_a, field[..., :2]), (x_b, y_b, field[..., 2:])):
        grid = torch.from_numpy(2 * where / side - 1)[None]
        both = torch.cat([x, y])[None]
        moved.append(F.grid_sample(both, grid, "bilinear", "border", align_corners=False)[0])
    return moved[0], moved[1], points


def disturb(x: torch.Tensor, amount: float, rng: np.random.Generator) -> torch.Tensor:
    """Inputs with errors of their own in the picture: somewhat blurred, with noise as wide as what
    compression and fusion leave, in luma and, wider, in chroma.

    Parameters
    ----------
    x : (C, S, S) in [-1, 1]
    amount : float
        Deviation of the noise at most, of 255.
    rng : Generator
    """
    side = x.shape[-1]
    picture = x[:3].permute(1, 2, 0).numpy().copy()
    if rng.random() < 0.4:
        picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.4, 1.4)))
    for weights, wide, most in (
        (np.ones(3), (0.8, 3.0), amount),
        (rng.normal(0, 1, 3), (3.0, 8.0), amount),
    ):
        noise = cv2.GaussianBlur(
            rng.normal(0, 1, (side, side)).astype(np.float32), (0, 0), float(rng.uniform(*wide))
        )
        strength = float(rng.uniform(0, most)) / 127.5 / max(float(noise.std()), 1e-6)
        picture += strength * noise[..., None] * weights.astype(np.float32)
    x = x.clone()
    x[:3] = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1).clamp(-1, 1)
    return x


def vary_skin(
    x: torch.Tensor,
    y: torch.Tensor,
    outline: np.ndarray,
    blur: float,
    amount: float,
    rng: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Marks on the skin: patches, lines, and now and then a beard.

    Faces that were generated are smoother and more even than people are, and a network that has
    seen no others takes what is uneven for a fault. What the target has is in the picture, too, as
    coarsely as the picture shows things.

    Parameters
    ----------
    x : (C, S, S) in [-1, 1]
        Inputs: picture and frames first, the face's mask last.
    y : (3, S, S)
    outline : (478, 2) px
    blur : float
        Standard deviation of what the picture is blurred by, px.
    amount : float
        Standard deviation of the logarithm of a patch's brightness.
    rng : Generator
    """
    side = x.shape[-1]
    field = _patches(side, outline, amount, rng)
    if rng.random() < _BEARDED and np.isfinite(outline[list(_BEARD)]).all():
        field += _beard(side, outline, rng)
    face = ((x[-1] + 1) / 2).clamp(0, 1).numpy()
    field *= face[..., None]
    return _shaded_alike(x, y, field, blur)


def vary_nostrils(
    x: torch.Tensor, y: torch.Tensor, outline: np.ndarray, blur: float, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Darker nostrils, in the answer and, as coarsely as it shows things, in the picture.

    Portraits are lit so that nostrils hardly show, and small pictures of them show none: where a
    network has seen few, it draws none, and a face's nose is what tells most of whose face it is.
    A camera that looks down does not see them, though every face has some: the picture shows them
    as far as it has support there.

    Parameters
    ----------
    x : (C, S, S) in [-1, 1]
        Inputs: picture and frames first, then the evidence, support first.
    y : (3, S, S)
    outline : (478, 2) px
    blur : float
        Standard deviation of what the picture is blurred by, px.
    rng : Generator
    """
    # The fit is off by a little, and so are the answer's nostrils beside its landmarks.
    shift, dark = rng.normal(0, 1.0, 2), float(rng.uniform(0.4, 1.4))
    rings = [outline[list(ring)] for ring in NOSTRILS]
    if not np.isfinite(rings).all():
        return x, y
    side, finer = x.shape[-1], 4
    mask = np.zeros((finer * side, finer * side), np.uint8)
    for ring in rings:
        hull = cv2.convexHull(np.round(finer * (ring + shift)).astype(np.int32))
        cv2.fillConvexPoly(mask, hull, 255)
    mask = cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    field = np.repeat(-dark * cv2.GaussianBlur(mask, (0, 0), 0.7)[..., None], 3, 2)
    return _shaded_alike(x, y, field, blur, ((x[_SUPPORT] + 1) / 2).numpy())


def _shaded_alike(
    x: torch.Tensor,
    y: torch.Tensor,
    field: np.ndarray,
    blur: float,
    seen: np.ndarray | None = None,
):
    """Picture and frames of `x`, and `y`, brighter by a log gain (S, S, 3), coarser in `x` and
    less where only a part of it was `seen`, (S, S) in [0, 1]."""
    coarse = cv2.GaussianBlur(field, (0, 0), max(blur, 0.3))
    if seen is not None:
        coarse = coarse * seen[..., None]

    def shaded(picture: torch.Tensor, log_gain: np.ndarray) -> torch.Tensor:
        gain = torch.from_numpy(np.exp(log_gain)).permute(2, 0, 1)
        return ((picture + 1) * gain - 1).clamp(-1, 1)

    x = x.clone()
    for part in (slice(0, 3), slice(3, 6)):
        x[part] = shaded(x[part], coarse)
    return x, shaded(y, field)


def _patches(side: int, outline: np.ndarray, amount: float, rng: np.random.Generator):
    """(S, S, 3) log gain of spots and lines of any size, about the face."""
    points = outline[np.isfinite(outline).all(1)]
    low, high = (points.min(0), points.max(0)) if len(points) else ([0, 0], [side, side])
    at = np.arange(side, dtype=np.float32) + 0.5
    across, down = np.meshgrid(at, at)
    field = np.zeros((side, side, 3), np.float32)
    for _ in range(rng.poisson(4)):
        u, v = rng.uniform(low, high)
        wide = float(np.exp(rng.uniform(np.log(1.5), np.log(22.0))))
        # One in three is a line: a crease, a scar, the edge of a shadow that stays.
        long = wide * (float(rng.uniform(3, 8)) if rng.random() < 0.33 else rng.uniform(1, 1.8))
        wide, long = (wide, long) if long < 30 else (wide * 30 / long, 30.0)
        angle = rng.uniform(0, np.pi)
        along = (across - u) * np.cos(angle) + (down - v) * np.sin(angle)
        beside = (down - v) * np.cos(angle) - (across - u) * np.sin(angle)
        spot = np.exp(-0.5 * ((along / long) ** 2 + (beside / wide) ** 2)).astype(np.float32)
        tint = rng.normal(0, amount) * (1 + rng.normal(0, 0.25, 3))
        field += spot[..., None] * tint.astype(np.float32)
    return field


def _beard(side: int, outline: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(S, S, 3) log gain of stubble or a beard, a goatee or a moustache."""

    def area(numbers) -> np.ndarray:
        mask = np.zeros((side, side), np.uint8)
        cv2.fillPoly(mask, [np.round(outline[list(numbers)]).astype(np.int32)], 255, cv2.LINE_AA)
        return mask.astype(np.float32) / 255

    width = float(np.linalg.norm(outline[61] - outline[291]))
    soft = max(0.12 * width * float(rng.uniform(0.5, 1.5)), 0.5)
    shape = cv2.GaussianBlur(area(_BEARD), (0, 0), soft)
    kind = rng.random()
    if kind < 0.4:
        # What is left near the mouth: a goatee, or above it alone: a moustache.
        mouth = outline[[61, 291]].mean(0)
        at = np.arange(side, dtype=np.float32) + 0.5
        across, down = np.meshgrid(at - mouth[0], at - mouth[1])
        near = np.exp(-0.5 * np.maximum(np.abs(across) / (0.55 * width) - 0.5, 0) ** 2 * 8)
        shape = shape * (near if kind < 0.25 else near * (down < 0))
    shape = shape * (1 - cv2.GaussianBlur(area(_BARE), (0, 0), 1.0))
    hairs = cv2.GaussianBlur(
        rng.normal(0, 1, (side, side)).astype(np.float32), (0, 0), sigmaX=0.7, sigmaY=1.2
    )
    uneven = cv2.GaussianBlur(
        rng.normal(0, 1, (side, side)).astype(np.float32), (0, 0), 0.15 * width
    )
    growth = 1 + 0.25 * hairs / max(float(hairs.std()), 1e-6)
    growth = growth + 0.25 * uneven / max(float(uneven.std()), 1e-6)
    dark = -float(rng.uniform(0.12, 0.9)) * (1 + rng.normal(0, 0.12, 3))
    return (shape * np.maximum(growth, 0))[..., None] * dark.astype(np.float32)
