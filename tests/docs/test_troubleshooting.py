"""docs/troubleshooting.md has every text that a client can see."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from stompbridge.gateway.closing import CloseReason
from tests.docs.imports import ROOT

PAGE = (ROOT / "docs/troubleshooting.md").read_text("utf-8")
PARTS = re.split(r"^###? ", PAGE, flags=re.MULTILINE)[1:]
SECTIONS = {part.partition("\n")[0]: " ".join(part.split()) for part in PARTS}
ERRORS = ast.parse((ROOT / "stompbridge/stomp/errors.py").read_text("utf-8"))


def pieces(node: ast.expr | None) -> list[str]:
    """The fixed parts of a text, without what is put into it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [" ".join(node.value.split())] if node.value.strip() else []
    if isinstance(node, ast.JoinedStr):
        return [piece for part in node.values if isinstance(part, ast.Constant) for piece in pieces(part)]
    return []


def factories() -> Iterator[tuple[str, str, list[str]]]:
    """Each function's name, ``message`` (empty where the caller says) and fixed parts of the body."""
    for function in ERRORS.body:
        if not isinstance(function, ast.FunctionDef):
            continue
        texts = {
            node.targets[0].id: node.value
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "StompError":
                body: ast.expr | None = node.args[1]
                if isinstance(body, ast.Name):
                    body = texts.get(body.id)
                yield function.name, "".join(pieces(node.args[0])), pieces(body)


FACTORIES = list(factories())


def test_the_factories_are_found() -> None:
    assert len(FACTORIES) > 40
    assert {name for name, message, _ in FACTORIES if not message} == {"broker_error"}


@pytest.mark.parametrize(("name", "message", "body"), FACTORIES, ids=[name for name, _, _ in FACTORIES])
def test_an_error_is_explained(name: str, message: str, body: list[str]) -> None:
    if not message:
        return
    heading = "not_found, precondition_failed, resource_error and other lower-case names"
    section = SECTIONS[heading if message == "precondition_failed" else message]
    rest = section
    for piece in body:
        assert piece in rest, f"{name}: {piece!r} is not under {message!r}"
        rest = rest.partition(piece)[2]


def test_no_error_is_explained_that_there_is_not() -> None:
    known = {message for _, message, _ in FACTORIES}
    headings = re.findall(r"^### (.+)$", PAGE, re.MULTILINE)
    assert [heading for heading in headings if heading not in known and "lower-case" not in heading] == []


@pytest.mark.parametrize("reason", CloseReason, ids=lambda reason: reason.label)
def test_a_close_reason_is_explained(reason: CloseReason) -> None:
    retry = "yes" if reason.retry else "no"
    row = f"| `{reason.label}` | {reason.code} | {reason.text} | {retry} |"
    assert row in SECTIONS["Close reasons"]


def test_no_close_reason_is_explained_that_there_is_not() -> None:
    listed = re.findall(r"^\| `(\w+)` \| \d{4} \|", PAGE, re.MULTILINE)
    assert listed == [reason.label for reason in CloseReason]


def details() -> Iterator[tuple[str, str]]:
    """Texts that other modules hand to a factory: the factory's name and the text's longest fixed part."""
    names = {"malformed", "processing_error", "slow_consumer", "limit"}
    for path in sorted((ROOT / "stompbridge").rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        constants = {
            node.targets[0].id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and node.args:
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                text = node.args[0]
                found = pieces(constants.get(text.id) if isinstance(text, ast.Name) else text)
                if name in names and found:
                    yield name, max(found, key=len)


@pytest.mark.parametrize(("name", "text"), sorted(set(details())))
def test_a_detail_is_explained(name: str, text: str) -> None:
    heading = {message for factory, message, _ in FACTORIES if factory == name}.pop()
    assert text in SECTIONS[heading]
