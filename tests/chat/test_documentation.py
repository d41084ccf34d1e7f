"""docs/chat.md quotes the page as it is."""

from __future__ import annotations

import re

from examples.chat.serve import FOLDER
from tests.support.bridge import ROOT


def test_the_lines_that_the_document_explains_are_in_the_page() -> None:
    text = (ROOT / "docs/chat.md").read_text("utf-8")
    table = text.partition("## Which line does what")[2].partition("Three of these")[0]
    quoted = [part for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for part in re.findall("`(.+?)`", row)]
    assert len(quoted) > 12
    source = "".join(path.read_text("utf-8") for path in sorted((FOLDER / "src").glob("*.js")))
    assert [part for part in quoted if part not in source] == []


def test_the_lock_file_names_no_place_to_download_from() -> None:
    assert '"resolved"' not in (FOLDER / "package-lock.json").read_text("utf-8")
