"""ARKit-named expression fields: what the anatomy asks for, and what photos teach.

Each field is given as displacements of a few groups of landmarks (in mm, the subject's right side;
the left is its mirror image) and spread smoothly over the surface. Where the photos show an
expression often enough, the landmarks' regression on the blendshape scores replaces the design.
"""

from __future__ import annotations

import numpy as np

from recon3d.geometry import so3_exp
from recon3d.morphable.fields import FieldSpreader, reflect
from recon3d.morphable.head import eyeball
from recon3d.morphable.topology import (
    INNER_LIP_LOWER,
    INNER_LIP_UPPER,
    control_mesh,
)

ARKIT = (
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
    "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight",
    "eyeLookDownLeft", "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft",
    "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft", "eyeSquintRight",
    "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose",
    "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel",
    "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight",
    "mouthPucker", "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower",
    "mouthShrugUpper", "mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft",
    "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight", "noseSneerLeft",
    "noseSneerRight", "tongueOut",
)  # fmt: skip

UPPER_LID = (246, 161, 160, 159, 158, 157, 173)
LOWER_LID = (7, 163, 144, 145, 153, 154, 155)
LID_CORNERS = (33, 133)
LID_FOLD = (247, 30, 29, 27, 28, 56, 190)
BELOW_LID = (25, 110, 24, 23, 22, 26, 112)
BAG = (228, 229, 230, 231, 232)
BROW_INNER, BROW_MIDDLE, BROW_OUTER = (107, 55), (66, 65, 105, 52), (63, 53, 70, 46)
UPPER_LIP_RED = ((185, 40, 39, 37, 0), (184, 74, 73, 72, 11), (183, 42, 41, 38, 12))
LOWER_LIP_RED = ((146, 91, 181, 84, 17), (77, 90, 180, 85, 16), (96, 89, 179, 86, 15))
CORNER = (61, 76, 62, 78)
JAW_AXIS = np.array([0.0, -14.0, -82.0])
"""Condyles relative to the middle of the outer lid corners, mm (about 13 mm before tragion)."""


class _Design:
    """Collects displacements at control vertices and spreads them."""

    def __init__(self, vertices: np.ndarray, spreader: FieldSpreader):
        self.vertices, self.spreader, self.mesh = vertices, spreader, control_mesh()
        self.points: dict[int, np.ndarray] = {}

    def move(self, points, vector, taper=None) -> _Design:
        for k, p in enumerate(points):
            factor = 1.0 if taper is None else taper[k]
            self.points[int(p)] = np.asarray(vector, np.float64) * factor
        return self

    def hold(self, points) -> _Design:
        for p in points:
            self.points.setdefault(int(p), np.zeros(3))
        return self

    def both(self) -> _Design:
        for p, v in list(self.points.items()):
            self.points.setdefault(int(self.mesh.mirror[p]), v * [-1.0, 1.0, 1.0])
        return self

    def spread(self) -> np.ndarray:
        index = np.array(sorted(self.points))
        return self.spreader.spread(index, np.array([self.points[i] for i in index]))


