from __future__ import annotations

import asyncio
import contextlib
import struct

import pytest
from structlog.testing import capture_logs
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK, InvalidStatus

from stompbridge.gateway.closing import CloseReason
from stompbridge.gateway.connection import Connection
from stompbridge.gateway.frames import ws_frame
from tests.gateway.harness import (
    BINARY,
    CLOSE,
    CONT,
    PING,
    PONG,
    TEXT,
    WAIT,
    Client,
    Listener,
    Server,
    close_payload,
    frame,
    frame_head,
    request,
)

# The handshake.


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (404, request("/other")),
        (426, request(headers={"Upgrade": None, "Connection": None})),
        (403, request(headers={"Origin": "https://evil.example"})),
        (400, b"\x16\x03\x01\x00\x05hello\r\n"),
        (431, request(headers={"Cookie": "x" * 10_000})),
    ],
)
async def test_refused_handshakes(server: Server, status: int, data: bytes) -> None:
    await server.start()
    client = await server.raw()
    with capture_logs() as logs:
        await client.send(data + b"more" * 1000)
        got, headers, _ = await client.response()
        assert got == status
        assert headers["connection"] == "close"
        client.close()
        await server.until_ended(CloseReason.REJECTED)
    assert server.listeners == []
    assert [entry["event"] for entry in logs] == ["handshake_refused"]
    assert logs[0]["remote"].startswith("127.0.0.1:")
    assert logs[0]["reason"]


@pytest.mark.parametrize("data", [request("/other"), b"hello\r\n", request(headers={"Cookie": "x" * 10_000})])
async def test_much_more_after_a_refusal_is_dropped(server: Server, data: bytes) -> None:
    await server.start()
    client = await server.raw()
    await client.send(data)
    assert (await client.response())[0] >= 400
    for _ in range(10):
        await client.send(b"x" * 100_000 + b"\r\n\r\n")
    client.close()
    await server.until_ended(CloseReason.REJECTED)


async def test_refused_by_the_websockets_client(server: Server) -> None:
    await server.start()
    with pytest.raises(InvalidStatus) as refused:
        async with server.websocket(origin="https://evil.example"):
            pass
    assert refused.value.response.status_code == 403
    assert refused.value.response.body == b"origin https://evil.example may not connect\n"


async def test_opened_and_answered(server: Server) -> None:
    await server.start()
    async with server.websocket(subprotocols=["v10.stomp", "v12.stomp"]) as client:
        listener = server.listeners[0]
        connection = listener.connection
        assert client.subprotocol == connection.subprotocol == "v12.stomp"
        assert listener.opened == 1
        host, port = client.local_address[:2]
        assert connection.remote == f"{host}:{port}"
        await client.send("grüße")
        await client.send(b"\xff\x00")
        await client.send("")
        await client.send(["a", "b", "c"])
        await listener.until(lambda it: b"".join(it.data).endswith(b"abc"))
        assert listener.data[:3] == ["grüße".encode(), b"\xff\x00", b""]
        connection.send("grüße".encode())
        connection.send(b"\xff")
        assert await client.recv() == "grüße"
        assert await client.recv() == b"\xff"
        assert connection.bytes_out == 2 + 7 + 2 + 1
        assert connection.bytes_in > 100
        assert connection.reason is None
    assert await listener.until_lost() is CloseReason.CLIENT_CLOSED


async def test_frames_behind_the_handshake_in_one_segment(server: Server) -> None:
    await server.start()
    client = await server.raw()
    await client.send(request() + frame(TEXT, b"early") + frame(PING, b"p") + frame(TEXT, b"cut")[:-1])
    status, headers, _ = await client.response()
    assert status == 101
    assert "sec-websocket-protocol" not in headers
    assert await client.frame() == (PONG, b"p")
    await client.send(frame(TEXT, b"cut")[-1:])
    await server.listeners[0].until(lambda it: it.data == [b"early", b"cut"])


