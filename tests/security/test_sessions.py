"""Attackers with a session: what they send costs themselves something, and nobody else anything.

Each has a victim beside it, whose messages all have to arrive, once and untouched.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Iterator, Mapping
from urllib.parse import unquote

import jwt
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.gateway.harness import BINARY, frame_head
from tests.security.support import MIB, cpu, running
from tests.support import configs
from tests.support.bridge import Bridge
from tests.support.kinds import Connect
from tests.support.ports import wait_port
from tests.support.rabbitmq import RabbitMQ
from tests.support.stomp import Client, Frame, decode, encode, open_client


@pytest.fixture(scope="module")
def site() -> Iterator[Bridge]:
    """A bridge with the embedded broker for what is measured."""
    with running(Bridge(configs.memory())) as bridge:
        yield bridge


async def outcome(client: Client) -> Frame:
    """The first ERROR or RECEIPT."""
    while (frame := await client.receive()).command not in ("ERROR", "RECEIPT"):
        pass
    return frame


# Wildcards. RabbitMQ: GHSA-h964-v5mf-22cq, CVE-2026-67419, combinatorial work for consecutive wildcards.

HOSTILE = [
    "#.#.#.#",
    ".".join(["#"] * 126) + ".zz",
    ".".join(["#", "a"] * 62) + ".zz",
    ".".join(["#", "*"] * 62) + ".zz",
    ".".join(["*", "#"] * 62) + ".zz",
    ".".join(["#", "a", "*", "a"] * 31) + ".zz",
    ".".join(["#"] * 60 + ["a"] * 60) + ".zz",
]
LONG_KEY = ".".join(["a"] * 127)


@pytest.mark.parametrize("headers", [{}, {"durable": "true"}], ids=["mailbox", "queue"])
async def test_hostile_wildcards_cost_little(
    site: Bridge, connect: Connect, name: str, headers: dict[str, str]
) -> None:
    """A key of 127 words against patterns of as many wildcards: milliseconds, not more with each word."""
    attacker, victim = await connect(site), await connect(site)
    await victim.subscribe(f"/topic/{name}")
    before = cpu(site)
    for number, pattern in enumerate(HOSTILE * 7):
        destination = f"/topic/{pattern}" if number < len(HOSTILE) else f"/topic/{pattern[:-2]}{number}"
        frame = {"destination": destination, "id": f"{name}{number}"}
        await attacker.send_frame("SUBSCRIBE", frame | headers, prefetch_count="1000")
    await attacker.alive()
    slowest = 0.0
    for _ in range(20):
        await attacker.send(f"/topic/{LONG_KEY}")
        started = time.monotonic()
        await victim.send(f"/topic/{name}", "x")
        await victim.message("x")
        slowest = max(slowest, time.monotonic() - started)
    # Some 0.1 s a message on a busy machine; one that tries out combinations does not end.
    assert cpu(site) - before < 8
    assert slowest < 2
    for number in range(len(HOSTILE) * 7):
        await attacker.send_frame("UNSUBSCRIBE", {"id": f"{name}{number}"} | headers)
    await attacker.send_frame("DISCONNECT", receipt="end")
    while (await attacker.receive()).command != "RECEIPT":
        pass


# Headers. NATS: CVE class of its advisory 2026-22, protocol injection.

INJECTIONS = [
    "x\nadmin:true",
    "x\r\nadmin:true\r\n",
    "x\n\nbody",
    "x\n\nMESSAGE\nsubscription:s0\nmessage-id:1\ndestination:\n\nforged",
    "\\n\\nadmin\\ctrue",
    "x:admin:true",
    "\\",
    "\x1b]0;x\x07\x85\u2028admin:true",
]
SLOTS = [
    "own",
    "correlation-id",
    "content-type",
    "content-encoding",
    "type",
    "app-id",
    "amqp-message-id",
    "name",
    "key",
]


@pytest.mark.parametrize("spoken", ["1.0", "1.1", "1.2"])
async def test_headers_cannot_be_injected(bridge: Bridge, connect: Connect, name: str, spoken: str) -> None:
    """What a sender escapes is one value for receivers of any version, with escapes again, and no line of its own."""
    victims = [await connect(bridge, {"accept-version": version}) for version in ("1.0", "1.1", "1.2")]
    for victim in victims:
        await victim.subscribe(f"/topic/{name}.#")
    attacker = await connect(bridge, {"accept-version": spoken})
    for slot, text in itertools.product(SLOTS, INJECTIONS):
        destination, headers = f"/topic/{name}.x", {"number": "1"}
        if slot == "key":
            destination = f"/topic/{name}.{text}"
        elif slot == "name":
            headers[text] = "value"
        else:
            headers[slot] = text
        await attacker.send_and_wait(destination, "body", **headers)
        for victim in victims:
            data = await victim.ws.recv()
            raw = data.encode() if isinstance(data, str) else data
            assert raw.count(b"\0") == 1
            assert raw.count(b"\n\n") == 1, raw
            assert b"\r" not in raw
            lines = raw.partition(b"\n\n")[0].split(b"\n")[1:]
            assert all(line.count(b":") == 1 for line in lines)
            frame = decode(raw)
            assert frame.body == b"body"
            assert "admin" not in frame.headers
            if slot == "key":
                # A destination has an escape of its own, for what its words may not hold.
                assert unquote(frame.headers["destination"]) == destination
            elif slot == "name":
                assert frame.headers[text] == "value"
            else:
                assert frame.headers[slot] == text


async def test_answers_cannot_be_injected(bridge: Bridge, connect: Connect) -> None:
    """What a client says of itself comes back in RECEIPT and ERROR as one value."""
    client = await connect(bridge)
    for text in INJECTIONS:
        await client.request("BEGIN", {"transaction": text})
        await client.send_frame("ABORT", {"transaction": text, "receipt": text})
        assert (await client.receive()).headers["receipt-id"] == text
        for command, headers in (
            ("SEND", {"destination": text}),
            ("SUBSCRIBE", {"destination": f"/unknown/{text}", "id": text}),
            ("UNSUBSCRIBE", {"id": text}),
            ("COMMIT", {"transaction": text}),
        ):
            await client.send_frame(command, headers, receipt=text)
            frame = await outcome(client)
            assert frame.headers["receipt-id"] == text
            assert frame.pairs[-1][0] in ("receipt-id", "content-length")
            assert "admin" not in frame.headers


async def test_what_only_the_server_says(bridge: Bridge, connect: Connect, name: str) -> None:
    """A sender cannot speak for the server in front of a receiver."""
    attacker, victim = await connect(bridge), await connect(bridge)
    await victim.subscribe(f"/topic/{name}", ack="client-individual")
    forged = {
        "subscription": "other",
        "redelivered": "true",
        "ack": "forged",
        "session": "forged",
        "x-stompbridge-sender": victim.session,
        "x-stompbridge-seq": "0",
    }
    await attacker.send_and_wait(f"/topic/{name}", "x", **forged)
    frame = await victim.message("x", subscription="s0", redelivered="false", destination=f"/topic/{name}")
    assert frame.headers["message-id"] == frame.headers["ack"] != "forged"
    assert len({header for header, _ in frame.pairs}) == len(frame.pairs)
    assert not any(header.startswith("x-stompbridge") for header in frame.headers)
    await attacker.send_frame("SEND", [("destination", f"/topic/{name}"), ("message-id", "forged")], "x")  # type: ignore[arg-type]
    assert "message-id" in (await attacker.error()).text


async def test_nobody_takes_another_ones_numbers(bridge: Bridge, connect: Connect, name: str) -> None:
    """Forged identities of messages do not make a victim's messages duplicates of an attacker's."""
    attacker, sender, receiver = [await connect(bridge) for _ in range(3)]
    await receiver.subscribe(f"/topic/{name}")
    await receiver.subscribe(f"/queue/{name}", id="q")
    for number in range(5):
        forged = {
            "x-stompbridge-sender": sender.session,
            "x-stompbridge-seq": str(number),
            "amqp-message-id": f"{sender.session}:{number}",
        }
        for destination in (f"/topic/{name}", f"/queue/{name}"):
            await attacker.send_and_wait(destination, f"forged {number}", **forged)
    for number in range(5):
        for destination in (f"/topic/{name}", f"/queue/{name}"):
            await sender.send_and_wait(destination, f"true {number}")
    bodies = sorted([frame.text for frame in await receiver.messages(20)])
    assert bodies == sorted(f"{kind} {number}" for kind in ("forged", "true") for number in range(5) for _ in range(2))


# Names. amqp091-go: GHSA-j497-x9hr-x34x, long names cut to another one's; GHSA-c5pq-fr2g-9jpf, frame injection.

SHORT_STRINGS = [
    "correlation-id",
    "content-type",
    "content-encoding",
    "type",
    "app-id",
    "amqp-message-id",
    "reply-to",
]


@pytest.mark.parametrize("letter", ["x", "é", "\N{GRINNING FACE}"])
async def test_names_of_255_bytes(bridge: Bridge, connect: Connect, name: str, letter: str) -> None:
    """255 bytes go through whole; 256 are refused, not cut, so that they do not reach who has the shorter name."""
    width = len(letter.encode())
    longest = f"{name:.<{255 - (255 - len(name)) // width * width}}" + letter * ((255 - len(name)) // width)
    assert len(longest.encode()) == 255
    victim, attacker = await connect(bridge), await connect(bridge)
    for number, kind in enumerate(("/queue/", "/topic/", "/exchange/chat.exchange/")):
        await victim.subscribe(kind + longest, id=f"s{number}")
        await attacker.send_and_wait(kind + longest, kind)
        assert unquote((await victim.message(kind)).headers["destination"]) == kind + longest
        for command in ("SEND", "SUBSCRIBE"):
            await attacker.send_frame(command, {"destination": f"{kind}{longest}+", "id": "long"})
            await attacker.error("Processing error", "255 bytes")
    for header in SHORT_STRINGS:
        await attacker.send_and_wait(f"/topic/{longest}", "x", **{header: longest})
        frame = await victim.message("x")
        assert frame.headers[header] in (longest, f"/reply-queue/{longest}")
        await attacker.send(f"/topic/{longest}", "x", **{header: f"{longest}+"})
        await attacker.error("Processing error", "255 bytes")
    await attacker.send_and_wait(f"/topic/{longest}", "x", **{f"{longest}": "own"})
    assert (await victim.message("x")).headers[longest] == "own"
    await attacker.send(f"/topic/{longest}", "x", **{f"{longest}+": "own"})
    await attacker.error("Processing error", "255 bytes")
    for header in ("id", "transaction", "receipt"):
        # No names of the broker's: as long as a header may be.
        await attacker.request("BEGIN", {"transaction": "t"} | {header: longest * 50})
    await attacker.subscribe(f"/topic/{name}", id=longest * 50)
    await attacker.send_frame("SUBSCRIBE", {"destination": f"/topic/{name}", "id": "q", "x-queue-name": f"{longest}+"})
    await attacker.error("Processing error", "255 bytes")
    await victim.alive()
    assert not victim.pending


async def test_a_client_id_of_256_bytes(bridge: Bridge, connect: Connect, name: str) -> None:
    victim = await connect(bridge, {"accept-version": "1.2", "client-id": name.ljust(255, "x")})
    attacker = await connect(bridge, connected=False)
    await attacker.send_raw(encode("CONNECT", {"accept-version": "1.2", "client-id": name.ljust(256, "x")}))
    assert "255" in (await attacker.error()).text
    await victim.alive()


# Headers by number and size.


async def test_a_hundred_headers(bridge: Bridge, connect: Connect, name: str) -> None:
    victim, attacker = await connect(bridge), await connect(bridge)
    await victim.subscribe(f"/topic/{name}")
    for size in (1, 600):
        # With the destination and the content-length that the client adds.
        many = {f"h{number}": "é" * (size // 2) + "x" for number in range(98)}
        await attacker.send_frame("SEND", {"destination": f"/topic/{name}"} | many, "hundred")
        frame = await victim.message("hundred")
        assert {header: frame.headers[header] for header in many} == many
    for more in (1, 5_000):
        pairs = [("destination", f"/topic/{name}"), *((f"h{number}", "") for number in range(99 + more))]
        await attacker.send_raw(encode("SEND", pairs, "more"))
        await attacker.error("Limit exceeded", "100 header")
        await attacker.wait_closed()
        attacker = await connect(bridge)
    await attacker.send_frame("SEND", {"destination": f"/topic/{name}", "h": "x" * 65_000}, "long")
    assert len((await victim.message("long")).headers["h"]) == 65_000
    for header in ({"h": "x" * 65_536}, {"x" * 65_536: "h"}, {f"h{number}": "x" * 700 for number in range(98)}):
        attacker = await connect(bridge)
        await attacker.send_frame("SEND", {"destination": f"/topic/{name}"} | header, "longer")
        await attacker.error("Limit exceeded", "65536 bytes")
        await attacker.wait_closed()
    await victim.alive()
    assert not victim.pending


# Transactions.


async def test_sixteen_transactions(bridge: Bridge, connect: Connect, name: str) -> None:
    victim, attacker = await connect(bridge), await connect(bridge)
    await victim.subscribe(f"/topic/{name}")
    for number in range(16):
        await attacker.request("BEGIN", {"transaction": str(number)})
        await attacker.send(f"/topic/{name}", str(number), transaction=str(number))
    for _ in range(3):
        await attacker.send_frame("BEGIN", {"transaction": "16"})
        await attacker.error("Transaction limit exceeded", "16 transactions")
    await attacker.request("ABORT", {"transaction": "0"})
    await attacker.request("BEGIN", {"transaction": "16"})
    await attacker.request("COMMIT", {"transaction": "15"})
    await victim.message("15")
    attacker.abort()
    await victim.alive()
    assert not victim.pending


@pytest.mark.parametrize("what", ["transactions", "half a frame", "half a message", "unacknowledged"])
async def test_what_a_session_holds_is_bounded_and_goes_with_it(
    site: Bridge, connect: Connect, name: str, what: str
) -> None:
    """NATS: its advisories 2026-11 and 2026-25, memory without bound. At once, not when garbage is collected."""
    victim = await connect(site)
    await victim.subscribe(f"/topic/{name}")
    before = site.memory()
    for _ in range(12):
        attacker = await connect(site)
        if what == "transactions":
            for number in range(16):
                await attacker.send_frame("BEGIN", {"transaction": str(number)})
            for number in range(20):
                await attacker.send(f"/topic/{name}", b"x" * MIB, transaction=str(number % 16))
            await attacker.error("Transaction too large")
        elif what == "half a frame":
            await attacker.send_raw(encode("SEND", {"destination": f"/topic/{name}"}, b"x" * 3 * MIB)[:-1])
        elif what == "half a message":
            await attacker.write_bytes(frame_head(BINARY, 4 * MIB) + b"x" * (4 * MIB - 1))
        else:
            await attacker.subscribe("/topic/hoard", ack="client", prefetch_count="100")
            for _ in range(12):
                await attacker.send("/topic/hoard", b"x" * MIB)
            await attacker.messages(12)
        assert site.memory() - before < 32 * MIB
        attacker.abort()
        await asyncio.to_thread(site.wait_log, "session_closed", session=attacker.session)
    assert site.memory() - before < 12 * MIB
    await victim.alive()
    assert not victim.pending


# The log. OWASP's logging cheat sheet, CWE-117.

CONTROLS = "\x1b[2J\x1b]0;owned\x07\x08\x9b31m\x7f\x85\u2028\u2029\u202e\ufeff"
SECRET = "0123456789abcdef" * 4
FORGERY = 'x\n2026-01-01T00:00:00Z info session_opened user=admin\r\n{"event": "session_opened", "user": "admin"}\n'


@pytest.mark.parametrize("format", ["json", "console"])
async def test_nothing_reaches_the_log_unescaped(format: str, connect: Connect) -> None:
    hostile = CONTROLS + FORGERY
    auth = '[auth]\nbackend = "jwt"\n[auth.jwt]\nkey_file = "key"\nalgorithms = ["HS256"]\naudience = "a"\nissuer = "i"'
    bridge = Bridge(
        configs.memory('[log]\nlevel = "debug"', '[listen]\ntrusted_proxies = ["127.0.0.1"]', auth),
        environ={"STOMPBRIDGE_LOG__FORMAT": format},
    )
    key = bridge.folder / "key"
    key.touch(0o600)
    key.write_text(SECRET)
    try:
        bridge.spawn()
        await asyncio.to_thread(wait_port, bridge.port)
        client = await connect(bridge, connected=False)
        for headers in (
            {"login": hostile, "host": hostile},
            {"login": "admin", "passcode": f"a.{hostile}.b", "client-id": hostile},
            {"accept-version": hostile},
            {hostile: hostile},
        ):
            await client.send_raw(encode("CONNECT", {"accept-version": "1.2"} | headers))
            await client.error()
        await client.send_raw(encode(hostile, {}))
        await client.error()
        # A name that is vouched for is no better.
        claims = {"sub": hostile, "aud": "a", "iss": "i", "exp": time.time() + 60}
        connected = await client.connect({"accept-version": "1.2", "token": jwt.encode(claims, SECRET)})
        assert "user-name" not in connected.headers
        await client.disconnect()
        line = hostile.replace("\r", "").replace("\n", " ").encode().decode("latin-1")
        high = "owned\x9b31m\x85\u2028\u202e\ufeff".encode().decode("latin-1")
        for path, upgrade in (
            (f"/{line}", {}),
            (f"/{high}", {}),
            ("/ws", {"Origin": high}),
            ("/ws", {"Sec-WebSocket-Key": high}),
            ("/ws", {"Upgrade": high}),
            ("/ws", {"X-Forwarded-For": high}),
            ("/ws", {"Origin": line}),
            ("/ws", {"X-Forwarded-For": line}),
            ("/ws", {"X-Forwarded-For": "fe80::1%\x1b[31m"}),
            ("/ws", {"Sec-WebSocket-Key": line}),
            ("/ws", {"Cookie": line, "User-Agent": line, "Authorization": line}),
        ):
            await raw_request(bridge, path, upgrade)
        with pytest.raises(InvalidStatus):
            await open_client(bridge.url.replace("/ws", "/%1b%0a"))
        assert await asyncio.to_thread(bridge.get, "/%1b%5b2J") is not None
        assert bridge.stop() == 0
        lines = bridge.log.split("\n")
        assert len(lines) > 8
        for line in lines:
            assert line.isprintable(), repr(line)
            if format == "json":
                assert json.loads(line)["timestamp"]
                assert line.isascii()
            else:
                assert line[:2] == "20"
                assert line[10] == "T"
        assert sum("owned" in line for line in lines) >= 4
        events = [json.loads(line)["event"] if format == "json" else line.split()[2] for line in lines]
        assert events.count("session_opened") == 1
    finally:
        bridge.remove()


async def raw_request(bridge: Bridge, path: str, headers: Mapping[str, str]) -> None:
    """A handshake that no client library would send, to its end."""
    fields = {
        "Host": "x",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    } | dict(headers)
    lines = [f"GET {path} HTTP/1.1", *(f"{header}: {value}" for header, value in fields.items()), "", ""]
    reader, writer = await asyncio.open_connection("127.0.0.1", bridge.port)
    writer.write("\r\n".join(lines).encode("latin-1"))
    async with asyncio.timeout(5):
        answer = await reader.readuntil(b"\r\n\r\n")
    assert all(char >= " " or char in "\r\n\t" for char in answer.decode("latin-1"))
    writer.transport.abort()


# Channels. An error in AMQP closes the channel for all who share it.

BUSY = 100


class Busy:
    """Clients in a ring: each sends to the next, over a topic and over a queue, and waits for the receipts."""

    def __init__(self, clients: list[Client], name: str) -> None:
        self.clients = clients
        self.name = name
        self.rounds = [0] * len(clients)
        self.stop = asyncio.Event()

    async def subscribe(self) -> None:
        for number, client in enumerate(self.clients):
            await client.subscribe(f"/topic/{self.name}.{number}", id="t")
            await client.subscribe(f"/queue/{self.name}.{number}", id="q", ack="client-individual")

    async def run(self) -> None:
        await asyncio.gather(*(self._talk(number) for number in range(len(self.clients))))

    async def _talk(self, number: int) -> None:
        client, to = self.clients[number], (number + 1) % len(self.clients)
        while not self.stop.is_set() or self.rounds[number] < 10:
            text = str(self.rounds[number])
            await client.send_and_wait(f"/topic/{self.name}.{to}", text)
            await client.send_and_wait(f"/queue/{self.name}.{to}", text)
            self.rounds[number] += 1

    async def check(self) -> int:
        """All that was sent has arrived, once, in order, not delivered again. Returns how many messages that is."""
        total = 0
        for number, client in enumerate(self.clients):
            sent = self.rounds[number - 1]
            got: dict[str, list[str]] = {"t": [], "q": []}
            for frame in await client.messages(2 * sent):
                got[frame.headers["subscription"]].append(frame.text)
                assert frame.headers["redelivered"] == "false"
                if "ack" in frame.headers:
                    await client.send_frame("ACK", {"id": frame.ack})
            assert got["t"] == got["q"] == [str(text) for text in range(sent)]
            await client.alive()
            assert not client.pending
            total += 2 * sent
        return total


@pytest.mark.rabbitmq
async def test_channel_errors_beside_a_hundred_busy_clients(rabbitmq: RabbitMQ, connect: Connect, name: str) -> None:
    """Mistakes over which RabbitMQ closes channels, again and again, while others talk."""
    with running(Bridge(configs.rabbitmq(rabbitmq.url))) as bridge:
        bridge.wait_ready()
        busy = Busy([await connect(bridge) for _ in range(BUSY)], name)
        await busy.subscribe()
        owner = await connect(bridge)
        await owner.subscribe(f"/queue/{name}.plain", id="0")
        await owner.subscribe(f"/queue/{name}.quorum", id="1", x_queue_type="quorum")
        queue = {"destination": f"/queue/{name}.new", "id": "s"}
        mistakes: list[tuple[str, dict[str, str]]] = [
            ("SEND", {"destination": f"/exchange/{name}/k"}),
            ("SUBSCRIBE", {"destination": f"/exchange/{name}/k", "id": "s"}),
            ("SUBSCRIBE", {"destination": f"/exchange/{name}/k", "id": "s", "durable": "true"}),
            ("SUBSCRIBE", {"destination": f"/amq/queue/{name}", "id": "s"}),
            ("SEND", {"destination": f"/topic/{name}.0", "user-id": "somebody"}),
            ("SEND", {"destination": f"/queue/{name}.0", "user-id": "somebody"}),
            ("SUBSCRIBE", {"destination": f"/queue/{name}.plain", "id": "s", "x-message-ttl": "1"}),
            ("SUBSCRIBE", {"destination": f"/queue/{name}.plain", "id": "s", "durable": "false"}),
            ("SUBSCRIBE", {"destination": f"/queue/{name}.quorum", "id": "s"}),
            ("SEND", {"destination": f"/queue/{name}.plain", "x-message-ttl": "1"}),
            ("SUBSCRIBE", queue | {"x-message-ttl": "-1"}),
            ("SUBSCRIBE", queue | {"x-max-priority": "256"}),
            ("SUBSCRIBE", queue | {"x-queue-type": "nonsense"}),
            ("SUBSCRIBE", queue | {"x-queue-type": "quorum", "durable": "false"}),
            ("SUBSCRIBE", queue | {"x-expires": "0"}),
            ("SUBSCRIBE", {"destination": "/queue/amq.mine", "id": "s"}),
            ("SUBSCRIBE", {"destination": f"/topic/{name}", "id": "s", "x-queue-name": "amq.mine"}),
        ]
        outcomes: list[tuple[str, str]] = []

        async def attack(command: str, headers: dict[str, str]) -> None:
            for _ in range(3):
                client = await connect(bridge)
                # In the middle of other frames of its own.
                await client.send(f"/topic/{name}", "before")
                await client.send_frame(command, headers | {"receipt": "r"}, "mistake" if command == "SEND" else "")
                frame = await outcome(client)
                outcomes.append((frame.command, frame.message))
                client.abort()

        async def attacks() -> None:
            try:
                await asyncio.gather(*(attack(*mistake) for mistake in mistakes))
            finally:
                busy.stop.set()

        async with asyncio.timeout(40):
            await asyncio.gather(busy.run(), attacks())
            total = await busy.check()
        assert len(outcomes) == 3 * len(mistakes)
        assert {command for command, _ in outcomes} == {"ERROR"}, outcomes
        assert total >= 2 * 10 * BUSY
        await owner.alive()
        assert len(bridge.events("broker_up")) == 1
        assert not bridge.events("broker_down")
        await asyncio.gather(*(client.close() for client in (*busy.clients, owner)))


async def test_nothing_but_a_whole_frame_counts(site: Bridge, connect: Connect, name: str) -> None:
    """A session that ends in the middle of a frame leaves nothing of it behind."""
    victim = await connect(site)
    await victim.subscribe(f"/topic/{name}")
    for cut in (10, 40, 55):
        attacker = await connect(site)
        await attacker.ws.send(encode("SEND", {"destination": f"/topic/{name}"}, "x" * 50)[:cut])
        await attacker.close()
        with pytest.raises(ConnectionClosed):
            await attacker.receive()
    await victim.alive()
    assert not victim.pending
