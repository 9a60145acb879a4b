"""The key store in SQL tables, through SQLAlchemy Core. SQLite is the engine built today.

How it keeps the rules of `interface`:

- One change is one transaction that takes the write lock, opens the sealed ledger, changes rows and ledger, and
  commits durably before the method returns.
- A read is one statement, so it sees one committed state. The tag of every row it believes, the seal of every
  version it opens, and that the versions are exactly those the key announces, are checked on each read.
- Opening checks the file's structure, every row and the ledger; a store that fails is not opened at all.

One thread at a time uses a connection, under a lock that is waited for a bounded time. A store does not survive a
fork: SQLite's locks belong to the process that took them, so every process opens its own.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from ringfence_agent.keystore.authenticator import Ledger
from ringfence_agent.keystore.interface import NewKey, PolicyRevision, StoredKey
from ringfence_agent.keystore.key_import import (
    ConflictError,
    ImportedKey,
    KeyImport,
    check_imported_key,
    judge_deleted,
    judge_live,
    judge_new,
)
from ringfence_agent.keystore.protector import Protector
from ringfence_agent.keystore.records import RESTORE_HINT, Records, attributes_text
from ringfence_agent.keystore.sealing import SealBrokenError
from ringfence_agent.keystore.sqlite_database import WRITE_WAIT_S, SqliteDatabase
from ringfence_agent.keystore.tables import (
    KEY_VERSION,
    POLICY_REVISION,
    STORE_HEADER,
    ZONE_KEY,
    HeaderRow,
    KeyVersionRow,
    PolicyRow,
    ZoneKeyRow,
)
from ringfence_zones.errors import (
    ConfigError,
    InputError,
    KeyConflictError,
    KeyExistsError,
    KeyNotFoundError,
    RevisionConflictError,
    StoreTamperedError,
    StoreUnavailableError,
    WrongRootKeyError,
)
from ringfence_zones.keys import KeyMetadata, KeyVersion
from ringfence_zones.secret import Secret

MAX_NAME_BYTES = 1000
"""The longest key name in UTF-8, so that every SQL engine can index it."""

_KEY_COLUMNS = [ZONE_KEY.c[name] for name in ZoneKeyRow._fields]
_VERSION_COLUMNS = [KEY_VERSION.c[name] for name in KeyVersionRow._fields]
_POLICY_COLUMNS = [POLICY_REVISION.c[name] for name in PolicyRow._fields]
_KEY_WIDTH = len(_KEY_COLUMNS)

_SELECT_HEADER = select(*(STORE_HEADER.c[name] for name in HeaderRow._fields))
_SELECT_LEDGER = select(STORE_HEADER.c.ledger)
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
_UPDATE_LEDGER = update(STORE_HEADER)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class _DryRun(Exception):  # noqa: N818 - no error: it ends a transaction without a change
    pass


@dataclass(frozen=True, slots=True)
class _Change:
    """A write transaction under way: the connection that holds the lock, and the ledger to keep."""

    connection: Connection
    ledger: Ledger


class SqlKeyStore:
    """See `interface.KeyStore`. Made by `open_sql_keystore`."""

    def __init__(self, database: SqliteDatabase, records: Records, clock: Callable[[], int]) -> None:
        self._database = database
        self._records = records
        self._clock = clock
        self._process_id = os.getpid()
        self._closed = False
        self._read_lock, self._write_lock = threading.Lock(), threading.Lock()
        self._reader, self._writer = database.reader(), database.writer()
        database.remember_identity()

    @property
    def label(self) -> str:
        """See KeyStore."""
        return self._database.label

    def create_key(self, new: NewKey) -> KeyVersion:
        """See KeyStore. Raises InputError too, for a name or material that no key can have."""
        _check_new_key(new)
        with self._change() as change:
            old = self._select_key(change, new.name)
            if old is not None and old.deleted_ms is None:
                raise KeyExistsError(new.name, self.label)
            number, now_ms = (old.next_version if old else 0), self._clock()
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
            self._insert_version(change, key, number, new.material, now_ms)
        return KeyVersion(new.name, number, new.material)

    def roll_key(self, name: str, material: Secret | None) -> KeyVersion:
        """See KeyStore."""
        with self._change() as change:
            old = self._get_live_key(change, name)
            if material is None:
                material = Secret(secrets.token_bytes(old.length_bits // 8))
            _check_length(material, old.length_bits)
            number = old.next_version
            key = old._replace(next_version=number + 1)
            self._write_key(change, old, key)
            self._insert_version(change, key, number, material, self._clock())
        return KeyVersion(name, number, material)

    def delete_key(self, name: str) -> None:
        """See KeyStore."""
        with self._change() as change:
            old = self._get_live_key(change, name)
            self._write_key(change, old, old._replace(deleted_ms=self._clock()))

    def import_keys(self, keys: Sequence[ImportedKey], *, dry_run: bool = False) -> Sequence[KeyImport]:
        """See KeyStore."""
        for key in keys:
            _check_imported(key)
        done: list[KeyImport] = []
        with suppress(_DryRun), self._change() as change:
            conflicts: dict[str, str] = {}
            for key in keys:
                try:
                    done.append(self._import_key(change, key))
                except ConflictError as conflict:
                    conflicts[key.metadata.name] = str(conflict)
            if conflicts:
                raise KeyConflictError(conflicts)
            if dry_run or not any(each.added for each in done):
                raise _DryRun
        return done

    def find_key(self, name: str) -> StoredKey | None:
        """See KeyStore. One statement and one seal per version: tens of microseconds."""
        if not _is_storable(name):
            return None
        rows = self._read(_SELECT_LIVE_KEY, name=name)
        if not rows:
            return None
        key = ZoneKeyRow(*rows[0][:_KEY_WIDTH])
        self._records.check_tag(key, rows[0][_KEY_WIDTH])
        versions = [KeyVersionRow(*row[_KEY_WIDTH + 1 :]) for row in rows]
        return self._records.open_key(key, versions)

    def list_metadata(self) -> Sequence[KeyMetadata]:
        """See KeyStore."""
        found = []
        for *fields, tag in self._read(_SELECT_LIVE_KEYS):
            key = ZoneKeyRow(*fields)
            self._records.check_tag(key, tag)
            found.append(self._records.metadata(key))
        return found

    def publish_policy(self, expected_revision: int, document: bytes, published_by: str) -> PolicyRevision:
        """See KeyStore."""
        with self._change() as change:
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
        rows = self._read(_SELECT_POLICY)
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
        for *fields, tag in self._read(_SELECT_POLICIES, after=after_revision):
            row = PolicyRow(*fields)
            self._records.check_tag(row, tag)
            policies.append(self._records.policy(row))
        if [each.revision for each in policies] != list(range(after_revision + 1, after_revision + 1 + len(policies))):
            raise self._records.tampered("a published policy is missing")
        return policies

    def close(self) -> None:
        """See KeyStore. In a forked child it only lets go of its references: the handles are the parent's."""
        if self._closed or os.getpid() != self._process_id:
            return
        self._closed = True
        with suppress(SQLAlchemyError):
            self._reader.close()
            self._writer.close()
        self._database.close()

    def _check_usable(self) -> None:
        if self._closed:
            raise StoreUnavailableError(f"key store {self.label} is closed")
        if os.getpid() != self._process_id:
            raise StoreUnavailableError(
                f"key store {self.label} was opened by process {self._process_id} and cannot be used after a fork"
            )

    @contextmanager
    def _held(self, lock: threading.Lock) -> Iterator[None]:
        """The lock of a connection, with errors of the engine translated."""
        self._check_usable()
        if not lock.acquire(timeout=WRITE_WAIT_S):
            raise StoreUnavailableError(
                f"key store {self.label} was busy in another thread for {WRITE_WAIT_S:g} s; nothing was changed"
            )
        try:
            yield
        except SQLAlchemyError as exc:
            raise self._database.translate(exc) from exc
        finally:
            lock.release()

    def _read(self, statement: Any, **parameters: object) -> Sequence[Any]:
        with self._held(self._read_lock):
            return self._reader.execute(statement, parameters).fetchall()

    @contextmanager
    def _change(self) -> Iterator[_Change]:
        """One durable transaction around the block; an exception in it changes nothing."""
        with self._held(self._write_lock), self._writer.begin():
            sealed = self._writer.execute(_SELECT_LEDGER).scalar_one_or_none()
            change = _Change(self._writer, self._records.open_ledger(sealed or b""))
            yield change
            change.ledger.writes += 1
            self._writer.execute(_UPDATE_LEDGER, {"ledger": self._records.seal_ledger(change.ledger)})
            self._database.check_in_place()

    def _select_key(self, change: _Change, name: str) -> ZoneKeyRow | None:
        found = change.connection.execute(_SELECT_KEY, {"name": name}).one_or_none()
        if found is None:
            return None
        *fields, tag = found
        key = ZoneKeyRow(*fields)
        self._records.check_tag(key, tag)
        return key

    def _get_live_key(self, change: _Change, name: str) -> ZoneKeyRow:
        key = self._select_key(change, name) if _is_storable(name) else None
        if key is None or key.deleted_ms is not None:
            raise KeyNotFoundError(name)
        return key

    def _import_key(self, change: _Change, key: ImportedKey) -> KeyImport:
        name, metadata = key.metadata.name, key.metadata
        old = self._select_key(change, name)
        if old is None:
            done = judge_new(key)
        elif old.deleted_ms is not None:
            done = judge_deleted(key, old.next_version)
        else:
            done = judge_live(key, self._open_live_key(change, old))
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
            self._insert_version(change, row, version.number, version.material, version.created_ms)
        return done

    def _open_live_key(self, change: _Change, key: ZoneKeyRow) -> StoredKey:
        rows = change.connection.execute(_SELECT_VERSIONS, {"name": key.name, "first": key.first_version})
        return self._records.open_key(key, [KeyVersionRow(*row) for row in rows])

    def _write_key(self, change: _Change, old: ZoneKeyRow | None, new: ZoneKeyRow) -> None:
        values = new._asdict() | {"tag": self._records.tag(new)}
        if old is None:
            change.connection.execute(insert(ZONE_KEY), values)
        else:
            change.connection.execute(_UPDATE_KEY, values | {"key": old.name})
            change.ledger.remove(self._records.element(old))
        change.ledger.add(self._records.element(new))

    def _insert_version(self, change: _Change, key: ZoneKeyRow, number: int, material: Secret, now_ms: int) -> None:
        row = self._records.seal_version(key, number, material, now_ms)
        change.connection.execute(insert(KEY_VERSION), row._asdict())
        change.ledger.add(self._records.element(row))


