"""The key store as the event loop uses it: in threads, and with a word to every other worker after each change.

Reads have one thread, so what is read comes back in the order in which it was read. Changes have one too, since one may
wait seconds for others' locks or for a remote protector; a read that is asked for after a change was answered begins
after its commit all the same. What a remote protector has to open is opened in a few threads of its own, others for
each slot: an order would mean nothing there, for it reads no store, and one protector that hangs must not keep the keys
of another waiting.

Every change is followed by a bump of a shared generation
*after* its commit and before its answer leaves, even when it failed: a failure reported after a commit must not leave
other workers with what was before. Only a store that is known to have changed nothing, because it is down, bumps
nothing: what is in memory can still be served. There are two generations: one for keys and policy, one for delegation
tokens, so that a renewed token costs no worker its keys.

Nobody waits for ever: a store that does not answer is a refusal (503, try again) well before a client's own time-out of
60 seconds. What has not begun by then is not done any more. What has begun goes on in its thread; the change's note
(`repeated_change`) is how a client that asks again learns what became of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from ringfence_agent.keystore.interface import OpenStore, SealedKey
from ringfence_zones.errors import ProtectorUnavailableError, StoreUnavailableError
from ringfence_zones.keys import KeyVersion

T = TypeVar("T")

# A request may wait for two reads, or a read and a change. A change waits 10 s for others' locks.
_READ_PATIENCE_S = 10.0
_CHANGE_PATIENCE_S = 25.0
# Remote protectors answer within 10 s or give up by themselves.
_OPENING_PATIENCE_S = 12.0
_OPENING_THREADS = 4


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
    """Runs store methods in this worker's store threads.

    `before_change` is called before each change and raises when that must not be begun, a change that could not be
    recorded for one. `is_shared` says that other servers, which share no generation with this one, use the store too.
    """

    def __init__(
        self,
        store: OpenStore,
        generation: Generation,
        token_generation: Generation,
        before_change: Callable[[], None] = lambda: None,
        *,
        is_shared: bool = False,
    ) -> None:
        self.is_shared = is_shared
        # Told of each piece of work: read or change, seconds, whether it failed.
        self.on_work: Callable[[str, float, bool], None] = lambda _work, _elapsed_s, _failed: None
        self._store = store
        self._before_change = before_change
        self._keys = _Topic(generation)
        self._tokens = _Topic(token_generation)
        self._reads = ThreadPoolExecutor(1, thread_name_prefix="keystore")
        self._changes = ThreadPoolExecutor(1, thread_name_prefix="keystore-change")
        self._openings: dict[int, ThreadPoolExecutor] = {}

    @property
    def label(self) -> str:
        """How messages name the store."""
        return self._store.label

    @property
    def owner_id(self) -> int:
        """This worker's handle of the store (`KeyStore.owner_id`)."""
        return self._store.owner_id

    def has_changed(self) -> bool:
        """Whether this server changed keys or policy since `catch_up` last read; cheap enough for each request."""
        return self._keys.generation.current() != self._keys.seen

    def tokens_have_changed(self) -> bool:
        """Whether a token may have been renewed, cancelled or removed, or a master key added, since the last call."""
        return self._tokens.has_changed()

    def note_token_change(self) -> None:
        """Another server changed tokens: the next `tokens_have_changed` says so."""
        self._tokens.seen = b""

    async def catch_up(self, method: Callable[[OpenStore], T]) -> T:
        """As `read`, for what makes this worker's memory new: `has_changed` counts from here."""
        seen, value = await self._read(lambda: (self._keys.generation.current(), method(self._store)))
        self._keys.seen = seen
        return value

    async def read(self, method: Callable[[OpenStore], T]) -> T:
        """What `method` reads of keys and policy. It is as of a moment after this call began."""
        return await self._read(lambda: method(self._store))

    async def open_versions(self, key: SealedKey, numbers: Collection[int]) -> Sequence[KeyVersion]:
        """Versions of a key with their material, opened where their protector is. Raises what opening raises."""
        if key.remote.isdisjoint(numbers):
            return key.open_versions(numbers)
        # Versions of several slots are rarely asked for at once; then they wait for the slowest anyway.
        slot_id = max((key.slots.get(number, 0) for number in numbers), default=0)
        openings = self._openings.get(slot_id)
        if openings is None:
            openings = ThreadPoolExecutor(_OPENING_THREADS, thread_name_prefix=f"protector-{slot_id}")
            self._openings[slot_id] = openings
        return await self._run(openings, lambda: key.open_versions(numbers), "unwrap")

    async def read_tokens(self, method: Callable[[OpenStore], T]) -> T:
        """What `method` reads of tokens.

        When something is committed meanwhile, the next `tokens_have_changed` says so, whoever asked in between: what
        was read may be answered with, but not kept.
        """
        seen, value = await self._read(lambda: (self._tokens.generation.current(), method(self._store)))
        if self._tokens.generation.current() != seen:
            self._tokens.seen = b""
        return value

    async def note(self, method: Callable[[OpenStore], T]) -> T:
        """What `method` returns after writing what concerns neither keys, policy nor tokens: nobody is told."""
        return await self._run(self._changes, lambda: method(self._store), "change")

    async def change(self, method: Callable[[OpenStore], T]) -> T:
        """What `method` returns after its commit, when every worker knows that keys or policy changed."""
        return await self._change(self._keys, method)

    async def change_tokens(self, method: Callable[[OpenStore], T]) -> T:
        """As `change`, for tokens."""
        return await self._change(self._tokens, method)

    async def _change(self, topic: _Topic, method: Callable[[OpenStore], T]) -> T:
        self._before_change()
        return await self._run(self._changes, lambda: self._change_and_tell(topic, method), "change")

    def _change_and_tell(self, topic: _Topic, method: Callable[[OpenStore], T]) -> T:
        has_changed = True
        try:
            return method(self._store)
        except StoreUnavailableError as error:
            has_changed = error.may_have_changed
            raise
        finally:
            if has_changed:
                topic.generation.bump()

    async def _read(self, work: Callable[[], T]) -> T:
        return await self._run(self._reads, work, "read")

    async def _run(self, executor: ThreadPoolExecutor, work: Callable[[], T], kind: str) -> T:
        began_s = time.perf_counter()
        failed = has_begun = False
        patience_s = _patience_s(kind)

        def begin() -> T:
            nonlocal has_begun
            has_begun = True
            return work()

        try:
            # Cancelled by the time-out, work that has not begun never does.
            async with asyncio.timeout(patience_s):
                return await asyncio.get_running_loop().run_in_executor(executor, begin)
        except TimeoutError:
            failed = True
            raise self._silent(kind, patience_s, is_known=kind != "change" or not has_begun) from None
        except StoreUnavailableError:
            failed = True
            raise
        finally:
            self.on_work(kind, time.perf_counter() - began_s, failed)

    def _silent(self, kind: str, patience_s: float, *, is_known: bool) -> StoreUnavailableError:
        if kind == "unwrap":
            return ProtectorUnavailableError(
                f"what protects key store {self.label} did not answer within {patience_s:g} s",
                hint="see whether Vault or AWS KMS can be reached; the key server goes on by itself when it answers",
            )
        outcome = "nothing was changed" if is_known else "whether the change was made is not known yet"
        return StoreUnavailableError(
            f"key store {self.label} did not answer within {patience_s:g} s; {outcome}",
            hint="see whether its disk or database server hangs; the key server goes on by itself when it answers",
        )

    def close(self) -> None:
        """Finishes what is under way and closes the store."""
        for openings in self._openings.values():
            openings.shutdown()
        self._reads.shutdown()
        self._changes.submit(self._store.close).result()
        self._changes.shutdown()


def _patience_s(kind: str) -> float:
    return {"read": _READ_PATIENCE_S, "change": _CHANGE_PATIENCE_S, "unwrap": _OPENING_PATIENCE_S}[kind]
