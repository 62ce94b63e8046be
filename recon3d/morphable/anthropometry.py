"""Published head measurements, and the warp that gives a face the population's proportions.

Values are means of the women's and men's means.
They were entered from memory of the sources below and are not yet checked against them.

References
----------
.. [1] Z. Zhuang, B. Bradtmiller, Head-and-face anthropometric survey of U.S. respirator users,
   Journal of Occupational and Environmental Hygiene 2, 2005: interpupillary distance 64.5 and
   61.9 mm, menton-sellion length 122.7 and 113.4 mm, subnasale-sellion length, lip length.
.. [2] G. W. Arnett et al., Soft tissue cephalometric analysis, American Journal of Orthodontics and
   Dentofacial Orthopedics 116, 1999: depths of the profile against the true vertical line through
   subnasale, in natural head position.
.. [3] C. C. Gordon et al., 1988 Anthropometric survey of U.S. Army personnel (ANSUR): depths of
   glabella, sellion, crinion and subnasale from the back of the head.
.. [4] B. M. Zide, G. W. Jelks, Surgical anatomy of the orbit, 1985: the globe lies about level with
   the infraorbital rim, 8 to 12 mm in front of the lateral rim.
.. [5] L. G. Farkas, Anthropometry of the head and face, 1994.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recon3d.geometry import so3_exp

INTERPUPILLARY = 63.2  # [1]
SIZES = (
    # points, mm, relative trust
    ((468, 473), INTERPUPILLARY, 2.0),
    ((168, 152), 118.05, 2.0),  # menton-sellion [1]
    ((168, 2), 50.1, 1.0),  # subnasale-sellion [1]: 52.0, 48.2
    ((33, 263), 89.5, 1.0),  # biocular breadth [5]: 91.2, 87.8
    ((61, 291), 49.6, 0.5),  # lip length [1]: 51.1, 48.0
)


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
    """Sizes as seen from afar, of shapes measured in portraits from a distance, (..., P, 3) mm.

    The plane of the outer lid corners keeps its size.
    """
    out = face.copy()
    nearer = face[..., 2:] - face[..., [33, 263], 2].mean(-1)[..., None, None]
    out[..., :2] *= 1 - nearer / distance
    return out


@dataclass(frozen=True)
class Correction:
    """A change of proportions, learned from a mean face and applied to any face aligned with it.

    Attributes
    ----------
    distance : float
        Camera distance undone first, mm.
    scale : float
    R : (3, 3), t : (3,)
    displacement : (478, 3) mm, added last
    """

    distance: float
    scale: float
    R: np.ndarray
    t: np.ndarray
    displacement: np.ndarray

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        """Correct faces, (..., 478, 3) mm."""
        faces = undo_perspective(faces, self.distance)
        return self.scale * faces @ self.R.T + self.t + self.displacement


def learn_correction(
    face: np.ndarray, *, distance: float, length: float = 40.0, amplitude: float = 6.0
) -> Correction:
    """Find what gives a mean face the population's size, upright pose and profile depths.

    Depths are changed by the mean of a Gaussian process over the frontal plane, so that a few
    published numbers move everything around them smoothly and no detail is lost; the eyes are
    brought to the published interpupillary distance in the same way.

    Parameters
    ----------
    face : (478, 3) mm, symmetric, MediaPipe's points
    distance : float
        Distance that the portraits were taken from, mm.
    length : float
        Correlation length of the change, mm.
    amplitude : float
        Standard deviation of the change, mm.

    Returns
    -------
    Correction
        To natural head position, origin between the outer lid corners.
    """
    seen = undo_perspective(face, distance)
    ratio = [np.log(mm / np.linalg.norm(seen[a] - seen[b])) for (a, b), mm, _ in SIZES]
    scale = float(np.exp(np.average(ratio, weights=[trust for *_, trust in SIZES])))
    points = np.array([p for d in DEPTHS for p in d.points])
    wanted = np.array([d.depth for d in DEPTHS for _ in d.points])
    sigma = np.array([d.sigma for d in DEPTHS for _ in d.points])
    midline = np.array([d.midline for d in DEPTHS for _ in d.points])
    R, out = np.eye(3), scale * (seen - seen[2])
    # Pitch: the turn that brings the midline closest to the published profile.
    for _ in range(3):
        A = np.c_[out[points[midline], 1], np.ones(midline.sum())]
        turn = np.linalg.lstsq(A, (wanted - out[points, 2])[midline], rcond=None)[0][0]
        step = so3_exp(np.array([turn, 0.0, 0.0]))
        R, out = step @ R, out @ step.T
    displacement = np.zeros_like(out)
    d2 = ((out[:, None, :2] - out[None, points, :2]) ** 2).sum(-1)
    # A constant shift is free: subnasale need not be the point that stays.
    # Most of a change is broad; a little of it may be as narrow as the base of the nose.
    covariance = 100.0 + amplitude**2 * (
        np.exp(-d2 / 2 / length**2) + 0.15 * np.exp(-d2 / 2 / (0.35 * length) ** 2)
    )
    K = covariance[points] + np.diag(sigma**2)
    displacement[:, 2] = covariance @ np.linalg.solve(K, wanted - out[points, 2])
    for pupil, side in ((468, -1.0), (473, 1.0)):
        missing = side * INTERPUPILLARY / 2 - out[pupil, 0]
        near = ((out[:, :2] - out[pupil, :2]) ** 2).sum(1)
        displacement[:, 0] += missing * np.exp(-near / 2 / 22.0**2)
    origin = (out + displacement)[[33, 263]].mean(0)
    return Correction(distance, scale, R, -scale * R @ seen[2] - origin, displacement)
