from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.protocol import SEND_EOF, State

from stompbridge.gateway.closing import CloseReason
from stompbridge.gateway.handshake import MAX_REQUEST, Handshake, StompServerProtocol, is_same_origin
from tests.gateway.harness import CLOSE, PING, TEXT, frame, request


class Run:
    """What became of a request that came in these parts."""

    def __init__(
        self,
        *parts: bytes,
        path: str = "/ws",
        origins: Sequence[str] = (),
        https: bool = False,
        compression: bool = False,
    ) -> None:
        self.protocol = StompServerProtocol(1000, compression)
        self.handshake = Handshake(self.protocol, path, origins, https)
        self.rest: bytes | None = None
        for n, part in enumerate(parts):
            self.rest = self.handshake.receive(part)
            if self.rest is not None:
                self.rest += b"".join(parts[n + 1 :])
                break
        out = self.handshake.output()
        self.finished = out[-1:] == [SEND_EOF]
        self.head, _, self.body = b"".join(out).partition(b"\r\n\r\n")
        self.status = int(self.head.split(b" ")[1]) if self.head else 0
        lines = self.head.decode().split("\r\n")[1:]
        self.headers = {name: value for name, _, value in (line.partition(": ") for line in lines)}


def bytewise(data: bytes) -> list[bytes]:
    return [data[n : n + 1] for n in range(len(data))]


REFUSALS: dict[str, tuple[int, bytes]] = {
    "another path": (404, request("/")),
    "a path below": (404, request("/ws/info")),
    "a path that begins so": (404, request("/wsx")),
    "two slashes": (404, request("/ws//")),
    "the whole address": (404, request("http://chat.example/ws")),
    "no upgrade": (426, request(headers={"Upgrade": None, "Connection": "keep-alive"})),
    "no connection upgrade": (426, request(headers={"Connection": "close"})),
    "another upgrade": (426, request(headers={"Upgrade": "h2c"})),
    "no key": (400, request(headers={"Sec-WebSocket-Key": None})),
    "bad key": (400, request(headers={"Sec-WebSocket-Key": "abc"})),
    "no version": (400, request(headers={"Sec-WebSocket-Version": None})),
    "old version": (400, request(headers={"Sec-WebSocket-Version": "8"})),
    "POST": (405, request(line="POST {} HTTP/1.1")),
    "HEAD": (405, request(line="HEAD {} HTTP/1.1")),
    "HTTP/1.0": (505, request(line="GET {} HTTP/1.0")),
    "HTTP/3": (400, request(line="GET {} HTTP/3")),
    "a body": (400, request(headers={"Content-Length": "3"})),
    "chunks": (400, request(headers={"Transfer-Encoding": "chunked"})),
    "bad sub-protocols": (400, request(headers={"Sec-WebSocket-Protocol": ", ;"})),
    "foreign origin": (403, request(headers={"Origin": "https://evil.example"})),
    "origin null": (403, request(headers={"Origin": "null"})),
    "two origins": (400, request(headers={"Origin": "http://chat.example\r\nOrigin: http://evil.example"})),
    "origin, two hosts": (403, request(headers={"Origin": "http://a", "Host": "a\r\nHost: a"})),
    "origin, no host": (403, request(headers={"Origin": "http://chat.example", "Host": None})),
    "garbage": (400, b"\x16\x03\x01\x02\n\r\n\r\n"),
    "garbage line": (400, b"hello\r\n\r\n"),
    "an empty line first": (400, b"\r\n\r\n"),
    "line feeds only": (400, request().replace(b"\r\n", b"\n")),
    "bad header": (400, request(headers={"a b": "c"})),
    "long path": (414, request("/" + "x" * 9000)),
    "long header": (431, request(headers={"Cookie": "x" * 9000})),
    "many headers": (431, request(headers={f"X-{n}": "x" for n in range(200)})),
    "big head": (431, request(headers={f"X-{n}": "x" * 8000 for n in range(5)})),
}


@pytest.mark.parametrize(("status", "data"), REFUSALS.values(), ids=REFUSALS)
@pytest.mark.parametrize("trailer", [b"", frame(TEXT, b"x"), b"GET / HTTP/1.1\r\n\r\n"], ids=repr)
def test_refusals(status: int, data: bytes, trailer: bytes) -> None:
    for run in (Run(data + trailer), Run(*bytewise(data + trailer))):
        assert run.status == status
        assert run.finished
        assert run.headers["Connection"] == "close"
        assert run.headers["Content-Length"] == str(len(run.body)) or run.body == b""
        assert run.handshake.refusal
        assert len(run.handshake.refusal) < 300
        assert run.protocol.state is State.CONNECTING
        if data.startswith(b"HEAD"):
            assert run.body == b""


