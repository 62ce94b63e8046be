"""ICT-FaceKit: the published folder of OBJ files, and the same model as one .npz.

References
----------
.. [1] R. Li et al., Learning formation of physically-based face attributes, CVPR 2020.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from recon3d.errors import ModelError
from recon3d.morphable.importers.raw import (
    RawModel,
    arkit_name,
    check_raw,
    check_triangles,
    compact,
    expect,
    triangulate,
)

FAMILY = "ICT-FaceKit"
LICENCE = "MIT"
ORIGIN = (
    "ICT-FaceKit light, copyright 2020 USC Institute for Creative Technologies "
    "(github.com/ICT-VGL/ICT-FaceKit)"
)
CITATION = (
    "Li, Bladin, Zhao, Chinara, Ingraham, Xiang, Ren, Prasad, Kishore, Xing, Li: Learning "
    "Formation of Physically-Based Face Attributes, CVPR 2020"
)
N_VERTICES = 26719

# Vertex ranges of the published mesh (its README); what is not named (gums, tongue, teeth, tear
# film, lashes) is left out: it is never seen from far and stands in the way of a rasteriser.
_PARTS = {
    "skin": (0, 11247),
    "mouth_socket": (11248, 13293),
    "eye_sockets": (13294, 14061),
    "eyeballs": (21451, 24590),
}
# Two halves of what ARKit has as one.
_WHOLE = {
    "browInnerUp": ("browInnerUp_L", "browInnerUp_R"),
    "cheekPuff": ("cheekPuff_L", "cheekPuff_R"),
}

_NPZ_KEYS = (
    "mean",
    "identity",
    "expression",
    "expression_names",
    "triangles",
    "triangle_part",
    "part_names",
    "uv",
    "triangles_uv",
    "original_vertex_index",
    "landmarks68",
)


def detect(path: Path) -> bool:
    """Whether a path looks like this family's."""
    if path.is_dir():
        return _folder(path) is not None
    if path.suffix == ".npz":
        from recon3d.morphable.importers.files import npz_keys

        return {"original_vertex_index", "landmarks68", "triangle_part"} <= npz_keys(path)
    return False


def read(path: Path) -> RawModel:
    """Read the model.

    Raises
    ------
    ModelError
        If files are missing, damaged or do not belong together.
    """
    return _read_npz(path) if path.is_file() else _read_folder(path)


def _folder(path: Path) -> Path | None:
    for folder in (path, path / "FaceXModel"):
        if (folder / "generic_neutral_mesh.obj").is_file():
            return folder
    return None


def _read_folder(path: Path) -> RawModel:
    folder = _folder(path)
    vertices, polygons, uv, polygons_uv = _read_obj(folder / "generic_neutral_mesh.obj")
    expect(
        len(vertices) == N_VERTICES,
        folder / "generic_neutral_mesh.obj",
        f"{N_VERTICES} vertices",
        str(len(vertices)),
    )
    landmarks, names = _read_indices(folder / "vertex_indices.json")
    numbered = sorted(
        (int(m.group(1)), p)
        for p in folder.glob("identity*.obj")
        if (m := re.fullmatch(r"identity(\d+)\.obj", p.name))
    )
    expect(
        bool(numbered) and [n for n, _ in numbered] == list(range(len(numbered))),
        folder,
        "identity000.obj, identity001.obj, ... without gaps",
        f"{len(numbered)} files" + (f" up to {numbered[-1][1].name}" if numbered else ""),
    )
    shapes = [folder / f"{n}.obj" for n in names if (folder / f"{n}.obj").is_file()]
    expect(bool(shapes), folder, "expression files such as jawOpen.obj", "none")
    part = _part_of_polygon(polygons)
    keep = [i for i, name in enumerate(part) if name]
    triangles, of = triangulate([polygons[i] for i in keep])
    triangles_uv = None
    if polygons_uv is not None:
        triangles_uv, _ = triangulate([polygons_uv[i] for i in keep])
    kept, triangles = compact(triangles, len(vertices))
    part_of_triangle = np.array([part[keep[i]] for i in of])

    def deltas(files):
        return np.stack(
            [(_read_obj_vertices(f, N_VERTICES) - vertices)[kept] for f in files]
        ).astype(np.float32)

    return _assemble(
        path,
        vertices[kept],
        triangles,
        part_of_triangle,
        deltas([p for _, p in numbered]),
        deltas(shapes),
        [p.stem for p in shapes],
        uv,
        triangles_uv,
        kept,
        landmarks,
    )


