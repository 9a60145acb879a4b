"""A change of keys, policy or slots: one durable transaction that keeps the ledger and tells others what changed.

It begins with the one row that writers take turns by, the store's header: ledger and slots in one statement. So
whoever writes knows which slot is active now.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select, update

from ringfence_agent.keystore.authenticator import Ledger
from ringfence_agent.keystore.rows.prepared import Prepared
from ringfence_agent.keystore.rows.records import Records
from ringfence_agent.keystore.sql.changes import SqlChanges
from ringfence_agent.keystore.sql.session import Outcome, SqlSession
from ringfence_agent.keystore.sql.tables import STORE_HEADER

LOCK_HEADER = select(STORE_HEADER.c.ledger, STORE_HEADER.c.protector_header).with_for_update()
"""The row that writers take turns by."""

_UPDATE_HEADER = update(STORE_HEADER)


@dataclass(slots=True)
class Change:
    """A write transaction under way: the connection that holds the lock, and the ledger to keep."""

    connection: Connection
    ledger: Ledger


class SqlTransactions:
    """Begins changes of one store."""

    def __init__(self, session: SqlSession, records: Records, changes: SqlChanges) -> None:
        self._session = session
        self._records = records
        self._changes = changes

    @contextmanager
    def change(self, key_name: str | None, prepared: Prepared | None = None) -> Iterator[Change]:
        """One durable transaction around the block; an exception in it changes nothing.

        `key_name` as `SqlChanges.note` takes it. Raises SealsMissing, without a change, when the block asked
        `prepared` for what is not there yet.
        """
        with self._session.transaction(LOCK_HEADER) as transaction:
            if transaction.row is None:
                raise self._records.tampered("its header row is missing")
            before, slots = transaction.row
            self._records.adopt_slots(slots)
            change = Change(transaction.connection, self._records.open_ledger(before))
            yield change
            if prepared is not None:
                prepared.check_complete()
            change.ledger.writes += 1
            self._changes.note(change.connection, change.ledger.writes, key_name)
            after = self._records.seal_ledger(change.ledger)
            change.connection.execute(_UPDATE_HEADER, {"ledger": after})
            transaction.judge = lambda row: _outcome(row, before, after)


def _outcome(row: Any | None, before: bytes, after: bytes) -> Outcome | None:
    """By the sealed ledger, which is never twice the same; None when someone else has written since."""
    return {before: Outcome.NOT_MADE, after: Outcome.MADE}.get(bytes(row[0])) if row is not None else None
