"""A process as the admin listener sees it: real clients, hub and broker, with sockets that the test holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from stompbridge.admin.health import BrokerProbe, Check, Health
from stompbridge.admin.lag import LoopLag
from stompbridge.admin.recent import Recent
from stompbridge.admin.routes import Site
from stompbridge.admin.server import Answer, Refusal, Request, Stream
from stompbridge.auth.base import Authenticator
from stompbridge.config import Admin, BrokerHealth, Settings
from stompbridge.gateway.client import Client
from stompbridge.gateway.closing import CloseReason
from stompbridge.histogram import Latency
from stompbridge.upstream import Upstreams
from tests.gateway import world
from tests.gateway.world import CONNECT, World

TOKEN = "0123456789abcdef"
ADMIN = Admin(token=TOKEN)


class Connection(world.Connection):
    """What the real one shows to operators, too."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes_in = 0
        self.unsent = 0
        self.subprotocol: str | None = "v12.stomp"
        self.shown: Callable[[bytes], None] | None = None

    def tap(self, tap: Callable[[bytes], None] | None) -> None:
        self.shown = tap

    def send(self, payload: bytes) -> None:
        self.write(world.ws_frame(payload, False))

    def write(self, frame: bytes) -> None:
        self.bytes_out += len(frame)
        payload = frame[4:] if frame[1] == 126 else frame[2:]
        self.sent.append(payload.decode(errors="replace").replace("\0\n", ""))
        if self.shown is not None:
            self.shown(frame)


class Gateway:
    """The sockets."""

    def __init__(self) -> None:
        self.clients: list[Client] = []
        self.closed = dict.fromkeys(CloseReason, 0)
        self.ended_bytes_in = 1000
        self.ended_bytes_out = 2000

    @property
    def connections(self) -> list[Any]:
        return [client.connection for client in self.clients]

    @property
    def connections_open(self) -> int:
        return len(self.clients)

    def listeners(self) -> list[Client]:
        return [client for client in self.clients if client.connection.reason is None]


class Process:
    """``connect`` adds a client, ``get`` and ``post`` ask what a test wants to know."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings(admin=ADMIN, node="n1")
        self.world = World(self.settings)
        self.started_at = time.time() - 100
        self.draining = False
        self.broker = self.world.broker
        self.router = self.world.router
        self.store = self.world.store
        self.once = self.world.once
        self.idempotence = self.world.idempotence
        self.shared = self.world.shared
        self.traffic = self.world.traffic
        self.gateway = Gateway()
        self.latency = Latency()
        self.lag = LoopLag(0.5)
        self.recent = Recent()
        self.shared.on_closed = self.recent.add
        self.upstreams: Upstreams | None = None
        self.authenticator: Authenticator | None = None
        self.probe = BrokerProbe(BrokerHealth(exchange=""), self.broker, self.world.hub, "probe")
        self.health = Health(self.broker, self.probe, lambda: Check("store", True, "memory"), self.lag)
        self.stops: list[float | None] = []
        self.site = Site(self)  # type: ignore[arg-type]

    def request_stop(self, seconds: float | None) -> float:
        self.stops.append(seconds)
        self.draining = True
        return 5.0 if seconds is None else seconds

    def connect(self, connect: bytes = CONNECT, remote: str = "192.0.2.1:50000") -> tuple[Client, Connection]:
        connection = Connection()
        connection.remote = remote
        client = Client(connection, self.shared)  # type: ignore[arg-type]
        self.gateway.clients.append(client)
        client.on_open(connection)  # type: ignore[arg-type]
        client.on_data(connect)
        return client, connection

    async def ask(
        self, method: str, path: str, body: bytes = b"", *, token: str | None = None, **headers: str
    ) -> Answer | Stream:
        """The answer, also where it is a refusal. ``_`` in names of ``headers`` stands for ``-``."""
        path, _, query = path.partition("?")
        given = {"host": "127.0.0.1:8081"} | {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            given["authorization"] = f"Bearer {token}"
        try:
            return await self.site.answer(Request(method, path, query, given, body, "127.0.0.1"))
        except Refusal as refusal:
            return refusal.answer

    async def get(self, path: str, **options: Any) -> tuple[int, Any]:
        """Status and JSON."""
        return _read(await self.ask("GET", path, **options))

    async def post(self, path: str, body: bytes = b"", token: str | None = TOKEN, **options: Any) -> tuple[int, Any]:
        """Status and JSON."""
        return _read(await self.ask("POST", path, body, token=token, **options))


def _read(answer: Answer | Stream) -> tuple[int, Any]:
    assert isinstance(answer, Answer)
    assert answer.content_type == "application/json"
    return answer.status, msgspec.json.decode(answer.body)
