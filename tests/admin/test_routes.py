from __future__ import annotations

import logging
import os
import time
from unittest.mock import AsyncMock

import pytest
import structlog

from stompbridge import log
from stompbridge.admin import views
from stompbridge.admin.routes import page
from stompbridge.admin.server import Answer
from stompbridge.auth.base import Identity
from stompbridge.brokers.base import Message
from stompbridge.config import Admin, Auth, Limits, Settings
from stompbridge.gateway.closing import CloseReason
from tests.admin.process import TOKEN, Process
from tests.gateway.world import frame

SUBSCRIBE = frame("SUBSCRIBE", destination="/exchange/chat/room.1", id="a", ack="client")


async def text(process: Process, path: str) -> tuple[int, str, str]:
    answer = await process.ask("GET", path)
    assert isinstance(answer, Answer)
    return answer.status, answer.content_type, answer.body.decode()


async def test_health() -> None:
    process = Process()
    assert await text(process, "/livez") == (200, "text/plain; charset=utf-8", "ok\n")
    status, _, body = await text(process, "/readyz?verbose")
    assert status == 503
    assert body.startswith("[-]broker failed: ")
    await process.broker.start(process.world)
    assert await text(process, "/readyz") == (200, "text/plain; charset=utf-8", "ok\n")


async def test_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process()
    monkeypatch.setattr(process.site._metrics, "render", AsyncMock(return_value=b"figures 1\n"))
    assert await text(process, "/metrics") == (200, "text/plain; version=0.0.4; charset=utf-8", "figures 1\n")


async def test_status() -> None:
    process = Process()
    await process.broker.start(process.world)
    _, connection = process.connect()
    client, _ = process.connect()
    process.connect(b"")
    client.on_data(SUBSCRIBE)
    client.on_data(frame("SEND", "hi", destination="/exchange/chat/room.1"))
    process.latency.publish.observe(0.002, 4)
    process.gateway.closed[CloseReason.KICKED] += 2
    status, answer = await process.get("/status")
    assert status == 200
    assert answer["node"] == "n1"
    assert answer["pid"] == os.getpid()
    assert answer["started_at"] == process.started_at
    assert answer["uptime"] == pytest.approx(answer["now"] - answer["started_at"])
    assert answer["ready"] is True
    assert answer["draining"] is False
    assert [(check["name"], check["ok"]) for check in answer["checks"]] == [
        ("broker", True),
        ("store", True),
        ("drain", True),
        ("loop", True),
    ]
    assert answer["broker"] == {
        "kind": "memory",
        "up": True,
        "detail": "connected",
        "reconnects": 0,
        "outbox": 0,
        "unconfirmed": 0,
    }
    assert answer["store"] == {"kind": "memory", "available": True, "bypassed": 0, "in_doubt": 0}
    assert {name: answer["sessions"][name] for name in ("open", "sockets", "total")} == {
        "open": 2,
        "sockets": 3,
        "total": 2,
    }
    assert answer["sessions"]["closed"]["kicked"] == 2
    assert set(answer["sessions"]["closed"]) == {reason.label for reason in CloseReason}
    assert answer["frames"]["in"]["CONNECT"] == 2
    assert answer["frames"]["in"]["SEND"] == 1
    assert answer["frames"]["out"] == {"CONNECTED": 2, "MESSAGE": 1, "RECEIPT": 0, "ERROR": 0}
    written = sum(connection.bytes_out for connection in process.gateway.connections)
    assert answer["bytes"] == {"in": 1000, "out": 2000 + written}
    assert answer["messages"] == {"in": 1, "out": 1, "suppressed": 0, "in_doubt": 0}
    publish = answer["latency"]["publish"]
    assert 0.001 < publish["p50"] < publish["p99"] < 0.0026
    assert publish["count"] == 4
    assert publish["buckets"][0] == [0.0001, 0]
    assert publish["buckets"][-1] == [None, 4]
    assert answer["latency"]["delivery"]["p50"] is None
    assert answer["loop"] == {"lag": 0.0, "lag_max_10s": 0.0}
    assert answer["memory"]["rss"] > 1_000_000
    assert answer["limits"] == {"connections": 50_000}
    assert connection.closed is None
    process.draining = True
    assert (await process.get("/status"))[1]["draining"] is True


