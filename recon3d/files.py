"""Files that are either whole or absent: what every stage that writes relies on."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path

from recon3d.errors import InputError


def write_error(error: OSError, path: Path) -> InputError:
    """The one clear line for a file that could not be written.

    Parameters
    ----------
    error : OSError
    path : Path
        The file or folder that the user knows by name.

    Returns
    -------
    InputError
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "free some space or choose another output folder"
    elif error.errno == errno.EFBIG:
        remedy = "raise the file size limit (ulimit -f) or choose another output folder"
    else:
        remedy = "choose an output folder that can be written"
    reason = error.strerror or str(error)
    return InputError(f"cannot write {path}: {reason.lower()}; {remedy}")


def atomic_write(path: str | os.PathLike, data: bytes | str) -> Path:
    """Write a file under a temporary name beside it, then rename it.

    Parameters
    ----------
    path : path-like
        Missing parent folders are made.
    data : bytes or str
        Text is written as UTF-8.

    Returns
    -------
    Path

    Raises
    ------
    InputError
        If it cannot be written; whatever was at `path` before is still there.
    """
    path = Path(path)
    if isinstance(data, str):
        data = data.encode()
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes private files; results are ordinary ones.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        raise write_error(error, path) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
