"""Keys of another store taken over, all in one change: see `key_import` for what is a conflict."""

from __future__ import annotations

from collections.abc import Sequence

from ringfence_agent.keystore.held import HeldKey
from ringfence_agent.keystore.interface import ImportedKey, KeyImport, NewKey, StoredKey
from ringfence_agent.keystore.key_import import (
    ConflictError,
    check_imported_key,
    imported_attributes,
    judge_deleted,
    judge_live,
    judge_new,
)
from ringfence_agent.keystore.rows.changes import SEVERAL_KEYS, RowChange, StoreRows
from ringfence_agent.keystore.rows.kinds import ZoneKeyRow
from ringfence_agent.keystore.rows.new_keys import check_new_key, new_version_row
from ringfence_agent.keystore.rows.prepared import Prepared, with_seals
from ringfence_agent.keystore.rows.records import Records, attributes_text
from ringfence_zones.errors import KeyConflictError
from ringfence_zones.keys import KeyVersion


class KeyImports:
    """Imports into one store."""

    def __init__(self, records: Records, rows: StoreRows) -> None:
        self._records = records
        self._rows = rows

    def run(self, keys: Sequence[ImportedKey], *, dry_run: bool) -> Sequence[KeyImport]:
        """See KeyStore.import_keys."""
        for key in keys:
            _check(key)

        def attempt(change: RowChange, prepared: Prepared) -> Sequence[KeyImport]:
            done = self._import_keys(change, keys, prepared)
            if dry_run or not any(each.added for each in done):
                change.drop()
            return done

        return with_seals(
            self._records,
            lambda prepared: self._rows.change(SEVERAL_KEYS, lambda change: attempt(change, prepared), prepared),
        )

    def _import_keys(self, change: RowChange, keys: Sequence[ImportedKey], prepared: Prepared) -> Sequence[KeyImport]:
        done: list[KeyImport] = []
        conflicts: dict[str, str] = {}
        for key in keys:
            try:
                done.append(self._import_key(change, key, prepared))
            except ConflictError as conflict:
                conflicts[key.metadata.name] = str(conflict)
        if conflicts:
            raise KeyConflictError(conflicts)
        prepared.check_opened()
        return done

    def _import_key(self, change: RowChange, key: ImportedKey, prepared: Prepared) -> KeyImport:
        name, metadata = key.metadata.name, key.metadata
        old = change.find_key(name)
        if old is None:
            done = judge_new(key)
        elif old.deleted_ms is not None:
            done = judge_deleted(key, old.next_version)
        else:
            here = self._open_live_key(change, old, prepared)
            if here is None:
                return KeyImport(name, False, ())  # judged by the next run
            done = judge_live(key, here)
        if not done.added:
            return done
        row = ZoneKeyRow(
            name=name,
            cipher=metadata.cipher,
            length_bits=metadata.length_bits,
            created_ms=metadata.created_ms,
            first_version=done.added[0],
            next_version=metadata.versions,
            deleted_ms=None,
            description=metadata.description,
            attributes=attributes_text(imported_attributes(metadata.attributes)),
        )
        if old is not None and not done.is_new:
            row = old._replace(next_version=metadata.versions)
        added = [
            new_version_row(
                self._records, row, KeyVersion(name, version.number, version.material), version.created_ms, prepared
            )
            for version in key.versions[-len(done.added) :]
        ]
        change.write_key(old, row, added)
        return done

    def _open_live_key(self, change: RowChange, key: ZoneKeyRow, prepared: Prepared) -> StoredKey | None:
        """A key with its material, None when that has to be opened first."""
        rows = change.live_versions(key)
        sealed = self._records.sealed_key(key, rows)
        if isinstance(sealed, HeldKey):
            raise ConflictError("here Vault holds it (custody transit), and what is imported is material")
        if not sealed.remote:
            return sealed.open()
        materials = [prepared.open(row) for row in rows]
        versions = [
            KeyVersion(key.name, row.version, material)
            for row, material in zip(rows, materials, strict=True)
            if material is not None
        ]
        return StoredKey(sealed.metadata, versions) if len(versions) == len(rows) else None


def _check(key: ImportedKey) -> None:
    check_imported_key(key)
    m = key.metadata
    for version in key.versions:
        check_new_key(NewKey(m.name, m.cipher, m.length_bits, version.material, m.description, m.attributes))
