"""The server's certificates: what is accepted, and how a change takes effect."""

from __future__ import annotations

import datetime
import logging
import shutil
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
from certificates import Certificates
from http_serving import DEADLINE_S, Running, serving

from ringfence_agent.http.pem_files import PemFile, PemFiles
from ringfence_agent.http.request import Request
from ringfence_agent.http.response import Response, ResponseHead
from ringfence_agent.http.tls import ClientAuth, ServerTls
from ringfence_bootstrap.sandbox.certificates import CertificateAuthority, CertificateFiles
from ringfence_zones.errors import ConfigError


def application(_request: Request) -> Response:
    return Response(ResponseHead(200), b"ok")


class Installed:
    """A certificate as an operator installs and replaces it."""

    def __init__(self, directory: Path) -> None:
        self.cert, self.key, self.client_ca = directory / "tls.pem", directory / "tls.key", directory / "clients.pem"

    def put(self, files: CertificateFiles) -> None:
        for source, place in ((files.key, self.key), (files.certificate, self.cert)):
            draft = place.with_name(place.name + ".new")
            shutil.copy(source, draft)
            draft.replace(place)

    def trust(self, authority: Path) -> None:
        shutil.copy(authority, self.client_ca)

    def open(self, client_auth: ClientAuth = "none") -> ServerTls:
        block = PemFile(cert=self.cert, key=self.key)
        return ServerTls(PemFiles((block,), None if client_auth == "none" else self.client_ca), client_auth)


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    return Installed(tmp_path)


@pytest.fixture(scope="module")
def other(certificates: Certificates) -> CertificateFiles:
    """A second server certificate of the same authority and kind."""
    return certificates.authority.issue_server("other")


def refresh(running: Running, tls: ServerTls) -> None:
    """On the server's own thread, where new connections are made."""
    done = threading.Event()
    running.loop.call_soon_threadsafe(lambda: (tls.refresh(), done.set()))
    assert done.wait(DEADLINE_S)


def serial(running: Running, certificates: Certificates) -> str:
    with running.connect(certificates.client_context()) as client:
        assert isinstance(client.socket, ssl.SSLSocket)
        return str((client.socket.getpeercert() or {})["serialNumber"])


def test_a_changed_certificate_serves_new_connections_and_open_ones_go_on(
    certificates: Certificates, installed: Installed, other: CertificateFiles
) -> None:
    installed.put(certificates.server)
    tls = installed.open()
    get = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
    with serving(application, tls=tls) as running:
        context = certificates.client_context()
        with running.connect(context) as kept:
            kept.send(get)
            kept.read_answer()
            first, binding = serial(running, certificates), tls.channel_binding
            assert isinstance(kept.socket, ssl.SSLSocket)
            session = kept.socket.session
            installed.put(other)
            refresh(running, tls)
            assert serial(running, certificates) != first
            assert tls.channel_binding != binding
            kept.send(get)
            assert kept.read_answer().status == 200
        # The context is the old one with a new certificate in it, so what it sealed it still opens.
        with running.connect(context, session) as resumed:
            assert isinstance(resumed.socket, ssl.SSLSocket)
            assert resumed.socket.session_reused


