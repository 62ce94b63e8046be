"""Dense multi-view alignment: poses and shape from the picture itself.

Given poses and shape, every view says what colour each point of the skin has. Where views
disagree, a pose or the shape is wrong. With the logarithm of light I sampled where view n sees
point v,

    r_nv = I_n(x_nv) - a_v - B(n_nv) . l_n,

albedo a_v is eliminated in closed form and the rest (pose and light of each view, shape of all) is
found by robust Gauss-Newton steps from a coarse blur to a fine one. What landmarks are known to get
wrong is the prior: errors that change smoothly with the turn of the head and with time.
"""

from __future__ import annotations

import time as clock
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from recon3d.fitting._threads import over
from recon3d.fitting.motion import Motion
from recon3d.fitting.moving import follow, with_poses
from recon3d.fitting.photometric import (
    Pictures,
    Samples,
    choose_samples,
    visible_samples,
)
from recon3d.fitting.settings import DenseSettings
from recon3d.fitting.strays import STARTS, start_again
from recon3d.fitting.uncertainty import surface_variance
from recon3d.geometry import head_angles, packed, so3_exp, vertex_normals
from recon3d.types import FaceFit, FaceModel, FaceTrack

POSE = 6
"""Unknowns of a view's pose: rotation about the face's middle, shift (mm), log distance."""

LIGHT = 9
"""Unknowns of a view's light: exposure and spherical harmonics of degree one and two."""

BLOCK = 8
"""Views whose products with the shape's directions are formed at once."""

TILE = 256
"""Columns of the blocks of which a Gram matrix is put together."""

SAME_DIRECTION = 15.0
"""Views that see the head from within so many degrees err alike."""


@dataclass(frozen=True)
class Scene:
    """What the alignment changes.

    Attributes
    ----------
    R, t : (N, 3, 3), (N, 3)
    change : (N, 6)
        Sum of the pose steps since the landmark fit: what the prior speaks of.
    light : (N, 9)
    shape : (G,) coefficients of the shape basis, unit normal before looking
    """

    R: np.ndarray
    t: np.ndarray
    change: np.ndarray
    light: np.ndarray
    shape: np.ndarray


@dataclass(frozen=True)
class Look:
    """What views show of the samples at one visibility and blur.

    Attributes
    ----------
    weight : (N, M) float32, visibility, angle and region; 0 where not seen
    harmonics : (N, M, 9) float32
    sigma : (N,) px, blur of each view
    independent : (N,) share of the samples that tell something of their own
    """

    weight: np.ndarray
    harmonics: np.ndarray
    sigma: np.ndarray
    independent: np.ndarray


@dataclass(frozen=True)
class Reading:
    """What the pictures show at the samples of one scene; zero where a view does not see them.

    Attributes
    ----------
    value : (N, M) float32, logarithm of light
    gradient : (N, M, 3) float32, its derivative by the point in camera axes, 1/mm
    arm : (N, M, 3) float32, mm, camera axes
        From the face's middle to the point.
    weight : (N, M) float32
    """

    value: np.ndarray
    gradient: np.ndarray
    arm: np.ndarray
    weight: np.ndarray


def harmonics(normals: np.ndarray) -> np.ndarray:
    """Real spherical harmonics up to degree two, (M, 9), up to factors."""
    x, y, z = normals.T
    one = np.ones_like(x)
    return np.stack(
        [one, x, y, z + 0.7, x * y, y * z, x * z, z * z - 0.5, 0.5 * (x * x - y * y)], 1
    )


