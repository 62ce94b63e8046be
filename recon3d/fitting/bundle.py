"""Landmark bundle adjustment: one identity and all views of a track at once."""

from __future__ import annotations

import time as clock
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from recon3d.errors import InputError
from recon3d.fitting.initialisation import weak_perspective
from recon3d.fitting.projection import (
    pose_derivatives,
    project_with_derivatives,
    rotate_project,
    translation,
)
from recon3d.fitting.settings import FittingSettings
from recon3d.fitting.shape_basis import (
    FACE_OVAL,
    IRISES,
    ShapeBasis,
    choose_landmarks,
    shape_basis,
)
from recon3d.fitting.solver import solve_arrow
from recon3d.fitting.uncertainty import surface_variance
from recon3d.fitting.visibility import Visibility, surface_points
from recon3d.geometry import FRONTAL, head_angles, packed, project, skew, so3_exp, so3_log
from recon3d.types import FaceFit, FaceModel, FaceTrack

POSE_RIDGE = 1e-6
"""Keeps the pose of a view of which nothing is known where it is."""

STRONG_PERSPECTIVE = 0.1
"""Face radius over distance from which landmarks observe the focal length: about 60 cm away."""

NEAREST_MM = 500.0
"""People are hardly ever pictured from nearer: the least median of an unknown distance."""

CHUNK = 8
"""Views worked on at a time: few, so that their derivatives stay in the cache."""


@dataclass(frozen=True)
class State:
    """Unknowns of the adjustment.

    Attributes
    ----------
    q : (G,) apparent shape
    log_focal : (S,) of each source
    R : (N, 3, 3), place : (N, 3)
        Pose of each view, see `recon3d.fitting.projection`.
    e : (N, E') expression
    """

    q: np.ndarray
    log_focal: np.ndarray
    R: np.ndarray
    place: np.ndarray
    e: np.ndarray


@dataclass(frozen=True)
class Measurements:
    """What the views show, and how far each of it counts; renewed once a round.

    Attributes
    ----------
    points : (N, L, 2) px
    centre : (N, 2) px
    source : (N,) int, row of `State.log_focal`
    whitener : (N, L, 2, 2)
        Square root of each landmark's information, 1/px.
    count : (N, L)
        Visibility times view weight times information share: how much each residual counts.
    depth : (N, L) mm, relative depth divided by the apparent scale
    depth_count : (N, L) weight of the depth residual, 1/mm^2
    offset : (N, L, 3) mm
        From the landmark to the point of its outline path that is seen in its place.
    """

    points: np.ndarray
    centre: np.ndarray
    source: np.ndarray
    whitener: np.ndarray
    count: np.ndarray
    depth: np.ndarray
    depth_count: np.ndarray
    offset: np.ndarray


@dataclass(frozen=True)
class Priors:
    """Everything that is believed without looking.

    Attributes
    ----------
    log_focal, log_focal_std : (S,)
    pair : (N,) bool, view n is coupled to view n + 1 (the last is False)
    pair_information : (N, 6 + E') inverse variance of the change from view n to n + 1
    pair_mean : (N, 6 + E') expected change: the motion of the frames around
    """

    log_focal: np.ndarray
    log_focal_std: np.ndarray
    pair: np.ndarray
    pair_information: np.ndarray
    pair_mean: np.ndarray


@dataclass
class Normal:
    """Gauss-Newton system of the whole problem, see `solve_arrow`; g and b are gradients.

    Most expression coefficients of most views lie on a bound and stay there, so the blocks of a
    view hold only the Q unknowns that its `columns` name.

    Attributes
    ----------
    H, g : (T, T), (T,) of the globals
    V, W, C : (N, Q, Q), (N, T, Q), (N - 1, Q, Q)
    b : (N, P), of all unknowns of the views
    columns : (N, Q) int
        Which of the P unknowns of its view each row of V is; P where it is none: such rows are
        those of the unit matrix.
    """

    H: np.ndarray
    g: np.ndarray
    V: np.ndarray
    b: np.ndarray
    W: np.ndarray
    C: np.ndarray
    columns: np.ndarray


class _Part(NamedTuple):
    """What n views add to the system, see `Normal`.

    Attributes
    ----------
    V, W : (n, q, q), (n, q, T), the second transposed
    b : (n, P)
    columns : (n, P) int, of which the first q count
    g : (T,)
    H : (S, T), rows of the focal lengths
    by_shape : (3, 3, L), information on the landmarks in model axes
    """

    V: np.ndarray
    W: np.ndarray
    b: np.ndarray
    columns: np.ndarray
    g: np.ndarray
    H: np.ndarray
    by_shape: np.ndarray


@dataclass(frozen=True)
class ViewPriors:
    """What the priors of views add to the system.

    Attributes
    ----------
    gradient : (N, P)
    diagonal : (N, P) of the Gauss-Newton matrix, but for rotations
    turn : (N, 3, 3) its block of each rotation
    turn_next : (N - 1, 3, 3) its block between the rotations of a view and the next
    after : (N - 1, P) its diagonal between other unknowns of a view and the next
    """

    gradient: np.ndarray
    diagonal: np.ndarray
    turn: np.ndarray
    turn_next: np.ndarray
    after: np.ndarray


def left_jacobian_inverse(w: np.ndarray) -> np.ndarray:
    """Inverse left Jacobian of SO(3) [1]_ at rotation vectors (N, 3), (N, 3, 3).

    References
    ----------
    .. [1] J. Sola et al., A micro Lie theory for state estimation in robotics, 2018, eq. 146.
    """
    angle = np.linalg.norm(w, axis=-1)[..., None, None]
    small = angle < 1e-4
    safe = np.where(small, 1.0, angle)
    c = np.where(
        small, 1 / 12, 1 / safe**2 - (1 + np.cos(safe)) / (2 * safe * np.sin(safe) + 1e-300)
    )
    S = skew(w)
    return np.eye(3) - 0.5 * S + c * (S @ S)


