"""Where TLS comes from, and what is refused with which sentence. Serving with it is tests/contract/test_kms_tls."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from certificates import STORE_PASSWORD, Certificates, JavaStores
from kms_serving import write_xml

from ringfence_agent.http.pem_files import PemFiles
from ringfence_agent.http.tls_settings import TlsBlock
from ringfence_agent.kms.java_key_store import read_java_key_store
from ringfence_agent.kms.tls_config import tls_settings
from ringfence_bootstrap.sandbox.requirements import find_java_home
from ringfence_zones.config_file import parse_config
from ringfence_zones.errors import ConfigError
from ringfence_zones.hadoop_conf import HadoopConf, read_hadoop_conf
from ringfence_zones.secret import Secret

NOTHING = HadoopConf({})
PASSWORD = Secret(STORE_PASSWORD.encode())


def block(text: str) -> TlsBlock:
    return parse_config(text, "kms.yaml", TlsBlock)


def hadoop(directory: Path, **properties: str) -> HadoopConf:
    write_xml(directory / "kms-site.xml", {"hadoop.kms.ssl.enabled": "true"})
    write_xml(directory / "ssl-server.xml", {name.replace("_", "."): value for name, value in properties.items()})
    return read_hadoop_conf(directory, "kms-site.xml")


def test_nothing_said_means_plain_http(tmp_path: Path) -> None:
    write_xml(tmp_path / "kms-site.xml", {"hadoop.kms.ssl.enabled": "false"})
    assert tls_settings(None, None, None, read_hadoop_conf(tmp_path, "kms-site.xml"), tmp_path) is None
    assert tls_settings(None, None, None, NOTHING, None) is None


def test_options_take_the_place_of_the_blocks_certificate_and_leave_its_clients(certificates: Certificates) -> None:
    files = certificates.server
    configured = block(f"cert: /c\nkey: /k\nclient_ca: {certificates.trusted}\nclient_auth: required\n")
    settings = tls_settings(files.certificate, files.key, configured, NOTHING, None)
    assert settings is not None
    assert settings.client_auth == "required"
    assert list(settings.source.paths) == [files.certificate, files.key, certificates.trusted]
    settings.open()


@pytest.mark.parametrize(
    "text",
    ["cert: /c\nkey: /k\nclient_auth: required\n", "cert: /c\nkey: /k\nclient_ca: /a\n", "cert: /c\n", "key: /k\n"],
)
def test_half_a_block_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        block(text)


def test_an_encrypted_key_opens_with_the_password_in_its_file(certificates: Certificates, tmp_path: Path) -> None:
    key, password = tmp_path / "k.pem", tmp_path / "password"
    password.write_text("correct horse\n")
    password.chmod(0o600)
    encrypt = ["openssl", "pkey", "-in", str(certificates.server.key), "-aes256", "-passout", f"file:{password}"]
    subprocess.run([*encrypt, "-out", str(key)], check=True, capture_output=True)
    key.chmod(0o600)
    text = f"cert: {certificates.server.certificate}\nkey: {key}\n"
    opened = tls_settings(None, None, block(f"{text}key_password_file: {password}\n"), NOTHING, None)
    assert opened is not None
    opened.open()
    with pytest.raises(ConfigError, match="is encrypted") as refused:
        PemFiles((block(text),)).read()
    assert refused.value.command == f"openssl pkey -in {key} -out {key}.plain"
    password.write_text("wrong\n")
    with pytest.raises(ConfigError, match="does not open"):
        PemFiles((block(f"{text}key_password_file: {password}\n"),)).read()


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o660, 0o602])
def test_a_key_that_others_can_read_or_change_is_refused(certificates: Certificates, tmp_path: Path, mode: int) -> None:
    key = tmp_path / "k.pem"
    key.write_bytes(certificates.server.key.read_bytes())
    key.chmod(mode)
    settings = tls_settings(certificates.server.certificate, key, None, NOTHING, None)
    assert settings is not None
    with pytest.raises(ConfigError, match="others can read or change") as refused:
        settings.open()
    assert refused.value.command == f"chmod u=rw,g=r,o= {key}"
    subprocess.run(str(refused.value.command).split(), check=True)
    settings.open()


def test_a_password_in_a_credential_provider_is_refused_with_the_ways_out(tmp_path: Path) -> None:
    conf = hadoop(
        tmp_path,
        ssl_server_keystore_location="/s.jks",
        hadoop_security_credential_provider_path="jceks://file/creds.jceks",
    )
    with pytest.raises(ConfigError, match="credential provider") as refused:
        tls_settings(None, None, None, conf, tmp_path)
    assert "--tls-cert" in (refused.value.hint or "")


def test_client_certificates_need_hadoops_trust_store(tmp_path: Path) -> None:
    conf = hadoop(
        tmp_path,
        ssl_server_keystore_location="/s.jks",
        ssl_server_keystore_password="p",
        ssl_server_need_client_auth="true",
    )
    with pytest.raises(ConfigError, match="truststore"):
        tls_settings(None, None, None, conf, tmp_path)


# -- Java's stores


def keytool(*arguments: str) -> None:
    subprocess.run(
        [str(find_java_home(os.environ) / "bin/keytool"), *arguments], check=True, capture_output=True, timeout=60
    )


def test_a_jks_store_gives_key_and_chain_as_they_were(certificates: Certificates, java_stores: JavaStores) -> None:
    (entry,) = read_java_key_store(java_stores.key_store, PASSWORD).keys
    assert entry.alias == "server"
    assert entry.key.reveal() == certificates.server.key.read_bytes()
    assert entry.chain == certificates.server.certificate.read_bytes() + certificates.trusted.read_bytes()
    (trusted,) = read_java_key_store(java_stores.trust_store, PASSWORD).trusted
    assert trusted == certificates.trusted.read_bytes()


def test_a_pkcs12_store_gives_the_same(certificates: Certificates, tmp_path: Path) -> None:
    store = certificates.authority.make_key_store(
        certificates.server, tmp_path / "s.p12", STORE_PASSWORD, find_java_home(os.environ), kind="PKCS12"
    )
    (entry,) = read_java_key_store(store, PASSWORD).keys
    assert entry.key.reveal() == certificates.server.key.read_bytes()
    assert entry.chain == certificates.server.certificate.read_bytes() + certificates.trusted.read_bytes()


def test_a_key_with_a_password_of_its_own_needs_that_one(tmp_path: Path) -> None:
    store = tmp_path / "s.jks"
    make = ["-genkeypair", "-alias", "kms", "-keyalg", "EC", "-dname", "CN=localhost", "-storetype", "JKS"]
    keytool(*make, "-keystore", str(store), "-storepass", STORE_PASSWORD, "-keypass", "another-password")
    (entry,) = read_java_key_store(store, PASSWORD, Secret(b"another-password")).keys
    assert b"PRIVATE KEY" in entry.key.reveal()
    with pytest.raises(ConfigError, match="another password than the store"):
        read_java_key_store(store, PASSWORD)


@pytest.mark.parametrize("cut", [4, 12, 200, -21, -1])
def test_a_store_that_is_cut_off_or_changed_is_refused(java_stores: JavaStores, tmp_path: Path, cut: int) -> None:
    whole = java_stores.key_store.read_bytes()
    damaged = tmp_path / "d.jks"
    for content in (whole[:cut], whole[: cut - 1] + bytes([whole[cut - 1] ^ 1]) + whole[cut:]):
        damaged.write_bytes(content)
        with pytest.raises(ConfigError):
            read_java_key_store(damaged, PASSWORD)


def test_another_kind_of_store_is_refused_with_the_command_that_converts_it(tmp_path: Path) -> None:
    store = tmp_path / "s.jceks"
    make = ["-genkeypair", "-alias", "kms", "-keyalg", "EC", "-dname", "CN=localhost", "-storetype", "JCEKS"]
    keytool(*make, "-keystore", str(store), "-storepass", STORE_PASSWORD)
    with pytest.raises(ConfigError, match="neither JKS nor PKCS12") as refused:
        read_java_key_store(store, PASSWORD)
    command = str(refused.value.command).split()
    assert command[0] == "keytool"
    keytool(*command[1:], "-srcstorepass", STORE_PASSWORD, "-deststorepass", STORE_PASSWORD)
    assert read_java_key_store(tmp_path / "s.p12", PASSWORD).keys


def test_no_key_or_password_shows(java_stores: JavaStores) -> None:
    store = read_java_key_store(java_stores.key_store, PASSWORD)
    assert "PRIVATE" not in repr(store)
    with pytest.raises(ConfigError) as refused:
        read_java_key_store(java_stores.key_store, Secret(b"not-the-password"))
    assert "not-the-password" not in str(refused.value)