async def test_handshake_byte_by_byte(server: Server) -> None:
    await server.start()
    client = await server.raw()
    data = request() + frame(TEXT, b"x" * 200) + frame(TEXT, b"y", fin=False) + frame(CONT, b"z")
    for n in range(len(data)):
        await client.send(data[n : n + 1])
    await client.response()
    await server.listeners[0].until(lambda it: it.data == [b"x" * 200, b"y", b"z"])


@pytest.mark.parametrize("sent", [b"", request()[:-2], b"\x16\x03\x01"])
async def test_half_open_socket(server: Server, sent: bytes) -> None:
    server.limits["open_timeout"] = 0.1
    await server.start()
    client = await server.raw()
    await client.send(sent)
    await client.gone()
    await server.until_ended(CloseReason.OPEN_TIMEOUT)
    assert server.listeners == []


async def test_gone_before_the_handshake(server: Server) -> None:
    await server.start()
    for sent in (b"", b"GET /"):
        client = await server.raw()
        await client.send(sent)
        client.close()
    await server.until_ended(CloseReason.CLIENT_LOST, 2)


async def test_an_open_connection_has_no_deadline(server: Server) -> None:
    server.limits["open_timeout"] = 0.1
    await server.start()
    client, listener = await server.open()
    await listener.until(lambda it: it.checks > 10)
    await client.send(frame(TEXT, b"here"))
    await listener.until(lambda it: it.data)


# Violations.


VIOLATIONS: dict[str, tuple[bytes, int, CloseReason]] = {
    "length 2^63": (frame_head(BINARY, 2**63), 1009, CloseReason.TOO_BIG),
    "too big": (frame_head(TEXT, 1001) + b"x" * 500, 1009, CloseReason.TOO_BIG),
    "too big in fragments": (
        frame(TEXT, b"x" * 600, fin=False) + frame(CONT, b"x" * 401),
        1009,
        CloseReason.TOO_BIG,
    ),
    "fragment flood": (
        frame(TEXT, b"", fin=False) + frame(CONT, b"", fin=False) * 5000,
        1009,
        CloseReason.TOO_BIG,
    ),
    "unmasked": (frame(TEXT, b"x", mask=None), 1002, CloseReason.PROTOCOL_ERROR),
    "reserved bits": (frame(TEXT, b"x", rsv=4), 1002, CloseReason.PROTOCOL_ERROR),
    "reserved opcode": (frame(5, b"x"), 1002, CloseReason.PROTOCOL_ERROR),
    "long ping": (frame(PING, b"x" * 126), 1002, CloseReason.PROTOCOL_ERROR),
    "bad close code": (frame(CLOSE, close_payload(1006)), 1002, CloseReason.PROTOCOL_ERROR),
    "close within a message": (
        frame(TEXT, b"x", fin=False) + frame(CLOSE, close_payload(1000)),
        1002,
        CloseReason.PROTOCOL_ERROR,
    ),
    "bad UTF-8": (frame(TEXT, b"\xff"), 1007, CloseReason.BAD_TEXT),
    "bad UTF-8 over fragments": (
        frame(TEXT, b"\xf0\x9f", fin=False) + frame(CONT, b"x"),
        1007,
        CloseReason.BAD_TEXT,
    ),
    "bad close text": (frame(CLOSE, b"\x03\xe8\xff"), 1007, CloseReason.BAD_TEXT),
}


@pytest.mark.parametrize(("data", "code", "reason"), VIOLATIONS.values(), ids=VIOLATIONS)
async def test_violations(server: Server, data: bytes, code: int, reason: CloseReason) -> None:
    server.limits |= {"frame": 1000, "fragments": 100}
    await server.start()
    other, other_listener = await server.open()
    client, listener = await server.open()
    await client.send(frame(TEXT, b"good") + data + frame(TEXT, b"ignored"))
    got, text = await client.closed()
    assert (got, bool(text)) == (code, True)
    assert await listener.until_lost() is reason
    assert listener.data[0] == b"good"
    assert b"ignored" not in listener.data
    client.close()
    await server.until_ended(reason)
    assert listener.lost == [reason]
    await other.send(frame(TEXT, b"not concerned"))
    await other_listener.until(lambda it: it.data == [b"not concerned"])


