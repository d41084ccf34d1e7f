"""Side by side with RabbitMQ's own STOMP: one scenario, run against either, and what is to come of it.

A scenario is an ``async`` function of a :class:`Target`; it returns what it saw, as plain values. ``@row`` enters it
into the table, with its verdict: ``EQUAL`` (both saw the same), ``BETTER`` (each saw what is said of it, and the
difference is meant) or ``MISSING`` (RabbitMQ does what is said of it, and stompbridge does not do it); ``UNRUN`` rows
are those that this RabbitMQ cannot show. A module of rows ends with ``test_row = rows_test(__name__)``. The rows of a
run go side by side on one RabbitMQ and one bridge, so that every name in a scenario comes from :meth:`Target.name`.
"""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import contextlib
import difflib
import itertools
import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pprint import pformat
from typing import Any, Literal, cast
from urllib.parse import quote

import aiormq
import aiormq.abc
import pytest
from aiormq import spec
from websockets.exceptions import ConnectionClosed

from tests.support import configs
from tests.support.bridge import Bridge
from tests.support.ports import free_port
from tests.support.rabbitmq import RabbitMQ
from tests.support.stomp import PROTOCOLS, TIMEOUT, Client, Frame, open_client
from tests.support.tcp import open_tcp

Side = Literal["ours", "theirs"]
Shown = tuple[str, dict[str, str], str]
"""A frame without what is random in it: command, headers, body."""

AT_ONCE = 8
"""Rows that run at a time."""
ROW_TIMEOUT = 50.0

EXCHANGES = """
[[broker.exchange]]
name = "parity.topic"
type = "topic"

[[broker.exchange]]
name = "parity.fanout"
type = "fanout"

[[broker.exchange]]
name = "parity.direct"
type = "direct"

[[broker.exchange]]
name = "parity.headers"
type = "headers"
"""
"""Exchanges of the rows. To a fanout or headers exchange every row's messages come: look for your own."""

LOGIN = '[auth]\nbackend = "rabbitmq"\nfailures = 1000\nlink_linger = "1s"\n'

BRIDGES: dict[str, str] = {
    "open": "",
    "login": f'{LOGIN}default_login = "guest"\ndefault_passcode = "guest"',
    "proxied": f'{LOGIN}[listen]\ntrusted_proxies = ["127.0.0.0/8"]',
    "strict": f"{LOGIN}[limits]\nconnections_per_user = 1",
    "single": "[limits]\nconnections = 1",
    "small": '[limits]\ntransaction_bytes = 10000\nsend_buffer = "64KiB"\nconnect_timeout = "1s"\nping_interval = "1s"',
}
"""Configurations of the bridges that rows may ask for, by name; each is started for its first row."""


@dataclass(frozen=True)
class Verdict:
    """What is to come of a row. ``ours`` and ``theirs`` are what each side has to see; ``...`` leaves it open."""

    kind: Literal["equal", "better", "missing", "unrun"]
    why: str = ""
    ours: Any = ...
    theirs: Any = ...


EQUAL = Verdict("equal")


def equal(seen: Any) -> Verdict:
    """Both sides see this."""
    return Verdict("equal", ours=seen, theirs=seen)


def BETTER(why: str, *, ours: Any, theirs: Any) -> Verdict:
    """Another behaviour than RabbitMQ's on purpose."""
    return Verdict("better", why, ours, theirs)


def MISSING(why: str, *, ours: Any = ..., theirs: Any = ...) -> Verdict:
    """Another behaviour than RabbitMQ's without a purpose: a gap that is known."""
    return Verdict("missing", why, ours, theirs)


def UNRUN(why: str, *, ours: Any) -> Verdict:
    """What this RabbitMQ cannot be asked for: only stompbridge's side is run."""
    return Verdict("unrun", why, ours)


