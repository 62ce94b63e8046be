"""The nouns of recon3d: frozen dataclasses that the stages hand to one another.

Axes, units and colour are those of the output contract. Model and world: millimetres,
right-handed, x to the subject's left, y up, z out of the face. Camera: OpenCV (x right, y down,
z forward), pixel centres at half-integers, K in pixels. Angles are degrees in these types
(user-facing) and radians inside the algorithms. Images are RGB.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

N_LANDMARKS = 478
"""Number of points of the MediaPipe face mesh with irises, the landmark set used throughout."""


@dataclass(frozen=True)
class Frame:
    """One decoded picture.

    Attributes
    ----------
    image : (H, W, 3) uint8
        sRGB, upright (rotation flags are already applied).
    index : int
        Number of the frame within its input, from 0.
    time : float
        Presentation time in seconds (index / nominal rate where the container has none).
    source : int
        Number of the input (camera) it came from, from 0.
    clock : bool
        Whether `time` was read off a clock; that of pictures is made up.
    focal_px : float or None
        Focal length in px of the picture, where the camera wrote it down.
    """

    image: np.ndarray
    index: int
    time: float
    source: int = 0
    clock: bool = True
    focal_px: float | None = None


@dataclass(frozen=True)
class ImagePatch:
    """A rectangle cut from a frame, with its place in it.

    Attributes
    ----------
    image : (h, w, 3) uint8
        sRGB pixels.
    origin : (2,) int
        x, y of the patch's upper left pixel in the frame; a point p of the frame lies at
        ``p - origin`` in the patch.
    """

    image: np.ndarray
    origin: tuple[int, int]


@dataclass(frozen=True)
class FaceObservation:
    """One face in one frame, as the landmarker saw it.

    Attributes
    ----------
    frame_index, source, time : int, int, float
        As in `Frame`.
    image_size : (width, height) of the frame in px.
    box : (4,) float
        Face box x0, y0, x1, y1 in frame px.
    landmarks : (478, 2) float
        MediaPipe points, frame px, pixel centres at half-integers.
    covariance : (478, 2, 2) float
        Of each landmark, px^2, from test-time jitter (never singular).
    depth : (478,) float
        MediaPipe's relative z in frame px, smaller is nearer the camera. Weak evidence.
    yaw, pitch, roll : float
        Rough head pose in degrees (weak perspective); signs as in the contract.
    quality : float
        0 (useless) to 1: size, sharpness, exposure and landmark agreement together.
    patch : ImagePatch or None
        The face with generous surroundings, kept for chosen views only.
    shot : int
        Views of one source and shot follow one another without a cut; of others nothing is known
        of what happened between them.
    focal_px : float or None
        As in `Frame`.
    """

    frame_index: int
    source: int
    time: float
    image_size: tuple[int, int]
    box: np.ndarray
    landmarks: np.ndarray
    covariance: np.ndarray
    depth: np.ndarray
    yaw: float
    pitch: float
    roll: float
    quality: float
    sharpness: float = 0.0
    brightness: float = 0.0
    patch: ImagePatch | None = None
    shot: int = 0
    focal_px: float | None = None

    @property
    def face_width(self) -> float:
        """Width of the face box in px."""
        return float(self.box[2] - self.box[0])


@dataclass(frozen=True)
class FaceTrack:
    """One person over time, possibly over several shots and cameras.

    Attributes
    ----------
    id : int
        0 is the track with most usable frames.
    views : tuple of FaceObservation
        The chosen frames, all with a `patch`, in order of (source, frame_index). Bounded in number
        whatever the length of the clip.
    frame_index, source : (N,) int
        Every frame the person was observed in (not only the views).
    time, yaw, pitch, face_px, quality : (N,) float32
        The short record of those frames: seconds, degrees, px, 0..1.
    """

    id: int
    views: tuple[FaceObservation, ...]
    frame_index: np.ndarray
    source: np.ndarray
    time: np.ndarray
    yaw: np.ndarray
    pitch: np.ndarray
    face_px: np.ndarray
    quality: np.ndarray

    @property
    def n_frames(self) -> int:
        return len(self.frame_index)

    @property
    def shots(self) -> np.ndarray:
        """(number of views,) int, the same for views of the same shot of the same source."""
        names = [(view.source, view.shot) for view in self.views]
        order = {name: number for number, name in enumerate(sorted(set(names)))}
        return np.array([order[name] for name in names], int)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: ``x_cam = R @ x + t``, ``pixel = K @ x_cam / z``.

    Attributes
    ----------
    K : (3, 3) float
        Intrinsics in px.
    R, t : (3, 3), (3,) float
        World (mm) to camera (mm).
    size : (width, height) in px.
    """

    K: np.ndarray
    R: np.ndarray
    t: np.ndarray
    size: tuple[int, int]


