"""Detect faces, find their landmarks, follow people, judge quality, choose views."""

from recon3d.tracking.landmarks import LANDMARKERS, load_landmarker
from recon3d.tracking.portraits import best_portraits, eyes_open, portrait_worth
from recon3d.tracking.settings import TrackingSettings
from recon3d.tracking.topology import IBUG68, MIRROR
from recon3d.tracking.tracker import (
    FaceTracker,
    SeenFace,
    TrackerState,
    TrackingResult,
    track_faces,
)

__all__ = [
    "IBUG68",
    "LANDMARKERS",
    "MIRROR",
    "FaceTracker",
    "SeenFace",
    "TrackerState",
    "TrackingResult",
    "TrackingSettings",
    "best_portraits",
    "eyes_open",
    "load_landmarker",
    "portrait_worth",
    "track_faces",
]
