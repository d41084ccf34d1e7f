"""Faults of files, ports and limits, each of which the doctor has to name."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from stompbridge import config
from stompbridge.auth.static import hash_password
from stompbridge.doctor import files, machine
from stompbridge.doctor.finding import Finding, ok, within
from stompbridge.doctor.running import Running
from tests.doctor.conftest import Look
from tests.doctor.test_broker import errors, only
from tests.support.bridge import ROOT, Bridge
from tests.support.certificates import Certificate
from tests.support.ports import free_port


def run(path: Path, *arguments: str, before: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """``stompbridge doctor`` as a process of its own, after some shell commands."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STOMPBRIDGE_")}
    command = [sys.executable, "-m", "stompbridge", "doctor", "--config", str(path), *arguments]
    return subprocess.run(
        ["/bin/sh", "-c", f'{before}exec "$@"', "sh", *command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=kept | {"PYTHONPATH": str(ROOT)} | environ,
    )


def ports(**more: int) -> dict[str, str]:
    both = {"LISTEN": free_port(), "ADMIN": free_port()} | more
    return {f"STOMPBRIDGE_{section}__PORT": str(port) for section, port in both.items()}


def checks(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.stderr == ""
    return {check["name"]: check for check in json.loads(done.stdout)["checks"]}


def test_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "bridge.toml"
    path.write_text('node = "one"\n[limits]\nconnections = 10')
    done = run(path, **ports())
    assert (done.returncode, done.stderr) == (0, "")
    assert f"ok       configuration: {path}: valid\n" in done.stdout
    assert "skipped  store: " in done.stdout
    assert "remedy" not in done.stdout
    assert "\n0 errors, 0 warnings, " in done.stdout


def test_low_file_limit_and_taken_port(tmp_path: Path) -> None:
    path = tmp_path / "bridge.toml"
    path.write_text("")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(path, "--json", before="ulimit -n 512; ", **ports(LISTEN=port))
    found = checks(done)
    assert (done.returncode, json.loads(done.stdout)["result"]) == (1, "error")
    assert found["files"]["result"] == "error"
    assert "512 files: about 256 clients" in found["files"]["detail"]
    assert "LimitNOFILE=50256" in found["files"]["remedy"]
    assert found["port.listen"]["result"] == "error"
    assert f"(process {os.getpid()})" in found["port.listen"]["detail"]
    assert found["port.admin"]["result"] == "ok"


def test_a_key_that_does_not_match(tmp_path: Path) -> None:
    one, two = Certificate(tmp_path, "one"), Certificate(tmp_path, "two")
    path = tmp_path / "bridge.toml"
    path.write_text(f'[listen]\ntls_cert = "{one.cert}"\ntls_key = "{two.key}"')
    done = run(path, "--json")
    assert done.returncode == 2
    found = checks(done)
    assert list(found) == ["configuration"]
    assert "is not the key of the certificate" in found["configuration"]["detail"]
    assert "the key that the certificate was made with" in found["configuration"]["remedy"]


def test_a_secret_that_everybody_can_read(tmp_path: Path) -> None:
    secret = tmp_path / "urls"
    secret.write_text("amqp://u:secret@h")
    secret.chmod(0o644)
    path = tmp_path / "bridge.toml"
    path.write_text('[broker]\nkind = "rabbitmq"\nurls_file = "urls"')
    done = run(path)
    assert done.returncode == 2
    assert "can be read by everybody on this machine" in done.stdout
    assert "chmod o-rwx" in done.stdout
    assert "secret@" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("text", "remedy"),
    [("[limits]\nfrme = 1", "correct it"), ('[auth]\ndefault_passcode_file = "none"', "the path, and the rights")],
)
def test_configuration_that_is_not_valid(tmp_path: Path, text: str, remedy: str) -> None:
    path = tmp_path / "bridge.toml"
    path.write_text(text)
    done = run(path)
    assert done.returncode == 2
    assert done.stdout.startswith("error    configuration: ")
    assert remedy in done.stdout


async def test_an_expired_certificate(look: Look, tmp_path: Path) -> None:
    for days, result, text in (
        (-1, "error", "has expired on"),
        (5, "warning", "expires on"),
        (90, "ok", "valid until"),
    ):
        found = await look(f"[listen]\n{Certificate(tmp_path / 'tls', days=days).toml()}")
        assert only(found, "certificate.dates").result == result
        assert text in only(found, "certificate.dates").detail
        assert only(found, "certificate.names").detail == "for localhost, 127.0.0.1"
        assert only(found, "secrets").detail == "1 files with secrets, none of them for everybody"


def certificate(names: list[str], begin: int) -> x509.Certificate:
    """Valid from so many days from now on."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now + timedelta(days=begin))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(map(x509.DNSName, names)), critical=False)
    return builder.not_valid_after(now + timedelta(days=begin + 90)).sign(key, hashes.SHA256())


def test_a_chain(tmp_path: Path) -> None:
    path = tmp_path / "chain.pem"
    settings = config.Settings(listen=config.Listen(tls_cert=str(path), tls_key=str(path)))

    def look_at(*chain: x509.Certificate) -> dict[str, Finding]:
        path.write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in chain))
        return {finding.name: finding for finding in files.check_certificate(settings)}

    found = look_at(certificate([], 5))
    assert "is valid from" in found["certificate.dates"].detail
    assert "names no server" in found["certificate.names"].detail
    found = look_at(certificate([f"n{number}" for number in range(12)], -5), certificate([], -100))
    assert found["certificate.names"].detail.endswith("n9 and 2 more")
    assert "certificate 2 of its chain has expired" in found["certificate.dates"].detail
    path.write_text("nothing")
    (finding,) = files.check_certificate(settings)
    assert finding.detail.startswith("cannot be read")
    path.unlink()
    assert "No such file" in files.check_certificate(settings)[0].detail
    (missing,) = files.check_secrets(settings, None)
    assert (missing.result, missing.detail) == ("error", "listen.tls_key: No such file or directory")


SECRETS = {
    "passcode": ('[auth]\ndefault_login = "a"\ndefault_passcode = "secret"', True),
    "token": ('[admin]\ntoken = "0123456789abcdef0123"', True),
    "url": ("[broker]\nurls = ['amqp://u:secret@h']", True),
    "the well-known one": ("[broker]\nurls = ['amqp://guest:guest@h']", False),
    "none": ("[limits]\nconnections = 10", False),
}


@pytest.mark.parametrize(("text", "secret"), SECRETS.values(), ids=SECRETS)
async def test_secrets_in_the_configuration_file(look: Look, text: str, secret: bool) -> None:
    assert errors(await look(text, mode=0o600)) == set()
    assert errors(await look(text, mode=0o644)) == ({"secrets"} if secret else set())
    if secret:
        assert errors(await look(text, mode=0o602)) == {"secrets"}


async def test_users(look: Look, tmp_path: Path) -> None:
    users = tmp_path / "users.toml"
    users.touch(0o600)
    users.write_text(f'[users.alice]\npassword = "{hash_password("x")}"')
    text = '[auth]\nbackend = "static"\nusers_file = "users.toml"'
    assert only(await look(text), "auth.users").result == "ok"
    users.chmod(0o644)
    assert errors(await look(text)) == {"auth.users", "secrets"}
    users.unlink()
    assert errors(await look(text)) == {"auth.users", "secrets"}


JWT = '[auth]\nbackend = "jwt"\n[auth.jwt]\naudience = "a"\nissuer = "i"\n'
KEYS = b'{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}'


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [(b"200 OK", KEYS, ""), (b"503 No", b"", "HTTP status 503"), (b"200 OK", b"{}", "no JSON Web Key Set")],
)
async def test_keys_from_a_server(look: Look, status: bytes, body: bytes, text: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, len(body), body))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        finding = only(await look(f'{JWT}jwks_url = "http://127.0.0.1:{port}/"'), "auth.keys")
    assert finding.result == ("error" if text else "ok")
    assert text in finding.detail


async def test_keys_from_a_file(look: Look, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(KEYS)
    assert only(await look(f'{JWT}jwks_file = "keys.json"'), "auth.keys").result == "ok"
    secret = tmp_path / "key"
    secret.write_text("x" * 64)
    secret.chmod(0o644)
    found = await look(f'{JWT}key_file = "key"\nalgorithms = ["HS256"]')
    assert errors(found) == {"auth.keys", "secrets"}


async def test_a_webhook(look: Look) -> None:
    text = '[auth]\nbackend = "http"\n[auth.http]\nurl = "http://127.0.0.1:{}/"'
    assert errors(await look(text.format(free_port()))) == {"auth.webhook"}
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as server:
        found = await look(text.format(server.sockets[0].getsockname()[1]))
    assert only(found, "auth.webhook").result == "ok"


async def test_ports(look: Look) -> None:
    found = await look("", {"STOMPBRIDGE_ADMIN__ENABLED": "false", "STOMPBRIDGE_LISTEN__PORT": "0"})
    assert only(found, "port.admin").result == "skipped"
    assert only(found, "port.listen").detail == "any free port"
    elsewhere = '[listen]\nhost = "192.0.2.1"\n[admin]\nhost = "no.such.host.invalid"\n'
    found = await look("insecure = true\n" + elsewhere)
    assert errors(found) == {"port.listen", "port.admin"}
    assert "an address of this machine in listen.host" in only(found, "port.listen").remedy


async def test_a_shared_port(look: Look) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other:
        port = {"STOMPBRIDGE_LISTEN__PORT": str(other.getsockname()[1])}
        assert errors(await look("[listen]\nreuse_port = true", port)) == set()
        assert errors(await look("", port)) == {"port.listen"}


async def test_another_bridge_on_the_admin_port(look: Look, memory_bridge: Bridge) -> None:
    found = await look('node = "other"', {"STOMPBRIDGE_ADMIN__PORT": str(memory_bridge.admin_port)})
    assert errors(found) == {"port.admin"}
    assert only(found, "port.admin").detail == f"used by the bridge {memory_bridge.node!r}"


async def test_the_running_bridges_limit(look: Look, memory_bridge: Bridge) -> None:
    environ = {
        "STOMPBRIDGE_NODE": memory_bridge.node,
        "STOMPBRIDGE_LISTEN__PORT": str(memory_bridge.port),
        "STOMPBRIDGE_ADMIN__PORT": str(memory_bridge.admin_port),
    }
    found = await look("[limits]\nconnections = 2147483647", environ)
    assert f"the running bridge (process {memory_bridge.pid})" in only(found, "files").detail


@pytest.fixture(scope="module")
def memory_bridge() -> Any:
    bridge = Bridge("[listen]\nreuse_port = false")
    try:
        bridge.start()
        yield bridge
        assert bridge.stop() == 0
    finally:
        bridge.remove()


def test_a_port_that_the_service_manager_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_users", lambda _: {1: "systemd"})
    assert machine._used("listen", 80, "here:80", "n", None).result == "ok"
    monkeypatch.setattr(machine, "_users", lambda _: {})
    assert machine._used("listen", 80, "here:80", "n", None).detail == "used by another program"
    assert machine._used("listen", 80, "here:80", "n", Running("n", 5)).result == "ok"


def test_a_port_that_needs_a_privilege(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(machine, "_bind", refuse)
    finding = machine._check_port("listen", "127.0.0.1", 80, False, "n", None)
    assert "CAP_NET_BIND_SERVICE" in finding.remedy


def test_a_process_that_cannot_be_seen() -> None:
    assert machine._file_limit(2**30) is None
    assert machine._file_limit(os.getpid()) == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


async def test_a_check_has_a_limit() -> None:
    (finding,) = await within(0.01, "slow", asyncio.Event().wait())  # type: ignore[arg-type]
    assert (finding.name, finding.result) == ("slow", "error")
    assert "did not end within 0.01 s" in finding.detail


async def test_a_check_that_fails_is_a_finding() -> None:
    async def fail() -> Any:
        raise KeyError("x")

    (finding,) = await within(1, "broken", fail())
    assert "the check itself failed: KeyError: 'x'" in finding.detail
    assert ok("a", "b").remedy == ""
