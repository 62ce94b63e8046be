"""`recon3d doctor`: what works here, and the one line that mends what does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import typer

REQUIRED = (
    ("numpy", "numpy"),
    ("torch", "torch"),
    ("mediapipe", "mediapipe"),
    ("opencv-python", "cv2"),
    ("av", "av"),
    ("numba", "numba"),
    ("scipy", "scipy"),
    ("scikit-image", "skimage"),
    ("trimesh", "trimesh"),
    ("pygltflib", "pygltflib"),
    ("pydantic", "pydantic"),
    ("rich", "rich"),
)
"""Distribution and module of what recon3d cannot do without."""

VIEWER_MEND = (
    "apt-get install libusb-1.0-0 libegl1 libgl1 libgomp1 libvulkan1 mesa-vulkan-drivers && "
    "pip install 'recon3d[viewer]'"
)
OPTIONAL = (
    ("open3d-cpu", "open3d", "the window of recon3d view", VIEWER_MEND),
    ("onnxruntime", "onnxruntime", "networks in ONNX form", "pip install 'recon3d[onnx]'"),
    ("h5py", "h5py", "Basel face models", "pip install 'recon3d[models]'"),
    ("face-alignment", "face_alignment", "the second landmark source", "make setup"),
    ("nbclient", "nbclient", "notebooks", "pip install 'recon3d[notebook]'"),
    ("ipykernel", "ipykernel", "notebooks", "pip install 'recon3d[notebook]'"),
    ("mkdocs-material", "material", "building the documentation", "pip install 'recon3d[docs]'"),
)
"""Distribution, module, use and remedy of what recon3d does well without."""


def doctor(as_json: bool = typer.Option(False, "--json", help="Machine-readable.")) -> None:
    """Check back ends, devices, models and weights, and reconstruct one picture."""
    import json

    rows = []
    group = None
    for row in _checks():
        rows.append(row)
        if as_json:
            continue
        # Printed as they come: the later checks take a second or two.
        if row["group"] != group:
            group = row["group"]
            typer.secho(group, bold=True)
        mark = "ok " if row["ok"] else ("-- " if row["optional"] else "BAD")
        licence = f"  [{row['licence']}]" if row["licence"] else ""
        typer.echo(f"  {mark} {row['name']:<26} {row['detail']}{licence}")
        if row["mend"]:
            typer.echo(f"      {'':<26} mend: {row['mend']}")
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
    bad = [row["name"] for row in rows if not row["ok"] and not row["optional"]]
    if not as_json:
        missing = sum(not row["ok"] and row["optional"] for row in rows)
        left = f"; {missing} optional part{'s' * (missing != 1)} missing" if missing else ""
        typer.echo("recon3d works here" + left if not bad else f"to be mended: {', '.join(bad)}")
    if bad:
        raise typer.Exit(3)


def _row(
    group: str,
    name: str,
    ok: bool,
    detail: str,
    mend: str = "",
    *,
    optional: bool = True,
    version: str | None = None,
    licence: str = "",
) -> dict:
    return {
        "group": group,
        "name": name,
        "ok": ok,
        "detail": detail,
        "mend": "" if ok else mend,
        "optional": optional,
        "version": version,
        "licence": licence,
    }


def _library(group: str, name: str, module: str, use: str, mend: str, optional: bool) -> dict:
    """Import a library and say its version; the first line of its error otherwise."""
    import importlib
    from importlib import metadata

    from recon3d.tracking.quiet import quiet_native_logs

    try:
        with quiet_native_logs():
            importlib.import_module(module)
    except Exception as error:
        why = (str(error) or type(error).__name__).splitlines()[0][:90]
        detail = f"{use}: {why}" if use else why
        return _row(group, name, False, detail, mend, optional=optional)
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        version = None
    detail = version or "present"
    return _row(
        group,
        name,
        True,
        f"{detail:<12} {use}".strip() if use else detail,
        optional=optional,
        version=version,
    )


def _checks() -> Iterator[dict]:
    import platform
    import sys

    group = "Python and libraries"
    yield _row(
        group,
        "python",
        sys.version_info[:2] == (3, 11),
        platform.python_version(),
        "use Python 3.11",
        optional=False,
        version=platform.python_version(),
    )
    for name, module in REQUIRED:
        yield _library(group, name, module, "", "make setup", False)
    yield _device("Devices and rasterisers")
    yield from _rasterisers("Devices and rasterisers")
    for name, module, use, mend in OPTIONAL:
        yield _library("Optional parts", name, module, use, mend, True)
    group = "Models and weights"
    yield from _models(group)
    yield _landmarks(group)
    yield _correction(group)
    yield _embedder(group)
    yield _refiner(group)
    yield _face_alignment(group)
    yield _self_test("Self-test")


def _device(group: str) -> dict:
    try:
        import torch

        version = str(torch.__version__)
        if torch.cuda.is_available():
            detail = f"cuda: {torch.cuda.get_device_name(0)}"
        else:
            detail = f"cpu, {torch.get_num_threads()} threads (no CUDA device)"
        return _row(group, "device", True, detail, version=version)
    except Exception as error:
        why = str(error).splitlines()[0]
        return _row(group, "device", False, why, "make setup", optional=False)


def _rasterisers(group: str) -> Iterator[dict]:
    from recon3d.rendering import available_backends

    for status in available_backends():
        yield _row(
            group,
            f"rasteriser {status.name}",
            status.available,
            status.detail,
            status.remedy,
            optional=status.name != "native",
        )


def _models(group: str) -> Iterator[dict]:
    """The embedded face model, and those that the user has brought."""
    from recon3d.errors import Recon3DError
    from recon3d.morphable import list_models, load_model

    mend = "git checkout assets/face_model"
    for number, name in enumerate(dict.fromkeys(["recon3d", *list_models()])):
        label = "face model" if number == 0 else f"face model {name}"
        try:
            model = load_model(name)
        except Recon3DError as error:
            yield _row(group, label, False, str(error), mend, optional=number > 0)
            continue
        detail = f"{model.name}, {model.n_vertices} vertices"
        yield _row(group, label, True, detail, optional=number > 0, licence=model.licence)


def _landmarks(group: str) -> dict:
    """MediaPipe's networks lie inside its wheel."""
    from importlib.util import find_spec

    from recon3d.licences import MEDIAPIPE

    spec = find_spec("mediapipe")
    folder = Path(spec.origin).parent / "modules" if spec and spec.origin else None
    found = sorted(folder.rglob("*.tflite")) if folder else []
    return _row(
        group,
        "landmark networks",
        bool(found),
        f"mediapipe, {len(found)} networks in its wheel" if found else "not in the mediapipe wheel",
        "pip install --force-reinstall mediapipe==0.10.21",
        optional=False,
        licence=MEDIAPIPE.licence,
    )


