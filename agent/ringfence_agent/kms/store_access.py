"""The key store as the event loop uses it: one thread, and a word to every other worker after each change.

Every change is followed by a bump of the shared generation *after* its commit and before its answer leaves, even
when it failed: a failure reported after a commit must not leave other workers with what was before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from ringfence_agent.keystore.interface import KeyStore

T = TypeVar("T")


class Generation(Protocol):
    """What is needed of `ringfence_agent.http.generation.Generation`."""

    def current(self) -> bytes:
        """All counters: equal means that nobody has changed anything since."""

    def bump(self) -> None:
        """Tells every worker that something changed."""


class StoreAccess:
    """Runs store methods in this worker's one store thread.

    `before_change` is called before each change and raises when that must not be begun, a change that could not be
    recorded for one.
    """

    def __init__(
        self, store: KeyStore, generation: Generation, before_change: Callable[[], None] = lambda: None
    ) -> None:
        self._store = store
        self._before_change = before_change
        self._generation = generation
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="keystore")
        self._seen = generation.current()

    @property
    def label(self) -> str:
        """How messages name the store."""
        return self._store.label

    def has_changed(self) -> bool:
        """Whether anything was committed anywhere since the last call that said so; cheap enough for each request."""
        current = self._generation.current()
        if current == self._seen:
            return False
        self._seen = current
        return True

    async def read(self, method: Callable[[KeyStore], T]) -> T:
        """What `method` reads. It is as of a moment after this call began.

        When something is committed meanwhile, the next `has_changed` says so, whoever asked in between: what was
        read may be answered with, but not kept.
        """
        seen, value = await self._run(lambda: (self._generation.current(), method(self._store)))
        if self._generation.current() != seen:
            self._seen = b""
        return value

    async def change(self, method: Callable[[KeyStore], T]) -> T:
        """What `method` returns after its commit, when every worker knows that something changed."""
        self._before_change()
        return await self._run(lambda: self._change(method))

    def _change(self, method: Callable[[KeyStore], T]) -> T:
        try:
            return method(self._store)
        finally:
            self._generation.bump()

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def close(self) -> None:
        """Finishes what is under way and closes the store."""
        self._executor.submit(self._store.close).result()
        self._executor.shutdown()