async def test_the_close_frame_reaches_a_client_that_is_still_sending(server: Server) -> None:
    server.limits["frame"] = 1000
    await server.start()
    client, listener = await server.open()
    client.writer.write(frame(BINARY, b"x" * 10 * 1024 * 1024))
    code, text = await client.closed()
    assert (code, text) == (1009, "frame with 10485760 bytes exceeds limit of 1000 bytes")
    await client.writer.drain()
    client.close()
    assert await listener.until_lost() is CloseReason.TOO_BIG
    await server.until_ended(CloseReason.TOO_BIG)


async def test_a_code_point_may_be_split_over_fragments(server: Server) -> None:
    await server.start()
    client, listener = await server.open()
    rocket = "🚀".encode()
    await client.send(b"".join(frame(CONT if n else TEXT, rocket[n : n + 1], fin=n == 3) for n in range(4)))
    await listener.until(lambda it: b"".join(it.data) == rocket)


async def test_the_longest_message_can_be_changed(server: Server) -> None:
    server.limits["frame"] = 1000

    def accept(connection: Connection) -> Listener:
        assert connection.max_message == 1000
        connection.max_message = 100
        return Listener()

    server.new_listener = accept
    await server.start()
    client, listener = await server.open()
    await client.send(frame(TEXT, b"x" * 100))
    await listener.until(lambda it: it.data)
    listener.connection.max_message = 1000
    await client.send(frame(TEXT, b"x" * 1000))
    await listener.until(lambda it: len(it.data) == 2)
    await client.send(frame(TEXT, b"x" * 1001))
    assert (await client.closed())[0] == 1009


# Pings.


async def test_pings_are_answered_in_one_write(server: Server) -> None:
    await server.start()
    client, listener = await server.open()
    writes: list[bytes] = []
    write = listener.connection._transport_write

    def spy(data: bytes) -> None:
        writes.append(data)
        write(data)

    listener.connection._transport_write = spy
    await client.send(frame(PING, b"1") + frame(TEXT, b"x") + frame(PING, b"2"))
    assert [await client.frame(), await client.frame()] == [(PONG, b"1"), (PONG, b"2")]
    assert writes == [b"\x8a\x011\x8a\x012"]


async def test_idle_clients_are_pinged_and_closed_when_silent(server: Server) -> None:
    server.limits["ping_interval"] = 0.1
    await server.start()
    client, listener = await server.open()
    listener.connection.ping = True
    for _ in range(3):
        assert await client.frame() == (PING, b"")
        await client.send(frame(PONG))
    assert listener.lost == []
    assert await client.frame() == (PING, b"")
    opcode, payload = await client.frame()
    assert (opcode, payload[:2]) == (CLOSE, struct.pack("!H", CloseReason.PING_LOST.code))
    assert await listener.until_lost() is CloseReason.PING_LOST


async def test_clients_with_heart_beats_are_not_pinged(server: Server) -> None:
    server.limits["ping_interval"] = 0.04
    await server.start()
    client, listener = await server.open()
    await listener.until(lambda it: it.checks > 10)
    listener.connection.send(b"first")
    assert await client.frame() == (TEXT, b"first")


async def test_a_client_that_is_not_read_is_not_missed(server: Server) -> None:
    server.limits["ping_interval"] = 0.04
    await server.start()
    client, listener = await server.open()
    listener.connection.ping = True
    listener.connection.pause_reading()
    before = listener.connection.last_read
    await listener.until(lambda it: it.checks > 10)
    assert listener.connection.last_read > before
    assert listener.lost == []
    listener.connection.resume_reading()
    assert await client.frame() == (PING, b"")


# Closing.


async def test_closed_by_the_client(server: Server) -> None:
    await server.start()
    client, listener = await server.open()
    await client.send(frame(TEXT, b"last") + frame(CLOSE, close_payload(1001, "bye")) + frame(TEXT, b"after"))
    assert await client.closed() == (1001, "bye")
    assert await listener.until_lost() is CloseReason.CLIENT_CLOSED
    assert listener.data == [b"last"]
    listener.connection.write(ws_frame(b"dropped", False))
    listener.connection.send(b"dropped")
    client.close()
    await server.until_ended(CloseReason.CLIENT_CLOSED)


