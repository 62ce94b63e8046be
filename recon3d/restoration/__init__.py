"""What bad cameras do to pictures, and the classical inverses of it."""

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

__all__ = [
    "H264",
    "ColourTemperature",
    "Downsample",
    "DropFrames",
    "Exposure",
    "Interlace",
    "Jpeg",
    "LowLight",
    "MotionBlur",
    "OpticalBlur",
    "Recipe",
    "Sharpen",
    "cctv_recipe",
    "degrade",
    "degrade_clip",
]
