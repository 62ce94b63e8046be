"""Refiners behind one small interface: a frontal view in, a picture out.

Ours, trained on this pipeline's own output; any face restorer as an ONNX file; and checkpoints
that the library spandrel reads.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Protocol

import cv2
import numpy as np

from recon3d.assets import asset_path
from recon3d.errors import BackendUnavailable, InputError, ModelError
from recon3d.licences import LedgerEntry
from recon3d.refinement import SHIPPED_LICENCE
from recon3d.types import FrontalView

FFHQ_EYES = np.array([[192.98, 239.95], [318.90, 240.19]])
"""Where face restorers trained on FFHQ expect the eyes in a picture of 512 px."""

_RIPPLE = 4.0
"""Ripples are finer than this smoothing, standard deviation, px of the working size,"""
_RIPPLES = 10
"""within so many px of the outline,"""
_ALONG = 16.0
"""and alike along this stretch of it, standard deviation, px."""


class Refiner(Protocol):
    """A refiner.

    `claims` says whether a file is of its kind, `licence` what the ledger says of it, `sha256`
    which file it is; calling it refines one view.
    """

    kind: ClassVar[str]

    @classmethod
    def claims(cls, path: Path) -> bool: ...

    @property
    def licence(self) -> LedgerEntry: ...

    @property
    def sha256(self) -> str: ...

    def __call__(self, view: FrontalView) -> tuple[np.ndarray, np.ndarray | None]:
        """Refine.

        Parameters
        ----------
        view : FrontalView

        Returns
        -------
        picture : (512, 512, 3) float32, 0 to 255
        sigma : (512, 512) float32 or None
            Standard deviation that the refiner itself gives, same units.
        """
        ...


def shipped_path() -> Path:
    """Where the shipped weights lie, whether or not they are there."""
    return asset_path("refiner", "recon3d_refiner.safetensors")


class OwnRefiner:
    """The generator of this project.

    Parameters
    ----------
    path : Path, ``.safetensors``
    licence : str
    device : str
    without : names of inputs that it is not shown (for comparisons)
    """

    kind: ClassVar[str] = "recon3d"

    def __init__(
        self,
        path: Path,
        licence: str = SHIPPED_LICENCE,
        device: str = "cpu",
        without: tuple[str, ...] = (),
    ):
        from recon3d.refinement.weights import load_generator

        self.path, self._licence, self.device, self.without = Path(path), licence, device, without
        self.generator, self.about = load_generator(path)
        self.generator.to(device)

    @classmethod
    def claims(cls, path: Path) -> bool:
        return path.suffix == ".safetensors"

    @property
    def licence(self) -> LedgerEntry:
        steps = self.about.get("steps", "?")
        return LedgerEntry(
            f"{self.path.stem}, {steps} steps",
            "refiner",
            self._licence,
            "trained by recon3d train refiner on pictures of people who do not exist",
        )

    @property
    def sha256(self) -> str:
        return _digest(self.path)

    def __call__(self, view: FrontalView) -> tuple[np.ndarray, np.ndarray | None]:
        import torch

        from recon3d.refinement.conditioning import NO_NORMAL, as_tensor, condition

        inputs = condition(view)
        with torch.inference_mode():
            tensor = as_tensor(inputs, self.without).to(
                self.device, memory_format=torch.channels_last
            )
            made, log_variance = self.generator(tensor)
        made = (made[0].permute(1, 2, 0).cpu().numpy() + 1) * 127.5
        sigma = np.exp(0.5 * log_variance[0, 0].cpu().numpy()) * 127.5
        # Detail finer than the network's pixels stays that of the fused view.
        size = view.raw.shape[1::-1]
        change = made - inputs["picture"].astype(np.float32)
        if "normals" not in self.without:
            change = without_outline(change, (inputs["normals"] != NO_NORMAL).any(-1))
        change = cv2.resize(change, size, interpolation=cv2.INTER_CUBIC)
        sigma = cv2.resize(sigma, size, interpolation=cv2.INTER_LINEAR)
        return (view.raw + change).astype(np.float32), sigma.astype(np.float32)


class _FaceRestorer(ABC):
    """A restorer of aligned faces in a file of the user's own: one picture in, one picture out."""

    suffixes: ClassVar[tuple[str, ...]] = ()

    def __init__(self, path: Path, licence: str):
        self.path, self._licence = Path(path), licence

    @classmethod
    def claims(cls, path: Path) -> bool:
        return path.suffix in cls.suffixes

    @property
    def licence(self) -> LedgerEntry:
        return LedgerEntry(self.path.name, "refiner", self._licence, f"sha256 {self.sha256}")

    @property
    def sha256(self) -> str:
        return _digest(self.path)

    def __call__(self, view: FrontalView) -> tuple[np.ndarray, np.ndarray | None]:
        return _through_alignment(self._run, view.raw), None

    @abstractmethod
    def _run(self, image: np.ndarray) -> np.ndarray:
        """(512, 512, 3) uint8 to float32, 0 to 255; the face is where FFHQ has it."""


