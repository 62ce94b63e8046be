import numpy as np

from recon3d.frontal.surroundings import RIM, continued_depth


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
