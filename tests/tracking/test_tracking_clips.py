"""Whole clips with known motion: who is where, for how long, and with which landmarks."""

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from tracking_clips import Portrait, as_frames, background

from recon3d.media import VideoWriter, iterate_frames, open_inputs
from recon3d.tracking import MIRROR, TrackingSettings, load_landmarker, track_faces
from recon3d.tracking.crops import FacePlace
from recon3d.tracking.detection import FaceDetector
from recon3d.tracking.tracker import _Tracker
from recon3d.tracking.views import Candidate, Reservoir
from recon3d.types import Frame, ImagePatch

pytest.importorskip("mediapipe")

QUICK = TrackingSettings(jitter=2, max_views=12)
SIZE = (480, 320)


def clip(draw, count, size=SIZE, seed=0):
    """Pictures with `draw(canvas, number)` over one background."""
    for number in range(count):
        canvas = background(size, seed)
        draw(canvas, number)
        yield canvas


@pytest.fixture(scope="module")
def single(astronaut):
    return track_faces([Frame(astronaut, 0, 0.0)])


def test_single_picture(single, astronaut):
    assert len(single.tracks) == 1 and single.n_frames == 1 and single.dropped == ()
    (view,) = single.tracks[0].views
    assert view.landmarks.shape == (478, 2) and view.covariance.shape == (478, 2, 2)
    # Eye corners and nose base of this well-known portrait, by another tool (dlib's 5 points).
    others = np.array([(255, 104), (238, 105), (195, 101), (212, 103), (224, 135)])
    assert np.abs(view.landmarks[[263, 362, 33, 133, 2]] - others).max() < 3
    assert abs(view.yaw) < 10 and abs(view.pitch) < 12 and abs(view.roll) < 8
    assert 0.5 < view.quality <= 1
    assert (np.linalg.eigvalsh(view.covariance) > 0).all()
    x, y = view.patch.origin
    h, w = view.patch.image.shape[:2]
    assert np.array_equal(view.patch.image, astronaut[y : y + h, x : x + w])
    # Hair, ears and neck are in the patch.
    assert w > 2.2 * view.face_width


def test_mirror_image_gives_mirrored_landmarks(single, astronaut):
    flipped = np.ascontiguousarray(astronaut[:, ::-1])
    (view,) = track_faces([Frame(flipped, 0, 0.0)]).tracks[0].views
    (straight,) = single.tracks[0].views
    back = view.landmarks[MIRROR] * [-1, 1] + [astronaut.shape[1], 0]
    error = np.linalg.norm(back - straight.landmarks, axis=1)
    assert error.mean() < 0.01 * straight.face_width and error[468:].max() < 2
    assert abs(view.yaw + straight.yaw) < 2 and abs(view.roll + straight.roll) < 2


def test_same_seed_same_tracks(single, astronaut):
    (again,) = track_faces([Frame(astronaut, 0, 0.0)]).tracks[0].views
    (view,) = single.tracks[0].views
    assert np.array_equal(again.landmarks, view.landmarks)
    assert np.array_equal(again.covariance, view.covariance)


@pytest.mark.parametrize("turn", [-35, 40])
def test_roll_has_the_sign_of_the_contract(person, turn):
    def draw(canvas, _):
        person.draw(canvas, (240, 160), 80, turn)

    (view,) = track_faces(as_frames(clip(draw, 1)), QUICK).tracks[0].views
    assert abs(view.roll - turn) < 8  # OpenCV's positive turn is counter-clockwise, too


def test_moving_scaling_turning_face_is_one_track(person, single):
    def where(number):
        t = number / 39
        centre = np.array([110 + 250 * t, 150 + 40 * np.sin(5 * t)])
        return centre, 45 + 50 * t, 20 * np.sin(7 * t)

    frames = as_frames(clip(lambda c, n: person.draw(c, *where(n)), 40))
    settings = TrackingSettings(jitter=4, max_views=40)
    result = track_faces(frames, settings)
    (track,) = result.tracks
    assert track.n_frames == 40 and result.n_frames == 40 and result.dropped == ()
    (reference,) = single.tracks[0].views
    errors, whitened = [], []
    for view in track.views:
        centre, width, turn = where(view.frame_index)
        angle, scale = np.radians(turn), width / Portrait.WIDTH
        A = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        truth = (reference.landmarks - 0.5 - Portrait.CENTRE) @ A.T + centre + 0.5
        off = view.landmarks - truth
        errors.append(np.linalg.norm(off, axis=1).mean() / width)
        whitened.append(
            np.einsum("pi,pij,pj->p", off, np.linalg.inv(view.covariance), off).mean() / 2
        )
    # Landmarks ride along with the face, within a hundredth or two of its width, and the
    # covariance says so: one would be a perfect match of claimed and true errors. It is cautious
    # here, because its floor stands for errors that all pictures of one portrait share.
    assert np.median(errors) < 0.02
    assert 0.05 < np.median(whitened) < 2


