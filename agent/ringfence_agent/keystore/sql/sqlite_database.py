"""Everything about a store that is particular to SQLite: the file, its connections, its errors.

Rules: write-ahead log with `synchronous=FULL`, so a commit is on disk before it is acknowledged; a connection never
creates a file; writers begin with BEGIN IMMEDIATE and wait for each other a bounded time; every sqlite3 error becomes a
sentence with the fix here and nowhere else.
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

import sqlalchemy.dialects.sqlite  # noqa: F401 -- loaded by its name it comes when root acts as the store's owner
from sqlalchemy import Connection, Engine, NullPool, create_engine, event
from sqlalchemy.exc import DBAPIError

from ringfence_agent.keystore.local_files import check_directory, check_local, check_store_file, check_writable
from ringfence_agent.keystore.rows.changes import WRITE_WAIT_S
from ringfence_agent.keystore.rows.kinds import SCHEMA_VERSION, TableRow
from ringfence_agent.keystore.rows.records import RESTORE_HINT
from ringfence_agent.keystore.sql.database import Called
from ringfence_agent.keystore.sql.sqlite_owners import SqliteOwners
from ringfence_agent.keystore.sql.sqlite_schema import APPLICATION_ID, STATEMENTS, UPGRADES
from ringfence_zones.errors import (
    ConfigError,
    KeyStoreError,
    RingfenceError,
    StoreTamperedError,
    StoreUnavailableError,
)

KEY_STORE = Called("key store", RESTORE_HINT)
# A write holds the lock for a few hundred microseconds. Waiters try again after a random time that does not grow, so
# a late one has no better chance than an early one; SQLite's own back-off starves whoever has waited longest.
_RETRY_MIN_S = 0.0005
_RETRY_MAX_S = 0.004

_PRAGMAS = (
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cell_size_check = ON",
    "PRAGMA secure_delete = ON",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA mmap_size = 0",  # a mapped file that is truncated kills the process with SIGBUS
)
_SMALLEST_PAGE_BYTES = 512
SIDE_FILES = ("-wal", "-shm", "-journal")


class SqliteDatabase:
    """One store file: checked, then connected to."""

    def __init__(
        self, path: Path, *, write_wait_s: float = WRITE_WAIT_S, label: str | None = None, called: Called = KEY_STORE
    ) -> None:
        """`label` is how messages name a file whose path says nothing to anybody."""
        self.path = path
        self.called = called
        self.label = label or f"sqlite:///{path}"
        self.place = label or str(path)
        self._owners = SqliteOwners(path)
        self._write_wait_s = write_wait_s
        self._open_side_files = [f"{path}-wal", f"{path}-shm"]
        self._engine = self._make_engine()
        self._identity: list[tuple[int, int] | None] = []

    @property
    def owner_id(self) -> int:
        """See Database."""
        return self._owners.owner_id

    def check_reachable(self) -> None:
        """See Database."""
        check_directory(self.path.parent, "key store")
        check_local(self.path.parent)
        check_store_file(self.path)
        check_writable(self.path.parent)
        size = self.path.stat().st_size
        if size < _SMALLEST_PAGE_BYTES:  # SQLite takes such a file for a new, empty database
            raise StoreTamperedError(f"key store {self.path} is truncated: it has {size} bytes", hint=RESTORE_HINT)

    def reader(self) -> Connection:
        """A connection whose statements each see the newest committed state."""
        return self._engine.connect().execution_options(ringfence_begin=None)

    def writer(self) -> Connection:
        """A connection whose transactions take the write lock first."""
        return self._engine.connect().execution_options(ringfence_begin="IMMEDIATE")

    def snapshot(self) -> Connection:
        """A connection whose transactions read one state throughout."""
        return self._engine.connect().execution_options(ringfence_begin="DEFERRED")

    def check_format(self, connection: Connection) -> int:
        """See Database."""
        application_id = connection.exec_driver_sql("PRAGMA application_id").scalar_one()
        if application_id != APPLICATION_ID:
            raise ConfigError(
                f"{self.path} is an SQLite database, but not a Ringfence key store (application id {application_id})",
                hint="check the path given with --keystore",
            )
        version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
        if version > SCHEMA_VERSION:
            raise StoreUnavailableError(
                f"key store {self.path} has format {version}; this release of Ringfence reads formats up to"
                f" {SCHEMA_VERSION}",
                hint="run the newer release that wrote it, or upgrade this one",
            )
        if version < 1:
            raise StoreTamperedError(f"key store {self.path} names no format version", hint=RESTORE_HINT)
        return int(version)

    def check_structure(self, connection: Connection, version: int) -> None:
        """Pages, indexes, types and schema of the file. Raises StoreTamperedError."""
        schema = connection.exec_driver_sql(
            "SELECT name, sql FROM sqlite_schema WHERE type <> 'index' OR sql IS NOT NULL"
        )
        if dict(map(tuple, schema.fetchall())) != STATEMENTS[version]:
            raise StoreTamperedError(
                f"key store {self.path} has tables, triggers, views or indexes that Ringfence did not make",
                hint=RESTORE_HINT,
            )
        problems = connection.exec_driver_sql("PRAGMA integrity_check(3)").scalars().all()
        if problems != ["ok"]:
            raise StoreTamperedError(f"key store {self.path} is damaged: {'; '.join(problems)}", hint=RESTORE_HINT)

    def upgrade(self, connection: Connection, version: int, target: int) -> None:
        """See Database. SQLite's schema and version number are part of the transaction."""
        for older in range(version, target):
            for statement in UPGRADES[older].values():
                connection.exec_driver_sql(statement)
        connection.exec_driver_sql(f"PRAGMA user_version = {target}")

    def hold_owner(self, connection: Connection) -> None:  # noqa: ARG002 -- the kernel's lock needs no connection
        """See Database."""
        self._owners.hold()

    def is_alive(self, connection: Connection, owner_id: int) -> bool:  # noqa: ARG002
        """See Database."""
        return self._owners.is_alive(owner_id)

    def remember_identity(self) -> None:
        """Notes which files are open now; a connection that holds them open exists and stays."""
        self._identity = self._identities()

    def check_in_place(self) -> None:
        """That the open files still are those at their paths: writes to replaced or removed ones would be lost.

        Raises StoreUnavailableError.
        """
        if self._identities() != self._identity:
            raise StoreUnavailableError(
                f"{self.called.kind} {self.path} or its log was replaced or removed while it was open;"
                " nothing was written",
                hint="stop every process that has it open, put the files back, then start the key server",
            )

    def _identities(self) -> list[tuple[int, int] | None]:
        found: list[tuple[int, int] | None] = []
        for name in (str(self.path), *self._open_side_files):
            try:
                status = os.stat(name)  # noqa: PTH116 -- a third of the cost, in every write
            except OSError:
                found.append(None)
            else:
                found.append((status.st_dev, status.st_ino))
        return found

    def is_lost(self, exc: Exception) -> bool:  # noqa: ARG002 -- see Database
        """Never: there is no server to lose. A file that was put back needs every process to let go of the old one."""
        return False

    def translate(self, exc: Exception, *, committing: bool = False) -> RingfenceError:  # noqa: ARG002
        """The sentence for an SQLAlchemy or sqlite3 error. A commit that failed is rolled back, so nothing changed."""
        original = exc.orig if isinstance(exc, DBAPIError) else exc
        if isinstance(original, sqlite3.Error):
            return translate_sqlite(original, self.path, self._write_wait_s, self.called)
        return KeyStoreError(f"{self.called.kind} {self.path} could not do this ({type(exc).__name__})")

    def close(self) -> None:
        """Releases what the engine itself holds."""
        self._owners.close()
        self._engine.dispose()

    def _make_engine(self) -> Engine:
        engine = create_engine("sqlite://", creator=self._connect, poolclass=NullPool, hide_parameters=True)
        event.listen(engine, "begin", self._begin)
        return engine

    def _connect(self) -> sqlite3.Connection:
        connection = open_file(self.path, "rw")
        try:
            connection.execute(f"PRAGMA busy_timeout = {round(self._write_wait_s * 1000)}")
            for pragma in _PRAGMAS:
                connection.execute(pragma)
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.Error:
            connection.close()
            raise
        if mode != "wal":
            connection.close()
            raise StoreUnavailableError(
                f"{self.called.kind} {self.path} cannot use a write-ahead log here (SQLite offers {mode!r})",
                hint="keep the store on a local disk with shared memory",
            )
        return connection

    def _begin(self, connection: Connection) -> None:
        match connection.get_execution_options().get("ringfence_begin"):
            case "IMMEDIATE":
                self._begin_immediate(connection)
            case "DEFERRED":
                connection.exec_driver_sql("BEGIN")
            case _:
                pass  # single statements: each its own transaction

    def _begin_immediate(self, connection: Connection) -> None:
        deadline = time.monotonic() + self._write_wait_s
        connection.exec_driver_sql("PRAGMA busy_timeout = 0")
        while True:
            try:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            except DBAPIError as exc:
                if not _is_busy(exc.orig) or time.monotonic() >= deadline:
                    raise
            else:
                return
            time.sleep(random.uniform(_RETRY_MIN_S, _RETRY_MAX_S))  # noqa: S311 -- jitter, not a secret


