"""A broker that does what a test tells it, and the listeners that tests give to a real one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import pamqp.frame
from pamqp import commands, header
from pamqp.base import Frame
from pamqp.body import ContentBody
from pamqp.heartbeat import Heartbeat

from stompbridge.brokers.base import Broker, Failure, Message, QueueConsumer, QueueSpec

T = TypeVar("T")
LIMIT = 15.0
"""Seconds after which something that should happen has not happened."""


async def within(awaitable: Any) -> Any:
    return await asyncio.wait_for(awaitable, LIMIT)


async def until(condition: Callable[[], object]) -> None:
    """Returns once the condition holds."""
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class News:
    """Listens to a broker."""

    def __init__(self) -> None:
        self.up = asyncio.Event()
        self.down = asyncio.Event()
        self.reasons: list[str] = []
        self.messages: asyncio.Queue[tuple[str, Message]] = asyncio.Queue()
        self.batches: list[int] = []

    def on_mailbox_messages(self, exchange: str, messages: Sequence[Message]) -> None:
        self.batches.append(len(messages))
        for message in messages:
            self.messages.put_nowait((exchange, message))

    def on_broker_up(self) -> None:
        self.down.clear()
        self.up.set()

    def on_broker_down(self, reason: str) -> None:
        self.reasons.append(reason)
        self.up.clear()
        self.down.set()

    async def next(self) -> tuple[str, Message]:
        news: tuple[str, Message] = await within(self.messages.get())
        return news

    async def bodies(self, count: int) -> list[bytes]:
        return [(await self.next())[1].body for _ in range(count)]


class Inbox:
    """Listens to a queue consumer: messages, ``"restored"`` and ``("cancelled", failure)`` in their order."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Any] = asyncio.Queue()

    def on_queue_message(self, message: Message, tag: int) -> None:
        self.events.put_nowait((message, tag))

    def on_queue_restored(self) -> None:
        self.events.put_nowait("restored")

    def on_queue_cancelled(self, failure: Failure | None) -> None:
        self.events.put_nowait(("cancelled", failure))

    async def next(self) -> Any:
        return await within(self.events.get())


