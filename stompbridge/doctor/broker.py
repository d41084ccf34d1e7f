"""RabbitMQ: each of its addresses, and what a bridge does there, tried with a queue and an exchange that go again."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from stompbridge.brokers.amqp.link import Link
from stompbridge.brokers.amqp.wire import Wire, WireError
from stompbridge.composition import own_exchanges
from stompbridge.config import Exchange, Settings
from stompbridge.doctor.files import SOON
from stompbridge.doctor.finding import Finding, error, ok, reach, reason, skipped, warning
from stompbridge.doctor.running import Running
from stompbridge.doctor.scratch import Scratch

OLDEST = (3, 10)
"""The oldest series of RabbitMQ that the bridge is tested with."""
NEEDED = ("publisher_confirms", "basic.nack", "consumer_cancel_notify", "exchange_exchange_bindings")
"""Capabilities without which the bridge does not work."""
LONGEST_WAIT = 30.0
"""Seconds to wait for the probes of other bridges, at most."""
_SERVER_TIMEOUT = 5.0


async def check_broker(settings: Settings) -> list[Finding]:
    """The addresses in turn, then what the first that can be used allows."""
    findings: list[Finding] = []
    usable = ""
    for url in settings.broker.urls:
        one = await _check_address(url, settings)
        findings += one
        if not usable and all(finding.result != "error" for finding in one):
            usable = url
    if not usable:
        return [*findings, skipped("broker.use", "no address of the broker can be used")]
    # Another address takes the place of one that is down.
    findings = [
        warning(finding.name, finding.detail, finding.remedy, finding.subject) if finding.result == "error" else finding
        for finding in findings
    ]
    try:
        async with _scratch(usable, settings) as (link, scratch):
            findings += _check_server(link.consume.server)
            findings += await scratch.check()
    except WireError as problem:
        findings.append(error("broker.use", str(problem), "try again; the broker's log says more"))
    return findings


async def check_node(settings: Settings, running: Running | None) -> list[Finding]:
    """Whether other bridges run under this node's name: each sends its probe every ``health.broker.interval``."""
    name, health = "node", settings.health.broker
    kinds = {exchange.name: exchange.type for exchange in exchanges(settings)}
    kinds["amq.topic"] = "topic"
    if kinds.get(health.exchange) != "topic":
        return [skipped(name, "bridges can be heard only through a topic exchange as health.broker.exchange")]
    wait = min(health.interval + health.timeout / 2, LONGEST_WAIT)
    heard: set[str] | None = None
    for url in settings.broker.urls:
        try:
            async with _scratch(url, settings) as (_, scratch):
                heard = await scratch.hear(health.exchange, f"probe.{settings.node}.*", wait)
            break
        except WireError:
            continue
    if heard is None:
        return [skipped(name, "the broker cannot be used, or not listened to")]
    ours = running is not None and running.node == settings.node
    remedy = "a name of its own in node (STOMPBRIDGE_NODE) for each bridge, and app.worker with it"
    if len(heard) > 1:
        return [error(name, f"{len(heard)} bridges run under the name {settings.node!r}", remedy)]
    if heard and not ours:
        detail = f"a bridge runs under the name {settings.node!r}, and it is not the one at this admin port"
        return [warning(name, detail, remedy)]
    return [ok(name, f"no other bridge was heard under the name {settings.node!r} within {wait:g} s")]


def exchanges(settings: Settings) -> list[Exchange]:
    """All that a bridge declares: the configured ones win over its own."""
    named = {exchange.name: exchange for exchange in (*own_exchanges(settings), *settings.broker.exchange)}
    return list(named.values())


@asynccontextmanager
async def _scratch(url: str, settings: Settings) -> AsyncIterator[tuple[Link, Scratch]]:
    broker, flow = settings.broker, asyncio.Event()
    link = Link(url, f"{settings.node} doctor", broker.heartbeat, flow.set)
    await link.open(broker.connect_timeout)
    try:
        yield link, Scratch(link, settings, exchanges(settings), flow)
    finally:
        await link.close(1.0)


