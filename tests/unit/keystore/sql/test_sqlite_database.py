from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from local_stores import LocalStore

from ringfence_agent.keystore.sql.sqlite_database import SqliteDatabase, translate_sqlite
from ringfence_agent.keystore.sql.tables import KEY_VERSION, POLICY_REVISION, STORE_HEADER, ZONE_KEY
from ringfence_zones.errors import KeyStoreError, StoreTamperedError, StoreUnavailableError

PATH = Path("/var/lib/ringfence/keys.db")
SETTINGS = {
    "journal_mode": "wal",
    "synchronous": 2,  # FULL: the commit is on disk before it is acknowledged
    "foreign_keys": 1,
    "trusted_schema": 0,
    "cell_size_check": 1,
    "secure_delete": 1,
    "mmap_size": 0,
}


@pytest.fixture
def database(tmp_path: Path) -> SqliteDatabase:
    place = LocalStore(tmp_path)
    place.open().close()
    return SqliteDatabase(place.path)


@pytest.mark.parametrize("kind", ["reader", "writer", "snapshot"])
def test_every_connection_is_durable_and_distrusts_the_file(database: SqliteDatabase, kind: str) -> None:
    with getattr(database, kind)() as connection:
        found = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in SETTINGS}
    assert found == SETTINGS


@pytest.mark.parametrize(
    "table", [STORE_HEADER, ZONE_KEY, KEY_VERSION, POLICY_REVISION], ids=lambda table: str(table.name)
)
def test_the_tables_of_queries_have_the_columns_of_the_file(database: SqliteDatabase, table: object) -> None:
    assert isinstance(table, type(STORE_HEADER))
    with database.reader() as connection:
        columns = [row[1] for row in connection.exec_driver_sql(f"PRAGMA table_info({table.name})")]
    assert columns == [column.name for column in table.columns]


def test_a_connection_never_creates_a_file(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "none.db")
    with pytest.raises(Exception, match="unable to open"), database.reader():
        pytest.fail("it was created")
    assert list(tmp_path.iterdir()) == []


def sqlite_error(name: str, kind: type[sqlite3.Error] = sqlite3.OperationalError) -> sqlite3.Error:
    error = kind("text that must not matter")
    error.sqlite_errorname = name
    error.sqlite_errorcode = getattr(sqlite3, name)
    return error


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("SQLITE_FULL", StoreUnavailableError, "no space left"),
        ("SQLITE_IOERR_WRITE", StoreUnavailableError, "could not be written"),
        ("SQLITE_IOERR_SHMSIZE", StoreUnavailableError, "could not be written"),
        ("SQLITE_IOERR_READ", StoreUnavailableError, "the disk failed"),
        ("SQLITE_IOERR_FSYNC", StoreUnavailableError, "the disk failed"),
        ("SQLITE_IOERR_SHORT_READ", StoreTamperedError, "truncated"),
        ("SQLITE_BUSY", StoreUnavailableError, "stayed locked"),
        ("SQLITE_BUSY_RECOVERY", StoreUnavailableError, "stayed locked"),
        ("SQLITE_READONLY", StoreUnavailableError, "read-only"),
        ("SQLITE_READONLY_DBMOVED", StoreUnavailableError, "read-only"),
        ("SQLITE_CANTOPEN", StoreUnavailableError, "cannot be opened"),
        ("SQLITE_NOTADB", StoreTamperedError, "not an SQLite database"),
        ("SQLITE_CORRUPT", StoreTamperedError, "damaged"),
        ("SQLITE_CORRUPT_INDEX", StoreTamperedError, "damaged"),
        ("SQLITE_CONSTRAINT_PRIMARYKEY", StoreTamperedError, "damaged"),
        ("SQLITE_ERROR", StoreTamperedError, "damaged"),
        ("SQLITE_NOMEM", StoreUnavailableError, "could not be used (SQLITE_NOMEM)"),
    ],
)
def test_every_engine_error_becomes_a_sentence_of_its_own(name: str, kind: type[KeyStoreError], said: str) -> None:
    translated = translate_sqlite(sqlite_error(name), PATH)
    assert type(translated) is kind
    assert said in str(translated)
    assert str(PATH) in str(translated)
    assert "must not matter" not in f"{translated}{translated.hint}"


def test_an_error_without_a_code_is_damage_only_when_reading_a_row_raised_it() -> None:
    assert type(translate_sqlite(sqlite3.OperationalError("x"), PATH)) is StoreTamperedError
    assert type(translate_sqlite(sqlite3.ProgrammingError("x"), PATH)) is StoreUnavailableError
