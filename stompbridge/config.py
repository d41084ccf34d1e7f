"""Typed settings: every key, its meaning and its default in one place.

Durations are seconds (``float``) and sizes bytes (``int``) once loaded; in TOML and in the environment they are
written ``"10s"`` and ``"64KiB"``.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct, field
from msgspec.structs import replace

from stompbridge import __version__, config_file
from stompbridge.config_file import ConfigError, problem

__all__ = ["ConfigError", "default_toml", "load", "show"]

ENVIRONMENT_PREFIX = "STOMPBRIDGE_"
# The first two are of the command line: the file, and the bridge that is asked. The third is the test-suite's, and a
# bridge that it starts inherits it.
RESERVED_VARIABLES = frozenset({"STOMPBRIDGE_CONFIG", "STOMPBRIDGE_ADMIN_URL", "STOMPBRIDGE_REQUIRE_SERVICES"})

Duration = Annotated[float, Meta(ge=0, le=366 * 86400.0, title="duration")]
Size = Annotated[int, Meta(ge=0, le=2**40, title="size")]
Port = Annotated[int, Meta(ge=0, le=65535)]
Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Secret = Annotated[str, Meta(title="secret")]


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
    reuse_port: bool = False
    """Share the port with other processes of this machine that set it, too; the kernel spreads connections over
    them."""
    tls_cert: str = ""
    """A PEM file with the certificate and its chain; with it, clients speak TLS (``wss``). A relative path starts at
    the configuration file's folder."""
    tls_key: str = ""
    """The PEM file of its private key."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks whose word about a client's address counts: the PROXY protocol or ``X-Forwarded-For``."""
    proxy_protocol: bool = False
    """Every connection begins with a PROXY header (version 1 or 2); those from other than ``trusted_proxies`` are
    closed."""
    compression: bool = False
    """Offer permessage-deflate, without context takeover either way."""


class Admin(Section, frozen=True, kw_only=True):
    """Where operators and orchestrators ask for the state of the process."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Port = 8081
    hosts: tuple[str, ...] = ()
    """Names by which it may be asked for, beside ``localhost``, ``host`` and any IP address."""
    token: Secret = ""
    """What a request has to show that closes sessions, traces, drains or changes the log level. Empty: none of that
    is possible."""
    token_file: str = ""
    """File that holds it; wins over ``token``. A relative path starts at the configuration file's folder."""


Level = Literal["debug", "info", "warning", "error"]


class Log(Section, frozen=True, kw_only=True):
    level: Level = "info"
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
    server: str = f"stompbridge/{__version__}"
    """What CONNECTED calls the server; some clients look for ``RabbitMQ/``. Empty: it has no such header."""


class Exchange(Section, frozen=True, kw_only=True):
    name: str
    type: Literal["topic", "direct", "fanout", "headers"] = "topic"
    durable: bool = True
    bind: Literal["auto", "key", "all"] = "auto"
    """``key`` binds each subscribed key; ``all`` binds every message to every node once, so that subscribing
    costs the broker nothing (topic exchanges); ``auto`` binds each key, and for a while every message where many
    subscribe at once (topic exchanges; ``key`` with others, and with clients' own logins)."""


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
    transaction_bytes: Size = 16 * 1024 * 1024
    """Headers and bodies of the frames in all open transactions of a session together."""
    unacked: Count = 10_000
    """Messages a session may hold without acknowledging."""
    backlog: Count = 10_000
    """Messages that wait behind a subscription's ``prefetch-count``."""
    send_buffer: Size = 16 * 1024 * 1024
    """Unsent bytes at which a client that does not read is closed."""
    send_timeout: Duration = 30.0
    """How long a client may leave bytes unread before it is closed."""
    connections: Count = 50_000
    """Sockets in all."""
    connections_per_address: Annotated[int, Meta(ge=0)] = 0
    """Sockets of one client address; 0: any number."""
    connections_per_user: Annotated[int, Meta(ge=0)] = 0
    """Sessions of one authenticated user on this node; 0: any number."""
    pending: Count = 20_000
    """Sockets whose client has not been accepted yet (CONNECT), in all."""
    pending_per_address: Count = 5_000
    message_rate: Annotated[int, Meta(ge=0)] = 0
    """SENDs a second that a session may keep up; beyond it the socket is not read for a while. 0: any number."""
    byte_rate: Size = 0
    """The same for the bytes of their bodies."""
    rate_patience: Duration = 30.0
    """A session that keeps exceeding a rate for that long gets an ERROR and is closed."""
    open_timeout: Duration = 10.0
    """TCP connect to the end of the WebSocket handshake."""
    connect_timeout: Duration = 10.0
    """WebSocket handshake to STOMP CONNECT."""
    close_timeout: Duration = 5.0
    ping_interval: Duration = 30.0
    """WebSocket pings for clients without STOMP heart-beats; unanswered for twice that long, they are closed."""


