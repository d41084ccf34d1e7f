"""TLS between socket and connection, against the standard library's and websockets' clients."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from websockets.exceptions import ConnectionClosed, InvalidStatus

from stompbridge.certificates import CertificateError
from stompbridge.gateway.closing import CloseReason
from stompbridge.gateway.frames import ws_frame
from stompbridge.gateway.handshake import MAX_REQUEST
from stompbridge.gateway.tls import TlsTransport
from tests.gateway.harness import BINARY, CLOSE, PING, PONG, TEXT, WAIT, Client, Server, close_payload, frame, request
from tests.support.certificates import Certificate


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return Certificate(tmp_path)


@pytest.fixture
async def secure(server: Server, certificate: Certificate) -> Server:
    """A gateway that speaks TLS, not started yet."""
    server.listen |= {"tls_cert": str(certificate.cert), "tls_key": str(certificate.key)}
    server.trust = certificate.trust()
    return server


async def plain(server: Server) -> Client:
    """A client that does not speak TLS."""
    trust, server.trust = server.trust, None
    try:
        return await server.raw()
    finally:
        server.trust = trust


class Peer:
    """The client's side of TLS, byte by byte in our hands."""

    def __init__(self, context: ssl.SSLContext, client: Client) -> None:
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.ssl = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self.client = client

    async def handshake(self) -> None:
        while True:
            try:
                self.ssl.do_handshake()
            except ssl.SSLWantReadError:
                await self.client.send(self.outgoing.read())
                self.incoming.write(await self.client.reader.read(65536))
            else:
                await self.client.send(self.outgoing.read())
                return

    def encrypt(self, data: bytes) -> bytes:
        self.ssl.write(data)
        return self.outgoing.read()

    async def read(self) -> bytes:
        """What comes next; empty at the end of the stream, which must be announced."""
        while True:
            try:
                return self.ssl.read(65536)
            except ssl.SSLWantReadError:
                async with asyncio.timeout(WAIT):
                    data = await self.client.reader.read(65536)
                assert data, "cut off"
                self.incoming.write(data)


async def test_a_client_in_and_out(secure: Server) -> None:
    await secure.start()
    async with secure.websocket(subprotocols=["v12.stomp"]) as client:
        connection = secure.listeners[0].connection
        host, port = client.local_address[:2]
        assert connection.remote == f"{host}:{port}"
        assert connection.address == "127.0.0.1"
        await client.send("grüße")
        await client.send(b"x" * 1_000_000)
        await secure.listeners[0].until(lambda it: len(it.data) == 2)
        assert secure.listeners[0].data == ["grüße".encode(), b"x" * 1_000_000]
        connection.write(ws_frame(b"y" * 1_000_000, True))
        assert await client.recv() == b"y" * 1_000_000
        assert connection.bytes_in > 1_000_000
    assert await secure.listeners[0].until_lost() is CloseReason.CLIENT_CLOSED
    await secure.until_ended(CloseReason.CLIENT_CLOSED)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_byte_by_byte(secure: Server, certificate: Certificate, version: ssl.TLSVersion) -> None:
    await secure.start()
    context = certificate.trust()
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2", "http/1.1"])
    client = await plain(secure)
    peer = Peer(context, client)
    await peer.handshake()
    assert peer.ssl.version() == version.name.replace("_", ".")
    assert peer.ssl.selected_alpn_protocol() == "http/1.1"
    for byte in peer.encrypt(request() + frame(TEXT, b"one")) + peer.encrypt(frame(PING, b"p")):
        await client.send(bytes([byte]))
    assert (await peer.read()).startswith(b"HTTP/1.1 101 ")
    assert await peer.read() == b"\x8a\x01p"
    assert secure.listeners[0].data == [b"one"]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
