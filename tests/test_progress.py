"""Bars on a terminal, one line a stage elsewhere, nothing when quiet, everything in the log."""

import io
import logging

import pytest
from rich.console import Console

from recon3d.errors import InputError
from recon3d.progress import Reporter, configure_logging


@pytest.fixture(autouse=True)
def logging_as_before():
    log = logging.getLogger("recon3d")
    level, handlers = log.level, list(log.handlers)
    yield
    log.setLevel(level)
    log.handlers[:] = handlers


def work(reporter: Reporter, name: str = "tracking") -> None:
    with reporter.stage(name) as move:
        for done in range(1, 31):
            move(done, 30)
        reporter.warn("a broken packet")


def test_one_plain_line_a_stage_elsewhere(capsys):
    work(Reporter())
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "warning: a broken packet" and lines[1].startswith("tracking: 0.")
    assert len(lines) == 2 and "\x1b" not in "".join(lines)


def test_quiet_is_quiet(capsys):
    work(Reporter(quiet=True))
    seen = capsys.readouterr()
    assert seen.err == "" and seen.out == ""


def test_a_bar_on_a_terminal():
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=110)
    work(Reporter(console=console))
    text = screen.getvalue()
    assert "tracking" in text and "30/30 frames" in text and "/s" in text and "left" in text
    assert "warning: a broken packet" in text


def test_the_log_has_everything_once(tmp_path, capsys):
    path = tmp_path / "run.log"
    configure_logging(verbose=True, log_file=path)
    work(Reporter())
    text = path.read_text()
    assert "tracking begins" in text and "a broken packet" in text and "INFO recon3d" in text
    seen = capsys.readouterr().err
    assert seen.count("a broken packet") == 1 and "tracking begins" in seen


def test_a_log_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="cannot write --log-file"):
        configure_logging(log_file=tmp_path / "no" / "run.log")
