"""Keys in this worker's memory: filled when first asked for, dropped when they changed (`freshness`) or grow old.

A key that does not exist is remembered as well, so that a NameNode that keeps asking for one costs nothing. Both
kinds are bounded in number and time.

With a key memory of 0 (Hadoop's `hadoop.kms.cache.enable=false`) no material is remembered, only records as they rest
in the store: each request opens the seal of the version it uses, and drops what it opened with its own answer. That
takes no I/O and about 10 µs. Python wipes no memory: what was dropped is overwritten when its place is used again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

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
    """A live key with its ciphers, which are made when first used. `loaded_s` is the cache's clock."""

    metadata: KeyMetadata
    loaded_s: float
    _openers: Mapping[int, Callable[[], KeyVersion]]
    _words: _Words
    _ciphers: dict[int, EekCipher] = field(default_factory=dict)

    @classmethod
    def of(cls, key: SealedKey, loaded_s: float) -> CachedKey:
        """A key as it came from the store."""
        return cls(key.metadata, loaded_s, key.versions, _Words())

    def for_one_request(self) -> CachedKey:
        """The same key with no cipher made yet: what is opened for a request goes with it."""
        return CachedKey(self.metadata, self.loaded_s, self._openers, self._words)

    @property
    def numbers(self) -> Collection[int]:
        """Its live versions, oldest first."""
        return self._openers.keys()

    def get_version(self, number: int) -> KeyVersion:
        """One of `numbers` with its material."""
        return self._openers[number]()

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
        if cipher is None and number in self._openers:
            words = self._words.of_version(self.metadata.name, number)
            cipher = self._ciphers[number] = EekCipher(self.get_version(number), words)
        return cipher

    def __repr__(self) -> str:
        return f"<CachedKey {self.metadata.name}>"


class KeyCache:
    """Used on the event loop only. `keep_s` is how long material stays in memory without being read again; 0: not."""

    def __init__(self, store: StoreAccess, clock: Callable[[], float], keep_s: float) -> None:
        self._store = store
        self._clock = clock
        self._keeps_material = keep_s > 0
        self._keep_s = keep_s or _KEEP_SEALED_S
        # None: no such key; then the time is in _absent_s.
        self._keys: dict[str, CachedKey | None] = {}
        self._absent_s: dict[str, float] = {}
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
            self._absent_s.clear()
            return
        for name in names:
            self._keys.pop(name, None)
            self._absent_s.pop(name, None)

    def drop_old(self) -> None:
        """Drops what has been in memory for too long; called by a timer."""
        oldest_s = self._clock() - self._keep_s
        for name, key in tuple(self._keys.items()):
            if (key.loaded_s if key is not None else self._absent_s[name]) <= oldest_s:
                del self._keys[name]
                self._absent_s.pop(name, None)

    async def _load(self, names: Iterable[str]) -> None:
        find = _find_open if self._keeps_material else _find_proven
        found = await self._store.read(lambda store: {name: find(store, name) for name in names})
        self.loads += len(found)
        if len(self._keys) + len(found) > _LIMIT:
            self.forget()
        for name, stored in found.items():
            self._put(name, stored)

    def _put(self, name: str, stored: SealedKey | None) -> None:
        if stored is None:
            self._keys[name] = None
            self._absent_s[name] = self._clock()
            return
        self._keys[name] = CachedKey.of(stored, self._clock())
        self._absent_s.pop(name, None)


def _find_open(store: OpenStore, name: str) -> SealedKey | None:
    """With every seal opened once and for all, in the store's thread."""
    key = store.find_key(name)
    if key is None:
        return None
    return SealedKey(key.metadata, {version.version: functools.partial(_same, version) for version in key.versions})


def _same(version: KeyVersion) -> KeyVersion:
    return version


def _find_proven(store: OpenStore, name: str) -> SealedKey | None:
    """Sealed. That each seal opens is seen here as well, so that a damaged key is refused whichever version is used."""
    key = store.find_sealed_key(name)
    if key is not None:
        key.open()
    return key
