"""An ellipsoid head with a known skin, seen by known cameras: truth for texture and portrait."""

from __future__ import annotations

import cv2
import numpy as np

from recon3d.colour import linear_to_srgb, to_uint8
from recon3d.geometry import head_rotation, intrinsics, transform
from recon3d.rendering.native import rasterise_numpy
from recon3d.types import (
    FaceFit,
    FaceModel,
    FaceObservation,
    FaceTrack,
    ImagePatch,
    LandmarkEmbedding,
)

RADII = np.array([72.0, 100.0, 85.0])
SIZE = (144, 144)


def make_model(rows: int = 40, columns: int = 60) -> FaceModel:
    """The front 260 degrees of an ellipsoid, with landmarks where eyes and mouth would be."""
    rng = np.random.default_rng(5)
    u, v = np.meshgrid(np.linspace(0, 1, columns), np.linspace(0, 1, rows))
    longitude, latitude = (u - 0.5) * np.radians(260), (v - 0.5) * np.radians(150)
    mean = RADII * np.stack(
        [
            np.sin(longitude) * np.cos(latitude),
            np.sin(latitude),
            np.cos(longitude) * np.cos(latitude),
        ],
        -1,
    )
    mean = mean.reshape(-1, 3)
    k = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = (x.ravel() for x in (k[:-1, :-1], k[:-1, 1:], k[1:, 1:], k[1:, :-1]))
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    uv = 0.02 + 0.96 * np.stack([u.ravel(), v.ravel()], 1)
    centroid = mean[triangles].mean(1)
    wanted = np.stack([rng.uniform(-50, 50, 478), rng.uniform(-70, 70, 478), np.zeros(478)], axis=1)
    from recon3d.frontal.camera import LEFT_LID, RIGHT_LID

    for side, lid in ((-1, RIGHT_LID), (1, LEFT_LID)):
        for j, number in enumerate(lid):
            angle = 2 * np.pi * j / 16
            wanted[number] = [side * (32 + 12 * side * np.cos(angle)), 22 + 6 * np.sin(angle), 0]
    front = np.where(centroid[:, 2] > 0, 0, 1e6)
    triangle = np.array([np.argmin(np.hypot(*(centroid[:, :2] - w[:2]).T) + front) for w in wanted])
    embedding = LandmarkEmbedding(triangle, np.full((478, 3), 1 / 3))
    x, y, z = mean.T

    def spot(cx, cy, radius):
        near = 1.5 - np.hypot(x - cx, y - cy) / radius
        return np.clip(near, 0, 1) * (z > 0)

    eyes = np.maximum(spot(-32, 22, 14), spot(32, 22, 14))
    mouth = spot(0, -45, 22)
    face = np.clip(2.2 - np.hypot(x / 50, y / 70), 0, 1) * (z > 0)
    opening = np.zeros((1, len(mean), 3), np.float32)
    opening[0, :, 1] = -12 * mouth
    return FaceModel(
        name="ellipsoid",
        mean=mean,
        identity=np.zeros((1, len(mean), 3), np.float32),
        expression=opening,
        expression_names=("jawOpen",),
        triangles=triangles.astype(np.int64),
        uv=uv,
        triangles_uv=triangles.astype(np.int64),
        landmarks=embedding,
        ibug68=LandmarkEmbedding(triangle[:68], np.full((68, 3), 1 / 3)),
        mirror=k[:, ::-1].ravel(),
        regions={
            "face": face.astype(np.float32),
            "eyes": eyes.astype(np.float32),
            "mouth": mouth.astype(np.float32),
            "neck": np.zeros(len(mean), np.float32),
        },
    )


def make_skin(side: int = 256, symmetric: bool = False) -> np.ndarray:
    """(side, side, 3) linear skin with freckles of all sizes."""
    rng = np.random.default_rng(11)
    out = np.zeros((side, side, 1), np.float32)
    for sigma, amount in ((2, 0.35), (5, 0.35), (14, 0.4)):
        noise = cv2.GaussianBlur(rng.normal(size=(side, side)).astype(np.float32), (0, 0), sigma)
        out[..., 0] += amount * noise / noise.std() * 0.35
    if symmetric:
        out = (out + out[:, ::-1]) / np.sqrt(2)
    return (np.array([0.42, 0.25, 0.19]) * np.exp(0.5 * out)).astype(np.float32)


