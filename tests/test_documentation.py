"""The documentation builds without a warning, and every link in it leads somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))


class Links(HTMLParser):
    """Targets of links and resources, and the anchors, of one page."""

    def __init__(self, path: Path):
        super().__init__()
        self.links: list[str] = []
        self.resources: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors |= {found[k] for k in ("id", "name") if found.get(k)}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        elif tag in ("img", "script") and found.get("src"):
            self.resources.append(found["src"])
        elif tag == "link" and found.get("href") and "canonical" not in found.get("rel", ""):
            self.resources.append(found["href"])


def outside(target: str) -> bool:
    return bool(urlsplit(target).scheme or urlsplit(target).netloc)


def broken(site: Path) -> list[str]:
    """Links of a built site that lead nowhere, and resources that lie outside of it."""
    pages = {path: Links(path) for path in site.rglob("*.html")}
    wrong = []
    for path, page in pages.items():
        # The page for missing addresses is served from the root, wherever it was asked for.
        if path.name == "404.html":
            continue
        where = path.relative_to(site)
        wrong += [f"{where}: fetches {r}" for r in page.resources if outside(r)]
        for target in [*page.links, *page.resources]:
            if outside(target):
                continue
            parts = urlsplit(target)
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if file.is_dir():
                file = file / "index.html"
            if not file.is_file():
                wrong.append(f"{where}: no such file {target}")
            elif parts.fragment and file.suffix == ".html":
                known = pages[file].anchors
                if unquote(parts.fragment) not in known and parts.fragment != "__toc":
                    wrong.append(f"{where}: no such anchor {target}")
    return wrong


@pytest.mark.parametrize("path", [ROOT / "README.md", *PAGES], ids=lambda p: p.name)
def test_links_between_the_files(path):
    """As a reader of the repository follows them."""
    made_while_building = {"commands.md", "settings.md"}
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if outside(target) or target.startswith("#"):
            continue
        name = target.split("#")[0]
        assert name in made_while_building or (path.parent / name).exists(), f"{path}: {target}"


def test_every_picture_has_words():
    for path in [ROOT / "README.md", *PAGES]:
        for alternative in re.findall(r"!\[([^\]]*)\]\(", path.read_text(encoding="utf-8")):
            assert len(alternative.split()) >= 2, path


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    pytest.importorskip("material", reason="the extra 'docs' is not installed")
    pytest.importorskip("mkdocstrings", reason="the extra 'docs' is not installed")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.slow
def test_links_of_the_site(site):
    wrong = broken(site)
    assert not wrong, "\n".join(wrong[:20])


@pytest.mark.slow
def test_the_generated_pages_are_complete(site):
    from recon3d.settings import RunSettings

    def names(model, prefix=""):
        for name, field in model.model_fields.items():
            if hasattr(field.annotation, "model_fields"):
                yield from names(field.annotation, f"{prefix}{name}.")
            else:
                yield prefix + name

    settings = (site / "settings.html").read_text(encoding="utf-8")
    for name in names(RunSettings):
        assert f"<code>{name}</code>" in settings, name
    commands = (site / "commands.html").read_text(encoding="utf-8")
    for command in ("run", "demo", "view", "doctor", "bench", "enhance", "model import"):
        assert f"recon3d {command}" in commands
    for option in ("--permissive-only", "--log-file", "--screenshot"):
        assert option in commands
    interface = (site / "api.html").read_text(encoding="utf-8")
    for name in ("reconstruct", "Reconstruction", "fit_track", "FaceFit"):
        assert name in interface


@pytest.mark.slow
def test_a_broken_link_is_found(site, tmp_path):
    (tmp_path / "a.html").write_text('<a href="b.html#x">b</a><img src="https://x.org/a.png">')
    (tmp_path / "b.html").write_text('<p id="y">')
    assert len(broken(tmp_path)) == 2
