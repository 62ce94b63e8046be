"""Rotations, cameras, alignment and mesh operators."""

from recon3d.geometry.alignment import procrustes_mean, umeyama
from recon3d.geometry.camera import crop_camera, intrinsics, project, transform
from recon3d.geometry.memory import packed
from recon3d.geometry.mesh import (
    cotangent_laplacian,
    graph_laplacian,
    interpolating_control,
    loop_limit,
    loop_subdivision,
    mesh_edges,
    subdivide,
    triangle_normals,
    vertex_normals,
)
from recon3d.geometry.rotation import (
    FRONTAL,
    head_angles,
    head_rotation,
    seen_angles,
    skew,
    so3_exp,
    so3_log,
)

__all__ = [
    "FRONTAL",
    "cotangent_laplacian",
    "crop_camera",
    "graph_laplacian",
    "head_angles",
    "head_rotation",
    "interpolating_control",
    "intrinsics",
    "loop_limit",
    "loop_subdivision",
    "mesh_edges",
    "packed",
    "procrustes_mean",
    "project",
    "seen_angles",
    "skew",
    "so3_exp",
    "so3_log",
    "subdivide",
    "transform",
    "triangle_normals",
    "umeyama",
    "vertex_normals",
]