async def test_closed_by_the_websockets_client(server: Server) -> None:
    await server.start()
    async with server.websocket() as client:
        await client.close(4321, "mine")
        assert client.close_code == 4321
    assert await server.listeners[0].until_lost() is CloseReason.CLIENT_CLOSED


async def test_closed_by_the_server(server: Server) -> None:
    await server.start()
    client, listener = await server.open()
    connection = listener.connection
    connection.send(b"first")
    connection.close(CloseReason.STOMP_ERROR, "sorry")
    connection.close(CloseReason.SHUTDOWN)
    connection.send(b"dropped")
    assert listener.lost == []
    assert connection.reason is CloseReason.STOMP_ERROR
    assert await client.frame() == (TEXT, b"first")
    assert await client.frame() == (CLOSE, close_payload(1002, "sorry"))
    assert await listener.until_lost() is CloseReason.STOMP_ERROR
    await client.send(frame(TEXT, b"ignored") + frame(PING) + frame(CLOSE, close_payload(1002)))
    assert await client.rest() == b""
    client.close()
    await server.until_ended(CloseReason.STOMP_ERROR)
    assert listener.data == []
    assert listener.lost == [CloseReason.STOMP_ERROR]


async def test_closed_by_the_server_as_the_websockets_client_sees_it(server: Server) -> None:
    await server.start()
    async with server.websocket() as client:
        server.listeners[0].connection.close(CloseReason.CLIENT_DISCONNECT)
        with pytest.raises(ConnectionClosedOK) as closed:
            await client.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1000, CloseReason.CLIENT_DISCONNECT.text)
        assert closed.value.rcvd_then_sent
    await server.until_ended(CloseReason.CLIENT_DISCONNECT)


@pytest.mark.parametrize("text", ["ü" * 100, "x" * 124, "🚀" * 40])
async def test_long_close_texts_are_cut(server: Server, text: str) -> None:
    await server.start()
    client, listener = await server.open()
    listener.connection.close(CloseReason.STOMP_ERROR, text)
    _, payload = await client.frame()
    assert 120 < len(payload) <= 125
    assert text.startswith(payload[2:].decode())


async def test_a_client_that_does_not_close_is_cut(server: Server) -> None:
    server.limits["close_timeout"] = 0.1
    await server.start()
    client, listener = await server.open()
    listener.connection.close(CloseReason.STOMP_ERROR)
    assert await listener.until_lost() is CloseReason.STOMP_ERROR
    await server.until_ended(CloseReason.STOMP_ERROR)
    await client.gone()


async def test_a_refused_client_that_stays_is_cut(server: Server) -> None:
    server.limits["close_timeout"] = 0.1
    await server.start()
    client = await server.raw()
    await client.send(request("/other"))
    await server.until_ended(CloseReason.REJECTED)
    assert (await client.response())[0] == 404


async def test_closed_while_in_the_handshake(server: Server) -> None:
    await server.start()
    client = await server.raw()
    await client.send(request()[:30])
    await server.until_accepted()
    [connection] = server.gateway.connections
    connection.close(CloseReason.SHUTDOWN)
    status, _, body = await client.response()
    assert (status, body) == (503, b"the server is shutting down\n")
    with contextlib.suppress(ConnectionError):
        await client.send(request()[30:])
    client.close()
    await server.until_ended(CloseReason.SHUTDOWN)


async def test_closed_as_lost(server: Server) -> None:
    await server.start()
    client, listener = await server.open()
    listener.connection.close(CloseReason.CLIENT_LOST)
    await client.gone()
    assert await listener.until_lost() is CloseReason.CLIENT_LOST