class Calls:
    """A broker's calls as futures."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker

    def publish(self, exchange: str, key: str, body: bytes = b"x", **properties: Any) -> asyncio.Future[Failure | None]:
        answer: asyncio.Future[Failure | None] = asyncio.get_running_loop().create_future()
        self.broker.publish(Message(exchange, key, body, **properties), answer.set_result)
        return answer

    def bind(self, exchange: str, key: str) -> asyncio.Future[Failure | None]:
        answer: asyncio.Future[Failure | None] = asyncio.get_running_loop().create_future()
        self.broker.bind(exchange, key, answer.set_result)
        return answer

    def declare(self, spec: QueueSpec) -> asyncio.Future[Failure | None]:
        answer: asyncio.Future[Failure | None] = asyncio.get_running_loop().create_future()
        self.broker.declare_queue(spec, answer.set_result)
        return answer

    def consume(self, spec: QueueSpec, inbox: Inbox, prefetch: int = 10) -> asyncio.Future[QueueConsumer | Failure]:
        answer: asyncio.Future[QueueConsumer | Failure] = asyncio.get_running_loop().create_future()
        self.broker.consume(spec, prefetch, inbox, answer.set_result)
        return answer

    async def consumer(self, spec: QueueSpec, inbox: Inbox, prefetch: int = 10) -> QueueConsumer:
        consumer = await within(self.consume(spec, inbox, prefetch))
        assert not isinstance(consumer, Failure), consumer
        return consumer


OK: dict[type[Frame], Callable[[Any], Frame]] = {
    commands.Channel.Open: lambda frame: commands.Channel.OpenOk(),
    commands.Channel.Close: lambda frame: commands.Channel.CloseOk(),
    commands.Confirm.Select: lambda frame: commands.Confirm.SelectOk(),
    commands.Exchange.Declare: lambda frame: commands.Exchange.DeclareOk(),
    commands.Queue.Declare: lambda frame: commands.Queue.DeclareOk(frame.queue or "amq.gen-1", 0, 0),
    commands.Queue.Bind: lambda frame: commands.Queue.BindOk(),
    commands.Queue.Unbind: lambda frame: commands.Queue.UnbindOk(),
    commands.Queue.Delete: lambda frame: commands.Queue.DeleteOk(0),
    commands.Basic.Qos: lambda frame: commands.Basic.QosOk(),
    commands.Basic.Consume: lambda frame: commands.Basic.ConsumeOk(frame.consumer_tag or "ctag"),
}


class Peer:
    """One connection at the fake broker."""

    def __init__(self, broker: FakeBroker, writer: asyncio.StreamWriter) -> None:
        self.broker = broker
        self.name = ""
        self._writer = writer

    def send(self, channel: int, *frames: Frame | Heartbeat | header.ContentHeader | ContentBody) -> None:
        self._writer.write(b"".join(pamqp.frame.marshal(frame, channel) for frame in frames))

    def deliver(
        self, channel: int, consumer: str, tag: int, body: bytes, properties: commands.Basic.Properties | None = None
    ) -> None:
        self.send(
            channel,
            commands.Basic.Deliver(consumer, tag, False, "e", "k"),
            header.ContentHeader(0, len(body), properties or commands.Basic.Properties()),
            ContentBody(body),
        )

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    def pause(self) -> None:
        """Reads no more."""
        cast(asyncio.Transport, self._writer.transport).pause_reading()

    def resume(self) -> None:
        cast(asyncio.Transport, self._writer.transport).resume_reading()

    def drop(self) -> None:
        self._writer.transport.abort()


class FakeBroker:
    """Answers everything with success, but for what ``answers`` says: a callable per method, which gets the peer, the
    channel's number and the method, and returns whether it took care of it."""

    def __init__(self, channel_max: int = 100, heartbeat: int = 60) -> None:
        self.channel_max = channel_max
        self.heartbeat = heartbeat
        self.url = ""
        self.port = 0
        self.peers: list[Peer] = []
        self.seen: list[tuple[str, int, Frame]] = []
        self.answers: dict[type[Frame], Callable[[Peer, int, Any], bool]] = {}
        self.confirms = True
        self.silent = False
        self._server: asyncio.Server | None = None
        self._tags: dict[tuple[Peer, int], int] = {}

    async def start(self) -> None:
        """Begins to serve; after ``stop`` at the same address."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/%2F"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for peer in self.peers:
            peer.drop()
        await self._server.wait_closed()

    def peer(self, kind: str) -> Peer:
        """The newest connection that ``publish``es or ``consume``s."""
        return next(peer for peer in reversed(self.peers) if peer.name.endswith(kind))

    def of(self, method: type[Frame]) -> list[Any]:
        """The methods of that type that came so far."""
        return [frame for _, _, frame in self.seen if isinstance(frame, method)]

    def channel_of(self, method: type[Frame]) -> int:
        """Where the last method of that type came."""
        return next(channel for _, channel, frame in reversed(self.seen) if isinstance(frame, method))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(self, writer)
        self.peers.append(peer)
        try:
            await reader.readexactly(8)
            capabilities = {"publisher_confirms": True, "basic.nack": True, "accept_consumer_cancel_ok": True}
            peer.send(0, commands.Connection.Start(0, 9, {"capabilities": capabilities}))
            while True:
                head = await reader.readexactly(7)
                data = head + await reader.readexactly(int.from_bytes(head[3:7], "big") + 1)
                _, channel, frame = pamqp.frame.unmarshal(data)
                if not self.silent and isinstance(frame, Frame):
                    self._on_method(peer, channel, frame)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    def _on_method(self, peer: Peer, channel: int, frame: Frame) -> None:
        self.seen.append((peer.name, channel, frame))
        answer = self.answers.get(type(frame))
        if answer is not None and answer(peer, channel, frame):
            return
        match frame:
            case commands.Connection.StartOk():
                peer.name = str((frame.client_properties or {}).get("connection_name"))
                peer.send(0, commands.Connection.Tune(self.channel_max, 4096, self.heartbeat))
            case commands.Connection.Open():
                peer.send(0, commands.Connection.OpenOk())
            case commands.Connection.Close():
                peer.send(0, commands.Connection.CloseOk())
            case commands.Basic.Publish():
                tag = self._tags[peer, channel] = self._tags.get((peer, channel), 0) + 1
                if self.confirms:
                    peer.send(channel, commands.Basic.Ack(tag, False))
            case _:
                reply = OK.get(type(frame))
                if reply is not None:
                    peer.send(channel, reply(frame))


def refuse(code: int, text: str) -> Callable[[Peer, int, Frame], bool]:
    """An answer that closes the channel."""

    def answer(peer: Peer, channel: int, frame: Frame) -> bool:
        class_id, method_id = frame.index >> 16, frame.index & 0xFFFF
        peer.send(channel, commands.Channel.Close(code, text, class_id, method_id))
        return True

    return answer


def ignore(peer: Peer, channel: int, frame: Frame) -> bool:
    """No answer at all."""
    return True
