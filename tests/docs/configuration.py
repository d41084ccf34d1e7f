"""Writes docs/configuration.md from the types of the settings and the annotated default file.

``python -m tests.docs.configuration`` writes it. Types and defaults are the code's; meanings are the comments of
``config/stompbridge.toml``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin

import msgspec
from msgspec import inspect

from stompbridge import config
from stompbridge.config_file import show_duration, show_size, show_value
from tests.docs.imports import ROOT

DOCUMENT = ROOT / "docs/configuration.md"
HEAD = """# Configuration

Every key, from the types of the settings and the comments of `config/stompbridge.toml`; `python -m
tests.docs.configuration` writes this page.

A setting comes from the file, from the environment above it, or from a flag above both:

    bin/stompbridge config default > bridge.toml        # a file with every key at its default
    bin/stompbridge config check --config bridge.toml   # what is wrong, and where
    bin/stompbridge config show --config bridge.toml    # what is in force, without passwords

- The **environment variable** of a key is `STOMPBRIDGE_`, its table and its name in capitals with two underscores for
  each dot: `listen.port` is `STOMPBRIDGE_LISTEN__PORT`. `STOMPBRIDGE_CONFIG` names the file. A list or table is written
  as in TOML: `STOMPBRIDGE_BROKER__URLS='["amqp://host/%2F"]'`.
- Any key can be a **flag** of `serve`: `--set limits.frame=1MiB`.
- A **duration** is a number with `ms`, `s`, `m`, `h` or `d`, a **size** one with `B`, `kB`, `MB`, `GB`, `KiB`, `MiB` or
  `GiB`. Bare numbers are seconds and bytes.
- An unknown key and a value that does not fit are errors, which name the key, the value and the source. Nothing starts
  then.
