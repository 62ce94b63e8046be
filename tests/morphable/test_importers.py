"""Each family read from small files in its published layout, and damaged or hostile ones."""

import io
import json
import os
import pickle
import struct
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from scipy.io import savemat

from recon3d.errors import BackendUnavailable, InputError, ModelError
from recon3d.morphable.importers import bfm, eos, flame, gnm, ict, import_model, recognise
from recon3d.morphable.importers.convert import outward
from recon3d.morphable.importers.pickles import as_array, load_pickle
from recon3d.morphable.importers.raw import arkit_name, signed_fields

SHARED = Path(os.environ.get("RECON3D_SHARED", Path(__file__).parents[2].parent / "shared"))
SAMPLE = SHARED / "data" / "ict_facekit" / "ict_raw_sample.tar.xz"
REPACKED = SHARED / "data" / "ict_facekit" / "ict_facekit_light.npz"


def grid(side=12):
    """A bulging sheet: vertices (V, 3), triangles (F, 3) towards +z."""
    x, y = np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side))
    vertices = np.stack([x, y, 1 - 0.5 * (x**2 + y**2)], -1).reshape(-1, 3)
    a = (np.arange(side - 1)[:, None] * side + np.arange(side - 1)).ravel()
    triangles = np.concatenate(
        [np.stack([a, a + 1, a + side], 1), np.stack([a + 1, a + side + 1, a + side], 1)]
    )
    return vertices, triangles


V, T = grid()
N = len(V)


def fields(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, N, 3))


# ------------------------------------------------------------------------------------ helpers


def test_arkit_names_and_signed_fields():
    assert arkit_name("mouthSmile_L") == "mouthSmileLeft"
    modes = fields(3) * np.array([1.0, 3.0, 2.0])[:, None, None]
    out, names = signed_fields(modes)
    assert names[:2] == ("expression_000_plus", "expression_000_minus")
    np.testing.assert_allclose(out[2], 2 * modes[1], rtol=1e-6)
    np.testing.assert_allclose(out[3], -out[2])


def test_signed_fields_keep_the_strongest():
    modes = fields(70) * np.linspace(0.1, 2, 70)[:, None, None]
    out, names = signed_fields(modes)
    assert len(out) == 120
    assert names[0] == "expression_010_plus"


def test_triangles_are_turned_outwards():
    for triangles in (T, T[:, [0, 2, 1]]):
        out, turned = outward(V * 80, triangles, np.ones(N, bool))
        normal = np.cross(V[out[:, 1]] - V[out[:, 0]], V[out[:, 2]] - V[out[:, 0]])
        assert (normal[:, 2] > 0).all()
        assert turned == (triangles is not T)


def test_unknown_and_missing_paths(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        recognise(tmp_path / "nothing.npz")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ModelError, match="Known are ICT-FaceKit"):
        recognise(tmp_path / "notes.txt")
    np.savez(tmp_path / "other.npz", something=np.zeros(3))
    with pytest.raises(ModelError, match="not a face model"):
        recognise(tmp_path / "other.npz")


# -------------------------------------------------------------------------------- ICT-FaceKit


def write_repacked(path, **changes):
    data = {
        "mean": V.astype("f4"),
        "identity": fields(2).astype("f2"),
        "expression": fields(3).astype("f2"),
        "expression_names": np.array(["browInnerUp_L", "browInnerUp_R", "jawOpen"]),
        "triangles": T.astype("i4"),
        "triangle_part": np.r_[np.zeros(len(T) - 2), 5, 5].astype("u1"),
        "part_names": np.array(
            ["face", "head_neck", "mouth_socket", "eye_socket_left", "eye_socket_right"]
            + ["eyeball_left", "eyeball_right"]
        ),
        "uv": V[:, :2].astype("f4"),
        "triangles_uv": T.astype("i4"),
        "original_vertex_index": np.arange(N) * 2,
        "landmarks68": np.arange(68) * 2,
    }
    np.savez(path, **(data | changes))
    return path