def make_scene(
    angles,
    *,
    face_px: float = 60.0,
    skin: np.ndarray | None = None,
    gain=None,
    side_light: float = 0.0,
    noise=0.004,
    expression=None,
    occluded=(),
    path_mm=None,
    shutter: float = 0.0,
    blur_px=None,
    seed: int = 0,
) -> tuple[FaceTrack, FaceFit, np.ndarray]:
    """Render views of the head.

    Parameters
    ----------
    angles : (N, 2) yaw and pitch, degrees
    face_px : float
        Width of the head in the frames.
    gain : (N,), optional
        Exposure of every frame.
    side_light : float
        Strength of a light from the right of the picture.
    noise : float or (N,)
        Standard deviation, linear.
    expression : (N,), optional
        How far the mouth is open.
    occluded : views that a grey bar covers in part
    path_mm : (N, 2), optional
        Where the head stands before the camera; at random without.
    shutter : float
        Share of the time between frames that the shutter is open: so much of the path is drawn.
    blur_px : (N,), optional
        Standard deviation of how far every frame is out of focus.

    Returns
    -------
    track, fit, skin
    """
    rng = np.random.default_rng(seed)
    model = make_model()
    skin = make_skin() if skin is None else skin
    angles = np.atleast_2d(angles).astype(float)
    n = len(angles)
    gain = np.ones(n) if gain is None else np.asarray(gain, float)
    noise = np.broadcast_to(noise, n)
    expression = np.zeros(n) if expression is None else np.asarray(expression, float)
    distance = 1500.0
    K = intrinsics(face_px / (2 * RADII[0]) * distance, SIZE)
    R = head_rotation(angles[:, 0], angles[:, 1], np.zeros(n))
    t = np.stack([rng.uniform(-9, 9, n), rng.uniform(-9, 9, n), np.full(n, distance)], 1)
    if path_mm is not None:
        t[:, :2] = path_mm
    views = []
    fine = 4
    for i in range(n):
        vertices = transform(model.vertices(expression=expression[i : i + 1]), R[i], t[i])
        face, _, weight = rasterise_numpy(
            vertices,
            model.triangles,
            np.diag([fine, fine, 1.0]) @ K,
            (SIZE[1] * fine, SIZE[0] * fine),
        )
        image = np.full((SIZE[1] * fine, SIZE[0] * fine, 3), 0.08, np.float32)
        row, column = np.nonzero(face >= 0)
        corner = model.triangles[face[row, column]]
        w = weight[row, column]
        uv = np.einsum("pk,pkc->pc", w, model.uv[corner])
        map_x, map_y = np.zeros((2, *face.shape), np.float32)
        map_x[row, column] = uv[:, 0] * len(skin) - 0.5
        map_y[row, column] = (1 - uv[:, 1]) * len(skin) - 0.5
        colour = cv2.remap(skin, map_x, map_y, cv2.INTER_LINEAR)
        normal = (model.mean / RADII**2)[corner]
        normal = np.einsum("pk,pkc->pc", w, normal)
        normal = normal / np.linalg.norm(normal, axis=1, keepdims=True) @ R[i].T
        shade = np.exp(side_light * normal[:, 0])
        image[row, column] = colour[row, column] * shade[:, None]
        if shutter > 0:
            speed = (t[min(i + 1, n - 1), :2] - t[max(i - 1, 0), :2]) / (2 if 0 < i < n - 1 else 1)
            image = _smeared(image, fine * shutter * K[0, 0] / distance * speed)
        if blur_px is not None and blur_px[i] > 0:
            image = cv2.GaussianBlur(image, (0, 0), fine * float(blur_px[i]))
        image = cv2.resize(image, SIZE, interpolation=cv2.INTER_AREA) * gain[i]
        if i in occluded:
            image[68:84, 20:124] = 0.3
        image = image + rng.normal(scale=noise[i], size=image.shape)
        pixels = to_uint8(linear_to_srgb(image))
        centre = np.array(SIZE) / 2 + K[0, 0] * t[i, :2] / distance
        box = np.r_[centre - face_px / 2, centre + face_px / 2]
        low = np.maximum(np.floor(centre - 1.1 * face_px), 0).astype(int)
        high = np.minimum(np.ceil(centre + 1.1 * face_px), SIZE).astype(int)
        patch = np.ascontiguousarray(pixels[low[1] : high[1], low[0] : high[0]])
        views.append(
            FaceObservation(
                frame_index=i,
                source=0,
                time=i / 25,
                image_size=SIZE,
                box=box,
                landmarks=np.zeros((478, 2)),
                covariance=np.tile(np.eye(2), (478, 1, 1)),
                depth=np.zeros(478),
                yaw=angles[i, 0],
                pitch=angles[i, 1],
                roll=0.0,
                quality=0.8,
                patch=ImagePatch(patch, (int(low[0]), int(low[1]))),
            )
        )
    track = FaceTrack(
        0,
        tuple(views),
        np.arange(n),
        np.zeros(n, int),
        np.arange(n) / 25,
        angles[:, 0],
        angles[:, 1],
        np.full(n, face_px),
        np.full(n, 0.8),
    )
    count = model.n_vertices
    fit = FaceFit(
        model=model,
        identity=np.zeros(1),
        expression=expression[:, None],
        R=R,
        t=t,
        K=np.tile(K, (n, 1, 1)),
        displacement=np.zeros((count, 3)),
        residuals=np.zeros((n, 478, 2)),
        weights=np.ones((n, 478)),
        uncertainty=np.ones(count),
        identity_covariance=np.eye(1),
        view_weight=np.ones(n),
    )
    return track, fit, skin


def _smeared(image: np.ndarray, path: np.ndarray) -> np.ndarray:
    """A picture that moved along a straight path (2,) px while it was taken: the mean of copies."""
    total, count = np.zeros_like(image), 2 * int(np.ceil(np.hypot(*path))) + 1
    for share in np.linspace(-0.5, 0.5, count):
        M = np.array([[1, 0, share * path[0]], [0, 1, share * path[1]]])
        total += cv2.warpAffine(image, M, image.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
    return total / count


def relative_error(texture, skin: np.ndarray, mask: np.ndarray) -> float:
    """Root mean square of log albedo against the truth after one gain a channel, on a mask."""
    truth = cv2.resize(skin, texture.albedo.shape[1::-1], interpolation=cv2.INTER_AREA)
    d = np.log(np.maximum(texture.albedo, 1e-3)) - np.log(truth)
    d = d[mask]
    return float(np.sqrt(((d - np.median(d, axis=0)) ** 2).mean()))
