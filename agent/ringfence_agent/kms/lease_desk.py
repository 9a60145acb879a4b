"""The lease book as the event loop uses it: opened when a lease is first asked for, in a thread of its own.

Nothing here touches what workers remember of keys: a lease is renewed every few seconds. Nobody waits for ever. A book
that does not answer is a refusal (503), and while it is stuck everybody is refused at once. What has not begun by then
is never done; what has begun may be done later, and then lasts for its time without a holder that knows of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

from ringfence_agent.leases.book import LeaseBook
from ringfence_zones.errors import StoreUnavailableError

T = TypeVar("T")

_PATIENCE_S = 10.0


class LeaseDesk:
    """One worker's. `open_book` and the book's methods run in `executor`, which has one thread."""

    def __init__(self, open_book: Callable[[], LeaseBook], executor: Executor, patience_s: float = _PATIENCE_S) -> None:
        self._open_book = open_book
        self._executor = executor
        self._patience_s = patience_s
        self._book: LeaseBook | None = None
        self._stuck: Future[Any] | None = None

    async def ask(self, work: Callable[[LeaseBook], T]) -> T:
        """What `work` returns. Raises what it raises, and StoreUnavailableError when the book does not answer."""
        if self._stuck is not None and not self._stuck.done():
            raise self._silent()
        future = self._executor.submit(self._with_book, work)
        try:
            # Cancelled by the time-out, work that has not begun never does.
            async with asyncio.timeout(self._patience_s):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            self._stuck = future
            raise self._silent() from None

    def _silent(self) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"the lease book did not answer within {self._patience_s:g} s",
            hint="see whether the key store's disk or database server hangs; nobody gets a lease until it answers",
        )

    def _with_book(self, work: Callable[[LeaseBook], T]) -> T:
        if self._book is None:
            self._book = self._open_book()
        return work(self._book)

    async def close(self) -> None:
        """Waits for what is under way, then closes the book; not for one that is stuck."""
        if self._book is not None and (self._stuck is None or self._stuck.done()):
            await asyncio.get_running_loop().run_in_executor(self._executor, self._book.close)
