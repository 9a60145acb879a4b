"""The private authority: judged by OpenSSL and by Java's keytool, which are what has to accept it."""

from __future__ import annotations

import datetime
import os
import ssl
import stat
import subprocess
from pathlib import Path

import pytest
from certificates import STORE_PASSWORD, Certificates, JavaStores

from ringfence_bootstrap.sandbox.certificates import CertificateAuthority, CertificateFiles
from ringfence_bootstrap.sandbox.requirements import find_java_home
from ringfence_zones.errors import SandboxError


def handshake(
    server: CertificateFiles, client: ssl.SSLContext, name: str, trusted: Path | None = None
) -> ssl.SSLObject:
    """Both ends in memory; returns the server's end, raises what the client finds wrong."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.certificate, server.key)
    if trusted is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(trusted)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        context.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert ends[1].version() is not None
    return ends[1]


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
@pytest.mark.parametrize("kind", ["server", "rsa_server"])
def test_a_strict_client_accepts_the_server_by_every_local_name(
    certificates: Certificates, kind: str, name: str
) -> None:
    handshake(getattr(certificates, kind), certificates.client_context(), name)


def test_a_client_of_another_authority_refuses_the_server(certificates: Certificates, tmp_path: Path) -> None:
    stranger = ssl.create_default_context(cafile=str(CertificateAuthority.make(tmp_path).certificate))
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(certificates.server, stranger, "localhost")


def test_an_expired_certificate_is_refused(certificates: Certificates) -> None:
    expired = certificates.authority.issue_server("expired", valid_for=-datetime.timedelta(minutes=1))
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        handshake(expired, certificates.client_context(), "localhost")


def test_the_client_certificate_names_its_owner(certificates: Certificates) -> None:
    client = certificates.client_context(certificates.client)
    end = handshake(certificates.server, client, "localhost", certificates.trusted)
    assert end.getpeercert() is not None
    assert end.getpeercert()["subject"] == ((("commonName", "client"),),)


def test_a_loaded_authority_goes_on_issuing(certificates: Certificates) -> None:
    again = CertificateAuthority.load(certificates.authority.directory)
    handshake(again.issue_server("later"), certificates.client_context(), "localhost")


def test_a_missing_authority_is_an_error_that_names_the_place(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match=str(tmp_path)):
        CertificateAuthority.load(tmp_path)


def test_nobody_else_can_read_what_is_private(certificates: Certificates, java_stores: JavaStores) -> None:
    private = [certificates.authority.directory / "ca.key", certificates.server.key, java_stores.key_store]
    assert [stat.S_IMODE(path.stat().st_mode) for path in private] == [0o600] * 3


@pytest.mark.parametrize("kind", ["JKS", "PKCS12"])
def test_java_lists_the_key_and_its_chain(certificates: Certificates, tmp_path: Path, kind: str) -> None:
    home = find_java_home(os.environ)
    store = certificates.authority.make_key_store(
        certificates.rsa_server,
        tmp_path / "server.store",
        STORE_PASSWORD,
        home,
        kind=kind,  # type: ignore[arg-type]
    )
    command = [str(home / "bin/keytool"), "-list", "-v", "-keystore", str(store), "-storepass", STORE_PASSWORD]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert f"Keystore type: {kind}" in listed
    assert "Alias name: server" in listed
    assert "PrivateKeyEntry" in listed
    assert "Certificate chain length: 2" in listed


def test_java_lists_the_authority_as_trusted(java_stores: JavaStores) -> None:
    keytool = find_java_home(os.environ) / "bin/keytool"
    command = [str(keytool), "-list", "-keystore", str(java_stores.trust_store), "-storepass", STORE_PASSWORD]
    assert "trustedCertEntry" in subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def test_a_java_without_keytool_is_an_error_that_names_it(certificates: Certificates, tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="keytool"):
        certificates.authority.make_trust_store(tmp_path / "t.jks", STORE_PASSWORD, tmp_path)
