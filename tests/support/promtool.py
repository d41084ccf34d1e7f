"""Prometheus' own check of metrics and rules."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.support.requirements import require

LIMIT = 50.0


def promtool(*arguments: str | Path, text: bytes | None = None) -> str:
    """Runs ``promtool`` and returns what it says; fails unless it is content. ``text`` is its standard input."""
    program = require(shutil.which("promtool"), "promtool (Debian's package prometheus)")
    done = subprocess.run([program, *arguments], input=text, capture_output=True, timeout=LIMIT, check=False)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said
