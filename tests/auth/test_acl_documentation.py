"""The examples of docs/security.md, through the evaluator."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from stompbridge import config
from stompbridge.auth.acl import MAX_STEPS
from stompbridge.cli import main

TEXT = (Path(__file__).parents[2] / "docs/security.md").read_text("utf-8")
(RULES,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
(EXAMPLES,) = re.findall(r"decides:\n\n```\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("line", EXAMPLES.splitlines())
def test_an_example(tmp_path: Path, line: str) -> None:
    path = tmp_path / "bridge.toml"
    path.write_text(RULES, "utf-8")
    who, action, destination, *headers, outcome, rule = line.split()
    user, *groups = who.split("+")
    arguments = ["acl", "test", "--config", str(path), "--user", user, action, destination]
    arguments += [argument for group in groups for argument in ("--group", group)]
    arguments += [argument for header in headers for argument in ("--header", header)]
    result = CliRunner().invoke(main, arguments, env={})
    assert result.exit_code == {"allowed": 0, "refused": 1}[outcome], result.output
    decided = re.search(r"by rule (\d+)", result.output)
    assert (decided[1] if decided else "-") == rule, result.output


SECTIONS = {"listen": config.Listen, "limits": config.Limits}


def test_the_keys_are_those_of_the_configuration() -> None:
    door = TEXT[TEXT.index("## The door") :].split("\n## ")[0]
    known = {f"{section}.{name}" for section, model in SECTIONS.items() for name in model.__struct_fields__}
    section = ""
    for dotted, name in re.findall(r"`(?:(listen|limits)\.)?([a-z_]+)`", door):
        section = dotted or section
        assert f"{section}.{name}" in known


def test_the_number_of_steps() -> None:
    assert f"at most {MAX_STEPS:,} steps" in TEXT
