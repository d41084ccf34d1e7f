"""Typed settings: every key, its meaning and its default in one place.

Durations are seconds (``float``) and sizes bytes (``int``) once loaded; in TOML and in the environment they are
written ``"10s"`` and ``"64KiB"``.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct, field
from msgspec.structs import replace

from stompbridge import config_file
from stompbridge.config_file import ConfigError, problem, show_duration, show_size

__all__ = ["ConfigError", "default_toml", "load", "show"]

ENVIRONMENT_PREFIX = "STOMPBRIDGE_"
# The first names the file; the second is the test-suite's, and a bridge that it starts inherits it.
RESERVED_VARIABLES = frozenset({"STOMPBRIDGE_CONFIG", "STOMPBRIDGE_REQUIRE_SERVICES"})

Duration = Annotated[float, Meta(ge=0, le=366 * 86400.0, title="duration")]
Size = Annotated[int, Meta(ge=0, le=2**40, title="size")]
Port = Annotated[int, Meta(ge=0, le=65535)]
Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]


class Section(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One table of the configuration."""


class Listen(Section, frozen=True, kw_only=True):
    """Where browsers connect."""

    host: str = "127.0.0.1"
    port: Port = 8080
    path: str = "/ws"
    allowed_origins: tuple[str, ...] = ()
    """Exact origins that may connect. Empty: the page's origin must be this server's own. Requests without an
    ``Origin`` header are not from a browser and pass."""
    backlog: Count = 1024


class Admin(Section, frozen=True, kw_only=True):
    """Where operators and orchestrators ask for the state of the process."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Port = 8081


class Log(Section, frozen=True, kw_only=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"
    """``auto``: console on a terminal, JSON otherwise."""


class Stomp(Section, frozen=True, kw_only=True):
    heartbeat_send: Duration = 1.0
    """The most often that the server offers to send a heart-beat; a client that asks for more gets this."""
    heartbeat_receive: Duration = 1.0
    """The most often that the server asks a client for one."""
    close_on_error: bool = False
    """Close after every ERROR, as the specification has it, and not only where RabbitMQ closes."""
    hosts: tuple[str, ...] = ()
    """Accepted values of CONNECT's ``host`` header; empty: any."""


class Exchange(Section, frozen=True, kw_only=True):
    name: str
    type: Literal["topic", "direct", "fanout", "headers"] = "topic"
    durable: bool = True
    bind: Literal["key", "all"] = "key"
    """``key`` binds each subscribed key; ``all`` binds every message to every node once, so that subscribing
    costs the broker nothing (topic exchanges)."""


class BrokerSettings(Section, frozen=True, kw_only=True):
    kind: Literal["memory", "rabbitmq"] = "memory"
    urls: tuple[str, ...] = ("amqp://guest:guest@127.0.0.1:5672/%2F",)
    """Tried in turn."""
    urls_file: str = ""
    """A file with the URLs, one a line, instead of ``urls``; not readable by everybody. A relative path starts at the
    configuration file's folder. Once loaded, ``urls`` holds what the file says."""
    when_down: Literal["wait", "error"] = "wait"
    """What a frame that needs the broker does while it is away: wait, at most ``outage_grace``, or get an ERROR at
    once."""
    outage_grace: Duration = 60.0
    connect_timeout: Duration = 10.0
    heartbeat: Duration = 10.0
    reconnect_max: Duration = 15.0
    """The longest pause between two attempts to reconnect."""
    exchange: tuple[Exchange, ...] = ()
    mailbox_type: Literal["classic", "quorum"] = "classic"
    mailbox_expires: Duration = 300.0
    mailbox_max_bytes: Size = 64 * 1024 * 1024
    bind_linger: Duration = 30.0
    """How long a binding outlives its last subscriber."""
    queue_prefetch: Count = 1000
    """Messages in flight to a queue subscription that does not set ``prefetch-count``."""
    outbox_max_messages: Count = 10_000
    outbox_max_bytes: Size = 32 * 1024 * 1024
    """Unconfirmed and waiting publishes; beyond either limit the sockets that send are not read."""
    memory_max_bytes: Size = 256 * 1024 * 1024
    """Embedded broker: what all its queues may hold; a publish beyond it is rejected."""


