"""Limits that all rasterisers share."""

DEFAULT_NEAR = 1e-2
"""Nearest depth that is drawn, in units of the vertices (mm)."""

MIN_AREA = 1e-5
"""Doubled projected area (px^2) below which a triangle counts as degenerate. It would hit a pixel
centre by accident only, and the gradient of its barycentric coordinates grows like 1 / area."""

MAX_STEPS = 64
"""Triangles walked over between two pixel centres in search of an outline before giving up."""
