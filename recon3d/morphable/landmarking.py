"""Where MediaPipe's landmarks lie on any face model, found by looking at it.

The model's mean face is drawn from several sides, in several lights and skin tones, the landmarker
is run on the pictures, and every landmark is cast back along its ray onto the surface. A robust
mean over the pictures, made symmetric and put back onto the surface, is the embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from recon3d.checks import check_shape
from recon3d.errors import ModelError
from recon3d.morphable.embedding import embed
from recon3d.types import N_LANDMARKS, LandmarkEmbedding

N_FACE = 468
OUTER_CORNERS = (33, 263)
MOUTH_CORNERS = (61, 291)
NO_FACE = (
    "the landmarker sees no face in pictures of this mesh; check its units (mm) and axes "
    "(y up, z out of the face)"
)
MAX_BARE_SPREAD_MM = 4.0
"""Median scatter of the landmarks over pictures of the bare mesh that still means a face."""

IRIS_RADIUS, PUPIL_RADIUS = 5.9, 2.0  # mm, of the visible iris and of a pupil in a room

# Where brows lie on average, from the midpoint of the outer eye corners in units of their distance
# (subject's right; x to the left, y up); and the outline of closed lips, from the mouth's middle in
# units of half its width. Means of face meshes measured on 244 neutral synthetic portraits. A bare
# mesh shows neither, and the landmarker puts them wrong by up to 7 mm where there is no colour.
_BROW = (
    *((-0.634, 0.163), (-0.567, 0.233), (-0.463, 0.270), (-0.324, 0.267), (-0.164, 0.248)),
    *((-0.143, 0.154), (-0.312, 0.209), (-0.439, 0.216), (-0.533, 0.190), (-0.596, 0.135)),
)
_LIPS = (
    *((-1.0, 0.0), (-0.907, 0.106), (-0.771, 0.216), (-0.581, 0.339), (-0.292, 0.449)),
    *((0.0, 0.390), (0.292, 0.449), (0.581, 0.339), (0.771, 0.216), (0.907, 0.106), (1.0, 0.0)),
    *((0.903, -0.072), (0.767, -0.157), (0.564, -0.267), (0.301, -0.343), (0.0, -0.364)),
    *((-0.301, -0.343), (-0.564, -0.267), (-0.767, -0.157), (-0.903, -0.072)),
)

# Skin tones (linear RGB) and lights (direction towards them, model axes).
_TONES = ((0.52, 0.31, 0.22), (0.28, 0.15, 0.095), (0.62, 0.42, 0.33), (0.40, 0.23, 0.15))
_LIGHTS = ((0.3, 0.5, 1.0), (-0.4, 0.35, 1.0), (0.0, 0.2, 1.0), (0.5, 0.1, 0.9))
_SCLERA, _IRIS, _PUPIL, _HAIR = 0.62, (0.10, 0.06, 0.035), 0.012, 0.02


class LandmarkingSettings(BaseModel):
    """How the landmarks of a model are searched for."""

    model_config = ConfigDict(extra="forbid")

    size: int = Field(512, ge=128, description="Side of the drawn pictures in px.")
    yaws: tuple[float, ...] = Field(
        (-45.0, -30.0, -15.0, 0.0, 15.0, 30.0, 45.0), description="Turns of the head, degrees."
    )
    pitches: tuple[float, ...] = Field((-10.0, 0.0, 10.0), description="Nods, degrees.")
    looks: int = Field(2, ge=1, le=4, description="Pairs of light and skin tone a view.")
    min_views: int = Field(3, ge=1, description="Fewest pictures in which a face must be found.")
    max_spread_mm: float = Field(
        9.0, gt=0, description="Scatter over the pictures beyond which a landmark is given up."
    )
    paint: bool = Field(
        True, description="Colour lips, brows and eyes at average places before the second pass."
    )


@dataclass(frozen=True)
class LandmarkingReport:
    """What `locate_landmarks` saw.

    Attributes
    ----------
    pictures, found : int
        Pictures drawn in the last pass, and those with a face.
    spread : (478,) float64
        Scatter of each landmark over the pictures, mm (weighted median distance); NaN where never
        seen.
    points : (478, 3) float64
        The places on the surface, mm; NaN where the embedding is -1.
    """

    pictures: int
    found: int
    spread: np.ndarray
    points: np.ndarray


def find_embedding(
    vertices: np.ndarray,
    triangles: np.ndarray,
    colours: np.ndarray | None = None,
    **options,
) -> LandmarkEmbedding:
    """`locate_landmarks` without its report."""
    return locate_landmarks(vertices, triangles, colours, **options)[0]


def locate_landmarks(
    vertices: np.ndarray,
    triangles: np.ndarray,
    colours: np.ndarray | None = None,
    *,
    eyes: np.ndarray | None = None,
    hidden: np.ndarray | None = None,
    mirror: np.ndarray | None = None,
    settings: LandmarkingSettings | None = None,
    seed: int = 0,
) -> tuple[LandmarkEmbedding, LandmarkingReport]:
    """Find the 478 MediaPipe points on a mesh.

    Parameters
    ----------
    vertices : (V, 3) float, mm
        A neutral face: x to the subject's left, y up, z out of the face.
    triangles : (F, 3) int, counter-clockwise seen from outside
    colours : (V, 3) float, optional
        Linear RGB albedo; without it skin, lips, brows and eyes are made up.
    eyes : (V,) bool, optional
        Vertices of the eyeballs.
    hidden : (V,) bool, optional
        Vertices of inner surfaces (mouth bag, eye sockets): drawn, but never landed on.
    mirror : (V,) int, optional
        Mirror image of each vertex, -1 where there is none; makes the answer symmetric.
    settings : LandmarkingSettings, optional
    seed : int
        Of the jitter of cameras and lights.

    Returns
    -------
    LandmarkEmbedding
        Triangle -1 for what is never seen reliably (irises of a mesh without eyes, for example).
    LandmarkingReport

    Raises
    ------
    ShapeError
        If an array has the wrong shape.
    ModelError
        If the landmarker sees no face in the drawn pictures.
    """
    from recon3d.tracking.quiet import quiet_native_logs

    settings = settings or LandmarkingSettings()
    V = check_shape(vertices, "V 3", "vertices")["V"]
    check_shape(triangles, "F 3", "triangles")
    for name, value in (("eyes", eyes), ("hidden", hidden), ("mirror", mirror)):
        if value is not None:
            check_shape(value, f"{V}", name)
    if colours is not None:
        check_shape(colours, f"{V} 3", "colours")
    scene = _Scene(vertices, triangles, colours, eyes, hidden)
    rng = np.random.default_rng(seed)
    with quiet_native_logs(), _Landmarker() as detect:
        centre, span = _frame_face(scene, detect, settings)
        first = settings.model_copy(
            update={"yaws": (-20.0, 0.0, 20.0), "pitches": (0.0,), "looks": 2}
        )
        sightings = _look(scene, detect, centre, span, first, rng)
        points, spread, _ = _average(sightings, mirror)
        # A false alarm follows the picture, not the surface. It must be caught before anything is
        # painted: the landmarker would see a painted face on a ball.
        if len(sightings) < 3 or not np.nanmedian(spread) < MAX_BARE_SPREAD_MM:
            raise ModelError(NO_FACE)
        if settings.paint and colours is None:
            scene.paint(points)
        sightings = _look(scene, detect, centre, span, settings, rng)
    drawn = len(settings.yaws) * len(settings.pitches) * settings.looks
    if len(sightings) < settings.min_views:
        raise ModelError(
            f"the landmarker sees a face in {len(sightings)} of {drawn} pictures of this mesh; "
            "check its units (mm) and axes (y up, z out of the face)"
        )
    points, spread, weight = _average(sightings, mirror)
    lost = ~(spread <= settings.max_spread_mm) | (weight <= 0)
    embedding, points = _snap(scene, points, lost, mirror)
    return embedding, LandmarkingReport(drawn, len(sightings), spread, points)


# ------------------------------------------------------------------------------- iBUG's points

# Oval points of the right half, eye level to chin, each with its neighbour towards the face.
_JAW = (
    *((127, 34), (234, 227), (93, 137), (132, 177), (58, 215), (172, 138), (136, 135)),
    *((150, 169), (149, 170), (176, 140), (148, 171), (152, 152)),
)
OUTLINE_FACING = 0.2
"""Forward part of the normal where annotators put the outline of a frontal face."""

# iBUG points that lie between mesh points, or nearer the mouth's corner than the usual list says.
_MIDDLES = {
    **{55: (321, 405), 56: (314, 405), 58: (84, 181), 59: (91, 181)},
    **{61: (81, 81), 63: (311, 311), 65: (402, 402), 67: (178, 178)},
}


def ibug68_from_mediapipe(
    vertices: np.ndarray, triangles: np.ndarray, embedding: LandmarkEmbedding
) -> LandmarkEmbedding:
    """The 68 iBUG points from the 478 of the face mesh.

    Brows, nose, eyes and lips through the commonly published correspondence; where an iBUG point
    lies between two mesh points, their middle. The jaw's 17 lie evenly spaced on the outline of
    the face as seen from the front, from the height of the eye corners to the chin, and that
    outline is in front of the mesh's oval.

    Parameters
    ----------
    vertices : (V, 3) float, mm
    triangles : (F, 3) int
    embedding : LandmarkEmbedding of the 478 points

    Returns
    -------
    LandmarkEmbedding of the 68 points; -1 where the points they come from are missing.
    """
    from recon3d.tracking.topology import IBUG68

    triangle = embedding.triangle[IBUG68].copy()
    barycentric = embedding.barycentric[IBUG68].copy()
    points = embed(vertices, triangles, embedding)
    surface = _Surface(vertices, triangles, points)
    places = dict(enumerate(_jaw_outline(surface, points)))
    places |= {i: points[list(pair)].mean(0) for i, pair in _MIDDLES.items()}
    for i, place in places.items():
        if np.isfinite(place).all():
            near, weights, _ = surface.closest(place[None])
            triangle[i], barycentric[i] = near[0], weights[0]
        else:
            triangle[i], barycentric[i] = -1, (1.0, 0.0, 0.0)
    return LandmarkEmbedding(triangle, barycentric)


def _jaw_outline(surface: _Surface, points: np.ndarray) -> np.ndarray:
    """(17, 3) jaw points, subject's right to left; NaN where the oval is missing."""
    from recon3d.tracking.topology import MIRROR

    sides = []
    for swap in (False, True):
        pairs = MIRROR[np.array(_JAW)] if swap else np.array(_JAW)
        pairs = pairs[np.isfinite(points[pairs]).all((1, 2))]
        corner = points[OUTER_CORNERS[int(swap)]]
        if len(pairs) < 6 or not np.isfinite(corner).all():
            return np.full((17, 3), np.nan)
        outline = []
        for oval, inner in points[pairs]:
            walk = inner + np.linspace(0, 1, 25)[:, None] * (oval - inner)
            near, weights, place = surface.closest(walk)
            away = np.flatnonzero(surface.normal(near, weights)[:, 2] < OUTLINE_FACING)
            outline.append(place[away[0]] if len(away) else place[-1])
        sides.append(_evenly(np.array(outline), 9, corner[1]))
    return np.concatenate([sides[0], sides[1][-2::-1]])


