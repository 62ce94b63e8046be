"""Meshes, read back by other programs."""

import json
import os
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import trimesh

from recon3d.colour import srgb_to_linear
from recon3d.exporting import write_track
from recon3d.exporting.meshes import (
    encode_glb,
    encode_ply,
    glb_json,
    mesh_texture,
    sample_texture,
    texture_picture,
    vertex_colours,
)
from recon3d.geometry.mesh import vertex_normals

VALIDATE = """
const fs = require('fs'), validator = require('gltf-validator');
validator.validateBytes(new Uint8Array(fs.readFileSync(process.argv[1])))
  .then(report => console.log(JSON.stringify(report.issues)));
"""


def read_accessor(data: bytes, document: dict, number: int) -> np.ndarray:
    """Values of an accessor by the letter of the specification, sparse ones included."""
    start = 20 + int.from_bytes(data[12:16], "little") + 8
    accessor = document["accessors"][number]
    width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}[accessor["type"]]
    kinds = {5126: np.float32, 5125: np.uint32, 5123: np.uint16}

    def view(entry, component, count):
        buffer_view = document["bufferViews"][entry["bufferView"]]
        at = start + buffer_view.get("byteOffset", 0) + (entry.get("byteOffset") or 0)
        return np.frombuffer(data, kinds[component], count, at)

    component, count = accessor["componentType"], accessor["count"]
    if "bufferView" in accessor:
        values = view(accessor, component, count * width).reshape(count, width).copy()
    else:
        values = np.zeros((count, width), kinds[component])
    if accessor.get("sparse"):
        sparse = accessor["sparse"]
        rows = view(sparse["indices"], sparse["indices"]["componentType"], sparse["count"])
        values[rows] = view(sparse["values"], component, sparse["count"] * width).reshape(-1, width)
    return values


def test_ply(reconstruction, tmp_path):
    written = write_track(reconstruction, tmp_path, version="0")
    mesh = trimesh.load(written["mesh.ply"], process=False)
    np.testing.assert_allclose(mesh.vertices, reconstruction.fit.neutral, atol=1e-5)
    np.testing.assert_array_equal(mesh.faces, reconstruction.fit.model.triangles)
    assert mesh.is_watertight and mesh.volume > 0  # counter-clockwise seen from outside
    expected = vertex_colours(reconstruction.fit.model, texture_picture(reconstruction.texture))
    np.testing.assert_array_equal(mesh.visual.vertex_colors[:, :3], expected)
    assert np.ptp(mesh.visual.vertex_colors[:, 1].astype(int)) > 60
    np.testing.assert_allclose(
        mesh.vertex_normals, vertex_normals(mesh.vertices, mesh.faces), atol=1e-3
    )


def test_obj(reconstruction, tmp_path):
    written = write_track(reconstruction, tmp_path, version="0")
    mesh = trimesh.load(written["mesh.obj"], process=False)
    model = reconstruction.fit.model
    got, expected = mesh.vertices[mesh.faces], reconstruction.fit.neutral[model.triangles]
    np.testing.assert_allclose(got, expected, atol=1e-5)
    np.testing.assert_allclose(mesh.visual.uv[mesh.faces], model.uv[model.triangles_uv], atol=1e-6)
    assert mesh.visual.material.image.size == (64, 64)


def test_glb(reconstruction, tmp_path):
    written = write_track(reconstruction, tmp_path, version="0")
    scene = trimesh.load(written["mesh.glb"])
    (mesh,) = scene.dump()
    model = reconstruction.fit.model
    expected = reconstruction.fit.neutral[model.triangles] * 1e-3
    np.testing.assert_allclose(mesh.vertices[mesh.faces], expected, atol=1e-5)
    np.testing.assert_allclose(mesh.visual.uv[mesh.faces], model.uv[model.triangles_uv], atol=1e-6)
    image = np.asarray(mesh.visual.material.baseColorTexture)[..., :3]
    np.testing.assert_array_equal(image, texture_picture(reconstruction.texture))


