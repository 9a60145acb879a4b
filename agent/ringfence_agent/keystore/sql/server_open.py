"""From the URI of a database server to an open key store, making store and root key together when told to.

The rules of `open` for a store that instances share:

- The root key file is named (`--root-key`); it has to be the same file on every instance.
- Neither is there: `init` makes both. The root key is written under a temporary name (`.NAME.new`) first, then the
  store is committed, then the root key gets its name. A process killed before the commit leaves a temporary file that
  the next start removes; killed after it, the next start finishes, if the temporary root key opens the store.
- One is there without the other: an error that names both. An empty store beside an old root key would hand out
  version 0 of names whose old EDEKs still exist; a store beside a new root key could not be opened.
- Instances that start together on several machines take turns by a lock of the server: one makes the store, the
  others are told to fetch its root key.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Connection

from ringfence_agent.keystore.local_files import (
    check_directory,
    directory_locked,
)
from ringfence_agent.keystore.protector import Protector, Protectors
from ringfence_agent.keystore.protectors.file import FileProtector, new_root_key_text, read_root_key
from ringfence_agent.keystore.sql.database import Called
from ringfence_agent.keystore.sql.mariadb_database import MariadbDatabase
from ringfence_agent.keystore.sql.open import new_rows, open_sql_keystore
from ringfence_agent.keystore.sql.postgresql_database import PostgresqlDatabase
from ringfence_agent.keystore.sql.server_address import parse_server_uri, read_password
from ringfence_agent.keystore.sql.server_database import ServerDatabase
from ringfence_agent.keystore.sql.server_errors import KEY_STORE
from ringfence_agent.keystore.sql.store import SqlKeyStore
from ringfence_zones.durable_file import install_durably, prepared_name, sync, write_new_file
from ringfence_zones.errors import ConfigError, KeyStoreError, StoreUnavailableError, WrongRootKeyError


def open_server_keystore(
    uri: str, root_key: Path | None, password_file: Path | None, protectors: Protectors, *, init: bool
) -> SqlKeyStore:
    """Raises InputError for the URI, ConfigError for files and settings, and what `open_sql_keystore` raises."""
    address = parse_server_uri(uri)
    if protectors.with_file and root_key is None:
        raise ConfigError(
            f"key store {address.label} is shared, and no root key file is named",
            hint="name it with --root-key FILE, or root_key_file in kms.yaml; it is the same file on every instance",
        )
    database = server_database(uri, password_file)
    try:
        if root_key is None or not protectors.with_file:
            if not _is_there(database):
                _create_without_file(database, protectors.others, init=init)
            return open_sql_keystore(database, protectors.others)
        if not root_key.exists() or prepared_name(root_key).exists() or not _is_there(database):
            _create(database, root_key, init=init)
        return open_sql_keystore(database, [FileProtector.from_file(root_key), *protectors.others])
    except BaseException:
        database.close()
        raise


def server_database(uri: str, password_file: Path | None, called: Called = KEY_STORE) -> ServerDatabase:
    """The database of a server, nothing opened yet. Raises InputError for the URI, ConfigError for the file."""
    address = parse_server_uri(uri)
    password = read_password(password_file) if password_file is not None else None
    kind = PostgresqlDatabase if address.scheme == "postgresql" else MariadbDatabase
    return kind(address, password, called)


def _create_without_file(database: ServerDatabase, protectors: Sequence[Protector], *, init: bool) -> None:
    """A store that others than a root key file open."""
    if not init:
        raise _no_store(database, "a new store")
    database.check_reachable()
    rows = new_rows(protectors[0])
    with database.creating() as connection:
        with connection.begin():
            is_there = database.find_format(connection) is not None
        if not is_there:
            database.create(connection, rows)


def _no_store(database: ServerDatabase, what: str) -> ConfigError:
    return ConfigError(
        f"{database.label} holds no key store",
        hint=f"check --keystore; to make {what}, start once with --init",
    )


def _is_there(database: ServerDatabase) -> bool:
    with database.translated(), database.reader() as connection:
        return database.find_format(connection) is not None


def _create(database: ServerDatabase, root_key: Path, *, init: bool) -> None:
    """Makes both, finishes or clears up an interrupted creation, or says why it cannot."""
    check_directory(root_key.parent, "root key file")
    database.check_reachable()
    try:
        with directory_locked(root_key.parent), database.creating() as connection:
            _create_locked(database, connection, root_key, init=init)
    except OSError as exc:
        raise StoreUnavailableError(
            f"the root key of key store {database.label} could not be made: {exc.strerror}"
            f" ({exc.filename or root_key.parent})",
            hint=f"see to space and permissions in {root_key.parent}, then start again",
        ) from exc


def _create_locked(database: ServerDatabase, connection: Connection, root_key: Path, *, init: bool) -> None:
    with connection.begin():
        is_there = database.find_format(connection) is not None
    prepared = prepared_name(root_key)
    match (is_there, root_key.exists()):
        case (False, False) if init:
            prepared.unlink(missing_ok=True)
            write_new_file(prepared, new_root_key_text())
            sync(root_key.parent)
            # Should the commit's outcome be unknown, the file stays: it may be the only root key of a store.
            database.create(connection, new_rows(FileProtector(read_root_key(prepared), root_key)))
            install_durably(prepared, root_key)
        case (False, False):
            raise _no_store(database, "a new store and its root key")
        case (True, False) if prepared.exists() and _opens(database, prepared):
            install_durably(prepared, root_key)
        case (True, True):
            prepared.unlink(missing_ok=True)
        case (True, False):
            raise ConfigError(
                f"key store {database.label} is there, but its root key file {root_key} is not",
                hint="copy the root key file from another instance, or restore it from its backup;"
                " without it no key of the store can be opened",
            )
        case _:
            raise ConfigError(
                f"root key file {root_key} is there, but {database.label} holds no key store",
                hint="restore the database from its backup, or correct --keystore; only if no zone was ever made with"
                " it, move the root key file away and make both with --init",
            )


def _opens(database: ServerDatabase, root_key: Path) -> bool:
    try:
        open_sql_keystore(database, [FileProtector.from_file(root_key)]).close()
    except (ConfigError, WrongRootKeyError, KeyStoreError):
        return False
    return True