def _evenly(path: np.ndarray, count: int, top: float) -> np.ndarray:
    """Points at equal distances along a path, from where it passes the height ``top``."""
    above = np.flatnonzero(path[:, 1] > top)
    if not len(above):  # the path begins below: continue straight up
        path = np.r_[[path[0] + [0, top - path[0, 1], 0]], path]
    elif above[-1] + 1 < len(path):
        i = above[-1]
        share = (path[i, 1] - top) / max(path[i, 1] - path[i + 1, 1], 1e-9)
        path = np.r_[[path[i] + share * (path[i + 1] - path[i])], path[i + 1 :]]
    along = np.r_[0, np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))]
    wanted = np.linspace(0, along[-1], count)
    return np.stack([np.interp(wanted, along, path[:, k]) for k in range(3)], 1)


class _Surface:
    """The part of a mesh that bears landmarks, for closest points and normals."""

    def __init__(self, vertices, triangles, points):
        from recon3d.geometry import vertex_normals

        self.vertices, self.triangles = vertices, triangles
        self.normals = vertex_normals(vertices, triangles)
        low, high = np.nanmin(points, 0) - 15, np.nanmax(points, 0) + 15
        inside = ((vertices > low) & (vertices < high)).all(1)
        self.candidates = np.flatnonzero(inside[triangles].all(1))

    def closest(self, places):
        return closest_on_mesh(places, self.vertices, self.triangles, self.candidates)

    def normal(self, triangle, barycentric):
        normal = (self.normals[self.triangles[triangle]] * barycentric[..., None]).sum(1)
        return normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)


