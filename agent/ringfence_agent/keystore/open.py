"""From a URI to an open key store, creating store and root key together when neither is there.

Rules (contracts section 1):

- `sqlite:////ABS/path.db` is a file; its root key file is `<path>.root-key` unless named. `postgresql:` and `mysql:`
  are `server_open`'s business, `vault:` is `vault_kv.open`'s, under the same rules as far as there are two of them to
  keep together.
- Both files absent: both are made, in one step as far as a crash can tell. Both are prepared under temporary names
  (`.NAME.new`) and put on disk; then the root key gets its name, then the store. A process killed before the
  first of these leaves only temporary files, which the next start removes; killed between the two, the next start
  finishes with the prepared store, which the root key must open. Processes that start together take turns.
- One file without the other is an error that names both. There is no way around it: an empty store beside an old
  root key would hand out version 0 of names whose old EDEKs still exist.
- A store that is opened without a root key file, by Vault or AWS KMS alone, is made only with leave (`init`): nothing
  beside it would tell that one was there before.

Refuses Hadoop's JCEKS stores.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ringfence_agent.keystore.interface import OpenStore
from ringfence_agent.keystore.local_files import (
    check_directory,
    check_local,
    check_writable,
    directory_locked,
)
from ringfence_agent.keystore.protected_store import ProtectedStore
from ringfence_agent.keystore.protector import FILE_ALONE, Protector, Protectors
from ringfence_agent.keystore.protectors.file import FileProtector, new_root_key_text, read_root_key
from ringfence_agent.keystore.sql.open import is_empty, new_rows, open_sql_keystore
from ringfence_agent.keystore.sql.server_address import FORMS, parse_server_uri
from ringfence_agent.keystore.sql.server_open import open_server_keystore
from ringfence_agent.keystore.sql.sqlite_database import SIDE_FILES, SqliteDatabase, create_file, translate_sqlite
from ringfence_agent.keystore.vault_kv.address import SCHEME, is_vault_uri, parse_vault_uri, require_vault
from ringfence_agent.vault.settings import VaultSettings
from ringfence_zones.durable_file import install_durably, prepared_name, sync, write_new_file
from ringfence_zones.errors import (
    ConfigError,
    InputError,
    StoreTamperedError,
    StoreUnavailableError,
    WrongRootKeyError,
)

_SQLITE_FORM = "sqlite:////ABSOLUTE/PATH/keys.db"
_HADOOP_STORES = frozenset({"jceks", "localjceks", "bcfks", "localbcfks"})
_SERVER_STORES = frozenset({"postgresql", "mysql"})


def open_keystore(
    uri: str,
    root_key: Path | None,
    init: bool,
    password_file: Path | None = None,
    protectors: Protectors = FILE_ALONE,
    vault: VaultSettings | None = None,
) -> OpenStore:
    """The store at `uri`, opened with the root key in file `root_key` (None: beside an SQLite store) and with the
    other protectors, by whichever gives its root first.

    `init` allows making a store that is not there, which a fresh SQLite store with a root key file needs no leave for;
    it never turns one of store and root key without the other into a new store. A new store has one slot: the root key
    file's, or without one that of the first of the other protectors. `password_file` is for a database server alone,
    `vault` for a store in Vault.

    Raises InputError for a URI that cannot be opened, ConfigError for files and servers that cannot be used or trusted,
    WrongRootKeyError, StoreTamperedError, StoreUnavailableError, ProtectorUnavailableError, ProtectorRefusedError,
    MissingExtraError without the extra `sql` or `vault`.
    """
    return open_protected(uri, root_key, init, password_file, protectors, vault)


def open_protected(
    uri: str,
    root_key: Path | None,
    init: bool,
    password_file: Path | None,
    protectors: Protectors,
    vault: VaultSettings | None = None,
) -> ProtectedStore:
    """As `open_keystore`, for whoever is to change what protects the store."""
    if is_vault_uri(uri):
        from ringfence_agent.keystore.vault_kv.open import open_vault_keystore  # noqa: PLC0415 -- the extra `vault`

        parse_vault_uri(uri)
        settings = require_vault(vault)
        address = parse_vault_uri(uri, settings.kv_mount)
        return open_vault_keystore(address, settings, root_key, protectors, init=init)
    if is_shared(uri):
        return open_server_keystore(uri, root_key, password_file, protectors, init=init)
    path = store_path(uri)
    if not protectors.with_file:
        if not _is_there(path) or _is_there(prepared_name(path)):
            _create_without_file(path, protectors.others, init=init)
        return open_sql_keystore(SqliteDatabase(path), protectors.others)
    key_path = root_key if root_key is not None else default_root_key(path)
    if key_path == path:
        raise InputError(f"{path} is named both as key store and as root key file", hint="give each a file of its own")
    if protectors.others and _is_there(path) and not _is_there(key_path):
        raise _root_key_gone(path, key_path)
    if not (_is_there(path) and _is_there(key_path)) or _leftovers(path, key_path):
        _create(path, key_path)
    return open_sql_keystore(SqliteDatabase(path), [FileProtector.from_file(key_path), *protectors.others])


def is_shared(uri: str) -> bool:
    """Whether the URI names a store in a database server or in Vault, which several key servers may use at once."""
    return uri.partition(":")[0].lower() in _SERVER_STORES or is_vault_uri(uri)


def local_path(uri: str) -> Path | None:
    """The file of an SQLite store, None for a store elsewhere. Raises InputError as opening either would."""
    if is_vault_uri(uri):
        parse_vault_uri(uri)
        return None
    if is_shared(uri):
        parse_server_uri(uri)
        return None
    return store_path(uri)


def default_root_key(path: Path) -> Path:
    """Where the root key of an SQLite store is when nobody says."""
    return path.with_name(path.name + ".root-key")


def store_path(uri: str) -> Path:
    """The file an `sqlite:` URI names. Raises InputError for every other URI; quotes no more of it than the scheme."""
    scheme, colon, rest = uri.partition(":")
    scheme = scheme.lower()
    engine = scheme.partition("+")[0]
    if not colon or "/" in scheme:
        raise InputError("the key store is named by a URI, not by a path", hint=f"write {_SQLITE_FORM}")
    if engine in _HADOOP_STORES:
        raise InputError(
            f"{scheme}: names a Java key store of Hadoop's own KMS, which Ringfence does not serve from",
            hint=f"name a store of Ringfence's own, {_SQLITE_FORM}, and import the keys into it",
            command=f"ringfence key import --from jceks://file@/PATH --keystore {_SQLITE_FORM}",
        )
    if scheme in _SERVER_STORES:
        raise InputError(f"{scheme}: names a database server, not a file", hint=f"use {_SQLITE_FORM}")
    if engine in {*_SERVER_STORES, "mariadb", "postgres"}:
        engine = {"mariadb": "mysql", "postgres": "postgresql"}.get(engine, engine)
        raise InputError(f"{scheme}: is not how that key store is named", hint=f"write {FORMS[engine]}")
    if engine == SCHEME:
        raise InputError(f"{scheme}: names a place in Vault, not a file", hint=f"use {_SQLITE_FORM}")
    if scheme != "sqlite":
        raise InputError(f"{scheme}: is not a kind of key store", hint=f"use {_SQLITE_FORM}")
    return _sqlite_path(rest)


def _sqlite_path(rest: str) -> Path:
    if not rest.startswith("////"):
        raise InputError(
            "an sqlite: URI takes four slashes and an absolute path; this one has no absolute path",
            hint=f"write {_SQLITE_FORM}",
        )
    if any(mark in rest for mark in "?#\0"):
        raise InputError(
            "an sqlite: URI takes a path and nothing else: no '?', '#' or NUL", hint=f"write {_SQLITE_FORM}"
        )
    path = Path("/" + rest.lstrip("/"))
    if not path.name or ".." in path.parts:
        raise InputError(f"{path} does not name a key store file", hint=f"write {_SQLITE_FORM}")
    return path


def _is_there(path: Path) -> bool:
    return os.path.lexists(path)


def _with_side_files(path: Path) -> list[Path]:
    return [path, *(path.with_name(path.name + suffix) for suffix in SIDE_FILES)]


def _leftovers(path: Path, key_path: Path) -> list[Path]:
    """What an interrupted creation left under temporary names."""
    names = [*_with_side_files(prepared_name(path)), prepared_name(key_path)]
    return [name for name in names if _is_there(name)]


def _create(path: Path, key_path: Path) -> None:
    """Makes both files, finishes or clears up an interrupted creation, or says why it cannot."""
    check_directory(path.parent, "key store")
    if _is_there(path) and not _is_there(key_path) and not key_path.parent.is_dir():
        raise _one_without_the_other(path, key_path)
    check_directory(key_path.parent, "root key file")
    check_local(path.parent)
    check_writable(path.parent)
    with _os_errors_translated(path), ExitStack() as locks:
        for directory in sorted({path.parent.resolve(), key_path.parent.resolve()}):
            locks.enter_context(directory_locked(directory))
        _create_locked(path, key_path)


def _create_without_file(path: Path, protectors: Sequence[Protector], *, init: bool) -> None:
    """A store that others than a root key file open. One that was interrupted is made anew: nobody has used it."""
    if not init and not _is_there(path):
        raise ConfigError(
            f"there is no key store {path}",
            hint="check --keystore, or restore the store from its backup; to make a new one, start once with --init",
        )
    check_directory(path.parent, "key store")
    check_local(path.parent)
    check_writable(path.parent)
    prepared = prepared_name(path)
    with _os_errors_translated(path), directory_locked(path.parent):
        is_there = _is_there(path)
        if not is_there:
            _refuse_orphaned_log(path)
        for name in _with_side_files(prepared):
            name.unlink(missing_ok=True)
        if is_there:
            return
        write_new_file(prepared, b"")
        create_file(prepared, new_rows(protectors[0]))
        sync(prepared)
        sync(path.parent)
        install_durably(prepared, path)


def _create_locked(path: Path, key_path: Path) -> None:
    match (_is_there(path), _is_there(key_path)):
        case (False, False):
            _refuse_orphaned_log(path)
            _remove_leftovers(path, key_path)
            try:
                _prepare_both(path, key_path)
            except BaseException:
                _remove_leftovers(path, key_path)
                raise
            install_durably(prepared_name(key_path), key_path)
            install_durably(prepared_name(path), path)
        case (False, True) if _is_fresh_store(prepared_name(path), key_path):
            install_durably(prepared_name(path), path)
        case (True, True):
            pass
        case _:
            raise _one_without_the_other(path, key_path)
    _remove_leftovers(path, key_path)


def _prepare_both(path: Path, key_path: Path) -> None:
    """Root key and store under their temporary names, wholly on disk."""
    prepared_key, prepared_store = prepared_name(key_path), prepared_name(path)
    write_new_file(prepared_key, new_root_key_text())
    write_new_file(prepared_store, b"")
    create_file(prepared_store, new_rows(FileProtector(read_root_key(prepared_key), key_path)))
    for made in (prepared_store, path.parent, key_path.parent):
        sync(made)


def _is_fresh_store(prepared: Path, key_path: Path) -> bool:
    """Whether `prepared` is the store that was being made together with this root key: whole, its own, empty."""
    if not _is_there(prepared):
        return False
    protector = FileProtector.from_file(key_path)
    try:
        return is_empty(SqliteDatabase(prepared), [protector])
    except (ConfigError, WrongRootKeyError, StoreTamperedError):
        return False


def _remove_leftovers(path: Path, key_path: Path) -> None:
    for name in _leftovers(path, key_path):
        name.unlink(missing_ok=True)


def _refuse_orphaned_log(path: Path) -> None:
    for side_file in _with_side_files(path)[1:]:
        if _is_there(side_file):
            raise ConfigError(
                f"{side_file} is there without its key store {path}: it may hold the store's last changes",
                hint="put the store and its root key back beside it; only if no key was ever made, remove it",
            )


def _root_key_gone(path: Path, key_path: Path) -> ConfigError:
    """Others may open the store without it; whether they do is for whoever runs it to say."""
    return ConfigError(
        f"protector: in kms.yaml names file, but root key file {key_path} of key store {path} is not there",
        hint="restore the root key file from its backup, or name it with --root-key; if the store has no slot of it any"
        " more, take file out of protector: the other protectors open it alone",
    )


def _one_without_the_other(path: Path, key_path: Path) -> ConfigError:
    if _is_there(path):
        return ConfigError(
            f"key store {path} is there, but its root key file {key_path} is not",
            hint="restore the root key file from its backup, or name it with --root-key;"
            " without it no key of the store can be opened",
        )
    return ConfigError(
        f"root key file {key_path} is there, but its key store {path} is not",
        hint="restore the store from its backup, or correct --keystore; only if no zone was ever made with it,"
        " move the root key file away and both are made afresh",
    )


@contextmanager
def _os_errors_translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as exc:
        raise translate_sqlite(exc, path) from exc
    except OSError as exc:
        raise StoreUnavailableError(
            f"key store {path} and its root key could not be made: {exc.strerror} ({exc.filename or path.parent})",
            hint=f"see to space and permissions in {path.parent}, then start again; nothing was left half-made",
        ) from exc
