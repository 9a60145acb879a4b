"""The stock KMS's key store as a file: whether a password opens it, and the same keys under another password.

Java's keytool cannot change it: `-importkeystore` refuses Hadoop's metadata entries, which are keys of no kind that it
knows, and `-keypasswd` needs Hadoop's classes, an open deserialisation filter and one JVM for each version of each key.
`ringfence key import` and `key export` read and write the format as Hadoop does, so the keys go through a store of ours
that lives for seconds, in memory where the machine has a place for that, sealed under a root key beside it. That
nothing was lost is proven afterwards by the KMS itself, on EDEKs of every version.

Source of the format: `com.sun.crypto.provider.JceKeyStore`: the last 20 bytes are SHA-1 over the password (UTF-16), the
words below and everything before.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ringfence_bootstrap.stock_kms.foreign_directories import acting_for, read_regular
from ringfence_bootstrap.takeover.key_commands import KeyCommands
from ringfence_zones.errors import ConfigError, InstallError
from ringfence_zones.jks import java_characters
from ringfence_zones.secret import Secret

MAX_FILE_BYTES = 64 * 1024 * 1024

_MAX_PASSWORD_BYTES = 64 * 1024
_MAGIC = b"\xce\xce\xce\xce"
_DIGEST_BYTES = 20
_DIGEST_WORDS = b"Mighty Aphrodite"
_DEFAULT_PASSWORD = Secret(b"none")
_PASSWORD_VARIABLE = "HADOOP_KEYSTORE_PASSWORD"  # noqa: S105 - the name of a variable
# Of `JavaKeyStoreProvider`: the new file before it has its name, the old one while it has lost it.
_WHILE_WRITTEN = ("_NEW", "_OLD")
_ATTEMPTS, _PAUSE_S = 20, 0.1
_MEMORY = Path("/dev/shm")  # noqa: S108 - a private directory is made in it


def read_key_store(path: Path) -> bytes:
    """Its bytes, of one moment: Hadoop replaces the file, it never writes into it. Raises InstallError.

    While Hadoop replaces it, for a moment there is none.
    """
    for _ in range(_ATTEMPTS):
        if path.exists() or not is_being_written(path):
            break
        time.sleep(_PAUSE_S)
    try:
        with acting_for(path):
            content = read_regular(path, MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InstallError(f"cannot read the key store {path}: {error.strerror}") from error
    if len(content) > MAX_FILE_BYTES:
        raise InstallError(f"the key store {path} is larger than {MAX_FILE_BYTES} bytes")
    return content


def is_being_written(path: Path) -> bool:
    """Whether Hadoop is replacing it at this moment."""
    return any(path.with_name(path.name + suffix).exists() for suffix in _WHILE_WRITTEN)


def opens(content: bytes, password: Secret) -> bool:
    """Whether this is a whole JCEKS file that the password (UTF-8) is for."""
    if not content.startswith(_MAGIC) or len(content) < len(_MAGIC) + _DIGEST_BYTES:
        return False
    body, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    try:
        whole = java_characters(password) + _DIGEST_WORDS + body
    except UnicodeDecodeError:
        return False
    return hmac.compare_digest(hashlib.sha1(whole, usedforsecurity=False).digest(), digest)


def read_password(path: Path | None) -> Secret:
    """As Hadoop: the file's first line, without a file the environment's or the literal default.

    Raises ConfigError for a file that cannot be read.
    """
    if path is None:
        given = os.environ.get(_PASSWORD_VARIABLE)
        return Secret(given.encode()) if given else _DEFAULT_PASSWORD
    try:
        content = read_regular(path, _MAX_PASSWORD_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the key store's password from {path}: {error.strerror}") from error
    if len(content) > _MAX_PASSWORD_BYTES:
        raise ConfigError(f"{path} is larger than {_MAX_PASSWORD_BYTES} bytes: it holds no password")
    return Secret(content.strip())


def write_under(source: Path, password: Path | None, target: Path, new_password: Path | None, state: Path) -> None:
    """Writes `target`, a new file: every key and version of `source`, sealed with the password of another file.

    Raises InstallError, and then `target` is not there.
    """
    with _scratch(state) as directory:
        store = f"sqlite:///{directory}/keys.db"
        KeyCommands(store, None, None, password, directory).bring(source)
        KeyCommands(store, None, None, new_password, directory).write(target, None)
    if not opens(read_key_store(target), read_password(new_password)):
        target.unlink(missing_ok=True)
        raise InstallError(f"{target} was written, and its password does not open it")


@contextmanager
def _scratch(state: Path) -> Iterator[Path]:
    """A private directory, in memory if there is such a place."""
    in_memory = _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK)
    directory = Path(tempfile.mkdtemp(prefix="ringfence-rekey-", dir=_MEMORY if in_memory else state))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)
