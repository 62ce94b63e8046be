"""What landmarks can say about shape: identity modes and the landmarker's common error together.

A face-mesh landmark is a network's opinion, and wrong in the same way in every frame. The shape
that landmarks show is therefore ``z = mean + B a + d``: the identity a, and a smooth field d over
the face that all frames share. Both are Gaussian beforehand, so the solver may look for z in the
principal directions of ``B B' + cov(d)`` and identity follows from them by regression: exact
marginalisation of the nuisance, at the price of a matrix product. However many frames there are,
identity never receives more information than d leaves.

Size is kept apart. Pictures show shape up to scale, and a solver that may shrink the face pays
less for every deformation in it, a bias of many per cent where landmarks fit badly. The modes are
therefore seen without the part that changes the landmark set's size; size follows afterwards from
the identity found, from the population and from the irises.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from recon3d.fitting.settings import FittingSettings
from recon3d.fitting.visibility import surface_points
from recon3d.types import FaceModel

FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
"""MediaPipe's face oval, clockwise in the picture from the top of the forehead."""

IRISES = ((469, 470, 471, 472), (474, 475, 476, 477))
"""Outline points of the subject's two irises: each opposite to the next but one."""

LIDS_AND_LIPS = (
    33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246,
    263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466,
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409,
    78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 191, 80, 81, 82, 13, 312, 311, 310, 415,
)  # fmt: skip
"""Outlines of the eyes and of the lips, outer and inner: where expressions are read."""

N_INDUCING = 40
"""Support points of the common error's Gaussian process: about one in 30 mm of face."""


@dataclass(frozen=True)
class ShapeBasis:
    """The linear model as landmarks see it.

    Attributes
    ----------
    numbers : (L,) int, of the landmarks among the 478
    mean : (L, 3) mm; zeros for landmarks that the model lacks
    present : (L,) bool
    modes : (L, 3, G) mm, directions of apparent shape with standard normal coefficients
    identity_given_shape : (I, G)
        Regression of the identity coefficients on those of apparent shape.
    size_by_identity : (I,)
        Relative change of the landmark set's size per unit of an identity coefficient.
    middle : (3,) mm, mean of the landmarks, about which size is measured
    radius : float, mm, root mean square distance from it
    expression : (L, 3, E') mm, only fields that move landmarks
    expression_index : (E',) int, their numbers in the model
    """

    numbers: np.ndarray
    mean: np.ndarray
    present: np.ndarray
    modes: np.ndarray
    identity_given_shape: np.ndarray
    size_by_identity: np.ndarray
    middle: np.ndarray
    radius: float
    expression: np.ndarray
    expression_index: np.ndarray

    def restricted(self, chosen: np.ndarray) -> ShapeBasis:
        """The same unknowns seen by some of the landmarks only."""
        return replace(
            self,
            numbers=self.numbers[chosen],
            mean=self.mean[chosen],
            present=self.present[chosen],
            modes=self.modes[chosen],
            expression=self.expression[chosen],
        )

    def doubted(self, error: float) -> ShapeBasis:
        """The same if landmarks also show, in all frames, somebody else's shape.

        On a small face the landmarker draws what faces look like: an error of the very covariance
        of shape, times ``error``. Marginalised as the rest of the common error is: apparent shape
        varies more, and identity follows it less.
        """
        root = np.sqrt(1 + error)
        return replace(
            self, modes=self.modes * root, identity_given_shape=self.identity_given_shape / root
        )

    def identity(self, q: np.ndarray) -> np.ndarray:
        """Identity coefficients (I,) expected for apparent shape q (G,)."""
        return self.identity_given_shape @ q

    def identity_covariance(self, covariance: np.ndarray) -> np.ndarray:
        """(I, I) posterior covariance, given the (G, G) one of apparent shape."""
        A = self.identity_given_shape
        return np.eye(len(A)) - A @ A.T + A @ covariance @ A.T


def spread(chosen: list[int], points: np.ndarray, n: int) -> list[int]:
    """Add to a choice the point farthest from all chosen ones, until there are n."""
    chosen = list(chosen)
    gaps = np.linalg.norm(points[:, None] - points[None, chosen], axis=-1)
    distance = gaps.min(1) if chosen else np.full(len(points), np.inf)
    while len(chosen) < min(n, len(points)):
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return chosen


