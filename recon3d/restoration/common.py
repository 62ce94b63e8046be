"""What every inverse shares: the report, and the way in and out of floating point."""

from __future__ import annotations

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recon3d.checks import check_shape
from recon3d.colour import srgb_to_linear, to_uint8
from recon3d.errors import InputError
from recon3d.restoration.light import LUMINANCE


class StepReport(BaseModel):
    """What an inverse believed to be wrong, and what it did about it."""

    model_config = ConfigDict(extra="forbid")

    step: str = Field(description="Name of the inverse.")
    belief: str = Field(description="One sentence for a person.")
    acted: bool = Field(description="Whether the picture was changed.")
    measured: dict[str, float] = Field(default_factory=dict, description="What was measured.")
    applied: dict[str, float | str] = Field(default_factory=dict, description="What was applied.")


def enter(image: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3), uint8 or float in [0, 1], as float32 sRGB.

    Raises
    ------
    ShapeError, InputError
        If it is not such a picture.
    """
    check_shape(image, "H W 3", "image")
    if image.dtype == np.uint8:
        return image.astype(np.float32) / 255
    if not np.issubdtype(image.dtype, np.floating):
        raise InputError(f"picture is {image.dtype}, expected uint8, or float in [0, 1]")
    return np.clip(np.asarray(image, np.float32), 0, 1)


def leave(result: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Back to the type that came in."""
    if like.dtype == np.uint8:
        return to_uint8(result)
    return np.clip(result, 0, 1).astype(np.float32)


def luma(image: np.ndarray) -> np.ndarray:
    """Y' of (H, W, 3) float32 sRGB (Rec. 601), on which edges and grids are measured."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def luminance(image: np.ndarray) -> np.ndarray:
    """Relative luminance (H, W) of float32 sRGB, linear."""
    return srgb_to_linear(image) @ LUMINANCE