def test_the_server_notices_a_change_by_itself(
    certificates: Certificates, installed: Installed, other: CertificateFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ringfence_agent.http.server._TLS_POLL_S", 0.05)
    installed.put(certificates.server)
    with serving(application, tls=installed.open()) as running:
        first = serial(running, certificates)
        installed.put(other)
        while serial(running, certificates) == first:
            pass


def test_an_unchanged_certificate_is_left_alone(certificates: Certificates, installed: Installed) -> None:
    installed.put(certificates.server)
    tls = installed.open()
    assert tls.find_change() is None
    installed.put(certificates.server)  # other files, same bytes
    assert tls.find_change() is None


@pytest.mark.parametrize("damage", ["garbage", "missing", "wrong key", "readable by all"])
def test_what_cannot_be_used_is_logged_once_and_the_old_one_stays(
    certificates: Certificates,
    installed: Installed,
    other: CertificateFiles,
    damage: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    installed.put(certificates.server)
    tls = installed.open()
    context = tls.context
    match damage:
        case "garbage":
            installed.cert.write_bytes(b"-----BEGIN CERTIFICATE-----\nnonsense\n")
        case "missing":
            installed.cert.unlink()
        case "wrong key":
            shutil.copy(other.certificate, installed.cert)
        case "readable by all":
            installed.put(other)
            installed.key.chmod(0o644)
    with caplog.at_level(logging.ERROR), serving(application, tls=tls) as running:
        before = serial(running, certificates)
        tls.refresh()
        tls.refresh()
        assert serial(running, certificates) == before
        assert caplog.text.count("the old one stays") == 1
        assert str(installed.cert) in caplog.text or str(installed.key) in caplog.text
        tls.renew()
        assert tls.context is context
        installed.key.chmod(0o600)
        installed.put(other)
        tls.refresh()
        assert serial(running, certificates) != before


def test_a_certificate_of_another_kind_replaces_the_old_one_altogether(
    certificates: Certificates, installed: Installed
) -> None:
    installed.put(certificates.server)
    tls = installed.open()
    installed.put(certificates.rsa_server)
    tls.refresh()
    with serving(application, tls=tls) as running:
        context = certificates.client_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
        with pytest.raises(ssl.SSLError):
            running.connect(context)
        serial(running, certificates)


def test_a_client_authority_that_was_removed_is_not_trusted_by_an_old_session_either(
    certificates: Certificates, installed: Installed, tmp_path: Path
) -> None:
    installed.put(certificates.server)
    installed.trust(certificates.trusted)
    tls = installed.open("required")
    context = certificates.client_context(certificates.client)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with serving(application, tls=tls) as running:
        with running.connect(context) as client:
            assert isinstance(client.socket, ssl.SSLSocket)
            session = client.socket.session
        installed.trust(CertificateAuthority.make(tmp_path / "other").certificate)
        refresh(running, tls)
        with pytest.raises(ssl.SSLError, match="UNKNOWN_CA"):
            running.connect(context, session)


def test_a_reload_makes_new_ticket_keys(certificates: Certificates, installed: Installed) -> None:
    installed.put(certificates.server)
    tls = installed.open()
    before = tls.context
    tls.renew()
    assert tls.context is not before


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["-newkey", "rsa:1024"], "too small"),
        (["-newkey", "ed25519"], "Java clients cannot use"),
    ],
)
def test_keys_that_are_too_small_or_too_new_are_refused_with_a_sentence(
    tmp_path: Path, options: list[str], says: str
) -> None:
    made = Installed(tmp_path)
    command = ["openssl", "req", "-x509", "-nodes", "-subj", "/CN=localhost", "-keyout", str(made.key)]
    subprocess.run([*command, *options, "-out", str(made.cert)], check=True, capture_output=True)
    made.key.chmod(0o600)
    with pytest.raises(ConfigError, match=says):
        made.open()


def test_an_expired_certificate_is_served_and_complained_about(
    certificates: Certificates, installed: Installed, caplog: pytest.LogCaptureFixture
) -> None:
    """Refusing to start would take the keys away from everybody; clients refuse it themselves."""
    installed.put(certificates.authority.issue_server("old", valid_for=-datetime.timedelta(days=1)))
    with caplog.at_level(logging.WARNING):
        installed.open()
    assert "has expired" in caplog.text


def test_two_certificates_of_one_kind_are_refused(certificates: Certificates, other: CertificateFiles) -> None:
    with pytest.raises(ConfigError, match="ECDSA, ECDSA"):
        certificates.server_tls(certificates.server, other)


def test_with_two_certificates_there_is_no_channel_binding(certificates: Certificates) -> None:
    assert certificates.server_tls(certificates.server, certificates.rsa_server).channel_binding is None


def test_asking_for_client_certificates_needs_an_authority(certificates: Certificates) -> None:
    files = certificates.server
    source = PemFiles((PemFile(cert=files.certificate, key=files.key),))
    with pytest.raises(ConfigError, match="authority"):
        ServerTls(source, "required")


def test_keys_do_not_print(certificates: Certificates) -> None:
    files = certificates.server
    material = PemFiles((PemFile(cert=files.certificate, key=files.key),)).read()
    assert files.key.read_text().splitlines()[1] not in repr(material)


def test_keys_leave_no_descriptor_behind(certificates: Certificates) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    certificates.server_tls()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
