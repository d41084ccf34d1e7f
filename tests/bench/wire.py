"""Ready-made bytes of a STOMP client over WebSocket.

Client frames carry the mask key 0 (RFC 6455 section 5.3 asks for a mask, and a zero key leaves the payload as it is),
so that nothing is computed per byte. Bodies have one length and their numbers fixed places, so that a receiver finds
them by counting back from the NUL that ends the STOMP frame.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

BODY_SIZE = 100
FIRST_NUMBER = 1_000_000_000
"""Bodies are numbered from here, so that every number has ten digits."""
# Where the number and the time stand, counted from the NUL after the body.
NUMBER_FROM, NUMBER_TO = -95, -85
TIME_FROM, TIME_TO = -80, -64

_BODY = b'{"n":%d,"t":%d,"text":"' + b"x" * 53 + b'"}'
_EPOCH = time.perf_counter_ns() - 10**15


def now() -> int:
    """Nanoseconds on a clock of this process; sixteen digits for the next hundred days."""
    return time.perf_counter_ns() - _EPOCH


def body(number: int, stamp: int) -> bytes:
    """A JSON object of :data:`BODY_SIZE` bytes with a running number and the time of sending."""
    return _BODY % (number, stamp)


def client_frame(payload: bytes, opcode: int = 1) -> bytes:
    """One whole masked WebSocket frame (RFC 6455 section 5.2), payload at most 65,535 bytes."""
    return client_head(len(payload), opcode) + payload


def client_head(size: int, opcode: int = 1) -> bytes:
    """What stands before a payload of this size."""
    if size < 126:
        return bytes((0x80 | opcode, 0x80 | size, 0, 0, 0, 0))
    return bytes((0x80 | opcode, 0xFE, size >> 8, size & 0xFF, 0, 0, 0, 0))


def stomp(command: str, headers: Mapping[str, str], content: bytes = b"") -> bytes:
    """A STOMP frame with its NUL. The headers must need no escaping."""
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    return f"{command}\n{lines}\n".encode() + content + b"\0"


def send_head(destination: str) -> bytes:
    """Everything of a WebSocket message with a SEND in it but the body and the NUL."""
    frame = stomp(
        "SEND",
        {"destination": destination, "content-type": "application/json", "content-length": str(BODY_SIZE)},
        body(FIRST_NUMBER, now()),
    )
    return client_head(len(frame)) + frame[: -BODY_SIZE - 1]


def handshake(port: int, path: str, extensions: str = "") -> bytes:
    """The HTTP request that opens the WebSocket, with the sub-protocol of STOMP 1.2 and the extensions offered."""
    offer = f"Sec-WebSocket-Extensions: {extensions}\r\n" if extensions else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Protocol: v12.stomp\r\n{offer}\r\n"
    ).encode()
