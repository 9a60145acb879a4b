"""Keys in this worker's memory: filled when first asked for, dropped when they changed (`freshness`) or grow old.

A key that does not exist is remembered as well, so that a NameNode that keeps asking for one costs nothing. Both
kinds are bounded in number and time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ringfence_agent.keystore.interface import StoredKey
from ringfence_agent.kms.eek import EekCipher
from ringfence_agent.kms.store_access import StoreAccess
from ringfence_agent.kms.unready import Unready
from ringfence_zones import kms_wire
from ringfence_zones.keys import KeyMetadata, KeyVersion

# `KeyAuthorizationKeyProvider.KEY_ACL_NAME`: the attribute that names another entry of the ACLs.
KEY_ACL_NAME = "key.acl.name"
_LIMIT = 16_384


@dataclass(slots=True)
class CachedKey:
    """A live key with its ciphers, which are made when first used. `loaded_s` is the cache's clock."""

    metadata: KeyMetadata
    versions: dict[int, KeyVersion]
    loaded_s: float
    _ciphers: dict[int, EekCipher] = field(default_factory=dict)
    _metadata_json: bytes = b""

    @property
    def metadata_json(self) -> bytes:
        """The metadata as the KMS answers it, encoded once."""
        if not self._metadata_json:
            self._metadata_json = kms_wire.encode(kms_wire.metadata_json(self.metadata))
        return self._metadata_json

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
        if cipher is None and number in self.versions:
            cipher = self._ciphers[number] = EekCipher(self.versions[number])
        return cipher

    def __repr__(self) -> str:
        return f"<CachedKey {self.metadata.name}>"


class KeyCache:
    """Used on the event loop only. `keep_s` is how long material stays in memory without being read again."""

    def __init__(self, store: StoreAccess, clock: Callable[[], float], keep_s: float) -> None:
        self._store = store
        self._clock = clock
        self._keep_s = keep_s
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
        return found

    def find_all(self, names: Iterable[str]) -> list[CachedKey | None]:
        """As `find`, for several, with one load for all that are missing."""
        wanted = list(names)
        missing = [name for name in wanted if name not in self._keys]
        if missing:
            raise Unready(lambda: self._load(missing))
        return [self._keys[name] for name in wanted]

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
        found = await self._store.read(lambda store: {name: store.find_key(name) for name in names})
        self.loads += len(found)
        if len(self._keys) + len(found) > _LIMIT:
            self.forget()
        for name, stored in found.items():
            self._put(name, stored)

    def _put(self, name: str, stored: StoredKey | None) -> None:
        if stored is None:
            self._keys[name] = None
            self._absent_s[name] = self._clock()
            return
        versions = {version.version: version for version in stored.versions}
        self._keys[name] = CachedKey(stored.metadata, versions, self._clock())
        self._absent_s.pop(name, None)
