"""The leases of a store's servers, in a table that every worker and every instance of them writes to.

Whoever takes one holds the lock of one row meanwhile, so of many that ask at once one gets it. The time is the place's
own: of SQLite, which is on one machine, that machine's clock since its start, which nobody can set; of a database
server, the server's. Rows carry no tags: who can write them can stop an agent, or make two of them act, and reaches no
key. Rows are never removed, because the epoch of a lease must not begin again; so only so many names are taken.

Methods block. Raises errors of the KeyStoreError family, and InputError.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Table, func, insert, select, update

from ringfence_agent.keystore.sql.session import SqlSession
from ringfence_agent.leases import terms
from ringfence_agent.leases.terms import Instant, Terms
from ringfence_zones.errors import InputError, LeaseHeldError, StoreTamperedError

MAX_LEASES = 256

Clock = Callable[[Connection], Instant]
"""Reads the place's time. Asked after the lock was granted: the time at which a statement began to wait is no time to
decide by."""


class LeaseBook:
    """One worker's handle. Writers take turns by the one row of `turns`."""

    def __init__(self, session: SqlSession, leases: Table, turns: Table, clock: Clock) -> None:
        self._session = session
        self._leases = leases
        self._lock = select(turns.c.id).where(turns.c.id == 1).with_for_update()
        self._count = select(func.count()).select_from(leases)
        self._clock = clock

    def take(self, name: str, holder: str, ttl_ms: int) -> Terms:
        """Takes or renews a lease. Raises LeaseHeldError when somebody else has it."""
        with self._turn() as connection:
            found = self._find(connection, name)
            if found is None and connection.execute(self._count).scalar_one() >= MAX_LEASES:
                raise InputError(f"there are {MAX_LEASES} leases already, and no more are kept")
            now = self._clock(connection)
            # Epochs go on growing should the whole book be lost.
            outcome = terms.take(found, holder, ttl_ms, now, first_epoch=int(time.time()))
            if outcome.terms != found:
                self._write(connection, name, outcome.terms, is_new=found is None)
        if not outcome.is_taken:
            raise LeaseHeldError(name, outcome.terms.holder, outcome.terms.left_ms(now) / 1000)
        return outcome.terms

    def give_back(self, name: str, holder: str) -> tuple[Terms, int] | None:
        """Frees a lease that `holder` has; one that nobody has stays as it is. Returns as `find`, raises
        LeaseHeldError.
        """
        with self._turn() as connection:
            found = self._find(connection, name)
            if found is None:
                return None
            left_ms = found.left_ms(self._clock(connection))
            if found.holder == holder:
                found, left_ms = terms.give_back(found), 0
                self._write(connection, name, found, is_new=False)
        if left_ms:
            raise LeaseHeldError(name, found.holder, left_ms / 1000)
        return found, left_ms

    def find(self, name: str) -> tuple[Terms, int] | None:
        """What is written of a lease, and in how many milliseconds it can be had; None when nobody ever took it."""
        with self._turn() as connection:
            found = self._find(connection, name)
            return None if found is None else (found, found.left_ms(self._clock(connection)))

    def close(self) -> None:
        """Idempotent."""
        self._session.close()

    # -- the table

    @contextmanager
    def _turn(self) -> Iterator[Connection]:
        with self._session.transaction(self._lock) as transaction:
            if transaction.row is None:
                raise StoreTamperedError(
                    f"the lease book in {self._session.label} has lost its first row",
                    hint="stop the key servers and remove the book; they make a new one",
                )
            yield transaction.connection

    def _find(self, connection: Connection, name: str) -> Terms | None:
        leases = self._leases
        row = connection.execute(select(leases).where(leases.c.name == name.encode())).one_or_none()
        if row is None:
            return None
        try:
            holder = bytes(row.holder).decode()
            return Terms(holder, int(row.epoch), int(row.ttl_ms), Instant(bytes(row.clock), int(row.renewed_ms)))
        except (UnicodeDecodeError, ValueError):
            raise StoreTamperedError(f"lease {name} in {self._session.label} is not as Ringfence wrote it") from None

    def _write(self, connection: Connection, name: str, new: Terms, *, is_new: bool) -> None:
        leases = self._leases
        values: dict[str, Any] = {
            "holder": new.holder.encode(),
            "epoch": new.epoch,
            "ttl_ms": new.ttl_ms,
            "clock": new.renewed.clock,
            "renewed_ms": new.renewed.ms,
        }
        if is_new:
            connection.execute(insert(leases), {"name": name.encode(), **values})
        else:
            connection.execute(update(leases).where(leases.c.name == name.encode()).values(**values))
