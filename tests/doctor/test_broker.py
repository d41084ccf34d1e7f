"""Faults planted at a real RabbitMQ, each of which the doctor has to name."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from stompbridge.brokers.amqp.channel import LinkLost
from stompbridge.brokers.amqp.wire import WireError
from stompbridge.doctor import broker, scratch
from stompbridge.doctor.finding import Finding
from tests.doctor.conftest import Findings, Look
from tests.support import configs
from tests.support.bridge import Bridge
from tests.support.certificates import Certificate
from tests.support.kinds import StartBridge
from tests.support.ports import free_port
from tests.support.rabbitmq import RabbitMQ

QUIET = '[health.broker]\nexchange = ""\n'
"""Without a probe nothing is waited for."""
PLANTED = """
Add = fun(U, C, W, R) ->
  rabbit_auth_backend_internal:add_user(U, <<"pw">>, <<"test">>),
  rabbit_auth_backend_internal:set_permissions(U, <<"/">>, C, W, R, <<"test">>) end,
Add(<<"doctor-mute">>, <<".*">>, <<"">>, <<".*">>),
Add(<<"doctor-deaf">>, <<".*">>, <<".*">>, <<"">>),
Add(<<"doctor-guest">>, <<"">>, <<"">>, <<"">>),
Add(<<"doctor-own">>, <<"^stompbridge[.].*$">>, <<"^(stompbridge[.].*|doctor.direct)$">>, <<".*">>),
Name = rabbit_misc:r(<<"/">>, exchange, <<"doctor.direct">>),
rabbit_exchange:declare(Name, direct, true, false, false, [], <<"test">>).
"""


@pytest.fixture(scope="module")
def planted(rabbitmq: RabbitMQ) -> RabbitMQ:
    """A node with users of several rights, and an exchange."""
    rabbitmq.evaluate(PLANTED)
    return rabbitmq


def site(*urls: str, exchange: str = "doctor.direct", kind: str = "direct", more: str = QUIET) -> str:
    listed = ", ".join(f'"{url}"' for url in urls)
    text = f'[broker]\nkind = "rabbitmq"\nconnect_timeout = "5s"\nurls = [{listed}]\n'
    return f'{text}[[broker.exchange]]\nname = "{exchange}"\ntype = "{kind}"\n{more}'


def only(found: Findings, name: str) -> Finding:
    (finding,) = found[name]
    return finding


def errors(found: Findings) -> set[str]:
    return {name for name, all_of_it in found.items() if any(finding.result == "error" for finding in all_of_it)}


@pytest.mark.rabbitmq
async def test_nothing_is_wrong_and_nothing_is_left_behind(look: Look, planted: RabbitMQ) -> None:
    found = await look(site(planted.url))
    assert errors(found) == set()
    names = ("tcp", "login", "virtual_host", "version", "alarm", "deprecated")
    rights = ("permissions.configure", "permissions.write", "permissions.read")
    assert {only(found, f"broker.{name}").result for name in names + rights} == {"ok"}
    assert [finding.subject for finding in found["broker.exchange"]] == ["stompbridge.user", "doctor.direct"]
    assert only(found, "broker.version").detail.startswith("RabbitMQ 3.")
    assert not [queue for queue in planted.queues() if "doctor" in queue["name"]]
    assert "stompbridge.vm" not in planted.ctl("list_exchanges", "--no-table-headers", "name")


@pytest.mark.rabbitmq
async def test_wrong_password(look: Look, planted: RabbitMQ) -> None:
    found = await look(site(planted.url_for("guest", "wrong")))
    finding = only(found, "broker.login")
    assert finding.result == "error"
    assert "login refused for user 'guest'" in finding.detail
    assert "wrong" not in finding.detail
    assert "password" in finding.remedy
    assert only(found, "broker.tcp").result == "ok"
    assert only(found, "broker.virtual_host").result == only(found, "broker.use").result == "skipped"


@pytest.mark.rabbitmq
async def test_wrong_virtual_host(look: Look, planted: RabbitMQ) -> None:
    found = await look(site(planted.url_for("guest", "guest", "nowhere")))
    assert errors(found) == {"broker.virtual_host"}
    assert "'nowhere'" in only(found, "broker.virtual_host").detail
    assert "add_vhost nowhere" in only(found, "broker.virtual_host").remedy


@pytest.mark.rabbitmq
async def test_no_write_permission(look: Look, planted: RabbitMQ) -> None:
    found = await look(site(planted.url_for("doctor-mute", "pw")))
    assert errors(found) == {"broker.permissions.write"}
    finding = only(found, "broker.permissions.write")
    assert finding.detail.startswith("refused for stompbridge.*, stompbridge.user, doctor.direct: ACCESS_REFUSED")
    assert r"set_permissions -p / doctor-mute '^(stompbridge\..*|doctor\.direct)$'" in finding.remedy
    assert only(found, "broker.alarm").result == "skipped"


@pytest.mark.rabbitmq
async def test_no_read_permission(look: Look, planted: RabbitMQ) -> None:
    found = await look(site(planted.url_for("doctor-deaf", "pw")))
    assert errors(found) == {"broker.permissions.read"}
    assert "stompbridge.*, doctor.direct" in only(found, "broker.permissions.read").detail


@pytest.mark.rabbitmq
async def test_no_permission_at_all(look: Look, planted: RabbitMQ) -> None:
    found = await look(site(planted.url_for("doctor-guest", "pw")))
    assert errors(found) == {"broker.permissions.configure", "broker.exchange"}
    user, direct = found["broker.exchange"]
    assert "the login may not declare it" in user.detail
    assert (direct.result, "cannot be seen" in direct.detail) == ("warning", True)
    for name in ("permissions.write", "permissions.read", "alarm", "deprecated"):
        assert only(found, f"broker.{name}").result == "skipped"


@pytest.mark.rabbitmq
async def test_what_exists_need_not_be_declared(look: Look, planted: RabbitMQ) -> None:
    found = await look(site(planted.url_for("doctor-own", "pw")))
    assert errors(found) == set()
    assert found["broker.exchange"][-1].result == "warning"


@pytest.mark.rabbitmq
async def test_an_exchange_of_another_type(look: Look, planted: RabbitMQ) -> None:
    found = await look(site(planted.url, kind="topic"))
    assert errors(found) == {"broker.exchange"}
    finding = found["broker.exchange"][-1]
    assert finding.subject == "doctor.direct"
    assert "inequivalent arg 'type'" in finding.detail


@pytest.mark.rabbitmq
async def test_a_queue_may_have_an_exchanges_name(look: Look, planted: RabbitMQ, name: str) -> None:
    planted.evaluate(
        f'rabbit_amqqueue:declare(rabbit_misc:r(<<"/">>, queue, <<"{name}">>), true, false, [], none, <<"test">>).'
    )
    found = await look(site(planted.url, exchange=name))
    assert errors(found) == set()
    assert [queue["name"] for queue in planted.queues()].count(name) == 1


@pytest.mark.rabbitmq
async def test_a_broker_short_of_memory(look: Look, planted: RabbitMQ) -> None:
    planted.evaluate("rabbit_alarm:set_alarm({{resource_limit, memory, node()}, []}).")
    try:
        found = await look(site(planted.url))
    finally:
        planted.evaluate("rabbit_alarm:clear_alarm({resource_limit, memory, node()}).")
    assert errors(found) == {"broker.alarm"}
    assert "low on memory" in only(found, "broker.alarm").detail


async def test_the_broker_is_down(look: Look) -> None:
    port = free_port()
    found = await look(site(f"amqp://127.0.0.1:{port}", f"amqps://127.0.0.1:{port}"))
    assert errors(found) == {"broker.tcp"}
    assert [finding.detail for finding in found["broker.tcp"]] == ["connection refused"] * 2
    assert only(found, "broker.use").result == "skipped"


@pytest.mark.rabbitmq
async def test_one_of_two_addresses_is_down(look: Look, planted: RabbitMQ) -> None:
    found = await look(site(f"amqp://127.0.0.1:{free_port()}", planted.url))
    assert errors(found) == set()
    assert [finding.result for finding in found["broker.tcp"]] == ["warning", "ok"]


async def test_what_listens_there_is_no_broker(look: Look) -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        found = await look(site(f"amqp://127.0.0.1:{port}"))
    assert errors(found) <= {"broker.login"}
    assert only(found, "broker.login").result == "error"


@pytest.fixture
def tls(tmp_path: Path) -> tuple[Certificate, ssl.SSLContext]:
    certificate = Certificate(tmp_path / "tls", days=5)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)
    return certificate, context


async def test_tls_at_the_broker(look: Look, tls: tuple[Certificate, ssl.SSLContext]) -> None:
    certificate, context = tls
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        url = f"amqps://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        unknown = await look(site(url))
        missing = await look(site(f"{url}?cafile=/none"))
        known = await look(site(f"{url}?cafile={certificate.cert}"))
        careless = await look(site(f"{url}?no_verify_ssl=1"))
    assert "is not trusted: self-signed certificate" in only(unknown, "broker.tls").detail
    assert only(missing, "broker.tls").detail == "No such file or directory"
    assert errors(unknown) == errors(missing) == {"broker.tls"}
    assert "expires on" in only(known, "broker.tls").detail
    assert only(careless, "broker.tls").detail.startswith("no_verify_ssl")


async def test_no_tls_at_the_broker(look: Look) -> None:
    def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello, who is there?")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        found = await look(site(f"amqps://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    assert errors(found) == {"broker.tls"}


@pytest.mark.rabbitmq
async def test_two_bridges_of_one_name(look: Look, planted: RabbitMQ, start_bridge: StartBridge, name: str) -> None:
    text = configs.rabbitmq(planted.url)

    def environ(bridge: Bridge) -> dict[str, str]:
        ports = {"STOMPBRIDGE_LISTEN__PORT": bridge.port, "STOMPBRIDGE_ADMIN__PORT": bridge.admin_port}
        return {name: str(port) for name, port in ports.items()} | {"STOMPBRIDGE_NODE": bridge.node}

    one = start_bridge(text, node=name)
    one.wait_ready()
    found = await look(text, environ(one))
    assert only(found, "node").result == only(found, "port.listen").result == only(found, "port.admin").result == "ok"
    assert f"process {one.pid}" in only(found, "port.listen").detail
    assert errors(found) == set()
    found = await look(text, {"STOMPBRIDGE_NODE": name})
    assert only(found, "node").result == "warning"
    two = start_bridge(text, node=name)
    two.wait_ready()
    found = await look(text, environ(one))
    assert errors(found) == {"node"}
    assert only(found, "node").detail == f"2 bridges run under the name {name!r}"


async def test_nodes_cannot_be_heard(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "ANSWER", 0.5)
    found = await look(site(f"amqp://127.0.0.1:{free_port()}", more=""))
    assert only(found, "node").result == "skipped"


@pytest.mark.rabbitmq
async def test_the_broker_goes_away_meanwhile(look: Look, planted: RabbitMQ, monkeypatch: pytest.MonkeyPatch) -> None:
    async def lose(_: object) -> list[Finding]:
        raise LinkLost("it was closed")

    monkeypatch.setattr(scratch.Scratch, "_check", lose)
    found = await look(site(planted.url))
    assert errors(found) == {"broker.use"}
    assert "the connection was lost: it was closed" in only(found, "broker.use").detail


@pytest.mark.rabbitmq
async def test_the_second_connection_is_refused(look: Look, planted: RabbitMQ, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object) -> None:
        raise WireError("here: connection limit")

    monkeypatch.setattr(broker.Link, "open", refuse)
    found = await look(site(planted.url))
    assert errors(found) == {"broker.use"}
    assert only(found, "broker.use").detail == "here: connection limit"


@pytest.mark.parametrize(
    ("properties", "result", "text"),
    [
        ({"product": "RabbitMQ", "version": "3.9.1"}, "warning", "3.9.1 is older"),
        ({"product": b"RabbitMQ", "version": b"4.2.0"}, "ok", "RabbitMQ 4.2.0"),
        ({"product": "Other", "version": "7"}, "warning", "tested with RabbitMQ"),
        ({"product": "Other", "capabilities": {}}, "error", "has not: publisher_confirms"),
    ],
)
def test_versions(properties: dict[str, object], result: str, text: str) -> None:
    capable: dict[str, object] = {"capabilities": dict.fromkeys(broker.NEEDED, True)}
    (finding,) = broker._check_server(capable | properties)
    assert (finding.result, text in finding.detail) == (result, True)
