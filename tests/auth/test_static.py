from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher, Type
from argon2.exceptions import VerificationError

from stompbridge.auth import static
from stompbridge.auth.base import AuthRefused, AuthUnavailable, Identity
from stompbridge.auth.static import StaticUsers, read_users

Write = Callable[..., Path]

# The cheapest hash there is.
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1, type=Type.ID)
RIGHT = CHEAP.hash("right")
OTHER = CHEAP.hash("other")
USERS = f"""
[users.alice]
password = "{RIGHT}"
groups = ["staff", "admins"]

[users."Bob O'Neil"]
password = "{OTHER}"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "users.toml"
    file.touch(0o600)
    file.write_text(USERS)
    return file


def rewrite(path: Path, text: str, mode: int = 0o600) -> None:
    path.write_text(text)
    path.chmod(mode)


@pytest.fixture
async def users(path: Path) -> AsyncIterator[StaticUsers]:
    backend = StaticUsers(path)
    await backend.start()
    yield backend
    await backend.stop()


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hashes that were verified."""
    seen: list[str] = []
    verify = static.verify_secret

    def watched(known: bytes, passcode: bytes, kind: Type) -> bool:
        seen.append(known.decode())
        return verify(known, passcode, kind)

    monkeypatch.setattr(static, "verify_secret", watched)
    return seen


async def refusal(users: StaticUsers, credentials: Any) -> AuthRefused:
    with pytest.raises(AuthRefused) as info:
        await users.authenticate(credentials)
    return info.value


async def test_users_come_in(users: StaticUsers, ask: Any) -> None:
    assert await users.authenticate(ask("alice", "right")) == Identity("alice", frozenset({"staff", "admins"}))
    assert await users.authenticate(ask("Bob O'Neil", "other")) == Identity("Bob O'Neil")


async def test_others_do_not(users: StaticUsers, ask: Any) -> None:
    wrong = await refusal(users, ask("alice", "other"))
    unknown = await refusal(users, ask("mallory", "right"))
    assert wrong.text == "Access refused for user 'alice'\n"
    assert unknown.text == "Access refused for user 'mallory'\n"
    assert (wrong.cause, unknown.cause) == ("wrong password", "unknown user")
    assert (await refusal(users, ask("alice", ""))).cause == "wrong password"
    assert (await refusal(users, ask("", ""))).cause == "unknown user"


@pytest.mark.parametrize(("login", "passcode"), [(None, None), ("alice", None), (None, "right")])
async def test_both_headers_are_needed(
    users: StaticUsers, verified: list[str], login: str | None, passcode: str | None, ask: Any
) -> None:
    assert (await refusal(users, ask(login, passcode))).text == "Missing login or passcode header(s)"
    assert verified == []


async def test_an_unknown_user_costs_as_much(users: StaticUsers, verified: list[str], ask: Any) -> None:
    await refusal(users, ask("mallory", "x"))
    (dummy,) = verified
    assert dummy.split("$")[:4] == RIGHT.split("$")[:4]
    assert [len(part) for part in dummy.split("$")] == [len(part) for part in RIGHT.split("$")]
    assert dummy not in (RIGHT, OTHER)


def test_without_users_an_unknown_one_costs_what_a_new_hash_does() -> None:
    assert static._dummy({}).split("$")[:4] == static.hash_password("x").split("$")[:4]


async def test_a_right_password_is_hashed_once(users: StaticUsers, verified: list[str], ask: Any) -> None:
    for _ in range(3):
        await users.authenticate(ask("alice", "right"))
    assert verified == [RIGHT]
    for _ in range(2):
        await refusal(users, ask("alice", "wrong"))
    assert len(verified) == 3
    # What is right for one is not right for another.
    await refusal(users, ask("Bob O'Neil", "right"))
    assert (len(verified), users.hashed) == (4, 4)
    assert users.counters() == {"password_hashes": 4, "passwords_turned_away": 0}


async def test_a_storm_of_the_same_costs_one_hash(users: StaticUsers, verified: list[str], ask: Any) -> None:
    identities = await asyncio.gather(*(users.authenticate(ask("alice", "right")) for _ in range(300)))
    assert {identity.user for identity in identities} == {"alice"}
    assert verified == [RIGHT]


