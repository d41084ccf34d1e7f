from __future__ import annotations

import zlib
from collections.abc import Callable

import pytest

from stompbridge.brokers.base import Done, Failure, Message
from stompbridge.routing import deflate
from stompbridge.routing.hub import INTERNAL, FrameKey, Hub

AUTO = FrameKey("T_a", "a", False, True)
CLIENT = FrameKey("T_a", "a", True, False)


class ScriptedBroker:
    """The part of a broker that the hub uses, with binds answered when the test says so."""

    def __init__(self) -> None:
        self.binds: list[tuple[str, str, Done]] = []
        self.unbinds: list[tuple[str, str]] = []
        self.types = {"t": "topic", "d": "direct", "f": "fanout", "h": "headers"}

    def exchange_type(self, exchange: str) -> str | None:
        return self.types.get(exchange)

    def bind(self, exchange: str, key: str, done: Done) -> None:
        self.binds.append((exchange, key, done))

    def unbind(self, exchange: str, key: str) -> None:
        self.unbinds.append((exchange, key))

    def answer(self, failure: Failure | None = None) -> None:
        self.binds.pop(0)[2](failure)


class Recorder:
    def __init__(self, key: FrameKey = AUTO) -> None:
        self.frame_key = key
        self.frames: list[bytes] = []
        self.counts: list[int] = []
        self.ack_ids: list[str] = []
        self.on_write: Callable[[], None] = lambda: None

    def write(self, frames: bytes, count: int = 1) -> None:
        parts = frames.split(b"\0\n")
        self.frames += [frames] if count == 1 else [part + b"\0\n" for part in parts[:-1]]
        self.counts.append(count)
        self.on_write()

    def deliver(self, frame: bytes, ack_id: str, message: Message) -> None:
        self.frames.append(frame)
        self.ack_ids.append(ack_id)


@pytest.fixture
def broker() -> ScriptedBroker:
    return ScriptedBroker()


@pytest.fixture
def hub(broker: ScriptedBroker) -> Hub:
    def wrap(payload: bytes, binary: bool, compressed: bool = False) -> bytes:
        return (b"Z" if compressed else b"") + (b"B" if binary else b"T") + payload

    return Hub(broker, wrap, "boot", 1024, 60.0)  # type: ignore[arg-type]


class Answers(list[Failure | None]):
    def done(self, failure: Failure | None) -> None:
        self.append(failure)


def subscribed(hub: Hub, broker: ScriptedBroker, exchange: str, key: str, receiver: Recorder | None = None) -> Recorder:
    receiver = receiver or Recorder()
    answers = Answers()
    hub.subscribe(exchange, key, receiver, answers.done)
    if broker.binds:
        broker.answer()
    assert answers == [None]
    return receiver


def message(key: str = "k", body: bytes = b"hello", **kwargs: object) -> Message:
    return Message("t", key, body, **kwargs)  # type: ignore[arg-type]


def test_only_known_exchange_types_are_matched_here(hub: Hub) -> None:
    assert [hub.can_serve(name) for name in ("t", "d", "f", "h", "unknown")] == [True, True, True, False, False]


def test_the_first_subscriber_of_a_key_binds_and_the_others_wait_for_it(hub: Hub, broker: ScriptedBroker) -> None:
    answers = Answers()
    for _ in range(3):
        hub.subscribe("t", "k", Recorder(), answers.done)
    assert [bind[:2] for bind in broker.binds] == [("t", "k")]
    assert answers == []
    broker.answer()
    assert answers == [None, None, None]
    hub.subscribe("t", "k", Recorder(), answers.done)
    assert len(answers) == 4
    assert broker.binds == []


def test_the_last_subscriber_of_a_key_unbinds(hub: Hub, broker: ScriptedBroker) -> None:
    first = subscribed(hub, broker, "t", "k")
    second = subscribed(hub, broker, "t", "k")
    hub.unsubscribe("t", "k", first)
    assert broker.unbinds == []
    hub.unsubscribe("t", "k", second)
    assert broker.unbinds == [("t", "k")]
    hub.unsubscribe("t", "k", second)
    hub.unsubscribe("other", "k", second)
    assert broker.unbinds == [("t", "k")]


