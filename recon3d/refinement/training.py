"""Training of the refiner: shards in, weights out, with checkpoints that survive a kill."""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from recon3d.errors import InputError
from recon3d.morphable.topology import NOSTRILS
from recon3d.refinement import losses
from recon3d.refinement.augmentation import (
    disturb,
    morph,
    mosaic,
    vary_nostrils,
    vary_skin,
    vary_tones,
    warp,
)
from recon3d.refinement.conditioning import CHANNELS, MOUTH, WORKING, as_tensor
from recon3d.refinement.networks import Discriminators, Generator
from recon3d.refinement.settings import TrainingSettings
from recon3d.refinement.weights import load_generator, save_generator
from recon3d.tracking.topology import MIRROR

_EYES = (33, 133), (362, 263)
_FACE = 150.0
"""Width of a face in the pictures inside the network, about, px."""
_BLUR = 0.6
"""Blur of a fused view, about, standard deviation in px of the frames."""
_RECORDED = (
    "learning_rate",
    "adversarial",
    "matching",
    "pixel",
    "bands",
    "gradient",
    "structure",
    "identity",
    "likeness",
    "pairs",
    "batch",
    "crop",
    "warp",
    "morph",
    "mosaic",
    "noise",
    "skin",
    "nostrils",
)
"""Settings that may change when training goes on, each change written down."""
_FREE = {
    *_RECORDED,
    "checkpoint_every",
    "validate_every",
    "device",
    "steps",
    "val_pairs",
    "adversarial_from",
    "likelihood",
}
"""All that may change; the others belong to the run."""


