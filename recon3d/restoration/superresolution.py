"""A single picture enlarged: classically, or by a network that the user brings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from recon3d.colour import linear_to_srgb, srgb_to_linear
from recon3d.errors import BackendUnavailable, InputError, ModelError
from recon3d.restoration.common import StepReport, enter, leave
from recon3d.restoration.degradations import downsample


class Upscaler(Protocol):
    """Anything that makes a picture larger by a whole factor."""

    scale: int
    name: str

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) float32 sRGB to (scale H, scale W, 3)."""


def super_resolve(
    image: np.ndarray, factor: int = 2, *, upscaler: Upscaler | None = None, iterations: int = 12
) -> tuple[np.ndarray, StepReport]:
    """Enlarge so that averaging the result down gives the picture again.

    Lanczos interpolation, or an `upscaler`, followed by iterative back-projection.

    Parameters
    ----------
    image : (H, W, 3) uint8, or float in [0, 1], sRGB
    factor : int
        2 to 8; that of the upscaler where one is given.
    upscaler : Upscaler, optional
    iterations : int
        Of back-projection.

    Returns
    -------
    image : (factor H, factor W, 3)
    StepReport

    References
    ----------
    Irani and Peleg, Improving resolution by image registration, CVGIP 53(3), 1991.
    """
    if upscaler is not None:
        factor = upscaler.scale
    if not 2 <= factor <= 8:
        raise InputError(f"enlargement is {factor}, expected 2 to 8")
    u = enter(image)
    size = (u.shape[1] * factor, u.shape[0] * factor)
    if upscaler is None:
        large = cv2.resize(u, size, interpolation=cv2.INTER_LANCZOS4)
    else:
        large = np.asarray(upscaler(u), np.float32)
    light, seen = srgb_to_linear(np.clip(large, 0, 1)), srgb_to_linear(u)
    first = None
    for _ in range(iterations):
        again = srgb_to_linear(downsample(linear_to_srgb(light), factor))
        error = seen - again
        first = float(np.abs(error).mean()) if first is None else first
        light = np.clip(light + cv2.resize(error, size, interpolation=cv2.INTER_CUBIC), 0, 1)
    left = float(np.abs(seen - srgb_to_linear(downsample(linear_to_srgb(light), factor))).mean())
    return leave(linear_to_srgb(light), image), StepReport(
        step="super_resolve",
        belief=f"{u.shape[1]}x{u.shape[0]} px",
        acted=True,
        measured={"inconsistency_before": first or 0.0, "inconsistency_after": left},
        applied={"factor": float(factor), "by": upscaler.name if upscaler else "lanczos"},
    )


@dataclass(frozen=True)
class OnnxUpscaler:
    """A super-resolution network in ONNX form, run by ONNX Runtime on the CPU.

    The network takes (1, 3, H, W) float RGB in [0, 1], for any H and W, and gives
    (1, 3, sH, sW).

    Attributes
    ----------
    path : Path
    scale : int
    tile, margin : int
        Large pictures are cut into tiles of that many px, which overlap by the margin.
    """

    path: Path
    scale: int
    session: object
    tile: int = 256
    margin: int = 16

    @property
    def name(self) -> str:
        return self.path.name

    @classmethod
    def load(cls, path: str | Path, *, tile: int = 256) -> OnnxUpscaler:
        """Open a network and find its factor by trying it.

        Raises
        ------
        BackendUnavailable
            If ONNX Runtime is not installed.
        InputError
            If the file is missing.
        ModelError
            If it is not such a network.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path}: no such network file")
        try:
            import onnxruntime
        except ImportError as error:
            raise BackendUnavailable(
                "networks in ONNX form need ONNX Runtime: pip install 'recon3d[onnx]'"
            ) from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
            probe = _run(session, np.full((16, 24, 3), 0.5, np.float32))
        except Exception as error:  # the runtime has no common base for its errors
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelError(f"{path} cannot be run as an upscaler: {reason}") from error
        scale = probe.shape[0] // 16
        if scale < 2 or probe.shape != (16 * scale, 24 * scale, 3):
            raise ModelError(
                f"{path} made {probe.shape} of (16, 24, 3), expected an enlargement by a whole "
                "factor of 2 or more"
            )
        return cls(path, scale, session, tile)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        h, w = image.shape[:2]
        s, m = self.scale, self.margin
        out = np.zeros((h * s, w * s, 3), np.float32)
        for top in range(0, h, self.tile):
            for left in range(0, w, self.tile):
                bottom, right = min(h, top + self.tile), min(w, left + self.tile)
                y0, x0 = max(0, top - m), max(0, left - m)
                y1, x1 = min(h, bottom + m), min(w, right + m)
                part = _run(self.session, image[y0:y1, x0:x1])
                out[top * s : bottom * s, left * s : right * s] = part[
                    (top - y0) * s : (bottom - y0) * s, (left - x0) * s : (right - x0) * s
                ]
        return np.clip(out, 0, 1)


def _run(session, image: np.ndarray) -> np.ndarray:
    data = np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32)
    (result, *_) = session.run(None, {session.get_inputs()[0].name: data})
    return np.asarray(result, np.float32)[0].transpose(1, 2, 0)
