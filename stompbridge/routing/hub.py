"""Local subscriptions: which of this process's clients get a message, and the frame that they share.

RabbitMQ delivers one copy of a message for the whole process; the hub matches it against every local subscription
and encodes it once per distinct subscription id and ack mode. Message ids are numbered per process, not per
session, so that all receivers of such a group share the bytes of the whole WebSocket frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from time import monotonic
from typing import NamedTuple, Protocol

from stompbridge.brokers.base import Broker, Done, Failure, Message
from stompbridge.brokers.topics import TopicTrie
from stompbridge.dedup.window import Verdict
from stompbridge.routing.deflate import Deflater
from stompbridge.routing.destinations import shown
from stompbridge.routing.headers import SharedPart, message_head, shared_part
from stompbridge.routing.identity import identity_of
from stompbridge.routing.seen import Seen
from stompbridge.routing.users import EXCHANGE as USERS

INTERNAL = "/internal"
"""The exchange name under which ``/internal/...`` destinations live; no broker is asked for it."""


class FrameKey(NamedTuple):
    """What the bytes of a MESSAGE frame depend on, beside the message."""

    tag: str
    """The subscription's consumer tag, part of the message id."""
    subscription: str | None
    """The ``subscription`` header; none for a subscription without id."""
    with_ack: bool
    """Whether an ``ack`` header is due (STOMP 1.2, ack mode other than auto)."""
    direct: bool
    """Whether the frame is written without further ado: nothing to be acknowledged, no history to be asked."""
    shown: str | None = None
    """The ``destination`` header, where it is not that of the message: a user's own messages look the same to all."""
    compressed: bool = False
    """Whether the receiver takes compressed WebSocket messages."""


class Receiver(Protocol):
    """One subscription of one client."""

    frame_key: FrameKey

    @property
    def session(self) -> str:
        """The client's session id."""

    def write(self, frames: bytes, count: int = 1) -> None:
        """Takes so many shared frames, joined; called where the frame key says ``direct``."""

    def deliver(self, frame: bytes, ack_id: str, message: Message) -> None:
        """Takes a shared frame, its ack id, and what it was made of; called where it does not."""


class Wrap(Protocol):
    """Makes a WebSocket frame: of text, or as binary, or of what :class:`Deflater` made of it."""

    def __call__(self, payload: bytes, binary: bool, compressed: bool = False) -> bytes: ...


Tap = Callable[[Message], None]
"""A listener inside the process, such as the health probe."""


class _Group:
    """Receivers that share a frame. Iterated over a snapshot: a write may end in the removal of a receiver."""

    __slots__ = ("_members", "_snapshot", "node")

    def __init__(self, node: Node) -> None:
        self.node = node
        self._members: dict[Receiver, None] = {}
        self._snapshot: tuple[Receiver, ...] = ()

    def __len__(self) -> int:
        return len(self._members)

    def add(self, receiver: Receiver) -> None:
        self._members[receiver] = None
        self._snapshot = ()

    def discard(self, receiver: Receiver) -> bool:
        """Removes a receiver; True when none is left."""
        self._members.pop(receiver, None)
        self._snapshot = ()
        return not self._members

    def receivers(self) -> tuple[Receiver, ...]:
        if not self._snapshot:
            self._snapshot = tuple(self._members)
        return self._snapshot


class Node:
    """One binding key of one exchange and everyone here who asked for it."""

    __slots__ = ("delivered", "groups", "taps", "waiting")

    def __init__(self) -> None:
        self.delivered = 0
        """Messages, once for each of those who asked."""
        self.groups: dict[FrameKey, _Group] = {}
        self.taps: list[Tap] = []
        # Callbacks of subscribers that wait for the broker's answer to the bind; None once it is bound.
        self.waiting: list[tuple[Receiver | Tap, Done]] | None = []

    @property
    def empty(self) -> bool:
        return not self.groups and not self.taps

    @property
    def subscribers(self) -> int:
        """How many of them are clients' subscriptions."""
        return sum(len(group) for group in self.groups.values())

    @property
    def shown(self) -> str | None:
        """The destination that they named, where it is not that of the messages."""
        return next((key.shown for key in self.groups), None)


class _Mailbox:
    """The subscriptions on one exchange, and what came through it."""

    __slots__ = ("nodes", "seen", "type")

    def __init__(self, exchange_type: str, seen: Seen) -> None:
        self.type = exchange_type
        self.seen = seen
        self.nodes: TopicTrie[Node] = TopicTrie(Node)

    def binding_key(self, key: str) -> str:
        # A fanout exchange ignores keys, so one binding serves all of its subscriptions.
        return "" if self.type == "fanout" else key

    def match(self, key: str) -> Iterable[Node]:
        if self.type == "topic":
            return self.nodes.match(key)
        node = self.nodes.get(self.binding_key(key))
        return () if node is None else (node,)


