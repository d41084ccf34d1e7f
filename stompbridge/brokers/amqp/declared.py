"""What the configuration says about the exchanges of a virtual host."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ...config import Exchange
from .bindings import EVERYTHING, Mailbox
from .exchanges import BUILT_IN


class Declared:
    """``exchanges`` as configured; ``each_key`` binds key by key whatever they say, so that RabbitMQ checks each."""

    def __init__(self, exchanges: Iterable[Exchange], each_key: bool) -> None:
        self._exchanges = {exchange.name: exchange for exchange in exchanges}
        self._each_key = each_key

    def __iter__(self) -> Iterator[Exchange]:
        return iter(self._exchanges.values())

    def type_of(self, name: str) -> str | None:
        """See :meth:`stompbridge.brokers.base.Broker.exchange_type`."""
        declared = self._exchanges.get(name)
        return declared.type if declared is not None else BUILT_IN.get(name)

    def mailbox(self, name: str) -> Mailbox:
        """A new mailbox for an exchange, which knows how its keys are bound."""
        kind = self.type_of(name)
        if kind == "fanout":
            return Mailbox(name, "")
        if kind != "topic" or self._each_key:
            return Mailbox(name, None)
        declared = self._exchanges.get(name)
        bind = declared.bind if declared is not None else "auto"
        return Mailbox(name, EVERYTHING if bind == "all" else None, auto=bind == "auto")