def test_unsubscribing_before_the_bind_is_answered_unbinds_after_it(hub: Hub, broker: ScriptedBroker) -> None:
    receiver, answers = Recorder(), Answers()
    hub.subscribe("t", "k", receiver, answers.done)
    hub.unsubscribe("t", "k", receiver)
    assert broker.unbinds == []
    broker.answer()
    assert broker.unbinds == [("t", "k")]


def test_a_refused_bind_removes_those_who_waited_for_it(hub: Hub, broker: ScriptedBroker) -> None:
    receiver, answers = Recorder(), Answers()
    hub.subscribe("t", "k", receiver, answers.done)
    refusal = Failure("not_found", "NOT_FOUND - no exchange 't' in vhost '/'")
    broker.answer(refusal)
    assert answers == [refusal]
    hub.on_mailbox_messages("t", [message()])
    assert receiver.frames == []
    assert broker.unbinds == []
    hub.subscribe("t", "k", receiver, answers.done)
    assert len(broker.binds) == 1


def test_a_refused_bind_removes_a_tap(hub: Hub, broker: ScriptedBroker) -> None:
    seen: list[Message] = []
    hub.tap("t", "k", seen.append, Answers().done)
    broker.answer(Failure("not_found", ""))
    hub.on_mailbox_messages("t", [message()])
    assert seen == []


def test_receivers_with_the_same_subscription_id_share_one_frame(hub: Hub, broker: ScriptedBroker) -> None:
    receivers = [subscribed(hub, broker, "t", "k") for _ in range(3)]
    other = subscribed(hub, broker, "t", "k", Recorder(FrameKey("T_b", "b", False, True)))
    hub.on_mailbox_messages("t", [message()])
    assert len({id(receiver.frames[0]) for receiver in receivers}) == 1
    assert b"subscription:a\n" in receivers[0].frames[0]
    assert b"subscription:b\n" in other.frames[0]
    assert hub.deliveries == 4


def test_frames_say_where_the_message_came_from(hub: Hub, broker: ScriptedBroker) -> None:
    receiver = subscribed(hub, broker, "t", "k", Recorder(CLIENT))
    hub.on_mailbox_messages("t", [message()])
    frame = receiver.frames[0]
    assert frame.startswith(b"TMESSAGE\n")
    assert b"\ndestination:/exchange/t/k\n" in frame
    assert receiver.ack_ids == ["T_a@@boot@@1"]
    assert b"\nmessage-id:T_a@@boot@@1\n" in frame
    assert b"\nack:T_a@@boot@@1\n" in frame


def test_a_body_that_is_no_text_is_wrapped_as_binary(hub: Hub, broker: ScriptedBroker) -> None:
    receiver = subscribed(hub, broker, "t", "k")
    hub.on_mailbox_messages("t", [message(body=b"\xff\xfe")])
    assert receiver.frames[0].startswith(b"BMESSAGE\n")


@pytest.mark.parametrize(
    ("exchange", "pattern", "key", "matches"),
    [
        ("t", "a.*", "a.b", True),
        ("t", "a.*", "a.b.c", False),
        ("t", "a.#", "a.b.c", True),
        ("d", "a.*", "a.b", False),
        ("d", "a.b", "a.b", True),
        ("f", "whatever", "a.b", True),
    ],
)
def test_matching_follows_the_exchange_type(
    hub: Hub, broker: ScriptedBroker, exchange: str, pattern: str, key: str, matches: bool
) -> None:
    receiver = subscribed(hub, broker, exchange, pattern)
    hub.on_mailbox_messages(exchange, [Message(exchange, key, b"x")])
    assert bool(receiver.frames) is matches


def test_a_fanout_exchange_is_bound_once_for_all_keys(hub: Hub, broker: ScriptedBroker) -> None:
    first = subscribed(hub, broker, "f", "a")
    subscribed(hub, broker, "f", "b")
    assert broker.binds == []
    hub.unsubscribe("f", "a", first)
    assert broker.unbinds == []


def test_a_message_that_came_through_another_exchange_is_matched_by_its_mailbox(
    hub: Hub, broker: ScriptedBroker
) -> None:
    receiver = subscribed(hub, broker, "t", "k")
    hub.on_mailbox_messages("t", [Message("source", "k", b"x")])
    assert b"\ndestination:/exchange/source/k\n" in receiver.frames[0]
    hub.on_mailbox_messages("nobody-here", [Message("nobody-here", "k", b"x")])
    assert len(receiver.frames) == 1


