"""What a JKS file holds (`sun.security.provider.JavaKeyStore`): hidden private keys and certificates.

Big-endian: u4 0xFEEDFEED, u4 version, u4 count, then entries: u4 tag (1 private key, 2 certificate), UTF alias, u8
date; a key has u4 length and its hidden bytes, then u4 count of certificates; a certificate has its type (UTF,
version 2 only) and its DER with a u4 length. The last 20 bytes are SHA-1 over the password (UTF-16), the words below
and everything before.

Rules: a password that is known is proven on the whole file before an entry is looked at, as Java does; sizes and
counts are bounded; an entry that is cut off refuses the file. It opens no key and writes nothing.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path

from ringfence_zones.bounded_file import read_bounded
from ringfence_zones.errors import ConfigError
from ringfence_zones.secret import Secret

MAX_FILE_BYTES = 8 * 1024 * 1024

_MAGIC = b"\xfe\xed\xfe\xed"
_VERSIONS = (1, 2)
_KEY_ENTRY, _TRUSTED_ENTRY = 1, 2
_DIGEST_BYTES = 20
_DIGEST_WORDS = b"Mighty Aphrodite"
_MAX_ENTRIES = 10_000


@dataclass(frozen=True, slots=True)
class JksKey:
    """A private key as it is hidden in the file (an EncryptedPrivateKeyInfo), and its chain (DER), its own first."""

    alias: str
    hidden: Secret
    chain: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Jks:
    """The file's keys in its order, and the certificates that it trusts (DER)."""

    keys: tuple[JksKey, ...]
    trusted: tuple[bytes, ...]


def read_store_file(path: Path, what: str) -> bytes:
    """A key store's bytes, whatever its format; `what` names it in messages. Raises ConfigError."""
    return read_bounded(path, MAX_FILE_BYTES, ConfigError, what=what)


def is_jks(content: bytes) -> bool:
    """Whether it is JKS, by its first bytes, as Java looks since JDK 9: names and configured types tell nothing."""
    return content.startswith(_MAGIC)


def parse_jks(content: bytes, password: Secret | None, label: str) -> Jks:
    """What is in it. `label` names the file; without `password` (UTF-8) nothing is proven of it. Raises ConfigError."""
    body, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if password is not None:
        whole = java_characters(password) + _DIGEST_WORDS + body
        if not hmac.compare_digest(hashlib.sha1(whole, usedforsecurity=False).digest(), digest):
            raise ConfigError(f"{label} cannot be opened: its password is another one, or the file was changed")
    return _Reader(body, label).read()


def java_characters(password: Secret) -> bytes:
    """A Java `char[]` as Sun's digests take it: UTF-16, high byte first."""
    return password.reveal().decode("utf-8").encode("utf-16-be")


class _Reader:
    def __init__(self, body: bytes, label: str) -> None:
        self._body = body
        self._label = label
        self._at = len(_MAGIC)

    def read(self) -> Jks:
        self._version, count = self._integer(), self._integer()
        if self._version not in _VERSIONS or count > _MAX_ENTRIES:
            raise ConfigError(f"{self._label} is a JKS file of a version, or with a number of entries, that none has")
        keys: list[JksKey] = []
        trusted: list[bytes] = []
        for _ in range(count):
            tag, alias = self._integer(), self._text()
            self._take(8)  # when it was made
            if tag == _KEY_ENTRY:
                hidden = Secret(self._take(self._integer()))
                keys.append(JksKey(alias, hidden, tuple(self._certificate() for _ in range(self._chain_length()))))
            elif tag == _TRUSTED_ENTRY:
                trusted.append(self._certificate())
            else:
                raise ConfigError(f"{self._label} holds an entry of an unknown kind ({tag})")
        return Jks(tuple(keys), tuple(trusted))

    def _chain_length(self) -> int:
        length = self._integer()
        if length > _MAX_ENTRIES:
            raise self._cut_off()
        return length

    def _certificate(self) -> bytes:
        if self._version > 1 and self._text() != "X.509":
            raise ConfigError(f"{self._label} holds a certificate that is not X.509")
        return self._take(self._integer())

    def _integer(self) -> int:
        return int.from_bytes(self._take(4), "big")

    def _text(self) -> str:
        return self._take(int.from_bytes(self._take(2), "big")).decode("utf-8", "replace")

    def _take(self, length_bytes: int) -> bytes:
        taken = self._body[self._at : self._at + length_bytes]
        if len(taken) != length_bytes:
            raise self._cut_off()
        self._at += length_bytes
        return taken

    def _cut_off(self) -> ConfigError:
        return ConfigError(f"{self._label} is cut off")