def test_glb_morph_targets_are_the_models_expressions(reconstruction, tmp_path):
    written = write_track(reconstruction, tmp_path, version="0")
    data = written["mesh.glb"].read_bytes()
    document = glb_json(data)
    model = reconstruction.fit.model
    (mesh,) = document["meshes"]
    assert mesh["extras"]["targetNames"] == list(model.expression_names)
    assert mesh["weights"] == [0.0] * len(model.expression_names)
    (primitive,) = mesh["primitives"]
    corner = read_accessor(data, document, primitive["indices"]).reshape(-1, 3)
    kinds = []
    for field, target in zip(model.expression, primitive["targets"]):
        moved = read_accessor(data, document, target["POSITION"])
        np.testing.assert_allclose(moved[corner], field[model.triangles] * 1e-3, atol=1e-6)
        kinds.append("sparse" in document["accessors"][target["POSITION"]])
    assert kinds == [True, True, True, True, False]
    assert document["asset"]["extras"]["units"].startswith("metres")
    assert document["extensionsUsed"] == ["KHR_materials_unlit"]


def test_glb_animation_puts_the_head_where_the_fit_has_it(reconstruction, tmp_path):
    written = write_track(reconstruction, tmp_path, version="0")
    data = written["mesh.glb"].read_bytes()
    document = glb_json(data)
    (animation,) = document["animations"]
    track = {
        channel["target"]["path"]: read_accessor(
            data, document, animation["samplers"][channel["sampler"]]["output"]
        )
        for channel in animation["channels"]
    }
    time = read_accessor(data, document, animation["samplers"][0]["input"])[:, 0]
    used = [0, 1, 2, 4]  # view 3 was rejected by the fit
    np.testing.assert_allclose(time, [0, 0.4, 0.8, 1.6], atol=1e-6)
    fit = reconstruction.fit
    weights = track["weights"].reshape(len(used), -1)
    np.testing.assert_allclose(weights, fit.expression[used], atol=1e-6)
    from scipy.spatial.transform import Rotation

    point = np.array([10.0, 20.0, 30.0])
    in_world = Rotation.from_quat(track["rotation"]).apply(point * 1e-3) + track["translation"]
    in_camera = fit.R[used] @ point + fit.t[used]
    in_gl = in_camera * [1, -1, -1] * 1e-3
    centre = (fit.t[used] * [1, -1, -1] * 1e-3).mean(0)
    np.testing.assert_allclose(in_world, in_gl - centre, atol=1e-6)


def test_a_model_without_expressions(reconstruction):
    import dataclasses

    model = dataclasses.replace(
        reconstruction.fit.model,
        expression=np.zeros((0, *reconstruction.fit.model.mean.shape), np.float32),
        expression_names=(),
    )
    document = glb_json(encode_glb(model, model.mean, b"\x89PNG"))
    assert not document["meshes"][0]["primitives"][0].get("targets")


