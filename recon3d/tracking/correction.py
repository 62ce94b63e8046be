"""Landmarks of poor pictures, put right by what is known of a landmarker's errors.

A face mesh that a landmarker lays over a small, dark or blurred face lies beside it, alike in all
frames, so that no mean over frames takes it away. What it gets wrong can be learned from pictures
of which the truth is known (`recon3d.calibration`): a small network looks at the window around a
mesh, with the mesh drawn into it, and says where its points belong.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn

from recon3d.assets import asset_path
from recon3d.errors import InputError, ModelError
from recon3d.files import atomic_write
from recon3d.licences import LedgerEntry
from recon3d.tracking.crops import FacePlace, cut_crop
from recon3d.tracking.settings import TrackingSettings
from recon3d.tracking.topology import MIRROR

FORMAT = "recon3d-landmarks-1"
POINTS = 468
"""Points of the mesh without the irises, which go with their eyes."""
WINDOW = 64
"""Side of the window, px."""
RADIUS = 13.5
"""Of the mesh in the window: root mean square of its points' distances from their mean, px."""
SURE_PX, LEFT_PX = 80.0, 160.0
"""Width of a face up to which it is corrected, and from which on it is left alone: so large, the
landmarker is nearer than the network, which has learned from faces of up to 120 px."""
SLIGHT = 0.02
"""Share of a face's width: half of a correction so large (root mean square over the points) is
made. Where the landmarker sees well the network is no better than this."""

_EYES = (33, 133, 159, 145), (362, 263, 386, 374)
_IRISES = range(468, 473), range(473, 478)
_DRAWN = (
    (33, 133, 159, 145, 362, 263, 386, 374, 1, 4, 168, 61),
    (*(291, 13, 14, 152, 234, 454, 10, 105, 334, 50, 280),),
)
"""Points that the network is shown: eyes, nose and a corner of the mouth; mouth, outline, brows and
cheeks."""
_MIRROR = np.array(MIRROR)[:POINTS]


@dataclass(frozen=True)
class Window:
    """An upright window around a mesh.

    Attributes
    ----------
    image : (WINDOW, WINDOW, 3) uint8 RGB
    points : (468, 2) float32, px of the window
    to_frame : (2, 2) float64
        Takes differences in the window to the picture's.
    """

    image: np.ndarray
    points: np.ndarray
    to_frame: np.ndarray


def window_place(landmarks: np.ndarray) -> FacePlace:
    """Middle, radius and roll of a mesh (468 or more, 2): where its window is."""
    points = landmarks[:POINTS]
    middle = points.mean(0)
    radius = float(np.sqrt(((points - middle) ** 2).sum(1).mean()))
    x, y = points[list(_EYES[1])].mean(0) - points[list(_EYES[0])].mean(0)
    return FacePlace(middle, radius, float(np.degrees(np.arctan2(-y, x))))


def cut_window(image: np.ndarray, landmarks: np.ndarray, size: int = WINDOW) -> Window:
    """The window around a mesh.

    Parameters
    ----------
    image : (H, W, 3) uint8 RGB
    landmarks : (468 or more, 2) px
    size : int
        Side, px; a larger window shows more around the face at the same scale.

    Returns
    -------
    Window
    """
    place = window_place(landmarks)
    crop = cut_crop(image, place, size=size, margin=size / RADIUS)
    matrix = crop.to_frame[:, :2]
    points = (landmarks[:POINTS] - crop.to_frame[:, 2]) @ np.linalg.inv(matrix).T
    return Window(crop.image, points.astype(np.float32), matrix)