async def test_reload(users: StaticUsers, verified: list[str], path: Path, ask: Any) -> None:
    await users.authenticate(ask("alice", "right"))
    await users.authenticate(ask("Bob O'Neil", "other"))
    rewrite(path, f'[users.alice]\npassword = "{OTHER}"\n[users.carol]\npassword = "{RIGHT}"')
    users.reload()
    await refusal(users, ask("alice", "right"))
    await refusal(users, ask("Bob O'Neil", "other"))
    assert await users.authenticate(ask("alice", "other")) == Identity("alice")
    assert await users.authenticate(ask("carol", "right")) == Identity("carol")
    rewrite(path, "nonsense")
    with pytest.raises(ValueError, match="is not TOML"):
        users.reload()
    assert await users.authenticate(ask("carol", "right")) == Identity("carol")


@pytest.mark.parametrize(
    ("users_then", "cause"),
    [
        ("[users]", "unknown user"),
        (f'[users.alice]\npassword = "{OTHER}"', "wrong password"),
        (f'[users.alice]\npassword = "{RIGHT}"\ngroups = ["new"]', ""),
    ],
)
async def test_reload_during_a_verification(
    monkeypatch: pytest.MonkeyPatch, users: StaticUsers, path: Path, ask: Any, users_then: str, cause: str
) -> None:
    begun, end = threading.Event(), threading.Event()
    verify = static.verify_secret

    def slow(known: bytes, passcode: bytes, kind: Type) -> bool:
        begun.set()
        assert end.wait(5)
        return verify(known, passcode, kind)

    monkeypatch.setattr(static, "verify_secret", slow)
    task = asyncio.create_task(users.authenticate(ask("alice", "right")))
    assert await asyncio.to_thread(begun.wait, 5)
    rewrite(path, users_then)
    users.reload()
    end.set()
    if cause:
        with pytest.raises(AuthRefused, match=cause):
            await task
    else:
        assert (await task).groups == {"new"}


async def test_the_event_loop_is_free_while_passwords_are_verified_and_few_wait(
    monkeypatch: pytest.MonkeyPatch, users: StaticUsers, ask: Any
) -> None:
    end = threading.Event()
    running: list[str] = []

    def slow(_known: bytes, _passcode: bytes, _kind: Type) -> bool:
        running.append(threading.current_thread().name)
        assert end.wait(5)
        return True

    monkeypatch.setattr(static, "verify_secret", slow)
    tasks = [asyncio.create_task(users.authenticate(ask("alice", str(number)))) for number in range(110)]
    done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION, timeout=5)
    turned_away = [task for task in done if isinstance(task.exception(), AuthUnavailable)]
    assert (len(done), len(turned_away), users.turned_away) == (8, 8, 8)
    end.set()
    assert {identity.user for identity in await asyncio.gather(*waiting)} == {"alice"}
    assert len(running) == 102
    assert len(set(running)) <= 2


async def test_a_hash_that_cannot_be_had_is_no_refusal(
    monkeypatch: pytest.MonkeyPatch, users: StaticUsers, ask: Any
) -> None:
    def fail(*_arguments: object) -> bool:
        raise VerificationError("Memory allocation error")

    monkeypatch.setattr(static, "verify_secret", fail)
    with pytest.raises(AuthUnavailable, match="the password cannot be verified: Memory allocation error"):
        await users.authenticate(ask("alice", "right"))


async def test_stopping_before_the_start(path: Path) -> None:
    await StaticUsers(path).stop()


async def test_what_stops_does_not_wait(monkeypatch: pytest.MonkeyPatch, path: Path, ask: Any) -> None:
    users = StaticUsers(path)
    await users.start()
    begun, end = threading.Event(), threading.Event()

    def slow(*_arguments: object) -> bool:
        begun.set()
        return end.wait(5)

    monkeypatch.setattr(static, "verify_secret", slow)
    task = asyncio.create_task(users.authenticate(ask("alice", "right")))
    assert await asyncio.to_thread(begun.wait, 5)
    await asyncio.wait_for(users.stop(), 2)
    end.set()
    with pytest.raises(AuthUnavailable, match="stopping"):
        await task


