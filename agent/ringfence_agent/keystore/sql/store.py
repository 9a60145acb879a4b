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
from contextlib import contextmanager, suppress
from typing import NamedTuple

from sqlalchemy import bindparam, insert, select, update

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
from ringfence_agent.keystore.key_import import ConflictError, check_imported_key, judge_deleted, judge_live, judge_new
from ringfence_agent.keystore.snapshot import Pause
from ringfence_agent.keystore.sql.changes import NO_KEY, SEVERAL_KEYS, SqlChanges
from ringfence_agent.keystore.sql.database import Database
from ringfence_agent.keystore.sql.prepared import Prepared, with_seals
from ringfence_agent.keystore.sql.records import Records, attributes_text
from ringfence_agent.keystore.sql.session import SqlSession
from ringfence_agent.keystore.sql.slot_changes import SqlSlots
from ringfence_agent.keystore.sql.snapshot import SqlSnapshot
from ringfence_agent.keystore.sql.tables import (
    KEY_VERSION,
    POLICY_REVISION,
    STORE_HEADER,
    ZONE_KEY,
    KeyVersionRow,
    PolicyRow,
    ZoneKeyRow,
)
from ringfence_agent.keystore.sql.tokens import SqlTokens
from ringfence_agent.keystore.sql.transactions import Change, SqlTransactions
from ringfence_zones.errors import (
    InputError,
    KeyConflictError,
    KeyExistsError,
    KeyNotFoundError,
    RevisionConflictError,
    UnconfirmedChangeError,
)
from ringfence_zones.keys import KeyMetadata, KeyVersion
from ringfence_zones.secret import Secret

MAX_NAME_BYTES = 1000
"""The longest key name in UTF-8, so that every SQL engine can index it."""

_KEY_COLUMNS = [ZONE_KEY.c[name] for name in ZoneKeyRow._fields]
_VERSION_COLUMNS = [KEY_VERSION.c[name] for name in KeyVersionRow._fields]
_POLICY_COLUMNS = [POLICY_REVISION.c[name] for name in PolicyRow._fields]
_KEY_WIDTH = len(_KEY_COLUMNS)

_SELECT_SLOTS = select(STORE_HEADER.c.protector_header)
_SELECT_KEY = select(*_KEY_COLUMNS, ZONE_KEY.c.tag).where(ZONE_KEY.c.name == bindparam("name"))
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
_SELECT_VERSIONS = (
    select(*_VERSION_COLUMNS)
    .where(KEY_VERSION.c.key_name == bindparam("name"), KEY_VERSION.c.version >= bindparam("first"))
    .order_by(KEY_VERSION.c.version)
)
_SELECT_LIVE_KEYS = (
    select(*_KEY_COLUMNS, ZONE_KEY.c.tag).where(ZONE_KEY.c.deleted_ms.is_(None)).order_by(ZONE_KEY.c.name)
)
_SELECT_DELETED_KEYS = (
    select(*_KEY_COLUMNS, ZONE_KEY.c.tag).where(ZONE_KEY.c.deleted_ms.is_not(None)).order_by(ZONE_KEY.c.name)
)
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
_UPDATE_KEY = update(ZONE_KEY).where(ZONE_KEY.c.name == bindparam("key"))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class _DryRun(Exception):  # noqa: N818 - no error: it ends a transaction without a change
    pass


class _MadeBy(NamedTuple):
    """Who asked for a change, and the handle that makes it."""

    origin: ChangeOrigin
    owner_id: int


