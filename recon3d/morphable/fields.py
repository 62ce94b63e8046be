"""Smooth fields on the control mesh: spread given displacements over the surface."""

from __future__ import annotations

import numpy as np

from recon3d.geometry import cotangent_laplacian, graph_laplacian


class FieldSpreader:
    """Spreads displacements of some points smoothly over a mesh.

    Minimises a blend of thin-plate and membrane energy along the surface, so that the upper lip
    does not follow the lower one although it lies next to it.

    Parameters
    ----------
    vertices : (V, 3) mm
    triangles : (F, 3) int
    stiffness : float
        Weight of the membrane term relative to the thin plate, 1 / mm^2: the higher, the more
        local the field.
    """

    def __init__(self, vertices: np.ndarray, triangles: np.ndarray, *, stiffness: float = 0.002):
        from scipy.sparse import diags

        L, mass = cotangent_laplacian(vertices, triangles)
        graph = graph_laplacian(triangles, len(vertices))
        # Cotangents alone are unstable on slivers; the graph term bounds them.
        L = L + 0.1 * graph
        self._energy = (
            L @ diags(1 / np.maximum(mass, mass.mean() * 0.1)) @ L + stiffness * L
        ).tocsr()
        self._n = len(vertices)

    def spread(self, points: np.ndarray, displacement: np.ndarray) -> np.ndarray:
        """The smoothest field with given values.

        Parameters
        ----------
        points : (M,) int, constrained vertices
        displacement : (M, D)

        Returns
        -------
        (V, D)
        """
        from scipy.sparse.linalg import spsolve

        points = np.asarray(points)
        points, first = np.unique(points, return_index=True)
        value = np.asarray(displacement, np.float64)[first]
        free = np.setdiff1d(np.arange(self._n), points)
        out = np.zeros((self._n, value.shape[1]))
        out[points] = value
        if len(free):
            rhs = -(self._energy[free][:, points] @ value)
            out[free] = spsolve(self._energy[free][:, free].tocsc(), rhs).reshape(len(free), -1)
        return out


def symmetrise(positions: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Mean of a shape (or odd field) and its mirror image in x = 0, (..., V, 3)."""
    return (positions + positions[..., mirror, :] * [-1.0, 1.0, 1.0]) / 2


def reflect(field: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Mirror image in x = 0 of a shape or displacement field, (..., V, 3)."""
    return field[..., mirror, :] * [-1.0, 1.0, 1.0]