def test_refusals_say_what_to_do() -> None:
    assert Run(REFUSALS["no upgrade"][1]).headers["Upgrade"] == "websocket"
    assert Run(REFUSALS["POST"][1]).headers["Allow"] == "GET"
    assert b"/ws/info" in Run(REFUSALS["a path below"][1]).body


def test_the_query_is_not_told() -> None:
    run = Run(request("/other?token=secret"))
    assert run.status == 404
    assert "secret" not in run.handshake.refusal
    assert b"secret" not in run.body


@pytest.mark.parametrize("target", ["/ws", "/ws/", "/ws?token=x", "/ws/?a=/b?c"])
@pytest.mark.parametrize("path", ["/ws", "/ws/"])
def test_paths(target: str, path: str) -> None:
    run = Run(request(target), path=path)
    assert run.status == 101
    assert not run.finished
    assert run.handshake.refusal == ""


@pytest.mark.parametrize("target", ["/", "/?a"])
def test_root_path(target: str) -> None:
    assert Run(request(target), path="/").status == 101
    assert Run(request("/ws"), path="/").status == 404


def test_accepted_as_the_specification_has_it() -> None:
    # RFC 6455 section 1.3 has this key and its answer.
    run = Run(request())
    assert run.headers["Sec-WebSocket-Accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert run.protocol.state is State.OPEN


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (None, None),
        ("v12.stomp", "v12.stomp"),
        ("v10.stomp, v11.stomp, v12.stomp", "v12.stomp"),
        ("v10.stomp,v11.stomp", "v11.stomp"),
        ("v10.stomp", "v10.stomp"),
        ("mqtt", None),
        ("mqtt, v11.stomp", "v11.stomp"),
        ("mqtt\r\nSec-WebSocket-Protocol: v10.stomp", "v10.stomp"),
    ],
)
def test_subprotocols(offered: str | None, chosen: str | None) -> None:
    run = Run(request(headers={"Sec-WebSocket-Protocol": offered}))
    assert run.status == 101
    assert run.headers.get("Sec-WebSocket-Protocol") == chosen
    assert run.protocol.subprotocol == chosen


DEFLATE = "permessage-deflate"
OFFERS: list[tuple[str, str | None, bool]] = [
    (DEFLATE, "server_no_context_takeover; client_no_context_takeover; server_max_window_bits=12", True),
    # As browsers offer it.
    (
        f"{DEFLATE}; client_max_window_bits",
        "server_no_context_takeover; client_no_context_takeover; server_max_window_bits=12; client_max_window_bits=12",
        True,
    ),
    (
        f"{DEFLATE}; server_max_window_bits=15",
        "server_no_context_takeover; client_no_context_takeover; server_max_window_bits=12",
        True,
    ),
    # Too small for what is shared: this client gets messages as they are.
    (
        f"{DEFLATE}; server_max_window_bits=9",
        "server_no_context_takeover; client_no_context_takeover; server_max_window_bits=9",
        False,
    ),
    (f"{DEFLATE}; server_max_window_bits=8", None, False),
    (f"{DEFLATE}; nonsense", None, False),
    ("x-webkit-deflate-frame", None, False),
]


@pytest.mark.parametrize(("offered", "chosen", "compresses"), OFFERS)
def test_compression(offered: str, chosen: str | None, compresses: bool) -> None:
    run = Run(request(headers={"Sec-WebSocket-Extensions": offered}), compression=True)
    assert run.status == 101
    expected = None if chosen is None else f"{DEFLATE}; {chosen}"
    assert run.headers.get("Sec-WebSocket-Extensions") == expected
    assert run.protocol.compresses is compresses