async def test_aborted(server: Server) -> None:
    await server.start()
    client, listener = await server.open()
    listener.connection.abort(CloseReason.HEARTBEAT_LOST)
    listener.connection.abort(CloseReason.SHUTDOWN)
    listener.connection.pause_reading()
    listener.connection.resume_reading()
    listener.connection.send(b"dropped")
    await client.gone()
    assert await listener.until_lost() is CloseReason.HEARTBEAT_LOST


@pytest.mark.parametrize("sent", [b"", frame(TEXT, b"hello")[:-2], frame(TEXT, b"a", fin=False)])
async def test_end_of_stream_without_close(server: Server, sent: bytes) -> None:
    await server.start()
    client, listener = await server.open()
    await client.send(sent)
    client.writer.write_eof()
    assert await listener.until_lost() is CloseReason.CLIENT_LOST
    assert await client.rest() == b""


async def test_killed_in_mid_frame(server: Server) -> None:
    await server.start()
    other, other_listener = await server.open()
    client, listener = await server.open()
    await client.send(frame(TEXT, b"whole") + frame(TEXT, b"x" * 5000)[:2000])
    await listener.until(lambda it: it.data == [b"whole"])
    client.kill()
    assert await listener.until_lost() is CloseReason.CLIENT_LOST
    await server.until_ended(CloseReason.CLIENT_LOST)
    listener.connection.send(b"dropped")
    listener.connection.close(CloseReason.SHUTDOWN)
    listener.connection.abort(CloseReason.SHUTDOWN)
    await other.send(frame(TEXT, b"here"))
    await other_listener.until(lambda it: it.data)


async def test_aborted_with_more_to_read(server: Server) -> None:
    await server.start()
    client, listener = await server.open()
    listener.hook = lambda data: listener.connection.abort(CloseReason.HEARTBEAT_LOST)
    await client.send(frame(TEXT, b"a") + frame(TEXT, b"b") + frame(PING) + frame(CLOSE, close_payload(1000)))
    await client.gone()
    assert await listener.until_lost() is CloseReason.HEARTBEAT_LOST
    assert listener.data == [b"a"]


async def test_a_full_transport_changes_nothing_after_the_end(server: Server) -> None:
    await server.start()
    client, listener = await server.open()
    connection = listener.connection
    connection.close(CloseReason.SHUTDOWN)
    deadline = connection._deadline
    connection.pause_writing()
    connection.resume_writing()
    connection.send(b"dropped")
    assert connection._deadline == deadline
    assert (await client.frame())[0] == CLOSE
    assert await listener.until_lost() is CloseReason.SHUTDOWN
    assert listener.writable == 0


async def test_aborted_after_its_end(server: Server) -> None:
    await server.start()
    client, listener = await server.open(receive_buffer=4096)
    await fill(listener.connection)
    client.writer.write_eof()
    await client.rest()
    await server.until_ended(CloseReason.CLIENT_LOST)
    listener.connection.abort(CloseReason.SHUTDOWN)


# Back-pressure from the client.


async def fill(connection: Connection) -> bytes:
    """Writes until the transport is full; returns one of the frames."""
    data = ws_frame(b"x" * 100_000, True)
    async with asyncio.timeout(WAIT):
        while not connection.writing_paused:
            connection.write(data)
            await asyncio.sleep(0)
    return data


async def test_a_client_that_stops_reading_is_cut_at_the_byte_limit(server: Server) -> None:
    server.limits["send_buffer"] = 300_000
    await server.start()
    client, listener = await server.open(receive_buffer=4096)
    other, other_listener = await server.open()
    connection = listener.connection
    data = await fill(connection)
    piled_up = connection._transport.get_write_buffer_size()
    written = 0
    while connection.reason is None:
        assert written <= 400_000 + len(data)
        connection.write(data)
        written += len(data)
        most = connection._transport.get_write_buffer_size()
        assert most <= piled_up + 300_000 + len(data)
    assert connection.reason is CloseReason.SLOW_CONSUMER
    assert listener.lost == []
    assert await listener.until_lost() is CloseReason.SLOW_CONSUMER
    await server.until_ended(CloseReason.SLOW_CONSUMER)
    assert server.gateway.slow_consumers == 1
    await client.gone()
    other_listener.connection.send(b"not concerned")
    assert await other.frame() == (TEXT, b"not concerned")


