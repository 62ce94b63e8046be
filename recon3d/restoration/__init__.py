"""What bad cameras do to pictures, and the classical inverses of it."""

from recon3d.restoration.auto import ClipRestorer, RestoreSettings, auto_restore
from recon3d.restoration.common import StepReport
from recon3d.restoration.compression import deblock, soften_coding
from recon3d.restoration.degradations import (
    H264,
    ColourTemperature,
    Downsample,
    DropFrames,
    Exposure,
    Interlace,
    Jpeg,
    LowLight,
    MotionBlur,
    OpticalBlur,
    Recipe,
    Sharpen,
    cctv_recipe,
    degrade,
    degrade_clip,
)
from recon3d.restoration.enhance import (
    EnhanceReport,
    EnhanceSettings,
    enhance_path,
    restore_frames,
)
from recon3d.restoration.fields import (
    deinterlace,
    deinterlace_frames,
    interpolate,
    repair_repeats,
)
from recon3d.restoration.noise import NoiseModel, denoise, denoise_frames, estimate_noise
from recon3d.restoration.sharpness import BlurEstimate, deblur, estimate_blur, remove_halos
from recon3d.restoration.superresolution import OnnxUpscaler, super_resolve
from recon3d.restoration.tone import brighten, estimate_light, white_balance

__all__ = [
    "H264",
    "BlurEstimate",
    "ClipRestorer",
    "ColourTemperature",
    "Downsample",
    "DropFrames",
    "EnhanceReport",
    "EnhanceSettings",
    "Exposure",
    "Interlace",
    "Jpeg",
    "LowLight",
    "MotionBlur",
    "NoiseModel",
    "OnnxUpscaler",
    "OpticalBlur",
    "Recipe",
    "RestoreSettings",
    "Sharpen",
    "StepReport",
    "auto_restore",
    "brighten",
    "cctv_recipe",
    "deblock",
    "deblur",
    "degrade",
    "degrade_clip",
    "deinterlace",
    "deinterlace_frames",
    "denoise",
    "denoise_frames",
    "enhance_path",
    "estimate_blur",
    "estimate_light",
    "estimate_noise",
    "interpolate",
    "remove_halos",
    "repair_repeats",
    "restore_frames",
    "soften_coding",
    "super_resolve",
    "white_balance",
]
