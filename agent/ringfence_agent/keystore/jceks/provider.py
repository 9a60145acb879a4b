"""The JCEKS container: Java's `com.sun.crypto.provider.JceKeyStore`, as far as Hadoop uses it.

A file is `CECECECE`, version 2, a count, that many entries, and a SHA-1 over a password and all of it. Hadoop's
entries are all secret keys: tag 3, alias, creation time, a serialised sealed object (`jceks_seal` opens it).

Rules:

1. The trailer is checked, in constant time, before an entry is looked at: without the password nothing is parsed.
2. Files and counts are bounded; an entry of another kind (a private key, a certificate), an alias given twice and
   bytes behind the last entry are refused.
3. An entry keeps its sealed bytes, so that one can be carried over to another file without being opened.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from ringfence_agent.keystore.jceks.java_objects import from_modified_utf8, modified_utf8, read_object
from ringfence_zones.errors import InputError
from ringfence_zones.secret import Secret

MAX_FILE_BYTES = 256 * 1024 * 1024
"""Hadoop needs about 1.1 kB for a key of one version."""

_MAGIC = 0xCECECECE
_VERSION = 2
_SECRET_KEY_TAG = 3
_HEAD = struct.Struct(">III")
_TRAILER_BYTES = hashlib.sha1(usedforsecurity=False).digest_size
_WHITENER = b"Mighty Aphrodite"
_OTHER_FORMATS = {
    b"\xfe\xed\xfe\xed": "a JKS key store, which holds certificates",
    b"\x30": "a PKCS#12 key store, perhaps",
}


@dataclass(frozen=True, slots=True)
class JceksEntry:
    """One entry: its alias, when it was set (epoch milliseconds), and the serialised sealed object as it stands."""

    alias: str
    created_ms: int
    sealed: bytes

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the sealed bytes: equal means the very same entry. It tells nothing about the key."""
        return hashlib.sha256(self.sealed).hexdigest()


def parse_jceks(data: bytes, password: Secret, label: str) -> tuple[JceksEntry, ...]:
    """Every entry of a file. `password` is UTF-8; `label` names the file in errors. Raises InputError."""
    if len(data) < _HEAD.size + _TRAILER_BYTES:
        raise InputError(f"{label} is too short to be a Java key store")
    magic, version, count = _HEAD.unpack_from(data)
    if magic != _MAGIC:
        what = next((name for mark, name in _OTHER_FORMATS.items() if data.startswith(mark)), "something else")
        raise InputError(f"{label} is no JCEKS key store but {what}")
    if version != _VERSION:
        raise InputError(f"{label} is a JCEKS key store of version {version}; Java writes {_VERSION}")
    body, trailer = data[:-_TRAILER_BYTES], data[-_TRAILER_BYTES:]
    if not hmac.compare_digest(trailer, _integrity(body, password)):
        raise InputError(
            f"{label} does not open: the password is wrong, or the file was changed",
            hint="give the file with the right password with --password-file; Hadoop reads it from"
            " HADOOP_KEYSTORE_PASSWORD or from the file that"
            " hadoop.security.keystore.java-keystore-provider.password-file names, and takes 'none' otherwise",
        )
    return _parse_entries(body, count, label)


def _parse_entries(body: bytes, count: int, label: str) -> tuple[JceksEntry, ...]:
    entries: dict[str, JceksEntry] = {}
    at = _HEAD.size
    for _ in range(count):
        try:
            tag, length = struct.unpack_from(">IH", body, at)
            if tag != _SECRET_KEY_TAG:
                raise InputError(
                    f"{label} holds a private key or a certificate (tag {tag}): it is no key store of a Hadoop KMS"
                )
            start = at + 6 + length
            alias = from_modified_utf8(body[at + 6 : start])
            (created_ms,) = struct.unpack_from(">q", body, start)
        except struct.error:
            raise InputError(f"{label} ends in the middle of an entry") from None
        _, at = read_object(body, start + 8)
        if alias in entries:
            raise InputError(f"{label} holds the entry {alias!r} twice")
        entries[alias] = JceksEntry(alias, created_ms, body[start + 8 : at])
    if at != len(body):
        raise InputError(f"{label} goes on behind its last entry")
    return tuple(entries.values())


def format_jceks(entries: Sequence[JceksEntry], password: Secret) -> bytes:
    """The file that Java reads back. Aliases are lower case and all different, which the caller sees to."""
    parts = [_HEAD.pack(_MAGIC, _VERSION, len(entries))]
    for entry in entries:
        alias = modified_utf8(entry.alias)
        parts += (struct.pack(">IH", _SECRET_KEY_TAG, len(alias)), alias)
        parts += (struct.pack(">q", entry.created_ms), entry.sealed)
    body = b"".join(parts)
    return body + _integrity(body, password)


def _integrity(body: bytes, password: Secret) -> bytes:
    # Java hashes the password's 16-bit characters; JCEKS knows no other trailer.
    text = password.reveal().decode().encode("utf-16-be", "surrogatepass")
    return hashlib.sha1(text + _WHITENER + body, usedforsecurity=False).digest()