def open_sql_keystore(
    database: SqliteDatabase, protector: Protector, *, clock: Callable[[], int] = _now_ms
) -> SqlKeyStore:
    """Opens an existing store and verifies all of it.

    Raises WrongRootKeyError before anything else about the content, StoreTamperedError when a check fails,
    ConfigError for a file that is no store or needs another protector, StoreUnavailableError when it cannot be read.
    """
    database.check_file()
    try:
        with database.snapshot() as connection:
            with connection.begin():
                database.check_format(connection)
                records = _verify(database, connection, protector)
            return SqlKeyStore(database, records, clock)
    except SQLAlchemyError as exc:
        raise database.translate(exc) from exc


def _verify(database: SqliteDatabase, connection: Connection, protector: Protector) -> Records:
    found = connection.execute(_SELECT_HEADER).all()
    if len(found) != 1:
        raise StoreTamperedError(f"key store {database.path} has no header row", hint=RESTORE_HINT)
    header = HeaderRow(*found[0])
    if header.protector != protector.scheme:
        raise ConfigError(
            f"key store {database.path} is protected by {header.protector!r}, not by a {protector.label}",
            hint="open it with the protector it was made with",
        )
    records = Records(header, protector.open(header.store_id), database.label)
    if not protector.recognises(header.protector_header):
        raise _not_recognised(database, header, protector, records)
    database.check_structure(connection)
    _verify_rows(connection, records, records.open_ledger(header.ledger))
    return records


