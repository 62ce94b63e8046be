"""Settings: shipped files are valid, lines on top work, mistakes are named."""

import pytest

from recon3d.errors import InputError
from recon3d.settings import config_folder, load_settings


@pytest.mark.parametrize("path", sorted(config_folder().glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_configs_are_valid(path):
    load_settings(path.stem)


def test_lines_and_options_override_the_file():
    settings = load_settings("fast", ["tracking.max_views=7", "fitting.smooth=false"], max_tracks=2)
    assert settings.tracking.max_views == 7
    assert settings.tracking.jitter == 4
    assert settings.fitting.smooth is False
    assert settings.max_tracks == 2


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("tracking.max_viws=7", "max_views"),
        ("tracking.max_views=-1", "max_views"),
        ("tracking", "key=value"),
        ("model.x.y=1", "model"),
        ("tracking.jitter=[", "YAML"),
    ],
)
def test_mistakes_are_named(line, word):
    with pytest.raises(InputError, match=word):
        load_settings(None, [line])


def test_unknown_file_lists_the_shipped_ones():
    with pytest.raises(InputError, match="cctv"):
        load_settings("nonsense")


def test_damaged_yaml(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("a: [1\n")
    with pytest.raises(InputError, match="YAML"):
        load_settings(str(path))
    path.write_text("- 1\n")
    with pytest.raises(InputError, match="mapping"):
        load_settings(str(path))
