"""The sRGB curve and the shape checks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon3d.checks import check_shape
from recon3d.colour import linear_to_srgb, srgb_to_linear, to_uint8
from recon3d.errors import Recon3DError, ShapeError


@settings(deadline=None)
@given(st.floats(0, 1))
def test_curve_and_its_inverse(value):
    x = np.float32(value)
    assert linear_to_srgb(srgb_to_linear(x)) == pytest.approx(x, abs=2e-6)


def test_all_bytes_survive():
    bytes_ = np.arange(256, dtype=np.uint8)
    assert (to_uint8(linear_to_srgb(srgb_to_linear(bytes_))) == bytes_).all()


def test_known_values():
    # IEC 61966-2-1: mid grey 0.5 decodes to 0.2140; the straight part below 0.04045.
    assert srgb_to_linear(np.float32(0.5)) == pytest.approx(0.21404, abs=1e-5)
    assert srgb_to_linear(np.float32(0.04)) == pytest.approx(0.04 / 12.92)
    assert srgb_to_linear(np.array([0, 255], np.uint8)).tolist() == [0.0, 1.0]


def test_encoding_clips_and_rises():
    assert linear_to_srgb(np.array([-1.0, 2.0])) == pytest.approx([0.0, 1.0], abs=1e-6)
    assert (np.diff(linear_to_srgb(np.linspace(0, 1, 1000))) > 0).all()
    assert to_uint8(np.array([-0.2, 0.5, 1.7])).tolist() == [0, 128, 255]


def test_patterns_bind_letters():
    assert check_shape(np.zeros((5, 3)), "N 3", "x") == {"N": 5}
    assert check_shape(np.zeros((2, 7, 5, 3)), "... N 3", "x") == {"N": 5}
    assert check_shape(np.zeros((4, 4)), "N N", "x") == {"N": 4}


@pytest.mark.parametrize(
    ("shape", "pattern"), [((5, 2), "N 3"), ((5,), "N 3"), ((4, 5), "N N"), ((3,), "... N 3")]
)
def test_wrong_shapes_say_what_they_are(shape, pattern):
    with pytest.raises(ShapeError, match="thing has shape") as caught:
        check_shape(np.zeros(shape), pattern, "thing")
    assert str(shape) in str(caught.value)
    assert isinstance(caught.value, Recon3DError) and isinstance(caught.value, ValueError)
