"""Downloads from a local server: whole, interrupted, damaged and out of reach."""

import functools
import http.server
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from recon3d.cli.main import main
from recon3d.errors import BackendUnavailable, InputError, ModelError
from recon3d.morphable import install
from recon3d.morphable.importers import ict, ict_pins
from recon3d.morphable.install import Source, download, source
from recon3d.morphable.storage import list_models, models_home

SHARED = Path(os.environ.get("RECON3D_SHARED", Path(__file__).parents[2].parent / "shared"))
SAMPLE = SHARED / "data" / "ict_facekit" / "ict_raw_sample.tar.xz"


class _Handler(http.server.SimpleHTTPRequestHandler):
    asked: list = []  # noqa: RUF012

    def do_GET(self):
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path):
    """A folder that is served, its address and the list of what was asked for."""
    folder = tmp_path / "served"
    folder.mkdir()
    _Handler.asked.clear()
    handler = functools.partial(_Handler, directory=str(folder))
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{httpd.server_port}", _Handler.asked
    httpd.shutdown()
    httpd.server_close()


def small(check=lambda root, name: None):
    import hashlib

    return Source(
        name="small",
        url="http://127.0.0.1:9/",
        licence="MIT",
        origin="a test",
        citation="nobody",
        megabytes=1,
        files={"a.txt": hashlib.sha256(b"aaa").hexdigest(), "sub/b.txt": None},
        folder="sub",
        check=check,
    )


def serve(folder):
    (folder / "sub").mkdir()
    (folder / "a.txt").write_bytes(b"aaa")
    (folder / "sub" / "b.txt").write_bytes(b"bbb")


def test_download_and_again(server, tmp_path):
    folder, url, asked = server
    serve(folder)
    steps = []
    out = download(small(), url=url, home=tmp_path, progress=lambda *x: steps.append(x))
    assert (out / "b.txt").read_bytes() == b"bbb"
    assert steps == [(1, 2), (2, 2)]
    assert len(asked) == 2
    download(small(), url=url, home=tmp_path)
    assert len(asked) == 2, "what is there is not fetched again"


def test_goes_on_where_it_stopped(server, tmp_path):
    folder, url, asked = server
    serve(folder)
    (folder / "sub" / "b.txt").rename(folder / "sub" / "later")
    with pytest.raises(BackendUnavailable, match="404"):
        download(small(), url=url, home=tmp_path)
    (folder / "sub" / "later").rename(folder / "sub" / "b.txt")
    download(small(), url=url, home=tmp_path)
    assert asked == ["/a.txt", "/sub/b.txt", "/sub/b.txt"]


def test_wrong_content_is_refused_and_not_kept(server, tmp_path):
    folder, url, _ = server
    serve(folder)
    (folder / "a.txt").write_bytes(b"other")
    with pytest.raises(ModelError, match="not the file that is known"):
        download(small(), url=url, home=tmp_path)
    assert not list(tmp_path.rglob("downloads/**/a.txt"))
    (folder / "a.txt").write_bytes(b"aaa")

    def check(root, name):
        raise ModelError(f"{name}: expected b, found something else")

    with pytest.raises(ModelError, match="expected b"):
        download(small(check), url=url, home=tmp_path)
    assert not list(tmp_path.rglob("downloads/**/b.txt"))


def test_offline_is_one_clear_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RECON3D_HOME", str(tmp_path))
    assert main(["model", "install", "ict-facekit", "--url", "http://127.0.0.1:9/"]) == 2
    out, err = capsys.readouterr()
    assert "licence MIT" in out
    lines = [line for line in err.splitlines() if line.startswith("recon3d:")]
    assert len(lines) == 1
    assert "cannot be downloaded" in lines[0] and "recon3d model import" in lines[0]
    assert "Traceback" not in err


def test_unknown_name():
    with pytest.raises(InputError, match="known: ict-facekit"):
        source("flame")


def test_every_published_shape_is_pinned():
    wanted = source("ict-facekit")
    assert len(wanted.files) == 3 + 100 + 53
    assert all(len(ict_pins.SHAPES[Path(n).stem]) == 32 for n, h in wanted.files.items() if not h)
    assert wanted.licence == "MIT"


def test_pins_fit_the_published_files(tmp_path, server):
    """The shared sample of published files, served, passes; a changed vertex does not."""
    if not SAMPLE.exists():
        pytest.skip("the ICT-FaceKit sample of the shared folder is absent")
    import dataclasses
    import tarfile

    folder, url, _ = server
    with tarfile.open(SAMPLE) as archive:
        archive.extractall(folder, filter="data")
    published = source("ict-facekit")
    here = {n: h for n, h in published.files.items() if (folder / n).exists()}
    assert len(here) == 14
    part = dataclasses.replace(published, files=here)
    out = download(part, url=url, home=tmp_path)
    assert len(ict.read(out).identity) == 6

    path = folder / "FaceXModel" / "jawOpen.obj"
    lines = path.read_text().splitlines()
    row = next(i for i, line in enumerate(lines) if line.startswith("v "))
    values = [float(x) for x in lines[row].split()[1:]]
    lines[row] = "v " + " ".join(str(x + 0.2) for x in values)
    path.write_text("\n".join(lines))
    (out / "jawOpen.obj").unlink()
    with pytest.raises(ModelError, match=r"jawOpen\.obj: expected a shape with digest"):
        download(part, url=url, home=tmp_path)


def test_models_home_and_listing(tmp_path, monkeypatch):
    from recon3d.morphable import load_model

    monkeypatch.setenv("RECON3D_HOME", str(tmp_path))
    assert models_home() == tmp_path
    assert install.models_home() == tmp_path
    (tmp_path / "models").mkdir()
    np.savez(tmp_path / "models" / "mine.npz", a=np.zeros(1))
    assert list_models()["mine"] == tmp_path / "models" / "mine.npz"
    with pytest.raises(ModelError, match="not a recon3d face model"):
        load_model("mine")
    monkeypatch.delenv("RECON3D_HOME")
    assert models_home().name == "recon3d"
