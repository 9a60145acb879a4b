"""Opens an existing SQL store, after verifying all of it and bringing it to the newest format.

A store whose format is older is upgraded in one transaction that begins with the same verification; a process killed
in it leaves the store as it was. Releases that wrote the older format refuse the store from then on.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import SQLAlchemyError

from ringfence_agent.keystore.authenticator import Ledger
from ringfence_agent.keystore.protection import Protection, find_root
from ringfence_agent.keystore.protector import Protector
from ringfence_agent.keystore.sealing import SealBrokenError
from ringfence_agent.keystore.slots import FILE_SCHEME, SlotHeader, is_old_header, read_slots
from ringfence_agent.keystore.snapshot import StoreFacts
from ringfence_agent.keystore.sql.database import Database, TableRow
from ringfence_agent.keystore.sql.records import RESTORE_HINT, Records
from ringfence_agent.keystore.sql.snapshot import SqlSnapshot, read_tables
from ringfence_agent.keystore.sql.store import SqlKeyStore
from ringfence_agent.keystore.sql.tables import (
    OLDEST_USED,
    SLOTTED,
    SLOTTED_VERSION,
    STORE_HEADER,
    TOKEN_STATE,
    HeaderRow,
    TokenStateRow,
)
from ringfence_agent.keystore.store_root import ROOT_BYTES, StoreRoot
from ringfence_zones.errors import ConfigError, StoreTamperedError, WrongRootKeyError
from ringfence_zones.secret import Secret

_SELECT_HEADER = select(*(STORE_HEADER.c[name] for name in HeaderRow._fields))
FIRST_TOKEN_STATE = TokenStateRow(next_sequence=1, newest_key_id=0, changes=0)


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


def new_header(protector: Protector) -> tuple[HeaderRow, Records]:
    """The header row of a new store, and what opens it."""
    store_id, secret = secrets.token_bytes(16), Secret(secrets.token_bytes(ROOT_BYTES))
    root = StoreRoot(secret, store_id)
    slots = SlotHeader.first(protector.scheme, protector.label, protector.seal_root(store_id, secret))
    content = slots.to_bytes(root)
    header = HeaderRow(store_id, time.time_ns() // 1_000_000, SLOTTED, content, ledger=b"")
    records = Records(header, Protection(root, content, [protector]), "that is being made")
    ledger = Ledger()
    ledger.add(records.slots_element(slots))
    return header._replace(ledger=records.seal_ledger(ledger)), records


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
    return records, SqlSnapshot(read_tables(connection, version), version, records, lambda: None).facts


class StorePlace(Protocol):
    """How messages name a store, and where an operator finds it; a `Database` is one."""

    @property
    def label(self) -> str:
        """See Database."""

    @property
    def place(self) -> str:
        """See Database."""


def open_header(database: StorePlace, header: HeaderRow, protectors: Sequence[Protector], version: int) -> Records:
    """What the header row of format `version` opens with one of the protectors. Raises as `open_sql_keystore`."""

    def tampered(what: str) -> StoreTamperedError:
        return StoreTamperedError(f"key store {database.place} fails its integrity check: {what}", hint=RESTORE_HINT)

    content = header.protector_header
    try:
        slots = read_slots(content)
        if is_old_header(content) != (version < SLOTTED_VERSION):
            raise tampered("its header is not of its format")
        if not {slot.scheme for slot in slots.slots} & {protector.scheme for protector in protectors}:
            raise _no_protector(database, slots, protectors)
        root = find_root(header.store_id, slots, protectors)
        if root is None:
            raise _not_recognised(database, header, slots, protectors)
        return Records(header, Protection(root, content, protectors), database.label)
    except (SealBrokenError, TypeError):
        raise tampered("its slots were changed") from None


def _no_protector(database: StorePlace, slots: SlotHeader, protectors: Sequence[Protector]) -> ConfigError:
    given = ", ".join(protector.label for protector in protectors) or "no protector"
    return ConfigError(
        f"key store {database.place} is opened by {', '.join(map(str, slots.slots))}, not by {given}",
        hint="name one of them under protector: in kms.yaml, with its settings",
    )


def _none_of(protectors: Sequence[Protector]) -> str:
    labels = [protector.label for protector in protectors]
    return f"{labels[0]} does not open" if len(labels) == 1 else f"neither {' nor '.join(labels)} opens"


def _not_recognised(
    database: StorePlace, header: HeaderRow, slots: SlotHeader, protectors: Sequence[Protector]
) -> StoreTamperedError | WrongRootKeyError:
    """No check value is that of a root key file, or no slot names the key that a remote protector is set up for."""
    for slot in slots.slots:
        for protector in protectors:
            if slot.is_local and protector.scheme == slot.scheme:
                with suppress(SealBrokenError, StoreTamperedError):
                    root = StoreRoot(protector.open_root(header.store_id, slot.body), header.store_id)
                    records = Records(header, Protection(root, header.protector_header, ()), database.label)
                    records.open_ledger(header.ledger)
                    return records.tampered("its check value was changed; the root key is the right one")
    if [protector.scheme for protector in protectors] == [FILE_SCHEME]:
        return WrongRootKeyError(
            f"{protectors[0].label} is not the root key of key store {database.place}",
            hint="give a root key file that has a slot in this store (--root-key); the store was not touched",
        )
    return WrongRootKeyError(
        f"{_none_of(protectors)} key store {database.place}, which is opened by {', '.join(map(str, slots.slots))}",
        hint="correct the protectors' settings in kms.yaml; the store was not touched",
    )