class Route(Section, frozen=True, kw_only=True):
    """One application destination: what a SEND to it becomes."""

    destination: str
    exchange: str
    routing_key: str
    persistent: bool = False
    stamp: dict[str, str] = field(default_factory=dict)
    """JSON members set in the body: templates of ``{variable}``, ``{variable:int}``, ``{session}``, ``{snowflake}``,
    ``{sequence}``, ``{now}``."""


class App(Section, frozen=True, kw_only=True):
    worker: Annotated[int, Meta(ge=0, le=1023)] = 0
    """This node's part of a ``{snowflake}``; different on each node."""
    epoch: Annotated[int, Meta(ge=0, le=2**42)] = 1_288_834_974_657
    """Milliseconds since 1970 at which ``{snowflake}`` counts from."""
    route: tuple[Route, ...] = ()


class Dedup(Section, frozen=True, kw_only=True):
    window: Annotated[int, Meta(ge=64, le=1_048_576)] = 1024
    """How many sequence numbers of a sender are remembered behind its highest."""
    history_ttl: Duration = 600.0
    """How long an idle sender's window is kept, and the history of a named client that is away."""
    store: Literal["memory", "redis"] = "memory"
    """Where the histories of named clients and senders' idempotency keys are: in this process, or shared."""
    redis_url: str = "redis://127.0.0.1:6379/0"
    redis_url_file: str = ""
    """File that holds the URL; wins over ``redis_url``."""
    lock_ttl: Duration = 10.0
    """How long a process that died keeps others from a message or a key that it was busy with."""
    idempotency_window: Duration = 120.0
    """How long an ``idempotency-key`` stands for its message."""
    on_doubt: Literal["redeliver", "drop"] = "redeliver"
    """A message that a client may have seen, or not, before it went away: again, marked, or not at all."""
    on_store_failure: Literal["deliver", "hold"] = "deliver"
    """While the store is out of reach: deliver and publish without asking it, or wait for it."""


class BrokerHealth(Section, frozen=True, kw_only=True):
    exchange: str = "stompbridge.health"
    """Empty: no probe."""
    interval: Duration = 10.0
    timeout: Duration = 5.0


class Health(Section, frozen=True, kw_only=True):
    broker: BrokerHealth = field(default_factory=BrokerHealth)


class Limits(Section, frozen=True, kw_only=True):
    """Bounds on what one client can cost."""

    frame: Size = 4 * 1024 * 1024
    """A whole STOMP frame, and a WebSocket message."""
    frame_before_connect: Size = 64 * 1024
    headers: Count = 100
    header_bytes: Size = 64 * 1024
    """All header lines of a frame together."""
    fragments: Count = 1024
    """WebSocket fragments of one message."""
    subscriptions: Count = 1000
    transactions: Count = 16
    transaction_frames: Count = 1024
    unacked: Count = 10_000
    """Messages a session may hold without acknowledging."""
    backlog: Count = 10_000
    """Messages that wait behind a subscription's ``prefetch-count``."""
    send_buffer: Size = 16 * 1024 * 1024
    """Unsent bytes at which a client that does not read is closed."""
    send_timeout: Duration = 30.0
    """How long a client may leave bytes unread before it is closed."""
    open_timeout: Duration = 10.0
    """TCP connect to the end of the WebSocket handshake."""
    connect_timeout: Duration = 10.0
    """WebSocket handshake to STOMP CONNECT."""
    close_timeout: Duration = 5.0
    ping_interval: Duration = 30.0
    """WebSocket pings for clients without STOMP heart-beats; unanswered for twice that long, they are closed."""