def _read_npz(path: Path) -> RawModel:
    from recon3d.morphable.importers.files import read_npz

    data = read_npz(path, _NPZ_KEYS)
    names = [str(n) for n in data["part_names"]]
    number = data["triangle_part"].astype(int)
    expect(
        number.size > 0 and number.max() < len(names),
        path,
        f"triangle_part below {len(names)}",
        str(number.max() if number.size else "none"),
    )
    part = {
        "face": "skin",
        "head_neck": "skin",
        "mouth_socket": "mouth_socket",
        "eye_socket_left": "eye_sockets",
        "eye_socket_right": "eye_sockets",
        "eyeball_left": "eyeballs",
        "eyeball_right": "eyeballs",
    }
    expect(set(names) <= set(part), path, f"parts among {sorted(part)}", str(names))
    return _assemble(
        path,
        data["mean"].astype(np.float64),
        data["triangles"].astype(np.int64),
        np.array([part[n] for n in names])[number],
        data["identity"].astype(np.float32),
        data["expression"].astype(np.float32),
        [str(n) for n in data["expression_names"]],
        data["uv"].astype(np.float64),
        data["triangles_uv"].astype(np.int64),
        data["original_vertex_index"].astype(np.int64),
        data["landmarks68"].astype(np.int64),
    )


def _assemble(
    path, mean, triangles, part, identity, expression, names, uv, triangles_uv, original, landmarks
) -> RawModel:
    expect(
        expression.shape[:1] == (len(names),),
        path,
        f"{len(names)} expressions",
        str(expression.shape),
    )
    expression, names = _arkit(expression, list(names))
    V = len(mean)
    check_triangles(triangles, V, path)

    def vertices_of(*wanted):
        mask = np.zeros(V, bool)
        mask[np.unique(triangles[np.isin(part, wanted)])] = True
        return mask

    number = {int(o): i for i, o in enumerate(original)}
    missing = [int(i) for i in landmarks if int(i) not in number]
    expect(not missing, path, "landmark vertices that are part of the face", str(missing[:5]))
    return check_raw(
        RawModel(
            family=FAMILY,
            name="ict-facekit",
            mean=mean,
            triangles=triangles,
            identity=identity,
            expression=expression,
            expression_names=tuple(names),
            millimetres=10.0,
            licence=LICENCE,
            origin=ORIGIN,
            citation=CITATION,
            eyes=vertices_of("eyeballs"),
            inner=vertices_of("mouth_socket", "eye_sockets") & ~vertices_of("skin"),
            uv=uv,
            triangles_uv=triangles_uv,
            landmarks68=np.array([number[int(i)] for i in landmarks]),
        ),
        path,
    )


def _arkit(expression: np.ndarray, names: list[str]) -> tuple[np.ndarray, list[str]]:
    """Rename to ARKit's names, two halves into one where ARKit knows only the whole."""
    out, out_names = [], []
    for i, name in enumerate(names):
        whole = next((w for w, halves in _WHOLE.items() if name in halves), None)
        if whole and all(h in names for h in _WHOLE[whole]):
            if name == _WHOLE[whole][0]:
                out.append(sum(expression[names.index(h)] for h in _WHOLE[whole]))
                out_names.append(whole)
        else:
            out.append(expression[i])
            out_names.append(arkit_name(name))
    return np.stack(out), out_names


