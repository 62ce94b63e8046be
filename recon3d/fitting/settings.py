"""Settings of the landmark bundle adjustment."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class FittingSettings(BaseModel):
    """How a track is fitted.

    The defaults say how far a landmark is believed. A landmarker's errors are smooth over the
    face and the same in every frame, so neither more landmarks nor more frames average them away:
    `effective_landmarks` and the `bias_*` fields keep them from speaking too loudly about shape.
    """

    model_config = ConfigDict(extra="forbid")

    identity_modes: int | None = Field(
        None, ge=0, description="Use only the first so many identity modes; all when empty."
    )
    shape_modes: int = Field(
        120, ge=1, description="Most directions of landmark shape (identity and bias together)."
    )
    identity_std: float = Field(
        1.0,
        gt=0,
        description="Prior standard deviation of identity coefficients (1 = the model's).",
    )

    landmark_floor_mm: float = Field(
        2.0,
        gt=0,
        description="Error of a landmark in one frame beyond the tracker's covariance, mm on the "
        "face, one standard deviation per axis.",
    )
    landmarks: int = Field(
        240,
        ge=6,
        description="How many of the 478 landmarks the solver works with, spread over the face.",
    )
    effective_landmarks: float = Field(
        70.0,
        gt=0,
        description="How many independent landmarks they are worth: neighbours in one frame err "
        "together.",
    )
    student_dof: float = Field(4.0, gt=0, description="Degrees of freedom of the Student-t loss.")
    bias_mm: float = Field(
        2.0,
        ge=0,
        description="Standard deviation of the landmark error that all frames have in common, "
        "across the face (x and y), mm.",
    )
    bias_depth_mm: float = Field(
        4.0, ge=0, description="The same along the depth of the face (z), mm."
    )
    bias_length_mm: float = Field(
        25.0, gt=0, description="Distance over which the common error changes, mm."
    )
    depth_std_mm: float | None = Field(
        15.0,
        description="Trust in the landmarker's relative depth, mm; empty to leave it out.",
    )

    contour_tangent: float = Field(
        4.0,
        ge=1,
        description="How much more freely a point of the face oval moves along the outline than "
        "across it.",
    )
    hidden_weight: float = Field(
        0.01, ge=0, le=1, description="Weight of landmarks that the face itself hides."
    )

    focal_px: float | list[float] | None = Field(
        None, description="Known focal length in px, one for all or one for each source."
    )
    focal_prior: float = Field(
        1.3, gt=0, description="Median of the unknown focal length over the longer picture side."
    )
    focal_log_std: float = Field(
        0.3,
        gt=0,
        description="Standard deviation of the logarithm of the unknown focal length, for a face "
        "so close that perspective shows it; less, in proportion, for one further away.",
    )

    expression_scale: float = Field(
        0.15, gt=0, description="Mean of the exponential prior of expression coefficients."
    )
    expression_std: float = Field(
        0.5, gt=0, description="Width of the Gaussian prior of expression coefficients."
    )

    smooth: bool = Field(True, description="Couple neighbouring frames of one shot.")
    smooth_gap: float = Field(
        0.5, gt=0, description="Frames further apart than this are not coupled, s."
    )
    rotation_rate: float = Field(
        30.0, gt=0, description="Typical deviation from a steady turn, degrees a second."
    )
    shift_rate: float = Field(
        200.0, gt=0, description="Typical deviation from a steady motion, mm a second."
    )
    scale_rate: float = Field(
        0.3, gt=0, description="Typical relative change of apparent size a second."
    )
    expression_rate: float = Field(
        3.0, gt=0, description="Typical change of an expression coefficient a second."
    )

    iris_mm: float | None = Field(
        11.7,
        description="Iris diameter, mm; empty to leave it out.",
    )
    iris_log_std: float = Field(
        0.12,
        gt=0,
        description="Relative standard deviation of that diameter as the landmarker draws it: "
        "people differ by 5 %, its drawings by more.",
    )

    reject_ratio: float = Field(
        1.6, gt=0, description="A view loses weight when its error exceeds the median so often."
    )
    reject_limit: float = Field(3.0, gt=0, description="...and all of it from here on.")
    model_error_mm: float = Field(
        0.7, ge=0, description="What no linear model reproduces, mm; enters the uncertainty."
    )
    rounds: int = Field(
        3, ge=1, description="How often visibility, outline and view weights are renewed."
    )
    iterations: int = Field(5, ge=1, description="Levenberg-Marquardt steps in a round, at most.")
    tolerance: float = Field(
        1e-4, gt=0, description="A round ends when a step gains less than this share of the cost."
    )
