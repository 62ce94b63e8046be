"""Landmarks, fit and metrics as JSON and NumPy archives."""

from __future__ import annotations

import io
import json
import math

import numpy as np

from recon3d.exporting.cautions import cautions
from recon3d.types import FaceFit, LandmarkEmbedding, Reconstruction

NOW7 = (33, 133, 362, 263, 2, 61, 291)
"""MediaPipe indices of the seven points: right outer, right inner, left inner and left outer eye
corner, nose base, right and left mouth corner (right is the subject's)."""

_RIGHT_EYE, _LEFT_EYE = (33, 133), (362, 263)

YAW_BIN = 15.0
"""Width in degrees of the bins in which views are counted and chosen."""


def landmark_points(
    vertices: np.ndarray, triangles: np.ndarray, embedding: LandmarkEmbedding
) -> np.ndarray:
    """Landmarks on a mesh.

    Parameters
    ----------
    vertices : (V, 3), mm
    triangles : (F, 3) int
    embedding : LandmarkEmbedding of L points

    Returns
    -------
    (L, 3) float64, mm; NaN where the model has no such point
    """
    triangle = np.asarray(embedding.triangle)
    corner = vertices[triangles[np.maximum(triangle, 0)]]
    points = np.einsum("lk,lkd->ld", np.asarray(embedding.barycentric, np.float64), corner)
    points[triangle < 0] = np.nan
    return points


def landmarks_json(fit: FaceFit) -> str:
    """Contents of ``landmarks.json``: points on the neutral mesh, mm.

    Parameters
    ----------
    fit : FaceFit

    Returns
    -------
    str
        An object with "now7", "ibug68" and "mediapipe478" (lists of [x, y, z], null where the
        model has no such point) and a word on units and axes.
    """
    model, vertices = fit.model, fit.neutral
    mediapipe = landmark_points(vertices, model.triangles, model.landmarks)
    ibug = landmark_points(vertices, model.triangles, model.ibug68)
    record = {
        "units": "mm",
        "axes": "x to the subject's left, y up, z out of the face; points lie on mesh.ply",
        "now7": _points(mediapipe[list(NOW7)]),
        "ibug68": _points(ibug),
        "mediapipe478": _points(mediapipe),
    }
    return json.dumps(record)


