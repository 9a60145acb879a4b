"""Opens an existing SQL store, after verifying all of it and bringing it to the newest format.

A store whose format is older is upgraded in one transaction that begins with the same verification; a process killed
in it leaves the store as it was. Releases that wrote the older format refuse the store from then on.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import SQLAlchemyError

from ringfence_agent.keystore.protector import Protector
from ringfence_agent.keystore.rows.header import FIRST_TOKEN_STATE, new_header, open_header
from ringfence_agent.keystore.rows.kinds import (
    OLDEST_USED,
    HeaderRow,
    TableRow,
)
from ringfence_agent.keystore.rows.records import RESTORE_HINT, Records
from ringfence_agent.keystore.rows.snapshot import RowSnapshot
from ringfence_agent.keystore.snapshot import StoreFacts
from ringfence_agent.keystore.sql.database import Database
from ringfence_agent.keystore.sql.store import SqlKeyStore
from ringfence_agent.keystore.sql.tables import STORE_HEADER, TOKEN_STATE, read_tables
from ringfence_zones.errors import StoreTamperedError

_SELECT_HEADER = select(*(STORE_HEADER.c[name] for name in HeaderRow._fields))


def open_sql_keystore(database: Database, protectors: Sequence[Protector]) -> SqlKeyStore:
    """The store, opened by the first protector that one of its slots was made with; all of them are kept, since the
    material of key versions may be sealed by any.

    Raises WrongRootKeyError before anything else about the content, StoreTamperedError when a check fails,
    ConfigError for what is no store or has no slot of any of the protectors, StoreUnavailableError when it cannot be
    read, ProtectorUnavailableError and ProtectorRefusedError when no protector gives the root.
    """
    database.check_reachable()
    try:
        with database.snapshot() as connection:
            with connection.begin():
                version = database.check_format(connection)
                records, _ = _verify(database, connection, protectors, version)
            if version < OLDEST_USED:
                _upgrade(database, protectors)
            return SqlKeyStore(database, records)
    except SQLAlchemyError as exc:
        raise database.translate(exc) from exc


def is_empty(database: Database, protectors: Sequence[Protector]) -> bool:
    """Whether a store is whole, opens with one of these and was never written to. Errors as when opening it."""
    database.check_reachable()
    try:
        with database.snapshot() as connection, connection.begin():
            version = database.check_format(connection)
            return _verify(database, connection, protectors, version)[1].change_number == 0
    except SQLAlchemyError as exc:
        raise database.translate(exc) from exc


def new_rows(protector: Protector) -> list[TableRow]:
    """What a new store's tables hold; those without a row are empty. It has one slot, this protector's."""
    header, records = new_header(protector)
    return [
        ("store_header", {"id": 1, **header._asdict()}),
        ("token_state", {"id": 1, **records.tagged(FIRST_TOKEN_STATE)}),
    ]


def _upgrade(database: Database, protectors: Sequence[Protector]) -> None:
    """In one transaction that verifies first: someone else may have upgraded, or broken, the store meanwhile."""
    with database.writer() as connection, connection.begin():
        version = database.check_format(connection)
        if version >= OLDEST_USED:
            return
        records, _ = _verify(database, connection, protectors, version)
        database.upgrade(connection, version, OLDEST_USED)
        connection.execute(insert(TOKEN_STATE), {"id": 1, **records.tagged(FIRST_TOKEN_STATE)})


def _verify(
    database: Database, connection: Connection, protectors: Sequence[Protector], version: int
) -> tuple[Records, StoreFacts]:
    found = connection.execute(_SELECT_HEADER).all()
    if len(found) != 1:
        raise StoreTamperedError(f"key store {database.place} has no header row", hint=RESTORE_HINT)
    header = HeaderRow(*found[0])
    records = open_header(database, header, protectors, version)
    database.check_structure(connection, version)
    return records, RowSnapshot(read_tables(connection, version), version, records, lambda: None).facts
