"""From a face of 478 points to the control mesh of a head: eyes, mouth and shell."""

from __future__ import annotations

import numpy as np

from recon3d.geometry import packed
from recon3d.morphable.fields import symmetrise
from recon3d.morphable.topology import (
    INNER_LIP_LOWER,
    INNER_LIP_UPPER,
    LID_RIGHT,
    LIP_CORNERS,
    control_mesh,
)

# Population means, mm, the average of women and men.
HEAD_BREADTH = 150.0  # Zhuang and Bradtmiller 2005 (NIOSH panel): 153.0 and 146.8
HEAD_LENGTH = 192.4  # the same: 197.3 and 187.5
EYE_TO_VERTEX = 115.0  # ANSUR 1988: ectocanthus to top of head
NECK_RADIUS = (56.0, 59.0)  # ANSUR 1988: neck circumference 379 and 317 over 2 pi, slightly oval
EYEBALL_RADIUS = 12.0  # Bekerman et al. 2014: axial length 22 to 24.8
LIP_GAP = 0.8
"""Opening between relaxed closed lips at the neutral mean: enough for two sheets not to touch."""


def complete_head(face: np.ndarray) -> np.ndarray:
    """Place all control-mesh vertices around a symmetric face.

    Parameters
    ----------
    face : (478, 3) mm
        Irises' depths are replaced by those of eyeballs that fit the lids.

    Returns
    -------
    (V, 3) mm, positions that the subdivided surface shall pass through
    """
    mesh = control_mesh()
    out = np.zeros((mesh.n_vertices, 3))
    out[:478] = face
    _place_eyes(out)
    _place_mouth(out)
    _place_shell(out)
    return symmetrise(out, mesh.mirror)