async def test_older_versions_are_refused(secure: Server, certificate: Certificate) -> None:
    await secure.start()
    context = certificate.trust()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    secure.trust = context
    with pytest.raises((ssl.SSLError, ConnectionError)) as refused:
        await secure.raw()
    if isinstance(refused.value, ssl.SSLError):
        assert refused.value.reason == "TLSV1_ALERT_PROTOCOL_VERSION"
    await secure.until_ended(CloseReason.TLS_FAILED)


async def test_http_spoken_to_it(secure: Server) -> None:
    await secure.start()
    client = await plain(secure)
    with capture_logs() as logs:
        await client.send(request())
        status, headers, body = await client.response()
        assert status == 400
        assert headers["content-length"] == str(len(body))
        assert b"wss://" in body
        client.close()
        await secure.until_ended(CloseReason.TLS_FAILED)
    assert {entry["log_level"] for entry in logs} <= {"debug"}
    assert secure.listeners == []


@pytest.mark.parametrize("data", [b"\x00" * 100, b"\x16\x03\x01\x40\x00" + b"x" * 0x4000, b"PROXY TCP4 a b 1 2\r\n"])
async def test_garbage(secure: Server, data: bytes) -> None:
    await secure.start()
    client = await plain(secure)
    with capture_logs() as logs:
        await client.send(data)
        # At most an alert (RFC 8446 section 6).
        answer = await client.rest()
        assert answer == b"" or answer[0] == 0x15
        with contextlib.suppress(ConnectionError):
            await client.send(b"more")
        client.close()
        await secure.until_ended(CloseReason.TLS_FAILED)
    assert [entry["log_level"] for entry in logs] == ["debug"]
    assert logs[0]["reason"]


async def test_a_client_that_does_not_trust_it(secure: Server) -> None:
    await secure.start()
    client = await plain(secure)
    peer = Peer(ssl.create_default_context(), client)
    with pytest.raises(ssl.SSLCertVerificationError):
        await peer.handshake()
    with capture_logs() as logs:
        await client.send(peer.outgoing.read())
        assert await client.rest() == b""
        client.close()
        await secure.until_ended(CloseReason.TLS_FAILED)
    assert [(entry["log_level"], entry["reason"]) for entry in logs] == [("debug", "TLSV1_ALERT_UNKNOWN_CA")]


@pytest.mark.parametrize("part", [0, 1, 50])
async def test_a_slow_handshake(secure: Server, certificate: Certificate, part: int) -> None:
    secure.limits["open_timeout"] = 0.1
    await secure.start()
    client = await plain(secure)
    peer = Peer(certificate.trust(), client)
    with contextlib.suppress(ssl.SSLWantReadError):
        peer.ssl.do_handshake()
    await client.send(peer.outgoing.read()[:part])
    await secure.until_ended(CloseReason.OPEN_TIMEOUT)
    await client.gone()


async def test_a_handshake_and_nothing_more(secure: Server) -> None:
    secure.limits["open_timeout"] = 0.3
    await secure.start()
    client = await secure.raw()
    await secure.until_ended(CloseReason.OPEN_TIMEOUT)
    await client.gone()


async def test_damaged_data(secure: Server, certificate: Certificate) -> None:
    await secure.start()
    client = await plain(secure)
    peer = Peer(certificate.trust(), client)
    await peer.handshake()
    await client.send(peer.encrypt(request()))
    assert (await peer.read()).startswith(b"HTTP/1.1 101 ")
    damaged = bytearray(peer.encrypt(frame(TEXT, b"x")))
    damaged[-1] ^= 1
    with capture_logs() as logs:
        await client.send(bytes(damaged))
        assert await secure.listeners[0].until_lost() is CloseReason.TLS_FAILED
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("tls_failed", "debug")]
    assert secure.listeners[0].data == []
    client.close()
    await secure.until_ended(CloseReason.TLS_FAILED)


