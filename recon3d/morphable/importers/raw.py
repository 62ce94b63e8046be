"""What an adapter reads out of a family's files, before it is brought to our axes and units."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from recon3d.errors import ModelError


@dataclass(frozen=True)
class RawModel:
    """A linear model in its publisher's axes and units.

    Attributes
    ----------
    family, name : str
    mean : (V, 3) float64
    triangles : (F, 3) int64
    identity : (I, V, 3) float32
        Per unit of a coefficient with standard normal prior.
    expression : (E, V, 3) float32
    expression_names : tuple of str
    millimetres : float
        Length of the publisher's unit.
    axes : (3, 3) float
        Rotation from the publisher's axes to ours (x to the subject's left, y up, z out).
    eyes, inner : (V,) bool
        Vertices of eyeballs; of mouth bag, eye sockets, teeth and the like.
    uv : (U, 2) float64 or None, v up; triangles_uv : (F, 3) int64 or None
        As published; tiles beyond [0, 1] and overlaps are allowed.
    mirror : (V,) int64 or None
        As published; found from the shape where None.
    landmarks68 : (68,) int64 or None
        Published iBUG vertices, -1 where there is none.
    albedo : (V, 3) float or None
        Mean vertex colour, linear RGB; used to find landmarks.
    expression_range : str
        What a coefficient of 1 means, in words.
    """

    family: str
    name: str
    mean: np.ndarray
    triangles: np.ndarray
    identity: np.ndarray
    expression: np.ndarray
    expression_names: tuple[str, ...]
    millimetres: float
    licence: str
    origin: str
    citation: str
    axes: np.ndarray = field(default_factory=lambda: np.eye(3))
    eyes: np.ndarray | None = None
    inner: np.ndarray | None = None
    uv: np.ndarray | None = None
    triangles_uv: np.ndarray | None = None
    mirror: np.ndarray | None = None
    landmarks68: np.ndarray | None = None
    albedo: np.ndarray | None = None
    expression_range: str = "0 is neutral, 1 the full expression"


def expect(condition: bool, path: Path | str, wanted: str, found: str) -> None:
    """Raise a `ModelError` that says what was expected in a file and what was found.

    Raises
    ------
    ModelError
        If the condition does not hold.
    """
    if not condition:
        raise ModelError(f"{path}: expected {wanted}, found {found}")


def check_raw(raw: RawModel, path: Path | str) -> RawModel:
    """Check that the arrays belong together and are finite.

    Raises
    ------
    ModelError
    """
    V, F = len(raw.mean), len(raw.triangles)
    shapes = {
        "mean vertices": (raw.mean.shape, (V, 3)),
        "triangles": (raw.triangles.shape, (F, 3)),
        "identity modes": (raw.identity.shape[1:], (V, 3)),
        "expression modes": (raw.expression.shape[1:], (V, 3)),
        "expression names": ((len(raw.expression_names),), raw.expression.shape[:1]),
    }
    for name in ("eyes", "inner", "mirror"):
        if getattr(raw, name) is not None:
            shapes[name] = (getattr(raw, name).shape, (V,))
    if raw.uv is not None:
        shapes["texture triangles"] = (raw.triangles_uv.shape, (F, 3))
    for what, (shape, wanted) in shapes.items():
        expect(tuple(shape) == tuple(wanted), path, f"{what} of shape {wanted}", str(shape))
    expect(V >= 100 and F >= 100, path, "a mesh of a face", f"{V} vertices and {F} triangles")
    expect(len(raw.identity) > 0, path, "at least one identity mode", "none")
    for what in ("mean", "identity", "expression"):
        good = np.isfinite(getattr(raw, what)).all()
        expect(bool(good), path, f"finite numbers in the {what}", "NaN or infinity")
    check_triangles(raw.triangles, V, path)
    if raw.uv is not None:
        low, high = int(raw.triangles_uv.min()), int(raw.triangles_uv.max())
        U = len(raw.uv)
        expect(
            low >= 0 and high < U and bool(np.isfinite(raw.uv).all()),
            path,
            f"texture triangles of coordinates 0 to {U - 1}",
            f"{low} to {high}",
        )
    return raw


def check_triangles(triangles: np.ndarray, count: int, path: Path | str) -> None:
    """Check that triangles are (F, 3) numbers of vertices.

    Raises
    ------
    ModelError
    """
    good = triangles.ndim == 2 and triangles.shape[1] == 3 and len(triangles) > 0
    expect(good, path, "triangles (F, 3)", str(triangles.shape))
    low, high = int(triangles.min()), int(triangles.max())
    wanted = f"triangles of vertices 0 to {count - 1}"
    expect(low >= 0 and high < count, path, wanted, f"{low} to {high}")


def arkit_name(name: str) -> str:
    """``mouthSmile_L`` as ARKit writes it: ``mouthSmileLeft``.

    Examples
    --------
    >>> arkit_name("eyeBlink_R"), arkit_name("jawOpen")
    ('eyeBlinkRight', 'jawOpen')
    """
    for suffix, word in (("_L", "Left"), ("_R", "Right")):
        if name.endswith(suffix):
            return name[: -len(suffix)] + word
    return name


def triangulate(polygons: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Fans of polygons.

    Parameters
    ----------
    polygons : list of lists of int
        Corners of each polygon.

    Returns
    -------
    triangles : (F, 3) int64
    polygon : (F,) int64, which polygon each came from
    """
    triangles, polygon = [], []
    for i, corners in enumerate(polygons):
        for k in range(1, len(corners) - 1):
            triangles.append((corners[0], corners[k], corners[k + 1]))
            polygon.append(i)
    return np.array(triangles, np.int64), np.array(polygon, np.int64)


def compact(triangles: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Renumber the used vertices.

    Returns
    -------
    kept : (V',) int64, old numbers
    triangles : like the argument, new numbers
    """
    kept = np.unique(triangles)
    number = np.full(count, -1, np.int64)
    number[kept] = np.arange(len(kept))
    return kept, number[triangles]


MAX_SIGNED_MODES = 60
"""Expression components that are kept, the strongest first."""


def signed_fields(modes: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Principal components of expression as fields with coefficients from 0 to 1.

    A component swings both ways; a blendshape does not. Each becomes two fields, one a direction,
    whose coefficient 1 is two standard deviations. The strongest `MAX_SIGNED_MODES` are kept.

    Parameters
    ----------
    modes : (E, V, 3)
        Per standard deviation.

    Returns
    -------
    fields : (2 E', V, 3) float32
    names : tuple of str, ``expression_000_plus``, ``expression_000_minus`` ... after the
        component's number in the source
    """
    strength = np.sqrt((modes.astype(np.float64) ** 2).sum((1, 2)))
    chosen = np.sort(np.argsort(-strength, kind="stable")[:MAX_SIGNED_MODES])
    fields = np.stack([2.0 * modes[chosen], -2.0 * modes[chosen]], 1)
    names = [f"expression_{i:03d}_{side}" for i in chosen for side in ("plus", "minus")]
    return fields.reshape(-1, *modes.shape[1:]).astype(np.float32), tuple(names)
