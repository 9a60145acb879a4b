"""Keys and policy in documents of Vault's KV engine.

How it keeps the rules of `interface`: `journal` for changes, `documents` for what is believed of an answer. Rows,
seals and ledger are those of every store (`rows`).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ringfence_agent.keystore.held import AnyVersion, HeldKey, HeldVersion, Material, made_version
from ringfence_agent.keystore.interface import (
    ChangeOrigin,
    Changes,
    DeletedKey,
    ImportedKey,
    KeyImport,
    NewKey,
    PolicyRevision,
    SealedKey,
    StoredKey,
    UnconfirmedChange,
)
from ringfence_agent.keystore.protected_store import StoreSlots
from ringfence_agent.keystore.protection import how_sealed
from ringfence_agent.keystore.rows.changes import NO_KEY, SEVERAL_KEYS
from ringfence_agent.keystore.rows.kinds import PolicyRow, ZoneKeyRow
from ringfence_agent.keystore.rows.new_keys import check_length, check_new_key, is_storable
from ringfence_agent.keystore.rows.prepared import Prepared, with_seals
from ringfence_agent.keystore.rows.records import Records, attributes_text
from ringfence_agent.keystore.rows.slot_changes import SlotChanges, make_newest
from ringfence_agent.keystore.rows.snapshot import RowSnapshot
from ringfence_agent.keystore.snapshot import Pause
from ringfence_agent.keystore.vault_kv.changes import VaultChanges
from ringfence_agent.keystore.vault_kv.documents import VaultDocuments
from ringfence_agent.keystore.vault_kv.imports import VaultImports
from ringfence_agent.keystore.vault_kv.index import KeyIndex
from ringfence_agent.keystore.vault_kv.journal import HeadChange, Journal
from ringfence_agent.keystore.vault_kv.key_records import KeyRecords
from ringfence_agent.keystore.vault_kv.owners import VaultOwners
from ringfence_agent.keystore.vault_kv.rows import KeyRecord, PolicyRecord, key_path, new_policy_path
from ringfence_agent.keystore.vault_kv.slots import VaultSlotChange, VaultSlotRows
from ringfence_agent.keystore.vault_kv.snapshot import read_snapshot
from ringfence_agent.keystore.vault_kv.tokens import VaultTokens
from ringfence_zones.errors import (
    KeyExistsError,
    KeyNotFoundError,
    RevisionConflictError,
    UnconfirmedChangeError,
)
from ringfence_zones.keys import KeyMetadata
from ringfence_zones.secret import Secret


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class VaultKvKeyStore(VaultTokens):
    """See `interface.OpenStore`. Made by `vault_kv.open`."""

    def __init__(
        self,
        documents: VaultDocuments,
        records: Records,
        owners: VaultOwners | None = None,
        clock: Callable[[], int] = _now_ms,
    ) -> None:
        journal = Journal(documents, records)
        super().__init__(documents, records, journal)
        self._documents = documents
        self._records = records
        self._journal = journal
        self._owners = owners or VaultOwners(documents)
        self._changes = VaultChanges(journal, records, self._owners)
        self._index = KeyIndex(documents, records)
        self._keys = KeyRecords(records)
        self._imports = VaultImports(records, journal, self._keys)
        rows = VaultSlotRows(documents, records, journal, self._index)
        self.slots: StoreSlots = SlotChanges(records, rows)
        self._clock = clock
        records.protection.reread_with(lambda: journal.read().header.protector_header)

    @property
    def label(self) -> str:
        """See KeyStore."""
        return self._documents.label

    @property
    def store_id(self) -> str:
        """See KeyStore."""
        return self._records.protection.root.store_id.hex()

    @property
    def owner_id(self) -> int:
        """See KeyStore. The first call makes this handle known on this machine, and without waiting."""
        return self._owners.hold()

    def create_key(self, new: NewKey, origin: ChangeOrigin | None = None) -> AnyVersion:
        """See KeyStore. Raises InputError too, for a name or material that no key can have."""
        check_new_key(new)
        make_note, now_ms = self._note_of(origin), self._clock()

        def attempt(change: HeadChange, prepared: Prepared) -> AnyVersion:
            old = self._keys.find(change, new.name)
            if old is not None and old.key.deleted_ms is None:
                raise KeyExistsError(new.name, self.label)
            number = old.key.next_version if old else 0
            key = ZoneKeyRow(
                name=new.name,
                cipher=new.cipher,
                length_bits=new.length_bits,
                created_ms=now_ms,
                first_version=number,
                next_version=number + 1,
                deleted_ms=None,
                description=new.description,
                attributes=attributes_text(new.attributes),
            )
            made = made_version(new.name, number, new.material)
            if isinstance(made, HeldVersion):
                make_newest(self._records.protection, VaultSlotChange(self._records, self._index, change))
            row = self._keys.seal(key, made, now_ms, prepared)
            self._keys.write(change, old, key, [row])
            make_note(change, made, now_ms)
            return made

        made = self._sealed_change(new.name, attempt)
        if isinstance(made, HeldVersion):
            self._records.refresh_slots()
        return made

    def roll_key(self, name: str, material: Material | None, origin: ChangeOrigin | None = None) -> AnyVersion:
        """See KeyStore."""
        make_note, now_ms = self._note_of(origin), self._clock()
        drawn: dict[int, Secret] = {}  # by length: the same material each time the change runs

        def attempt(change: HeadChange, prepared: Prepared) -> AnyVersion:
            old = self._keys.get_live(change, name)
            live = [note for note in change.head.notes if note.key_name == name]
            if any(note.origin == origin and note.version >= old.key.first_version for note in live):
                raise UnconfirmedChangeError(name)
            length_bits = old.key.length_bits
            chosen = material
            if chosen is None:
                chosen = drawn.setdefault(length_bits, Secret(secrets.token_bytes(length_bits // 8)))
            check_length(chosen, length_bits)
            self._keys.require_next(old, chosen)
            key = old.key._replace(next_version=old.key.next_version + 1)
            made = made_version(name, old.key.next_version, chosen)
            row = self._keys.seal(key, made, now_ms, prepared)
            self._keys.write(change, old, key, [row])
            make_note(change, made, now_ms)
            return made

        return self._sealed_change(name, attempt)

    def delete_key(self, name: str) -> None:
        """See KeyStore."""

        def attempt(change: HeadChange) -> None:
            old = self._keys.get_live(change, name)
            self._keys.write(change, old, old.key._replace(deleted_ms=self._clock()))

        self._journal.change(name, attempt)

    def undelete_key(self, name: str, not_before_ms: int) -> KeyMetadata:
        """See KeyStore."""

        def attempt(change: HeadChange) -> ZoneKeyRow:
            old = self._keys.find(change, name) if is_storable(name) else None
            if old is None:
                raise KeyNotFoundError(name)
            if old.key.deleted_ms is None:
                raise KeyExistsError(name, self.label)
            if old.key.deleted_ms < not_before_ms:
                raise KeyNotFoundError(name, f"Key {name} was deleted too long ago to be brought back")
            key = old.key._replace(deleted_ms=None)
            self._keys.write(change, old, key)
            return key

        return self._records.metadata(self._journal.change(name, attempt))

    def list_deleted(self) -> Sequence[DeletedKey]:
        """See KeyStore."""
        keys = [record.key for record in self._index.keys(self._journal.read())]
        return [DeletedKey(self._records.metadata(key), key.deleted_ms) for key in keys if key.deleted_ms is not None]

    def skip_changes(self, number: int) -> None:
        """Makes `number` the store's change number, for a restore of an earlier state: later ones were given out."""

        def attempt(change: HeadChange) -> None:
            change.ledger.writes = max(change.ledger.writes, number - 1)

        self._journal.change(SEVERAL_KEYS, attempt)

    def import_keys(self, keys: Sequence[ImportedKey], *, dry_run: bool = False) -> Sequence[KeyImport]:
        """See KeyStore."""
        return self._imports.run(keys, dry_run=dry_run)

    def find_key(self, name: str) -> StoredKey | HeldKey | None:
        """See KeyStore."""
        found = self.find_sealed_key(name)
        return found.open() if isinstance(found, SealedKey) else found

    def find_sealed_key(self, name: str) -> SealedKey | HeldKey | None:
        """See KeyStore. One read."""
        document = self._documents.find(key_path(name)) if is_storable(name) else None
        record = None if document is None else KeyRecord.of(document)
        if record is None or record.key.deleted_ms is not None:
            return None
        return self._records.sealed_key(record.key, record.live_versions)

    def list_metadata(self) -> Sequence[KeyMetadata]:
        """See KeyStore. Reads the records that changed since the last time."""
        keys = [record.key for record in self._index.keys(self._journal.read())]
        return [self._records.metadata(key) for key in keys if key.deleted_ms is None]

    def list_canaries(self) -> Sequence[tuple[str, int]]:
        """See KeyStore. Chosen among records that were verified."""
        found: dict[bytes, tuple[str, int]] = {}
        for record in self._index.keys(self._journal.read()):
            if record.key.deleted_ms is None:
                sealed = [row for row in record.live_versions if not self._records.protection.is_held(row.sealed)]
                for row in reversed(sealed):
                    found.setdefault(how_sealed(row.sealed), (row.key_name, row.version))
        return list(found.values())

    def publish_policy(self, expected_revision: int, document: bytes, published_by: str) -> PolicyRevision:
        """See KeyStore."""
        row = PolicyRow(expected_revision + 1, document, published_by, self._clock())
        path = new_policy_path(row.revision)
        written: list[str | None] = []

        def attempt(change: HeadChange) -> None:
            head = change.head
            if change.ledger.revision != expected_revision:
                raise RevisionConflictError(expected_revision, change.ledger.revision)
            if not written:
                self._documents.write(path, PolicyRecord(row, head.policy).to_body(), 0)
                written.append(head.policy)
            head.policy = path
            change.add(row)
            change.ledger.revision = row.revision

        self._journal.change(NO_KEY, attempt)
        return self._records.policy(row)

    def find_policy(self) -> PolicyRevision | None:
        """See KeyStore."""
        path = self._journal.read().policy
        return None if path is None else self._records.policy(self._index.policy(path).row)

    def list_policies(self, after_revision: int) -> Sequence[PolicyRevision]:
        """See KeyStore."""
        found = self._index.policies_after(self._journal.read(), after_revision)
        return [self._records.policy(record.row) for record in found]

    def derive_secret(self, purpose: str) -> Secret:
        """See KeyStore."""
        return self._records.derive_secret(purpose)

    def change_number(self) -> int:
        """See KeyStore."""
        return self._changes.number()

    def changes_since(self, number: int) -> Changes:
        """See KeyStore."""
        return self._changes.since(number)

    def find_unconfirmed(self, name: str) -> Sequence[UnconfirmedChange]:
        """See KeyStore."""
        return self._changes.find_unconfirmed(name)

    def confirm(self, changes: Sequence[UnconfirmedChange]) -> None:
        """See KeyStore."""
        self._changes.confirm(changes)

    def remove_unconfirmed(self, before_ms: int) -> int:
        """See KeyStore."""
        return self._changes.remove_unconfirmed(before_ms)

    def is_alive(self, owner_id: int) -> bool:
        """See KeyStore; of other machines as `owners` says."""
        return self._owners.is_alive(owner_id)

    def verify(self) -> None:
        """Reads all of it, as fast as can be. Raises StoreTamperedError, StoreUnavailableError."""
        read_snapshot(self._journal, self._index, self._records, None)

    @contextmanager
    def snapshot(self, pause: Pause = lambda: None) -> Iterator[RowSnapshot]:
        """See KeyStore."""
        yield read_snapshot(self._journal, self._index, self._records, pause)

    def close(self) -> None:
        """See KeyStore. In a forked child it only lets go of its references: the handles are the parent's."""
        if self._documents.is_usable:
            self._owners.close()
            self._documents.close()

    def _sealed_change(self, name: str, attempt: Callable[[HeadChange, Prepared], AnyVersion]) -> AnyVersion:
        return with_seals(
            self._records,
            lambda prepared: self._journal.change(name, lambda change: attempt(change, prepared), prepared),
        )

    def _note_of(self, origin: ChangeOrigin | None) -> Callable[[HeadChange, AnyVersion, int], None]:
        """What keeps a version's origin until its answer has left."""
        if origin is None:
            return lambda _change, _version, _now_ms: None
        owner_id = self._owners.hold()
        self._owners.count_up()

        def note(change: HeadChange, version: AnyVersion, now_ms: int) -> None:
            change.head.notes.append(UnconfirmedChange(version.key_name, version.version, origin, owner_id, now_ms))

        return note
