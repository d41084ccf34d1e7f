from __future__ import annotations

import asyncio
import datetime
import gzip
import ipaddress
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from stompbridge.auth.fetch import FetchError, fetch, make_client


def answer(body: bytes = b"", status: str = "200 OK", *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]).encode() + body


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with make_client("http://127.0.0.1/", 4) as client:
        yield client


async def get(client: httpx.AsyncClient, url: str, *, within: float = 5.0, size: int = 100) -> tuple[int, bytes]:
    return await fetch(client, "GET", url, within=within, size=size)


async def failure(client: httpx.AsyncClient, url: str, **options: Any) -> str:
    with pytest.raises(FetchError) as info:
        await get(client, url, **options)
    return str(info.value)


async def test_a_request(client: httpx.AsyncClient, web: Any) -> None:
    web.respond = lambda _body: answer(b"x" * 100)
    assert await get(client, web.url) == (200, b"x" * 100)
    assert await fetch(client, "POST", web.url, within=5, size=100, body=b"{}") == (200, b"x" * 100)
    (asked, _), (posted, body) = web.requests
    assert asked.startswith("GET /path HTTP/1.1\r\n")
    assert "accept-encoding: identity" in asked.lower()
    assert (posted.startswith("POST"), "content-type: application/json" in posted.lower(), body) == (True, True, b"{}")
    assert web.connections == 1


async def test_a_redirect_is_not_followed(client: httpx.AsyncClient, web: Any) -> None:
    web.respond = lambda _body: answer(b"", "302 Found", f"Location: {web.url}")
    assert await get(client, web.url) == (302, b"")
    assert len(web.requests) == 1


async def test_too_much(client: httpx.AsyncClient, web: Any) -> None:
    web.respond = lambda _body: answer(b"x" * 101)
    assert await failure(client, web.url) == "the answer has more than 100 bytes"
    # No length in advance: it ends when it ends.
    web.respond = lambda _body: (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + (b"40\r\n" + b"x" * 64 + b"\r\n") * 2
    )
    assert await failure(client, web.url) == "the answer has more than 100 bytes"


async def test_a_packed_answer_is_left_packed(client: httpx.AsyncClient, web: Any) -> None:
    web.respond = lambda _body: answer(gzip.compress(b"x" * 10_000_000), "200 OK", "Content-Encoding: gzip")
    assert await failure(client, web.url) == "the answer is packed"


async def test_no_answer_in_time(client: httpx.AsyncClient, web: Any) -> None:
    web.hold = True
    for _ in range(9):
        assert await failure(client, web.url, within=0.01) == "no answer within 0.01 s"
    web.release()
    # None of those keeps its place among the connections.
    assert await get(client, web.url) == (200, b"")


async def test_a_part_of_an_answer_in_time(client: httpx.AsyncClient, web: Any) -> None:
    web.respond = lambda _body: b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome"
    assert await failure(client, web.url, within=0.1) == "no answer within 0.1 s"


@pytest.mark.parametrize(
    "response",
    [None, b"secret nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", b"HTTP/9 secret\r\n\r\n"],
)
async def test_garbage(client: httpx.AsyncClient, web: Any, response: bytes | None) -> None:
    web.respond = lambda _body: response
    assert await failure(client, web.url) == "no usable answer: RemoteProtocolError"


async def test_nobody_there(client: httpx.AsyncClient, web: Any) -> None:
    url = web.url.replace("http://", "http://user:secret@")
    await web.stop()
    problem = await failure(client, url)
    assert problem.startswith("no connection: ")
    assert "secret" not in problem


async def test_a_url_that_is_none(client: httpx.AsyncClient) -> None:
    assert await failure(client, "http://[::1/") == "no usable answer: InvalidURL"


async def test_the_environment_has_no_say(monkeypatch: pytest.MonkeyPatch, web: Any) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with make_client(web.url, 1) as client:
        assert await get(client, web.url) == (200, b"")


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for loopback that only its own file vouches for, and a server's side of it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path / "certificate.pem"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file = tmp_path / "key.pem"
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file, key_file)
    return file, context


async def test_the_machines_authorities_are_trusted_and_no_others(
    monkeypatch: pytest.MonkeyPatch, certificate: tuple[Path, ssl.SSLContext], web: Any
) -> None:
    file, context = certificate
    await web.stop()
    web.port = 0
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    await web.start(context)
    async with make_client(web.url, 1) as client:
        problem = await failure(client, web.url)
    assert problem.startswith("no connection: ")
    assert "CERTIFICATE_VERIFY_FAILED" in problem
    assert web.requests == []
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    async with make_client(web.url, 1) as client:
        assert await get(client, web.url) == (200, b"")
