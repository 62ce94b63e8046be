"""Keep the native log lines of other libraries off the user's terminal."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator

_NOISE = re.compile(
    rb"^(INFO: |[IW]\d{4} \d|WARNING: All log messages before absl|WARNING: Logging before"
    rb"|\d{4}-\d\d-\d\d .*(tensorflow|cudart|cuDNN|TensorRT|oneDNN)|\s*$)"
)
_lock = threading.Lock()
_depth = 0
_saved = -1
_file = None


@contextlib.contextmanager
def quiet_native_logs() -> Iterator[None]:
    """Hold back what native code writes to stderr inside the block, less known chatter.

    Lines that are not known to be chatter are written out when the last block ends. Blocks may
    overlap in several threads.
    """
    global _depth, _saved, _file
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with _lock:
        if _depth == 0:
            with contextlib.suppress(Exception):
                sys.stderr.flush()
            try:
                _saved = os.dup(2)
                _file = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the last block ends
                os.dup2(_file.fileno(), 2)
            except OSError:  # a process without stderr has nothing to keep clean
                _saved, _file = -1, None
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0 and _file is not None:
                with contextlib.suppress(Exception):
                    sys.stderr.flush()
                os.dup2(_saved, 2)
                os.close(_saved)
                _file.seek(0)
                kept = [line for line in _file.read().splitlines() if not _NOISE.match(line)]
                _file.close()
                _file = None
                if kept:
                    os.write(2, b"\n".join(kept) + b"\n")
