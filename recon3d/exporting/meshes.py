"""The mesh as PLY, OBJ and glTF.

The project's axes (right-handed, y up, z out of the face) are those of glTF; its millimetres are
not, so the GLB is written in metres and says so.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike

from recon3d.checks import check_shape
from recon3d.colour import linear_to_srgb, to_uint8
from recon3d.exporting.records import texture_gains
from recon3d.frontal.tone import compress
from recon3d.geometry.mesh import vertex_normals
from recon3d.types import FaceFit, FaceModel, FaceTexture, Reconstruction

MM_TO_M = 1e-3
MORPH_FLOOR = 1e-6
"""Displacements of a morph target below this many metres are not stored."""


@dataclass(frozen=True)
class Clip:
    """Head motion and expression over the views of one camera.

    Attributes
    ----------
    name : str
    time : (N,) float64
        Seconds, strictly increasing, from 0.
    rotation : (N, 3, 3) float64
        Model to glTF world (y up, camera looking along -z).
    translation : (N, 3) float64, m
    expression : (N, E) float64
    """

    name: str
    time: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    expression: np.ndarray


def unit_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Vertex normals, (V, 3); (0, 0, 1) where there is no area, as file formats want length 1."""
    normals = vertex_normals(np.asarray(vertices, np.float64), triangles)
    normals[~normals.any(1)] = (0.0, 0.0, 1.0)
    return normals


