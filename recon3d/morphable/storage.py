"""Face models on disk: one .npz without pickles."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np

from recon3d.assets import asset_path
from recon3d.errors import ModelError
from recon3d.types import N_LANDMARKS, FaceModel, LandmarkEmbedding

FORMAT = 1
EMBEDDED = "recon3d"

_ARRAYS = ("mean", "identity", "expression", "triangles", "uv", "triangles_uv", "mirror")


def models_home() -> Path:
    """Where imported models and downloads are kept: ``RECON3D_HOME`` or the user's cache."""
    if os.environ.get("RECON3D_HOME"):
        return Path(os.environ["RECON3D_HOME"])
    import pooch

    return Path(pooch.os_cache("recon3d"))


def list_models() -> dict[str, Path]:
    """Models that `load_model` knows by name, with their files: the project's, then the user's."""
    folder = asset_path("face_model")
    found = {EMBEDDED: folder / "recon3d_face.npz"}
    for path in sorted(folder.glob("*.npz")):
        if path != found[EMBEDDED]:
            found[path.stem] = path
    for path in sorted((models_home() / "models").glob("*.npz")):
        found.setdefault(path.stem, path)
    return {name: path for name, path in found.items() if path.exists()}


def save_model(path: Path, model: FaceModel) -> None:
    """Write a model; the file appears under its name only when it is whole.

    Modes are stored in half precision, scaled so that nothing of note is lost: the largest rounding
    error is 2**-11 of a displacement. Albedo modes are stored as bytes with a scale each, and of a
    mode that is the same or opposite on both sides of the texture only the left half.
    """
    path = Path(path)
    data = {
        "format": np.array(FORMAT),
        "name": np.array(model.name),
        "mean": model.mean.astype(np.float64),
        "identity": model.identity.astype(np.float16),
        "expression": model.expression.astype(np.float16),
        "expression_names": np.array(model.expression_names, "U"),
        "triangles": model.triangles.astype(np.int32),
        "uv": model.uv.astype(np.float64),
        "triangles_uv": model.triangles_uv.astype(np.int32),
        "mirror": model.mirror.astype(np.int32),
        "region_names": np.array(list(model.regions), "U"),
        "regions": np.array([np.round(m * 255) for m in model.regions.values()], np.uint8),
        "licence": np.array(model.licence),
        "origin": np.array(model.origin),
        "citation": np.array(model.citation),
    }
    for key, embedding in (("landmarks", model.landmarks), ("ibug68", model.ibug68)):
        data[f"{key}_triangle"] = embedding.triangle.astype(np.int32)
        data[f"{key}_barycentric"] = embedding.barycentric.astype(np.float64)
    if model.contour is not None:
        data["contour"] = model.contour.astype(np.int32)
    if model.albedo_mean is not None:
        data["albedo_mean"] = model.albedo_mean.astype(np.float16)
        data["albedo_noise"] = np.array(model.albedo_noise, np.float64)
    if model.albedo_modes is not None:
        data |= _pack_albedo(model.albedo_modes)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for key, value in data.items():
                # A fixed date: the same model gives the same bytes.
                entry = zipfile.ZipInfo(f"{key}.npy", (1980, 1, 1, 0, 0, 0))
                entry.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(entry, "w") as file:
                    np.lib.format.write_array(
                        file, np.asarray(value, order="C"), allow_pickle=False
                    )
        os.replace(partial, path)
    except OSError as error:
        raise ModelError(f"{path}: could not be written ({error})") from error
    finally:
        partial.unlink(missing_ok=True)


