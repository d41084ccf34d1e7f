"""Checks of header values that become AMQP fields. What does not fit is a ``Processing error`` of the frame."""

from __future__ import annotations

from stompbridge.stomp.errors import processing_error

SHORT_STRING = 255
"""Octets of an AMQP short string (AMQP 0-9-1, section 4.2.5.3): names, keys and text properties."""

_BOOLEANS = {"true": True, "True": True, "false": False, "False": False}


def boolean(what: str, text: str) -> bool:
    """``true``, ``True``, ``false`` or ``False``. ``what`` names the value in the error, here and below."""
    value = _BOOLEANS.get(text.strip())
    if value is None:
        raise processing_error(f"{what} must be true or false")
    return value


def integer(what: str, text: str, low: int = -(2**63), high: int = 2**63 - 1) -> int:
    """A decimal integer from ``low`` to ``high``, with or without sign; spaces around it are ignored."""
    text = text.strip()
    digits = text[1:] if text[:1] in ("-", "+") else text
    if digits.isascii() and digits.isdigit() and len(digits) <= 20:
        value = int(text)
        if low <= value <= high:
            return value
    raise processing_error(f"{what} must be an integer from {low} to {high}")


def short_string(what: str, text: str) -> str:
    """``text`` itself, if it is at most 255 octets of UTF-8."""
    if len(text) > SHORT_STRING or (len(text) * 4 > SHORT_STRING and len(text.encode()) > SHORT_STRING):
        raise processing_error(f"{what} is longer than {SHORT_STRING} bytes")
    return text
