"""Landmark bundle adjustment: one identity and all views of a track at once."""

from __future__ import annotations

import time as clock
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from recon3d.errors import InputError
from recon3d.fitting.initialisation import weak_perspective
from recon3d.fitting.projection import project_with_derivatives, rotate_project, translation
from recon3d.fitting.settings import FittingSettings
from recon3d.fitting.shape_basis import (
    FACE_OVAL,
    IRISES,
    ShapeBasis,
    choose_landmarks,
    shape_basis,
)
from recon3d.fitting.solver import solve_arrow
from recon3d.fitting.visibility import Visibility, surface_points
from recon3d.geometry import FRONTAL, project, skew, so3_exp, so3_log
from recon3d.types import FaceFit, FaceModel, FaceTrack

POSE_RIDGE = 1e-6
"""Keeps the pose of a view of which nothing is known where it is."""

STRONG_PERSPECTIVE = 0.1
"""Face radius over distance from which landmarks observe the focal length: about 60 cm away."""

CHUNK = 2
"""Views linearised at a time: few, so that their derivatives stay in the cache."""


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
    """Gauss-Newton system of the whole problem, see `solve_arrow`; g and b are gradients."""

    H: np.ndarray
    g: np.ndarray
    V: np.ndarray
    b: np.ndarray
    W: np.ndarray
    C: np.ndarray


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
        self.n_landmarks = len(basis.mean)
        self._modes = basis.modes.reshape(3 * self.n_landmarks, -1)
        self._expression = basis.expression.reshape(3 * self.n_landmarks, -1)
        self.G = self._modes.shape[1]
        self.E = self._expression.shape[1]
        self.S = len(priors.log_focal)
        self.P = 6 + self.E

    # -- residuals -------------------------------------------------------------------------

    def points(self, state: State, views: slice = slice(None)) -> np.ndarray:
        """(n, L, 3) landmarks of some views in model axes, mm."""
        base = self.basis.mean + (self._modes @ state.q).reshape(-1, 3)
        moved = (state.e[views] @ self._expression.T).reshape(-1, self.n_landmarks, 3)
        return base + moved + self.measurements.offset[views]

    def _robust(self, d2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Student-t loss of squared whitened distances, and its weight."""
        nu = self.settings.student_dof
        return (nu + 2) * np.log1p(d2 / nu), (nu + 2) / (nu + d2)

    def landmark_distance(self, state: State) -> np.ndarray:
        """(N, L) squared whitened distances."""
        m = self.measurements
        out = np.empty(m.count.shape)
        for i in range(0, len(out), CHUNK):
            s = slice(i, i + CHUNK)
            p, _ = rotate_project(
                self.points(state, s),
                state.R[s],
                state.place[s],
                state.log_focal[m.source[s]],
                m.centre[s],
            )
            r = (m.whitener[s] @ (p - m.points[s])[..., None])[..., 0]
            out[s] = (r**2).sum(-1)
        return out

    def cost(self, state: State) -> float:
        """Negative log posterior up to a constant."""
        m, total = self.measurements, 0.0
        for i in range(0, len(m.points), CHUNK):
            s = slice(i, i + CHUNK)
            p, Y = rotate_project(
                self.points(state, s),
                state.R[s],
                state.place[s],
                state.log_focal[m.source[s]],
                m.centre[s],
            )
            r = (m.whitener[s] @ (p - m.points[s])[..., None])[..., 0]
            total += 0.5 * float((m.count[s] * self._robust((r**2).sum(-1))[0]).sum())
            total += 0.5 * float((m.depth_count[s] * self._depth_residual(Y, s) ** 2).sum())
        return total + self._prior_cost(state)

    def _depth_residual(self, Y: np.ndarray, views: slice) -> np.ndarray:
        """Relative depth: what is left after the mean, which a landmarker does not know."""
        m = self.measurements
        r, w = Y[..., 2] - m.depth[views], m.depth_count[views]
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

    def normal(self, state: State) -> Normal:
        """Gradient and Gauss-Newton matrix at a state."""
        m, G, S, P = self.measurements, self.G, self.S, self.P
        N, L = m.count.shape
        T = G + S
        H, g = np.zeros((T, T)), np.zeros(T)
        V, b, W = np.zeros((N, P, P)), np.zeros((N, P)), np.zeros((N, T, P))
        by_shape = np.zeros((L, 3, 3))
        gradient = np.zeros((L, 3))
        focal_cross = np.zeros((S, L, 3))
        E = self.basis.expression
        for i in range(0, N, CHUNK):
            s = slice(i, min(i + CHUNK, N))
            n = s.stop - s.start
            proj = project_with_derivatives(
                self.points(state, s),
                state.R[s],
                state.place[s],
                state.log_focal[m.source[s]],
                m.centre[s],
            )
            whitener = m.whitener[s]
            r2 = (whitener @ (proj.points - m.points[s])[..., None])[..., 0]
            weight = np.sqrt(m.count[s] * self._robust((r2**2).sum(-1))[1])
            A = whitener * weight[..., None, None]
            # three rows a landmark: two of the picture, one of relative depth
            d = np.sqrt(m.depth_count[s])
            r = np.empty((n, L, 3))
            r[..., :2] = r2 * weight[..., None]
            r[..., 2] = d * self._depth_residual(proj.rotated, s)
            Jx = np.empty((n, L, 3, 3))
            Jx[..., :2, :] = A @ proj.by_point
            Jx[..., 2, :] = d[..., None] * state.R[s, None, 2]
            J = np.empty((n, L, 3, P))
            J[..., :2, :6] = A @ proj.by_pose
            J[..., 2, :6] = 0.0
            J[..., 2, 0] = d * proj.rotated[..., 1]
            J[..., 2, 1] = -d * proj.rotated[..., 0]
            np.matmul(Jx, E, out=J[..., 6:])
            Jf = np.zeros((n, L, 3))
            Jf[..., :2] = (A @ proj.by_focal[..., None])[..., 0]

            rows = J.reshape(n, 3 * L, P)
            V[s] = rows.transpose(0, 2, 1) @ rows
            b[s] = (rows.transpose(0, 2, 1) @ r.reshape(n, 3 * L, 1))[..., 0]
            Jxt = Jx.transpose(0, 1, 3, 2)
            W[s, :G] = self._modes.T @ (Jxt @ J).reshape(n, 3 * L, P)
            by_focal = (rows.transpose(0, 2, 1) @ Jf.reshape(n, 3 * L, 1))[..., 0]
            cross = (Jxt @ Jf[..., None])[..., 0]
            for k, view in enumerate(range(s.start, s.stop)):
                source = m.source[view]
                W[view, G + source] = by_focal[k]
                H[G + source, G + source] += float((Jf[k] ** 2).sum())
                g[G + source] += float((Jf[k] * r[k]).sum())
                focal_cross[source] += cross[k]
            by_shape += (Jxt @ Jx).sum(0)
            gradient += (Jxt @ r[..., None])[..., 0].sum(0)
        H[:G, :G] = self._modes.T @ (by_shape @ self.basis.modes).reshape(3 * L, G)
        g[:G] = self._modes.T @ gradient.ravel()
        H[:G, G:] = self._modes.T @ focal_cross.reshape(S, 3 * L).T
        H[G:, :G] = H[:G, G:].T
        system = Normal(H, g, V, b, W, np.zeros((max(N - 1, 0), P, P)))
        self._add_priors(system, state)
        return system

    def _add_priors(self, system: Normal, state: State) -> None:
        s, prior, G, S = self.settings, self.priors, self.G, self.S
        g, H = system.g, system.H
        g[:G] += state.q
        H[np.arange(G), np.arange(G)] += 1.0
        focal = np.arange(G, G + S)
        g[focal] += (state.log_focal - prior.log_focal) / prior.log_focal_std**2
        H[focal, focal] += prior.log_focal_std**-2
        k = np.arange(6, self.P)
        system.b[:, 6:] += 1 / s.expression_scale + state.e / s.expression_std**2
        system.V[:, k, k] += s.expression_std**-2
        if not prior.pair.any():
            return
        info = np.where(prior.pair[:-1, None], prior.pair_information[:-1], 0.0)
        change = _changes(state)
        J2 = left_jacobian_inverse(change[:, :3])
        J1 = -J2.transpose(0, 2, 1)
        I3 = info[:, :3, None]
        system.V[1:, :3, :3] += J2.transpose(0, 2, 1) @ (I3 * J2)
        system.V[:-1, :3, :3] += J1.transpose(0, 2, 1) @ (I3 * J1)
        system.C[:, :3, :3] += J1.transpose(0, 2, 1) @ (I3 * J2)
        pull = info * (change - prior.pair_mean[:-1])
        system.b[1:, :3] += (J2.transpose(0, 2, 1) @ pull[:, :3, None])[..., 0]
        system.b[:-1, :3] += (J1.transpose(0, 2, 1) @ pull[:, :3, None])[..., 0]
        k = np.arange(3, self.P)
        system.V[1:, k, k] += info[:, 3:]
        system.V[:-1, k, k] += info[:, 3:]
        system.C[:, k, k] -= info[:, 3:]
        system.b[1:, 3:] += pull[:, 3:]
        system.b[:-1, 3:] -= pull[:, 3:]

    # -- a step ----------------------------------------------------------------------------

    def step(self, state: State, system: Normal, damping: float) -> tuple[State, np.ndarray]:
        """One damped step inside the expression box.

        Coefficients that lie on a bound and want to leave the box are held: their rows and
        columns are struck out (projected Newton [1]_). What crosses a bound is put back on it.

        Returns
        -------
        State, and the (T, T) Schur complement of the undamped priors and data

        References
        ----------
        .. [1] D. P. Bertsekas, Projected Newton methods for optimization problems with simple
           constraints, SIAM J. Control Optim. 20, 1982.
        """
        G, S = self.G, self.S
        pull = system.b[:, 6:]
        held = ((state.e <= 0) & (pull > 0)) | ((state.e >= 1) & (pull < 0))
        free = np.concatenate([np.ones((len(held), 6)), ~held], 1)
        V = system.V * free[:, :, None] * free[:, None, :]
        W = system.W * free[:, None, :]
        b = system.b * free
        C = system.C * free[:-1, :, None] * free[1:, None, :] if len(system.C) else None
        k = np.arange(self.P)
        # Marquardt's damping, and a floor for views of which nothing is known
        V[:, k, k] += damping * V[:, k, k] + (1 - free) + POSE_RIDGE * (k < 6)
        H = system.H.copy()
        t = np.arange(G + S)
        H[t, t] *= 1 + damping
        x, y, schur = solve_arrow(H, -system.g, V, -b, W, C)
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
            system = self.normal(state)
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
        sources = sorted({v.source for v in views})
        self.sources = sources
        self.source = np.array([sources.index(v.source) for v in views])
        place = {int(k): i for i, k in enumerate(numbers) if basis.present[i]}
        self.oval = np.array([place[k] for k in FACE_OVAL if k in place], int)
        self.share = settings.effective_landmarks / max(int(basis.present.sum()), 1)
        self.paths, self.path_of = self._assign_paths(model)
        self.model = model

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

        scale = np.exp(state.place[:, 2])
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
        path_points = self.model.mean[flat] + np.tensordot(
            a, self.model.identity[: len(a), flat].astype(np.float64), 1
        )
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
        same = np.array([a.source == b.source for a, b in pairwise(views)])
        pair[:-1] = same & (gap > 0) & (gap <= settings.smooth_gap)
    if not pair.any():
        return replace(priors, pair=pair, pair_information=information, pair_mean=mean)
    rates = _changes(state)[:, :6] / np.maximum(gap, 1e-6)[:, None]
    shot = np.concatenate([[0], np.cumsum(~pair[:-1])])[:-1]
    scale = np.exp(state.place[:, 2])
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
    seen = np.any([np.isfinite(v.landmarks).all(-1) for v in track.views], axis=0)
    basis = every.restricted(choose_landmarks(every, seen, settings.landmarks))
    renewal = _Renewal(track, model, basis, settings, Visibility(model, basis.numbers))
    priors = _focal_prior(track, renewal, settings)
    state, error = _initial_state(renewal, basis, priors)
    known = np.isfinite(error)
    if settings.focal_px is None:
        priors = _rein_in_focal(priors, renewal, basis, state)
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
    if progress is not None:
        progress(total, total)
    reading = _Renewal(track, model, every, settings, Visibility(model))
    fit = _result(track, model, problem, reading, state, view_weight)
    fit.info.update(
        steps=steps, costs=costs, seconds=clock.perf_counter() - started, landmarks=len(basis.mean)
    )
    if settings.dense.enabled:
        from recon3d.fitting.dense import refine_fit

        fit = refine_fit(fit, track, settings.dense, progress)
    return fit


def _focal_prior(track: FaceTrack, renewal: _Renewal, settings: FittingSettings) -> Priors:
    S = len(renewal.sources)
    longer = np.array(
        [
            max(next(v for v in track.views if v.source == source).image_size)
            for source in renewal.sources
        ],
        np.float64,
    )
    if settings.focal_px is None:
        log_focal = np.log(settings.focal_prior * longer)
        std = np.full(S, settings.focal_log_std)
    else:
        focal = np.atleast_1d(np.asarray(settings.focal_px, np.float64))
        if len(focal) not in (1, S) or (focal <= 0).any():
            raise InputError(
                f"focal_px holds {len(focal)} values for {S} sources; "
                "give one positive length in px, or one for each source"
            )
        log_focal = np.log(np.broadcast_to(focal, (S,)))
        std = np.full(S, 1e-4)
    N = len(track.views)
    return Priors(log_focal, std, np.zeros(N, bool), np.zeros((N, 6)), np.zeros((N, 6)))


def _rein_in_focal(priors: Priors, renewal: _Renewal, basis: ShapeBasis, state: State) -> Priors:
    """Free the focal length only as far as perspective is stronger than landmark error.

    Doubling the focal length (and the distance with it) moves a landmark by its size in the
    picture times face radius over distance: a few tenths of a per cent for a face across a room,
    where a landmark's systematic error is per cents and would take any focal length.
    """
    std = priors.log_focal_std.copy()
    for k in range(len(std)):
        scale = np.exp(np.median(state.place[renewal.source == k, 2]))
        perspective = basis.radius * scale / np.exp(priors.log_focal[k])
        std[k] *= min(1.0, perspective / STRONG_PERSPECTIVE) ** 2
    return replace(priors, log_focal_std=std)


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
    scale = np.exp(state.place[:, 2])
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
    moved = (state.e @ every._expression.T).reshape(len(t), -1, 3)
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
    variance = ((np.linalg.cholesky(covariance + 1e-12 * np.eye(I)).T @ rows) ** 2).sum(0)
    uncertainty = np.sqrt(variance.reshape(-1, 3).sum(1) + settings.model_error_mm**2)
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
