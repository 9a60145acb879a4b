"""The certificates in a Java trust store, JKS or PKCS12, told apart by content: keytool's own names tell nothing.

JKS (`sun.security.provider.JavaKeyStore`), big-endian: u4 0xFEEDFEED, u4 version 1 or 2, u4 count, then entries: u4
tag (1 private key, 2 certificate), UTF alias, u8 date, and for a certificate its type (UTF, version 2) and its DER
with a u4 length. The last 20 bytes are SHA-1 over the password (UTF-16), the words below and everything before.

Only certificates are read: a store with private keys in it is refused, for it is no trust store. The password is
checked when it is known, as Java does; nothing in the store is secret.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from pathlib import Path

from ringfence_zones.errors import ConfigError

_JKS_MAGIC = 0xFEEDFEED
_CERTIFICATE = 2
_DIGEST_WORDS = b"Mighty Aphrodite"
_DIGEST_BYTES = 20
_MAX_BYTES = 8 * 1024 * 1024


def read_trusted_certificates(path: Path, password: str | None) -> list[bytes]:
    """Every trusted certificate, DER. Raises ConfigError naming the file, and how to make a PEM file of it."""
    try:
        with path.open("rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read Java's trust store {path}: {error.strerror}", hint=_PEM_HINT) from error
    if len(content) > _MAX_BYTES:
        raise _unreadable(path, f"it is larger than {_MAX_BYTES} bytes")
    if content[:4] == _JKS_MAGIC.to_bytes(4, "big"):
        found = _read_jks(path, content, password)
    else:
        found = _read_pkcs12(path, content, password)
    if not found:
        raise _unreadable(path, "it holds no trusted certificate")
    return found


_PEM_HINT = (
    "or make a PEM file of the authority's certificate (keytool -exportcert -rfc -keystore STORE -alias ALIAS -file"
    " CA.pem) and name it as kms_ca_file in client.yaml"
)


def _unreadable(path: Path, why: str) -> ConfigError:
    return ConfigError(f"cannot use Java's trust store {path}: {why}", hint=_PEM_HINT)


def _read_jks(path: Path, content: bytes, password: str | None) -> list[bytes]:
    body, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if password is not None:
        computed = hashlib.sha1(password.encode("utf-16-be") + _DIGEST_WORDS + body, usedforsecurity=False).digest()
        if not hmac.compare_digest(computed, digest):
            raise _unreadable(path, "its password is another one, or the file was changed")
    try:
        return _jks_certificates(path, body)
    except (struct.error, IndexError) as error:
        raise _unreadable(path, "it is cut off") from error


def _jks_certificates(path: Path, body: bytes) -> list[bytes]:
    _, version, count = struct.unpack_from(">III", body)
    at, found = 12, []
    for _ in range(count):
        (tag,) = struct.unpack_from(">I", body, at)
        if tag != _CERTIFICATE:
            raise _unreadable(path, "it holds private keys, so it is a key store and no trust store")
        at = _after_utf(body, at + 4) + 8
        if version == 2:
            at = _after_utf(body, at)
        (length,) = struct.unpack_from(">I", body, at)
        certificate = body[at + 4 : at + 4 + length]
        if len(certificate) != length:
            raise _unreadable(path, "it is cut off")
        found.append(certificate)
        at += 4 + length
    return found


def _after_utf(body: bytes, at: int) -> int:
    (length,) = struct.unpack_from(">H", body, at)
    return at + 2 + int(length)


def _read_pkcs12(path: Path, content: bytes, password: str | None) -> list[bytes]:
    try:
        from cryptography.hazmat.primitives.serialization import Encoding, pkcs12  # noqa: PLC0415 - of an extra
    except ModuleNotFoundError as error:
        raise _unreadable(path, "it is PKCS12, which needs the extra 'kms' (pip install 'ringfence[kms]')") from error
    try:
        store = pkcs12.load_pkcs12(content, password.encode() if password is not None else None)
    except ValueError as error:
        raise _unreadable(path, "it is neither JKS nor PKCS12 with the password of ssl-client.xml") from error
    if store.key is not None:
        raise _unreadable(path, "it holds a private key, so it is a key store and no trust store")
    return [each.certificate.public_bytes(Encoding.DER) for each in store.additional_certs]
