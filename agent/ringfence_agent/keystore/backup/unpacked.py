"""A backup unpacked into a private store of its own, opened and verified as any store is: what a backup is judged by.

The store is an SQLite file in a directory that nobody else can enter, in memory where the machine has a tmpfs for it,
and gone afterwards. Material in it is sealed as it was; whatever of it is opened, is opened by the caller.

Everything is checked before it is handed out: the file's length and digest, tables and columns, that a protector that
was given opens it, every row's tag and the sealed ledger, the signature, and that the manifest says what the store
says.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from ringfence_agent.keystore.backup import canary, file_format
from ringfence_agent.keystore.backup.file_format import BackupFile, Manifest
from ringfence_agent.keystore.backup.records import Record
from ringfence_agent.keystore.local_files import file_system_of
from ringfence_agent.keystore.protector import Protector
from ringfence_agent.keystore.rows.kinds import BACKED_UP, OLDEST_USED, SCHEMA_VERSION, TableRow
from ringfence_agent.keystore.slots import read_slots
from ringfence_agent.keystore.snapshot import StoreFacts
from ringfence_agent.keystore.sql.open import open_sql_keystore
from ringfence_agent.keystore.sql.sqlite_database import SqliteDatabase, create_file, translate_sqlite
from ringfence_agent.keystore.sql.store import SqlKeyStore
from ringfence_zones.errors import BackupError, ProtectorUnavailableError, StoreUnavailableError, WrongRootKeyError

_IN_MEMORY = Path("/dev/shm")  # noqa: S108 -- a private directory is made in it
_PREFIX = "ringfence-backup-"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def unpacked(backup: BackupFile, protectors: Sequence[Protector]) -> Iterator[SqlKeyStore]:
    """The store in a backup. Raises BackupError, WrongRootKeyError, StoreTamperedError, ConfigError when no protector
    fits, ProtectorUnavailableError, ProtectorRefusedError.
    """
    _check_tables(backup)
    with private_directory() as directory:
        path = directory / "backup.db"
        path.touch(mode=0o600)
        _write_rows(backup, path)
        database = SqliteDatabase(path, label=f"in backup {backup.label}")
        with told_of_room(backup):
            opened = open_sql_keystore(database, protectors)
        with closing(opened) as store:
            _check_signed(backup, store)
            yield store


@contextmanager
def told_of_room(backup: BackupFile) -> Iterator[None]:
    """Around what writes to an unpacked store: nobody knows its path, and nothing but room can be wanting there.

    Raises BackupError.
    """
    try:
        yield
    except ProtectorUnavailableError:
        raise
    except StoreUnavailableError:
        raise _no_room(backup, _find_parent()) from None


@contextmanager
def private_directory() -> Iterator[Path]:
    """A directory for this user alone, in memory when there is a tmpfs; removed with all that is in it.

    One that a killed process left is removed by the next: whoever uses one holds its lock.
    """
    parent = _find_parent()
    try:
        _remove_left(parent)
        directory, lock = _make_locked(parent)
    except OSError as error:
        raise BackupError(f"there is no room to open a backup in {parent}: {error.strerror}") from None
    try:
        yield directory
    finally:
        shutil.rmtree(directory)
        os.close(lock)


def check_opened_by(backup: BackupFile, protector: Protector) -> None:
    """Raises WrongRootKeyError when this one opens no slot of a backup that `unpacked` has found genuine.

    What opens a backup is whichever protector fits first. So with several at hand, that it opened says nothing of one.
    """
    slots = read_slots(bytes.fromhex(backup.manifest.protector_header)).slots
    if not any(slot.scheme == protector.scheme and protector.recognises(slot.body) for slot in slots):
        raise WrongRootKeyError(
            f"{protector.label} does not open backup {backup.label}, which is opened by {', '.join(map(str, slots))}",
            hint="find the copy that does, or leave --root-key out to try what kms.yaml names alone",
        )


def _write_rows(backup: BackupFile, path: Path) -> None:
    try:
        create_file(path, table_rows(backup.records()), version=backup.manifest.schema_version)
    except sqlite3.Error as error:
        if isinstance(translate_sqlite(error, path), StoreUnavailableError):
            raise _no_room(backup, path.parent.parent) from None
        raise BackupError(f"backup {backup.label} is damaged: rows in it do not fit their tables") from None


def _find_parent() -> Path:
    in_memory = os.access(_IN_MEMORY, os.W_OK | os.X_OK) and file_system_of(_IN_MEMORY) == "tmpfs"
    return _IN_MEMORY if in_memory else Path(tempfile.gettempdir())


def _no_room(backup: BackupFile, parent: Path) -> BackupError:
    return BackupError(
        f"there is no room in {parent} to open backup {backup.label}",
        hint=f"it takes about {backup.manifest.body_bytes * 2 // 1024 + 1024} KiB there while it is looked at",
    )


def _make_locked(parent: Path) -> tuple[Path, int]:
    while True:
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        lock = os.open(directory, _DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if directory.exists():
            return directory, lock
        os.close(lock)  # somebody was quick to take it for a left one


def _remove_left(parent: Path) -> None:
    for directory in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            lock = os.open(directory, _DIRECTORY)
            try:
                if os.fstat(lock).st_uid == os.geteuid():
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(directory)
            finally:
                os.close(lock)


def table_rows(records: Iterable[Record]) -> Iterator[TableRow]:
    """The rows among records."""
    for record in records:
        if record.kind in BACKED_UP:
            yield record.kind, dict(zip(BACKED_UP[record.kind], record.fields, strict=True))


def _check_tables(backup: BackupFile) -> None:
    manifest = backup.manifest
    if not OLDEST_USED <= manifest.schema_version <= SCHEMA_VERSION:
        raise BackupError(
            f"backup {backup.label} is of a store of format {manifest.schema_version}; this release reads formats"
            f" {OLDEST_USED} to {SCHEMA_VERSION}",
            hint="use the release that made it",
        )
    kinds = {*BACKED_UP, canary.KIND}
    if {
        table: tuple(columns) for table, columns in manifest.columns.items()
    } != BACKED_UP or not kinds >= manifest.rows.keys():
        raise BackupError(f"backup {backup.label} has other tables than this release knows")
    for record in backup.records():
        if record.kind != canary.KIND and len(record.fields) != len(BACKED_UP[record.kind]):
            raise BackupError(f"backup {backup.label} is damaged: a row of {record.kind} has other columns")


def _check_signed(backup: BackupFile, store: SqlKeyStore) -> None:
    if not backup.is_signed_with(store.derive_secret(file_format.PURPOSE)):
        raise BackupError(
            f"the manifest of backup {backup.label} was not signed by its store: somebody changed it",
            hint="take another backup, and find out who could write to this one",
        )
    with store.snapshot() as snapshot:
        if not _agrees(backup.manifest, snapshot.facts):
            raise BackupError(f"the manifest of backup {backup.label} does not fit the store in it")


def _agrees(manifest: Manifest, facts: StoreFacts) -> bool:
    says = (manifest.store_id, manifest.change_number, manifest.policy_revision, manifest.protector_header)
    return says == (facts.store_id, facts.change_number, facts.policy_revision, facts.protector_header.hex())
