"""Heart-beats, timeouts, flow control."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

from tests.support.observing import closing, summaries, summary, without_cause
from tests.support.parity import BETTER, UNRUN, Peer, Target, equal, row, rows_test
from tests.support.stomp import encode

ARITHMETIC = {
    "0,0": "0,0",
    "500,500": "1000,1000",
    "1500,2999": "2000,1000",
    "0,5000": "5000,0",
    "5000,0": "0,5000",
    "1,1": "1000,1000",
    "999,1000": "1000,1000",
    "1001,1999": "1000,1000",
    "10000,20000": "20000,10000",
    "-1,-5000": "0,0",
    "+1000,+2000": "2000,1000",
    "003000,04000": "4000,3000",
    "123456789,987654321": "987654000,123456000",
}


async def _beating(target: Target, heart_beat: str) -> Peer:
    return await target.connect({"accept-version": "1.2", "heart-beat": heart_beat})


@row(11, "the arithmetic", equal(ARITHMETIC))
async def arithmetic(target: Target) -> Any:
    seen = {}
    for asked in ARITHMETIC:
        peer = await _beating(target, asked)
        assert peer.connected is not None
        seen[asked] = peer.connected.headers["heart-beat"]
        peer.abort()
    return seen


@row(11, "no heart-beat header", equal("0,0"))
async def absent(target: Target) -> Any:
    peer = await target.connect({"accept-version": "1.2"})
    assert peer.connected is not None
    return peer.connected.headers["heart-beat"]


GARBAGE = ["", "abc", "5", "1,2,3", "1.5,2", " 1000, 1000", "1000 ,1000", "1000;1000", ",", "1000,"]


@row(11, "anything but two numbers, and another try")
async def garbage(target: Target) -> Any:
    peer = await target.open()
    seen = []
    for heart_beat in GARBAGE:
        await peer.send_raw(encode("CONNECT", {"accept-version": "1.2", "heart-beat": heart_beat}, escaped=False))
        seen += without_cause(await peer.shows(1))
    await peer.connect()
    return [seen, await peer.seen()]


@row(
    11,
    "a number beyond all bounds",
    BETTER("an ERROR instead of a crash", theirs=["CONNECTED", "closed"], ours=["ERROR Processing error", "open"]),
)
async def beyond(target: Target) -> Any:
    peer = await target.open()
    headers = {"accept-version": "1.2", "heart-beat": "99999999999999999999,0"}
    await peer.send_raw(encode("CONNECT", headers, escaped=False))
    seen = [summary(await peer.show())]
    return [*seen, "open" if target.ours else summary(await peer.show())]


# The server's heart-beats


async def _pauses(peer: Peer, beats: int) -> list[float]:
    """Seconds between heart-beats while nothing else happens."""
    end = time.monotonic() + 12
    while len(peer.beats) < beats and time.monotonic() < end:
        try:
            await peer.receive(0.1)
        except TimeoutError:
            continue
    return [later - earlier for earlier, later in zip(peer.beats, peer.beats[1:], strict=False)]


def _server_beats(over: Any) -> None:
    where = "" if over == "tcp" else ", over WebSocket"

    @row(11, f"the server's heart-beats while idle{where}", equal([True, True]), over=over)
    async def scenario(target: Target) -> Any:
        """At least one in the time agreed, and not many more."""
        peer = await _beating(target, "0,1000")
        pauses = await _pauses(peer, 4)
        return [max(pauses) < 1.3, min(pauses) > 0.3]

    @row(11, f"no heart-beats unless agreed{where}", equal([0, 0]), over=over)
    async def silence(target: Target) -> Any:
        peers = [await _beating(target, "0,0"), await _beating(target, "1000,0")]
        beats = [asyncio.create_task(_keep_up(peers[1], 1.5))]
        for peer in peers:
            await peer.silent(1.5)
        await asyncio.gather(*beats)
        return [len(peer.beats) for peer in peers]

    @row(11, f"a client that goes silent{where}", _lost(over), over=over)
    async def lost(target: Target) -> Any:
        """After more than twice the time, and no later than after three times and a little."""
        peer = await _beating(target, "1000,0")
        start = time.monotonic()
        end = await closing(peer)
        return [end, 2.0 <= time.monotonic() - start < 4.0]

    @row(11, f"any bytes show that the client is there{where}", equal(["RECEIPT r"]), over=over)
    async def alive(target: Target) -> Any:
        peer = await _beating(target, "1000,0")
        await _keep_up(peer, 1.8)
        # The pieces of one frame count as well.
        for piece in (b"BEGIN\n", b"transaction:t\n", b"receipt:r\n\n", b"\0"):
            await peer.send_raw(piece)
            await asyncio.sleep(0.6)
        return summaries(await peer.shows(1))

    @row(11, f"a client without heart-beats may be silent{where}", equal(["RECEIPT r"]), over=over)
    async def idle(target: Target) -> Any:
        peer = await target.connect()
        await peer.silent(4)
        await peer.send_frame("BEGIN", {"transaction": "t", "receipt": "r"})
        return summaries(await peer.shows(1))


async def _keep_up(peer: Peer, seconds: float) -> None:
    """Heart-beats of the client."""
    for _ in range(round(seconds / 0.3)):
        await peer.send_raw(b"\n")
        await asyncio.sleep(0.3)


def _lost(over: str) -> Any:
    if over == "tcp":
        return BETTER("the close code says why", theirs=[(["closed"], 1006, ""), True], ours=[BEATS_LOST, True])
    return BETTER("the close code says why", theirs=[(["closed"], 1000, "STOMP died"), True], ours=[BEATS_LOST, True])


BEATS_LOST = (["closed"], 1008, "heart-beats stopped")
for _over in ("tcp", "web"):
    _server_beats(_over)


@row(
    11,
    "a client that only receives, beyond RabbitMQ's idle limit",
    UNRUN("Web STOMP closes it, after sixty seconds", ours=["open", "MESSAGE x"]),
    bridge="small",
)
async def receives_only(target: Target) -> Any:
    """The bridge pings it, here every second, and is answered by any WebSocket client itself."""
    peer = await target.connect()
    topic = f"/topic/{target.name('t')}"
    await peer.subscribe(topic, id="s")
    await peer.silent(4)
    await (await target.connect()).send(topic, "x")
    return ["open", summary(await peer.show())]


# Flow control


_one_at_a_time = asyncio.Lock()


async def _alarm(target: Target, on: bool) -> None:
    """A memory alarm of the whole node."""
    function = "set_alarm" if on else "clear_alarm"
    alarm = "{{resource_limit, memory, node()}, []}" if on else "{resource_limit, memory, node()}"
    await asyncio.to_thread(target.site.rabbitmq.evaluate, f"rabbit_alarm:{function}({alarm}).")


async def _during_alarm(target: Target) -> Any:
    """Receipts of what is sent during an alarm, and of the same after it."""
    peer = await target.connect()
    topic = f"/topic/{target.name('t')}"
    during: list[str] = []
    async with _one_at_a_time:
        await peer.send_and_wait(topic, "before")
        await _alarm(target, True)
        try:
            # RabbitMQ takes one more read from the socket, whatever it holds.
            for number in range(5):
                await peer.send(topic, str(number), receipt=str(number))
                with contextlib.suppress(TimeoutError):
                    while len(during) <= number:
                        during.append(summary(await peer.show(within=0.7)))
        finally:
            await _alarm(target, False)
    after = summaries(await peer.shows(5 - len(during)))
    return ["all" if len(during) == 5 else "some or none", during + after]


RECEIPTS = [f"RECEIPT {number}" for number in range(5)]


@row(11, "a memory alarm holds who sends", equal(["some or none", RECEIPTS]), alone=True)
async def alarm(target: Target) -> Any:
    return await _during_alarm(target)


@row(
    11,
    "a memory alarm holds who sends, over WebSocket",
    BETTER("alarms hold WebSocket clients, too", theirs=["all", RECEIPTS], ours=["some or none", RECEIPTS]),
    over="web",
    alone=True,
)
async def alarm_web(target: Target) -> Any:
    return await _during_alarm(target)


@row(
    11,
    "a client that does not read",
    UNRUN("Web STOMP queues for it without any bound", ours=["closed", 1006]),
    bridge="small",
)
async def slow(target: Target) -> Any:
    peer, sender = await target.connect(), await target.connect()
    topic = f"/topic/{target.name('t')}"
    await peer.subscribe(topic, id="s")
    peer.ws.transport.pause_reading()  # type: ignore[attr-defined]
    try:
        for _ in range(400):
            await sender.send_and_wait(topic, "x" * 65536)
    finally:
        peer.ws.transport.resume_reading()  # type: ignore[attr-defined]
    while (await peer.next_or_none()) is not None:
        pass
    return ["closed", peer.close_code]


test_row = rows_test(__name__)
