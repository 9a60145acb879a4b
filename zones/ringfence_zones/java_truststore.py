"""The certificates in a Java trust store, JKS or PKCS12, told apart by content: keytool's own names tell nothing.

Only certificates are read: a store with private keys in it is refused, for it is no trust store. The password is
checked when it is known, as Java does; nothing in the store is secret.
"""

from __future__ import annotations

from pathlib import Path

from ringfence_zones.errors import ConfigError
from ringfence_zones.jks import is_jks, parse_jks, read_store_file
from ringfence_zones.secret import Secret

_PEM_HINT = (
    "or make a PEM file of the authority's certificate (keytool -exportcert -rfc -keystore STORE -alias ALIAS -file"
    " CA.pem) and name it as kms_ca_file in client.yaml"
)
_WITH_KEYS = "it holds a private key, so it is a key store and no trust store"


def read_trusted_certificates(path: Path, password: str | None) -> list[bytes]:
    """Every trusted certificate, DER. Raises ConfigError naming the file, and how to make a PEM file of it."""
    try:
        content = read_store_file(path, "Java's trust store")
        found = _read_jks(path, content, password) if is_jks(content) else _read_pkcs12(path, content, password)
    except ConfigError as error:
        raise ConfigError(error.message, hint=_PEM_HINT) from error
    if not found:
        raise _unusable(path, "it holds no trusted certificate")
    return found


def _unusable(path: Path, why: str) -> ConfigError:
    return ConfigError(f"cannot use Java's trust store {path}: {why}", hint=_PEM_HINT)


def _read_jks(path: Path, content: bytes, password: str | None) -> list[bytes]:
    secret = Secret(password.encode()) if password is not None else None
    store = parse_jks(content, secret, f"Java's trust store {path}")
    if store.keys:
        raise _unusable(path, _WITH_KEYS)
    return list(store.trusted)


def _read_pkcs12(path: Path, content: bytes, password: str | None) -> list[bytes]:
    try:
        from cryptography.hazmat.primitives.serialization import Encoding, pkcs12  # noqa: PLC0415 - of an extra
    except ModuleNotFoundError as error:
        raise _unusable(path, "it is PKCS12, which needs the extra 'kms' (pip install 'ringfence[kms]')") from error
    try:
        store = pkcs12.load_pkcs12(content, password.encode() if password is not None else None)
    except ValueError as error:
        raise _unusable(path, "it is neither JKS nor PKCS12 with the password of ssl-client.xml") from error
    if store.key is not None:
        raise _unusable(path, _WITH_KEYS)
    return [each.certificate.public_bytes(Encoding.DER) for each in store.additional_certs]
