"""What a key store must do. One contract suite (`tests/contract/test_keystore.py`) runs against every one.

Rules every store keeps:

1. A change is durable when the method returns; before that it is either wholly there or not at all.
2. A deleted key is a tombstone: invisible to every read, its versions kept. A key created under the same name
   again continues the version numbers, so an old EDEK fails instead of decrypting to garbage.
3. Material crosses this interface only as `Secret`, and rests only wrapped by a protector.
4. A change that arrived in a request can be kept with its *origin*, in the same transaction, until its maker says that
   the answer left. So a request that is sent again because its answer was lost can be told from a second request.
5. Only errors of the `KeyStoreError` family leave a store, and InputError for what no store can keep.

Methods block; the server calls them off its event loop. A store is opened after the fork, one per process.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from ringfence_agent.keystore.held import AnyVersion, HeldKey, Material
from ringfence_agent.keystore.snapshot import Pause, StoreSnapshot
from ringfence_agent.keystore.token_store import TokenStore
from ringfence_zones.keys import KeyMetadata, KeyVersion
from ringfence_zones.secret import Secret


@dataclass(frozen=True, slots=True)
class NewKey:
    """What a create asks for; `material` holds `length_bits / 8` bytes, or says where the key is held."""

    name: str
    cipher: str
    length_bits: int
    material: Material
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
class SealedKey:
    """A live key whose material stays sealed until it is used; what is kept of it is what rests in the store.

    `numbers` are its live versions, oldest first; those in `remote` are opened by asking a protector elsewhere, the
    others without I/O. `slots` says of the remote ones which protector's slot sealed them, where the store has several.
    `open_versions` may be called in any thread.
    """

    metadata: KeyMetadata
    numbers: tuple[int, ...]
    open_versions: Callable[[Collection[int]], Sequence[KeyVersion]]
    """Some of `numbers` with their material, in the order given, all in one call to a protector. Raises
    StoreTamperedError when a seal does not open, ProtectorUnavailableError, ProtectorRefusedError."""
    remote: frozenset[int] = frozenset()
    slots: Mapping[int, int] = field(default_factory=dict)

    def open(self) -> StoredKey:
        """The key with all its material. Raises what `open_versions` does."""
        return StoredKey(self.metadata, tuple(self.open_versions(self.numbers)))


@dataclass(frozen=True, slots=True)
class DeletedKey:
    """A tombstone: the key as it was when it was deleted, in epoch milliseconds."""

    metadata: KeyMetadata
    deleted_ms: int


@dataclass(frozen=True, slots=True)
class ImportedVersion:
    """One version of a key elsewhere; `created_ms` in epoch milliseconds."""

    number: int
    material: Secret
    created_ms: int


@dataclass(frozen=True, slots=True)
class ImportedKey:
    """A key elsewhere, all its versions, oldest first; the last is `metadata.versions - 1`.

    Versions before the first may be missing, as they are after a recreate in Ringfence; none between may be.
    """

    metadata: KeyMetadata
    versions: Sequence[ImportedVersion]


@dataclass(frozen=True, slots=True)
class KeyImport:
    """What an import does to one key: `added` holds the numbers of versions that were not here."""

    key_name: str
    is_new: bool
    added: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PolicyRevision:
    """A published policy: immutable once stored. `document` is canonical JSON (UTF-8), `digest` its SHA-256 in hex."""

    revision: int
    document: bytes
    digest: str
    published_by: str
    published_ms: int


@dataclass(frozen=True, slots=True)
class ChangeOrigin:
    """The request that a create or roll comes from: who sent it, and a SHA-256 of all that it asked for."""

    user: str
    request_digest: bytes


@dataclass(frozen=True, slots=True)
class UnconfirmedChange:
    """A version that was committed, but whose answer is not known to have left.

    `owner_id` is the store handle that made it (`KeyStore.owner_id`), `made_ms` when, in epoch milliseconds.
    """

    key_name: str
    version: int
    origin: ChangeOrigin
    owner_id: int
    made_ms: int


@dataclass(frozen=True, slots=True)
class Changes:
    """What was committed after some change number, up to `number`. `keys` is None when the store cannot tell."""

    number: int
    keys: frozenset[str] | None


class KeyStore(Protocol):
    """See the module's rules."""

    @property
    def label(self) -> str:
        """How messages name this store: a URI without a secret."""

    @property
    def store_id(self) -> str:
        """What tells this store from every other, wherever it is put: 32 hex digits."""

    @property
    def owner_id(self) -> int:
        """This handle's number, unlike any other handle's on this store; see `is_alive`."""

    def create_key(self, new: NewKey, origin: ChangeOrigin | None = None) -> AnyVersion:
        """Raises KeyExistsError, StoreUnavailableError, StoreTamperedError, and InputError for a name that is empty,
        longer than 1,000 bytes or not Unicode, and for material that is not `length_bits` long.
        """

    def roll_key(self, name: str, material: Material | None, origin: ChangeOrigin | None = None) -> AnyVersion:
        """Adds a version; random material of the key's own length when None.

        A held key takes a later version of the same Transit key and nothing else, KeyChangedError when it is not that:
        somebody rolled the key, or made it again, since the caller looked.

        Raises KeyNotFoundError, StoreUnavailableError, StoreTamperedError, InputError for material of another length or
        kind, and UnconfirmedChangeError when a live version with the same origin is unconfirmed. That is looked up
        under the lock: a commit that its dead maker still had under way is over by then.
        """

    def delete_key(self, name: str) -> None:
        """Tombstones a key. Raises KeyNotFoundError, StoreUnavailableError."""

    def undelete_key(self, name: str, not_before_ms: int) -> KeyMetadata:
        """Brings a key back with all its versions, if it was deleted at `not_before_ms` or later.

        Raises KeyExistsError for a live key, one that was made again since for instance, and KeyNotFoundError when it
        was deleted before, or never was.
        """

    def list_deleted(self) -> Sequence[DeletedKey]:
        """Every tombstone, by name; a key that was made again is none."""

    def import_keys(self, keys: Sequence[ImportedKey], *, dry_run: bool = False) -> Sequence[KeyImport]:
        """Takes keys of another store over, all in one transaction: names, version numbers and times as they are.

        `key_import` says what is added and what is a conflict. `dry_run` only tells what would be done. Raises
        KeyConflictError naming every key that does not fit, and InputError as `create_key`; then nothing was imported.
        """

    def find_key(self, name: str) -> StoredKey | HeldKey | None:
        """A live key with its material, if that is here; None without a key.

        Raises StoreTamperedError, StoreUnavailableError.
        """

    def find_sealed_key(self, name: str) -> SealedKey | HeldKey | None:
        """As `find_key`, with the material still sealed."""

    def list_metadata(self) -> Sequence[KeyMetadata]:
        """Every live key, by name, without touching material."""

    def list_canaries(self) -> Sequence[tuple[str, int]]:
        """One live version, as name and number, for each way in which live versions are sealed: without I/O, and by
        each slot of a remote protector. Empty without keys.

        What it is chosen by is not verified: who reads the key then sees whether it is there and genuine.
        """

    def publish_policy(self, expected_revision: int, document: bytes, published_by: str) -> PolicyRevision:
        """Compare-and-set: stores `document` as revision `expected_revision + 1`. Raises RevisionConflictError."""

    def find_policy(self) -> PolicyRevision | None:
        """The newest published policy, None before the first."""

    def list_policies(self, after_revision: int) -> Sequence[PolicyRevision]:
        """Every revision after that one, oldest first. Raises StoreTamperedError when one is missing or changed."""

    def derive_secret(self, purpose: str) -> Secret:
        """32 bytes, the same on every handle of this store under this root and another for each purpose."""

    def change_number(self) -> int:
        """Grows with each committed change of keys or policy by anyone: equal means that nothing changed.

        One read of one row, checked against its seal. Take it *before* reading what is to be remembered under it.
        """

    def changes_since(self, number: int) -> Changes:
        """Which keys were created, rolled or deleted after `number`, an earlier `change_number`. One small read.

        A policy counts as a change of no key. `keys` is None when `number` lies too far back (a few hundred changes)
        or is ahead of the store, or after an import: then everything may have changed.
        """

    def find_unconfirmed(self, name: str) -> Sequence[UnconfirmedChange]:
        """Changes of a key that nobody has confirmed, oldest first. Changes made without an origin are never here."""

    def confirm(self, changes: Sequence[UnconfirmedChange]) -> None:
        """Forgets changes whose answer left, or that were answered again. One transaction; unknown ones do no harm."""

    def remove_unconfirmed(self, before_ms: int) -> int:
        """Forgets changes made before `before_ms` by this handle, or by handles that are gone: nobody sends those
        requests again. Another living handle's are its own business, by its own clock.
        """

    def is_alive(self, owner_id: int) -> bool:
        """Whether a handle is still open, as the kernel or the database server knows it: no heartbeat, no clock.

        A handle whose process was killed is gone at once; one whose whole machine died, when the server's keep-alive
        has noticed.
        """

    def snapshot(self, pause: Pause = ...) -> AbstractContextManager[StoreSnapshot]:
        """One committed state, all of it verified, read over a connection of its own while others change the store.

        Raises StoreTamperedError when it does not verify. May be used in any thread.
        """

    def close(self) -> None:
        """Releases handles; idempotent."""


class OpenStore(KeyStore, TokenStore, Protocol):
    """What `open_keystore` gives: keys, policy and tokens of one store."""
