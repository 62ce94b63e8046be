"""Settings of the fit: landmark bundle adjustment and dense alignment."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class DenseSettings(BaseModel):
    """How poses and shape are refined on the picture itself (dense multi-view alignment)."""

    model_config = ConfigDict(extra="forbid")

    enabled: bool = Field(True, description="Refine the landmark fit on the picture.")
    samples: int = Field(
        2500, ge=100, description="Points of the skin at which views are compared."
    )
    blur_mm: tuple[float, ...] = Field(
        (5.0, 3.0, 1.5), description="Blur of the pictures, coarse to fine, mm on the face."
    )
    blur_px: float = Field(0.7, gt=0, description="...but never less than this, px.")
    iterations: int = Field(5, ge=1, description="Gauss-Newton steps at each blur.")
    robust: float = Field(2.0, gt=0, description="Residuals count less beyond so many sigma.")
    noise_floor: float = Field(
        0.02, gt=0, description="Least standard deviation of the logarithm of light."
    )
    rotation_bias: float = Field(1.0, gt=0, description="Landmark error of all views, degrees.")
    rotation_law: float = Field(
        5.0, gt=0, description="Landmark error that follows the turn, degrees at 45 degrees of yaw."
    )
    rotation_own: float = Field(3.0, gt=0, description="Landmark error of one view, degrees.")
    shift_bias: float = Field(0.5, gt=0, description="The same for position across, mm.")
    shift_law: float = Field(4.0, gt=0, description="Its part that follows the turn, mm.")
    shift_own: float = Field(2.0, gt=0, description="Its part of one view, mm.")
    distance_bias: float = Field(0.001, gt=0, description="The same for log distance.")
    distance_law: float = Field(0.03, gt=0, description="Its part that follows the turn.")
    distance_own: float = Field(0.02, gt=0, description="Its part of one view.")
    correlation_s: float = Field(
        0.2, gt=0, description="Time over which the error of one view changes, s."
    )
    motion: bool = Field(True, description="Know that heads move smoothly.")
    motion_degrees: float = Field(
        200.0,
        gt=0,
        description="Root of the density of the noise that changes the head's angular "
        "acceleration, degrees / s^2.5, where a path shows no more.",
    )
    motion_mm: float = Field(
        300.0, gt=0, description="The same for the distance of the face, mm / s^2.5."
    )
    motion_stride: float = Field(
        0.2, gt=0, description="Time between the views that show how much there is, s."
    )
    motion_gap: float = Field(
        0.5, gt=0, description="Neighbouring views further apart than this are not tied, s."
    )
    shape: bool = Field(True, description="Refine the shape as well as the poses.")
    shape_trust: float = Field(
        0.0075,
        gt=0,
        description="Noise (log light) from which on the picture's word on shape counts less, in "
        "proportion: what a poor picture gets wrong, all views get wrong alike.",
    )
    shape_margin: float = Field(
        0.0, ge=0, lt=1, description="The same for held-out views under a new shape."
    )
    shape_sure: float = Field(
        1.0,
        ge=0,
        description="Standard errors by which held-out patches must agree that a new shape is "
        "better; the prior keeps shapes from straying, so a hint is enough.",
    )
    displacement_mm: float = Field(
        1.0, ge=0, description="Expected distance of skin from the model along its normal, mm."
    )
    displacement_length: float = Field(
        20.0, gt=0, description="Distance over which that changes, mm."
    )
    displacement_modes: int = Field(80, ge=0, description="Most smooth fields it consists of.")
    starts: int = Field(
        3,
        ge=1,
        le=5,
        description="At most so many times poses are found, each time with other skin held out; "
        "small and noisy faces settle in more than one way, and the one that held-out skin agrees "
        "with best is kept.",
    )
    starts_until: float = Field(
        0.985,
        ge=-1,
        le=1,
        description="From this correlation of views on held-out skin on, poses are good enough.",
    )
    min_views: int = Field(5, ge=3, description="Fewer usable views are left to the landmarks.")
    min_turn: float = Field(
        12.0, ge=0, description="Least turn of the head between views, degrees."
    )
    margin: float = Field(
        0.03, ge=0, lt=1, description="Share by which held-out disagreement must fall."
    )
    sure: float = Field(
        1.0,
        ge=0,
        description="Standard errors of a coin's throws by which more than half of the views must "
        "gain by new poses; how heads move keeps poses from straying, so a hint is enough.",
    )
    agreement: float = Field(
        0.5,
        ge=-1,
        le=1,
        description="Least correlation of a view with the others on held-out skin, median.",
    )
    stray_ratio: float | None = Field(
        4.0,
        gt=1,
        description="A view that lacks so many times the median's lack of agreement is started "
        "again from the views around it; empty to leave it where it is.",
    )
    stray_least: float = Field(
        0.15, gt=0, lt=1, description="...if its correlation lacks at least so much of 1."
    )
    stray_gap: float = Field(1.0, gt=0, description="Views farther away in time do not help, s.")
    light: float = Field(0.4, gt=0, description="Expected log shading across a face.")
    light_change: float = Field(0.1, gt=0, description="...and its change between views.")


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
    pitch_shown: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of the head's pitch, the camera's tilt included, that landmarks show "
        "(about 0.7 on clips of our own); 1 to take them at their word.",
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
    believed_pixel_mm: float = Field(
        2.0,
        gt=0,
        description="Size of a pixel on the face, mm, at which half of the shape that landmarks "
        "show is the landmarker's own idea of a face, the same in every frame.",
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

    stated_focal_log_std: float = Field(
        0.05,
        gt=0,
        description="The same where the camera wrote the focal length down (EXIF of photos).",
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
    dense: DenseSettings = Field(
        default_factory=DenseSettings, description="Dense multi-view alignment."
    )