def fit_archive(reconstruction: Reconstruction) -> bytes:
    """Contents of ``fit.npz``, readable with ``allow_pickle=False``.

    Parameters
    ----------
    reconstruction : Reconstruction

    Returns
    -------
    bytes
        Arrays described by the JSON string in the entry "schema" (name to shape, unit, meaning).
    """
    fit, track = reconstruction.fit, reconstruction.track
    views = track.views
    lighting = _lighting(reconstruction)
    entries: dict[str, tuple[np.ndarray, str, str, str]] = {
        "identity": (fit.identity, "I", "standard deviations", "identity coefficients"),
        "identity_covariance": (
            fit.identity_covariance,
            "I I",
            "standard deviations^2",
            "posterior covariance of the identity coefficients",
        ),
        "expression": (fit.expression, "N E", "1 (0 to 1)", "expression coefficients of each view"),
        "expression_names": (
            np.array(fit.model.expression_names, dtype=np.str_),
            "E",
            "",
            "names of the expression coefficients",
        ),
        "R": (fit.R, "N 3 3", "1", "model to camera rotation of each view (OpenCV camera axes)"),
        "t": (fit.t, "N 3", "mm", "model to camera translation of each view"),
        "K": (fit.K, "N 3 3", "px", "intrinsics of each view, pixel centres at half-integers"),
        "image_size": (
            np.array([v.image_size for v in views], np.int64).reshape(-1, 2),
            "N 2",
            "px",
            "width and height of each view's frame",
        ),
        "lighting": (
            lighting,
            "N 9 3" if lighting.ndim == 3 else "...",
            "linear RGB",
            "spherical harmonics of order 2 of each view where light was fitted, else empty",
        ),
        "landmarks": (
            np.array([v.landmarks for v in views], np.float64).reshape(-1, 478, 2),
            "N 478 2",
            "px",
            "observed MediaPipe landmarks in frame coordinates",
        ),
        "landmark_covariance": (
            np.array([v.covariance for v in views], np.float64).reshape(-1, 478, 2, 2),
            "N 478 2 2",
            "px^2",
            "covariance of each landmark",
        ),
        "residuals": (
            fit.residuals,
            "N 478 2",
            "px",
            "landmark reprojection residuals, NaN unused",
        ),
        "weights": (fit.weights, "N 478", "1 (0 to 1)", "final landmark weights"),
        "view_weight": (fit.view_weight, "N", "1 (0 to 1)", "weight of each view, 0 if rejected"),
        "displacement": (fit.displacement, "V 3", "mm", "added to the model's neutral vertices"),
        "uncertainty": (
            fit.uncertainty,
            "V",
            "mm",
            "posterior deviation of the surface along its normals",
        ),
        "frame_index": (
            np.array([v.frame_index for v in views], np.int64),
            "N",
            "",
            "frame number of each view within its input",
        ),
        "source": (np.array([v.source for v in views], np.int64), "N", "", "input of each view"),
        "patch_origin": (
            np.array([(0, 0) if v.patch is None else v.patch.origin for v in views], np.int64),
            "N 2",
            "px",
            "upper left corner of each view's picture in its frame",
        ),
        "time": (np.array([v.time for v in views], np.float64), "N", "s", "time of each view"),
        "track_frame_index": (
            track.frame_index,
            "M",
            "",
            "every frame the person was observed in, not only the views",
        ),
        "track_source": (track.source, "M", "", "their inputs"),
        "track_time": (track.time, "M", "s", "their times"),
        "track_yaw": (track.yaw, "M", "degrees", "rough yaw, > 0 to the subject's left"),
        "track_pitch": (track.pitch, "M", "degrees", "rough pitch, > 0 up"),
        "track_face_px": (track.face_px, "M", "px", "width of the face"),
        "track_quality": (track.quality, "M", "1 (0 to 1)", "quality of the observation"),
        "model_name": (np.array(fit.model.name, dtype=np.str_), "", "", "face model"),
        "info": (np.array(dump_json(fit.info), dtype=np.str_), "", "", "JSON notes of the fit"),
    }
    schema = {
        name: {"shape": shape, "unit": unit, "meaning": meaning}
        for name, (_, shape, unit, meaning) in entries.items()
    }
    arrays = {name: np.asarray(value) for name, (value, *_) in entries.items()}
    stream = io.BytesIO()
    np.savez_compressed(stream, schema=np.array(json.dumps(schema), dtype=np.str_), **arrays)
    return stream.getvalue()


def track_metrics(reconstruction: Reconstruction) -> dict:
    """What ``metrics.json`` says, from the reconstruction itself and from the stages' own notes.

    Parameters
    ----------
    reconstruction : Reconstruction
        Its `metrics` are merged over what is computed here.

    Returns
    -------
    dict
        JSON-able: reprojection error (px and % of the distance between the eyes' centres),
        photometric error, coverage by yaw, generated share, identity consistency, counts, and
        `cautions`.
    """
    fit, track, texture = reconstruction.fit, reconstruction.track, reconstruction.texture
    metrics = {
        "frames": track.n_frames,
        "views": len(track.views),
        "views_used": int((np.asarray(fit.view_weight) > 0).sum()),
        "face_px_median": _median(track.face_px),
        "reprojection": _reprojection(reconstruction),
        "photometric_error": texture.info.get("photometric_error"),
        "shutter": texture.info.get("shutter"),
        "blur_mm": _blur(texture.info.get("blur_mm")),
        "coverage": {
            "yaw_bin_deg": YAW_BIN,
            "frames_by_yaw": yaw_histogram(track.yaw),
            "yaw_range_deg": [float(np.min(track.yaw)), float(np.max(track.yaw))]
            if len(track.yaw)
            else None,
            "texels_observed": _share(np.asarray(texture.generated) < 0.5, texture.valid),
        },
        "generated_share": float(reconstruction.frontal.generated_share),
        "generated_share_texture": texture_generated_share(reconstruction),
        "texture_gains": texture_gains(reconstruction),
        "identity_consistency": reconstruction.frontal.info.get("identity_consistency"),
        "uncertainty_mm_median": _median(fit.uncertainty),
        "fit": fit.info,
    }
    metrics |= reconstruction.metrics
    return plain({"cautions": cautions(reconstruction, metrics), **metrics})


