"""A textured head seen by known cameras: truth for the dense alignment."""

from dataclasses import replace

import cv2
import numpy as np

from recon3d.colour import linear_to_srgb, to_uint8
from recon3d.geometry import head_rotation, intrinsics, vertex_normals
from recon3d.rendering.native import rasterise_numpy
from recon3d.types import (
    FaceFit,
    FaceModel,
    FaceObservation,
    FaceTrack,
    ImagePatch,
    LandmarkEmbedding,
)

RINGS, SPOKES = 36, 60
SIZE = (320, 240)


def smooth_fields(rng, points, length, count, bumps=14):
    """(count, V, 3) random smooth vector fields of unit RMS."""
    out = []
    for _ in range(count):
        centres = points[rng.choice(len(points), bumps)]
        d2 = ((points[:, None] - centres[None]) ** 2).sum(-1)
        field = np.exp(-0.5 * d2 / length**2) @ rng.normal(size=(bumps, 3))
        out.append(field / np.sqrt((field**2).sum(1).mean()))
    return np.stack(out)


def head_model(n_identity=8, seed=0) -> FaceModel:
    """An ellipsoid with nose, brow and chin, and smooth identity fields."""
    rng = np.random.default_rng(seed)
    polar = np.pi * (np.arange(RINGS) + 0.5) / RINGS
    azimuth = 2 * np.pi * np.arange(SPOKES) / SPOKES
    theta, phi = np.meshgrid(polar, azimuth, indexing="ij")
    unit = np.stack(
        [np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], -1
    ).reshape(-1, 3)
    mean = unit * [75.0, 100.0, 80.0]
    for x, y, width, height, depth in (
        (0, -10, 14, 22, 25),
        (0, 35, 45, 10, 6),
        (0, -70, 18, 14, 8),
    ):
        bump = np.exp(-(((mean[:, 0] - x) / width) ** 2) - ((mean[:, 1] - y) / height) ** 2)
        mean[:, 2] += depth * bump * (unit[:, 2] > 0)
    mean[:, 2] -= 40
    index = np.arange(RINGS * SPOKES).reshape(RINGS, SPOKES)
    a, b = index[:-1], index[1:]
    a2, b2 = np.roll(a, -1, 1), np.roll(b, -1, 1)
    quads = [np.stack([a, b, b2], -1), np.stack([a, b2, a2], -1)]
    cap = np.stack([np.full(SPOKES - 2, index[0, 0]), index[0, 1:-1], index[0, 2:]], -1)
    triangles = np.concatenate([q.reshape(-1, 3) for q in quads] + [cap])
    identity = smooth_fields(rng, mean, 35.0, n_identity)
    # what a similarity of the head could do, poses do
    x = mean - mean.mean(0)
    rigid = [np.tile(axis, (len(x), 1)).ravel() for axis in np.eye(3)]
    rigid += [np.cross(axis, x).ravel() for axis in np.eye(3)] + [x.ravel()]
    Q, _ = np.linalg.qr(np.stack(rigid, 1))
    flat = identity.reshape(n_identity, -1)
    identity = 1.5 * (flat - (flat @ Q) @ Q.T).reshape(identity.shape)
    front = (mean[:, 2] > -60).astype(np.float32)
    landmarks = LandmarkEmbedding(rng.choice(len(triangles), 478), np.full((478, 3), 1 / 3))
    return FaceModel(
        name="dense test",
        mean=mean,
        identity=identity.astype(np.float32),
        expression=np.zeros((1, len(mean), 3), np.float32),
        expression_names=("jawOpen",),
        triangles=triangles.astype(np.int64),
        uv=np.zeros((3, 2)),
        triangles_uv=np.zeros((len(triangles), 3), np.int64),
        landmarks=landmarks,
        ibug68=LandmarkEmbedding(np.zeros(68, np.int64), np.full((68, 3), 1 / 3)),
        mirror=np.full(len(mean), -1),
        regions={"face": front},
    )


def skin(points, seed=0):
    """(V, 3) linear colour: waves of 15 to 60 mm, different for every seed."""
    rng = np.random.default_rng(seed)
    value = np.zeros(len(points))
    for _ in range(40):
        direction = rng.normal(size=3)
        direction *= 2 * np.pi / (rng.uniform(15, 60) * np.linalg.norm(direction))
        value += rng.normal() * np.sin(points @ direction + rng.uniform(0, 6.3))
    value *= 0.25 / value.std()
    return np.exp(value)[:, None] * np.array([0.36, 0.27, 0.22])