def _part_of_polygon(polygons: list[list[int]]) -> list[str]:
    part = []
    for corners in polygons:
        top = max(corners)  # where parts share a border, the later part's polygon reaches higher
        part.append(next((n for n, (low, high) in _PARTS.items() if low <= top <= high), ""))
    return part


def _read_indices(path: Path) -> tuple[np.ndarray, list[str]]:
    try:
        data = json.loads(path.read_text())
        landmarks = np.array(data["idx_to_landmark_verts"], np.int64)
        names = [str(n) for n in data["expressions"]]
    except OSError as error:
        raise ModelError(f"{path}: expected the published index file, found none") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path}: expected JSON with idx_to_landmark_verts and expressions, found {error!r}"
        ) from error
    expect(landmarks.shape == (68,), path, "68 landmark vertices", str(landmarks.shape))
    return landmarks, names


def _read_obj_vertices(path: Path, count: int) -> np.ndarray:
    """(V, 3) positions of an OBJ file."""
    try:
        lines = re.findall(rb"^v[ \t]+(\S+[ \t]+\S+[ \t]+\S+)", path.read_bytes(), re.MULTILINE)
        numbers = [float(x) for x in b" ".join(lines).split()]
        vertices = np.array(numbers, np.float64).reshape(-1, 3)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: expected an OBJ file with vertices, found {error}") from error
    expect(vertices.shape == (count, 3), path, f"{count} vertices", str(len(vertices)))
    return vertices


def _read_obj(path: Path):
    """Vertices (V, 3), polygons, texture coordinates (U, 2) and their polygons (or None)."""
    vertices, uv, polygons, polygons_uv = [], [], [], []
    try:
        with open(path, errors="replace") as lines:
            for line in lines:
                if line.startswith("v "):
                    vertices.append([float(x) for x in line.split()[1:4]])
                elif line.startswith("vt "):
                    uv.append([float(x) for x in line.split()[1:3]])
                elif line.startswith("f "):
                    corners = [c.split("/") for c in line.split()[1:]]
                    polygons.append([int(c[0]) - 1 for c in corners])
                    if len(corners[0]) > 1 and corners[0][1]:
                        polygons_uv.append([int(c[1]) - 1 for c in corners])
        vertices = np.array(vertices, np.float64).reshape(-1, 3)
        uv = np.array(uv, np.float64).reshape(-1, 2)
    except (OSError, ValueError, IndexError) as error:
        raise ModelError(f"{path}: expected an OBJ file, found {error}") from error
    good = polygons and min(map(min, polygons)) >= 0
    expect(bool(good), path, "polygons with positive vertex numbers", "none")
    top = max(map(max, polygons))
    expect(top < len(vertices), path, f"polygons of {len(vertices)} vertices", f"number {top + 1}")
    if len(polygons_uv) != len(polygons):
        return vertices, polygons, None, None
    return vertices, polygons, uv, polygons_uv


def shape_digest(path: Path, neutral: np.ndarray, kept: np.ndarray) -> str:
    """Digest of one shape file's content, as `ict_pins.SHAPES` lists it.

    Parameters
    ----------
    path : Path of an OBJ file
    neutral : (26719, 3)
    kept : (V,) int, imported vertices

    Raises
    ------
    ModelError
        If the file holds no shape of this mesh.
    """
    import hashlib

    moved = (_read_obj_vertices(path, len(neutral)) - neutral)[kept]
    return hashlib.sha256(np.ascontiguousarray(moved, "<f2").tobytes()).hexdigest()[:32]


def neutral_mesh(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Neutral vertices (26719, 3) and the numbers of those that are imported (V,)."""
    vertices, polygons, _, _ = _read_obj(folder / "generic_neutral_mesh.obj")
    part = _part_of_polygon(polygons)
    return vertices, np.unique([i for p, n in zip(polygons, part) if n for i in p])