# ------------------------------------------------------------------------------------- drawing


@dataclass(frozen=True)
class _Sighting:
    """One picture's landmarks on the surface: (478, 3) points and (478,) weights."""

    points: np.ndarray
    weight: np.ndarray


class _Scene:
    """The mesh, lit and coloured."""

    def __init__(self, vertices, triangles, colours, eyes, hidden):
        from recon3d.geometry import vertex_normals

        self.vertices = np.ascontiguousarray(vertices, np.float64)
        self.triangles = np.ascontiguousarray(triangles, np.int64)
        self.normals = vertex_normals(self.vertices, self.triangles).astype(np.float32)
        self.colours = None if colours is None else np.ascontiguousarray(colours, np.float32)
        none = np.zeros(len(vertices), bool)
        eyes = none if eyes is None else np.asarray(eyes, bool)
        hidden = none if hidden is None else np.asarray(hidden, bool)
        self.eye_triangle = eyes[self.triangles].all(1)
        self.hidden_triangle = hidden[self.triangles].any(1)
        self.seen = np.zeros(len(self.triangles), bool)
        self.balls = []
        for side in (-1, 1):
            ball = self.vertices[eyes & (self.vertices[:, 0] * side > 0)]
            if len(ball):
                self.balls.append((ball.min(0) + ball.max(0)) / 2)
        self._paint = None

    def paint(self, points: np.ndarray) -> None:
        """Colour lips and brows, and eyes where there are no eyeballs, from first landmarks."""
        if np.isfinite(points[list(OUTER_CORNERS + MOUTH_CORNERS)]).all():
            self._paint = _Paint(self, points)

    def draw(self, R, t, K, size, tone, light):
        """A picture (H, W, 3) uint8, the triangle and the depth of each pixel."""
        from recon3d.colour import linear_to_srgb, to_uint8
        from recon3d.rendering.native import rasterise_numpy

        face, depth, barycentric = rasterise_numpy(
            self.vertices @ R.T + t, self.triangles, K, (size, size)
        )
        inside = face >= 0
        second = self.vertices if self.colours is None else self.colours
        attributes = np.concatenate([self.normals, second.astype(np.float32)], 1)
        corners = attributes[self.triangles[face[inside]]]
        attributes = np.zeros((size, size, attributes.shape[1]), np.float32)
        attributes[inside] = np.einsum("nk,nkc->nc", barycentric[inside], corners)
        normal, rest = attributes[..., :3], attributes[..., 3:]
        normal = normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-6)
        albedo = rest if self.colours is not None else self._albedo(face, rest, tone)
        # a window to one side and a bright room: soft enough for the landmarker to read the form
        shade = 0.38 + 0.12 * normal[..., 1] + 0.62 * np.maximum(normal @ light, 0)
        picture = albedo * shade[..., None]
        picture[~inside] = 0.2
        return to_uint8(linear_to_srgb(picture)), face, np.where(inside, depth, np.inf)

    def _albedo(self, face, position, tone):
        albedo = np.broadcast_to(tone, position.shape).astype(np.float32)
        number = np.maximum(face, 0)
        if self._paint is not None:
            albedo = self._paint(position, albedo, self.eye_triangle[number])
        albedo = np.where(self.hidden_triangle[number][..., None], albedo * 0.35, albedo)
        if self.balls:
            eye = self.eye_triangle[number] & (face >= 0)
            albedo[eye] = _SCLERA
            for centre in self.balls:
                away = position - centre.astype(np.float32)
                radius = np.hypot(away[..., 0], away[..., 1])
                ahead = eye & (away[..., 2] > 0)
                albedo[ahead & (radius < IRIS_RADIUS)] = _IRIS
                albedo[ahead & (radius < PUPIL_RADIUS)] = _PUPIL
        return albedo