def error(message: str, body: str, **more: str) -> Shown:
    """An ERROR frame as it is shown; ``more`` are headers beside the usual ones, their ``_`` standing for ``-``."""
    headers = {"message": message, "content-type": "text/plain", "version": "1.0,1.1,1.2", "content-length": "RIGHT"}
    return "ERROR", headers | {name.replace("_", "-"): value for name, value in more.items()}, body


Scenario = Callable[["Target"], Awaitable[Any]]


@dataclass(frozen=True)
class Row:
    """One line of the table. ``over``: RabbitMQ's STOMP over TCP or its Web STOMP. ``alone``: it disturbs others and
    runs when they are done. ``bridge``: which of ``BRIDGES``."""

    section: int
    name: str
    verdict: Verdict
    scenario: Scenario
    module: str
    over: Literal["tcp", "web"] = "tcp"
    alone: bool = False
    bridge: str = "open"

    def __str__(self) -> str:
        return f"{self.section}: {self.name}"


ROWS: dict[str, Row] = {}
"""All rows of the modules imported so far."""


def row(
    section: int,
    name: str,
    verdict: Verdict = EQUAL,
    *,
    over: Literal["tcp", "web"] = "tcp",
    alone: bool = False,
    bridge: str = "open",
) -> Callable[[Scenario], Scenario]:
    """Enters a scenario into the table."""

    def enter(scenario: Scenario) -> Scenario:
        entry = Row(section, name, verdict, scenario, scenario.__module__, over, alone, bridge)
        if str(entry) in ROWS and ROWS[str(entry)].module != entry.module:
            raise ValueError(f"two rows are called {entry}")
        ROWS[str(entry)] = entry
        return scenario

    return enter


def rows_test(module: str) -> Callable[..., None]:
    """The test of a module's rows."""
    rows = [entry for entry in ROWS.values() if entry.module == module]

    @pytest.mark.rabbitmq
    @pytest.mark.timeout(300)  # rows that disturb others wait for all of them
    @pytest.mark.parametrize("row", rows, ids=str)
    def test_row(row: Row, parity: Parity) -> None:
        parity.check(row)

    return cast(Callable[..., None], test_row)


class Peer(Client):
    """A STOMP client that says what it saw in plain values."""

    target: Target

    async def fence(self) -> None:
        """Asks for a receipt that comes when all frames before are done; :meth:`seen` reads up to it. A broker's
        refusal of a SEND without receipt may come after it: wait for that with :meth:`ending`."""
        destination = f"/topic/{self.target.name('fence')}"
        await self.send_frame("SEND", {"destination": destination, "receipt": "fence"}, "fence")

    async def seen(self, within: float = TIMEOUT) -> list[Shown | str]:
        """What came until all frames before are done, with ``closed`` at its end if the connection was closed."""
        with contextlib.suppress(ConnectionClosed):
            await self.fence()
        shown: list[Shown | str] = []
        while True:
            frame = await self.next_or_none(within)
            if frame is None:
                return [*shown, "closed"]
            if frame.command == "RECEIPT" and frame.headers.get("receipt-id") == "fence":
                return shown
            shown.append(self.target.show(frame))

    async def tried(
        self, command: str, headers: Mapping[str, str] | None = None, body: bytes | str = b"", **more: str
    ) -> list[Shown | str]:
        """Sends a frame, and what comes of it."""
        await self.send_frame(command, headers, body, **more)
        return await self.seen()

    async def ending(self, within: float = TIMEOUT) -> list[Shown | str]:
        """What came until the connection was closed, with ``closed`` at its end. ``TimeoutError`` if it is not."""
        shown: list[Shown | str] = []
        while (frame := await self.next_or_none(within)) is not None:
            shown.append(self.target.show(frame))
        return [*shown, "closed"]

    async def show(self, within: float = TIMEOUT) -> Shown | str:
        """The next frame, or ``closed``."""
        frame = await self.next_or_none(within)
        return "closed" if frame is None else self.target.show(frame)

    async def shows(self, count: int, within: float = TIMEOUT) -> list[Shown | str]:
        """The next frames."""
        return [await self.show(within) for _ in range(count)]

    async def bodies(self, count: int) -> list[str]:
        """The bodies of the next MESSAGEs."""
        return [frame.text for frame in await self.messages(count)]

    async def next_or_none(self, within: float = TIMEOUT) -> Frame | None:
        """The next frame, ``None`` when the connection is closed."""
        try:
            return await self.receive(within)
        except ConnectionClosed:
            return None