async def test_a_client_that_stops_reading_is_cut_at_the_time_limit(server: Server) -> None:
    server.limits["send_timeout"] = 0.1
    await server.start()
    client, listener = await server.open(receive_buffer=4096)
    await fill(listener.connection)
    assert await listener.until_lost() is CloseReason.SLOW_CONSUMER
    await client.gone()


async def test_pings_do_not_pile_up_for_a_client_that_stops_reading(server: Server) -> None:
    server.limits["send_buffer"] = 10_000
    await server.start()
    client, listener = await server.open(receive_buffer=4096)
    await fill(listener.connection)
    with contextlib.suppress(ConnectionError):
        await client.send(frame(PING, b"x" * 125) * 1000)
    assert await listener.until_lost() is CloseReason.SLOW_CONSUMER


async def test_a_client_that_reads_again_goes_on(server: Server) -> None:
    server.limits |= {"send_buffer": 1_000_000, "send_timeout": 1.0}
    await server.start()
    client, listener = await server.open(receive_buffer=4096)
    connection = listener.connection
    await fill(connection)
    connection.send(b"later")
    assert listener.writable == 0
    received = 0
    async with asyncio.timeout(WAIT):
        while await client.frame() != (TEXT, b"later"):
            received += 1
    await listener.until(lambda it: it.writable == 1)
    assert not connection.writing_paused
    assert connection._deadline == float("inf")
    assert connection.bytes_out == received * 100_010 + 7
    connection.send(b"again")
    assert await client.frame() == (TEXT, b"again")


async def test_one_message_may_be_bigger_than_the_limit(server: Server) -> None:
    server.limits["send_buffer"] = 10_000
    await server.start()
    client, listener = await server.open()
    connection = listener.connection
    connection.send(b"x" * 8_000_000)
    assert connection.writing_paused
    connection.send(b"y" * 1000)
    opcode, payload = await client.frame()
    assert (opcode, len(payload)) == (TEXT, 8_000_000)
    assert await client.frame() == (TEXT, b"y" * 1000)
    assert connection.reason is None


async def test_close_is_sent_behind_what_waits(server: Server) -> None:
    await server.start()
    client, listener = await server.open(receive_buffer=4096)
    await fill(listener.connection)
    listener.connection.close(CloseReason.SHUTDOWN)
    async with asyncio.timeout(WAIT):
        while (got := await client.frame())[0] == BINARY:
            pass
    assert got == (CLOSE, close_payload(1012, CloseReason.SHUTDOWN.text))
    assert listener.writable == 0


async def test_a_client_that_closes_but_does_not_read_is_cut(server: Server) -> None:
    server.limits["close_timeout"] = 0.1
    await server.start()
    client, listener = await server.open(receive_buffer=4096)
    await fill(listener.connection)
    client.writer.write_eof()
    assert await listener.until_lost() is CloseReason.CLIENT_LOST
    await server.until_ended(CloseReason.CLIENT_LOST)


# Back-pressure towards the client.


async def test_paused_reading_keeps_everything_in_order(server: Server) -> None:
    await server.start()
    client, listener = await server.open()
    connection = listener.connection
    messages = [b"%d" % n * (n % 50) for n in range(2000)]

    def pause(data: bytes) -> None:
        if len(listener.data) % 7 == 0:
            connection.pause_reading()
            assert connection.reading_paused
            count = len(listener.data)
            loop.call_later(0.0005, go_on, count)

    def go_on(count: int) -> None:
        assert len(listener.data) == count
        connection.pause_reading()
        connection.resume_reading()
        assert len(listener.data) == count

    loop = asyncio.get_running_loop()
    listener.hook = pause
    stream = b"".join(frame(TEXT, message) for message in messages)
    for n in range(0, len(stream), 1000):
        await client.send(stream[n : n + 1000])
    await listener.until(lambda it: len(it.data) == len(messages))
    assert listener.data == messages


