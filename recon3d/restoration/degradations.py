"""What bad cameras do to pictures, one pure function each, and recipes made of them.

Functions take and return (H, W, 3) float32 sRGB in [0, 1]; light and optics are modelled in
linear light, sharpening and compression on the encoded picture, as in a camera. A `Recipe` is a
list of steps that can be written to JSON or YAML; applied to a picture or to an iterator of
frames with the same seed it gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Annotated, ClassVar, Literal, Self

import cv2
import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from recon3d.checks import check_shape
from recon3d.colour import linear_to_srgb, srgb_to_linear, to_uint8
from recon3d.errors import InputError
from recon3d.restoration.kernels import convolve, disc_kernel, motion_kernel
from recon3d.restoration.light import light_gains

# ------------------------------------------------------------------ single pictures


def expose(image: np.ndarray, exposure: float) -> np.ndarray:
    """Multiply the light by `exposure` (1 leaves it; what is too bright clips)."""
    return linear_to_srgb(srgb_to_linear(image) * exposure)


def sensor_noise(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    full_well: float,
    read_noise: float,
    exposure: float = 1.0,
    gain: float = 1.0,
) -> np.ndarray:
    """Photon and read noise in raw-like linear space.

    Parameters
    ----------
    image : (H, W, 3) float32 sRGB
    rng : Generator
    full_well : float
        Electrons that white makes at exposure 1.
    read_noise : float
        Standard deviation in electrons.
    exposure : float
        Share of the light that reaches the sensor.
    gain : float
        Amplification after the sensor; ``1 / exposure`` brings the brightness back.

    Returns
    -------
    (H, W, 3) float32 sRGB

    References
    ----------
    Foi, Trimeche, Katkovnik, Egiazarian, Practical Poissonian-Gaussian noise modeling and fitting
    for single-image raw-data, IEEE TIP 17(10), 2008.
    """
    expected = srgb_to_linear(image).astype(np.float64) * (exposure * full_well)
    electrons = rng.poisson(expected) + rng.normal(0.0, read_noise, expected.shape)
    return linear_to_srgb(electrons * (gain / full_well))


def colour_temperature(image: np.ndarray, kelvin: float) -> np.ndarray:
    """The scene under light of that colour temperature, camera balanced for 6 504 K."""
    return linear_to_srgb(srgb_to_linear(image) * light_gains(kelvin).astype(np.float32))


def optical_blur(image: np.ndarray, sigma: float = 0.0, defocus: float = 0.0) -> np.ndarray:
    """Blur in linear light by a Gaussian (px) and then a disc of radius `defocus` (px)."""
    linear = srgb_to_linear(image)
    if sigma > 0:
        linear = cv2.GaussianBlur(linear, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    if defocus > 0.3:
        linear = convolve(linear, disc_kernel(defocus))
    return linear_to_srgb(linear)


def motion_blur(image: np.ndarray, length: float, angle: float) -> np.ndarray:
    """Smear in linear light along a line of `length` px at `angle` degrees."""
    return linear_to_srgb(convolve(srgb_to_linear(image), motion_kernel(length, angle)))


def downsample(image: np.ndarray, factor: float) -> np.ndarray:
    """Smaller by `factor` (2 halves the width), each pixel the mean light of its area."""
    height, width = image.shape[:2]
    size = (max(1, round(width / factor)), max(1, round(height / factor)))
    return linear_to_srgb(cv2.resize(srgb_to_linear(image), size, interpolation=cv2.INTER_AREA))


def sharpen(image: np.ndarray, amount: float, sigma: float) -> np.ndarray:
    """Unsharp masking with the halos that cheap cameras add, on the encoded picture."""
    smooth = cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    return np.clip(image + amount * (image - smooth), 0, 1)


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Through the JPEG encoder and back (4:2:0, quality 1 to 100)."""
    bgr = np.ascontiguousarray(to_uint8(image)[..., ::-1])
    ok, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
    if not ok:
        raise InputError(f"a picture of shape {image.shape} cannot be encoded as JPEG")
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1].astype(np.float32) / 255


# ------------------------------------------------------------------ clips