def test_ict_repacked(tmp_path):
    path = write_repacked(tmp_path / "ict.npz")
    assert recognise(path).name == "ICT-FaceKit"
    raw = ict.read(path)
    assert raw.expression_names == ("browInnerUp", "jawOpen")
    both = fields(3).astype("f2").astype("f4")
    np.testing.assert_allclose(raw.expression[0], both[0] + both[1])
    np.testing.assert_array_equal(raw.landmarks68, np.arange(68))
    assert raw.licence == "MIT"
    assert 0 < raw.eyes.sum() < 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"identity": fields(2)[:, :-1]}, "expected identity modes of shape"),
        ({"expression_names": np.array(["a"])}, "expected 1 expressions"),
        ({"landmarks68": np.arange(68) * 2 + 1}, "landmark vertices that are part"),
        ({"triangles": T + 1}, "expected triangles of vertices 0 to 143, found 1 to 144"),
        ({"mean": np.full((N, 3), np.nan)}, "finite numbers in the mean"),
        ({"triangle_part": np.full(len(T), 9)}, "triangle_part below 7"),
        ({"uv": V[:5, :2]}, "texture triangles of coordinates 0 to 4"),
    ],
)
def test_ict_repacked_damaged(tmp_path, changes, message):
    with pytest.raises(ModelError, match=message):
        ict.read(write_repacked(tmp_path / "ict.npz", **changes))


def test_npz_with_objects_is_refused(tmp_path):
    path = write_repacked(tmp_path / "ict.npz", mean=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ModelError, match="plain arrays"):
        ict.read(path)


def test_npz_cut_off(tmp_path):
    path = write_repacked(tmp_path / "ict.npz")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ModelError):
        recognise(path).read(path)


@pytest.fixture(scope="session")
def sample(tmp_path_factory):
    """The published files of ICT-FaceKit that the shared sample carries."""
    if not SAMPLE.exists():
        pytest.skip("the ICT-FaceKit sample of the shared folder is absent")
    import tarfile

    folder = tmp_path_factory.mktemp("ict")
    with tarfile.open(SAMPLE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def test_ict_published_folder(sample):
    raw = recognise(sample).read(sample)
    assert raw.mean.shape == (17202, 3)
    assert len(raw.triangles) == 34332
    assert len(raw.identity) == 6
    assert set(raw.expression_names) == {
        *("jawOpen", "mouthSmileLeft", "mouthSmileRight", "eyeBlinkLeft", "eyeBlinkRight")
    }
    # the subject's left is +x
    left = np.abs(raw.expression[raw.expression_names.index("mouthSmileLeft")]).sum(1)
    assert (left * raw.mean[:, 0]).sum() > 0
    assert raw.eyes.sum() == 2 * 1570


def test_ict_folder_equals_repacked(sample):
    if not REPACKED.exists():
        pytest.skip("the repacked ICT-FaceKit of the shared folder is absent")
    a, b = recognise(sample / "FaceXModel").read(sample / "FaceXModel"), ict.read(REPACKED)
    np.testing.assert_allclose(a.mean, b.mean, atol=1e-5)
    np.testing.assert_array_equal(a.landmarks68, b.landmarks68)
    np.testing.assert_allclose(a.identity, b.identity[:6], atol=1e-3)


def test_ict_folder_damaged(sample, tmp_path):
    folder = tmp_path / "FaceXModel"
    folder.mkdir()
    for path in (sample / "FaceXModel").iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "identity003.obj").unlink()
    with pytest.raises(ModelError, match="without gaps, found 5 files"):
        ict.read(folder)
    (folder / "identity003.obj").write_text("v 1 2 3\n")
    with pytest.raises(ModelError, match=r"identity003\.obj: expected 26719 vertices, found 1"):
        ict.read(folder)
    (folder / "identity003.obj").unlink()
    (folder / "identity003.obj").symlink_to(sample / "FaceXModel" / "identity003.obj")
    (folder / "vertex_indices.json").unlink()
    with pytest.raises(ModelError, match="expected the published index file"):
        ict.read(folder)
    (folder / "vertex_indices.json").write_text(json.dumps({"expressions": []}))
    with pytest.raises(ModelError, match="idx_to_landmark_verts"):
        ict.read(folder)


# -------------------------------------------------------------------------------------- FLAME


