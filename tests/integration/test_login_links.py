"""Clients who log in to RabbitMQ: each login has a link of its own, and RabbitMQ says what it may do."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from stompbridge.auth.static import hash_password
from tests.support import configs
from tests.support.bridge import Bridge
from tests.support.kinds import Connect, StartBridge
from tests.support.rabbitmq import RabbitMQ
from tests.support.stomp import Client, Frame, encode

pytestmark = pytest.mark.rabbitmq

AUTH = """
[auth]
backend = "rabbitmq"
link_linger = "1s"
failures = 100
virtual_hosts = { "chat.example" = "/" }
"""


def binary(text: str) -> str:
    """An Erlang binary of any text."""
    return f'base64:decode(<<"{base64.b64encode(text.encode()).decode()}">>)'


def add_user(name: str, password: str) -> str:
    return f'rabbit_auth_backend_internal:add_user({binary(name)}, {binary(password)}, <<"t">>)'


def permit(name: str, configure: str = ".*", write: str = ".*", read: str = ".*", vhost: str = "/") -> str:
    words = ", ".join(binary(word) for word in (name, vhost, configure, write, read))
    return f'rabbit_auth_backend_internal:set_permissions({words}, <<"t">>)'


def permit_topics(name: str, exchange: str, write: str, read: str) -> str:
    words = ", ".join(binary(word) for word in (name, "/", exchange, write, read))
    return f'rabbit_auth_backend_internal:set_topic_permissions({words}, <<"t">>)'


async def do(node: RabbitMQ, *expressions: str) -> None:
    """Some Erlang, in one go: a call of rabbitmqctl takes a second."""
    await asyncio.to_thread(node.evaluate, ", ".join((*expressions, "ok")) + ".")


class Logins:
    """Users of one node, and clients that log in as them."""

    _unused_of: ClassVar[dict[str, list[str]]] = {}

    def __init__(self, node: RabbitMQ, bridge: Bridge, connect: Connect) -> None:
        self.node = node
        self._unused = self._unused_of.setdefault(node.node, [])
        self.bridge = bridge
        self._connect = connect

    async def add(self, **permissions: str) -> str:
        """A new user, whose password is its name. Some are made at a time."""
        if not self._unused:
            self._unused += [f"u{secrets.token_hex(5)}" for _ in range(20)]
            await do(self.node, *(f"{add_user(name, name)}, {permit(name)}" for name in self._unused))
        name = self._unused.pop()
        if permissions:
            await do(self.node, permit(name, **permissions))
        return name

    async def client(self, login: str, passcode: str | None = None, **headers: str) -> Client:
        return await self._connect(self.bridge, credentials(login, passcode, **headers))

    async def refused(self, login: str, passcode: str | None = None, **headers: str) -> Frame:
        """The ERROR that such a CONNECT gets."""
        client = await self._connect(self.bridge, connected=False)
        return await refusal(client, credentials(login, passcode, **headers))


def credentials(login: str, passcode: str | None = None, **headers: str) -> Mapping[str, str]:
    version = {"accept-version": "1.2", "heart-beat": "0,0"}
    return version | {"login": login, "passcode": login if passcode is None else passcode} | headers


async def refusal(client: Client, headers: Mapping[str, str]) -> Frame:
    """The answer to a CONNECT that is refused."""
    await client.send_raw(encode("CONNECT", headers, escaped=False))
    return await client.error("Bad CONNECT")


async def failure(client: Client, command: str, headers: Mapping[str, str]) -> Frame:
    """The answer to a frame that fails."""
    await client.send_frame(command, headers, receipt="fails")
    error = await client.error()
    assert error.headers["receipt-id"] == "fails"
    return error


@pytest.fixture(scope="module")
def linked(rabbitmq: RabbitMQ) -> Iterator[Bridge]:
    """A bridge on the shared node."""
    process = Bridge(configs.rabbitmq(rabbitmq.url, AUTH))
    try:
        process.start()
        process.wait_ready()
        yield process
        assert process.stop() == 0
        process.assert_clean_log()
    finally:
        process.remove()


@pytest.fixture
def logins(rabbitmq: RabbitMQ, linked: Bridge, connect: Connect) -> Logins:
    return Logins(rabbitmq, linked, connect)


async def until_ended(bridge: Bridge, login: str) -> None:
    await asyncio.to_thread(bridge.wait_log, "link_ended", login=login)


def opened(bridge: Bridge, login: str) -> list[dict[str, Any]]:
    return [event for event in bridge.events("link_opened") if event["login"] == login]


async def test_two_logins_of_one_bridge(logins: Logins, name: str) -> None:
    """Each with its own connections, both on one topic."""
    first, second = await logins.add(), await logins.add()
    one, two = await logins.client(first), await logins.client(second)
    await one.subscribe(f"/topic/{name}")
    await two.subscribe(f"/topic/{name}")
    await one.send_and_wait(f"/topic/{name}", "hello", user_id=first)
    for client in (one, two):
        await client.message("hello", user_id=first, destination=f"/topic/{name}")
    connections = await asyncio.to_thread(logins.node.ctl, "list_connections", "--no-table-headers", "user")
    users = connections.split()
    assert users.count(first) == users.count(second) == 2
    queues = [queue["name"] for queue in await asyncio.to_thread(logins.node.queues)]
    prefix = f"stomp-subscription-stompbridge.{logins.bridge.node}."
    assert sum(queue.startswith(prefix) and queue.endswith(".amq.topic") for queue in queues) == 2


async def test_sessions_of_a_login_share_its_link_until_the_last_has_gone(logins: Logins, name: str) -> None:
    login = await logins.add()
    one, two = await logins.client(login), await logins.client(login)
    await one.subscribe(f"/topic/{name}")
    await two.send_and_wait(f"/topic/{name}", "x")
    await one.message("x")
    assert len(opened(logins.bridge, login)) == 1
    await one.request("DISCONNECT")
    await two.alive()
    await two.request("DISCONNECT")
    await until_ended(logins.bridge, login)
    await (await logins.client(login)).alive()
    assert len(opened(logins.bridge, login)) == 2


async def test_who_is_not_let_in(logins: Logins) -> None:
    """Texts as in RabbitMQ's STOMP; nothing says whether it was the login or the passcode."""
    login = await logins.add()
    stranger = f"{login}x"
    for refused in (
        await logins.refused(login, "wrong"),
        await logins.refused(login, login + "x"),
        await logins.refused(login, ""),
        await logins.refused(login, "x" * 60_000),
    ):
        assert refused.text == f"Access refused for user '{login}'\n"
    assert (await logins.refused(stranger)).text == f"Access refused for user '{stranger}'\n"
    assert (await logins.refused("", login)).text == "Access refused for user ''\n"
    await logins.client(login)
    assert (await logins.refused(login, "wrong")).text == f"Access refused for user '{login}'\n"
    assert login not in "".join(str(event["cause"]) for event in logins.bridge.events("connect_refused"))


