from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from stompbridge import log
from stompbridge.config import Log


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def logging_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, before = root.handlers[:], root.level, structlog.get_config()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**before)


def console(**settings: Any) -> io.StringIO:
    stream = io.StringIO()
    log.configure(Log(format="console", **settings), stream)
    return stream


def as_json(**settings: Any) -> io.StringIO:
    stream = io.StringIO()
    log.configure(Log(format="json", **settings), stream)
    return stream


def test_console() -> None:
    stream = console()
    log.get_logger("stompbridge").info("listening", url="ws://127.0.0.1:8080/ws", note="two words", empty="", n=1)
    time, rest = stream.getvalue().split(" ", 1)
    assert time.endswith("Z")
    assert rest == 'info    listening url=ws://127.0.0.1:8080/ws note="two words" empty="" n=1 (stompbridge)\n'


def test_json() -> None:
    stream = as_json()
    log.get_logger("stompbridge.gateway").warning("closed", reason="slow", bytes=1, other=object)
    line = stream.getvalue()
    event = json.loads(line)
    assert list(event)[:4] == ["timestamp", "level", "logger", "event"]
    assert (event["level"], event["logger"], event["event"]) == ("warning", "stompbridge.gateway", "closed")
    assert (event["reason"], event["bytes"], event["other"]) == ("slow", 1, "<class 'object'>")
    assert line.count("\n") == 1


def test_auto_is_json_but_on_a_terminal() -> None:
    pipe, terminal = io.StringIO(), Terminal()
    log.configure(Log(), pipe)
    structlog.get_logger().info("x")
    log.configure(Log(), terminal)
    structlog.get_logger().info("x")
    assert json.loads(pipe.getvalue())["event"] == "x"
    assert "\x1b[32minfo   \x1b[0m x\n" in terminal.getvalue()


def test_standard_error_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(Log())
    log.get_logger("a").info("x")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["event"] == "x"


def test_level() -> None:
    stream = console(level="warning")
    early = log.get_logger("early")
    early.info("hidden")
    early.warning("shown")
    log.configure(Log(format="console", level="debug"), stream)
    early.debug("shown too")
    assert [line.split()[2] for line in stream.getvalue().splitlines()] == ["shown", "shown"]


def test_the_level_can_be_changed_for_a_while() -> None:
    out = io.StringIO()
    log.configure(Log(level="warning", format="json"), out)
    logger = log.get_logger("test")
    logger.info("unheard")
    assert log.set_level("debug") == "warning"
    logger.debug("heard")
    assert log.set_level("error") == "debug"
    logger.warning("unheard")
    log.configure(Log(level="warning", format="json"), out)
    assert log.set_level("warning") == "warning"
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["heard"]


@pytest.mark.parametrize("make", [console, as_json])
@given(text=st.text())
def test_a_text_cannot_leave_its_line(make: Any, text: str) -> None:
    text += "\n\r\x1b[2J\x7f\x9b\u2028\u202e\ud800"
    stream = make()
    log.get_logger(text).info(text, value=text, items=[text])
    line = stream.getvalue()
    assert line.endswith("\n")
    assert line[:-1].isprintable()


@pytest.mark.parametrize("make", [console, as_json])
def test_a_traceback_is_whole_and_marked(make: Any) -> None:
    stream = make()
    try:
        raise ValueError("bad\n2026-01-01T00:00:00Z info forged\x1b[2J")
    except ValueError:
        log.get_logger("a").exception("failed")
    text = stream.getvalue()
    assert "ValueError: bad" in text
    assert "\x1b" not in text
    assert not any(line.startswith("2026-01-01") for line in text.splitlines())


def test_the_standard_library_comes_the_same_way() -> None:
    # pytest's own handlers raise what a bad format raises.
    logging.getLogger().handlers.clear()
    stream = as_json()
    log.configure(Log(format="json"), stream)
    logging.getLogger("aiormq").info("not this")
    logging.getLogger("aiormq").warning("lost %s", "it")
    logging.getLogger("websockets").log(35, "between")
    logging.getLogger("asyncio").critical("bad format %s %d", "x")
    logging.getLogger("asyncio").log(1000, "beyond")
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(event["logger"], event["level"], event["event"]) for event in events] == [
        ("aiormq", "warning", "lost it"),
        ("websockets", "warning", "between"),
        ("asyncio", "critical", "bad format %s %d"),
        ("asyncio", "critical", "beyond"),
    ]


def test_an_exception_of_the_standard_library() -> None:
    stream = as_json()
    try:
        raise KeyError("x")
    except KeyError:
        logging.getLogger("asyncio").exception("callback failed")
    assert "KeyError: 'x'" in json.loads(stream.getvalue())["exception"]


def test_debug_keeps_the_standard_library_at_warning() -> None:
    stream = console(level="debug")
    logging.getLogger("asyncio").debug("using selector")
    assert stream.getvalue() == ""


def test_a_stream_that_is_gone_is_no_error() -> None:
    stream = console()
    stream.close()
    log.get_logger("a").info("x")


def test_a_stream_that_knows_less_than_unicode() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    log.configure(Log(format="console"), stream)
    log.get_logger("a").info("größer")
    assert b"gr\\xf6\\xdfer" in raw.getvalue()
