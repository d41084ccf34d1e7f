"""The opening handshake: which requests become WebSockets. No I/O."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from http import HTTPStatus
from urllib.parse import urlsplit

from websockets.datastructures import Headers
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.http11 import Request, Response
from websockets.protocol import SEND_EOF
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from stompbridge.gateway.closing import CloseReason
from stompbridge.routing.deflate import WINDOW_BITS

SUBPROTOCOLS = (Subprotocol("v12.stomp"), Subprotocol("v11.stomp"), Subprotocol("v10.stomp"))
"""What STOMP's clients offer, by our preference."""

MAX_REQUEST = 32 * 1024
"""The longest request head, in bytes; far more than a browser sends, cookies included."""

RETRY_AFTER = 5
"""Seconds after which whoever is turned away may come again."""

_COMPRESSION = (
    ServerPerMessageDeflateFactory(
        server_no_context_takeover=True,
        client_no_context_takeover=True,
        server_max_window_bits=WINDOW_BITS,
        client_max_window_bits=WINDOW_BITS,
    ),
)
_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_DEFAULT_PORTS = {"http": 80, "https": 443}

# ServerProtocol tells each connection's begin and end, which are logged elsewhere.
_quiet = logging.getLogger(__name__)
_quiet.setLevel(logging.ERROR)


class StompServerProtocol(ServerProtocol):
    """WebSocket that accepts clients without a sub-protocol, too. No extension but, where it is wanted,
    permessage-deflate without context takeover (RFC 7692): neither side keeps anything from message to message."""

    def __init__(self, max_size: int, compression: bool = False) -> None:
        super().__init__(max_size=max_size, extensions=_COMPRESSION if compression else None, logger=_quiet)

    @property
    def compresses(self) -> bool:
        """Whether the client takes messages compressed with a window of ``WINDOW_BITS``, after the handshake."""
        return any(
            isinstance(extension, PerMessageDeflate) and extension.local_max_window_bits >= WINDOW_BITS
            for extension in self.extensions
        )

    def select_subprotocol(self, subprotocols: Sequence[Subprotocol]) -> Subprotocol | None:
        """Ours that comes first among those offered; ``None`` where none is known."""
        for subprotocol in SUBPROTOCOLS:
            if subprotocol in subprotocols:
                return subprotocol
        return None


class Handshake:
    """Reads the request and has ``protocol`` answer it.

    ``path`` is the one path that is served; ``origins`` the origins that may connect, or empty for the server's own.
    ``https``: the server itself ends TLS.
    """

    __slots__ = ("_https", "_origins", "_path", "_protocol", "_size", "_tail", "reason", "refusal")

    def __init__(self, protocol: ServerProtocol, path: str, origins: Sequence[str], https: bool = False) -> None:
        self._protocol = protocol
        self._path = path.removesuffix("/")
        self._origins = origins
        self._https = https
        self._tail = b""
        self._size = 0
        self.reason = CloseReason.REJECTED
        """What a refusal counts as."""
        self.refusal = ""
        """Why the request was refused, for the log; from the client, in part."""

    def receive(self, data: bytes) -> bytes | None:
        """Takes bytes; once the request is whole and answered, returns those that follow it, ``None`` before."""
        # ServerProtocol would take what follows for frames before the handshake is accepted: it gets the head only.
        seen = self._tail + data
        end = seen.find(b"\r\n\r\n")
        head = data if end < 0 else data[: end + 4 - len(self._tail)]
        self._tail = seen[-3:]
        self._size += len(head)
        protocol = self._protocol
        if self._size > MAX_REQUEST:
            text = f"request head of more than {MAX_REQUEST} bytes"
            protocol.send_response(self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, text))
            return b""
        protocol.receive_data(head)
        for event in protocol.events_received():
            assert isinstance(event, Request)
            response = self._answer(event)
            if event.method == "HEAD":
                response.body = b""
            protocol.send_response(response)
            return data[len(head) :]
        if protocol.eof_sent:
            self.refusal = str(protocol.handshake_exc)[:200]
            return b""
        return None

    def output(self) -> list[bytes]:
        """What is to be sent, as :meth:`ServerProtocol.data_to_send`; what is not HTTP gets an answer, too."""
        out = self._protocol.data_to_send()
        return [_BAD_REQUEST, *out] if out == [SEND_EOF] else out

    def turn_away(self, reason: CloseReason) -> None:
        """Refuses whoever is still in the handshake, for now."""
        self._protocol.send_response(self._not_now(reason))

    def _answer(self, request: Request) -> Response:
        path = request.path.partition("?")[0]
        if path.removesuffix("/") != self._path:
            return self._refuse(HTTPStatus.NOT_FOUND, f"nothing is served at {path[:200]}")
        response = self._protocol.accept(request)
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self.refusal = str(self._protocol.handshake_exc)[:200]
            return response
        origin = request.headers.get("Origin")
        if origin is not None and not self._is_allowed(origin, request.headers):
            return self._refuse(HTTPStatus.FORBIDDEN, f"origin {origin[:200]} may not connect")
        return response

    def _is_allowed(self, origin: str, headers: Headers) -> bool:
        if self._origins:
            return origin in self._origins
        hosts = headers.get_all("Host")
        return len(hosts) == 1 and is_same_origin(origin, hosts[0], self._https)

    def _not_now(self, reason: CloseReason) -> Response:
        self.reason = reason
        response = self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, reason.text)
        response.headers["Retry-After"] = str(RETRY_AFTER)
        return response

    def _refuse(self, status: HTTPStatus, text: str) -> Response:
        self.refusal = text
        return self._protocol.reject(status, f"{text}\n")


def is_same_origin(origin: str, host: str, https: bool) -> bool:
    """Whether a page of ``origin`` (``https://chat.example``) came from the server that ``Host: host`` names.

    ``https``: the server ends TLS itself, so that the page's scheme must be that. Else the scheme is not known here,
    as a proxy may do so: the port that stands for none is the origin's.
    """
    try:
        page = urlsplit(origin)
        ours = urlsplit(f"//{host}")
        default = _DEFAULT_PORTS.get(page.scheme) if not https or page.scheme == "https" else None
        return (
            default is not None
            and bool(page.hostname)
            and page.hostname == ours.hostname
            and (page.port or default) == (ours.port or default)
        )
    except ValueError:
        return False
