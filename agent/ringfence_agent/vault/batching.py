"""Many small requests to Transit as few large calls: group commit, so that an idle server answers at once and a busy
one is sent batches.

Rules:

1. At most `calls_at_once` calls are under way, over all keys: as many as one node of Vault has cores, for more would
   only queue there. What comes meanwhile waits, by key and operation, and goes together with the next call.
2. A call costs Vault as much as twenty items. So while one is under way another departs only when as many items wait
   together as that has, or when it has been away for three milliseconds. When one lands the next departs before results
   are handed out.
3. Queues take turns, and so do the callers of one queue: a job that re-encrypts a zone does not hold up one file that
   somebody opens.
4. Every item has a deadline of its own, answered within a twentieth of a second. An item whose caller has gone is not
   sent, and its result, if it was sent, is dropped.
5. An item that fails fails alone. One that names a version this server does not know is tried once more a moment
   later: a standby learns of a new version in about a tenth of a second.
6. What waits is bounded; beyond that a request is told to come again.

It refuses to decide who may ask: whoever calls has authorised the request.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from ringfence_agent.promise import Promise
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
# Longer than a call takes whose server is not busy otherwise.
_HOLD_S = 0.003
# Of uvloop's timers.
_TICK_S = 0.001
_NOT_WANTED = ProtectorUnavailableError("nobody waits for this any more")

OnCall = Callable[[int, float, bool], None]
"""Told of each call: how many items it carried, how many seconds it took, and whether it failed as a whole."""


class Calls(Protocol):
    """What the batches go to: `Transit`."""

    @property
    def batch_items(self) -> int:
        """How many rows one call carries at most, at present."""

    async def call(self, operation: Operation, key: str, rows: Sequence[bytes], deadline: float) -> list[Result]:
        """One result for each row. Raises ProtectorUnavailableError, ProtectorRefusedError."""


class _Waiting(Promise[Result]):
    """One item until its result is there. `deadline` is the loop's time."""

    __slots__ = ("_batcher", "caller", "deadline", "row", "tried")

    def __init__(self, batcher: MicroBatcher, row: bytes, caller: str, deadline: float) -> None:
        super().__init__()
        self._batcher = batcher
        batcher.waiting += 1
        self.row = row
        self.caller = caller
        self.deadline = deadline
        self.tried = False

    def keep(self, outcome: Any) -> None:
        if not self.is_kept:
            self._batcher.waiting -= 1
        super().keep(outcome)


class _Gathered:
    """The results of a list in one future: all of them, or the first error."""

    __slots__ = ("_left", "_results", "future")

    def __init__(self, items: Sequence[_Waiting]) -> None:
        self.future: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        self._results: list[Result] = [ItemFault.SERVER_FAILED] * len(items)
        self._left = len(items)
        for place, item in enumerate(items):
            item.listen(functools.partial(self._note, place))

    def _note(self, place: int, outcome: Result | Exception) -> None:
        if self.future.done():
            return
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
            return
        self._results[place] = outcome
        self._left -= 1
        if not self._left:
            self.future.set_result(self._results)


class _Queue:
    """What waits for one operation with one key, by caller; callers are in the order of their turns."""

    __slots__ = ("callers", "count", "key", "operation")

    def __init__(self, operation: Operation, key: str) -> None:
        self.operation = operation
        self.key = key
        self.count = 0
        self.callers: dict[str, deque[_Waiting]] = {}

    def add(self, item: _Waiting) -> None:
        waiting = self.callers.get(item.caller)
        if waiting is None:
            waiting = self.callers[item.caller] = deque()
        waiting.append(item)
        self.count += 1

    def take(self, count: int) -> list[_Waiting]:
        """At most `count` items that somebody still waits for, one of each caller in turn."""
        taken: list[_Waiting] = []
        callers = self.callers
        while callers and len(taken) < count:
            caller = next(iter(callers))
            waiting = callers.pop(caller)
            item = waiting.popleft()
            self.count -= 1
            if waiting:
                callers[caller] = waiting  # behind the others
            if not item.is_kept:
                taken.append(item)
        return taken

    def drop_done(self) -> None:
        for caller, waiting in list(self.callers.items()):
            left = deque(item for item in waiting if not item.is_kept)
            if left:
                self.callers[caller] = left
            else:
                del self.callers[caller]
        self.count = sum(map(len, self.callers.values()))

    def items(self) -> list[_Waiting]:
        return [item for waiting in self.callers.values() for item in waiting]