class Jwt(Section, frozen=True, kw_only=True):
    """Tokens signed by somebody else. Of the three sources of keys exactly one is given."""

    key_file: str = ""
    """A PEM public key, or the shared secret of the HS algorithms."""
    jwks_file: str = ""
    jwks_url: str = ""
    jwks_refresh: Duration = 600.0
    """How often the keys are read anew. When that fails, the ones at hand are kept."""
    algorithms: tuple[
        Literal[
            "HS256",
            "HS384",
            "HS512",
            "RS256",
            "RS384",
            "RS512",
            "PS256",
            "PS384",
            "PS512",
            "ES256",
            "ES384",
            "ES512",
            "EdDSA",
        ],
        ...,
    ] = ("RS256", "ES256", "EdDSA")
    audience: str = ""
    issuer: str = ""
    leeway: Duration = 0.0
    user_claim: str = "sub"
    groups_claim: str = "groups"
    connect_headers: tuple[str, ...] = ("authorization", "token", "passcode")
    """CONNECT headers that may hold the token, tried in turn; a leading ``Bearer`` is dropped."""
    cookie: str = ""
    """The cookie of the upgrade request that may hold it; empty: none does."""


class HttpAuth(Section, frozen=True, kw_only=True):
    """A webhook that says who a client is."""

    url: str = ""
    timeout: Duration = 2.0
    cache: Duration = 30.0
    """How long an answer holds for the same credentials."""
    forward_headers: tuple[str, ...] = ("cookie", "authorization")
    """Headers of the upgrade request that it is told."""


class Auth(Section, frozen=True, kw_only=True):
    """Who may connect."""

    backend: Literal["none", "static", "rabbitmq", "jwt", "http"] = "none"
    default_login: str = ""
    default_passcode: Secret = ""
    """For a CONNECT without ``login`` or ``passcode``; empty: such a client is refused."""
    default_passcode_file: str = ""
    """File that holds it; wins over ``default_passcode``."""
    users_file: str = ""
    """``static``: the users, TOML. A relative path starts at the configuration file's folder, and is absolute once
    loaded."""
    failures: Count = 10
    """Refused CONNECTs of one address, or for one login, within ``failure_window``, after which more are refused
    unseen."""
    failure_window: Duration = 60.0
    virtual_host: str = "/"
    """``rabbitmq``: where a client goes that names no ``host``."""
    virtual_hosts: dict[str, str] = field(default_factory=dict)
    """``rabbitmq``: the virtual host behind a ``host`` header; one that is not listed is taken as it is."""
    link_linger: Duration = 30.0
    """``rabbitmq``: how long a login's connection to RabbitMQ outlives its last client."""
    max_links: Count = 500
    """``rabbitmq``: logins that may be connected at a time."""
    jwt: Jwt = field(default_factory=Jwt)
    http: HttpAuth = field(default_factory=HttpAuth)


Action = Literal["subscribe", "send", "durable", "queue-name", "queue-arguments", "temp-queue"]


class AclRule(Section, frozen=True, kw_only=True):
    """One rule of who may do what where. The first that fits decides."""

    allow: tuple[Action, ...] = ()
    deny: tuple[Action, ...] = ()
    destinations: tuple[str, ...]
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    """A rule that names neither users nor groups is for nobody; ``users = ["*"]`` is for all."""