async def test_a_bad_file_keeps_it_from_starting(path: Path) -> None:
    rewrite(path, USERS, 0o644)
    with pytest.raises(ValueError, match="can be read by everybody"):
        await StaticUsers(path).start()


HASH = 'must be a hash such as "stompbridge users hash" prints'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "holds no users; they are written as [users.NAME]"),
        ("users = 1", "holds no users; they are written as [users.NAME]"),
        ("[alice]\npassword = 'secret'", "alice: no such key; users are written as [users.NAME]"),
        ("[users]\nalice = 'secret'", "users.alice: must be a table with password and groups"),
        ('[users.""]\npassword = "x"', 'users."": the name must not be empty'),
        ("[users.alice]", f"users.alice.password: {HASH}"),
        ("[users.alice]\npassword = 'secret'", f"users.alice.password: {HASH}"),
        ("[users.'a\tb']\npassword = 'secret'", f'users."a\\tb".password: {HASH}'),
        ("[users.alice]\npassword = 1", f"users.alice.password: {HASH}"),
        ("[users.alice]\npasword = 'secret'", "users.alice.pasword: no such key; there are password and groups"),
        (
            f"[users.alice]\npassword = '{RIGHT}'\ngroups = 'staff'",
            'users.alice.groups: must be a list of names: ["...',
        ),
        (f"[users.alice]\npassword = '{RIGHT}'\ngroups = ['']", "users.alice.groups: must be a list of names"),
        (f"[users.alice]\npassword = '{RIGHT}'\ngroups = [1]", "users.alice.groups: must be a list of names"),
        ("[users.alice]\npassword = 'secret", "is not TOML: "),
        (f"[users.alice]\npassword = '{RIGHT.replace('argon2id', 'argon2i')}'", HASH),
        (f"[users.alice]\npassword = '{RIGHT.replace('v=19', 'v=16')}'", HASH),
        (f"[users.alice]\npassword = '{RIGHT.replace('m=8', 'm=7')}'", HASH),
        (f"[users.alice]\npassword = '{RIGHT.replace('m=8', 'm=2000000')}'", HASH),
        (f"[users.alice]\npassword = '{RIGHT.replace('p=1', 'p=2')}'", HASH),
        (f"[users.alice]\npassword = '{RIGHT[:-2]}'", HASH),
        ("[users.alice]\npassword = '$argon2id$v=19$m=8,t=1,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAB'", HASH),
        (f"[users.alice]\npassword = '{RIGHT[:-1]}_'", HASH),
    ],
)
def test_a_bad_file_is_named(path: Path, text: str, problem: str) -> None:
    path.write_text(text)
    with pytest.raises(ValueError, match=r"users\.toml") as info:
        read_users(path)
    assert str(info.value).startswith(f"{path}: ")
    assert problem in str(info.value)
    assert "secret" not in str(info.value)
    assert RIGHT[-20:-4] not in str(info.value)


def test_files_that_are_not_to_be_had(tmp_path: Path, path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.toml: cannot be read: No such file or directory"):
        read_users(tmp_path / "none.toml")
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"users\.toml: is not UTF-8 text"):
        read_users(path)
    path.chmod(0o644)
    with pytest.raises(ValueError, match=r"users\.toml: can be read by everybody on this machine: chmod o-rwx"):
        read_users(path)


def test_nothing_secret_in_a_repr(path: Path, ask: Any) -> None:
    assert RIGHT not in repr(read_users(path))
    assert "right" not in repr(ask("alice", "right"))


def test_a_new_hash_is_taken(path: Path) -> None:
    hashes = {static.hash_password("gruß") for _ in range(2)}
    assert len(hashes) == 2
    for text in hashes:
        path.write_text(f"[users.alice]\npassword = '{text}'")
        user = read_users(path)["alice"]
        assert static._matches(user.hash, "gruß")
        assert not static._matches(user.hash, "gruss")
