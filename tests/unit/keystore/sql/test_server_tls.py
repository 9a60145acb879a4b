"""The way to a database server: TLS with its certificate and name verified, or nothing that others could stand in."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from certificates import Certificates
from databases import DatabaseServer, running_mariadb, running_postgresql

from ringfence_agent.keystore.open import open_keystore
from ringfence_bootstrap.sandbox.certificates import CertificateAuthority
from ringfence_zones.errors import ConfigError, StoreUnavailableError, StoreUnreachableError

KINDS = ["postgresql", pytest.param("mariadb", marks=pytest.mark.long)]


@dataclass
class TlsServer:
    """A server with the session's certificate for localhost."""

    server: DatabaseServer
    ca: Path


def handed_over(source: Path, target: Path, account: str) -> Path:
    """A copy that the server's account may read and nobody else."""
    shutil.copy(source, target)
    target.chmod(0o600)
    if os.geteuid() == 0:
        entry = pwd.getpwnam(account)
        os.chown(target, entry.pw_uid, entry.pw_gid)
    return target


@pytest.fixture(scope="module", params=KINDS)
def tls_server(request: pytest.FixtureRequest, certificates: Certificates) -> Iterator[TlsServer]:
    start = {"postgresql": running_postgresql, "mariadb": running_mariadb}[request.param]
    with start() as server:
        cert = handed_over(certificates.server.certificate, server.directory / "server.crt", server.account)
        key = handed_over(certificates.server.key, server.directory / "server.key", server.account)
        if server.kind == "postgresql":
            server.command += ["-c", "ssl=on", "-c", f"ssl_cert_file={cert}", "-c", f"ssl_key_file={key}"]
        else:
            server.command += [f"--ssl-cert={cert}", f"--ssl-key={key}"]
        server.stop()
        server.start()
        yield TlsServer(server, certificates.trusted)


def test_a_verified_connection_is_encrypted(tls_server: TlsServer, tmp_path: Path) -> None:
    uri = tls_server.server.new_database().replace("@127.0.0.1:", "@localhost:")
    store = open_keystore(f"{uri}?tls_ca={tls_server.ca}", tmp_path / "root.key", True, tls_server.server.password_file)
    reader = store._session._reader.get()  # type: ignore[attr-defined]
    if tls_server.server.kind == "postgresql":
        query = "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        assert reader.exec_driver_sql(query).scalar_one() in ("TLSv1.2", "TLSv1.3")
    else:
        assert reader.exec_driver_sql("SHOW STATUS LIKE 'Ssl_version'").one()[1] in ("TLSv1.2", "TLSv1.3")
    store.close()


def test_a_certificate_of_someone_else_is_refused(tls_server: TlsServer, tmp_path: Path) -> None:
    other = CertificateAuthority.make(tmp_path / "other")
    uri = tls_server.server.new_database().replace("@127.0.0.1:", "@localhost:")
    with pytest.raises(StoreUnavailableError, match=r"cannot be reached over TLS.*certificate verify failed") as caught:
        open_keystore(f"{uri}?tls_ca={other.certificate}", tmp_path / "k", True, tls_server.server.password_file)
    assert not isinstance(caught.value, StoreUnreachableError)


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_without_tls_is_not_spoken_to_where_it_is_demanded(
    kind: str, request: pytest.FixtureRequest, certificates: Certificates, tmp_path: Path
) -> None:
    server: DatabaseServer = request.getfixturevalue(kind)
    with pytest.raises(StoreUnavailableError, match=r"cannot be reached over TLS.*(not|n't) support") as caught:
        open_keystore(
            f"{server.new_database()}?tls_ca={certificates.trusted}", tmp_path / "k", True, server.password_file
        )
    assert not isinstance(caught.value, StoreUnreachableError)


def test_a_ca_file_that_cannot_be_read_is_named(tls_server: TlsServer, tmp_path: Path) -> None:
    uri = tls_server.server.new_database().replace("@127.0.0.1:", "@localhost:")
    none = tmp_path / "none.pem"
    with pytest.raises((ConfigError, StoreUnavailableError), match=r"none\.pem"):
        open_keystore(f"{uri}?tls_ca={none}", tmp_path / "k", True, tls_server.server.password_file)
