"""The commands that README and docs show."""

from __future__ import annotations

import re
import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.docs.imports import ROOT

SHELLS = {"sh", "bash", "shell", "console"}
PROGRAMS = {
    "docker", "kubectl", "helm", "podman", "buildah", "systemctl", "systemd-analyze", "journalctl", "apt-get", "sudo",
    "stompbridge", "promtool", "nginx", "haproxy", "redis-cli", "rabbitmqctl", "rabbitmq-plugins", "npm", "npx", "node",
    "openssl", "ssh", "man", "cd", "export", "useradd", "install", "gunzip", "source", "eval",
}  # fmt: skip
"""Programs, whether this machine has them or not."""
NO_PROGRAMS = {"[", "[[", "allow", "deny", "from", "import", "const", "if", "new", "client"}
_FENCE = re.compile(r"^( *)(```+|~~~+) *(\w*)[^\n]*\n(.*?)^\1\2 *$", re.MULTILINE | re.DOTALL)
_HERE = re.compile(r"<<-? *['\"]?(\w+)['\"]?")


class Command(NamedTuple):
    """One command as it is shown, on one or more lines."""

    text: str
    line: int
    """Where its block begins, from 1."""


def documents(root: Path = ROOT) -> list[Path]:
    """README and the pages of docs."""
    return [root / "README.md", *sorted((root / "docs").rglob("*.md"))]


def commands(text: str) -> list[Command]:
    """All commands in the shell blocks of a Markdown text: fenced blocks that say so, and indented or unlabelled ones
    that begin with a program's name."""
    found = []
    for line, label, block in sorted(_blocks(text)):
        if label in SHELLS or (not label and _is_command(_first(block))):
            found += [Command(one, line) for one in _split(_prompted(block) if label == "console" else block)]
    return found


def without_code(text: str) -> str:
    """``text`` without fenced blocks and code spans, in which brackets are no links."""
    return re.sub(r"`[^`\n]+`", "", without_fences(text))


def without_fences(text: str) -> str:
    """``text`` without fenced blocks."""
    return _FENCE.sub("", text)


def _blocks(text: str) -> Iterator[tuple[int, str, str]]:
    """Line, label and dedented text of each block of code."""
    for match in _FENCE.finditer(text):
        yield text.count("\n", 0, match.start()) + 1, match[3].lower(), textwrap.dedent(match[4])
    blank = _FENCE.sub(lambda match: "\n" * match[0].count("\n"), text)
    for match in re.finditer(r"(?:(?<=\n\n)|\A)((?: {4,}[^\n]*\n|\n(?= {4}))+)", blank):
        yield blank.count("\n", 0, match.start()) + 1, "", textwrap.dedent(match[1])


def _first(block: str) -> str:
    lines = [line for line in block.splitlines() if line.strip() and not line.startswith("#")]
    return lines[0] if lines else ""


def _is_command(line: str) -> bool:
    line = re.sub(r"^(\w+=('[^']*'|\"[^\"]*\"|\S*) +)+", "", line)
    program = line.split(" ")[0].strip()
    if not program or program in NO_PROGRAMS or not re.fullmatch(r"[\w./~-]+", program):
        return False
    if re.match(r"\S+ +(=|:) ", line):
        return False
    return program.startswith(("bin/", ".venv/", "./")) or program in PROGRAMS or shutil.which(program) is not None


def _prompted(block: str) -> str:
    """What is typed in a console block."""
    return "\n".join(line[2:] for line in block.splitlines() if line.startswith(("$ ", "> ")))


def _split(block: str) -> list[str]:
    """The block's commands; one goes on until the shell takes it for whole."""
    found: list[str] = []
    lines: list[str] = []
    for line in block.splitlines():
        if not lines and (not line.strip() or line.lstrip().startswith("#")):
            continue
        lines.append(line)
        text = "\n".join(lines)
        here = _HERE.search(lines[0])
        if (here and line.strip() != here[1]) or line.endswith("\\") or not _is_whole(text):
            continue
        found.append(text)
        lines = []
    if lines:
        raise ValueError(f"no whole command: {lines}")
    return found


def _is_whole(text: str) -> bool:
    if not re.search(r"['\"({]|\b(for|while|if|until|case)\b", text):
        return True
    return subprocess.run(["bash", "-n", "-c", text], capture_output=True, check=False).returncode == 0
