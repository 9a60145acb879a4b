"""One committed state of an SQL store, verified as at its opening: see `keystore.snapshot`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Select, Table, select

from ringfence_agent.keystore.authenticator import Authenticator, Ledger
from ringfence_agent.keystore.backup.records import Record
from ringfence_agent.keystore.sealing import SealBrokenError
from ringfence_agent.keystore.slots import SlotHeader, check_slots
from ringfence_agent.keystore.snapshot import Pause, SealedVersion, StoreFacts, paced
from ringfence_agent.keystore.sql.records import Records
from ringfence_agent.keystore.sql.tables import (
    KEY_VERSION,
    POLICY_REVISION,
    STORE_HEADER,
    TOKEN_MASTER_KEY,
    TOKEN_STATE,
    ZONE_KEY,
    HeaderRow,
    KeyVersionRow,
    PolicyRow,
    TokenMasterKeyRow,
    TokenStateRow,
    ZoneKeyRow,
)
from ringfence_zones.secret import Secret

_TABLES = (STORE_HEADER, ZONE_KEY, KEY_VERSION, POLICY_REVISION, TOKEN_STATE, TOKEN_MASTER_KEY)
BACKED_UP: Mapping[str, tuple[str, ...]] = {table.name: tuple(table.c.keys()) for table in _TABLES}
"""The tables of a backup with their columns. What is not among them means nothing to another time (`file_format`)."""


class SqlSnapshot:
    """See StoreSnapshot. Made by `SqlKeyStore.snapshot`; everything was verified once this is there."""

    columns: Mapping[str, Sequence[str]] = BACKED_UP

    def __init__(self, connection: Connection, version: int, records: Records, pause: Pause) -> None:
        """`version` is that of the format, whose structure was checked. `pause` is called between some rows."""
        self._connection = connection
        self._records = records
        self._pause = pause
        header = self._read_header()
        slots, ledger = self._open_header(header)
        keys, self.versions = self._verify_rows(slots, ledger)
        self.facts = StoreFacts(
            store_id=header.store_id.hex(),
            created_ms=header.created_ms,
            schema_version=version,
            change_number=ledger.writes,
            policy_revision=ledger.revision,
            protector=header.protector,
            protector_header=header.protector_header,
            keys=keys,
            versions=len(self.versions),
        )

    versions: Sequence[SealedVersion]

    def rows(self) -> Iterator[Record]:
        """See StoreSnapshot."""
        for table in _TABLES:
            for row in self._read(select(table).order_by(*table.primary_key)):
                self._check_token_row(table, row)
                yield Record(table.name, tuple(row))

    def open_versions(self, wanted: Sequence[SealedVersion]) -> Sequence[Secret]:
        """See StoreSnapshot."""
        return self._records.open_rows([row for row in wanted if isinstance(row, KeyVersionRow)]) if wanted else []

    def _read_header(self) -> HeaderRow:
        found = list(self._read(_columns_of(STORE_HEADER, HeaderRow)))
        if len(found) != 1:
            raise self._records.tampered("its header row is missing")
        return HeaderRow(*found[0])

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
        for *fields, tag in self._read(_columns_of(ZONE_KEY, ZoneKeyRow, tagged=True)):
            key = ZoneKeyRow(*fields)
            records.check_tag(key, tag)
            actual.add(records.element(key))
            live += key.deleted_ms is None
        versions = [KeyVersionRow(*fields) for fields in self._read(_columns_of(KEY_VERSION, KeyVersionRow))]
        for version in paced(versions, self._pause):
            actual.add(records.element(version))
        for *fields, tag in self._read(_columns_of(POLICY_REVISION, PolicyRow, tagged=True)):
            policy = PolicyRow(*fields)
            records.check_tag(policy, tag)
            actual.add(records.element(policy))
            actual.revision = max(actual.revision, policy.revision)
        if actual != ledger:
            raise records.tampered("rows were removed, added, swapped or put back from an earlier state")
        return live, versions

    def _check_token_row(self, table: Table, row: tuple[Any, ...]) -> None:
        """These are not in the ledger."""
        fields = dict(zip(table.c.keys(), row, strict=True))
        if table is TOKEN_STATE:
            state = TokenStateRow(*(fields[name] for name in TokenStateRow._fields))
            self._records.check_tag(state, fields["tag"])
        elif table is TOKEN_MASTER_KEY:
            self._records.open_master_key(TokenMasterKeyRow(**fields))

    def _read(self, statement: Select[Any]) -> Iterator[tuple[Any, ...]]:
        return map(tuple, paced(self._connection.execute(statement), self._pause))


def _columns_of(table: Table, row: type[Any], *, tagged: bool = False) -> Select[Any]:
    return select(*(table.c[name] for name in row._fields), *([table.c.tag] if tagged else []))
