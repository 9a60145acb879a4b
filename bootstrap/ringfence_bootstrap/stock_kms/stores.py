"""The Java stores and the password that a hardened KMS works with, made by `cryptography` alone.

PKCS12 is what Java 8 and newer read as it is, keys and trusted certificates alike. The password of the keys' own store
has 192 random bits: Hadoop derives the sealing key from it with a handful of hash rounds, so it has to be strong by
itself.
"""

from __future__ import annotations

import datetime
import ipaddress
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs12

from ringfence_zones.bounded_file import read_bounded
from ringfence_zones.errors import ConfigError
from ringfence_zones.kms_uri import KEY_PROVIDER

_PASSWORD_BYTES = 24
_ALIAS = b"kms"
_LEAST_RSA_BITS = 2048
MAX_PEM_BYTES = 1024 * 1024


def new_password() -> str:
    """A password nobody guesses; letters, digits, `-` and `_`, which every file format carries as they are."""
    return secrets.token_urlsafe(_PASSWORD_BYTES)


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """A certificate with its private key and the certificates between it and what clients trust."""

    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    authority: x509.Certificate

    def key_store(self, password: str) -> bytes:
        """PKCS12 with key and chain."""
        return pkcs12.serialize_key_and_certificates(
            _ALIAS,
            self.key,
            self.certificate,
            list(self.chain),
            serialization.BestAvailableEncryption(password.encode()),
        )

    def trust_store(self, password: str) -> bytes:
        """PKCS12 that holds the authority as Java marks what it trusts."""
        return pkcs12.serialize_java_truststore(
            [pkcs12.PKCS12Certificate(self.authority, b"ringfence-kms-authority")],
            serialization.BestAvailableEncryption(password.encode()),
        )


def read_server_certificate(certificate: Path, key: Path, authority: Path, names: Sequence[str]) -> ServerCertificate:
    """The PEM files, checked for a server that clients call by `names`. Raises ConfigError naming what is wrong."""
    chain = _certificates(certificate)
    authorities = _certificates(authority)
    private = _private_key(key)
    first = chain[0]
    if first.public_key() != private.public_key():
        raise ConfigError(f"the key in {key} is not that of the certificate in {certificate}")
    now = datetime.datetime.now(datetime.UTC)
    if not first.not_valid_before_utc <= now <= first.not_valid_after_utc:
        raise ConfigError(
            f"the certificate in {certificate} is good from {first.not_valid_before_utc:%Y-%m-%d} to"
            f" {first.not_valid_after_utc:%Y-%m-%d} only"
        )
    missing = [name for name in names if not _is_for(first, name)]
    if missing:
        raise ConfigError(
            f"the certificate in {certificate} is not for {missing[0]}, which clients call",
            hint=f"issue one whose subject alternative names hold every host of {KEY_PROVIDER}",
        )
    signer = next((each for each in authorities if _leads_to(chain, each)), None)
    if signer is None:
        raise ConfigError(f"no certificate in {authority} signed the one in {certificate}", hint="give its --tls-ca")
    return ServerCertificate(first, chain[1:], private, signer)


def _leads_to(chain: Sequence[x509.Certificate], authority: x509.Certificate) -> bool:
    if any(each == authority for each in chain):
        return True
    try:
        chain[-1].verify_directly_issued_by(authority)
    except Exception:  # noqa: BLE001 - says no in four ways: names, key types, signatures, algorithms
        return False
    return True


def _is_for(certificate: x509.Certificate, host: str) -> bool:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    try:
        return ipaddress.ip_address(host) in names.get_values_for_type(x509.IPAddress)
    except ValueError:
        pass
    wanted = host.lower().rstrip(".")
    for name in names.get_values_for_type(x509.DNSName):
        known = name.lower().rstrip(".")
        if known == wanted or (known.startswith("*.") and wanted.partition(".")[2] == known[2:]):
            return True
    return False


def _certificates(path: Path) -> tuple[x509.Certificate, ...]:
    try:
        return tuple(x509.load_pem_x509_certificates(read_pem(path)))
    except ValueError as error:
        raise ConfigError(f"{path} holds no PEM certificate") from error


def _private_key(path: Path) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(read_pem(path), None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} holds no unencrypted PEM private key") from error
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= _LEAST_RSA_BITS:
        return key
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key
    raise ConfigError(f"the key in {path} is neither RSA with {_LEAST_RSA_BITS} bits or more nor of an elliptic curve")


def read_pem(path: Path) -> bytes:
    """A PEM file's bytes. Raises ConfigError."""
    return read_bounded(path, MAX_PEM_BYTES, ConfigError, kind="a PEM file")
