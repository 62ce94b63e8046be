"""All inverses in the order that undoes a camera, each only where it is needed."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recon3d.restoration.common import StepReport, enter, leave
from recon3d.restoration.compression import deblock
from recon3d.restoration.fields import deinterlace
from recon3d.restoration.noise import NoiseModel, denoise, estimate_noise
from recon3d.restoration.sharpness import BlurEstimate, deblur, remove_halos
from recon3d.restoration.superresolution import Upscaler, super_resolve
from recon3d.restoration.tone import (
    apply_gain,
    brighten,
    exposure_statistics,
    is_dark,
    remove_light,
    white_balance,
)


class RestoreSettings(BaseModel):
    """Which inverses may act; each still measures first."""

    model_config = ConfigDict(extra="forbid")

    deinterlace: bool = Field(True, description="Rebuild lines where fields show combs.")
    deblock: bool = Field(True, description="Smooth the block grid of JPEG.")
    denoise: bool = Field(True, description="Remove Poisson-Gaussian noise.")
    brighten: bool = Field(True, description="Lift pictures that are too dark.")
    white_balance: bool = Field(True, description="Take the colour of the light out.")
    halos: bool = Field(False, description="Undo in-camera sharpening.")
    deblur: bool = Field(True, description="Undo Gaussian blur and straight smears.")
    local_contrast: float = Field(
        0.0, ge=0, le=1, description="Share of local contrast added to pictures that were dark."
    )
    scale: int = Field(1, ge=1, le=8, description="Enlargement; 1 keeps the size.")
    strength: float = Field(1.0, gt=0, le=3, description="Factor on the noise believed in.")


def auto_restore(
    image: np.ndarray,
    settings: RestoreSettings | None = None,
    *,
    skin: np.ndarray | None = None,
    upscaler: Upscaler | None = None,
) -> tuple[np.ndarray, list[StepReport]]:
    """Measure what is wrong with a picture and undo it, last damage first.

    Parameters
    ----------
    image : (H, W, 3) uint8, or float in [0, 1], sRGB
    settings : RestoreSettings, optional
    skin : (H, W) bool, optional
        Pixels known to be skin, for the white balance.
    upscaler : Upscaler, optional
        Enlarges instead of the classical method.

    Returns
    -------
    image : (s H, s W, 3), type of the input
    reports : list of StepReport
        One for each step that was allowed, in order, whether it acted or not.
    """
    settings = settings or RestoreSettings()
    u = enter(image)
    reports: list[StepReport] = []

    def run(function, *args: Any, **options: Any) -> None:
        nonlocal u
        u, report = function(u, *args, **options)
        reports.append(report)

    if settings.deinterlace:
        run(deinterlace)
    # Before blocks are smoothed: what smooths them hides noise from the estimate.
    noise = estimate_noise(u) if settings.denoise else None
    if settings.deblock:
        run(deblock)
        if noise is not None and reports[-1].acted:
            # Averaging sixteen shifted copies takes about half of the variance.
            noise = NoiseModel(0.5 * noise.photon, 0.5 * noise.floor)
    if settings.denoise:
        run(denoise, noise, strength=settings.strength)
    if settings.white_balance:
        run(white_balance, skin=skin)
    if settings.brighten:
        run(brighten, local_contrast=settings.local_contrast)
    if settings.halos:
        run(remove_halos)
    if settings.deblur:
        run(deblur)
    if settings.scale > 1 or upscaler is not None:
        run(super_resolve, max(settings.scale, 2), upscaler=upscaler)
    return leave(u, image), reports


class ClipRestorer:
    """The same for the frames of a clip, with parameters that move slowly.

    A gain, a white point or a kernel that jumped from frame to frame would flicker: measurements
    are averaged over the last second or so, and what was switched on stays on for a while.

    Parameters
    ----------
    settings : RestoreSettings
    inertia : float in [0, 1)
        Weight of the past in each average.
    """

    def __init__(self, settings: RestoreSettings | None = None, inertia: float = 0.9):
        self.settings = settings or RestoreSettings()
        self.inertia = inertia
        self._past: dict[str, float] = {}
        self._frames = 0

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, list[StepReport]]:
        """Restore the next frame, (H, W, 3) uint8 or float in [0, 1] sRGB."""
        s, u = self.settings, enter(image)
        reports: list[StepReport] = []
        # Costly measurements are made on the first frames and then now and again.
        look = self._frames < 5 or self._frames % 5 == 0
        self._frames += 1

        def note(pair):
            nonlocal u
            u, report = pair
            reports.append(report)

        if s.deinterlace:
            note(deinterlace(u))
        if s.deblock and (look or "quality" in self._past):
            quality = None if look else round(self._past["quality"])
            result, report = deblock(u, quality=quality)
            if report.acted:
                self._smooth("quality", float(report.applied["quality"]))
            else:
                self._past.pop("quality", None)
            note((result, report))
        if s.denoise:
            if look:
                measured = estimate_noise(u)
                self._smooth("photon", measured.photon)
                self._smooth("floor", measured.floor)
            model = NoiseModel(self._past["photon"], self._past["floor"])
            note(denoise(u, model, strength=s.strength, stride=4))
        if s.white_balance:
            note(self._balance(u, look))
        if s.brighten:
            note(self._brighten(u))
        if s.halos:
            note(remove_halos(u))
        if s.deblur:
            note(self._deblur(u, look))
        if s.scale > 1:
            note(super_resolve(u, s.scale))
        return leave(u, image), reports

    def _smooth(self, name: str, value: float) -> float:
        past = self._past.get(name, value)
        # A cut, not a flicker: begin anew.
        if abs(value - past) > 3 * max(abs(past), 1e-6) and name in ("log_average",):
            past = value
        self._past[name] = self.inertia * past + (1 - self.inertia) * value
        return self._past[name]

    def _switch(self, name: str, wanted: bool) -> bool:
        """On and off with hysteresis: the average wish must pass 0.6 or fall below 0.4."""
        wish = self._smooth(f"wish_{name}", float(wanted))
        state = self._past.get(f"state_{name}", float(wanted))
        state = 1.0 if wish > 0.6 else 0.0 if wish < 0.4 else state
        self._past[f"state_{name}"] = state
        return state > 0.5

    def _brighten(self, u: np.ndarray) -> tuple[np.ndarray, StepReport]:
        from recon3d.restoration.tone import KEY

        statistics = exposure_statistics(u)
        average = self._smooth("log_average", statistics["log_average"])
        acted = self._switch("dark", is_dark(statistics))
        gain = float(np.clip(KEY / max(average, 1e-6), 1, 40)) if acted else 1.0
        # Switching on or off is a ramp as well.
        gain = float(np.exp(self._smooth("log_gain", float(np.log(gain)))))
        result = apply_gain(u, gain) if gain > 1.02 else u
        return result, StepReport(
            step="brighten",
            belief=f"log-average luminance {average:.4f} over the last frames",
            acted=gain > 1.02,
            measured=statistics,
            applied={"gain": gain},
        )

    def _balance(self, u: np.ndarray, look: bool) -> tuple[np.ndarray, StepReport]:
        from recon3d.restoration.light import REFERENCE_KELVIN

        if look:
            _, report = white_balance(u)
            kelvin = float(report.applied.get("kelvin", REFERENCE_KELVIN))
            # Evenly spaced to the eye in reciprocal temperature.
            self._smooth("mired", 1e6 / kelvin)
        kelvin = 1e6 / self._past["mired"]
        acted = abs(self._past["mired"] - 1e6 / REFERENCE_KELVIN) > 8
        return (remove_light(u, kelvin) if acted else u), StepReport(
            step="white_balance",
            belief=f"light of about {kelvin:.0f} K over the last frames",
            acted=acted,
            applied={"kelvin": kelvin} if acted else {},
        )

    def _deblur(self, u: np.ndarray, look: bool) -> tuple[np.ndarray, StepReport]:
        from recon3d.restoration.sharpness import NATURAL_BLUR, estimate_blur

        if look:
            seen = estimate_blur(u)
            # Smears and focus change from frame to frame: only the lens is undone in clips.
            wanted = seen.kind == "gaussian"
            self._smooth("edge", seen.sigma if wanted else NATURAL_BLUR)
            self._switch("blur", wanted)
        acted = self._past.get("state_blur", 0.0) > 0.5
        kind = "gaussian" if acted else "none"
        return deblur(u, BlurEstimate(kind, self._past["edge"], 0.0, 0.0, 0.0))


__all__ = ["ClipRestorer", "RestoreSettings", "auto_restore"]
