"""The busiest destinations of a process: what clients send to, and what is delivered to them."""

from __future__ import annotations

from heapq import nlargest
from urllib.parse import unquote

from msgspec import Struct

from stompbridge.admin.daemon_view import DaemonView
from stompbridge.admin.views import clients, slices
from stompbridge.gateway.subscriptions import QueueReceiver
from stompbridge.routing.destinations import Kind, parse, shown
from stompbridge.routing.hub import INTERNAL, Node
from stompbridge.routing.users import EXCHANGE as USERS
from stompbridge.stomp.errors import StompError


class DestinationView(Struct, kw_only=True):
    destination: str
    subscribers: int = 0
    messages_in: int = 0
    """SENDs since the start; of destinations that are not among the busiest, at least so many."""
    messages_out: int = 0
    """Delivered messages, of the subscriptions that there are now."""


async def busiest(daemon: DaemonView, limit: int) -> list[DestinationView]:
    """The ``limit`` destinations with the most messages, both ways together. Others have their turn meanwhile."""
    table: dict[str, DestinationView] = {}

    def row(destination: str) -> DestinationView:
        found = table.get(destination)
        if found is None:
            found = table[destination] = DestinationView(destination=destination)
        return found

    for text, count in daemon.router.sent.counts().items():
        row(canonical(text)).messages_in += count
    routers = [daemon.router, *(daemon.upstreams.routers() if daemon.upstreams is not None else ())]
    async for nodes in slices([node for router in routers for node in router.hub.nodes()]):
        for exchange, key, node in nodes:
            # What has no groups is the process's own affair.
            if node.groups:
                each = row(_text(exchange, key, node))
                each.subscribers += node.subscribers
                each.messages_out += node.delivered
    async for some in slices(clients(daemon)):
        for client in some:
            for receiver in client.receivers:
                if isinstance(receiver, QueueReceiver):
                    each = row(canonical(receiver.subscription.destination))
                    each.subscribers += 1
                    each.messages_out += receiver.delivered
    return nlargest(limit, table.values(), key=lambda each: (each.messages_in + each.messages_out, each.subscribers))


def _text(exchange: str, key: str, node: Node) -> str:
    """The destination that clients know a node by."""
    if exchange == INTERNAL:
        return f"{INTERNAL}/{key}"
    if exchange == USERS:
        # The first word of the key is the user's name; what the client wrote is behind it.
        return f"/user/{unquote(key.partition('.')[0])}{(node.shown or '').removeprefix('/user')}"
    return shown(exchange, key)


def canonical(text: str) -> str:
    """The one way to write a destination of which there are several."""
    try:
        destination = parse(text, "SEND")
    except StompError:
        return text
    return text if destination.kind in (Kind.APP, Kind.USER) else shown(destination.exchange, destination.key)
