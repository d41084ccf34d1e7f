"""The drain: the sessions of a process that stops are closed one after the other, each when its business is settled."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from stompbridge.gateway.client import Client
from stompbridge.gateway.closing import CloseReason
from stompbridge.gateway.connection import Connection
from stompbridge.gateway.listener import Gateway

PACE = 200.0
"""Sessions a second that the drain does not stay below: as many reconnects are no burden to anyone."""
AT_ONCE = 50
"""Sessions that are told at once where nothing says how long it should take."""
ACK_PATIENCE = 1.0
"""Seconds that a client gets to acknowledge what it holds of queues."""

_TICK = 0.02
_PROGRESS = 5.0


def spread(sessions: int, drain_time: float) -> float:
    """Over how many seconds so many sessions are told to go."""
    return min(drain_time, max(0, sessions - AT_ONCE) / PACE)


@dataclass(slots=True)
class _Leaver:
    """A session that has been told, or is about to be: it is closed once it holds nothing and waits for nothing."""

    client: Client
    acks_until: float
    answers_until: float
    silent: bool = False

    def may_go(self, now: float) -> bool:
        client = self.client
        if not self.silent and (now >= self.acks_until or not client.owes):
            # A transaction is not torn apart for as long as there is time.
            if client.committing and now < self.answers_until:
                return False
            self.silent = True
            client.take_no_more()
        return now >= self.answers_until or (self.silent and not client.unanswered)


class Drain:
    """Closes all connections of a gateway that accepts no more. Heart-beats and deliveries go on for those that have
    not been told yet. Then for each session in turn:

    1. Queues give it nothing more. It may acknowledge what it holds (``ACK_PATIENCE``).
    2. Nothing more is taken from it. What it sent is confirmed and answered (``patience`` seconds from 1. on, unless
       its broker is away).
    3. It gets a Close frame, 1012. What it has not acknowledged goes back to its queues.

    So a client that sends again what was not answered doubles nothing, even where the next process remembers nothing of
    this one.
    """

    def __init__(self, gateway: Gateway, patience: float, on_progress: Callable[[int], None]) -> None:
        """``on_progress`` gets the number of open sockets, now and then."""
        self._gateway = gateway
        self._patience = patience
        self._on_progress = on_progress
        self._waiting: list[Connection] = []
        self._leavers: list[_Leaver] = []
        self._pace = math.inf
        self._budget = 0.0

    def hurry(self, seconds: float) -> None:
        """Those that still wait are told within ``seconds``, or sooner where that was the plan."""
        self._pace = max(self._pace, len(self._waiting) / seconds if seconds > 0 else math.inf)

    async def run(self, seconds: float, at_once: int = 0) -> None:
        """Returns when every session is closed on our side; its socket may wait for the client's Close. The first
        ``at_once`` are told first, the others over ``seconds``."""
        time = self._gateway.loop.time
        self._waiting = list(self._gateway.connections)
        # Those who came together shall not come back together.
        random.shuffle(self._waiting)
        self._pace = 0.0
        self.hurry(seconds)
        self._budget = at_once + 1.0
        before = time()
        progress_at = before + _PROGRESS
        while True:
            now = time()
            self._budget += (now - before) * self._pace if now > before else 0.0
            before = now
            self._tell(now)
            self._leavers = [leaver for leaver in self._leavers if not self._let_go(leaver, now)]
            if not self._waiting and not self._leavers:
                # Connections that were not there at first.
                self._waiting = [connection for connection in self._gateway.connections if connection.reason is None]
                self._pace = math.inf
                if not self._waiting:
                    return
                continue
            if now >= progress_at:
                progress_at = now + _PROGRESS
                self._on_progress(self._gateway.connections_open)
            await asyncio.sleep(_TICK * random.uniform(0.5, 1.5))

    def _tell(self, now: float) -> None:
        waiting = self._waiting
        while waiting and (self._budget >= 1.0 or self._pace == math.inf):
            connection = waiting.pop()
            if connection.reason is not None:
                continue
            self._budget -= 1.0
            client = connection.listener
            if isinstance(client, Client):
                client.leaving = True
                answers_until = now + self._patience if client.router.broker.up else now
                self._leavers.append(_Leaver(client, min(now + ACK_PATIENCE, answers_until), answers_until))
            else:
                connection.close(CloseReason.SHUTDOWN)

    @staticmethod
    def _let_go(leaver: _Leaver, now: float) -> bool:
        connection = leaver.client.connection
        if connection.reason is None:
            if not leaver.may_go(now):
                return False
            connection.close(CloseReason.SHUTDOWN)
        return True
