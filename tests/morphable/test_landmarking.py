"""The automatic landmark embedding, against published points and on its own parts."""

import os
from pathlib import Path

import numpy as np
import pytest

from recon3d.errors import ModelError, ShapeError
from recon3d.morphable import load_model, save_model
from recon3d.morphable.embedding import embed
from recon3d.morphable.importers import ict, import_model, layout
from recon3d.morphable.importers.convert import convert, face_regions, outline_paths
from recon3d.morphable.importers.symmetry import find_mirror
from recon3d.morphable.landmarking import (
    LandmarkingSettings,
    closest_on_mesh,
    ibug68_from_mediapipe,
    locate_landmarks,
)
from recon3d.tracking.topology import LEFT_EYE, MIRROR, RIGHT_EYE

SHARED = Path(os.environ.get("RECON3D_SHARED", Path(__file__).parents[2].parent / "shared"))
REPACKED = SHARED / "data" / "ict_facekit" / "ict_facekit_light.npz"


def ball(rings=24, sectors=48, squash=1.0):
    """A symmetric closed sphere of radius 80 mm: (V, 3), (F, 3) outwards."""
    polar = np.linspace(0, np.pi, rings + 1)[1:-1]
    around = 2 * np.pi * np.arange(sectors) / sectors
    p, a = np.meshgrid(polar, around, indexing="ij")
    body = np.stack([np.sin(p) * np.sin(a), np.cos(p) * squash, np.sin(p) * np.cos(a)], -1)
    vertices = 80 * np.concatenate([[[0, squash, 0]], body.reshape(-1, 3), [[0, -squash, 0]]])
    triangles = []
    for r in range(rings - 2):
        for s in range(sectors):
            i, j = 1 + r * sectors + s, 1 + r * sectors + (s + 1) % sectors
            k, m = i + sectors, j + sectors
            # diagonals of one half are the mirror images of the other's
            left = s < sectors // 2
            triangles += [(i, k, j), (j, k, m)] if left else [(i, k, m), (i, m, j)]
    last = 1 + (rings - 2) * sectors
    for s in range(sectors):
        triangles += [(0, 1 + s, 1 + (s + 1) % sectors)]
        triangles += [(len(vertices) - 1, last + (s + 1) % sectors, last + s)]
    return vertices, np.array(triangles)


def test_closest_points_against_dense_sampling():
    vertices, triangles = ball(12, 24)
    rng = np.random.default_rng(0)
    points = rng.normal(size=(60, 3)) * 70
    near, weights, place = closest_on_mesh(points, vertices, triangles, np.arange(len(triangles)))
    np.testing.assert_allclose(weights.sum(1), 1)
    assert (weights >= -1e-12).all()
    np.testing.assert_allclose((weights[..., None] * vertices[triangles[near]]).sum(1), place)
    u = rng.dirichlet(np.ones(3), 400)
    dense = np.einsum("sk,fkd->fsd", u, vertices[triangles]).reshape(-1, 3)
    best = np.sqrt(((points[:, None] - dense) ** 2).sum(-1).min(1))
    found = np.linalg.norm(points - place, axis=1)
    assert (found <= best + 1e-9).all()
    assert (best - found).max() < 1.5


def test_mirror_of_symmetric_and_bent_meshes():
    vertices, triangles = ball()
    exact = find_mirror(vertices, triangles)
    np.testing.assert_allclose(vertices[exact], vertices * [-1, 1, 1], atol=1e-9)
    # bend it by up to 3 mm: the places no longer agree, most of the connectivity still does
    bent = vertices + 0.02 * np.abs(vertices) * [1, 0, 0]
    found = find_mirror(bent, triangles)
    paired = found >= 0
    assert paired.mean() > 0.9
    assert (found[paired] == exact[paired]).mean() > 0.99
    assert (found[found[paired]] == np.flatnonzero(paired)).all()


@pytest.mark.parametrize("squash", [1.0, 1.4])
def test_unwrapping_has_no_overlaps(squash):
    vertices, triangles = ball(squash=squash)
    importance = np.where(vertices[triangles].mean(1)[:, 2] > 40, 1.0, 0.4)
    uv, triangles_uv = layout.unwrap(vertices, triangles, importance)
    assert uv.min() >= 0 and uv.max() <= 1
    assert layout.overlap_share(uv, triangles_uv) < 0.004
    assert (layout.signed_areas(uv, triangles_uv) > 0).all()
    # what matters gets more texels a millimetre
    area = np.linalg.norm(
        np.cross(
            vertices[triangles[:, 1]] - vertices[triangles[:, 0]],
            vertices[triangles[:, 2]] - vertices[triangles[:, 0]],
        ),
        axis=1,
    )
    density = np.sqrt(layout.signed_areas(uv, triangles_uv) / area)
    front = importance == 1.0
    assert np.median(density[front]) > 1.3 * np.median(density[~front])


