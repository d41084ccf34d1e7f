"""Which module of the package imports which, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGE = "stompbridge"


class Import(NamedTuple):
    """``importer`` imports ``imported``, both dotted and without the package's name in front."""

    importer: str
    imported: str
    late: bool
    """Inside a function or for types only: not when the module is loaded."""


def modules(root: Path = ROOT) -> dict[str, Path]:
    """The package's modules by dotted name; a package stands for its ``__init__``."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root / PACKAGE).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        found[".".join(parts)] = path
    return found


def imports(root: Path = ROOT) -> list[Import]:
    """All imports between modules of the package."""
    known = modules(root)
    found: dict[Import, None] = {}
    for name, path in known.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for target, late in _targets(ast.parse(path.read_text("utf-8")), package, known):
            if target != name:
                found[Import(name, target, late)] = None
    return list(found)


def others(root: Path = ROOT) -> dict[str, set[str]]:
    """Top-level modules of other packages that each module imports."""
    found: dict[str, set[str]] = {}
    for name, path in modules(root).items():
        found[name] = set()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found[name] |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found[name].add(str(node.module).partition(".")[0])
        found[name] -= {PACKAGE, "__future__"}
    return found


def _targets(tree: ast.AST, package: str, known: dict[str, Path], late: bool = False) -> Iterator[tuple[str, bool]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                head, _, rest = alias.name.partition(".")
                if head == PACKAGE:
                    yield rest, late
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, package)
            if base is None:
                continue
            for alias in node.names:
                inner = f"{base}.{alias.name}" if base else alias.name
                yield (inner if inner in known else base), late
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _for_types(node)
            yield from _targets(node, package, known, late or inside)


def _base(node: ast.ImportFrom, package: str) -> str | None:
    """The module that names are imported from; None where it is another package's."""
    if node.level == 0:
        head, _, rest = str(node.module).partition(".")
        return rest if head == PACKAGE else None
    parts = package.split(".") if package else []
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