class _Paint:
    """Colour projected from the front, as if the face were made up before a mirror."""

    STEP = 0.25  # mm a texel
    DEPTH = 6.0  # mm below the front surface that still take colour

    def __init__(self, scene: _Scene, points: np.ndarray):
        import cv2

        from recon3d.rendering.native import rasterise_numpy
        from recon3d.tracking.topology import LEFT_EYE, RIGHT_EYE

        right, left = points[list(OUTER_CORNERS)]
        middle, unit = (right + left) / 2, float(np.linalg.norm((left - right)[:2]))
        self.low = middle[:2] - 1.2 * unit
        size = int(np.ceil(2.4 * unit / self.STEP))

        def fill(*polygons):
            canvas = np.zeros((size, size), np.uint8)
            for polygon in polygons:
                xy = (np.asarray(polygon)[:, :2] - self.low) / self.STEP
                cv2.fillPoly(canvas, [np.round(xy * 16).astype(np.int32)], 255, shift=4)
            soft = cv2.GaussianBlur(canvas.astype(np.float32) / 255, (0, 0), 0.8 / self.STEP)
            return np.minimum(soft * 1.15, 1.0)

        corner_right, corner_left = points[list(MOUTH_CORNERS)]
        mouth = (corner_right + corner_left) / 2
        half = np.linalg.norm((corner_left - corner_right)[:2]) / 2
        brow = np.array(_BROW) * unit
        self.brow = fill(middle[:2] + brow, middle[:2] + brow * [-1, 1])
        self.lips = fill(mouth[:2] + np.array(_LIPS) * half)
        self.eye = None
        rings = [points[list(ring)] for ring in (RIGHT_EYE, LEFT_EYE)]
        if not scene.balls and all(np.isfinite(ring).all() for ring in rings):
            angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
            circle = np.stack([np.cos(angle), np.sin(angle)], 1)
            centres = [ring.mean(0)[:2] for ring in rings]
            self.eye = fill(*rings)
            self.iris = fill(*[c + IRIS_RADIUS * circle for c in centres]) * self.eye
            self.pupil = fill(*[c + PUPIL_RADIUS * circle for c in centres]) * self.eye
        # What is seen from the front, so that nothing behind it takes colour. Rows count upwards
        # here, as y does, so the camera is a mirrored one; it only measures depth.
        distance = 20000.0
        focal = distance / self.STEP
        K = np.array([[focal, 0, 0], [0, focal, 0], [0, 0, 1]])
        ahead = scene.vertices[:, 2].max()
        camera = (scene.vertices - [*self.low, ahead]) * [1, 1, -1] + [0, 0, distance]
        _, depth, _ = rasterise_numpy(camera, scene.triangles, K, (size, size))
        self.front = np.where(depth > 0, ahead + distance - depth, -1e6).astype(np.float32)

    def __call__(self, position, albedo, is_eye):
        import cv2

        at = ((position[..., :2] - self.low) / self.STEP - 0.5).astype(np.float32)

        def sample(image, **options):
            return cv2.remap(image, at[..., 0], at[..., 1], cv2.INTER_LINEAR, **options)

        front = sample(self.front, borderMode=cv2.BORDER_CONSTANT, borderValue=1e6)
        near = ((position[..., 2] > front - self.DEPTH) & ~is_eye)[..., None]
        lips, brow = sample(self.lips)[..., None] * near, sample(self.brow)[..., None] * near
        albedo = albedo * (1 - 0.85 * lips * np.array([0.22, 0.62, 0.58], np.float32))
        albedo = albedo * (1 - 0.8 * brow) + np.float32(_HAIR) * brow
        if self.eye is not None:
            for mask, colour in ((self.eye, _SCLERA), (self.iris, _IRIS), (self.pupil, _PUPIL)):
                cover = sample(mask)[..., None] * near
                albedo = albedo * (1 - cover) + np.asarray(colour, np.float32) * cover
        return albedo.astype(np.float32)