def designed_fields(vertices: np.ndarray) -> dict[str, np.ndarray]:
    """All 52 fields by design.

    Parameters
    ----------
    vertices : (V, 3) mm, the mean control mesh, origin between the outer lid corners

    Returns
    -------
    dict of name to (V, 3) mm per unit
    """
    mesh = control_mesh()
    spreader = FieldSpreader(vertices, mesh.triangles, stiffness=0.004)
    P = vertices
    mirror = mesh.mirror

    def new() -> _Design:
        return _Design(P, spreader)

    eyes = _far_ring(P, P[[33, 133]].mean(0), 34.0)
    mouth = _far_ring(P, P[[13, 14]].mean(0), 62.0)
    brow = _far_ring(P, P[[105]].mean(0), 48.0)
    everything_below_eyes = [i for i in range(len(P)) if P[i, 1] < -18]
    everything_above_mouth = [i for i in range(len(P)) if P[i, 1] > -22]
    not_mouth = sorted(set(mouth) | set(everything_above_mouth))
    bell = np.array([0.25, 0.6, 0.9, 1.0, 0.9, 0.6, 0.25])
    right: dict[str, np.ndarray] = {}
    whole: dict[str, np.ndarray] = {}

    # Brows: frontalis, corrugator.
    right["browDown"] = (
        new()
        .move(BROW_INNER, [2.6, -5.0, 1.0])
        .move(BROW_MIDDLE, [1.2, -4.0, 0.6])
        .move(BROW_OUTER, [0.2, -1.4, 0])
        .move(LID_FOLD, [0.2, -1.6, 0.2], bell)
        .hold(UPPER_LID)
        .hold(brow)
        .hold(everything_below_eyes)
        .spread()
    )
    inner = (
        new()
        .move(BROW_INNER, [0, 7.0, 0.2])
        .move(BROW_MIDDLE, [0, 4.2, 0])
        .move(BROW_OUTER, [0, 0.8, 0])
        .both()
    )
    inner.hold(UPPER_LID).hold(mirror[list(UPPER_LID)]).hold([168, 6, 197])
    inner.hold(set(brow) & set(mirror[brow])).hold(everything_below_eyes)
    whole["browInnerUp"] = inner.spread()
    right["browOuterUp"] = (
        new()
        .move(BROW_OUTER, [0, 5.6, 0])
        .move(BROW_MIDDLE, [0, 4.4, 0])
        .move(BROW_INNER, [0, 1.0, 0])
        .hold(UPPER_LID)
        .hold(brow)
        .hold(everything_below_eyes)
        .spread()
    )

    # Lids and gaze.
    centre, _ = eyeball(P[:478])
    x_low = P[list(LID_CORNERS[:1] + LOWER_LID + LID_CORNERS[1:])]
    order = np.argsort(x_low[:, 0])

    def low_line(x):
        return np.stack([np.interp(x, x_low[order, 0], x_low[order, k]) for k in range(3)], -1)

    blink = new()
    for p in UPPER_LID:
        target = low_line(P[p, 0])
        target[2] = max(target[2], P[p, 2] * 0.3 + target[2] * 0.7)
        blink.move([p], (target - P[p]) * 0.9 + [0, 0.25, 0])
    for k, p in enumerate(LOWER_LID):
        blink.move([p], [0, 0.5 * bell[k], 0.1])
    blink.move(LID_FOLD, [0, -2.2, 0.6], bell).hold(LID_CORNERS).hold(eyes)
    middle = mesh.eye_middle[0]
    blink.hold([])
    right["eyeBlink"] = _patch_follows(blink.spread(), P)
    right["eyeWide"] = _patch_follows(
        new()
        .move(UPPER_LID, [0, 1.9, -0.3], bell)
        .move(LOWER_LID, [0, -0.7, 0], bell)
        .move(LID_FOLD, [0, 1.0, 0], bell)
        .hold(LID_CORNERS)
        .hold(eyes)
        .spread(),
        P,
    )
    right["eyeSquint"] = _patch_follows(
        new()
        .move(LOWER_LID, [0, 2.2, 0.2], bell)
        .move(BELOW_LID, [0, 2.2, 0.6], bell)
        .move(UPPER_LID, [0, -1.0, 0.1], bell)
        .move(BAG, [0, 1.6, 0.6])
        .hold(LID_CORNERS)
        .hold(eyes)
        .spread(),
        P,
    )
    iris = [468, 469, 470, 471, 472]
    for name, angle, lid_up, lid_low in (
        ("eyeLookDown", [30, 0], -4.4, -1.3),
        ("eyeLookUp", [-25, 0], 1.7, 0.7),
        ("eyeLookIn", [0, 32], 0.0, 0.0),
        ("eyeLookOut", [0, -32], 0.0, 0.0),
    ):
        R = so3_exp(np.radians([angle[0], angle[1], 0.0]))
        gaze = new()
        for p in [*iris, *middle]:
            moved = (P[p] - centre) @ R.T + centre - P[p]
            # The white is taken up by the lids' edge: it slides along rather than under.
            gaze.points[int(p)] = moved * (1.0 if p in iris else 0.45)
        gaze.move(UPPER_LID, [0, lid_up, 0.2 if lid_up < 0 else 0.0], bell)
        gaze.move(LOWER_LID, [0, lid_low, 0], bell)
        gaze.move(LID_FOLD, [0, 0.3 * lid_up, 0], bell).hold(LID_CORNERS).hold(eyes)
        right[name] = gaze.spread()

    # Jaw: a hinge through the condyles, and shifts.
    jaw = _jaw_weight(P, spreader)
    axis = P[[33, 263]].mean(0) + JAW_AXIS
    opened = (P - axis) @ so3_exp(np.radians([16.0, 0, 0])).T + axis - P
    opened += [0, 0, 2.0]
    whole["jawOpen"] = opened * jaw[:, None]
    # The mouth's floor gives way: the line inside lies farther back as the lips part.
    whole["jawOpen"][mesh.mouth_middle, 2] -= 9.0 * np.sin(np.pi * (np.arange(9) + 1) / 10)
    whole["jawForward"] = jaw[:, None] * [0, -0.8, 5.0]
    whole["jawRight"] = jaw[:, None] * [-7.0, 0, 0]
    whole["jawLeft"] = jaw[:, None] * [7.0, 0, 0]

    # Mouth. Taper along a row of five lip points, corner to middle.
    row = np.array([0.45, 0.7, 0.9, 1.0, 0.55])
    jaw_line = [152, 377, 148, 176, 150, 136, 172, 58, 400, 379, 365, 397, 288]
    cheek = [207, 187, 205, 206, 216, 212]

    def lips(design: _Design, upper, lower, rows=(1.0, 1.0, 1.0), taper=row) -> _Design:
        for factor, up, low in zip(rows, UPPER_LIP_RED, LOWER_LIP_RED, strict=True):
            if upper is not None:
                design.move(up, np.asarray(upper) * factor, taper)
            if lower is not None:
                design.move(low, np.asarray(lower) * factor, taper)
        if upper is not None:
            design.move(INNER_LIP_UPPER[:5], upper, taper)
        if lower is not None:
            design.move(INNER_LIP_LOWER[:5], lower, taper)
        return design

    away = np.array([0.95, 0.8, 0.55, 0.3, 0.08])

    smile = lips(new(), [-5.2, 4.6, -3.4], [-5.2, 4.0, -3.4], taper=away)
    smile.move(CORNER, [-7.0, 7.2, -4.2]).move([212, 57, 43], [-4.6, 4.2, -2.4])
    smile.move([207, 216, 206], [-2.6, 4.2, 1.6]).move([205, 50, 187], [-1.4, 4.0, 2.0])
    smile.move([101, 118, 117], [-0.3, 1.6, 1.0]).move([129, 49, 48], [-1.2, 1.0, -0.2])
    right["mouthSmile"] = smile.hold(everything_above_eyes(P)).hold([152, 4, 1, 168]).spread()
    frown = lips(new(), [-0.8, -2.6, -0.4], [-0.8, -2.6, -0.4], taper=away)
    right["mouthFrown"] = (
        frown.move(CORNER, [-1.6, -4.6, -1.0])
        .move([212, 57, 43, 106], [-1.0, -3.2, -0.2])
        .hold(not_mouth)
        .hold([152])
        .spread()
    )
    dimple = lips(new(), [-3.0, 0.5, -2.4], [-3.0, 0.5, -2.4], taper=away)
    right["mouthDimple"] = (
        dimple.move(CORNER, [-4.4, 0.8, -4.0]).hold(not_mouth).hold([152]).spread()
    )
    stretch = lips(new(), [-4.6, -1.2, -2.6], [-4.8, -2.4, -2.6], taper=away)
    right["mouthStretch"] = (
        stretch.move(CORNER, [-6.6, -2.8, -3.6])
        .move([212, 57, 43], [-4.6, -2.4, -1.6])
        .hold(not_mouth)
        .hold([152])
        .spread()
    )
    press = lips(new(), [-0.6, -0.3, -0.9], [-0.6, 0.5, -0.9], taper=away)
    right["mouthPress"] = press.move(CORNER, [-1.8, 0.3, -1.8]).hold(not_mouth).hold([152]).spread()
    up = lips(new(), [-0.4, 5.0, 0.2], None, taper=np.array([0.35, 0.8, 1.0, 0.85, 0.35]))
    right["mouthUpperUp"] = (
        up.move([206, 165, 92, 203, 129], [-0.6, 2.4, 0.4])
        .move(CORNER, [0, 0.8, 0])
        .hold(_lower_lip())
        .hold(not_mouth)
        .hold([152])
        .spread()
    )
    down = lips(new(), None, [-0.8, -5.2, 0.2], taper=np.array([0.35, 0.8, 1.0, 0.85, 0.35]))
    right["mouthLowerDown"] = (
        down.move([204, 182, 106], [-0.4, -2.6, 0])
        .move(CORNER, [0, -0.6, 0])
        .hold(_upper_lip())
        .hold(not_mouth)
        .hold([152])
        .spread()
    )

    def central(design: _Design) -> np.ndarray:
        return design.both().hold(not_mouth).hold(jaw_line).spread()

    inwards = np.array([1.0, 0.8, 0.5, 0.25, 0.0])
    pucker = new()
    for up_row, low_row, z in zip(UPPER_LIP_RED, LOWER_LIP_RED, (4.6, 5.4, 5.4), strict=True):
        for k in range(5):
            pucker.move([up_row[k]], [9.5 * inwards[k], -0.6, z * (0.6 + 0.1 * k)])
            pucker.move([low_row[k]], [9.5 * inwards[k], 1.0, z * (0.6 + 0.1 * k)])
    for k in range(5):
        pucker.move([INNER_LIP_UPPER[k]], [9.0 * inwards[k], 0.2, 4.4])
        pucker.move([INNER_LIP_LOWER[k]], [9.0 * inwards[k], -0.2, 4.4])
    pucker.move(CORNER, [10.5, 0.2, 3.4]).move([57, 212, 43], [5.0, 0, 1.2])
    whole["mouthPucker"] = central(pucker)
    funnel = new()
    for up_row, low_row, z in zip(UPPER_LIP_RED, LOWER_LIP_RED, (4.0, 5.6, 5.8), strict=True):
        for k in range(5):
            opening = (0.3, 0.6, 0.85, 0.95, 1.0)[k]
            funnel.move([up_row[k]], [6.0 * inwards[k], 3.4 * opening, z])
            funnel.move([low_row[k]], [6.0 * inwards[k], -4.2 * opening, z])
    for k in range(5):
        opening = (0.35, 0.65, 0.9, 1.0, 1.0)[k]
        funnel.move([INNER_LIP_UPPER[k]], [5.8 * inwards[k], 4.2 * opening, 4.8])
        funnel.move([INNER_LIP_LOWER[k]], [5.8 * inwards[k], -5.0 * opening, 4.8])
    whole["mouthFunnel"] = central(funnel.move(CORNER, [7.0, -0.4, 3.4]))
    flat = np.array([0.5, 0.8, 1.0, 1.0, 1.0])
    roll_up = lips(new(), [0, -2.2, -2.0], None, (0.4, 1.0, 1.3), flat).hold(_lower_lip())
    whole["mouthRollUpper"] = central(roll_up.hold(CORNER))
    roll_low = lips(new(), None, [0, 2.2, -2.2], (0.4, 1.0, 1.3), flat).hold(_upper_lip())
    whole["mouthRollLower"] = central(roll_low.hold(CORNER))
    shrug_low = lips(new(), None, [0, 3.6, 2.2], taper=flat).hold(_upper_lip())
    whole["mouthShrugLower"] = central(shrug_low.move([18, 83, 200], [0, 3.2, 1.0]))
    shrug_up = lips(new(), [0, 3.0, 1.8], None, taper=flat).hold(_lower_lip())
    whole["mouthShrugUpper"] = central(shrug_up.move([164, 167], [0, 1.4, 0.8]))
    whole["mouthClose"] = lips_meet(P, whole["jawOpen"], spreader)
    shift = new()
    for p in {*_lower_lip(), *_upper_lip(), *CORNER, *mirror[list(CORNER)]}:
        shift.points[int(p)] = np.array([-6.0, 0.4, -0.6 + 0.02 * P[p, 0]])
    whole["mouthRight"] = shift.hold(not_mouth).hold([152]).spread()
    whole["mouthLeft"] = reflect(whole["mouthRight"], mirror)

    # Cheeks and nose.
    puff = new().move(cheek, [-4.0, 0, 4.6]).move([214, 192, 213, 147, 123], [-4.0, 0, 2.6])
    whole["cheekPuff"] = (
        puff.both()
        .hold(_lower_lip())
        .hold(_upper_lip())
        .hold(everything_above_eyes(P, 14))
        .hold([1, 4, 2, 152])
        .spread()
    )
    right["cheekSquint"] = (
        new()
        .move([117, 118, 101, 50, 36], [-0.2, 3.4, 1.6])
        .move(BAG, [0, 1.8, 0.9])
        .hold(UPPER_LID)
        .hold(everything_above_eyes(P, 0))
        .hold(_upper_lip())
        .hold([152, 1, 4])
        .spread()
    )
    right["noseSneer"] = (
        new()
        .move([48, 64, 129, 49, 102], [-0.6, 3.4, 0.4])
        .move([203, 206, 36], [-0.4, 2.6, 0.6])
        .move([188, 174, 217, 198], [0.2, 1.6, 0.4])
        .hold([1, 4, 2, 152])
        .hold(_lower_lip())
        .hold(everything_above_eyes(P, -2))
        .spread()
    )
    tongue = np.zeros_like(P)
    tongue[mesh.mouth_middle, 2] = np.array([0, 2, 10, 17, 19, 17, 10, 2, 0])
    tongue[mesh.mouth_middle, 1] = -np.array([0, 0, 2, 4, 5, 4, 2, 0, 0])
    whole["tongueOut"] = tongue

    out = {}
    for name in ARKIT:
        if name in whole:
            out[name] = whole[name]
        elif name.endswith("Right"):
            out[name] = right[name[:-5]]
        else:
            out[name] = reflect(right[name[:-4]], mirror)
    return out