class OnnxRefiner(_FaceRestorer):
    """A face restorer as an ONNX file: one picture in, one picture out.

    Sizes are read from the file, the range of values ([0, 1] or [-1, 1]) is found by trying: a
    restorer gives back something close to what it was given. The face is brought to where FFHQ has
    it. Further scalar inputs, such as CodeFormer's fidelity, get 0.7.

    Parameters
    ----------
    path : Path
    licence : str
        As the user states it, for the ledger.
    """

    kind: ClassVar[str] = "onnx"
    suffixes: ClassVar[tuple[str, ...]] = (".onnx",)
    FIDELITY: ClassVar[float] = 0.7

    def __init__(self, path: Path, licence: str = "unknown"):
        try:
            import onnxruntime
        except ImportError:
            raise BackendUnavailable(
                "a refiner in an ONNX file needs onnxruntime: pip install 'recon3d[onnx]'"
            ) from None
        super().__init__(path, licence)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=onnxruntime.get_available_providers()
            )
        except Exception as error:
            line = str(error).splitlines()[0]
            raise ModelError(f"{path} cannot be read as an ONNX network: {line}") from error
        self._picture = self._find_picture()

    def _find_picture(self):
        pictures = [i for i in self._session.get_inputs() if len(i.shape) == 4]
        # A dimension without a fixed size has a name or None for one.
        fits = len(pictures) == 1 and (
            pictures[0].shape[1] == 3 or not isinstance(pictures[0].shape[1], int)
        )
        if not fits:
            found = ", ".join(f"{i.name} {i.shape}" for i in self._session.get_inputs())
            raise ModelError(
                f"{self.path}: expected one picture (N, 3, H, W) as input, found {found}"
            )
        return pictures[0]

    def _run(self, image: np.ndarray) -> np.ndarray:
        height, width = self._picture.shape[2:]
        size = tuple(
            side if isinstance(side, int) else whole
            for side, whole in zip((width, height), image.shape[1::-1], strict=True)
        )
        resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        unit = resized.astype(np.float32).transpose(2, 0, 1)[None] / 255
        best, least = None, np.inf
        for scale, offset in ((2.0, -1.0), (1.0, 0.0)):
            out = (self._infer(unit * scale + offset) - offset) / scale
            out = (out * 255).clip(0, 255).transpose(1, 2, 0)
            out = cv2.resize(out, image.shape[1::-1], interpolation=cv2.INTER_AREA)
            error = float(np.abs(out - image).mean())
            if error < least:
                best, least = out, error
        return best.astype(np.float32)

    def _infer(self, picture: np.ndarray) -> np.ndarray:
        types = {
            "tensor(float)": np.float32,
            "tensor(float16)": np.float16,
            "tensor(double)": np.float64,
        }
        feeds = {}
        for given in self._session.get_inputs():
            kind = types.get(given.type)
            if kind is None:
                raise ModelError(f"{self.path}: input {given.name} has type {given.type}")
            if given.name == self._picture.name:
                feeds[given.name] = picture.astype(kind)
            else:
                shape = [s if isinstance(s, int) else 1 for s in given.shape]
                feeds[given.name] = np.full(shape, self.FIDELITY, kind)
        try:
            outputs = self._session.run(None, feeds)
        except Exception as error:
            line = str(error).splitlines()[0]
            raise ModelError(f"{self.path} failed on a picture: {line}") from error
        for out in outputs:
            if out.ndim == 4 and out.shape[1] == 3:
                return out[0].astype(np.float32)
        shapes = ", ".join(str(o.shape) for o in outputs)
        raise ModelError(f"{self.path}: expected a picture (1, 3, H, W) as output, found {shapes}")