async def test_resumed_from_within_a_payload(server: Server) -> None:
    await server.start()
    client, listener = await server.open()

    def hook(data: bytes) -> None:
        count = len(listener.data)
        listener.connection.pause_reading()
        listener.connection.resume_reading()
        assert len(listener.data) == count

    listener.hook = hook
    await client.send(frame(TEXT, b"a") * 1000)
    await listener.until(lambda it: len(it.data) == 1000)
    await client.send(frame(TEXT, b"b"))
    await listener.until(lambda it: it.data[-1] == b"b")


async def test_paused_again_before_it_went_on(server: Server) -> None:
    await server.start()
    client, listener = await server.open()
    connection = listener.connection
    connection.pause_reading()
    await client.send(frame(TEXT, b"a"))
    connection.resume_reading()
    connection.pause_reading()
    await listener.until(lambda it: it.checks > 3)
    assert listener.data == []
    connection.resume_reading()
    await listener.until(lambda it: it.data == [b"a"])


async def test_paused_from_the_start(server: Server) -> None:
    def accept(connection: Connection) -> Listener:
        connection.pause_reading()
        return Listener()

    server.new_listener = accept
    await server.start()
    client = await server.raw()
    await client.send(request() + frame(TEXT, b"a") + frame(TEXT, b"b"))
    await client.response()
    listener = server.listeners[0]
    await listener.until(lambda it: it.checks > 2)
    assert listener.data == []
    listener.connection.resume_reading()
    await listener.until(lambda it: it.data == [b"a", b"b"])


async def test_a_paused_client_is_not_read(server: Server) -> None:
    await server.start()
    client, listener = await server.open()
    listener.connection.pause_reading()
    count = listener.connection.bytes_in
    for _ in range(10):
        await client.send(frame(TEXT, b"x" * 1000))
    await listener.until(lambda it: it.checks > 3)
    assert listener.connection.bytes_in == count
    listener.connection.resume_reading()
    listener.connection.resume_reading()
    await listener.until(lambda it: len(it.data) == 10)


async def test_closed_while_paused(server: Server) -> None:
    await server.start()
    client, listener = await server.open()
    connection = listener.connection
    listener.hook = lambda data: connection.pause_reading()
    await client.send(frame(TEXT, b"a") + frame(TEXT, b"unread") + frame(CLOSE, close_payload(1000)))
    await listener.until(lambda it: it.data == [b"a"])
    connection.close(CloseReason.SHUTDOWN)
    assert await client.closed() == (1012, CloseReason.SHUTDOWN.text)
    assert await listener.until_lost() is CloseReason.SHUTDOWN
    assert listener.data == [b"a"]


async def test_killed_while_paused(server: Server) -> None:
    await server.start()
    client, listener = await server.open()
    listener.hook = lambda data: listener.connection.pause_reading()
    await client.send(frame(TEXT, b"a") * 3)
    await listener.until(lambda it: it.data == [b"a"])
    client.kill()
    listener.connection.resume_reading()
    listener.hook = None
    assert await listener.until_lost() is CloseReason.CLIENT_LOST


# Faults of the listener.


@pytest.mark.parametrize("failing", ["on_open", "on_data", "on_check", "on_writable"])
async def test_a_failing_listener_costs_its_own_connection(server: Server, failing: str) -> None:
    def accept(connection: Connection) -> Listener:
        listener = Listener()
        if len(server.listeners) == 1:
            listener.failing = failing
        return listener

    server.new_listener = accept
    await server.start()
    other, other_listener = await server.open()
    with capture_logs() as logs:
        client, listener = await server.open(receive_buffer=4096)
        if failing == "on_data":
            await client.send(frame(TEXT, b"a") + frame(TEXT, b"b"))
        if failing == "on_writable":
            await fill(listener.connection)
            while (await client.frame())[0] == BINARY:
                pass
        else:
            assert await client.frame() == (CLOSE, close_payload(1011, CloseReason.INTERNAL_ERROR.text))
        assert await listener.until_lost() is CloseReason.INTERNAL_ERROR
    assert [entry["event"] for entry in logs] == ["client_failed"]
    assert len(listener.data) <= 1
    await other.send(frame(TEXT, b"here"))
    await other_listener.until(lambda it: it.data)


