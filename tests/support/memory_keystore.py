"""A key store in a dictionary, for unit tests of what stands on one. It keeps the interface's rules, except durability.

The contract suite of key stores does not run against it: servers are tested against the real one.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Sequence

from ringfence_agent.keystore.interface import NewKey, PolicyRevision, StoredKey
from ringfence_zones.errors import KeyExistsError, KeyNotFoundError, RevisionConflictError
from ringfence_zones.keys import KeyMetadata, KeyVersion
from ringfence_zones.secret import Secret


class MemoryKeyStore:
    """See `ringfence_agent.keystore.interface.KeyStore`. `reads` counts calls of `find_key`."""

    label = "memory"

    def __init__(self) -> None:
        self._keys: dict[str, StoredKey] = {}
        self._revisions: list[PolicyRevision] = []
        self._lock = threading.Lock()
        self.reads = 0
        self.closed = False

    def create_key(self, new: NewKey) -> KeyVersion:
        with self._lock:
            if new.name in self._keys:
                raise KeyExistsError(new.name, self.label)
            version = KeyVersion(new.name, 0, new.material)
            metadata = KeyMetadata(
                new.name, new.cipher, new.length_bits, time.time_ns() // 10**6, 1, new.description, new.attributes
            )
            self._keys[new.name] = StoredKey(metadata, (version,))
            return version

    def roll_key(self, name: str, material: Secret | None) -> KeyVersion:
        with self._lock:
            key = self._keys.get(name)
            if key is None:
                raise KeyNotFoundError(name)
            m = key.metadata
            version = KeyVersion(name, m.versions, material or Secret(os.urandom(m.length_bits // 8)))
            metadata = KeyMetadata(
                name, m.cipher, m.length_bits, m.created_ms, m.versions + 1, m.description, m.attributes
            )
            self._keys[name] = StoredKey(metadata, (*key.versions, version))
            return version

    def delete_key(self, name: str) -> None:
        with self._lock:
            if self._keys.pop(name, None) is None:
                raise KeyNotFoundError(name)

    def find_key(self, name: str) -> StoredKey | None:
        self.reads += 1
        return self._keys.get(name)

    def list_metadata(self) -> Sequence[KeyMetadata]:
        return [self._keys[name].metadata for name in sorted(self._keys)]

    def publish_policy(self, expected_revision: int, document: bytes, published_by: str) -> PolicyRevision:
        with self._lock:
            if expected_revision != len(self._revisions):
                raise RevisionConflictError(expected_revision, len(self._revisions))
            digest = hashlib.sha256(document).hexdigest()
            revision = PolicyRevision(expected_revision + 1, document, digest, published_by, time.time_ns() // 10**6)
            self._revisions.append(revision)
            return revision

    def find_policy(self) -> PolicyRevision | None:
        return self._revisions[-1] if self._revisions else None

    def list_policies(self, after_revision: int) -> Sequence[PolicyRevision]:
        return self._revisions[after_revision:]

    def close(self) -> None:
        self.closed = True
