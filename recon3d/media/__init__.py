"""Frames in and pictures out: files, folders, globs, cameras and streams."""

from recon3d.media.inputs import MediaInput, open_inputs, shown_path
from recon3d.media.live import LiveFrames
from recon3d.media.pictures import read_picture, write_png
from recon3d.media.reading import iterate_frames
from recon3d.media.writing import VideoWriter

__all__ = [
    "LiveFrames",
    "MediaInput",
    "VideoWriter",
    "iterate_frames",
    "open_inputs",
    "read_picture",
    "shown_path",
    "write_png",
]
