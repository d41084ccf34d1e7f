"""A client between a connection and a broker that do as the test says."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from stompbridge.brokers.base import Broker, Done, Failure, Message, QueueConsumer, QueueListener, QueueSpec
from stompbridge.brokers.memory import MemoryBroker
from stompbridge.composition import session_settings
from stompbridge.config import App, BrokerSettings, Exchange, Limits, Settings
from stompbridge.dedup.memory import MemoryStore
from stompbridge.dedup.store import Begun, Claimed, Identity, Opened, Outcome, Receiver, Refusal, StoreOptions
from stompbridge.gateway.client import Client
from stompbridge.gateway.closing import CloseReason
from stompbridge.gateway.frames import ws_frame
from stompbridge.gateway.gate import Idempotence
from stompbridge.gateway.shared import SessionsOf, Shared
from stompbridge.gateway.traffic import Traffic
from stompbridge.routing.application import Application
from stompbridge.routing.hub import Hub
from stompbridge.routing.once import Once
from stompbridge.routing.router import Router
from stompbridge.routing.users import EXCHANGE as USERS

CONNECT = b"CONNECT\naccept-version:1.2\n\n\0"


class Connection:
    """What a client does to its connection, in order."""

    def __init__(self) -> None:
        self.remote = "192.0.2.1:50000"
        self.address = "192.0.2.1"
        self.upgrade: dict[str, str] = {}
        self.compresses = False
        self.is_accepted = False
        self.last_read = 0.0
        self.last_write = 0.0
        self.check_at = 0.0
        self.busy = False
        self.max_message = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.unsent = 0
        self.ping = False
        self.reading_paused = False
        self.writing_paused = False
        self.pauses = 0
        self.sent: list[str] = []
        self.closed: tuple[CloseReason, str] | None = None
        self.reason: CloseReason | None = None

    def send(self, payload: bytes) -> None:
        assert self.closed is None
        self.bytes_out += len(payload)
        self.sent.append(payload.decode().replace("\0\n", ""))

    def write(self, frame: bytes) -> None:
        self.send(frame[4:] if frame[1] == 126 else frame[2:])

    def close(self, reason: CloseReason, text: str = "") -> None:
        if self.closed is None:
            self.closed = (reason, text)
            self.reason = reason

    def accepted(self) -> None:
        self.is_accepted = True

    def pause_reading(self) -> None:
        self.reading_paused = True
        self.pauses += 1

    def resume_reading(self) -> None:
        self.reading_paused = False

    def commands(self) -> list[str]:
        return [frame.split("\n", 1)[0] for frame in self.sent if frame != "\n"]

    def receipts(self) -> list[str]:
        return [frame.split("receipt-id:")[1].strip() for frame in self.sent if frame.startswith("RECEIPT")]

    def bodies(self) -> list[str]:
        return [frame.split("\n\n", 1)[1] for frame in self.sent if frame.startswith("MESSAGE")]


class SlowBroker(MemoryBroker):
    """The embedded broker, but it confirms and binds when the test says so."""

    def __init__(self) -> None:
        super().__init__(BrokerSettings(exchange=(Exchange(name="chat"), Exchange(name=USERS))))
        self.hold_confirms = False
        self.hold_binds = False
        self.stuck = False
        self.confirms: list[Done] = []
        self.binds: list[Done] = []
        self.clear: list[Callable[[], None]] = []
        self.listener: QueueListener | None = None

    @property
    def congested(self) -> bool:
        return self.stuck

    def when_clear(self, callback: Callable[[], None]) -> None:
        self.clear.append(callback)

    def publish(self, message: Message, done: Done) -> None:
        if self.hold_confirms:
            super().publish(message, lambda failure: None)
            self.confirms.append(done)
        else:
            super().publish(message, done)

    def bind(self, exchange: str, key: str, done: Done) -> None:
        if self.hold_binds:
            super().bind(exchange, key, lambda failure: None)
            self.binds.append(done)
        else:
            super().bind(exchange, key, done)

    def consume(
        self, spec: QueueSpec, prefetch: int, listener: QueueListener, done: Callable[[QueueConsumer | Failure], None]
    ) -> QueueConsumer:
        self.listener = listener
        return super().consume(spec, prefetch, listener, done)


class SlowReceiver:
    """A receiver whose store answers when the test says so."""

    def __init__(self, store: SlowStore, inner: Receiver) -> None:
        self.name = inner.name
        self.fence = inner.fence
        self._store = store
        self._inner = inner

    @property
    def held(self) -> bool:
        return self._inner.held

    def claim(self, identity: Identity, done: Claimed) -> None:
        if self._store.away:
            done(Refusal.UNAVAILABLE)
        else:
            self._inner.claim(identity, lambda answer: self._store.answer(partial(done, answer)))

    def close(self) -> None:
        self._inner.close()


class SlowStore(MemoryStore):
    """The store of one process, but it answers when the test says so, and can be away. ``now`` is its clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        options = StoreOptions(window=64, history_ttl=600.0, lock_ttl=10.0, idempotency_window=60.0)
        super().__init__(options, lambda: self.now)
        self.away = False
        self.late = False
        self.answers: list[Callable[[], None]] = []

    def answer(self, answer: Callable[[], None]) -> None:
        """Gives an answer, or keeps it."""
        if self.late:
            self.answers.append(answer)
        else:
            answer()

    def catch_up(self) -> None:
        """Gives the answers that were kept."""
        while self.answers:
            self.answers.pop(0)()

    def locks(self, name: str) -> int:
        """What a receiver holds unsettled."""
        return len(self._histories[name].locks)

    def holds_open(self, name: str) -> bool:
        """Whether a session of the receiver is open."""
        return self._histories[name].session.held

    def open(self, name: str, on_taken_over: Callable[[], None], done: Opened) -> None:
        def opened(receiver: Receiver | None) -> None:
            self.answer(partial(done, None if receiver is None else SlowReceiver(self, receiver)))

        if self.away:
            opened(None)
        else:
            super().open(name, on_taken_over, opened)

    def begin(self, key: str, digest: str, done: Begun) -> None:
        if self.away:
            done(Outcome.UNAVAILABLE)
        else:
            super().begin(key, digest, lambda answer: self.answer(partial(done, answer)))


