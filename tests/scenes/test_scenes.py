"""Scenes: the truth is what was drawn."""

import dataclasses

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from recon3d.errors import InputError
from recon3d.geometry import head_angles, intrinsics, project, so3_exp, triangle_normals
from recon3d.rendering import draw_mesh, over
from recon3d.scenes.drawing import room, shoulders
from recon3d.scenes.scene import (
    Scene,
    clean_frames,
    load_scene,
    off_model_displacement,
    render_scene,
    scene_truth,
    write_benchmark,
)
from recon3d.types import Camera


@pytest.fixture(scope="module")
def model():
    from recon3d.morphable import load_model

    return load_model("recon3d")


@pytest.fixture(scope="module")
def texture():
    return np.full((64, 64, 3), 0.3, np.float32)


SMALL = Scene(n_frames=3, width=200, height=160, face_px=48, supersample=2)


def square(z: float, side: float) -> tuple[np.ndarray, np.ndarray]:
    half = side / 2
    vertices = np.array([[-half, -half, z], [half, -half, z], [half, half, z], [-half, half, z]])
    return vertices, np.array([[0, 2, 1], [0, 3, 2]])


# --------------------------------------------------------------------------------- drawing
def test_coverage_is_the_area_and_colours_are_premultiplied():
    vertices, triangles = square(100.0, 20.5)
    camera = Camera(intrinsics(100.0, (64, 48)), np.eye(3), np.zeros(3), (64, 48))
    picture, cover = draw_mesh(
        vertices, triangles, np.full((4, 3), 0.5), camera, supersample=8, cull_backfaces=False
    )
    assert cover.sum() == pytest.approx(20.5**2, rel=0.02)
    np.testing.assert_allclose(picture, 0.5 * cover[..., None].repeat(3, 2), atol=1e-5)
    white = over(np.ones((48, 64, 3)), picture, cover)
    np.testing.assert_allclose(white[0, 0], 1)
    np.testing.assert_allclose(white[24, 32], 0.5, atol=1e-5)


def test_a_mesh_beside_or_behind_the_camera_draws_nothing():
    vertices, triangles = square(100.0, 10.0)
    K = intrinsics(100.0, (32, 32))
    for t in (np.array([500.0, 0, 0]), np.array([0, 0, -300.0])):
        camera = Camera(K, np.eye(3), t, (32, 32))
        picture, cover = draw_mesh(vertices, triangles, np.ones((4, 3)), camera)
        assert picture.max() == 0
        assert cover.max() == 0


def test_shoulders_face_outwards():
    vertices, triangles = shoulders(-140.0, -70.0)
    normals = triangle_normals(vertices, triangles)
    outward = vertices[triangles].mean(1) - [0, 0, -70.0]
    outward[:, 1] = 0
    assert ((normals * outward).sum(1) > -1e-9).all()


