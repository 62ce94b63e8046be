"""docs/RESULTS.md: every script fills its own section and leaves the others alone."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "RESULTS.md"

_HEAD = """# Results

Every table is printed by the command above it, on the machine that it names. Wanted values stand
beside; what does not reach them is said.
"""


def write_section(name: str, text: str, page: Path = PAGE) -> None:
    """Replace the section of that name, or add it at the end."""
    page.parent.mkdir(parents=True, exist_ok=True)
    old = page.read_text(encoding="utf-8") if page.exists() else _HEAD
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    section = f"{begin}\n{text.strip()}\n{end}"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    new = pattern.sub(lambda _: section, old) if pattern.search(old) else f"{old}\n{section}\n"
    page.write_text(new, encoding="utf-8")


def machine() -> str:
    """This machine in one generic line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = ""
    try:
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        memory = f", {pages / 2**30:.0f} GiB memory"
    except (ValueError, OSError, AttributeError):
        pass
    return (
        f"{platform.system()} {platform.machine()}, {cores} cores{memory}, no GPU used, "
        f"Python {platform.python_version()}"
    )


def markdown_table(headings: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown; the first column is text, the others are figures."""
    lines = [
        "| " + " | ".join(headings) + " |",
        "| --- |" + " ---: |" * (len(headings) - 1),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    return "\n".join(lines)
