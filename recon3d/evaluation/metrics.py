"""How far a reconstruction is from the truth: the mesh in millimetres, the frontal picture.

Geometry follows the NoW protocol [1]_: seven landmarks align, iterative closest points refine, and
distances go from the true points to the predicted surface. Pictures are aligned by their eyes and
matched in exposure and white balance, because neither is a property of the face.

References
----------
.. [1] S. Sanyal, T. Bolkart, H. Feng, M. J. Black, Learning to regress 3D face shape and expression
   from an image without 3D supervision, CVPR 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from recon3d.checks import check_shape
from recon3d.errors import BackendUnavailable
from recon3d.evaluation.surfaces import Surface, align_to_scan
from recon3d.geometry.alignment import umeyama
from recon3d.scenes.truth import (
    PictureTruth,
    ShapeTruth,
    eye_alignment,
    eye_centres,
    portrait_landmarks,
)

COVER_MM = 5.0
"""Points closer than this count as covered."""

_N_MESH = 468
_FACE_REACH = 95.0
_GREY = 118
_LUMA = np.array([0.299, 0.587, 0.114])


# -------------------------------------------------------------------------------- geometry
def shape_metrics(
    vertices: np.ndarray, triangles: np.ndarray, now7: np.ndarray | None, truth: ShapeTruth
) -> dict[str, float]:
    """Distances from the true face to a predicted surface.

    Parameters
    ----------
    vertices : (V, 3), mm
    triangles : (F, 3) int
    now7 : (7, 3), mm, on the predicted surface; None aligns by the nose tip, less surely
    truth : ShapeTruth

    Returns
    -------
    dict
        ``metric_*`` with the size as predicted and ``nonmetric_*`` with the size fitted: median,
        mean and std in mm, cover (share of points closer than 5 mm); ``scale`` that was fitted.

    Raises
    ------
    InputError
        If the mesh is empty or not finite.
    """
    vertices = np.asarray(vertices, np.float64)
    surface = Surface(vertices, triangles)
    points, normals = truth.points, truth.normals
    out: dict[str, float] = {}
    for name, fit_scale in (("metric", False), ("nonmetric", True)):
        if now7 is None:
            starts = _blind_starts(vertices, truth, fit_scale)
        else:
            check_shape(now7, "7 3", "now7")
            starts = [umeyama(np.asarray(now7, np.float64), truth.now7, scale=fit_scale)]
        best = None
        for start in starts:
            s, R, t = align_to_scan(surface, points, normals, start, scale=fit_scale)
            distance = surface.closest(((points - t) @ R) / s)[1] * s
            if best is None or np.median(distance) < np.median(best[0]):
                best = distance, s
        distance, s = best
        out[f"{name}_median"] = float(np.median(distance))
        out[f"{name}_mean"] = float(distance.mean())
        out[f"{name}_std"] = float(distance.std())
        out[f"{name}_cover"] = float((distance < COVER_MM).mean())
        if fit_scale:
            out["scale"] = float(s)
    return out


def _blind_starts(vertices: np.ndarray, truth: ShapeTruth, fit_scale: bool) -> list:
    """Shifts (and a size) to try where no landmarks are known; the axes are taken as given."""
    centre = vertices.mean(0)
    tip = vertices[vertices[:, 2] > vertices[:, 2].max() - 3].mean(0)
    foremost = vertices[np.argmax(vertices[:, 2])]
    k = 1.0
    if fit_scale:
        near = vertices[np.linalg.norm(vertices - tip, axis=1) < _FACE_REACH]
        spread = (near if len(near) > 10 else vertices).std(0).mean()
        k = float(np.clip(truth.points.std(0).mean() / max(spread, 1e-6), 0.5, 2.0))
    noses = (tip, foremost, np.array([centre[0], centre[1], foremost[2]]))
    starts = [(k, np.eye(3), truth.nose_tip - k * nose) for nose in noses]
    return [*starts, (1.0, np.eye(3), truth.points.mean(0) - centre)]


# -------------------------------------------------------------------------------- pictures
def picture_metrics(
    image: np.ndarray, truth: PictureTruth, describe: FaceDescriptor | None = None
) -> dict[str, float] | None:
    """Compare a frontal picture with the true one.

    Parameters
    ----------
    image : (H, W), (H, W, 3) or (H, W, 4) uint8 sRGB, any size
    truth : PictureTruth
    describe : FaceDescriptor, optional
        Adds the identity distance.

    Returns
    -------
    dict or None
        ``psnr`` (dB), ``ssim``, ``ssim_y`` inside the mask; ``sharpness`` (mean gradient relative
        to the truth at equal contrast); ``nme`` (percent of the distance of the eyes); ``yaw``,
        ``yaw_signed``, ``pitch_signed`` (degrees); ``id_dist``. None where no face is found.
    """
    image = _on_grey(image)
    landmarks = portrait_landmarks(image)
    if landmarks is None:
        return None
    target, mask = truth.image.astype(np.float64), truth.mask
    M = eye_alignment(landmarks, truth.landmarks)
    warped, aligned = _aligned(image, landmarks, M, mask.shape)
    seen = warped.astype(np.float64)
    matched = _match_channels(seen, target, mask)
    out: dict[str, float] = {}
    error = ((matched - target)[mask] ** 2).mean()
    out["psnr"] = float(min(10 * np.log10(255**2 / max(error, 1e-9)), 99.0))
    out["ssim"] = float(np.mean([ssim(matched[..., c], target[..., c], mask) for c in range(3)]))
    out["ssim_y"] = ssim(matched @ _LUMA, target @ _LUMA, mask)
    out["sharpness"] = _contrast(seen @ _LUMA, mask) / max(_contrast(target @ _LUMA, mask), 1e-9)

    eyes = eye_centres(truth.landmarks)
    apart = np.linalg.norm(eyes[1] - eyes[0])
    offset = aligned[:_N_MESH, :2] - truth.landmarks[:_N_MESH, :2]
    out["nme"] = float(100 * np.linalg.norm(offset, axis=1).mean() / apart)
    _, R, _ = umeyama(truth.landmarks[:_N_MESH], aligned[:_N_MESH])
    out["yaw_signed"] = float(np.degrees(np.arctan2(-R[2, 0], R[2, 2])))
    out["yaw"] = abs(out["yaw_signed"])
    out["pitch_signed"] = float(np.degrees(np.arcsin(np.clip(R[2, 1], -1, 1))))
    if describe is not None:
        if truth.descriptor is None:
            truth.descriptor = describe(truth.image, truth.landmarks)
        out["id_dist"] = float(np.linalg.norm(describe(warped, aligned) - truth.descriptor))
    return out


def pixel_placement(image: np.ndarray, truth: PictureTruth) -> tuple[float, np.ndarray] | None:
    """PSNR of a frontal picture that is placed by its pixels and not by the eyes found in it.

    Landmarkers find the eyes of soft faces some percent of their distance too high, more with some
    people than with others, and PSNR falls by decibels with a picture that is as good. Here the
    similarity is sought, from the eyes' on, that leaves the least error.

    Parameters
    ----------
    image : (H, W, 3) uint8 sRGB
    truth : PictureTruth

    Returns
    -------
    psnr : float, dB
    M : (2, 3)
        The similarity, from the picture to the truth, px.
        None instead of both where no face is found.
    """
    from scipy.optimize import minimize

    landmarks = portrait_landmarks(image)
    if landmarks is None:
        return None
    start = eye_alignment(landmarks, truth.landmarks)
    target, mask = truth.image.astype(np.float64), truth.mask
    middle = np.argwhere(mask).mean(0)[::-1]

    def moved(step: np.ndarray) -> np.ndarray:
        change = np.array([[1 + step[0], -step[1]], [step[1], 1 + step[0]]])
        shift = change @ (start[:, 2] - middle) + middle + step[2:]
        return np.column_stack([change @ start[:, :2], shift])

    def error(step: np.ndarray) -> float:
        warped, _ = _aligned(image, landmarks, moved(step), mask.shape)
        matched = _match_channels(warped.astype(np.float64), target, mask)
        return float(((matched - target)[mask] ** 2).mean())

    first = np.vstack([np.zeros(4), np.diag([0.02, 0.02, 4.0, 4.0])])
    found = minimize(
        error,
        np.zeros(4),
        method="Nelder-Mead",
        options=dict(initial_simplex=first, maxiter=150, xatol=1e-3, fatol=0.05),
    )
    return float(10 * np.log10(255**2 / max(found.fun, 1e-9))), moved(found.x)


def picture_error(
    image: np.ndarray, truth: PictureTruth, maps: np.ndarray, M: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray] | None:
    """Where a frontal picture is wrong, aligned and matched as `picture_metrics` does.

    Parameters
    ----------
    image : (H, W, 3) uint8 sRGB
    truth : PictureTruth
    maps : (H, W, C) float32
        Anything that lies on the picture's pixels, to be carried along.
    M : (2, 3), optional
        From the picture to the truth, px, such as `pixel_placement` gives; by the eyes without.

    Returns
    -------
    error : (h, w) float64
        Of luma, 0 to 255, signed; only pixels of ``truth.mask`` mean something.
    maps : (h, w, C) float32
        None instead of both where no face is found.
    """
    landmarks = portrait_landmarks(image)
    if landmarks is None:
        return None
    M = eye_alignment(landmarks, truth.landmarks) if M is None else M
    warped, _ = _aligned(image, landmarks, M, truth.mask.shape)
    target = truth.image.astype(np.float64)
    matched = _match_channels(warped.astype(np.float64), target, truth.mask)
    carried = cv2.warpAffine(np.asarray(maps, np.float32), M, truth.mask.shape[::-1])
    carried = carried.reshape(*truth.mask.shape, -1)
    return (matched - target) @ _LUMA, carried


def identity_distances(
    image: np.ndarray, truths: Sequence[PictureTruth], describe: FaceDescriptor
) -> np.ndarray | None:
    """How far a frontal picture is from each of several people, framed as `picture_metrics` does.

    Parameters
    ----------
    image : (H, W), (H, W, 3) or (H, W, 4) uint8 sRGB, any size
    truths : sequence of PictureTruth
    describe : FaceDescriptor

    Returns
    -------
    (P,) Euclidean distances of descriptors, or None where no face is found
    """
    image = _on_grey(image)
    landmarks = portrait_landmarks(image)
    if landmarks is None:
        return None
    out = []
    for truth in truths:
        M = eye_alignment(landmarks, truth.landmarks)
        warped, aligned = _aligned(image, landmarks, M, truth.mask.shape)
        if truth.descriptor is None:
            truth.descriptor = describe(truth.image, truth.landmarks)
        out.append(np.linalg.norm(describe(warped, aligned) - truth.descriptor))
    return np.array(out)


def _aligned(
    image: np.ndarray, landmarks: np.ndarray, M: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """A picture and its landmarks (478, 3) carried over by a similarity, into (H, W)."""
    size = float(np.hypot(M[0, 0], M[1, 0]))
    # Shrinking by more than a little would alias.
    source = cv2.GaussianBlur(image, (0, 0), 0.45 / size) if size < 0.6 else image
    warped = cv2.warpAffine(
        source, M, shape[::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    points = np.column_stack([landmarks[:, :2] @ M[:, :2].T + M[:, 2], landmarks[:, 2] * size])
    return warped, points


def ssim(a: np.ndarray, b: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Mean structural similarity [1]_ of two single-channel pictures on the scale of 0 to 255.

    Parameters
    ----------
    a, b : (H, W)
    mask : (H, W) bool, optional
        Where the mean is taken; the statistics look beyond it by half a window.

    References
    ----------
    .. [1] Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, Image quality assessment: from
       error visibility to structural similarity, IEEE TIP 13(4), 2004.

    Examples
    --------
    >>> x = np.random.default_rng(0).uniform(0, 255, (32, 32))
    >>> ssim(x, x)
    1.0
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)

    def smooth(x):
        return cv2.GaussianBlur(x, (11, 11), 1.5)

    mean_a, mean_b = smooth(a), smooth(b)
    var_a, var_b = smooth(a * a) - mean_a**2, smooth(b * b) - mean_b**2
    covariance = smooth(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    value = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    value /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return float(value.mean() if mask is None else value[mask].mean())


class FaceDescriptor:
    """dlib's 128-dimensional face descriptor, framed by landmarks.

    Recognition proper lives in `recon3d.recognition`. The benchmark fixes how the face is framed,
    and figures must not move when recognition improves its own framing; so this does it alone.

    Raises
    ------
    BackendUnavailable
        If dlib or its weights are not installed.
    """

    NETWORK = "dlib_face_recognition_resnet_model_v1.dat"
    PREDICTOR = "shape_predictor_5_face_landmarks.dat"

    def __init__(self, folder: Path | None = None):
        remedy = "pip install 'recon3d[recognition]'"
        try:
            import dlib
        except ImportError as error:
            raise BackendUnavailable(f"identity distance needs dlib: {remedy}") from error
        folder = _dlib_folder() if folder is None else Path(folder)
        paths = [None if folder is None else folder / n for n in (self.NETWORK, self.PREDICTOR)]
        if any(path is None or not path.is_file() for path in paths):
            raise BackendUnavailable(f"identity distance needs dlib's weights: {remedy}")
        self._dlib = dlib
        self._network = dlib.face_recognition_model_v1(str(paths[0]))
        self._predictor = dlib.shape_predictor(str(paths[1]))

    def __call__(self, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """(128,) descriptor of the face with those landmarks (478, 2 or 3), px."""
        mesh = landmarks[:_N_MESH]
        left, right = mesh[:, 0].min(), mesh[:, 0].max()
        # The square reaches from the brows (or the middle of the forehead) to the chin, as the
        # boxes do that dlib's predictor was trained with.
        brows = mesh[[70, 105, 300, 334], 1].min()
        top = min(brows, 0.35 * mesh[10, 1] + 0.65 * mesh[151, 1])
        bottom = mesh[152, 1]
        x, y = (left + right) / 2, (top + bottom) / 2
        half = max(right - left, bottom - top) / 2
        box = self._dlib.rectangle(int(x - half), int(y - half), int(x + half), int(y + half))
        image = np.ascontiguousarray(image)
        shape = self._predictor(image, box)
        return np.array(self._network.compute_face_descriptor(image, shape))


def load_descriptor() -> FaceDescriptor | None:
    """A `FaceDescriptor`, or None where dlib is not installed."""
    try:
        return FaceDescriptor()
    except BackendUnavailable:
        return None


def _dlib_folder() -> Path | None:
    """Folder of the weights inside the package face_recognition_models (not imported: its import
    fails with recent setuptools)."""
    from importlib import metadata

    try:
        files = metadata.files("face_recognition_models") or []
    except metadata.PackageNotFoundError:
        return None
    return next((Path(f.locate()).parent for f in files if f.name == FaceDescriptor.NETWORK), None)


def _on_grey(image: np.ndarray) -> np.ndarray:
    """Three channels; transparent pixels become mid grey."""
    if image.ndim == 2:
        return np.repeat(image[..., None], 3, axis=2)
    if image.shape[2] == 4:
        alpha = image[..., 3:].astype(np.float32) / 255
        return (image[..., :3] * alpha + _GREY * (1 - alpha)).astype(np.uint8)
    return image


def _match_channels(image: np.ndarray, target: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The picture with the least-squares gain and offset of each channel inside the mask."""
    out = np.empty_like(image)
    for c in range(3):
        x, y = image[..., c][mask], target[..., c][mask]
        spread = x - x.mean()
        gain = (spread * (y - y.mean())).sum() / max((spread**2).sum(), 1e-9)
        out[..., c] = np.clip(gain * (image[..., c] - x.mean()) + y.mean(), 0, 255)
    return out


def _contrast(luma: np.ndarray, mask: np.ndarray) -> float:
    """Mean gradient well inside the mask over the standard deviation inside it."""
    inner = cv2.erode(mask.astype(np.uint8), np.ones((9, 9))) > 0
    gradient = np.hypot(cv2.Sobel(luma, cv2.CV_64F, 1, 0), cv2.Sobel(luma, cv2.CV_64F, 0, 1))
    return float(gradient[inner].mean() / max(luma[mask].std(), 1e-9))
