from __future__ import annotations

import pytest

from stompbridge.routing.values import boolean, integer, short_string
from stompbridge.stomp.errors import StompError


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("True", True), ("false", False), ("False", False), (" true ", True)]
)
def test_boolean(text: str, value: bool) -> None:
    assert boolean("header 'durable'", text) is value


@pytest.mark.parametrize("text", ["", "yes", "TRUE", "1"])
def test_bad_boolean(text: str) -> None:
    with pytest.raises(StompError, match="header 'durable' must be true or false") as caught:
        boolean("header 'durable'", text)
    assert caught.value.message == "Processing error"
    assert not caught.value.fatal


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("-7", -7), ("+7", 7), (" 12 ", 12), ("007", 7), (str(2**63 - 1), 2**63 - 1)]
)
def test_integer(text: str, value: int) -> None:
    assert integer("header 'priority'", text) == value


@pytest.mark.parametrize("text", ["", "-", "1.0", "1e3", "1_000", "٣", "²", "0x1", str(2**63), "9" * 5000, "--1"])
def test_bad_integer(text: str) -> None:
    with pytest.raises(StompError, match="header 'priority' must be an integer"):
        integer("header 'priority'", text)


def test_integer_range() -> None:
    assert integer("header 'priority'", "255", 0, 255) == 255
    for text in ("-1", "256"):
        with pytest.raises(StompError, match="from 0 to 255"):
            integer("header 'priority'", text, 0, 255)


@pytest.mark.parametrize("text", ["", "a" * 255, "é" * 127, "a" * 60 + "é" * 97])
def test_short_string(text: str) -> None:
    assert short_string("the name", text) is text


@pytest.mark.parametrize("text", ["a" * 256, "é" * 128, "😀" * 64])
def test_long_string(text: str) -> None:
    with pytest.raises(StompError, match="the name is longer than 255 bytes"):
        short_string("the name", text)
