"""The checker tells the classes apart."""

from __future__ import annotations

from tests.faults.checker import Figures, Id, Ledger


def ledger_of(count: int = 4, *receivers: str, group: str = "") -> Ledger:
    """One sender, ``count`` confirmed messages, receivers that have got nothing."""
    ledger = Ledger()
    ledger.add_sender("s", "stream")
    for receiver in receivers or ("r",):
        ledger.add_receiver(receiver, "stream", group)
    for number in range(count):
        ledger.attempt(Id("s", number))
        ledger.confirm(Id("s", number))
    return ledger


def deliver(ledger: Ledger, *numbers: int, receiver: str = "r", redelivered: bool = False) -> None:
    for number in numbers:
        ledger.deliver(receiver, Id("s", number), redelivered)


def test_all_is_well() -> None:
    ledger = ledger_of(4, "r", "q")
    deliver(ledger, 0, 1, 2, 3)
    deliver(ledger, 0, 1, 2, 3, receiver="q")
    assert ledger.figures() == Figures(attempted=4, confirmed=4, delivered=8)
    assert not ledger.missing()


def test_lost_is_what_was_confirmed_and_never_came() -> None:
    ledger = ledger_of(4, "r", "q")
    ledger.attempt(Id("s", 4))
    deliver(ledger, 0, 1, 3)
    deliver(ledger, 0, 1, 2, 3, receiver="q")
    assert ledger.figures().lost == ledger.owed == 1
    assert ledger.missing() == {"r": {Id("s", 2)}}
    ledger.add_receiver("comes later", "stream")
    assert ledger.figures().lost == ledger.owed == 5


def test_another_streams_messages_are_not_missed() -> None:
    ledger = ledger_of()
    ledger.add_receiver("elsewhere", "other")
    deliver(ledger, 0, 1, 2, 3)
    assert ledger.figures().lost == 0


def test_a_group_shares_its_messages() -> None:
    ledger = ledger_of(4, "a", "b", group="queue")
    deliver(ledger, 0, 1, receiver="a")
    deliver(ledger, 2, receiver="b")
    figures = ledger.figures()
    assert (figures.delivered, figures.lost, figures.duplicated) == (3, 1, 0)
    deliver(ledger, 1, receiver="b")
    assert ledger.figures().duplicated == 0, "another receiver never had it"


def test_a_second_copy_is_a_duplicate_unless_it_is_marked() -> None:
    ledger = ledger_of()
    deliver(ledger, 0, 1, 2, 3)
    deliver(ledger, 1, redelivered=True)
    assert (ledger.figures().duplicated, ledger.figures().marked) == (0, 1)
    deliver(ledger, 2)
    deliver(ledger, 2)
    assert (ledger.figures().duplicated, ledger.figures().marked) == (2, 1)


def test_a_marked_copy_of_what_was_acknowledged_is_a_duplicate() -> None:
    ledger = ledger_of()
    deliver(ledger, 0, 1, 2, 3)
    ledger.acknowledge("r", Id("s", 1))
    deliver(ledger, 1, redelivered=True)
    assert (ledger.figures().duplicated, ledger.figures().marked) == (1, 1)


def test_a_marked_first_copy_is_a_delivery() -> None:
    ledger = ledger_of(1)
    deliver(ledger, 0, redelivered=True)
    assert ledger.figures() == Figures(attempted=1, confirmed=1, delivered=1)


def test_order_is_kept_for_each_sender() -> None:
    ledger = ledger_of()
    ledger.add_sender("other", "stream")
    for number in range(2):
        ledger.attempt(Id("other", number))
    ledger.deliver("r", Id("other", 1), False)
    deliver(ledger, 0, 2, 1, 3)
    assert ledger.figures().disordered == 1
    ledger.deliver("r", Id("other", 0), True)
    assert ledger.figures().disordered == 1, "what is redelivered comes late by nature"


def test_without_a_receipt_a_message_may_come_or_not() -> None:
    ledger = ledger_of(1)
    for number in (1, 2):
        ledger.attempt(Id("s", number))
    deliver(ledger, 0, 1)
    assert ledger.figures() == Figures(attempted=3, confirmed=1, delivered=2, recovered=1)
    assert ledger.owed == 0
    ledger.confirm(Id("s", 1))
    ledger.confirm(Id("s", 1))
    assert ledger.owed == 0, "it has come before its RECEIPT"


def test_refused_until_confirmed() -> None:
    ledger = ledger_of(1)
    for number in (1, 2):
        ledger.attempt(Id("s", number))
        ledger.refuse(Id("s", number))
    ledger.confirm(Id("s", 1))
    ledger.refuse(Id("s", 1))
    assert ledger.figures().refused == 1


def test_what_nobody_sent_is_unexpected() -> None:
    ledger = ledger_of(1)
    deliver(ledger, 0, 7)
    assert ledger.figures().unexpected == 1


def test_figures_add_up_and_are_one_line() -> None:
    total = Figures(attempted=2, lost=1) + Figures(attempted=3, marked=4)
    assert total == Figures(attempted=5, lost=1, marked=4)
    line = total.line("broker killed")
    assert line.startswith("broker killed: attempted 5, confirmed 0")
    assert "lost 1" in line
    assert "\n" not in line
