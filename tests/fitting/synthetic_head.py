"""A small head with known modes, and tracks of it with known truth."""

import numpy as np

from recon3d.fitting.shape_basis import FACE_OVAL
from recon3d.fitting.visibility import surface_points
from recon3d.geometry import head_rotation, intrinsics, project
from recon3d.types import FaceModel, FaceObservation, FaceTrack, LandmarkEmbedding

RINGS, SPOKES = 22, 36


def _field(rng, points, length, n=12):
    """A smooth random vector field of unit RMS, from a few Gaussian bumps."""
    centres = points[rng.choice(len(points), n)]
    weights = rng.normal(size=(n, 3))
    d2 = ((points[:, None] - centres[None]) ** 2).sum(-1)
    field = np.exp(-0.5 * d2 / length**2) @ weights
    return field / np.sqrt((field**2).sum(1).mean())


def synthetic_model(seed=0, n_identity=20, n_expression=8) -> FaceModel:
    """An ellipsoid with a nose, smooth identity and expression fields, 478 landmarks.

    Vertices lie on rings about the axis that points out of the face, so that the outline paths
    are the spokes.
    """
    rng = np.random.default_rng(seed)
    polar = np.pi * (np.arange(RINGS) + 0.5) / RINGS
    azimuth = 2 * np.pi * np.arange(SPOKES) / SPOKES
    theta, phi = np.meshgrid(polar, azimuth, indexing="ij")
    unit = np.stack(
        [np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], -1
    ).reshape(-1, 3)
    mean = unit * [75.0, 100.0, 80.0]
    nose = np.exp(-((mean[:, 0] / 14) ** 2) - ((mean[:, 1] + 10) / 22) ** 2) * (mean[:, 2] > 0)
    mean[:, 2] += 25 * nose
    mean[:, 2] -= 40  # origin near the eyes' depth
    index = np.arange(RINGS * SPOKES).reshape(RINGS, SPOKES)
    a, b = index[:-1], index[1:]
    a2, b2 = np.roll(a, -1, 1), np.roll(b, -1, 1)
    quads = [np.stack([a, b, b2], -1), np.stack([a, b2, a2], -1)]
    front = np.stack([index[0, :-2] * 0 + index[0, 0], index[0, 1:-1], index[0, 2:]], -1)
    triangles = np.concatenate([q.reshape(-1, 3) for q in quads] + [front])

    identity = np.stack([_field(rng, mean, 45.0) for _ in range(n_identity)])
    x = mean - mean.mean(0)
    rigid = np.concatenate(
        [np.tile(np.eye(3), (len(x), 1))]
        + [np.cross(axis, x).reshape(-1, 1) for axis in np.eye(3)],
        1,
    )
    Q, _ = np.linalg.qr(rigid)
    flat = identity.reshape(n_identity, -1)
    identity = (flat - (flat @ Q) @ Q.T).reshape(identity.shape)
    identity *= (4.0 * 0.85 ** np.arange(n_identity))[:, None, None]
    expression = np.stack([6 * _field(rng, mean, 18.0, 3) for _ in range(n_expression)])

    # landmarks at random places of the front, the oval where the surface begins to turn away
    n_front = 9
    faces = np.flatnonzero((triangles < n_front * SPOKES).all(1))
    triangle = rng.choice(faces, 478)
    barycentric = rng.dirichlet(np.ones(3), 478)
    oval_ring = 9
    contour = []
    for k, landmark in enumerate(FACE_OVAL):
        spoke = round(SPOKES / 4 - k * SPOKES / len(FACE_OVAL)) % SPOKES
        vertex = index[oval_ring, spoke]
        t = np.flatnonzero((triangles == vertex).any(1))[0]
        triangle[landmark] = t
        barycentric[landmark] = (triangles[t] == vertex).astype(float)
        contour.append(index[oval_ring - 3 : oval_ring + 4, spoke])
    return FaceModel(
        name="synthetic",
        mean=mean,
        identity=identity.astype(np.float32),
        expression=expression.astype(np.float32),
        expression_names=tuple(f"e{k}" for k in range(n_expression)),
        triangles=triangles.astype(np.int64),
        uv=np.zeros((3, 2)),
        triangles_uv=np.zeros_like(triangles),
        landmarks=LandmarkEmbedding(triangle, barycentric),
        ibug68=LandmarkEmbedding(triangle[:68], barycentric[:68]),
        mirror=np.full(len(mean), -1),
        contour=np.stack(contour),
    )


def synthetic_track(
    model,
    rng,
    *,
    n_views=20,
    noise_px=0.0,
    focal=900.0,
    distance=700.0,
    size=(640, 480),
    max_yaw=40.0,
    sources=1,
    identity_scale=1.0,
    outliers=(),
):
    """A head that turns before one or several cameras.

    Returns
    -------
    FaceTrack, and the truth: dict of identity, expression, R, t, focal (per source)
    """
    n_identity, n_expression = len(model.identity), len(model.expression)
    identity = identity_scale * rng.normal(size=n_identity)
    phase = np.linspace(0, 2 * np.pi, n_views, endpoint=False)
    yaw = max_yaw * np.sin(phase) + rng.normal(size=n_views)
    pitch = 12 * np.cos(1.7 * phase)
    roll = 8 * np.sin(0.8 * phase + 1)
    R = head_rotation(yaw, pitch, roll)
    t = np.stack([40 * np.sin(phase), 25 * np.cos(phase), distance + 60 * np.sin(phase)], 1)
    wave = np.sin(phase[:, None] * rng.uniform(0.5, 2, n_expression) + rng.uniform(0, 6))
    expression = np.clip(0.6 * wave, 0, 1)
    per_source = -(-n_views // sources)
    views = []
    step = 2.4 / n_views  # at most about 100 degrees a second
    focals = focal * np.linspace(1.0, 1.3, sources)
    for n in range(n_views):
        source = n // per_source
        vertices = model.vertices(identity, expression[n])
        x = surface_points(vertices, model.triangles, model.landmarks)
        points = project(x, intrinsics(focals[source], size), R[n], t[n])
        points = points + noise_px * rng.normal(size=points.shape)
        if n in outliers:
            # somebody else's face, or none: the same points in another order
            points = rng.permutation(points)
        scale = focals[source] / t[n, 2]
        depth = scale * (x @ R[n].T)[:, 2]
        low, high = points.min(0), points.max(0)
        views.append(
            FaceObservation(
                frame_index=n,
                source=source,
                time=n * step,
                image_size=size,
                box=np.concatenate([low, high]),
                landmarks=points,
                covariance=np.tile(max(noise_px, 0.05) ** 2 * np.eye(2), (478, 1, 1)),
                depth=depth - depth.mean(),
                yaw=float(yaw[n]),
                pitch=float(pitch[n]),
                roll=float(roll[n]),
                quality=1.0,
            )
        )
    zeros = np.zeros(n_views, np.float32)
    track = FaceTrack(
        id=0,
        views=tuple(views),
        frame_index=np.arange(n_views),
        source=np.array([v.source for v in views]),
        time=np.array([v.time for v in views]),
        yaw=yaw,
        pitch=pitch,
        face_px=zeros + 100,
        quality=zeros + 1,
    )
    truth = {"identity": identity, "expression": expression, "R": R, "t": t, "focal": focals}
    return track, truth
