"""Where a store is restored to: an SQLite file, a database server or Vault. All of it is there at once, or nothing is.

An SQLite store is written and verified under the name `.NAME.restoring`, put on disk, and then given its name. A
process killed before that leaves a draft, which the next restore removes and no server looks at; killed right after it,
a second name of the finished store, which the next restore removes. In a database server all rows come in one
transaction; tables without rows are what an interrupted restore leaves there, as an interrupted creation does.

A store that is there is never written to.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from ringfence_agent.keystore.local_files import check_directory, check_local, check_writable, directory_locked
from ringfence_agent.keystore.open import is_shared, store_path
from ringfence_agent.keystore.protected_store import ProtectedStore
from ringfence_agent.keystore.protector import Protector
from ringfence_agent.keystore.rows.kinds import TableRow
from ringfence_agent.keystore.sql.mariadb_database import MariadbDatabase
from ringfence_agent.keystore.sql.open import open_sql_keystore
from ringfence_agent.keystore.sql.postgresql_database import PostgresqlDatabase
from ringfence_agent.keystore.sql.server_address import parse_server_uri, read_password
from ringfence_agent.keystore.sql.server_database import ServerDatabase
from ringfence_agent.keystore.sql.sqlite_database import SIDE_FILES, SqliteDatabase, create_file, translate_sqlite
from ringfence_agent.keystore.vault_kv.address import is_vault_uri, parse_vault_uri, require_vault
from ringfence_agent.vault.settings import VaultSettings
from ringfence_zones.durable_file import install_durably, sync, write_new_file
from ringfence_zones.errors import BackupError, ProtectorUnavailableError, StoreUnavailableError


class RestoreTarget(Protocol):
    """See the module."""

    @property
    def label(self) -> str:
        """How messages name it."""

    def is_there(self) -> bool:
        """Whether a store is there. Raises ConfigError, StoreUnavailableError."""

    def open(self, protectors: Sequence[Protector]) -> ProtectedStore:
        """The store that is there. Raises what `open_sql_keystore` does."""

    def write(self, rows: Iterable[TableRow], version: int, protectors: Sequence[Protector]) -> None:
        """Makes a store of these rows. Raises BackupError when one is there meanwhile."""


def find_target(uri: str, password_file: Path | None, vault: VaultSettings | None = None) -> RestoreTarget:
    """The target that a key store's URI names. Raises InputError, ConfigError, MissingExtraError."""
    if is_vault_uri(uri):
        from ringfence_agent.keystore.vault_kv.restore import VaultKvTarget  # noqa: PLC0415 -- the extra `vault`
        from ringfence_agent.vault.open import open_control  # noqa: PLC0415

        settings = require_vault(vault)
        return VaultKvTarget(open_control(settings), parse_vault_uri(uri, settings.kv_mount))
    if not is_shared(uri):
        return SqliteTarget(store_path(uri))
    address = parse_server_uri(uri)
    kind = PostgresqlDatabase if address.scheme == "postgresql" else MariadbDatabase
    return ServerTarget(kind(address, read_password(password_file) if password_file is not None else None))


class SqliteTarget:
    """A file."""

    def __init__(self, path: Path) -> None:
        self.label = f"sqlite:///{path}"
        self._path = path
        self._draft = path.with_name(f".{path.name}.restoring")

    def is_there(self) -> bool:
        """See RestoreTarget. Raises BackupError for a link that leads nowhere."""
        if self._path.is_symlink() and not self._path.exists():
            raise BackupError(
                f"{self._path} is a symbolic link to {self._path.readlink()}, and nothing is there: it is not restored"
                " through a link",
                hint="remove the link, or name with --to the file that the key store is to be",
            )
        return os.path.lexists(self._path)

    def open(self, protectors: Sequence[Protector]) -> ProtectedStore:
        """See RestoreTarget. Removes what a restore left that was killed at its very end."""
        if self._draft.exists() and self._draft.samefile(self._path):
            self._draft.unlink()
            sync(self._draft.parent)
        return open_sql_keystore(SqliteDatabase(self._path), protectors)

    def write(self, rows: Iterable[TableRow], version: int, protectors: Sequence[Protector]) -> None:
        """See RestoreTarget."""
        parent = self._path.parent
        check_directory(parent, "key store")
        check_local(parent)
        check_writable(parent)
        try:
            with directory_locked(parent):
                self._write_locked(rows, version, protectors)
        except sqlite3.Error as error:
            raise self._not_restored(translate_sqlite(error, self._path).message) from None
        except OSError as error:
            raise self._not_restored(f"key store {self._path} cannot be written: {error.strerror}") from None

    def _not_restored(self, why: str) -> BackupError:
        return BackupError(
            f"{why}: it is not restored",
            hint=f"see to space and permissions in {self._path.parent}, then start again; there is no half a store",
        )

    def _write_locked(self, rows: Iterable[TableRow], version: int, protectors: Sequence[Protector]) -> None:
        for name in (self._path, *_side_files(self._path)):
            if os.path.lexists(name):
                raise BackupError(
                    f"{name} is there: a restore never writes over a store, nor beside a store's log",
                    hint="move the old store and its log away, all of it, and keep it",
                )
        for name in (self._draft, *_side_files(self._draft)):
            name.unlink(missing_ok=True)
        try:
            write_new_file(self._draft, b"")
            create_file(self._draft, rows, version=version)
            self._verify_draft(protectors)
            sync(self._draft)
            install_durably(self._draft, self._path)
        except BaseException:
            for name in (self._draft, *_side_files(self._draft)):
                name.unlink(missing_ok=True)
            raise

    def _verify_draft(self, protectors: Sequence[Protector]) -> None:
        try:
            open_sql_keystore(SqliteDatabase(self._draft), protectors).close()
        except ProtectorUnavailableError:
            raise
        except StoreUnavailableError:  # it is here, and nobody else's: only room can be wanting
            raise self._not_restored(f"no space left for key store {self._path}") from None


class ServerTarget:
    """A database of PostgreSQL or MariaDB."""

    def __init__(self, database: ServerDatabase) -> None:
        self.label = database.label
        self._database = database

    def is_there(self) -> bool:
        """See RestoreTarget."""
        with self._database.translated(), self._database.reader() as connection:
            return self._database.find_format(connection) is not None

    def open(self, protectors: Sequence[Protector]) -> ProtectedStore:
        """See RestoreTarget."""
        return open_sql_keystore(self._database, protectors)

    def write(self, rows: Iterable[TableRow], version: int, protectors: Sequence[Protector]) -> None:
        """See RestoreTarget."""
        database = self._database
        database.check_reachable()
        with database.creating() as connection:
            with connection.begin():
                if database.find_format(connection) is not None:
                    raise BackupError(
                        f"{self.label} holds a key store: a restore never writes over one",
                        hint="name an empty database, or one that is moved away: then nothing is lost",
                    )
            database.create(connection, rows, version=version)
        open_sql_keystore(database, protectors).close()


def _side_files(path: Path) -> list[Path]:
    return [path.with_name(path.name + suffix) for suffix in SIDE_FILES]