async def test_a_session() -> None:
    process = Process()
    await process.broker.start(process.world)
    client, connection = process.connect(
        b"CONNECT\naccept-version:1.1\nheart-beat:5000,20000\nclient-id:phone\n\n\0", "192.0.2.7:4711"
    )
    connection.bytes_in, connection.unsent = 123, 45
    process.world.now = 30.0
    client.on_data(SUBSCRIBE)
    client.on_data(frame("SUBSCRIBE", destination="/queue/jobs", id="b", ack="client-individual", prefetch_count=7))
    for body in ("1", "2"):
        client.on_data(frame("SEND", body, destination="/exchange/chat/room.1"))
    status, answer = await process.get(f"/sessions/{client.sender_id}")
    assert status == 200
    assert answer.pop("connected_at") == pytest.approx(time.time() - 30, abs=5)
    assert answer.pop("bytes_out") > 100
    assert answer == {
        "id": client.sender_id,
        "user": None,
        "client_id": "phone",
        "address": "192.0.2.7:4711",
        "node": "n1",
        "age": 30.0,
        "version": "1.1",
        "heartbeat": "20000,5000",
        "protocol": "v12.stomp",
        "subscriptions": [
            {"id": "a", "destination": "/exchange/chat/room.1", "ack": "client", "prefetch": None, "unacked": 2},
            {"id": "b", "destination": "/queue/jobs", "ack": "client-individual", "prefetch": 7, "unacked": 0},
        ],
        "subscription_count": 2,
        "unacked": 2,
        "messages_in": 2,
        "messages_out": 2,
        "bytes_in": 123,
        "unsent": 45,
        "state": "open",
    }


async def test_states_of_sessions() -> None:
    process = Process()
    connecting, _ = process.connect(b"")
    held, _ = process.connect()
    process.broker.hold_binds = True
    held.on_data(SUBSCRIBE)
    _, answer = await process.get(f"/sessions/{connecting.sender_id}")
    assert (answer["state"], answer["version"], answer["heartbeat"]) == ("connecting", None, None)
    assert (await process.get(f"/sessions/{held.sender_id}"))[1]["state"] == "held"
    held.identity, held.user = Identity("alice"), "alice"
    assert (await process.get(f"/sessions/{held.sender_id}"))[1]["user"] == "alice"


async def test_lists_of_sessions_are_cut() -> None:
    process = Process(Settings(admin=Admin(token=TOKEN), limits=Limits(unacked=1000)))
    await process.broker.start(process.world)
    client, _ = process.connect()
    for number in range(7):
        client.on_data(frame("SUBSCRIBE", destination=f"/exchange/chat/{number}", id=number, ack="client"))
    for _ in range(views.COUNTED_UNACKED):
        client.on_data(frame("SEND", "x", destination="/exchange/chat/1"))
    _, answer = await process.get("/sessions")
    [session] = answer["sessions"]
    assert session["subscription_count"] == 7
    assert [each["id"] for each in session["subscriptions"]] == ["0", "1", "2", "3", "4"]
    assert [each["unacked"] for each in session["subscriptions"]] == [0, views.COUNTED_UNACKED, 0, 0, 0]
    client.on_data(frame("SEND", "x", destination="/exchange/chat/1"))
    _, answer = await process.get("/sessions")
    assert [each["unacked"] for each in answer["sessions"][0]["subscriptions"]] == [None] * 5
    assert answer["sessions"][0]["unacked"] == views.COUNTED_UNACKED + 1
    _, whole = await process.get(f"/sessions/{client.sender_id}")
    assert len(whole["subscriptions"]) == 7
    assert whole["subscriptions"][1]["unacked"] == views.COUNTED_UNACKED + 1


