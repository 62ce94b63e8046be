"""Video out."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import numpy as np

from recon3d.checks import check_shape
from recon3d.errors import BackendUnavailable, InputError, ShapeError


class VideoWriter:
    """Write frames to an H.264 video (MPEG-4 where x264 is missing), atomically.

    The file appears under its name when the writer is closed without an exception. Odd sizes are
    padded by one row or column, because 4:2:0 needs even ones.

    Parameters
    ----------
    path : path; its ending names the container
    fps : float
    crf : int
        x264's quality, smaller is better.
    codec : str, optional

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with VideoWriter(f"{folder}/a.mp4", fps=25) as writer:
    ...         writer.write(np.zeros((33, 47, 3), np.uint8))
    ...     Path(f"{folder}/a.mp4").stat().st_size > 0
    True
    """

    def __init__(
        self, path: str | os.PathLike, fps: float, *, crf: int = 18, codec: str | None = None
    ):
        self.path = Path(path)
        self.fps = fps
        self.crf = crf
        self.codec = codec
        self.n_frames = 0
        self._size: tuple[int, int] | None = None
        self._container = None
        self._stream = None
        self._temporary = self.path.with_name(
            f".{self.path.stem}.{os.getpid()}.tmp{self.path.suffix}"
        )

    def write(self, image: np.ndarray) -> None:
        """Append one (H, W, 3) uint8 RGB picture; all must have the size of the first."""
        import av

        bound = check_shape(image, "H W 3", "image")
        size = bound["W"], bound["H"]
        if self._container is None:
            self._open(size)
        if size != self._size:
            raise ShapeError(f"image is {size[0]}x{size[1]}, the video {self._size}")
        padded = np.pad(image, ((0, size[1] % 2), (0, size[0] % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24")
        frame.pts = self.n_frames
        self._container.mux(self._stream.encode(frame))
        self.n_frames += 1

    def close(self) -> None:
        """Finish the file and give it its name.

        Raises
        ------
        InputError
            If no frame was written.
        """
        if self._container is None:
            raise InputError(f"{self.path}: a video needs at least one frame")
        self._container.mux(self._stream.encode(None))
        self._container.close()
        self._container = None
        os.replace(self._temporary, self.path)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind, error, trace) -> None:
        if kind is None:
            self.close()
            return
        if self._container is not None:
            self._container.close()
            self._container = None
        self._temporary.unlink(missing_ok=True)

    def _open(self, size: tuple[int, int]) -> None:
        import av

        codecs = [self.codec] if self.codec else ["libx264", "mpeg4"]
        name = next((name for name in codecs if name in av.codecs_available), None)
        if name is None:
            raise BackendUnavailable(f"video codec {codecs[0]} is not in this build of PyAV")
        try:
            self._container = av.open(str(self._temporary), "w")
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path}: cannot be written ({error})") from None
        rate = Fraction(self.fps).limit_denominator(1001)
        self._stream = self._container.add_stream(name, rate=rate)
        self._stream.width = size[0] + size[0] % 2
        self._stream.height = size[1] + size[1] % 2
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"crf": str(self.crf)} if name == "libx264" else {"qscale": "3"}
        self._size = size
