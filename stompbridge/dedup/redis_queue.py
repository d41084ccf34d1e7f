"""The operations of a loop turn on their way to Redis, in their order and together; and what becomes of them when it
can not be reached.

One task carries them: while a batch is under way the next one gathers. When the link fails, what is waiting is
refused at once, and so is what comes from then on, until the link is back. Settlements are kept for that moment. What
was under way may or may not have been carried out: claims are taken back, settlements repeated.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

from stompbridge.dedup.redis_link import Args, Link, LinkError, Step
from stompbridge.dedup.store import Changed, Counters, Settled, StoreOptions

_BATCH = 500
"""Operations in one call of the script: a server does nothing else meanwhile, for about 5 ms at this number."""
_SHORTEST_PAUSE = 0.05
_LONGEST_PAUSE = 2.0


async def end(task: asyncio.Task[None]) -> None:
    """Cancels a task and returns when it has ended. ``asyncio.wait_for`` of Python 3.11 may lose a cancellation."""
    while not task.done():
        task.cancel()
        await asyncio.wait((task,), timeout=0.1)


class Operation(Step, Protocol):
    """One step of the script."""

    lasting: ClassVar[bool]
    """It is kept while the server is away."""

    def answer(self, reply: Any) -> None:
        """It was carried out."""

    def refuse(self) -> None:
        """The server can not be reached. A lasting operation may still be carried out, later."""

    def undo(self) -> Operation | None:
        """What remains to be sent when it is not known whether it was carried out."""


class OperationQueue:
    """Carries operations over a link, for as long as the process runs.

    ``on_change`` gets ``available`` and a reason.
    """

    def __init__(self, link: Link, options: StoreOptions, counters: Counters, on_change: Changed) -> None:
        self.available = False
        self._link = link
        self._timeout = options.timeout
        self._max_pending = options.max_pending
        self._prefix = options.prefix.encode()
        self._counters = counters
        self._on_change = on_change
        self._pending: list[Operation] = []
        self._under_way: Sequence[Operation] = ()
        self._idle: asyncio.Future[None] | None = None
        self._tried = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def submit(self, operation: Operation) -> None:
        """Sends an operation with all the others of this loop turn, or refuses it from inside the call."""
        if self.available and len(self._pending) < self._max_pending:
            self._pending.append(operation)
            self._wake()
            return
        if operation.lasting:
            self._keep(operation)
        operation.refuse()

    def probe(self) -> None:
        """Finds out whether the server is there, if nothing else is being sent."""
        if self.available and not self._pending and not self._under_way:
            self._pending += self._probes()
            self._wake()

    async def start(self) -> None:
        """Returns once the first attempt to connect is over."""
        self._task = asyncio.create_task(self._run())
        await self._tried.wait()

    async def stop(self) -> None:
        """Sends what is waiting, within the timeout."""
        self._stopping = True
        if self._task is not None:
            if self.available:
                self._wake()
                await asyncio.wait((self._task,), timeout=self._timeout)
            await end(self._task)
            self._lost("it was stopped")
        self._counters.unsent += len(self._pending)
        self._pending.clear()
        self._max_pending = 0

    def _probes(self) -> list[Operation]:
        return [_Probe(b"%s:%s" % (self._prefix, key)) for key in self._link.probes()]

    def _wake(self) -> None:
        idle, self._idle = self._idle, None
        if idle is not None and not idle.done():
            idle.set_result(None)

    def _keep(self, operation: Operation) -> None:
        if len(self._pending) < self._max_pending:
            self._pending.append(operation)
        else:
            self._counters.unsent += 1

    # The task

    async def _run(self) -> None:
        pause = _SHORTEST_PAUSE
        while not self._stopping:
            try:
                await self._link.connect()
                await self._exchange(self._probes())
                self._found()
                while await self._more():
                    batch = self._pending[:_BATCH]
                    del self._pending[:_BATCH]
                    await self._exchange(batch)
                    pause = _SHORTEST_PAUSE
            except Exception as error:
                self._lost(str(error) or type(error).__name__)
                self._tried.set()
                await self._link.close()
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, _LONGEST_PAUSE)
            finally:
                await self._link.close()

    async def _more(self) -> bool:
        """Waits for something to send; False when there will be nothing."""
        while not self._pending:
            if self._stopping:
                return False
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle
        return True

    async def _exchange(self, batch: Sequence[Operation]) -> None:
        self._under_way = batch
        replies = await self._link.call(batch)
        lost: list[Operation] = []
        failure: LinkError | None = None
        for operation, reply in zip(batch, replies, strict=True):
            if isinstance(reply, LinkError):
                lost.append(operation)
                failure = reply
            else:
                self.guarded(operation.answer, reply)
        self._under_way = lost
        if failure is not None:
            raise failure

    def _found(self) -> None:
        self.available = True
        self.guarded(self._on_change, True, "")
        self._tried.set()

    def _lost(self, reason: str) -> None:
        under_way, waiting = self._under_way, self._pending
        self._under_way, self._pending = (), []
        # A server that is away from the start is news, too.
        changed = self.available or not self._tried.is_set()
        self.available = False
        for operation in under_way:
            remains = operation.undo()
            if remains is not None:
                self._keep(remains)
        for operation in waiting:
            if operation.lasting:
                self._keep(operation)
        for operation in (*under_way, *waiting):
            self.guarded(operation.refuse)
        if changed:
            self.guarded(self._on_change, False, reason)

    def guarded(self, callback: Callable[..., None], *args: object) -> None:
        """Calls back; an error in there must not end the task."""
        try:
            callback(*args)
        except Exception as error:
            message = "A callback of the store failed"
            asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})


class _Probe:
    __slots__ = ("args", "keys")
    lasting: ClassVar[bool] = False

    def __init__(self, key: bytes) -> None:
        self.keys = (key,)
        self.args = (b"P",)

    def answer(self, reply: Any) -> None:
        """The server is there."""

    def refuse(self) -> None:
        """The queue knows already."""

    def undo(self) -> None:
        """Its key goes by itself."""


class Settlement:
    """An operation that ends a lock, a session or a history. Its reply is 0 when it has no effect, otherwise one more
    than the number of entries that were forgotten for it before their time."""

    __slots__ = ("_counters", "_done", "_repeated", "args", "keys")
    lasting: ClassVar[bool] = True

    def __init__(
        self,
        counters: Counters,
        keys: tuple[bytes, ...],
        args: Args,
        done: Settled | None = None,
        repeated: bool = False,
    ) -> None:
        self._counters = counters
        self._done = done
        self._repeated = repeated
        self.keys = keys
        self.args = args

    def answer(self, reply: Any) -> None:
        if reply > 1:
            self._counters.evicted += reply - 1
        elif not reply and not self._repeated:
            self._counters.void += 1
        self._tell(reply > 0)

    def refuse(self) -> None:
        self._tell(False)

    def undo(self) -> Operation:
        # It may have taken effect already, so that no effect the second time means nothing.
        self._repeated = True
        return self

    def _tell(self, effect: bool) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(effect)
