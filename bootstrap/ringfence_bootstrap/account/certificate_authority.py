"""A private certificate authority for clusters' nodes.

All nodes of a cluster show one certificate, for the wildcard that fits their names. Its authority is for nothing else:
what it signs is trusted where `ca.pem` was put, and nowhere by default. Its key rests in a directory of mode 0700, in a
file of mode 0600, without a passphrase, because whoever runs the command has to be able to sign; keep that directory
off the cluster. Clusters whose nodes are to trust each other share an authority.

The sandbox has an authority of its own (`sandbox.certificates`) for one machine, which this is not.
"""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ringfence_bootstrap.account.certificate_bundle import (
    Bundle,
    read_secret_bytes,
    write_secret_file,
)
from ringfence_bootstrap.security_configuration.pem_bundle import MAX_MEMBER_BYTES
from ringfence_zones.errors import InputError, RingfenceError
from ringfence_zones.secret import Secret

CA_DAYS = 3650
# RSA, because that is what AWS's own instructions make; every Java of every release reads it.
_BITS, _CA_BITS = 2048, 3072
_CLOCK_SKEW = datetime.timedelta(hours=1)
_CERTIFICATE, _KEY = "ca.pem", "ca.key"


class ClusterAuthority:
    """An authority with its key in memory."""

    def __init__(self, certificate: x509.Certificate, key: rsa.RSAPrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    @property
    def pem(self) -> bytes:
        """Its certificate."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def ends(self) -> datetime.datetime:
        """When its certificate runs out; nothing that it signs is good for longer."""
        return self._certificate.not_valid_after_utc

    def issue(self, name: str, days: int) -> Bundle:
        """A key and certificate for nodes called `name` (a wildcard), with this authority as what they trust."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=_BITS)
        now = datetime.datetime.now(datetime.UTC)
        ends = min(now + datetime.timedelta(days=days), self.ends)
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            _builder(_name(name), self._certificate.subject, key, now, ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        chain = certificate.public_bytes(serialization.Encoding.PEM) + self.pem
        return Bundle(_pem(key), chain, self.pem)


def open_authority(directory: Path, common_name: str) -> tuple[ClusterAuthority, bool]:
    """The authority in `directory`, made there when the directory has none; and whether it was made now.

    Raises InputError for one that cannot be used, RingfenceError when it cannot be written.
    """
    has = [(directory / name).exists() for name in (_CERTIFICATE, _KEY)]
    if all(has):
        return _load(directory), False
    if any(has):
        raise InputError(
            f"{directory} holds only one of {_CERTIFICATE} and {_KEY}",
            hint="put the other one back, or name another directory for a new authority",
        )
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if directory.stat().st_mode & 0o077:
            raise InputError(
                f"others can look into {directory}, where the authority's key would be",
                command=f"chmod 700 {directory}",
            )
    except OSError as error:
        raise RingfenceError(f"cannot make {directory}: {error.strerror}") from error
    authority, key = _make(common_name)
    # The certificate last: with one of the two alone the directory is refused.
    write_secret_file(directory / _KEY, _pem(key))
    write_secret_file(directory / _CERTIFICATE, Secret(authority.pem))
    return authority, True


def _load(directory: Path) -> ClusterAuthority:
    pem = read_secret_bytes(directory / _KEY, MAX_MEMBER_BYTES)
    try:
        certificate = x509.load_pem_x509_certificate((directory / _CERTIFICATE).read_bytes())
        key = serialization.load_pem_private_key(pem.reveal(), None)
    except (OSError, ValueError, TypeError):
        certificate, key = None, None
    if certificate is None or not isinstance(key, rsa.RSAPrivateKey) or key.public_key() != certificate.public_key():
        raise InputError(
            f"{directory} holds no authority that can be used",
            hint="it needs ca.pem and its RSA key ca.key, without a passphrase; a new directory gets a new authority",
        )
    if certificate.not_valid_after_utc <= datetime.datetime.now(datetime.UTC):
        raise InputError(
            f"the authority in {directory} ran out on {certificate.not_valid_after_utc:%Y-%m-%d}",
            hint="name another directory for a new one",
        )
    return ClusterAuthority(certificate, key)


def _make(common_name: str) -> tuple[ClusterAuthority, rsa.RSAPrivateKey]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=_CA_BITS)
    now = datetime.datetime.now(datetime.UTC)
    name = _name(common_name)
    certificate = (
        _builder(name, name, key, now, now + datetime.timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return ClusterAuthority(certificate, key), key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: rsa.RSAPrivateKey, now: datetime.datetime, ends: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        key_encipherment=not signs,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    # 64 characters are what X.520 gives a common name; the alternative name is what counts.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _pem(key: rsa.RSAPrivateKey) -> Secret:
    return Secret(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
