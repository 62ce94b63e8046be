"""Settings of the texture stage."""

from pydantic import BaseModel, ConfigDict, Field


class TexturingSettings(BaseModel):
    """How the frames are fused into one texture."""

    model_config = ConfigDict(extra="forbid")

    size: int = Field(512, ge=32, le=4096, description="Side of the square texture in texels.")
    texels_per_pixel: float = Field(
        2.0,
        ge=1,
        description="Texels to the finest frame's pixel that the solution works with; where that "
        "is less than the texture has, it is enlarged at the end.",
    )
    max_views: int = Field(
        32, ge=1, description="At most this many views are fused, the best by quality and angle."
    )
    min_cosine: float = Field(
        0.12,
        ge=0,
        lt=1,
        description="Surface seen more obliquely than this cosine to its normal is not used.",
    )
    full_cosine: float = Field(
        0.45,
        gt=0,
        le=1,
        description="From this cosine on, obliqueness costs only what resolution it costs.",
    )
    depth_mm: float = Field(
        8.0,
        ge=0,
        description="Error of the surface's depth, mm, beyond which turned views, where it shows "
        "as a shift, count less than frontal ones; in proportion to the size of a pixel.",
    )
    expression_mm: float = Field(
        2.0,
        gt=0,
        description="Movement of the lids or the lips beyond that of the most neutral view, mm, "
        "that takes a view's weight there down by a factor exp(-1); more where a pixel of the "
        "frame is larger.",
    )
    gaze_mm: float = Field(
        1.0,
        gt=0,
        description="Movement of the irises beside that of the views that look most nearly ahead, "
        "mm, that takes a view's weight at the eyes down by a factor exp(-1); more where a pixel "
        "of the frame is larger.",
    )
    light: bool = Field(True, description="Model the light by spherical harmonics and remove it.")
    light_prior: float = Field(
        0.2,
        gt=0,
        description="Standard deviation of the harmonics of log light, the same for all frames of "
        "a camera; smaller believes in even light.",
    )
    exposure_change: float = Field(
        0.1,
        gt=0,
        description="Least standard deviation of how the log exposure of one frame differs from "
        "its shot's; frames that show more raise it. A face that turns towards a lamp grows "
        "brighter as a whole: with exposures that are free in every frame, the lamp is taken for "
        "the camera's doing.",
    )
    light_change: float = Field(
        0.03,
        gt=0,
        description="Standard deviation of how the light of one frame differs from its camera's.",
    )
    light_colour: float = Field(
        0.2,
        gt=0,
        le=1,
        description="How much the light's colour varies with direction and frame, compared to its "
        "strength.",
    )
    symmetry: float = Field(
        2.0,
        gt=0,
        description="Standard deviation of log albedo between a point and its mirror image, which "
        "tells light from skin where the head does not turn.",
    )
    robust: float = Field(
        2.5, gt=0, description="Residuals beyond this many standard deviations lose weight."
    )
    registration_rounds: int = Field(
        2, ge=0, description="Rounds of aligning every view to the fused texture by a smooth flow."
    )
    flow_spacing_mm: float = Field(25.0, gt=0, description="Between control points of the flow.")
    flow_mm: float = Field(
        1.0, gt=0, description="Standard deviation of the flow at a control point, mm on the face."
    )
    shift_mm: float = Field(
        2.0, gt=0, description="Standard deviation of a view's shift as a whole, mm on the face."
    )
    solve: bool = Field(
        True, description="Solve for the texture that explains the frames; else their robust mean."
    )
    solve_views: int = Field(24, ge=1, description="At most this many views enter the solution.")
    blur_px: float = Field(
        0.3,
        gt=0,
        description="Standard deviation of the camera's blur beyond the pixel's own area, px.",
    )
    exposure_fraction: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of the time between frames that the shutter is open: the face's own "
        "path over it is part of the blur. None: estimated from the frames in which it moves.",
    )
    focus: bool = Field(
        True,
        description="Estimate how blurred each view is beside the sharpest: the blur is undone as "
        "far as it can be, and what is blurred counts less.",
    )
    regularisation: float = Field(
        1.0,
        gt=0,
        description="Strength of the edge-preserving prior of the solution at a relative noise of "
        "5 %; it grows with the variance of the noise.",
    )
    iterations: int = Field(8, ge=1, description="Conjugate gradient steps a reweighting.")
    reweightings: int = Field(2, ge=1, description="Rounds of robust and edge weights.")
    fill: bool = Field(True, description="Complete what was not seen, mirrored first.")


def plain_average(settings: TexturingSettings | None = None) -> TexturingSettings:
    """Settings with which texturing is a weighted average of warped frames and nothing more.

    The same views, light and weights by angle and expression, but no solution, no registration
    and no robust weights: the baseline that super-resolution has to beat.
    """
    changes = {"solve": False, "registration_rounds": 0, "robust": 1e6}
    return (settings or TexturingSettings()).model_copy(update=changes)
