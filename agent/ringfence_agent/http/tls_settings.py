"""The `tls` block that kms.yaml and agent.yaml share, and what it comes to.

Ciphers and protocols are not configured: TLS 1.2 and newer with OpenSSL's own choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from ringfence_zones.config_file import AbsolutePath, ConfigModel

if TYPE_CHECKING:  # a server without TLS does without `cryptography`'s certificates
    from ringfence_agent.http.tls import ClientAuth, ServerTls, TlsSource


class CertificateBlock(ConfigModel):
    """A certificate chain (PEM, the server's own first) and its private key (PEM)."""

    cert: AbsolutePath
    key: AbsolutePath
    key_password_file: AbsolutePath | None = None


class TlsBlock(CertificateBlock):
    """`tls:` in kms.yaml and agent.yaml.

    second       another certificate of the other kind of key: RSA for old clients beside ECDSA
    client_ca    authorities of client certificates (PEM)
    client_auth  none: clients are not asked for one; optional: one that is sent must be good; required
    """

    second: CertificateBlock | None = None
    client_ca: AbsolutePath | None = None
    client_auth: str = Field("none", pattern="^(none|optional|required)$")

    @model_validator(mode="after")
    def _has_an_authority(self) -> TlsBlock:
        if (self.client_auth == "none") != (self.client_ca is None):
            raise ValueError("client_auth and client_ca go together: name both or neither")
        return self

    def settings(self) -> TlsSettings:
        """The block as it was decided."""
        certificates = (self, self.second) if self.second is not None else (self,)
        return pem_settings(certificates, self)


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """TLS as it was decided: where its material is and whether clients must show a certificate.

    `certificates` is how many different ones a client may meet.
    """

    source: TlsSource
    client_auth: ClientAuth
    certificates: int = 1

    def open(self) -> ServerTls:
        """Reads and proves the material. Raises ConfigError."""
        from ringfence_agent.http.tls import ServerTls  # noqa: PLC0415 - see above

        return ServerTls(self.source, self.client_auth)


def pem_settings(certificates: tuple[CertificateBlock, ...], clients: TlsBlock | None) -> TlsSettings:
    """TLS with these certificates; `clients` says whether clients are asked for theirs."""
    from ringfence_agent.http.pem_files import PemFile, PemFiles  # noqa: PLC0415 - see above

    files = tuple(PemFile(one.cert, one.key, one.key_password_file) for one in certificates)
    if clients is None:
        return TlsSettings(PemFiles(files), "none", len(files))
    return TlsSettings(PemFiles(files, clients.client_ca), _client_auth(clients.client_auth), len(files))


def _client_auth(word: str) -> ClientAuth:
    return "required" if word == "required" else "optional" if word == "optional" else "none"
