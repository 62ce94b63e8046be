"""The shipped face model: what every stage relies on."""

import numpy as np
import pytest

from recon3d.geometry import mesh_edges, triangle_normals
from recon3d.morphable import embed, load_model
from recon3d.morphable.expressions import ARKIT
from recon3d.morphable.parameterisation import overlap_count
from recon3d.morphable.quality import intersecting_triangles
from recon3d.morphable.storage import list_models
from recon3d.morphable.topology import NOW7, landmark_mirror


@pytest.fixture(scope="module")
def model():
    return load_model()


def test_size_and_contents(model):
    assert list_models()["recon3d"].stat().st_size < 12 * 2**20
    assert len(model.identity) >= 60
    assert set(ARKIT) <= set(model.expression_names) and len(ARKIT) == 52
    assert 5_000 < model.n_vertices < 12_000
    assert {"face", "eyes", "mouth", "neck", "cranium"} <= set(model.regions)
    assert model.licence and model.origin


def test_metric_size_and_axes(model):
    points = embed(model.mean, model.triangles, model.landmarks)
    pupils = points[473] - points[468]
    assert np.linalg.norm(pupils) == pytest.approx(63, abs=1.0)
    assert pupils[0] > 0, "x runs to the subject's left"
    assert points[10, 1] > points[152, 1], "y runs up"
    assert points[4, 2] > points[33, 2], "z runs out of the face"


def test_mean_is_symmetric(model):
    image = model.mean[model.mirror] * [-1, 1, 1]
    assert (model.mirror[model.mirror] == np.arange(model.n_vertices)).all()
    assert np.abs(image - model.mean).max() < 1e-6


def test_identity_modes_are_even_or_odd(model):
    for mode in model.identity:
        image = mode[model.mirror] * [-1, 1, 1]
        assert min(np.abs(image - mode).max(), np.abs(image + mode).max()) < 5e-3


def test_left_and_right_expressions_mirror_each_other(model):
    for k, name in enumerate(model.expression_names):
        other = name.replace("Left", "#").replace("Right", "Left").replace("#", "Right")
        image = model.expression[model.expression_names.index(other)][model.mirror] * [-1, 1, 1]
        assert np.abs(image - model.expression[k]).max() < 0.02, name


def test_surface_is_a_disk_that_faces_outwards(model):
    edges, _, boundary = mesh_edges(model.triangles)
    assert model.n_vertices - len(edges) + len(model.triangles) == 1
    assert (np.bincount(edges[boundary].ravel(), minlength=model.n_vertices) % 2 == 0).all()
    assert model.mean[edges[boundary].ravel(), 1].max() < -100, "open at the neck only"
    normals = triangle_normals(model.mean, model.triangles)
    centre = model.mean[model.triangles].mean(1)
    front = centre[:, 2] > 15
    assert (normals[front, 2] > 0).mean() > 0.9


def test_mean_does_not_cut_itself(model):
    assert intersecting_triangles(model.mean, model.triangles) == 0


@pytest.mark.slow
def test_random_people_do_not_cut_themselves(model):
    rng = np.random.default_rng(0)
    for _ in range(10):
        people = np.clip(rng.normal(size=len(model.identity)), -2, 2)
        assert intersecting_triangles(model.vertices(people), model.triangles) == 0


def test_ears_stand_off_the_head_behind_the_face(model):
    ears = model.regions["ears"]
    assert model.regions["face"][ears > 0].max() == 0
    right = (ears > 0.5) & (model.mean[:, 0] < 0)
    spread = np.ptp(model.mean[right], axis=0)
    assert 45 < spread[1] < 70 and 20 < spread[2] < 45, "size of an ear"
    temple = model.mean[(model.regions["face"] > 0.5)][:, 0].min()
    assert model.mean[right, 0].min() < temple - 8
    used = np.zeros(model.n_vertices, bool)
    used[model.triangles[model.landmarks.triangle[model.landmarks.triangle >= 0]]] = True
    used[model.contour] = True
    assert not ears[used].any(), "landmarks and contour lie elsewhere"
    brow, nose = (embed(model.mean, model.triangles, model.landmarks)[k, 1] for k in (105, 2))
    assert nose - 15 < model.mean[right, 1].min() and model.mean[right, 1].max() < brow + 10


