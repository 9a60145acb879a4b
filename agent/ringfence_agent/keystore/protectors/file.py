"""A root key in a file.

The file holds 32 random bytes, raw or as 64 hex digits (one newline may follow the digits and nothing else may). It
is a regular file, mode 0600 or tighter, owned by the user the process runs as; a symbolic link is refused. Anything
else is an error before a byte of it is used.

A slot's body is a salt, a check value by which the file is recognised, and the store's root sealed with AES-256-GCM
under a key derived from the root key (packaging/decisions/0020-protectors-and-slots.md). In a store made before format
3 it is salt and check value alone: there the root key is the store's root. Material is sealed under the root.
"""

from __future__ import annotations

import errno
import hmac
import os
import secrets
import stat
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ringfence_agent.keystore.rows.encoding import encode_row
from ringfence_agent.keystore.sealing import SealBrokenError, seal, unseal
from ringfence_agent.keystore.slots import FILE_SCHEME, is_old_header
from ringfence_agent.keystore.store_root import ROOT_BYTES, derive_key
from ringfence_zones.errors import ConfigError
from ringfence_zones.secret import Secret

ROOT_KEY_BYTES = 32
_SALT_BYTES = 16
_CHECK_BYTES = 32
_SLOT_FORMAT = 3


class FileProtector:
    """Protects with the root key of one file."""

    scheme = FILE_SCHEME

    def __init__(self, root_key: Secret, path: Path) -> None:
        self._root_key = root_key
        self.label = f"root key file {path}"

    @classmethod
    def from_file(cls, path: Path) -> FileProtector:
        """Reads the file under the rules of this module. Raises ConfigError."""
        return cls(read_root_key(path), path)

    def seal_root(self, store_id: bytes, root: Secret) -> bytes:
        """See Protector."""
        salt = secrets.token_bytes(_SALT_BYTES)
        return salt + self._check_value(salt) + seal(self._slot_cipher(store_id), root.reveal(), _binding(store_id))

    def recognises(self, slot_body: bytes) -> bool:
        """See Protector. Constant-time comparison with the check value."""
        salt, check = slot_body[:_SALT_BYTES], slot_body[_SALT_BYTES : _SALT_BYTES + _CHECK_BYTES]
        return hmac.compare_digest(self._check_value(salt), check)

    def open_root(self, store_id: bytes, slot_body: bytes) -> Secret:
        """See Protector. Whatever the check value says; in a body of an old format there is nothing else, and the
        root key is given: whether it is the store's, its ledger tells.
        """
        if is_old_header(slot_body):
            return self._root_key
        root = unseal(self._slot_cipher(store_id), slot_body[_SALT_BYTES + _CHECK_BYTES :], _binding(store_id))
        if len(root) != ROOT_BYTES:
            raise SealBrokenError
        return Secret(root)

    def materials(self, slot_body: bytes) -> None:
        """See Protector: material is sealed under the root."""

    def _slot_cipher(self, store_id: bytes) -> AESGCM:
        return AESGCM(derive_key(self._root_key, store_id, "file-slot"))

    def _check_value(self, salt: bytes) -> bytes:
        return derive_key(self._root_key, salt, "key-check")


def _binding(store_id: bytes) -> bytes:
    return encode_row("ringfence/slot", _SLOT_FORMAT, store_id)


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
        return ConfigError(
            f"root key file {path} does not exist",
            hint="check --root-key, or restore the file; where the store has no slot of a file any more, take file"
            " out of protector: in kms.yaml",
        )
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