def h264(
    frames: Iterable[np.ndarray], crf: float, *, keyframes: int = 50, rate: int = 25
) -> Iterator[np.ndarray]:
    """Through libx264 and back, a few frames in memory at a time.

    Parameters
    ----------
    frames : iterable of (H, W, 3) float32 sRGB, all of one size
    crf : float
        Constant rate factor, 0 to 51; 23 is good, 35 is bad, 45 is CCTV.
    keyframes : int
        Longest distance between key frames.
    rate : int
        Frames a second; rate control looks at it.

    Yields
    ------
    (H, W, 3) float32 sRGB

    Raises
    ------
    InputError
        If the frames are not of one size.
    """
    import av

    encoder = decoder = None
    height = width = 0

    def pictures(packets) -> Iterator[np.ndarray]:
        for packet in packets:
            for picture in decoder.decode(packet):
                rgb = picture.to_ndarray(format="rgb24")[:height, :width]
                yield rgb.astype(np.float32) / 255

    for i, frame in enumerate(frames):
        if encoder is None:
            height, width = frame.shape[:2]
            encoder = av.CodecContext.create("libx264", "w")
            # 4:2:0 needs even sides; the padding is cut off again.
            encoder.width, encoder.height = width + width % 2, height + height % 2
            encoder.pix_fmt = "yuv420p"
            encoder.framerate = rate
            encoder.time_base = Fraction(1, rate)
            encoder.options = {
                "crf": f"{crf:g}",
                "preset": "veryfast",
                "g": str(keyframes),
                # One thread, and no looking ahead, whose result depends on what memory held
                # before: the same frames must give the same bytes on every machine.
                "threads": "1",
                "x264-params": "no-mbtree=1:rc-lookahead=0",
            }
            decoder = av.CodecContext.create("h264", "r")
        if frame.shape[:2] != (height, width):
            raise InputError(
                f"frame {i} is {frame.shape[1]}x{frame.shape[0]}, the clip began at "
                f"{width}x{height}: a video encoder needs one size"
            )
        padded = np.pad(to_uint8(frame), ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24")
        picture.pts, picture.time_base = i, Fraction(1, rate)
        yield from pictures(encoder.encode(picture))
    if encoder is not None:
        yield from pictures(encoder.encode(None))
        yield from pictures([None])


def interlace(frames: Iterable[np.ndarray], *, top_first: bool = True) -> Iterator[np.ndarray]:
    """Two fields a frame: the second field's lines come from the next moment.

    The frame rate stays; the last frame pairs with itself.

    Parameters
    ----------
    frames : iterable of (H, W, 3)
    top_first : bool
        Whether lines 0, 2, 4 ... are the earlier field.
    """
    late = 1 if top_first else 0
    last = None
    for frame in frames:
        if last is not None:
            woven = last.copy()
            woven[late::2] = frame[late::2]
            yield woven
        last = frame
    if last is not None:
        yield last


def drop_and_repeat(
    frames: Iterable[np.ndarray], rng: np.random.Generator, *, drop: float, repeat: float
) -> Iterator[np.ndarray]:
    """Leave frames out, or show the one before again in their place.

    Parameters
    ----------
    frames : iterable of (H, W, 3)
    rng : Generator
    drop, repeat : float in [0, 1]
        Probabilities of each; the first frame always stays.
    """
    last = None
    for frame in frames:
        dice = rng.random()
        if last is None or dice >= drop + repeat:
            last = frame
            yield frame
        elif dice >= drop:
            yield last


# ------------------------------------------------------------------ recipes

Amount = float | tuple[float, float]
"""A number, or the range from which one is drawn evenly for each picture or clip."""


def _within(low: float, high: float) -> AfterValidator:
    def check(value):
        ends = value if isinstance(value, tuple) else (value, value)
        if not (low <= ends[0] <= ends[1] <= high):
            raise ValueError(f"expected a number or a rising range within {low:g} to {high:g}")
        return value

    return AfterValidator(check)


class _Step(BaseModel):
    """One degradation with its amounts."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    per_clip: ClassVar[bool] = False

    def draw(self, rng: np.random.Generator) -> Self:
        """The step with every range replaced by a number from it."""
        drawn = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, tuple):
                drawn[name] = float(rng.uniform(*value))
        return self.model_copy(update=drawn)

    def picture(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Degrade one picture, (H, W, 3) float32 sRGB."""
        return next(self.frames([image], rng))

    def frames(
        self, frames: Iterable[np.ndarray], rng: np.random.Generator
    ) -> Iterator[np.ndarray]:
        """Degrade the frames of a clip."""
        return (self.picture(frame, rng) for frame in frames)


class Exposure(_Step):
    """Too little or too much light, before the sensor and without noise."""

    kind: Literal["exposure"] = "exposure"
    exposure: Annotated[Amount, _within(0.001, 100)] = Field(
        0.5, description="Factor on the light; 1 leaves it."
    )

    def picture(self, image, rng):
        return expose(image, self.exposure)


class LowLight(_Step):
    """Few photons: darker, with Poisson and read noise, then amplified."""

    kind: Literal["low_light"] = "low_light"
    exposure: Annotated[Amount, _within(0.0001, 1)] = Field(
        0.1, description="Share of the light that reaches the sensor."
    )
    full_well: Annotated[Amount, _within(10, 1e6)] = Field(
        4000.0, description="Electrons that white makes at full exposure."
    )
    read_noise: Annotated[Amount, _within(0, 1000)] = Field(
        4.0, description="Read noise in electrons, standard deviation."
    )
    compensation: Annotated[Amount, _within(0, 1)] = Field(
        0.5,
        description="How much of the loss automatic gain brings back: 0 none, 1 all (in stops).",
    )

    def picture(self, image, rng):
        gain = self.exposure**-self.compensation
        return sensor_noise(
            image,
            rng,
            full_well=self.full_well,
            read_noise=self.read_noise,
            exposure=self.exposure,
            gain=gain,
        )


class ColourTemperature(_Step):
    """Light of another colour than the camera was balanced for."""

    kind: Literal["colour_temperature"] = "colour_temperature"
    kelvin: Annotated[Amount, _within(1667, 25_000)] = Field(
        3200.0, description="Colour temperature of the light; 6 504 is neutral."
    )

    def picture(self, image, rng):
        return colour_temperature(image, self.kelvin)


class OpticalBlur(_Step):
    """An imperfect or unfocused lens."""

    kind: Literal["optical_blur"] = "optical_blur"
    sigma: Annotated[Amount, _within(0, 50)] = Field(1.0, description="Gaussian width in px.")
    defocus: Annotated[Amount, _within(0, 50)] = Field(
        0.0, description="Radius in px of the disc of confusion."
    )

    def picture(self, image, rng):
        return optical_blur(image, self.sigma, self.defocus)


class MotionBlur(_Step):
    """The camera or the subject moved while the shutter was open."""

    kind: Literal["motion_blur"] = "motion_blur"
    length: Annotated[Amount, _within(0, 100)] = Field(7.0, description="Smear in px.")
    angle: Annotated[Amount, _within(-360, 360)] = Field(
        0.0, description="Direction in degrees, 0 horizontal, counter-clockwise."
    )

    def picture(self, image, rng):
        return motion_blur(image, self.length, self.angle)


class Downsample(_Step):
    """A smaller picture: fewer pixels on the face."""

    kind: Literal["downsample"] = "downsample"
    factor: Annotated[Amount, _within(1, 64)] = Field(
        2.0, description="Width before over width after."
    )

    def picture(self, image, rng):
        return downsample(image, self.factor)


class Sharpen(_Step):
    """In-camera sharpening with halos."""

    kind: Literal["sharpen"] = "sharpen"
    amount: Annotated[Amount, _within(0, 10)] = Field(1.0, description="Strength.")
    sigma: Annotated[Amount, _within(0.3, 20)] = Field(1.5, description="Width of the halo, px.")

    def picture(self, image, rng):
        return sharpen(image, self.amount, self.sigma)


class Jpeg(_Step):
    """Each frame through the JPEG encoder."""

    kind: Literal["jpeg"] = "jpeg"
    quality: Annotated[Amount, _within(1, 100)] = Field(40.0, description="1 worst, 100 best.")

    def picture(self, image, rng):
        return jpeg(image, round(self.quality))


class H264(_Step):
    """The clip through libx264; a picture becomes a clip of one key frame."""

    kind: Literal["h264"] = "h264"
    crf: Annotated[Amount, _within(0, 51)] = Field(
        32.0, description="Constant rate factor: 18 nearly lossless, 23 good, 40 poor."
    )
    keyframes: int = Field(50, ge=1, description="Longest distance between key frames.")
    per_clip: ClassVar[bool] = True

    def frames(self, frames, rng):
        return h264(frames, self.crf, keyframes=self.keyframes)


class Interlace(_Step):
    """Fields of two moments woven into one frame; a single picture stays as it is."""

    kind: Literal["interlace"] = "interlace"
    top_first: bool = Field(True, description="Whether even lines are the earlier field.")
    per_clip: ClassVar[bool] = True

    def frames(self, frames, rng):
        return interlace(frames, top_first=self.top_first)


class DropFrames(_Step):
    """Frames that are missing, or shown twice; a single picture stays as it is."""

    kind: Literal["drop_frames"] = "drop_frames"
    drop: Annotated[Amount, _within(0, 1)] = Field(0.05, description="Share left out.")
    repeat: Annotated[Amount, _within(0, 1)] = Field(
        0.05, description="Share replaced by the frame before."
    )
    per_clip: ClassVar[bool] = True

    def frames(self, frames, rng):
        return drop_and_repeat(frames, rng, drop=self.drop, repeat=self.repeat)


Step = Annotated[
    Exposure
    | LowLight
    | ColourTemperature
    | OpticalBlur
    | MotionBlur
    | Downsample
    | Sharpen
    | Jpeg
    | H264
    | Interlace
    | DropFrames,
    Field(discriminator="kind"),
]


class Recipe(BaseModel):
    """Degradations in the order in which a camera inflicts them.

    Examples
    --------
    >>> recipe = Recipe(steps=[OpticalBlur(sigma=(0.5, 1.5)), Jpeg(quality=30)])
    >>> Recipe.from_yaml(recipe.to_yaml()) == recipe
    True
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field("", description="What the recipe imitates.")
    steps: tuple[Step, ...] = Field((), description="Applied from first to last.")

    def draw(self, rng: np.random.Generator) -> Recipe:
        """The recipe with every range replaced by a number from it."""
        return self.model_copy(update={"steps": tuple(step.draw(rng) for step in self.steps)})

    def to_yaml(self) -> str:
        """YAML text; `from_yaml` reads it."""
        import yaml

        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    @classmethod
    def from_yaml(cls, text: str) -> Recipe:
        """Read YAML or JSON text.

        Raises
        ------
        InputError
            If it is not a recipe.
        """
        import yaml

        try:
            return cls.model_validate(yaml.safe_load(text))
        except (yaml.YAMLError, ValueError) as error:
            line = " ".join(str(error).split())
            raise InputError(f"not a degradation recipe: {line}") from error


def degrade(image: np.ndarray, recipe: Recipe, rng: np.random.Generator) -> np.ndarray:
    """Degrade one picture.

    Parameters
    ----------
    image : (H, W, 3) uint8 sRGB
    recipe : Recipe
        Ranges are drawn once.
    rng : Generator

    Returns
    -------
    (h, w, 3) uint8 sRGB
    """
    return next(degrade_clip([image], recipe, rng))


def degrade_clip(
    frames: Iterable[np.ndarray],
    recipe: Recipe,
    rng: np.random.Generator,
    *,
    progress: Callable[[int], None] | None = None,
) -> Iterator[np.ndarray]:
    """Degrade a clip, holding only as many frames as the video encoder looks ahead.

    Parameters
    ----------
    frames : iterable of (H, W, 3) uint8 sRGB, all of one size
    recipe : Recipe
        Ranges are drawn once for the clip; noise is new in each frame.
    rng : Generator
        Same seed, same bytes, however the iterator is consumed.
    progress : callable, optional
        Called with the number of frames done.

    Yields
    ------
    (h, w, 3) uint8 sRGB
    """
    drawn = recipe.draw(rng)
    # A generator a step: encoders look ahead, and steps must not share one stream of numbers.
    children = rng.spawn(len(drawn.steps))
    stream: Iterator[np.ndarray] = (_checked(frame) for frame in frames)
    for step, child in zip(drawn.steps, children):
        stream = iter(step.frames(stream, child))
    for i, frame in enumerate(stream):
        yield to_uint8(frame)
        if progress is not None:
            progress(i + 1)


def cctv_recipe(*, factor: float = 4.0, exposure: float = 0.15, crf: float = 32.0) -> Recipe:
    """An indoor surveillance camera: small, dim, warm, soft, sharpened and compressed.

    Parameters
    ----------
    factor : float
        How many times smaller than the input.
    exposure : float
        Share of the light.
    crf : float
        Of the H.264 encoder.

    Returns
    -------
    Recipe
    """
    return Recipe(
        name="cctv",
        steps=(
            ColourTemperature(kelvin=4600.0),
            # At input resolution: a lens that just fails to resolve the small sensor's pixels.
            OpticalBlur(sigma=0.45 * factor),
            MotionBlur(length=0.5 * factor, angle=(-20.0, 20.0)),
            Downsample(factor=factor),
            LowLight(exposure=exposure, full_well=6000.0, read_noise=5.0, compensation=0.8),
            Sharpen(amount=0.6, sigma=1.0),
            H264(crf=crf, keyframes=50),
        ),
    )


def _checked(frame: np.ndarray) -> np.ndarray:
    check_shape(frame, "H W 3", "frame")
    if frame.dtype != np.uint8:
        raise InputError(f"frames to degrade are {frame.dtype}, expected uint8 sRGB")
    return frame.astype(np.float32) / 255