def head():
    """A sheet and two small ones beside it, standing for skin and eyeballs: (V, 3), (F, 3)."""
    small, triangles = grid(4)
    parts = [(V, T)] + [(small * 0.1 + [x, 0, 0.9], triangles) for x in (0.5, -0.5)]
    vertices, faces, count = [], [], 0
    for v, t in parts:
        vertices.append(v)
        faces.append(t + count)
        count += len(v)
    return 0.1 * np.concatenate(vertices), np.concatenate(faces)


def flame_data():
    vertices, triangles = head()
    M = len(vertices)
    rng = np.random.default_rng(1)
    weights = np.zeros((M, 5))
    weights[:N, 0] = 1
    low = vertices[:N, 1] < -0.03
    weights[:N][low] = [0, 0, 1, 0, 0]
    weights[N : N + 16, 3] = weights[N + 16 :, 4] = 1
    regressor = np.zeros((5, M))
    regressor[:3, [0, 11, N - 12, N - 1]] = 1 / 4  # the sheet's corners, its hindmost points
    regressor[3, N : N + 16] = regressor[4, N + 16 :] = 1 / 16
    return {
        "v_template": vertices,
        "f": triangles.astype(np.uint32),
        "shapedirs": rng.normal(size=(M, 3, 400)) * 1e-3,
        "posedirs": np.zeros((M, 3, 36)),
        "weights": weights,
        "J_regressor": sparse.csc_matrix(regressor),
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]]),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }


@pytest.fixture
def chumpy():
    """A module with the shape of chumpy, so that pickles of its arrays can be written."""

    class Ch:
        def __init__(self, x):
            self.x = x

    module, inner = types.ModuleType("chumpy"), types.ModuleType("chumpy.ch")
    Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
    inner.Ch = module.Ch = Ch
    sys.modules.update({"chumpy": module, "chumpy.ch": inner})
    yield Ch
    for name in ("chumpy", "chumpy.ch"):
        del sys.modules[name]


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_flame_pickle(tmp_path, chumpy, protocol):
    data = flame_data()
    stored = data | {k: chumpy(data[k]) for k in ("v_template", "shapedirs", "posedirs")}
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(pickle.dumps(stored, protocol))
    assert recognise(path).name == "FLAME"
    raw = flame.read(path)
    np.testing.assert_allclose(raw.mean, data["v_template"])
    np.testing.assert_allclose(raw.identity[7], data["shapedirs"][..., 7], rtol=1e-6)
    assert len(raw.identity) == 300
    assert raw.expression_names[:3] == ("jawOpen", "jawLeft", "jawRight")
    assert "non-commercial" in raw.licence
    assert raw.eyes.sum() == 32


def test_flame_joints_move_the_right_way(tmp_path):
    path = tmp_path / "flame2023_Open.npz"
    data = flame_data()
    np.savez(path, **(data | {"J_regressor": data["J_regressor"].toarray()}))
    raw = flame.read(path)
    assert raw.licence == "CC-BY-4.0"
    assert raw.name == "flame-open"
    field = dict(zip(raw.expression_names, raw.expression, strict=True))
    chin = 6  # in the middle of the lowest row
    front = N + raw.mean[N : N + 16, 2].argmax()  # of the left eye
    assert field["jawLeft"][chin, 0] > 0 > field["jawRight"][chin, 0]
    assert np.abs(field["jawOpen"][raw.mean[:, 1] > 0]).max() < 1e-9
    joint = raw.mean[N : N + 16].mean(0)
    for name, axis, sign in (("Up", 1, 1), ("Down", 1, -1), ("In", 0, -1), ("Out", 0, 1)):
        assert raw.mean[front, 2] > joint[2]
        # what lies ahead of the joint goes where the gaze goes
        assert np.sign(field[f"eyeLook{name}Left"][front, axis]) == sign


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shapedirs": np.zeros((len(head()[0]), 3, 10))}, r"shapedirs \(176, 3, 400\)"),
        ({"weights": np.zeros((3, 5))}, r"expected weights \(176, 5\), found \(3, 5\)"),
        ({"v_template": np.zeros(5)}, r"v_template \(V, 3\), found \(5,\)"),
        ({"f": np.array([[0, 1, 99999]] * 200)}, "expected triangles of vertices"),
        ({"v_template": "hello"}, "an array under 'v_template', found"),
    ],
)
def test_flame_damaged(tmp_path, changes, message):
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(pickle.dumps(flame_data() | changes))
    with pytest.raises(ModelError, match=message):
        flame.read(path)