class SqlKeyStore(SqlTokens):
    """See `interface.OpenStore`. Made by `sql_open.open_sql_keystore`."""

    def __init__(self, database: Database, records: Records, clock: Callable[[], int] = _now_ms) -> None:
        session = SqlSession(database)
        super().__init__(session, records)
        self._session = session
        self._records = records
        self._changes = SqlChanges(session, records)
        self._transactions = SqlTransactions(session, records, self._changes)
        self._clock = clock
        self.slots = SqlSlots(database, session, records, self._transactions)
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

    def create_key(self, new: NewKey, origin: ChangeOrigin | None = None) -> KeyVersion:
        """See KeyStore. Raises InputError too, for a name or material that no key can have."""
        _check_new_key(new)
        made_by, now_ms = self._made_by(origin), self._clock()
        return with_seals(self._records, lambda prepared: self._create(new, made_by, now_ms, prepared))

    def _create(self, new: NewKey, made_by: _MadeBy | None, now_ms: int, prepared: Prepared) -> KeyVersion:
        with self._transactions.change(new.name, prepared) as change:
            old = self._select_key(change, new.name)
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
            self._write_key(change, old, key)
            version = KeyVersion(new.name, number, new.material)
            self._insert_version(change, key, version, now_ms, prepared)
            self._note_maker(change, version, now_ms, made_by)
        return version

    def roll_key(self, name: str, material: Secret | None, origin: ChangeOrigin | None = None) -> KeyVersion:
        """See KeyStore."""
        made_by, now_ms = self._made_by(origin), self._clock()
        drawn: dict[int, Secret] = {}  # by length: the same material each time the change runs

        def chosen(length_bits: int) -> Secret:
            if material is not None:
                return material
            return drawn.setdefault(length_bits, Secret(secrets.token_bytes(length_bits // 8)))

        return with_seals(self._records, lambda prepared: self._roll(name, chosen, made_by, now_ms, prepared))

    def _roll(
        self, name: str, chosen: Callable[[int], Secret], made_by: _MadeBy | None, now_ms: int, prepared: Prepared
    ) -> KeyVersion:
        with self._transactions.change(name, prepared) as change:
            old = self._get_live_key(change, name)
            if made_by is not None and self._changes.is_unconfirmed(change.connection, old, made_by.origin):
                raise UnconfirmedChangeError(name)
            version = KeyVersion(name, old.next_version, chosen(old.length_bits))
            _check_length(version.material, old.length_bits)
            key = old._replace(next_version=old.next_version + 1)
            self._write_key(change, old, key)
            self._insert_version(change, key, version, now_ms, prepared)
            self._note_maker(change, version, now_ms, made_by)
        return version

    def delete_key(self, name: str) -> None:
        """See KeyStore."""
        with self._transactions.change(name) as change:
            old = self._get_live_key(change, name)
            self._write_key(change, old, old._replace(deleted_ms=self._clock()))

    def undelete_key(self, name: str, not_before_ms: int) -> KeyMetadata:
        """See KeyStore."""
        with self._transactions.change(name) as change:
            old = self._select_key(change, name) if _is_storable(name) else None
            if old is None:
                raise KeyNotFoundError(name)
            if old.deleted_ms is None:
                raise KeyExistsError(name, self.label)
            if old.deleted_ms < not_before_ms:
                raise KeyNotFoundError(name, f"Key {name} was deleted too long ago to be brought back")
            key = old._replace(deleted_ms=None)
            self._write_key(change, old, key)
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
        for key in keys:
            _check_imported(key)
        return with_seals(self._records, lambda prepared: self._import(keys, prepared, dry_run=dry_run))

    def _import(self, keys: Sequence[ImportedKey], prepared: Prepared, *, dry_run: bool) -> Sequence[KeyImport]:
        done: list[KeyImport] = []
        with suppress(_DryRun), self._transactions.change(SEVERAL_KEYS, prepared) as change:
            conflicts: dict[str, str] = {}
            for key in keys:
                try:
                    done.append(self._import_key(change, key, prepared))
                except ConflictError as conflict:
                    conflicts[key.metadata.name] = str(conflict)
            if conflicts:
                raise KeyConflictError(conflicts)
            prepared.check_opened()
            if dry_run or not any(each.added for each in done):
                raise _DryRun
        return done

    def find_key(self, name: str) -> StoredKey | None:
        """See KeyStore. One statement and one seal per version: tens of microseconds."""
        sealed = self.find_sealed_key(name)
        return None if sealed is None else sealed.open()

    def find_sealed_key(self, name: str) -> SealedKey | None:
        """See KeyStore."""
        if not _is_storable(name):
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
        return self._changes.find_unconfirmed(name) if _is_storable(name) else ()

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
    def snapshot(self, pause: Pause = lambda: None) -> Iterator[SqlSnapshot]:
        """See KeyStore."""
        with self._session.snapshot() as (connection, version):
            yield SqlSnapshot(connection, version, self._records, pause)

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

    def _select_key(self, change: Change, name: str) -> ZoneKeyRow | None:
        found = change.connection.execute(_SELECT_KEY, {"name": name}).one_or_none()
        if found is None:
            return None
        *fields, tag = found
        key = ZoneKeyRow(*fields)
        self._records.check_tag(key, tag)
        return key

    def _get_live_key(self, change: Change, name: str) -> ZoneKeyRow:
        key = self._select_key(change, name) if _is_storable(name) else None
        if key is None or key.deleted_ms is not None:
            raise KeyNotFoundError(name)
        return key

    def _import_key(self, change: Change, key: ImportedKey, prepared: Prepared) -> KeyImport:
        name, metadata = key.metadata.name, key.metadata
        old = self._select_key(change, name)
        if old is None:
            done = judge_new(key)
        elif old.deleted_ms is not None:
            done = judge_deleted(key, old.next_version)
        else:
            here = self._open_live_key(change, old, prepared)
            if here is None:
                return KeyImport(name, False, ())  # judged by the next run
            done = judge_live(key, here)
        if not done.added:
            return done
        row = ZoneKeyRow(
            name=name,
            cipher=metadata.cipher,
            length_bits=metadata.length_bits,
            created_ms=metadata.created_ms,
            first_version=done.added[0],
            next_version=metadata.versions,
            deleted_ms=None,
            description=metadata.description,
            attributes=attributes_text(metadata.attributes),
        )
        if old is not None and not done.is_new:
            row = old._replace(next_version=metadata.versions)
        self._write_key(change, old, row)
        for version in key.versions[-len(done.added) :]:
            made = KeyVersion(name, version.number, version.material)
            self._insert_version(change, row, made, version.created_ms, prepared)
        return done

    def _open_live_key(self, change: Change, key: ZoneKeyRow, prepared: Prepared) -> StoredKey | None:
        """A key with its material, None when that has to be opened first."""
        found = change.connection.execute(_SELECT_VERSIONS, {"name": key.name, "first": key.first_version})
        rows = [KeyVersionRow(*row) for row in found]
        sealed = self._records.sealed_key(key, rows)
        if not sealed.remote:
            return sealed.open()
        materials = [prepared.open(row) for row in rows]
        versions = [
            KeyVersion(key.name, row.version, material)
            for row, material in zip(rows, materials, strict=True)
            if material is not None
        ]
        return StoredKey(sealed.metadata, versions) if len(versions) == len(rows) else None

    def _write_key(self, change: Change, old: ZoneKeyRow | None, new: ZoneKeyRow) -> None:
        values = new._asdict() | {"tag": self._records.tag(new)}
        if old is None:
            change.connection.execute(insert(ZONE_KEY), values)
        else:
            change.connection.execute(_UPDATE_KEY, values | {"key": old.name})
            change.ledger.remove(self._records.element(old))
        change.ledger.add(self._records.element(new))

    def _insert_version(
        self, change: Change, key: ZoneKeyRow, version: KeyVersion, created_ms: int, prepared: Prepared
    ) -> None:
        row = self._records.version_row(
            key, version.version, created_ms, lambda binding: prepared.seal(binding, version.material)
        )
        change.connection.execute(insert(KEY_VERSION), row._asdict())
        change.ledger.add(self._records.element(row))

    def _note_maker(self, change: Change, version: KeyVersion, now_ms: int, made_by: _MadeBy | None) -> None:
        if made_by is not None:
            made = UnconfirmedChange(version.key_name, version.version, made_by.origin, made_by.owner_id, now_ms)
            self._changes.note_unconfirmed(change.connection, made)


def _check_new_key(new: NewKey) -> None:
    if not new.name or not _is_storable(new.name):
        raise InputError(f"a key name has 1 to {MAX_NAME_BYTES} bytes of Unicode text; this one has not")
    texts = [new.cipher, new.description or "", *new.attributes.keys(), *new.attributes.values()]
    if not all(_is_unicode(text) for text in texts):
        raise InputError(f"cipher, description or attributes of key {new.name} are not Unicode text")
    _check_length(new.material, new.length_bits)


def _check_imported(key: ImportedKey) -> None:
    check_imported_key(key)
    m = key.metadata
    for version in key.versions:
        _check_new_key(NewKey(m.name, m.cipher, m.length_bits, version.material, m.description, m.attributes))


def _check_length(material: Secret, length_bits: int) -> None:
    if len(material) * 8 != length_bits:
        raise InputError(
            f"the key material has {len(material) * 8} bits, but the key has {length_bits}",
            hint="leave the material out to have it made, or give material of the key's own length",
        )


def _is_storable(name: str) -> bool:
    return _is_unicode(name) and len(name.encode()) <= MAX_NAME_BYTES


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