def khronos_issues(path) -> dict:
    """Report of the Khronos validator; skips where it is not installed."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    modules = os.environ.get("GLTF_VALIDATOR_MODULES", "node_modules")
    if not os.path.isdir(os.path.join(modules, "gltf-validator")):
        pytest.skip("gltf-validator is not installed; set GLTF_VALIDATOR_MODULES=.../node_modules")
    out = subprocess.run(
        [node, "-e", VALIDATE, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "NODE_PATH": os.path.abspath(modules)},
    )
    return json.loads(out.stdout)


def test_khronos_validator_reports_no_error(reconstruction, tmp_path):
    written = write_track(reconstruction, tmp_path, version="0")
    issues = khronos_issues(written["mesh.glb"])
    assert issues["numErrors"] == 0 and issues["numWarnings"] == 0, issues["messages"]


@pytest.mark.parametrize("name, unit", [("mesh.ply", 1.0), ("mesh.obj", 1.0), ("mesh.glb", 1e-3)])
def test_open3d_reads_it(reconstruction, tmp_path, name, unit):
    try:
        import open3d
    except (ImportError, OSError) as error:
        pytest.skip(f"open3d cannot be imported: {error}")
    written = write_track(reconstruction, tmp_path, version="0")
    mesh = open3d.io.read_triangle_mesh(str(written[name]))
    fit = reconstruction.fit
    got = np.asarray(mesh.vertices)[np.asarray(mesh.triangles)]
    np.testing.assert_allclose(got, unit * fit.neutral[fit.model.triangles], atol=1e-5)
    if name == "mesh.ply":
        assert mesh.has_vertex_colors()
    else:
        uv = np.asarray(mesh.triangle_uvs).reshape(-1, 3, 2)
        np.testing.assert_allclose(uv, fit.model.uv[fit.model.triangles_uv], atol=1e-5)


@pytest.fixture(scope="module")
def embedded_glb(tmp_path_factory):
    """The embedded model with a texture and a clip in which it turns and smiles."""
    from recon3d.exporting.files import encode_png
    from recon3d.exporting.meshes import Clip
    from recon3d.geometry import head_rotation
    from recon3d.morphable import load_model

    model = load_model()
    rng = np.random.default_rng(3)
    picture = rng.integers(0, 255, (64, 64, 3)).astype(np.uint8)
    expression = np.zeros((6, len(model.expression)))
    expression[:, model.expression_names.index("mouthSmileLeft")] = np.linspace(0, 1, 6)
    clip = Clip(
        "input 0",
        np.arange(6) / 25,
        head_rotation(np.linspace(-30, 30, 6), np.zeros(6), np.zeros(6)),
        rng.normal(0, 0.01, (6, 3)),
        expression,
    )
    path = tmp_path_factory.mktemp("glb") / "mesh.glb"
    path.write_bytes(encode_glb(model, model.mean, encode_png(picture, {}), [clip]))
    return model, path


def test_embedded_model_as_glb(embedded_glb):
    model, path = embedded_glb
    document = glb_json(path.read_bytes())
    assert document["meshes"][0]["extras"]["targetNames"] == list(model.expression_names)
    assert len(document["meshes"][0]["primitives"][0]["targets"]) == 52
    (mesh,) = trimesh.load(path).dump()
    got = mesh.vertices[mesh.faces]
    np.testing.assert_allclose(got, model.mean[model.triangles] * 1e-3, atol=1e-5)


def test_khronos_validator_passes_the_embedded_model(embedded_glb):
    issues = khronos_issues(embedded_glb[1])
    assert issues["numErrors"] == 0, issues["messages"]


def test_sampling_a_ramp_is_exact():
    side = 32
    centres = (np.arange(side) + 0.5) / side
    picture = np.stack(np.meshgrid(centres, 1 - centres), -1).astype(np.float32)
    uv = np.random.default_rng(0).uniform(0.1, 0.9, (40_000, 2))
    # cv2 interpolates on a grid of 1/32 of a texel.
    np.testing.assert_allclose(sample_texture(picture, uv), uv, atol=1 / side / 32)


def test_meshes_wear_the_light_of_the_portrait(reconstruction):
    texture = reconstruction.texture
    dark = replace(texture, albedo=0.05 * texture.albedo)
    lit = replace(reconstruction.frontal, info={"gains": [20.0, 20.0, 20.0]})
    made = replace(reconstruction, texture=dark, frontal=lit)
    plain = mesh_texture(reconstruction).astype(int)
    # What is not so bright that it is bent below white looks as before it was dimmed.
    low = plain.max(-1) < 200
    assert np.abs(mesh_texture(made) - plain)[low].max() <= 1
    # As the frames show it, it stays.
    np.testing.assert_array_equal(mesh_texture(made, "lit"), texture_picture(dark, "lit"))


def test_too_bright_texels_keep_their_hue(reconstruction):
    albedo = np.full_like(reconstruction.texture.albedo, 0.4) * np.float32([1.0, 0.5, 0.25])
    texture = replace(reconstruction.texture, albedo=albedo, valid=np.ones(albedo.shape[:2], bool))
    red, green, blue = srgb_to_linear(texture_picture(texture, gains=(5.0,) * 3)[0, 0] / 255)
    assert red < 1 and green / red == pytest.approx(0.5, abs=0.01)
    assert blue / red == pytest.approx(0.25, abs=0.01)


def test_holes_in_the_texture_take_the_nearest_colour(reconstruction):
    picture = texture_picture(reconstruction.texture)
    np.testing.assert_array_equal(picture[:, 0], picture[:, 3])


def test_ply_of_an_unreferenced_vertex_and_a_degenerate_triangle():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 5, 5.0]])
    triangles = np.array([[0, 1, 2], [1, 1, 2]])
    data = encode_ply(vertices, triangles, np.zeros((4, 3), np.uint8))
    import io

    mesh = trimesh.load(io.BytesIO(data), file_type="ply", process=False)
    assert len(mesh.vertices) == 4 and np.isfinite(mesh.vertex_normals).all()
