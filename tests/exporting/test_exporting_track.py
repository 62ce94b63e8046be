"""The folder of a track: contents, metadata, and what failures leave behind."""

import json
import resource
from dataclasses import replace

import cv2
import numpy as np
import pytest

from recon3d.errors import InputError
from recon3d.exporting import NOTICE, load_result, png_text, write_png, write_track
from recon3d.exporting.pictures import best_views
from recon3d.exporting.records import NOW7, landmark_points
from recon3d.files import atomic_write

CONTRACT = {
    "mesh.ply", "mesh.glb", "mesh.obj", "mesh.mtl", "texture.png", "landmarks.json",
    "frontal.png", "frontal_raw.png", "evidence.png", "texture_evidence.png", "fit.npz",
    "metrics.json",
}  # fmt: skip


@pytest.fixture
def file_size_limit():
    """No file may grow beyond 40 kB: the kernel's own refusal, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_everything_the_contract_names_is_written(reconstruction, tmp_path):
    written = write_track(reconstruction, tmp_path / "track_000", version="1.2.3")
    there = {str(p.relative_to(tmp_path / "track_000")) for p in written.values()}
    assert there >= CONTRACT
    assert all(p.exists() for p in written.values())
    on_disk = {p for p in (tmp_path / "track_000").rglob("*") if p.is_file()}
    assert on_disk == set(written.values())
    views = sorted(n for n in there if n.startswith("views/"))
    assert len(views) == 10  # five yaw bins, each with and without landmarks
    plain = "views/yaw-40_input0_frame000000.png"
    assert plain in views and plain.replace(".png", "_landmarks.png") in views


def test_pictures_carry_what_they_are(reconstruction, tmp_path):
    written = write_track(reconstruction, tmp_path, version="1.2.3")
    for name in ("frontal.png", "frontal_raw.png", "evidence.png", "texture.png"):
        text = png_text(written[name])
        assert text["recon3d:version"] == "1.2.3"
        assert text["recon3d:notice"] == NOTICE and "not a photograph" in NOTICE
    assert float(png_text(written["frontal.png"])["recon3d:generated_share"]) == 0.25
    share = float(png_text(written["texture_evidence.png"])["recon3d:generated_share"])
    assert share == pytest.approx(0.25)
    view = next(p for n, p in written.items() if n.startswith("views/"))
    assert "frame of the input" in png_text(view)["recon3d:notice"]
    read = cv2.imread(str(written["frontal.png"]))[..., ::-1]
    np.testing.assert_array_equal(read, reconstruction.frontal.image)


def test_pillow_reads_the_text_too(tmp_path, reconstruction):
    image = pytest.importorskip("PIL.Image")
    path = write_png(tmp_path / "a.png", reconstruction.frontal.image, {"k": "v", "é": "ü±"})
    assert image.open(path).text == {"k": "v", "é": "ü±"}
    assert png_text(path) == {"k": "v", "é": "ü±"}


def test_landmarks_lie_on_the_mesh(reconstruction, tmp_path):
    write_track(reconstruction, tmp_path, version="0")
    record = json.loads((tmp_path / "landmarks.json").read_text())
    fit = reconstruction.fit
    expected = landmark_points(fit.neutral, fit.model.triangles, fit.model.landmarks)
    np.testing.assert_allclose(record["mediapipe478"], expected, atol=1e-5)
    np.testing.assert_allclose(record["now7"], expected[list(NOW7)], atol=1e-5)
    assert record["ibug68"][5] is None and len(record["ibug68"]) == 68


def test_fit_archive_needs_no_pickle_and_describes_itself(reconstruction, tmp_path):
    write_track(reconstruction, tmp_path, version="0")
    with np.load(tmp_path / "fit.npz", allow_pickle=False) as archive:
        schema = json.loads(str(archive["schema"]))
        assert set(schema) == set(archive.files) - {"schema"}
        assert schema["t"]["unit"] == "mm"
        np.testing.assert_array_equal(archive["R"], reconstruction.fit.R)
        assert archive["landmark_covariance"].shape == (5, 478, 2, 2)
        assert next(iter(archive["expression_names"])) == "jawOpen"
        assert json.loads(str(archive["info"])) == {"iterations": 9, "cost": None}
        for name, entry in schema.items():
            if entry["shape"] != "...":
                assert archive[name].ndim == len(entry["shape"].split()), name


def test_metrics_are_computed_and_merged(reconstruction, tmp_path):
    write_track(reconstruction, tmp_path, version="0")
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["reprojection"]["median_px"] == pytest.approx(0.6 * 2**0.5)
    assert metrics["reprojection"]["landmarks"] == 4 * 478
    assert metrics["identity_consistency"] == 0.31
    assert metrics["generated_share"] == 0.25
    assert metrics["coverage"]["texels_observed"] == pytest.approx(0.75)
    assert sum(metrics["coverage"]["frames_by_yaw"].values()) == 50


def test_reading_back(reconstruction, tmp_path):
    write_track(reconstruction, tmp_path / "track_000", version="0")
    result = load_result(tmp_path)  # a run's folder means its first track
    np.testing.assert_allclose(result.vertices, reconstruction.fit.neutral, atol=1e-5)
    np.testing.assert_array_equal(result.triangles, reconstruction.fit.model.triangles)
    assert result.landmarks["now7"].shape == (7, 3)
    assert np.isnan(result.landmarks["ibug68"][5]).all()
    np.testing.assert_array_equal(result.frontal, reconstruction.frontal.image)


def test_reading_what_is_not_there(tmp_path):
    with pytest.raises(InputError, match="holds no result"):
        load_result(tmp_path)


def test_reading_a_damaged_result(reconstruction, tmp_path):
    write_track(reconstruction, tmp_path, version="0")
    (tmp_path / "landmarks.json").write_text("{")
    with pytest.raises(InputError, match="not a complete result"):
        load_result(tmp_path)


def test_same_input_same_bytes(reconstruction, tmp_path):
    first = write_track(reconstruction, tmp_path / "a", version="0")
    second = write_track(reconstruction, tmp_path / "b", version="0")
    for name in CONTRACT:
        assert first[name].read_bytes() == second[name].read_bytes(), name


def test_a_full_disk_leaves_nothing_new(reconstruction, tmp_path, file_size_limit):
    with pytest.raises(InputError, match=r"cannot write .*: file too large"):
        write_track(reconstruction, tmp_path / "run" / "track_000", version="0")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_second_run_keeps_the_first(reconstruction, tmp_path):
    folder = tmp_path / "track_000"
    written = write_track(reconstruction, folder, version="0")
    before = {p: p.read_bytes() for p in written.values()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))
    try:
        with pytest.raises(InputError):
            write_track(reconstruction, folder, version="1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_a_file_in_the_way(reconstruction, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match=r"cannot write .*out"):
        write_track(reconstruction, tmp_path / "out" / "track_000", version="0")
    with pytest.raises(InputError, match=r"cannot write .*out"):
        atomic_write(tmp_path / "out" / "a.txt", "text")
    assert (tmp_path / "out").read_text() == "mine"


def test_atomic_write_replaces_or_keeps(tmp_path, file_size_limit):
    path = atomic_write(tmp_path / "new" / "a.bin", b"first")
    with pytest.raises(InputError):
        atomic_write(path, b"x" * 50_000)
    assert path.read_bytes() == b"first" and list(path.parent.iterdir()) == [path]
    atomic_write(path, "sécond")
    assert path.read_text() == "sécond"


def test_leftovers_of_a_killed_run_go(reconstruction, tmp_path):
    (tmp_path / ".partial-abc").mkdir()
    (tmp_path / ".partial-abc" / "mesh.ply").write_text("half")
    (tmp_path / "views").mkdir()
    (tmp_path / "views" / "yaw+99_input0_frame000001.png").write_text("old")
    (tmp_path / "notes.txt").write_text("kept")
    write_track(reconstruction, tmp_path, version="0")
    assert not (tmp_path / ".partial-abc").exists()
    assert not (tmp_path / "views" / "yaw+99_input0_frame000001.png").exists()
    assert (tmp_path / "notes.txt").read_text() == "kept"


def test_the_view_of_a_bin_has_open_eyes_where_one_has(reconstruction):
    views = reconstruction.track.views
    lids = np.array(
        [[20.0, 50], [50, 50], [35, 46], [35, 54], [80, 50], [110, 50], [95, 46], [95, 54]]
    )
    points = np.array(views[0].landmarks)
    points[[33, 133, 159, 145, 362, 263, 386, 374]] = lids
    shut = points.copy()
    shut[[159, 145, 386, 374], 1] = 50
    opened = replace(views[0], landmarks=points, yaw=2.0, quality=0.6)
    closed = replace(views[0], landmarks=shut, yaw=-2.0, quality=0.9)
    track = replace(reconstruction.track, views=(closed, opened, opened))
    assert best_views(track) == [1]
    assert best_views(replace(track, views=(closed, closed))) == [0]
    # What the fit did not believe is passed over all the same.
    assert best_views(track, np.array([1.0, 0, 0])) == [0]