def default_node() -> str:
    """The host's name up to its first dot, with only such characters as a node's name may have."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname().split(".")[0])[:64] or "bridge"


class Settings(Section, frozen=True, kw_only=True):
    """The whole configuration."""

    node: str = field(default_factory=default_node)
    """This process's name among its peers; part of its queues' names. Letters, digits, ``_``, ``.`` and ``-``."""
    insecure: bool = False
    """Allow listening on other than loopback although nothing authenticates the clients, or the admin port."""
    drain_time: Duration = 5.0
    """Over how long a process that stops spreads the closing of its sessions, at most; 0: all at once."""
    shutdown_timeout: Duration = 10.0
    """How long a process that stops waits for sessions after it has closed the last of them."""
    listen: Listen = field(default_factory=Listen)
    admin: Admin = field(default_factory=Admin)
    log: Log = field(default_factory=Log)
    stomp: Stomp = field(default_factory=Stomp)
    broker: BrokerSettings = field(default_factory=BrokerSettings)
    app: App = field(default_factory=App)
    dedup: Dedup = field(default_factory=Dedup)
    health: Health = field(default_factory=Health)
    auth: Auth = field(default_factory=Auth)
    acl: tuple[AclRule, ...] = ()
    """Without any rule, everybody who gets in may do anything."""
    limits: Limits = field(default_factory=Limits)


def load(path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, str]) -> Settings:
    """The settings of the file at ``path`` (if any), the environment above it, and ``overrides`` above both.

    ``overrides`` holds texts as they stand on a command line, by dotted key (``listen.port``).
    Raises :class:`ConfigError` with everything that is wrong.
    """
    loaded = config_file.read(
        Settings, path, environ, overrides, prefix=ENVIRONMENT_PREFIX, reserved=RESERVED_VARIABLES
    )
    if "admin.token" in overrides:
        text = "can be read there by everybody on this machine; use admin.token_file or STOMPBRIDGE_ADMIN__TOKEN"
        raise ConfigError(problem("command line", "admin.token", config_file.HIDDEN, text))
    settings = msgspec.convert(loaded.values, Settings)
    folder = path.parent if path is not None else Path()
    secrets = {
        "broker.urls_file": settings.broker.urls_file,
        "dedup.redis_url_file": settings.dedup.redis_url_file,
        "auth.default_passcode_file": settings.auth.default_passcode_file,
        "admin.token_file": settings.admin.token_file,
    }
    for key, file in secrets.items():
        if not file:
            continue
        try:
            text = config_file.read_private(folder / file)
            if key == "broker.urls_file":
                settings = replace(settings, broker=replace(settings.broker, urls=_urls(text)))
            elif key == "dedup.redis_url_file":
                settings = replace(settings, dedup=replace(settings.dedup, redis_url=_urls(text)[0]))
            elif key == "admin.token_file":
                settings = replace(settings, admin=replace(settings.admin, token=_line(text, "the token")))
            else:
                passcode = _line(text, "the passcode")
                settings = replace(settings, auth=replace(settings.auth, default_passcode=passcode))
        except ValueError as error:
            raise ConfigError(problem(loaded.source(key), key, file, str(error))) from None
    settings = replace(
        settings, auth=_auth_with_paths(settings.auth, folder), listen=_listen_with_paths(settings.listen, folder)
    )
    from stompbridge.config_checks import inconsistencies  # which builds on the types above

    problems = [problem(loaded.source(key), key, value, text) for key, value, text in inconsistencies(settings)]
    if problems:
        raise ConfigError("\n".join(problems))
    return settings


def default_toml() -> str:
    """The annotated default configuration, in which every key stands as a comment with its default."""
    return resources.files("stompbridge").joinpath("default.toml").read_text("utf-8")


def show(settings: Settings) -> str:
    """All settings as TOML, with ``***`` for the passwords in URLs."""
    return config_file.dump(settings)


def _urls(text: str) -> tuple[str, ...]:
    lines = [line.strip() for line in text.splitlines()]
    urls = tuple(line for line in lines if line and not line.startswith("#"))
    if not urls:
        raise ValueError("holds no URL")
    return urls


def _line(text: str, what: str) -> str:
    lines = text.splitlines()
    if len(lines) != 1 or not lines[0]:
        raise ValueError(f"must hold one line, {what}")
    return lines[0]


def _auth_with_paths(auth: Auth, folder: Path) -> Auth:
    key_file, jwks_file = _path(auth.jwt.key_file, folder), _path(auth.jwt.jwks_file, folder)
    jwt = replace(auth.jwt, key_file=key_file, jwks_file=jwks_file)
    return replace(auth, users_file=_path(auth.users_file, folder), jwt=jwt)


def _listen_with_paths(listen: Listen, folder: Path) -> Listen:
    return replace(listen, tls_cert=_path(listen.tls_cert, folder), tls_key=_path(listen.tls_key, folder))


def _path(file: str, folder: Path) -> str:
    """A file's path as the process can open it."""
    return str((folder / file).absolute()) if file else ""