def lips_meet(vertices: np.ndarray, jaw_open: np.ndarray, spreader: FieldSpreader) -> np.ndarray:
    """mouthClose: what jawOpen did to the lips, taken back, so that both together close them.

    Parameters
    ----------
    vertices : (V, 3) mm, control mesh
    jaw_open : (V, 3) mm
    spreader : FieldSpreader

    Returns
    -------
    (V, 3) mm
    """
    mesh = control_mesh()
    close = _Design(vertices, spreader)
    upper, lower = list(INNER_LIP_UPPER), list(INNER_LIP_LOWER)
    # The lower lip comes up by most of the opening, the upper one down by the rest.
    opening = jaw_open[upper] - jaw_open[lower]
    rows = (
        ([183, 42, 41, 38, 12, 268, 271, 272, 407], [96, 89, 179, 86, 15, 316, 403, 319, 325]),
        ([184, 74, 73, 72, 11, 302, 303, 304, 408], [77, 90, 180, 85, 16, 315, 404, 320, 307]),
        ([185, 40, 39, 37, 0, 267, 269, 270, 409], [146, 91, 181, 84, 17, 314, 405, 321, 375]),
    )
    for up, low in ((upper, lower), *rows):
        for k in range(9):
            close.points[up[k]] = -0.3 * opening[k]
            close.points[low[k]] = 0.7 * opening[k]
    for p in CORNER:
        for q in (p, int(mesh.mirror[p])):
            close.points[q] = -0.25 * jaw_open[q]
    close.points |= {int(p): -0.4 * jaw_open[p] for p in mesh.mouth_middle}
    held = [int(i) for i in np.flatnonzero(vertices[:, 1] > -22)]
    close.hold(held).hold([152, 377, 148, 176, 150, 136, 172, 58, 400, 379, 365, 397, 288])
    return close.hold([199, 175]).spread()