def picture(model, vertices, colour, K, R, t, rng, *, light=None, noise=0.004, blur=0.7):
    """(H, W, 3) uint8: the head before a grey wall, twice oversampled."""
    camera = vertices @ R.T + t
    big = K.copy()
    big[:2] *= 2
    width, height = SIZE
    pix, _, bary = rasterise_numpy(camera, model.triangles, big, (2 * height, 2 * width))
    normals = vertex_normals(vertices, model.triangles) @ R.T
    shade = np.ones(len(vertices))
    if light is not None:
        shade = 0.35 + np.maximum(normals @ light, 0)
    lit = colour * shade[:, None]
    corner = lit[model.triangles[np.maximum(pix, 0)]]
    image = np.where((pix >= 0)[..., None], (corner * bary[..., None]).sum(2), 0.15)
    image = cv2.GaussianBlur(image, (0, 0), 2 * blur)
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    image = image + noise * rng.normal(size=image.shape)
    return to_uint8(linear_to_srgb(np.clip(image, 0, 1)))


def scene(
    model,
    *,
    yaw=None,
    identity=None,
    seed=0,
    focal=520.0,
    distance=700.0,
    light=None,
    tilt=0.0,
    skins=0,
):
    """A track with pictures, and the fit that is true of it.

    ``skins`` is the seed of the skin, or one for each view: other people's frames.
    """
    rng = np.random.default_rng(seed)
    yaw = np.linspace(-40, 40, 11) if yaw is None else np.asarray(yaw, float)
    N = len(yaw)
    identity = np.zeros(len(model.identity)) if identity is None else identity
    vertices = model.vertices(identity)
    pitch, roll = 6 * np.sin(np.arange(N)), 4 * np.cos(1.3 * np.arange(N))
    R = np.stack([head_rotation(*a) for a in zip(yaw, pitch - tilt, roll, strict=True)])
    t = np.stack([rng.normal(0, 10, N), rng.normal(0, 8, N), distance + rng.normal(0, 10, N)], 1)
    K = intrinsics(focal, SIZE)
    skins = np.broadcast_to(skins, N)
    views = []
    for n in range(N):
        colour = skin(model.mean, int(skins[n]))
        image = picture(model, vertices, colour, K, R[n], t[n], rng, light=light)
        views.append(
            FaceObservation(
                frame_index=n,
                source=0,
                time=n / 10,
                image_size=SIZE,
                box=np.array([100.0, 60, 220, 190]),
                landmarks=np.zeros((478, 2)),
                covariance=np.tile(np.eye(2), (478, 1, 1)),
                depth=np.zeros(478),
                yaw=float(yaw[n]),
                pitch=float(pitch[n]),
                roll=float(roll[n]),
                quality=1.0,
                patch=ImagePatch(image, (0, 0)),
            )
        )
    empty = np.zeros(N, np.float32)
    track = FaceTrack(
        0, tuple(views), np.arange(N), np.zeros(N, int), empty, empty, empty, empty, empty
    )
    fit = FaceFit(
        model=model,
        identity=identity,
        expression=np.zeros((N, 1)),
        R=R,
        t=t,
        K=np.tile(K, (N, 1, 1)),
        displacement=np.zeros_like(model.mean),
        residuals=np.full((N, 478, 2), np.nan),
        weights=np.zeros((N, 478)),
        uncertainty=np.full(model.n_vertices, 3.0),
        identity_covariance=np.eye(len(model.identity)),
        view_weight=np.ones(N),
    )
    return track, fit


def turned_too_little(fit, slope=0.87, jitter=1.0, seed=1):
    """The fit with its yaw compressed about the head's middle, as a landmarker's is."""
    from recon3d.geometry import head_angles, so3_exp

    rng = np.random.default_rng(seed)
    angles = head_angles(fit.R)
    angles[:, 0] *= slope
    R = np.stack([head_rotation(*a) for a in angles])
    R = so3_exp(np.radians(rng.normal(0, jitter, (len(R), 3)))) @ R
    middle = np.array([0.0, 0.0, 0.0])
    t = fit.t + fit.R @ middle - R @ middle
    t[:, :2] += rng.normal(0, 1.0, (len(R), 2))
    return replace(fit, R=R, t=t)


def pose_error(fit, truth):
    """(N,) degrees after one constant rotation."""
    from recon3d.geometry import so3_log

    U, _, Vt = np.linalg.svd((fit.R.transpose(0, 2, 1) @ truth.R).mean(0))
    left = (fit.R @ (U @ Vt)).transpose(0, 2, 1) @ truth.R
    return np.degrees(np.linalg.norm(so3_log(left), axis=1))


def shape_error(fit, truth):
    """RMS mm over the face after a rigid alignment."""
    from recon3d.geometry import umeyama

    face = fit.model.regions["face"] > 0.5
    a, b = fit.neutral[face], truth.neutral[face]
    _, R, t = umeyama(a, b, scale=False)
    return float(np.sqrt((((a @ R.T + t) - b) ** 2).sum(1).mean()))
