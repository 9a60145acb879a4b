"""What a store in PostgreSQL and one in MariaDB have in common as databases: connections, creation, the checks at open.

An engine's own file says how to connect, what to ask its catalogue, how to lock and what its errors mean.

Creation is serialised by a lock of the server. The header row is what makes a store: tables without it are what an
interrupted creation left (MariaDB cannot create tables in a transaction), and are used when they are empty.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ringfence_agent.keystore.rows.kinds import OLDEST_USED, SCHEMA_VERSION, TableRow
from ringfence_agent.keystore.sql.database import Called
from ringfence_agent.keystore.sql.server_address import ServerAddress
from ringfence_agent.keystore.sql.server_errors import KEY_STORE, SERVER_RESTORE_HINT, Cause, explain
from ringfence_agent.keystore.sql.server_schema import TABLES, Kind
from ringfence_zones.errors import (
    ConfigError,
    KeyStoreError,
    MissingExtraError,
    RingfenceError,
    StoreTamperedError,
    StoreUnavailableError,
    StoreUnreachableError,
)
from ringfence_zones.secret import Secret

CONNECT_WAIT_S = 5
# What a catalogue says of each column: (table, column) to (type, whether it may be NULL).
Columns = dict[tuple[str, str], tuple[str, bool]]


class ServerDatabase(ABC):
    """See `database.Database`. One of these belongs to one handle."""

    # The engine's SQLAlchemy dialect, the types of its columns as its catalogue names them, and how they are written.
    dialect: str
    types: Mapping[Kind, str]
    catalogue_types: Mapping[Kind, str]

    def __init__(self, address: ServerAddress, password: Secret | None, called: Called = KEY_STORE) -> None:
        self.address = address
        self.called = called
        self.label = self.place = address.label
        self.owner_id = secrets.randbelow((1 << 62) - 1) + 1
        self._password = password
        self._owner_is_held = False
        self._engine = self._make_engine()

    def check_reachable(self) -> None:
        """See Database. Also that the server is one this release works with and keeps what it acknowledges."""
        with self.translated(), self.reader() as connection:
            self._check_server(connection)

    def reader(self) -> Connection:
        """See Database."""
        return self._connected("AUTOCOMMIT")

    def writer(self) -> Connection:
        """See Database. Reads what others committed before its lock was granted, not what was there at its begin."""
        connection = self._connected("READ COMMITTED")
        if self._owner_is_held:
            self._lock_owner(connection)
        return connection

    def snapshot(self) -> Connection:
        """See Database."""
        return self._connected("REPEATABLE READ")

    def find_format(self, connection: Connection) -> int | None:
        """The version of the store that is there, None when there is none."""
        if not self._catalogued(connection):
            return None
        versions = connection.execute(text("SELECT format FROM store_header")).scalars().all()
        return int(versions[0]) if versions else None

    def check_format(self, connection: Connection) -> int:
        """See Database."""
        version = self.find_format(connection)
        if version is None:
            raise ConfigError(f"{self.label} holds no key store", hint="check --keystore; --init makes a new one")
        if version > SCHEMA_VERSION:
            raise StoreUnavailableError(
                f"key store {self.label} has format {version}; this release of Ringfence reads formats up to"
                f" {SCHEMA_VERSION}",
                hint="run the newer release that wrote it, or upgrade this one",
            )
        if version < OLDEST_USED:  # the first that a server could hold
            raise StoreTamperedError(
                f"key store {self.label} says that it has format {version}", hint=SERVER_RESTORE_HINT
            )
        return version

    def check_structure(self, connection: Connection, version: int) -> None:  # noqa: ARG002 -- the same in all
        """See Database."""
        expected: Columns = {
            (table, column): (self.catalogue_types[kind], column in spec.nullable)
            for table, spec in TABLES.items()
            for column, kind in spec.columns.items()
        }
        if self._catalogued(connection) != expected:
            raise self._not_ours("its tables are not as Ringfence made them")
        for foreign in self._find_foreign(connection):
            raise self._not_ours(foreign)

    def upgrade(self, connection: Connection, version: int, target: int) -> None:  # noqa: ARG002 -- as in `open`
        """See Database. The tables are the same in every version that a server can hold."""
        connection.execute(text("UPDATE store_header SET format = :target"), {"target": target})

    @contextmanager
    def creating(self) -> Iterator[Connection]:
        """A connection that holds the server's lock for making a store; nobody else makes one meanwhile."""
        with self.translated(), self.writer() as connection:
            self._lock_creation(connection)
            yield connection

    def create(self, connection: Connection, rows: Iterable[TableRow], *, version: int = SCHEMA_VERSION) -> None:
        """Makes the tables and their first rows, of this version of the format; committed when it returns. Raises
        StoreTamperedError for tables with rows but no header.
        """
        try:
            with connection.begin():
                for statement in self._create_statements():
                    connection.execute(text(statement))
                for table in TABLES:
                    if connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one():  # noqa: S608
                        raise self._not_ours(f"its table {table} has rows, but it has no header")
                for table, row in rows:
                    values = {**row, "format": version} if table == "store_header" else row
                    self._insert(connection, table, values)
        except DBAPIError as exc:
            raise self.translate(exc, committing=self.is_lost(exc)) from exc

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Errors of SQLAlchemy in the block become the sentences of `translate`."""
        try:
            yield
        except SQLAlchemyError as exc:
            raise self.translate(exc) from exc

    def hold_owner(self, connection: Connection) -> None:
        """See Database."""
        if not self._owner_is_held:
            self._lock_owner(connection)
            self._owner_is_held = True

    def remember_identity(self) -> None:  # noqa: B027
        """See Database. Nothing to note: another store behind the same address has no row that this one believes."""

    def check_in_place(self) -> None:  # noqa: B027
        """See Database. A connection reaches its server, or the commit says that it does not."""

    def is_lost(self, exc: Exception) -> bool:
        """See Database."""
        return isinstance(exc, DBAPIError) and (exc.connection_invalidated or self._says_lost(exc.orig))

    def translate(self, exc: Exception, *, committing: bool = False) -> RingfenceError:
        """See Database."""
        if self.is_lost(exc):
            if committing:
                return StoreUnavailableError(
                    f"the connection to {self.called.kind} {self.label} was lost while a change was committed:"
                    " whether it was made is not known",
                    hint="look whether the change is there before making it again",
                    may_have_changed=True,
                )
            return StoreUnreachableError(
                f"the connection to {self.called.kind} {self.label} was lost; nothing was changed",
                hint="the key server connects again by itself when the database answers",
            )
        original = exc.orig if isinstance(exc, DBAPIError) else None
        if original is None:
            return KeyStoreError(f"{self.called.kind} {self.label} could not do this ({type(exc).__name__})")
        return explain(self.label, *self._cause(original), self.called)

    def close(self) -> None:
        """See Database."""
        self._engine.dispose()

    # -- what engines say for themselves

    @abstractmethod
    def _connect(self) -> Any:
        """A connection of the driver. Durability, timeouts and the handling of text are set on it."""

    @abstractmethod
    def _check_server(self, connection: Connection) -> None:
        """Raises ConfigError or StoreUnavailableError for a server that this release does not work with."""

    @abstractmethod
    def _catalogued(self, connection: Connection) -> Columns:
        """The columns of the store's tables that are there, empty when there is none."""

    @abstractmethod
    def _find_foreign(self, connection: Connection) -> list[str]:
        """What acts on the tables and is not Ringfence's (triggers, rules): parts of a sentence."""

    @abstractmethod
    def _create_statements(self) -> list[str]: ...

    @abstractmethod
    def _lock_creation(self, connection: Connection) -> None:
        """Until the connection is closed. Raises StoreUnavailableError."""

    @abstractmethod
    def _lock_owner(self, connection: Connection) -> None:
        """Until the connection is closed. Raises StoreUnavailableError."""

    @abstractmethod
    def is_alive(self, connection: Connection, owner_id: int) -> bool:
        """See Database."""

    @abstractmethod
    def _says_lost(self, original: BaseException | None) -> bool:
        """Whether a driver's error says that the connection is gone, beyond what SQLAlchemy recognises."""

    @abstractmethod
    def _cause(self, original: BaseException) -> tuple[Cause | None, str]:
        """What a driver's error that is not a lost connection means, with its code or reason."""

    # --

    def _make_engine(self) -> Engine:
        try:
            # The address is the creator's business: SQLAlchemy never sees a password that it could print.
            return create_engine(f"{self.dialect}://", creator=self._connect, poolclass=NullPool, hide_parameters=True)
        except ModuleNotFoundError as exc:
            raise MissingExtraError("a key store in a database server", "sql") from exc

    def _connected(self, isolation_level: str) -> Connection:
        return self._engine.connect().execution_options(isolation_level=isolation_level)

    def _insert(self, connection: Connection, table: str, values: Mapping[str, object]) -> None:
        names = ", ".join(values)
        marks = ", ".join(f":{name}" for name in values)
        row = {name: value.encode() if isinstance(value, str) else value for name, value in values.items()}
        connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({marks})"), row)  # noqa: S608

    def _not_ours(self, what: str) -> StoreTamperedError:
        return StoreTamperedError(
            f"key store {self.label} was changed by something else: {what}", hint=SERVER_RESTORE_HINT
        )