def test_rooms_differ_by_seed_only():
    a, b, c = (room((64, 48), np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 0.01


# ---------------------------------------------------------------------------------- scenes
def test_same_recipe_same_bytes(model, texture):
    frames = [np.stack(list(render_scene(SMALL, model, person_texture=texture)[1])) for _ in "ab"]
    np.testing.assert_array_equal(*frames)
    assert frames[0].shape == (3, 160, 200, 3)
    other = SMALL.model_copy(update={"seed": 1})
    changed = np.stack(list(render_scene(other, model, person_texture=texture)[1]))
    assert np.abs(changed.astype(int) - frames[0]).mean() > 1


def test_what_is_drawn_lies_where_the_truth_says(model, texture):
    scene = SMALL.model_copy(update={"clean": True, "n_frames": 2, "yaw_span_deg": 40.0})
    glowing = np.zeros_like(texture) + [0.0, 0.95, 0.0]
    truth, frames = render_scene(scene, model, person_texture=glowing.astype(np.float32))
    for i, frame in enumerate(frames):
        green = frame[..., 1].astype(int) - np.maximum(frame[..., 0], frame[..., 2]) > 60
        points = (truth.posed(i) @ truth.R[i].T + truth.t[i]) @ truth.K.T
        pixels = points[:, :2] / points[:, 2:]
        face = model.regions["face"] > 0.5
        inside = np.floor(pixels[face]).astype(int)
        assert green[inside[:, 1], inside[:, 0]].mean() > 0.97
        ys, xs = np.nonzero(green)
        low, high = pixels[face].min(0), pixels[face].max(0)
        # The head is wider than the face, but not by much.
        assert xs.min() > low[0] - 20 and xs.max() < high[0] + 20
        assert ys.min() > low[1] - 30 and ys.max() < high[1] + 45


def test_face_width_and_pose_are_as_asked(model, texture):
    scene = Scene(face_px=80, yaw_span_deg=50, camera_tilt_deg=15, n_frames=100)
    truth = scene_truth(scene, model, texture)
    tilt = so3_exp(np.radians([15.0, 0, 0]))
    np.testing.assert_allclose(head_angles(tilt.T @ truth.R), truth.angles, atol=1e-6)
    assert truth.angles[:, 0].min() == pytest.approx(-50, abs=2)
    assert truth.angles[:, 0].max() == pytest.approx(50, abs=2)
    span = np.ptp(truth.neutral[model.regions["face"] > 0.5, 0])
    assert truth.K[0, 0] * span / scene.distance_mm == pytest.approx(80)
    depth = truth.t[:, 2] + (truth.R @ [0, -60.0, -70.0])[:, 2]
    assert np.abs(depth - scene.distance_mm).max() < 100
    assert truth.expression.min() >= 0 and truth.expression.max() <= 1
    assert truth.expression.std(0).max() > 0.05


def test_displacement_is_smooth_and_as_large_as_asked(model):
    moved = off_model_displacement(model, 1.2, np.random.default_rng(3))
    face = model.regions["face"] > 0.5
    assert np.sqrt((moved[face] ** 2).sum(1).mean()) == pytest.approx(1.2)
    edges = np.concatenate([model.triangles[:, [0, 1]], model.triangles[:, [1, 2]]])
    length = np.linalg.norm(model.mean[edges[:, 0]] - model.mean[edges[:, 1]], axis=1)
    step = np.linalg.norm(moved[edges[:, 0]] - moved[edges[:, 1]], axis=1)
    assert np.median(step / np.maximum(length, 0.5)) < 0.12
    mirrored = moved[model.mirror] * [-1, 1, 1]
    both = (model.mirror >= 0) & face
    asymmetry = ((moved - mirrored)[both] ** 2).sum() / (moved[both] ** 2).sum()
    assert asymmetry < 0.6
    assert off_model_displacement(model, 0.0, np.random.default_rng(3)).max() == 0


def test_lamps_do_what_they_are_called(model, texture):
    def mean(light):
        scene = SMALL.model_copy(update={"light": light, "n_frames": 1, "crf": None})
        frame = next(iter(render_scene(scene, model, person_texture=texture)[1]))
        return frame.reshape(-1, 3).mean(0)

    bright, low, warm, cold = (mean(name) for name in ("bright", "low", "warm", "cold"))
    assert low.mean() < 0.75 * bright.mean()
    assert warm[0] / warm[2] > 1.5 * cold[0] / cold[2]


def test_recipes_can_be_written_down(tmp_path):
    scene = Scene(person=3, light="warm", blur="strong", crf=None)
    path = tmp_path / "scene.json"
    path.write_text(scene.model_dump_json())
    assert load_scene(path) == scene
    path.write_text('{"light": "purple"}')
    with pytest.raises(InputError, match="light"):
        load_scene(path)
    with pytest.raises(InputError, match="cannot read"):
        load_scene(tmp_path / "none.json")
    with pytest.raises(ValidationError):
        Scene(face_px=-1)


@pytest.mark.slow
def test_a_written_benchmark_tells_its_own_people_apart(model, tmp_path):
    """Truth scores perfectly in its own place and badly in another's, by our own scenes alone."""
    from recon3d.evaluation.benchmark import read_benchmark
    from recon3d.evaluation.metrics import load_descriptor, picture_metrics, shape_metrics

    # A light and a dark person, hair high and low: metrics match exposure and white balance, so
    # that people of one complexion differ little in PSNR.
    scenes = {f"p{p}": Scene(person=p, n_frames=2, face_px=48) for p in (7, 10)}
    folder = write_benchmark(scenes, model, tmp_path / "own")
    benchmark = read_benchmark(folder)
    assert [case.clip.is_file() for case in benchmark.cases] == [True, True]
    describe = load_descriptor()
    one, other = benchmark.subjects.values()
    for subject, wrong in ((one, other), (other, one)):
        shape = subject.shape
        own = shape_metrics(shape.vertices, shape.triangles, shape.now7, shape)
        assert own["metric_mean"] < 1e-3
        swapped = shape_metrics(
            wrong.shape.vertices, wrong.shape.triangles, wrong.shape.now7, shape
        )
        assert swapped["nonmetric_median"] > 0.5
        picture = subject.picture
        assert 0.1 < picture.mask.mean() < 0.5
        own = picture_metrics(picture.image, picture, describe)
        swapped = picture_metrics(wrong.picture.image, picture, describe)
        assert own["psnr"] > 60
        assert swapped["psnr"] < 25
        if describe is not None:
            assert own["id_dist"] < 1e-3
            assert swapped["id_dist"] > 0.4


@pytest.mark.slow
def test_painted_people_are_found_and_landmarks_lie_where_they_should(model):
    """MediaPipe reads the painted faces: landmarks within 6 % of the eye distance."""
    from recon3d.scenes.truth import portrait_landmarks

    errors = []
    for person in (0, 3):
        scene = Scene(person=person, n_frames=1, face_px=110, yaw_span_deg=0, clean=True)
        truth, frames = render_scene(scene, model)
        frame = next(iter(frames))
        points = (truth.landmarks(0) @ truth.R[0].T + truth.t[0]) @ truth.K.T
        pixels = points[:, :2] / points[:, 2:]
        origin = np.maximum(np.floor(pixels.min(0) - 40), 0).astype(int)
        end = np.ceil(pixels.max(0) + 40).astype(int)
        crop = frame[origin[1] : end[1], origin[0] : end[0]]
        found = portrait_landmarks(cv2.resize(crop, None, fx=2, fy=2, interpolation=2))
        assert found is not None
        inner = [33, 133, 362, 263, 1, 2, 61, 291, 152, 168, 6, 197]
        eyes = np.linalg.norm(pixels[33] - pixels[263])
        offset = found[inner, :2] / 2 + origin - pixels[inner]
        errors.append(np.linalg.norm(offset, axis=1).mean() / eyes)
    assert max(errors) < 0.06


def test_an_open_shutter_draws_the_heads_own_path(model, texture):
    # Fast enough that it shows; the same frames otherwise.
    quick = SMALL.model_copy(
        update={"n_frames": 5, "width": 240, "fps": 8, "yaw_span_deg": 60, "expression": 0}
    )
    truth = scene_truth(quick, model, texture)
    opened = dataclasses.replace(truth, scene=quick.model_copy(update={"shutter": 1.0}))
    sharp, smeared = (list(clean_frames(t)) for t in (truth, opened))
    middle = truth.neutral.mean(0)[None]
    at = [project(middle, truth.K, R, t)[0] for R, t in zip(truth.R, truth.t)]
    speed = np.linalg.norm(np.gradient(at, axis=0), axis=1)
    change = [float(np.abs(a.astype(int) - b).mean()) for a, b in zip(sharp, smeared)]
    assert np.argmax(change) == np.argmax(speed) and max(change) > 2 * min(change)
    # Light is moved and not lost.
    for a, b in zip(sharp, smeared):
        assert abs(float(a.mean()) - float(b.mean())) < 1.0
