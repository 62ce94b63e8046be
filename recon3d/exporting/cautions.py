"""What to keep in mind when looking at one result, in plain sentences."""

from __future__ import annotations

import numpy as np

from recon3d.types import Reconstruction

TURNED_DEG = 35.0
"""With no view nearer to the front than this, one half of the face was seen at a grazing angle."""
SPAN_DEG = 12.0
"""Less turn between views than this moves the nose by less than the landmarks' own error."""
SMALL_PX = 40.0
"""In narrower faces an iris is less than four pixels wide (12 mm of 140)."""
GUESSED_SHARE = 0.35
STRANGER = 0.6
"""Distance of dlib's descriptors at which people are usually told apart."""


def cautions(reconstruction: Reconstruction, metrics: dict) -> list[str]:
    """Sentences for whoever looks at a result; none where nothing stands out.

    Parameters
    ----------
    reconstruction : Reconstruction
    metrics : dict
        As `track_metrics` gives them.

    Returns
    -------
    list of str
        Gravest first.
    """
    found = []
    fit, track = reconstruction.fit, reconstruction.track
    used = np.asarray(fit.view_weight) > 0
    if used.any():
        turned = turn_from_camera(fit.R, fit.t)[used]
        if turned.min() > TURNED_DEG:
            found.append(
                f"Seen only from the side: the view nearest to the front is turned by "
                f"{turned.min():.0f} degrees. The far half of the frontal view is mirrored or "
                "guessed; compare side views, not the frontal one."
            )
        faces = fit.R[used, :, 2]
        apart = np.degrees(np.arccos(np.clip((faces @ faces.T).min(), -1, 1)))
        if used.sum() == 1:
            found.append(
                "One view only: depth comes from the face model and the landmarks, not from "
                "seeing the face move."
            )
        elif apart < SPAN_DEG:
            found.append(
                f"Seen from nearly one direction (views differ by {apart:.0f} degrees): depth "
                "comes from the face model and the landmarks, not from seeing the face move."
            )
    if len(track.face_px):
        width = float(np.percentile(track.face_px, 90))
        if width < SMALL_PX:
            found.append(
                f"A small face, {width:.0f} px wide where it is largest: the look of eyes and "
                "mouth lies below what the camera resolved."
            )
    share = reconstruction.frontal.generated_share
    if share > GUESSED_SHARE:
        found.append(f"{100 * share:.0f} % of the face is mirrored or guessed (blue in evidence).")
    consistency = metrics.get("identity_consistency")
    distance = consistency.get("to_best_frames_median") if isinstance(consistency, dict) else None
    if distance is not None and distance > STRANGER:
        found.append(
            f"To a face embedder the frontal view is not the person of its own best frames "
            f"(distance {distance:.2f}, {STRANGER} tells people apart)."
        )
    return found


def turn_from_camera(R: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Angle between where a face looks and where the camera is, degrees.

    Parameters
    ----------
    R : (N, 3, 3), t : (N, 3)
        Model to camera; the model's z points out of the face.

    Returns
    -------
    (N,) float64
    """
    t = np.asarray(t, np.float64)
    towards = -t / np.linalg.norm(t, axis=1, keepdims=True)
    return np.degrees(np.arccos(np.clip((np.asarray(R)[:, :, 2] * towards).sum(1), -1, 1)))
