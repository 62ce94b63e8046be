"""Training of the landmark correction: lessons in, weights out."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from recon3d.calibration.lessons import OUTER, Lessons
from recon3d.errors import BackendUnavailable, InputError
from recon3d.files import atomic_write
from recon3d.tracking.correction import (
    POINTS,
    WINDOW,
    CorrectionNetwork,
    mirrored,
    save_corrector,
)

FACE = 40.0
"""Width of a face in a window, about, px."""
FEATURES = {
    "eyes": (33, 133, 159, 145, 362, 263, 386, 374),
    "nose": (1, 4, 5),
    "mouth": (61, 291, 13, 14),
    "chin": (152, 148, 377),
    "jaw": (172, 136, 397, 365),
}


class CalibrationSettings(BaseModel):
    """How the landmark correction is learned."""

    model_config = ConfigDict(extra="forbid")

    clips: int = Field(2400, ge=2, description="Clips simulated, about.")
    val_clips: int = Field(64, ge=1, description="...of people never trained on.")
    steps: int = Field(8000, ge=1, description="Steps of the optimiser.")
    batch: int = Field(64, ge=2, description="Windows in one step.")
    learning_rate: float = Field(1.5e-3, gt=0, description="Highest, falling to nothing.")
    decay: float = Field(0.03, ge=0, description="Weight decay.")
    average: float = Field(0.998, ge=0, lt=1, description="Memory of the mean of the weights.")
    widths: tuple[int, ...] = Field((32, 64, 96, 128), description="Channels, fine to coarse.")
    modes: int = Field(24, ge=1, description="Ways of erring that the answer is mixed from.")
    moved: float = Field(
        0.7, ge=0, description="By how much meshes are moved, px of the window; some thrice as far."
    )
    checkpoint_every: int = Field(400, ge=1, description="Steps between checkpoints.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where it is trained.")
    seed: int = Field(0, ge=0, description="Of everything random.")


def train(
    lessons: Lessons,
    val: Lessons,
    out: Path,
    settings: CalibrationSettings | None = None,
    *,
    resume: bool = False,
    about: dict[str, str] | None = None,
    note: Callable[[str], None] | None = None,
    progress: Callable[[float, float | None], None] | None = None,
) -> Path:
    """Learn where points of meshes belong.

    The loss is the mean distance of the corrected points from the truth [1]_ (an absolute one:
    some meshes lie on something else altogether).

    Parameters
    ----------
    lessons, val : Lessons
    out : Path
        For checkpoint, weights and ``scalars.csv``.
    settings : CalibrationSettings, optional
    resume : bool
        Go on from the last checkpoint, where there is one.
    about : dict of str, optional
        Goes into the header of the weights.
    note : callable, optional
        Told a line at a time what goes on.
    progress : callable, optional

    Returns
    -------
    Path of the weights, ``landmarks.safetensors``

    Raises
    ------
    BackendUnavailable
        If CUDA is asked for and not there.
    InputError
        If a checkpoint to go on from cannot be read.

    References
    ----------
    .. [1] X. Cao et al., Face alignment by explicit shape regression, IJCV 107, 2014.
    """
    s = settings or CalibrationSettings()
    run = _Run(lessons, Path(out), s, resume)
    began, first = time.perf_counter(), run.step
    while run.step < s.steps:
        run.advance()
        if progress is not None:
            progress(run.step, s.steps)
        if run.step % s.checkpoint_every == 0 or run.step == s.steps:
            run.keep()
            found = measure(run.average, val, run.device)
            rate = (run.step - first) / (time.perf_counter() - began)
            run.record(found)
            if note is not None:
                parts = ", ".join(f"{k} {a:.2f} > {b:.2f}" for k, (a, b) in found.items())
                note(f"step {run.step}: {parts} % of the face's width; {rate:.1f} steps/s")
    path = run.out / "landmarks.safetensors"
    facts = {"steps": str(s.steps), "seed": str(s.seed), "windows": str(len(lessons))}
    save_corrector(path, run.average, {**facts, **(about or {})})
    return path


class _Run:
    """The state of a training run."""

    def __init__(self, lessons: Lessons, out: Path, settings: CalibrationSettings, resume: bool):
        self.lessons, self.out, self.settings = lessons, out, settings
        self.device = _device(settings.device)
        self.step = 0
        modes, scales = error_modes(lessons.moves, settings.modes, settings.seed)
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            self.network = CorrectionNetwork(settings.widths, modes, scales).to(self.device)
        self.average = CorrectionNetwork(settings.widths, modes, scales).to(self.device)
        self.average.load_state_dict(self.network.state_dict())
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), settings.learning_rate, weight_decay=settings.decay
        )
        self.checkpoint = out / "checkpoint.pt"
        if resume and self.checkpoint.exists():
            try:
                kept = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
                self.network.load_state_dict(kept["network"])
                self.average.load_state_dict(kept["average"])
                self.optimiser.load_state_dict(kept["optimiser"])
                self.step = int(kept["step"])
            except (
                OSError,
                RuntimeError,
                KeyError,
                ValueError,
                EOFError,
                UnpicklingError,
            ) as error:
                first = str(error).strip().splitlines()[0]
                raise InputError(f"cannot go on from {self.checkpoint}: {first}") from error

    def advance(self) -> None:
        """One step; what it sees depends on the seed and its number alone."""
        s = self.settings
        rng = np.random.default_rng([s.seed, 3, self.step])
        share = self.step / s.steps
        rate = s.learning_rate * min(1.0, (self.step + 1) / 100) * (0.01 + 0.99 * _fall(share))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        rows = np.sort(rng.choice(len(self.lessons), s.batch))
        images, points, moves = disturbed(
            *(torch.from_numpy(x[rows]).to(self.device) for x in self._arrays()), rng, s.moved
        )
        self.network.train()
        with torch.random.fork_rng():
            torch.manual_seed(int(rng.integers(2**31)))
            found = self.network(images, points)
        distance = torch.sqrt(((found - moves) ** 2).sum(-1) + 0.04)
        self.optimiser.zero_grad(set_to_none=True)
        distance.mean().backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 2.0)
        self.optimiser.step()
        self.step += 1
        memory = min(s.average, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            state = self.network.state_dict()
            for key, value in self.average.state_dict().items():
                if value.is_floating_point():
                    value.lerp_(state[key], 1 - memory)
                else:
                    value.copy_(state[key])

    def _arrays(self) -> tuple[np.ndarray, ...]:
        return self.lessons.images, self.lessons.points, self.lessons.moves

    def keep(self) -> None:
        """Write the checkpoint, whole or not at all."""
        buffer = io.BytesIO()
        torch.save(
            {
                "network": self.network.state_dict(),
                "average": self.average.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "step": self.step,
            },
            buffer,
        )
        atomic_write(self.checkpoint, buffer.getvalue())

    def record(self, found: dict[str, tuple[float, float]]) -> None:
        """A line of scalars.csv."""
        path = self.out / "scalars.csv"
        new = not path.exists()
        with open(path, "a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["step", *(f"{k} {w}" for k in found for w in ("as seen", "left"))])
            writer.writerow([self.step, *(f"{x:.4f}" for pair in found.values() for x in pair)])


def _fall(share: float) -> float:
    return 0.5 * (1 + float(np.cos(np.pi * min(share, 1.0))))


def _device(name: str) -> torch.device:
    cuda = torch.cuda.is_available()
    if name == "cuda" and not cuda:
        raise BackendUnavailable("device cuda: torch finds no CUDA device; use --device cpu")
    return torch.device("cuda" if cuda and name != "cpu" else "cpu")


def error_modes(moves: np.ndarray, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Directions in which meshes err, and by how much: principal components about no error.

    Parameters
    ----------
    moves : (N, 468, 2) px
    count : int
    seed : int
        Of the choice among many.

    Returns
    -------
    modes : (K, 936); scales : (K,) px
    """
    rng = np.random.default_rng([seed, 4])
    some = rng.permutation(len(moves))[:6000]
    flat = moves[some].reshape(len(some), -1).astype(np.float64)
    # windows are moved in training, each as a whole
    flat += np.tile(rng.normal(0, 0.5, (len(some), 2)), POINTS)
    values, vectors = np.linalg.eigh(flat.T @ flat / len(flat))
    order = np.argsort(values)[::-1][:count]
    return vectors[:, order].T.copy(), np.sqrt(np.maximum(values[order], 1e-8))