def test_small_faces(person):
    def draw(canvas, number):
        person.draw(canvas, (380 + number, 300), 20)

    result = track_faces(as_frames(clip(draw, 10, (640, 480))), QUICK)
    assert result.tracks and result.tracks[0].n_frames >= 9
    assert 14 < np.median(result.tracks[0].face_px) < 26


def test_leaving_and_coming_back(person):
    def draw(canvas, number):
        if not 20 <= number < 35:
            person.draw(canvas, (240, 150), 70)

    result = track_faces(as_frames(clip(draw, 55)), QUICK)
    (track,) = result.tracks
    assert sorted(track.frame_index) == [*range(20), *range(35, 55)]
    assert result.dropped == ({"reason": "no face found", "frames": 15},)


def test_two_people_crossing(person, other_person):
    count = 40

    def ways(number):
        t = number / (count - 1)
        return (100 + 280 * t, 150), (380 - 280 * t, 160)

    def draw(canvas, number):
        a, b = ways(number)
        other_person.draw(canvas, b, 72)
        person.draw(canvas, a, 72)  # in front

    settings = TrackingSettings(jitter=2, max_views=count)
    result = track_faces(as_frames(clip(draw, count)), settings)
    assert len(result.tracks) == 2
    for track in result.tracks:
        side = []
        for view in track.views:
            a, b = ways(view.frame_index)
            x = (view.box[0] + view.box[2]) / 2
            if abs(a[0] - b[0]) > 90:
                side.append(abs(x - a[0]) < abs(x - b[0]))
        assert len(side) > 12
        assert all(side) or not any(side)  # the same person before and after


def test_scene_cut_to_somebody_else(person, other_person):
    pictures = list(clip(lambda c, n: person.draw(c, (240, 150), 70), 12, seed=1))
    pictures += list(clip(lambda c, n: other_person.draw(c, (250, 155), 72), 10, seed=2))
    result = track_faces(as_frames(pictures), QUICK)
    assert [track.n_frames for track in result.tracks] == [12, 10]
    assert result.tracks[0].frame_index.tolist() == list(range(12))


def test_embedding_joins_shots_and_cameras(person):
    recognition = pytest.importorskip("recon3d.recognition")
    if recognition.embedders.DlibEmbedder.detect():
        pytest.skip("dlib or its weights are not installed")
    embedder = recognition.load_embedder()
    shots = list(clip(lambda c, n: person.draw(c, (140, 140), 90), 8, seed=1))
    shots += list(clip(lambda c, n: person.draw(c, (330, 180), 64, 15), 8, seed=2))
    other = list(clip(lambda c, n: person.draw(c, (240, 150), 75, -20), 8, seed=3))

    def frames():
        yield from as_frames(shots)
        yield from as_frames(other, source=1)

    apart = track_faces(frames(), QUICK)
    assert len(apart.tracks) == 3
    joined = track_faces(frames(), QUICK, embedder=embedder)
    assert [track.n_frames for track in joined.tracks] == [24]
    assert set(joined.tracks[0].source) == {0, 1}
    order = [(view.source, view.frame_index) for view in joined.tracks[0].views]
    assert order == sorted(order) and len(order) == 12


def test_photos_without_a_clock_are_shots_of_their_own(person):
    turns = [0, 25, -20, 10, -30, 20]
    widths = [70, 84, 72, 88, 74, 90]

    def photos(clock):
        pictures = clip(lambda c, n: person.draw(c, (200, 150), widths[n], turns[n]), 6)
        for frame in as_frames(pictures):
            yield replace(frame, clock=clock)

    (album,) = track_faces(photos(False), QUICK).tracks
    assert album.id == 0 and album.shots.tolist() == [0, 1, 2, 3, 4, 5]
    (film,) = track_faces(photos(True), QUICK).tracks
    assert film.id == 0 and film.shots.tolist() == [0] * 6


def test_no_photo_is_lost_where_the_face_jumps(person):
    centres = [(100, 120), (330, 180), (200, 150), (120, 190), (340, 110), (230, 160)]
    widths = [60, 110, 75, 130, 64, 96]
    pictures = clip(lambda c, n: person.draw(c, centres[n], widths[n]), 6)
    frames = [replace(frame, clock=False) for frame in as_frames(pictures)]
    result = track_faces(frames, QUICK)
    found = np.concatenate([track.frame_index for track in result.tracks])
    assert sorted(found.tolist()) == [0, 1, 2, 3, 4, 5]
    assert [track.id for track in result.tracks] == list(range(len(result.tracks)))