class Hub:
    """The local subscriptions of the process.

    ``wrap`` makes a WebSocket frame of a STOMP frame. ``boot`` is the process's part of its message ids.
    """

    def __init__(self, broker: Broker, wrap: Wrap, boot: str, window: int, history_ttl: float) -> None:
        self._broker = broker
        self._wrap = wrap
        self._deflater = Deflater()
        self._boot = boot
        self._window = window
        self._history_ttl = history_ttl
        self._number = 0
        self._mailboxes: dict[str, _Mailbox] = {}
        self.deliveries = 0
        self.suppressed = 0
        self.in_doubt = 0

    def can_serve(self, exchange: str) -> bool:
        """Whether subscriptions on this exchange can be matched here; others need a queue of their own."""
        return self._broker.exchange_type(exchange) in ("topic", "direct", "fanout")

    # Subscribing

    def subscribe(self, exchange: str, key: str, receiver: Receiver, done: Done) -> None:
        """Adds a receiver; ``done`` when a message published from now on will reach it. May call inside."""
        node = self._node(exchange, key)
        group = node.groups.get(receiver.frame_key)
        if group is None:
            group = node.groups[receiver.frame_key] = _Group(node)
        group.add(receiver)
        self._ensure_bound(exchange, key, node, receiver, done)

    def unsubscribe(self, exchange: str, key: str, receiver: Receiver) -> None:
        """Removes a receiver: nothing is written to it from now on."""
        mailbox = self._mailboxes.get(exchange)
        node = mailbox.nodes.get(mailbox.binding_key(key)) if mailbox else None
        if node is None:
            return
        group = node.groups.get(receiver.frame_key)
        if group is not None and group.discard(receiver):
            del node.groups[receiver.frame_key]
        self._drop_if_unused(exchange, key, node)

    def tap(self, exchange: str, key: str, tap: Tap, done: Done) -> None:
        """Adds a listener inside the process, for as long as the process runs."""
        node = self._node(exchange, key)
        node.taps.append(tap)
        self._ensure_bound(exchange, key, node, tap, done)

    def _node(self, exchange: str, key: str) -> Node:
        mailbox = self._mailboxes.get(exchange)
        if mailbox is None:
            exchange_type = "topic" if exchange == INTERNAL else self._broker.exchange_type(exchange) or "topic"
            mailbox = _Mailbox(exchange_type, Seen(self._window, self._history_ttl))
            self._mailboxes[exchange] = mailbox
        return mailbox.nodes.node(mailbox.binding_key(key))

    def _ensure_bound(self, exchange: str, key: str, node: Node, who: Receiver | Tap, done: Done) -> None:
        if exchange == INTERNAL:
            node.waiting = None
        if node.waiting is None:
            done(None)
            return
        node.waiting.append((who, done))
        if len(node.waiting) == 1:
            binding_key = self._mailboxes[exchange].binding_key(key)
            self._broker.bind(exchange, binding_key, lambda failure: self._on_bound(exchange, key, node, failure))

    def _on_bound(self, exchange: str, key: str, node: Node, failure: Failure | None) -> None:
        waiting, node.waiting = node.waiting or [], None
        if failure is not None:
            for who, _ in waiting:
                self._remove(node, who)
            # Nothing is bound: the node goes without an unbind.
            mailbox = self._mailboxes[exchange]
            mailbox.nodes.remove(mailbox.binding_key(key))
        for _, done in waiting:
            done(failure)
        if failure is None:
            self._drop_if_unused(exchange, key, node)

    @staticmethod
    def _remove(node: Node, who: Receiver | Tap) -> None:
        for frame_key, group in list(node.groups.items()):
            if group.discard(who):  # type: ignore[arg-type]
                del node.groups[frame_key]
        node.taps = [tap for tap in node.taps if tap is not who]

    def _drop_if_unused(self, exchange: str, key: str, node: Node) -> None:
        # A node whose bind is outstanding stays until the answer, so that bind and unbind can not cross.
        if not node.empty or node.waiting is not None:
            return
        mailbox = self._mailboxes[exchange]
        if mailbox.nodes.get(mailbox.binding_key(key)) is node:
            mailbox.nodes.remove(mailbox.binding_key(key))
            if exchange != INTERNAL:
                self._broker.unbind(exchange, mailbox.binding_key(key))

    def nodes(self) -> list[tuple[str, str, Node]]:
        """All that is subscribed to: exchange, key, and who."""
        return [(exchange, key, node) for exchange, box in self._mailboxes.items() for key, node in box.nodes.items()]

    # Delivering

    def on_mailbox_messages(self, exchange: str, messages: Sequence[Message]) -> None:
        """Messages from the broker. A copy of what came through this exchange before is suppressed, once for all
        receivers; the same message may rightly come through two exchanges. Neighbours with one routing key go to a
        receiver in one piece."""
        mailbox = self._mailboxes.get(exchange)
        if mailbox is None:
            return
        now = monotonic()
        gathered: dict[_Group, list[bytes]] = {}
        run, last = "", len(messages) - 1
        try:
            for index, message in enumerate(messages):
                identity = identity_of(message)
                if identity is not None:
                    verdict = mailbox.seen.check_and_record(identity, now)
                    if verdict is Verdict.DUPLICATE:
                        self.suppressed += 1
                        continue
                    if verdict is Verdict.TOO_OLD and message.redelivered:
                        self.in_doubt += 1
                key = message.routing_key
                nodes, destination = mailbox.match(key), shown(message.exchange, key)
                if exchange == USERS:
                    self._fan_out_to_user(nodes, message, destination)
                    continue
                if gathered and key != run:
                    self._write(gathered)
                run = key
                more = bool(gathered) or (index < last and messages[index + 1].routing_key == key)
                self._fan_out(nodes, message, destination, gathered if more else None)
        finally:
            self._write(gathered)

    def publish_internal(self, key: str, body: bytes, content_type: str) -> None:
        """Sends a notice of the process itself to the local subscribers of ``/internal/<key>``."""
        mailbox = self._mailboxes.get(INTERNAL)
        if mailbox is not None:
            message = Message(INTERNAL, key, body, content_type=content_type)
            self._fan_out(mailbox.match(key), message, f"{INTERNAL}/{key}")

    def encode(self, key: FrameKey, message: Message) -> tuple[bytes, str]:
        """One message for one receiver: the WebSocket frame and its ack id."""
        self._number += 1
        shared = shared_part(message, key.shown or shown(message.exchange, message.routing_key))
        ack_id = f"{key.tag}@@{self._boot}@@{self._number}"
        return self._frame(key, ack_id, shared), ack_id

    def redeliver(self, receiver: Receiver, message: Message) -> None:
        """Delivers again what a client gave back."""
        message = replace(message, redelivered=True)
        receiver.deliver(*self.encode(receiver.frame_key, message), message)

    def sweep(self, now: float) -> None:
        """Forgets what came longer than ``history_ttl`` ago."""
        for mailbox in self._mailboxes.values():
            mailbox.seen.sweep(now)

    def _fan_out(
        self,
        nodes: Iterable[Node],
        message: Message,
        destination: str,
        gathered: dict[_Group, list[bytes]] | None = None,
    ) -> None:
        """With ``gathered``, frames that are simply to be written are added to it instead."""
        self._number += 1
        suffix = f"@@{self._boot}@@{self._number}"
        shared: SharedPart | None = None
        for node in nodes:
            for key, group in list(node.groups.items()):
                if shared is None:
                    shared = shared_part(message, destination)
                if gathered is not None and key.direct:
                    gathered.setdefault(group, []).append(self._frame(key, key.tag + suffix, shared))
                else:
                    receivers = group.receivers()
                    node.delivered += len(receivers)
                    self._give(key, receivers, message, suffix, shared)
            for tap in node.taps:
                tap(message)

    def _write(self, gathered: dict[_Group, list[bytes]]) -> None:
        """One write for each receiver, and so one system call: that is most of what a delivery costs."""
        for group, frames in gathered.items():
            data, count, receivers = b"".join(frames), len(frames), group.receivers()
            self.deliveries += count * len(receivers)
            group.node.delivered += count * len(receivers)
            for receiver in receivers:
                receiver.write(data, count)
        gathered.clear()

    def _fan_out_to_user(self, nodes: Iterable[Node], message: Message, destination: str) -> None:
        """Each subscription sees the destination that it named. A ``session`` header picks one of the sessions."""
        self._number += 1
        suffix = f"@@{self._boot}@@{self._number}"
        session = message.headers.get("session")
        shared: dict[str, SharedPart] = {}
        for node in nodes:
            for key, group in list(node.groups.items()):
                receivers = group.receivers()
                if session is not None:
                    receivers = tuple(receiver for receiver in receivers if receiver.session == session)
                if receivers:
                    node.delivered += len(receivers)
                    text = key.shown or destination
                    if text not in shared:
                        shared[text] = shared_part(message, text)
                    self._give(key, receivers, message, suffix, shared[text])

    def _give(
        self, key: FrameKey, receivers: Sequence[Receiver], message: Message, suffix: str, shared: SharedPart
    ) -> None:
        ack_id = key.tag + suffix
        frame = self._frame(key, ack_id, shared)
        self.deliveries += len(receivers)
        if key.direct:
            for receiver in receivers:
                receiver.write(frame)
        else:
            for receiver in receivers:
                receiver.deliver(frame, ack_id, message)

    def _frame(self, key: FrameKey, ack_id: str, shared: SharedPart) -> bytes:
        head = message_head(key.subscription, ack_id, key.with_ack, shared)
        if key.compressed:
            payload = self._deflater.payload(head, shared.rest)
            if payload:
                return self._wrap(payload, shared.binary, True)
        return self._wrap(head + shared.rest, shared.binary)