def open_file(path: Path, mode: str) -> sqlite3.Connection:
    """A connection in autocommit, shared between threads under the caller's lock. `mode` is SQLite's: rw, rwc."""
    location = f"file:{quote(str(path))}?mode={mode}"
    return sqlite3.connect(location, uri=True, isolation_level=None, check_same_thread=False)


def create_file(path: Path, rows: Iterable[TableRow], *, version: int = SCHEMA_VERSION) -> None:
    """Writes a whole new store with these rows. `path` must exist, be empty and known to nobody else. `version` is
    the format's that the rows have.
    """
    connection = open_file(path, "rw")
    try:
        connection.execute("PRAGMA journal_mode = MEMORY")  # a crash here leaves a file nobody uses
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {version}")
        for statement in STATEMENTS[version].values():
            connection.execute(statement)
        for table, row in rows:
            names, marks = ", ".join(row), ", ".join("?" * len(row))
            connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(row.values()))  # noqa: S608
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()


def _is_busy(exc: BaseException | None) -> bool:
    return _primary_code(exc) == sqlite3.SQLITE_BUSY


def _primary_code(exc: BaseException | None) -> int | None:
    code = getattr(exc, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def translate_sqlite(
    exc: sqlite3.Error, path: Path, wait_s: float = WRITE_WAIT_S, called: Called = KEY_STORE
) -> KeyStoreError:
    """The sentence for an sqlite3 error, by its result code (sqlite.org/rescode.html)."""
    what = f"{called.kind} {path}"
    name = getattr(exc, "sqlite_errorname", None)
    match _primary_code(exc):
        case sqlite3.SQLITE_FULL:
            return _no_space(what, path)
        case sqlite3.SQLITE_IOERR:
            return _io_error(what, path, name, called)
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreUnavailableError(
                f"{what} stayed locked by another process for {wait_s:g} s; nothing was changed",
                hint=f"find the process that holds it (a backup, a shell): fuser -v {path}",
            )
        case sqlite3.SQLITE_READONLY:
            return StoreUnavailableError(
                f"{what} cannot be written: the file or its file system is read-only",
                hint="mount the file system read-write and restart the key server",
            )
        case sqlite3.SQLITE_CANTOPEN:
            return StoreUnavailableError(
                f"{what} or its log beside it cannot be opened",
                hint=f"check owner, mode, free space and open-file limit; see: ls -l {path}*",
            )
        case sqlite3.SQLITE_NOTADB:
            return StoreTamperedError(
                f"{path} is not an SQLite database: it was overwritten, or is another file", hint=called.when_damaged
            )
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_CONSTRAINT | sqlite3.SQLITE_FORMAT | sqlite3.SQLITE_ERROR:
            # CONSTRAINT: the code checks before it inserts, so a clash means rows it could not see.
            # ERROR: a table or column that is gone.
            return _damaged(what, name or "", called)
        case None if isinstance(exc, sqlite3.OperationalError):
            # The one error sqlite3 raises by itself on reading a row.
            return _damaged(what, "text is not UTF-8", called)
        case _:
            return StoreUnavailableError(
                f"{what} could not be used ({name or type(exc).__name__}); nothing was changed"
            )


def _damaged(what: str, why: str, called: Called) -> StoreTamperedError:
    return StoreTamperedError(f"{what} is damaged or was changed by something else ({why})", hint=called.when_damaged)


def _no_space(what: str, path: Path) -> StoreUnavailableError:
    return StoreUnavailableError(
        f"no space left for {what}; nothing was changed",
        hint=f"free space in {path.parent}; the store goes on by itself",
    )


def _io_error(what: str, path: Path, name: str | None, called: Called) -> KeyStoreError:
    if name == "SQLITE_IOERR_SHORT_READ":
        return StoreTamperedError(f"{what} is shorter than it says: it was truncated", hint=called.when_damaged)
    if name in {"SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMOPEN", "SQLITE_IOERR_SHMSIZE", "SQLITE_IOERR_TRUNCATE"}:
        return StoreUnavailableError(
            f"{what} could not be written (disk full, file size limit or failing disk); nothing was changed",
            hint=f"free space in {path.parent} or raise the limit (ulimit -f); the store goes on by itself",
        )
    return StoreUnavailableError(
        f"the disk failed under {what} ({name}); nothing was acknowledged",
        hint="look at the kernel's log for the device; restart the key server when it is repaired",
        may_have_changed=True,
    )
