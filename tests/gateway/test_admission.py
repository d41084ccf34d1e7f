from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from stompbridge.auth.base import AuthRefused, AuthUnavailable, Credentials, Identity
from stompbridge.config import Auth, Limits, Settings
from stompbridge.gateway.client import Client
from stompbridge.gateway.closing import CloseReason
from stompbridge.gateway.shared import SessionsOf
from stompbridge.routing.destinations import Destination
from stompbridge.routing.router import Router
from stompbridge.stomp.errors import StompError
from tests.gateway.world import Connection, World


class Desk:
    """Knows alice (passcode "right"); answers once ``open`` is set."""

    def __init__(self) -> None:
        self.asked: list[Credentials] = []
        self.problem: Exception | None = None
        self.expires_at: float | None = None
        self.open = asyncio.Event()
        self.open.set()

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def reload(self) -> None: ...

    async def authenticate(self, credentials: Credentials) -> Identity:
        self.asked.append(credentials)
        await self.open.wait()
        if self.problem is not None:
            raise self.problem
        if credentials.passcode != "right" or credentials.login is None:
            raise AuthRefused(f"Access refused for user '{credentials.login}'\n", "wrong passcode")
        return Identity(credentials.login, expires_at=self.expires_at)


class Leased:
    def __init__(self, router: Router) -> None:
        self.router = router
        self.released = 0

    def release(self) -> None:
        self.released += 1


class Links:
    def __init__(self, router: Router) -> None:
        self.router = router
        self.leases: list[Leased] = []
        self.revoke: Callable[[str], None] | None = None

    async def acquire(self, identity: Identity, on_revoked: Callable[[str], None]) -> Leased:
        if identity.user == "nobody":
            raise AuthRefused("Virtual host 'v' access denied", "no such virtual host")
        self.revoke = on_revoked
        self.leases.append(Leased(self.router))
        return self.leases[-1]


class OnlyTopicA:
    def check_send(self, destination: Destination, headers: object) -> None:
        if destination.text != "/topic/a":
            raise StompError("access_refused", "no", fatal=True)

    check_subscribe = check_send


@pytest.fixture
def world() -> World:
    world = World(Settings(auth=Auth(default_login="alice"), limits=Limits(connections_per_user=1)))
    world.shared.authenticator = Desk()
    return world


def desk(world: World) -> Desk:
    assert isinstance(world.shared.authenticator, Desk)
    return world.shared.authenticator


def connect(passcode: str = "right", login: str = "alice", **headers: str) -> bytes:
    lines = {"accept-version": "1.2", "login": login, "passcode": passcode} | headers
    return ("CONNECT\n" + "".join(f"{k.replace('_', '-')}:{v}\n" for k, v in lines.items()) + "\n\0").encode()


async def settle(client: Client) -> None:
    """Until the client's admission has its answer."""
    admission = client._admission
    assert admission is not None
    assert admission._task is not None
    await asyncio.wait([admission._task], timeout=5)


async def arrive(world: World, frames: bytes) -> tuple[Client, Connection]:
    connection = Connection()
    client = Client(connection, world.shared)  # type: ignore[arg-type]
    client.on_open(connection)  # type: ignore[arg-type]
    client.on_data(frames)
    await settle(client)
    return client, connection


async def test_who_is_known_comes_in_and_what_waited_goes_on(world: World) -> None:
    client, connection = await arrive(world, connect() + b"SEND\ndestination:/topic/a\nreceipt:1\n\n\0")
    assert connection.commands() == ["CONNECTED", "RECEIPT"]
    assert "user-name:alice" in connection.sent[0]
    assert client.user == client.scope == "alice"
    assert connection.is_accepted
    asked = desk(world).asked[0]
    assert (asked.login, asked.passcode, asked.address) == ("alice", "right", "192.0.2.1")
    assert "right" not in repr(asked)


async def test_the_configured_login_stands_in_for_a_missing_one(world: World) -> None:
    _, connection = await arrive(world, b"CONNECT\naccept-version:1.2\npasscode:right\n\n\0")
    assert connection.commands() == ["CONNECTED"]


async def test_who_is_refused_may_try_again_on_the_same_connection(world: World) -> None:
    client, connection = await arrive(world, connect("wrong"))
    assert connection.sent[0].startswith("ERROR\nmessage:Bad CONNECT\n")
    assert connection.sent[0].endswith("\n\nAccess refused for user 'alice'\n")
    assert not connection.is_accepted
    client.on_data(connect())
    await settle(client)
    assert connection.commands() == ["ERROR", "CONNECTED"]


