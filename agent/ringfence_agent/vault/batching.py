"""Many small requests to Transit as few large calls: group commit, so that an idle server answers at once and a busy
one is sent batches.

Rules:

1. At most `calls_at_once` calls are under way, over all keys: as many as one node of Vault has cores, for more would
   only queue there. What comes meanwhile waits, by key and operation, and goes together with the next call.
2. Queues take turns, and so do the callers of one queue: a job that re-encrypts a zone does not hold up one file that
   somebody opens.
3. Every item has a deadline of its own, answered within a twentieth of a second. An item whose caller has gone is not
   sent, and its result, if it was sent, is dropped.
4. An item that fails fails alone. One that names a version this server does not know is tried once more a moment
   later: a standby learns of a new version in about a tenth of a second.
5. What waits is bounded; beyond that a request is told to come again.

It refuses to decide who may ask: whoever calls has authorised the request.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from ringfence_agent.vault.transit import LAG_S
from ringfence_agent.vault.transit_wire import (
    EncryptItem,
    ItemFault,
    OpenItem,
    Operation,
    Result,
    RewrapItem,
    TransitCiphertext,
    encrypt_row,
    open_row,
    rewrap_row,
)
from ringfence_zones.errors import ProtectorUnavailableError, RingfenceError
from ringfence_zones.secret import Secret

_log = logging.getLogger(__name__)

_MAX_WAITING = 16 * 1024
_SWEEP_S = 0.05


OnCall = Callable[[int, float, bool], None]
"""Told of each call: how many items it carried, how many seconds it took, and whether it failed as a whole."""


class Calls(Protocol):
    """What the batches go to: `Transit`."""

    @property
    def batch_items(self) -> int:
        """How many rows one call carries at most, at present."""

    async def call(self, operation: Operation, key: str, rows: Sequence[bytes], deadline: float) -> list[Result]:
        """One result for each row. Raises ProtectorUnavailableError, ProtectorRefusedError."""


class _Waiting:
    """One item until its result is there. `deadline` is the loop's time."""

    __slots__ = ("caller", "deadline", "result", "row", "tried")

    def __init__(self, row: bytes, caller: str, deadline: float, result: asyncio.Future[Result]) -> None:
        self.row = row
        self.caller = caller
        self.deadline = deadline
        self.result = result
        self.tried = False


class _Queue:
    """What waits for one operation with one key, by caller; callers are in the order of their turns."""

    __slots__ = ("callers", "key", "operation")

    def __init__(self, operation: Operation, key: str) -> None:
        self.operation = operation
        self.key = key
        self.callers: dict[str, deque[_Waiting]] = {}

    def add(self, item: _Waiting) -> None:
        waiting = self.callers.get(item.caller)
        if waiting is None:
            waiting = self.callers[item.caller] = deque()
        waiting.append(item)

    def take(self, count: int) -> list[_Waiting]:
        """At most `count` items that somebody still waits for, one of each caller in turn."""
        taken: list[_Waiting] = []
        callers = self.callers
        while callers and len(taken) < count:
            caller = next(iter(callers))
            waiting = callers.pop(caller)
            item = waiting.popleft()
            if waiting:
                callers[caller] = waiting  # behind the others
            if not item.result.done():
                taken.append(item)
        return taken

    def drop_done(self) -> None:
        for caller, waiting in list(self.callers.items()):
            left = deque(item for item in waiting if not item.result.done())
            if left:
                self.callers[caller] = left
            else:
                del self.callers[caller]

    def items(self) -> list[_Waiting]:
        return [item for waiting in self.callers.values() for item in waiting]