async def test_a_refused_client_may_try_again(logins: Logins) -> None:
    login = await logins.add()
    client = await logins._connect(logins.bridge, connected=False)
    await refusal(client, credentials(login, "wrong"))
    await client.connect(credentials(login))
    await client.alive()


async def test_neither_login_nor_passcode(logins: Logins) -> None:
    client = await logins._connect(logins.bridge, connected=False)
    assert (await refusal(client, {"accept-version": "1.2"})).text == "Missing login or passcode header(s)"


async def test_virtual_hosts(logins: Logins, name: str) -> None:
    login = await logins.add()
    other = await logins.add()
    odd = f"{name}/../%2F"
    await do(
        logins.node,
        f'rabbit_vhost:add({binary(name)}, <<"t">>)',
        f'rabbit_vhost:add({binary(odd)}, <<"t">>)',
        permit(login, vhost=name),
        permit(login, vhost=odd),
    )
    for host in ("missing", "%2F", "..", "", "localhost"):
        refused = await logins.refused(login, host=host)
        assert refused.text == f"Virtual host '{host}' access denied"
    assert (await logins.refused(other, host=name)).text == f"Virtual host '{name}' access denied"
    assert (await logins.refused(login, "wrong", host="missing")).text == f"Access refused for user '{login}'\n"
    here = await logins.client(login, host="/")
    mapped = await logins.client(login, host="chat.example")
    there = await logins.client(login, host=name)
    far = await logins.client(login, host=odd)
    for client in (here, mapped, there, far):
        await client.subscribe(f"/topic/{name}")
        await client.subscribe("/exchange/chat.exchange/k" if client in (here, mapped) else "/topic/k", id="s1")
    await here.send_and_wait(f"/topic/{name}", "here")
    await there.send_and_wait(f"/topic/{name}", "there")
    await far.send_and_wait(f"/topic/{name}", "far")
    for client, body in ((here, "here"), (mapped, "here"), (there, "there"), (far, "far")):
        await client.message(body)
        await client.silent(0.1)
    assert {event["vhost"] for event in opened(logins.bridge, login)} == {"/", name, odd}
    error = await failure(there, "SEND", {"destination": "/exchange/chat.exchange/k"})
    assert error.text == f"NOT_FOUND - no exchange 'chat.exchange' in vhost '{name}'"