async def test_search_and_sort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "SLICE", 2)
    process = Process()
    await process.broker.start(process.world)
    clients = []
    for number in range(5):
        process.world.now = float(number)
        client, connection = process.connect(remote=f"192.0.2.{number}:5000")
        connection.bytes_in = (number * 7) % 5 * 1000
        clients.append(client)
    clients[1].identity, clients[1].user = Identity("Älice"), "Älice"
    clients[2].on_data(SUBSCRIBE)
    clients[2].on_data(frame("SEND", "x", destination="/exchange/chat/room.1"))
    clients[3].on_data(frame("SUBSCRIBE", destination="/queue/jobs", id="a"))
    clients[3].on_data(frame("SUBSCRIBE", destination="/topic/x", id="b"))
    order = {client.sender_id: number for number, client in enumerate(clients)}

    async def found(query: str) -> tuple[int, int, list[int]]:
        status, answer = await process.get(f"/sessions?{query}")
        assert status == 200
        return answer["total"], answer["matched"], [order[session["id"]] for session in answer["sessions"]]

    assert await found("") == (5, 5, [0, 1, 2, 3, 4])
    assert await found("sort=age&limit=2") == (5, 5, [0, 1])
    assert await found("sort=bytes") == (5, 5, [2, 4, 1, 3, 0])
    assert (await found("sort=unacked&limit=1"))[2] == [2]
    assert (await found("sort=subscriptions&limit=2"))[2] == [3, 2]
    assert await found("search=%C3%A4lice") == (5, 1, [1])
    assert await found("search=192.0.2.4:") == (5, 1, [4])
    assert await found("search=CHAT/ROOM") == (5, 1, [2])
    assert await found("search=topic") == (5, 1, [3])
    assert await found(f"search={clients[4].sender_id[3:]}") == (5, 1, [4])
    assert await found("search=nowhere") == (5, 0, [])
    assert (await found("search=&sort=age&limit=1000"))[1] == 5


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/sessions?sort=name", "sort must be one of age, bytes, unacked, subscriptions"),
        ("/sessions?limit=0", "limit must be a number from 1 to 1000"),
        ("/sessions?limit=1001", "limit must be a number from 1 to 1000"),
        ("/sessions?limit=-1", "limit must be a number from 1 to 1000"),
        ("/sessions?limit=x", "limit must be a number from 1 to 1000"),
        ("/sessions?limit=", "limit must be a number from 1 to 1000"),
        ("/sessions?limit=%D9%A3", "limit must be a number from 1 to 1000"),
        ("/closed?limit=1e3", "limit must be a number from 1 to 1000"),
        ("/destinations?limit=99999", "limit must be a number from 1 to 1000"),
        ("/sessions?search=%FF", "the query is not valid: "),
        ("/sessions?" + "a=b&" * 20, "the query is not valid: "),
    ],
)
async def test_queries_that_are_wrong(path: str, error: str) -> None:
    status, answer = await Process().get(path)
    assert status == 400
    assert answer["error"].startswith(error)


async def test_closed_sessions() -> None:
    process = Process()
    for number in range(3):
        client, _ = process.connect(remote=f"192.0.2.{number}:5000")
        process.world.now += 10
        client.on_lost(CloseReason.HEARTBEAT_LOST)
    connecting, _ = process.connect(b"")
    connecting.on_lost(CloseReason.CLIENT_LOST)
    client, _ = process.connect()
    client.identity, client.user = Identity("alice"), "alice"
    client.on_data(b"SEND\nno colon\n\n\0")
    client.on_lost(CloseReason.STOMP_ERROR)
    status, answer = await process.get("/closed?limit=3")
    assert status == 200
    newest, last, _ = answer["closed"]
    assert newest.pop("closed_at") == pytest.approx(time.time(), abs=5)
    assert newest == {
        "id": client.sender_id,
        "user": "alice",
        "address": "192.0.2.1:50000",
        "age": 0.0,
        "reason": "stomp_error",
        "detail": client.parting,
        "messages_in": 0,
        "messages_out": 0,
    }
    assert client.parting
    assert (last["address"], last["reason"]) == ("192.0.2.2:5000", "heartbeat_lost")
    assert (last["detail"], last["age"]) == ("heart-beats stopped", 10.0)
    assert len((await process.get("/closed"))[1]["closed"]) == 4


