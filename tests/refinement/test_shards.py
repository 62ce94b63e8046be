"""Pairs on disk: the processes that make them."""

import os
import signal
import subprocess
import sys
import time

import pytest

PROGRAM = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
from recon3d.workers import leave_with_parent

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, leave_with_parent) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 60).result()
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_a_killed_command_leaves_no_process_behind(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM, encoding="utf-8")
    parent = subprocess.Popen([sys.executable, str(path)], stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    assert alive(worker)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 20
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(worker)


def test_a_clip_of_two_pairs_stands_for_the_next_photo_too(monkeypatch):
    from types import SimpleNamespace

    from recon3d.refinement import shards

    pairs_of = {"a": 2, "b": 1, "c": 0, "d": 2, "e": 2}
    asked = []

    def clip(image, source, rng):
        asked.append(image)
        if not pairs_of[image]:
            raise shards.NoFaceError("nobody")
        return SimpleNamespace(pairs=lambda rng: range(pairs_of[image]))

    monkeypatch.setattr(shards, "_clip", clip)
    monkeypatch.setattr(shards, "_row", lambda pair, name: {"name": name, "pair": pair})
    source = SimpleNamespace(seed=0, images={n: n for n in pairs_of})
    names = ["a", "e", "b", "c", "d", "b", "b", "d"]
    rows = list(shards._simulated(source, names, range(8, 16)))
    assert asked == ["a", "b", "c", "d", "b", "d"]
    # No more than a shard's number, and none of the photo that gives none.
    assert [r["name"] for r in rows] == ["a", "a", "b", "d", "d", "b", "d"]


def test_shares_are_of_pairs_though_some_clips_give_two():
    import numpy as np

    from recon3d.refinement.shards import _shares_of_clips

    assert _shares_of_clips(0.0, 0.0) == (0.0, 0.0)
    assert _shares_of_clips(1.0, 1.0) == (1.0, 1.0)
    for heads, whole in ((0.3, 0.4), (0.85, 0.4), (0.5, 0.0)):
        h, w = _shares_of_clips(heads, whole)
        photos = (1 - h) * np.array([2 * w, 1 - w])
        assert np.isclose(2 * h / (2 * h + photos.sum()), heads)
        assert np.isclose(photos[0] / photos.sum(), whole)