def _correction(group: str) -> dict:
    """Of the landmarks of small faces; an asset."""
    from recon3d.errors import ModelError
    from recon3d.tracking.correction import read_corrector

    label = "landmark correction"
    try:
        corrector = read_corrector()
    except ModelError as error:
        return _row(
            group, label, False, str(error), "git checkout -- assets/landmarks", optional=False
        )
    detail = f"{corrector.about.get('steps', '?')} steps"
    licence = corrector.describe().licence
    return _row(group, label, True, detail, optional=False, licence=licence)


def _embedder(group: str) -> dict:
    from recon3d.errors import Recon3DError
    from recon3d.licences import DLIB
    from recon3d.recognition import load_embedder

    try:
        load_embedder()
    except Recon3DError as error:
        return _row(group, "face embedder", False, str(error), "pip install 'recon3d[recognition]'")
    return _row(group, "face embedder", True, DLIB.name, licence=DLIB.licence)


def _refiner(group: str) -> dict:
    """The weights that travel with the project."""
    from recon3d.refinement import SHIPPED_LICENCE, shipped_path

    path = shipped_path()
    if not path.is_file():
        return _row(
            group,
            "refiner weights",
            False,
            f"none in {path.parent.name}/: the fused view is the final one",
            "recon3d train refiner, or a network of your own: recon3d run --refiner PATH",
        )
    size = f"{path.name} ({path.stat().st_size / 2**20:.1f} MiB)"
    return _row(group, "refiner weights", True, size, licence=SHIPPED_LICENCE)


def _face_alignment(group: str) -> dict:
    from recon3d.errors import Recon3DError
    from recon3d.licences import FACE_ALIGNMENT
    from recon3d.tracking import TrackingSettings, load_landmarker

    name = "face-alignment weights"
    try:
        load_landmarker(TrackingSettings(landmarks="face-alignment"))
        return _row(group, name, True, "present", licence=FACE_ALIGNMENT.licence)
    except Recon3DError as error:
        return _row(group, name, False, str(error), "put the files in that folder")


def _self_test(group: str) -> dict:
    """Reconstruct a face that comes with an installed package, in about three seconds."""
    import time

    import numpy as np

    from recon3d.types import Frame

    start = time.perf_counter()
    mend = "report it, with the output of recon3d doctor --json"
    try:
        import skimage.data

        from recon3d.fitting import fit_track
        from recon3d.frontal import FrontalSettings, render_frontal
        from recon3d.morphable import load_model
        from recon3d.texturing import TexturingSettings, fuse_texture
        from recon3d.tracking import track_faces

        frame = Frame(np.ascontiguousarray(skimage.data.astronaut()[:360, 40:400]), 0, 0.0)
        tracks = track_faces([frame]).tracks
        if not tracks:
            detail = "no face found in the test picture"
            return _row(group, "self-test", False, detail, mend, optional=False)
        fit = fit_track(tracks[0], load_model("recon3d"))
        texture = fuse_texture(tracks[0], fit, TexturingSettings(size=256))
        frontal = render_frontal(tracks[0], fit, texture, FrontalSettings())
        eyes = frontal.landmarks[[33, 133, 362, 263]].reshape(2, 2, 2).mean(1)
        wanted = np.array([[0.36, 0.44], [0.64, 0.44]]) * 512
        away = float(np.linalg.norm(eyes - wanted, axis=1).max())
        ok = bool(away < 10 and frontal.image.std() > 10)
        seconds = time.perf_counter() - start
        detail = f"tracked, fitted, textured and drawn in {seconds:.1f} s; eyes {away:.1f} px off"
        return _row(group, "self-test", ok, detail, mend, optional=False)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        return _row(group, "self-test", False, why, mend, optional=False)