class _Landmarker:
    """Context of a function from a picture to (478, 3) px, or None without a face."""

    def __enter__(self):
        import mediapipe as mp

        self.mesh = mp.solutions.face_mesh.FaceMesh(
            static_image_mode=True,
            refine_landmarks=True,
            max_num_faces=1,
            min_detection_confidence=0.3,
        )
        return self.detect

    def __exit__(self, *_):
        self.mesh.close()

    def detect(self, picture: np.ndarray) -> np.ndarray | None:
        result = self.mesh.process(np.ascontiguousarray(picture))
        if not result.multi_face_landmarks:
            return None
        height, width = picture.shape[:2]
        face = result.multi_face_landmarks[0].landmark
        return np.array([[p.x * width, p.y * height, p.z * width] for p in face])


def _camera(centre, span, yaw, pitch, size):
    """A camera that sees ``span`` mm around a point, the head turned by yaw and pitch (radians)."""
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    R = np.diag([1.0, -1.0, -1.0]) @ nod @ turn
    distance = 3.2 * span
    focal = size * distance / span
    K = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1.0]])
    return R, np.array([0, 0, distance]) - R @ centre, K


def _frame_face(scene, detect, settings) -> tuple[np.ndarray, float]:
    """Centre and span of the pictures: the mesh as a whole first, then closer to a head's size."""
    low, high = scene.vertices.min(0), scene.vertices.max(0)
    middle = (low + high) / 2
    trials = [(middle, 1.15 * max(high[:2] - low[:2]))]
    trials += [
        (np.array([middle[0], high[1] - below, middle[2]]), span)
        for below, span in ((130.0, 330.0), (100.0, 240.0), (170.0, 450.0))
    ]
    light = np.array(_LIGHTS[2]) / np.linalg.norm(_LIGHTS[2])
    for centre, span in trials:
        for tone in _TONES[:2]:
            camera = _camera(centre, span, 0.0, 0.0, settings.size)
            picture, face, depth = scene.draw(*camera, settings.size, np.array(tone), light)
            landmarks = detect(picture)
            if landmarks is None:
                continue
            points, weight = _cast(scene, landmarks, face, depth, *camera)
            if (weight > 0).sum() < N_LANDMARKS // 3:
                continue
            box_low, box_high = np.percentile(points[weight > 0], [2, 98], axis=0)
            return (box_low + box_high) / 2, 1.75 * float(max((box_high - box_low)[:2]))
    raise ModelError(NO_FACE)