_numbers = itertools.count(1)
_RANDOM = [
    (re.compile(r"@@(session-[\w-]{22}|[0-9a-f]{8})@@\d+"), "@@SESSION@@N"),
    (re.compile(r"session-[\w-]{22}"), "SESSION"),
    (re.compile(r"amq\.gen-[\w-]{22}"), "amq.gen-RANDOM"),
    (re.compile(r"stomp-subscription-(?:reply\.)?[\w-]{22}"), "stomp-subscription-RANDOM"),
    (re.compile(r"unknown delivery tag \d+"), "unknown delivery tag N"),
]
# The bridge stamps every message, and so does ``Target.publish``.
_STAMP = re.compile(r"SESSION:\d+$|m\d+$")


class Target:
    """One of the two sides, for one run of one row."""

    def __init__(self, site: Site, row: Row, side: Side, number: int) -> None:
        self.site = site
        self.row = row
        self.side = side
        self.token = f"p{number}{'a' if side == 'ours' else 'b'}"
        self._clients: list[Client] = []
        self._connection: aiormq.abc.AbstractConnection | None = None

    @property
    def ours(self) -> bool:
        return self.side == "ours"

    def name(self, name: str = "") -> str:
        """A name that no other row and not the other side has; what is shown has ``~name`` for it."""
        return f"{self.token}.{name}" if name else self.token

    def plain(self, text: str) -> str:
        """A text without what is random or the side's own."""
        text = text.replace(f"{self.token}.", "~").replace(self.token, "~")
        for pattern, instead in _RANDOM:
            text = pattern.sub(instead, text)
        return text

    def show(self, frame: Frame) -> Shown:
        """A frame without what is random or the side's own; ``amq.gen`` names, ids and lengths included."""
        headers = {self.plain(name): self.plain(value) for name, value in frame.headers.items()}
        if frame.command == "MESSAGE":
            # RabbitMQ passes on what was for the server. That is a row of its own.
            for name in ("receipt", "transaction"):
                headers.pop(name, None)
        if _STAMP.match(headers.get("amqp-message-id", "")):
            del headers["amqp-message-id"]
        if "server" in headers:
            headers["server"] = "SERVER"
        if "content-length" in headers and frame.body:
            headers["content-length"] = "RIGHT" if int(headers["content-length"]) == len(frame.body) else "WRONG"
        return frame.command, dict(sorted(headers.items())), self.plain(frame.body.decode(errors="backslashreplace"))

    async def open(self, subprotocols: Iterable[str] = PROTOCOLS, **options: Any) -> Peer:
        """A connection before CONNECT; ``options`` are those of a WebSocket."""
        if self.ours:
            url = self.site.bridge(self.row.bridge).url
        elif self.row.over == "web":
            url = self.site.rabbitmq.web_stomp_url
        else:
            url = ""
        if url:
            client = await open_client(url, subprotocols, **options)
        else:
            client = await open_tcp(self.site.rabbitmq.stomp_port)
        peer = Peer(client.ws)
        peer.target = self
        self._clients.append(peer)
        return peer

    async def connect(self, headers: Mapping[str, str] | None = None, version: str = "1.2") -> Peer:
        """A connected client, without login where ``headers`` has none."""
        peer = await self.open()
        await peer.connect({"accept-version": version, "heart-beat": "0,0"} if headers is None else headers)
        return peer

    async def channel(self, **options: Any) -> aiormq.abc.AbstractChannel:
        """A channel of an ordinary AMQP client of the same RabbitMQ."""
        if self._connection is None:
            self._connection = await aiormq.connect(self.site.rabbitmq.url)
        return await self._connection.channel(**options)

    async def declare(self, queue: str, **arguments: Any) -> None:
        """Declares a queue that is not durable; it may have any name."""
        body = {"durable": False, "auto_delete": False, "arguments": arguments}
        await self.api(f"queues/%2F/{quote(queue, safe='')}", "PUT", body)

    async def publish(self, exchange: str, key: str, body: bytes | str = b"x", **properties: Any) -> None:
        """Publishes as another AMQP program does, and returns when the broker has the message."""
        channel = await self.channel(publisher_confirms=True)
        await channel.basic_publish(
            body.encode() if isinstance(body, str) else body,
            exchange=exchange,
            routing_key=key,
            # Messages of other programs are told apart by their ids.
            properties=spec.Basic.Properties(**{"message_id": f"m{next(_numbers)}"} | properties),
        )
        await channel.close()

    async def api(self, path: str, method: str = "GET", body: Any = None) -> Any:
        """RabbitMQ's management API below ``/api/``; ``None`` where there is nothing of that name."""
        return await asyncio.to_thread(self.site.api, path, method, body)

    async def queue(self, name: str) -> dict[str, Any] | None:
        """What a queue was declared with, and how many messages it has; ``None`` where there is none."""
        queues = await self.api("queues/%2F?disable_stats=true&enable_queue_totals=true")
        return next((_described(queue) for queue in queues if queue["name"] == name), None)

    async def bound(self, exchange: str, key: str) -> list[str]:
        """The queues that are bound with this key."""
        bindings = await self.api(f"exchanges/%2F/{quote(exchange, safe='')}/bindings/source")
        return [binding["destination"] for binding in bindings if binding["routing_key"] == key]

    async def until(self, condition: Callable[[], Awaitable[Any]], within: float = TIMEOUT) -> Any:
        """Asks again and again until there is an answer other than a false one."""
        async with asyncio.timeout(within):
            while True:
                if answer := await condition():
                    return answer
                await asyncio.sleep(0.05)

    async def close(self) -> None:
        for client in self._clients:
            client.abort()
        if self._connection is not None:
            await self._connection.close()


