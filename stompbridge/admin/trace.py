"""Shows frames while they come and go, without their secrets, to operators who ask for it.

Costs nothing while nobody does: clients are watched only as long as there is a trace that they belong to.
"""

from __future__ import annotations

import asyncio
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import msgspec

from stompbridge.admin.destinations import canonical
from stompbridge.admin.server import Refusal, Sink
from stompbridge.auth.patterns import Wild, Word, matches
from stompbridge.gateway.client import Client
from stompbridge.gateway.shared import Shared
from stompbridge.log import get_logger
from stompbridge.stomp.frames import Frame, Version, unescape

MAX_TRACES = 4
"""At a time; more are refused."""
RATE = 1000
"""Frames a second that a trace shows."""
MAX_UNSENT = 1024 * 1024
"""Bytes that wait for the one who watches; while it is more, frames are left out."""
CUT = 256
"""Characters of a body."""
HIDDEN = "[hidden]"

REPORT_AFTER = 1.0
_INFLATED_MAX = 16 * 1024 * 1024
_TEXT, _BINARY = 1, 2
_SECRET_NAME = re.compile(
    r"passcode|password|passwd|passphrase|secret|token|jwt|auth|cookie|credential|bearer|signature|api[-_]?key",
    re.IGNORECASE,
).search
# An Authorization header's value under another name, and a JSON Web Token.
_SECRET_VALUE = re.compile(r"(bearer|basic|digest) |eyJ[\w-]+\.[\w-]+\.", re.IGNORECASE).match

_log = get_logger(__name__)


class Shown(NamedTuple):
    """One frame as far as it can be shown."""

    command: str
    headers: dict[str, str]
    body: bytes