def test_flame_without_arrays(tmp_path):
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(pickle.dumps({"v_template": V}))
    with pytest.raises(ModelError, match="found no f, shapedirs"):
        flame.read(path)


# ------------------------------------------------------------------------------ hostile pickles


class _Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["system", "eval", "getattr", "open", "remove"])
def test_hostile_pickle_is_not_run(tmp_path, protocol, kind):
    trap = tmp_path / "trap"
    trap.write_text("still here")
    mark = tmp_path / "ran"
    calls = {
        "system": _Call(os.system, f"touch {mark}"),
        "eval": _Call(eval, f"open({str(mark)!r}, 'w')"),
        "getattr": _Call(getattr, np.ndarray, "tofile"),
        "open": _Call(open, str(mark), "w"),
        "remove": _Call(os.remove, str(trap)),
    }
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(pickle.dumps(flame_data() | {"extra": calls[kind]}, protocol))
    with pytest.raises(ModelError, match="refused"):
        flame.read(path)
    assert not mark.exists()
    assert trap.read_text() == "still here"


def test_hostile_names_under_allowed_roots(tmp_path):
    """Modules below an allowed one are not imported; a record stands in for what they name."""
    mark = tmp_path / "ran"
    for program in (
        b"cnumpy.testing._private.utils\nruncode\n(S'x=1'\ntR.",
        b"cnumpy\nload\n(S'" + str(mark).encode() + b"'\ntR.",
        b"cscipy.io\nloadmat\n(S'" + str(mark).encode() + b"'\ntR.",
        b"cnumpy.core.multiarray\nfromfile\n(S'/etc/passwd'\ntR.",
        b"ccopyreg\n__newobj__\n(tR.",
    ):
        path = tmp_path / "hostile.pkl"
        path.write_bytes(program)
        with pytest.raises(ModelError, match="refused"):
            load_pickle(path)
    assert not mark.exists()


def test_forged_arrays_are_refused(tmp_path):
    """Object arrays and counts beyond the bytes at hand."""
    path = tmp_path / "forged.pkl"
    path.write_bytes(pickle.dumps({"a": np.array([object, 1], dtype=object)}, 2))
    with pytest.raises(ModelError):
        as_array(load_pickle(path)["a"], path, "a")
    honest = pickle.dumps({"a": np.arange(4, dtype="<i4")}, 2)
    assert honest.count(b"K\x04\x85") >= 1
    path.write_bytes(honest.replace(b"K\x04\x85", b"K\x7f\x85", 1))
    with pytest.raises(ModelError):
        load_pickle(path)
    path.write_bytes(honest[:-20])
    with pytest.raises(ModelError, match="as a pickle"):
        load_pickle(path)
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ModelError, match="expected a dictionary, found list"):
        load_pickle(path)


class _Persistent(pickle.Pickler):
    def persistent_id(self, obj):
        return "outside" if obj == "x" else None


def test_persistent_ids_are_refused(tmp_path):
    buffer = io.BytesIO()
    _Persistent(buffer, 2).dump({"a": "x"})
    path = tmp_path / "p.pkl"
    path.write_bytes(buffer.getvalue())
    with pytest.raises(ModelError, match="outside itself"):
        load_pickle(path)


def test_pickled_arrays_come_back(tmp_path):
    """Orders, byte orders, scalars and sparse matrices of every kind."""
    matrix = np.arange(12.0).reshape(3, 4) % 5
    data = {
        "fortran": np.asfortranarray(matrix),
        "big": matrix.astype(">f4"),
        "scalar": np.float64(2.5),
        "csc": sparse.csc_matrix(matrix),
        "csr": sparse.csr_matrix(matrix),
        "coo": sparse.coo_matrix(matrix),
    }
    path = tmp_path / "arrays.pkl"
    for protocol in (0, 2, 4, 5):
        path.write_bytes(pickle.dumps(data, protocol))
        read = load_pickle(path)
        for key in data:
            wanted = 2.5 if key == "scalar" else matrix
            np.testing.assert_array_equal(as_array(read[key], path, key), wanted)


