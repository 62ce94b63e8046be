"""A small reconstruction whose every number is known: an egg with a bump for a nose."""

import numpy as np
import pytest

from recon3d.geometry.camera import intrinsics, project
from recon3d.geometry.rotation import head_rotation
from recon3d.types import (
    Camera,
    FaceFit,
    FaceModel,
    FaceObservation,
    FaceTexture,
    FaceTrack,
    FrontalView,
    ImagePatch,
    LandmarkEmbedding,
    Reconstruction,
)

ROWS, COLUMNS = 18, 24
NAMES = ("jawOpen", "mouthSmileLeft", "mouthSmileRight", "browInnerUp", "cheekPuff")


def egg_model(rng: np.random.Generator) -> FaceModel:
    """A closed sphere-like head; the texture has a seam at the back and one point per pole."""
    polar = np.linspace(0, np.pi, ROWS + 1)[1:-1]
    around = np.linspace(-np.pi, np.pi, COLUMNS, endpoint=False)
    p, a = np.meshgrid(polar, around, indexing="ij")
    ring = np.stack([70 * np.sin(p) * np.sin(a), 100 * np.cos(p), 85 * np.sin(p) * np.cos(a)], -1)
    mean = np.concatenate([ring.reshape(-1, 3), [[0, 100, 0], [0, -100, 0]]])
    bump = np.exp(-((mean[:, 0] / 15) ** 2 + (mean[:, 1] / 25) ** 2)) * (mean[:, 2] > 0)
    mean[:, 2] += 20 * bump

    u = (np.arange(COLUMNS + 1) / COLUMNS)[None].repeat(ROWS - 1, 0)
    v = (1 - polar / np.pi)[:, None].repeat(COLUMNS + 1, 1)
    uv = np.concatenate([np.stack([u, v], -1).reshape(-1, 2), [[0.5, 1.0], [0.5, 0.0]]])
    triangles, triangles_uv = [], []

    def vertex(r, c):
        return r * COLUMNS + c % COLUMNS

    def texel(r, c):
        return r * (COLUMNS + 1) + c

    top, bottom = len(mean) - 2, len(mean) - 1
    for c in range(COLUMNS):
        triangles += [(top, vertex(0, c), vertex(0, c + 1))]
        triangles_uv += [(len(uv) - 2, texel(0, c), texel(0, c + 1))]
        last = ROWS - 2
        triangles += [(bottom, vertex(last, c + 1), vertex(last, c))]
        triangles_uv += [(len(uv) - 1, texel(last, c + 1), texel(last, c))]
        for r in range(ROWS - 2):
            square = ((r, c), (r + 1, c), (r + 1, c + 1), (r, c + 1))
            for corners in ((0, 1, 2), (0, 2, 3)):
                triangles.append(tuple(vertex(*square[i]) for i in corners))
                triangles_uv.append(tuple(texel(*square[i]) for i in corners))
    triangles, triangles_uv = np.array(triangles), np.array(triangles_uv)

    expression = np.zeros((len(NAMES), len(mean), 3), np.float32)
    for i in range(len(NAMES) - 1):
        centre = mean[rng.integers(len(mean))]
        near = np.linalg.norm(mean - centre, axis=1) < 40
        expression[i, near] = rng.normal(0, 3, (near.sum(), 3))
    expression[-1] = rng.normal(0, 1, (len(mean), 3))  # moves everything: not sparse
    front = np.flatnonzero(mean[triangles].mean(1)[:, 2] > 40)

    def embedding(n):
        return LandmarkEmbedding(rng.choice(front, n), rng.dirichlet(np.ones(3), n))

    ibug = embedding(68)
    ibug.triangle[5] = -1
    return FaceModel(
        name="egg",
        mean=mean,
        identity=rng.normal(0, 0.5, (4, len(mean), 3)).astype(np.float32),
        expression=expression,
        expression_names=NAMES,
        triangles=triangles,
        uv=uv,
        triangles_uv=triangles_uv,
        landmarks=embedding(478),
        ibug68=ibug,
        mirror=np.full(len(mean), -1),
        licence="MIT",
    )


