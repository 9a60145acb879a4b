"""Versions and slots of a store in SQL tables, as `rows.slot_changes` works with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from sqlalchemy import bindparam, select, update

from ringfence_agent.keystore.rows.kinds import OLDEST_USED, SLOTTED_VERSION, KeyVersionRow
from ringfence_agent.keystore.rows.records import Records
from ringfence_agent.keystore.rows.slot_changes import SlotChange
from ringfence_agent.keystore.slots import SlotHeader
from ringfence_agent.keystore.sql.database import Database
from ringfence_agent.keystore.sql.new_root import give_new_root
from ringfence_agent.keystore.sql.session import SqlSession
from ringfence_agent.keystore.sql.tables import KEY_VERSION, STORE_HEADER
from ringfence_agent.keystore.sql.transactions import Change, SqlTransactions

_COLUMNS = [KEY_VERSION.c[name] for name in KeyVersionRow._fields]
_SELECT_VERSIONS = select(*_COLUMNS).order_by(KEY_VERSION.c.key_name, KEY_VERSION.c.version)
_THIS_VERSION = (KEY_VERSION.c.key_name == bindparam("name"), KEY_VERSION.c.version == bindparam("number"))
_SELECT_VERSION = select(*_COLUMNS).where(*_THIS_VERSION)
_UPDATE_VERSION = update(KEY_VERSION).where(*_THIS_VERSION)
_UPDATE_HEADER = update(STORE_HEADER)

T = TypeVar("T")


class SqlSlotRows:
    """See SlotRows."""

    def __init__(
        self, database: Database, session: SqlSession, records: Records, transactions: SqlTransactions
    ) -> None:
        self._database = database
        self._session = session
        self._records = records
        self._transactions = transactions

    def all_versions(self) -> Sequence[KeyVersionRow]:
        """See SlotRows."""
        return [KeyVersionRow(*row) for row in self._session.read(_SELECT_VERSIONS)]

    def change(self, key_name: str | None, attempt: Callable[[SlotChange], T]) -> T:
        """See SlotRows. One transaction."""
        with self._transactions.change(key_name) as change:
            return attempt(SqlSlotChange(self._database, self._records, change))

    def give_new_root(self) -> None:
        """See SlotRows."""
        give_new_root(self._database, self._session, self._records)


class SqlSlotChange:
    """See SlotChange."""

    def __init__(self, database: Database, records: Records, change: Change) -> None:
        self._database = database
        self._records = records
        self._change = change

    def versions(self) -> Sequence[KeyVersionRow]:
        return [KeyVersionRow(*row) for row in self._change.connection.execute(_SELECT_VERSIONS)]

    def find_version(self, key_name: str, version: int) -> KeyVersionRow | None:
        place = {"name": key_name, "number": version}
        found = self._change.connection.execute(_SELECT_VERSION, place).one_or_none()
        return None if found is None else KeyVersionRow(*found)

    def replace_version(self, old: KeyVersionRow, new: KeyVersionRow) -> None:
        place = {"name": old.key_name, "number": old.version}
        self._change.connection.execute(_UPDATE_VERSION, {**place, "sealed": new.sealed})
        self._change.ledger.remove(self._records.element(old))
        self._change.ledger.add(self._records.element(new))

    def set_slots(self, old: SlotHeader, new: SlotHeader) -> None:
        if old.revision == 0:
            self._database.upgrade(self._change.connection, OLDEST_USED, SLOTTED_VERSION)
        else:
            self._change.ledger.remove(self._records.slots_element(old))
        self._change.ledger.add(self._records.slots_element(new))
        content = new.to_bytes(self._records.protection.root)
        self._change.connection.execute(_UPDATE_HEADER, {"protector_header": content})
