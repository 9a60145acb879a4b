"""One committed state of a store as rows, verified as at its opening: see `keystore.snapshot`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ringfence_agent.keystore.authenticator import Authenticator, Ledger
from ringfence_agent.keystore.backup.records import Record
from ringfence_agent.keystore.held import HeldVersion
from ringfence_agent.keystore.rows.kinds import (
    BACKED_UP,
    KEY_VERSION,
    POLICY_REVISION,
    STORE_HEADER,
    TOKEN_MASTER_KEY,
    TOKEN_STATE,
    ZONE_KEY,
    HeaderRow,
    KeyVersionRow,
    RowKind,
    RowT,
    TableRows,
)
from ringfence_agent.keystore.rows.records import Records
from ringfence_agent.keystore.sealing import SealBrokenError
from ringfence_agent.keystore.slots import SlotHeader, check_slots
from ringfence_agent.keystore.snapshot import Pause, SealedVersion, StoreFacts, paced
from ringfence_zones.secret import Secret


class RowSnapshot:
    """See StoreSnapshot. Everything was verified once this is there."""

    columns: Mapping[str, Sequence[str]] = BACKED_UP
    versions: Sequence[SealedVersion]
    held: Sequence[HeldVersion]

    def __init__(self, tables: TableRows, version: int, records: Records, pause: Pause) -> None:
        """`version` is that of the format. `pause` is called between some rows. Raises StoreTamperedError."""
        self._rows = tables
        self._records = records
        self._pause = pause
        header = self._get_header()
        slots, ledger = self._open_header(header)
        keys, rows = self._verify_rows(slots, ledger)
        is_held = records.protection.is_held
        self.versions = [row for row in rows if not is_held(row.sealed)]
        self.held = [records.held_version(row) for row in rows if is_held(row.sealed)]
        self.facts = StoreFacts(
            store_id=header.store_id.hex(),
            created_ms=header.created_ms,
            schema_version=version,
            change_number=ledger.writes,
            policy_revision=ledger.revision,
            protector=header.protector,
            protector_header=header.protector_header,
            keys=keys,
            versions=len(rows),
        )

    def rows(self) -> Iterator[Record]:
        """See StoreSnapshot."""
        self._check_token_rows()
        for table in BACKED_UP:
            for row in paced(self._rows[table], self._pause):
                yield Record(table, tuple(row))

    def open_versions(self, wanted: Sequence[SealedVersion]) -> Sequence[Secret]:
        """See StoreSnapshot."""
        return self._records.open_rows([row for row in wanted if isinstance(row, KeyVersionRow)]) if wanted else []

    def _get_header(self) -> HeaderRow:
        found = [header for header, _ in self._read(STORE_HEADER)]
        if len(found) != 1:
            raise self._records.tampered("its header row is missing")
        return found[0]

    def _open_header(self, header: HeaderRow) -> tuple[SlotHeader, Ledger]:
        """With the root alone: another thread may have seen newer slots already."""
        root = self._records.protection.root
        try:
            slots = check_slots(header.protector_header, root)
            ledger = Authenticator(root, header.binding()).unseal(header.ledger)
        except (SealBrokenError, TypeError, OverflowError):
            raise self._records.tampered(
                "its header was changed, or it was given a new root while this process had it open"
            ) from None
        if header.store_id != root.store_id:
            raise self._records.tampered("its header is another store's")
        return slots, ledger

    def _verify_rows(self, slots: SlotHeader, ledger: Ledger) -> tuple[int, list[KeyVersionRow]]:
        """The number of live keys, and every version."""
        records, actual, live = self._records, Ledger(writes=ledger.writes), 0
        if slots.revision:
            actual.add(records.slots_element(slots))
        for key, tag in self._read(ZONE_KEY):
            records.check_tag(key, tag)
            actual.add(records.element(key))
            live += key.deleted_ms is None
        versions = []
        for version, _ in self._read(KEY_VERSION):
            actual.add(records.element(version))
            versions.append(version)
        for policy, tag in self._read(POLICY_REVISION):
            records.check_tag(policy, tag)
            actual.add(records.element(policy))
            actual.revision = max(actual.revision, policy.revision)
        if actual != ledger:
            raise records.tampered("rows were removed, added, swapped or put back from an earlier state")
        return live, versions

    def _check_token_rows(self) -> None:
        """These are not in the ledger."""
        for state, tag in self._read(TOKEN_STATE):
            self._records.check_tag(state, tag)
        for key, _ in self._read(TOKEN_MASTER_KEY):
            self._records.open_master_key(key)

    def _read(self, kind: RowKind[RowT]) -> Iterator[tuple[RowT, Any]]:
        """Each row of a kind with its tag, None where rows have none."""
        columns = {name: place for place, name in enumerate(kind.columns)}
        places = [columns[name] for name in kind.row._fields]
        tag = columns.get("tag")
        for row in paced(self._rows[kind.table], self._pause):
            yield kind.row(*(row[place] for place in places)), None if tag is None else row[tag]