async def test_names_that_mean_something_in_a_url(logins: Logins) -> None:
    login, passcode = f"p@s:s/?#%41 é{secrets.token_hex(4)}", "x:/@?#%41 é"
    await do(logins.node, add_user(login, passcode), permit(login))
    await (await logins.client(login, passcode)).alive()
    assert (await logins.refused(login, "x:/@?#A é")).text == f"Access refused for user '{login}'\n"


async def test_guest_comes_from_loopback_only(start_bridge: StartBridge, rabbitmq: RabbitMQ, connect: Connect) -> None:
    """RabbitMQ sees the bridge's address; the client's is another."""
    proxied = '[listen]\ntrusted_proxies = ["127.0.0.0/8"]'
    bridge = await asyncio.to_thread(start_bridge, configs.rabbitmq(rabbitmq.url, AUTH, proxied))
    await (await connect(bridge, credentials("guest"))).alive()
    client = await connect(bridge, connected=False, additional_headers={"X-Forwarded-For": "192.0.2.1"})
    assert (await refusal(client, credentials("guest"))).text == "non-loopback access denied"


async def test_default_credentials(start_bridge: StartBridge, logins: Logins, connect: Connect) -> None:
    login = await logins.add()
    auth = AUTH + f'default_login = "{login}"\ndefault_passcode = "{login}"\n'
    bridge = await asyncio.to_thread(start_bridge, configs.rabbitmq(logins.node.url, auth))
    client = await connect(bridge)
    await client.send_and_wait(f"/topic/{login}", "x", user_id=login)


async def test_user_id(logins: Logins, name: str) -> None:
    login = await logins.add()
    client, other = await logins.client(login), await logins.client(login)
    await other.subscribe(f"/topic/{name}")
    await client.send_and_wait(f"/topic/{name}", "mine", user_id=login)
    await other.message("mine", user_id=login)
    error = await failure(client, "SEND", {"destination": f"/topic/{name}", "user-id": "guest"})
    assert error.message == "precondition_failed"
    assert error.text == (f"PRECONDITION_FAILED - user_id property set to 'guest' but authenticated user was '{login}'")
    await client.wait_closed()
    await other.silent(0.1)
    await other.alive()


async def busy(one: Client, two: Client, destination: str, count: int) -> None:
    """Messages from one session to another, each with its receipt: all of them arrive, once, in their order."""
    for number in range(count):
        await one.send_frame("SEND", {"destination": destination, "receipt": f"busy{number}"}, str(number))
    received, receipts = [], []
    while len(received) < count:
        received.append((await two.message()).text)
    while len(receipts) < count:
        receipts.append((await one.expect("RECEIPT")).headers["receipt-id"])
    assert received == [str(number) for number in range(count)]
    assert sorted(receipts) == sorted(f"busy{number}" for number in range(count))


PLUGIN = r"^(stomp-subscription-.*|amq\.topic)$"
"""What a login needs for topics with RabbitMQ's own STOMP."""


async def test_what_a_login_may_not_do_beside_busy_sessions_of_its_own(logins: Logins, name: str) -> None:
    """Each refusal closes a channel at RabbitMQ. It costs the session that asked, and nobody else anything."""
    login = await logins.add(configure=PLUGIN, write=PLUGIN, read=PLUGIN)
    one, two = await logins.client(login), await logins.client(login)
    await two.subscribe(f"/topic/{name}")
    mistakes = [
        ("SEND", {"destination": "/exchange/chat.exchange/k"}, "exchange 'chat.exchange'"),
        ("SEND", {"destination": "/exchange/amq.fanout"}, "exchange 'amq.fanout'"),
        ("SEND", {"destination": f"/queue/{name}"}, f"queue '{name}'"),
        ("SUBSCRIBE", {"destination": "/exchange/chat.exchange/k", "id": "s"}, "exchange 'chat.exchange'"),
        ("SUBSCRIBE", {"destination": f"/queue/{name}", "id": "s"}, f"queue '{name}'"),
        ("SUBSCRIBE", {"destination": f"/topic/{name}", "id": "s", "x-queue-name": name}, f"queue '{name}'"),
    ]

    async def make(command: str, headers: Mapping[str, str], what: str) -> None:
        client = await logins.client(login)
        for _ in range(3):
            await client.send_and_wait("/topic/elsewhere", "good")
        error = await failure(client, command, headers)
        assert error.message == "access_refused"
        assert error.text == f"ACCESS_REFUSED - access to {what} in vhost '/' refused for user '{login}'"
        await client.wait_closed()

    await asyncio.gather(busy(one, two, f"/topic/{name}", 400), *(make(*mistake) for mistake in mistakes))
    await busy(one, two, f"/topic/{name}", 10)
    assert len(opened(logins.bridge, login)) == 1


