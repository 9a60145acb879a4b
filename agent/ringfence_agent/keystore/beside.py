"""Tables of other kinds that the servers of a key store share: in a place beside the store, never in it.

A file `<store><suffix>` beside an SQLite store, of the same owner and mode; tables of their own in the database that
instances share. So what is no key changes neither the store's format nor its change number, and is in no backup. The
tables are made by whoever comes first; servers that come together take turns.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path

from sqlalchemy import text

from ringfence_agent.keystore.open import is_shared, store_path
from ringfence_agent.keystore.rows.changes import WRITE_WAIT_S
from ringfence_agent.keystore.sql.database import Called, Database
from ringfence_agent.keystore.sql.server_address import parse_server_uri
from ringfence_agent.keystore.sql.server_open import server_database
from ringfence_agent.keystore.sql.session import SqlSession
from ringfence_agent.keystore.sql.sqlite_database import SqliteDatabase, open_file, translate_sqlite
from ringfence_zones.errors import StoreUnavailableError

SQLITE = "sqlite"

Statements = Callable[[str], Sequence[str]]
"""From an engine (`sqlite`, `postgresql`, `mysql`) to what makes the tables where they are not there yet."""


def open_beside(
    uri: str, password_file: Path | None, suffix: str, statements: Statements, called: Called
) -> tuple[str, SqlSession]:
    """The engine, and a session on the place beside the store at `uri`, which messages name as `called`. Blocks.

    Raises errors of the KeyStoreError family, InputError and ConfigError.
    """
    if is_shared(uri):
        engine = parse_server_uri(uri).scheme
        database = _in_server(uri, password_file, statements(engine), called)
    else:
        engine, database = SQLITE, _in_file(beside(store_path(uri), suffix), statements(SQLITE), called)
    try:
        return engine, SqlSession(database)
    except BaseException:
        database.close()
        raise


def beside(store: Path, suffix: str) -> Path:
    """The file beside an SQLite key store."""
    return store.with_name(store.name + suffix)


def _in_file(path: Path, statements: Sequence[str], called: Called) -> Database:
    try:
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(open_file(path, "rw")) as connection:
            connection.execute(f"PRAGMA busy_timeout = {round(WRITE_WAIT_S * 1000)}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN IMMEDIATE")
            for statement in statements:
                connection.execute(statement)
            connection.execute("COMMIT")
    except OSError as exc:
        raise StoreUnavailableError(
            f"{called.kind} {path} cannot be made: {exc.strerror}",
            hint=f"see to space and permissions in {path.parent}",
        ) from exc
    except sqlite3.Error as exc:
        raise translate_sqlite(exc, path, called=called) from exc
    return SqliteDatabase(path, called=called)


def _in_server(uri: str, password_file: Path | None, statements: Sequence[str], called: Called) -> Database:
    database = server_database(uri, password_file, called)
    try:
        with database.creating() as connection, connection.begin():
            for statement in statements:
                connection.execute(text(statement))
    except BaseException:
        database.close()
        raise
    return database
