"""The manual page agrees with the commands, and can be read."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tests.docs import manpage


def test_it_is_up_to_date() -> None:
    assert manpage.PATH.read_text("utf-8") == manpage.page(), "run: python -m tests.docs.manpage"


@pytest.mark.skipif(shutil.which("man") is None, reason="man is not installed")
def test_it_renders_without_warnings() -> None:
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", str(manpage.PATH)],
        env=os.environ | {"LC_ALL": "C.UTF-8", "MANROFFSEQ": "", "MANWIDTH": "100", "MAN_KEEP_FORMATTING": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for text in ("stompbridge sessions kick [OPTIONS] ID", "--token-file FILE", "SIGHUP", "EXIT STATUS"):
        assert text in done.stdout


def test_what_roff_takes_for_something_else() -> None:
    assert manpage.line(".x 'a-b\\") == "\\&.x \\(aqa\\-b\\e"