def disturbed(
    images: torch.Tensor,
    points: torch.Tensor,
    moves: torch.Tensor,
    rng: np.random.Generator,
    moved: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Windows as the network sees them: mirrored, the mesh moved and the window with it, light,
    colour and noise changed, a part covered.

    Parameters
    ----------
    images : (B, OUTER, OUTER, 3) uint8; points, moves : (B, 468, 2) px
    rng : Generator
    moved : float, px

    Returns
    -------
    images (B, 3, WINDOW, WINDOW) float, points and moves (B, 468, 2) px of the new windows
    """
    n, device = len(images), images.device

    def tensor(values) -> torch.Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=device)

    pictures = images.permute(0, 3, 1, 2).float()
    margin = (OUTER - WINDOW) / 2
    if rng.random() < 0.5:
        truth = mirrored(points + moves - margin) + margin
        pictures, points = pictures.flip(3), mirrored(points - margin) + margin
        moves = truth - points
    truth = points + moves
    far = np.where(rng.random((n, 1)) < 0.25, 3.0, 1.0) * moved
    shift = tensor(rng.normal(0, 1.0, (n, 2)) * far)
    zoom = tensor(np.exp(rng.normal(0, 0.03, (n, 1)) * far))
    roll = tensor(rng.normal(0, 0.04, (n, 1)) * far)
    c, s = torch.cos(roll), torch.sin(roll)
    turn = torch.stack([torch.cat([c, -s], 1), torch.cat([s, c], 1)], 1) * zoom[..., None]
    middle = points.mean(1, keepdim=True)
    points = (points - middle) @ turn.mT + middle + shift[:, None]
    # the window goes with its mesh
    middle, back = points.mean(1, keepdim=True), torch.linalg.inv(turn).mT
    at = torch.arange(WINDOW, dtype=torch.float32, device=device) + 0.5 - WINDOW / 2
    y, x = torch.meshgrid(at, at, indexing="ij")
    places = torch.stack([x, y], -1).view(1, -1, 2) @ turn.mT + middle
    pictures = torch.nn.functional.grid_sample(
        pictures,
        (places / (OUTER / 2) - 1).view(n, WINDOW, WINDOW, 2),
        align_corners=False,
        padding_mode="border",
    )
    truth = (truth - middle) @ back + WINDOW / 2
    points = (points - middle) @ back + WINDOW / 2
    pictures = pictures * tensor(np.exp(rng.normal(0, 0.12, (n, 3, 1, 1))))
    if rng.random() < 0.3:
        pictures = pictures.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    strength = rng.uniform(0, 5, (n, 1, 1, 1))
    pictures = pictures + tensor(rng.normal(0, 1, tuple(pictures.shape)) * strength)
    if rng.random() < 0.3:
        (top, left), (high, wide) = rng.integers(0, 48, 2), rng.integers(6, 18, 2)
        pictures[:, :, top : top + high, left : left + wide] = float(rng.uniform(0, 200))
    return pictures, points, truth - points


def measure(
    network: CorrectionNetwork, lessons: Lessons, device: torch.device | None = None
) -> dict[str, tuple[float, float]]:
    """Errors before and after, in per cent of a face's width.

    Returns
    -------
    dict
        ``all``: mean distance of all points in all frames; the others by feature: how far the mean
        of a clip's errors is from nothing, which no mean over its frames takes away.
    """
    device = device or torch.device("cpu")
    edge = (OUTER - WINDOW) // 2
    left = np.empty_like(lessons.moves)
    network.eval()
    with torch.inference_mode():
        for start in range(0, len(lessons), 256):
            some = slice(start, start + 256)
            images = lessons.images[some, edge : edge + WINDOW, edge : edge + WINDOW]
            tensor = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
            points = torch.from_numpy(lessons.points[some] - edge)
            found = network(tensor.float().to(device), points.to(device))
            left[some] = lessons.moves[some] - found.cpu().numpy()
    clips = [lessons.clip == k for k in np.unique(lessons.clip)]

    def common(errors: np.ndarray, points: tuple[int, ...]) -> float:
        means = [errors[rows][:, list(points)].mean((0, 1)) for rows in clips]
        return float(np.linalg.norm(means, axis=1).mean())

    both = (lessons.moves, left)
    every = [float(np.linalg.norm(e, axis=2).mean()) for e in both]
    out = {"all": every} | {k: [common(e, p) for e in both] for k, p in FEATURES.items()}
    return {k: (100 * a / FACE, 100 * b / FACE) for k, (a, b) in out.items()}
