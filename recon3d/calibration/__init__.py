"""The landmarker as an instrument: its errors, learned from pictures whose truth is known."""

from recon3d.calibration.lessons import Lessons, make_lessons, read_lessons
from recon3d.calibration.training import CalibrationSettings, train

__all__ = ["CalibrationSettings", "Lessons", "make_lessons", "read_lessons", "train"]