def texture_generated_share(reconstruction: Reconstruction) -> float:
    """Mean of the texture's generated map over its valid texels."""
    texture = reconstruction.texture
    valid = np.asarray(texture.valid, bool)
    return float(np.asarray(texture.generated)[valid].mean()) if valid.any() else 0.0


def yaw_histogram(yaw: np.ndarray) -> dict[str, int]:
    """Frames by yaw: centre of the bin in degrees, as text with a sign, to count."""
    bins, counts = np.unique(yaw_bin(yaw), return_counts=True)
    return {f"{int(b * YAW_BIN):+d}": int(c) for b, c in zip(bins, counts)}


def texture_gains(made: Reconstruction) -> list[float]:
    """Factors of linear red, green and blue between the fused skin and that of the meshes."""
    return list(made.frontal.info.get("gains", (1.0, 1.0, 1.0)))


def yaw_bin(yaw) -> np.ndarray:
    """Number of the bin of each yaw; bin 0 is centred on a frontal head."""
    return np.floor(np.asarray(yaw, np.float64) / YAW_BIN + 0.5).astype(int)


def plain(value):
    """Nested NumPy and Python values as what JSON knows; not-a-number becomes null."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int | bool):
        return value
    return str(value)


def dump_json(value, indent: int | None = None) -> str:
    """JSON text of nested NumPy and Python values."""
    return json.dumps(plain(value), indent=indent, allow_nan=False)


def _points(points: np.ndarray) -> list:
    finite = np.isfinite(points).all(1)
    return [[round(x, 6) for x in p] if ok else None for p, ok in zip(points.tolist(), finite)]


def _lighting(reconstruction: Reconstruction) -> np.ndarray:
    for info in (reconstruction.fit.info, reconstruction.texture.info):
        value = info.get("lighting")
        if value is not None:
            try:
                return np.asarray(value, np.float64)
            except (TypeError, ValueError):
                continue
    return np.zeros((0, 9, 3))


def _reprojection(reconstruction: Reconstruction) -> dict:
    fit, views = reconstruction.fit, reconstruction.track.views
    used = (
        np.isfinite(fit.residuals).all(-1)
        & (fit.weights > 0)
        & (np.asarray(fit.view_weight)[:, None] > 0)
    )
    if not used.any() or not len(views):
        return {"median_px": None, "rms_px": None, "median_percent_iod": None, "landmarks": 0}
    distance = np.linalg.norm(np.where(used[..., None], fit.residuals, 0), axis=-1)
    # In the picture the eyes come together as the head turns; their distance in space, seen at
    # the head's depth, does not.
    model = fit.model
    points = landmark_points(fit.neutral, model.triangles, model.landmarks)
    eyes = [points[list(eye)].mean(0) for eye in (_RIGHT_EYE, _LEFT_EYE)]
    width = fit.K[:, 0, 0] * np.linalg.norm(eyes[0] - eyes[1]) / fit.t[:, 2]
    relative = distance / np.maximum(width, 1e-6)[:, None]
    return {
        "median_px": float(np.median(distance[used])),
        "rms_px": float(np.sqrt((distance[used] ** 2).mean())),
        "median_percent_iod": float(100 * np.median(relative[used])),
        "landmarks": int(used.sum()),
    }


def _median(values) -> float | None:
    values = np.asarray(values, np.float64)
    return float(np.median(values)) if values.size else None


def _blur(values_mm) -> dict[str, float] | None:
    if not values_mm:
        return None
    return {"median": float(np.median(values_mm)), "most": float(np.max(values_mm))}


def _share(mask: np.ndarray, where: np.ndarray) -> float:
    where = np.asarray(where, bool)
    return float(np.asarray(mask)[where].mean()) if where.any() else 0.0