def test_a_copy_is_suppressed_once_for_all_receivers(hub: Hub, broker: ScriptedBroker) -> None:
    receiver = subscribed(hub, broker, "t", "k")
    stamped = message(sender="s", seq=7)
    again = message(sender="s", seq=7, redelivered=True)
    hub.on_mailbox_messages("t", [stamped, again, message(sender="s", seq=6), message(sender="other", seq=7)])
    assert len(receiver.frames) == 3
    assert hub.suppressed == 1


def test_the_same_message_may_come_through_two_exchanges(hub: Hub, broker: ScriptedBroker) -> None:
    receiver = subscribed(hub, broker, "t", "k")
    subscribed(hub, broker, "d", "k", receiver)
    for exchange in ("t", "d"):
        hub.on_mailbox_messages(exchange, [message(sender="s", seq=1)])
    assert len(receiver.frames) == 2


def test_dead_lettered_and_unstamped_messages_are_not_suppressed(hub: Hub, broker: ScriptedBroker) -> None:
    receiver = subscribed(hub, broker, "t", "k")
    round_again = message(sender="s", seq=1, headers={"x-death": []})
    hub.on_mailbox_messages("t", [message(sender="s", seq=1), round_again, message(), message()])
    assert len(receiver.frames) == 4


def test_what_is_older_than_the_window_is_delivered_and_counted(hub: Hub, broker: ScriptedBroker) -> None:
    receiver = subscribed(hub, broker, "t", "k")
    hub.on_mailbox_messages(
        "t",
        [message(sender="s", seq=5000), message(sender="s", seq=1), message(sender="s", seq=2, redelivered=True)],
    )
    assert len(receiver.frames) == 3
    assert hub.in_doubt == 1


def test_forgotten_senders_start_anew(hub: Hub, broker: ScriptedBroker) -> None:
    receiver = subscribed(hub, broker, "t", "k")
    hub.on_mailbox_messages("t", [message(sender="s", seq=1)])
    hub.sweep(float("inf"))
    hub.on_mailbox_messages("t", [message(sender="s", seq=1)])
    assert len(receiver.frames) == 2


def test_a_receiver_may_leave_while_a_message_is_delivered(hub: Hub, broker: ScriptedBroker) -> None:
    leaver, stayer = Recorder(), Recorder()
    for receiver in (leaver, stayer):
        subscribed(hub, broker, "t", "k", receiver)
    leaver.on_write = lambda: hub.unsubscribe("t", "k", leaver)
    for _ in range(2):
        hub.on_mailbox_messages("t", [message()])
    assert len(leaver.frames) == 1
    assert len(stayer.frames) == 2


def test_neighbours_with_one_key_are_written_together(hub: Hub, broker: ScriptedBroker) -> None:
    first, second, all_of_them = Recorder(), Recorder(FrameKey("T_b", "b", False, True)), Recorder()
    acknowledging = subscribed(hub, broker, "t", "k", Recorder(CLIENT))
    for receiver in (first, second):
        subscribed(hub, broker, "t", "k", receiver)
    subscribed(hub, broker, "t", "#", all_of_them)
    hub.on_mailbox_messages("t", [message(body=b"1"), message(body=b"2"), message("l", b"3"), message(body=b"4")])
    for receiver in (first, second):
        assert [frame[-3:-2] for frame in receiver.frames] == [b"1", b"2", b"4"]
        assert receiver.counts == [2, 1]
    assert [frame[-3:-2] for frame in all_of_them.frames] == [b"1", b"2", b"3", b"4"]
    assert all_of_them.counts == [2, 1, 1]
    assert [frame[-3:-2] for frame in acknowledging.frames] == [b"1", b"2", b"4"]
    assert acknowledging.counts == []
    assert hub.deliveries == 13


def test_a_copy_that_ends_a_run_keeps_nothing_back(hub: Hub, broker: ScriptedBroker) -> None:
    receiver = subscribed(hub, broker, "t", "k")
    once, twice = message(body=b"1", sender="s", seq=1), message(body=b"2", sender="s", seq=2)
    hub.on_mailbox_messages("t", [once, twice, twice])
    assert [frame[-3:-2] for frame in receiver.frames] == [b"1", b"2"]
    hub.on_mailbox_messages("t", [message(body=b"3"), once])
    assert [frame[-3:-2] for frame in receiver.frames] == [b"1", b"2", b"3"]