async def _check_address(url: str, settings: Settings) -> list[Finding]:
    """TCP, TLS, login and virtual host, each under its own name, up to the first that fails."""
    parts = urlsplit(url)
    assert parts.hostname is not None  # the configuration was checked
    tls = parts.scheme == "amqps"
    host, port = parts.hostname, parts.port or (5671 if tls else 5672)
    where, limit = f"{host}:{port}", settings.broker.connect_timeout
    problem = await reach(host, port, limit)
    if problem:
        remedy = "start RabbitMQ, or correct broker.urls; a firewall may stand between"
        return [error("broker.tcp", problem, remedy, where)]
    findings = [ok("broker.tcp", "accepts connections", where)]
    if tls:
        findings.append(await _check_tls(url, host, port, limit, where))
        if findings[-1].result == "error":
            return findings
    user, vhost = unquote(parts.username or "guest"), unquote(parts.path[1:]) or "/"
    wire = Wire(url, f"stompbridge {settings.node} doctor", settings.broker.heartbeat, lambda _: None, lambda: None)
    try:
        await wire.open(limit)
    except WireError as failure:
        return [*findings, *_refused(failure, user, vhost, where)]
    await wire.close(1.0)
    findings.append(ok("broker.login", f"user {user!r} is let in", where))
    findings.append(ok("broker.virtual_host", f"{vhost!r}", where))
    return findings


def _refused(failure: WireError, user: str, vhost: str, where: str) -> list[Finding]:
    text, code = str(failure).removeprefix(f"{where}: "), failure.refused.code if failure.refused is not None else ""
    if code == "not_allowed":
        remedy = f"rabbitmqctl add_vhost {vhost}; rabbitmqctl set_permissions -p {vhost} {user} ...; or broker.urls"
        return [
            ok("broker.login", f"user {user!r} is let in", where),
            error("broker.virtual_host", f"{vhost!r}: {text}", remedy, where),
        ]
    if code:
        remedy = "user and password in broker.urls_file or broker.urls"
        if user == "guest":
            remedy += "; guest is let in from the broker's own machine only"
        return [
            error("broker.login", text, remedy, where),
            skipped("broker.virtual_host", "the login was refused", where),
        ]
    remedy = "something else may listen there, or RabbitMQ wants TLS: amqps:// in broker.urls"
    return [error("broker.login", f"no AMQP there: {text}", remedy, where)]


async def _check_tls(url: str, host: str, port: int, limit: float, where: str) -> Finding:
    """With the same options of the URL as the library that connects."""
    options = dict(parse_qsl(urlsplit(url).query))
    try:
        context = ssl.create_default_context(cafile=options.get("cafile"), capath=options.get("capath"))
        if "certfile" in options:
            context.load_cert_chain(options["certfile"], options.get("keyfile"))
    except OSError as problem:
        return error("broker.tls", reason(problem), "cafile, capath, certfile and keyfile in broker.urls", where)
    verified = options.get("no_verify_ssl", "0") == "0"
    if not verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(limit):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except TimeoutError:
        return error("broker.tls", f"no answer within {limit:g} s", "amqp:// where it speaks no TLS", where)
    except ssl.SSLCertVerificationError as problem:
        remedy = "?cafile=FILE with its authority in broker.urls, or a certificate with that host's name"
        return error("broker.tls", f"its certificate is not trusted: {problem.verify_message}", remedy, where)
    except (ssl.SSLError, OSError) as problem:
        text = problem.reason if isinstance(problem, ssl.SSLError) else reason(problem)
        return error("broker.tls", str(text), "amqp:// where it speaks no TLS", where)
    certificate = writer.get_extra_info("peercert") or {}
    writer.transport.abort()
    if not verified:
        return warning("broker.tls", "no_verify_ssl: nobody is kept out", "?cafile=FILE in its place", where)
    end = datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate["notAfter"]), UTC)
    if end - datetime.now(UTC) < SOON:
        return warning("broker.tls", f"its certificate expires on {end:%Y-%m-%d}", "a renewed one for RabbitMQ", where)
    return ok("broker.tls", f"its certificate is trusted, and valid until {end:%Y-%m-%d}", where)


def _check_server(properties: dict[str, Any]) -> list[Finding]:
    name = "broker.version"
    product, version = _text(properties.get("product")), _text(properties.get("version"))
    capabilities = properties.get("capabilities")
    capable = capabilities if isinstance(capabilities, dict) else {}
    lacking = [one for one in NEEDED if not capable.get(one)]
    if lacking:
        return [error(name, f"{product} {version} has not: {', '.join(lacking)}", "RabbitMQ 3.10 or newer")]
    if product != "RabbitMQ":
        return [warning(name, f"{product} {version}: the bridge is tested with RabbitMQ", "RabbitMQ 3.10 or newer")]
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers < OLDEST:
        return [warning(name, f"RabbitMQ {version} is older than what is tested", "RabbitMQ 3.10 or newer")]
    return [ok(name, f"RabbitMQ {version}")]


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
