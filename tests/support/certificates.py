"""Certificates for tests: one private authority per session, and what a test asks it for.

`certificates` issues PEM files; `java_stores` adds a JKS key store and trust store made by Java's own keytool.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest

from ringfence_agent.http.pem_files import PemFile, PemFiles
from ringfence_agent.http.tls import ClientAuth, ServerTls
from ringfence_bootstrap.sandbox.certificates import CertificateAuthority, CertificateFiles
from ringfence_bootstrap.sandbox.requirements import find_java_home

STORE_PASSWORD = "store-password"


@dataclass(frozen=True)
class Certificates:
    """An authority with a server certificate of each kind and one client certificate (`CN=client`)."""

    authority: CertificateAuthority
    server: CertificateFiles
    rsa_server: CertificateFiles
    client: CertificateFiles

    @property
    def trusted(self) -> Path:
        """The authority's own certificate: what clients trust."""
        return self.authority.certificate

    def client_context(self, identity: CertificateFiles | None = None) -> ssl.SSLContext:
        """A client that trusts the authority, and presents a certificate when it is given one."""
        context = ssl.create_default_context(cafile=str(self.trusted))
        if identity is not None:
            context.load_cert_chain(identity.certificate, identity.key)
        return context

    def server_tls(self, *files: CertificateFiles, client_auth: ClientAuth = "none") -> ServerTls:
        """The server's end, with the ECDSA certificate unless others are named."""
        blocks = [PemFile(cert=one.certificate, key=one.key) for one in files or (self.server,)]
        client_ca = None if client_auth == "none" else self.trusted
        return ServerTls(PemFiles(tuple(blocks), client_ca), client_auth)


@dataclass(frozen=True)
class JavaStores:
    """Both JKS, both with STORE_PASSWORD."""

    key_store: Path
    trust_store: Path


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    authority = CertificateAuthority.make(tmp_path_factory.mktemp("certificates"), "Ringfence test CA")
    return Certificates(
        authority,
        authority.issue_server("server"),
        authority.issue_server("server-rsa", algorithm="rsa"),
        authority.issue_client("client"),
    )


@pytest.fixture(scope="session")
def java_stores(certificates: Certificates) -> JavaStores:
    authority, home = certificates.authority, find_java_home(os.environ)
    key_store = authority.make_key_store(certificates.server, authority.directory / "server.jks", STORE_PASSWORD, home)
    trust_store = authority.make_trust_store(authority.directory / "trust.jks", STORE_PASSWORD, home)
    return JavaStores(key_store, trust_store)
