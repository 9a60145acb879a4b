"""JCEKS files on this machine's disk: named as Hadoop names them, read whole, written once.

Rules:

1. Hadoop's URI: `jceks://file@/PATH`. A key store in HDFS or elsewhere is refused: it is copied here first.
2. `PATH_NEW` or `PATH_OLD` beside the file means that the stock KMS is writing it, or died while it was. Which of them
   is the right one is Hadoop's to decide, so nothing is read then.
3. A file is written under another name, synced, and linked into place: never over one that is there. Mode 0600.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ringfence_agent.keystore.jceks.provider import MAX_FILE_BYTES, JceksEntry, parse_jceks
from ringfence_agent.keystore.jceks.seal import check_password
from ringfence_zones.durable_file import replace_file, sync, write_new_file
from ringfence_zones.errors import ConfigError, InputError
from ringfence_zones.secret import Secret

PASSWORD_VARIABLE = "HADOOP_KEYSTORE_PASSWORD"  # noqa: S105 - the name of a variable
_DEFAULT_PASSWORD = b"none"
_URI = re.compile(r"jceks://file(?:@[^/]*)?(?P<path>/[^?#]+)")
_FORM = "jceks://file@/ABSOLUTE/PATH/kms.keystore"
_MAX_PASSWORD_BYTES = 4096
_RECEIPT_SCHEMA = 1
# Beside a key store while its KMS replaces it.
_WHILE_WRITTEN = ("_NEW", "_OLD")


def is_jceks_uri(uri: str) -> bool:
    """Whether a Java key store is meant, wherever it lies."""
    return uri.partition(":")[0].lower() in ("jceks", "localjceks")


def jceks_path(uri: str) -> Path:
    """The file that a provider URI names. Raises InputError."""
    match = _URI.fullmatch(uri)
    if match is None:
        raise InputError(
            f"{uri.partition('://')[0]}: names no Java key store on this machine's disk",
            hint=f"write {_FORM}; copy a key store that lies in HDFS or on another machine here first",
        )
    return Path(match["path"])


def find_password(path: Path | None, environ: Mapping[str, str]) -> Secret:
    """The key store's password where Hadoop looks: the environment, a file (blanks around it dropped), else `none`.

    A file that was named wins here. Raises ConfigError for one that cannot be read, InputError for a password that
    Java cannot use.
    """
    if path is not None:
        password = _read_password(path)
    elif PASSWORD_VARIABLE in environ:
        password = Secret(os.fsencode(environ[PASSWORD_VARIABLE]))
    else:
        password = Secret(_DEFAULT_PASSWORD)
    check_password(password)
    return password


def _read_password(path: Path) -> Secret:
    data = _read_bounded(path, _MAX_PASSWORD_BYTES, "password file")
    password = Secret(data.strip())
    if not len(password):
        raise ConfigError(f"the password file {path} is empty")
    return password


def is_missing(path: Path) -> bool:
    """Whether a stock KMS has made no key store there yet: it does with its first key. One that is being written is
    there.
    """
    return not any(os.path.lexists(path.with_name(path.name + suffix)) for suffix in ("", *_WHILE_WRITTEN))


def read_jceks(path: Path, password: Secret) -> tuple[JceksEntry, ...]:
    """Every entry of the file. Raises InputError, ConfigError."""
    for suffix in _WHILE_WRITTEN:
        beside = path.with_name(path.name + suffix)
        if os.path.lexists(beside):
            raise InputError(
                f"{beside} is there: the stock KMS is writing {path.name}, or died while it was",
                hint="try again in a moment; if it stays, start the stock KMS once, which clears this up, and look at"
                f" its log; files {path.name}_ORPHANED_* and _CORRUPTED_* are its backups",
            )
    return parse_jceks(_read_bounded(path, MAX_FILE_BYTES, "Java key store"), password, str(path))


def _read_bounded(path: Path, limit: int, what: str) -> bytes:
    try:
        with path.open("rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise ConfigError(f"the {what} {path} is not a file")
            data = stream.read(limit + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the {what} {path}: {error.strerror}") from error
    if len(data) > limit:
        raise ConfigError(f"the {what} {path} is larger than {limit} bytes")
    return data


def write_new(path: Path, data: bytes) -> None:
    """A new file, durable when this returns. Raises ConfigError when there is one, or none can be made."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        try:
            write_new_file(draft, data)
            os.link(draft, path)  # unlike a rename, it does not take the place of what is there
        finally:
            draft.unlink(missing_ok=True)
        sync(path.parent)
    except FileExistsError:
        raise ConfigError(
            f"{path} is there already, and nothing is ever written over a key store",
            hint="name a file that is not there",
        ) from None
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class ReceiptFile:
    """Which entries of Java key stores went into one store, or came out of it; kept between commands.

    It holds digests of sealed bytes and no secret. `store` is the store's label: no other store believes it.
    """

    path: Path
    store: str

    def load(self) -> dict[str, str]:
        """The receipt, empty when there is none yet. Raises ConfigError for one of another store, or none at all."""
        if not self.path.exists():
            return {}
        try:
            found = json.loads(_read_bounded(self.path, MAX_FILE_BYTES, "receipt"))
            schema, store, entries = found["schema"], found["store"], found["entries"]
            receipt = {str(alias): str(digest) for alias, digest in entries.items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ConfigError(f"{self.path} is not a receipt", hint="remove it; every key is then read again") from None
        if schema != _RECEIPT_SCHEMA or store != self.store:
            raise ConfigError(
                f"the receipt {self.path} belongs to the key store {store}",
                hint="give each key store a receipt of its own",
            )
        return receipt

    def save(self, entries: Mapping[str, str]) -> None:
        """Replaces the receipt in one step. Raises ConfigError."""
        content = {"schema": _RECEIPT_SCHEMA, "store": self.store, "entries": dict(entries)}
        try:
            replace_file(self.path, json.dumps(content).encode())
        except OSError as error:
            raise ConfigError(f"cannot write the receipt {self.path}: {error.strerror}") from error
