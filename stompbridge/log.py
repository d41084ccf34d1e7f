"""Logging: one line an event, for people on a terminal and as JSON elsewhere.

Texts from clients and brokers end up in log lines. Whatever they hold, a line stays one line and no control
character reaches a terminal: strings are escaped, and tracebacks are indented.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO, cast

import structlog
from msgspec.structs import replace
from structlog.typing import FilteringBoundLogger

from stompbridge.config import Level, Log

EventDict = MutableMapping[str, Any]

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_COLOURS = {"debug": "\x1b[2m", "info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[31m"}
_RESET = "\x1b[0m"


_current: tuple[Log, TextIO | None] = Log(), None


def configure(settings: Log, stream: TextIO | None = None) -> None:
    """Sets up logging to ``stream`` (standard error where it is ``None``); may be called again.

    The standard library's loggers (asyncio, aiormq, websockets) come out the same way, from WARNING up.
    """
    global _current
    _current = settings, stream
    out = sys.stderr if stream is None else stream
    terminal = out.isatty()
    console = settings.format == "console" or (settings.format == "auto" and terminal)
    level = _LEVELS[settings.level]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _add_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            ConsoleRenderer(colours=terminal) if console else render_json,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda name=None: _Output(out, name),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Forward)]:
        root.removeHandler(handler)
    root.addHandler(_Forward())
    root.setLevel(max(level, logging.WARNING))


def level() -> Level:
    """What is in force now."""
    return _current[0].level


def set_level(level: Level) -> Level:
    """Changes the level, and returns what it was, until the next :func:`configure`."""
    settings, stream = _current
    configure(replace(settings, level=level), stream)
    return settings.level


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger whose lines carry ``logger=name``. Follows :func:`configure` even when it was made before."""
    return cast(FilteringBoundLogger, structlog.get_logger(name))


def escape(text: str) -> str:
    """``text`` with everything that is not printable written as an escape: ``\\n``, ``\\x1b``, ``\\u2028``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def render_json(_logger: object, _method: str, event: EventDict) -> str:
    """One JSON object in ASCII: ``timestamp``, ``level``, ``logger`` and ``event`` first."""
    head = {key: event.pop(key) for key in ("timestamp", "level", "logger", "event") if key in event}
    # json leaves DEL alone, which is valid JSON and not fit for a terminal.
    return json.dumps({**head, **event}, default=str).replace("\x7f", "\\u007f")


class ConsoleRenderer:
    """``time level event key=value ... (logger)``; a traceback follows, indented."""

    def __init__(self, *, colours: bool = False) -> None:
        self._colours = colours

    def __call__(self, _logger: object, _method: str, event: EventDict) -> str:
        """The text of one event."""
        time, level = event.pop("timestamp"), event.pop("level")
        name, exception = event.pop("logger", None), event.pop("exception", None)
        label = f"{level:<7}"
        if self._colours:
            label = f"{_COLOURS[level]}{label}{_RESET}"
        words = [time, label, escape(str(event.pop("event")))]
        words += [f"{escape(str(key))}={_value(value)}" for key, value in event.items()]
        if name is not None:
            words.append(f"({escape(str(name))})")
        lines = [" ".join(words)]
        if exception is not None:
            lines += ["    " + escape(line) for line in str(exception).splitlines()]
        return "\n".join(lines)


def _add_name(logger: _Output, _method: str, event: EventDict) -> EventDict:
    if logger.name is not None:
        event["logger"] = logger.name
    return event


def _value(value: object) -> str:
    text = escape(str(value))
    if text and not any(c in ' "=' for c in text):
        return text
    return '"' + text.replace('"', '\\"') + '"'


class _Output:
    """The end of the line. A terminal or pipe that is gone must not end the daemon."""

    def __init__(self, stream: TextIO, name: str | None) -> None:
        self._stream = stream
        self.name = name

    def write(self, text: str) -> None:
        try:
            # Lone surrogates cannot be encoded, and a stream may know less than UTF-8.
            encoding = self._stream.encoding or "utf-8"
            text = text.encode(encoding, "backslashreplace").decode(encoding)
            self._stream.write(text + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            pass

    debug = info = warning = error = critical = msg = write


class _Forward(logging.Handler):
    """Hands records of the standard library's loggers to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except (TypeError, ValueError):
            text = str(record.msg)
        level = max(logging.DEBUG, min(record.levelno // 10 * 10, logging.CRITICAL))
        get_logger(record.name).log(level, text, exc_info=record.exc_info)
