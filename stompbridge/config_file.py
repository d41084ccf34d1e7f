"""Reads typed settings: a TOML file, environment variables above it, command-line values above both.

Knows nothing of particular settings: the model is any tree of :class:`msgspec.Struct` types. A number type whose
``Meta`` title is ``duration`` is written ``"10s"`` (or in seconds), one with the title ``size`` ``"64KiB"`` (or in
bytes). A text with the title ``secret`` is shown to nobody.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import msgspec
from msgspec import inspect

DURATIONS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
SIZES = {"B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
HIDDEN = "***"
"""What stands for a secret."""
_UNITS_OF_SIZE = {unit.lower(): factor for unit, factor in SIZES.items()}

# What Kubernetes sets in every container for a Service called "stompbridge" or "stompbridge-admin".
_SERVICE_LINK = re.compile(r"(_|^)(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_[A-Z]+_(PROTO|PORT|ADDR))$")
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://")


class ConfigError(Exception):
    """The configuration cannot be used. The text has one line for each thing that is wrong, each saying where it was
    set, under which key and to which value."""


@dataclass(slots=True)
class Loaded:
    """Values of a model, by the names of its fields, and where each was set."""

    values: dict[str, Any]
    sources: dict[str, str] = field(default_factory=dict)
    """Source by key path (``broker.exchange[0].type``); a table's entries have their table's source if none."""

    def source(self, path: str) -> str:
        """Where ``path`` or the nearest thing around it was set; empty for a default."""
        while path:
            if path in self.sources:
                return self.sources[path]
            path = re.sub(r"(^|\.)[^.\[\]]+$|\[\d+\]$", "", path)
        return ""


@dataclass(slots=True)
class Input:
    """One leaf or table as it was written."""

    value: object
    source: str
    is_text: bool = False
    """From the environment or the command line, where everything is text."""


def read(
    model: type[msgspec.Struct],
    path: Path | None,
    environ: Mapping[str, str],
    overrides: Mapping[str, str],
    *,
    prefix: str,
    reserved: frozenset[str],
) -> Loaded:
    """Merges the sources into values that fit ``model``.

    ``prefix`` starts the environment variables (``STOMPBRIDGE_``); names in ``reserved`` mean something else.
    Raises :class:`ConfigError` with all that is wrong.
    """
    reader = _Reader(model)
    if path is not None:
        reader.add_table(model, _parse(path), "", str(path))
    for name, text in sorted(environ.items()):
        if name.startswith(prefix) and name not in reserved and not _is_service_link(name.removeprefix(prefix), text):
            reader.add_variable(name, prefix, text)
    for key, text in overrides.items():
        reader.add_override(key, text)
    values = reader.build()
    if reader.problems:
        raise ConfigError("\n".join(reader.problems))
    return Loaded(values, reader.sources)


def problem(source: str, path: str, value: object, text: str) -> str:
    """One line of a :class:`ConfigError`. Passwords in URLs are left out."""
    where = f"{source}: " if source else ""
    shown = show_value(redact(value))
    return f"{where}{path} = {shown if len(shown) <= 200 else shown[:200] + '...'}: {text}"


def redact(value: object) -> object:
    """``value`` with the passwords in its URLs replaced by ``***``."""
    if isinstance(value, str):
        return re.sub(r"([a-z+]+://[^:/@\"]*|^[^:/@\"]*):[^\"]*@", r"\1:***@", value)
    if isinstance(value, list | tuple):
        return [redact(item) for item in value]
    return value


def dump(table: msgspec.Struct) -> str:
    """All values of ``table`` as TOML. Passwords in URLs are left out."""
    return "\n".join(_dump(table, "")) + "\n"


def read_private(path: Path) -> str:
    """The text of a file of secrets. :class:`ValueError` when it cannot be had, or everybody can have it."""
    try:
        with path.open(encoding="utf-8") as file:
            if os.fstat(file.fileno()).st_mode & 0o004:
                raise ValueError("can be read by everybody on this machine: chmod o-rwx")
            return file.read()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None


def show_value(value: object) -> str:
    """``value`` as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list | tuple):
        return "[" + ", ".join(show_value(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{show_key(key)} = {show_value(item)}" for key, item in value.items()) + " }"
    return str(value)


def show_key(key: str) -> str:
    """``key`` as TOML writes it: quoted where it must be."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else show_value(key)


def show_duration(seconds: float) -> str:
    """``10s``, ``500ms``, ``2m``: the largest unit that gives a whole number, seconds where none does."""
    for unit, factor in sorted(DURATIONS.items(), key=lambda item: -item[1]):
        count = seconds / factor
        if count >= 1 and count == round(count):
            return f"{round(count)}{unit}"
    return f"{seconds:g}s"


def show_size(count: int) -> str:
    """``64KiB``, ``1MiB``, ``100B``: the largest binary unit that gives a whole number."""
    for unit in ("GiB", "MiB", "KiB"):
        if count and count % SIZES[unit] == 0:
            return f"{count // SIZES[unit]}{unit}"
    return f"{count}B"


def _dump(table: msgspec.Struct, path: str) -> Iterator[str]:
    fields = {name: (kind, getattr(table, name)) for name, kind in _fields(type(table)).items()}
    for name, (kind, value) in fields.items():
        if not _is_table(value):
            yield f"{name} = {_dump_leaf(kind, value)}"
    for name, (_, value) in fields.items():
        if _is_table(value):
            inner = path + name
            for entry in value if isinstance(value, tuple) else (value,):
                lines = list(_dump(entry, f"{inner}."))
                if lines[0]:
                    yield ""
                    yield f"[[{inner}]]" if isinstance(value, tuple) else f"[{inner}]"
                yield from lines


def _is_table(value: object) -> bool:
    """A table, or a list of at least one."""
    return isinstance(value[0] if isinstance(value, tuple) and value else value, msgspec.Struct)


def _dump_leaf(kind: Any, value: Any) -> str:
    _, title = _unwrap(inspect.type_info(kind))
    if title == "duration":
        return show_value(show_duration(value))
    if title == "size":
        return show_value(show_size(value))
    if title == "secret":
        return show_value(HIDDEN if value else "")
    return show_value(redact(value))


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start})") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from None


def _is_service_link(name: str, text: str) -> bool:
    return "__" not in name and bool(_SERVICE_LINK.search(name) or _SERVICE_URL.match(text))


def _unwrap(kind: inspect.Type) -> tuple[inspect.Type, str]:
    """The type itself and its title: ``duration``, ``size`` or nothing."""
    if isinstance(kind, inspect.Metadata):
        return kind.type, (kind.extra_json_schema or {}).get("title", "")
    return kind, ""


def _fields(model: type[msgspec.Struct]) -> dict[str, Any]:
    return {item.name: item.type for item in msgspec.structs.fields(model)}


def _table(kind: Any) -> type[msgspec.Struct] | None:
    """The Struct that ``kind`` is, if it is one."""
    return kind if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else None


def _leaves(model: type[msgspec.Struct], path: str = "") -> Iterator[str]:
    for name, kind in _fields(model).items():
        table = _table(kind)
        if table is not None:
            yield from _leaves(table, f"{path}{name}.")
        else:
            yield path + name


def _secrets(model: type[msgspec.Struct], path: str = "") -> Iterator[str]:
    for name, kind in _fields(model).items():
        table = _table(kind)
        if table is not None:
            yield from _secrets(table, f"{path}{name}.")
        elif _unwrap(inspect.type_info(kind))[1] == "secret":
            yield path + name


class _Reader:
    def __init__(self, model: type[msgspec.Struct]) -> None:
        self._model = model
        self._leaves = list(_leaves(model))
        self._secrets = frozenset(_secrets(model))
        self._inputs: dict[str, Input] = {}
        self.problems: list[str] = []
        self.sources: dict[str, str] = {}

    def add_table(self, model: type[msgspec.Struct], table: dict[str, Any], prefix: str, source: str) -> None:
        """Takes the leaves of a file's table."""
        fields = _fields(model)
        for name, value in table.items():
            path = prefix + name
            if name not in fields:
                self._unknown(name, path, list(fields), value, source)
                continue
            nested = _table(fields[name])
            if nested is None:
                self._inputs[path] = Input(value, source)
            elif isinstance(value, dict):
                self.add_table(nested, value, f"{path}.", source)
            else:
                self._refuse(source, path, value, f"must be a table: [{path}]")

    def add_variable(self, name: str, prefix: str, text: str) -> None:
        """Takes an environment variable."""
        path = name.removeprefix(prefix).lower().replace("__", ".")
        source = f"environment variable {name}"
        if path in self._leaves:
            self._inputs[path] = Input(text, source, is_text=True)
            return
        names = [leaf.upper().replace(".", "__") for leaf in self._leaves]
        near = difflib.get_close_matches(name.removeprefix(prefix), names, n=1, cutoff=0.7)
        self.problems.append(f"{source}: no such key: {path}" + (f"; did you mean {prefix}{near[0]}?" if near else ""))

    def add_override(self, path: str, text: str) -> None:
        """Takes a value of the command line."""
        if path in self._leaves:
            self._inputs[path] = Input(text, "command line", is_text=True)
        else:
            self._unknown(path, path, self._leaves, text, "command line")

    def build(self) -> dict[str, Any]:
        """The values as nested dicts, each converted to its field's type."""
        return self._build(self._model, "")

    def _build(self, model: type[msgspec.Struct], prefix: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, kind in _fields(model).items():
            path = prefix + name
            table = _table(kind)
            if table is not None:
                values[name] = self._build(table, f"{path}.")
            elif path in self._inputs:
                item = self._inputs[path]
                self.sources[path] = item.source
                raw = self._from_text(item, path, kind) if item.is_text else item.value
                values[name] = self._convert(kind, raw, path, item.source)
        return values

    def _from_text(self, item: Input, path: str, kind: Any) -> object:
        """Reads text as a value of ``kind``; what does not fit stays text, for :meth:`_convert` to refuse."""
        base, _ = _unwrap(inspect.type_info(kind))
        text = str(item.value)
        match base:
            case inspect.BoolType():
                return {"true": True, "false": False}.get(text.lower(), text)
            case inspect.IntType() | inspect.FloatType():
                try:
                    return float(text) if "." in text else int(text)
                except ValueError:
                    return text
            case inspect.VarTupleType() | inspect.DictType():
                try:
                    return tomllib.loads(f"v = {text}")["v"]
                except tomllib.TOMLDecodeError:
                    return text
        return text

    def _convert(self, kind: Any, value: object, path: str, source: str) -> object:
        base, title = _unwrap(inspect.type_info(kind))
        if isinstance(base, inspect.VarTupleType):
            return self._convert_list(base, get_args(kind)[0], value, path, source)
        try:
            return msgspec.convert(_number(value, title), kind)
        except (msgspec.ValidationError, ValueError):
            self._refuse(source, path, HIDDEN if title == "secret" else value, _expectation(base, title, value))
            return None

    def _convert_list(
        self, kind: inspect.VarTupleType, item_kind: Any, value: object, path: str, source: str
    ) -> object:
        item_type = kind.item_type
        if not isinstance(value, list):
            example = "{ ... }" if isinstance(item_type, inspect.StructType) else '"..."'
            self._refuse(source, path, value, f"must be a list: [{example}, {example}]")
            return None
        if isinstance(item_type, inspect.StructType):
            return [
                self._convert_entry(item_type, entry, f"{path}[{index}]", source) for index, entry in enumerate(value)
            ]
        return [self._convert(item_kind, entry, f"{path}[{index}]", source) for index, entry in enumerate(value)]

    def _convert_entry(self, kind: inspect.StructType, value: object, path: str, source: str) -> object:
        fields = {item.name: item for item in msgspec.structs.fields(kind.cls)}
        if not isinstance(value, dict):
            self._refuse(source, path, value, f"must be a table with {', '.join(fields)}")
            return None
        for name, entry in value.items():
            if name not in fields:
                self._unknown(name, f"{path}.{name}", list(fields), entry, source)
        for name, item in fields.items():
            if item.required and name not in value:
                self.problems.append(f"{source}: {path}: {name} is missing")
        return {
            name: self._convert(fields[name].type, entry, f"{path}.{name}", source)
            for name, entry in value.items()
            if name in fields
        }

    def _unknown(self, name: str, path: str, siblings: list[str], value: object, source: str) -> None:
        near = [path.removesuffix(name) + item for item in difflib.get_close_matches(name, siblings, n=1)]
        if not near:
            last = name.rpartition(".")[2]
            elsewhere = {leaf: leaf.rpartition(".")[2] for leaf in self._leaves}
            near = [leaf for leaf, short in elsewhere.items() if short == last][:1]
            near = near or difflib.get_close_matches(path, self._leaves, n=1, cutoff=0.7)
        if near and near[0] in self._secrets:
            value = HIDDEN
        self._refuse(source, path, value, "no such key" + (f"; did you mean {near[0]}?" if near else ""))

    def _refuse(self, source: str, path: str, value: object, text: str) -> None:
        self.problems.append(problem(source, path, value, text))


def _number(value: object, title: str) -> object:
    """``value`` in seconds or bytes where ``title`` asks for it; :class:`ValueError` for text that is neither."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError
    if title not in ("duration", "size") or not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?) ?([A-Za-z]+)", value)
    if match is None:
        raise ValueError
    count, unit = match.groups()
    if title == "duration":
        if unit not in DURATIONS:
            raise ValueError
        # Dividing gives 0.3 for 300 ms, and multiplying 0.3000000000000000x.
        return float(count) / 1000 if unit == "ms" else float(count) * DURATIONS[unit]
    size = float(count) * _UNITS_OF_SIZE.get(unit.lower(), math.nan)
    if size != round(size):
        raise ValueError
    return round(size)


def _expectation(kind: inspect.Type, title: str, value: object) -> str:
    """What a value must be, for people."""
    if title == "duration":
        return 'must be a duration such as "500ms", "10s", "2m", "1h", or a number of seconds, and at most a year'
    if title == "size":
        return 'must be a size such as "64KiB", "10MB", or a number of bytes, and at most 1024GiB'
    match kind:
        case inspect.BoolType():
            return "must be true or false"
        case inspect.IntType(ge=low, le=high):
            limits = f" of at least {low}" if high is None else f" from {low} to {high}"
            return "must be a whole number" + (limits if low is not None else "")
        case inspect.LiteralType(values=values):
            near = difflib.get_close_matches(str(value), [str(item) for item in values], n=1)
            choice = ", ".join(show_value(item) for item in values)
            return f"must be one of {choice}" + (f"; did you mean {show_value(near[0])}?" if near else "")
        case inspect.DictType():
            return 'must be a table of texts: { name = "...", name = "..." }'
    return "must be text in quotes"
