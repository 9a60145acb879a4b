"""A new root for a store in SQL tables, in one transaction: see `rows.new_root`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Table, bindparam, delete, insert, select, update

from ringfence_agent.keystore.authenticator import Ledger
from ringfence_agent.keystore.rows.changes import SEVERAL_KEYS
from ringfence_agent.keystore.rows.kinds import (
    OLDEST_USED,
    SLOTTED_VERSION,
    KeyChangeRow,
    KeyVersionRow,
    PolicyRow,
    TokenMasterKeyRow,
    TokenRow,
    TokenStateRow,
    UnconfirmedRow,
    ZoneKeyRow,
)
from ringfence_agent.keystore.rows.new_root import new_records, sealed_under
from ringfence_agent.keystore.rows.records import Records, TaggedRow
from ringfence_agent.keystore.sql.database import Database
from ringfence_agent.keystore.sql.session import SqlSession
from ringfence_agent.keystore.sql.tables import (
    DELEGATION_TOKEN,
    KEY_CHANGE,
    KEY_VERSION,
    POLICY_REVISION,
    STORE_HEADER,
    TOKEN_MASTER_KEY,
    TOKEN_STATE,
    UNCONFIRMED_CHANGE,
    ZONE_KEY,
)
from ringfence_agent.keystore.sql.transactions import LOCK_HEADER
from ringfence_zones.errors import StoreUnavailableError


class _Tagged(NamedTuple):
    """A table whose rows carry a tag, and the columns by which one is found."""

    table: Table
    row: type[ZoneKeyRow | PolicyRow | UnconfirmedRow | TokenStateRow | TokenRow]
    key: tuple[str, ...]


_TAGGED = (
    _Tagged(ZONE_KEY, ZoneKeyRow, ("name",)),
    _Tagged(POLICY_REVISION, PolicyRow, ("revision",)),
    _Tagged(UNCONFIRMED_CHANGE, UnconfirmedRow, ("key_name", "version")),
    _Tagged(TOKEN_STATE, TokenStateRow, ()),
    _Tagged(DELEGATION_TOKEN, TokenRow, ("sequence",)),
)


def give_new_root(database: Database, session: SqlSession, old: Records) -> None:
    """Gives the store a new root, sealed for every slot it has. The handle that `session` belongs to is of no use
    afterwards. Raises InputError when a slot's protector is not at hand.
    """
    old.refresh_slots()
    before = old.protection.header
    new = new_records(old, before)
    with session.transaction(LOCK_HEADER) as transaction:
        sealed_ledger, content = transaction.row or (b"", b"")
        old.adopt_slots(content)
        if old.protection.header != before:
            raise StoreUnavailableError("the store's slots were changed at the same time; nothing was changed")
        ledger = old.open_ledger(sealed_ledger)
        if before.revision == 0:
            database.upgrade(transaction.connection, OLDEST_USED, SLOTTED_VERSION)
        after = _seal_again(transaction.connection, old, new, ledger)
        header = {"ledger": after, "protector_header": new.protection.header.to_bytes(new.protection.root)}
        transaction.connection.execute(update(STORE_HEADER), header)


def _seal_again(connection: Connection, old: Records, new: Records, before: Ledger) -> bytes:
    seen = Ledger(writes=before.writes, revision=before.revision)
    ledger = Ledger(writes=before.writes + 1, revision=before.revision)
    if old.protection.header.revision:
        seen.add(old.slots_element(old.protection.header))
    ledger.add(new.slots_element(new.protection.header))
    for tagged in _TAGGED:
        for row in _retag(connection, tagged, old, new):
            if isinstance(row, ZoneKeyRow | PolicyRow):
                seen.add(old.element(row))
                ledger.add(new.element(row))
    for version, resealed in _reseal_versions(connection, old, new):
        seen.add(old.element(version))
        ledger.add(new.element(resealed))
    if seen != before:
        raise old.tampered("rows were removed, added, swapped or put back from an earlier state")
    _reseal_master_keys(connection, old, new)
    # What changed before is not told any more: whoever asks is told that everything may have.
    connection.execute(delete(KEY_CHANGE))
    connection.execute(insert(KEY_CHANGE), new.tagged(KeyChangeRow(ledger.writes, SEVERAL_KEYS)))
    return new.seal_ledger(ledger)


def _retag(connection: Connection, tagged: _Tagged, old: Records, new: Records) -> Iterator[TaggedRow]:
    columns = [tagged.table.c[name] for name in tagged.row._fields]
    for *fields, tag in connection.execute(select(*columns, tagged.table.c.tag)).fetchall():
        row = tagged.row(*fields)
        old.check_tag(row, tag)
        connection.execute(_update(tagged.table, tagged.key), {**_place(tagged.key, row), "tag": new.tag(row)})
        yield row


def _reseal_versions(
    connection: Connection, old: Records, new: Records
) -> Iterator[tuple[KeyVersionRow, KeyVersionRow]]:
    columns = [KEY_VERSION.c[name] for name in KeyVersionRow._fields]
    key = ("key_name", "version")
    for fields in connection.execute(select(*columns)).fetchall():
        row = KeyVersionRow(*fields)
        resealed = row._replace(sealed=sealed_under(new.protection.root, old, row))
        connection.execute(_update(KEY_VERSION, key), {**_place(key, row), "sealed": resealed.sealed})
        yield row, resealed


def _reseal_master_keys(connection: Connection, old: Records, new: Records) -> None:
    columns = [TOKEN_MASTER_KEY.c[name] for name in TokenMasterKeyRow._fields]
    for fields in connection.execute(select(*columns)).fetchall():
        row = new.seal_master_key(old.open_master_key(TokenMasterKeyRow(*fields)))
        place = _place(("key_id",), row)
        connection.execute(_update(TOKEN_MASTER_KEY, ("key_id",)), {**place, "sealed": row.sealed})


def _update(table: Table, key: Sequence[str]) -> Any:
    return update(table).where(*(table.c[name] == bindparam(f"this_{name}") for name in key))


def _place(key: Sequence[str], row: Any) -> dict[str, object]:
    return {f"this_{name}": getattr(row, name) for name in key}
