"""Reads the key stores that Hadoop's ssl-server.xml names: private keys with their chains, and trusted certificates.

Two formats, told apart by their first bytes as Java does since JDK 9, whatever the configured type says: JKS
(`sun.security.provider.JavaKeyStore`) and PKCS#12. The private key of a JKS entry is hidden by Sun's own scheme
(`sun.security.provider.KeyProtector`): XOR with a SHA-1 key stream. It is no protection to speak of, so a JKS file must
not be readable by others.

Rules: the password is proven on the whole file before an entry is looked at, sizes and counts are bounded, and an entry
that is cut off refuses the file. It writes nothing; JCEKS, BCFKS and hardware stores are refused with the command that
converts them.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from ringfence_zones.errors import ConfigError
from ringfence_zones.secret import Secret

MAX_FILE_BYTES = 4 * 1024 * 1024

_JKS_MAGIC = b"\xfe\xed\xfe\xed"
_PKCS12_FIRST = b"\x30"
_JKS_VERSION = 2
_KEY_ENTRY, _TRUSTED_ENTRY = 1, 2
_SHA1_BYTES = 20
_MAX_ENTRIES = 10_000
# 1.3.6.1.4.1.42.2.17.1.1, Sun's key protector: what stands before the hidden key in its EncryptedPrivateKeyInfo.
_SUN_PROTECTOR = bytes.fromhex("060a2b060104012a02110101")
_WHITENER = b"Mighty Aphrodite"


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """A private key (PEM, PKCS#8) and its certificate chain (PEM), the key's own first."""

    alias: str
    key: Secret
    chain: bytes


@dataclass(frozen=True, slots=True)
class JavaKeyStore:
    """What a store holds: `keys` in the file's order, and the certificates it trusts (PEM)."""

    keys: tuple[KeyEntry, ...]
    trusted: tuple[bytes, ...]


def read_java_key_store(path: Path, password: Secret, key_password: Secret | None = None) -> JavaKeyStore:
    """The store in a file; `key_password` is the store's own unless given. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the key store {path}: {error.strerror}") from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"the key store {path} is larger than {MAX_FILE_BYTES} bytes")
    if data.startswith(_JKS_MAGIC):
        return _JksReader(path, data, password, key_password or password).read()
    if data.startswith(_PKCS12_FIRST):
        return _read_pkcs12(path, data, password)
    raise ConfigError(
        f"the key store {path} is neither JKS nor PKCS12",
        hint="convert it with its own Java's keytool, and name the new file in ssl-server.xml",
        command=f"keytool -importkeystore -srckeystore {path} -srcstoretype JCEKS"
        f" -destkeystore {path.with_suffix('.p12')} -deststoretype PKCS12",
    )


def _read_pkcs12(path: Path, data: bytes, password: Secret) -> JavaKeyStore:
    try:
        store = pkcs12.load_pkcs12(data, password.reveal())
    except ValueError as error:
        raise ConfigError(
            f"the PKCS12 key store {path} cannot be opened: the password is wrong, or the file is damaged",
            command=f"keytool -list -keystore {path}",
        ) from error
    others = [entry.certificate for entry in store.additional_certs]
    if store.key is None or store.cert is None:
        return JavaKeyStore((), tuple(_pem(certificate) for certificate in others))
    key = store.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain = _chain(store.cert.certificate, others)
    alias = (store.cert.friendly_name or b"").decode("utf-8", "replace")
    entry = KeyEntry(alias, Secret(key), b"".join(_pem(certificate) for certificate in chain))
    return JavaKeyStore((entry,), tuple(_pem(certificate) for certificate in others if certificate not in chain))


def _chain(leaf: x509.Certificate, others: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """The leaf and its issuers as far as they are there; PKCS#12 does not keep their order."""
    chain = [leaf]
    while chain[-1].issuer != chain[-1].subject and len(chain) <= len(others):
        issuer = next((one for one in others if one.subject == chain[-1].issuer and one not in chain), None)
        if issuer is None:
            break
        chain.append(issuer)
    return chain


class _JksReader:
    """One JKS file: magic, version, count, entries, and a SHA-1 over the password and all of it."""

    def __init__(self, path: Path, data: bytes, password: Secret, key_password: Secret) -> None:
        self._path = path
        self._data = data
        self._password = _java_characters(password)
        self._key_password = _java_characters(key_password)
        self._at = 0

    def read(self) -> JavaKeyStore:
        body, digest = self._data[:-_SHA1_BYTES], self._data[-_SHA1_BYTES:]
        expected = hashlib.sha1(self._password + _WHITENER + body, usedforsecurity=False).digest()
        if not hmac.compare_digest(digest, expected):
            raise ConfigError(
                f"the JKS key store {self._path} cannot be opened: the password is wrong, or the file is damaged",
                command=f"keytool -list -keystore {self._path}",
            )
        self._data = body
        self._at = len(_JKS_MAGIC)
        version, count = self._integer(), self._integer()
        if version != _JKS_VERSION or count > _MAX_ENTRIES:
            raise self._damaged()
        keys: list[KeyEntry] = []
        trusted: list[bytes] = []
        for _ in range(count):
            tag, alias = self._integer(), self._text()
            self._take(8)  # when it was made
            if tag == _KEY_ENTRY:
                hidden = self._take(self._integer())
                chain = [self._certificate() for _ in range(min(self._integer(), _MAX_ENTRIES))]
                keys.append(KeyEntry(alias, self._open_key(alias, hidden), b"".join(chain)))
            elif tag == _TRUSTED_ENTRY:
                trusted.append(self._certificate())
            else:
                raise self._damaged()
        return JavaKeyStore(tuple(keys), tuple(trusted))

    def _open_key(self, alias: str, hidden: bytes) -> Secret:
        """Undoes `KeyProtector.protect`: salt, key XOR a chain of SHA-1, SHA-1 of password and key."""
        mark = hidden.find(_SUN_PROTECTOR)
        if mark < 0 or b"\x04" not in hidden[mark + len(_SUN_PROTECTOR) : -1]:
            raise self._damaged()
        # Behind the algorithm comes `NULL`, then the octet string that ends the structure: its last bytes are ours.
        sealed = hidden[hidden.index(b"\x04", mark + len(_SUN_PROTECTOR)) :]
        sealed = sealed[2 + (sealed[1] & 0x7F if sealed[1] & 0x80 else 0) :]
        salt, covered, check = sealed[:_SHA1_BYTES], sealed[_SHA1_BYTES:-_SHA1_BYTES], sealed[-_SHA1_BYTES:]
        stream, block = b"", salt
        while len(stream) < len(covered):
            block = hashlib.sha1(self._key_password + block, usedforsecurity=False).digest()
            stream += block
        plain = bytes(one ^ other for one, other in zip(covered, stream, strict=False))
        if not hmac.compare_digest(hashlib.sha1(self._key_password + plain, usedforsecurity=False).digest(), check):
            raise ConfigError(
                f"the key {alias!r} in the key store {self._path} has another password than the store",
                hint="set ssl.server.keystore.keypassword in ssl-server.xml",
            )
        try:
            key = serialization.load_der_private_key(plain, None)
        except ValueError as error:
            raise self._damaged() from error
        return Secret(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )

    def _certificate(self) -> bytes:
        if self._text() != "X.509":
            raise self._damaged()
        try:
            return _pem(x509.load_der_x509_certificate(self._take(self._integer())))
        except ValueError as error:
            raise self._damaged() from error

    def _integer(self) -> int:
        return int(struct.unpack(">I", self._take(4))[0])

    def _text(self) -> str:
        (length_bytes,) = struct.unpack(">H", self._take(2))
        return self._take(length_bytes).decode("utf-8", "replace")

    def _take(self, length_bytes: int) -> bytes:
        taken = self._data[self._at : self._at + length_bytes]
        if len(taken) != length_bytes:
            raise self._damaged()
        self._at += length_bytes
        return taken

    def _damaged(self) -> ConfigError:
        return ConfigError(
            f"the JKS key store {self._path} is damaged", command=f"keytool -list -keystore {self._path}"
        )


def _java_characters(password: Secret) -> bytes:
    """A Java `char[]` as the digests take it: UTF-16, high byte first."""
    return password.reveal().decode("utf-8").encode("utf-16-be")


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
