"""``top`` and ``trace``, which go on."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from click.testing import Result

from stompbridge.cli import top
from stompbridge.cli.client import Remote
from stompbridge.cli.target import Target
from tests.cli.conftest import TOKEN, Ask, Fake, invoke
from tests.support.bridge import ROOT, Bridge
from tests.support.kinds import Connect

TIMEOUT = 30.0


Program = Callable[..., Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
async def program(operated: Bridge) -> AsyncIterator[Program]:
    """Starts a command in a process of its own."""
    started: list[asyncio.subprocess.Process] = []

    async def start(*arguments: str, **options: Any) -> asyncio.subprocess.Process:
        environ = os.environ | {
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "STOMPBRIDGE_ADMIN_URL": operated.admin_url,
            "STOMPBRIDGE_ADMIN__TOKEN": TOKEN,
        }
        command = [sys.executable, "-m", "stompbridge", *arguments]
        options = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE} | options
        process = await asyncio.create_subprocess_exec(*command, env=environ, **options)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def until(process: asyncio.subprocess.Process, text: str) -> str:
    """The first line with the text."""
    assert process.stdout is not None
    async with asyncio.timeout(TIMEOUT):
        while line := await process.stdout.readline():
            if text in line.decode():
                return line.decode()
    raise AssertionError(f"no {text!r}")


async def test_trace(program: Program, operated: Bridge, connect: Connect, name: str) -> None:
    process = await program("trace", "--destination", f"/topic/{name}.#", "--bodies")
    client = await connect(operated)
    await client.subscribe(f"/topic/{name}.#")

    async def send() -> None:
        # Until the trace has begun nothing is seen; when it has, nobody says.
        while True:
            await client.send(f"/topic/{name}.x", b"hi \x1b[2J", passcode="secret")
            await asyncio.sleep(0.05)

    sending = asyncio.create_task(send())
    try:
        seen = await until(process, "<-")
        body = await until(process, "    hi ")
        told = await until(process, "->")
    finally:
        sending.cancel()
    assert f" SEND /topic/{name}.x 7 B " in seen
    assert "passcode:[hidden]" in seen
    assert body == "    hi \\x1b[2J\n"
    assert f" MESSAGE /topic/{name}.x " in told
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(TIMEOUT):
        _, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"")


FRAMES = [
    {"at": 0.0, "direction": "in", "session": "s", "user": None, "command": "SEND", "headers": {"destination": "/a\n"}},
    {"dropped": 5},
    {"something": "else"},
]


def test_a_trace_that_ends(fake: Fake) -> None:
    fake.answers["/trace"] = 200, b"".join(json.dumps(frame).encode() + b"\n" for frame in FRAMES)
    result = invoke("trace", "--session", "s/1", "--admin", fake.url)
    first, second = result.stdout.splitlines()
    assert first.endswith(" <- s - SEND /a\\n")
    assert second == "... 5 frames left out"
    assert result.exit_code == 1
    assert "has ended the trace" in result.stderr
    assert fake.seen[-1][1] == "/trace?session=s%2F1&bodies=hidden"
    result = invoke("trace", "--json", "--admin", fake.url)
    assert [json.loads(line) for line in result.stdout.splitlines()] == FRAMES
    fake.answers["/trace"] = 200, b"nothing of ours\n"
    assert invoke("trace", "--admin", fake.url).exit_code == 3


def test_top_in_lines(ask: Ask) -> None:
    result = ask("top", "--interval", "0.1", "--count", "2")
    assert result.exit_code == 0, result.output
    head, *lines = result.stdout.splitlines()
    assert head.split()[:4] == ["TIME", "SESSIONS", "IN/s", "OUT/s"]
    assert [line.split()[-1] for line in lines] == ["yes", "yes"]


def test_top_in_json(ask: Ask, operated: Bridge) -> None:
    result = ask("top", "--interval", "0.1", "--count", "2", "--json")
    documents = [json.loads(line) for line in result.stdout.splitlines()]
    assert [document["status"]["pid"] for document in documents] == [operated.pid] * 2
    assert documents[0]["rates"]["messages_in"] == 0.0


async def test_top_on_a_terminal(program: Program, operated: Bridge, connect: Connect, name: str) -> None:
    client = await connect(operated)
    await client.subscribe(f"/topic/{name}")
    screen, terminal = pty.openpty()
    try:
        process = await program("top", "--interval", "0.1", stdout=terminal, stdin=terminal)
        os.close(terminal)
        shown = b""
        drawn = asyncio.Event()

        def read() -> None:
            nonlocal shown
            try:
                shown += os.read(screen, 65536)
            except OSError:
                loop.remove_reader(screen)  # so says the other end when it is closed
            if shown.count(b"\x1b[H") >= 3:
                drawn.set()

        loop = asyncio.get_running_loop()
        loop.add_reader(screen, read)
        async with asyncio.timeout(TIMEOUT):
            await drawn.wait()
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0
        loop.remove_reader(screen)
    finally:
        os.close(screen)
    text = shown.decode()
    assert "DESTINATION" in text
    assert "SESSION" in text
    assert operated.node in text
    assert text.startswith("\x1b[H")
    # Not more than a terminal without a size of its own has.
    assert max(part.count("\n") for part in text.split("\x1b[H")) <= 24


def test_top_goes_on_when_the_bridge_is_away(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.says("/status", {"pid": 1, "messages": {"in": 5}})
    slept = 0

    def sleep(_: float) -> None:
        nonlocal slept
        slept += 1
        if slept == 1:
            fake.close()

    monkeypatch.setattr(time, "sleep", sleep)
    result: Result = invoke("top", "--count", "2", "--admin", fake.url)
    assert result.exit_code == 0, result.output
    assert "no bridge answers" in result.stdout.splitlines()[-1]
    assert invoke("top", "--count", "1", "--json", "--admin", fake.url).exit_code == 3


def sample(at: float, pid: int, sent: int) -> top.Sample:
    session = {"id": "s", "user": "\x1b[2J", "messages_in": sent, "bytes_in": sent * 1000, "age": 100}
    return top.Sample(at, {"pid": pid, "messages": {"in": sent}}, [session], [{"destination": "/topic/\x9b"}])


def test_rates() -> None:
    assert top.rates(sample(12.0, 1, 30), sample(10.0, 1, 10))["messages_in"] == 10.0
    assert top.rates(sample(12.0, 2, 30), sample(10.0, 1, 10))["messages_in"] == 0.0
    assert top.rates(sample(12.0, 1, 30), None)["messages_in"] == 0.0


def test_the_screen() -> None:
    lines = top.screen(sample(12.0, 1, 30), sample(10.0, 1, 10), "gone")
    assert lines[0].endswith("NO ANSWER: gone")
    row = lines[-1].split()
    assert row[:2] == ["s", "\\x1b[2J"]
    assert "10" in row
    assert "/topic/\\x9b" in "\n".join(lines)


def test_sessions_may_be_hidden_from_top(fake: Fake) -> None:
    fake.says("/status", {"pid": 1})
    fake.says("/destinations", {"destinations": [{"destination": "/a"}]})
    fake.says("/sessions", {"error": "needs the admin token"}, 401)
    found = top._ask(Remote(Target(fake.url)), whole=True)
    assert (found.sessions, found.destinations) == ([], [{"destination": "/a"}])
