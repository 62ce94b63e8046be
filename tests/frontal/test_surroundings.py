from types import SimpleNamespace

import numpy as np

from recon3d.frontal.surroundings import RIM, continued_depth, rank_views
from recon3d.geometry import head_rotation


def bowl(side=256):
    """A sphere's front: its depth falls away ever faster towards its outline."""
    y, x = np.mgrid[:side, :side] + 0.5 - side / 2
    inside = np.hypot(x, y) < 80
    depth = np.where(inside, 1000 - np.sqrt(np.maximum(80.0**2 - x**2 - y**2, 0)), 0)
    return depth.astype(np.float32), inside


def test_depth_goes_over_into_what_lies_around_without_a_step():
    depth, inside = bowl()
    row = continued_depth(depth, inside, RIM)[128]
    steps = np.abs(np.diff(row))
    assert steps.max() < 2.5  # mm; the outline itself is steeper
    assert np.abs(np.diff(continued_depth(depth, inside)[128])).max() > 2 * steps.max()


def test_depth_within_the_rim_is_the_surface_s():
    depth, inside = bowl()
    found = continued_depth(depth, inside, RIM)
    y, x = np.mgrid[:256, :256] + 0.5 - 128
    deep = np.hypot(x, y) < 80 - RIM - 3
    np.testing.assert_allclose(found[deep], depth[deep], atol=1e-3)
    assert np.isfinite(found).all()


def test_the_main_frame_is_the_one_seen_from_the_front_not_the_one_along_the_axis():
    # The head stands beside the camera's axis both times: first it looks along the axis, then at
    # the camera.
    view = SimpleNamespace(patch=object(), quality=0.5, face_width=60.0)
    fit = SimpleNamespace(
        R=np.stack([head_rotation(0, 0, 0), head_rotation(-20, 0, 0)]),
        t=np.array([[364.0, 0, 1000], [364.0, 0, 1000]]),
        view_weight=np.ones(2),
        expression=np.zeros((2, 3)),
    )
    worth = rank_views(SimpleNamespace(views=[view, view]), fit)
    assert worth[1] > 3 * worth[0] > 0
