"""How heads move: smoothly, whatever single pictures say."""

from __future__ import annotations

import numpy as np

from recon3d.geometry import so3_log


class _Third:
    """Third derivatives of what some views show, in units of what noise of density one makes.

    Parameters
    ----------
    times : (N,) s
    four : (Q, 4) int
        Views of each derivative, in order of time.
    """

    def __init__(self, times: np.ndarray, four: np.ndarray):
        pairs = np.stack([four[:, :-1], four[:, 1:]], -1).reshape(-1, 2)
        self.pairs, at = np.unique(pairs, axis=0, return_inverse=True)
        a, b, c = np.diff(times[four], axis=1).T
        first, second, third = 2 / (a + b), 2 / (b + c), 3 / (a + b + c)
        weights = np.stack([first / a, -(first + second) / b, second / c], 1) * third[:, None]
        # The variance of a third divided difference of even steps, neighbours apart.
        weights /= np.sqrt(0.55 * third)[:, None]
        self.of_steps = np.zeros((len(four), len(self.pairs)))
        np.put_along_axis(self.of_steps, at.reshape(-1, 3), weights, 1)
        steps = np.zeros((len(self.pairs), len(times)))
        np.put_along_axis(steps, self.pairs[:, :1], -1.0, 1)
        np.put_along_axis(steps, self.pairs[:, 1:], 1.0, 1)
        self.of_values = self.of_steps @ steps

    def __call__(self, R: np.ndarray, path: np.ndarray) -> np.ndarray:
        """(Q, 3 + D) of rotations (N, 3, 3), in radians, and of values (N, D)."""
        i, j = self.pairs.T
        turns = so3_log(R[j] @ R[i].transpose(0, 2, 1))
        return np.column_stack([self.of_steps @ turns, self.of_values @ path])


class Motion:
    """A prior on a head's path: what changes its acceleration is white noise.

    That is the smoothing spline of degree five as a signal driven by integrated white noise [1]_.
    How much is smoothed goes with the sixth root of the density of that noise: at 600 degrees /
    s^2.5, a path seen 25 times a second to within 3 degrees is smoothed above 1.5 Hz, one seen to
    within half a degree above 3 Hz. Heads differ by more than that in how they move, so the density
    is taken from the path at hand, at strides over which motion outweighs the noise.

    Parameters
    ----------
    times : (N,) s
    shots : (N,) int
        Views of different shots have nothing to do with each other.
    gap : float
        Neighbours further apart than this are not tied, s.
    stride : float
        Time between views that the density is measured with, s.

    References
    ----------
    .. [1] G. Wahba, Improper priors, spline smoothing and the problem of guarding against model
       errors in regression, JRSS B 40(3), 1978.
    """

    def __init__(self, times: np.ndarray, shots: np.ndarray, gap: float, stride: float):
        near, far = [np.zeros((0, 4), int)], [np.zeros((0, 4), int)]
        for name in np.unique(shots):
            order = np.flatnonzero(shots == name)
            order = order[np.argsort(times[order], kind="stable")]
            between = np.diff(times[order])
            if len(order) < 4:
                continue
            tied = (between > 0) & (between <= gap)
            stretch = np.concatenate([[0], np.cumsum(~tied)])
            wide = int(np.clip(round(stride / np.median(between)), 1, (len(order) - 1) // 3))
            for kept, k in ((near, 1), (far, wide)):
                first = np.arange(len(order) - 3 * k)
                whole = stretch[first] == stretch[first + 3 * k]
                kept.append(order[first[whole, None] + k * np.arange(4)])
        self._near = _Third(times, np.concatenate(near))
        self._far = _Third(times, np.concatenate(far))

    def terms(
        self, R: np.ndarray, path: np.ndarray, least: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Normal equations for small changes of a path.

        Parameters
        ----------
        R : (N, 3, 3)
        path : (N, D)
            What else moves.
        least : (3 + D,)
            Least roots of the densities: radians / s^2.5, units / s^2.5.

        Returns
        -------
        precision : (3 + D, N, N)
        gradient : (3 + D, N)
        """
        root = np.broadcast_to(least, (3 + path.shape[1],))
        if len(self._far.of_values):
            root = np.maximum(np.sqrt((self._far(R, path) ** 2).mean(0)), root)
        D = self._near.of_values
        found = self._near(R, path) / root**2
        return (D.T @ D) / root[:, None, None] ** 2, (D.T @ found).T
