"""Trust from PEM files and from Java's own stores, made by Java's keytool."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest
from certificates import STORE_PASSWORD, Certificates, JavaStores

from ringfence_bootstrap.sandbox.requirements import find_java_home
from ringfence_zones.errors import ConfigError
from ringfence_zones.java_truststore import read_trusted_certificates
from ringfence_zones.tls_trust import TlsTrust


def der(certificates: Certificates) -> bytes:
    return ssl.PEM_cert_to_DER_cert(certificates.trusted.read_text())


@pytest.fixture
def hadoop_conf(tmp_path: Path, java_stores: JavaStores) -> Path:
    (tmp_path / "core-site.xml").write_text("<configuration></configuration>")
    values = {"location": java_stores.trust_store, "password": STORE_PASSWORD}
    properties = "".join(
        f"<property><name>ssl.client.truststore.{name}</name><value>{value}</value></property>"
        for name, value in values.items()
    )
    (tmp_path / "ssl-client.xml").write_text(f"<configuration>{properties}</configuration>")
    return tmp_path


@pytest.mark.parametrize("password", [STORE_PASSWORD, None])
def test_a_jks_store_is_read_with_its_password_checked_when_it_is_known(
    java_stores: JavaStores, certificates: Certificates, password: str | None
) -> None:
    assert read_trusted_certificates(java_stores.trust_store, password) == [der(certificates)]


def test_a_pkcs12_store_is_read_whatever_it_is_called(certificates: Certificates, tmp_path: Path) -> None:
    store = tmp_path / "trust.jks"
    certificates.authority.make_trust_store(store, STORE_PASSWORD, find_java_home(os.environ), kind="PKCS12")
    assert read_trusted_certificates(store, STORE_PASSWORD) == [der(certificates)]
    with pytest.raises(ConfigError, match="neither JKS nor PKCS12 with the password"):
        read_trusted_certificates(store, "another")


def test_a_store_that_is_none_says_how_to_make_a_pem_file(java_stores: JavaStores, tmp_path: Path) -> None:
    content = java_stores.trust_store.read_bytes()
    broken = tmp_path / "broken"
    for changed, why in (
        (content[:200], "cut off"),
        (content[:-25] + b"xxxxx" + content[-20:], "was changed"),
        (b"", "neither JKS nor PKCS12"),
    ):
        broken.write_bytes(changed)
        password = None if why == "cut off" else STORE_PASSWORD
        with pytest.raises(ConfigError, match=why) as caught:
            read_trusted_certificates(broken, password)
        assert "kms_ca_file" in (caught.value.hint or "")
    with pytest.raises(ConfigError, match="key store and no trust store"):
        read_trusted_certificates(java_stores.key_store, STORE_PASSWORD)
    with pytest.raises(ConfigError, match="cannot read Java's trust store"):
        read_trusted_certificates(tmp_path / "missing", None)


def test_hadoop_s_trust_store_replaces_the_system_s_authorities(hadoop_conf: Path, certificates: Certificates) -> None:
    context = TlsTrust(hadoop_conf=hadoop_conf).make_context()
    assert context.get_ca_certs(binary_form=True) == [der(certificates)]
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_a_named_file_wins_over_hadoop_s_trust_store(hadoop_conf: Path, certificates: Certificates) -> None:
    (hadoop_conf / "ssl-client.xml").write_text("not read at all")
    context = TlsTrust(certificates.trusted, hadoop_conf).make_context()
    assert context.get_ca_certs(binary_form=True) == [der(certificates)]


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(ConfigError, match=r"ca\.pem as kms_ca_file: it holds no PEM certificate"):
        TlsTrust(tmp_path / "ca.pem").make_context()
    with pytest.raises(ConfigError, match="No such file"):
        TlsTrust(tmp_path / "missing.pem").make_context()


def test_other_clients_get_the_same_certificates_as_pem(
    hadoop_conf: Path, certificates: Certificates, tmp_path: Path
) -> None:
    found = TlsTrust(None, hadoop_conf).find_pem()
    assert found is not None
    assert ssl.PEM_cert_to_DER_cert(found.decode()) == der(certificates)
    assert TlsTrust(certificates.trusted, hadoop_conf).find_pem() == certificates.trusted.read_bytes()
    assert TlsTrust().find_pem() is None
    (tmp_path / "none.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match="holds no PEM certificate"):
        TlsTrust(tmp_path / "none.pem").find_pem()
