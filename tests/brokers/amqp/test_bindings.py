"""Storms of bindings: who is answered when, what is bound in the end, and in which order."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import commands
from pamqp import frame as frames

from stompbridge.brokers.amqp.bindings import CALM, PACE, STORM, Bindings, Mailbox
from stompbridge.brokers.amqp.channel import Channel
from stompbridge.brokers.base import Failure

REFUSED = "ACCESS_REFUSED - access to topic 'x' in exchange 'e' in vhost '/' refused for user 'u'"


class Broker:
    """The other end of a channel: keeps requests until it is told to answer, and knows what is bound then."""

    frame_max = 0
    answers_cancel = True

    def __init__(self) -> None:
        self.requests: list[commands.Queue.Bind | commands.Queue.Unbind] = []
        self.asked: list[str] = []
        """``+key`` and ``-key``, in the order of the requests."""
        self.bound: set[str] = set()
        self.refuses: set[str] = set()
        self.channel = Channel(self, 1)

    def send(self, data: bytes) -> None:
        _, _, request = frames.unmarshal(data)
        if isinstance(request, commands.Queue.Bind | commands.Queue.Unbind):
            self.requests.append(request)
            sign = "+" if isinstance(request, commands.Queue.Bind) else "-"
            self.asked.append(f"{sign}{request.routing_key}")

    def release(self, channel: Channel) -> None:
        """Its number is nobody's."""

    def answer(self, count: int = 1_000_000) -> None:
        """Carries out so many requests."""
        for _ in range(min(count, len(self.requests))):
            if not self.requests:
                return
            request = self.requests.pop(0)
            if request.routing_key in self.refuses:
                self.requests.clear()
                self.say(commands.Channel.Close(403, REFUSED, request.index >> 16, request.index & 0xFFFF))
            elif isinstance(request, commands.Queue.Bind):
                self.bound.add(request.routing_key)
                self.say(commands.Queue.BindOk())
            else:
                self.bound.discard(request.routing_key)
                self.say(commands.Queue.UnbindOk())

    def say(self, method: commands.Channel.Close | commands.Queue.BindOk | commands.Queue.UnbindOk) -> None:
        self.channel.method(frames.marshal(method, 1)[7:-1])


class World:
    """Bindings of one mailbox on a broker; time passes as told."""

    def __init__(self, auto: bool = True, linger: float = 30.0) -> None:
        self.now = 1000.0
        self.closed: list[Failure] = []
        self.missing: list[Mailbox] = []
        self.bindings = Bindings(60.0, linger, lambda: self.now, self.missing.append, self.closed.append)
        self.mailbox = Mailbox("e", None, auto=auto)
        self.mailbox.queue = "q"
        self.answers: dict[str, Failure | None] = {}
        self.attach()
        self.mailbox.ready = True

    def attach(self) -> None:
        former = getattr(self, "broker", None)
        self.broker = Broker()
        if former is not None:
            self.broker.bound, self.broker.refuses = former.bound, former.refuses
        self.bindings.attach(self.broker.channel)

    def rebuild(self) -> None:
        """After the broker closed the channel."""
        self.attach()
        self.bindings.send(self.mailbox)

    def want(self, *keys: str) -> None:
        for key in keys:
            self.bindings.want(self.mailbox, key, partial(self.answers.__setitem__, key))

    def sweep(self, seconds: float = 0.25) -> None:
        self.now += seconds
        self.bindings.sweep(self.now)

    def settle(self, seconds: float = 60.0) -> None:
        """Time passes, and the broker answers everything."""
        for _ in range(int(seconds * 4)):
            self.sweep()
            self.broker.answer()


def keys(count: int, prefix: str = "k") -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def test_a_few_dozen_are_bound_one_by_one() -> None:
    world = World()
    world.want(*keys(STORM))
    world.broker.answer()
    assert world.broker.bound == set(keys(STORM)) == set(world.answers)
    assert world.bindings.storms == 0


def test_one_bind_answers_the_storm() -> None:
    world = World()
    world.want(*keys(5000))
    assert world.broker.asked == [*(f"+{key}" for key in keys(STORM)), "+#"]
    world.broker.answer(STORM)
    assert len(world.answers) == STORM
    world.broker.answer()
    assert world.answers == dict.fromkeys(keys(5000))
    assert world.bindings.storms == 1
    # And those who come now need not wait at all.
    world.want("late")
    assert world.answers["late"] is None
    assert len(world.broker.asked) == STORM + 1


def test_every_key_is_bound_before_everything_goes() -> None:
    world = World()
    world.want(*keys(500))
    world.broker.answer()
    for _ in range(200):
        world.sweep()
        assert len(world.broker.requests) <= PACE
        world.broker.answer()
        if "-#" in world.broker.asked:
            break
    assert world.broker.asked.index("-#") == len(world.broker.asked) - 1
    assert world.broker.bound == set(keys(500))
    assert world.bindings.binds == 501
    assert world.now - 1000 >= CALM