@pytest.mark.parametrize("problem", [AuthUnavailable("the webhook does not answer"), RuntimeError("a bug")])
async def test_when_nobody_can_say_the_client_is_sent_away(world: World, problem: Exception) -> None:
    desk(world).problem = problem
    _, connection = await arrive(world, connect())
    assert connection.commands() == ["ERROR"]
    assert connection.closed == (CloseReason.AUTH_UNAVAILABLE, "Bad CONNECT")


async def test_a_client_that_leaves_meanwhile_is_forgotten(world: World) -> None:
    desk(world).open.clear()
    connection = Connection()
    client = Client(connection, world.shared)  # type: ignore[arg-type]
    client.on_open(connection)  # type: ignore[arg-type]
    client.on_data(connect())
    client.on_lost(CloseReason.CLIENT_LOST)
    await settle(client)
    assert connection.sent == []
    assert world.shared.sessions_of.enter("alice")


async def test_credentials_that_have_expired_open_no_session(world: World) -> None:
    desk(world).expires_at = time.time() - 1
    _, connection = await arrive(world, connect())
    assert connection.closed == (CloseReason.SESSION_EXPIRED, "Session expired")


async def test_a_session_ends_with_its_credentials(world: World) -> None:
    desk(world).expires_at = time.time() + 10
    client, connection = await arrive(world, connect())
    client.on_check(9.0)
    assert connection.closed is None
    client.on_check(10.1)
    assert connection.sent[-1].startswith("ERROR\nmessage:Session expired\n")
    assert connection.closed == (CloseReason.SESSION_EXPIRED, "Session expired")


async def test_a_user_has_so_many_sessions(world: World) -> None:
    first, _ = await arrive(world, connect())
    second, connection = await arrive(world, connect())
    assert "connection limit of user 'alice' reached" in connection.sent[0]
    assert world.shared.sessions_of.refused == 1
    first.on_lost(CloseReason.CLIENT_CLOSED)
    second.on_data(connect())
    await settle(second)
    assert connection.commands() == ["ERROR", "CONNECTED"]


async def test_the_links_of_their_own_logins(world: World) -> None:
    links = world.shared.upstreams = Links(world.router)
    client, connection = await arrive(world, connect())
    assert connection.commands() == ["CONNECTED"]
    assert links.revoke is not None
    links.revoke("Access refused for user 'alice'\n")
    assert connection.closed == (CloseReason.ACCESS_REVOKED, "Bad CONNECT")
    assert links.leases[0].released == 1
    client.on_lost(CloseReason.ACCESS_REVOKED)
    assert links.leases[0].released == 1
    _, connection = await arrive(world, connect(login="nobody"))
    assert connection.sent[0].endswith("Virtual host 'v' access denied")


async def test_a_client_id_is_its_users_own(world: World) -> None:
    _, connection = await arrive(world, connect(client_id="tab"))
    assert connection.commands() == ["CONNECTED"]
    assert world.store.holds_open("alice\0tab")


async def test_a_bad_client_id_is_found_before_anybody_is_asked(world: World) -> None:
    connection = Connection()
    client = Client(connection, world.shared)  # type: ignore[arg-type]
    client.on_open(connection)  # type: ignore[arg-type]
    client.on_data(connect(client_id="x" * 256))
    assert connection.commands() == ["ERROR"]
    assert desk(world).asked == []


async def test_permissions_are_asked(world: World) -> None:
    world.shared.permissions_of = lambda identity: OnlyTopicA()
    client, connection = await arrive(world, connect())
    client.on_data(b"SEND\ndestination:/topic/a\nreceipt:1\n\n\0SUBSCRIBE\nid:0\nreceipt:2\ndestination:/topic/a\n\n\0")
    assert connection.receipts() == ["1", "2"]
    client.on_data(b"SEND\ndestination:/topic/b\nreceipt:3\n\n\0")
    assert connection.sent[-1].startswith("ERROR\nmessage:access_refused\n")
    assert connection.closed is not None


async def test_nobody_in_particular_has_permissions_too() -> None:
    world = World(Settings())
    world.shared.permissions_of = lambda identity: OnlyTopicA() if identity is None else None
    client, connection = world.client()
    client.on_data(b"SUBSCRIBE\nid:0\ndestination:/topic/b\n\n\0")
    assert connection.commands() == ["ERROR"]


def test_without_a_limit_sessions_are_only_counted() -> None:
    sessions = SessionsOf(0)
    assert all(sessions.enter("a") for _ in range(1000))
