"""Keys in this worker's memory: filled when first asked for, dropped when they changed (`freshness`) or grow old.

A key that does not exist is remembered as well, so that a NameNode that keeps asking for one costs nothing. Both
kinds are bounded in number and time.

What the store's own root sealed is opened when the key is read. What a remote protector sealed is opened version by
version when it is first used: by one call, whoever waits for it meanwhile, and it goes when the key does. Keys with
such versions do not all live equally long, so that workers and instances that began together do not all ask again at
once; none lives longer than `key_memory`.

With a key memory of 0 (Hadoop's `hadoop.kms.cache.enable=false`) no material is remembered, only records as they rest
in the store: each request opens the seal of the version it uses, and drops what it opened with its own answer. That
takes no I/O and about 10 µs. Python wipes no memory: what was dropped is overwritten when its place is used again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from ringfence_agent.keystore.interface import OpenStore, SealedKey
from ringfence_agent.kms.eek import EekCipher, EekWords
from ringfence_agent.kms.store_access import StoreAccess
from ringfence_agent.kms.unready import Unready
from ringfence_zones import kms_wire
from ringfence_zones.keys import KeyMetadata, KeyVersion

# `KeyAuthorizationKeyProvider.KEY_ACL_NAME`: the attribute that names another entry of the ACLs.
KEY_ACL_NAME = "key.acl.name"
_LIMIT = 16_384
# How long sealed records stay without being read again.
_KEEP_SEALED_S = 600.0
# The shares of `key_memory` that keys of remote protectors live.
_SHORTEST_SHARE, _LONGEST_SHARE = 0.8, 1.0


@dataclass(slots=True)
class _Words:
    """What is encoded once for a key, and is not secret."""

    metadata_json: bytes = b""
    _of_versions: dict[int, EekWords] = field(default_factory=dict)

    def of_version(self, name: str, number: int) -> EekWords:
        words = self._of_versions.get(number)
        if words is None:
            words = self._of_versions[number] = EekWords(name, number)
        return words


@dataclass(slots=True)
class CachedKey:
    """A live key with its ciphers, which are made when first used. `until_s` is on the cache's clock.

    What asks for material raises Unready while a remote protector has to open it.
    """

    metadata: KeyMetadata
    until_s: float
    _sealed: SealedKey
    _words: _Words
    _open: Callable[[CachedKey, Collection[int]], Awaitable[None]]
    _opened: dict[int, KeyVersion] = field(default_factory=dict)
    _ciphers: dict[int, EekCipher] = field(default_factory=dict)
    _opening: dict[int, asyncio.Task[None]] = field(default_factory=dict)

    def for_one_request(self) -> CachedKey:
        """The same key with no cipher made yet: what is opened for a request goes with it."""
        return CachedKey(self.metadata, self.until_s, self._sealed, self._words, self._open)

    @property
    def numbers(self) -> Collection[int]:
        """Its live versions, oldest first."""
        return self._sealed.numbers

    def require(self, numbers: Iterable[int]) -> None:
        """Raises Unready once for all of these versions that have to be opened; none of the others does then."""
        missing = [number for number in numbers if number in self._sealed.remote and number not in self._opened]
        if missing:
            self._raise_unready(missing)

    def get_version(self, number: int) -> KeyVersion:
        """One of `numbers` with its material."""
        version = self._opened.get(number)
        if version is None:
            if number in self._sealed.remote:
                self._raise_unready([number])
            (version,) = self._sealed.open_versions([number])
        return version

    def remember(self, opened: Iterable[KeyVersion]) -> None:
        """Keeps material that is open already."""
        self._opened.update((version.version, version) for version in opened)

    def _raise_unready(self, numbers: Sequence[int]) -> NoReturn:
        raise Unready(lambda: self._open(self, numbers))

    async def open_with(self, store: StoreAccess, numbers: Collection[int]) -> None:
        """Opens versions where their protector is. Who asks for one that is being opened waits for that.

        A failure is the answer to all who waited for it.
        """
        begun = [number for number in numbers if number not in self._opened and number not in self._opening]
        if begun:
            task = asyncio.get_running_loop().create_task(self._open_now(store, begun))
            task.add_done_callback(_retrieve)
            self._opening.update(dict.fromkeys(begun, task))
        for task in {self._opening[number] for number in numbers if number in self._opening}:
            await asyncio.shield(task)  # who asked first may go away in the middle of it

    async def _open_now(self, store: StoreAccess, numbers: Sequence[int]) -> None:
        try:
            opened = await store.open_versions(self._sealed, numbers)
            self._opened.update(zip(numbers, opened, strict=True))
        finally:
            for number in numbers:
                del self._opening[number]

    @property
    def metadata_json(self) -> bytes:
        """The metadata as the KMS answers it, encoded once."""
        words = self._words
        if not words.metadata_json:
            words.metadata_json = kms_wire.encode(kms_wire.metadata_json(self.metadata))
        return words.metadata_json

    @property
    def acl_name(self) -> str:
        """The name that key ACLs know it by."""
        return self.metadata.attributes.get(KEY_ACL_NAME) or self.metadata.name

    @property
    def current(self) -> EekCipher:
        """The version that new EDEKs are made with."""
        cipher = self.find_cipher(self.metadata.versions - 1)
        assert cipher is not None, "a live key has its current version"
        return cipher

    def find_cipher(self, number: int) -> EekCipher | None:
        """The cipher of one version, None when there is no such version."""
        cipher = self._ciphers.get(number)
        if cipher is None and number in self.numbers:
            words = self._words.of_version(self.metadata.name, number)
            cipher = self._ciphers[number] = EekCipher(self.get_version(number), words)
        return cipher

    def __repr__(self) -> str:
        return f"<CachedKey {self.metadata.name}>"


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
        return found if found is None or self._keeps_material else found.for_one_request()

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
            task.add_done_callback(_retrieve)
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

    def _put(self, name: str, stored: tuple[SealedKey, Sequence[KeyVersion]] | None) -> None:
        now_s = self._clock()
        if stored is None:
            self._keys[name] = None
            self._absent_until_s[name] = now_s + self._keep_s
            return
        sealed, opened = stored
        share = self._jitter(_SHORTEST_SHARE, _LONGEST_SHARE) if sealed.remote else 1.0
        key = CachedKey(sealed.metadata, now_s + share * self._keep_s, sealed, _Words(), self._open)
        if self._keeps_material:
            key.remember(opened)
        self._keys[name] = key
        self._absent_until_s.pop(name, None)

    async def _open(self, key: CachedKey, numbers: Collection[int]) -> None:
        await key.open_with(self._store, numbers)


def _find_proven(store: OpenStore, name: str) -> tuple[SealedKey, Sequence[KeyVersion]] | None:
    """A key with what can be opened without asking anybody. That each such seal opens is seen here, whether material
    is kept or not, so that a damaged key is refused whichever version is used.
    """
    key = store.find_sealed_key(name)
    if key is None:
        return None
    return key, key.open_versions([number for number in key.numbers if number not in key.remote])


def _retrieve(task: asyncio.Task[None]) -> None:
    """Everybody who waited may have gone away; then nobody else looks at what became of it."""
    if not task.cancelled():
        task.exception()
