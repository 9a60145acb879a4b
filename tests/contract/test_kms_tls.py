"""`ringfence kms serve` over TLS: options, kms.yaml and Hadoop's ssl-server.xml; resumption, reload, refusals."""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from certificates import STORE_PASSWORD, Certificates, JavaStores
from kms_serving import DEADLINE_S, KmsPlace, RunningKms, call, json_of, write_xml

from ringfence_bootstrap.sandbox.certificates import CertificateFiles
from ringfence_bootstrap.sandbox.requirements import find_java_home

NAMES = "/kms/v1/keys/names"


@pytest.fixture
def place(tmp_path: Path) -> KmsPlace:
    return KmsPlace.make(tmp_path)


def pem(files: CertificateFiles) -> tuple[str, ...]:
    return "--tls-cert", str(files.certificate), "--tls-key", str(files.key)


def serial(kms: RunningKms) -> str:
    with kms.connect() as client:
        assert isinstance(client.socket, ssl.SSLSocket)
        return str((client.socket.getpeercert() or {})["serialNumber"])


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.02)


def refusal(place: KmsPlace, *options: str) -> str:
    finished = subprocess.run(place.command(*options), capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 2, finished
    assert finished.stdout == ""
    return finished.stderr


def test_it_says_https_when_ready_and_serves_nothing_else(place: KmsPlace, certificates: Certificates) -> None:
    context = certificates.client_context()
    with place.serving(2, *pem(certificates.server), client_context=context) as kms:
        assert kms.ready_line == f"ready kms://https@localhost:{kms.port}/kms\n"
        for client in kms.every_worker():
            assert json_of(call(client, "GET", NAMES)) == []
        with kms.connect_plain() as plain:
            assert call(plain, "GET", NAMES).status == 400
        # The socket of the administrators is no network and stays as it is.
        with kms.connect_admin() as admin:
            assert call(admin, "GET", "/ringfence/v1/status").status == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_resumed_at_whichever_worker_answers(
    place: KmsPlace, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    context = certificates.client_context()
    context.minimum_version = context.maximum_version = version
    with place.serving(4, *pem(certificates.server), client_context=context) as kms:
        first = kms.one_worker()
        assert isinstance(first.socket, ssl.SSLSocket)
        session = first.socket.session
        slots = set()
        deadline = time.monotonic() + DEADLINE_S
        for number in range(500):
            with kms.connect(session=session) as client:
                assert isinstance(client.socket, ssl.SSLSocket)
                assert client.socket.session_reused
                slots.add(kms.slot_of(client, f"resumed-{number}"))
            if len(slots) == 4:
                break
            assert time.monotonic() < deadline
        assert slots == {0, 1, 2, 3}


def test_a_new_certificate_is_served_without_dropping_a_connection(
    tmp_path: Path, place: KmsPlace, certificates: Certificates
) -> None:
    files = CertificateFiles(tmp_path / "tls.pem", tmp_path / "tls.key")

    def install(new: CertificateFiles) -> None:
        for source, target in ((new.key, files.key), (new.certificate, files.certificate)):
            shutil.copy(source, target.with_suffix(".new"))
            target.with_suffix(".new").replace(target)

    install(certificates.server)
    other = certificates.authority.issue_server("renewed")
    with place.serving(2, *pem(files), client_context=certificates.client_context()) as kms:
        kept = kms.every_worker()
        old = serial(kms)
        # Half of a renewal: the certificate without its key. Nothing changes, and it is said.
        shutil.copy(other.certificate, files.certificate)
        assert kms.process.stderr is not None
        assert b"the old one stays" in kms.process.stderr.readline()
        assert serial(kms) == old
        install(other)
        wait_until(lambda: all(serial(kms) != old for _ in range(8)))
        for client in kept:
            assert call(client, "GET", NAMES).status == 200


def test_sighup_takes_up_a_new_certificate_without_failing_a_request(
    tmp_path: Path, place: KmsPlace, certificates: Certificates
) -> None:
    files = CertificateFiles(tmp_path / "tls.pem", tmp_path / "tls.key")
    for source, target in ((certificates.server.key, files.key), (certificates.server.certificate, files.certificate)):
        shutil.copy(source, target)
    stop, failures, served = threading.Event(), [], []

    def ask(kms: RunningKms) -> None:
        while not stop.is_set():
            try:
                with kms.connect() as client:
                    served.append(call(client, "GET", NAMES).status)
            except OSError as error:
                failures.append(repr(error))

    with place.serving(2, *pem(files), client_context=certificates.client_context()) as kms:
        old = serial(kms)
        threads = [threading.Thread(target=ask, args=(kms,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        other = certificates.authority.issue_server("reloaded")
        for source, target in ((other.key, files.key), (other.certificate, files.certificate)):
            shutil.copy(source, target)
        kms.process.send_signal(signal.SIGHUP)
        wait_until(lambda: all(serial(kms) != old for _ in range(8)))
        before = len(served)
        wait_until(lambda: len(served) > before + 20)
        stop.set()
        for thread in threads:
            thread.join(DEADLINE_S)
    assert failures == []
    assert set(served) == {200}


def test_kms_yaml_names_two_certificates_and_the_clients_authority(
    tmp_path: Path, place: KmsPlace, certificates: Certificates
) -> None:
    ecdsa, rsa = certificates.server, certificates.rsa_server
    config = tmp_path / "kms.yaml"
    config.write_text(
        f"keystore: sqlite:///{place.store}\nhadoop_conf: {place.conf}\nlisten: localhost:0\n"
        f"tls:\n  cert: {ecdsa.certificate}\n  key: {ecdsa.key}\n"
        f"  second:\n    cert: {rsa.certificate}\n    key: {rsa.key}\n"
        f"  client_ca: {certificates.trusted}\n  client_auth: required\n"
    )
    command = [place.command()[0], "kms", "serve", "--config", str(config), "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    kms = RunningKms(place, process, 1)
    try:
        kms.wait_until_ready()
        for ciphers in ("ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384"):
            context = certificates.client_context(certificates.client)
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers(ciphers)
            with kms.connect(context) as client:
                assert call(client, "GET", NAMES).status == 200
        nobody = certificates.client_context()
        nobody.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError):
            kms.connect(nobody)
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE_S)


def ssl_server_xml(place: KmsPlace, store: Path, kind: str = "jks", **more: str) -> None:
    write_xml(place.conf / "kms-site.xml", {"hadoop.kms.ssl.enabled": "true"})
    properties = {
        "ssl.server.keystore.location": str(store),
        "ssl.server.keystore.password": STORE_PASSWORD,
        "ssl.server.keystore.type": kind,
    }
    write_xml(place.conf / "ssl-server.xml", {**properties, **more})


@pytest.mark.parametrize("kind", ["JKS", "PKCS12"])
@pytest.mark.parametrize("algorithm", ["server", "rsa_server"])
def test_the_key_store_of_hadoops_own_configuration_is_served(
    tmp_path: Path, place: KmsPlace, certificates: Certificates, kind: str, algorithm: str
) -> None:
    files = getattr(certificates, algorithm)
    store = certificates.authority.make_key_store(
        files,
        tmp_path / "kms.store",
        STORE_PASSWORD,
        find_java_home(os.environ),
        kind=kind,  # type: ignore[arg-type]
    )
    ssl_server_xml(place, store)  # the type says jks either way, as it does on most clusters
    with place.serving(1, client_context=certificates.client_context()) as kms:
        assert kms.ready_line.startswith("ready kms://https@")
        assert json_of(call(kms.one_worker(), "GET", NAMES)) == []


def test_hadoops_trust_store_decides_which_clients_are_served(
    place: KmsPlace, certificates: Certificates, java_stores: JavaStores
) -> None:
    ssl_server_xml(
        place,
        java_stores.key_store,
        **{
            "ssl.server.need.client.auth": "true",
            "ssl.server.truststore.location": str(java_stores.trust_store),
            "ssl.server.truststore.password": STORE_PASSWORD,
        },
    )
    context = certificates.client_context(certificates.client)
    with place.serving(1, client_context=context) as kms:
        with kms.connect() as client:
            assert call(client, "GET", NAMES).status == 200
        stranger = certificates.client_context()
        stranger.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError):
            kms.connect(stranger)


def test_options_overrule_hadoops_configuration(place: KmsPlace, certificates: Certificates, tmp_path: Path) -> None:
    ssl_server_xml(place, tmp_path / "absent.jks")
    with place.serving(1, *pem(certificates.server), client_context=certificates.client_context()) as kms:
        assert call(kms.one_worker(), "GET", NAMES).status == 200


def test_a_configuration_that_cannot_serve_tls_serves_nothing(
    tmp_path: Path, place: KmsPlace, certificates: Certificates, java_stores: JavaStores
) -> None:
    files = certificates.server
    assert "give both --tls-cert PEM and --tls-key PEM" in refusal(place, "--tls-cert", str(files.certificate))
    absent = tmp_path / "absent.pem"
    assert str(absent) in refusal(place, "--tls-cert", str(absent), "--tls-key", str(files.key))
    wrong = refusal(place, "--tls-cert", str(files.certificate), "--tls-key", str(certificates.rsa_server.key))
    assert "the private key is of another kind" in wrong
    write_xml(place.conf / "kms-site.xml", {"hadoop.kms.ssl.enabled": "true"})
    assert "ssl.server.keystore.location" in refusal(place)
    ssl_server_xml(place, java_stores.key_store, **{"ssl.server.keystore.password": "not the password"})
    said = refusal(place)
    assert "its password is another one" in said
    assert "not the password" not in said
    ssl_server_xml(place, java_stores.key_store, kind="bcfks")
    assert f"keytool -importkeystore -srckeystore {java_stores.key_store} -srcstoretype bcfks" in refusal(place)


def test_a_small_key_in_hadoops_store_is_refused_and_the_level_not_lowered(tmp_path: Path, place: KmsPlace) -> None:
    store = tmp_path / "small.jks"
    command = [str(find_java_home(os.environ) / "bin/keytool"), "-genkeypair", "-alias", "server", "-keyalg", "RSA"]
    command += ["-keysize", "1024", "-dname", "CN=localhost", "-keystore", str(store), "-storetype", "JKS"]
    subprocess.run([*command, "-storepass", STORE_PASSWORD], check=True, capture_output=True, timeout=60)
    store.chmod(0o600)
    ssl_server_xml(place, store)
    assert "its key is too small to be safe (RSA needs 2048 bits)" in refusal(place)