class Trainer:
    """The state of a training run.

    Parameters
    ----------
    train, val : dict
        Pairs as `recon3d.refinement.shards.read_shards` returns them.
    out : Path
        For checkpoint, weights, scalars and panels.
    settings : TrainingSettings
    note : callable, optional
        Told a line at a time what goes on.
    embed : callable (picture, landmarks) -> (D,), optional
        A face embedder that watches at validation.
    describer : torch.nn.Module, optional
        A frozen network that describes faces, such as
        `recon3d.recognition.differentiable.DlibNetwork`: the identity loss goes through it.
    """

    def __init__(
        self,
        train: dict[str, np.ndarray],
        val: dict[str, np.ndarray],
        out: Path,
        settings: TrainingSettings,
        note: Callable[[str], None] | None = None,
        embed: Callable | None = None,
        describer: torch.nn.Module | None = None,
    ):
        self.data, self.val, self.out, self.settings = train, val, Path(out), settings
        self.face_px = _face_sizes(train)
        self.by_size = np.argsort(self.face_px, kind="stable")
        self.ranks = np.argsort(self.by_size, kind="stable")
        self.note = note or (lambda text: None)
        self.embed = embed
        self.device = torch.device(_device(settings.device))
        self.precision = _precision(settings.precision, self.device)
        self.describer = None
        if describer is not None and settings.identity + settings.likeness > 0:
            self.describer = describer.to(self.device)
        self.step = 0
        self.seconds = 0.0
        self.history = [{"from_step": 0, **self._loss_weights()}]
        # The networks' own stream of numbers: the caller's is left alone.
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            self.generator = self._new_generator()
            self.critics = Discriminators().to(self.device, memory_format=torch.channels_last)
            self.average = self._new_generator()
        self.average.load_state_dict(self.generator.state_dict())
        self.average.requires_grad_(False)
        self.optimiser = torch.optim.Adam(
            self.generator.parameters(), settings.learning_rate, betas=(0.9, 0.99)
        )
        self.critic_optimiser = torch.optim.Adam(
            self.critics.parameters(), settings.critic_rate, betas=(0.5, 0.99)
        )
        self.scaler = torch.amp.GradScaler(enabled=self.precision == torch.float16)
        self.critic_scaler = torch.amp.GradScaler(enabled=self.precision == torch.float16)

    def _loss_weights(self) -> dict:
        return {k: getattr(self.settings, k) for k in _RECORDED}

    def _new_generator(self) -> Generator:
        generator = Generator(self.settings.widths, self.settings.blocks)
        return generator.to(self.device, memory_format=torch.channels_last)

    # ---------------------------------------------------------------- one step
    def batch(self, step: int) -> dict[str, torch.Tensor]:
        """The crops of a step; they depend on the seed and the step alone."""
        s = self.settings
        rng = np.random.default_rng([s.seed, 3, step])
        chosen = np.sort(
            rng.choice(len(self.data["target"]), s.batch, len(self.data["target"]) < s.batch)
        )
        chosen = rng.permutation(chosen)
        rows = {k: self.data[k][chosen] for k in (*CHANNELS, "target")}
        inputs = as_tensor(rows)
        target = torch.from_numpy(rows["target"]).permute(0, 3, 1, 2).float() / 127.5 - 1
        points = self.data["points"][chosen].astype(np.float64)
        for k in range(s.batch):
            drawn = rng.random()
            if drawn < s.morph + s.mosaic:
                morphed = drawn < s.morph
                inputs[k], target[k], points[k] = self._blended(
                    inputs[k], target[k], points[k], int(chosen[k]), rng, morphed
                )
        marks = (*_EYES, MOUTH, NOSTRILS[0] + NOSTRILS[1])
        places = np.stack([points[:, list(numbers)].mean(1) for numbers in marks], 1)
        # Three in four crops show the face's middle, with eyes and mouth, the others anything.
        n_face = max(1, round(0.75 * s.batch))
        out_inputs, out_target, out_places, out_chips = [], [], [], []
        for k in range(s.batch):
            x, y, place = inputs[k], target[k], places[k]
            room = WORKING - s.crop
            if k < n_face:
                middle = place[:3].mean(0) + rng.uniform(-12, 12, 2) + [0, 4]
                left, top = np.clip(np.round(middle - s.crop / 2), 0, room).astype(int)
            else:
                left, top = rng.integers(0, room + 1, 2)
            window = (slice(None), slice(top, top + s.crop), slice(left, left + s.crop))
            x, y = x[window].clone(), y[window].clone()
            place = place - [left, top]
            outline = points[k] - [left, top]
            if rng.random() < 0.5:
                x, y = x.flip(-1), y.flip(-1)
                first = sum(CHANNELS[c] for c in ("picture", "reference", "evidence"))
                x[first] = -x[first]  # the normals' x
                place = np.array([s.crop, 0]) + place[[1, 0, 2, 3]] * [-1, 1]
                outline = np.array([s.crop, 0]) + outline[MIRROR] * [-1, 1]
            if s.warp > 0 and rng.random() < 0.7:
                x, y, place, outline = warp(x, y, place, outline, s.warp, rng)
            blur = float(_BLUR * _FACE / max(self.face_px[chosen[k]], 20.0))
            if rng.random() < s.nostrils:
                x, y = vary_nostrils(x, y, outline, blur, rng)
            if s.skin > 0 and rng.random() < 0.5:
                x, y = vary_skin(x, y, outline, blur, s.skin, rng)
            if s.noise > 0 and rng.random() < 0.6:
                x = disturb(x, s.noise, rng)
            x, y = vary_tones(x, y, rng)
            if rng.random() < s.alone:
                x[3:] = 0
            out_inputs.append(x)
            out_target.append(y)
            out_places.append(place)
            if self.describer is not None and k < n_face:
                out_chips.append(self.describer.align(outline))
        stacked = torch.stack(out_inputs)
        # The mask is the last channel; deprived crops have none, and count as half a face.
        face = (stacked[:, -1:] + 1) / 2
        places_tensor = torch.from_numpy(np.stack(out_places)).float()
        weight = 0.35 + 0.65 * face + _near(places_tensor, s.crop)
        moved = {
            "inputs": stacked,
            "target": torch.stack(out_target),
            "weight": weight,
        }
        batch = {k: v.to(self.device, memory_format=torch.channels_last) for k, v in moved.items()}
        batch["places"] = places_tensor
        batch["n_face"] = n_face
        if out_chips:
            batch["to_chip"] = torch.from_numpy(np.stack(out_chips)).float().to(self.device)
        return batch

    def _blended(self, x, y, points, number: int, rng: np.random.Generator, morphed: bool):
        """A pair, mixed with that of somebody whose face was about as small."""
        rank = int(self.ranks[number])
        # Pictures of unlike resolution would blend to one of no resolution at all.
        near = max(len(self.by_size) // 12, 1)
        other = rank + int(rng.integers(1, near + 1)) * (1 if rng.random() < 0.5 else -1)
        other = int(self.by_size[np.clip(other, 0, len(self.by_size) - 1)])
        rows = {k: self.data[k][other : other + 1] for k in (*CHANNELS, "target")}
        x_b = as_tensor(rows)[0]
        y_b = torch.from_numpy(rows["target"][0]).permute(2, 0, 1).float() / 127.5 - 1
        points_b = self.data["points"][other].astype(np.float64)
        if morphed:
            return morph((x, y, points), (x_b, y_b, points_b), float(rng.uniform(0.25, 0.6)))
        return mosaic((x, y, points), (x_b, y_b, points_b), rng)

    def advance(self) -> dict[str, float]:
        """One step of the generator and, once they have joined, of the critics."""
        s, start = self.settings, time.perf_counter()
        batch = self.batch(self.step)
        inputs, target, weight = batch["inputs"], batch["target"], batch["weight"]
        n, places = batch["n_face"], batch["places"][: batch["n_face"]]
        given = inputs[:n, :3]
        joined = self.step >= s.adversarial_from * s.steps and s.adversarial > 0
        rate = s.learning_rate * _cosine(self.step / max(s.steps, 1))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        auto = torch.autocast(
            self.device.type, self.precision, enabled=self.precision != torch.float32
        )
        with auto:
            made, log_variance = self.generator(inputs)
        found = {
            "pixel": losses.charbonnier(made, target, weight),
            "gradient": losses.gradient_difference(made, target, weight),
            "bands": losses.bands(made, target, weight),
            "structure": losses.structure_of_scales(made, target, weight),
            "likelihood": losses.likelihood(made - target, log_variance),
        }
        total = (
            s.pixel * found["pixel"]
            + s.bands * found["bands"]
            + s.gradient * found["gradient"]
            + s.structure * found["structure"]
            + s.likelihood * found["likelihood"]
        )
        if self.describer is not None:
            shown = [(127.5 * (x[:n] + 1), batch["to_chip"]) for x in (target, made)]
            with auto:
                with torch.no_grad():
                    real = self.describer(*shown[0])
                described = self.describer(*shown[1])
            found["identity"] = losses.other_person(real, described)
            found["likeness"] = losses.match_features([real], [described])
            total = total + s.identity * found["identity"] + s.likeness * found["likeness"]
        if joined:
            self.critics.requires_grad_(False)
            with auto:
                judged = self.critics(made[:n], given, places)
                with torch.no_grad():
                    real = self.critics(target[:n], given, places)
            found["fool"] = losses.fool(judged)
            found["matching"] = losses.match_features(real, judged)
            total = total + s.adversarial * found["fool"] + s.matching * 0.1 * found["matching"]
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(total).backward()
        self.scaler.unscale_(self.optimiser)
        torch.nn.utils.clip_grad_norm_(self.generator.parameters(), 1.0)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        # The average follows faster at first, when it has little to remember.
        decay = min(s.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for a, g in zip(self.average.parameters(), self.generator.parameters()):
                a.lerp_(g, 1 - decay)
        if joined:
            found |= self._teach_critics(made[:n].detach(), target[:n], given, places, auto)
        self.step += 1
        self.seconds += time.perf_counter() - start
        return {k: float(v.detach()) for k, v in found.items()} | {"rate": rate}

    def _teach_critics(self, made, target, given, places, auto) -> dict[str, torch.Tensor]:
        s = self.settings
        self.critics.requires_grad_(True)
        with auto:
            real = self.critics(target, given, places)
            fake = self.critics(made, given, places)
        loss = losses.tell_apart(real, fake)
        found = {"critics": loss}
        if s.r1 > 0 and self.step % s.r1_every == 0:
            # In full precision: squares of small gradients vanish otherwise.
            picture = target.detach().float().requires_grad_()
            penalty = losses.r1_penalty(self.critics(picture, given.float(), places), picture)
            loss = loss + 0.5 * s.r1 * s.r1_every * penalty * 1e-3
            found["r1"] = penalty
        self.critic_optimiser.zero_grad(set_to_none=True)
        self.critic_scaler.scale(loss).backward()
        self.critic_scaler.step(self.critic_optimiser)
        self.critic_scaler.update()
        return found

    # ---------------------------------------------------------------- validation
    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Errors on people never trained on, before and after, and the panel of pictures."""
        from skimage.metrics import structural_similarity

        embed = self.embed
        raw_psnr, psnr, raw_ssim, ssim, rows, drift = [], [], [], [], [], []
        for k in range(len(self.val["target"])):
            row = {c: self.val[c][k] for c in CHANNELS}
            made, _ = self.average(as_tensor(row).to(self.device))
            made = ((made[0].permute(1, 2, 0).cpu().numpy() + 1) * 127.5).clip(0, 255)
            target, raw = self.val["target"][k], row["picture"]
            where = self.val["mask"][k][..., 0] > 127
            raw_psnr.append(_psnr(raw, target, where))
            psnr.append(_psnr(made, target, where))
            grey = [
                cv2.cvtColor(np.round(x).astype(np.uint8), cv2.COLOR_RGB2GRAY)
                for x in (raw, made, target)
            ]
            for store, image in ((raw_ssim, grey[0]), (ssim, grey[1])):
                _, maps = structural_similarity(image, grey[2], full=True, data_range=255)
                store.append(float(maps[where].mean()))
            if embed is not None:
                points = self.val["points"][k]
                made_8 = np.round(made).astype(np.uint8)
                seen = [embed(np.ascontiguousarray(x), points) for x in (raw, made_8, target)]
                drift.append([np.linalg.norm(x - seen[2]) for x in seen[:2]])
            if k < 10:
                rows.append(np.hstack([raw, np.round(made).astype(np.uint8), target]))
        panel = np.vstack([np.hstack(rows[i : i + 2]) for i in range(0, len(rows) - 1, 2)])
        from recon3d.media.pictures import write_png

        write_png(self.out / "panels" / f"step_{self.step:06d}.png", panel)
        found = {
            "psnr_raw": float(np.mean(raw_psnr)),
            "psnr": float(np.mean(psnr)),
            "ssim_raw": float(np.mean(raw_ssim)),
            "ssim": float(np.mean(ssim)),
        }
        if drift:
            found["identity_raw"], found["identity"] = (float(x) for x in np.mean(drift, 0))
        return found

    # ---------------------------------------------------------------- keeping
    def save(self) -> None:
        """Write the checkpoint and the averaged weights; a kill leaves the old ones whole."""
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "generator": self.generator.state_dict(),
            "average": self.average.state_dict(),
            "critics": self.critics.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "critic_optimiser": self.critic_optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "critic_scaler": self.critic_scaler.state_dict(),
            "settings": json.dumps(self.settings.model_dump(mode="json")),
            "history": json.dumps(self.history),
        }
        temporary = self.out / "checkpoint.tmp"
        torch.save(state, temporary)
        os.replace(temporary, self.out / "checkpoint.pt")
        save_generator(
            self.out / "refiner.safetensors",
            self.average,
            {
                "steps": str(self.step),
                "seed": str(self.settings.seed),
                "pairs": str(len(self.data["target"])),
                "device": self.device.type,
                "precision": str(self.precision).removeprefix("torch."),
                "history": json.dumps(self.history),
            },
        )

    def begin_with(self, path: Path) -> None:
        """Begin with the weights of an earlier refiner, which may have fewer blocks.

        Raises
        ------
        InputError
            If they are of a network of other widths, or of more blocks.
        ModelError
            If the file holds none.
        """
        earlier, facts = load_generator(path)
        try:
            for network in (self.generator, self.average):
                network.grow_from(earlier)
        except ValueError as error:
            raise InputError(f"{path}: {error}") from error
        self.history[0]["start"] = {k: facts[k] for k in ("steps", "seed", "pairs") if k in facts}
        self.history[0]["start"]["history"] = json.loads(facts.get("history", "[]"))

    def load(self) -> None:
        """Go on from the checkpoint.

        Raises
        ------
        InputError
            If there is none, or it belongs to other settings.
        """
        path = self.out / "checkpoint.pt"
        if not path.exists():
            raise InputError(f"{path}: no checkpoint to go on from; leave --resume out")
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            known = json.loads(state["settings"])
        except Exception as error:
            raise InputError(f"{path} is no checkpoint of the refiner: {error}") from error
        now = self.settings.model_dump(mode="json")
        for key in sorted(set(now) - _FREE):
            if known.get(key) != now[key]:
                raise InputError(
                    f"{path} was trained with {key} {known.get(key)}, now {now[key]}; "
                    "resume with the same settings or choose another folder"
                )
        self.step, self.seconds = state["step"], state["seconds"]
        self.history = json.loads(state.get("history", "[]"))
        if self._loss_weights() != {k: known.get(k) for k in self._loss_weights()}:
            self.history.append({"from_step": self.step, **self._loss_weights()})
        try:
            self.generator.load_state_dict(state["generator"])
            self.average.load_state_dict(state["average"])
            self.critics.load_state_dict(state["critics"])
        except (KeyError, RuntimeError) as error:
            raise InputError(
                f"{path} holds other networks than this version trains; begin anew with --start "
                f"{self.out / 'refiner.safetensors'}"
            ) from error
        self.optimiser.load_state_dict(state["optimiser"])
        self.critic_optimiser.load_state_dict(state["critic_optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        self.critic_scaler.load_state_dict(state["critic_scaler"])


def train(
    train_pairs: dict[str, np.ndarray],
    val_pairs: dict[str, np.ndarray],
    out: Path,
    settings: TrainingSettings,
    *,
    resume: bool = False,
    note: Callable[[str], None] | None = None,
    embed: Callable | None = None,
    describer: torch.nn.Module | None = None,
    start: Path | None = None,
    progress: Callable[[float, float | None], None] | None = None,
) -> Trainer:
    """Train to the end, or go on with a run that was stopped.

    Parameters
    ----------
    train_pairs, val_pairs : dict
        As `recon3d.refinement.shards.read_shards` returns them.
    out : Path
        Gets ``checkpoint.pt``, ``refiner.safetensors``, ``scalars.csv``, ``panels/``, and
        TensorBoard's event files where TensorBoard is installed.
    settings : TrainingSettings
    resume : bool
    note : callable, optional
        Told a line at a time what goes on.
    embed : callable (picture, landmarks) -> (D,), optional
        A face embedder that watches at validation.
    describer : torch.nn.Module, optional
        A frozen network that describes faces; the identity loss goes through it.
    start : Path, optional
        Weights of an earlier refiner to begin with instead of the identity.
    progress : callable, optional

    Returns
    -------
    Trainer
    """
    out = Path(out)
    (out / "panels").mkdir(parents=True, exist_ok=True)
    trainer = Trainer(train_pairs, val_pairs, out, settings, note, embed, describer)
    if resume:
        trainer.load()
    elif start is not None:
        trainer.begin_with(start)
    scalars = _Scalars(out, trainer.step, trainer.note)
    gathered: dict[str, list[float]] = {}
    began, first = time.perf_counter(), trainer.step
    try:
        while trainer.step < settings.steps:
            for name, value in trainer.advance().items():
                gathered.setdefault(name, []).append(value)
            step = trainer.step
            if progress is not None:
                progress(step, settings.steps)
            if step % 25 == 0 or step == settings.steps:
                means = {k: float(np.mean(v)) for k, v in gathered.items()}
                speed = (step - first) * settings.batch / (time.perf_counter() - began)
                scalars.write(step, means | {"crops_per_second": speed})
                gathered = {}
            if step % settings.validate_every == 0 or step == settings.steps:
                found = trainer.validate()
                scalars.write(step, {f"val_{k}": v for k, v in found.items()})
                speed = (step - first) * settings.batch / (time.perf_counter() - began)
                trainer.note(
                    f"step {step}: PSNR {found['psnr_raw']:.2f} -> {found['psnr']:.2f} dB, SSIM "
                    f"{found['ssim_raw']:.4f} -> {found['ssim']:.4f}, identity "
                    f"{found.get('identity_raw', np.nan):.3f} -> "
                    f"{found.get('identity', np.nan):.3f}, {speed:.1f} crops/s"
                )
            if step % settings.checkpoint_every == 0 or step == settings.steps:
                trainer.save()
    finally:
        scalars.close()
    return trainer


class _Scalars:
    """A CSV of all numbers over steps, and TensorBoard's files where it is installed."""

    def __init__(self, out: Path, step: int, note):
        path = out / "scalars.csv"
        kept = []
        if step and path.exists():
            with open(path, newline="", encoding="utf-8") as file:
                kept = [row for row in csv.reader(file) if row and row[0].isdigit()]
            kept = [row for row in kept if int(row[0]) <= step]
        self._file = open(path, "w", newline="", encoding="utf-8")  # noqa: SIM115
        self._rows = csv.writer(self._file)
        self._rows.writerow(["step", "name", "value"])
        self._rows.writerows(kept)
        try:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(out / "events"), purge_step=step or None)
        except ImportError:
            self._board = None
            note("TensorBoard is not installed (pip install tensorboard): scalars.csv only")

    def write(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._rows.writerow([step, name, f"{value:.6g}"])
            if self._board is not None:
                self._board.add_scalar(name, value, step)
        self._file.flush()

    def close(self) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()


def _near(places: torch.Tensor, side: int) -> torch.Tensor:
    """(N, 1, side, side), 1.5 about eyes, mouth and nostrils, falling off over twenty pixels."""
    grid = torch.arange(side) + 0.5
    x = (grid - places[..., :1]) / 20.0
    y = (grid - places[..., 1:]) / 12.0
    peaks = torch.exp(-0.5 * (x[:, :, None, :] ** 2 + y[:, :, :, None] ** 2))
    return 1.5 * peaks.amax(1, keepdim=True)


def _face_sizes(pairs: dict[str, np.ndarray]) -> np.ndarray:
    """(N,) widths of the faces in the simulated clips, px; 0 where nothing is said of them."""
    if "info" not in pairs:
        return np.zeros(len(pairs["target"]))
    return np.array([float(json.loads(str(text)).get("face_px", 0)) for text in pairs["info"]])


def _psnr(a: np.ndarray, b: np.ndarray, where: np.ndarray) -> float:
    error = ((a.astype(np.float64) - b)[where] ** 2).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def _cosine(phase: float) -> float:
    return 0.03 + 0.97 * 0.5 * (1 + float(np.cos(np.pi * min(phase, 1.0))))


def _device(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: no CUDA device is usable here; try --device cpu")
    return wanted


def _precision(wanted: str, device: torch.device) -> torch.dtype:
    if wanted == "auto":
        if device.type == "cuda":
            return torch.float16
        # Without instructions for it bfloat16 is the slower one. torch's names are private.
        known = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        fast = any(getattr(torch.cpu, name, lambda: False)() for name in known)
        return torch.bfloat16 if fast else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[wanted]