def test_no_extension_is_accepted() -> None:
    run = Run(request(headers={"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}))
    assert run.status == 101
    assert "Sec-WebSocket-Extensions" not in run.headers
    assert not run.protocol.compresses


SAME = [
    ("http://chat.example", "chat.example"),
    ("http://chat.example", "chat.example:80"),
    ("http://chat.example:80", "chat.example"),
    ("https://chat.example", "chat.example"),
    ("https://chat.example", "chat.example:443"),
    ("https://chat.example:443", "chat.example"),
    ("http://chat.example:8080", "chat.example:8080"),
    ("HTTP://Chat.Example", "chat.example"),
    ("http://chat.example", "CHAT.EXAMPLE"),
    ("http://127.0.0.1:8080", "127.0.0.1:8080"),
    ("http://[::1]:8080", "[::1]:8080"),
]
OTHER = [
    ("http://chat.example", "chat.example:8080"),
    ("http://chat.example:8080", "chat.example"),
    ("https://chat.example", "chat.example:80"),
    ("http://chat.example", "chat.example:443"),
    ("http://chat.example.evil.example", "chat.example"),
    ("http://evil.example", "chat.example"),
    ("http://sub.chat.example", "chat.example"),
    ("null", "null"),
    ("null", ""),
    ("", ""),
    ("file://", ""),
    ("file://chat.example", "chat.example"),
    ("chrome-extension://abc", "abc"),
    ("http://", ""),
    ("http://chat.example:x", "chat.example:x"),
    ("http://[::1", "[::1"),
    ("http://chat.example:99999", "chat.example:99999"),
]


@pytest.mark.parametrize(("origin", "host"), SAME)
def test_same_origins(origin: str, host: str) -> None:
    assert is_same_origin(origin, host, False)
    assert Run(request(headers={"Origin": origin, "Host": host})).status == 101


@pytest.mark.parametrize(("origin", "host"), OTHER)
def test_other_origins(origin: str, host: str) -> None:
    assert not is_same_origin(origin, host, False)
    assert Run(request(headers={"Origin": origin, "Host": host})).status == 403


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        ("https://chat.example", "chat.example", 101),
        ("https://chat.example", "chat.example:443", 101),
        ("https://chat.example:8443", "chat.example:8443", 101),
        # The page came over a connection that anybody may have tampered with.
        ("http://chat.example", "chat.example", 403),
        ("http://chat.example:443", "chat.example:443", 403),
        ("http://chat.example:8443", "chat.example:8443", 403),
    ],
)
def test_origins_where_the_server_ends_tls(origin: str, host: str, status: int) -> None:
    assert is_same_origin(origin, host, True) is (status == 101)
    assert Run(request(headers={"Origin": origin, "Host": host}), https=True).status == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 101),
        ("https://chat.example", 101),
        ("http://localhost:3000", 101),
        ("http://chat.example", 403),
        ("https://chat.example:443", 403),
        ("https://chat.example.evil.example", 403),
        ("null", 403),
    ],
)
def test_listed_origins_are_the_only_ones(origin: str | None, status: int) -> None:
    run = Run(request(headers={"Origin": origin}), origins=("https://chat.example", "http://localhost:3000"))
    assert run.status == status


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=30), st.text(max_size=30))
def test_odd_origins_are_answered(origin: str, host: str) -> None:
    is_same_origin(origin, host, False)


@pytest.mark.parametrize(
    "rest", [b"", frame(TEXT, b"a"), frame(PING), frame(CLOSE), b"\r\n\r\n", b"\xff" * 9], ids=repr
)
def test_what_follows_the_request_is_left_alone(rest: bytes) -> None:
    data = request(headers={"X-Padding": "x" * 5000}) + rest
    for parts in ([data], bytewise(data), [data[:10], data[10:]], [data[: -len(rest) - 1], data[-len(rest) - 1 :]]):
        run = Run(*parts)
        assert run.status == 101
        assert run.rest == rest
        assert run.protocol.state is State.OPEN
        assert run.protocol.close_rcvd is None


def test_biggest_request() -> None:
    empty = len(request(headers={f"X-{n}": "" for n in range(6)}))
    room = MAX_REQUEST - empty
    sizes = [6000, 6000, 6000, 6000, 6000, room - 30000]
    fits = {f"X-{n}": "x" * size for n, size in enumerate(sizes)}
    assert Run(request(headers=fits)).status == 101
    assert Run(request(headers={**fits, "X-5": fits["X-5"] + "x"})).status == 431


def test_incomplete() -> None:
    run = Run(request()[:-1])
    assert run.rest is None
    assert run.status == 0
    assert not run.finished


def test_turned_away() -> None:
    run = Run(request()[:20])
    run.handshake.turn_away(CloseReason.SHUTDOWN)
    out = run.handshake.output()
    assert out[0].startswith(b"HTTP/1.1 503 ")
    assert out[1:] == [SEND_EOF]
