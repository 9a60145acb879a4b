"""A root key in a file: where it comes from, and the keys derived from it.

The file holds 32 random bytes, raw or as 64 hex digits (one newline may follow the digits and nothing else may). It
is a regular file, mode 0600 or tighter, owned by the user the process runs as; a symbolic link is refused. Anything
else is an error before a byte of it is used.

Derivation: HKDF-SHA256 (RFC 5869) of the root key, salted with the store's id, one output for each purpose.
"""

from __future__ import annotations

import errno
import hmac
import os
import secrets
import stat
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ringfence_agent.keystore.protector import MaterialBinding, StoreKeys
from ringfence_agent.keystore.sealing import seal, unseal
from ringfence_zones.errors import ConfigError
from ringfence_zones.secret import Secret

ROOT_KEY_BYTES = 32
_SALT_BYTES = 16
_INFO = b"ringfence/keystore/1/"


def _hkdf(root_key: Secret, salt: bytes, purpose: str) -> bytes:
    return HKDF(SHA256(), length=32, salt=salt, info=_INFO + purpose.encode()).derive(root_key.reveal())


class FileStoreKeys:
    """The keys of one store under a root key file."""

    def __init__(self, root_key: Secret, store_id: bytes) -> None:
        self._root_key = root_key
        self._store_id = store_id
        self._wrapping = AESGCM(self.derive("wrap-material"))

    def seal_material(self, binding: MaterialBinding, material: Secret) -> bytes:
        """See StoreKeys."""
        return seal(self._wrapping, material.reveal(), binding.encoded)

    def open_material(self, binding: MaterialBinding, sealed: bytes) -> Secret:
        """See StoreKeys."""
        return Secret(unseal(self._wrapping, sealed, binding.encoded))

    def derive(self, purpose: str) -> bytes:
        """See StoreKeys."""
        return _hkdf(self._root_key, self._store_id, purpose)


class FileProtector:
    """Protects with the root key of one file. The header is a salt and a check value, both free to know."""

    scheme = "file"

    def __init__(self, root_key: Secret, path: Path) -> None:
        self._root_key = root_key
        self.label = f"root key file {path}"

    @classmethod
    def from_file(cls, path: Path) -> FileProtector:
        """Reads the file under the rules of this module. Raises ConfigError."""
        return cls(read_root_key(path), path)

    def new_header(self) -> bytes:
        """16 bytes of salt and the 32-byte check value."""
        salt = secrets.token_bytes(_SALT_BYTES)
        return salt + self._check_value(salt)

    def recognises(self, header: bytes) -> bool:
        """Constant-time comparison with the check value."""
        salt, check = header[:_SALT_BYTES], header[_SALT_BYTES:]
        return hmac.compare_digest(self._check_value(salt), check)

    def open(self, store_id: bytes) -> StoreKeys:
        """See Protector."""
        return FileStoreKeys(self._root_key, store_id)

    def _check_value(self, salt: bytes) -> bytes:
        return _hkdf(self._root_key, salt, "key-check")


def new_root_key_text() -> bytes:
    """The content of a new root key file: 64 hex digits and a newline, which survive copying by hand."""
    return secrets.token_hex(ROOT_KEY_BYTES).encode() + b"\n"


def read_root_key(path: Path) -> Secret:
    """The 32 bytes of a root key file. Raises ConfigError naming the file and the fix."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as exc:
        raise _cannot_open(path, exc) from None
    try:
        _check_file(path, os.fstat(descriptor))
        content = os.read(descriptor, 2 * ROOT_KEY_BYTES + 2)
    except OSError as exc:
        raise ConfigError(f"root key file {path} cannot be read: {exc.strerror}") from None
    finally:
        os.close(descriptor)
    return parse_root_key(content, path)


def parse_root_key(content: bytes, path: Path) -> Secret:
    """32 raw bytes, or 64 hex digits with at most one newline. Raises ConfigError; never quotes the content."""
    if len(content) == ROOT_KEY_BYTES and not _is_hex(content):
        return Secret(content)
    digits = content.removesuffix(b"\n")
    if len(digits) == 2 * ROOT_KEY_BYTES and _is_hex(digits):
        return Secret(bytes.fromhex(digits.decode()))
    raise ConfigError(
        f"root key file {path} holds neither 32 raw bytes nor 64 hex digits",
        hint="restore the file from its backup; a store opens with the root key it was made with and no other",
    )


def _is_hex(text: bytes) -> bool:
    return all(byte in b"0123456789abcdefABCDEF" for byte in text)


def _cannot_open(path: Path, exc: OSError) -> ConfigError:
    if exc.errno == errno.ELOOP:
        return ConfigError(
            f"root key file {path} is a symbolic link, which is refused: whoever owns the link chooses the key",
            hint="give the path of the file itself",
        )
    if exc.errno == errno.ENOENT:
        return ConfigError(f"root key file {path} does not exist", hint="check --root-key, or restore the file")
    return ConfigError(f"root key file {path} cannot be opened: {exc.strerror}", hint="check its owner and mode")


def _check_file(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"root key file {path} is not a regular file", hint="give the path of a file")
    if found.st_uid != os.geteuid():
        raise ConfigError(
            f"root key file {path} belongs to uid {found.st_uid}, but this process runs as uid {os.geteuid()}",
            hint="run as the owner, or change the owner",
            command=f"chown {os.geteuid()} {path}",
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise ConfigError(
            f"root key file {path} has mode {stat.S_IMODE(found.st_mode):04o}: others than its owner can reach it",
            hint="make it private; if others could have read it, treat the key as known to them",
            command=f"chmod 600 {path}",
        )
