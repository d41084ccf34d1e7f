"""Relative links and pictures of README and docs lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.commands import documents, without_code, without_fences
from tests.docs.imports import ROOT

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|<(?:img|source)[^>]+(?:src|srcset)=\"([^\"]+)\"")


def anchors(path: Path) -> set[str]:
    """Those that GitHub makes of headings, and explicit ones."""
    text = path.read_text("utf-8")
    found = set(re.findall(r'<a id="([^"]+)">', text))
    for heading in re.findall(r"^#{1,6} (.+)$", without_fences(text), re.MULTILINE):
        words = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        while words in found:
            words += "-1"
        found.add(words)
    return found


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)
def test_links_resolve(path: Path) -> None:
    broken = []
    for match in LINK.finditer(without_code(path.read_text("utf-8"))):
        target = match[1] or match[2]
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        place = path.parent / file if file else path
        if not place.exists() or (anchor and place.suffix == ".md" and anchor not in anchors(place)):
            broken.append(target)
    assert broken == []


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs/README.md").read_text("utf-8")
    pages = [path.name for path in sorted((ROOT / "docs").glob("*.md")) if path.name != "README.md"]
    assert [page for page in pages if f"({page})" not in index] == []
