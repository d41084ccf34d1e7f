"""What a configuration must fulfil beyond the types of its values."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from stompbridge.auth import acl
from stompbridge.certificates import CertificateError, server_context
from stompbridge.config import Admin, Auth, BrokerSettings, Jwt, Listen, Settings
from stompbridge.config_file import HIDDEN, show_duration, show_size
from stompbridge.routing.users import EXCHANGE as USERS

Inconsistency = tuple[str, object, str]
"""A key path, its value, and what is wrong with it."""


def inconsistencies(settings: Settings) -> Iterator[Inconsistency]:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", settings.node):
        yield "node", settings.node, "must be 1 to 64 letters, digits, '_', '.' or '-'"
    if not settings.stomp.server.isprintable():
        yield "stomp.server", settings.stomp.server, "must be printable text"
    yield from _check_listeners(settings)
    yield from _check_door(settings.listen)
    yield from _check_admin(settings.admin)
    yield from _check_durations(settings)
    yield from _check_sizes(settings)
    yield from _check_broker(settings.broker)
    yield from _check_auth(settings)
    yield from acl.problems(settings.acl)
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
    openings = {"listen.host": (listen.host, _opening(settings))}
    if admin.enabled:
        openings["admin.host"] = (admin.host, "" if admin.token else "nothing here asks who they are: set admin.token")
        if listen.port == admin.port != 0 and listen.host == admin.host:
            yield "admin.port", admin.port, "is listen.port too; they must differ"
    for key, (host, opening) in openings.items():
        if not host:
            yield key, host, 'must not be empty; "0.0.0.0" or "::" stands for all addresses'
        elif opening and not settings.insecure and not is_loopback(host):
            yield (
                key,
                host,
                f"can be reached from other machines while {opening}; "
                f'set {key} = "127.0.0.1" and put a proxy in front, or set insecure = true to allow it',
            )


def _opening(settings: Settings) -> str:
    """Why clients may do more than anybody has granted; empty where they may not."""
    if settings.auth.backend == "none":
        return 'nothing authenticates clients: set auth.backend, and [[acl]] unless it is "rabbitmq"'
    if settings.auth.backend != "rabbitmq" and not settings.acl:
        return "no [[acl]] says what clients may do: add one"
    return ""


def _check_door(listen: Listen) -> Iterator[Inconsistency]:
    if bool(listen.tls_cert) != bool(listen.tls_key):
        given, missing = ("tls_cert", "tls_key") if listen.tls_cert else ("tls_key", "tls_cert")
        yield f"listen.{missing}", "", f"is needed, too, as listen.{given} is set"
    elif listen.tls_cert:
        try:
            server_context(listen.tls_cert, listen.tls_key)
        except CertificateError as error:
            yield error.key, error.file, error.cause
    for index, network in enumerate(listen.trusted_proxies):
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            yield f"listen.trusted_proxies[{index}]", network, f'must be a network such as "10.0.0.0/8": {error}'
    if listen.proxy_protocol and not listen.trusted_proxies:
        yield "listen.proxy_protocol", True, "needs listen.trusted_proxies: nobody else's PROXY header is believed"
    if listen.proxy_protocol and listen.tls_cert:
        yield (
            "listen.proxy_protocol",
            True,
            "cannot be combined with listen.tls_cert; let the proxy end TLS, or leave the PROXY protocol out",
        )


def _check_admin(admin: Admin) -> Iterator[Inconsistency]:
    for index, host in enumerate(admin.hosts):
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", host):
            yield f"admin.hosts[{index}]", host, 'must be a name without a port: "bridge.example"'
    # The characters of a token in an Authorization header (RFC 6750 section 2.1).
    if admin.token and not re.fullmatch(r"[A-Za-z0-9._~+/-]{16,}=*", admin.token):
        text = 'must have at least 16 characters: letters, digits, "-", ".", "_", "~", "+" or "/"'
        yield "admin.token", HIDDEN, f'{text}; "openssl rand -hex 32" makes one'


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on ``host``."""
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
        "auth.failure_window": settings.auth.failure_window,
        "auth.http.timeout": settings.auth.http.timeout,
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
        if exchange.name == USERS:
            yield f"{key}.name", exchange.name, "is declared by the bridge itself, for /user"
        if exchange.bind == "all" and exchange.type != "topic":
            yield f"{key}.bind", exchange.bind, 'is for topic exchanges; this one needs "auto" or "key"'


