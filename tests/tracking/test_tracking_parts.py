"""Crops, pose, covariance, tiles, views: each on its own, on synthetic truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon3d.geometry import head_rotation
from recon3d.tracking.appearance import CutDetector
from recon3d.tracking.crops import FacePlace, cut_crop
from recon3d.tracking.detection import tile_grid
from recon3d.tracking.landmarks import heatmap_peaks
from recon3d.tracking.observe import Mesh, stabilised_covariance
from recon3d.tracking.portraits import ahead_worth, eyes_open
from recon3d.tracking.pose import rough_pose
from recon3d.tracking.topology import IBUG68, MIRROR, RIGID_INDEX, RIGID_POINTS
from recon3d.tracking.tracker import _Record, film_like
from recon3d.tracking.views import Candidate, Reservoir
from recon3d.types import ImagePatch


def test_mirror_table_is_an_involution():
    assert np.array_equal(MIRROR[MIRROR], np.arange(478))
    assert np.array_equal(MIRROR[IBUG68[:17]], IBUG68[:17][::-1])
    assert MIRROR[468] == 473 and MIRROR[33] == 263 and MIRROR[1] == 1


def test_mirror_table_keeps_the_tessellation():
    connections = pytest.importorskip("mediapipe.python.solutions.face_mesh_connections")
    edges = {frozenset(edge) for edge in connections.FACEMESH_TESSELATION}
    kept = sum(frozenset(int(MIRROR[i]) for i in edge) in edges for edge in edges)
    # The published tessellation itself is lopsided in a handful of edges.
    assert kept >= len(edges) - 6
    right = {i for edge in connections.FACEMESH_RIGHT_EYE for i in edge}
    left = {i for edge in connections.FACEMESH_LEFT_EYE for i in edge}
    assert {int(MIRROR[i]) for i in right} == left


@settings(max_examples=40, deadline=None)
@given(
    yaw=st.floats(-50, 50),
    pitch=st.floats(-30, 30),
    roll=st.floats(-60, 60),
    scale=st.floats(0.2, 5),
)
def test_rough_pose_recovers_weak_perspective(yaw, pitch, roll, scale):
    points = np.zeros((478, 2))
    posed = RIGID_POINTS @ head_rotation(yaw, pitch, roll).T
    points[RIGID_INDEX] = scale * posed[:, :2] + [300, 200]
    angles, found, R = rough_pose(points)
    assert np.allclose(angles, [yaw, pitch, roll], atol=1e-5)
    assert np.isclose(found, scale, rtol=1e-6)
    assert np.allclose(R @ R.T, np.eye(3), atol=1e-9) and np.linalg.det(R) > 0


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("roll", "size"), [(0, 60.0), (33, 47.0), (-120, 400.0)])
def test_crop_and_the_way_back(mirrored, roll, size):
    # A bright dot in the frame lies in the crop where the inverse map says.
    y, x = np.mgrid[:480, :640]
    spot = np.array([331.3, 222.8])
    sigma = size / 12
    blob = 255 * np.exp(-((x + 0.5 - spot[0]) ** 2 + (y + 0.5 - spot[1]) ** 2) / (2 * sigma**2))
    image = np.repeat(blob[..., None], 3, 2).astype(np.uint8)
    place = FacePlace(np.array([320.0, 230.0]), size, roll)
    crop = cut_crop(image, place, size=256, margin=1.5, mirrored=mirrored)
    weight = crop.image[..., 0].astype(float)
    v, u = np.mgrid[:256, :256]
    centre = np.array([(weight * (u + 0.5)).sum(), (weight * (v + 0.5)).sum()]) / weight.sum()
    back = crop.points_to_frame(centre[None])[0]
    assert np.abs(back - spot).max() < 0.02 * size / 12 + 0.1
    assert np.sign(np.linalg.det(crop.to_frame[:, :2])) == (-1 if mirrored else 1)


def test_crop_is_upright():
    # Roll is counter-clockwise: the top of such a head points to the picture's upper left.
    image = np.zeros((200, 200, 3), np.uint8)
    image[40:60, 40:60] = 255
    crop = cut_crop(image, FacePlace(np.array([100.0, 100.0]), 100, 45), size=100, margin=2)
    rows, columns = np.nonzero(crop.image[..., 0] > 128)
    assert abs(columns.mean() - 50) < 1.5 and rows.mean() < 25


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-6, 30), st.floats(10, 500))
def test_covariance_is_never_singular(seed, spread, size):
    rng = np.random.default_rng(seed)
    samples = rng.normal(0, spread, (3, 478, 2))
    samples[:, :100] = 0  # points that did not move at all
    samples[:, 100:200, 1] = 0
    offset = samples - samples.mean(0)
    raw = np.einsum("kpi,kpj->pij", offset, offset) / 2
    known = np.arange(478) < 400
    out = stabilised_covariance(raw, size, known)
    values = np.linalg.eigvalsh(out)
    assert (values >= 0.15**2).all() and (values >= (0.006 * size) ** 2).all()
    assert (values[400:] >= (5 * size) ** 2).all()
    assert np.allclose(out, out.transpose(0, 2, 1))


def test_tiles_cover_the_frame_and_overlap():
    for width, height in ((640, 480), (720, 1364), (1920, 1080), (200, 200), (64, 64)):
        tiles = tile_grid(width, height, 16)
        for side in {x1 - x0 for x0, _, x1, _ in tiles}:
            level = [t for t in tiles if t[2] - t[0] == side]
            seen = np.zeros((height, width), int)
            for x0, y0, x1, y1 in level:
                assert x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height
                seen[y0:y1, x0:x1] += 1
            assert seen.min() >= 1
        if min(width, height) > 400:
            assert min(x1 - x0 for x0, _, x1, _ in tiles) <= 1.2 * 16 / 0.08


def test_heatmap_peaks_lie_between_pixels():
    y, x = np.mgrid[:64, :64]
    centres = np.array([[20.3, 31.7], [40.5, 10.5], [2.2, 61.0]])
    maps = np.stack([np.exp(-((x + 0.5 - a) ** 2 + (y + 0.5 - b) ** 2) / 2) for a, b in centres])
    assert np.abs(heatmap_peaks(maps) - centres).max() < 0.3


def test_cut_detector():
    rng = np.random.default_rng(0)
    detector = CutDetector()
    scenes = [np.kron(rng.integers(0, 200, (6, 8, 3)), np.ones((40, 40, 1))) for _ in range(3)]
    cuts = []
    for scene in scenes:
        for shift in range(12):
            # A quick pan, a flickering exposure and noise are no cuts.
            image = np.roll(scene, 6 * shift, 1) * (1 + 0.1 * np.sin(shift))
            image = image + rng.normal(0, 6, image.shape)
            cuts.append(detector(np.clip(image, 0, 255).astype(np.uint8)))
    assert [i for i, cut in enumerate(cuts) if cut] == [12, 24]


def _record(index, yaw, face_px=80.0):
    return _Record(index, 0, index / 25, yaw, 0.0, face_px, 0.5)


def test_pictures_of_a_film_are_told_from_photos():
    rng = np.random.default_rng(1)
    jitter = rng.normal(0, 2.0, 40)
    film = [_record(n, 50 * np.sin(n / 12) + jitter[n], 80 + n) for n in range(40)]
    assert film_like(film)
    assert film_like([r for r in film if not 10 <= r.frame_index < 20])
    shaken = [_record(n, 50 * np.sin(n / 6) + 3 * jitter[n]) for n in range(40)]
    assert film_like(shaken)
    order = rng.permutation(40)
    assert not film_like([_record(n, film[k].yaw) for n, k in enumerate(order)])
    # photos from the front, near and far
    assert not film_like([_record(n, 0.0, px) for n, px in enumerate(rng.uniform(60, 200, 20))])
    # front, left and right say nothing of what was between
    assert not film_like([_record(0, 0.0), _record(1, 3.0), _record(2, 4.0)])


def _mesh(yaw, opening=0.3, aside=0.0):
    """Eyes 30 px wide, the lids so far apart and the irises so far aside, of that width."""
    points = np.zeros((478, 2))
    for corners, lids, iris, x in (
        ((33, 133), (159, 145), 468, -30),
        ((362, 263), (386, 374), 473, 30),
    ):
        points[corners, :] = [[x - 15, 0], [x + 15, 0]]
        points[lids, :] = [[x, -15 * opening], [x, 15 * opening]]
        points[iris] = [x + 30 * aside, 0]
    return Mesh(points, np.zeros(478), 0.02, np.array([yaw, 0.0, 0.0]), 0.0, 1.0, 0.5)


def _candidate(index, yaw, quality, **eyes):
    patch = ImagePatch(np.zeros((2, 2, 3), np.uint8), (0, 0))
    mesh = _mesh(yaw, **eyes)
    return Candidate(index, 0, index / 25, (10, 10), mesh, quality, 0.5, patch)


def test_views_cover_yaw_and_prefer_quality():
    rng = np.random.default_rng(0)
    reservoir = Reservoir(24)
    for index in range(2000):
        # Nearly always frontal; twice it turns away, badly seen.
        yaw = 48.0 if 700 <= index < 703 else -48.0 if 1500 <= index < 1503 else rng.normal(0, 3)
        quality = 0.2 if abs(yaw) > 40 else rng.uniform(0.3, 0.9)
        if reservoir.would_keep(quality, _mesh(yaw), 0, index / 25):
            reservoir.add(_candidate(index, yaw, quality))
        assert len(reservoir.candidates) <= 24
    yaws = np.array([c.mesh.angles[0] for c in reservoir.candidates])
    assert (yaws > 40).sum() == 3 and (yaws < -40).sum() == 3
    frontal = [c for c in reservoir.candidates if abs(c.mesh.angles[0]) < 20]
    assert np.mean([c.quality for c in frontal]) > 0.75
    times = np.array([c.time for c in frontal])
    assert np.ptp(times) > 40  # of 80 seconds
    spread = reservoir.spread(3)
    assert len({c.bin for c in spread}) == 3


def test_frontal_views_are_kept_for_their_eyes():
    rng = np.random.default_rng(0)
    reservoir = Reservoir(12)
    for index in range(1000):
        # Every other look is aside, every fifth is a blink; one in ten is both open and ahead.
        eyes = dict(
            opening=0.05 if index % 5 == 0 else rng.uniform(0.25, 0.35),
            aside=rng.normal(0, 0.01) if index % 10 == 3 else rng.choice([-0.15, 0.15]),
        )
        candidate = _candidate(index, rng.normal(0, 2), rng.uniform(0.5, 0.6), **eyes)
        if reservoir.would_keep(candidate.quality, candidate.mesh, 0, candidate.time):
            reservoir.add(candidate)
    kept = {c.frame_index % 10 for c in reservoir.candidates}
    assert kept == {3}
    # A face that is turned is kept for other things.
    turned = Reservoir(2)
    for index, (quality, aside) in enumerate(((0.6, 0.2), (0.6, 0.2), (0.3, 0.0))):
        turned.add(_candidate(10 * index, 45.0, quality, aside=aside))
    assert [c.quality for c in turned.candidates] == [0.6, 0.6]


def test_worth_of_eyes():
    meshes = [_mesh(0.0), _mesh(0.0, opening=0.02), _mesh(0.0, aside=0.1), _mesh(0.0, aside=-0.1)]
    points = np.stack([mesh.landmarks for mesh in meshes])
    np.testing.assert_allclose(eyes_open(points), [1, 0.1, 1, 1])
    np.testing.assert_allclose(ahead_worth(points), [1, 1, np.exp(-1), np.exp(-1)])
    # Whatever the head leans by, and however large it is.
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    np.testing.assert_allclose(ahead_worth(3 * points @ turn + 40), ahead_worth(points))
