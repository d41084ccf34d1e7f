from __future__ import annotations

import asyncio
import json
import zlib
from typing import Any

import pytest
from structlog.testing import capture_logs

from stompbridge.admin import trace as module
from stompbridge.admin.server import Answer, Stream
from stompbridge.auth.base import Identity
from stompbridge.brokers.base import Message
from stompbridge.config import Auth, Jwt, Settings
from stompbridge.gateway.frames import PING, ws_frame
from stompbridge.routing.deflate import Deflater
from tests.admin.process import ADMIN, TOKEN, Process
from tests.gateway.world import frame

MESSAGE = b"MESSAGE\ndestination:/topic/a\n\n%b\0\n"


class Watcher:
    """The one who asked for a trace."""

    def __init__(self) -> None:
        self.unsent = 0
        self.data = b""
        self.news = asyncio.Event()

    def write(self, data: bytes) -> None:
        self.data += data
        self.news.set()

    def lines(self) -> list[dict[str, Any]]:
        """What has come since the last call."""
        data, self.data = self.data, b""
        return [json.loads(line) for line in data.splitlines()]

    def frames(self) -> list[tuple[str, str]]:
        """Direction and command of each frame since the last call."""
        return [(line["direction"], line["command"]) for line in self.lines()]


async def begin(process: Process, query: str = "") -> tuple[Watcher, Stream]:
    stream = await process.ask("GET", f"/trace?{query}", token=TOKEN)
    assert isinstance(stream, Stream)
    watcher = Watcher()
    stream.begin(watcher)
    return watcher, stream


async def test_all_frames_of_all_clients() -> None:
    process = Process()
    await process.broker.start(process.world)
    one, connection = process.connect()
    watcher, stream = await begin(process)
    assert stream.content_type == "application/x-ndjson"
    two, _ = process.connect(b"")
    two.on_data(b"CONNECT\naccept-version:1.2\npasscode:geheim\n\n\0")
    one.identity, one.user = Identity("alice"), "alice"
    one.on_data(frame("SUBSCRIBE", destination="/exchange/chat/a", id="s", receipt="r1"))
    two.on_data(frame("SEND", "hello", destination="/exchange/chat/a"))
    two.on_data(b"\n")
    two.on_data(frame("NONSENSE"))
    lines = watcher.lines()
    assert [(line["direction"], line["session"] == one.sender_id, line["command"]) for line in lines] == [
        ("in", False, "CONNECT"),
        ("out", False, "CONNECTED"),
        ("in", True, "SUBSCRIBE"),
        ("out", True, "RECEIPT"),
        ("in", False, "SEND"),
        ("out", True, "MESSAGE"),
        ("in", False, "NONSENSE"),
        ("out", False, "ERROR"),
    ]
    assert lines[0]["headers"] == {"accept-version": "1.2", "passcode": "[hidden]"}
    assert [line["user"] for line in lines] == [None, None, "alice", "alice", None, "alice", None, None]
    assert lines[2]["headers"] == {"destination": "/exchange/chat/a", "id": "s", "receipt": "r1"}
    assert lines[5]["headers"]["subscription"] == "s"
    assert (lines[5]["body_bytes"], lines[5]["body"]) == (5, None)
    assert lines[0]["at"] <= lines[-1]["at"]
    stream.end()
    one.on_data(frame("SEND", "hello", destination="/exchange/chat/a"))
    assert watcher.lines() == []
    assert connection.shown is None
    assert one.session.on_frame is None
    assert process.shared.watch is None
    # A client that comes now is not watched.
    assert process.connect()[1].shown is None


async def test_the_beginnings_of_bodies() -> None:
    process = Process()
    client, _ = process.connect()
    watcher, _ = await begin(process, "bodies=cut")
    for body in (b"x" * 300, "ä".encode() * 300, b"\xff\0\x01"):
        client.on_data(b"SEND\ndestination:/topic/a\ncontent-length:%d\n\n%b\0" % (len(body), body))
    assert [(line["body_bytes"], line["body"]) for line in watcher.lines()] == [
        (300, "x" * 256),
        (600, "ä" * 256),
        (3, "�\0\x01"),
    ]