async def test_encryption_that_fails(secure: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    await secure.start()
    client, listener = await secure.open()
    transport = listener.connection._transport
    assert isinstance(transport, TlsTransport)

    class Broken:
        def write(self, data: bytes) -> int:
            error = ssl.SSLError(1, "out of sequence numbers")
            error.reason = None  # type: ignore[assignment]
            raise error

    monkeypatch.setattr(transport, "_ssl", Broken())
    listener.connection.send(b"x")
    assert await listener.until_lost() is CloseReason.TLS_FAILED
    await client.gone()


async def test_encryption_in_parts(secure: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    await secure.start()
    client, listener = await secure.open()
    transport = listener.connection._transport
    assert isinstance(transport, TlsTransport)
    whole = transport._ssl

    class Sparing:
        def write(self, data: bytes | memoryview) -> int:
            return whole.write(bytes(data[:1000]))

    monkeypatch.setattr(transport, "_ssl", Sparing())
    listener.connection.send(b"x" * 9999)
    assert await client.frame() == (TEXT, b"x" * 9999)
    monkeypatch.undo()


async def test_the_last_words_arrive(secure: Server, certificate: Certificate) -> None:
    await secure.start()
    client = await plain(secure)
    peer = Peer(certificate.trust(), client)
    await peer.handshake()
    await client.send(peer.encrypt(request("/other")))
    answer = b""
    # The end is announced, not only the stream cut.
    while data := await peer.read():
        answer += data
    assert answer.startswith(b"HTTP/1.1 404 ")
    await client.send(peer.encrypt(b"x" * 10_000))
    client.close()
    await secure.until_ended(CloseReason.REJECTED)


async def test_closed_by_the_server(secure: Server) -> None:
    await secure.start()
    async with secure.websocket() as client:
        secure.listeners[0].connection.close(CloseReason.STOMP_ERROR, "sorry")
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1002, "sorry")
    await secure.until_ended(CloseReason.STOMP_ERROR)


@pytest.mark.parametrize("announced", [False, True])
async def test_a_client_that_goes_without_close(secure: Server, certificate: Certificate, announced: bool) -> None:
    await secure.start()
    client = await plain(secure)
    peer = Peer(certificate.trust(), client)
    await peer.handshake()
    await client.send(peer.encrypt(request()))
    assert (await peer.read()).startswith(b"HTTP/1.1 101 ")
    last = peer.encrypt(frame(TEXT, b"last"))
    if announced:
        with contextlib.suppress(ssl.SSLWantReadError):
            peer.ssl.unwrap()
        await client.send(last + peer.outgoing.read())
    else:
        await client.send(last)
        client.writer.write_eof()
    listener = secure.listeners[0]
    assert await listener.until_lost() is CloseReason.CLIENT_LOST
    assert listener.data == [b"last"]
    await secure.until_ended(CloseReason.CLIENT_LOST)


async def test_killed(secure: Server) -> None:
    await secure.start()
    client, listener = await secure.open()
    client.kill()
    assert await listener.until_lost() is CloseReason.CLIENT_LOST
    listener.connection.write(ws_frame(b"dropped", False))


async def test_shut_down_in_the_handshake(secure: Server) -> None:
    await secure.start()
    client = await plain(secure)
    await client.send(b"\x16\x03")
    await secure.until_accepted()
    [connection] = secure.gateway.connections
    connection.close(CloseReason.SHUTDOWN)
    assert await client.rest() == b""
    client.close()
    await secure.until_ended(CloseReason.SHUTDOWN)


async def test_a_client_that_does_not_read(secure: Server) -> None:
    secure.limits |= {"send_buffer": 200_000, "send_timeout": 30.0}
    await secure.start()
    client, listener = await secure.open(receive_buffer=4096)
    connection = listener.connection
    data = ws_frame(b"x" * 50_000, True)
    while connection.reason is None:
        connection.write(data)
        await asyncio.sleep(0)
        assert connection._transport.get_write_buffer_size() < 500_000
    assert connection.reason is CloseReason.SLOW_CONSUMER
    await client.gone()
    await secure.until_ended(CloseReason.SLOW_CONSUMER)


async def test_a_client_that_reads_again(secure: Server) -> None:
    await secure.start()
    client, listener = await secure.open(receive_buffer=4096)
    connection = listener.connection
    count = 0
    while not connection.writing_paused:
        connection.write(ws_frame(b"x" * 50_000, True))
        count += 1
        await asyncio.sleep(0)
    for _ in range(count):
        assert await client.frame() == (BINARY, b"x" * 50_000)
    await listener.until(lambda it: it.writable)


async def test_back_pressure_towards_the_client(secure: Server) -> None:
    await secure.start()
    client, listener = await secure.open()
    listener.hook = lambda data: listener.connection.pause_reading()
    for n in range(3):
        await client.send(frame(TEXT, b"%d" % n))
    for n in range(3):
        await listener.until(lambda it, n=n: len(it.data) == n + 1)
        assert listener.connection.reading_paused
        listener.connection.resume_reading()
    await client.send(frame(PING))
    assert await client.frame() == (PONG, b"")


async def test_a_big_request_is_refused(secure: Server) -> None:
    await secure.start()
    client = await secure.raw()
    await client.send(b"GET /ws HTTP/1.1\r\n" + (b"X: " + b"x" * 8000 + b"\r\n") * (MAX_REQUEST // 8000 + 1))
    status, _, _ = await client.response()
    assert status == 431


async def test_the_scheme_of_a_page_is_known(secure: Server) -> None:
    await secure.start()
    host = f"localhost:{secure.port}"
    async with secure.websocket(origin=f"https://{host}"):
        pass
    with pytest.raises(InvalidStatus) as refused:
        async with secure.websocket(origin=f"http://{host}"):
            pass
    assert refused.value.response.status_code == 403


async def test_another_certificate_for_those_who_come_later(secure: Server, certificate: Certificate) -> None:
    await secure.start()
    old, listener = await secure.open()
    before = old.writer.get_extra_info("ssl_object").getpeercert()["serialNumber"]
    serial = certificate.renew()
    secure.gateway.reload_tls()
    secure.trust = certificate.trust()
    new, _ = await secure.open()
    after = new.writer.get_extra_info("ssl_object").getpeercert()["serialNumber"]
    assert int(after, 16) == serial != int(before, 16)
    await old.send(frame(TEXT, b"still here"))
    await listener.until(lambda it: it.data == [b"still here"])
    assert listener.lost == []


async def test_a_bad_certificate_changes_nothing(secure: Server, certificate: Certificate, tmp_path: Path) -> None:
    await secure.start()
    key = certificate.key.read_bytes()
    certificate.key.write_bytes(Certificate(tmp_path, "other").key.read_bytes())
    with pytest.raises(CertificateError, match="is not the key of the certificate"):
        secure.gateway.reload_tls()
    await secure.open()
    certificate.key.write_bytes(key)
    secure.gateway.reload_tls()
    await secure.open()


async def test_nothing_to_reload(server: Server) -> None:
    await server.start()
    server.gateway.reload_tls()
    await server.open()


async def test_no_listening_with_a_bad_certificate(secure: Server, certificate: Certificate) -> None:
    certificate.cert.unlink()
    with pytest.raises(CertificateError, match=r"listen\.tls_cert"):
        await secure.start()


async def test_no_room(secure: Server) -> None:
    """There is no time for a TLS handshake, just to say so."""
    secure.limits["connections"] = 1
    await secure.start()
    await secure.open()
    client = await plain(secure)
    assert await client.rest() == b""
    client.close()
    await secure.until_ended(CloseReason.FULL)


async def test_close_in_one_record_with_data(secure: Server, certificate: Certificate) -> None:
    await secure.start()
    client = await plain(secure)
    peer = Peer(certificate.trust(), client)
    await peer.handshake()
    await client.send(peer.encrypt(request() + frame(TEXT, b"a") + frame(CLOSE, close_payload(1000))))
    answer = b""
    while data := await peer.read():
        answer += data
    assert answer.endswith(b"\x88\x02" + close_payload(1000))
    client.close()
    await secure.until_ended(CloseReason.CLIENT_CLOSED)