class Problem:
    """The cost of a state and its Gauss-Newton system.

    Parameters
    ----------
    basis : ShapeBasis
    settings : FittingSettings
    measurements : Measurements
    priors : Priors
    """

    def __init__(
        self,
        basis: ShapeBasis,
        settings: FittingSettings,
        measurements: Measurements,
        priors: Priors,
    ):
        self.basis, self.settings = basis, settings
        self.measurements, self.priors = measurements, priors
        # coordinates before landmarks, as in `recon3d.fitting.projection`
        self.n_landmarks = len(basis.mean)
        self._modes = basis.modes.transpose(1, 0, 2).reshape(3 * self.n_landmarks, -1)
        self.E = basis.expression.shape[2]
        # and a last field of zeros, for columns that are no unknown
        self._expression = np.zeros((self.E + 1, 3 * self.n_landmarks))
        fields = basis.expression.transpose(2, 1, 0)
        self._expression[:-1] = fields.reshape(self.E, 3 * self.n_landmarks)
        self._points = np.ascontiguousarray(measurements.points.transpose(0, 2, 1))
        self._offset = np.ascontiguousarray(measurements.offset.transpose(0, 2, 1))
        self._whitener = np.ascontiguousarray(measurements.whitener.transpose(0, 2, 3, 1))
        self.G = self._modes.shape[1]
        self.S = len(priors.log_focal)
        self.P = 6 + self.E

    # -- residuals -------------------------------------------------------------------------

    def _neutral(self, state: State) -> np.ndarray:
        """(3, L) landmarks without expression in model axes, mm."""
        return self.basis.mean.T + (self._modes @ state.q).reshape(3, -1)

    def _chunks(self) -> list[slice]:
        N = len(self._points)
        return [slice(i, min(i + CHUNK, N)) for i in range(0, N, CHUNK)]

    def _camera(self, state: State, neutral: np.ndarray, views: slice) -> tuple[np.ndarray, ...]:
        """Arguments of the projection for some views; ``neutral`` as of `_neutral`."""
        m = self.measurements
        moved = state.e[views] @ self._expression[:-1]
        X = moved.reshape(-1, *neutral.shape) + neutral + self._offset[views]
        log_focal = state.log_focal[m.source[views]]
        return X, state.R[views], state.place[views], log_focal, m.centre[views]

    def _robust(self, d2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Student-t loss of squared whitened distances, and its weight."""
        nu = self.settings.student_dof
        return (nu + 2) * np.log1p(d2 / nu), (nu + 2) / (nu + d2)

    def _whitened(self, points: np.ndarray, views: slice) -> np.ndarray:
        """(n, 2, L) whitened residuals of projected points (n, 2, L)."""
        d, A = points - self._points[views], self._whitener[views]
        return A[:, :, 0] * d[:, None, 0] + A[:, :, 1] * d[:, None, 1]

    def landmark_distance(self, state: State) -> np.ndarray:
        """(N, L) squared whitened distances."""
        out, neutral = np.empty(self.measurements.count.shape), self._neutral(state)
        for s in self._chunks():
            p, _ = rotate_project(*self._camera(state, neutral, s))
            out[s] = (self._whitened(p, s) ** 2).sum(1)
        return out

    def cost(self, state: State) -> float:
        """Negative log posterior up to a constant."""
        m, total, neutral = self.measurements, 0.0, self._neutral(state)
        for s in self._chunks():
            p, Y = rotate_project(*self._camera(state, neutral, s))
            d2 = (self._whitened(p, s) ** 2).sum(1)
            total += 0.5 * float((m.count[s] * self._robust(d2)[0]).sum())
            total += 0.5 * float((m.depth_count[s] * self._depth_residual(Y, s) ** 2).sum())
        return total + self._prior_cost(state)

    def _depth_residual(self, Y: np.ndarray, views: slice) -> np.ndarray:
        """Relative depth: what is left after the mean, which a landmarker does not know."""
        m = self.measurements
        r, w = Y[:, 2] - m.depth[views], m.depth_count[views]
        return r - (w * r).sum(1, keepdims=True) / np.maximum(w.sum(1, keepdims=True), 1e-12)

    def _prior_cost(self, state: State) -> float:
        s, prior = self.settings, self.priors
        total = 0.5 * float(state.q @ state.q)
        total += 0.5 * float(
            (((state.log_focal - prior.log_focal) / prior.log_focal_std) ** 2).sum()
        )
        total += float((state.e / s.expression_scale).sum())
        total += 0.5 * float(((state.e / s.expression_std) ** 2).sum())
        if prior.pair.any():
            pair = prior.pair[:-1]
            d2 = prior.pair_information[:-1] * (_changes(state) - prior.pair_mean[:-1]) ** 2
            total += 0.5 * float(d2[pair].sum())
        return total

    # -- the system ------------------------------------------------------------------------

    def normal(self, state: State, *, strike: bool = False) -> Normal:
        """Gradient and Gauss-Newton matrix at a state.

        Parameters
        ----------
        state : State
        strike : bool
            Leave out expression coefficients that lie on a bound and want to leave the box
            (projected Newton [1]_): nine in ten, in a typical face.

        References
        ----------
        .. [1] D. P. Bertsekas, Projected Newton methods for optimization problems with simple
           constraints, SIAM J. Control Optim. 20, 1982.
        """
        G, L = self.G, self.n_landmarks
        N, T = len(self._points), G + self.S
        priors = self._view_priors(state)
        neutral = self._neutral(state)
        chunks = self._chunks()
        parts = [self._chunk_system(state, neutral, priors.gradient[s], strike, s) for s in chunks]
        Q = max(part.V.shape[1] for part in parts)
        columns = np.concatenate([part.columns for part in parts])[:, :Q]
        H, g = np.zeros((T, T)), sum(part.g for part in parts)
        V, W = np.zeros((N, Q, Q)), np.zeros((N, Q, T))
        for s, part in zip(chunks, parts, strict=True):
            q = part.V.shape[1]
            V[s, :q, :q] = part.V
            W[s, :q] = part.W
        k = np.arange(Q)
        V[:, k, k] += columns == self.P
        H[G:] = sum(part.H for part in parts)
        by_shape = sum(part.by_shape for part in parts)
        moved = sum(by_shape[:, k, :, None] * self._modes.reshape(3, L, G)[k] for k in range(3))
        H[:G, :G] = self._modes.T @ moved.reshape(3 * L, G)
        H[:G, G:] = H[G:, :G].T
        b = np.concatenate([part.b for part in parts])
        C = np.zeros((N - 1, Q, Q))
        system = Normal(H, g, V, b, W.transpose(0, 2, 1), C, columns)
        self._add_priors(system, state, priors)
        return system

    def _chunk_system(
        self, state: State, neutral: np.ndarray, gradient: np.ndarray, strike: bool, views: slice
    ) -> _Part:
        """What some views add to the system; ``gradient`` (n, P) is what priors say of them."""
        G, E, L = self.G, self.E, self.n_landmarks
        Jx, J = self._linearise(state, neutral, views)
        n = len(J)
        # J' J, and what it is by a movement of the landmarks in model axes
        flat = J.reshape(n, 8, 3 * L)
        squares = flat @ flat.transpose(0, 2, 1)
        by_point = _inner(Jx, J)
        twice = _inner(Jx, Jx)
        b = gradient.copy()
        b[:, :6] += squares[:, :6, 7]
        b[:, 6:] += by_point[:, 7].reshape(n, 3 * L) @ self._expression[:-1].T
        held = np.zeros((n, E), bool)
        if strike:
            held = _held(state.e[views], b[:, 6:])
        columns = _columns(held)
        q = 6 + int((~held).sum(1).max(initial=0))
        moving = self._expression[columns[:, 6:q] - 6]
        # in model axes: pose, the expression that moves, focal length, residual
        through = _through(twice, moving.reshape(n, q - 6, 3, L))
        Z = np.concatenate([by_point[:, :6], through, by_point[:, 6:]], 1)
        Z = Z.reshape(n, q + 2, 3 * L)
        by_expression = Z @ moving.transpose(0, 2, 1)
        by_modes = (Z.reshape(n * (q + 2), 3 * L) @ self._modes).reshape(n, q + 2, G)
        V, W = np.empty((n, q, q)), np.zeros((n, q, G + self.S))
        V[:, :6, :6] = squares[:, :6, :6]
        V[:, :, 6:] = by_expression[:, :q]
        V[:, 6:, :6] = by_expression[:, :6].transpose(0, 2, 1)
        W[..., :G] = by_modes[:, :q]
        g, H = np.zeros(G + self.S), np.zeros((self.S, G + self.S))
        g[:G] = by_modes[:, q + 1].sum(0)
        for k, source in enumerate(self.measurements.source[views]):
            W[k, :6, G + source] = squares[k, :6, 6]
            W[k, 6:, G + source] = by_expression[k, q]
            H[source, G + source] += squares[k, 6, 6]
            H[source, :G] += by_modes[k, q]
            g[G + source] += squares[k, 6, 7]
        return _Part(V, W, b, columns, g, H, twice.sum(0))

    def _linearise(
        self, state: State, neutral: np.ndarray, views: slice
    ) -> tuple[np.ndarray, np.ndarray]:
        """Weighted derivatives of the residuals of some views, K = 3 for each landmark.

        Two are of the picture, one of relative depth.

        Returns
        -------
        (n, 3, K, L) by the landmark in model axes, and (n, 8, K, L) by pose (6), focal length and,
        last, the residuals themselves
        """
        m, (X, *camera) = self.measurements, self._camera(state, neutral, views)
        R, place, log_focal, centre = camera
        proj = project_with_derivatives(X, *camera)
        r = self._whitened(proj.points, views)
        weight = np.sqrt(m.count[views] * self._robust((r**2).sum(1))[1])
        A = self._whitener[views] * weight[:, None, None]
        d = np.sqrt(m.depth_count[views])
        n, _, L = r.shape
        D = np.zeros((n, 3, 3, L))  # by the point in camera axes; axis before residual
        for k in range(2):
            D[:, :, k] = A[:, k, 0, None] * proj.by_camera[:, 0]
            D[:, :, k] += A[:, k, 1, None] * proj.by_camera[:, 1]
        D[:, 2, 2] = d
        J = np.empty((n, 8, 3, L))
        J[:, :6] = pose_derivatives(D.transpose(0, 2, 1, 3), proj.rotated, place, log_focal, centre)
        # depth is relative: it does not change with the place
        J[:, 3:7, 2] = 0.0
        J[:, 6, :2] = A[:, :, 0] * proj.by_focal[:, None, 0]
        J[:, 6, :2] += A[:, :, 1] * proj.by_focal[:, None, 1]
        J[:, 7, :2] = r * weight[:, None]
        J[:, 7, 2] = d * self._depth_residual(proj.rotated, views)
        return (R.transpose(0, 2, 1) @ D.reshape(n, 3, 3 * L)).reshape(D.shape), J

    def _view_priors(self, state: State) -> ViewPriors:
        s, prior = self.settings, self.priors
        N, P = len(state.e), self.P
        gradient, diagonal = np.zeros((N, P)), np.zeros((N, P))
        gradient[:, 6:] = 1 / s.expression_scale + state.e / s.expression_std**2
        diagonal[:, 6:] = s.expression_std**-2
        turn, turn_next = np.zeros((N, 3, 3)), np.zeros((max(N - 1, 0), 3, 3))
        after = np.zeros((max(N - 1, 0), P))
        if prior.pair.any():
            info = np.where(prior.pair[:-1, None], prior.pair_information[:-1], 0.0)
            change = _changes(state)
            J2 = left_jacobian_inverse(change[:, :3])
            J1 = -J2.transpose(0, 2, 1)
            I3 = info[:, :3, None]
            turn[1:] += J2.transpose(0, 2, 1) @ (I3 * J2)
            turn[:-1] += J1.transpose(0, 2, 1) @ (I3 * J1)
            turn_next += J1.transpose(0, 2, 1) @ (I3 * J2)
            pull = info * (change - prior.pair_mean[:-1])
            gradient[1:, :3] += (J2.transpose(0, 2, 1) @ pull[:, :3, None])[..., 0]
            gradient[:-1, :3] += (J1.transpose(0, 2, 1) @ pull[:, :3, None])[..., 0]
            gradient[1:, 3:] += pull[:, 3:]
            gradient[:-1, 3:] -= pull[:, 3:]
            diagonal[1:, 3:] += info[:, 3:]
            diagonal[:-1, 3:] += info[:, 3:]
            after[:, 3:] -= info[:, 3:]
        return ViewPriors(gradient, diagonal, turn, turn_next, after)

    def _add_priors(self, system: Normal, state: State, views: ViewPriors) -> None:
        """Add the priors to all of a system but the gradient of the views, which has them."""
        prior, G, S = self.priors, self.G, self.S
        g, H, columns = system.g, system.H, system.columns
        g[:G] += state.q
        H[np.arange(G), np.arange(G)] += 1.0
        focal = np.arange(G, G + S)
        g[focal] += (state.log_focal - prior.log_focal) / prior.log_focal_std**2
        H[focal, focal] += prior.log_focal_std**-2
        k = np.arange(columns.shape[1])
        system.V[:, k, k] += _take(views.diagonal, columns)
        system.V[:, :3, :3] += views.turn
        same = columns[:-1, :, None] == columns[1:, None, :]
        system.C[:] = np.where(same, _take(views.after, columns[:-1])[:, :, None], 0.0)
        system.C[:, :3, :3] = views.turn_next

    # -- a step ----------------------------------------------------------------------------

    def step(self, state: State, system: Normal, damping: float) -> tuple[State, np.ndarray]:
        """One damped step inside the expression box.

        Coefficients that lie on a bound and want to leave the box are held: the system is one in
        which they are struck out. What crosses a bound is put back on it.

        Returns
        -------
        State, and the (T, T) Schur complement of the damped system
        """
        G, S, columns = self.G, self.S, system.columns
        N, Q = columns.shape
        V, H = system.V.copy(), system.H.copy()
        k, t = np.arange(Q), np.arange(G + S)
        # Marquardt's damping, and a floor for views of which nothing is known
        V[:, k, k] += damping * V[:, k, k] + POSE_RIDGE * (k < 6)
        H[t, t] *= 1 + damping
        x, moves, schur = solve_arrow(
            H, -system.g, V, -_take(system.b, columns), system.W, system.C
        )
        y = np.zeros((N, self.P + 1))
        y[np.arange(N)[:, None], columns] = moves
        y = y[:, : self.P]
        return (
            State(
                q=state.q + x[:G],
                log_focal=state.log_focal + np.clip(x[G:], -0.5, 0.5),
                R=so3_exp(_shorten(y[:, :3], 0.6)) @ state.R,
                place=state.place + np.concatenate([y[:, 3:5], np.clip(y[:, 5:6], -0.5, 0.5)], 1),
                e=np.clip(state.e + y[:, 6:], 0.0, 1.0),
            ),
            schur,
        )

    def optimise(
        self, state: State, iterations: int, tolerance: float, tick: Callable[[], None]
    ) -> tuple[State, float, int]:
        """Levenberg-Marquardt from a state; returns the best state, its cost, steps taken."""
        cost = self.cost(state)
        damping, taken = 1e-3, 0
        for _ in range(iterations):
            system = self.normal(state, strike=True)
            for _ in range(8):
                try:
                    new, _ = self.step(state, system, damping)
                    new_cost = self.cost(new)
                except np.linalg.LinAlgError:
                    new_cost = np.inf
                if new_cost < cost:
                    break
                damping = max(damping, 1e-6) * 10
            else:
                break
            taken += 1
            tick()
            gain = cost - new_cost
            state, cost = new, new_cost
            damping *= 0.2
            if gain < tolerance * cost:
                break
        return state, cost, taken


def _held(e: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Which expression coefficients lie on a bound and want to leave the box."""
    return ((e <= 0) & (gradient > 0)) | ((e >= 1) & (gradient < 0))


def _columns(held: np.ndarray) -> np.ndarray:
    """(n, 6 + E) numbers of a view's unknowns: pose, those not held (n, E), filled up."""
    E = held.shape[1]
    first = np.argsort(held, axis=1, kind="stable")
    count = (~held).sum(1, keepdims=True)
    moving = np.where(np.arange(E) < count, first, E)
    return np.concatenate([np.tile(np.arange(6), (len(held), 1)), 6 + moving], 1)


def _take(values: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(N, Q) of the values (N, P) those of each row's columns; 0 where it is none."""
    filled = np.concatenate([values, np.zeros((len(values), 1))], 1)
    return np.take_along_axis(filled, columns, 1)


def _inner(A: np.ndarray, B: np.ndarray) -> np.ndarray:
    """(n, b, a, L): products of (n, a, 3, L) and (n, b, 3, L), summed over the third axis."""
    out = B[:, :, None, 0] * A[:, None, :, 0]
    for k in (1, 2):
        out += B[:, :, None, k] * A[:, None, :, k]
    return out


def _through(M: np.ndarray, fields: np.ndarray) -> np.ndarray:
    """Fields (n, E, 3, L) times a symmetric matrix (n, 3, 3, L) at every landmark."""
    out = fields[:, :, None, 0] * M[:, None, 0]
    for k in (1, 2):
        out += fields[:, :, None, k] * M[:, None, k]
    return out


def _changes(state: State) -> np.ndarray:
    """(N - 1, P) change of pose and expression from each view to the next."""
    turn = so3_log(state.R[1:] @ state.R[:-1].transpose(0, 2, 1))
    return np.concatenate([turn, np.diff(state.place, axis=0), np.diff(state.e, axis=0)], 1)


def _shorten(w: np.ndarray, longest: float) -> np.ndarray:
    length = np.linalg.norm(w, axis=-1, keepdims=True)
    return w * np.minimum(1.0, longest / np.maximum(length, 1e-12))


# -- measurements ----------------------------------------------------------------------------


class _Renewal:
    """Makes a round's `Measurements` from the views and the state so far."""

    def __init__(
        self,
        track: FaceTrack,
        model: FaceModel,
        basis: ShapeBasis,
        settings: FittingSettings,
        visibility: Visibility,
    ):
        views = track.views
        self.settings, self.basis, self.visibility = settings, basis, visibility
        numbers = basis.numbers
        self.points = np.stack([np.asarray(v.landmarks, np.float64)[numbers] for v in views])
        covariance = np.stack([np.asarray(v.covariance, np.float64)[numbers] for v in views])
        depth = np.stack([np.asarray(v.depth, np.float64)[numbers] for v in views])
        finite = np.isfinite(self.points).all(-1) & np.isfinite(covariance).all((-1, -2))
        self.usable = finite & basis.present
        self.depth_usable = self.usable & np.isfinite(depth)
        self.points = np.where(finite[..., None], self.points, 0.0)
        self.covariance = np.where(self.usable[..., None, None], covariance, np.eye(2))
        self.depth = np.where(self.depth_usable, depth, 0.0)
        self.centre = np.array([v.image_size for v in views], np.float64) / 2
        # Pictures of another size were taken, or cut out, with another focal length.
        each = [(v.source, tuple(v.image_size), round(v.focal_px or 0.0, 1)) for v in views]
        optics = sorted(set(each))
        self.sources = [source for source, _, _ in optics]
        self.longer = np.array([max(size) for _, size, _ in optics], np.float64)
        self.stated = np.array([focal for _, _, focal in optics])
        self.source = np.array([optics.index(optic) for optic in each])
        place = {int(k): i for i, k in enumerate(numbers) if basis.present[i]}
        self.oval = np.array([place[k] for k in FACE_OVAL if k in place], int)
        self.share = settings.effective_landmarks / max(int(basis.present.sum()), 1)
        self.paths, self.path_of = self._assign_paths(model)
        self.model = model
        if self.paths is not None:
            used = len(basis.identity_given_shape)
            rows = model.identity[:used, self.paths.ravel()].astype(np.float64)
            self.path_modes = rows.reshape(used, 3 * self.paths.size)

    def _assign_paths(self, model: FaceModel) -> tuple[np.ndarray | None, np.ndarray]:
        """The outline path of each oval landmark: the nearest one, -1 where none is near."""
        none = np.full(len(self.oval), -1)
        if model.contour is None or not len(model.contour):
            return None, none
        paths = np.asarray(model.contour)
        # shorter paths may be filled up with -1: repeat their first vertex
        paths = np.where(paths < 0, paths[:, :1], paths)
        at = self.basis.mean[self.oval]
        gap = np.linalg.norm(model.mean[paths][None] - at[:, None, None], axis=-1).min(2)
        nearest = gap.argmin(1)
        return paths, np.where(gap[np.arange(len(at)), nearest] < 15.0, nearest, -1)

    def undo_pitch(self, R: np.ndarray, place: np.ndarray) -> None:
        """Turn the landmarks of every view to the pitch that they should show.

        A face-mesh landmarker draws a head that looks up or down, or that a camera looks down
        upon, nearer to level than it is. Points move as those of the mean face would.

        Parameters
        ----------
        R, place : (N, 3, 3), (N, 3)
            Poses as landmarks show them, steadied over time.
        """
        lacking = 1 / self.settings.pitch_shown - 1
        if lacking == 0:
            return
        turn = np.zeros((len(R), 3))
        # a head looks up by turning backwards about its x axis
        turn[:, 0] = -lacking * np.radians(head_angles(R)[:, 1])
        moved = (R @ so3_exp(turn) - R) @ (self.basis.mean - self.basis.middle).T
        moved = moved.transpose(0, 2, 1) * np.exp(packed(place[:, 2]))[:, None, None]
        self.points = np.where(self.usable[..., None], self.points + moved[..., :2], 0.0)
        self.depth = np.where(self.depth_usable, self.depth + moved[..., 2], 0.0)

    def directions(self, state: State) -> np.ndarray:
        """(N, 3) unit vectors from the head to the camera, model axes."""
        t = translation(state.place, state.log_focal[self.source], self.centre)
        d = -(t[:, None] @ state.R)[:, 0]
        return d / np.linalg.norm(d, axis=1, keepdims=True)

    def __call__(self, state: State, view_weight: np.ndarray) -> Measurements:
        s = self.settings
        N, L = self.usable.shape
        toward = self.directions(state)
        cosine = self.visibility.cosines(toward)
        clear = self.visibility.unobstructed(toward)
        ramp = np.clip((cosine + 0.05) / 0.3, 0.0, 1.0)
        visible = np.where(clear, ramp, 0.0)
        visible = np.maximum(visible, s.hidden_weight)

        scale = np.exp(packed(state.place[:, 2]))
        floor = (s.landmark_floor_mm * scale) ** 2
        covariance = self.covariance + floor[:, None, None, None] * np.eye(2)
        offset = np.zeros((N, L, 3))
        if len(self.oval):
            normal, on_outline = self._slide(state, cosine, clear, offset)
            # free along the outline: add a large variance in the tangent's direction
            tangent = np.stack([-normal[..., 1], normal[..., 0]], -1)
            loose = (s.contour_tangent**2 - 1) * floor[:, None, None, None]
            covariance[:, self.oval] += loose * tangent[..., :, None] * tangent[..., None, :]
            visible[:, self.oval] = np.where(on_outline, 0.5, visible[:, self.oval])
        whitener = _inverse_root(covariance)
        count = self.share * visible * self.usable * view_weight[:, None]
        depth_count = np.zeros((N, L))
        if s.depth_std_mm is not None:
            depth_count = (
                self.share * visible * self.depth_usable * view_weight[:, None] / s.depth_std_mm**2
            )
        return Measurements(
            points=self.points,
            centre=self.centre,
            source=self.source,
            whitener=whitener,
            count=count,
            depth=self.depth / scale[:, None],
            depth_count=depth_count,
            offset=offset,
        )

    def _slide(
        self, state: State, cosine: np.ndarray, clear: np.ndarray, offset: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Move oval landmarks that face away to the outline of the head.

        Returns the outward normals (N, O, 2) of the oval in the picture, and which landmarks
        (N, O) were moved; writes their displacement into `offset`.
        """
        points = self.points[:, self.oval]
        used = self.usable[:, self.oval]
        # tangent from the neighbours on the oval, normal away from its middle
        along = np.roll(points, -1, 1) - np.roll(points, 1, 1)
        normal = np.stack([along[..., 1], -along[..., 0]], -1)
        middle = (points * used[..., None]).sum(1) / np.maximum(used.sum(1), 1)[:, None]
        outward = points - middle[:, None]
        normal *= np.where((normal * outward).sum(-1, keepdims=True) < 0, -1.0, 1.0)
        length = np.linalg.norm(normal, axis=-1, keepdims=True)
        normal = np.where(length > 1e-9, normal / np.maximum(length, 1e-9), [1.0, 0.0])
        moved = np.zeros(used.shape, bool)
        if self.paths is None:
            return normal, moved
        a = self.settings.identity_std * self.basis.identity(state.q)
        flat = self.paths.ravel()
        path_points = self.model.mean[flat] + (a @ self.path_modes).reshape(-1, 3)
        # The landmark itself moves with apparent shape; slide along the path relative to the
        # path's own nearest point, so that a shift of the whole face is no slide.
        lookup = path_points.reshape(*self.paths.shape, 3)
        rotated = np.einsum("nij,cpj->ncpi", state.R, lookup, optimize=True)[..., :2]
        facing_away = (cosine[:, self.oval] < 0.25) | ~clear[:, self.oval]
        home = self.basis.mean[self.oval]
        mean_paths = self.model.mean[self.paths]
        for k, path in enumerate(self.path_of):
            if path < 0:
                continue
            start = np.linalg.norm(mean_paths[path] - home[k], axis=1).argmin()
            # farthest out along the outline's normal: where the surface turns away
            out = np.einsum("npi,ni->np", rotated[:, path], normal[:, k])
            best = out.argmax(1)
            move = facing_away[:, k] & used[:, k]
            offset[:, self.oval[k]] = np.where(
                move[:, None], lookup[path, best] - lookup[path, start], 0.0
            )
            moved[:, k] = move
        return normal, moved


def _inverse_root(covariance: np.ndarray) -> np.ndarray:
    """A with A' A = covariance^{-1}, for (..., 2, 2): the inverse of the Cholesky factor."""
    a = np.sqrt(np.maximum(covariance[..., 0, 0], 1e-12))
    b = covariance[..., 1, 0] / a
    c = np.sqrt(np.maximum(covariance[..., 1, 1] - b**2, 1e-12))
    out = np.zeros_like(covariance)
    out[..., 0, 0], out[..., 1, 1] = 1 / a, 1 / c
    out[..., 1, 0] = -b / (a * c)
    return out


def _iris_length(track: FaceTrack, scale: np.ndarray) -> float | None:
    """Median over views of the iris diameter, mm; scale (N,) is in px per mm, NaN to leave out."""
    points = np.stack([np.asarray(v.landmarks, np.float64) for v in track.views])
    lengths = []
    for a, b, c, d in IRISES:
        if points.shape[1] <= d:
            return None
        good = np.isfinite(points[:, [a, b, c, d]]).all((1, 2))
        across = np.linalg.norm(points[:, a] - points[:, c], axis=-1)
        down = np.linalg.norm(points[:, b] - points[:, d], axis=-1)
        # a turned eye is foreshortened in one direction, and a circle in no more than one
        lengths.append(np.where(good, np.maximum(across, down), np.nan) / scale)
    values = np.concatenate(lengths)
    values = values[np.isfinite(values) & (values > 0)]
    return float(np.median(values)) if len(values) else None


def _with_smoothness(
    priors: Priors, track: FaceTrack, state: State, settings: FittingSettings
) -> Priors:
    """Couple neighbouring views of one shot.

    A head turns steadily rather than keeping still: a view is expected to move on as the frames
    around it do, by the median rate of up to five steps (which one outlier does not move), and
    the rate of that motion loosens the tie.
    """
    views, N, P = track.views, len(track.views), 6 + state.e.shape[1]
    pair = np.zeros(N, bool)
    information, mean = np.zeros((N, P)), np.zeros((N, P))
    gap = np.zeros(max(N - 1, 0))
    if settings.smooth and N > 1:
        gap = np.diff([v.time for v in views])
        same = np.diff(track.shots) == 0
        pair[:-1] = same & (gap > 0) & (gap <= settings.smooth_gap)
    if not pair.any():
        return replace(priors, pair=pair, pair_information=information, pair_mean=mean)
    rates = _changes(state)[:, :6] / np.maximum(gap, 1e-6)[:, None]
    shot = np.concatenate([[0], np.cumsum(~pair[:-1])])[:-1]
    scale = np.exp(packed(state.place[:, 2]))
    for n in np.flatnonzero(pair):
        window = np.arange(max(n - 2, 0), min(n + 3, N - 1))
        window = window[pair[window] & (shot[window] == shot[n])]
        # two steps say nothing about a third: expect half of what they show
        rate = np.median(rates[window], 0) * (1 - 1 / len(window))
        mean[n, :6] = rate * gap[n]
        px = np.sqrt(scale[n] * scale[n + 1])
        std = np.concatenate(
            [
                np.full(3, np.radians(settings.rotation_rate) * gap[n]),
                np.full(2, settings.shift_rate * gap[n] * px + 0.25),
                [settings.scale_rate * gap[n]],
                np.full(P - 6, settings.expression_rate * gap[n]),
            ]
        )
        std[:3] += 0.2 * np.linalg.norm(mean[n, :3])
        std[3:5] += 0.2 * np.linalg.norm(mean[n, 3:5])
        std[5] += 0.2 * abs(mean[n, 5])
        information[n] = std**-2
    return replace(priors, pair=pair, pair_information=information, pair_mean=mean)


def _view_weights(error: np.ndarray, known: np.ndarray, settings: FittingSettings) -> np.ndarray:
    """1 for views whose error is near the median, falling to 0 for outliers."""
    good = np.isfinite(error) & known
    weight = np.zeros(len(error))
    if good.any():
        ratio = error[good] / max(float(np.median(error[good])), 1e-9)
        low, high = settings.reject_ratio, max(settings.reject_limit, settings.reject_ratio + 1e-6)
        weight[good] = np.clip((high - ratio) / (high - low), 0.0, 1.0)
    return weight


# -- the stage -------------------------------------------------------------------------------


def fit_track(
    track: FaceTrack,
    model: FaceModel,
    settings: FittingSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FaceFit:
    """Fit one identity, and pose and expression of every view, to a track's landmarks.

    Levenberg-Marquardt on robust, whitened reprojection errors with the Schur complement over
    views [1]_, then dense alignment on the pictures (`recon3d.fitting.dense`) where it is enabled.
    See `FittingSettings` for what is assumed about landmarks.

    Parameters
    ----------
    track : FaceTrack
        With at least one view. One view is fitted by the same code.
    model : FaceModel
    settings : FittingSettings, optional
    progress : callable, optional
        Called with (done, total) steps.

    Returns
    -------
    FaceFit

    Raises
    ------
    InputError
        If the track has no view with enough landmarks, or `focal_px` does not fit the sources.

    References
    ----------
    .. [1] B. Triggs et al., Bundle adjustment: a modern synthesis, Vision Algorithms, 2000.
    """
    started = clock.perf_counter()
    settings = settings or FittingSettings()
    if not track.views:
        raise InputError(f"track {track.id} has no views: nothing to fit")
    every = shape_basis(model, settings)
    every = every.doubted((_pixel_mm(track, every) / settings.believed_pixel_mm) ** 2)
    seen = np.any([np.isfinite(v.landmarks).all(-1) for v in track.views], axis=0)
    basis = every.restricted(choose_landmarks(every, seen, settings.landmarks))
    visibility = Visibility(model)
    renewal = _Renewal(track, model, basis, settings, visibility.restricted(basis.numbers))
    priors = _focal_prior(track, renewal, settings)
    state, error = _initial_state(renewal, basis, priors)
    known = np.isfinite(error)
    if settings.focal_px is None:
        priors = _rein_in_focal(priors, renewal, basis, state)
        state = replace(state, log_focal=priors.log_focal.copy())
    if not known.any():
        raise InputError(
            f"track {track.id}: no view has the six finite landmarks that a pose needs"
        )
    view_weight = _view_weights(error, known, settings)
    total = settings.rounds * settings.iterations
    done, steps, costs = 0, 0, []

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(min(done, total), total)

    for round_number in range(settings.rounds):
        measurements = renewal(state, view_weight)
        priors = _with_smoothness(priors, track, state, settings)
        problem = Problem(basis, settings, measurements, priors)
        state, cost, taken = problem.optimise(state, settings.iterations, settings.tolerance, tick)
        costs.append(cost)
        steps += taken
        done = (round_number + 1) * settings.iterations
        error = _view_error(problem, state, renewal)
        view_weight = _view_weights(error, known, settings)
        if round_number == 0:
            shown = state
            renewal.undo_pitch(shown.R, shown.place)
    if progress is not None:
        progress(total, total)
    reading = _Renewal(track, model, every, settings, visibility)
    reading.undo_pitch(shown.R, shown.place)
    fit = _result(track, model, problem, reading, state, view_weight)
    fit.info.update(
        steps=steps, costs=costs, seconds=clock.perf_counter() - started, landmarks=len(basis.mean)
    )
    if settings.dense.enabled:
        from recon3d.fitting.dense import refine_fit

        fit = refine_fit(fit, track, settings.dense, progress)
    return fit


def _pixel_mm(track: FaceTrack, basis: ShapeBasis) -> float:
    """Size of a pixel on the face, mm: median over views, by how far its landmarks spread."""
    # the longer way across is the one that no turn of the head foreshortens
    mean = basis.mean[basis.present] - basis.mean[basis.present].mean(0)
    longest = float(np.sqrt(np.linalg.eigvalsh(mean[:, :2].T @ mean[:, :2] / len(mean))[-1]))
    spreads = []
    for view in track.views:
        points = np.asarray(view.landmarks, np.float64)[basis.present]
        points = points[np.isfinite(points).all(1)]
        if len(points) > 5:
            spreads.append(float(np.sqrt(np.linalg.eigvalsh(np.cov(points.T, bias=True))[-1])))
    return longest / max(float(np.median(spreads)), 1e-9) if spreads else 1.0


def _focal_prior(track: FaceTrack, renewal: _Renewal, settings: FittingSettings) -> Priors:
    S = len(renewal.sources)
    if settings.focal_px is None:
        stated = renewal.stated > 0
        log_focal = np.log(np.where(stated, renewal.stated, settings.focal_prior * renewal.longer))
        std = np.where(stated, settings.stated_focal_log_std, settings.focal_log_std)
    else:
        focal = np.atleast_1d(np.asarray(settings.focal_px, np.float64))
        sources = sorted(set(renewal.sources))
        if len(focal) not in (1, len(sources)) or (focal <= 0).any():
            raise InputError(
                f"focal_px holds {len(focal)} values for {len(sources)} sources; "
                "give one positive length in px, or one for each source"
            )
        each = np.broadcast_to(focal, (len(sources),))
        log_focal = np.log(each[[sources.index(source) for source in renewal.sources]])
        std = np.full(S, 1e-4)
    N = len(track.views)
    return Priors(log_focal, std, np.zeros(N, bool), np.zeros((N, 6)), np.zeros((N, 6)))


def _rein_in_focal(priors: Priors, renewal: _Renewal, basis: ShapeBasis, state: State) -> Priors:
    """Place faces no nearer than people stand, and free the focal length only as far as
    perspective is stronger than landmark error.

    A picture cut out around a face says little of the lens by its size: a wide one would hold the
    face at arm's length.

    Doubling the focal length (and the distance with it) moves a landmark by its size in the
    picture times face radius over distance: a few tenths of a per cent for a face across a room,
    where a landmark's systematic error is per cents and would take any focal length.
    """
    log_focal, std = priors.log_focal.copy(), priors.log_focal_std.copy()
    for k in range(len(std)):
        scale = np.exp(np.median(state.place[renewal.source == k, 2]))
        if not renewal.stated[k]:
            log_focal[k] = max(log_focal[k], np.log(NEAREST_MM * scale))
        perspective = basis.radius * scale / np.exp(log_focal[k])
        std[k] *= min(1.0, perspective / STRONG_PERSPECTIVE) ** 2
    return replace(priors, log_focal=log_focal, log_focal_std=std)


def _initial_state(
    renewal: _Renewal, basis: ShapeBasis, priors: Priors
) -> tuple[State, np.ndarray]:
    """Weak-perspective poses of the mean face; hidden landmarks left out the second time."""
    usable = renewal.usable.astype(np.float64)
    # the outline of the face is where the landmarker is at its worst
    usable[:, renewal.oval] *= 0.25
    R, place, error = weak_perspective(basis.mean, renewal.points, usable)
    state = State(
        q=np.zeros(basis.modes.shape[2]),
        log_focal=priors.log_focal.copy(),
        R=R,
        place=place,
        e=np.zeros((len(R), basis.expression.shape[2])),
    )
    known = np.isfinite(error)
    if known.any():
        toward = renewal.directions(state)
        seen = np.clip((renewal.visibility.cosines(toward) + 0.05) / 0.3, 0.02, 1.0)
        R, place, error = weak_perspective(basis.mean, renewal.points, usable * seen)
        typical = place[known].mean(0)
    else:
        typical = np.zeros(3)
    for n in np.flatnonzero(~np.isfinite(error)):
        # nothing seen: the nearest known view in time, else frontal
        near = np.flatnonzero(known & (renewal.source == renewal.source[n]))
        if len(near):
            k = near[np.abs(near - n).argmin()]
            R[n], place[n] = R[k], place[k]
        else:
            R[n], place[n] = FRONTAL, [*renewal.centre[n], typical[2]]
    return replace(state, R=R, place=place), error


def _view_error(problem: Problem, state: State, renewal: _Renewal) -> np.ndarray:
    """(N,) root mean square of bounded whitened distances of visible landmarks."""
    d2 = problem.landmark_distance(state)
    visible = renewal.usable * np.clip(
        renewal.visibility.cosines(renewal.directions(state)), 0.02, 1.0
    )
    # bounded, so that one landmark far away does not condemn a view
    return np.sqrt((visible * np.minimum(d2, 100.0)).sum(1) / np.maximum(visible.sum(1), 1e-9))


def _result(
    track: FaceTrack,
    model: FaceModel,
    problem: Problem,
    reading: _Renewal,
    state: State,
    view_weight: np.ndarray,
) -> FaceFit:
    """The fit in the project's own nouns; residuals of all landmarks, not only the solver's."""
    settings, basis, G = problem.settings, problem.basis, problem.G
    system = problem.normal(state)
    _, _, schur = solve_arrow(
        system.H,
        -system.g,
        system.V + 1e-9 * np.eye(problem.P),
        -system.b,
        system.W,
        system.C if len(system.C) else None,
    )
    covariance_q = np.linalg.inv(schur)
    I = len(model.identity)  # noqa: E741
    used = len(basis.identity_given_shape)
    identity, covariance = np.zeros(I), np.eye(I)
    identity[:used] = basis.identity(state.q)
    covariance[:used, :used] = basis.identity_covariance(covariance_q[:G, :G])
    # size: what identity, the population and the irises say of it
    scale = np.exp(packed(state.place[:, 2]))
    by_size = np.zeros(I)
    by_size[:used] = basis.size_by_identity
    iris = None
    if settings.iris_mm is not None:
        iris = _iris_length(track, np.where(view_weight > 0, scale, np.nan))
    if iris is not None:
        measured = np.log(settings.iris_mm / iris)
        direction = covariance @ by_size
        spread = by_size @ direction + settings.iris_log_std**2
        identity = identity + direction * (measured - by_size @ identity) / spread
        covariance = covariance - np.outer(direction, direction) / spread
    growth = float(by_size @ identity)
    identity = settings.identity_std * identity
    covariance = settings.identity_std**2 * covariance
    expression = np.zeros((len(state.e), len(model.expression)))
    expression[:, basis.expression_index] = state.e
    log_focal = state.log_focal[reading.source]
    # the solver's face has the mean size: enlarge the scene about the camera
    t = (1 + growth) * translation(state.place, log_focal, reading.centre)
    t += growth * state.R @ basis.middle
    K = np.zeros((len(t), 3, 3))
    K[:, 0, 0] = K[:, 1, 1] = np.exp(log_focal)
    K[:, :2, 2], K[:, 2, 2] = reading.centre, 1.0

    m = reading(state, view_weight)
    every = Problem(reading.basis, settings, m, problem.priors)
    landmarks = np.nan_to_num(
        surface_points(model.vertices(identity), model.triangles, model.landmarks)
    )
    moved = np.tensordot(state.e, reading.basis.expression, (1, 2))
    points = project(landmarks + moved + m.offset, K, state.R, t)
    robust = every._robust(every.landmark_distance(state))[1]
    weights = np.clip(m.count / reading.share * robust / (1 + 2 / settings.student_dof), 0, 1)
    weights *= (view_weight > 0)[:, None]
    # what the face hides was not used, though the solver kept a hundredth of it
    counted = weights > max(2 * settings.hidden_weight, 1e-3)
    residuals = np.where(counted[..., None], reading.points - points, np.nan)
    squares = (residuals[counted] ** 2).sum(-1)
    px = np.sqrt(squares.mean()) if len(squares) else float("nan")
    eye = np.linalg.norm(landmarks[33] - landmarks[263])

    rows = model.identity.reshape(I, 3 * model.n_vertices).astype(np.float64)
    moves = np.linalg.cholesky(covariance + 1e-12 * np.eye(I)).T @ rows
    variance = surface_variance(moves.reshape(I, model.n_vertices, 3), model)
    uncertainty = np.sqrt(variance + settings.model_error_mm**2)
    return FaceFit(
        model=model,
        identity=identity,
        expression=expression,
        R=state.R,
        t=t,
        K=K,
        displacement=np.zeros((model.n_vertices, 3)),
        residuals=residuals,
        weights=weights,
        uncertainty=uncertainty,
        identity_covariance=covariance,
        view_weight=view_weight,
        info={
            "views": len(t),
            "views_rejected": int((view_weight <= 0).sum()),
            "reprojection_px": float(px),
            "reprojection_of_eye_distance": float(
                px / max(eye * np.median(scale) / (1 + growth), 1e-9)
            ),
            "sources": [int(s) for s in reading.sources],
            "focal_px": [float(f) for f in np.exp(state.log_focal)],
            "focal_log_std": [float(f) for f in np.sqrt(np.diag(covariance_q)[G:])],
            "iris_mm": None if iris is None else float(iris * (1 + growth)),
            "size": 1 + growth,
            "identity_norm": float(np.linalg.norm(identity)),
            "identity_information": float(I - np.trace(covariance) / settings.identity_std**2),
        },
    )
