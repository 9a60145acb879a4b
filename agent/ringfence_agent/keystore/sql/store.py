"""Keys and policy in SQL tables, through SQLAlchemy Core, on any engine that `database` describes.

How it keeps the rules of `interface`:

- One change is one transaction that takes the write lock, opens the sealed ledger, changes rows and ledger, and
  commits durably before the method returns.
- A read is one statement, so it sees one committed state. The tag of every row it believes, the seal of every
  version it opens, and that the versions are exactly those the key announces, are checked on each read.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from sqlalchemy import bindparam, case, func, insert, select

from ringfence_agent.keystore.held import AnyVersion, HeldKey, HeldVersion, Material, made_version
from ringfence_agent.keystore.interface import (
    ChangeOrigin,
    Changes,
    DeletedKey,
    ImportedKey,
    KeyImport,
    NewKey,
    PolicyRevision,
    SealedKey,
    StoredKey,
    UnconfirmedChange,
)
from ringfence_agent.keystore.protected_store import StoreSlots
from ringfence_agent.keystore.protection import HELD_SEAL, REMOTE_PREFIX_BYTES, REMOTE_SEAL
from ringfence_agent.keystore.rows.changes import NO_KEY, SEVERAL_KEYS
from ringfence_agent.keystore.rows.kinds import KeyVersionRow, PolicyRow, ZoneKeyRow
from ringfence_agent.keystore.rows.new_keys import check_length, check_new_key, is_storable
from ringfence_agent.keystore.rows.prepared import Prepared, with_seals
from ringfence_agent.keystore.rows.records import Records, attributes_text
from ringfence_agent.keystore.rows.slot_changes import SlotChanges, make_newest
from ringfence_agent.keystore.rows.snapshot import RowSnapshot
from ringfence_agent.keystore.snapshot import Pause
from ringfence_agent.keystore.sql.changes import SqlChanges
from ringfence_agent.keystore.sql.database import Database
from ringfence_agent.keystore.sql.imports import SqlImports
from ringfence_agent.keystore.sql.key_rows import KeyRows
from ringfence_agent.keystore.sql.session import SqlSession
from ringfence_agent.keystore.sql.slots import SqlSlotChange, SqlSlotRows
from ringfence_agent.keystore.sql.tables import KEY_VERSION, POLICY_REVISION, STORE_HEADER, ZONE_KEY, read_tables
from ringfence_agent.keystore.sql.tokens import SqlTokens
from ringfence_agent.keystore.sql.transactions import Change, SqlTransactions
from ringfence_zones.errors import (
    KeyExistsError,
    KeyNotFoundError,
    RevisionConflictError,
    UnconfirmedChangeError,
)
from ringfence_zones.keys import KeyMetadata
from ringfence_zones.secret import Secret

_KEY_COLUMNS = [ZONE_KEY.c[name] for name in ZoneKeyRow._fields]
_VERSION_COLUMNS = [KEY_VERSION.c[name] for name in KeyVersionRow._fields]
_POLICY_COLUMNS = [POLICY_REVISION.c[name] for name in PolicyRow._fields]
_KEY_WIDTH = len(_KEY_COLUMNS)

_SELECT_SLOTS = select(STORE_HEADER.c.protector_header)
# An outer join: a live key whose versions are gone must be seen, not be taken for no key.
_SELECT_LIVE_KEY = (
    select(*_KEY_COLUMNS, ZONE_KEY.c.tag, *_VERSION_COLUMNS)
    .outerjoin(
        KEY_VERSION,
        (KEY_VERSION.c.key_name == ZONE_KEY.c.name) & (KEY_VERSION.c.version >= ZONE_KEY.c.first_version),
    )
    .where(ZONE_KEY.c.name == bindparam("name"), ZONE_KEY.c.deleted_ms.is_(None))
    .order_by(KEY_VERSION.c.version)
)
_SELECT_LIVE_KEYS = (
    select(*_KEY_COLUMNS, ZONE_KEY.c.tag).where(ZONE_KEY.c.deleted_ms.is_(None)).order_by(ZONE_KEY.c.name)
)
_SELECT_DELETED_KEYS = (
    select(*_KEY_COLUMNS, ZONE_KEY.c.tag).where(ZONE_KEY.c.deleted_ms.is_not(None)).order_by(ZONE_KEY.c.name)
)
# A remote seal begins with 0x02 and the number of its slot; what follows another first byte is nobody's choice.
_FIRST_BYTE = func.substr(KEY_VERSION.c.sealed, 1, 1)
_HOW_SEALED = case(
    (_FIRST_BYTE == REMOTE_SEAL, func.substr(KEY_VERSION.c.sealed, 1, REMOTE_PREFIX_BYTES)), else_=_FIRST_BYTE
)
_BY_SEAL = (
    select(
        KEY_VERSION.c.key_name,
        KEY_VERSION.c.version,
        func.row_number()
        .over(partition_by=_HOW_SEALED, order_by=(KEY_VERSION.c.key_name, KEY_VERSION.c.version.desc()))
        .label("place"),
    )
    .join(ZONE_KEY, (ZONE_KEY.c.name == KEY_VERSION.c.key_name) & (KEY_VERSION.c.version >= ZONE_KEY.c.first_version))
    .where(ZONE_KEY.c.deleted_ms.is_(None), _FIRST_BYTE != HELD_SEAL)
    .subquery()
)
_SELECT_CANARIES = select(_BY_SEAL.c.key_name, _BY_SEAL.c.version).where(_BY_SEAL.c.place == 1)
_SELECT_POLICY = (
    select(STORE_HEADER.c.ledger, *_POLICY_COLUMNS, POLICY_REVISION.c.tag)
    .outerjoin(POLICY_REVISION, POLICY_REVISION.c.revision > 0)
    .order_by(POLICY_REVISION.c.revision.desc())
    .limit(1)
)
_SELECT_POLICIES = (
    select(*_POLICY_COLUMNS, POLICY_REVISION.c.tag)
    .where(POLICY_REVISION.c.revision > bindparam("after"))
    .order_by(POLICY_REVISION.c.revision)
)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class _MadeBy(NamedTuple):
    """Who asked for a change, and the handle that makes it."""

    origin: ChangeOrigin
    owner_id: int


class SqlKeyStore(SqlTokens):
    """See `interface.OpenStore`. Made by `sql.open.open_sql_keystore`."""

    def __init__(self, database: Database, records: Records, clock: Callable[[], int] = _now_ms) -> None:
        session = SqlSession(database)
        super().__init__(session, records)
        self._database = database
        self._session = session
        self._records = records
        self._changes = SqlChanges(session, records)
        self._transactions = SqlTransactions(session, records, self._changes)
        self._rows = KeyRows(records)
        self._imports = SqlImports(records, self._transactions, self._rows)
        self._clock = clock
        self.slots: StoreSlots = SlotChanges(records, SqlSlotRows(database, session, records, self._transactions))
        records.protection.reread_with(self._read_slots)

    @property
    def label(self) -> str:
        """See KeyStore."""
        return self._session.label

    @property
    def store_id(self) -> str:
        """See KeyStore."""
        return self._records.protection.root.store_id.hex()

    @property
    def owner_id(self) -> int:
        """See KeyStore. The first call makes this handle known to others."""
        return self._session.hold_owner()

    def create_key(self, new: NewKey, origin: ChangeOrigin | None = None) -> AnyVersion:
        """See KeyStore. Raises InputError too, for a name or material that no key can have."""
        check_new_key(new)
        made_by, now_ms = self._made_by(origin), self._clock()
        return with_seals(self._records, lambda prepared: self._create(new, made_by, now_ms, prepared))

    def _create(self, new: NewKey, made_by: _MadeBy | None, now_ms: int, prepared: Prepared) -> AnyVersion:
        with self._transactions.change(new.name, prepared) as change:
            old = self._rows.find(change, new.name)
            if old is not None and old.deleted_ms is None:
                raise KeyExistsError(new.name, self.label)
            number = old.next_version if old else 0
            key = ZoneKeyRow(
                name=new.name,
                cipher=new.cipher,
                length_bits=new.length_bits,
                created_ms=now_ms,
                first_version=number,
                next_version=number + 1,
                deleted_ms=None,
                description=new.description,
                attributes=attributes_text(new.attributes),
            )
            self._rows.write(change, old, key)
            version = made_version(new.name, number, new.material)
            if isinstance(version, HeldVersion):
                make_newest(self._records.protection, SqlSlotChange(self._database, self._records, change))
            self._rows.insert_version(change, key, version, now_ms, prepared)
            self._note_maker(change, version, now_ms, made_by)
        if isinstance(version, HeldVersion):
            self._records.refresh_slots()
        return version

    def roll_key(self, name: str, material: Material | None, origin: ChangeOrigin | None = None) -> AnyVersion:
        """See KeyStore."""
        made_by, now_ms = self._made_by(origin), self._clock()
        drawn: dict[int, Secret] = {}  # by length: the same material each time the change runs

        def chosen(length_bits: int) -> Material:
            if material is not None:
                return material
            return drawn.setdefault(length_bits, Secret(secrets.token_bytes(length_bits // 8)))

        return with_seals(self._records, lambda prepared: self._roll(name, chosen, made_by, now_ms, prepared))

    def _roll(
        self, name: str, chosen: Callable[[int], Material], made_by: _MadeBy | None, now_ms: int, prepared: Prepared
    ) -> AnyVersion:
        with self._transactions.change(name, prepared) as change:
            old = self._rows.get_live(change, name)
            if made_by is not None and self._changes.is_unconfirmed(change.connection, old, made_by.origin):
                raise UnconfirmedChangeError(name)
            material = chosen(old.length_bits)
            check_length(material, old.length_bits)
            self._rows.require_next(change, old, material)
            version = made_version(name, old.next_version, material)
            key = old._replace(next_version=old.next_version + 1)
            self._rows.write(change, old, key)
            self._rows.insert_version(change, key, version, now_ms, prepared)
            self._note_maker(change, version, now_ms, made_by)
        return version

    def delete_key(self, name: str) -> None:
        """See KeyStore."""
        with self._transactions.change(name) as change:
            old = self._rows.get_live(change, name)
            self._rows.write(change, old, old._replace(deleted_ms=self._clock()))

    def undelete_key(self, name: str, not_before_ms: int) -> KeyMetadata:
        """See KeyStore."""
        with self._transactions.change(name) as change:
            old = self._rows.find(change, name) if is_storable(name) else None
            if old is None:
                raise KeyNotFoundError(name)
            if old.deleted_ms is None:
                raise KeyExistsError(name, self.label)
            if old.deleted_ms < not_before_ms:
                raise KeyNotFoundError(name, f"Key {name} was deleted too long ago to be brought back")
            key = old._replace(deleted_ms=None)
            self._rows.write(change, old, key)
        return self._records.metadata(key)

    def list_deleted(self) -> Sequence[DeletedKey]:
        """See KeyStore."""
        found = []
        for *fields, tag in self._session.read(_SELECT_DELETED_KEYS):
            key = ZoneKeyRow(*fields)
            self._records.check_tag(key, tag)
            if key.deleted_ms is not None:
                found.append(DeletedKey(self._records.metadata(key), key.deleted_ms))
        return found

    def skip_changes(self, number: int) -> None:
        """Makes `number` the store's change number, for a restore of an earlier state: later ones were given out."""
        with self._transactions.change(SEVERAL_KEYS) as change:
            change.ledger.writes = max(change.ledger.writes, number - 1)

    def import_keys(self, keys: Sequence[ImportedKey], *, dry_run: bool = False) -> Sequence[KeyImport]:
        """See KeyStore."""
        return self._imports.run(keys, dry_run=dry_run)

    def find_key(self, name: str) -> StoredKey | HeldKey | None:
        """See KeyStore. One statement and one seal per version: tens of microseconds."""
        found = self.find_sealed_key(name)
        return found.open() if isinstance(found, SealedKey) else found

    def find_sealed_key(self, name: str) -> SealedKey | HeldKey | None:
        """See KeyStore."""
        if not is_storable(name):
            return None
        rows = self._session.read(_SELECT_LIVE_KEY, name=name)
        if not rows:
            return None
        key = ZoneKeyRow(*rows[0][:_KEY_WIDTH])
        self._records.check_tag(key, rows[0][_KEY_WIDTH])
        return self._records.sealed_key(key, [KeyVersionRow(*row[_KEY_WIDTH + 1 :]) for row in rows])

    def list_metadata(self) -> Sequence[KeyMetadata]:
        """See KeyStore."""
        found = []
        for *fields, tag in self._session.read(_SELECT_LIVE_KEYS):
            key = ZoneKeyRow(*fields)
            self._records.check_tag(key, tag)
            found.append(self._records.metadata(key))
        return found

    def list_canaries(self) -> Sequence[tuple[str, int]]:
        """See KeyStore. One statement over all versions: about 3 ms for a thousand."""
        return [(name, version) for name, version in self._session.read(_SELECT_CANARIES)]

    def publish_policy(self, expected_revision: int, document: bytes, published_by: str) -> PolicyRevision:
        """See KeyStore."""
        with self._transactions.change(NO_KEY) as change:
            if change.ledger.revision != expected_revision:
                raise RevisionConflictError(expected_revision, change.ledger.revision)
            row = PolicyRow(expected_revision + 1, document, published_by, self._clock())
            values = row._asdict() | {"tag": self._records.tag(row)}
            change.connection.execute(insert(POLICY_REVISION), values)
            change.ledger.add(self._records.element(row))
            change.ledger.revision = row.revision
        return self._records.policy(row)

    def find_policy(self) -> PolicyRevision | None:
        """See KeyStore. Also checks that it is the newest one, against the sealed ledger."""
        rows = self._session.read(_SELECT_POLICY)
        if not rows:
            raise self._records.tampered("its header row is missing")
        sealed_ledger, *fields, tag = rows[0]
        if self._records.open_ledger(sealed_ledger).revision != (fields[0] or 0):
            raise self._records.tampered("published policies are missing or were added")
        if fields[0] is None:
            return None
        row = PolicyRow(*fields)
        self._records.check_tag(row, tag)
        return self._records.policy(row)

    def list_policies(self, after_revision: int) -> Sequence[PolicyRevision]:
        """See KeyStore."""
        policies = []
        for *fields, tag in self._session.read(_SELECT_POLICIES, after=after_revision):
            row = PolicyRow(*fields)
            self._records.check_tag(row, tag)
            policies.append(self._records.policy(row))
        if [each.revision for each in policies] != list(range(after_revision + 1, after_revision + 1 + len(policies))):
            raise self._records.tampered("a published policy is missing")
        return policies

    def derive_secret(self, purpose: str) -> Secret:
        """See KeyStore."""
        return self._records.derive_secret(purpose)

    def change_number(self) -> int:
        """See KeyStore."""
        return self._changes.number()

    def changes_since(self, number: int) -> Changes:
        """See KeyStore."""
        return self._changes.since(number)

    def find_unconfirmed(self, name: str) -> Sequence[UnconfirmedChange]:
        """See KeyStore."""
        return self._changes.find_unconfirmed(name) if is_storable(name) else ()

    def confirm(self, changes: Sequence[UnconfirmedChange]) -> None:
        """See KeyStore."""
        self._changes.confirm(changes)

    def remove_unconfirmed(self, before_ms: int) -> int:
        """See KeyStore."""
        return self._changes.remove_unconfirmed(before_ms)

    def is_alive(self, owner_id: int) -> bool:
        """See KeyStore."""
        return self._session.is_alive(owner_id)

    @contextmanager
    def snapshot(self, pause: Pause = lambda: None) -> Iterator[RowSnapshot]:
        """See KeyStore."""
        with self._session.snapshot() as (connection, version):
            rows = read_tables(connection, version)
        yield RowSnapshot(rows, version, self._records, pause)

    def close(self) -> None:
        """See KeyStore. In a forked child it only lets go of its references: the handles are the parent's."""
        self._session.close()

    def _read_slots(self) -> bytes:
        rows = self._session.read(_SELECT_SLOTS)
        if len(rows) != 1:
            raise self._records.tampered("its header row is missing")
        return bytes(rows[0][0])

    def _made_by(self, origin: ChangeOrigin | None) -> _MadeBy | None:
        return None if origin is None else _MadeBy(origin, self.owner_id)

    def _note_maker(self, change: Change, version: AnyVersion, now_ms: int, made_by: _MadeBy | None) -> None:
        if made_by is not None:
            made = UnconfirmedChange(version.key_name, version.version, made_by.origin, made_by.owner_id, now_ms)
            self._changes.note_unconfirmed(change.connection, made)
