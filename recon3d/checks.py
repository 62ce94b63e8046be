"""Shape checks for public functions."""

from recon3d.errors import ShapeError


def check_shape(array, pattern: str, name: str) -> dict[str, int]:
    """Check the shape of an array or tensor against a pattern such as ``"N 3"``.

    Parameters
    ----------
    array : ndarray or Tensor
        The value to check.
    pattern : str
        One word per axis: a number must match exactly, a letter binds to the axis length and must
        be equal wherever it returns; a leading ``...`` takes any number of axes.
    name : str
        The argument's name, for the message.

    Returns
    -------
    dict
        The lengths bound to letters.

    Raises
    ------
    ShapeError
        If the number of axes or a length does not match.

    Examples
    --------
    >>> import numpy as np
    >>> check_shape(np.zeros((5, 3)), "N 3", "vertices")
    {'N': 5}
    """
    shape = tuple(getattr(array, "shape", ()))
    words = pattern.split()
    axes = shape
    if words and words[0] == "...":
        words = words[1:]
        axes = shape[len(shape) - len(words) :] if len(words) else ()
    bound: dict[str, int] = {}
    fits = len(axes) == len(words)
    for word, length in zip(words, axes, strict=False):
        if word.isdigit():
            fits = fits and int(word) == length
        else:
            fits = fits and bound.setdefault(word, length) == length
    if not fits:
        raise ShapeError(f"{name} has shape {shape}, expected ({', '.join(pattern.split())})")
    return bound