async def test_destinations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "SLICE", 2)
    process = Process()
    await process.broker.start(process.world)
    process.world.hub.tap("chat", "#", lambda message: None, lambda failure: None)
    clients = [process.connect()[0] for _ in range(3)]
    for client in clients:
        client.on_data(SUBSCRIBE)
    clients[0].on_data(frame("SUBSCRIBE", destination="/exchange/chat/room.*", id="w"))
    clients[0].on_data(frame("SUBSCRIBE", destination="/internal/healthcheck", id="h"))
    clients[0].on_data(frame("SUBSCRIBE", destination="/user/queue/mine", id="u"))
    clients[0].on_data(frame("SUBSCRIBE", destination="/queue/jobs", id="q"))
    clients[1].on_data(frame("SUBSCRIBE", destination="/amq/queue/jobs", id="q", ack="client"))
    for _ in range(3):
        clients[0].on_data(frame("SEND", "x", destination="/exchange/chat/room.1"))
    clients[0].on_data(frame("SEND", "x", destination="/topic/quiet"))
    clients[0].on_data(frame("SEND", "x", destination="/exchange/amq.topic/quiet"))
    clients[0].on_data(frame("SEND", "x", destination="/queue/jobs"))
    clients[1].on_data(frame("SEND", "x", destination=f"/user/{clients[0].sender_id}/queue/mine"))
    process.world.hub.publish_internal("healthcheck", b"{}", "application/json")
    process.world.hub.on_mailbox_messages("chat", [Message("chat", "room.1", b"x")] * 2)
    user = f"/user/{clients[0].sender_id}/queue/mine"
    expected = {
        # destination: subscribers, in, out
        "/exchange/chat/room.1": (3, 3, 15),
        "/exchange/chat/room.*": (1, 0, 5),
        "/topic/quiet": (0, 2, 0),
        "/queue/jobs": (2, 1, 1),
        "/internal/healthcheck": (1, 0, 1),
        user: (1, 1, 1),
    }
    status, answer = await process.get("/destinations")
    assert status == 200
    shown = {
        row["destination"]: (row["subscribers"], row["messages_in"], row["messages_out"])
        for row in answer["destinations"]
    }
    # The embedded broker hands a queue's messages out in a later turn of the loop.
    assert shown["/queue/jobs"][:2] == (2, 1)
    shown["/queue/jobs"] = (2, 1, 1)
    assert shown == expected
    assert next(iter(shown)) == "/exchange/chat/room.1"
    _, answer = await process.get("/destinations?limit=2")
    assert [row["destination"] for row in answer["destinations"]] == ["/exchange/chat/room.1", "/exchange/chat/room.*"]


async def test_whoami() -> None:
    process = Process()
    nobody = {"control": False, "read": True, "token_configured": True}
    assert await process.get("/whoami") == (200, nobody)
    assert await process.get("/whoami", token="wrong") == (200, nobody)
    operator = {"control": True, "read": True, "token_configured": True}
    assert await process.get("/whoami", token=TOKEN) == (200, operator)
    bare = Process(Settings())
    assert await bare.get("/whoami", token=TOKEN) == (200, nobody | {"token_configured": False})
    open_to_all = Process(Settings(insecure=True, admin=Admin(host="0.0.0.0", token=TOKEN)))
    assert await open_to_all.get("/whoami") == (200, nobody | {"read": False})
    assert await open_to_all.get("/whoami", token=TOKEN) == (200, operator)


async def test_closing_a_session() -> None:
    process = Process()
    client, connection = process.connect()
    assert await process.post(f"/sessions/{client.sender_id}/close") == (200, {"closed": client.sender_id})
    assert connection.closed == (CloseReason.KICKED, "")
    assert (CloseReason.KICKED.code, CloseReason.KICKED.text) == (1008, "closed by an operator")
    for path in (f"/sessions/{client.sender_id}/close", "/sessions/nobody/close", "/sessions//close"):
        assert await process.post(path) == (404, {"error": "there is no such session here"})
    connecting, connection = process.connect(b"")
    assert (await process.post(f"/sessions/{connecting.sender_id}/close"))[0] == 200
    assert connection.closed == (CloseReason.KICKED, "")
    assert (await process.get("/sessions/nobody"))[0] == 404


async def test_the_log_level() -> None:
    process = Process()
    root, before = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    log.configure(process.settings.log)
    try:
        assert await process.post("/log-level", b'{"level": "debug"}') == (200, {"level": "debug", "was": "info"})
        assert await process.post("/log-level", b'{"level": "error"}') == (200, {"level": "error", "was": "debug"})
        for body in (b"", b"debug", b'{"level": "loud"}', b"{}", b'{"level": "info", "x": 1}', b"\xff"):
            status, answer = await process.post("/log-level", body)
            assert status == 400
            assert answer["error"].startswith('the body must be JSON such as {"level": "debug"}: ')
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.configure(**before)


@pytest.mark.parametrize(
    ("body", "asked", "seconds"),
    [(b"", None, 5.0), (b"{}", None, 5.0), (b'{"seconds": null}', None, 5.0), (b'{"seconds": 30}', 30.0, 30.0)],
)
async def test_draining(body: bytes, asked: float | None, seconds: float) -> None:
    process = Process()
    process.connect()
    status, answer = await process.post("/drain", body)
    assert (status, answer) == (202, {"draining": True, "sessions": 1, "seconds": seconds})
    assert process.stops == [asked]