def everything_above_eyes(vertices: np.ndarray, below: float = 8.0) -> list[int]:
    """Control vertices above a level, mm below the eye line."""
    return [int(i) for i in np.flatnonzero(vertices[:, 1] > -below)]


def _far_ring(vertices: np.ndarray, centre: np.ndarray, radius: float) -> list[int]:
    """Control vertices farther than a radius from a point: they are held still."""
    return [int(i) for i in np.flatnonzero(np.linalg.norm(vertices - centre, axis=1) > radius)]


def _upper_lip() -> list[int]:
    half = [p for row in UPPER_LIP_RED for p in row] + list(INNER_LIP_UPPER)
    return sorted({*half, *(int(control_mesh().mirror[p]) for p in half)})


def _lower_lip() -> list[int]:
    half = [p for row in LOWER_LIP_RED for p in row] + list(INNER_LIP_LOWER)
    return sorted({*half, *(int(control_mesh().mirror[p]) for p in half)})


def _patch_follows(field: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Squeeze the right eye's patch between the lids that move over it."""
    mesh = control_mesh()
    out = field.copy()
    up, low = np.array(UPPER_LID), np.array(LOWER_LID)
    for p in [*mesh.eye_middle[0], 468, 469, 470, 471, 472]:
        x, y = vertices[p, :2]
        u = _at(vertices[up], field[up], x)
        w = _at(vertices[low], field[low], x)
        top, bottom = (
            np.interp(x, vertices[up, 0], vertices[up, 1]),
            np.interp(x, vertices[low, 0], vertices[low, 1]),
        )
        share = np.clip((y - bottom) / max(top - bottom, 1e-6), 0, 1)
        out[p] = share * u + (1 - share) * w
    return out


def _at(places, values, x):
    return np.array([np.interp(x, places[:, 0], values[:, k]) for k in range(values.shape[1])])


def _jaw_weight(vertices: np.ndarray, spreader: FieldSpreader) -> np.ndarray:
    """How far each control vertex goes with the lower jaw, (V,) in [0, 1]."""
    mesh = control_mesh()
    P = vertices
    lower = [*_lower_lip(), 18, 200, 199, 175, 152, 148, 377, 176, 400, 149, 378, 150, 379]
    lower += [83, 313, 201, 421, 208, 428, 171, 396, 182, 406, 194, 418, 32, 262, 140, 369]
    values = dict.fromkeys(lower, 1.0)
    values |= dict.fromkeys([136, 365, 135, 364, 169, 394, 170, 395], 0.95)
    values |= dict.fromkeys([172, 397], 0.8) | dict.fromkeys([58, 288], 0.55)
    values |= dict.fromkeys([132, 361], 0.25) | dict.fromkeys([93, 323, 234, 454], 0.0)
    for p in CORNER:
        values[p] = values[int(mesh.mirror[p])] = 0.5
    for p in _upper_lip():
        values[p] = 0.06
    for number, ring in enumerate(mesh.rings):
        for p in ring:
            fade = (0.85, 0.45, 0.15, 0.0, 0.0, 0.0)[number]
            low = np.clip((-P[p, 1] - 70) / 30, 0, 1)
            values[int(p)] = float(fade * low)
    for p in mesh.mouth_middle:
        values[int(p)] = 0.5
    for p in np.flatnonzero(P[:478, 1] > -38):
        values.setdefault(int(p), 0.0)
    index = np.array(sorted(values))
    weight = spreader.spread(index, np.array([[values[i]] for i in index]))[:, 0]
    return np.clip(weight, 0, 1)
