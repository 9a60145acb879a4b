"""Records of keys as a change reads and writes them; the ledger is kept along."""

from __future__ import annotations

from collections.abc import Sequence

from ringfence_agent.keystore.held import AnyVersion, Material
from ringfence_agent.keystore.rows.kinds import KeyVersionRow, ZoneKeyRow
from ringfence_agent.keystore.rows.new_keys import is_storable, new_version_row, require_next
from ringfence_agent.keystore.rows.prepared import Prepared
from ringfence_agent.keystore.rows.records import Records
from ringfence_agent.keystore.vault_kv.journal import HeadChange
from ringfence_agent.keystore.vault_kv.rows import KeyRecord, key_path
from ringfence_zones.errors import KeyNotFoundError


class KeyRecords:
    """Each method works inside a change."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def find(self, change: HeadChange, name: str) -> KeyRecord | None:
        """A key, deleted or not."""
        document = change.find(key_path(name))
        return None if document is None else KeyRecord.of(document)

    def get_live(self, change: HeadChange, name: str) -> KeyRecord:
        """Raises KeyNotFoundError for a deleted key as well."""
        record = self.find(change, name) if is_storable(name) else None
        if record is None or record.key.deleted_ms is not None:
            raise KeyNotFoundError(name)
        return record

    def require_next(self, record: KeyRecord, material: Material) -> None:
        """See `rows.new_keys.require_next`, of the current version."""
        current = next((row for row in record.versions if row.version == record.key.next_version - 1), None)
        if current is None:
            raise self._records.tampered(f"the current version of key {record.key.name!r} is missing")
        require_next(self._records, current, material)

    def seal(self, key: ZoneKeyRow, version: AnyVersion, created_ms: int, prepared: Prepared) -> KeyVersionRow:
        """See `rows.new_keys.new_version_row`."""
        return new_version_row(self._records, key, version, created_ms, prepared)

    def write(
        self, change: HeadChange, old: KeyRecord | None, key: ZoneKeyRow, added: Sequence[KeyVersionRow] = ()
    ) -> None:
        """`key` in the place of `old`, with more versions."""
        if old is not None:
            change.remove(old.key)
        change.add(key)
        for row in added:
            change.add(row)
        versions = [*(old.versions if old is not None else ()), *added]
        change.put(key_path(key.name), KeyRecord(key, versions).to_body())