async def test_topic_permissions(logins: Logins, name: str) -> None:
    """Checked for each key: for each binding, since none stands for another, and for each message."""
    login = await logins.add()
    await do(logins.node, permit_topics(login, "chat.exchange", rf"^{name}\.w", rf"^{name}\.(r|w)"))
    one, two = await logins.client(login), await logins.client(login)
    await two.subscribe(f"/exchange/chat.exchange/{name}.w")

    async def make(command: str, key: str) -> None:
        client = await logins.client(login)
        error = await failure(client, command, {"destination": f"/exchange/chat.exchange/{key}", "id": "s"})
        assert error.message == "access_refused"
        assert error.text == (
            f"ACCESS_REFUSED - access to topic '{key}' in exchange 'chat.exchange' in vhost '/' "
            f"refused for user '{login}'"
        )
        await client.wait_closed()

    await asyncio.gather(
        busy(one, two, f"/exchange/chat.exchange/{name}.w", 300),
        make("SEND", f"{name}.r"),
        make("SEND", "#"),
        make("SUBSCRIBE", "#"),
        make("SUBSCRIBE", f"{name}.x"),
        make("SUBSCRIBE", f"{name}.#"),
    )
    await one.subscribe(f"/exchange/chat.exchange/{name}.r")
    await busy(one, two, f"/exchange/chat.exchange/{name}.w", 10)


async def test_exchanges_of_the_configuration_are_not_the_logins_affair(logins: Logins, name: str) -> None:
    """Neither does a login declare them, nor does the exchange that is bound for all keys reach it whole."""
    login = await logins.add(configure="^stomp-subscription-", write=".*", read=".*")
    await do(logins.node, permit_topics(login, "all.exchange", ".*", rf"^{name}"))
    client = await logins.client(login)
    await client.subscribe(f"/exchange/all.exchange/{name}")
    await client.send_and_wait("/exchange/all.exchange/other", "not mine")
    await client.send_and_wait(f"/exchange/all.exchange/{name}", "mine")
    await client.message("mine")
    assert (await failure(client, "SUBSCRIBE", {"destination": "/exchange/all.exchange/other", "id": "x"})).message == (
        "access_refused"
    )


async def test_internal_and_user_destinations(logins: Logins, name: str) -> None:
    """They go over the bridge's own connection, for logins that may do nothing themselves."""
    first, second = await logins.add(configure="", write="", read=""), await logins.add(configure="", write="", read="")
    one, two = await logins.client(first), await logins.client(second)
    await one.subscribe("/internal/healthcheck", id="health")
    await two.subscribe("/user/queue/x", id="own")
    assert (await one.message(subscription="health")).text.startswith("{")
    await one.send_frame("SEND", {"destination": f"/user/{second}/queue/x", "receipt": "sent", "user-id": first}, name)
    message = await two.message(name, subscription="own")
    assert message.headers["destination"] == "/user/queue/x"
    assert message.headers["user-id"] == first


async def test_another_passcode_for_an_open_link(logins: Logins) -> None:
    """Those who are in stay in; the new one is good at once, with a link of its own."""
    login = await logins.add()
    client = await logins.client(login)
    await do(logins.node, f'rabbit_auth_backend_internal:change_password({binary(login)}, <<"new">>, <<"t">>)')
    newer = await logins.client(login, "new")
    assert (await logins.refused(login, "other")).text == f"Access refused for user '{login}'\n"
    await client.send_and_wait("/topic/x", "x")
    await newer.send_and_wait("/topic/x", "x")
    assert len(opened(logins.bridge, login)) == 2


async def test_a_user_who_is_deleted(logins: Logins, name: str) -> None:
    login, other = await logins.add(), await logins.add()
    client, second, bystander = await logins.client(login), await logins.client(login), await logins.client(other)
    await bystander.subscribe(f"/topic/{name}")
    await do(logins.node, f'rabbit_auth_backend_internal:delete_user({binary(login)}, <<"t">>)')
    for ended in (client, second):
        assert (await ended.error("Bad CONNECT")).text == f"Access refused for user '{login}'\n"
        await ended.wait_closed()
    assert (await logins.refused(login)).text == f"Access refused for user '{login}'\n"
    await bystander.send_and_wait(f"/topic/{name}", "x")
    await bystander.message("x")