class Trace:
    """One operator's look at frames: of one session or of all, with a destination that fits a pattern or with any.
    ``with_bodies``: their beginnings are shown, too."""

    def __init__(self, destination: str, session: str, with_bodies: bool) -> None:
        self.session = session
        self._pattern = _pattern(canonical(destination)) if destination else None
        self._with_bodies = with_bodies
        self._sink: Sink | None = None
        self._second = 0
        self._count = 0
        self._dropped = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, sink: Sink) -> None:
        """From now on there is somewhere to write to."""
        self._sink = sink

    def end(self) -> None:
        """Nobody looks any more."""
        self._sink = None
        if self._timer is not None:
            self._timer.cancel()

    def concerns(self, client: Client) -> bool:
        """Whether it may show frames of this client."""
        return not self.session or self.session == client.sender_id

    def show(self, direction: str, client: Client, frame: Shown) -> None:
        """A frame has come or gone."""
        sink = self._sink
        if sink is None or (self._pattern is not None and not _fits(self._pattern, frame.headers)):
            return
        now = time.time()
        if int(now) != self._second:
            self._second, self._count = int(now), 0
        if self._count >= RATE or sink.unsent > MAX_UNSENT:
            self._drop()
            return
        self._count += 1
        self._report()
        body = frame.body.decode(errors="replace")[:CUT] if self._with_bodies else None
        line = {
            "at": now,
            "direction": direction,
            "session": client.sender_id,
            "user": None if client.identity is None else client.user,
            "command": frame.command,
            "headers": frame.headers,
            "body_bytes": len(frame.body),
            "body": body,
        }
        sink.write(msgspec.json.encode(line) + b"\n")

    def _drop(self) -> None:
        self._dropped += 1
        if self._timer is None:
            self._arm()

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(REPORT_AFTER, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._sink is not None and self._sink.unsent <= MAX_UNSENT:
            self._report()
        elif self._dropped:
            self._arm()

    def _report(self) -> None:
        if self._dropped and self._sink is not None:
            dropped, self._dropped = self._dropped, 0
            self._sink.write(msgspec.json.encode({"dropped": dropped}) + b"\n")


class Tracing:
    """All traces. ``clients`` are those that are there; ``secrets`` names further headers that may hold any."""

    def __init__(self, shared: Shared, clients: Callable[[], Iterable[Client]], secrets: Iterable[str] = ()) -> None:
        self._shared = shared
        self._clients = clients
        self._secrets = frozenset(name.lower() for name in secrets)
        self._traces: list[Trace] = []
        # What was written last, for many receivers as a rule, and the frames in it.
        self._written: bytes = b""
        self._frames: list[Shown] = []

    def __len__(self) -> int:
        return len(self._traces)

    def open(self, trace: Trace) -> None:
        """Begins a trace. Raises :class:`Refusal` when there are too many."""
        if len(self._traces) >= MAX_TRACES:
            raise Refusal(503, f"there are {MAX_TRACES} traces, and there may be no more")
        self._traces.append(trace)
        self._shared.watch = self._watch
        for client in self._clients():
            self._watch(client)

    def close(self, trace: Trace) -> None:
        """Ends a trace."""
        trace.end()
        if trace not in self._traces:
            return
        self._traces.remove(trace)
        if not self._traces:
            self._shared.watch = None
            self._written, self._frames = b"", []
        for client in self._clients():
            if not any(each.concerns(client) for each in self._traces):
                client.session.on_frame = None
                client.connection.tap(None)

    def _watch(self, client: Client) -> None:
        if any(trace.concerns(client) for trace in self._traces):
            client.session.on_frame = partial(self._on_frame, client)
            client.connection.tap(partial(self._on_written, client))

    def _on_frame(self, client: Client, frame: Frame) -> None:
        try:
            self._show("in", client, [Shown(frame.command, self._safe(frame.headers), frame.body)])
        except Exception:
            _log.exception("trace_failed")

    def _on_written(self, client: Client, data: bytes) -> None:
        try:
            if data is not self._written:
                self._frames = [self._shown(payload) for payload in _messages(data)]
                self._written = data
            self._show("out", client, self._frames)
        except Exception:
            _log.exception("trace_failed")

    def _show(self, direction: str, client: Client, frames: Sequence[Shown]) -> None:
        for trace in self._traces:
            if trace.concerns(client):
                for frame in frames:
                    trace.show(direction, client, frame)

    def _shown(self, payload: bytes) -> Shown:
        head, _, rest = payload.partition(b"\n\n")
        command, *lines = head.decode(errors="replace").split("\n")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            # As 1.0 has it, so that nothing is refused: CONNECTED knows no escapes.
            headers.setdefault(unescape(name, Version.V10), unescape(value, Version.V10))
        return Shown(command, self._safe(headers), rest[: rest.rfind(b"\0")])

    def _safe(self, headers: Mapping[str, str]) -> dict[str, str]:
        return {name: HIDDEN if self._is_secret(name, value) else value for name, value in headers.items()}

    def _is_secret(self, name: str, value: str) -> bool:
        return name.lower() in self._secrets or bool(_SECRET_NAME(name) or _SECRET_VALUE(value))


def _messages(data: bytes) -> Iterator[bytes]:
    """The payloads of the messages in whole WebSocket frames (RFC 6455 section 5.2); heart-beats are left out."""
    position = 0
    while position < len(data):
        head, length = data[position], data[position + 1]
        position += 2
        if length >= 126:
            size = 2 if length == 126 else 8
            length = int.from_bytes(data[position : position + size])
            position += size
        payload = data[position : position + length]
        position += length
        if head & 0x40:
            # RFC 7692 section 7.2.2.
            payload = zlib.decompressobj(-zlib.MAX_WBITS).decompress(payload + b"\0\0\xff\xff", _INFLATED_MAX)
        if head & 0x0F in (_TEXT, _BINARY) and payload != b"\n":
            yield payload


def _pattern(text: str) -> tuple[Word, ...]:
    wild: dict[str, Word] = {"*": Wild.ONE, "#": Wild.MANY}
    return tuple(wild.get(word, word) for word in _words(text))


def _words(text: str) -> list[str]:
    """Slashes are words of their own, dots stand between words."""
    first, *rest = text.split("/")
    words = first.split(".") if first else []
    for part in rest:
        words += ("/", *part.split("."))
    return words


def _fits(pattern: Sequence[Word], headers: Mapping[str, str]) -> bool:
    destination = headers.get("destination")
    return destination is not None and matches(pattern, _words(canonical(destination)))