def _look(scene, detect, centre, span, settings, rng) -> list[_Sighting]:
    """Draw, detect and cast over all views and looks."""
    sightings = []
    for yaw in settings.yaws:
        for pitch in settings.pitches:
            for look in range(settings.looks):
                turn = np.radians([yaw, pitch] + rng.uniform(-3, 3, 2))
                at = centre + rng.uniform(-0.03, 0.03, 3) * span
                camera = _camera(at, span * rng.uniform(0.93, 1.1), *turn, settings.size)
                light = np.array(_LIGHTS[look]) + rng.uniform(-0.1, 0.1, 3)
                light /= np.linalg.norm(light)
                picture, face, depth = scene.draw(
                    *camera, settings.size, np.array(_TONES[look]), light
                )
                landmarks = detect(picture)
                if landmarks is not None:
                    scene.seen[face[face >= 0]] = True
                    sightings.append(_Sighting(*_cast(scene, landmarks, face, depth, *camera)))
    return sightings


# ------------------------------------------------------------------------- back to the surface


def _cast(scene, landmarks, face, depth, R, t, K):
    """Points where the landmarks' rays meet the surface, and how far each is to be trusted."""
    import cv2

    size = face.shape[0]
    landmarks = landmarks.copy()
    facing_mesh = _facing(landmarks)
    x, y = np.clip(np.floor(landmarks[:, :2]).astype(int), 0, size - 1).T
    number = face[y, x]
    # Through the slit between the lips or past the outline, the ray goes behind the face: take
    # the nearest surface beside it.
    far = 1e9
    depth = np.where(scene.hidden_triangle[np.maximum(face, 0)], far, np.minimum(depth, far))
    depth = depth.astype(np.float32)
    nearest = cv2.erode(depth, np.ones((7, 7), np.uint8))
    for i in np.flatnonzero(depth[y, x] - nearest[y, x] > 8.0):
        y0, x0 = max(y[i] - 3, 0), max(x[i] - 3, 0)
        window = depth[y0 : y[i] + 4, x0 : x[i] + 4]
        rows, columns = np.nonzero(window < window.min() + 4.0)
        best = np.hypot(rows + y0 - y[i], columns + x0 - x[i]).argmin()
        y[i], x[i] = rows[best] + y0, columns[best] + x0
        landmarks[i, :2] = x[i] + 0.5, y[i] + 0.5
    number = np.where(depth[y, x] < far, face[y, x], -1)
    corners = scene.vertices[scene.triangles[np.maximum(number, 0)]]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    eye = -R.T @ t
    ray = np.c_[(landmarks[:, :2] - K[:2, 2]) / K[0, 0], np.ones(len(landmarks))] @ R
    slope = (normal * ray).sum(1)
    reach = ((corners[:, 0] - eye) * normal).sum(1) / np.where(np.abs(slope) > 1e-9, slope, 1e-9)
    points = eye + reach[:, None] * ray
    # the plane of a triangle seen edge-on is a bad guide: stay within the triangle's own box
    points = np.clip(points, corners.min(1) - 0.5, corners.max(1) + 0.5)
    facing = np.clip(-slope / np.linalg.norm(ray, axis=1), 0, 1)
    return points, np.where(number >= 0, facing**2 * facing_mesh**2, 0.0)