@dataclass(frozen=True)
class LandmarkEmbedding:
    """Where landmarks lie on a model's surface.

    Attributes
    ----------
    triangle : (L,) int64
        Triangle of each landmark; -1 where the model has no such point.
    barycentric : (L, 3) float64
        Its barycentric coordinates in that triangle.
    """

    triangle: np.ndarray
    barycentric: np.ndarray


@dataclass(frozen=True)
class FaceModel:
    """A linear morphable model: ``vertices = mean + identity . B_id + expression . B_ex``.

    Attributes
    ----------
    name : str
    mean : (V, 3) float64, mm
    identity : (I, V, 3) float32, mm per unit of a coefficient with standard normal prior.
    expression : (E, V, 3) float32, mm per unit; coefficients run from 0 to 1.
    expression_names : tuple of str
        ARKit names (``jawOpen``, ``mouthSmileLeft`` ...).
    triangles : (F, 3) int64, counter-clockwise seen from outside.
    uv : (U, 2) float64 in [0, 1], v up; triangles_uv : (F, 3) int64.
    landmarks : LandmarkEmbedding of the 478 MediaPipe points.
    ibug68 : LandmarkEmbedding of the 68 iBUG points.
    mirror : (V,) int64
        Index of each vertex's mirror image in the plane x = 0 (a fixed point on the midline); -1
        where the model has none.
    regions : dict of str to (V,) float32 in [0, 1]
        Soft masks by name; every model has ``face`` (skin that landmarks and texture speak of),
        ``eyes``, ``mouth`` (the lips and what lies between), ``neck``; a shell has ``cranium``.
    contour : (C, L) int64 or None
        Vertex paths, each a candidate line on which one silhouette landmark may slide.
    albedo_mean : (T, T, 3) float32 or None
        Mean albedo, sRGB-encoded, row 0 at v = 1.
    albedo_modes : (A, T, T, 3) float16 or None
        sRGB-encoded, per unit of a standard normal coefficient.
    albedo_noise : float
        Standard deviation of what the modes leave over of a person, sRGB-encoded.
    licence : str, SPDX identifier; origin, citation : str.
    """

    name: str
    mean: np.ndarray
    identity: np.ndarray
    expression: np.ndarray
    expression_names: tuple[str, ...]
    triangles: np.ndarray
    uv: np.ndarray
    triangles_uv: np.ndarray
    landmarks: LandmarkEmbedding
    ibug68: LandmarkEmbedding
    mirror: np.ndarray
    regions: dict[str, np.ndarray] = field(default_factory=dict)
    contour: np.ndarray | None = None
    albedo_mean: np.ndarray | None = None
    albedo_modes: np.ndarray | None = None
    albedo_noise: float = 0.0
    licence: str = ""
    origin: str = ""
    citation: str = ""

    @property
    def n_vertices(self) -> int:
        return len(self.mean)

    def vertices(
        self, identity: np.ndarray | None = None, expression: np.ndarray | None = None
    ) -> np.ndarray:
        """Evaluate the model.

        Parameters
        ----------
        identity : (I,) or shorter, optional
        expression : (E,) or (N, E), optional

        Returns
        -------
        (V, 3) or (N, V, 3) float64, mm
        """
        vertices = self.mean.astype(np.float64)
        if identity is not None:
            vertices = vertices + np.tensordot(
                np.asarray(identity, np.float64), self.identity[: len(identity)], 1
            )
        if expression is not None:
            vertices = vertices + self.moved(expression)
        return vertices

    def moved(self, expression: np.ndarray) -> np.ndarray:
        """How an expression, (E,) or (N, E), moves the vertices: (V, 3) or (N, V, 3), mm."""
        expression = np.asarray(expression, np.float64)
        # Most faces do a few of the many things that faces can do.
        used = np.flatnonzero(expression.reshape(-1, expression.shape[-1]).any(0))
        return np.tensordot(expression[..., used], self.expression[used], 1)


