"""Keys in this worker's memory: filled when first asked for, dropped when they changed (`freshness`) or grow old.

A key that does not exist is remembered as well, so that a NameNode that keeps asking for one costs nothing. Both
kinds are bounded in number and time.

What is remembered of a key is its custody's (`custody`). Keys with versions that a remote protector sealed do not all
live equally long, so that workers and instances that began together do not all ask again at once; none lives longer
than `key_memory`.

With a key memory of 0 (Hadoop's `hadoop.kms.cache.enable=false`) no material is remembered, only records as they rest
in the store: each request opens the seal of the version it uses, and drops what it opened with its own answer. That
takes no I/O and about 10 µs. Of a key that Vault holds there is never any material. Python wipes no memory: what was
dropped is overwritten when its place is used again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Iterable, Sequence

from ringfence_agent.keystore.held import HeldKey
from ringfence_agent.keystore.interface import OpenStore, SealedKey
from ringfence_agent.kms.custody.envelope import EnvelopeKey, retrieve
from ringfence_agent.kms.custody.held import TransitHeldKey
from ringfence_agent.kms.custody.key import KeyWords
from ringfence_agent.kms.store_access import StoreAccess
from ringfence_agent.kms.unready import Unready
from ringfence_zones.keys import KeyVersion

CachedKey = EnvelopeKey | TransitHeldKey
"""A live key in this worker's memory; its type says who holds it."""

_LIMIT = 16_384
# How long sealed records stay without being read again.
_KEEP_SEALED_S = 600.0
# The shares of `key_memory` that keys of remote protectors live.
_SHORTEST_SHARE, _LONGEST_SHARE = 0.8, 1.0


class KeyCache:
    """Used on the event loop only. `keep_s` is how long material stays in memory without being read again; 0: not.

    `jitter` draws from the two bounds it is given.
    """

    def __init__(
        self,
        store: StoreAccess,
        clock: Callable[[], float],
        keep_s: float,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._store = store
        self._clock = clock
        self._jitter = jitter
        self._keeps_material = keep_s > 0
        self._keep_s = keep_s or _KEEP_SEALED_S
        # None: no such key; then the end of that is in _absent_until_s.
        self._keys: dict[str, CachedKey | None] = {}
        self._absent_until_s: dict[str, float] = {}
        self._loading: dict[str, asyncio.Task[None]] = {}
        # For the metrics: look-ups answered from memory, and keys read into it.
        self.hits = 0
        self.loads = 0

    def find(self, name: str) -> CachedKey | None:
        """A live key, None without one. Raises Unready when it is not in memory."""
        try:
            found = self._keys[name]
        except KeyError:
            raise Unready(lambda: self._load((name,))) from None
        self.hits += 1
        if self._keeps_material or not isinstance(found, EnvelopeKey):
            return found
        return found.for_one_request()

    def find_all(self, names: Iterable[str]) -> list[CachedKey | None]:
        """As `find`, for several, with one load for all that are missing."""
        wanted = list(names)
        missing = [name for name in wanted if name not in self._keys]
        if missing:
            raise Unready(lambda: self._load(missing))
        return [self.find(name) for name in wanted]

    def forget(self, names: Iterable[str] | None = None) -> None:
        """These keys changed, or with None any may have: they are read again."""
        if names is None:
            self._keys.clear()
            self._absent_until_s.clear()
            return
        for name in names:
            self._keys.pop(name, None)
            self._absent_until_s.pop(name, None)

    def drop_old(self) -> None:
        """Drops what has been in memory for too long; called by a timer."""
        now_s = self._clock()
        for name, key in tuple(self._keys.items()):
            if (key.until_s if key is not None else self._absent_until_s[name]) <= now_s:
                del self._keys[name]
                self._absent_until_s.pop(name, None)

    async def _load(self, names: Iterable[str]) -> None:
        """Reads keys into memory; who asks for one that is being read waits for that, and for what becomes of it.

        It is as new as a read of one's own: a look that came before the asking had to wait for all reads before it.
        """
        wanted = list(names)
        begun = [name for name in wanted if name not in self._keys and name not in self._loading]
        if begun:
            task = asyncio.get_running_loop().create_task(self._read(begun))
            task.add_done_callback(retrieve)
            self._loading.update(dict.fromkeys(begun, task))
        for task in {self._loading[name] for name in wanted if name in self._loading}:
            await asyncio.shield(task)  # who asked first may go away in the middle of it

    async def _read(self, names: Sequence[str]) -> None:
        try:
            found = await self._store.read(lambda store: {name: _find_proven(store, name) for name in names})
        finally:
            for name in names:
                del self._loading[name]
        self.loads += len(found)
        if len(self._keys) + len(found) > _LIMIT:
            self.forget()
        for name, stored in found.items():
            self._put(name, stored)

    def _put(self, name: str, stored: tuple[SealedKey | HeldKey, Sequence[KeyVersion]] | None) -> None:
        now_s = self._clock()
        if stored is None:
            self._keys[name] = None
            self._absent_until_s[name] = now_s + self._keep_s
            return
        found, opened = stored
        if isinstance(found, HeldKey):
            self._keys[name] = TransitHeldKey(found.metadata, now_s + self._keep_s, KeyWords(), found)
        else:
            share = self._jitter(_SHORTEST_SHARE, _LONGEST_SHARE) if found.remote else 1.0
            key = EnvelopeKey(found.metadata, now_s + share * self._keep_s, KeyWords(), found, self._open)
            if self._keeps_material:
                key.remember(opened)
            self._keys[name] = key
        self._absent_until_s.pop(name, None)

    async def _open(self, key: EnvelopeKey, numbers: Collection[int]) -> None:
        await key.open_with(self._store, numbers)


def _find_proven(store: OpenStore, name: str) -> tuple[SealedKey | HeldKey, Sequence[KeyVersion]] | None:
    """A key with what can be opened without asking anybody. That each such seal opens is seen here, whether material
    is kept or not, so that a damaged key is refused whichever version is used.
    """
    key = store.find_sealed_key(name)
    if not isinstance(key, SealedKey):
        return None if key is None else (key, ())
    return key, key.open_versions([number for number in key.numbers if number not in key.remote])
