"""The exchanges of the configuration, declared whenever a connection comes up."""

from __future__ import annotations

from collections.abc import Iterable

from ...config import Exchange
from ..base import Failure
from . import methods
from .channel import ChannelClosed
from .link import Link


class TopologyError(Exception):
    """The broker has an exchange of that name that is another, or refuses to have it."""


async def declare(link: Link, exchanges: Iterable[Exchange]) -> None:
    """Declares them. Where the login may not declare, it is enough that they exist.

    Raises :class:`TopologyError` with the broker's reason, or :class:`.LinkLost`.
    """
    for exchange in exchanges:
        try:
            try:
                async with link.scratch() as channel:
                    await channel.call(methods.exchange_declare(exchange.name, exchange.type, durable=exchange.durable))
            except ChannelClosed as problem:
                if problem.failure.code != "access_refused":
                    raise
                async with link.scratch() as channel:
                    await channel.call(methods.exchange_declare(exchange.name, passive=True))
        except (ChannelClosed, ValueError) as problem:
            raise TopologyError(f"{link.where}: exchange {exchange.name!r}: {problem}") from None


async def missing(link: Link, exchange: str) -> Failure | None:
    """Why there is no such exchange, if there is none. Raises :class:`.LinkLost`."""
    try:
        async with link.scratch() as channel:
            await channel.call(methods.exchange_declare(exchange, passive=True))
    except ChannelClosed as refusal:
        return refusal.failure
    except ValueError as refusal:
        return Failure("precondition_failed", f"PRECONDITION_FAILED - {refusal}", fatal=False)
    return None
