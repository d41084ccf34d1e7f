"""The log events of the package, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple

from tests.docs.imports import modules

LEVELS = ("debug", "info", "warning", "error", "exception")
WRAPPERS = {"_say"}
"""Methods that log under a level of the ``logging`` module and an event's name; what they call may name no event."""


class Event(NamedTuple):
    """An event's name and level; ``exception`` is an error with a traceback."""

    name: str
    level: str


def events() -> dict[str, set[str]]:
    """Levels of each event's name. :class:`ValueError` for a call whose event cannot be read from the source."""
    found: dict[str, set[str]] = {}
    for module, path in modules().items():
        if module == "log":
            continue
        for event in events_of(ast.parse(path.read_text("utf-8")), module):
            found.setdefault(event.name, set()).add(event.level)
    return found


def events_of(tree: ast.AST, where: str, aliases: dict[str, list[str]] | None = None) -> Iterator[Event]:
    """The events of one module. ``aliases``: local names of a logger's methods, by level."""
    aliases = _aliases(tree) if aliases is None else aliases
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef) and node.name in WRAPPERS:
            continue
        yield from events_of(node, where, aliases)
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id in aliases:
            levels, name = aliases[node.func.id], node.args[0]
        elif isinstance(node.func, ast.Attribute) and node.func.attr in WRAPPERS:
            levels, name = [ast.unparse(node.args[0]).rpartition(".")[2].lower()], node.args[1]
        elif method := _method(node.func, (*LEVELS, "log")):
            levels, name = [method], node.args[0]
        else:
            continue
        if not isinstance(name, ast.Constant):
            raise ValueError(f"{where}, line {node.lineno}: the event's name is no literal: {ast.unparse(node)}")
        for level in levels:
            yield Event(str(name.value), level)


def _method(node: ast.AST, names: tuple[str, ...] = LEVELS) -> str:
    """The name of the logger's method that this is; empty if it is none."""
    if isinstance(node, ast.Attribute) and node.attr in names:
        owner = ast.unparse(node.value).rpartition(".")[2]
        return node.attr if owner in ("_log", "log") else ""
    return ""


def _aliases(tree: ast.AST) -> dict[str, list[str]]:
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = node.value
            levels = [_method(one) for one in ([value.body, value.orelse] if isinstance(value, ast.IfExp) else [value])]
            if all(levels):
                found[node.targets[0].id] = levels
    return found