def texture_picture(
    texture: FaceTexture, kind: str = "albedo", gains: ArrayLike = 1.0
) -> np.ndarray:
    """The texture as an sRGB picture without holes.

    Texels that belong to no triangle take the colour of the nearest one that does, so that
    bilinear and mip-mapped lookups at chart borders do not mix in black.

    Parameters
    ----------
    texture : FaceTexture
    kind : {"albedo", "lit"}
    gains : float or (3,)
        Factors of the linear channels; what they make too bright is bent below white, hue kept.

    Returns
    -------
    (T, T, 3) uint8 sRGB, row 0 at v = 1
    """
    if kind not in ("albedo", "lit"):
        raise ValueError(f"kind is {kind!r}, expected 'albedo' or 'lit'")
    linear = np.nan_to_num(np.asarray(getattr(texture, kind), np.float32))
    check_shape(linear, "T T 3", kind)
    gains = np.asarray(gains, np.float32)
    if (gains != 1).any():
        linear = compress(linear * gains)
    picture = to_uint8(linear_to_srgb(linear))
    valid = np.asarray(texture.valid, bool)
    if valid.all() or not valid.any():
        return picture
    _, label = cv2.distanceTransformWithLabels(
        (~valid).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    nearest = np.zeros((label.max() + 1, 3), np.uint8)
    nearest[label[valid]] = picture[valid]
    return nearest[label]


def mesh_texture(made: Reconstruction, kind: str = "albedo") -> np.ndarray:
    """The texture as the meshes wear it.

    Parameters
    ----------
    made : Reconstruction
    kind : {"albedo", "lit"}
        Skin in the neutral light and at the exposure of the frontal view, so that a mesh of a dark
        or a warm clip is as clear as its portrait; or as the frames show it.

    Returns
    -------
    (T, T, 3) uint8 sRGB
    """
    return texture_picture(made.texture, kind, texture_gains(made) if kind == "albedo" else 1.0)


def sample_texture(picture: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Look a texture up bilinearly.

    Parameters
    ----------
    picture : (T, T, C) uint8 or float32, row 0 at v = 1
    uv : (U, 2) in [0, 1], v up

    Returns
    -------
    (U, C) float32
    """
    check_shape(uv, "U 2", "uv")
    height, width = picture.shape[:2]
    x = np.asarray(uv[:, 0] * width - 0.5, np.float32)[:, None]
    y = np.asarray((1 - uv[:, 1]) * height - 0.5, np.float32)[:, None]
    source = np.asarray(picture, np.float32)
    out = []
    # cv2.remap takes at most 32 767 rows.
    for start in range(0, len(uv), 32_000):
        part = slice(start, start + 32_000)
        sampled = cv2.remap(
            source, x[part], y[part], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        out.append(sampled.reshape(len(x[part]), -1))
    return np.concatenate(out) if out else np.zeros((0, source.shape[-1]), np.float32)


def vertex_colours(model: FaceModel, picture: np.ndarray) -> np.ndarray:
    """Colour of each vertex: the mean over its texture coordinates.

    Parameters
    ----------
    model : FaceModel
    picture : (T, T, 3) uint8 sRGB

    Returns
    -------
    (V, 3) uint8 sRGB
    """
    colour = sample_texture(picture, model.uv)
    corner, corner_uv = model.triangles.ravel(), model.triangles_uv.ravel()
    total = np.zeros((model.n_vertices, 3))
    count = np.zeros(model.n_vertices)
    np.add.at(total, corner, colour[corner_uv])
    np.add.at(count, corner, 1)
    return np.clip(total / np.maximum(count, 1)[:, None] + 0.5, 0, 255).astype(np.uint8)


def encode_ply(
    vertices: np.ndarray,
    triangles: np.ndarray,
    colours: np.ndarray,
    comments: tuple[str, ...] = (),
) -> bytes:
    """A binary little-endian PLY with normals and vertex colours.

    Parameters
    ----------
    vertices : (V, 3) float, mm
    triangles : (F, 3) int
    colours : (V, 3) uint8 sRGB
    comments : tuple of str
        One line each.

    Returns
    -------
    bytes
    """
    check_shape(vertices, "V 3", "vertices")
    check_shape(triangles, "F 3", "triangles")
    check_shape(colours, f"{len(vertices)} 3", "colours")
    names = ("x", "y", "z", "nx", "ny", "nz")
    point = np.zeros(
        len(vertices), [(n, "<f4") for n in names] + [(n, "u1") for n in ("red", "green", "blue")]
    )
    normals = unit_normals(vertices, triangles)
    for i in range(3):
        point[names[i]] = vertices[:, i]
        point[names[3 + i]] = normals[:, i]
        point[("red", "green", "blue")[i]] = colours[:, i]
    face = np.zeros(len(triangles), [("n", "u1"), ("v", "<i4", 3)])
    face["n"], face["v"] = 3, triangles
    header = ["ply", "format binary_little_endian 1.0"]
    header += [f"comment {' '.join(line.split())}" for line in comments]
    header += [f"element vertex {len(point)}"]
    header += [f"property float {n}" for n in names]
    header += [f"property uchar {n}" for n in ("red", "green", "blue")]
    header += [f"element face {len(face)}", "property list uchar int vertex_indices", "end_header"]
    return ("\n".join(header) + "\n").encode("ascii", "replace") + point.tobytes() + face.tobytes()


def encode_obj(
    vertices: np.ndarray,
    triangles: np.ndarray,
    uv: np.ndarray,
    triangles_uv: np.ndarray,
    comments: tuple[str, ...] = (),
) -> tuple[bytes, bytes]:
    """The mesh as Wavefront OBJ with a material that names ``texture.png``.

    Parameters
    ----------
    vertices : (V, 3) float, mm
    triangles : (F, 3) int
    uv : (U, 2) float, v up
    triangles_uv : (F, 3) int
    comments : tuple of str

    Returns
    -------
    obj, mtl : bytes
        Contents of ``mesh.obj`` and ``mesh.mtl``.
    """
    check_shape(vertices, "V 3", "vertices")
    check_shape(triangles, "F 3", "triangles")
    check_shape(uv, "U 2", "uv")
    check_shape(triangles_uv, f"{len(triangles)} 3", "triangles_uv")
    normals = unit_normals(vertices, triangles)
    lines = [f"# {' '.join(line.split())}" for line in comments]
    lines += ["mtllib mesh.mtl", "o face"]
    lines += [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in np.asarray(vertices, float).tolist()]
    lines += [f"vt {u:.7f} {v:.7f}" for u, v in np.asarray(uv, float).tolist()]
    lines += [f"vn {x:.5f} {y:.5f} {z:.5f}" for x, y, z in normals.tolist()]
    lines += ["usemtl skin", "s 1"]
    corner = np.stack([triangles, triangles_uv], -1) + 1
    lines += [
        "f " + " ".join(f"{vertex}/{texel}/{vertex}" for vertex, texel in triangle)
        for triangle in corner.tolist()
    ]
    material = [
        "newmtl skin",
        "Ka 1 1 1",
        "Kd 1 1 1",
        "Ks 0 0 0",
        "d 1",
        "illum 1",
        "map_Kd texture.png",
    ]
    return ("\n".join(lines) + "\n").encode(), ("\n".join(material) + "\n").encode()


def fit_clips(
    fit: FaceFit, source: np.ndarray, frame_index: np.ndarray, time: np.ndarray
) -> list[Clip]:
    """The motion that was fitted, one clip a camera.

    The head's mean place is put at the origin, where viewers look for it.

    Parameters
    ----------
    fit : FaceFit
    source, frame_index, time : (N,)
        Input number, frame number and seconds of each view of the fit.

    Returns
    -------
    list of Clip
    """
    to_gl = np.diag([1.0, -1.0, -1.0])  # OpenCV camera axes to glTF's
    clips = []
    for camera in np.unique(source):
        keep = np.flatnonzero((source == camera) & (fit.view_weight > 0))
        keep = keep[np.lexsort((frame_index[keep], time[keep]))]
        # Key frames must rise strictly; single pictures may all carry the time 0.
        keep = keep[np.r_[True, np.diff(time[keep]) > 1e-6]] if len(keep) else keep
        if len(keep) < 2:
            continue
        translation = fit.t[keep] @ to_gl.T * MM_TO_M
        clips.append(
            Clip(
                name=f"input {int(camera)}",
                time=time[keep] - time[keep[0]],
                rotation=to_gl @ fit.R[keep],
                translation=translation - translation.mean(0),
                expression=fit.expression[keep],
            )
        )
    return clips


def encode_glb(
    model: FaceModel,
    vertices: np.ndarray,
    texture_png: bytes,
    clips: list[Clip] | None = None,
    extras: dict | None = None,
) -> bytes:
    """The textured mesh as binary glTF 2.0 with named morph targets.

    The material is unlit (``KHR_materials_unlit``: the texture already holds what is known of the
    skin) with a rough, non-metallic PBR material for viewers that lack the extension. Morph
    targets are sparse wherever that is smaller.

    Parameters
    ----------
    model : FaceModel
        Topology, texture coordinates and expression basis.
    vertices : (V, 3) float, mm
        The neutral shape.
    texture_png : bytes
        Embedded as it is.
    clips : list of Clip, optional
        Become glTF animations.
    extras : dict, optional
        Added to ``asset.extras``.

    Returns
    -------
    bytes

    References
    ----------
    glTF 2.0 specification, Khronos Group, 2021.
    """
    import pygltflib as gl

    check_shape(vertices, f"{model.n_vertices} 3", "vertices")
    # glTF has one index a corner: split vertices where the texture has a seam.
    pair = np.stack([model.triangles.ravel(), model.triangles_uv.ravel()], 1)
    split, index = np.unique(pair, axis=0, return_inverse=True)
    index = index.reshape(-1)
    position = (vertices[split[:, 0]] * MM_TO_M).astype(np.float32)
    normal = unit_normals(vertices, model.triangles)[split[:, 0]]
    # Rounding to float32 keeps unit length well inside the validator's tolerance.
    normal = normal.astype(np.float32)
    uv = np.stack([model.uv[split[:, 1], 0], 1 - model.uv[split[:, 1], 1]], 1).astype(np.float32)

    asset = gl.GLTF2(
        asset=gl.Asset(version="2.0", generator="recon3d", extras=_asset_extras(model, extras)),
        scene=0,
        scenes=[gl.Scene(nodes=[0])],
        extensionsUsed=["KHR_materials_unlit"],
    )
    pack = _Packer(asset)
    small = len(position) < 65_535
    attributes = gl.Attributes(
        POSITION=pack.accessor(position, gl.VEC3, gl.ARRAY_BUFFER, bounds=True),
        NORMAL=pack.accessor(normal, gl.VEC3, gl.ARRAY_BUFFER),
        TEXCOORD_0=pack.accessor(uv, gl.VEC2, gl.ARRAY_BUFFER),
    )
    indices = pack.accessor(
        index.astype(np.uint16 if small else np.uint32), gl.SCALAR, gl.ELEMENT_ARRAY_BUFFER
    )
    targets = []
    for field in model.expression:
        moved = (field[split[:, 0]] * MM_TO_M).astype(np.float32)
        moved[np.abs(moved).max(1) < MORPH_FLOOR] = 0
        targets.append({"POSITION": pack.morph(moved)})
    names = list(model.expression_names)
    asset.meshes.append(
        gl.Mesh(
            name="face",
            primitives=[
                gl.Primitive(
                    attributes=attributes, indices=indices, material=0, targets=targets or None
                )
            ],
            weights=[0.0] * len(targets) or None,
            extras={"targetNames": names} if names else {},
        )
    )
    asset.nodes.append(gl.Node(name="head", mesh=0))
    asset.materials.append(
        gl.Material(
            name="skin",
            pbrMetallicRoughness=gl.PbrMetallicRoughness(
                baseColorTexture=gl.TextureInfo(index=0), metallicFactor=0.0, roughnessFactor=0.8
            ),
            extensions={"KHR_materials_unlit": {}},
            doubleSided=True,
            alphaCutoff=None,
        )
    )
    asset.textures.append(gl.Texture(source=0, sampler=0))
    asset.samplers.append(
        gl.Sampler(
            magFilter=gl.LINEAR,
            minFilter=gl.LINEAR_MIPMAP_LINEAR,
            wrapS=gl.CLAMP_TO_EDGE,
            wrapT=gl.CLAMP_TO_EDGE,
        )
    )
    asset.images.append(
        gl.Image(name="texture", mimeType=gl.IMAGEPNG, bufferView=pack.view(texture_png))
    )
    for clip in clips or []:
        asset.animations.append(_animation(gl, pack, clip, len(targets)))
    asset.buffers.append(gl.Buffer(byteLength=len(pack.data)))
    asset.set_binary_blob(bytes(pack.data))
    return b"".join(asset.save_to_bytes())


def _asset_extras(model: FaceModel, extras: dict | None) -> dict:
    return {
        "units": "metres (the project's millimetres times 0.001)",
        "axes": "x to the subject's left, y up, z out of the face",
        "model": model.name,
        "licence": model.licence,
        **(extras or {}),
    }


def _animation(gl, pack: _Packer, clip: Clip, n_targets: int):
    from scipy.spatial.transform import Rotation

    quaternion = Rotation.from_matrix(clip.rotation).as_quat()
    # The nearer of q and -q, or linear interpolation takes the long way round.
    for i in range(1, len(quaternion)):
        if quaternion[i] @ quaternion[i - 1] < 0:
            quaternion[i] = -quaternion[i]
    time = pack.accessor(clip.time.astype(np.float32), gl.SCALAR, None, bounds=True)
    tracks = [
        ("rotation", quaternion.astype(np.float32), gl.VEC4),
        ("translation", clip.translation.astype(np.float32), gl.VEC3),
    ]
    if n_targets:
        tracks.append(("weights", clip.expression.astype(np.float32).ravel(), gl.SCALAR))
    animation = gl.Animation(name=clip.name)
    for i, (path, values, kind) in enumerate(tracks):
        animation.samplers.append(
            gl.AnimationSampler(
                input=time, output=pack.accessor(values, kind, None), interpolation=gl.ANIM_LINEAR
            )
        )
        target = gl.AnimationChannelTarget(node=0, path=path)
        animation.channels.append(gl.AnimationChannel(sampler=i, target=target))
    return animation


class _Packer:
    """Collects arrays into the one buffer of a GLB."""

    def __init__(self, asset):
        self.asset = asset
        self.data = bytearray()

    def view(self, data: bytes, target: int | None = None) -> int:
        import pygltflib as gl

        self.data.extend(b"\0" * (-len(self.data) % 4))
        self.asset.bufferViews.append(
            gl.BufferView(buffer=0, byteOffset=len(self.data), byteLength=len(data), target=target)
        )
        self.data.extend(data)
        return len(self.asset.bufferViews) - 1

    def accessor(
        self, values: np.ndarray, kind: str, target: int | None, bounds: bool = False
    ) -> int:
        import pygltflib as gl

        accessor = gl.Accessor(
            bufferView=self.view(np.ascontiguousarray(values).tobytes(), target),
            componentType=_component(values),
            count=len(values),
            type=kind,
        )
        self._add(accessor, values if bounds else None)
        return len(self.asset.accessors) - 1

    def morph(self, moved: np.ndarray) -> int:
        """A (U, 3) float32 displacement, sparse where that saves space."""
        import pygltflib as gl

        rows = np.flatnonzero(moved.any(1))
        wide = np.uint16 if len(moved) < 65_535 else np.uint32
        if len(rows) * (12 + wide().itemsize) >= len(moved) * 12:
            return self.accessor(moved, gl.VEC3, gl.ARRAY_BUFFER, bounds=True)
        if not len(rows):
            rows = np.zeros(1, np.int64)  # a sparse accessor must name one element at least
        accessor = gl.Accessor(componentType=gl.FLOAT, count=len(moved), type=gl.VEC3)
        accessor.sparse = gl.Sparse(
            count=len(rows),
            indices=gl.AccessorSparseIndices(
                bufferView=self.view(rows.astype(wide).tobytes()), componentType=_component(wide(0))
            ),
            values=gl.AccessorSparseValues(bufferView=self.view(moved[rows].tobytes())),
        )
        accessor.byteOffset = None
        self._add(accessor, moved)
        return len(self.asset.accessors) - 1

    def _add(self, accessor, values: np.ndarray | None) -> None:
        if values is not None:
            flat = values.reshape(len(values), -1)
            accessor.min = [float(x) for x in flat.min(0)]
            accessor.max = [float(x) for x in flat.max(0)]
        self.asset.accessors.append(accessor)


def _component(values) -> int:
    import pygltflib as gl

    return {
        np.dtype(np.float32): gl.FLOAT,
        np.dtype(np.uint16): gl.UNSIGNED_SHORT,
        np.dtype(np.uint32): gl.UNSIGNED_INT,
    }[np.asarray(values).dtype]


def glb_json(data: bytes) -> dict:
    """The JSON chunk of a GLB file."""
    length = int.from_bytes(data[12:16], "little")
    return json.loads(data[20 : 20 + length])
