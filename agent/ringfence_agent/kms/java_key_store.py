"""Reads the key stores that Hadoop's ssl-server.xml names: private keys with their chains, and trusted certificates.

Two formats, told apart by their first bytes whatever the configured type says: JKS (`ringfence_zones.jks` reads the
container) and PKCS#12. The private key of a JKS entry is hidden by Sun's own scheme (`sun.security.provider
.KeyProtector`): XOR with a SHA-1 key stream. It is no protection to speak of, so a JKS file must not be readable by
others.

It writes nothing; JCEKS, BCFKS and hardware stores are refused with the command that converts them.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from ringfence_zones.errors import ConfigError
from ringfence_zones.jks import JksKey, is_jks, java_characters, parse_jks, read_store_file
from ringfence_zones.secret import Secret

_PKCS12_FIRST = b"\x30"
_SHA1_BYTES = 20
# 1.3.6.1.4.1.42.2.17.1.1, Sun's key protector: what stands before the hidden key in its EncryptedPrivateKeyInfo.
_SUN_PROTECTOR = bytes.fromhex("060a2b060104012a02110101")


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


def read_java_key_store(path: Path, password: Secret | None, key_password: Secret | None = None) -> JavaKeyStore:
    """The store in a file; `key_password` is the store's own unless given. Raises ConfigError.

    Without a password a JKS file is not checked, and what is in it can be trusted certificates only.
    """
    data = read_store_file(path, "the key store")
    if is_jks(data):
        return _read_jks(path, data, password, key_password or password)
    if data.startswith(_PKCS12_FIRST):
        return _read_pkcs12(path, data, password or Secret(b""))
    raise ConfigError(
        f"the key store {path} is neither JKS nor PKCS12",
        hint="convert it with its own Java's keytool, and name the new file in ssl-server.xml",
        command=f"keytool -importkeystore -srckeystore {path} -srcstoretype JCEKS"
        f" -destkeystore {path.with_suffix('.p12')} -deststoretype PKCS12",
    )


def _read_jks(path: Path, data: bytes, password: Secret | None, key_password: Secret | None) -> JavaKeyStore:
    label = f"the JKS key store {path}"
    try:
        store = parse_jks(data, password, label)
        keys = tuple(
            KeyEntry(key.alias, _open_key(key, key_password or Secret(b""), label), _pem_chain(key.chain))
            for key in store.keys
        )
        return JavaKeyStore(keys, tuple(_pem(x509.load_der_x509_certificate(each)) for each in store.trusted))
    except ConfigError as error:
        raise ConfigError(error.message, hint=error.hint, command=f"keytool -list -keystore {path}") from error
    except ValueError as error:
        raise _damaged(label) from error


def _open_key(key: JksKey, password: Secret, label: str) -> Secret:
    """Undoes `KeyProtector.protect`: salt, key XOR a chain of SHA-1, SHA-1 of password and key."""
    hidden, characters = key.hidden.reveal(), java_characters(password)
    mark = hidden.find(_SUN_PROTECTOR)
    if mark < 0 or b"\x04" not in hidden[mark + len(_SUN_PROTECTOR) : -1]:
        raise _damaged(label)
    # Behind the algorithm comes `NULL`, then the octet string that ends the structure: its last bytes are ours.
    sealed = hidden[hidden.index(b"\x04", mark + len(_SUN_PROTECTOR)) :]
    sealed = sealed[2 + (sealed[1] & 0x7F if sealed[1] & 0x80 else 0) :]
    salt, covered, check = sealed[:_SHA1_BYTES], sealed[_SHA1_BYTES:-_SHA1_BYTES], sealed[-_SHA1_BYTES:]
    stream, block = b"", salt
    while len(stream) < len(covered):
        block = hashlib.sha1(characters + block, usedforsecurity=False).digest()
        stream += block
    plain = bytes(one ^ other for one, other in zip(covered, stream, strict=False))
    if not hmac.compare_digest(hashlib.sha1(characters + plain, usedforsecurity=False).digest(), check):
        raise ConfigError(
            f"the key {key.alias!r} in {label} has another password than the store",
            hint="set ssl.server.keystore.keypassword in ssl-server.xml",
        )
    opened = serialization.load_der_private_key(plain, None)
    return Secret(
        opened.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


def _damaged(label: str) -> ConfigError:
    return ConfigError(f"{label} is damaged")


def _pem_chain(chain: Sequence[bytes]) -> bytes:
    return b"".join(_pem(x509.load_der_x509_certificate(each)) for each in chain)


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


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