@pytest.fixture
def reconstruction() -> Reconstruction:
    rng = np.random.default_rng(7)
    model = egg_model(rng)
    n, size = 5, (160, 120)
    yaw = np.array([-40.0, -20.0, 0.0, 15.0, 33.0])
    R = head_rotation(yaw, np.full(n, 3.0), np.zeros(n))
    t = np.array([0, 0, 600.0]) + rng.normal(0, 5, (n, 3))
    K = np.repeat(intrinsics(180.0, size)[None], n, 0)
    identity = rng.normal(size=4)
    neutral = model.vertices(identity)
    corner = neutral[model.triangles[model.landmarks.triangle]]
    points = np.einsum("lk,lkd->ld", model.landmarks.barycentric, corner)
    views = []
    for i in range(n):
        landmarks = project(points, K[i], R[i], t[i])
        low, high = landmarks.min(0), landmarks.max(0)
        origin = (int(low[0]) - 8, int(low[1]) - 8)
        width, height = (np.ceil(high - low).astype(int) + 16).tolist()
        views.append(
            FaceObservation(
                frame_index=10 * i,
                source=0,
                time=0.4 * i,
                image_size=size,
                box=np.concatenate([low, high]),
                landmarks=landmarks,
                covariance=np.repeat(np.diag([0.3, 0.2])[None], 478, 0),
                depth=np.zeros(478),
                yaw=float(yaw[i]),
                pitch=3.0,
                roll=0.0,
                quality=0.5 + 0.1 * (i == 2),
                patch=ImagePatch(rng.integers(0, 255, (height, width, 3)).astype(np.uint8), origin),
            )
        )
    track = FaceTrack(
        id=0,
        views=tuple(views),
        frame_index=np.arange(50),
        source=np.zeros(50, int),
        time=np.arange(50) / 25,
        yaw=np.linspace(-40, 33, 50),
        pitch=np.zeros(50),
        face_px=np.full(50, 40.0),
        quality=np.full(50, 0.5),
    )
    vertices = len(model.mean)
    fit = FaceFit(
        model=model,
        identity=identity,
        expression=rng.uniform(0, 1, (n, len(NAMES))),
        R=R,
        t=t,
        K=K,
        displacement=rng.normal(0, 0.2, (vertices, 3)),
        residuals=np.full((n, 478, 2), 0.6),
        weights=np.ones((n, 478)),
        uncertainty=np.full(vertices, 0.8),
        identity_covariance=np.eye(4),
        view_weight=np.array([1, 1, 1, 0.0, 1]),
        info={"iterations": np.int64(9), "cost": float("nan")},
    )
    side = 64
    ramp = np.linspace(0.05, 0.9, side, dtype=np.float32)
    albedo = np.stack(np.broadcast_arrays(ramp[None], ramp[:, None], 0.3), -1).astype(np.float32)
    valid = np.ones((side, side), bool)
    valid[:, :3] = False
    generated = np.zeros((side, side), np.float32)
    generated[: side // 4] = 1
    texture = FaceTexture(
        albedo=np.where(valid[..., None], albedo, 0),
        lit=albedo,
        support=np.full((side, side), 0.7, np.float32),
        resolution=np.full((side, side), 0.4, np.float32),
        generated=generated,
        sigma=np.full((side, side), 0.02, np.float32),
        valid=valid,
    )
    picture = rng.integers(0, 255, (512, 512, 3)).astype(np.uint8)
    frontal = FrontalView(
        image=picture,
        raw=picture[::-1].copy(),
        evidence=picture[:, ::-1].copy(),
        face_mask=np.ones((512, 512), np.float32),
        normals=np.zeros((512, 512, 3), np.float32),
        landmarks=np.zeros((478, 2), np.float32),
        camera=Camera(intrinsics(900, (512, 512)), head_rotation(0, 0, 0), t[0], (512, 512)),
        generated_share=0.25,
    )
    return Reconstruction(track, fit, texture, frontal, {"identity_consistency": 0.31})
