"""TLS material from PEM files.

A private key that every user can read is refused; so is a PEM key with a password and no file to read it from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from ringfence_agent.http.tls import TlsIdentity, TlsMaterial
from ringfence_zones.bounded_file import read_bounded
from ringfence_zones.errors import ConfigError
from ringfence_zones.secret import Secret

_MAX_PEM_BYTES = 1024 * 1024
_OTHERS_MAY_READ = 0o007
_OTHERS_MAY_WRITE = 0o022


@dataclass(frozen=True, slots=True)
class PemFile:
    """A certificate chain, the server's own first, and its private key."""

    cert: Path
    key: Path
    key_password_file: Path | None = None


@dataclass(frozen=True, slots=True)
class PemFiles:
    """A `TlsSource` of PEM files."""

    certificates: tuple[PemFile, ...]
    client_ca: Path | None = None

    @property
    def paths(self) -> Sequence[Path]:
        """Every file; the password's is read again with the others."""
        named = [path for one in self.certificates for path in (one.cert, one.key)]
        return [*named, self.client_ca] if self.client_ca is not None else named

    def read(self) -> TlsMaterial:
        """Raises ConfigError naming the file."""
        identities = [
            TlsIdentity(str(one.cert), _read_file(one.cert), _read_key(one.key, one.key_password_file))
            for one in self.certificates
        ]
        return TlsMaterial(tuple(identities), _read_file(self.client_ca) if self.client_ca is not None else None)


def require_private_key(path: Path) -> None:
    """Raises ConfigError when others can read or change the file, which holds a private key or its password."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if mode & (_OTHERS_MAY_READ | _OTHERS_MAY_WRITE):
        raise ConfigError(
            f"{path} holds a private key or its password, and others can read or change it",
            command=f"chmod u=rw,g=r,o= {path}",
        )


def _read_file(path: Path) -> bytes:
    return read_bounded(path, _MAX_PEM_BYTES, ConfigError, kind="a PEM file")


def _read_key(path: Path, password_file: Path | None) -> Secret:
    require_private_key(path)
    content = _read_file(path)
    if password_file is None:
        if b"ENCRYPTED" in content:
            raise ConfigError(
                f"the private key {path} is encrypted",
                hint="name the file with its password as key_password_file beside it, or decrypt it",
                command=f"openssl pkey -in {path} -out {path}.plain",
            )
        return Secret(content)
    require_private_key(password_file)
    try:
        key = serialization.load_pem_private_key(content, _read_file(password_file).rstrip(b"\r\n"))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"the private key {path} does not open with the password in {password_file}") from error
    return Secret(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