def test_texture_has_no_overlaps_and_is_symmetric(model):
    found = overlap_count(model.uv, model.triangles_uv, 1024)
    assert found == {"flipped": 0, "degenerate": 0, "overlapping": 0}
    assert model.uv.min() >= 0 and model.uv.max() <= 1
    assert np.abs(model.uv[model.mirror] * [-1, 1] + [1, 0] - model.uv).max() < 1e-6


def test_landmarks_lie_where_their_names_say(model):
    points = embed(model.mean, model.triangles, model.landmarks)
    assert np.isfinite(points).all()
    mirror = landmark_mirror()
    assert np.abs(points[mirror] * [-1, 1, 1] - points).max() < 1e-6
    outer_right, inner_right, inner_left, outer_left, base, right, left = points[list(NOW7)]
    assert outer_right[0] < inner_right[0] < 0 < inner_left[0] < outer_left[0]
    assert right[0] < base[0] < left[0] and base[1] > right[1]
    ibug = embed(model.mean, model.triangles, model.ibug68)
    assert np.allclose(ibug[[36, 39, 42, 45, 33, 48, 54]], points[list(NOW7)])
    assert (np.diff(ibug[:17, 0]) > 0).all(), "jaw from the subject's right to the left"
    assert (np.diff(ibug[27:31, 1]) < 0).all(), "bridge downwards"


def test_neutral_mouth_is_closed_and_eyes_are_open(model):
    points = embed(model.mean, model.triangles, model.landmarks)
    assert 0 < points[13, 1] - points[14, 1] < 2.0
    assert points[159, 1] - points[145, 1] > 8.0


def moved(model, name):
    field = model.expression[model.expression_names.index(name)]
    return embed(field, model.triangles, model.landmarks)


def test_expressions_do_what_they_are_called(model):
    mean = embed(model.mean, model.triangles, model.landmarks)
    assert moved(model, "jawOpen")[152, 1] < -15
    assert abs(moved(model, "jawOpen")[4]).max() < 1.5
    smile = moved(model, "mouthSmileLeft")
    assert smile[291, 0] > 3 and smile[291, 1] > 3 and abs(smile[61]).max() < 3
    blink = mean + moved(model, "eyeBlinkLeft")
    assert blink[386, 1] - blink[374, 1] < 0.35 * (mean[386, 1] - mean[374, 1])
    assert abs(moved(model, "eyeBlinkLeft")[159]).max() < 0.5
    assert moved(model, "eyeLookInLeft")[473, 0] < -2, "left eye looks to the right"
    assert moved(model, "eyeLookUpRight")[468, 1] > 1.5
    assert moved(model, "browInnerUp")[[107, 336], 1].min() > 2
    assert moved(model, "browDownRight")[107, 1] < -2
    assert moved(model, "mouthPucker")[61, 0] > 1 and moved(model, "mouthPucker")[0, 2] > 0.5
    assert moved(model, "jawLeft")[152, 0] > 4


def test_expressions_keep_to_their_region(model):
    upper = model.mean[:, 1] > 5
    lower = model.mean[:, 1] < -42  # below the nose; lids pull on the cheek above
    for name in ("jawOpen", "mouthSmileRight", "mouthPucker", "mouthFrownLeft"):
        field = model.expression[model.expression_names.index(name)]
        assert np.linalg.norm(field[upper], axis=1).max() < 1.5, name
    for name in ("browInnerUp", "eyeBlinkRight", "eyeLookDownLeft", "eyeWideLeft"):
        field = model.expression[model.expression_names.index(name)]
        assert np.linalg.norm(field[lower], axis=1).max() < 1.0, name


def test_contour_paths_are_vertices_and_symmetric(model):
    paths = model.contour
    assert paths.ndim == 2 and paths.min() >= 0 and paths.max() < model.n_vertices
    image = model.mirror[paths[::-1]]
    assert (image == paths).all()
