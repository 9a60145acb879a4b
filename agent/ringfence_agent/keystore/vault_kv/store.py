"""Keys and policy in documents of Vault's KV engine.

How it keeps the rules of `interface`: `journal` for changes, `documents` for what is believed of an answer. Rows,
seals and ledger are those of every store (`rows`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ringfence_agent.keystore.held import HeldKey
from ringfence_agent.keystore.interface import (
    Changes,
    DeletedKey,
    PolicyRevision,
    SealedKey,
    StoredKey,
    UnconfirmedChange,
)
from ringfence_agent.keystore.protection import how_sealed
from ringfence_agent.keystore.rows.changes import NO_KEY
from ringfence_agent.keystore.rows.kinds import PolicyRow
from ringfence_agent.keystore.rows.new_keys import is_storable
from ringfence_agent.keystore.rows.records import Records
from ringfence_agent.keystore.rows.snapshot import RowSnapshot
from ringfence_agent.keystore.rows.store import RowKeyStore, now_ms
from ringfence_agent.keystore.snapshot import Pause
from ringfence_agent.keystore.vault_kv.changes import VaultChanges
from ringfence_agent.keystore.vault_kv.documents import VaultDocuments
from ringfence_agent.keystore.vault_kv.index import KeyIndex
from ringfence_agent.keystore.vault_kv.journal import HeadChange, Journal
from ringfence_agent.keystore.vault_kv.owners import VaultOwners
from ringfence_agent.keystore.vault_kv.row_changes import VaultRows
from ringfence_agent.keystore.vault_kv.rows import KeyRecord, PolicyRecord, key_path, new_policy_path
from ringfence_agent.keystore.vault_kv.snapshot import read_snapshot
from ringfence_agent.keystore.vault_kv.tokens import VaultTokens
from ringfence_zones.errors import RevisionConflictError
from ringfence_zones.keys import KeyMetadata


class VaultKvKeyStore(RowKeyStore, VaultTokens):
    """See `interface.OpenStore`. Made by `vault_kv.open`."""

    def __init__(
        self,
        documents: VaultDocuments,
        records: Records,
        owners: VaultOwners | None = None,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        journal = Journal(documents, records)
        self._documents = documents
        self._journal = journal
        self._owners = owners or VaultOwners(documents)
        self._changes = VaultChanges(journal, records, self._owners)
        self._index = KeyIndex(documents, records)
        rows = VaultRows(documents, records, journal, self._index, self._owners)
        RowKeyStore.__init__(self, records, rows, clock)
        VaultTokens.__init__(self, documents, records, journal)
        records.protection.reread_with(lambda: journal.read().header.protector_header)

    @property
    def owner_id(self) -> int:
        """See KeyStore. The first call makes this handle known on this machine, and without waiting."""
        return self._owners.hold()

    def list_deleted(self) -> Sequence[DeletedKey]:
        """See KeyStore."""
        keys = [record.key for record in self._index.keys(self._journal.read())]
        return [DeletedKey(self._records.metadata(key), key.deleted_ms) for key in keys if key.deleted_ms is not None]

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