async def test_a_listener_that_fails_at_its_end(server: Server) -> None:
    await server.start()
    client, listener = await server.open()
    listener.failing = "on_lost"
    with capture_logs() as logs:
        client.close()
        await listener.until_lost()
        await server.until_ended(CloseReason.CLIENT_LOST)
    assert [(entry["event"], entry["reason"]) for entry in logs] == [("client_failed", "client_lost")]


async def test_accept_that_fails(server: Server) -> None:
    def accept(connection: Connection) -> Listener:
        raise RuntimeError("no")

    server.new_listener = accept
    await server.start()
    client = await server.raw()
    with capture_logs() as logs:
        await client.send(request() + frame(TEXT, b"a"))
        assert (await client.response())[0] == 101
        assert (await client.frame())[0] == CLOSE
    assert len(logs) == 1


async def test_accept_that_closes(server: Server) -> None:
    def accept(connection: Connection) -> Listener:
        connection.close(CloseReason.REJECTED, "full")
        return Listener()

    server.new_listener = accept
    await server.start()
    client = await server.raw()
    await client.send(request() + frame(TEXT, b"a"))
    assert (await client.response())[0] == 101
    assert await client.frame() == (CLOSE, close_payload(1008, "full"))
    client.close()
    await server.until_ended(CloseReason.REJECTED)
    assert (server.listeners[0].opened, server.listeners[0].data, server.listeners[0].lost) == (0, [], [])


# Times and frames.


async def test_times_of_reads_and_writes(server: Server) -> None:
    await server.start()
    client, listener = await server.open()
    connection = listener.connection
    loop = asyncio.get_running_loop()
    await client.send(frame(TEXT, b"a"))
    await listener.until(lambda it: it.data)
    assert loop.time() - 1 < connection.last_read <= loop.time()
    before = connection.last_write
    await listener.until(lambda it: it.checks > 3)
    assert connection.last_write == before
    written = loop.time()
    connection.send(b"a")
    count = listener.checks
    await listener.until(lambda it: it.checks > count + 1)
    assert before < connection.last_write <= written
    assert connection.last_write > written - 1


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 100_000])
@pytest.mark.parametrize("binary", [False, True])
async def test_frames_as_the_websockets_client_reads_them(server: Server, size: int, binary: bool) -> None:
    await server.start()
    async with server.websocket() as client:
        server.listeners[0].connection.write(ws_frame(b"x" * size, binary))
        assert await client.recv() == (b"x" * size if binary else "x" * size)


async def test_many_connections_share_a_frame(server: Server) -> None:
    await server.start()
    opened = [await server.open() for _ in range(20)]
    data = ws_frame(b"for all", False)
    for _, listener in opened:
        listener.connection.write(data)
    for client, _ in opened:
        assert await client.frame() == (TEXT, b"for all")


async def test_one_client_does_not_disturb_another_that_closes(server: Server) -> None:
    await server.start()
    async with server.websocket() as good:
        for _ in range(20):
            client: Client
            client, _ = await server.open()
            client.kill()
        await server.until_ended(CloseReason.CLIENT_LOST, 20)
        await good.send("still here")
        await server.listeners[0].until(lambda it: it.data)
        with contextlib.suppress(ConnectionClosed):
            await good.close()


# What operators look at.


async def test_what_is_written_can_be_seen(server: Server) -> None:
    await server.start()
    client, listener = await server.open()
    connection = listener.connection
    seen: list[bytes] = []
    connection.send(b"before")
    connection.tap(seen.append)
    connection.send(b"one")
    connection.write(ws_frame(b"two", True))
    connection.tap(None)
    connection.send(b"after")
    assert seen == [ws_frame(b"one", False), ws_frame(b"two", True)]
    assert [(await client.frame())[1] for _ in range(4)] == [b"before", b"one", b"two", b"after"]