def test_a_pattern_is_nobody_at_a_second_look(person, single):
    (view,) = single.tracks[0].views
    tracker = _Tracker(QUICK, FaceDetector(QUICK), None, None)

    def somebody(patch, records):
        width = patch.shape[1]
        place = FacePlace(np.array([width / 2, width * 0.52]), 0.45 * width, 0.0)
        mesh = SimpleNamespace(place=place, angles=np.zeros(3), landmarks=np.zeros((478, 2)))
        reservoir = Reservoir(4)
        reservoir.add(
            Candidate(0, 0, 0.0, (width, width), mesh, 0.5, 0.5, ImagePatch(patch, (0, 0)))
        )
        return SimpleNamespace(reservoir=reservoir, records=[SimpleNamespace(source=0)] * records)

    tracker.without_clock = {0}
    noise = np.random.default_rng(0).integers(0, 255, (24, 24, 3)).astype(np.uint8)
    pattern = somebody(cv2.resize(noise, (160, 160), interpolation=cv2.INTER_CUBIC), 1)
    face = somebody(view.patch.image, 3)
    tracker.people = [face, pattern]
    assert tracker._may_be_nobody(pattern) and not tracker._may_be_nobody(face)
    assert tracker._seen_again(face) and not tracker._seen_again(pattern)
    tracker.detector.close()


def test_no_face(single):
    result = track_faces(as_frames(clip(lambda c, n: None, 6)), QUICK)
    assert result.tracks == ()
    assert result.dropped == ({"reason": "no face found", "frames": 6},)
    assert track_faces([], QUICK).n_frames == 0


def test_through_a_video_file(person, tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 25, crf=26) as writer:
        for picture in clip(lambda c, n: person.draw(c, (200 + 3 * n, 150), 60), 12):
            writer.write(np.clip(picture, 0, 255).astype(np.uint8))
    seen = []
    frames = iterate_frames(open_inputs([tmp_path / "a.mp4"]))
    result = track_faces(frames, QUICK, progress=seen.append)
    assert [track.n_frames for track in result.tracks] == [12]
    assert seen == list(range(1, 13))


def test_views_and_memory_are_bounded(person):
    # Views never exceed their number, and pixels outside of them are let go.
    import weakref

    alive = []

    def frames():
        for frame in as_frames(clip(lambda c, n: person.draw(c, (200 + n, 150), 40), 60)):
            alive.append(weakref.ref(frame.image))
            assert sum(ref() is not None for ref in alive) < 30
            yield frame

    result = track_faces(frames(), TrackingSettings(jitter=2, max_views=5))
    (track,) = result.tracks
    assert track.n_frames == 60 and len(track.views) == 5
    assert all(view.patch.image.base is None for view in track.views)
    times = [view.time for view in track.views]
    assert np.ptp(times) > 0.8


def test_quality_falls_with_blur_darkness_and_size(person):
    import cv2

    def best(change, width=90):
        def draw(canvas, _):
            person.draw(canvas, (240, 160), width)
            canvas[:] = change(canvas)

        return track_faces(as_frames(clip(draw, 1)), QUICK).tracks[0].views[0].quality

    plain = best(lambda x: x)
    assert best(lambda x: cv2.GaussianBlur(x, (0, 0), 2.5)) < 0.85 * plain
    assert best(lambda x: 0.12 * x) < 0.8 * plain
    assert best(lambda x: x, 30) < 0.8 * plain


def test_landmark_sources_say_what_they_lack(tmp_path):
    from recon3d.errors import BackendUnavailable, InputError

    for name in ("face-alignment", "mediapipe-tasks"):
        settings = TrackingSettings(landmarks=name, landmark_weights=str(tmp_path / "none"))
        with pytest.raises(BackendUnavailable) as caught:
            track_faces([], settings)
        assert str(tmp_path / "none") in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(InputError, match="not one of"):
        load_landmarker(TrackingSettings(), "nobody")


@pytest.mark.slow
def test_face_alignment_fills_its_68_slots(astronaut, tmp_path):
    # The network's own architecture with random weights: the plumbing, not the accuracy.
    torch = pytest.importorskip("torch")
    models = pytest.importorskip("face_alignment.models")
    from recon3d.tracking import IBUG68
    from recon3d.tracking.landmarks import FaceAlignment

    torch.manual_seed(0)
    torch.save(models.FAN(4).state_dict(), tmp_path / FaceAlignment.FILE)
    settings = TrackingSettings(landmarks="face-alignment", landmark_weights=str(tmp_path))
    source = load_landmarker(settings)
    crop = np.ascontiguousarray(astronaut[20:276, 96:352])
    with torch.no_grad():
        found = source([crop])[0]
    if found is not None:
        assert found.known.sum() == 68 and found.known[IBUG68].all()
        assert (found.points[IBUG68] >= 0).all() and (found.points[IBUG68] <= 256).all()


def test_mediapipe_tasks_agrees_with_the_mesh(shared, single, astronaut):
    path = shared / "data" / "mediapipe" / "face_landmarker.task"
    if not path.is_file():
        pytest.skip("needs face_landmarker.task")
    settings = TrackingSettings(landmarks="mediapipe-tasks", landmark_weights=str(path), jitter=4)
    (view,) = track_faces([Frame(astronaut, 0, 0.0)], settings).tracks[0].views
    (mesh,) = single.tracks[0].views
    error = np.linalg.norm(view.landmarks - mesh.landmarks, axis=1)
    assert error.mean() < 0.03 * mesh.face_width
