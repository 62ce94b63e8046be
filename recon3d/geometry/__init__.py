"""Rotations, cameras, alignment and mesh operators."""

from recon3d.geometry.alignment import procrustes_mean, umeyama
from recon3d.geometry.camera import crop_camera, intrinsics, project, transform
from recon3d.geometry.rotation import FRONTAL, head_angles, head_rotation, skew, so3_exp, so3_log

__all__ = [
    "FRONTAL",
    "crop_camera",
    "head_angles",
    "head_rotation",
    "intrinsics",
    "procrustes_mean",
    "project",
    "skew",
    "so3_exp",
    "so3_log",
    "transform",
    "umeyama",
]
