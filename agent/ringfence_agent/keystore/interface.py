"""What a key store must do. One contract suite (`tests/contract/test_keystore.py`) runs against every one.

Rules every store keeps:

1. A change is durable when the method returns; before that it is either wholly there or not at all.
2. A deleted key is a tombstone: invisible to every read, its versions kept. A key created under the same name
   again continues the version numbers, so an old EDEK fails instead of decrypting to garbage.
3. Material crosses this interface only as `Secret`, and rests only wrapped by a protector.
4. Only errors of the `KeyStoreError` family leave a store, and InputError for what no store can keep.

Methods block; the server calls them off its event loop. A store is opened after the fork, one per process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ringfence_zones.keys import KeyMetadata, KeyVersion
from ringfence_zones.secret import Secret


@dataclass(frozen=True, slots=True)
class NewKey:
    """What a create asks for; `material` holds `length_bits / 8` bytes."""

    name: str
    cipher: str
    length_bits: int
    material: Secret
    description: str | None
    attributes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A live key with all its live versions, oldest first. The last is the current one.

    After a recreate the first version's number is not 0: `metadata.versions` is the current number plus one, as
    Hadoop computes it, and `versions` may be shorter.
    """

    metadata: KeyMetadata
    versions: Sequence[KeyVersion]


@dataclass(frozen=True, slots=True)
class PolicyRevision:
    """A published policy: immutable once stored. `document` is canonical JSON (UTF-8), `digest` its SHA-256 in hex."""

    revision: int
    document: bytes
    digest: str
    published_by: str
    published_ms: int


class KeyStore(Protocol):
    """See the module's rules."""

    @property
    def label(self) -> str:
        """How messages name this store: a URI without a secret."""

    def create_key(self, new: NewKey) -> KeyVersion:
        """Raises KeyExistsError, StoreUnavailableError, StoreTamperedError, and InputError for a name that is empty,
        longer than 1,000 bytes or not Unicode, and for material that is not `length_bits` long.
        """

    def roll_key(self, name: str, material: Secret | None) -> KeyVersion:
        """Adds a version; random material of the key's own length when None.

        Raises KeyNotFoundError, StoreUnavailableError, StoreTamperedError, and InputError for material of
        another length.
        """

    def delete_key(self, name: str) -> None:
        """Tombstones a key. Raises KeyNotFoundError, StoreUnavailableError."""

    def find_key(self, name: str) -> StoredKey | None:
        """A live key with its material, None without one. Raises StoreTamperedError, StoreUnavailableError."""

    def list_metadata(self) -> Sequence[KeyMetadata]:
        """Every live key, by name, without touching material."""

    def publish_policy(self, expected_revision: int, document: bytes, published_by: str) -> PolicyRevision:
        """Compare-and-set: stores `document` as revision `expected_revision + 1`. Raises RevisionConflictError."""

    def find_policy(self) -> PolicyRevision | None:
        """The newest published policy, None before the first."""

    def close(self) -> None:
        """Releases handles; idempotent."""
