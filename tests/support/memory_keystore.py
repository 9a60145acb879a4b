"""A key store in a dictionary, for unit tests of what stands on one. It keeps the interface's rules, except durability.

The contract suite of key stores does not run against it: servers are tested against the real one.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ringfence_agent.keystore.interface import (
    ChangeOrigin,
    Changes,
    DeletedKey,
    NewKey,
    PolicyRevision,
    SealedKey,
    StoredKey,
    UnconfirmedChange,
)
from ringfence_agent.keystore.snapshot import Pause, StoreSnapshot
from ringfence_agent.keystore.token_store import MasterKey, TokenRecord
from ringfence_zones.errors import KeyExistsError, KeyNotFoundError, RevisionConflictError, UnconfirmedChangeError
from ringfence_zones.keys import KeyMetadata, KeyVersion
from ringfence_zones.secret import Secret


def _now_ms() -> int:
    return time.time_ns() // 10**6


class MemoryTokenStore:
    """See `ringfence_agent.keystore.token_store.TokenStore`."""

    def __init__(self) -> None:
        self._tokens: dict[int, TokenRecord] = {}
        self._master_keys: list[MasterKey] = []
        self._sequence = 0
        self._token_changes = 0
        self._lock = threading.RLock()

    def list_master_keys(self) -> Sequence[MasterKey]:
        return tuple(self._master_keys)

    def add_master_key(self, after: int, secret: Secret, created_ms: int, expires_ms: int) -> MasterKey:
        with self._lock:
            newest = self._master_keys[-1].key_id if self._master_keys else 0
            if newest == after:
                self._master_keys.append(MasterKey(after + 1, secret, created_ms, expires_ms))
                self._token_changes += 1
            return self._master_keys[-1]

    def next_sequence(self) -> int:
        with self._lock:
            self._sequence += 1
            return self._sequence

    def add_token(self, token: TokenRecord) -> None:
        with self._lock:
            assert token.sequence not in self._tokens
            self._tokens[token.sequence] = token

    def find_token(self, sequence: int) -> TokenRecord | None:
        return self._tokens.get(sequence)

    def renew_token(self, sequence: int, expires_ms: int) -> TokenRecord | None:
        with self._lock:
            old = self._tokens.get(sequence)
            if old is None:
                return None
            self._token_changes += 1
            new = TokenRecord(sequence, old.identifier, max(old.expires_ms, expires_ms))
            self._tokens[sequence] = new
            return new

    def cancel_token(self, sequence: int) -> bool:
        with self._lock:
            found = self._tokens.pop(sequence, None) is not None
            self._token_changes += found
            return found

    def remove_expired(self, now_ms: int) -> int:
        with self._lock:
            expired = [token.sequence for token in self._tokens.values() if token.expires_ms < now_ms]
            for sequence in expired:
                del self._tokens[sequence]
            kept = [key for key in self._master_keys[:-1] if key.expires_ms >= now_ms] + self._master_keys[-1:]
            self._token_changes += bool(expired) or len(kept) != len(self._master_keys)
            self._master_keys = kept
            return len(expired)

    def token_change_number(self) -> int:
        return self._token_changes


class MemoryKeyStore(MemoryTokenStore):
    """See `ringfence_agent.keystore.interface.OpenStore`. `reads` counts calls of `find_key`.

    `owners` are the handles that are alive, this one among them at first.
    """

    label = "memory"
    store_id = "00" * 16

    def __init__(self) -> None:
        super().__init__()
        self._keys: dict[str, StoredKey] = {}
        self._deleted: dict[str, tuple[StoredKey, int]] = {}
        self._revisions: list[PolicyRevision] = []
        self._changes: list[str | None] = []
        self._unconfirmed: list[UnconfirmedChange] = []
        self.owner_id = 1
        self.owners = {self.owner_id}
        self.reads = 0
        self.closed = False

    def create_key(self, new: NewKey, origin: ChangeOrigin | None = None) -> KeyVersion:
        with self._lock:
            if new.name in self._keys:
                raise KeyExistsError(new.name, self.label)
            version = KeyVersion(new.name, 0, new.material)
            metadata = KeyMetadata(new.name, new.cipher, new.length_bits, _now_ms(), 1, new.description, new.attributes)
            self._keys[new.name] = StoredKey(metadata, (version,))
            self._note(version, origin)
            return version

    def roll_key(self, name: str, material: Secret | None, origin: ChangeOrigin | None = None) -> KeyVersion:
        with self._lock:
            key = self._keys.get(name)
            if key is None:
                raise KeyNotFoundError(name)
            live = {version.version for version in key.versions}
            unconfirmed = [change for change in self.find_unconfirmed(name) if change.version in live]
            if origin is not None and any(change.origin == origin for change in unconfirmed):
                raise UnconfirmedChangeError(name)
            m = key.metadata
            version = KeyVersion(name, m.versions, material or Secret(os.urandom(m.length_bits // 8)))
            metadata = KeyMetadata(
                name, m.cipher, m.length_bits, m.created_ms, m.versions + 1, m.description, m.attributes
            )
            self._keys[name] = StoredKey(metadata, (*key.versions, version))
            self._note(version, origin)
            return version

    def _note(self, version: KeyVersion, origin: ChangeOrigin | None) -> None:
        self._changes.append(version.key_name)
        if origin is not None:
            change = UnconfirmedChange(version.key_name, version.version, origin, self.owner_id, _now_ms())
            self._unconfirmed.append(change)

    def delete_key(self, name: str) -> None:
        with self._lock:
            key = self._keys.pop(name, None)
            if key is None:
                raise KeyNotFoundError(name)
            self._deleted[name] = key, _now_ms()
            self._changes.append(name)

    def undelete_key(self, name: str, not_before_ms: int) -> KeyMetadata:
        with self._lock:
            if name in self._keys:
                raise KeyExistsError(name, self.label)
            key, deleted_ms = self._deleted.get(name, (None, 0))
            if key is None or deleted_ms < not_before_ms:
                raise KeyNotFoundError(name)
            self._keys[name] = key
            del self._deleted[name]
            self._changes.append(name)
            return key.metadata

    def list_deleted(self) -> Sequence[DeletedKey]:
        return [
            DeletedKey(key.metadata, deleted_ms)
            for name, (key, deleted_ms) in sorted(self._deleted.items())
            if name not in self._keys
        ]

    def find_key(self, name: str) -> StoredKey | None:
        self.reads += 1
        return self._keys.get(name)

    def find_sealed_key(self, name: str) -> SealedKey | None:
        key = self.find_key(name)
        if key is None:
            return None
        versions = {each.version: each for each in key.versions}
        return SealedKey(key.metadata, tuple(versions), lambda numbers: [versions[number] for number in numbers])

    def list_metadata(self) -> Sequence[KeyMetadata]:
        return [self._keys[name].metadata for name in sorted(self._keys)]

    def list_canaries(self) -> Sequence[tuple[str, int]]:
        return [(key.metadata.name, key.metadata.versions - 1) for _, key in sorted(self._keys.items())[:1]]

    def publish_policy(self, expected_revision: int, document: bytes, published_by: str) -> PolicyRevision:
        with self._lock:
            if expected_revision != len(self._revisions):
                raise RevisionConflictError(expected_revision, len(self._revisions))
            digest = hashlib.sha256(document).hexdigest()
            revision = PolicyRevision(expected_revision + 1, document, digest, published_by, _now_ms())
            self._revisions.append(revision)
            self._changes.append(None)
            return revision

    def find_policy(self) -> PolicyRevision | None:
        return self._revisions[-1] if self._revisions else None

    def list_policies(self, after_revision: int) -> Sequence[PolicyRevision]:
        return self._revisions[after_revision:]

    def derive_secret(self, purpose: str) -> Secret:
        return Secret(hashlib.sha256(purpose.encode()).digest())

    def change_number(self) -> int:
        return len(self._changes)

    def changes_since(self, number: int) -> Changes:
        if number > len(self._changes):
            return Changes(len(self._changes), None)
        return Changes(len(self._changes), frozenset(name for name in self._changes[number:] if name is not None))

    def find_unconfirmed(self, name: str) -> Sequence[UnconfirmedChange]:
        return [change for change in self._unconfirmed if change.key_name == name]

    def confirm(self, changes: Sequence[UnconfirmedChange]) -> None:
        confirmed = {(change.key_name, change.version, change.owner_id) for change in changes}
        self._unconfirmed = [
            change
            for change in self._unconfirmed
            if (change.key_name, change.version, change.owner_id) not in confirmed
        ]

    def remove_unconfirmed(self, before_ms: int) -> int:
        others = self.owners - {self.owner_id}
        left = [change for change in self._unconfirmed if change.made_ms >= before_ms or change.owner_id in others]
        removed = len(self._unconfirmed) - len(left)
        self._unconfirmed = left
        return removed

    def is_alive(self, owner_id: int) -> bool:
        return owner_id in self.owners

    @contextmanager
    def snapshot(self, pause: Pause = lambda: None) -> Iterator[StoreSnapshot]:
        raise AssertionError(f"a store in a dictionary has no rows to look at, nor to pause between ({pause})")
        yield

    def close(self) -> None:
        self.closed = True
