"""What is true of a head: its surface, its frontal picture, and where the eyes are in a picture."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from recon3d.errors import InputError
from recon3d.geometry.mesh import vertex_normals

EYE_RING_RIGHT = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
EYE_RING_LEFT = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
"""MediaPipe points of the lid contours; their means are the eye centres."""


@dataclass(frozen=True)
class ShapeTruth:
    """The true head.

    Attributes
    ----------
    vertices : (V, 3), mm; triangles : (F, 3)
    mask : (V,) bool
        Points that are scored.
    now7 : (7, 3), mm
    nose_tip : (3,), mm
    """

    vertices: np.ndarray
    triangles: np.ndarray
    mask: np.ndarray
    now7: np.ndarray
    nose_tip: np.ndarray

    @property
    def points(self) -> np.ndarray:
        """(P, 3) scored points, mm."""
        return self.vertices[self.mask]

    @property
    def normals(self) -> np.ndarray:
        """(P, 3) their unit normals."""
        return vertex_normals(self.vertices, self.triangles)[self.mask]


@dataclass
class PictureTruth:
    """The true frontal picture.

    Attributes
    ----------
    image : (H, W, 3) uint8 sRGB
    mask : (H, W) bool
        Pixels that are compared.
    landmarks : (478, 3), px (x, y and MediaPipe's z)
    descriptor : (128,) or None
        Filled when it is first asked for.
    """

    image: np.ndarray
    mask: np.ndarray
    landmarks: np.ndarray
    descriptor: np.ndarray | None = field(default=None, repr=False)

    @classmethod
    def from_image(
        cls, image: np.ndarray, mask: np.ndarray, landmarks: np.ndarray | None = None
    ) -> PictureTruth:
        """Measure the landmarks as those of predictions are; given ones serve where that fails.

        Raises
        ------
        InputError
            If no face is found and no landmarks are given.
        """
        found = portrait_landmarks(image)
        if found is None:
            if landmarks is None:
                raise InputError("no face is found in the true picture")
            found = np.asarray(landmarks, np.float64)
        return cls(image, mask, found)


def portrait_landmarks(image: np.ndarray) -> np.ndarray | None:
    """MediaPipe's landmarks of one large face.

    Parameters
    ----------
    image : (H, W, 3) uint8 sRGB

    Returns
    -------
    (478, 3) px (z in px too), or None where no face is found
    """
    scale = 512 / max(image.shape[:2])
    if 0.5 < scale < 2:
        scale, resized = 1.0, image
    else:
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        resized = cv2.resize(image, None, fx=scale, fy=scale, interpolation=how)
    # A face that fills the picture is found only with room around it.
    for border in (0, int(0.35 * max(resized.shape[:2]))):
        padded = cv2.copyMakeBorder(
            resized, *[border] * 4, cv2.BORDER_CONSTANT, value=(110, 110, 110)
        )
        height, width = padded.shape[:2]
        found = _face_mesh().process(np.ascontiguousarray(padded)).multi_face_landmarks
        if found:
            points = np.array([[p.x * width, p.y * height, p.z * width] for p in found[0].landmark])
            return (points - [border, border, 0]) / scale
    return None


def eye_centres(landmarks: np.ndarray) -> np.ndarray:
    """(2, 2) px, the subject's right eye first, of (478, 2 or 3) landmarks."""
    rings = (EYE_RING_RIGHT, EYE_RING_LEFT)
    return np.stack([landmarks[list(ring), :2].mean(0) for ring in rings])


def eye_alignment(landmarks: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The similarity that carries the eye centres of one face onto another's.

    Parameters
    ----------
    landmarks : (478, 2 or 3), px
    target : (478, 2 or 3) landmarks, or (2, 2) eye centres, px

    Returns
    -------
    (2, 3) matrix as OpenCV's ``warpAffine`` takes it
    """
    a = eye_centres(landmarks)
    b = target if len(target) == 2 else eye_centres(target)
    turn = complex(*(b[1] - b[0])) / complex(*(a[1] - a[0]))
    A = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    return np.column_stack([A, b.mean(0) - A @ a.mean(0)])


_MESH = None


def _face_mesh():
    """MediaPipe's face mesh for single pictures, made once: it takes a while."""
    global _MESH
    if _MESH is None:
        from recon3d.tracking.quiet import quiet_native_logs

        with quiet_native_logs():
            import mediapipe

            made = mediapipe.solutions.face_mesh.FaceMesh(
                static_image_mode=True,
                refine_landmarks=True,
                max_num_faces=1,
                min_detection_confidence=0.3,
            )
            # The last of the chatter comes with the first picture.
            made.process(np.full((64, 64, 3), 128, np.uint8))
        _MESH = made
    return _MESH
