"""People to draw into clips: the public-domain portrait of scikit-image, and a changed copy."""

import os
from pathlib import Path

import numpy as np
import pytest
from tracking_clips import Portrait


def _astronaut():
    data = pytest.importorskip("skimage.data")
    return data.astronaut()


@pytest.fixture(scope="session")
def astronaut():
    return _astronaut()


@pytest.fixture(scope="session")
def person():
    return Portrait(_astronaut())


@pytest.fixture(scope="session")
def other_person():
    """The same features, mirrored, with dark skin and light hair: another look."""
    image = _astronaut().astype(np.float32)
    grey = image.mean(2, keepdims=True)
    tinted = 235 - 0.8 * grey * np.array([1.0, 0.9, 0.7])
    skin = np.clip((grey - 90) / 60, 0, 1)
    changed = skin * (0.55 * image * np.array([0.7, 0.9, 1.25])) + (1 - skin) * tinted
    portrait = Portrait(np.clip(changed, 0, 255))
    centre = int(Portrait.CENTRE[0])
    mirrored = portrait.image.copy()
    reach = 200
    part = portrait.image[:, centre - reach : centre + reach]
    mirrored[:, centre - reach : centre + reach] = part[:, ::-1]
    portrait.image = mirrored
    return portrait


@pytest.fixture(scope="session")
def shared():
    """The folder of shared data; tests that need it skip without it."""
    default = Path(__file__).parents[3] / "shared"
    folder = Path(os.environ.get("RECON3D_SHARED", default))
    if not (folder / "data").is_dir():
        pytest.skip("needs the shared data folder (RECON3D_SHARED)")
    return folder
