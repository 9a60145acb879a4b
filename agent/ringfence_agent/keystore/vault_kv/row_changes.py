"""Changes of rows in documents: see `rows.changes`. One change is one write of the head (`journal`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from ringfence_agent.keystore.authenticator import Ledger
from ringfence_agent.keystore.interface import UnconfirmedChange
from ringfence_agent.keystore.rows.changes import RowChange
from ringfence_agent.keystore.rows.kinds import SLOTTED_VERSION, KeyVersionRow, ZoneKeyRow
from ringfence_agent.keystore.rows.prepared import Prepared
from ringfence_agent.keystore.rows.records import Records
from ringfence_agent.keystore.slots import SlotHeader
from ringfence_agent.keystore.vault_kv.documents import VaultDocuments
from ringfence_agent.keystore.vault_kv.head import Head
from ringfence_agent.keystore.vault_kv.index import KeyIndex
from ringfence_agent.keystore.vault_kv.journal import HeadChange, Journal
from ringfence_agent.keystore.vault_kv.new_root import give_new_root
from ringfence_agent.keystore.vault_kv.owners import VaultOwners
from ringfence_agent.keystore.vault_kv.rows import KeyRecord, key_path

T = TypeVar("T")


class VaultRows:
    """See StoreRows."""

    def __init__(
        self, documents: VaultDocuments, records: Records, journal: Journal, index: KeyIndex, owners: VaultOwners
    ) -> None:
        self._documents = documents
        self._records = records
        self._journal = journal
        self._index = index
        self._owners = owners

    @property
    def label(self) -> str:
        """See StoreRows."""
        return self._documents.label

    def hold_owner(self) -> int:
        """See StoreRows."""
        owner_id = self._owners.hold()
        self._owners.count_up()
        return owner_id

    def all_versions(self) -> Sequence[KeyVersionRow]:
        """See StoreRows."""
        return _versions(self._index, self._journal.read())

    def change(self, key_name: str | None, attempt: Callable[[RowChange], T], prepared: Prepared | None = None) -> T:
        """See StoreRows."""
        return self._journal.change(
            key_name, lambda change: attempt(VaultRowChange(self._records, self._index, change)), prepared
        )

    def give_new_root(self) -> None:
        """See StoreRows."""
        give_new_root(self._documents, self._records, self._journal, self._index)


class VaultRowChange:
    """See RowChange. The record of a key is read once."""

    def __init__(self, records: Records, index: KeyIndex, change: HeadChange) -> None:
        self._records = records
        self._index = index
        self._change = change
        self._found: dict[str, KeyRecord | None] = {}

    @property
    def ledger(self) -> Ledger:
        return self._change.ledger

    def find_key(self, name: str) -> ZoneKeyRow | None:
        record = self._find(name)
        return None if record is None else record.key

    def live_versions(self, key: ZoneKeyRow) -> Sequence[KeyVersionRow]:
        return KeyRecord(key, self._all_of(key.name)).live_versions

    def all_versions(self) -> Sequence[KeyVersionRow]:
        return _versions(self._index, self._change.head)

    def find_version(self, key_name: str, version: int) -> KeyVersionRow | None:
        return next((row for row in self._all_of(key_name) if row.version == version), None)

    def write_key(self, old: ZoneKeyRow | None, new: ZoneKeyRow, added: Sequence[KeyVersionRow] = ()) -> None:
        if old is not None:
            self._change.remove(old)
        self._change.add(new)
        for row in added:
            self._change.add(row)
        self._put(KeyRecord(new, [*self._all_of(new.name), *added]))

    def replace_version(self, old: KeyVersionRow, new: KeyVersionRow) -> None:
        record = self._find(old.key_name)
        assert record is not None, "it was found before"
        self._change.remove(old)
        self._change.add(new)
        self._put(KeyRecord(record.key, [new if row == old else row for row in record.versions]))

    def set_slots(self, old: SlotHeader, new: SlotHeader) -> None:
        head = self._change.head
        if old.revision == 0:
            head.format = SLOTTED_VERSION
        else:
            self.ledger.remove(self._records.slots_element(old))
        self.ledger.add(self._records.slots_element(new))
        head.header = head.header._replace(protector_header=new.to_bytes(self._records.protection.root))

    def find_unconfirmed(self, key_name: str) -> Sequence[UnconfirmedChange]:
        return [note for note in self._change.head.notes if note.key_name == key_name]

    def note_unconfirmed(self, change: UnconfirmedChange) -> None:
        self._change.head.notes.append(change)

    def drop(self) -> None:
        self._change.drop()

    def _find(self, name: str) -> KeyRecord | None:
        if name not in self._found:
            document = self._change.find(key_path(name))
            self._found[name] = None if document is None else KeyRecord.of(document)
        return self._found[name]

    def _all_of(self, name: str) -> Sequence[KeyVersionRow]:
        record = self._find(name)
        return () if record is None else record.versions

    def _put(self, record: KeyRecord) -> None:
        self._found[record.key.name] = record
        self._change.put(key_path(record.key.name), record.to_body())


def _versions(index: KeyIndex, head: Head) -> Sequence[KeyVersionRow]:
    return [row for record in index.keys_as_of(head) for row in record.versions]