def default_node() -> str:
    """The host's name up to its first dot, with only such characters as a node's name may have."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname().split(".")[0])[:64] or "bridge"


class Settings(Section, frozen=True, kw_only=True):
    """The whole configuration."""

    node: str = field(default_factory=default_node)
    """This process's name among its peers; part of its queues' names. Letters, digits, ``_``, ``.`` and ``-``."""
    insecure: bool = False
    """Allow listening on other than loopback although nothing authenticates the clients."""
    shutdown_timeout: Duration = 10.0
    listen: Listen = field(default_factory=Listen)
    admin: Admin = field(default_factory=Admin)
    log: Log = field(default_factory=Log)
    stomp: Stomp = field(default_factory=Stomp)
    broker: BrokerSettings = field(default_factory=BrokerSettings)
    app: App = field(default_factory=App)
    dedup: Dedup = field(default_factory=Dedup)
    health: Health = field(default_factory=Health)
    limits: Limits = field(default_factory=Limits)


def load(path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, str]) -> Settings:
    """The settings of the file at ``path`` (if any), the environment above it, and ``overrides`` above both.

    ``overrides`` holds texts as they stand on a command line, by dotted key (``listen.port``).
    Raises :class:`ConfigError` with everything that is wrong.
    """
    loaded = config_file.read(
        Settings, path, environ, overrides, prefix=ENVIRONMENT_PREFIX, reserved=RESERVED_VARIABLES
    )
    settings = msgspec.convert(loaded.values, Settings)
    folder = path.parent if path is not None else Path()
    secrets = {"broker.urls_file": settings.broker.urls_file, "dedup.redis_url_file": settings.dedup.redis_url_file}
    for key, file in secrets.items():
        if not file:
            continue
        try:
            urls = _read_urls(folder / file)
        except ValueError as error:
            raise ConfigError(problem(loaded.source(key), key, file, str(error))) from None
        if key == "broker.urls_file":
            settings = replace(settings, broker=replace(settings.broker, urls=urls))
        else:
            settings = replace(settings, dedup=replace(settings.dedup, redis_url=urls[0]))
    problems = [problem(loaded.source(key), key, value, text) for key, value, text in _inconsistencies(settings)]
    if problems:
        raise ConfigError("\n".join(problems))
    return settings


def default_toml() -> str:
    """The annotated default configuration, in which every key stands as a comment with its default."""
    return resources.files("stompbridge").joinpath("default.toml").read_text("utf-8")


def show(settings: Settings) -> str:
    """All settings as TOML, with ``***`` for the passwords in URLs."""
    return config_file.dump(settings)


def _read_urls(path: Path) -> tuple[str, ...]:
    try:
        with path.open(encoding="utf-8") as file:
            if os.fstat(file.fileno()).st_mode & 0o004:
                raise ValueError("can be read by everybody on this machine: chmod o-rwx")
            lines = [line.strip() for line in file]
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None
    urls = tuple(line for line in lines if line and not line.startswith("#"))
    if not urls:
        raise ValueError("holds no URL")
    return urls


Inconsistency = tuple[str, object, str]
"""A key path, its value, and what is wrong with it."""


def _inconsistencies(settings: Settings) -> Iterator[Inconsistency]:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", settings.node):
        yield "node", settings.node, "must be 1 to 64 letters, digits, '_', '.' or '-'"
    yield from _check_listeners(settings)
    yield from _check_durations(settings)
    yield from _check_sizes(settings)
    yield from _check_broker(settings.broker)
    for index, route in enumerate(settings.app.route):
        if not route.destination.startswith("/app/"):
            yield f"app.route[{index}].destination", route.destination, "must start with /app/"
        elif any(other.destination == route.destination for other in settings.app.route[:index]):
            yield f"app.route[{index}].destination", route.destination, "has a route already"


def _check_listeners(settings: Settings) -> Iterator[Inconsistency]:
    listen, admin = settings.listen, settings.admin
    if not re.fullmatch(r"/[^\s?#]*", listen.path):
        yield "listen.path", listen.path, 'must start with "/" and hold no space, "?" or "#"'
    for index, origin in enumerate(listen.allowed_origins):
        if origin != "null" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^\s/?#*A-Z]+", origin):
            yield (
                f"listen.allowed_origins[{index}]",
                origin,
                'must be an origin as browsers send it: "https://chat.example" or "http://localhost:3000", '
                "in lower case, without a path",
            )
    hosts = {"listen.host": listen.host}
    if admin.enabled:
        hosts["admin.host"] = admin.host
        if listen.port == admin.port != 0 and listen.host == admin.host:
            yield "admin.port", admin.port, "is listen.port too; they must differ"
    for key, host in hosts.items():
        if not host:
            yield key, host, 'must not be empty; "0.0.0.0" or "::" stands for all addresses'
        elif not settings.insecure and not _is_loopback(host):
            yield (
                key,
                host,
                "can be reached from other machines while nothing authenticates clients; "
                f'set {key} = "127.0.0.1" and put a proxy in front, or set insecure = true to allow it',
            )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _check_durations(settings: Settings) -> Iterator[Inconsistency]:
    broker, limits, health = settings.broker, settings.limits, settings.health.broker
    positive = {
        "broker.connect_timeout": broker.connect_timeout,
        "broker.reconnect_max": broker.reconnect_max,
        "broker.mailbox_expires": broker.mailbox_expires,
        "dedup.history_ttl": settings.dedup.history_ttl,
        "dedup.lock_ttl": settings.dedup.lock_ttl,
        "dedup.idempotency_window": settings.dedup.idempotency_window,
        "health.broker.interval": health.interval,
        "health.broker.timeout": health.timeout,
        "limits.send_timeout": limits.send_timeout,
        "limits.open_timeout": limits.open_timeout,
        "limits.connect_timeout": limits.connect_timeout,
        "limits.close_timeout": limits.close_timeout,
        "limits.ping_interval": limits.ping_interval,
    }
    for key, value in positive.items():
        if value < 0.001:
            yield key, show_duration(value), 'must be at least "1ms"'
    # A heart-beat interval is a short in AMQP 0-9-1 (connection.tune), x-expires a long; an hour is beyond any use.
    highest = {
        "stomp.heartbeat_send": (settings.stomp.heartbeat_send, 3600.0),
        "stomp.heartbeat_receive": (settings.stomp.heartbeat_receive, 3600.0),
        "broker.heartbeat": (broker.heartbeat, 65535.0),
        "broker.mailbox_expires": (broker.mailbox_expires, 49 * 86400.0),
    }
    for key, (value, limit) in highest.items():
        if value > limit:
            yield key, show_duration(value), f'must be at most "{show_duration(limit)}"'
    if broker.heartbeat != int(broker.heartbeat):
        yield "broker.heartbeat", show_duration(broker.heartbeat), "must be whole seconds"
    if health.timeout > health.interval:
        yield "health.broker.timeout", show_duration(health.timeout), "must not be longer than health.broker.interval"


def _check_sizes(settings: Settings) -> Iterator[Inconsistency]:
    limits = settings.limits
    lowest = {
        "limits.frame": limits.frame,
        "limits.frame_before_connect": limits.frame_before_connect,
        "limits.header_bytes": limits.header_bytes,
        "limits.send_buffer": limits.send_buffer,
    }
    for key, value in lowest.items():
        if value < 1024:
            yield key, show_size(value), 'must be at least "1KiB"'
    if limits.frame_before_connect > limits.frame:
        size = show_size(limits.frame_before_connect)
        yield "limits.frame_before_connect", size, "must not be larger than limits.frame"
    if settings.broker.mailbox_max_bytes < limits.frame:
        size = show_size(settings.broker.mailbox_max_bytes)
        text = "must be at least limits.frame: RabbitMQ would drop a message of that size"
        yield "broker.mailbox_max_bytes", size, text


def _check_broker(broker: BrokerSettings) -> Iterator[Inconsistency]:
    if not broker.urls:
        yield "broker.urls", broker.urls, "must name at least one URL"
    for index, url in enumerate(broker.urls):
        if not _is_amqp_url(url):
            key = broker.urls_file or "broker.urls"
            yield f"{key}[{index}]", url, 'must be a URL such as "amqp://user:password@host:5672/vhost"'
    for index, exchange in enumerate(broker.exchange):
        key = f"broker.exchange[{index}]"
        if not 1 <= len(exchange.name.encode()) <= 255:
            yield f"{key}.name", exchange.name, "must have 1 to 255 bytes"
        if any(other.name == exchange.name for other in broker.exchange[:index]):
            yield f"{key}.name", exchange.name, "is there already"
        if exchange.bind == "all" and exchange.type != "topic":
            yield f"{key}.bind", exchange.bind, 'is for topic exchanges; this one needs "key"'


def _is_amqp_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("amqp", "amqps") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