def _facing(landmarks: np.ndarray) -> np.ndarray:
    """How much the landmarker's own mesh faces the camera at each point, 0 to 1.

    On the far side of a turned head landmarks are drawn over nearer skin; the landmarker's depth
    says which they are.
    """
    from recon3d.geometry import vertex_normals
    from recon3d.morphable.topology import face_triangles

    facing = np.ones(N_LANDMARKS)
    facing[:N_FACE] = vertex_normals(landmarks[:N_FACE] * [1, -1, -1], face_triangles())[:, 2]
    return np.clip((facing - 0.1) / 0.9, 0, 1)


def _average(sightings: list[_Sighting], mirror) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Robust mean over the pictures: points (478, 3) mm, spread (478,) mm, weight (478,)."""
    if not sightings:
        raise ModelError(NO_FACE)
    points = np.stack([s.points for s in sightings])
    weight = np.stack([s.weight for s in sightings])
    if mirror is not None and (mirror >= 0).mean() > 0.9:
        # a mirrored picture of a symmetric face is another picture of it
        from recon3d.tracking.topology import MIRROR

        points = np.concatenate([points, points[:, MIRROR] * [-1, 1, 1]])
        weight = np.concatenate([weight, weight[:, MIRROR]])
    total = weight.sum(0)
    strong = np.where(weight > 0.25 * weight.max(0), weight, 0.0)
    mean = np.stack([_weighted_median(points[..., k], strong) for k in range(3)], 1)
    for _ in range(20):
        distance = np.linalg.norm(points - mean, axis=-1)
        robust = weight / np.maximum(distance, 1.0) ** 1.5
        mean = (robust[..., None] * points).sum(0) / np.maximum(robust.sum(0), 1e-12)[:, None]
    spread = _weighted_median(np.linalg.norm(points - mean, axis=-1), weight)
    unseen = total < 1e-3
    mean[unseen] = np.nan
    spread[unseen] = np.nan
    return mean, spread, total


def _weighted_median(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted median over the first axis of (N, L)."""
    order = np.argsort(values, axis=0)
    sorted_weight = np.take_along_axis(weight, order, 0)
    below = np.cumsum(sorted_weight, axis=0) < 0.5 * sorted_weight.sum(0)
    row = np.minimum(below.sum(0), len(values) - 1)
    return np.take_along_axis(values, np.take_along_axis(order, row[None], 0), 0)[0]


def _snap(scene, points, lost, mirror) -> tuple[LandmarkEmbedding, np.ndarray]:
    """Put points onto the surface that was seen: irises on the eyes, everything else beside."""
    iris = np.arange(N_LANDMARKS) >= N_FACE
    usable = scene.seen & ~scene.hidden_triangle
    triangle = np.full(N_LANDMARKS, -1, np.int64)
    barycentric = np.tile([1.0, 0.0, 0.0], (N_LANDMARKS, 1))
    has_eyes = bool(scene.eye_triangle.any())
    for group, where in (
        (iris, usable & scene.eye_triangle if has_eyes else usable),
        (~iris, usable & ~scene.eye_triangle),
    ):
        wanted = np.flatnonzero(group & ~lost)
        candidates = np.flatnonzero(where)
        if not len(wanted) or not len(candidates):
            continue
        near, weights, place = closest_on_mesh(
            points[wanted], scene.vertices, scene.triangles, candidates
        )
        # a landmark that is far from what it belongs to was never on it
        keep = np.linalg.norm(place - points[wanted], axis=1) < 6.0
        triangle[wanted[keep]], barycentric[wanted[keep]] = near[keep], weights[keep]
    embedding = LandmarkEmbedding(triangle, barycentric)
    if mirror is not None:
        embedding = _symmetric(scene.triangles, embedding, mirror)
    return embedding, embed(scene.vertices, scene.triangles, embedding)


