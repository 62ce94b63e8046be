"""Settings of the frontal view."""

from pydantic import BaseModel, ConfigDict, Field


class FrontalSettings(BaseModel):
    """How the pose-normalised picture is drawn."""

    model_config = ConfigDict(extra="forbid")

    distance_mm: float = Field(
        3000.0, gt=300, description="From the camera to the eyes; long, as for a portrait."
    )
    level: bool = Field(
        True,
        description="Turn the head until the landmarker sees the portrait look ahead, and frame it "
        "so that the eyes it sees are in place: a fit can be turned by some degrees, and be some "
        "per cent too small.",
    )
    settle: bool = Field(
        True,
        description="Where the landmarker sees the features of the fused portrait clearly beside "
        "the mesh's, move the mesh there and fuse again; then look once more, in the shipped "
        "refiner's picture of it.",
    )
    modelling: float = Field(
        0.25,
        ge=0,
        lt=1,
        description="Share of the neutral light that comes from the front; the rest comes from "
        "everywhere.",
    )
    keep_light: float = Field(
        1.0,
        ge=0,
        le=1,
        description="How much of the clip's own light is kept where both halves of the face share "
        "it; what lights them differently is taken out.",
    )
    surroundings: bool = Field(
        True, description="Bring hair, ears, neck and background from the frames."
    )
    surroundings_views: int = Field(
        5, ge=1, description="Directions of which frames may show what lies around the face."
    )
    surroundings_together: int = Field(
        6, ge=1, description="Frames, turned alike, that are merged for the first of these."
    )
    white_balance: float = Field(
        1.0, ge=0, le=1, description="How much of the estimated colour of the light is taken out."
    )
    exposure: float = Field(
        1.0,
        ge=0,
        le=1,
        description="How far light that the frames lack, or have too much of, is made up for; dark "
        "skin in good light stays dark.",
    )
    error_coefficients: tuple[float, ...] = Field(
        (1.51, 0.318, 0.0863, 0.268, 0.243, 0.984, 0.211, 0.0272, 0.101, 0.129),
        min_length=10,
        max_length=10,
        description="Of the sources of doubt in the predicted deviation, in the order of "
        "`recon3d.frontal.deviation.SOURCES`; learned by benchmarks/deviation.py.",
    )
