"""Variance of a surface along its normals, on fields whose answer is known."""

import numpy as np

from recon3d.fitting.uncertainty import surface_variance
from recon3d.geometry import vertex_normals
from recon3d.morphable import load_model


def test_motion_of_the_whole_face_is_no_uncertainty_of_its_shape():
    model = load_model("recon3d")
    mean = model.mean.astype(np.float64)
    moves = np.stack([np.ones_like(mean), np.cross([0.1, -0.2, 0.05], mean), 0.1 * mean])
    assert surface_variance(moves, model).max() < 1e-12


def test_a_bump_counts_along_the_normal_only():
    model = load_model("recon3d")
    mean = model.mean.astype(np.float64)
    normals = vertex_normals(mean, model.triangles)
    tip = mean[np.argmax(mean[:, 2])]
    bump = np.exp(-((mean - tip) ** 2).sum(1) / (2 * 8.0**2))[:, None]
    along = np.cross(normals, [0.0, 1.0, 0.0])
    out, slid = (surface_variance(2.0 * (bump * d)[None], model) for d in (normals, along))
    top = int(np.argmax(bump))
    assert 2.5 < out[top] < 4.01
    assert slid[top] < 0.1
    # independent fields add up
    both = surface_variance(np.stack([2.0 * bump * normals, 2.0 * bump * normals]), model)
    assert np.allclose(both, 2 * out)