class CorrectionNetwork(nn.Module):
    """From windows with their meshes to where the points of the meshes belong.

    The answer is a mixture of modes in which landmarkers err, found by principal components of the
    errors in the training data.

    Parameters
    ----------
    widths : sequence of int
        Channels at 1/2, 1/4, ... of the window's size.
    modes : (K, 936) float
        Unit directions of all points' errors, x and y of a point side by side.
    scales : (K,) float, px of the window
    hidden : int
        Width of the last layer but one.
    """

    def __init__(
        self,
        widths: Sequence[int] = (32, 64, 96, 128),
        modes: np.ndarray | torch.Tensor | None = None,
        scales: np.ndarray | torch.Tensor | None = None,
        hidden: int = 192,
    ):
        super().__init__()
        self.widths, self.hidden = tuple(widths), hidden
        if modes is None:
            modes = np.eye(2, 2 * POINTS)
        if scales is None:
            scales = np.ones(len(modes))
        self.register_buffer("modes", torch.as_tensor(modes, dtype=torch.float32))
        self.register_buffer("scales", torch.as_tensor(scales, dtype=torch.float32))
        layers: list[nn.Module] = _block(3 + len(_DRAWN), widths[0], 5, 2)
        for here, below in pairwise(widths):
            layers += _block(here, here, 3, 1) + _block(here, below, 3, 2)
        layers += _block(widths[-1], widths[-1], 3, 1)
        self.picture = nn.Sequential(*layers)
        cells = (WINDOW >> len(widths)) ** 2
        drawn = 2 * sum(map(len, _DRAWN))
        self.answer = nn.Sequential(
            nn.Dropout(0.2),
            nn.Linear(widths[-1] * cells + drawn, hidden),
            nn.GELU(),
            nn.Dropout(0.1),
            nn.Linear(hidden, len(self.modes)),
        )

    def forward(self, images: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """(B, 3, 64, 64) windows, 0 to 255, and (B, 468, 2) meshes to (B, 468, 2) moves, px."""
        mean = images.mean((2, 3), keepdim=True)
        spread = images.std((2, 3), keepdim=True) + 4.0
        seen = torch.cat(
            [(images - mean) / spread, *(_dots(points[:, list(k)]) for k in _DRAWN)], 1
        )
        places = torch.cat([points[:, list(k)] for k in _DRAWN], 1)
        places = (places - WINDOW / 2) / RADIUS
        found = self.answer(torch.cat([self.picture(seen).flatten(1), places.flatten(1)], 1))
        return ((found * self.scales) @ self.modes).view(-1, POINTS, 2)


def _block(into: int, out: int, kernel: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(into, out, kernel, stride, kernel // 2),
        nn.BatchNorm2d(out),
        nn.GELU(),
    ]


def _dots(points: torch.Tensor) -> torch.Tensor:
    """(B, P, 2) points as one picture (B, 1, 64, 64) of spots of 1 px."""
    at = torch.arange(WINDOW, dtype=points.dtype, device=points.device) + 0.5
    x = torch.exp(-0.5 * (at - points[..., 0:1]) ** 2)
    y = torch.exp(-0.5 * (at - points[..., 1:2]) ** 2)
    return (y[..., :, None] * x[..., None, :]).amax(1, keepdim=True)


def mirrored(points: torch.Tensor) -> torch.Tensor:
    """(B, 468, 2) points in a window seen in a mirror, each in its partner's place."""
    flipped = torch.stack([WINDOW - points[..., 0], points[..., 1]], -1)
    return flipped[:, _MIRROR]


class Corrector:
    """Puts landmarks right, by a network.

    Parameters
    ----------
    network : CorrectionNetwork
    about : dict of str
        Where it comes from.
    sha256 : str
        Of its file.
    """

    def __init__(
        self, network: CorrectionNetwork, about: dict[str, str] | None = None, sha256: str = ""
    ):
        self.network = network.eval()
        self.about = about or {}
        self.sha256 = sha256

    def describe(self) -> LedgerEntry:
        """For the ledger."""
        about = self.about
        return LedgerEntry(
            about.get("name", "landmark correction"),
            "landmarks",
            about.get("licence", "unknown"),
            about.get("origin", "unknown"),
        )

    def __call__(
        self, images: Sequence[np.ndarray], landmarks: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """Corrected landmarks of some faces.

        Parameters
        ----------
        images : sequence of (H, W, 3) uint8 RGB
        landmarks : sequence of (478, 2) px

        Returns
        -------
        list of (478, 2) float64
        """
        out = []
        for start in range(0, len(images), 64):
            some = slice(start, start + 64)
            windows = [cut_window(i, p) for i, p in zip(images[some], landmarks[some])]
            moves = self._moves(windows)
            for window, move, points in zip(windows, moves, landmarks[some]):
                move = move @ window.to_frame.T
                out.append(_moved(points, move * _belief(points, move)))
        return out

    def _moves(self, windows: Sequence[Window]) -> np.ndarray:
        """(B, 468, 2) px of the windows: the mean of what plain and mirrored windows say."""
        images = torch.from_numpy(np.stack([w.image for w in windows])).permute(0, 3, 1, 2).float()
        points = torch.from_numpy(np.stack([w.points for w in windows]))
        with torch.inference_mode():
            plain = self.network(images, points)
            other = self.network(images.flip(3), mirrored(points))[:, _MIRROR]
        other = other * torch.tensor([-1.0, 1.0])
        return (0.5 * (plain + other)).numpy().astype(np.float64)


def _belief(landmarks: np.ndarray, move: np.ndarray) -> float:
    """How much of a correction is made: all of a large one, little of a small one; nothing on a
    large face."""
    low, high = landmarks[:POINTS].min(0), landmarks[:POINTS].max(0)
    # the height stands for the width: a turned face is not a smaller one
    size = max(float((high - low).max()) / 1.25, 1e-6)
    far2 = float((move**2).sum(1).mean()) / (SLIGHT * size) ** 2
    small = float(np.clip(np.log(LEFT_PX / size) / np.log(LEFT_PX / SURE_PX), 0, 1))
    return small * far2 / (1 + far2)


def _moved(landmarks: np.ndarray, move: np.ndarray) -> np.ndarray:
    """Landmarks (478, 2) with the mesh moved; irises go with their eyes."""
    out = np.array(landmarks, np.float64)
    out[:POINTS] += move
    for iris, eye in zip(_IRISES, _EYES, strict=True):
        out[list(iris)] += move[list(eye)].mean(0)
    return out


# ---------------------------------------------------------------------------------- on disk
def save_corrector(path: Path, network: CorrectionNetwork, about: dict[str, str]) -> None:
    """Write a network as safetensors, in half precision.

    Parameters
    ----------
    path : Path, ``.safetensors``
    network : CorrectionNetwork
    about : dict of str
        Where it comes from; goes into the file's header.
    """
    from safetensors.torch import save

    shape = json.dumps({"widths": list(network.widths), "hidden": network.hidden})
    tensors = {
        name: value.detach().cpu().to(torch.float16 if value.is_floating_point() else value.dtype)
        for name, value in network.state_dict().items()
    }
    atomic_write(path, save(tensors, {"format": FORMAT, "shape": shape, **about}))


def read_corrector(path: Path | None = None) -> Corrector:
    """Read a network.

    Parameters
    ----------
    path : Path, optional
        The shipped one by default.

    Returns
    -------
    Corrector

    Raises
    ------
    ModelError
        If the file is missing, damaged, or holds something else.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path or asset_path("landmarks", "recon3d_landmarks.safetensors"))
    if not path.is_file():
        raise ModelError(f"no such landmark correction: {path}")
    try:
        with safe_open(str(path), "pt") as file:
            about = dict(file.metadata() or {})
            if about.get("format") != FORMAT:
                raise ModelError(
                    f"{path} holds no landmark correction: expected format {FORMAT}, found "
                    f"{about.get('format', 'none')}"
                )
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} cannot be read as safetensors: {error}") from error
    try:
        shape = json.loads(about["shape"])
        widths = tuple(int(w) for w in shape["widths"])
        network = CorrectionNetwork(
            widths, tensors["modes"].float(), tensors["scales"].float(), int(shape["hidden"])
        )
        network.load_state_dict({k: v.float() for k, v in tensors.items()})
    except (KeyError, TypeError, ValueError, InputError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise ModelError(f"{path}: weights do not fit their own description: {first}") from error
    return Corrector(network, about, hashlib.sha256(path.read_bytes()).hexdigest())


def load_corrector(settings: TrackingSettings) -> Corrector | None:
    """The landmark correction that settings ask for; None where they ask for none.

    Raises
    ------
    ModelError
        As `read_corrector`.
    """
    if not settings.correct:
        return None
    return read_corrector(Path(settings.corrector) if settings.corrector else None)