async def test_one_session() -> None:
    process = Process()
    one, watched = process.connect()
    two, other = process.connect()
    watcher, stream = await begin(process, f"session={one.sender_id}")
    third, late = process.connect()
    for client in (one, two, third):
        client.on_data(frame("SEND", "x", destination="/topic/a", receipt="r"))
    assert watcher.frames() == [("in", "SEND"), ("out", "RECEIPT")]
    assert watched.shown is not None
    assert other.shown is late.shown is None
    everything, all_of_it = await begin(process)
    stream.end()
    one.on_data(frame("SEND", "x", destination="/topic/a"))
    assert not watcher.frames()
    assert everything.frames() == [("in", "SEND")]
    all_of_it.end()
    assert watched.shown is None
    status, answer = await process.get("/trace?session=nobody", token=TOKEN)
    assert (status, answer) == (404, {"error": "there is no such session here"})


@pytest.mark.parametrize(
    ("pattern", "seen"),
    [
        ("/topic/a.b", {"/topic/a.b", "/exchange/amq.topic/a.b"}),
        ("/exchange/amq.topic/a.b", {"/topic/a.b", "/exchange/amq.topic/a.b"}),
        ("/topic/a.*", {"/topic/a.b", "/exchange/amq.topic/a.b"}),
        ("/topic/a.%23", {"/topic/a", "/topic/a.b", "/topic/a.b.c", "/exchange/amq.topic/a.b"}),
        ("/exchange/chat/%23", {"/exchange/chat/a.b"}),
        ("/queue/*", {"/queue/a", "a"}),
        ("a", {"/queue/a", "a"}),
        ("/app/*/7", {"/app/message/7"}),
        ("/app/%23", {"/app/message/7"}),
        ("/nowhere", set()),
    ],
)
async def test_destinations(pattern: str, seen: set[str]) -> None:
    process = Process()
    await process.broker.start(process.world)
    client, _ = process.connect()
    watcher, _ = await begin(process, f"destination={pattern}")
    texts = [
        *("/topic/a", "/topic/a.b", "/topic/a.b.c", "/exchange/amq.topic/a.b", "/exchange/chat/a.b"),
        *("/queue/a", "a", "/app/message/7", "/user/queue/x"),
    ]
    for text in texts:
        client.on_data(frame("SEND", "x", destination=text))
    client.on_data(frame("BEGIN", transaction="t"))
    # Behind a queue that is declared.
    for _ in range(10):
        await asyncio.sleep(0)
    assert not client.held
    assert {line["headers"]["destination"] for line in watcher.lines() if line["direction"] == "in"} == seen


async def test_everything_has_a_pattern() -> None:
    process = Process()
    client, _ = process.connect()
    watcher, _ = await begin(process, "destination=/%23")
    client.on_data(frame("SEND", "x", destination="/topic/a"))
    client.on_data(frame("BEGIN", transaction="t"))
    assert watcher.frames() == [("in", "SEND")]


async def test_secrets_are_hidden() -> None:
    process = Process(Settings(admin=ADMIN, auth=Auth(jwt=Jwt(connect_headers=("X-Ticket", "passcode")))))
    watcher, _ = await begin(process, "bodies=cut")
    secrets = {
        "passcode": "a",
        "Passcode": "a",
        "Authorization": "Basic eDp5",
        "cookie": "sid=1",
        "x-ticket": "a",
        "X-Auth-Token": "a",
        "access_token": "a",
        "password": "a",
        "client-secret": "a",
        "api-key": "a",
        "apikey": "a",
        "x-credentials": "a",
        "signature": "a",
        "login": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.",
        "note": "Bearer abc",
    }
    plain = {"x-note": "a", "heart-beat": "0,0", "client-id": "phone", "host": "/"}
    lines = "".join(f"{name}:{value}\n" for name, value in (secrets | plain).items())
    process.connect(f"CONNECT\naccept-version:1.2\n{lines}\n\0".encode())
    connect, connected = watcher.lines()
    assert connect["headers"] == {"accept-version": "1.2"} | plain | dict.fromkeys(secrets, "[hidden]")
    assert connected["command"] == "CONNECTED"


