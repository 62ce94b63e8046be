"""Settings of the refiner at work and of its training."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator


class RefinementSettings(BaseModel):
    """How the frontal view is refined."""

    model_config = ConfigDict(extra="forbid")

    path: str | None = Field(
        None,
        description="Refiner to use: .safetensors of ours, .onnx, or a checkpoint that spandrel "
        "reads; none takes the shipped one.",
    )
    strength: float = Field(
        0.8,
        ge=0,
        le=1,
        description="Share of the refiner's change that is taken: on people never trained on, "
        "more than this brings the picture hardly nearer to the person; 1 looks sharpest.",
    )
    project: bool = Field(
        True,
        description="Hold the result to what was observed: reduced to the resolution of the "
        "observation, it must give the fused view again.",
    )
    residual_255: float = Field(
        1.5,
        gt=0,
        description="RMS of what may be left of the difference there, of 255, where support is "
        "above 0.8.",
    )
    drift_limit: float = Field(
        0.45,
        gt=0,
        description="Distance of face descriptors between fused and refined view beyond which the "
        "refinement is blended back; 0.6 is usually another person.",
    )
    doubt_coefficients: tuple[float, float, float] = Field(
        (0.198, 0.917, 0.172),
        description="How far the fused view is taken to be wrong, the refiner's opinion counted: "
        "exponents, see recon3d.refinement.doubt. Learned with the last weights but one.",
    )
    licence: str = Field(
        "unknown",
        description="Licence of a refiner of your own, for the ledger: an SPDX identifier.",
    )


class TrainingSettings(BaseModel):
    """How the refiner is trained."""

    model_config = ConfigDict(extra="forbid")

    pairs: int = Field(1600, ge=8, description="Training pairs to simulate, about.")
    val_pairs: int = Field(64, ge=2, description="Pairs of people never trained on.")
    steps: int = Field(4000, ge=1, description="Steps of the generator.")
    batch: int = Field(8, ge=2, description="Crops in one step.")
    crop: int = Field(160, ge=64, le=256, multiple_of=32, description="Side of a crop, px of 256.")
    seed: int = Field(0, ge=0, description="Of everything random.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where torch computes.")
    widths: tuple[int, ...] = Field(
        (64, 96, 144, 192),
        min_length=2,
        max_length=4,
        description="Channels of the generator's levels, finest first.",
    )
    blocks: int | tuple[int, ...] = Field(
        2,
        description="Residual blocks of a level, each way: one number for all levels, or one each.",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="auto: float16 on CUDA, bfloat16 on CPUs with instructions for it (AMX or "
        "AVX512-BF16), else float32.",
    )
    learning_rate: float = Field(4e-4, gt=0, description="Of the generator; falls as a cosine.")
    critic_rate: float = Field(2e-4, gt=0, description="Of the discriminators.")
    average: float = Field(
        0.998, ge=0, lt=1, description="Decay of the moving average of weights that is shipped."
    )
    adversarial_from: float = Field(
        0.35, ge=0, le=1, description="Share of the steps after which the discriminators join."
    )
    adversarial: float = Field(0.003, ge=0, description="Weight of the adversarial loss.")
    matching: float = Field(0.5, ge=0, description="Weight of feature matching.")
    pixel: float = Field(0.3, ge=0, description="Weight of the absolute difference of pixels.")
    bands: float = Field(0.2, ge=0, description="Weight of the loss on bands of frequency.")
    gradient: float = Field(0.25, ge=0, description="Weight of the loss on picture gradients.")
    structure: float = Field(
        0.2, ge=0, description="Weight of the structural similarity loss, over three scales."
    )
    identity: float = Field(
        0.1,
        ge=0,
        description="Weight of the distance of face descriptors, where a descriptor's network is "
        "at hand; 0 trains without.",
    )
    likeness: float = Field(
        0.1, ge=0, description="Weight of the difference of that network's inner features."
    )
    likelihood: float = Field(0.02, ge=0, description="Weight of the uncertainty's likelihood.")
    r1: float = Field(2.0, ge=0, description="Gradient penalty of the discriminators.")
    r1_every: int = Field(16, ge=1, description="Steps from one penalty to the next.")
    alone: float = Field(
        0.15,
        ge=0,
        le=1,
        description="Share of crops without guides, so that the generator can do without them.",
    )
    warp: float = Field(
        3.0,
        ge=0,
        description="Smooth random warps of most crops, standard deviation in px of 256: people "
        "differ by more than the photos show.",
    )
    morph: float = Field(
        0.4,
        ge=0,
        le=1,
        description="Share of crops that show somebody between two people: the photos are few, and "
        "a network that remembers their faces draws them.",
    )
    mosaic: float = Field(
        0.3,
        ge=0,
        le=1,
        description="Share of crops that show somebody with features of two people, beside the "
        "share of `morph`.",
    )
    noise: float = Field(
        3.0,
        ge=0,
        description="Deviation at most, of 255, of noise that is added to the picture of most "
        "crops: pairs that come by again are others then.",
    )
    skin: float = Field(
        0.12,
        ge=0,
        description="Standard deviation of the logarithm of the brightness of marks that are drawn "
        "on the skin of half of the crops, some of it a beard: people are less even than photos.",
    )
    nostrils: float = Field(
        0.3,
        ge=0,
        le=1,
        description="Share of crops whose nostrils are darkened, in picture and answer alike: "
        "portraits are lit so that they hardly show.",
    )
    checkpoint_every: int = Field(100, ge=1, description="Steps between checkpoints.")
    validate_every: int = Field(250, ge=1, description="Steps between looks at validation people.")

    @field_validator("blocks")
    @classmethod
    def _one_number_a_level(cls, blocks, info: ValidationInfo):
        counts = (blocks,) if isinstance(blocks, int) else blocks
        if min(counts, default=0) < 1:
            raise ValueError("every level has at least one block")
        levels = info.data.get("widths", counts)
        if not isinstance(blocks, int) and len(blocks) != len(levels):
            raise ValueError(f"{len(levels)} levels (widths), numbers of blocks for {len(blocks)}")
        return blocks