def choose_landmarks(basis: ShapeBasis, seen: np.ndarray, count: int) -> np.ndarray:
    """Landmarks for the solver to work with: outlines first, the rest spread over the face.

    The mesh has a point every few mm and its errors are correlated over centimetres, so that half
    of the points say nearly all of it in half of the time.

    Parameters
    ----------
    basis : ShapeBasis of all landmarks
    seen : (L,) bool, landmarks that some view has
    count : int

    Returns
    -------
    (L',) int, ascending
    """
    there = np.flatnonzero(basis.present & seen)
    if count >= len(there):
        return there
    place = {int(number): k for k, number in enumerate(there)}
    first = [place[k] for k in (*FACE_OVAL, *LIDS_AND_LIPS) if k in place][:count]
    return np.sort(there[spread(first, basis.mean[there], count)])


def common_error_modes(points: np.ndarray, settings: FittingSettings) -> np.ndarray:
    """Modes of the landmark error that all frames share.

    A Gaussian process with a squared exponential kernel over the mean face, in the subspace of a
    few dozen spread support points (Nystroem), without the similarities: those are pose and size.

    Parameters
    ----------
    points : (L, 3) mm
    settings : FittingSettings

    Returns
    -------
    (L, 3, 3 M) mm, for standard normal coefficients
    """
    n = min(N_INDUCING, len(points))
    chosen = spread([int(np.argmin(np.linalg.norm(points - points.mean(0), axis=1)))], points, n)

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        d2 = ((a[:, None] - b[None]) ** 2).sum(-1)
        return np.exp(-0.5 * d2 / settings.bias_length_mm**2)

    support = points[chosen]
    L = np.linalg.cholesky(kernel(support, support) + 1e-6 * np.eye(n))
    field = np.linalg.solve(L, kernel(support, points)).T
    stds = (settings.bias_mm, settings.bias_mm, settings.bias_depth_mm)
    modes = np.zeros((len(points), 3, 3 * n))
    for axis, std in enumerate(stds):
        modes[:, axis, axis * n : (axis + 1) * n] = std * field
    x = points - points.mean(0)
    zero = np.zeros(len(x))
    rigid = np.concatenate(
        [
            np.tile(np.eye(3), (len(x), 1)),
            np.stack(
                [
                    np.stack([zero, -x[:, 2], x[:, 1]], 1).ravel(),
                    np.stack([x[:, 2], zero, -x[:, 0]], 1).ravel(),
                    np.stack([-x[:, 1], x[:, 0], zero], 1).ravel(),
                    x.ravel(),
                ],
                1,
            ),
        ],
        1,
    )
    Q, _ = np.linalg.qr(rigid)
    flat = modes.reshape(-1, 3 * n)
    return (flat - Q @ (Q.T @ flat)).reshape(modes.shape)


def shape_basis(model: FaceModel, settings: FittingSettings) -> ShapeBasis:
    """The model's rows at its landmarks, with identity and common error in one basis."""
    mean = surface_points(model.mean, model.triangles, model.landmarks)
    present = np.isfinite(mean).all(1)
    n_landmarks = len(mean)

    def rows(modes: np.ndarray) -> np.ndarray:
        if not len(modes):
            return np.zeros((n_landmarks, 3, 0))
        return np.nan_to_num(surface_points(modes, model.triangles, model.landmarks)).transpose(
            1, 2, 0
        )

    B = settings.identity_std * rows(model.identity[: settings.identity_modes])
    middle = mean[present].mean(0)
    centred = np.where(present[:, None], np.nan_to_num(mean) - middle, 0.0)
    squares = float((centred**2).sum())
    size = centred.ravel() @ B.reshape(3 * n_landmarks, -1) / squares
    B = B - centred[..., None] * size
    D = np.zeros((n_landmarks, 3, 0))
    if settings.bias_mm > 0 or settings.bias_depth_mm > 0:
        D = np.zeros((n_landmarks, 3, 3 * min(N_INDUCING, int(present.sum()))))
        D[present] = common_error_modes(mean[present], settings)
    F = np.concatenate([B, D], 2).reshape(3 * n_landmarks, -1)
    # thin SVD by the small Gram matrix: F has a few hundred columns and 1434 rows
    values, vectors = np.linalg.eigh(F.T @ F)
    order = np.argsort(values)[::-1]
    keep = order[: settings.shape_modes]
    keep = keep[values[keep] > 1e-6 * max(values.max(initial=0.0), 1e-12)]
    modes = (F @ vectors[:, keep]).reshape(n_landmarks, 3, len(keep))

    E = rows(model.expression)
    moving = np.flatnonzero(np.sqrt((E**2).sum(1)).max(0, initial=0.0) > 0.3)
    return ShapeBasis(
        numbers=np.arange(n_landmarks),
        mean=np.nan_to_num(mean),
        present=present,
        modes=modes,
        identity_given_shape=vectors[: B.shape[2], keep],
        size_by_identity=size,
        middle=middle,
        radius=float(np.sqrt(squares / max(int(present.sum()), 1))),
        expression=E[..., moving],
        expression_index=moving,
    )