def _symmetric(triangles, embedding, mirror) -> LandmarkEmbedding:
    """Give left landmarks the mirror images of the right ones, where the mesh has them."""
    from recon3d.tracking.topology import MIRROR

    number = {tuple(sorted(t)): i for i, t in enumerate(triangles.tolist())}
    triangle, barycentric = embedding.triangle.copy(), embedding.barycentric.copy()
    for right, left in enumerate(MIRROR):
        if right >= left:
            continue
        face = embedding.triangle[right]
        if face < 0 or embedding.triangle[left] < 0:
            triangle[[right, left]] = -1
            continue
        image = mirror[triangles[face]]
        other = number.get(tuple(sorted(image.tolist())))
        if (image < 0).any() or other is None:
            continue
        triangle[left] = other
        corner = [image.tolist().index(v) for v in triangles[other].tolist()]
        barycentric[left] = embedding.barycentric[right][corner]
    return LandmarkEmbedding(triangle, barycentric)


def closest_on_mesh(
    points: np.ndarray, vertices: np.ndarray, triangles: np.ndarray, candidates: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Closest points on some triangles of a mesh [1]_.

    Parameters
    ----------
    points : (P, 3)
    vertices : (V, 3)
    triangles : (F, 3) int
    candidates : (C,) int
        Numbers of the triangles that count.

    Returns
    -------
    triangle : (P,) int64; barycentric : (P, 3); place : (P, 3)

    References
    ----------
    .. [1] C. Ericson, Real-Time Collision Detection, section 5.1.5, 2005.
    """
    from scipy.spatial import cKDTree

    corners = vertices[triangles[candidates]]
    k = min(48, len(candidates))
    near = cKDTree(corners.mean(1)).query(points, k=k)[1].reshape(len(points), k)
    a, b, c = (corners[near][:, :, i] for i in range(3))
    weights = _closest_weights(points[:, None], a, b, c)
    place = weights[..., :1] * a + weights[..., 1:2] * b + weights[..., 2:] * c
    best = np.linalg.norm(place - points[:, None], axis=-1).argmin(1)
    row = np.arange(len(points))
    return candidates[near[row, best]], weights[row, best], place[row, best]


def _closest_weights(p, a, b, c) -> np.ndarray:
    """Barycentric coordinates of the closest points, (..., 3)."""

    def dot(u, v):
        return (u * v).sum(-1)

    def ratio(n, m):
        return np.clip(n / np.where(np.abs(m) < 1e-18, 1e-18, m), 0, 1)

    ab, ac, ap, bp, cp = b - a, c - a, p - a, p - b, p - c
    d1, d2, d3 = dot(ab, ap), dot(ac, ap), dot(ab, bp)
    d4, d5, d6 = dot(ac, bp), dot(ab, cp), dot(ac, cp)
    va, vb, vc = d3 * d6 - d5 * d4, d5 * d2 - d1 * d6, d1 * d4 - d3 * d2
    whole = va + vb + vc
    whole = np.where(np.abs(whole) < 1e-18, 1e-18, whole)
    v, w = vb / whole, vc / whole
    on_ab, on_ac = ratio(d1, d1 - d3), ratio(d2, d2 - d6)
    on_bc = ratio(d4 - d3, (d4 - d3) + (d5 - d6))
    zero, one = np.zeros_like(v), np.ones_like(v)
    weights = np.stack([1 - v - w, v, w], -1)
    for where, value in (
        ((vc <= 0) & (d1 >= 0) & (d3 <= 0), (1 - on_ab, on_ab, zero)),
        ((vb <= 0) & (d2 >= 0) & (d6 <= 0), (1 - on_ac, zero, on_ac)),
        ((va <= 0) & (d4 >= d3) & (d5 >= d6), (zero, 1 - on_bc, on_bc)),
        ((d1 <= 0) & (d2 <= 0), (one, zero, zero)),
        ((d3 >= 0) & (d4 <= d3), (zero, one, zero)),
        ((d6 >= 0) & (d5 <= d6), (zero, zero, one)),
    ):
        weights = np.where(where[..., None], np.stack(value, -1), weights)
    return weights
