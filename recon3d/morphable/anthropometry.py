"""Published head measurements, and the warp that gives a face the population's proportions.

Values are means of the women's and men's means.

References
----------
.. [1] Z. Zhuang, B. Bradtmiller, Head-and-face anthropometric survey of U.S. respirator users,
   Journal of Occupational and Environmental Hygiene 2, 2005: interpupillary distance 64.5 and
   61.9 mm, menton-sellion length 122.7 and 113.4 mm.
.. [2] G. W. Arnett et al., Soft tissue cephalometric analysis, American Journal of Orthodontics and
   Dentofacial Orthopedics 116, 1999: depths of the profile against the true vertical line through
   subnasale, in natural head position.
.. [3] C. C. Gordon et al., 1988 Anthropometric survey of U.S. Army personnel (ANSUR): depths of
   glabella, sellion, crinion and subnasale from the back of the head.
.. [4] B. M. Zide, G. W. Jelks, Surgical anatomy of the orbit, 1985: the globe lies about level with
   the infraorbital rim, 8 to 12 mm in front of the lateral rim.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recon3d.geometry import so3_exp

MENTON_SELLION = 118.05  # [1]
INTERPUPILLARY = 63.0  # [1], 63.2


@dataclass(frozen=True)
class Depth:
    """Depth of some points in front of subnasale (negative: behind), mm."""

    name: str
    points: tuple[int, ...]
    depth: float
    sigma: float
    midline: bool = True


DEPTHS = (
    Depth("glabella", (9,), -8.25, 0.7),  # [2]: -8.5, -8.0
    Depth("sellion", (168,), -10.8, 0.7),  # [3]: 2.5 behind glabella
    Depth("nasal projection", (4, 1), 16.7, 0.7),  # [2]: 16.0, 17.4
    Depth("subnasale", (2,), 0.0, 0.7),
    Depth("upper lip", (0,), 3.5, 0.7),  # [2]: 3.7, 3.3
    Depth("lower lip", (17,), 1.45, 0.7),  # [2]: 1.9, 1.0
    Depth("labiomental fold", (18,), -6.2, 0.7),  # [2]: -5.3, -7.1
    Depth("pogonion", (199, 175), -3.05, 0.7),  # [2]: -2.6, -3.5
    Depth("forehead", (151,), -11.0, 0.7),  # [3], between glabella and crinion
    Depth("crinion", (10,), -17.0, 0.7),  # [3]
    Depth("orbital rim", (119, 348), -20.5, 0.7, False),  # [2]: -18.7, -22.4
    # The globe is level with the rim [4]; the lid corners lie 5 and 10 mm behind its front.
    Depth("inner lid corner", (133, 362), -24.5, 0.7, False),
    Depth("outer lid corner", (33, 263), -29.5, 0.7, False),
)


def undo_perspective(face: np.ndarray, distance: float) -> np.ndarray:
    """Sizes as seen from afar, of a shape measured in portraits from a distance, (P, 3) mm.

    The plane of the outer lid corners keeps its size.
    """
    out = face.copy()
    nearer = face[:, 2:] - face[[33, 263], 2].mean()
    out[:, :2] *= 1 - nearer / distance
    return out


def correct_proportions(face: np.ndarray, *, length: float = 40.0, amplitude: float = 6.0):
    """Give a face the population's size, upright pose and profile depths.

    Depths are changed by the mean of a Gaussian process over the frontal plane, so that a few
    published numbers move everything around them smoothly and no detail is lost.

    Parameters
    ----------
    face : (478, 3) mm, symmetric, MediaPipe's points
    length : float
        Correlation length of the change, mm.
    amplitude : float
        Standard deviation of the change, mm.

    Returns
    -------
    (478, 3) mm in natural head position, origin between the outer lid corners
    """
    out = face.copy()
    points = np.array([p for d in DEPTHS for p in d.points])
    wanted = np.array([d.depth for d in DEPTHS for _ in d.points])
    sigma = np.array([d.sigma for d in DEPTHS for _ in d.points])
    midline = np.array([d.midline for d in DEPTHS for _ in d.points])
    for _ in range(3):
        out *= MENTON_SELLION / np.linalg.norm(out[168] - out[152])
        relative = out[points] - out[2]
        # Pitch: the turn that brings the midline closest to the published profile.
        A = np.c_[relative[midline, 1], np.ones(midline.sum())]
        turn = np.linalg.lstsq(A, (wanted - relative[:, 2])[midline], rcond=None)[0][0]
        out = (out - out[2]) @ so3_exp(np.array([turn, 0.0, 0.0])).T
        missing = wanted - out[points, 2]
        d2 = ((out[:, None, :2] - out[None, points, :2]) ** 2).sum(-1)
        # A constant shift is free: subnasale need not be the point that stays.
        covariance = amplitude**2 * np.exp(-d2 / 2 / length**2) + 100.0
        K = covariance[points] + np.diag(sigma**2)
        out[:, 2] += covariance @ np.linalg.solve(K, missing)
    return out - out[[33, 263]].mean(0)