class MicroBatcher:
    """Transit for many callers at once. On one event loop; `close` it there.

    `caller` is whose turn it is: a user's name. Deadlines are in the loop's time. Methods raise like Transit's.
    """

    def __init__(
        self, transit: Calls, calls_at_once: int = 2, on_call: OnCall = lambda _items, _elapsed_s, _failed: None
    ) -> None:
        self._transit = transit
        self._on_call = on_call
        self._free = calls_at_once
        self._queues: dict[tuple[Operation, str], _Queue] = {}
        self._waiting = 0
        self._flights: dict[asyncio.Task[None], list[_Waiting]] = {}
        self._later: set[_Waiting] = set()
        self._dispatch_due = self._sweep_due = self._closed = False

    async def encrypt(
        self, key: str, items: Sequence[EncryptItem], caller: str, deadline: float
    ) -> list[TransitCiphertext | ItemFault]:
        """See Transit."""
        rows = [encrypt_row(item) for item in items]
        results = await self._call(Operation.ENCRYPT, key, rows, caller, deadline)
        return cast("list[TransitCiphertext | ItemFault]", results)

    async def decrypt(
        self, key: str, items: Sequence[OpenItem], caller: str, deadline: float
    ) -> list[Secret | ItemFault]:
        """See Transit."""
        rows = [open_row(item) for item in items]
        return cast("list[Secret | ItemFault]", await self._call(Operation.DECRYPT, key, rows, caller, deadline))

    async def rewrap(
        self, key: str, items: Sequence[RewrapItem], caller: str, deadline: float
    ) -> list[TransitCiphertext | ItemFault]:
        """See Transit."""
        rows = [rewrap_row(item) for item in items]
        results = await self._call(Operation.REWRAP, key, rows, caller, deadline)
        return cast("list[TransitCiphertext | ItemFault]", results)

    @property
    def waiting(self) -> int:
        """How many items have no result yet."""
        return self._waiting

    async def close(self) -> None:
        """Refuses what waits, and whatever comes, and gives up the calls under way."""
        self._closed = True
        flights = list(self._flights)
        items = [item for queue in self._queues.values() for item in queue.items()]
        items += [item for batch in self._flights.values() for item in batch] + list(self._later)
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
        for item in items:
            _fail(item, ProtectorUnavailableError("the key server is stopping"))
        self._queues.clear()
        self._later.clear()

    async def _call(
        self, operation: Operation, key: str, rows: Sequence[bytes], caller: str, deadline: float
    ) -> list[Result]:
        if self._closed:
            raise ProtectorUnavailableError("the key server is stopping")
        if self._waiting + len(rows) > _MAX_WAITING:
            raise ProtectorUnavailableError(f"{self._waiting} requests wait for Vault already")
        loop = asyncio.get_running_loop()
        items = [_Waiting(row, caller, deadline, loop.create_future()) for row in rows]
        self._waiting += len(items)
        try:
            for item in items:
                self._add(operation, key, item)
            return [await item.result for item in items]
        except BaseException:
            for item in items:
                _forget(item)
            raise
        finally:
            self._waiting -= len(items)

    def _add(self, operation: Operation, key: str, item: _Waiting) -> None:
        name = operation, key
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = _Queue(operation, key)
        queue.add(item)
        loop = asyncio.get_running_loop()
        if self._free and not self._dispatch_due:
            # Not at once: what else this turn of the loop brings goes along.
            self._dispatch_due = True
            loop.call_soon(self._dispatch)
        if not self._sweep_due:
            self._sweep_due = True
            loop.call_later(_SWEEP_S, self._sweep)

    def _dispatch(self) -> None:
        self._dispatch_due = False
        while self._free and self._queues:
            name = next(iter(self._queues))
            queue = self._queues.pop(name)
            batch = queue.take(self._transit.batch_items)
            if queue.callers:
                self._queues[name] = queue  # behind the others
            if batch:
                self._free -= 1
                flight = asyncio.get_running_loop().create_task(self._fly(queue.operation, queue.key, batch))
                self._flights[flight] = batch
                flight.add_done_callback(self._land)

    def _land(self, flight: asyncio.Task[None]) -> None:
        del self._flights[flight]
        self._free += 1
        if not self._closed:
            self._dispatch()

    async def _fly(self, operation: Operation, key: str, batch: list[_Waiting]) -> None:
        deadline = max([item.deadline for item in batch])
        clock = asyncio.get_running_loop().time
        began_s, failed = clock(), True
        try:
            results = await self._transit.call(operation, key, [item.row for item in batch], deadline)
        except RingfenceError as error:
            for item in batch:
                _fail(item, error)
            return
        except Exception:  # noqa: BLE001 - a bug of ours or of a library leaves nobody waiting
            _log.exception("a call to Vault Transit failed in a way that was not foreseen")
            for item in batch:
                _fail(item, ProtectorUnavailableError("a call to Vault failed; the key server's log says how"))
            return
        else:
            failed = False
        finally:
            self._on_call(len(batch), clock() - began_s, failed)
        for item, result in zip(batch, results, strict=True):
            if item.result.done():
                continue
            if result is ItemFault.VERSION_AHEAD and not item.tried:
                self._try_later(operation, key, item)
            else:
                item.result.set_result(result)

    def _try_later(self, operation: Operation, key: str, item: _Waiting) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() + LAG_S >= item.deadline:
            item.result.set_result(ItemFault.VERSION_AHEAD)
            return
        item.tried = True
        self._later.add(item)
        loop.call_later(LAG_S, self._try_again, operation, key, item)

    def _try_again(self, operation: Operation, key: str, item: _Waiting) -> None:
        self._later.discard(item)
        if not item.result.done():
            self._add(operation, key, item)

    def _sweep(self) -> None:
        """Answers items whose time is up, and forgets those that nobody waits for."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for name, queue in list(self._queues.items()):
            for item in queue.items():
                _expire(item, now)
            queue.drop_done()
            if not queue.callers:
                del self._queues[name]
        for batch in self._flights.values():
            for item in batch:
                _expire(item, now)
        self._sweep_due = bool(self._queues or self._flights)
        if self._sweep_due:
            loop.call_later(_SWEEP_S, self._sweep)


def _expire(item: _Waiting, now: float) -> None:
    if now >= item.deadline:
        _fail(item, ProtectorUnavailableError("Vault did not answer in time"))


def _fail(item: _Waiting, error: RingfenceError) -> None:
    if not item.result.done():
        # Each waiter raises its own: a traceback grows with every raise.
        item.result.set_exception(copy.copy(error))


def _forget(item: _Waiting) -> None:
    """The caller is gone, or has one error already: what is unfinished is not sent, and no other error is missed."""
    if not item.result.cancel() and not item.result.cancelled():
        item.result.exception()
