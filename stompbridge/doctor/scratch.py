"""What a login may do at RabbitMQ, found out by doing it: with a queue and an exchange of its own, which are deleted
again, as the broker does by itself if this process dies.

Nothing is ever published to an exchange that somebody else uses: whether that is allowed shows when the exchange is
bound behind the scratch exchange, to a key that nothing has.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from secrets import token_hex

from stompbridge.brokers.amqp import methods
from stompbridge.brokers.amqp.channel import Channel, ChannelClosed, LinkLost
from stompbridge.brokers.amqp.codec import encode_publish
from stompbridge.brokers.amqp.fields import encode_table, short_string
from stompbridge.brokers.amqp.link import Link
from stompbridge.brokers.amqp.methods import Request
from stompbridge.brokers.amqp.splitter import Confirm, Delivery
from stompbridge.brokers.base import Failure, Message
from stompbridge.config import Exchange, Settings
from stompbridge.doctor.finding import Finding, error, ok, skipped, warning

ANSWER = 5.0
"""Seconds for each request."""
EXPIRES = 60_000
"""Milliseconds after which the broker deletes a scratch queue that was left behind."""
OWN = "stompbridge.*"
"""What a bridge makes for itself."""
_KEY = "stompbridge.doctor.nothing"
_TRIP = "trip"


class Scratch:
    """Experiments over a link, whose flow control sets ``flow``. ``exchanges`` are what a bridge declares."""

    def __init__(self, link: Link, settings: Settings, exchanges: Iterable[Exchange], flow: asyncio.Event) -> None:
        self._link = link
        self._flow = flow
        self._settings = settings
        self._exchanges = tuple(exchanges)
        # Of a bridge's own queues, and within the rights that a bridge's login is given.
        self._name = f"stompbridge.{settings.node}.{token_hex(4)}.doctor"
        # What is denied, and the broker's words for it.
        self._denied: dict[str, dict[str, str]] = {"configure": {}, "write": {}, "read": {}}
        self._tried: dict[str, int] = {"configure": 0, "write": 0, "read": 0}

    async def check(self) -> list[Finding]:
        """Everything; the scratch queue and exchange are deleted at the end."""
        try:
            return await self._check()
        except LinkLost as lost:
            return [error("broker.use", f"the connection was lost: {lost}", "the broker's log says why; try again")]
        finally:
            await self._clean_up()

    async def hear(self, exchange: str, pattern: str, seconds: float) -> set[str] | None:
        """The keys of what comes through a topic exchange in that time, ended by a second one; ``None`` where one may
        not listen."""
        heard: set[str] = set()
        enough = asyncio.Event()

        def take(batch: list[Delivery]) -> None:
            heard.update(delivery.message.routing_key for delivery in batch)
            if len(heard) > 1:
                enough.set()

        try:
            channel = await self._link.consume.open_channel()
            channel.on_deliveries = take
            arguments = {"x-expires": EXPIRES}
            await channel.call(methods.queue_declare(self._name, exclusive=True, arguments=arguments), ANSWER)
            await channel.call(methods.queue_bind(self._name, exchange, pattern), ANSWER)
            await channel.call(methods.basic_consume(self._name, "doctor"), ANSWER)
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await enough.wait()
        except ChannelClosed as problem:
            # Where the exchange is not there nobody can use it.
            return set() if problem.failure.code == "not_found" else None
        except LinkLost:
            return None
        finally:
            await self._clean_up()
        return heard

    async def _check(self) -> list[Finding]:
        has_queue = await self._try("configure", self._declare_queue()) is None
        has_exchange = await self._try("configure", _exchange_declare(self._name)) is None
        if has_queue and has_exchange:
            await self._try_bind(self._name, self._name, _TRIP)
        if has_queue:
            await self._try("read", methods.basic_consume(self._name, "doctor"))
        findings = [await self._check_exchange(exchange, has_queue, has_exchange) for exchange in self._exchanges]
        findings += self._permissions(has_queue and has_exchange)
        findings.append(await self._check_alarm(has_exchange))
        findings.append(await self._check_transient())
        return findings

    def _declare_queue(self) -> Request:
        """As a mailbox, but for its life."""
        broker = self._settings.broker
        arguments: dict[str, object] = {"x-queue-type": broker.mailbox_type, "x-expires": EXPIRES}
        if broker.mailbox_max_bytes:
            arguments["x-max-length-bytes"] = broker.mailbox_max_bytes
        return methods.queue_declare(self._name, durable=True, arguments=arguments)

    async def _check_exchange(self, exchange: Exchange, has_queue: bool, has_exchange: bool) -> Finding:
        name, subject = "broker.exchange", exchange.name
        if await self._ask(methods.exchange_declare(exchange.name, passive=True)) is not None:
            return await self._check_missing(exchange, has_exchange)
        if has_queue:
            failure = await self._ask(methods.queue_bind(self._name, exchange.name, _KEY))
            self._count("read", failure, exchange.name, f"exchange '{exchange.name}'")
        if has_exchange:
            failure = await self._ask(_exchange_bind(exchange.name, self._name, _KEY))
            self._count("write", failure, exchange.name, f"exchange '{exchange.name}'")
        wanted = f"{exchange.type}, {'durable' if exchange.durable else 'not durable'}"
        failure = await self._ask(methods.exchange_declare(exchange.name, exchange.type, durable=exchange.durable))
        if failure is None:
            return ok(name, wanted, subject)
        if failure.code == "access_refused":
            detail = "is there; whether its type is the configured one cannot be seen, as the login may not declare it"
            return warning(name, detail, f"compare it with {wanted}; or allow configure", subject)
        remedy = "its real type in [[broker.exchange]], or delete it at RabbitMQ to have it declared anew"
        return error(name, f"is there as another than {wanted}: {failure.text}", remedy, subject)

    async def _check_missing(self, exchange: Exchange, has_exchange: bool) -> Finding:
        """Rights go by names: a queue of that name, for a moment, tells what a declaration would."""
        async with self._channel() as channel:
            refused = await _call(channel, methods.queue_declare(exchange.name, exclusive=True))
        if refused is None:
            if has_exchange:
                failure = await self._ask(methods.queue_bind(exchange.name, self._name, _KEY))
                self._count("write", failure, exchange.name, f"queue '{exchange.name}'")
            await self._ask(methods.queue_delete(exchange.name))
        if refused is None or refused.code != "access_refused":
            # A queue of that name, and of other properties, is there: it was not a matter of rights.
            self._count("configure", None, exchange.name)
            return ok("broker.exchange", "is not there yet: the bridge declares it", exchange.name)
        self._count("configure", refused, exchange.name)
        remedy = "declare it, or allow the login to configure it"
        detail = f"is not there, and the login may not declare it: {refused.text}"
        return error("broker.exchange", detail, remedy, exchange.name)

    def _permissions(self, could_try: bool) -> list[Finding]:
        findings = []
        for kind, denied in self._denied.items():
            name = f"broker.permissions.{kind}"
            if denied:
                detail = f"refused for {', '.join(denied)}: {next(iter(denied.values()))}"
                findings.append(error(name, detail, self._grant()))
            elif kind != "configure" and not could_try:
                findings.append(skipped(name, "there is no scratch queue or exchange to try it with"))
            else:
                findings.append(ok(name, f"{self._tried[kind]} tried"))
        return findings

    def _grant(self) -> str:
        others = [exchange.name for exchange in self._exchanges if not exchange.name.startswith("stompbridge.")]
        names = "|".join([r"stompbridge\..*", *map(re.escape, others)])
        pattern = f"'^({names})$'"
        link = self._link
        return f"rabbitmqctl set_permissions -p {link.vhost} {link.user} {pattern} {pattern} {pattern}, at least"

    async def _check_alarm(self, has_exchange: bool) -> Finding:
        """A broker short of memory or disk takes no messages, and says so to those who publish."""
        name = "broker.alarm"
        if not has_exchange:
            return skipped(name, "there is no scratch exchange to publish to")
        wire = self._link.publish
        channel = await wire.open_channel()
        confirms: list[Confirm] = []
        refusals: list[Failure] = []

        def on_confirm(confirm: Confirm) -> None:
            confirms.append(confirm)
            self._flow.set()

        def on_closed(failure: Failure) -> None:
            refusals.append(failure)
            self._flow.set()

        channel.on_confirm = on_confirm
        channel.on_closed = on_closed
        await channel.call(methods.confirm_select(), ANSWER)
        message = Message(self._name, _TRIP, b"doctor")
        channel.send(encode_publish(channel.number, message, channel.frame_max, False))
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWER):
                while not (confirms or refusals or wire.blocked):
                    self._flow.clear()
                    await self._flow.wait()
        if wire.blocked is None and confirms:
            return ok(name, "a message was confirmed")
        if refusals:
            return skipped(name, f"the login may not publish: {refusals[0].text}")
        text = f"takes no messages: {wire.blocked or 'no confirm came'}"
        return error(name, text, "free memory or disk at RabbitMQ (rabbitmq-diagnostics alarms), or raise its limits")

    async def _check_transient(self) -> Finding:
        """Newer versions refuse queues that neither outlive a restart nor belong to one connection."""
        name, queue = "broker.deprecated", f"{self._name}.transient"
        request = methods.queue_declare(queue, auto_delete=True, arguments={"x-expires": EXPIRES})
        failure = await self._ask(request)
        if failure is None:
            await self._ask(methods.queue_delete(queue))
            return ok(name, "transient queues are allowed")
        if failure.code == "access_refused":
            return skipped(name, "the login may not declare a queue")
        remedy = "frontends without durable:false; or deprecated_features.permit.transient_nonexcl_queues = true"
        return warning(name, f"a SUBSCRIBE with durable:false gets an ERROR: {failure.text}", remedy)

    async def _try_bind(self, queue: str, exchange: str, key: str) -> None:
        failure = await self._ask(methods.queue_bind(queue, exchange, key))
        # It takes two rights: to write to what is bound, and to read from what it is bound to.
        on_exchange = failure is not None and f"exchange '{exchange}'" in failure.text
        self._count("read" if on_exchange else "write", failure, OWN)

    async def _try(self, kind: str, request: Request) -> Failure | None:
        failure = await self._ask(request)
        self._count(kind, failure, OWN)
        return failure

    def _count(self, kind: str, failure: Failure | None, what: str, named: str = "") -> None:
        """Notes what came of an attempt. A refusal that does not name ``named`` is about another right."""
        self._tried[kind] += 1
        if failure is not None and (failure.code != "access_refused" or named in failure.text):
            self._denied[kind].setdefault(what, failure.text)

    async def _ask(self, request: Request) -> Failure | None:
        """What the broker has against a request, tried on a channel of its own."""
        async with self._channel() as channel:
            return await _call(channel, request)

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[Channel]:
        channel = await self._link.consume.open_channel()
        try:
            yield channel
        finally:
            channel.close()

    async def _clean_up(self) -> None:
        for request in (methods.queue_delete(self._name), _exchange_delete(self._name)):
            try:
                await self._ask(request)
            except (LinkLost, ChannelClosed):
                return


async def _call(channel: Channel, request: Request) -> Failure | None:
    try:
        await channel.call(request, ANSWER)
    except ChannelClosed as problem:
        return problem.failure
    except ValueError as problem:
        return Failure("precondition_failed", str(problem), fatal=False)
    return None


# Methods that a bridge itself has no use for (AMQP 0-9-1, section 1.6, and RabbitMQ's extension of it).


def _exchange_declare(name: str) -> Request:
    """A direct exchange that goes with its last binding."""
    payload = methods.EXCHANGE_DECLARE + b"\x00\x00" + short_string(name) + short_string("direct") + b"\x04" + bytes(4)
    return Request(payload, methods.EXCHANGE_DECLARE_OK)


def _exchange_delete(name: str) -> Request:
    return Request(b"\x00\x28\x00\x14\x00\x00" + short_string(name) + b"\x00", b"\x00\x28\x00\x15")


def _exchange_bind(destination: str, source: str, key: str) -> Request:
    names = short_string(destination) + short_string(source) + short_string(key)
    return Request(b"\x00\x28\x00\x1e\x00\x00" + names + b"\x00" + encode_table({}), b"\x00\x28\x00\x1f")