async def test_what_is_written_is_taken_apart() -> None:
    process = Process()
    _, connection = process.connect()
    watcher, _ = await begin(process, "bodies=cut")
    shown = connection.shown
    assert shown is not None
    long = MESSAGE % (b"x" * 70_000)
    head, rest = b"MESSAGE\nsubscription:1\n", b"destination:/topic/a\n\n" + b"y" * 1000 + b"\0\n"
    deflated = Deflater().payload(head, rest)
    assert zlib.decompressobj(-15).decompress(deflated + b"\0\0\xff\xff") == head + rest
    shown(
        ws_frame(MESSAGE % b"short", False)
        + PING
        + ws_frame(b"\n", False)
        + ws_frame(MESSAGE % (b"x" * 200), False)
        + ws_frame(long, True)
        + ws_frame(deflated, False, True)
        + ws_frame(b"MESSAGE\na:b\\c\\n\\\\c\na:again\nb:\\t\n\nz\0z\0\n", False)
        + ws_frame(b"ERROR\nmessage:cut\n\n\0\n", False)
    )
    lines = watcher.lines()
    assert [(line["command"], line["body_bytes"]) for line in lines] == [
        ("MESSAGE", 5),
        ("MESSAGE", 200),
        ("MESSAGE", 70_000),
        ("MESSAGE", 1000),
        ("MESSAGE", 3),
        ("ERROR", 0),
    ]
    assert lines[3]["headers"] == {"subscription": "1", "destination": "/topic/a"}
    assert lines[4]["headers"] == {"a": "b:\n\\c", "b": "\\t"}
    assert lines[4]["body"] == "z\0z"


async def test_a_failure_is_no_clients_affair() -> None:
    process = Process()
    client, connection = process.connect()
    watcher, _ = await begin(process)
    shown = connection.shown
    assert shown is not None
    with capture_logs() as logs:
        shown(b"\x81\x7e")
        shown(b"\xc1\x05wrong")
        watcher.write = None  # type: ignore[assignment, method-assign]
        client.on_data(frame("SEND", "x", destination="/topic/a", receipt="r"))
    assert {entry["event"] for entry in logs} == {"trace_failed"}
    assert connection.receipts() == ["r"]


async def test_shared_frames_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process()
    for _ in range(10):
        client, _ = process.connect()
        client.on_data(frame("SUBSCRIBE", destination="/exchange/chat/a", id="s"))
    watcher, _ = await begin(process)
    read: list[bytes] = []
    original = module._messages
    monkeypatch.setattr(module, "_messages", lambda data: (read.append(data), original(data))[1])
    process.world.hub.on_mailbox_messages("chat", [Message("chat", "a", b"x")])
    assert watcher.frames() == [("out", "MESSAGE")] * 10
    assert len(read) == 1


async def test_traces_are_bounded() -> None:
    process = Process()
    traces = [await begin(process) for _ in range(module.MAX_TRACES)]
    answer = await process.ask("GET", "/trace", token=TOKEN)
    assert isinstance(answer, Answer)
    assert answer.status == 503
    traces[0][1].end()
    traces[0][1].end()
    await begin(process)


async def test_frames_a_second_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 5000.2
    monkeypatch.setattr(module.time, "time", lambda: now)
    monkeypatch.setattr(module, "RATE", 3)
    process = Process()
    client, _ = process.connect()
    watcher, stream = await begin(process)
    for _ in range(5):
        client.on_data(frame("SEND", "x", destination="/topic/a"))
    assert watcher.frames() == [("in", "SEND")] * 3
    now += 1
    client.on_data(frame("SEND", "x", destination="/topic/a"))
    dropped, shown = watcher.lines()
    assert dropped == {"dropped": 2}
    assert shown["command"] == "SEND"
    stream.end()


async def test_what_was_dropped_is_told_without_another_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPORT_AFTER", 0.01)
    process = Process()
    client, _ = process.connect()
    watcher, stream = await begin(process)
    watcher.unsent = module.MAX_UNSENT + 1
    for _ in range(5):
        client.on_data(frame("SEND", "x", destination="/topic/a"))
    # Not before there is room for it.
    for _ in range(5):
        await asyncio.sleep(0.01)
    assert not watcher.data
    watcher.unsent = 0
    await asyncio.wait_for(watcher.news.wait(), 10)
    assert watcher.lines() == [{"dropped": 5}]
    # A trace that ended has nothing more to tell.
    watcher.unsent = module.MAX_UNSENT + 1
    client.on_data(frame("SEND", "x", destination="/topic/a"))
    stream.end()


@pytest.mark.parametrize("query", ["bodies=all", "bodies="])
async def test_orders_that_are_wrong(query: str) -> None:
    assert (await Process().get(f"/trace?{query}", token=TOKEN))[0] == 400
