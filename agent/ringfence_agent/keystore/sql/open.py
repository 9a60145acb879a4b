"""Opens an existing SQL store, after verifying all of it and bringing it to the newest format.

A store whose format is older is upgraded in one transaction that begins with the same verification; a process killed
in it leaves the store as it was. Releases that wrote the older format refuse the store from then on.
"""

from __future__ import annotations

import secrets
import time
from contextlib import suppress

from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import SQLAlchemyError

from ringfence_agent.keystore.authenticator import Ledger
from ringfence_agent.keystore.protector import Protector
from ringfence_agent.keystore.sealing import SealBrokenError
from ringfence_agent.keystore.sql.database import Database
from ringfence_agent.keystore.sql.records import RESTORE_HINT, Records
from ringfence_agent.keystore.sql.store import SqlKeyStore
from ringfence_agent.keystore.sql.tables import (
    KEY_VERSION,
    POLICY_REVISION,
    SCHEMA_VERSION,
    STORE_HEADER,
    TOKEN_STATE,
    ZONE_KEY,
    HeaderRow,
    KeyVersionRow,
    PolicyRow,
    TokenStateRow,
    ZoneKeyRow,
)
from ringfence_zones.errors import ConfigError, StoreTamperedError, WrongRootKeyError

_SELECT_HEADER = select(*(STORE_HEADER.c[name] for name in HeaderRow._fields))
_SELECT_KEYS = select(*(ZONE_KEY.c[name] for name in ZoneKeyRow._fields), ZONE_KEY.c.tag)
_SELECT_VERSIONS = select(*(KEY_VERSION.c[name] for name in KeyVersionRow._fields))
_SELECT_POLICIES = select(*(POLICY_REVISION.c[name] for name in PolicyRow._fields), POLICY_REVISION.c.tag)
_FIRST_TOKEN_STATE = TokenStateRow(next_sequence=1, newest_key_id=0, changes=0)


def open_sql_keystore(database: Database, protector: Protector) -> SqlKeyStore:
    """Raises WrongRootKeyError before anything else about the content, StoreTamperedError when a check fails,
    ConfigError for what is no store or needs another protector, StoreUnavailableError when it cannot be read.
    """
    database.check_reachable()
    try:
        with database.snapshot() as connection:
            with connection.begin():
                version = database.check_format(connection)
                records, _ = _verify(database, connection, protector, version)
            if version < SCHEMA_VERSION:
                _upgrade(database, protector)
            return SqlKeyStore(database, records)
    except SQLAlchemyError as exc:
        raise database.translate(exc) from exc


def is_empty(database: Database, protector: Protector) -> bool:
    """Whether a store is whole, opens with this root of trust and was never written to. Errors as when opening it."""
    database.check_reachable()
    try:
        with database.snapshot() as connection, connection.begin():
            version = database.check_format(connection)
            return _verify(database, connection, protector, version)[1].writes == 0
    except SQLAlchemyError as exc:
        raise database.translate(exc) from exc


def new_rows(protector: Protector) -> dict[str, dict[str, object]]:
    """What a new store's tables hold, by the table's name; the others are empty."""
    header = HeaderRow(
        store_id=secrets.token_bytes(16),
        created_ms=time.time_ns() // 1_000_000,
        protector=protector.scheme,
        protector_header=protector.new_header(),
        ledger=b"",
    )
    records = Records(header, protector.open(header.store_id), "that is being made")
    header = header._replace(ledger=records.seal_ledger(Ledger()))
    return {
        "store_header": {"id": 1, **header._asdict()},
        "token_state": {"id": 1, **records.tagged(_FIRST_TOKEN_STATE)},
    }


def _upgrade(database: Database, protector: Protector) -> None:
    """In one transaction that verifies first: someone else may have upgraded, or broken, the store meanwhile."""
    with database.writer() as connection, connection.begin():
        version = database.check_format(connection)
        if version == SCHEMA_VERSION:
            return
        records, _ = _verify(database, connection, protector, version)
        database.upgrade(connection, version)
        connection.execute(insert(TOKEN_STATE), {"id": 1, **records.tagged(_FIRST_TOKEN_STATE)})


def _verify(database: Database, connection: Connection, protector: Protector, version: int) -> tuple[Records, Ledger]:
    found = connection.execute(_SELECT_HEADER).all()
    if len(found) != 1:
        raise StoreTamperedError(f"key store {database.place} has no header row", hint=RESTORE_HINT)
    header = HeaderRow(*found[0])
    if header.protector != protector.scheme:
        raise ConfigError(
            f"key store {database.place} is protected by {header.protector!r}, not by a {protector.label}",
            hint="open it with the protector it was made with",
        )
    records = Records(header, protector.open(header.store_id), database.label)
    if not protector.recognises(header.protector_header):
        raise _not_recognised(database, header, protector, records)
    database.check_structure(connection, version)
    ledger = records.open_ledger(header.ledger)
    _verify_rows(connection, records, ledger)
    return records, ledger


def _not_recognised(
    database: Database, header: HeaderRow, protector: Protector, records: Records
) -> StoreTamperedError | WrongRootKeyError:
    with suppress(SealBrokenError, StoreTamperedError):
        records.open_ledger(header.ledger)
        return records.tampered("its check value was changed; the root key is the right one")
    return WrongRootKeyError(
        f"{protector.label} is not the root key of key store {database.place}",
        hint="give the root key file that was made with this store (--root-key); the store was not touched",
    )


def _verify_rows(connection: Connection, records: Records, ledger: Ledger) -> None:
    actual = Ledger(writes=ledger.writes)
    for *fields, tag in connection.execute(_SELECT_KEYS):
        key = ZoneKeyRow(*fields)
        records.check_tag(key, tag)
        actual.add(records.element(key))
    for version_fields in connection.execute(_SELECT_VERSIONS):
        actual.add(records.element(KeyVersionRow(*version_fields)))
    for *fields, tag in connection.execute(_SELECT_POLICIES):
        policy = PolicyRow(*fields)
        records.check_tag(policy, tag)
        actual.add(records.element(policy))
        actual.revision = max(actual.revision, policy.revision)
    if actual != ledger:
        raise records.tampered("rows were removed, added, swapped or put back from an earlier state")
