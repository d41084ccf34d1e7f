"""Access rules between real clients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from tests.support import configs
from tests.support.bridge import Bridge
from tests.support.kinds import Connect

RULES = """
[[acl]]
deny = ["subscribe"]
destinations = ["/topic/room.secret"]
users = ["*"]

[[acl]]
allow = ["subscribe", "send"]
destinations = ["/topic/room.#", "/topic/{user}.#", "/exchange/news.fanout/public", "/app/**"]
users = ["*"]

[[acl]]
allow = ["send", "temp-queue"]
destinations = ["/queue/rpc", "/temp-queue/*"]
users = ["*"]

[[acl]]
allow = ["subscribe", "send"]
destinations = ["/queue/rpc", "/queue/stomp-subscription-reply.*"]
groups = ["services"]
"""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    """A bridge with these rules, and users whose password is ``secret``."""
    file: Path = tmp_path_factory.mktemp("users") / "users.toml"
    password = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("secret")
    file.touch(0o600)
    file.write_text(
        f"[users.alice]\npassword = {password!r}\n"
        f"[users.'*']\npassword = {password!r}\n"
        f"[users.'alice.inner']\npassword = {password!r}\n"
        f"[users.service]\npassword = {password!r}\ngroups = ['services']\n"
    )
    process = Bridge(configs.memory(f'[auth]\nbackend = "static"\nusers_file = "{file}"', RULES))
    try:
        process.start()
        process.wait_ready()
        yield process
        assert process.stop() == 0
        process.assert_clean_log()
    finally:
        process.remove()


def login(user: str) -> dict[str, str]:
    return {"login": user, "passcode": "secret"}


@pytest.mark.parametrize(
    ("user", "destination", "headers"),
    [
        ("alice", "/topic/#", {}),
        ("alice", "/topic/room.*", {}),
        ("alice", "/exchange/amq.topic/room.#", {}),
        ("alice", "/topic/room.secret", {}),
        ("alice", "/topic/room.7", {"durable": "true"}),
        ("alice", "/topic/room.7", {"durable": "false", "persistent": "true"}),
        ("alice", "/topic/room.7", {"x-queue-name": "rpc"}),
        ("alice", "/topic/room.7", {"x-expires": "1000"}),
        ("alice", "/exchange/news.fanout/public", {}),
        ("alice", "/queue/rpc", {}),
        ("*", "/topic/*.inner", {}),
        ("*", "/topic/alice.x", {}),
        ("alice.inner", "/topic/alice.inner.#", {}),
    ],
)
async def test_what_is_not_allowed_ends_the_session(
    guarded: Bridge, connect: Connect, user: str, destination: str, headers: dict[str, str]
) -> None:
    other = await connect(guarded, login("alice"))
    client = await connect(guarded, login(user))
    await client.send_frame("SUBSCRIBE", {"destination": destination, "id": "0", "receipt": "r", **headers})
    error = await client.error("access_refused")
    assert error.text == f"ACCESS_REFUSED - access to destination '{destination}' refused for user '{user}'"
    assert error.headers["receipt-id"] == "r"
    await client.wait_closed()
    await other.alive()


async def test_what_is_allowed(guarded: Bridge, connect: Connect) -> None:
    alice = await connect(guarded, login("alice"))
    await alice.subscribe("/topic/alice.#")
    await alice.subscribe("/topic/room.7.#", id="s1")
    await alice.send("/topic/alice.inner", "mine")
    assert (await alice.message("mine")).headers["subscription"] == "s0"
    other = await connect(guarded, login("*"))
    # A literal key, although it looks like a pattern.
    await other.send_and_wait("/topic/*.x")
    await other.send_and_wait("/topic/room.7", "hello")
    await alice.message("hello")
    await other.send("/topic/alice.x")
    await other.error("access_refused")


async def test_a_question_and_its_answer(guarded: Bridge, connect: Connect) -> None:
    service = await connect(guarded, login("service"))
    await service.subscribe("/queue/rpc")
    alice = await connect(guarded, login("alice"))
    for question in ("one", "two"):
        await alice.send("/queue/rpc", question, **{"reply-to": "/temp-queue/answers"})
        asked = await service.message(question)
        await service.send(asked.headers["reply-to"], f"answer to {question}")
        await alice.message(f"answer to {question}")
    # Nobody else may write into the queue, or read it.
    intruder = await connect(guarded, login("*"))
    await intruder.send(asked.headers["reply-to"], "forged")
    await intruder.error("access_refused")
    await alice.alive()


async def test_a_transaction_is_no_way_around(guarded: Bridge, connect: Connect) -> None:
    alice = await connect(guarded, login("alice"))
    await alice.request("BEGIN", {"transaction": "t"})
    await alice.send("/queue/jobs", "work", transaction="t")
    await alice.send_frame("COMMIT", {"transaction": "t"})
    await alice.error("access_refused")
