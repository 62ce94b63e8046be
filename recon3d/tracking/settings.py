"""Settings of the tracking stage."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class TrackingSettings(BaseModel):
    """How faces are found, followed and chosen."""

    model_config = ConfigDict(extra="forbid")

    landmarks: Literal["mediapipe", "face-alignment", "mediapipe-tasks"] = Field(
        "mediapipe", description="Landmark source."
    )
    landmark_weights: str | None = Field(
        None,
        description="File (mediapipe-tasks: face_landmarker.task) or folder (face-alignment: "
        "where its weight files lie) for landmark sources whose weights are not in their package.",
    )
    min_face_px: float = Field(
        16.0, ge=8, description="Smallest face, as the width of its landmark box in px."
    )
    detect_every: int = Field(
        5, ge=1, description="Frames between detections while every known face is followed."
    )
    tiles_per_frame: int = Field(
        4, ge=0, description="Tiles searched for small faces in each frame with a detection."
    )
    min_detection_score: float = Field(
        0.5, ge=0, le=1, description="Detector score that may start a track."
    )
    max_mirror_disagreement: float = Field(
        0.13,
        gt=0,
        description="Largest mean difference between the landmarks of a crop and of its mirror "
        "image, as a share of the face's size expressed as eye distance; more is a bad fit.",
    )
    correct: bool = Field(
        True,
        description="Put the landmarks of small faces right by what is known of the landmarker's "
        "errors (`recon3d model calibrate`).",
    )
    corrector: str | None = Field(
        None, description="File of a landmark correction of your own (.safetensors)."
    )
    jitter: int = Field(
        6, ge=2, le=16, description="Slightly changed crops of each view, half of them mirrored."
    )
    crop_px: int = Field(
        256, ge=192, le=512, description="Side of the enlarged crops given to the landmark source."
    )
    enhance_below: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Faces darker than this (mean sRGB value) are looked for on a copy with "
        "normalised exposure; the kept pixels stay as they were. 0 turns it off. Measured: it "
        "halves landmark errors at about 0.08, and loses faces in compressed clips above 0.2.",
    )
    max_gap_s: float = Field(
        0.5, ge=0, description="How long a lost face is looked for where it would be, seconds."
    )
    rejoin_gap_s: float = Field(
        2.0,
        ge=0,
        description="Longest gap across which place and looks alone, without a face embedding, "
        "may join two pieces of a track, seconds.",
    )
    same_person: float = Field(
        0.53,
        gt=0,
        description="Face embedding distance, over the best third of pairs of views, below which "
        "two pieces of track are one person. With dlib's embedder, faces of 28 to 110 px gave at "
        "most 0.48 for one person and at least 0.56 for two.",
    )
    max_views: int = Field(50, ge=1, description="Views kept per track, with their pixels.")
    view_margin: float = Field(
        2.6, ge=1.2, description="Side of a view's patch, in face sizes, clipped at the frame."
    )
    min_track_frames: int = Field(
        6,
        ge=1,
        description="Shorter tracks of a video are dropped; stills are never too short.",
    )
    max_people: int = Field(
        12, ge=1, description="Tracks kept; beyond it the one with fewest usable frames goes."
    )
    threads: int = Field(
        0, ge=0, description="Threads for the networks; 0 takes the machine's cores, at most 4."
    )