def load_model(name: str | Path = EMBEDDED) -> FaceModel:
    """Read a face model.

    Parameters
    ----------
    name : str or Path
        A name from `list_models`, or the path of an .npz written by `save_model`.

    Raises
    ------
    ModelError
        If there is no such model or file, or it is damaged.
    """
    known = list_models()
    path = known.get(str(name), Path(name))
    if not path.exists():
        names = ", ".join(known) or "none installed"
        raise ModelError(
            f"no face model {str(name)!r}: neither a file nor one of: {names}. "
            "Build one with `recon3d model build`."
        )
    try:
        with np.load(path, allow_pickle=False) as z:
            data = {key: z[key] for key in z.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ModelError(f"{path}: not a face model file, or damaged ({error})") from error
    missing = [key for key in (*_ARRAYS, "format", "name", "regions") if key not in data]
    if missing:
        raise ModelError(f"{path}: not a recon3d face model, lacks {', '.join(missing)}")
    if int(data["format"].item()) != FORMAT:
        raise ModelError(
            f"{path}: format {int(data['format'])}, this version reads {FORMAT}; build it again"
        )
    try:
        model = FaceModel(
            name=str(data["name"].item()),
            mean=data["mean"].astype(np.float64),
            identity=data["identity"].astype(np.float32),
            expression=data["expression"].astype(np.float32),
            expression_names=tuple(str(n) for n in data["expression_names"]),
            triangles=data["triangles"].astype(np.int64),
            uv=data["uv"].astype(np.float64),
            triangles_uv=data["triangles_uv"].astype(np.int64),
            landmarks=_embedding(data, "landmarks"),
            ibug68=_embedding(data, "ibug68"),
            mirror=data["mirror"].astype(np.int64),
            regions={
                str(n): m.astype(np.float32) / 255
                for n, m in zip(data["region_names"], data["regions"], strict=True)
            },
            contour=data["contour"].astype(np.int64) if "contour" in data else None,
            albedo_mean=_optional(data, "albedo_mean", np.float32),
            albedo_modes=_unpack_albedo(data),
            albedo_noise=float(data["albedo_noise"].item()) if "albedo_noise" in data else 0.0,
            licence=str(data["licence"].item()),
            origin=str(data["origin"].item()),
            citation=str(data["citation"].item()),
        )
    except (KeyError, ValueError) as error:
        raise ModelError(f"{path}: damaged face model ({error})") from error
    check_model(model, str(path))
    return model


def check_model(model: FaceModel, where: str) -> None:
    """Check that a model's arrays belong together.

    Raises
    ------
    ModelError
    """
    V, F = len(model.mean), len(model.triangles)
    wanted = {
        "mean": (model.mean.shape, (V, 3)),
        "identity": (model.identity.shape[1:], (V, 3)),
        "expression": (model.expression.shape[1:], (V, 3)),
        "expression_names": ((len(model.expression_names),), model.expression.shape[:1]),
        "triangles": (model.triangles.shape, (F, 3)),
        "triangles_uv": (model.triangles_uv.shape, (F, 3)),
        "uv": (model.uv.shape, (len(model.uv), 2)),
        "mirror": (model.mirror.shape, (V,)),
        "landmarks": (model.landmarks.barycentric.shape, (N_LANDMARKS, 3)),
        "ibug68": (model.ibug68.barycentric.shape, (68, 3)),
    }
    if model.albedo_mean is not None:
        side = model.albedo_mean.shape[0]
        wanted["albedo_mean"] = (model.albedo_mean.shape, (side, side, 3))
        if model.albedo_modes is not None:
            wanted["albedo_modes"] = (model.albedo_modes.shape[1:], (side, side, 3))
    wanted |= {f"region {n}": (m.shape, (V,)) for n, m in model.regions.items()}
    for what, (shape, expected) in wanted.items():
        if tuple(shape) != tuple(expected):
            raise ModelError(f"{where}: {what} has shape {tuple(shape)}, expected {expected}")
    ranges = {
        "triangles": (model.triangles, V),
        "triangles_uv": (model.triangles_uv, len(model.uv)),
        "mirror": (model.mirror, V),
        "landmarks": (model.landmarks.triangle, F),
        "ibug68": (model.ibug68.triangle, F),
    }
    for what, (index, count) in ranges.items():
        if index.size and (index.max() >= count or index.min() < -1):
            raise ModelError(f"{where}: {what} points outside its {count} targets")
    for what in ("mean", "identity", "expression", "uv"):
        if not np.isfinite(getattr(model, what)).all():
            raise ModelError(f"{where}: {what} is not finite")


def _embedding(data: dict, key: str) -> LandmarkEmbedding:
    return LandmarkEmbedding(
        data[f"{key}_triangle"].astype(np.int64), data[f"{key}_barycentric"].astype(np.float64)
    )


def _pack_albedo(modes: np.ndarray) -> dict[str, np.ndarray]:
    """Modes (A, T, T, 3) as bytes: half of each where the other half is its mirror image."""
    count, height, width = modes.shape[:3]
    parity = np.zeros(count, np.int8)
    scale = np.zeros(count, np.float32)
    half = (width + 1) // 2
    packed = []
    for k in range(count):
        mode = np.asarray(modes[k], np.float32)
        top = float(np.abs(mode).max())
        # A power of two: steps times scale are exact in half precision, and a second save is equal.
        scale[k] = 2.0 ** np.ceil(np.log2(top / 127)) if top > 0 else 1.0
        for sign in (1, -1):
            if np.abs(mode - sign * mode[:, ::-1]).max() <= 2e-3 * top:
                parity[k] = sign
        part = mode[:, :half] if parity[k] else mode
        step = np.round(part / scale[k])
        # Channel by channel and row by row as differences: smooth fields pack to little.
        levels = step.astype(np.int16).transpose(2, 0, 1)
        packed.append(np.diff(levels, axis=2, prepend=0).astype(np.uint8).ravel())
    return {
        "albedo_shape": np.array([height, width], np.int32),
        "albedo_parity": parity,
        "albedo_scale": scale,
        "albedo_steps": np.concatenate(packed) if packed else np.zeros(0, np.uint8),
    }


def _unpack_albedo(data: dict) -> np.ndarray | None:
    """The counterpart of `_pack_albedo`; None where a model has no modes.

    Raises
    ------
    ValueError
        If the parts do not belong together.
    """
    if "albedo_steps" not in data:
        return None
    height, width = (int(n) for n in data["albedo_shape"])
    parity, scale, steps = data["albedo_parity"], data["albedo_scale"], data["albedo_steps"]
    if not 0 < height <= 4096 or not 0 < width <= 4096 or len(parity) != len(scale):
        raise ValueError("albedo modes of impossible shape")
    widths = np.where(parity != 0, (width + 1) // 2, width)
    if steps.ndim != 1 or len(steps) != int((3 * height * widths).sum()):
        raise ValueError("albedo modes are cut off")
    out = np.empty((len(parity), height, width, 3), np.float16)
    start = 0
    for k, part in enumerate(widths):
        size = 3 * height * int(part)
        levels = steps[start : start + size].reshape(3, height, int(part))
        start += size
        # Differences wrap around in a byte, and so does their sum: the levels come back exactly.
        values = np.cumsum(levels, axis=2, dtype=np.uint8).view(np.int8)
        mode = (values.transpose(1, 2, 0) * scale[k]).astype(np.float16)
        out[k, :, : int(part)] = mode
        if parity[k]:
            out[k, :, width - int(part) :] = parity[k] * mode[:, ::-1]
            out[k, :, : int(part)] = mode
    return out


def _optional(data: dict, key: str, dtype) -> np.ndarray | None:
    return data[key].astype(dtype) if key in data else None
