"""A `Reconstruction` into the files of the output folder, and back."""

from recon3d.exporting.cautions import cautions
from recon3d.exporting.files import png_text, staged_folder, write_png
from recon3d.exporting.meshes import (
    encode_glb,
    encode_obj,
    encode_ply,
    mesh_texture,
    texture_picture,
)
from recon3d.exporting.records import landmark_points, track_metrics
from recon3d.exporting.report import write_json, write_report
from recon3d.exporting.track import NOTICE, ExportSettings, TrackResult, load_result, write_track

__all__ = [
    "NOTICE",
    "ExportSettings",
    "TrackResult",
    "cautions",
    "encode_glb",
    "encode_obj",
    "encode_ply",
    "landmark_points",
    "load_result",
    "mesh_texture",
    "png_text",
    "staged_folder",
    "texture_picture",
    "track_metrics",
    "write_json",
    "write_png",
    "write_report",
    "write_track",
]
