"""A private certificate authority for one machine, and what it issues: for the sandbox and for tests.

Rules: private keys and stores are 0600 in a 0700 directory and never leave it; nothing is put into any system trust
store; passwords reach keytool through its `:env` options, never as arguments. Server certificates are for localhost,
127.0.0.1 and ::1 unless other names are given, because Kerberos names services of this machine `localhost`.

It is no certificate authority for a real cluster: its key lies beside what it signs, unencrypted, and it revokes
nothing. It imports `cryptography`, which the extra `kms` brings; import it only when TLS was asked for.

Java's own formats come from Java's own keytool: a JKS or PKCS12 store made by anything else would prove nothing.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ringfence_zones.errors import SandboxError

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
VALID_FOR = datetime.timedelta(days=365)

KeyAlgorithm = Literal["ecdsa", "rsa"]
"""ECDSA on P-256, or RSA with 2048 bits."""

StoreType = Literal["JKS", "PKCS12"]

_PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_ALIAS = "server"
_KEYTOOL_TIMEOUT_S = 60.0
# A clock that is a little behind must not find a new certificate "not yet valid".
_CLOCK_SKEW = datetime.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """A certificate (PEM) and its private key (PEM, PKCS8, unencrypted, 0600)."""

    certificate: Path
    key: Path


class CertificateAuthority:
    """One authority, its files in one directory: `ca.pem` is what clients trust."""

    def __init__(self, directory: Path, certificate: x509.Certificate, key: _PrivateKey) -> None:
        self.directory = directory
        self.certificate = directory / "ca.pem"
        self._issuer = certificate
        self._key = key

    @classmethod
    def make(cls, directory: Path, common_name: str = "Ringfence private CA") -> CertificateAuthority:
        """A new authority; one that is there is replaced, and nothing that it issued is trusted any more."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = _make_key("ecdsa")
        name = _name(common_name)
        certificate = (
            _builder(name, name, key, VALID_FOR)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        _write(directory / "ca.key", _pem_key(key))
        _write(directory / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM))
        return cls(directory, certificate, key)

    @classmethod
    def load(cls, directory: Path) -> CertificateAuthority:
        """The authority that `make` left there. Raises SandboxError when it is not there or cannot be read."""
        try:
            certificate = x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes())
            key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), None)
        except (OSError, ValueError) as error:
            raise SandboxError(f"the certificate authority in {directory} cannot be read") from error
        assert isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey))
        return cls(directory, certificate, key)

    def issue_server(
        self,
        file_name: str = "server",
        *,
        names: Sequence[str] = LOCAL_NAMES,
        algorithm: KeyAlgorithm = "ecdsa",
        valid_for: datetime.timedelta = VALID_FOR,
    ) -> CertificateFiles:
        """A server certificate for these DNS names and IP addresses, as `<file_name>.pem` and `<file_name>.key`.

        It also serves as a client certificate, because Hadoop's daemons use one store for both. A negative
        `valid_for` gives one that has expired.
        """
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return self._issue(file_name, names[0], names, purposes, algorithm, valid_for)

    def issue_client(
        self,
        common_name: str,
        *,
        file_name: str | None = None,
        algorithm: KeyAlgorithm = "ecdsa",
        valid_for: datetime.timedelta = VALID_FOR,
    ) -> CertificateFiles:
        """A client certificate for `CN=<common_name>`; its files are called after it unless named."""
        return self._issue(
            file_name or common_name, common_name, (), [ExtendedKeyUsageOID.CLIENT_AUTH], algorithm, valid_for
        )

    def _issue(
        self,
        file_name: str,
        common_name: str,
        names: Sequence[str],
        purposes: Sequence[x509.ObjectIdentifier],
        algorithm: KeyAlgorithm,
        valid_for: datetime.timedelta,
    ) -> CertificateFiles:
        key = _make_key(algorithm)
        builder = (
            _builder(_name(common_name), self._issuer.subject, key, valid_for)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
            )
        certificate = builder.sign(self._key, hashes.SHA256())
        files = CertificateFiles(self.directory / f"{file_name}.pem", self.directory / f"{file_name}.key")
        _write(files.key, _pem_key(key))
        _write(files.certificate, certificate.public_bytes(serialization.Encoding.PEM))
        return files

    def make_key_store(
        self, files: CertificateFiles, store: Path, password: str, java_home: Path, *, kind: StoreType = "JKS"
    ) -> Path:
        """A Java key store with certificate, chain and key under the alias `server`; one password for all of it."""
        certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
        key = serialization.load_pem_private_key(files.key.read_bytes(), None)
        assert isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey))
        bundle = pkcs12.serialize_key_and_certificates(
            _ALIAS.encode(),
            key,
            certificate,
            [self._issuer],
            serialization.BestAvailableEncryption(password.encode()),
        )
        with tempfile.TemporaryDirectory(dir=self.directory) as scratch:
            source = Path(scratch) / "bundle.p12"
            _write(source, bundle)
            _keytool(
                java_home,
                store,
                password,
                *("-importkeystore", "-srckeystore", str(source), "-srcstoretype", "PKCS12"),
                *("-srcstorepass:env", "STORE_PASSWORD", "-destkeystore", str(store)),
                *("-deststoretype", kind, "-deststorepass:env", "STORE_PASSWORD"),
            )
        return store

    def make_trust_store(self, store: Path, password: str, java_home: Path, *, kind: StoreType = "JKS") -> Path:
        """A Java trust store that holds this authority and nothing else."""
        _keytool(
            java_home,
            store,
            password,
            *("-importcert", "-alias", "ca", "-file", str(self.certificate)),
            *("-keystore", str(store), "-storetype", kind, "-storepass:env", "STORE_PASSWORD"),
        )
        return store


def _keytool(java_home: Path, store: Path, password: str, *arguments: str) -> None:
    """Makes `store` anew with keytool. Raises SandboxError with what keytool said."""
    store.unlink(missing_ok=True)
    try:
        finished = subprocess.run(
            [str(java_home / "bin/keytool"), *arguments, "-noprompt"],
            env={**os.environ, "STORE_PASSWORD": password},
            capture_output=True,
            text=True,
            timeout=_KEYTOOL_TIMEOUT_S,
            umask=0o077,
            check=False,
        )
    except OSError as error:
        raise SandboxError(f"cannot run keytool of {java_home}: {error.strerror}") from error
    if finished.returncode != 0:
        said = (finished.stdout + finished.stderr).strip()
        raise SandboxError(f"keytool could not make {store}: {said.splitlines()[0] if said else 'it said nothing'}")


def _make_key(algorithm: KeyAlgorithm) -> _PrivateKey:
    if algorithm == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: _PrivateKey, valid_for: datetime.timedelta
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, now + valid_for) - _CLOCK_SKEW)
        .not_valid_after(now + valid_for)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        # What TLS 1.2 clients of RSA key exchange look for.
        key_encipherment=not signs_certificates,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem_key(key: _PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes) -> None:
    """Puts a file in place in one step, so that a server that watches it never reads half of it."""
    descriptor, draft = tempfile.mkstemp(dir=path.parent)  # 0600
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    Path(draft).replace(path)
