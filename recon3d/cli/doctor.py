"""`recon3d doctor`: what works here, and the one line that mends what does not."""

from __future__ import annotations

import typer


def doctor(as_json: bool = typer.Option(False, "--json", help="Machine-readable.")) -> None:
    """Check back ends, devices, models and weights."""
    import json

    rows = list(_checks())
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
    else:
        for row in rows:
            mark = "ok " if row["ok"] else ("-- " if row["optional"] else "BAD")
            typer.echo(f"{mark} {row['name']:<28} {row['detail']}")
            if row["mend"]:
                typer.echo(f"    {'':<28} mend: {row['mend']}")
    if any(not row["ok"] and not row["optional"] for row in rows):
        raise typer.Exit(3)


def _row(name: str, ok: bool, detail: str, mend: str = "", optional: bool = True) -> dict:
    return {
        "name": name,
        "ok": ok,
        "detail": detail,
        "mend": "" if ok else mend,
        "optional": optional,
    }


def _library(name: str, module: str, mend: str, optional: bool) -> dict:
    """Import a library and say its version; the first line of its error otherwise."""
    import importlib
    from importlib import metadata

    try:
        importlib.import_module(module)
        return _row(name, True, metadata.version(name))
    except metadata.PackageNotFoundError:
        return _row(name, True, "present")
    except Exception as error:
        return _row(name, False, str(error).splitlines()[0][:90], mend, optional)


def _checks():
    import platform
    import sys

    from recon3d.errors import Recon3DError

    yield _row(
        "python",
        sys.version_info[:2] == (3, 11),
        platform.python_version(),
        "use Python 3.11",
        False,
    )
    for name, module in (
        ("numpy", "numpy"),
        ("torch", "torch"),
        ("mediapipe", "mediapipe"),
        ("opencv-python", "cv2"),
        ("av", "av"),
        ("numba", "numba"),
        ("scipy", "scipy"),
        ("trimesh", "trimesh"),
        ("pygltflib", "pygltflib"),
    ):
        yield _library(name, module, "make setup", False)
    yield _device()
    yield from _rasterisers()
    yield _library(
        "open3d-cpu",
        "open3d",
        "apt-get install libusb-1.0-0 libegl1 libgl1 libgomp1 && pip install 'recon3d[viewer]'",
        True,
    )
    yield _library("onnxruntime", "onnxruntime", "pip install 'recon3d[onnx]'", True)
    yield _model()
    try:
        from recon3d.recognition import load_embedder

        load_embedder()
        yield _row("face embedder", True, "dlib face recognition ResNet v1 (CC0-1.0)")
    except Recon3DError as error:
        yield _row("face embedder", False, str(error), "pip install 'recon3d[recognition]'")
    yield _face_alignment()
    yield _self_test()


def _device() -> dict:
    try:
        import torch

        if torch.cuda.is_available():
            return _row("device", True, f"cuda: {torch.cuda.get_device_name(0)}")
        return _row("device", True, f"cpu, {torch.get_num_threads()} threads (no CUDA device)")
    except Exception as error:
        return _row("device", False, str(error).splitlines()[0], "make setup", False)


def _rasterisers():
    from recon3d.rendering import available_backends

    for status in available_backends():
        required = status.name == "native"
        name = f"rasteriser {status.name}"
        yield _row(name, status.available, status.detail, status.remedy, not required)


def _model() -> dict:
    from recon3d.errors import Recon3DError
    from recon3d.morphable import load_model

    try:
        model = load_model("recon3d")
        return _row(
            "face model", True, f"{model.name}, {model.n_vertices} vertices, {model.licence}"
        )
    except Recon3DError as error:
        return _row("face model", False, str(error), "git checkout assets/face_model", False)


def _face_alignment() -> dict:
    from recon3d.errors import Recon3DError
    from recon3d.tracking import TrackingSettings, load_landmarker

    try:
        load_landmarker(TrackingSettings(landmarks="face-alignment"))
        return _row("face-alignment weights", True, "present")
    except Recon3DError as error:
        return _row("face-alignment weights", False, str(error), "put the files in that folder")


def _self_test() -> dict:
    """Find and measure a face that comes with an installed package, in about three seconds."""
    import time

    from recon3d.types import Frame

    start = time.perf_counter()
    try:
        import skimage.data

        from recon3d.fitting import fit_track
        from recon3d.morphable import load_model
        from recon3d.tracking import track_faces

        frame = Frame(skimage.data.astronaut(), 0, 0.0)
        tracks = track_faces([frame]).tracks
        if not tracks:
            return _row("self-test", False, "no face found in the test picture", "report it", False)
        fit = fit_track(tracks[0], load_model("recon3d"))
        seconds = time.perf_counter() - start
        ok = bool(abs(fit.R).max() <= 1.0 + 1e-6)
        return _row(
            "self-test",
            ok,
            f"one picture tracked and fitted in {seconds:.1f} s",
            "report it",
            False,
        )
    except Exception as error:
        return _row("self-test", False, f"{type(error).__name__}: {error}", "report it", False)