def _described(queue: dict[str, Any]) -> dict[str, Any]:
    named = ("durable", "auto_delete", "exclusive", "arguments", "messages", "messages_unacknowledged")
    return {name: queue.get(name) for name in named}


@dataclass
class Site:
    """The servers of a run."""

    rabbitmq: RabbitMQ
    api_port: int
    bridges: dict[str, Bridge] = field(default_factory=dict)
    _starting: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def start(cls) -> Site:
        port = free_port()
        node = RabbitMQ(
            ("rabbitmq_stomp", "rabbitmq_web_stomp", "rabbitmq_management"),
            (
                f"management.tcp.port = {port}",
                "management.tcp.ip = 127.0.0.1",
                "management_agent.disable_metrics_collector = true",
            ),
        )
        node.start()
        return cls(node, port)

    def bridge(self, name: str) -> Bridge:
        """The bridge of this name, running."""
        with self._starting:
            found = self.bridges.get(name)
            if found is None:
                found = self.bridges[name] = Bridge(configs.rabbitmq(self.rabbitmq.url, EXCHANGES, BRIDGES[name]))
                found.start()
                found.wait_ready()
            return found

    def api(self, path: str, method: str = "GET", body: Any = None) -> Any:
        """See :meth:`Target.api`."""
        login = base64.b64encode(b"guest:guest").decode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.api_port}/api/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Basic {login}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                text = answer.read()
        except urllib.error.HTTPError as refused:
            with refused:
                if refused.code == 404:
                    return None
                raise AssertionError(f"{method} {path}: {refused.code} {refused.read()!r}") from None
        return json.loads(text) if text else None

    def stop(self) -> None:
        try:
            for bridge in self.bridges.values():
                assert bridge.stop() == 0, bridge.log[-4000:]
                bridge.assert_clean_log()
            self.rabbitmq.stop()
        finally:
            for bridge in self.bridges.values():
                bridge.remove()
            self.rabbitmq.remove()


