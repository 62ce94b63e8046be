"""dlib's face descriptor as a torch module, so that a gradient can be taken through it.

dlib computes the descriptor of a picture and nothing else. Training a refiner that must not change
the person needs the other direction: how the descriptor changes with each pixel. The network is
small and its file is simple, so it is read here and evaluated by torch; the file is parsed, never
unpickled.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recon3d.checks import check_shape
from recon3d.errors import BackendUnavailable, ModelError
from recon3d.recognition.embedders import DlibEmbedder

CHIP = 150
"""Side of the aligned face that the network reads, px."""
_MEAN = (122.782, 117.001, 104.298)
_PADDING = 0.25
_PLACES = np.array(
    [
        [0.8595674595992, 0.2134981538014],
        [0.6460604764104, 0.2289674387677],
        [0.1205750620789, 0.2137274526848],
        [0.3340850613712, 0.2290642403242],
        [0.4901123135679, 0.6277975316475],
    ]
)
"""Where dlib's aligner puts the five points, as shares of the chip without its padding."""
_LEVELS = ((32, 3, False), (64, 4, True), (128, 3, True), (256, 3, True), (256, 1, True))
"""Channels, residual blocks, and whether the first of them halves the size."""


class _Block(nn.Module):
    """Two convolutions with affine layers, added to their input (pooled where they halve)."""

    def __init__(self, before: int, channels: int, halves: bool):
        super().__init__()
        self.halves = halves
        stride, padding = (2, 0) if halves else (1, 1)
        self.first = nn.Conv2d(before, channels, 3, stride, padding)
        self.second = nn.Conv2d(channels, channels, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(F.relu(self.first(x)))
        if self.halves:
            x = F.avg_pool2d(x, 2, 2)
        # dlib adds what differs in size as if the smaller were continued by zeros.
        size = [max(a, b) for a, b in zip(x.shape[1:], y.shape[1:])]
        return F.relu(_continued(x, size) + _continued(y, size))


def _continued(x: Tensor, size: list[int]) -> Tensor:
    missing = [n - m for n, m in zip(size, x.shape[1:])]
    if not any(missing):
        return x
    return F.pad(x, (0, missing[2], 0, missing[1], 0, missing[0]))


class DlibNetwork(nn.Module):
    """The residual network of 29 layers behind dlib's face descriptor [1]_, frozen.

    Affine layers are folded into the convolutions before them.

    Parameters
    ----------
    path : Path, optional
        ``dlib_face_recognition_resnet_model_v1.dat``; none takes the one of the package
        ``face_recognition_models``.

    Raises
    ------
    BackendUnavailable
        If that package is not installed.
    ModelError
        If the file is not that network.

    References
    ----------
    .. [1] D. E. King, Dlib-ml: a machine learning toolkit, JMLR 10, 2009; after K. He, X. Zhang,
       S. Ren, J. Sun, Deep residual learning for image recognition, CVPR 2016.
    """

    def __init__(self, path: Path | None = None):
        super().__init__()
        if path is None:
            path = DlibEmbedder.weights_path()
            if path is None:
                raise BackendUnavailable(
                    "the identity loss needs the weights of face_recognition_models: "
                    "pip install 'recon3d[recognition]'"
                )
        self.entry = nn.Conv2d(3, 32, 7, 2)
        self.levels = nn.ModuleList()
        before = 32
        for channels, count, halves in _LEVELS:
            blocks = [_Block(before, channels, halves)]
            blocks += [_Block(channels, channels, False) for _ in range(count - 1)]
            self.levels.append(nn.Sequential(*blocks))
            before = channels
        self.exit = nn.Linear(256, 128, bias=False)
        self._fill(_tensors(Path(path)), path)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def _fill(self, tensors: list[np.ndarray], path: Path) -> None:
        convolutions = [m for m in self.modules() if isinstance(m, nn.Conv2d)]
        expected = [
            n for c in convolutions for n in (c.weight.numel() + c.out_channels, 2 * c.out_channels)
        ]
        if [t.size for t in tensors] != [*expected, self.exit.weight.numel()]:
            raise ModelError(f"{path}: not dlib's face recognition model")
        with torch.no_grad():
            for k, layer in enumerate(convolutions):
                values, affine = tensors[2 * k].ravel(), tensors[2 * k + 1].ravel()
                n = layer.out_channels
                gain, offset = torch.from_numpy(affine[:n]), torch.from_numpy(affine[n:])
                weight = torch.from_numpy(values[:-n]).reshape(layer.weight.shape)
                layer.weight.copy_(weight * gain.view(-1, 1, 1, 1))
                layer.bias.copy_(torch.from_numpy(values[-n:]) * gain + offset)
            self.exit.weight.copy_(torch.from_numpy(tensors[-1].reshape(256, 128)).T)

    @staticmethod
    def align(points: np.ndarray) -> np.ndarray:
        """`chip_from_picture`, where an instance is all that is at hand."""
        return chip_from_picture(points)

    def forward(self, pictures: Tensor, to_chip: Tensor) -> list[Tensor]:
        """Describe faces.

        Parameters
        ----------
        pictures : (N, 3, H, W), RGB, 0 to 255
        to_chip : (N, 2, 3)
            Of each picture, from `align`.

        Returns
        -------
        list of Tensor
            Features after each level, and the (N, 128) descriptors last.
        """
        return self.describe(cut_chips(pictures, to_chip))

    def describe(self, chips: Tensor) -> list[Tensor]:
        """As `forward`, of faces that are aligned already: (N, 3, 150, 150), 0 to 255."""
        check_shape(chips, f"N 3 {CHIP} {CHIP}", "chips")
        x = F.max_pool2d(F.relu(self.entry((chips - self.mean) / 256)), 3, 2)
        found = []
        for level in self.levels:
            x = level(x)
            found.append(x)
        return [*found, self.exit(x.float().mean((2, 3)))]


def chip_from_picture(points: np.ndarray) -> np.ndarray:
    """The similarity that takes pixels of a picture to those of its chip.

    Parameters
    ----------
    points : (478, 2) px, pixel centres at half-integers

    Returns
    -------
    (2, 3) float64
    """
    check_shape(points, "478 2", "points")
    source = np.asarray(points, np.float64)[list(DlibEmbedder.POINTS)]
    goal = (_PLACES + _PADDING) / (1 + 2 * _PADDING) * CHIP + 0.5
    a, b = source - source.mean(0), goal - goal.mean(0)
    scale = (a**2).sum()
    cos = (a * b).sum() / scale
    sin = (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum() / scale
    linear = np.array([[cos, -sin], [sin, cos]])
    return np.column_stack([linear, goal.mean(0) - linear @ source.mean(0)])


def cut_chips(pictures: Tensor, to_chip: Tensor) -> Tensor:
    """Aligned faces, with gradients to the pictures.

    Parameters
    ----------
    pictures : (N, 3, H, W)
    to_chip : (N, 2, 3)
        From `chip_from_picture`; places beside a picture take its border.

    Returns
    -------
    (N, 3, 150, 150)
    """
    height, width = pictures.shape[-2:]
    linear = to_chip[:, :, :2].to(pictures)
    back = torch.linalg.inv(linear)
    at = torch.arange(CHIP, dtype=pictures.dtype, device=pictures.device) + 0.5
    y, x = torch.meshgrid(at, at, indexing="ij")
    places = torch.stack([x, y], -1).reshape(1, -1, 2) - to_chip[:, None, :, 2].to(pictures)
    places = torch.einsum("nij,npj->npi", back, places)
    size = places.new_tensor([width, height])
    grid = (2 * places / size - 1).reshape(-1, CHIP, CHIP, 2)
    return F.grid_sample(pictures, grid, "bilinear", "border", align_corners=False)


def _tensors(path: Path) -> list[np.ndarray]:
    """All arrays of parameters in a dlib network's file, in order, as float32.

    dlib writes an integer as a byte that gives its length, and that many bytes; an array as the
    integer 2 (the version), four sizes, and little-endian floats. Everything between arrays
    describes layers, which are known here.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from error
    if b"loss_metric" not in data[:64]:
        raise ModelError(f"{path}: not dlib's face recognition model")

    def integer(at: int) -> tuple[int, int]:
        length = data[at] if at < len(data) else 0
        if not 1 <= length <= 4:  # a set highest bit means a negative number
            return -1, at
        return int.from_bytes(data[at + 1 : at + 1 + length], "little"), at + 1 + length

    found, at = [], 0
    while at < len(data):
        at = data.find(b"\x01\x02", at)
        if at < 0:
            break
        sizes, end = [], at + 2
        for _ in range(4):
            size, end = integer(end)
            sizes.append(size)
        count = sizes[0] * sizes[1]
        # Parameters are columns or matrices; the rest are numbers about layers that look alike.
        if min(sizes) < 1 or sizes[2:] != [1, 1] or count < 64 or end + 4 * count > len(data):
            at += 1
            continue
        found.append(np.frombuffer(data, "<f4", count, end).reshape(sizes).copy())
        at = end + 4 * count
    return found
