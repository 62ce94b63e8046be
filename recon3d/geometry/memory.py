"""Where arrays lie in memory, as far as it shows in a result."""

from __future__ import annotations

import numpy as np


def packed(values: np.ndarray) -> np.ndarray:
    """A copy without gaps of a column or another strided view, for exp, log and angles.

    NumPy computes them with vector instructions unless the result might overlap the argument,
    which it takes a strided view to reach a stride past its end for. A result that happens to be
    allocated just behind then comes from the C library and differs in the last bit: the same
    input would not always give the same bytes.

    Parameters
    ----------
    values : (...)

    Returns
    -------
    (...), contiguous
    """
    return np.array(values, order="C")