def test_an_error_keeps_back_nothing_that_was_ready(hub: Hub, broker: ScriptedBroker) -> None:
    receiver = subscribed(hub, broker, "t", "k")

    def fail(_message: Message) -> None:
        raise RuntimeError

    hub.tap("t", "k", fail, lambda failure: None)
    with pytest.raises(RuntimeError):
        hub.on_mailbox_messages("t", [message(body=b"1"), message(body=b"2")])
    assert [frame[-3:-2] for frame in receiver.frames] == [b"1"]


def test_internal_notices_stay_in_the_process(hub: Hub, broker: ScriptedBroker) -> None:
    hub.publish_internal("healthcheck", b"nobody listens", "text/plain")
    receiver, answers = Recorder(), Answers()
    hub.subscribe(INTERNAL, "healthcheck", receiver, answers.done)
    assert answers == [None]
    assert broker.binds == []
    hub.publish_internal("healthcheck", b"{}", "application/json")
    assert b"\ndestination:/internal/healthcheck\n" in receiver.frames[0]
    assert b"\ncontent-type:application/json\n" in receiver.frames[0]
    hub.unsubscribe(INTERNAL, "healthcheck", receiver)
    assert broker.unbinds == []
    hub.publish_internal("healthcheck", b"{}", "application/json")
    assert len(receiver.frames) == 1


def test_what_is_given_back_comes_again_marked(hub: Hub, broker: ScriptedBroker) -> None:
    receiver = subscribed(hub, broker, "t", "k", Recorder(CLIENT))
    original = message()
    hub.on_mailbox_messages("t", [original])
    hub.redeliver(receiver, original)
    assert b"\nredelivered:false\n" in receiver.frames[0]
    assert b"\nredelivered:true\n" in receiver.frames[1]
    assert receiver.ack_ids[0] != receiver.ack_ids[1]
    assert not original.redelivered


def test_a_tap_hears_messages_as_they_are(hub: Hub, broker: ScriptedBroker) -> None:
    seen: list[Message] = []
    hub.tap("t", "k", seen.append, Answers().done)
    broker.answer()
    sent = message()
    hub.on_mailbox_messages("t", [sent])
    assert seen == [sent]


def inflated(frame: bytes) -> bytes:
    return zlib.decompressobj(-deflate.WINDOW_BITS).decompress(frame[2:] + b"\0\0\xff\xff")


def test_a_message_is_compressed_once_for_all_who_take_it_so(
    hub: Hub, broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = subscribed(hub, broker, "t", "k")
    keys = [FrameKey(f"T_{name}", name, name == "b", name != "b", None, True) for name in "aabc"]
    receivers = [subscribed(hub, broker, "t", "k", Recorder(key)) for key in keys]
    compress, calls = deflate._deflate, []

    def count(data: bytes) -> bytes:
        calls.append(data)
        return compress(data)

    monkeypatch.setattr(deflate, "_deflate", count)
    hub.on_mailbox_messages("t", [message(body=b"hello " * 100)])
    assert len(calls) == 1
    assert receivers[0].frames[0] is receivers[1].frames[0]
    for key, receiver in zip(keys, receivers, strict=True):
        [frame] = receiver.frames
        assert frame[:2] == b"ZT"
        ack = f"ack:{key.tag}@@boot@@1\n".encode() if key.with_ack else b""
        expected = plain.frames[0][1:].replace(b"subscription:a", b"subscription:" + key.subscription.encode())
        expected = expected.replace(b"T_a@@boot@@1\n", f"{key.tag}@@boot@@1\n".encode())
        expected = expected.replace(b"redelivered:false\n", b"redelivered:false\n" + ack)
        assert inflated(frame) == expected
        assert len(frame) < len(expected) // 2


def test_a_short_message_is_not_compressed(hub: Hub, broker: ScriptedBroker) -> None:
    plain = subscribed(hub, broker, "t", "k")
    receiver = subscribed(hub, broker, "t", "k", Recorder(AUTO._replace(compressed=True)))
    hub.on_mailbox_messages("t", [message()])
    assert receiver.frames == plain.frames


def test_a_single_message_is_compressed_too(hub: Hub) -> None:
    one, _ = hub.encode(AUTO._replace(compressed=True), message(body=b"\xff" * 1000))
    assert one[:2] == b"ZB"
    assert inflated(one).endswith(b"\n\n" + b"\xff" * 1000 + b"\0\n")
