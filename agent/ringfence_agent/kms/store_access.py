"""The key store as the event loop uses it: one thread, and a word to every other worker after each change.

Every change is followed by a bump of a shared generation *after* its commit and before its answer leaves, even when it
failed: a failure reported after a commit must not leave other workers with what was before. There are two generations:
one for keys and policy, one for delegation tokens, so that a renewed token costs no worker its keys.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from ringfence_agent.keystore.interface import OpenStore

T = TypeVar("T")


class Generation(Protocol):
    """What is needed of `ringfence_agent.http.generation.Generation`."""

    def current(self) -> bytes:
        """All counters: equal means that nobody has changed anything since."""

    def bump(self) -> None:
        """Tells every worker that something changed."""


class _Topic:
    """One generation, and how much of it this worker has taken note of."""

    __slots__ = ("generation", "seen")

    def __init__(self, generation: Generation) -> None:
        self.generation = generation
        self.seen = generation.current()

    def has_changed(self) -> bool:
        current = self.generation.current()
        if current == self.seen:
            return False
        self.seen = current
        return True


class StoreAccess:
    """Runs store methods in this worker's one store thread.

    `before_change` is called before each change and raises when that must not be begun, a change that could not be
    recorded for one.
    """

    def __init__(
        self,
        store: OpenStore,
        generation: Generation,
        token_generation: Generation,
        before_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._before_change = before_change
        self._keys = _Topic(generation)
        self._tokens = _Topic(token_generation)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="keystore")

    @property
    def label(self) -> str:
        """How messages name the store."""
        return self._store.label

    def has_changed(self) -> bool:
        """Whether keys or policy were changed anywhere since the last call that said so; cheap enough for each request.

        The same for tokens is `tokens_have_changed`.
        """
        return self._keys.has_changed()

    def tokens_have_changed(self) -> bool:
        """Whether a token may have been renewed, cancelled or removed, or a master key added, since the last call."""
        return self._tokens.has_changed()

    async def read(self, method: Callable[[OpenStore], T]) -> T:
        """What `method` reads of keys and policy. It is as of a moment after this call began.

        When something is committed meanwhile, the next `has_changed` says so, whoever asked in between: what was
        read may be answered with, but not kept.
        """
        return await self._read(self._keys, method)

    async def read_tokens(self, method: Callable[[OpenStore], T]) -> T:
        """As `read`, for tokens and `tokens_have_changed`."""
        return await self._read(self._tokens, method)

    async def change(self, method: Callable[[OpenStore], T]) -> T:
        """What `method` returns after its commit, when every worker knows that keys or policy changed."""
        return await self._change(self._keys, method)

    async def change_tokens(self, method: Callable[[OpenStore], T]) -> T:
        """As `change`, for tokens."""
        return await self._change(self._tokens, method)

    async def _read(self, topic: _Topic, method: Callable[[OpenStore], T]) -> T:
        seen, value = await self._run(lambda: (topic.generation.current(), method(self._store)))
        if topic.generation.current() != seen:
            topic.seen = b""
        return value

    async def _change(self, topic: _Topic, method: Callable[[OpenStore], T]) -> T:
        self._before_change()
        return await self._run(lambda: self._change_and_tell(topic, method))

    def _change_and_tell(self, topic: _Topic, method: Callable[[OpenStore], T]) -> T:
        try:
            return method(self._store)
        finally:
            topic.generation.bump()

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def close(self) -> None:
        """Finishes what is under way and closes the store."""
        self._executor.submit(self._store.close).result()
        self._executor.shutdown()
