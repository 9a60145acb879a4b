"""A keytab's entries, read without Kerberos: principal, key version number, kind of key. No key is kept.

Source of the format: MIT Kerberos, doc/formats/keytab_file_format.rst, version 0x502. Refuses anything else.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from ringfence_zones.errors import ConfigError

_MAGIC = b"\x05\x02"
_MAX_BYTES = 1024 * 1024
# RFC 6649 and RFC 8429: single DES, triple DES and RC4 are no longer to be used.
WEAK_KINDS = {1: "des-cbc-crc", 2: "des-cbc-md4", 3: "des-cbc-md5", 16: "des3-cbc-sha1", 23: "arcfour-hmac"}


@dataclass(frozen=True, slots=True)
class KeytabEntry:
    """`principal` with its realm; `kvno` the key's version number, `kind` its encryption type."""

    principal: str
    kvno: int
    kind: int


def read_keytab(path: Path) -> list[KeytabEntry]:
    """Raises ConfigError for a file that cannot be read or is no keytab."""
    try:
        with path.open("rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the keytab {path}: {error.strerror}") from error
    if len(content) > _MAX_BYTES or not content.startswith(_MAGIC):
        raise ConfigError(f"{path} is not a keytab of the one kind in use (version 0x502)")
    try:
        return list(_entries(content))
    except (struct.error, UnicodeDecodeError, IndexError):
        raise ConfigError(f"the keytab {path} is torn or damaged", hint="make it again with ktadd") from None


def _entries(content: bytes) -> list[KeytabEntry]:
    entries, at = [], len(_MAGIC)
    while at + 4 <= len(content):
        (length,) = struct.unpack_from(">i", content, at)
        at += 4
        if length > 0:  # a hole, left by a removed entry, has a negative length
            entries.append(_entry(_exactly(content, at, length)))
        at += abs(length)
    return entries


def _entry(data: bytes) -> KeytabEntry:
    (count,) = struct.unpack_from(">H", data)
    at, texts = 2, []
    for _ in range(count + 1):  # the realm, then the components
        (length,) = struct.unpack_from(">H", data, at)
        texts.append(_exactly(data, at + 2, length).decode())
        at += 2 + length
    at += 8  # name type, timestamp
    kvno, kind, length = struct.unpack_from(">BHH", data, at)
    at += 5 + length
    if len(data) >= at + 4:
        (wide,) = struct.unpack_from(">I", data, at)
        kvno = wide or kvno
    return KeytabEntry(f"{'/'.join(texts[1:])}@{texts[0]}", kvno, kind)


def _exactly(data: bytes, at: int, length: int) -> bytes:
    piece = data[at : at + length]
    if len(piece) != length:
        raise IndexError
    return piece