@pytest.mark.parametrize("body", [b'{"seconds": -1}', b'{"seconds": 86401}', b'{"seconds": "1"}', b"[]", b"x"])
async def test_draining_asked_for_wrongly(body: bytes) -> None:
    process = Process()
    assert (await process.post("/drain", body))[0] == 400
    assert not process.stops


CONTROL = [("POST", "/sessions/x/close"), ("POST", "/log-level"), ("POST", "/drain"), ("GET", "/trace")]


@pytest.mark.parametrize(("method", "path"), CONTROL)
async def test_control_needs_the_token(method: str, path: str) -> None:
    process, bare = Process(), Process(Settings())
    for asked, token, status in ((process, None, 401), (process, "wrong", 401), (bare, None, 403), (bare, TOKEN, 403)):
        answer = await asked.ask(method, path, token=token)
        assert isinstance(answer, Answer)
        assert answer.status == status
        assert (("WWW-Authenticate", "Bearer") in answer.headers) == (status == 401)
    assert not process.stops


@pytest.mark.parametrize("path", ["/sessions", "/sessions/x", "/closed"])
async def test_single_clients_are_shown_to_the_network_only_with_the_token(path: str) -> None:
    process = Process(Settings(insecure=True, admin=Admin(host="0.0.0.0", token=TOKEN)))
    assert (await process.get(path))[0] == 401
    assert (await process.get(path, token=TOKEN))[0] in (200, 404)
    for other in ("/status", "/destinations", "/whoami"):
        assert (await process.get(other))[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("POST", "/status", 405, "GET, HEAD"),
        ("DELETE", "/sessions/x", 405, "GET, HEAD"),
        ("POST", "/trace", 405, "GET, HEAD"),
        ("GET", "/drain", 405, "POST"),
        ("HEAD", "/sessions/x/close", 405, "POST"),
        ("GET", "/nothing", 404, None),
        ("GET", "/status/", 404, None),
        ("GET", "/sessions/x/y", 404, None),
        ("GET", "/sessions/x/close/y", 404, None),
        ("GET", "/../secrets", 404, None),
        ("GET", "/page.py", 404, None),
        ("OPTIONS", "*", 404, None),
    ],
)
async def test_other_methods_and_paths(method: str, path: str, status: int, allow: str | None) -> None:
    answer = await Process().ask(method, path, token=TOKEN)
    assert isinstance(answer, Answer)
    assert answer.status == status
    assert dict(answer.headers).get("Allow") == allow


async def test_head() -> None:
    process = Process()
    for path in ("/status", "/livez", "/sessions"):
        answer = await process.ask("HEAD", path)
        assert isinstance(answer, Answer)
        assert answer.status == 200
    answer = await process.ask("HEAD", "/trace", token=TOKEN)
    assert isinstance(answer, Answer)
    assert answer.status == 405


async def test_sites() -> None:
    process = Process()
    for path in ("/", "/livez", "/status", "/nothing"):
        for headers, status in (({"host": "evil.example"}, 421), ({"origin": "https://evil.example"}, 403)):
            assert (await process.get(path, **headers))[0] == status
    assert (await process.post("/drain", origin="https://evil.example"))[0] == 403
    assert not process.stops


async def test_the_page() -> None:
    process = Process()
    files = page()
    assert files["/"].content_type == "text/html; charset=utf-8"
    assert files["/page.js"].content_type == "text/javascript; charset=utf-8"
    assert files["/page.css"].content_type == "text/css; charset=utf-8"
    for path, file in files.items():
        assert await process.ask("GET", path) == file


async def test_a_rabbitmq_users_links_are_looked_at() -> None:
    process = Process(Settings(admin=Admin(token=TOKEN), auth=Auth()))

    class Links:
        def routers(self) -> list[object]:
            return [process.world.router]

        def counters(self) -> dict[str, int]:
            return {"mailbox_suppressed": 3, "queue_suppressed": 4, "mailbox_in_doubt": 5}

    process.upstreams = Links()  # type: ignore[assignment]
    client, _ = process.connect()
    client.on_data(SUBSCRIBE)
    _, answer = await process.get("/status")
    assert answer["messages"] == {"in": 0, "out": 0, "suppressed": 7, "in_doubt": 5}
    # Here the same hub is looked at twice.
    _, answer = await process.get("/destinations")
    assert answer["destinations"][0]["subscribers"] == 2
