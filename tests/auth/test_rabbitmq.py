from __future__ import annotations

from typing import Any

import pytest

from stompbridge.auth.base import AuthRefused, Credentials, Identity
from stompbridge.auth.rabbitmq import RabbitmqAuthenticator
from stompbridge.config import Auth


class Checks:
    """What was asked, and the answer."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.refusal: AuthRefused | None = None

    async def __call__(self, login: str, passcode: str, virtual_host: str) -> None:
        self.asked.append((login, passcode, virtual_host))
        if self.refusal is not None:
            raise self.refusal


@pytest.fixture
def checks() -> Checks:
    return Checks()


@pytest.fixture
async def authenticator(checks: Checks) -> Any:
    auth = Auth(backend="rabbitmq", virtual_host="/home", virtual_hosts={"chat.example": "/chat"})
    made = RabbitmqAuthenticator(auth, checks)
    await made.start()
    made.reload()
    yield made
    await made.stop()


def credentials(
    login: str | None = "ann", passcode: str | None = "s", host: str | None = None, address: str = "192.0.2.1"
) -> Credentials:
    return Credentials(login, passcode, host, {}, {}, address)


@pytest.mark.parametrize(
    ("host", "virtual_host"), [(None, "/home"), ("chat.example", "/chat"), ("/", "/"), ("elsewhere", "elsewhere")]
)
async def test_where_a_client_goes(
    authenticator: RabbitmqAuthenticator, checks: Checks, host: str | None, virtual_host: str
) -> None:
    identity = await authenticator.authenticate(credentials(host=host))
    assert identity == Identity("ann", virtual_host=virtual_host, passcode="s")
    assert checks.asked == [("ann", "s", virtual_host)]
    assert "'s'" not in repr(identity)


async def test_it_counts_nothing(authenticator: RabbitmqAuthenticator) -> None:
    assert authenticator.counters() == {}


async def test_rabbitmq_refuses(authenticator: RabbitmqAuthenticator, checks: Checks) -> None:
    checks.refusal = AuthRefused("no", "why")
    with pytest.raises(AuthRefused) as refused:
        await authenticator.authenticate(credentials())
    assert refused.value is checks.refusal


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (credentials(login=None), "Missing login or passcode header(s)"),
        (credentials(passcode=None), "Missing login or passcode header(s)"),
        (credentials(login=""), "Access refused for user ''\n"),
        (credentials(passcode=""), "Access refused for user 'ann'\n"),
        (credentials(passcode="a\0b"), "Access refused for user 'ann'\n"),
        (credentials(login="ann\0s"), "Access refused for user 'ann\0s'\n"),
        (credentials(host="é" * 128), f"Virtual host '{'é' * 128}' access denied"),
        (credentials(login="guest"), "non-loopback access denied"),
        (credentials(login="guest", address="::ffff:192.0.2.1"), "non-loopback access denied"),
        (credentials(login="guest", address=""), "non-loopback access denied"),
    ],
)
async def test_what_rabbitmq_is_not_asked_about(
    authenticator: RabbitmqAuthenticator, checks: Checks, given: Credentials, text: str
) -> None:
    with pytest.raises(AuthRefused) as refused:
        await authenticator.authenticate(given)
    assert refused.value.text == text
    assert checks.asked == []


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"])
async def test_guest_comes_from_here(authenticator: RabbitmqAuthenticator, checks: Checks, address: str) -> None:
    await authenticator.authenticate(credentials(login="guest", address=address))
    assert len(checks.asked) == 1
