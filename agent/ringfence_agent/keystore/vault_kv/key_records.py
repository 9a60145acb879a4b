"""Records of keys as a change reads and writes them; the ledger is kept along."""

from __future__ import annotations

from collections.abc import Sequence

from ringfence_agent.keystore.sql.key_rows import is_storable
from ringfence_agent.keystore.sql.prepared import Prepared
from ringfence_agent.keystore.sql.records import Records
from ringfence_agent.keystore.sql.tables import KeyVersionRow, ZoneKeyRow
from ringfence_agent.keystore.vault_kv.journal import HeadChange
from ringfence_agent.keystore.vault_kv.rows import KeyRecord, key_path
from ringfence_zones.errors import KeyNotFoundError
from ringfence_zones.keys import KeyVersion


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

    def seal(self, key: ZoneKeyRow, version: KeyVersion, created_ms: int, prepared: Prepared) -> KeyVersionRow:
        """The row of a new version, sealed by the slot that is active now."""
        return self._records.version_row(
            key, version.version, created_ms, lambda binding: prepared.seal(binding, version.material)
        )

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
