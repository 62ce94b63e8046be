"""What can go wrong, in words a user can act on.

Every message says what was wrong, with which file or value, and what to do about it. The command
line turns `InputError` into exit status 2, `NoFaceError` into 1 and everything else into 3.
"""


class Recon3DError(Exception):
    """Base of every error this package raises on purpose."""


class InputError(Recon3DError):
    """The call or the input is wrong: a missing file, an unreadable picture, an unknown setting."""


class NoFaceError(Recon3DError):
    """The input was read, and no usable face was found in it."""


class ModelError(Recon3DError):
    """A face model or weight file is missing, damaged or of the wrong shape."""


class BackendUnavailable(Recon3DError):
    """An optional library, device or weight file that was asked for cannot be used here."""


class ShapeError(Recon3DError, ValueError):
    """An array does not have the shape that its function documents."""
