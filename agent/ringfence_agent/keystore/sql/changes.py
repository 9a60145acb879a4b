"""What instances tell each other through the store: which keys changed, and which answers may not have left.

`key_change` has one row for each of the newest transactions, written in the transaction itself and numbered by the
ledger's count of writes. Rows are tagged and their numbers have no gap, so a removed row is noticed: the reader is
then told that everything may have changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select

from ringfence_agent.keystore.interface import ChangeOrigin, Changes, UnconfirmedChange
from ringfence_agent.keystore.rows.changes import KEPT_CHANGES, NO_KEY, SEVERAL_KEYS
from ringfence_agent.keystore.rows.kinds import KeyChangeRow, UnconfirmedRow
from ringfence_agent.keystore.rows.records import Records
from ringfence_agent.keystore.sql.session import SqlSession
from ringfence_agent.keystore.sql.tables import KEY_CHANGE, STORE_HEADER, UNCONFIRMED_CHANGE

_UNCONFIRMED_COLUMNS = [UNCONFIRMED_CHANGE.c[name] for name in UnconfirmedRow._fields]
_SELECT_LEDGER = select(STORE_HEADER.c.ledger)
# An outer join, so that the ledger comes with the changes it counts, in one statement.
_SELECT_CHANGES = (
    select(STORE_HEADER.c.ledger, KEY_CHANGE.c.number, KEY_CHANGE.c.key_name, KEY_CHANGE.c.tag)
    .outerjoin(KEY_CHANGE, KEY_CHANGE.c.number > bindparam("after"))
    .order_by(KEY_CHANGE.c.number)
)
_DELETE_CHANGE = delete(KEY_CHANGE).where(KEY_CHANGE.c.number <= bindparam("last"))
_SELECT_UNCONFIRMED = (
    select(*_UNCONFIRMED_COLUMNS, UNCONFIRMED_CHANGE.c.tag)
    .where(UNCONFIRMED_CHANGE.c.key_name == bindparam("name"))
    .order_by(UNCONFIRMED_CHANGE.c.version)
)
_SELECT_OLD_OWNERS = (
    select(UNCONFIRMED_CHANGE.c.owner_id).where(UNCONFIRMED_CHANGE.c.made_ms < bindparam("before")).distinct()
)
_DELETE_OF_OWNER = delete(UNCONFIRMED_CHANGE).where(
    UNCONFIRMED_CHANGE.c.owner_id == bindparam("owner"), UNCONFIRMED_CHANGE.c.made_ms < bindparam("before")
)
_DELETE_UNCONFIRMED = delete(UNCONFIRMED_CHANGE).where(
    UNCONFIRMED_CHANGE.c.key_name == bindparam("name"),
    UNCONFIRMED_CHANGE.c.version == bindparam("number"),
    UNCONFIRMED_CHANGE.c.owner_id == bindparam("owner"),
)


class SqlChanges:
    """The part of `interface.KeyStore` that is about changes rather than keys."""

    def __init__(self, session: SqlSession, records: Records) -> None:
        self._session = session
        self._records = records

    def number(self) -> int:
        """See KeyStore.change_number."""
        rows = self._session.read(_SELECT_LEDGER)
        if len(rows) != 1:
            raise self._records.tampered("its header row is missing")
        return self._records.open_ledger(rows[0][0]).writes

    def since(self, number: int) -> Changes:
        """See KeyStore.changes_since."""
        rows = self._session.read(_SELECT_CHANGES, after=number)
        if not rows:
            raise self._records.tampered("its header row is missing")
        newest = self._records.open_ledger(rows[0][0]).writes
        found = [KeyChangeRow(row[1], row[2]) for row in rows if row[1] is not None]
        if number > newest or [change.number for change in found] != list(range(number + 1, newest + 1)):
            return Changes(newest, None)
        for change, row in zip(found, rows, strict=False):
            self._records.check_tag(change, row[3])
        names = {change.key_name for change in found} - {NO_KEY}
        return Changes(newest, None if SEVERAL_KEYS in names else frozenset(name for name in names if name is not None))

    def note(self, connection: Connection, number: int, key_name: str | None) -> None:
        """Writes down which key a transaction changes, inside it; NO_KEY for a policy, SEVERAL_KEYS for an import."""
        connection.execute(insert(KEY_CHANGE), self._records.tagged(KeyChangeRow(number, key_name)))
        connection.execute(_DELETE_CHANGE, {"last": number - KEPT_CHANGES})

    def note_unconfirmed(self, connection: Connection, change: UnconfirmedChange) -> None:
        """Keeps a version's origin, inside the transaction that makes the version."""
        row = UnconfirmedRow(
            change.key_name,
            change.version,
            change.origin.user,
            change.origin.request_digest,
            change.owner_id,
            change.made_ms,
        )
        connection.execute(insert(UNCONFIRMED_CHANGE), self._records.tagged(row))

    def find_unconfirmed(self, name: str) -> Sequence[UnconfirmedChange]:
        """See KeyStore."""
        return self._unconfirmed(self._session.read(_SELECT_UNCONFIRMED, name=name))

    def find_unconfirmed_in(self, connection: Connection, name: str) -> Sequence[UnconfirmedChange]:
        """The same, as seen inside a transaction."""
        return self._unconfirmed(connection.execute(_SELECT_UNCONFIRMED, {"name": name}).fetchall())

    def _unconfirmed(self, rows: Sequence[Any]) -> Sequence[UnconfirmedChange]:
        found = []
        for *fields, tag in rows:
            row = UnconfirmedRow(*fields)
            self._records.check_tag(row, tag)
            origin = ChangeOrigin(row.made_by, row.request_digest)
            found.append(UnconfirmedChange(row.key_name, row.version, origin, row.owner_id, row.made_ms))
        return found

    def confirm(self, changes: Sequence[UnconfirmedChange]) -> None:
        """See KeyStore."""
        if not changes:
            return
        # In one order for all, so that two who confirm the same changes cannot wait for each other.
        rows = sorted({(change.key_name, change.version, change.owner_id) for change in changes})
        with self._session.transaction(_SELECT_LEDGER) as transaction:
            transaction.connection.execute(
                _DELETE_UNCONFIRMED, [{"name": name, "number": number, "owner": owner} for name, number, owner in rows]
            )

    def remove_unconfirmed(self, before_ms: int) -> int:
        """See KeyStore."""
        owners = [row[0] for row in self._session.read(_SELECT_OLD_OWNERS, before=before_ms)]
        own = self._session.owner_id
        gone = [owner for owner in owners if owner == own or not self._session.is_alive(owner)]
        if not gone:
            return 0
        with self._session.transaction(_SELECT_LEDGER) as transaction:
            return sum(
                transaction.connection.execute(_DELETE_OF_OWNER, {"owner": owner, "before": before_ms}).rowcount
                for owner in sorted(gone)
            )