class Parity:
    """Runs rows, several at a time, in a thread of its own; :meth:`check` waits for one and judges it."""

    def __init__(self, site: Site, rows: Iterable[Row]) -> None:
        self._site = site
        rows = list(rows)
        for name in sorted({entry.bridge for entry in rows}):
            site.bridge(name)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._results: dict[str, concurrent.futures.Future[dict[Side, Any]]] = {
            str(entry): concurrent.futures.Future() for entry in rows
        }
        self._running = asyncio.run_coroutine_threadsafe(self._run_all(rows), self._loop)

    def check(self, row: Row) -> None:
        """Waits for the row and asserts its verdict."""
        seen = self._results[str(row)].result()
        judge(row, seen["ours"], seen["theirs"])

    def close(self) -> None:
        self._running.cancel()
        with contextlib.suppress(concurrent.futures.CancelledError, Exception):
            self._running.result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _run_all(self, rows: list[Row]) -> None:
        room = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for entry in rows:
                if not entry.alone:
                    await room.acquire()
                    group.create_task(self._run(entry)).add_done_callback(lambda _: room.release())
        for entry in rows:
            if entry.alone:
                await self._run(entry)

    async def _run(self, entry: Row) -> None:
        result = self._results[str(entry)]
        number = next(_numbers)
        try:
            ours, theirs = await asyncio.gather(
                *(self._run_side(entry, side, number) for side in ("ours", "theirs")), return_exceptions=True
            )
            for side, seen in (("theirs", theirs), ("ours", ours)):
                if isinstance(seen, BaseException):
                    seen.add_note(f"in {entry}, {side}")
                    raise seen
            result.set_result({"ours": ours, "theirs": theirs})
        except BaseException as problem:
            result.set_exception(problem)
            if not isinstance(problem, Exception):
                raise

    async def _run_side(self, entry: Row, side: Side, number: int) -> Any:
        if side == "theirs" and entry.verdict.kind == "unrun":
            return None
        target = Target(self._site, entry, side, number)
        try:
            async with asyncio.timeout(ROW_TIMEOUT):
                return await entry.scenario(target)
        finally:
            await target.close()


def judge(row: Row, ours: Any, theirs: Any) -> None:
    """Fails the test unless a row's verdict holds for what both sides saw."""
    verdict = row.verdict
    if verdict.theirs is not ... and theirs != verdict.theirs:
        pytest.fail(f"{row}: RabbitMQ is another than the table says\n{_compared(verdict.theirs, theirs)}", False)
    if verdict.ours is not ... and ours != verdict.ours:
        pytest.fail(f"{row}: stompbridge is another than the table says\n{_compared(verdict.ours, ours)}", False)
    if verdict.kind == "equal" and ours != theirs:
        pytest.fail(f"{row}: - RabbitMQ, + stompbridge\n{_compared(theirs, ours)}", False)
    if verdict.kind != "equal" and ours == theirs:
        pytest.fail(f"{row}: no difference, so it is not {verdict.kind}: {ours}", False)
    if not ours and not theirs:
        pytest.fail(f"{row}: both saw nothing: the row says nothing", False)


def _compared(wanted: Any, got: Any) -> str:
    lines = [pformat(value, width=150, sort_dicts=False).splitlines() for value in (wanted, got)]
    return "\n".join(difflib.unified_diff(*lines, "wanted", "got", lineterm="", n=1))


def running(rows: Iterable[Row]) -> Iterator[Parity]:
    """The body of the fixture ``parity``."""
    site = Site.start()
    try:
        parity = Parity(site, rows)
        try:
            yield parity
        finally:
            parity.close()
    finally:
        site.stop()
