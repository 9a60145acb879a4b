"""The connections of one open SQL store: one for reads, one for writes, each used by one thread at a time.

- A lock is waited for a bounded time.
- A connection that is gone is opened again: a read, or the beginning of a write, is then tried once more. What fails
  later in a write has changed nothing. At the commit itself the outcome is looked up over a new connection; when that
  cannot be done, it is unknown and said to be.
- Nothing survives a fork: the handles are the parent's.
"""

from __future__ import annotations

import enum
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, RootTransaction
from sqlalchemy.exc import SQLAlchemyError

from ringfence_agent.keystore.rows.changes import WRITE_WAIT_S
from ringfence_agent.keystore.sql.database import Database
from ringfence_zones.errors import RingfenceError, StoreUnavailableError

T = TypeVar("T")

_OUTCOME_WAIT_S = 5.0
_OUTCOME_POLL_S = 0.05


class Outcome(enum.Enum):
    """What became of a commit."""

    MADE = enum.auto()
    NOT_MADE = enum.auto()


@dataclass(slots=True)
class SqlTransaction:
    """A transaction under way. `row` is the one that was locked, None without one.

    `judge` tells from a later state of that row whether the transaction was committed; None when it cannot be told.
    """

    handle: RootTransaction
    connection: Connection
    row: Any | None
    judge: Callable[[Any | None], Outcome | None] = lambda _: None


class _Slot:
    """A connection that is opened when it is needed, with the lock that whoever uses it holds."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self.lock = threading.Lock()
        self._connect = connect
        self._connection: Connection | None = None

    def get(self) -> Connection:
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(SQLAlchemyError):
                connection.close()


class SqlSession:
    """What the parts of a store share. Opened in the process that uses it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._process_id = os.getpid()
        self._closed = False
        self._owner_is_held = False
        self._reader, self._writer = _Slot(database.reader), _Slot(database.writer)
        self._reader.get()
        self._writer.get()
        database.remember_identity()

    @property
    def label(self) -> str:
        """How messages name the store."""
        return self._database.label

    @property
    def _what(self) -> str:
        return f"{self._database.called.kind} {self.label}"

    @property
    def owner_id(self) -> int:
        """The number of this handle, whether others know of it yet or not."""
        return self._database.owner_id

    def read(self, statement: Any, **parameters: object) -> Sequence[Any]:
        """All rows of one statement, which sees one committed state."""
        with self._held(self._reader):
            return self._retried(self._reader, lambda reader: reader.execute(statement, parameters).fetchall())

    @contextmanager
    def transaction(self, lock: Any) -> Iterator[SqlTransaction]:
        """One durable transaction around the block; an exception in it changes nothing.

        `lock` is a SELECT ... FOR UPDATE of one row, by which writers take turns.
        """
        with self._held(self._writer):
            transaction = self._retried(self._writer, lambda writer: _begin(writer, lock))
            try:
                yield transaction
                self._database.check_in_place()
            except BaseException:
                self._roll_back(transaction)
                raise
            self._commit(transaction, lock)

    @contextmanager
    def snapshot(self) -> Iterator[tuple[Connection, int]]:
        """A connection of its own, in a transaction that reads one state throughout, and the version of the store's
        format; its structure was checked. For any thread.
        """
        self._check_usable()
        database = self._database
        try:
            with database.snapshot() as connection, connection.begin():
                database.check_in_place()
                version = database.check_format(connection)
                database.check_structure(connection, version)
                yield connection, version
        except SQLAlchemyError as exc:
            raise database.translate(exc) from exc

    def hold_owner(self) -> int:
        """The number of this handle, alive to all from here until it is closed. Only the first call waits."""
        if not self._owner_is_held:
            with self._held(self._writer):
                self._retried(self._writer, self._database.hold_owner)
            self._owner_is_held = True
        return self._database.owner_id

    def is_alive(self, owner_id: int) -> bool:
        """Whether a handle is open anywhere."""
        with self._held(self._reader):
            return self._retried(self._reader, lambda reader: self._database.is_alive(reader, owner_id))

    def close(self) -> None:
        """In a forked child it only lets go of its references."""
        if self._closed or os.getpid() != self._process_id:
            return
        self._closed = True
        self._reader.drop()
        self._writer.drop()
        self._database.close()

    @contextmanager
    def _held(self, slot: _Slot) -> Iterator[None]:
        """The lock of a connection, with errors of the engine translated."""
        self._check_usable()
        if not slot.lock.acquire(timeout=WRITE_WAIT_S):
            raise StoreUnavailableError(
                f"{self._what} was busy in another thread for {WRITE_WAIT_S:g} s; nothing was changed"
            )
        try:
            yield
        except SQLAlchemyError as exc:
            raise self._failed(slot, exc) from exc
        finally:
            slot.lock.release()

    def _check_usable(self) -> None:
        if self._closed:
            raise StoreUnavailableError(f"{self._what} is closed")
        if os.getpid() != self._process_id:
            raise StoreUnavailableError(
                f"{self._what} was opened by process {self._process_id} and cannot be used after a fork"
            )

    def _retried(self, slot: _Slot, action: Callable[[Connection], T]) -> T:
        try:
            return action(slot.get())
        except SQLAlchemyError as exc:
            if not self._database.is_lost(exc):
                raise
            slot.drop()
        return action(slot.get())

    def _failed(self, slot: _Slot, exc: SQLAlchemyError, *, committing: bool = False) -> RingfenceError:
        if self._database.is_lost(exc):
            slot.drop()
        return self._database.translate(exc, committing=committing)

    def _roll_back(self, transaction: SqlTransaction) -> None:
        try:
            transaction.handle.rollback()
        except SQLAlchemyError:
            self._writer.drop()

    def _commit(self, transaction: SqlTransaction, lock: Any) -> None:
        try:
            transaction.handle.commit()
        except SQLAlchemyError as exc:
            self._roll_back(transaction)
            failure = self._failed(self._writer, exc, committing=True)
            outcome = self._find_outcome(transaction, lock) if self._database.is_lost(exc) else None
            if outcome is Outcome.MADE:
                return
            if outcome is Outcome.NOT_MADE:
                raise self._database.translate(exc) from exc
            raise failure from exc
        except BaseException:
            self._roll_back(transaction)
            raise

    def _find_outcome(self, transaction: SqlTransaction, lock: Any) -> Outcome | None:
        """What became of a commit whose answer was lost. None when it cannot be told, or not soon enough.

        The lock is granted once the server has ended the session that was lost, so the row is as that one left it.
        """
        deadline = time.monotonic() + _OUTCOME_WAIT_S
        while True:
            try:
                later = _begin(self._writer.get(), lock)
            except SQLAlchemyError:
                self._writer.drop()
                if time.monotonic() > deadline:
                    return None
                time.sleep(_OUTCOME_POLL_S)
                continue
            self._roll_back(later)
            return transaction.judge(later.row)


def _begin(writer: Connection, lock: Any) -> SqlTransaction:
    handle = writer.begin()
    try:
        return SqlTransaction(handle, writer, writer.execute(lock).one_or_none())
    except BaseException:
        with suppress(SQLAlchemyError):
            handle.rollback()
        raise
