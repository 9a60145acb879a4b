"""Changes of rows in SQL tables: see `rows.changes`. One change is one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from sqlalchemy import bindparam, insert, select, update

from ringfence_agent.keystore.authenticator import Ledger
from ringfence_agent.keystore.interface import UnconfirmedChange
from ringfence_agent.keystore.rows.changes import RowChange
from ringfence_agent.keystore.rows.kinds import OLDEST_USED, SLOTTED_VERSION, KeyVersionRow, ZoneKeyRow
from ringfence_agent.keystore.rows.prepared import Prepared
from ringfence_agent.keystore.rows.records import Records
from ringfence_agent.keystore.slots import SlotHeader
from ringfence_agent.keystore.sql.changes import SqlChanges
from ringfence_agent.keystore.sql.database import Database
from ringfence_agent.keystore.sql.new_root import give_new_root
from ringfence_agent.keystore.sql.session import SqlSession
from ringfence_agent.keystore.sql.tables import KEY_VERSION, STORE_HEADER, ZONE_KEY
from ringfence_agent.keystore.sql.transactions import Change, SqlTransactions

_SELECT_KEY = select(*(ZONE_KEY.c[name] for name in ZoneKeyRow._fields), ZONE_KEY.c.tag).where(
    ZONE_KEY.c.name == bindparam("name")
)
_UPDATE_KEY = update(ZONE_KEY).where(ZONE_KEY.c.name == bindparam("key"))
_COLUMNS = [KEY_VERSION.c[name] for name in KeyVersionRow._fields]
_SELECT_VERSIONS = select(*_COLUMNS).order_by(KEY_VERSION.c.key_name, KEY_VERSION.c.version)
_SELECT_LIVE_VERSIONS = (
    select(*_COLUMNS)
    .where(KEY_VERSION.c.key_name == bindparam("name"), KEY_VERSION.c.version >= bindparam("first"))
    .order_by(KEY_VERSION.c.version)
)
_THIS_VERSION = (KEY_VERSION.c.key_name == bindparam("name"), KEY_VERSION.c.version == bindparam("number"))
_SELECT_VERSION = select(*_COLUMNS).where(*_THIS_VERSION)
_UPDATE_VERSION = update(KEY_VERSION).where(*_THIS_VERSION)
_UPDATE_HEADER = update(STORE_HEADER)

T = TypeVar("T")


class _Dropped(Exception):  # noqa: N818 - no error: it ends a transaction without a change
    pass


class SqlRows:
    """See StoreRows."""

    def __init__(
        self,
        database: Database,
        session: SqlSession,
        records: Records,
        changes: SqlChanges,
        transactions: SqlTransactions,
    ) -> None:
        self._database = database
        self._session = session
        self._records = records
        self._changes = changes
        self._transactions = transactions

    @property
    def label(self) -> str:
        """See StoreRows."""
        return self._session.label

    def hold_owner(self) -> int:
        """See StoreRows."""
        return self._session.hold_owner()

    def all_versions(self) -> Sequence[KeyVersionRow]:
        """See StoreRows."""
        return [KeyVersionRow(*row) for row in self._session.read(_SELECT_VERSIONS)]

    def change(self, key_name: str | None, attempt: Callable[[RowChange], T], prepared: Prepared | None = None) -> T:
        """See StoreRows."""
        with suppress(_Dropped), self._transactions.change(key_name, prepared) as transaction:
            change = SqlRowChange(self._database, self._records, self._changes, transaction)
            value = attempt(change)
            if change.is_dropped:
                raise _Dropped
        return value

    def give_new_root(self) -> None:
        """See StoreRows."""
        give_new_root(self._database, self._session, self._records)


class SqlRowChange:
    """See RowChange. Each tag of a key is checked."""

    def __init__(self, database: Database, records: Records, changes: SqlChanges, change: Change) -> None:
        self._database = database
        self._records = records
        self._changes = changes
        self._connection = change.connection
        self._change = change
        self.is_dropped = False

    @property
    def ledger(self) -> Ledger:
        return self._change.ledger

    def find_key(self, name: str) -> ZoneKeyRow | None:
        found = self._connection.execute(_SELECT_KEY, {"name": name}).one_or_none()
        if found is None:
            return None
        *fields, tag = found
        key = ZoneKeyRow(*fields)
        self._records.check_tag(key, tag)
        return key

    def live_versions(self, key: ZoneKeyRow) -> Sequence[KeyVersionRow]:
        found = self._connection.execute(_SELECT_LIVE_VERSIONS, {"name": key.name, "first": key.first_version})
        return [KeyVersionRow(*row) for row in found]

    def all_versions(self) -> Sequence[KeyVersionRow]:
        return [KeyVersionRow(*row) for row in self._connection.execute(_SELECT_VERSIONS)]

    def find_version(self, key_name: str, version: int) -> KeyVersionRow | None:
        found = self._connection.execute(_SELECT_VERSION, {"name": key_name, "number": version}).one_or_none()
        return None if found is None else KeyVersionRow(*found)

    def write_key(self, old: ZoneKeyRow | None, new: ZoneKeyRow, added: Sequence[KeyVersionRow] = ()) -> None:
        values = self._records.tagged(new)
        if old is None:
            self._connection.execute(insert(ZONE_KEY), values)
        else:
            self._connection.execute(_UPDATE_KEY, values | {"key": old.name})
            self.ledger.remove(self._records.element(old))
        self.ledger.add(self._records.element(new))
        for row in added:
            self._connection.execute(insert(KEY_VERSION), row._asdict())
            self.ledger.add(self._records.element(row))

    def replace_version(self, old: KeyVersionRow, new: KeyVersionRow) -> None:
        place = {"name": old.key_name, "number": old.version}
        self._connection.execute(_UPDATE_VERSION, {**place, "sealed": new.sealed})
        self.ledger.remove(self._records.element(old))
        self.ledger.add(self._records.element(new))

    def set_slots(self, old: SlotHeader, new: SlotHeader) -> None:
        if old.revision == 0:
            self._database.upgrade(self._connection, OLDEST_USED, SLOTTED_VERSION)
        else:
            self.ledger.remove(self._records.slots_element(old))
        self.ledger.add(self._records.slots_element(new))
        content = new.to_bytes(self._records.protection.root)
        self._connection.execute(_UPDATE_HEADER, {"protector_header": content})

    def find_unconfirmed(self, key_name: str) -> Sequence[UnconfirmedChange]:
        return self._changes.find_unconfirmed_in(self._connection, key_name)

    def note_unconfirmed(self, change: UnconfirmedChange) -> None:
        self._changes.note_unconfirmed(self._connection, change)

    def drop(self) -> None:
        self.is_dropped = True