class SpandrelRefiner(_FaceRestorer):
    """A checkpoint of one of the architectures that spandrel knows (GFPGAN, CodeFormer, ...).

    Parameters
    ----------
    path : Path, ``.pth``, ``.pt`` or ``.ckpt``
    licence : str
    device : str
    """

    kind: ClassVar[str] = "spandrel"
    suffixes: ClassVar[tuple[str, ...]] = (".pth", ".pt", ".ckpt")

    def __init__(self, path: Path, licence: str = "unknown", device: str = "cpu"):
        try:
            from spandrel import ModelLoader
        except Exception:
            # Its import of torchvision raises more than ImportError beside a CPU-only torch.
            raise BackendUnavailable(
                f"{Path(path).name} needs spandrel, which needs torchvision for this torch: pip "
                "install spandrel torchvision, or give the network as an ONNX file"
            ) from None
        super().__init__(path, licence)
        self.device = device
        try:
            self._model = ModelLoader(device=device).load_from_file(str(path)).eval()
        except Exception as error:
            line = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelError(f"{path}: spandrel cannot load it: {line}") from error

    def _run(self, image: np.ndarray) -> np.ndarray:
        import torch

        tensor = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None]
        with torch.inference_mode():
            out = self._model(tensor.to(self.device))
        out = (out[0].float().permute(1, 2, 0).cpu().numpy() * 255).clip(0, 255)
        return cv2.resize(out, image.shape[1::-1], interpolation=cv2.INTER_AREA)


REFINERS: tuple[type, ...] = (OwnRefiner, OnnxRefiner, SpandrelRefiner)
"""Adapters, asked in this order who reads a file."""


def load_refiner(
    path: str | Path | None = None, *, licence: str = "unknown", device: str = "cpu"
) -> Refiner:
    """Load a refiner.

    Parameters
    ----------
    path : str or Path, optional
        By default the shipped weights.
    licence : str
        Of a refiner of the user's own, as the ledger will say it.
    device : str
        ``cpu`` or ``cuda``.

    Raises
    ------
    InputError
        If the file is missing or of no kind that is known.
    ModelError
        If it is damaged.
    BackendUnavailable
        If a library is missing that reads it; says which.
    """
    if path is None:
        return OwnRefiner(shipped_path(), SHIPPED_LICENCE, device)
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no such refiner: {path}")
    for adapter in REFINERS:
        if adapter.claims(path):
            if adapter is OnnxRefiner:
                return OnnxRefiner(path, licence)
            return adapter(path, licence, device)
    raise InputError(
        f"{path}: not a refiner; known are .safetensors (recon3d), .onnx, and .pth through spandrel"
    )


def without_outline(change: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """What the network changes, without the lines that it draws where its guides end.

    The normals it sees end at the outline of the mesh, and convolutions answer to that edge with
    ripples that nothing in the picture stands for. Along the outline they are much alike, and what
    belongs to the picture is not: taken out is the mean of the fine changes at the same distance
    from the outline.

    Parameters
    ----------
    change : (S, S, 3) float32
        At the network's working size.
    covered : (S, S) bool
        Where it was shown normals.

    Returns
    -------
    (S, S, 3) float32
    """
    if covered.all() or not covered.any():
        return change
    sides = [cv2.distanceTransform(c.astype(np.uint8), cv2.DIST_L2, 5) for c in (covered, ~covered)]
    distance = np.round(np.where(covered, sides[0], 1 - sides[1])).astype(int)
    fine = change - cv2.GaussianBlur(change, (0, 0), _RIPPLE)
    ripples = np.zeros_like(change)
    for d in range(-_RIPPLES, _RIPPLES + 1):
        here = (distance == d).astype(np.float32)
        total = cv2.GaussianBlur(here, (0, 0), _ALONG)
        mean = cv2.GaussianBlur(fine * here[..., None], (0, 0), _ALONG)
        fading = here * min(1.0, (_RIPPLES + 1 - abs(d)) / 3)
        ripples += (fading / np.maximum(total, 1e-6))[..., None] * mean
    return change - ripples


def _through_alignment(run, raw: np.ndarray) -> np.ndarray:
    """Restore the face where FFHQ has it; only the change is brought back."""
    from recon3d.frontal.camera import EYES

    across, wanted = EYES[1] - EYES[0], FFHQ_EYES[1] - FFHQ_EYES[0]
    turn = complex(*wanted) / complex(*across)
    A = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    shift = FFHQ_EYES.mean(0) - A @ EYES.mean(0)
    # OpenCV has pixel centres at integers.
    shift = shift + A @ [0.5, 0.5] - 0.5
    forward = np.column_stack([A, shift])
    size = raw.shape[1::-1]
    given = cv2.warpAffine(raw, forward, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    change = run(given) - given
    back = cv2.warpAffine(
        change,
        forward,
        size,
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
    )
    return (raw + back).astype(np.float32)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