class World:
    """A broker, and as many clients as a test wants."""

    def __init__(self, settings: Settings, in_flight_max: int = 256) -> None:
        self.broker = SlowBroker()
        broker: Broker = self.broker
        self.hub = Hub(broker, ws_frame, "boot", 1024, 60.0)
        self.store = SlowStore()
        hold = settings.dedup.on_store_failure == "hold"
        self.once = Once(self.store, hold)
        self.idempotence = Idempotence(self.store, settings.dedup.on_doubt == "drop", hold)
        self.router = Router(
            broker, self.hub, Application(App()), self.once, default_prefetch=100, window=1024, history_ttl=60.0
        )
        self.now = 0.0
        self.traffic = Traffic()
        self.shared = Shared(
            settings,
            session_settings(settings),
            self.router,
            "test",
            in_flight_max,
            lambda: self.now,
            0.5,
            self.idempotence,
            SessionsOf(settings.limits.connections_per_user),
            self.traffic,
        )

    def client(self, connect: bytes = CONNECT) -> tuple[Client, Connection]:
        connection = Connection()
        client = Client(connection, self.shared)  # type: ignore[arg-type]
        client.on_open(connection)  # type: ignore[arg-type]
        client.on_data(connect)
        assert connection.commands() == (["CONNECTED"] if connect else [])
        connection.sent.clear()
        return client, connection

    def queued(self, name: str) -> int:
        """How many messages of a queue wait for a consumer."""
        queue = self.broker._queues[name]
        return len(queue._fresh) + len(queue._returned)

    def on_mailbox_messages(self, exchange: str, messages: list[Message]) -> None:
        self.hub.on_mailbox_messages(exchange, messages)

    def on_broker_up(self) -> None: ...

    def on_broker_down(self, reason: str) -> None: ...


LIMITS = Limits(unacked=3, backlog=2, connect_timeout=5.0)


def frame(command: str, body: str = "", **headers: object) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}:{value}\n" for name, value in headers.items())
    return f"{command}\n{lines}\n{body}\0".encode()


def acks(connection: Connection) -> list[str]:
    return [line[4:] for sent in connection.sent for line in sent.split("\n") if line.startswith("ack:")]