@dataclass(frozen=True)
class FaceFit:
    """The joint fit of a track: one identity, pose and expression per view.

    Attributes
    ----------
    model : FaceModel
    identity : (I,) float64
    expression : (N, E) float64
    R : (N, 3, 3), t : (N, 3) float64
        Model (mm) to camera (mm) of each view.
    K : (N, 3, 3) float64
        Intrinsics in frame px (equal for views of one source).
    displacement : (V, 3) float64
        Added to the neutral vertices beyond the model, mm (zeros where nothing was found).
    residuals : (N, 478, 2) float64
        Landmark reprojection residuals, px; NaN where the landmark was not used.
    weights : (N, 478) float64
        Final robust and visibility weights in [0, 1].
    uncertainty : (V,) float64
        Posterior standard deviation of the neutral surface along its normals, mm, the face aligned.
    identity_covariance : (I, I) float64
    view_weight : (N,) float64 in [0, 1]
        0 for views that the fit rejected.
    info : dict
        Iterations, cost, seconds, scale sources and the like; JSON-able.
    """

    model: FaceModel
    identity: np.ndarray
    expression: np.ndarray
    R: np.ndarray
    t: np.ndarray
    K: np.ndarray
    displacement: np.ndarray
    residuals: np.ndarray
    weights: np.ndarray
    uncertainty: np.ndarray
    identity_covariance: np.ndarray
    view_weight: np.ndarray
    info: dict = field(default_factory=dict)

    @cached_property
    def neutral(self) -> np.ndarray:
        """(V, 3) neutral vertices, mm, not to be written to."""
        vertices = self.model.vertices(self.identity) + self.displacement
        vertices.flags.writeable = False
        return vertices

    def posed(self, view: int) -> np.ndarray:
        """(V, 3) vertices of one view with its expression, model axes, mm."""
        return self.neutral + self.model.moved(self.expression[view])

    def camera(self, view: int, size: tuple[int, int]) -> Camera:
        return Camera(self.K[view], self.R[view], self.t[view], size)


@dataclass(frozen=True)
class FaceTexture:
    """What the skin looks like, and how well that is known, in the model's texture space.

    All maps are (T, T) or (T, T, 3) float32 with row 0 at v = 1 (the top of a picture of it).

    Attributes
    ----------
    albedo : (T, T, 3) linear RGB with the light taken out as far as it was modelled.
    lit : (T, T, 3) linear RGB as seen, exposure-matched.
    support : (T, T) in [0, 1]
        How much observation supports a texel.
    resolution : (T, T) in [0, 1]
        Sampling density of the best observation relative to one output pixel.
    generated : (T, T) in [0, 1]
        Share that was mirrored or filled rather than observed.
    sigma : (T, T)
        Predicted standard deviation, linear units.
    valid : (T, T) bool
        Texels that belong to the surface.
    info : dict
    """

    albedo: np.ndarray
    lit: np.ndarray
    support: np.ndarray
    resolution: np.ndarray
    generated: np.ndarray
    sigma: np.ndarray
    valid: np.ndarray
    info: dict = field(default_factory=dict)


@dataclass(frozen=True)
class FrontalView:
    """The pose-normalised picture.

    Attributes
    ----------
    image : (512, 512, 3) uint8 sRGB, final.
    raw : (512, 512, 3) uint8 sRGB, before the refiner.
    evidence : (512, 512, 3) uint8
        R support (the share of the pixel that observation determines), G resolution, B generated
        share.
    face_mask : (512, 512) float32
        Where the fitted surface is drawn, soft edge.
    normals : (512, 512, 3) float32, model axes, 0 outside.
    landmarks : (478, 2) float32, px of the picture.
    camera : Camera that rendered it.
    generated_share : float in [0, 1], over the face.
    reference : (512, 512, 3) uint8 sRGB or None
        The best frames themselves, brought into the picture: those turned alike merged, none fused.
    uncertainty : (512, 512) float32 or None
        The refiner's own standard deviation of ``image``, in units of its 0 to 255 range.
    sigma : (512, 512) float32 or None
        Predicted standard deviation of the luma of ``raw``, in units of its 0 to 255 range: what
        the frames, the fit and the light leave unknown.
    confirmed : (512, 512) float32 or None
        How much of the support is left where only what many pixels show is taken for supported:
        what the refiner's network knows as support is the support times this.
    """

    image: np.ndarray
    raw: np.ndarray
    evidence: np.ndarray
    face_mask: np.ndarray
    normals: np.ndarray
    landmarks: np.ndarray
    camera: Camera
    generated_share: float
    reference: np.ndarray | None = None
    uncertainty: np.ndarray | None = None
    info: dict = field(default_factory=dict)
    sigma: np.ndarray | None = None
    confirmed: np.ndarray | None = None

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        """The picture: what `np.asarray(view)` and plotting libraries take it for."""
        return self.image if dtype is None else self.image.astype(dtype)


@dataclass(frozen=True)
class Reconstruction:
    """Everything known about one person after a run."""

    track: FaceTrack
    fit: FaceFit
    texture: FaceTexture
    frontal: FrontalView
    metrics: dict = field(default_factory=dict)