class Alignment:
    """The photometric problem of one track.

    Parameters
    ----------
    fit : FaceFit
        Where to start; its identity and displacement are the origin of `Scene.shape`.
    pictures : Pictures
    samples : Samples
    basis : (G, V, 3) or None
        Shape directions; None to leave the shape alone.
    settings : DenseSettings
    times : (N,) s
    sources, shots : (N,) int
        Cameras; stretches of a camera without a cut.
    """

    def __init__(
        self,
        fit: FaceFit,
        pictures: Pictures,
        samples: Samples,
        settings: DenseSettings,
        times: np.ndarray,
        sources: np.ndarray,
        shots: np.ndarray,
        basis: np.ndarray | None = None,
    ):
        self.fit, self.pictures, self.samples, self.settings = fit, pictures, samples, settings
        model, M = fit.model, len(samples.index)
        self.G = 0 if basis is None else len(basis)
        self.basis = basis
        self._directions = (
            None
            if basis is None
            else np.ascontiguousarray(basis[:, samples.index].transpose(1, 2, 0), np.float32)
        )
        self.posed = model.vertices(fit.identity, fit.expression) + fit.displacement
        self.points = self.posed[:, samples.index]
        # the only triangles on which the samples' normals depend
        self.around = model.triangles[np.isin(model.triangles, samples.index).any(1)]
        self._normals: tuple[np.ndarray, dict[int, np.ndarray]] | None = None
        self.middle = np.average(model.mean[samples.index], axis=0, weights=samples.area)
        self.scale = fit.K[:, 0, 0] / np.maximum((fit.R @ self.middle + fit.t)[:, 2], 1e-6)
        self.prior = _prior_precision(fit, settings, times, shots)
        self.motion = Motion(times, shots, settings.motion_gap, settings.motion_stride)
        self.M = M
        self.N = len(fit.R)
        turned = np.round(head_angles(fit.R)[:, :2] / SAME_DIRECTION).astype(int)
        keys = np.column_stack([sources, turned])
        self.group = np.unique(keys, axis=0, return_inverse=True)[1].ravel()

    # -- looking ---------------------------------------------------------------------------

    def shift(self, scene: Scene) -> np.ndarray | float:
        """(V, 3) by which the shape differs from the fit's."""
        if self.G == 0 or not scene.shape.any():
            return 0.0
        return np.tensordot(scene.shape.astype(np.float32), self.basis, 1)

    def normals(self, shape: np.ndarray) -> dict[int, np.ndarray]:
        """(M, 3) normals of the samples in model axes by view: kept as long as the shape stays."""
        if self._normals is None or not np.array_equal(self._normals[0], shape):
            self._normals = (shape, {})
        return self._normals[1]

    def look(self, scene: Scene, blur_mm: float, views: np.ndarray) -> Look:
        """Visibility and light directions of all samples at a state."""
        N, M = self.N, self.M
        weight = np.zeros((N, M), np.float32)
        basis = np.zeros((N, M, LIGHT), np.float32)
        sigma = np.maximum(blur_mm * self.scale, self.settings.blur_px)
        independent = np.zeros(N)
        triangles = self.fit.model.triangles
        shift = self.shift(scene)
        normals = self.normals(scene.shape)

        def one(n: int) -> None:
            margin = 1.5 * sigma[n] / self.scale[n]
            vertices = self.posed[n] + shift
            if n not in normals:
                normals[n] = vertex_normals(vertices, self.around)[self.samples.index]
            cosine, normal, _ = visible_samples(
                vertices,
                triangles,
                self.samples.index,
                self.fit.K[n],
                scene.R[n],
                scene.t[n],
                margin,
                normals=normals[n],
            )
            # grazing samples are smeared over the skin and show where the outline is, not skin
            squareness = np.clip((cosine - 0.2) / 0.4, 0, 1)
            weight[n] = squareness * self.samples.weight * self.fit.view_weight[n]
            basis[n] = harmonics(normal)
            px2 = float((self.samples.area * cosine * (weight[n] > 0)).sum()) * self.scale[n] ** 2
            count = max(int((weight[n] > 0).sum()), 1)
            # a Gaussian blur leaves one independent value in so many px^2
            independent[n] = min(1.0, px2 / (4 * np.pi * (sigma[n] ** 2 + 0.3)) / count)

        over(one, [n for n in np.flatnonzero(views) if self.pictures.luminance[n] is not None])
        # a point seen once says nothing: its albedo explains it
        weight[:, (weight > 0).sum(0) < 3] = 0.0
        return Look(weight, basis, sigma, independent)

    def read(self, scene: Scene, look: Look, pictures: list) -> Reading:
        """What the pictures show at the samples, all views."""
        shape = (self.N, self.M)
        value, weight = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        gradient, arm = np.zeros((*shape, 3), np.float32), np.zeros((*shape, 3), np.float32)
        moved: np.ndarray | float = 0.0
        if self.G:
            moved = self._directions @ scene.shape.astype(np.float32)

        def one(n: int) -> None:
            rows = np.flatnonzero(look.weight[n])
            Y = (self.points[n] + moved)[rows] @ scene.R[n].T
            X = Y + scene.t[n]
            f = self.fit.K[n, 0, 0]
            v, inside = pictures[n].at(f * X[:, :2] / X[:, 2:] + self.fit.K[n, :2, 2])
            g = np.empty((len(rows), 3), np.float32)
            g[:, :2] = v[:, 1:] * (f / X[:, 2:])
            g[:, 2] = -(g[:, :2] * X[:, :2]).sum(1) / X[:, 2]
            value[n, rows], gradient[n, rows] = v[:, 0], g
            arm[n, rows] = Y - scene.R[n] @ self.middle
            weight[n, rows] = look.weight[n, rows] * inside

        over(one, [n for n in range(self.N) if pictures[n] is not None])
        return Reading(value, gradient, arm, weight)

    def jacobian(
        self, scene: Scene, look: Look, reading: Reading, view: int, rows: np.ndarray
    ) -> np.ndarray:
        """(m, 6 + 9) float32 derivatives of one view's residuals by its pose and its light."""
        g = reading.gradient[view, rows]
        J = np.empty((len(rows), POSE + LIGHT), np.float32)
        J[:, :3] = np.cross(reading.arm[view, rows], g)
        J[:, 3:5] = g[:, :2]
        J[:, 5] = g @ (scene.R[view] @ self.middle + scene.t[view])
        J[:, POSE:] = -look.harmonics[view, rows]
        return J

    # -- disagreement ----------------------------------------------------------------------

    def residuals(
        self, scene: Scene, look: Look, reading: Reading, robust: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Residuals (N, M) against the robust mean over views, their weights, the mean (M,)."""
        w = reading.weight
        light = scene.light.astype(np.float32)
        r = reading.value - (look.harmonics @ light[:, :, None])[..., 0]
        k = w * robust
        mean = (k * r).sum(0) / np.maximum(k.sum(0), 1e-9)
        return (r - mean) * (w > 0), w, mean

    def noise(self, r: np.ndarray, w: np.ndarray) -> np.ndarray:
        """(N,) robust standard deviation of each view's residuals, shrunk to the common one."""
        used = w > 0.1
        typical = 1.48 * float(np.median(np.abs(r[used]))) if used.any() else 0.1
        out = np.full(self.N, typical)
        for n in range(self.N):
            if used[n].sum() > 50:
                own = 1.48 * float(np.median(np.abs(r[n][used[n]])))
                out[n] = np.sqrt(0.7 * own**2 + 0.3 * typical**2)
        return np.maximum(out, self.settings.noise_floor)

    def coherence(self, r: np.ndarray, w: np.ndarray) -> float:
        """How many residuals err together: what light and expression leave is no noise.

        The square of the sum of residuals over a patch of skin, in all views from about one
        direction, is so many times what independent residuals would give.
        """
        groups = np.unique(self.group)
        q = (w * r).astype(np.float64)
        expected = float((q**2).sum())
        together = 0.0
        for group in groups:
            sums = q[self.group == group].sum(0)
            by_cell = np.bincount(self.samples.cell, sums)
            together += float((by_cell**2).sum())
        return max(1.0, together / max(expected, 1e-12))

    def step(
        self,
        scene: Scene,
        look: Look,
        reading: Reading,
        *,
        keep: np.ndarray,
        pose: bool = True,
        move_shape: bool = True,
        state: dict,
    ) -> Scene:
        """One Gauss-Newton step; ``keep`` (M,) are the samples looked at.

        ``reading`` is that of the scene; for a step of the light alone, of its poses and shape.
        """
        N, M, s = self.N, self.M, self.settings
        G = self.G if pose and move_shape else 0
        robust = state.setdefault("robust", np.ones((N, M), np.float32))
        r, w, _ = self.residuals(scene, look, reading, robust)
        w = w * keep
        noise = self.noise(r, w)
        robust = 1.0 / (1.0 + (r / (s.robust * noise[:, None])) ** 2)
        state["robust"], state["noise"] = robust.astype(np.float32), noise
        state["coherence"] = self.coherence(r, w * robust)
        share = np.minimum(look.independent, 1.0 / state["coherence"])
        k = w * robust * (share / noise**2)[:, None]
        k = k.astype(np.float32)
        # against the mean under these very weights
        total = k.sum(0)
        root = 1.0 / np.sqrt(np.maximum(total, 1e-9)).astype(np.float32)
        r -= (k * r).sum(0) / np.maximum(total, 1e-9)
        first = 0 if pose else POSE
        P = POSE + LIGHT - first
        T = N * P + G
        A, b = np.zeros((T, T)), np.zeros(T)
        mean = np.zeros((M, T), np.float32)
        by_point = np.zeros((N, M, 3), np.float32)

        def block(start: int) -> None:
            views = range(start, min(start + BLOCK, N))
            bent = np.zeros((len(views), P, M, 3), np.float32) if G else None
            for i, n in enumerate(views):
                rows = np.flatnonzero(k[n])
                J = self.jacobian(scene, look, reading, n, rows)[:, first:]
                q = k[n, rows, None] * J
                own = slice(n * P, (n + 1) * P)
                A[own, own] = J.T @ q
                b[own] = r[n, rows] @ q
                mean[rows, own] = q
                if bent is not None:
                    h = reading.gradient[n, rows] @ scene.R[n].astype(np.float32)
                    by_point[n, rows] = h
                    bent[i][:, rows] = q.T[:, :, None] * h
            if bent is not None:
                own = slice(views.start * P, views.stop * P)
                A[own, N * P :] = bent.reshape(-1, 3 * M) @ self._directions.reshape(3 * M, G)

        over(block, range(0, N, BLOCK))
        if G:
            # a view knows of the shape only how its points move: sum over views before the
            # directions come in
            weighted = k[..., None] * by_point
            Q = np.einsum("nmi,nmj->mij", weighted, by_point)
            D = self._directions.reshape(3 * M, G)
            A[N * P :, N * P :] = D.T @ (Q @ self._directions).reshape(3 * M, G)
            b[N * P :] = (r[..., None] * weighted).sum(0).ravel() @ D
            mean[:, N * P :] = (weighted.sum(0)[:, None] @ self._directions)[:, 0]
        A[N * P :, : N * P] = A[: N * P, N * P :].T
        mean *= root[:, None]
        A -= _gram(mean)
        # priors couple one unknown over all views
        for j in range(first, POSE + LIGHT):
            rows = np.arange(N) * P + (j - first)
            precision = self.prior[j]
            value = scene.change[:, j] if j < POSE else scene.light[:, j - POSE]
            A[np.ix_(rows, rows)] += precision
            b[rows] += precision @ value
        if pose and self.settings.motion:
            self._add_motion(scene, A, b, P)
        if G:
            # errors that all views share do not average: the data are worth less than they look
            state["trust"] = trust = min(1.0, s.shape_trust / float(np.median(noise)))
            A[N * P :, N * P :] += np.eye(G) / trust
            b[N * P :] += scene.shape / trust
        state["normal"] = A
        x = -np.linalg.solve(A, b)
        y = x[: N * P].reshape(N, P)
        light = scene.light + y[:, POSE - first :]
        if not pose:
            return replace(scene, light=light)
        move = y[:, :POSE].copy()
        # a linear model of the picture holds for about a blur's width
        reach = 1.5 * look.sigma / self.scale
        size = np.linalg.norm(np.concatenate([60 * move[:, :3], move[:, 3:5]], 1), axis=1)
        move *= np.minimum(1.0, reach / np.maximum(size, 1e-9))[:, None]
        c = scene.R @ self.middle + scene.t
        turn = so3_exp(move[:, :3])
        new_c = c * np.exp(packed(move[:, 5:6]))
        new_c[:, :2] += move[:, 3:5]
        R = turn @ scene.R
        return Scene(
            R=R,
            t=new_c - R @ self.middle,
            change=scene.change + move,
            light=light,
            shape=scene.shape + np.clip(x[N * P :], -1.0, 1.0) if G else scene.shape,
        )

    def _add_motion(self, scene: Scene, A: np.ndarray, b: np.ndarray, P: int) -> None:
        """What is known of how heads move, into the normal equations."""
        s = self.settings
        depth = (scene.R @ self.middle + scene.t)[:, 2:]
        path = np.log(np.maximum(depth, 1e-6))
        least = [np.radians(s.motion_degrees)] * 3 + [s.motion_mm / np.median(depth)]
        # Shifts across are free: a camera may shake, and pictures show where a face is.
        precision, gradient = self.motion.terms(scene.R, path, np.array(least))
        for k, j in enumerate((0, 1, 2, 5)):
            rows = np.arange(self.N) * P + j
            A[np.ix_(rows, rows)] += precision[k]
            b[rows] += gradient[k]

    def start(self) -> Scene:
        """The fit as it came, with no light."""
        N = self.N
        return Scene(
            self.fit.R, self.fit.t, np.zeros((N, POSE)), np.zeros((N, LIGHT)), np.zeros(self.G)
        )

    def blurred(self, look: Look, views: np.ndarray) -> list:
        """Pictures of some views at the blur of a look."""
        return over(
            lambda n: self.pictures.blurred(n, float(look.sigma[n])) if views[n] else None,
            range(self.N),
        )

    def run(
        self,
        scene: Scene,
        blurs_mm,
        views: np.ndarray,
        keep: np.ndarray,
        tick: Callable[[], None],
        *,
        state: dict | None = None,
        move_shape: bool = True,
    ) -> Scene:
        """Steps from coarse to fine; visibility is looked up twice at each blur.

        ``state``, where given, receives robust weights, noise and the last normal matrix.
        """
        state = {} if state is None else state
        for blur in blurs_mm:
            state.clear()
            for k in range(self.settings.iterations):
                if k in (0, 2):
                    look = self.look(scene, blur, views)
                    pictures = self.blurred(look, views)
                reading = self.read(scene, look, pictures)
                scene = self.step(
                    scene, look, reading, keep=keep, state=state, move_shape=move_shape
                )
                tick()
        return scene

    def settled(
        self, scene: Scene, views: np.ndarray, train: np.ndarray, test_views: np.ndarray
    ) -> tuple[np.ndarray, float]:
        """`held_out` in some views after poses have settled on all of them, the shape held."""
        scene = self.run(
            scene, self.settings.blur_mm[-1:], views, train, lambda: None, move_shape=False
        )
        r, agreement = self.held_out(scene, views, 1 - train, train)
        return np.where(test_views[:, None], r, np.nan), agreement

    def held_out(
        self, scene: Scene, views: np.ndarray, test: np.ndarray, train: np.ndarray
    ) -> tuple[np.ndarray, float]:
        """Residuals (N, M) of held-out samples at the finest blur, and how far views agree.

        Agreement is the median over views of the correlation between what a view shows of the
        held-out samples, its light taken off, and what the others show.
        """
        r, correlation = self._judged(scene, views, test, train)
        good = np.isfinite(correlation)
        return r, float(np.median(correlation[good])) if good.any() else 0.0

    def agreement(
        self, scene: Scene, views: np.ndarray, test: np.ndarray, train: np.ndarray
    ) -> np.ndarray:
        """(N,) correlation of each view with the others on held-out samples; NaN where unseen."""
        return self._judged(scene, views, test, train)[1]

    def _judged(self, scene, views, test, train) -> tuple[np.ndarray, np.ndarray]:
        look = self.look(scene, self.settings.blur_mm[-1], views)
        reading = self.read(scene, look, self.blurred(look, views))
        return self.spread(scene, look, reading, test, train)

    def spread(
        self, scene: Scene, look: Look, reading: Reading, test: np.ndarray, train: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Residuals (N, M) of held-out samples, light found on the others; NaN where unseen.

        Also the correlation (N,) of each view with the others there, NaN where too little is seen.
        """
        scene = replace(scene, light=np.zeros_like(scene.light))
        state: dict = {}
        for _ in range(3):
            scene = replace(
                scene,
                light=self.step(scene, look, reading, keep=train, pose=False, state=state).light,
            )
        ones = np.ones((self.N, self.M), np.float32)
        r, w, _ = self.residuals(scene, look, reading, ones)
        robust = 1 / (1 + (r / (3 * self.noise(r, w)[:, None])) ** 2)
        r, w, mean = self.residuals(scene, look, reading, robust)
        used = (w > 0.1) & (test > 0)
        correlation = np.full(self.N, np.nan)
        weight = w * robust
        total = weight.sum(0)
        for n in range(self.N):
            if used[n].sum() > 20:
                k = used[n]
                # r = x - mean and mean holds x: without it, x - others = r / (1 - share)
                share = np.minimum(weight[n, k] / np.maximum(total[k], 1e-9), 0.8)
                own = mean[k] + r[n, k]
                others = own - r[n, k] / (1 - share)
                if own.std() > 0 and others.std() > 0:
                    correlation[n] = np.corrcoef(own, others)[0, 1]
        return np.where(used, r, np.nan), correlation


def _gram(X: np.ndarray) -> np.ndarray:
    """X' X (T, T) of (M, T), in tiles of one size whatever the number of threads."""
    T = X.shape[1]
    out = np.empty((T, T), X.dtype)
    tiles = [slice(i, min(i + TILE, T)) for i in range(0, T, TILE)]

    def one(pair: tuple[slice, slice]) -> None:
        rows, columns = pair
        product = X[:, rows].T @ X[:, columns]
        out[rows, columns], out[columns, rows] = product, product.T

    over(one, [(a, b) for i, a in enumerate(tiles) for b in tiles[: i + 1]])
    return out


def _prior_precision(
    fit: FaceFit, settings: DenseSettings, times: np.ndarray, shots: np.ndarray
) -> np.ndarray:
    """(15, N, N) inverse covariances over views of each unknown of a view.

    Landmark poses err alike at like turns of the head (a bias, a slope and a curvature over yaw, a
    slope over pitch),
    alike in neighbouring frames, and a little by themselves. Light is the same for all views of a
    shot but for a small change; exposure is anything.
    """
    N = len(fit.R)
    angles = head_angles(fit.R)
    yaw, pitch = angles[:, 0] / 45.0, (angles[:, 1] - np.median(angles[:, 1])) / 20.0
    ones = np.ones((N, N))
    same = (shots[:, None] == shots[None]).astype(float)
    near = np.exp(-np.abs(times[:, None] - times[None]) / settings.correlation_s) * same
    law = np.outer(yaw, yaw) + np.outer(yaw**2, yaw**2) + np.outer(pitch, pitch)
    out = np.empty((POSE + LIGHT, N, N))
    s = settings
    for j in range(POSE):
        if j < 3:
            bias, slope, own = np.radians([s.rotation_bias, s.rotation_law, s.rotation_own])
        elif j < 5:
            bias, slope, own = s.shift_bias, s.shift_law, s.shift_own
        else:
            bias, slope, own = s.distance_bias, s.distance_law, s.distance_own
        covariance = bias**2 * ones + slope**2 * law + own**2 * (0.8 * near + 0.2 * np.eye(N))
        out[j] = np.linalg.inv(covariance)
    for j in range(LIGHT):
        common, own = (s.light, s.light_change) if j < 4 else (s.light / 2, s.light_change / 2)
        covariance = common**2 * same + own**2 * np.eye(N)
        if j == 0:
            covariance = np.eye(N)
        out[POSE + j] = np.linalg.inv(covariance)
    return out


# -- the stage -------------------------------------------------------------------------------


def refine_fit(
    fit: FaceFit,
    track: FaceTrack,
    settings: DenseSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FaceFit:
    """Refine poses, then shape, on the pictures of the views; keep what held-out skin confirms.

    Poses are found on four fifths of the skin's patches and must make most views agree better with
    the others on the other fifth. Where they agree less than they might, poses are found again
    with another fifth held out, and the best are kept. Views whose pose went astray start again
    from those around them (`recon3d.fitting.strays`), and are rejected where that does not help.
    Shape is found on four fifths of the views and must make the others agree better with them,
    poses refined alike. What fails is left as it was; ``info["dense"]`` says so. Poses are those
    found together with the shape even where it is refused, unless it made the others agree worse.

    Parameters
    ----------
    fit : FaceFit
        Of the landmarks.
    track : FaceTrack
        Views without a patch are left as they are.
    settings : DenseSettings, optional
    progress : callable, optional
        Called with (done, total) steps.

    Returns
    -------
    FaceFit

    References
    ----------
    .. [1] G. Golub, V. Pereyra, Separable nonlinear least squares: the variable projection method
       and its applications, Inverse Problems 19, 2003.
    """
    started = clock.perf_counter()
    settings = settings or DenseSettings()
    info: dict = {"pose": False, "shape": False}

    def done(result: FaceFit) -> FaceFit:
        info["seconds"] = clock.perf_counter() - started
        return replace(result, info={**result.info, "dense": info})

    pictures = Pictures(track)
    usable = np.array([p is not None for p in pictures.luminance]) & (fit.view_weight > 0)
    turn = _turn(fit.R[usable])
    info["turn_degrees"] = turn
    if usable.sum() < settings.min_views or turn < settings.min_turn:
        info["reason"] = "too few views, or too little turn between them, to tell shape from skin"
        return done(fit)
    rng = np.random.default_rng(0)
    samples = choose_samples(fit.model, settings.samples, rng)
    times = np.array([v.time for v in track.views])
    sources, shots = np.array([v.source for v in track.views]), track.shots
    steps = settings.iterations * len(settings.blur_mm)
    # where there is less to do than there may be, the progress leaps
    again = 0 if settings.stray_ratio is None else len(STARTS)
    total, count = steps * (settings.starts + again + (2 if settings.shape else 0)), 0

    def tick() -> None:
        nonlocal count
        count += 1
        if progress is not None:
            progress(min(count, total), total)

    problem = Alignment(fit, pictures, samples, settings, times, sources, shots)
    before = problem.start()
    best = None
    for attempt in range(settings.starts):
        train = (samples.cell % 5 != attempt).astype(np.float32)
        found = problem.run(before, settings.blur_mm, usable, train, tick)
        _, agreement = problem.held_out(found, usable, 1 - train, train)
        if best is None or agreement > best[0]:
            best = agreement, found, train
        if best[0] >= settings.starts_until:
            break
    count = steps * settings.starts
    _, after, train = best
    lost = np.zeros(len(usable), bool)
    if settings.stray_ratio is not None:
        after, lost = start_again(problem, after, usable, train, times, shots, tick)
        count = steps * (settings.starts + again)
    new, agreement = problem.held_out(after, usable & ~lost, 1 - train, train)
    old, agreement_old = problem.held_out(before, usable & ~lost, 1 - train, train)
    verdict = compare(old, new, None, settings.margin, settings.sure)
    info.update(
        spread_before=verdict.before,
        spread_after=verdict.after,
        agreement_before=agreement_old,
        agreement=agreement,
        starts=attempt + 1,
    )
    if not verdict.better or agreement < settings.agreement:
        info["reason"] = "held-out skin is not explained better than by the landmarks"
        return done(fit)
    info["pose"] = True
    info["lost_views"] = int(lost.sum())
    if lost.any():
        usable = usable & ~lost
        fit = _without(fit, lost)
    if not settings.shape:
        return done(with_poses(fit, after.R, after.t))

    # shape, from four fifths of the views
    basis = shape_basis_of(fit, settings)
    problem = Alignment(fit, pictures, samples, settings, times, sources, shots, basis.fields)
    fifth = np.zeros(len(usable), bool)
    fifth[np.flatnonzero(usable)[2::5]] = True
    everything = np.ones_like(train)
    fine = settings.blur_mm[-2:]
    start = replace(after, shape=np.zeros(problem.G))
    shaped = problem.run(start, fine, usable & ~fifth, everything, tick)
    # both shapes may settle on all views before they are compared on those held out
    old, agreement_old = problem.settled(start, usable, train, fifth)
    new, agreement = problem.settled(replace(start, shape=shaped.shape), usable, train, fifth)
    verdict = compare(old, new, samples.cell, settings.shape_margin, settings.shape_sure)
    info.update(shape_spread_before=verdict.before, shape_spread_after=verdict.after)
    if not verdict.better:
        info["reason"] = "held-out views are not explained better by the new shape"
    if not verdict.after <= (1 + settings.margin) * verdict.before:
        return done(with_poses(fit, after.R, after.t))
    state: dict = {}
    final = problem.run(shaped, fine[-1:], usable, everything, tick, state=state)
    if not verdict.better:
        # A wrong shape bends the poses that are found on it. Where it might give they are nearer
        # the truth, though how it gave is not to be believed.
        return done(with_poses(fit, final.R, final.t))
    info["shape"] = True
    covariance = _shape_covariance(problem, state)
    info["shape_trust"] = state["trust"]
    info["coherence"] = state["coherence"]
    info["shape_information"] = float(problem.G - np.trace(covariance))
    result = basis.apply(fit, final.shape, covariance)
    return done(follow(fit, replace(result, R=final.R, t=final.t)))


def align_shape(fit: FaceFit, track: FaceTrack, settings: DenseSettings | None = None) -> FaceFit:
    """The shape stage alone, from coarse to fine on all views, without a gate.

    For measuring it: hand in a fit with true cameras and settings that keep them.

    Parameters
    ----------
    fit : FaceFit
    track : FaceTrack
    settings : DenseSettings, optional

    Returns
    -------
    FaceFit
    """
    settings = settings or DenseSettings()
    pictures = Pictures(track)
    usable = np.array([p is not None for p in pictures.luminance]) & (fit.view_weight > 0)
    samples = choose_samples(fit.model, settings.samples, np.random.default_rng(0))
    times = np.array([v.time for v in track.views])
    sources, shots = np.array([v.source for v in track.views]), track.shots
    basis = shape_basis_of(fit, settings)
    problem = Alignment(fit, pictures, samples, settings, times, sources, shots, basis.fields)
    state: dict = {}
    everything = np.ones(problem.M, np.float32)
    scene = problem.run(
        problem.start(), settings.blur_mm, usable, everything, lambda: None, state=state
    )
    result = basis.apply(fit, scene.shape, _shape_covariance(problem, state))
    return follow(fit, replace(result, R=scene.R, t=scene.t))


def _shape_covariance(problem: Alignment, state: dict) -> np.ndarray:
    """(G, G) what remains unknown of the shape: the tempered normal matrix, scaled back."""
    return np.linalg.inv(state["normal"])[-problem.G :, -problem.G :] / state["trust"]


@dataclass(frozen=True)
class DenseBasis:
    """Directions in which the shape may move, each of unit normal coefficient.

    Attributes
    ----------
    fields : (G, V, 3) float32, mm
    identity : (I, J) identity coefficients by the first J coefficients
    """

    fields: np.ndarray
    identity: np.ndarray

    def apply(self, fit: FaceFit, shape: np.ndarray, covariance: np.ndarray) -> FaceFit:
        """The fit with another shape and what remains unknown of it."""
        J = self.identity.shape[1]
        prior = surface_variance(self.fields[:J], fit.model)
        extra = surface_variance(self.fields[J:], fit.model)
        # what no model reproduces is in part what the displacement now explains
        rest = np.maximum(fit.uncertainty**2 - prior, 0.0)
        rest = np.maximum(rest - extra, 0.25 * rest)
        root = np.linalg.cholesky(covariance + 1e-12 * np.eye(len(covariance)))
        rows = np.tensordot(root.T, self.fields.astype(np.float64), 1)
        return replace(
            fit,
            identity=fit.identity + self.identity @ shape[:J],
            displacement=fit.displacement + np.tensordot(shape[J:], self.fields[J:], 1),
            uncertainty=np.sqrt(surface_variance(rows, fit.model) + rest),
            identity_covariance=fit.identity_covariance
            + self.identity @ (covariance[:J, :J] - np.eye(J)) @ self.identity.T,
        )


def shape_basis_of(fit: FaceFit, settings: DenseSettings) -> DenseBasis:
    """Identity as far as landmarks leave it open, and a smooth displacement of the skin.

    The displacement is a Gaussian process on the surface [1]_ along the mean face's normals (slid
    along the surface, skin looks the same to every view), by its largest modes, in Nystroem's
    approximation.

    References
    ----------
    .. [1] M. Luethi et al., Gaussian process morphable models, IEEE TPAMI 40, 2018.
    """
    model = fit.model
    values, vectors = np.linalg.eigh(fit.identity_covariance)
    keep = values > 1e-4 * max(float(values.max()), 1e-12)
    identity = vectors[:, keep] * np.sqrt(values[keep])
    fields = np.tensordot(identity.T.astype(np.float32), model.identity, 1)
    same = _without_size(fields, model)
    identity = identity @ same
    fields = np.tensordot(same.T.astype(np.float32), fields, 1)
    if settings.displacement_mm > 0 and settings.displacement_modes:
        fields = np.concatenate([fields, _kept_displacement_modes(model, settings)])
    return DenseBasis(np.ascontiguousarray(fields, np.float32), identity)


def _without_size(fields: np.ndarray, model: FaceModel) -> np.ndarray:
    """(G, G - 1) orthonormal mixtures of (G, V, 3) fields that leave the face's size alone.

    Pictures do not tell a small face nearby from a large one far away.
    """
    face = np.asarray(model.regions.get("face", np.ones(model.n_vertices)), np.float64)
    middle = np.average(model.mean, axis=0, weights=face)
    radial = (model.mean - middle) * face[:, None]
    size = np.tensordot(fields.astype(np.float64), radial, 2)
    _, _, rows = np.linalg.svd(size[None])
    return rows[1:].T


_KEPT: dict[str, tuple] = {}


def _kept_displacement_modes(model: FaceModel, settings: DenseSettings) -> np.ndarray:
    """`_displacement_modes`, remembered for the model and the settings that were used last: they
    are the same for everybody."""
    key = settings.displacement_mm, settings.displacement_length, settings.displacement_modes
    # Read and written whole, so that threads that fit at once do not mix theirs.
    kept = _KEPT.get("last")
    if kept is None or kept[0] is not model or kept[1] != key:
        kept = model, key, _displacement_modes(model, settings)
        _KEPT["last"] = kept
    return kept[2]


def _displacement_modes(model: FaceModel, settings: DenseSettings) -> np.ndarray:
    """(D, V, 3) modes along the normals, scaled to standard deviation, zero outside the face; none
    changes the face's size."""
    rng = np.random.default_rng(0)
    mean = model.mean
    face = np.clip(np.asarray(model.regions.get("face", np.ones(model.n_vertices))), 0, 1)
    inside = np.flatnonzero(face > 0.5)
    chosen = rng.choice(inside, min(400, len(inside)), replace=False)

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        d2 = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
        return settings.displacement_mm**2 * np.exp(-0.5 * d2 / settings.displacement_length**2)

    values, vectors = np.linalg.eigh(kernel(mean[chosen], mean[chosen]))
    order = np.argsort(values)[::-1][: settings.displacement_modes]
    order = order[values[order] > 1e-6 * values.max()]
    modes = kernel(mean, mean[chosen]) @ (vectors[:, order] / np.sqrt(values[order]))
    normals = vertex_normals(mean, model.triangles)
    modes = ((modes * face[:, None]).T[:, :, None] * normals).astype(np.float32)
    same = _without_size(modes, model).astype(np.float32)
    out = np.tensordot(same.T, modes, 1)
    out.setflags(write=False)
    return out


def _turn(R: np.ndarray) -> float:
    """Largest angle between views, degrees, without the fortieth part at either end."""
    if len(R) < 2:
        return 0.0
    # the face's direction in the camera, about its mean
    forward = R[:, :, 2]
    middle = forward.mean(0)
    middle /= max(float(np.linalg.norm(middle)), 1e-9)
    across = forward - (forward @ middle)[:, None] * middle
    _, _, axes = np.linalg.svd(across - across.mean(0), full_matrices=False)
    angle = np.degrees(np.arctan2(across @ axes[0], forward @ middle))
    low, high = np.quantile(angle, [0.025, 0.975])
    return float(high - low)


@dataclass(frozen=True)
class Verdict:
    """Whether held-out residuals fell.

    Attributes
    ----------
    better : bool
    before, after : float, median absolute residuals, log light
    """

    better: bool
    before: float
    after: float


def compare(
    old: np.ndarray, new: np.ndarray, cell: np.ndarray | None, margin: float, sure: float = 2.0
) -> Verdict:
    """Compare held-out residuals of two states where both see the skin.

    What all views have in common, their shape, is judged by patches of skin; poses are each view's
    own, and judged by views: there, one patch that a shadow crosses must not outvote the others.

    Parameters
    ----------
    old, new : (N, M), NaN where not seen
    cell : (M,) int, or None
        Patches of skin: what is counted as independent. None to count views.
    margin : float
        Share by which the median absolute residual must fall.
    sure : float
        By how many of its standard errors the mean gain of the patches must be above zero; for
        views, by how many of a coin's the share of those that gain must be above a half.
    """
    both = np.isfinite(old) & np.isfinite(new)
    if both.sum() < 50:
        return Verdict(False, float("nan"), float("nan"))
    a, b = np.abs(np.where(both, old, 0)), np.abs(np.where(both, new, 0))
    before, after = float(np.median(a[both])), float(np.median(b[both]))
    limit = 4 * before
    gain = np.where(both, np.minimum(a, limit) - np.minimum(b, limit), 0)
    if cell is None:
        by_view = gain.sum(1)[both.any(1)]
        agreed = np.mean(by_view > 0) > 0.5 + sure * 0.5 / np.sqrt(len(by_view))
    else:
        by_cell = np.bincount(cell, gain.sum(0))[np.unique(cell[both.any(0)])]
        # a sign of chance: patches must agree that it got better
        agreed = by_cell.mean() > sure * by_cell.std() / np.sqrt(len(by_cell))
    return Verdict(bool(after < (1 - margin) * before and agreed), before, after)


def _without(fit: FaceFit, lost: np.ndarray) -> FaceFit:
    """The fit with some views (N,) bool rejected, as if landmarks had shown it."""
    weight = np.where(lost, 0.0, fit.view_weight)
    return replace(
        fit,
        view_weight=weight,
        weights=np.where(lost[:, None], 0.0, fit.weights),
        residuals=np.where(lost[:, None, None], np.nan, fit.residuals),
        info={**fit.info, "views_rejected": int((weight <= 0).sum())},
    )
