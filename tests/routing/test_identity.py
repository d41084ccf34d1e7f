from __future__ import annotations

import pytest

from stompbridge.brokers.base import Message
from stompbridge.routing.identity import KEYED, identity_of


@pytest.mark.parametrize(
    ("message", "identity"),
    [
        (Message("", "q", b"", sender="s", seq=3), ("s", 3)),
        (Message("", "q", b"", sender="s", seq=3, message_id="s:3"), ("s", 3)),
        # The same key may be published by another process, under another sender: the id it is made of tells.
        (Message("", "q", b"", sender="s", seq=3, message_id=KEYED + "abc"), KEYED + "abc"),
        (Message("", "q", b"", message_id="order-7"), "order-7"),
        (Message("", "q", b""), None),
        (Message("", "q", b"", message_id=""), None),
        (Message("", "q", b"", sender="s", headers={"x-death": []}), None),
        (Message("", "q", b"", message_id="order-7", headers={"x-death": []}), None),
        (Message("", "q", b"", sender="s", headers={"own": "value"}), ("s", 0)),
    ],
)
def test_by_what_a_message_is_recognised(message: Message, identity: tuple[str, int] | str | None) -> None:
    assert identity_of(message) == identity