def _is_amqp_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("amqp", "amqps") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _check_auth(settings: Settings) -> Iterator[Inconsistency]:
    auth = settings.auth
    match auth.backend:
        case "static" if not auth.users_file:
            yield "auth.users_file", auth.users_file, 'must name the users\' file for auth.backend = "static"'
        case "rabbitmq" if settings.broker.kind != "rabbitmq":
            yield "auth.backend", auth.backend, 'needs broker.kind = "rabbitmq"'
        case "jwt":
            yield from _check_jwt(auth.jwt)
        case "http" if not _is_private_url(auth.http.url):
            yield "auth.http.url", auth.http.url, _PRIVATE_URL
    yield from _check_default_login(auth)


def _check_default_login(auth: Auth) -> Iterator[Inconsistency]:
    if auth.default_login and auth.backend == "jwt":
        yield "auth.default_login", auth.default_login, 'has no meaning with auth.backend = "jwt"'
    elif auth.default_login and not auth.default_passcode:
        yield "auth.default_login", auth.default_login, "needs auth.default_passcode or auth.default_passcode_file"
    elif auth.default_passcode and not auth.default_login:
        yield "auth.default_passcode", HIDDEN, "needs auth.default_login"


def _check_jwt(jwt: Jwt) -> Iterator[Inconsistency]:
    sources = {"key_file": jwt.key_file, "jwks_file": jwt.jwks_file, "jwks_url": jwt.jwks_url}
    given = [name for name, value in sources.items() if value]
    if not given:
        text = "must be given, or auth.jwt.jwks_file or auth.jwt.jwks_url: where the keys are"
        yield "auth.jwt.key_file", jwt.key_file, text
    for name in given[1:]:
        yield f"auth.jwt.{name}", sources[name], f"cannot be had beside auth.jwt.{given[0]}: the keys have one source"
    if jwt.jwks_url and not _is_private_url(jwt.jwks_url):
        yield "auth.jwt.jwks_url", jwt.jwks_url, _PRIVATE_URL
    for name, value in {"audience": jwt.audience, "issuer": jwt.issuer}.items():
        if not value:
            yield f"auth.jwt.{name}", value, "must be given: a token for or from somebody else is not good here"
    if not jwt.user_claim:
        yield "auth.jwt.user_claim", jwt.user_claim, "must name the claim that holds the user's name"
    if jwt.jwks_refresh < 1:
        yield "auth.jwt.jwks_refresh", show_duration(jwt.jwks_refresh), 'must be at least "1s"'
    shared = [name for name in jwt.algorithms if name.startswith("HS")]
    if not jwt.algorithms:
        yield "auth.jwt.algorithms", jwt.algorithms, "must name at least one"
    elif shared and jwt.jwks_url:
        yield "auth.jwt.algorithms", jwt.algorithms, f"{shared[0]} needs a shared secret, which no URL gives"
    elif shared and jwt.key_file and len(shared) < len(jwt.algorithms):
        text = f"{shared[0]} needs a shared secret and others a public key, and auth.jwt.key_file holds one of them"
        yield "auth.jwt.algorithms", jwt.algorithms, text
    if jwt.cookie and not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", jwt.cookie):
        yield "auth.jwt.cookie", jwt.cookie, "is no name that a cookie can have"


_PRIVATE_URL = 'must be an "https://" URL; "http://" is for this machine alone, as in "http://127.0.0.1:9000/"'


def _is_private_url(url: str) -> bool:
    """Whether what is said there stays between the two."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or port == 0:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