def test_a_slow_broker_is_not_given_more() -> None:
    world = World()
    world.want(*keys(500))
    world.broker.answer()
    for _ in range(20):
        world.sweep()
    assert len(world.broker.requests) == PACE


def test_it_stays_while_keys_keep_coming() -> None:
    world = World()
    world.want(*keys(100))
    world.broker.answer()
    for number in range(20):
        world.want(f"more{number}")
        world.settle(CALM - 1)
    assert "-#" not in world.broker.asked
    world.settle()
    assert world.broker.asked[-1] == "-#"
    assert world.broker.bound == {*keys(100), *keys(20, "more")}
    assert world.bindings.storms == 1


def test_a_second_storm_while_everything_is_being_unbound() -> None:
    world = World()
    world.want(*keys(100))
    world.broker.answer()
    while "-#" not in world.broker.asked:
        world.broker.answer()
        world.sweep()
    world.want(*keys(100, "again"))
    assert "again99" not in world.answers
    assert world.broker.asked[-1] == "+#"
    world.broker.answer()
    assert "#" in world.broker.bound
    assert world.answers["again99"] is None
    world.settle()
    assert world.broker.bound == {*keys(100), *keys(100, "again")}
    assert world.mailbox.unbinding == set()


def test_who_left_before_his_key_was_bound_costs_nothing() -> None:
    world = World()
    world.want(*keys(1000))
    world.broker.answer()
    for key in keys(1000):
        world.bindings.release(world.mailbox, key)
    world.settle(120)
    assert world.broker.bound == set()
    assert world.mailbox.bindings == {}
    assert world.bindings.binds == STORM + 1
    assert sorted(world.broker.asked[STORM + 1 :]) == sorted(["-#", *(f"-{key}" for key in keys(STORM))])


def test_without_linger() -> None:
    world = World(linger=0)
    world.want(*keys(1000))
    world.broker.answer()
    for key in keys(990):
        world.bindings.release(world.mailbox, key)
    world.settle()
    assert world.broker.bound == set(keys(1000)[990:])


def test_somebody_listens_to_everything() -> None:
    world = World()
    world.want("#")
    world.broker.answer()
    world.want("early")
    assert "early" not in world.answers
    world.want(*keys(200))
    assert set(world.answers) == {"#", "early", *keys(200)}
    world.settle()
    assert world.broker.bound == {"#", "early", *keys(200)}
    assert "-#" not in world.broker.asked
    world.bindings.release(world.mailbox, "#")
    world.settle()
    assert world.broker.bound == {"early", *keys(200)}


def test_somebody_asks_for_everything_during_the_storm() -> None:
    world = World()
    world.want(*keys(200), "#")
    world.broker.answer()
    world.settle()
    assert world.broker.bound == {"#", *keys(200)}
    assert world.answers["#"] is None


def test_the_link_comes_back() -> None:
    """One bind, and all are served, whatever was bound before."""
    world = World()
    world.want(*keys(300))
    world.settle()
    world.broker.channel.connection_lost("gone")
    world.bindings.detach("gone")
    world.mailbox.unready()
    world.want("meanwhile")
    world.attach()
    world.mailbox.ready = True
    world.bindings.send(world.mailbox)
    assert world.broker.asked == ["+#"]
    world.broker.answer()
    assert world.answers["meanwhile"] is None
    assert world.bindings.storms == 2
    world.settle()
    assert world.broker.bound == {"meanwhile", *keys(300)}


def test_the_link_is_lost_in_the_storm() -> None:
    world = World()
    world.want(*keys(300))
    world.broker.answer()
    world.sweep()
    world.broker.channel.connection_lost("gone")
    world.bindings.detach("gone")
    world.mailbox.unready()
    assert world.mailbox.flying == 0
    world.sweep()
    world.attach()
    world.mailbox.ready = True
    world.bindings.send(world.mailbox)
    assert world.broker.asked == ["+#"]
    world.settle()
    assert world.broker.bound == set(keys(300))
    assert world.bindings.storms == 1


@pytest.mark.parametrize("linger", [0.0, 30.0])
def test_who_leaves_after_a_loss_leaves_nothing_behind(linger: float) -> None:
    """The broker still has what a former link bound."""
    world = World(linger=linger)
    world.want(*keys(300))
    world.settle()
    world.broker.channel.connection_lost("gone")
    world.bindings.detach("gone")
    world.mailbox.unready()
    world.bindings.release(world.mailbox, "k0")
    world.want("k0")
    world.attach()
    world.mailbox.ready = True
    world.bindings.send(world.mailbox)
    world.broker.answer()
    for key in keys(300):
        world.bindings.release(world.mailbox, key)
    world.settle(120)
    assert world.broker.bound == set()