class _Flight:
    """A call under way since `departed_s`, by the loop's time."""

    __slots__ = ("departed_s", "items", "key", "operation", "task")

    def __init__(self, operation: Operation, key: str, items: list[_Waiting], departed_s: float) -> None:
        self.departed_s = departed_s
        self.operation = operation
        self.key = key
        self.items = items
        self.task: asyncio.Task[None] | None = None


class MicroBatcher:
    """Transit for many callers at once. On one event loop; `close` it there.

    `caller` is whose turn it is: a user's name. Deadlines are in the loop's time. Methods raise like Transit's.
    waiting  how many items have no result yet
    """

    def __init__(
        self, transit: Calls, calls_at_once: int = 2, on_call: OnCall = lambda _items, _elapsed_s, _failed: None
    ) -> None:
        self.waiting = 0
        self._transit = transit
        self._on_call = on_call
        self._calls_at_once = calls_at_once
        self._queues: dict[tuple[Operation, str], _Queue] = {}
        self._flights: set[_Flight] = set()
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

    def decrypt_one(self, key: str, item: OpenItem, caller: str, deadline: float) -> Promise[Secret | ItemFault]:
        """One item, without a task that waits for it. To give it up keep the promise: then it is not sent any more."""
        self._require_room(1)
        waiting = _Waiting(self, open_row(item), caller, deadline)
        self._add(Operation.DECRYPT, key, waiting)
        return cast("Promise[Secret | ItemFault]", waiting)

    async def rewrap(
        self, key: str, items: Sequence[RewrapItem], caller: str, deadline: float
    ) -> list[TransitCiphertext | ItemFault]:
        """See Transit."""
        rows = [rewrap_row(item) for item in items]
        results = await self._call(Operation.REWRAP, key, rows, caller, deadline)
        return cast("list[TransitCiphertext | ItemFault]", results)

    async def close(self) -> None:
        """Refuses what waits, and whatever comes, and gives up the calls under way."""
        self._closed = True
        items = [item for queue in self._queues.values() for item in queue.items()]
        items += [item for flight in self._flights for item in flight.items] + list(self._later)
        tasks = [flight.task for flight in self._flights if flight.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, asyncio.sleep(0), return_exceptions=True)
        for item in items:
            _fail(item, ProtectorUnavailableError("the key server is stopping"))
        self._queues.clear()
        self._flights.clear()
        self._later.clear()

    async def _call(
        self, operation: Operation, key: str, rows: Sequence[bytes], caller: str, deadline: float
    ) -> list[Result]:
        if not rows:
            return []
        self._require_room(len(rows))
        items = [_Waiting(self, row, caller, deadline) for row in rows]
        gathered = _Gathered(items)
        for item in items:
            self._add(operation, key, item)
        try:
            return await gathered.future
        except BaseException:
            # The caller is gone, or has one error already: what is not sent yet is not sent.
            for item in items:
                _fail(item, _NOT_WANTED)
            raise

    def _require_room(self, count: int) -> None:
        if self._closed:
            raise ProtectorUnavailableError("the key server is stopping")
        if self.waiting + count > _MAX_WAITING:
            raise ProtectorUnavailableError(f"{self.waiting} requests wait for Vault already")

    def _add(self, operation: Operation, key: str, item: _Waiting) -> None:
        name = operation, key
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = _Queue(operation, key)
        queue.add(item)
        if not self._dispatch_due and len(self._flights) < self._calls_at_once:
            # Not at once: what else this turn of the loop brings goes along.
            self._dispatch_due = True
            asyncio.get_running_loop().call_soon(self._dispatch)
        if not self._sweep_due:
            self._sweep_due = True
            asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)

    def _dispatch(self) -> None:
        """Begins a call, or more, with what waits."""
        self._dispatch_due = False
        while len(self._flights) < self._calls_at_once:
            flight = self._next_flight()
            if flight is None:
                return
            flight.task = asyncio.get_running_loop().create_task(self._fly(flight))

    def _next_flight(self) -> _Flight | None:
        """What may depart now, as under way."""
        while self._queues and self._may_depart():
            name = next(iter(self._queues))
            queue = self._queues.pop(name)
            items = queue.take(self._transit.batch_items)
            if queue.callers:
                self._queues[name] = queue  # behind the others
            if items:
                loop = asyncio.get_running_loop()
                flight = _Flight(queue.operation, queue.key, items, loop.time())
                self._flights.add(flight)
                if self._calls_at_once > 1:
                    loop.call_later(_HOLD_S + _TICK_S, self._dispatch)
                return flight
        return None

    def _may_depart(self) -> bool:
        """See the module's rule 2. That one queue is long enough lets the next one depart, whose turn it is."""
        if not self._flights:
            return True
        longest = max([queue.count for queue in self._queues.values()])
        late_s = asyncio.get_running_loop().time() - _HOLD_S
        return all(longest >= len(flight.items) or flight.departed_s <= late_s for flight in self._flights)

    async def _fly(self, flight: _Flight) -> None:
        """One call, and the next with what waits then, until nothing does."""
        loop = asyncio.get_running_loop()
        following: _Flight | None = flight
        while following is not None:
            flight = following
            outcome = await self._call_transit(flight)
            self._flights.discard(flight)
            following = None if self._closed else self._next_flight()
            if following is not None:
                following.task = flight.task
                self._dispatch()
            # After the next call was sent, for Vault need not wait for this: it takes about as long as a call.
            loop.call_soon(self._hand_out, flight, outcome)

    async def _call_transit(self, flight: _Flight) -> list[Result] | RingfenceError:
        items = flight.items
        deadline = max([item.deadline for item in items])
        failed = True
        try:
            rows = [item.row for item in items]
            results = await self._transit.call(flight.operation, flight.key, rows, deadline)
            failed = False
        except RingfenceError as error:
            return error
        except Exception:  # noqa: BLE001 - a bug of ours or of a library leaves nobody waiting
            _log.exception("a call to Vault Transit failed in a way that was not foreseen")
            return ProtectorUnavailableError("a call to Vault failed; the key server's log says how")
        else:
            return results
        finally:
            self._on_call(len(items), asyncio.get_running_loop().time() - flight.departed_s, failed)

    def _hand_out(self, flight: _Flight, outcome: list[Result] | RingfenceError) -> None:
        if isinstance(outcome, RingfenceError):
            for item in flight.items:
                _fail(item, outcome)
            return
        for item, result in zip(flight.items, outcome, strict=True):
            if result is ItemFault.VERSION_AHEAD and not item.tried and not item.is_kept:
                self._try_later(flight.operation, flight.key, item)
            else:
                item.keep(result)

    def _try_later(self, operation: Operation, key: str, item: _Waiting) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() + LAG_S >= item.deadline:
            item.keep(ItemFault.VERSION_AHEAD)
            return
        item.tried = True
        self._later.add(item)
        loop.call_later(LAG_S, self._try_again, operation, key, item)

    def _try_again(self, operation: Operation, key: str, item: _Waiting) -> None:
        self._later.discard(item)
        if not item.is_kept:
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
        for flight in list(self._flights):
            for item in flight.items:
                _expire(item, now)
        self._sweep_due = bool(self._queues or self._flights)
        if self._sweep_due:
            loop.call_later(_SWEEP_S, self._sweep)


def _expire(item: _Waiting, now: float) -> None:
    if now >= item.deadline:
        _fail(item, ProtectorUnavailableError("Vault did not answer in time"))


def _fail(item: _Waiting, error: RingfenceError) -> None:
    if not item.is_kept:
        # Each waiter raises its own: a traceback grows with every raise.
        item.keep(copy.copy(error))