async def test_a_virtual_host_that_is_deleted(logins: Logins, name: str) -> None:
    login = await logins.add()
    await do(logins.node, f'rabbit_vhost:add({binary(name)}, <<"t">>)', permit(login, vhost=name))
    here, there = await logins.client(login), await logins.client(login, host=name)
    await there.subscribe("/topic/x")
    await do(logins.node, f'rabbit_vhost:delete({binary(name)}, <<"t">>)')
    # RabbitMQ takes the permissions away before it takes the virtual host away.
    texts = (f"Virtual host '{name}' access denied", f"Access refused for user '{login}'\n")
    assert (await there.error("Bad CONNECT")).text in texts
    await there.wait_closed()
    await here.alive()


async def test_as_many_links_as_there_may_be(start_bridge: StartBridge, logins: Logins, connect: Connect) -> None:
    """One that nobody uses makes room."""
    auth = AUTH.replace('link_linger = "1s"', 'link_linger = "1h"') + "max_links = 1\n"
    bridge = await asyncio.to_thread(start_bridge, configs.rabbitmq(logins.node.url, auth))
    first, second = await logins.add(), await logins.add()
    client = await connect(bridge, credentials(first))
    turned_away = await connect(bridge, connected=False)
    assert (await refusal(turned_away, credentials(second))).text == "Connection refused: connection limit reached\n"
    await (await connect(bridge, credentials(first))).disconnect()
    await client.disconnect()
    await asyncio.to_thread(bridge.wait_log, "session_closed", session=client.session)
    await (await connect(bridge, credentials(second))).alive()
    await until_ended(bridge, first)


async def test_user_id_where_the_bridge_authenticates(
    start_bridge: StartBridge, rabbitmq: RabbitMQ, connect: Connect, name: str, tmp_path: Path
) -> None:
    """RabbitMQ knows the bridge's login only."""
    users = tmp_path / "users.toml"
    users.touch(0o600)
    users.write_text(f"[users.ann]\npassword = '{hash_password('secret')}'\n")
    auth = f'[auth]\nbackend = "static"\nusers_file = "{users}"'
    bridge = await asyncio.to_thread(start_bridge, configs.rabbitmq(rabbitmq.url, auth))
    client = await connect(bridge, credentials("ann", "secret"))
    await client.subscribe(f"/topic/{name}")
    await client.send_and_wait(f"/topic/{name}", "mine", user_id="ann")
    await client.message("mine", user_id="ann")
    error = await failure(client, "SEND", {"destination": f"/topic/{name}", "user-id": "guest"})
    assert error.message == "precondition_failed"
    assert error.text == "PRECONDITION_FAILED - user_id property set to 'guest' but authenticated user was 'ann'"
    await client.wait_closed()


@pytest.mark.slow
async def test_a_restart_of_rabbitmq(
    start_bridge: StartBridge, own_rabbitmq: RabbitMQ, connect: Connect, name: str
) -> None:
    """Sessions stay, each login's link comes back, but for those that are not let in any more: a changed passcode, or a
    permission that a subscription needs."""
    bridge = await asyncio.to_thread(start_bridge, configs.rabbitmq(own_rabbitmq.url, AUTH))
    logins = Logins(own_rabbitmq, bridge, connect)
    users = [await logins.add() for _ in range(4)]
    clients = [await logins.client(user) for user in users]
    for client in clients:
        await client.subscribe(f"/topic/{name}")
        await client.subscribe(f"/queue/{client.session}", id="q", ack="client")
    stay, also, changed, revoked = clients
    await do(own_rabbitmq, f'rabbit_auth_backend_internal:change_password({binary(users[2])}, <<"new">>, <<"t">>)')
    await do(own_rabbitmq, permit(users[3], read="^nothing$"))
    await asyncio.to_thread(own_rabbitmq.stop)
    waiting = await logins.client(users[0])
    await waiting.send_frame("SEND", {"destination": f"/topic/{name}", "receipt": "waits"}, "late")
    unknown = await connect(bridge, connected=False)
    assert "cannot be checked" in (await refusal(unknown, credentials("stranger"))).text
    await asyncio.to_thread(own_rabbitmq.start)
    assert (await changed.error("Bad CONNECT", within=30)).text == f"Access refused for user '{users[2]}'\n"
    assert (await revoked.error(within=30)).message == "Bad CONNECT"
    await waiting.receipt("waits", 30)
    await stay.message("late", within=30)
    await also.send_and_wait(f"/topic/{name}", "x", user_id=users[1])
    await stay.message("x", within=30)
    await stay.send_and_wait(f"/queue/{also.session}", "to a queue")
    while (frame := await also.message(within=30)).headers["subscription"] != "q":
        pass
    assert frame.text == "to a queue"