# ---------------------------------------------------------------------------------------- BFM


def mat(**changes):
    return {
        "shapeMU": (V * 90000).reshape(-1, 1),
        "shapePC": np.linalg.qr(fields(2).reshape(2, -1).T)[0],
        "shapeEV": np.array([[5e5], [2e5]]),
        "tl": T + 1.0,
        "texMU": np.full((3 * N, 1), 128.0),
    } | changes


def test_bfm2009(tmp_path):
    path = tmp_path / "01_MorphableModel.mat"
    savemat(path, mat())
    assert recognise(path).name == "Basel Face Model"
    raw = bfm.read(path)
    np.testing.assert_allclose(raw.mean * raw.millimetres, V * 90)
    np.testing.assert_array_equal(raw.triangles, T)
    np.testing.assert_allclose(np.linalg.norm(raw.identity.reshape(2, -1), axis=1), [5e5, 2e5])
    np.testing.assert_allclose(raw.albedo, 0.2158605, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shapePC": np.zeros((5, 2))}, r"shapePC \(432, 2\), found \(5, 2\)"),
        ({"shapeMU": np.zeros((7, 1))}, "shapeMU of 3 V numbers"),
        ({"tl": T + 5000.0}, "expected triangles"),
        ({"tl": np.zeros(4)}, r"tl \(F, 3\)"),
    ],
)
def test_bfm2009_damaged(tmp_path, changes, message):
    path = tmp_path / "bfm.mat"
    savemat(path, mat(**changes))
    with pytest.raises(ModelError, match=message):
        bfm.read(path)


def test_bfm_other_mat(tmp_path):
    path = tmp_path / "other.mat"
    savemat(path, {"a": 1})
    with pytest.raises(ModelError, match="found no shapeMU, shapePC, shapeEV, tl"):
        bfm.read(path)
    path.write_bytes(b"nonsense" * 40)
    with pytest.raises(ModelError, match="expected a MATLAB"):
        bfm.read(path)


def test_bfm_of_matlab_7_3_says_how_to_save_it(tmp_path):
    path = tmp_path / "model.mat"
    # Its header says version 2; HDF5 follows, which SciPy does not read.
    header = b"MATLAB 7.3 MAT-file".ljust(116) + bytes(8) + b"\x00\x02IM"
    path.write_bytes(header.ljust(512, b"\0") + b"\x89HDF\r\n\x1a\n")
    with pytest.raises(ModelError, match="save it again with -v7"):
        bfm.read(path)