def eyeball(face: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre (3,) and radius of the right eyeball that fits behind the lids.

    The lids ride on the eyeball about 1 mm in front of it.
    """
    lids = face[list(LID_RIGHT)]
    over = np.array([159, 145, 158, 160, 153, 144])  # mid-lid points touch the ball
    x, y = lids[:, 0].mean(), lids[:, 1].mean()
    x = (x + face[468, 0]) / 2
    d2 = ((face[over, :2] - [x, y]) ** 2).sum(1)
    z = (face[over, 2] - 1.0 - np.sqrt(EYEBALL_RADIUS**2 - np.minimum(d2, 100.0))).mean()
    return np.array([x, y, z]), EYEBALL_RADIUS


def _place_eyes(out: np.ndarray) -> None:
    mesh = control_mesh()
    centre, radius = eyeball(out[:478])
    ring = np.array(LID_RIGHT)
    lids = out[ring]

    def on_ball(xy, lift=0.0):
        d2 = ((xy - centre[:2]) ** 2).sum(-1)
        return np.c_[xy, centre[2] + lift + np.sqrt(np.maximum(radius**2 - d2, 1.0))]

    # Seen from the front, lids cover the iris above and below: its points stay well inside them.
    iris = 4.6 * np.array([[-1, 0], [0, 0.8], [1, 0], [0, -0.8]])
    opening = np.array([lids[4, 1] - centre[1], centre[1] - lids[12, 1]])
    iris[[1, 3], 1] = np.minimum(np.abs(iris[[1, 3], 1]), 0.6 * opening) * [1, -1]
    middle_xy = lids[::2, :2] * 0.82 + centre[:2] * 0.18
    middle = on_ball(middle_xy)
    # Towards the corners the ball turns away: the patch then follows the lids instead.
    limit = lids[::2, 2] * 0.82 + (centre[2] + radius) * 0.18
    middle[:, 2] = np.clip(middle[:, 2], limit - 2.0, lids[::2, 2] - 0.3)
    out[mesh.eye_middle[0]] = middle
    out[[471, 470, 469, 472]] = on_ball(centre[:2] + iris, 0.0)
    out[468] = on_ball(centre[None, :2], 0.3)[0]
    left = mesh.mirror[np.r_[468:473, mesh.eye_middle[0]]]
    out[left] = out[np.r_[468:473, mesh.eye_middle[0]]] * [-1, 1, 1]


def _place_mouth(out: np.ndarray) -> None:
    mesh = control_mesh()
    upper, lower = out[list(INNER_LIP_UPPER)], out[list(INNER_LIP_LOWER)]
    width = np.linalg.norm(out[LIP_CORNERS[1]] - out[LIP_CORNERS[0]])
    across = np.abs(upper[:, 0]) / (width / 2)
    back = 0.8 + 1.4 * np.sqrt(np.clip(1 - across**2, 0, 1))
    out[mesh.mouth_middle] = (upper + lower) / 2
    out[mesh.mouth_middle, 2] -= back


def _place_shell(out: np.ndarray) -> None:
    """Rings of a plain cranium and neck, continued smoothly from the face oval.

    Each ring lies in a plane that starts upright through the face oval and swings over the crown
    until it is level at the bottom of the neck.
    """
    mesh = control_mesh()
    oval = out[mesh.oval]
    eyes = out[[33, 263, 133, 362]].mean(0)
    front = out[9, 2]  # glabella
    centre0 = np.array([0.0, (oval[0, 1] + oval[18, 1]) / 2, oval[:, 2].mean()])
    neck_back = eyes[1] - 165.0
    centre1 = np.array([0.0, neck_back, front - 112.0])
    in_plane = oval - centre0
    # 0 up, growing to the right
    phi0 = np.unwrap(np.arctan2(-in_plane[:, 0], packed(in_plane[:, 1])))
    phi1 = 2 * np.pi * np.arange(36) / 36
    inside = _head_body(eyes, front)
    # How the first section misses the true oval; the miss fades along the shell.
    reach0 = _reach(inside, centre0, np.pi / 2, phi0)
    place0 = _section(centre0, np.pi / 2, phi0, reach0)
    miss = oval - place0
    last = _reach(inside, centre1, np.radians(176), phi1)
    bottom = _section(centre1, np.radians(176), phi1, last)
    corner = np.stack(
        [
            (0.92 * oval[:, 0] + bottom[:, 0]) / 2,
            oval[:, 1] - 5.0 - 8.0 * np.sin(phi0) ** 2,
            0.35 * oval[:, 2] + 0.65 * bottom[:, 2],
        ],
        1,
    )
    for number, ring in enumerate(mesh.rings[1:]):
        s = (number + 1) / (len(mesh.rings) - 1)
        phi = phi0 + (phi1 - phi0) * s
        theta = np.pi / 2 + s * (np.radians(176) - np.pi / 2)
        bend = np.array([0.0, 12.0, 0.0]) * np.sin(np.pi * s)
        centre = centre0 + (centre1 - centre0) * s**1.3 + bend
        reach = _reach(inside, centre, theta, phi)
        fade = np.exp(-((s / 0.22) ** 2))
        over = _section(centre, theta, phi, reach) + miss * fade
        # Below, a ring goes from the jaw by its underside to the neck: an arc of its own.
        under = (1 - s) ** 2 * oval + 2 * s * (1 - s) * corner + s**2 * bottom
        low = np.clip((0.65 - np.cos(phi0)) / 0.8, 0, 1)[:, None]
        low = low**2 * (3 - 2 * low)
        place = low * under + (1 - low) * over
        out[ring] = place[::2]
        if number == 0:
            # The first ring leaves the oval in the direction in which the face arrives there.
            arriving = oval - out[:478][_inner_neighbours(mesh)]
            far = np.linalg.norm(place - oval, axis=1, keepdims=True)
            arriving *= far / np.maximum(np.linalg.norm(arriving, axis=1, keepdims=True), 1e-6)
            u = 0.3
            out[mesh.rings[0]] = (
                oval + u * (place - oval) + u * (1 - u) ** 2 * 0.6 * (arriving - (place - oval))
            )


def _head_body(eyes: np.ndarray, front: float):
    """Inside test of cranium and neck, smoothly joined: negative inside."""
    length = HEAD_LENGTH / 2
    cranium = np.array([0.0, eyes[1] + EYE_TO_VERTEX - 94.0, front - length])
    axes = np.array([HEAD_BREADTH / 2, 94.0, length])
    jaw = np.array([0.0, eyes[1] - 62.0, front - 62.0])
    jaw_axes = np.array([58.0, 56.0, 60.0])

    def inside(p):
        a = np.linalg.norm((p - cranium) / axes, axis=-1) - 1
        j = np.linalg.norm((p - jaw) / jaw_axes, axis=-1) - 1
        down = eyes[1] - p[..., 1]
        axis_z = front - 98.0 - 0.12 * (down - 60)
        flare = 1 + np.clip((down - 120) / 200, 0, 0.2)
        b = (
            np.hypot(
                p[..., 0] / NECK_RADIUS[0] / flare, (p[..., 2] - axis_z) / NECK_RADIUS[1] / flare
            )
            - 1
        )
        b = np.maximum(b, (30 - down) / 60)
        k = 0.12
        return -k * np.logaddexp.reduce([-a / k, -b / k, -j / k], axis=0)

    return inside


def _section(centre, theta, phi, reach):
    up = np.array([0.0, np.sin(theta), np.cos(theta)])
    side = np.array([-1.0, 0.0, 0.0])
    direction = np.cos(phi)[:, None] * up + np.sin(phi)[:, None] * side
    return centre + reach[:, None] * direction


def _reach(inside, centre, theta, phi) -> np.ndarray:
    """Distance from a section's centre to the outermost crossing of the body."""
    radii = np.linspace(5, 220, 432)
    points = np.stack([_section(centre, theta, phi, np.full(len(phi), r)) for r in radii])
    value = inside(points)
    within = value < 0
    last = len(radii) - 1 - within[::-1].argmax(0)
    last = np.where(within.any(0), last, 0).clip(0, len(radii) - 2)
    column = np.arange(len(phi))
    a, b = value[last, column], value[last + 1, column]
    step = np.where(b > a, -a / np.where(b > a, b - a, 1), 0).clip(0, 1)
    return radii[last] + step * (radii[1] - radii[0])


def _inner_neighbours(mesh) -> np.ndarray:
    """For each point of the face oval, a landmark about 15 mm further in, (36,)."""
    right = [151, 108, 69, 104, 68, 71, 139, 34, 227, 137, 177, 215, 138, 135, 169, 170, 140, 171]
    points = [*right, 175]
    return np.array(points + [int(mesh.mirror[p]) for p in right[:0:-1]])