def _not_recognised(
    database: SqliteDatabase, header: HeaderRow, protector: Protector, records: Records
) -> StoreTamperedError | WrongRootKeyError:
    with suppress(SealBrokenError, StoreTamperedError):
        records.open_ledger(header.ledger)
        return records.tampered("its check value was changed; the root key is the right one")
    return WrongRootKeyError(
        f"{protector.label} is not the root key of key store {database.path}",
        hint="give the root key file that was made with this store (--root-key); the store was not touched",
    )


def _verify_rows(connection: Connection, records: Records, ledger: Ledger) -> None:
    actual = Ledger(writes=ledger.writes)
    for *fields, tag in connection.execute(select(*_KEY_COLUMNS, ZONE_KEY.c.tag)):
        key = ZoneKeyRow(*fields)
        records.check_tag(key, tag)
        actual.add(records.element(key))
    for version_fields in connection.execute(select(*_VERSION_COLUMNS)):
        actual.add(records.element(KeyVersionRow(*version_fields)))
    for *fields, tag in connection.execute(select(*_POLICY_COLUMNS, POLICY_REVISION.c.tag)):
        policy = PolicyRow(*fields)
        records.check_tag(policy, tag)
        actual.add(records.element(policy))
        actual.revision = max(actual.revision, policy.revision)
    if actual != ledger:
        raise records.tampered("rows were removed, added, swapped or put back from an earlier state")


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