def test_bfm2017(tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py (the extra 'models') is not installed")
    path = tmp_path / "model2017-1_bfm_nomouth.h5"
    basis = np.linalg.qr(fields(4).reshape(4, -1).T)[0]
    with h5py.File(path, "w") as file:
        file["shape/model/mean"] = (V * 90).ravel()
        file["shape/model/pcaBasis"] = basis[:, :2]
        file["shape/model/pcaVariance"] = [400.0, 100.0]
        file["shape/representer/cells"] = T.T.astype("u4")
        file["expression/model/mean"] = np.full(3 * N, 0.5)
        file["expression/model/pcaBasis"] = basis[:, 2:]
        file["expression/model/pcaVariance"] = [9.0, 4.0]
        file["color/model/mean"] = np.full(3 * N, 0.5)
    raw = recognise(path).read(path)
    np.testing.assert_allclose(raw.mean, V * 90 + 0.5)
    np.testing.assert_allclose(np.linalg.norm(raw.identity.reshape(2, -1), axis=1), [20, 10], 1e-5)
    np.testing.assert_allclose(
        np.linalg.norm(raw.expression.reshape(4, -1), axis=1), [6, 6, 4, 4], 1e-5
    )
    with h5py.File(path, "a") as file:
        del file["shape/model/pcaBasis"]
    with pytest.raises(ModelError, match="the data set shape/model/pcaBasis, found none"):
        bfm.read(path)


def test_bfm2017_without_h5py(tmp_path, monkeypatch):
    path = tmp_path / "model2017.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(BackendUnavailable, match=r"recon3d\[models\]"):
        recognise(path).read(path)


def test_bfm2017_cut_off(tmp_path):
    pytest.importorskip("h5py", reason="h5py (the extra 'models') is not installed")
    path = tmp_path / "model2017.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(ModelError, match="as HDF5"):
        bfm.read(path)


# ---------------------------------------------------------------------------------------- eos


def cereal_matrix(array):
    array = np.asarray(array, "<f4")
    array = array.reshape(len(array), -1) if array.size else array.reshape(0, 0)
    return struct.pack("<ii", *array.shape) + array.T.tobytes()


def cereal_vector(array, dtype):
    return struct.pack("<Q", len(array)) + np.ascontiguousarray(array, dtype).tobytes()


def cereal_text(text):
    return struct.pack("<Q", len(text)) + text.encode()


def cereal_pca(mean, basis, variance, triangles):
    return (
        cereal_matrix(mean)
        + cereal_matrix(basis)
        + cereal_matrix(variance)
        + cereal_vector(triangles, "<i4")
    )


BASIS = np.linalg.qr(fields(2).reshape(2, -1).T)[0]
EMPTY = cereal_pca(np.zeros((0, 0)), np.zeros((0, 0)), np.zeros((0, 0)), np.zeros((0, 3)))


def cereal_model(version, expression=b""):
    data = struct.pack("<I", version)
    data += cereal_pca((V * 90).ravel(), BASIS, [400.0, 100.0], T) + EMPTY
    if version >= 2:
        data += expression or struct.pack("<B", 1)
    if version >= 3:
        data += struct.pack("<BQ", 0, 1) + cereal_text("nose") + struct.pack("<i", 5)
    data += cereal_vector(V[:, :2] * 0.5 + 0.5, "<f8")
    if version >= 4:
        data += cereal_vector(T, "<i4")
    return data


BLENDSHAPES = struct.pack("<BiQ", 0, 1, 1) + cereal_text("smile") + cereal_matrix(V.ravel())
PCA = struct.pack("<Bi", 0, 0) + cereal_pca(np.zeros(3 * N), BASIS, [9.0, 4.0], T)


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_eos(tmp_path, version):
    path = tmp_path / "sfm_shape_3448.bin"
    path.write_bytes(cereal_model(version))
    assert recognise(path).name == "Surrey Face Model (eos)"
    raw = eos.read(path)
    np.testing.assert_allclose(raw.mean, V * 90, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(raw.identity.reshape(2, -1), axis=1), [20, 10], 1e-5)
    np.testing.assert_allclose(raw.identity[0].ravel(), 20 * BASIS[:, 0], atol=1e-5)
    np.testing.assert_allclose(raw.uv, V[:, :2] * [0.5, -0.5] + 0.5)
    assert "non-commercial" in raw.licence


def test_eos_expressions(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(cereal_model(3, BLENDSHAPES))
    raw = eos.read(path)
    assert raw.expression_names == ("smile",)
    np.testing.assert_allclose(raw.expression[0], V, rtol=1e-6)
    path.write_bytes(cereal_model(4, PCA))
    raw = eos.read(path)
    assert len(raw.expression_names) == 4
    np.testing.assert_allclose(raw.expression[0].ravel(), 2 * 3 * BASIS[:, 0], atol=1e-5)


def test_eos_blendshapes_beside(tmp_path):
    path = tmp_path / "sfm_shape_3448.bin"
    path.write_bytes(cereal_model(1))
    beside = tmp_path / "expression_blendshapes_3448.bin"
    beside.write_bytes(struct.pack("<Q", 1) + cereal_text("joy") + cereal_matrix(V.ravel()))
    assert eos.read(path).expression_names == ("joy",)
    beside.write_bytes(struct.pack("<Q", 1) + cereal_text("joy") + cereal_matrix(np.zeros(9)))
    assert eos.read(path).expression_names == ()


def test_eos_cut_anywhere_is_an_error(tmp_path):
    whole = cereal_model(4, BLENDSHAPES)
    path = tmp_path / "a.bin"
    for length in np.linspace(4, len(whole) - 1, 40).astype(int):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError, match="expected"):
            eos.read(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(ModelError, match="found 1 more"):
        eos.read(path)


def test_eos_forged_counts(tmp_path):
    path = tmp_path / "a.bin"
    whole = cereal_model(1)
    for forged in (struct.pack("<ii", 2**31 - 1, 2**31 - 1), struct.pack("<ii", -3, 1)):
        path.write_bytes(whole[:4] + forged + whole[12:])
        with pytest.raises(ModelError, match="expected"):
            eos.read(path)
    path.write_bytes(struct.pack("<I", 9) + whole[4:])
    with pytest.raises(ModelError, match="a version among"):
        eos.read(path)


# ---------------------------------------------------------------------------------------- GNM


def gnm_data(**changes):
    vertices, triangles = head()
    M = len(vertices)
    teeth, faces = grid(4)
    vertices = np.concatenate([vertices, teeth * 0.01])
    triangles = np.concatenate([triangles, faces + M])
    M2 = len(vertices)
    groups = np.zeros((3, M2), "f4")
    groups[0, :N] = groups[1, N:M] = groups[2, M:] = 1
    rng = np.random.default_rng(2)
    identity = rng.normal(size=(3, M2, 3)) * 1e-3
    identity[2, :M] = 0  # moves teeth alone
    weights = np.zeros((4, M2), "f4")
    weights[0] = 1
    weights[2, N : N + 16] = weights[3, N + 16 : M] = 1
    mirror = np.arange(M2)
    mirror[:N] = np.arange(N).reshape(12, 12)[:, ::-1].ravel()
    return {
        "version": "3.0",
        "variant": "head",
        "template_vertex_positions": vertices,
        "template_joint_positions": np.array([[0, 0, 0], [0, 0, 0], [0.05, 0, 0], [-0.05, 0, 0]]),
        "vertex_identity_basis": identity,
        "joint_identity_basis": np.zeros((3, 4, 3)),
        "expression_basis": rng.normal(size=(2, M2, 3)) * 1e-3,
        "identity_names": ["head_000", "head_001", "teeth_000"],
        "joint_names": ["neck", "head", "left_eye", "right_eye"],
        "expression_names": ["lower_face_region_000", "lower_face_region_001"],
        "joint_parent_indices": np.array([0, 0, 1, 1]),
        "skinning_weights": weights,
        "triangles": triangles,
        "triangle_uvs": vertices[triangles][..., :2] * 4 + 0.5,
        "mirror_indices": mirror,
        "vertex_groups": groups,
        "vertex_group_names": ["skin", "eyes", "teeth"],
    } | changes


def test_gnm(tmp_path):
    path = tmp_path / "gnm_head.npz"
    np.savez(path, **gnm_data())
    assert recognise(path).name == "GNM Head"
    raw = gnm.read(path)
    assert raw.licence == "Apache-2.0"
    assert raw.mean.shape == (N + 32, 3)
    assert len(raw.identity) == 2
    assert raw.eyes.sum() == 32
    assert "eyeLookUpLeft" in raw.expression_names
    assert "lower_face_region_001_minus" in raw.expression_names
    np.testing.assert_array_equal(raw.mirror[raw.mirror[:N]], np.arange(N))
    np.testing.assert_allclose(raw.uv[raw.triangles_uv], raw.mean[raw.triangles][..., :2] * 4 + 0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vertex_groups": np.zeros((3, 5))}, "expected groups"),
        ({"expression_basis": np.zeros((2, 5, 3))}, "expected expression_basis"),
        ({"expression_names": ["a"]}, "expected 2 expression names, found 1"),
        ({"triangle_uvs": np.zeros((4, 3, 2))}, "expected triangle_uvs"),
        ({"triangles": np.full((300, 3), 9999)}, "expected triangles of"),
        ({"skinning_weights": np.zeros((2, 2))}, "expected skinning_weights"),
    ],
)
def test_gnm_damaged(tmp_path, changes, message):
    path = tmp_path / "gnm_head.npz"
    np.savez(path, **gnm_data(**changes))
    with pytest.raises(ModelError, match=message):
        gnm.read(path)


# ---------------------------------------------------------------------------------- conversion


def test_a_mesh_without_a_face_is_refused(tmp_path):
    path = tmp_path / "sfm.bin"
    path.write_bytes(cereal_model(1))
    with pytest.raises(ModelError, match="sees no face"):
        import_model(path)
