"""What the service manager hears, over a socket as systemd has it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator

import pytest

from stompbridge.lifecycle.notify import Notifier
from tests.lifecycle.manager import Notifications
from tests.support.bridge import Bridge
from tests.support.kinds import StartBridge
from tests.support.stomp import connect as open_connected


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest) -> Iterator[Notifications]:
    with Notifications(abstract=request.param == "abstract") as notifications:
        yield notifications


def test_ready_and_status(manager: Notifications) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.address})
    notifier.ready("serving")
    assert manager.receive() == ["READY=1", "STATUS=serving"]
    notifier.status("serving")
    notifier.status("two\nlines")
    notifier.stopping("going", 12.5)
    notifier.still_stopping("going on", 2)
    assert manager.pending() == [
        ["STATUS=two lines"],
        ["STOPPING=1", "STATUS=going", "EXTEND_TIMEOUT_USEC=12500000"],
        ["STATUS=going on", "EXTEND_TIMEOUT_USEC=2000000"],
    ]


def test_a_reload_has_its_time(manager: Notifications) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    Notifier({"NOTIFY_SOCKET": manager.address}).reloading()
    first, second = manager.receive()
    assert first == "RELOADING=1"
    name, _, value = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(value) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nowhere/at/all"}])
def test_without_a_manager_nothing_happens(environ: dict[str, str]) -> None:
    notifier = Notifier(environ)
    notifier.ready("serving")
    notifier.start_watchdog()
    notifier.stop_watchdog()


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
        ({}, 0.0),
    ],
)
def test_the_watchdog_gets_twice_as_many_signs_as_it_needs(environ: dict[str, str], interval: float) -> None:
    assert Notifier({"NOTIFY_SOCKET": "@x", **environ}).watchdog_interval == interval
    assert Notifier(environ).watchdog_interval == 0.0


async def test_signs_of_life_come_from_the_loop(manager: Notifications) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "20000"})
    notifier.start_watchdog()
    notifier.start_watchdog()
    assert manager.pending() == [["WATCHDOG=1"]]
    # The loop stands still.
    with pytest.raises(TimeoutError):
        manager.receive(0.05)
    await asyncio.sleep(0.05)
    assert manager.receive() == ["WATCHDOG=1"]
    notifier.stop_watchdog()
    manager.pending()
    await asyncio.sleep(0.03)
    assert manager.pending() == []


def is_readable_status(line: str) -> bool:
    return line.startswith("STATUS=") and "connections" in line


async def test_a_whole_life(start_bridge: StartBridge) -> None:
    """Start, signs of life, none while the process stands still, reload, a reload that fails, the end."""
    with Notifications() as manager:
        environ = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "400000"}
        bridge = await asyncio.to_thread(start_bridge, "", environ=environ)
        ready = manager.receive()
        assert ready[0] == "READY=1"
        assert is_readable_status(ready[1])
        for _ in range(3):
            manager.expect("WATCHDOG=1")
        os.kill(bridge.pid, signal.SIGSTOP)
        try:
            manager.pending()
            with pytest.raises(TimeoutError):
                manager.receive(0.8)
        finally:
            os.kill(bridge.pid, signal.SIGCONT)
        manager.expect("WATCHDOG=1")
        os.kill(bridge.pid, signal.SIGHUP)
        assert manager.expect("RELOADING=1")[1].startswith("MONOTONIC_USEC=")
        assert is_readable_status(manager.expect("READY=1")[1])
        bridge.reconfigure("[limits]\nframe = 1\n")
        os.kill(bridge.pid, signal.SIGHUP)
        manager.expect("RELOADING=1")
        assert "limits.frame" in manager.expect("READY=1")[1]
        client = await open_connected(bridge.url)
        bridge.wait_log("session_opened")
        stopping = asyncio.create_task(asyncio.to_thread(bridge.stop))
        assert await client.wait_closed() == 1012
        assert await stopping == 0
        stop = manager.expect("STOPPING=1")
        assert stop[1] == "STATUS=draining, 1 connections left"
        # shutdown_timeout, and what comes after it.
        assert int(stop[2].removeprefix("EXTEND_TIMEOUT_USEC=")) == 25_000_000
        assert not [lines for lines in manager.pending() if lines != ["WATCHDOG=1"]]


def test_a_start_that_fails_says_why(start_bridge: StartBridge) -> None:
    running = start_bridge()
    with Notifications() as manager:
        second = Bridge(environ={"STOMPBRIDGE_LISTEN__PORT": str(running.port), "NOTIFY_SOCKET": manager.address})
        try:
            second.spawn()
            assert second.wait_ended() == 1
        finally:
            second.remove()
        assert "cannot listen" in manager.receive()[0]