def test_published_charts_are_packed_without_overlaps():
    vertices, triangles = ball()
    front = vertices[triangles].mean(1)[:, 2] > 0
    # two charts in two tiles, both over the same places of their tile, one mirrored
    flat = vertices[:, :2] / 200 + 0.5
    uv = np.concatenate([flat, flat + [1, 0]])
    triangles_uv = triangles + np.where(front, 0, len(vertices))[:, None]
    assert layout.overlap_share(uv % 1.0, triangles_uv) > 0.3
    packed = layout.pack_published(uv, triangles_uv, vertices, triangles, np.ones(len(triangles)))
    assert packed is not None
    assert layout.overlap_share(*packed) < 0.004
    assert packed[0].min() >= 0 and packed[0].max() <= 1
    # laid over one another within one chart, they are no use
    assert (
        layout.pack_published(flat, triangles, vertices, triangles, np.ones(len(triangles))) is None
    )


def test_wrong_shapes_and_no_face():
    vertices, triangles = ball(12, 24)
    with pytest.raises(ShapeError):
        locate_landmarks(vertices[:, :2], triangles)
    with pytest.raises(ShapeError):
        locate_landmarks(vertices, triangles, eyes=np.zeros(3, bool))
    with pytest.raises(ModelError, match="sees no face"):
        locate_landmarks(vertices, triangles, settings=LandmarkingSettings(size=192))


@pytest.fixture(scope="module")
def imported():
    if not REPACKED.exists():
        pytest.skip("the repacked ICT-FaceKit of the shared folder is absent")
    return import_model(REPACKED)


@pytest.mark.slow
def test_ict_agrees_with_its_published_points(imported):
    """The embedding found by looking against the 68 points that the publisher gives."""
    own = ibug68_from_mediapipe(imported.mean, imported.triangles, imported.landmarks)
    found = embed(imported.mean, imported.triangles, own)
    published = embed(imported.mean, imported.triangles, imported.ibug68)
    error = np.linalg.norm(found - published, axis=1)
    parts = {"jaw": (0, 17), "brows": (17, 27), "nose": (27, 36), "eyes": (36, 48)}
    parts["mouth"] = (48, 68)
    print(f"median {np.median(error):.2f} mm", end="")
    for name, (low, high) in parts.items():
        print(f", {name} {np.median(error[low:high]):.2f}", end="")
    print()
    assert np.median(error) < 2.5
    assert np.median(error[36:48]) < 1.5


@pytest.mark.slow
def test_imported_model_is_whole(imported, tmp_path):
    m = imported
    assert m.n_vertices == 17202
    assert (m.landmarks.triangle >= 0).all()
    points = embed(m.mean, m.triangles, m.landmarks)
    # origin between the eyes, x to the subject's left, y up, z out of the face
    np.testing.assert_allclose(points[[33, 133, 362, 263]].mean(0), 0, atol=0.2)
    assert 75 < points[263, 0] - points[33, 0] < 105
    assert points[10, 1] > 40 and points[152, 1] < -80 and points[1, 2] > 10
    np.testing.assert_allclose(points[MIRROR] * [-1, 1, 1], points, atol=0.2)
    # irises on the eyeballs, lids beside them
    eyes = m.regions["eyes"][m.triangles[m.landmarks.triangle]]
    assert (eyes[468:] == 1).all()
    assert (eyes[np.r_[RIGHT_EYE, LEFT_EYE]].min(1) < 1).all()
    assert (m.mirror >= 0).all()
    np.testing.assert_array_equal(m.mirror[m.mirror], np.arange(m.n_vertices))
    assert layout.overlap_share(m.uv, m.triangles_uv) < 0.004
    chin = points[152]
    assert m.regions["face"][np.linalg.norm(m.mean - points[1], axis=1).argmin()] == 1
    assert m.regions["neck"][m.mean[:, 1] < chin[1] - 40].min() > 0.9
    assert m.regions["face"][m.mean[:, 2] < -100].max() == 0
    assert len(m.contour) >= 24
    save_model(tmp_path / "m.npz", m)
    back = load_model(tmp_path / "m.npz")
    assert back.name == "ict-facekit"
    np.testing.assert_allclose(back.mean, m.mean)


@pytest.mark.slow
def test_regions_and_outlines_follow_the_landmarks(imported):
    m = imported
    points = embed(m.mean, m.triangles, m.landmarks)
    raw = ict.read(REPACKED)
    regions = face_regions(m.mean, m.triangles, points, raw.eyes, raw.inner)
    assert set(regions) == {"face", "eyes", "mouth", "neck", "cranium"}
    skin = ~(raw.eyes | raw.inner)
    whole = regions["face"] + regions["neck"] + regions["cranium"]
    np.testing.assert_allclose(whole[skin], 1, atol=1e-5)
    paths = outline_paths(m.mean, m.triangles, points, raw.eyes | raw.inner)
    for path in paths:
        step = np.diff(m.mean[path[path >= 0]], axis=0)
        assert np.linalg.norm(step, axis=1).max() < 15


@pytest.mark.slow
def test_unit_errors_are_named():
    if not REPACKED.exists():
        pytest.skip("the repacked ICT-FaceKit of the shared folder is absent")
    import dataclasses

    raw = ict.read(REPACKED)
    with pytest.raises(ModelError, match="outer eye corners 65 to 120 mm apart"):
        convert(dataclasses.replace(raw, millimetres=20.0))