def test_everything_is_refused() -> None:
    """A topic permission that grants keys, but not all of them: each is bound, as without storms."""
    world = World()
    world.broker.refuses.add("#")
    world.want(*keys(300))
    world.broker.answer()
    assert [problem.code for problem in world.closed] == ["access_refused"]
    world.rebuild()
    world.broker.answer()
    assert world.broker.bound == set(keys(300)) == set(world.answers)
    assert set(world.answers.values()) == {None}
    world.want(*keys(300, "more"))
    world.settle()
    assert world.broker.bound == {*keys(300), *keys(300, "more")}
    assert world.bindings.storms == 1


def test_a_key_is_refused_behind_everything() -> None:
    """Its subscriber has been told that it is served, and it is: what goes then is not ``#``."""
    world = World()
    world.broker.refuses.add("k200")
    world.want(*keys(300))
    world.settle()
    while world.closed:
        world.closed.clear()
        world.rebuild()
        world.settle()
    assert world.broker.bound == {"#", *keys(300)} - {"k200"}
    world.bindings.release(world.mailbox, "k200")
    world.settle(120)
    assert world.broker.bound == set(keys(300)) - {"k200"}


def test_the_exchange_goes_away_in_the_storm() -> None:
    world = World()
    world.want(*keys(100))
    problem = Failure("not_found", "NOT_FOUND - no exchange 'e' in vhost '/'")
    world.mailbox.unready()
    world.bindings.fail(world.mailbox, problem)
    assert set(world.answers.values()) == {problem}
    assert world.mailbox.bindings == {}
    assert world.mailbox.shelter is None


def test_a_key_that_cannot_be() -> None:
    world = World()
    world.want(*keys(100))
    world.broker.answer()
    world.want("k" * 256)
    problem = world.answers["k" * 256]
    assert problem is not None
    assert problem.code == "precondition_failed"
    assert "k" * 256 not in world.mailbox.bindings


def test_key_by_key_where_it_is_to_be() -> None:
    world = World(auto=False)
    world.want(*keys(1000))
    world.broker.answer()
    assert world.broker.bound == set(keys(1000))
    assert world.bindings.storms == 0


@pytest.mark.parametrize("auto", [True, False])
def test_a_mass_leave_does_not_keep_others_waiting(auto: bool) -> None:
    world = World(auto=auto)
    world.want(*keys(4000))
    world.broker.answer()
    world.settle()
    assert world.broker.bound == set(keys(4000))
    for key in keys(4000):
        world.bindings.release(world.mailbox, key)
    world.sweep(31)
    assert 0 < len(world.broker.requests) <= 100
    world.settle(60)
    assert world.broker.bound == set()


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("want"), st.integers(1, 120), st.integers(0, 150)),
        st.tuples(st.just("leave"), st.integers(1, 120), st.integers(0, 150)),
        st.tuples(st.just("everything"), st.just(0), st.integers(0, 1)),
        st.tuples(st.just("answer"), st.integers(0, 120), st.just(0)),
        st.tuples(st.just("sweep"), st.integers(1, 40), st.just(0)),
        st.tuples(st.just("outage"), st.just(0), st.just(0)),
    ),
    max_size=30,
)


@settings(deadline=None, max_examples=150)
@given(OPERATIONS, st.sampled_from([0.0, 2.0, 30.0]))
def test_whoever_was_answered_is_served(operations: list[tuple[str, int, int]], linger: float) -> None:
    """At every moment each key whose subscriber was told so is bound, or everything is."""
    world = World(linger=linger)
    there: set[str] = set()

    def leave(key: str) -> None:
        # The hub lets go only of what it was told is bound.
        if key in there and key in world.answers:
            there.discard(key)
            world.answers.pop(key)
            world.bindings.release(world.mailbox, key)

    def want(key: str) -> None:
        if key not in there:
            there.add(key)
            world.want(key)

    for operation, count, start in operations:
        if operation in ("want", "leave"):
            for number in range(start, start + count):
                (want if operation == "want" else leave)(f"k{number}")
        elif operation == "everything":
            (leave if start else want)("#")
        elif operation == "answer":
            world.broker.answer(count)
        elif operation == "sweep":
            for _ in range(count):
                world.sweep()
        else:
            world.broker.channel.connection_lost("gone")
            world.bindings.detach("gone")
            world.mailbox.unready()
            world.attach()
            world.mailbox.ready = True
            world.bindings.send(world.mailbox)
            # The bridge is up, and gives out what comes, once what it sent is answered.
            world.broker.answer()
        if "#" not in world.broker.bound:
            assert there & set(world.answers) <= world.broker.bound
    world.settle(120)
    assert set(world.answers) == there
    assert world.broker.bound == there
    assert set(world.mailbox.bindings) == there
    assert world.mailbox.flying == 0
