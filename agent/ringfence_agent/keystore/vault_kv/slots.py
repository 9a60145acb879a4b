"""Versions and slots of a store in Vault, as `rows.slot_changes` works with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from ringfence_agent.keystore.rows.kinds import SLOTTED_VERSION, KeyVersionRow
from ringfence_agent.keystore.rows.records import Records
from ringfence_agent.keystore.rows.slot_changes import SlotChange
from ringfence_agent.keystore.slots import SlotHeader
from ringfence_agent.keystore.vault_kv.documents import VaultDocuments
from ringfence_agent.keystore.vault_kv.head import Head
from ringfence_agent.keystore.vault_kv.index import KeyIndex
from ringfence_agent.keystore.vault_kv.journal import HeadChange, Journal
from ringfence_agent.keystore.vault_kv.new_root import give_new_root
from ringfence_agent.keystore.vault_kv.rows import KeyRecord, key_path

T = TypeVar("T")


class VaultSlotRows:
    """See SlotRows."""

    def __init__(self, documents: VaultDocuments, records: Records, journal: Journal, index: KeyIndex) -> None:
        self._documents = documents
        self._records = records
        self._journal = journal
        self._index = index

    def all_versions(self) -> Sequence[KeyVersionRow]:
        """See SlotRows."""
        return _versions(self._index, self._journal.read())

    def change(self, key_name: str | None, attempt: Callable[[SlotChange], T]) -> T:
        """See SlotRows."""
        return self._journal.change(
            key_name, lambda change: attempt(VaultSlotChange(self._records, self._index, change))
        )

    def give_new_root(self) -> None:
        """See SlotRows."""
        give_new_root(self._documents, self._records, self._journal, self._index)


class VaultSlotChange:
    """See SlotChange."""

    def __init__(self, records: Records, index: KeyIndex, change: HeadChange) -> None:
        self._records = records
        self._index = index
        self._change = change

    def versions(self) -> Sequence[KeyVersionRow]:
        return _versions(self._index, self._change.head)

    def find_version(self, key_name: str, version: int) -> KeyVersionRow | None:
        record = self._find(key_name)
        rows = () if record is None else record.versions
        return next((row for row in rows if row.version == version), None)

    def replace_version(self, old: KeyVersionRow, new: KeyVersionRow) -> None:
        record = self._find(old.key_name)
        assert record is not None, "it was found before"
        versions = [new if row == old else row for row in record.versions]
        self._change.remove(old)
        self._change.add(new)
        self._change.put(key_path(old.key_name), KeyRecord(record.key, versions).to_body())

    def set_slots(self, old: SlotHeader, new: SlotHeader) -> None:
        head, ledger = self._change.head, self._change.ledger
        if old.revision == 0:
            head.format = SLOTTED_VERSION
        else:
            ledger.remove(self._records.slots_element(old))
        ledger.add(self._records.slots_element(new))
        head.header = head.header._replace(protector_header=new.to_bytes(self._records.protection.root))

    def _find(self, key_name: str) -> KeyRecord | None:
        document = self._change.find(key_path(key_name))
        return None if document is None else KeyRecord.of(document)


def _versions(index: KeyIndex, head: Head) -> Sequence[KeyVersionRow]:
    return [row for record in index.keys_as_of(head) for row in record.versions]