- Keys marked *reloaded* are read anew on SIGHUP. All others take a restart. See [operations.md](operations.md#reload).
"""
RELOADED = {
    "drain_time": "",
    "shutdown_timeout": "",
    "acl": "for all sessions",
    "limits": "what is made with a session, such as limits on frames and subscriptions, for new ones",
    "log.level": "",
    "auth.users_file": "the file's users",
    "auth.jwt.key_file": "the file",
    "auth.jwt.jwks_file": "the file",
    "auth.jwt.jwks_url": "what it answers",
    "listen.tls_cert": "the file, for new connections",
    "listen.tls_key": "the file, for new connections",
}
"""Keys, or the tables they stand in, that SIGHUP reads anew, and what of them."""


@dataclass
class Key:
    path: str
    kind: str
    default: str | None
    """As TOML; None where the key has to be given."""
    environment: str | None
    """None in tables of which there may be several."""


@dataclass
class Group:
    """Keys that one comment of the default file describes."""

    keys: list[str]
    text: str


@dataclass
class Table:
    name: str
    text: str = ""
    groups: list[Group] = field(default_factory=list)


def keys(model: type[msgspec.Struct] = config.Settings, path: str = "", *, several: bool = False) -> Iterator[Key]:
    """All keys below ``model``, tables that may be repeated included."""
    described = {one.encode_name: one.type for one in inspect.type_info(model).fields}  # type: ignore[attr-defined]
    for one in msgspec.structs.fields(model):
        inner = path + one.name
        if isinstance(one.type, type) and issubclass(one.type, msgspec.Struct):
            yield from keys(one.type, f"{inner}.", several=several)
        elif (item := _repeated(one.type)) is not None:
            yield from keys(item, f"{inner}.", several=True)
        else:
            kind, default = described[one.name], _default(one)
            yield Key(
                inner,
                _choice(get_args(one.type)) if get_origin(one.type) is Literal else type_name(kind),
                None if default is msgspec.NODEFAULT else _shown(default, kind),
                None if several else config.ENVIRONMENT_PREFIX + inner.upper().replace(".", "__"),
            )


def type_name(kind: inspect.Type) -> str:
    """What may stand there, in words."""
    if isinstance(kind, inspect.Metadata):
        return type_name(kind.type)
    if isinstance(kind, inspect.LiteralType):
        return _choice(kind.values)
    if isinstance(kind, inspect.VarTupleType):
        inner = type_name(kind.item_type)
        return f"list of {'strings' if inner == 'string' else inner}"
    if isinstance(kind, inspect.DictType):
        return "table of strings"
    if isinstance(kind, inspect.BoolType):
        return "`true` or `false`"
    if isinstance(kind, inspect.StrType):
        return "string"
    if isinstance(kind, inspect.FloatType):
        return "duration"
    if isinstance(kind, inspect.IntType):
        if kind.le == 2**40:
            return "size"
        if kind.le == 2**31 - 1 or kind.le is None:
            return f"number from {kind.ge}"
        return f"number, {kind.ge} to {kind.le}"
    raise TypeError(kind)


def tables(text: str) -> list[Table]:
    """The default file's tables, in order, with the comments above their keys. The first has no name."""
    found = [Table("")]
    comment: list[str] = []
    previous = ""
    for line in [*text.splitlines(), ""]:
        if match := re.match(r"#?\[+([a-z_.]+)\]+\s*(?:#\s*(.*))?$", line):
            found.append(Table(match[1], match[2] or ""))
            if line.startswith("#"):
                found[-1].text = "\n".join(comment)
            comment = []
        elif match := re.match(r"#?(\w+) = ", line):
            table = found[-1]
            if not comment and previous == "key" and table.groups:
                table.groups[-1].keys.append(match[1])
            else:
                table.groups.append(Group([match[1]], "\n".join(comment)))
            comment = []
            previous = "key"
            continue
        elif line.startswith("#"):
            comment.append(line.removeprefix("#").removeprefix(" "))
        elif comment and previous != "key" and len(found) == 1 and not found[0].text:
            found[0].text, comment = "\n".join(comment), []
        previous = "blank" if not line else previous if line.startswith("#") and not comment else "comment"
    return found


def markdown(text: str) -> str:
    """A comment of the default file as Markdown. After an empty line, what is indented by four is an example; what is
    indented by two is an item of a list, and what is indented deeper belongs to it."""
    lines: list[str] = []
    inside = listing = False
    for line in text.splitlines():
        if line.startswith("    ") and not listing:
            if not inside:
                lines.append("```toml")
            inside = True
            lines.append(line[4:])
            continue
        if inside:
            lines.append("```")
            inside = False
        line = re.sub(r"([*<])", r"\\\1", line)
        if item := re.match(r'  (".+?") +(.*)', line):
            lines += ([] if listing else [""]) + [f"- {item[1]}: {item[2]}"]
            listing = True
        elif listing and line.startswith("    "):
            lines.append(f"  {line.strip()}")
        else:
            listing = False
            lines.append(line)
    return "\n".join([*lines, "```"] if inside else lines).strip()


def page() -> str:
    """The whole document."""
    known = {key.path: key for key in keys()}
    parts = [HEAD]
    for table in tables(config.default_toml()):
        prefix = f"{table.name}." if table.name else ""
        if not table.groups:
            continue
        repeated = known[prefix + table.groups[0].keys[0]].environment is None
        title = f"[[{table.name}]]" if repeated else f"[{table.name}]"
        parts.append(f"## {f'`{title}`' if table.name else 'Above all tables'}")
        if table.text and table.name:
            parts.append(markdown(_sentence(table.text) if not repeated else table.text))
        if note := RELOADED.get(table.name):
            parts.append(f"*Reloaded*, {note}.")
        for group in table.groups:
            parts.append("\n".join(_line(known[prefix + name], repeated) for name in group.keys))
            if group.text:
                parts.append(markdown(group.text))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _line(key: Key, repeated: bool) -> str:
    name = key.path.rpartition(".")[2]
    default = "required" if key.default is None else f"default `{key.default}`"
    line = f'- <a id="{key.path}"></a>**`{name}`**: {key.kind}; {default}'
    if key.environment:
        line += f"; `{key.environment}`"
    if key.path in RELOADED:
        what = RELOADED[key.path]
        line += f". *Reloaded*{f': {what}' if what else ''}"
    return line


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith(".") else text + "."


def _repeated(kind: Any) -> type[msgspec.Struct] | None:
    """The table of which there may be several, if this is a list of such."""
    arguments = get_args(kind)
    if get_origin(kind) is tuple and isinstance(arguments[0], type) and issubclass(arguments[0], msgspec.Struct):
        return arguments[0]
    return None


def _default(one: msgspec.structs.FieldInfo) -> object:
    if one.name == "node":
        return "(host name)"
    if one.default_factory is not msgspec.NODEFAULT:
        return one.default_factory()
    return one.default


def _shown(value: object, kind: inspect.Type) -> str:
    title = (kind.extra_json_schema or {}).get("title") if isinstance(kind, inspect.Metadata) else None
    if isinstance(value, int | float) and not isinstance(value, bool):
        if title == "duration":
            return f'"{show_duration(value)}"'
        if title == "size":
            return f'"{show_size(int(value))}"'
    if value == {}:
        return "{}"
    return "the host's name" if value == "(host name)" else show_value(value)


def _choice(values: Iterable[object]) -> str:
    quoted = [f"`{show_value(value)}`" for value in values]
    return " or ".join([", ".join(quoted[:-1]), quoted[-1]]) if len(quoted) > 1 else quoted[0]


def main() -> int:
    DOCUMENT.write_text(page(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
