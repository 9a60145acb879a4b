"""The jar of EMR's custom providers, called as EMR calls them, against Vault over HTTP."""

from __future__ import annotations

import base64
import datetime
import json
import re
import secrets
import ssl
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from certificates import Certificates
from cryptography.hazmat.primitives import serialization
from emr_providers import (
    DISK,
    S3,
    TLS,
    ProviderRefusedError,
    Providers,
    build_jar,
    running_providers,
    sdk_jars,
    write_settings,
)
from scripted_http import Answer, ScriptedServer, Seen, scripted_server
from vault_contract import ContractServer, contract_kinds, contract_server
from vault_doubles import VaultDouble, running_vault

from ringfence_bootstrap.sandbox.certificates import CertificateFiles

CHECKOUT = Path(__file__).parents[2]
PROVIDERS = CHECKOUT / "bootstrap/emr/providers"
PAGE = (CHECKOUT / "packaging/docs/emr-providers.md").read_text()
PATTERN = "a text that must not be seen in the bucket " * 20
# Modes of the SDK's first encryption client (fs.s3.cse.cryptoMode of EMRFS), and its second.
CLIENTS = ("EncryptionOnly", "AuthenticatedEncryption", "StrictAuthenticatedEncryption", "V2")
POLICY = """
path "{kv}/data/emr/*" { capabilities = ["read"] }
path "{transit}/keys/+" { capabilities = ["read"] }
path "{transit}/datakey/plaintext/+" { capabilities = ["update"] }
path "{transit}/decrypt/+" { capabilities = ["update"] }
"""


@pytest.fixture(scope="module")
def jar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_jar(tmp_path_factory.mktemp("jar") / "providers.jar")


@pytest.fixture(scope="module")
def providers() -> Iterator[Providers]:
    with running_providers() as running:
        yield running


@pytest.fixture(scope="module", params=contract_kinds())
def vault(request: pytest.FixtureRequest) -> Iterator[ContractServer]:
    with contract_server(request.param) as server:
        yield server


@dataclass
class Place:
    """A test's own directory, its keys in Vault, and a node's token there."""

    directory: Path
    providers: Providers
    jar: Path
    vault: ContractServer
    token: str
    made: int = 0
    extra: dict[str, object] = field(default_factory=dict)

    def settings(self, **changed: object) -> Path:
        """A node's properties; `vault_login` stands for vault.login, None leaves out."""
        token_file = self.directory / "token"
        token_file.touch(0o600)
        token_file.write_text(self.token)
        settings: dict[str, object] = {
            "vault.addresses": self.vault.address,
            "vault.namespace": self.vault.namespace or None,
            "vault.ca-file": self.vault.ca_file,
            "vault.login": "token-file",
            "vault.token-file": token_file,
            "vault.deadline-s": 10,
            "context": "analytics",
            "emr.release": "emr-7.12.0",
            "tls.mount": self.vault.kv,
            "disk.mount": self.vault.transit,
            "s3.mount": self.vault.transit,
            **self.extra,
        }
        for name, value in changed.items():
            settings[name.replace("__", "-").replace("_", ".", 1)] = value
        self.made += 1
        return write_settings(self.directory / f"settings-{self.made}", settings)

    def make(self, provider: str, **changed: object) -> str:
        """A provider with such settings; its name."""
        name = f"p{secrets.token_hex(4)}"
        self.providers.do("make", name, self.jar, provider, self.settings(**changed))
        return name

    def secret(self, **fields: str) -> str:
        """A new secret with these fields (`_` for `.`); its path below the mount."""
        path = f"emr/{secrets.token_hex(4)}"
        data = {name.replace("_", "."): text for name, text in fields.items()}
        self.providers.secrets += [fields["privateKey_pem"]] if "privateKey_pem" in fields else []
        self.vault.done("POST", f"{self.vault.kv}/data/{path}", {"data": data, "options": {"cas": 0}})
        return path


@pytest.fixture
def place(tmp_path: Path, providers: Providers, jar: Path, vault: ContractServer) -> Place:
    token = vault.token_for(POLICY)
    providers.secrets += [token, vault.token]
    return Place(tmp_path, providers, jar, vault, token)


def refusal(place: Place, *words: object) -> str:
    """What a provider says of an order that it does not follow; its own words and nobody else's."""
    with pytest.raises(ProviderRefusedError) as caught:
        place.providers.do(*words)
    assert caught.value.java_class == "ringfence.emr.ProviderException", str(caught.value)
    return str(caught.value)


def refused_settings(place: Place, provider: str, **changed: object) -> str:
    return refusal(place, "make", "none", place.jar, provider, place.settings(**changed))


def der_key(files: CertificateFiles) -> bytes:
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def pem(files: CertificateFiles, form: serialization.PrivateFormat, passphrase: bytes | None = None) -> str:
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    sealed = serialization.NoEncryption() if passphrase is None else serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(serialization.Encoding.PEM, form, sealed).decode()


def description(told: dict[str, str]) -> list[str]:
    """A key's description, as EMR keeps it and brings it back."""
    return [name.removeprefix("description.") + "=" + value for name, value in told.items() if "description." in name]


# -- the jar


def test_the_jar_is_for_java_8_and_holds_the_providers_alone(jar: Path) -> None:
    with zipfile.ZipFile(jar) as archive:
        names = archive.namelist()
        versions = {archive.read(name)[7] for name in names if name.endswith(".class")}
        dates = {entry.date_time for entry in archive.infolist()}
    assert versions == {52}
    assert names == sorted(names) and dates == {(1980, 1, 1, 0, 0, 0)}
    assert {str(Path(name).parent) for name in names} == {"META-INF", "ringfence/emr"}
    # R5 of the reference: EMR wants different classes for disk and S3.
    assert {f"{name.replace('.', '/')}.class" for name in (TLS, DISK, S3)} < set(names)


def test_settings_in_the_jar_serve_when_no_file_does(place: Place, certificates: Certificates) -> None:
    own = place.directory / "own.jar"
    own.write_bytes(place.jar.read_bytes())
    path = place.secret(
        privateKey_pem=certificates.server.key.read_text(),
        certificateChain_pem=certificates.server.certificate.read_text(),
    )
    settings = place.settings(tls_path=path, vault_ca__file="jar:vault-ca.pem")
    with zipfile.ZipFile(own, "a") as archive:
        archive.write(settings, "ringfence-emr-providers.properties")
        archive.write(certificates.trusted, "vault-ca.pem")
    place.providers.do("make", "embedded", own, TLS)
    assert base64.b64decode(place.providers.do("tls", "embedded")["key"]) == der_key(certificates.server)
    assert "there are no settings" in refusal(place, "make", "none", place.jar, TLS)


def test_disk_and_tls_providers_need_the_jdk_and_their_interfaces_alone(place: Place) -> None:
    (sdk,) = sdk_jars().glob("aws-java-sdk-emr-*.jar")
    settings = place.settings(disk_key="k", tls_path="emr/tls")
    for provider in (DISK, TLS):
        place.providers.do("make-alone", provider, settings, place.jar, sdk)
    with pytest.raises(ProviderRefusedError, match=r"Configurable|EncryptionMaterialsProvider"):
        place.providers.do("make-alone", S3, settings, place.jar, sdk)


def test_every_setting_stands_on_the_page() -> None:
    source = (PROVIDERS / "src/ringfence/emr/Settings.java").read_text()
    names = set(re.findall(r'"([a-z0-9.-]+)"', source.partition("NAMES =")[2].partition(";")[0]))
    rows = re.findall(r"^\| (`.*?`) \|", PAGE.partition("## Settings")[2], re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`([a-z0-9.-]+)`", row)} == names


def test_a_secret_in_a_message_would_be_seen(providers: Providers) -> None:
    providers.secrets.append("a-planted-secret")
    with pytest.raises(AssertionError, match="a message holds a secret"):
        providers.do("a-planted-secret")


# -- TLS artifacts


@pytest.mark.parametrize("kind", ["server", "rsa_server"])
def test_tls_artifacts_come_from_one_secret(place: Place, certificates: Certificates, kind: str) -> None:
    files: CertificateFiles = getattr(certificates, kind)
    trusted = certificates.trusted.read_text()
    fields = {"privateKey_pem": files.key.read_text(), "certificateChain_pem": files.certificate.read_text()}
    with_trusted = place.make(TLS, tls_path=place.secret(**fields, trustedCertificates_pem=trusted))
    told = place.providers.do("tls", with_trusted)
    assert base64.b64decode(told["key"]) == der_key(files)
    assert told["chain"] == str(files.certificate.read_text().count("BEGIN CERTIFICATE"))
    assert base64.encodebytes(base64.b64decode(told["trusted"])).split()[0].decode() in trusted.replace("\n", "")
    assert place.providers.do("tls", place.make(TLS, tls_path=place.secret(**fields)))["trusted"] == "null"


def test_tls_artifacts_that_do_not_fit_are_refused_by_name(place: Place, certificates: Certificates) -> None:
    good, other = certificates.rsa_server, certificates.server
    key, chain = good.key.read_text(), good.certificate.read_text()
    expired = certificates.authority.issue_server("expired", valid_for=datetime.timedelta(days=-1))
    form = serialization.PrivateFormat
    cases: list[tuple[dict[str, str], str]] = [
        ({"certificateChain_pem": chain}, "has no privateKey.pem"),
        ({"privateKey_pem": key}, "has no certificateChain.pem"),
        ({"privateKey_pem": key, "certificateChain_pem": "none"}, "certificateChain.pem at .* holds no certificate"),
        ({"privateKey_pem": key, "certificateChain_pem": key}, "something that is not a certificate"),
        ({"privateKey_pem": pem(good, form.PKCS8, b"secret"), "certificateChain_pem": chain}, "without a passphrase"),
        ({"privateKey_pem": pem(good, form.TraditionalOpenSSL), "certificateChain_pem": chain}, "openssl pkcs8 -topk8"),
        ({"privateKey_pem": other.key.read_text(), "certificateChain_pem": chain}, "certificate's kind, RSA"),
        ({"privateKey_pem": expired.key.read_text(), "certificateChain_pem": other.certificate.read_text()},
         "does not belong to the first certificate"),
        ({"privateKey_pem": expired.key.read_text(), "certificateChain_pem": expired.certificate.read_text()},
         "certificate 1 of certificateChain.pem .* not valid today"),
        ({"privateKey_pem": key, "certificateChain_pem": chain + chain}, "not signed by the one after it"),
        ({"privateKey_pem": key, "certificateChain_pem": chain, "trustedCertificates_pem": ""}, "trustedCertificates"),
    ]  # fmt: skip
    for fields, told in cases:
        name = place.make(TLS, tls_path=place.secret(**fields))
        with pytest.raises(ProviderRefusedError, match=told):
            place.providers.do("tls", name)


def test_a_secret_that_is_not_there_or_not_allowed_is_told_apart(place: Place) -> None:
    assert "404 to GET" in refusal(place, "tls", place.make(TLS, tls_path="emr/absent"))
    assert "403 to GET" in refusal(place, "tls", place.make(TLS, tls_path="elsewhere/tls"))
    path = place.secret(privateKey_pem="unused key")
    place.vault.done("DELETE", f"{place.vault.kv}/data/{path}")
    assert "404 to GET" in refusal(place, "tls", place.make(TLS, tls_path=path))


# -- local disks


@pytest.mark.parametrize(
    ("release", "algorithm"),
    [("emr-5.36.2", "AES/GCM/NoPadding"), ("emr-7.0.0", "AES/GCM/NoPadding"), ("emr-7.1.0", "AES")],
)
def test_a_disk_s_key_comes_back_by_its_description(place: Place, release: str, algorithm: str) -> None:
    changed = {"disk_key": place.vault.key(), "emr_release": release}
    told = place.providers.do("disk-new", place.make(DISK, **changed), "LOCAL_DISK")
    assert len(base64.b64decode(told["key"])) == 32 and told["algorithm"] == algorithm
    assert told["key"] not in " ".join(description(told))
    # After a reboot it is another process that asks.
    again = place.make(DISK, **changed)
    assert place.providers.do("disk-again", again, *description(told)) == told
    assert place.providers.do("disk-new", again, "LOCAL_DISK")["key"] != told["key"]


def test_no_other_key_is_given_for_a_disk(place: Place) -> None:
    key, elsewhere = place.vault.key(), place.vault.key()
    name = place.make(DISK, disk_key=key)
    told = place.providers.do("disk-new", name, "LOCAL_DISK")
    assert "not for a local disk" in refusal(place, "disk-new", name, "S3")
    assert "without its description" in refusal(place, "disk-again", name, "null")
    assert "no key of Ringfence's" in refusal(place, "disk-again", name, "some=thing")
    moved = place.make(DISK, disk_key=elsewhere)
    assert "another Transit key" in refusal(place, "disk-again", moved, *description(told))
    wrapped = told["description.ringfence.data-key"]
    transit_key = f"ringfence.transit-key={place.vault.transit}/{key}"
    other_bit = wrapped[:30] + ("A" if wrapped[30] != "A" else "B") + wrapped[31:]
    broken = refusal(place, "disk-again", name, transit_key, f"ringfence.data-key={other_bit}")
    assert "Vault answered 400 to POST" in broken
    sneaky = refusal(place, "disk-again", name, transit_key, f"ringfence.data-key={wrapped}\n")
    assert "is not a ciphertext of Vault's" in sneaky


def test_a_key_is_bound_to_what_it_is_for_and_to_the_context(place: Place) -> None:
    key = place.vault.key()
    told = place.providers.do("disk-new", place.make(DISK, disk_key=key), "LOCAL_DISK")
    as_s3 = place.make(S3, s3_key=key)
    assert "400 to POST" in refusal(place, "s3-described", as_s3, *description(told))
    others = place.make(DISK, disk_key=key, context="reporting")
    assert "400 to POST" in refusal(place, "disk-again", others, *description(told))


@pytest.mark.parametrize("parameters", [{"derived": False}, {"exportable": True}])
def test_a_transit_key_that_binds_nothing_or_can_leave_is_refused(place: Place, parameters: dict[str, bool]) -> None:
    name = place.make(DISK, disk_key=place.vault.key(**parameters))
    assert "is not derived, or can be exported" in refusal(place, "disk-new", name, "LOCAL_DISK")


# -- S3


def test_keys_for_s3_serve_a_while_and_are_opened_once(place: Place) -> None:
    key = place.vault.key()
    writer, reader = place.make(S3, s3_key=key), place.make(S3, s3_key=key)
    first = place.providers.do("s3-new", writer)
    assert first["algorithm"] == "AES" and len(base64.b64decode(first["key"])) == 32
    emrfs = ["S3URI=s3://bucket/a", "JobFlowId=j-ABCDEFGHIJKL"]
    assert place.providers.do("s3-described", writer, *emrfs) == first
    assert place.providers.do("s3-described", writer, "null") == first
    assert place.providers.do("s3-described", reader, *description(first), *emrfs) == first
    if place.vault.double is not None:
        place.vault.double.forget_requests()
        place.providers.do("s3-described", reader, *description(first))
        assert place.vault.double.requests() == []
        place.providers.do("refresh", reader)
        place.providers.do("s3-described", reader, *description(first))
        assert [seen["path"] for seen in place.vault.double.requests()] == [f"{place.vault.transit}/decrypt/{key}"]
    place.providers.do("refresh", writer)
    assert place.providers.do("s3-new", writer)["key"] != first["key"]


def test_a_key_for_writing_is_replaced_after_its_time(place: Place) -> None:
    writer = place.make(S3, s3_key=place.vault.key(), s3_new__key__s=1)
    first = place.providers.do("s3-new", writer)
    deadline = time.monotonic() + 20
    while place.providers.do("s3-new", writer)["key"] == first["key"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("client", CLIENTS)
def test_the_sdk_s_own_clients_write_and_read_objects(place: Place, client: str) -> None:
    key = place.vault.key()
    writer, reader = place.make(S3, s3_key=key), place.make(S3, s3_key=key)
    for name, described in (("plain", []), ("described", ["described"])):
        told = place.providers.do("put", writer, f"{client}/{name}", client, PATTERN, *described)
        assert PATTERN.encode()[:16] not in base64.b64decode(told["stored"])
        kept = json.loads(told["metadata.x-amz-meta-x-amz-matdesc"])
        assert set(kept) >= {"ringfence.data-key", "ringfence.transit-key"}
        assert place.providers.do("get", reader, f"{client}/{name}", client) == {"text": PATTERN}


@pytest.mark.parametrize("client", ["EncryptionOnly", "AuthenticatedEncryption"])
def test_under_the_name_of_aws_s_guide_the_sdk_writes_what_nobody_reads(providers: Providers, client: str) -> None:
    """Why the provider calls its keys AES: see decision 0044."""
    providers.do("make-fixed", "gcm", "AES/GCM/NoPadding")
    providers.do("put", "gcm", f"gcm/{client}", client, PATTERN)
    with pytest.raises(ProviderRefusedError, match="No GCMParameterSpec specified"):
        providers.do("get", "gcm", f"gcm/{client}", client)


def test_hadoop_s_configuration_may_name_the_settings(place: Place) -> None:
    settings = place.settings(s3_key=place.vault.key())
    place.providers.do("make", "configured", place.jar, S3)
    place.providers.do("configure", "configured", "ringfence.providers.properties", settings)
    assert len(base64.b64decode(place.providers.do("s3-new", "configured")["key"])) == 32


# -- the way to Vault


def test_settings_are_refused_by_name(place: Place) -> None:
    cases: list[tuple[dict[str, object], str]] = [
        ({"vault_addreses": "x"}, "unknown setting vault.addreses"),
        ({"vault_addresses": "http://vault.example.com:8200"}, "not https, and not on this machine"),
        ({"vault_addresses": "https://user:word@vault.example.com"}, "vault.addresses is not an address like"),
        ({"vault_login": "approle"}, "vault.login is none of"),
        ({"vault_login": None}, "vault.login is missing"),
        ({"vault_deadline__s": "soon"}, "vault.deadline-s is not a number of seconds"),
        ({"vault_ca__file": "/nowhere.pem"}, "cannot read vault.ca-file /nowhere.pem"),
        ({"disk_key": "../../sys/seal"}, "disk.key is not of the form"),
        ({"disk_mount": "a/../b"}, "disk.mount is not of the form"),
        ({"emr_release": "7.12"}, "emr.release is not of the form"),
        ({"emr_release": None}, "emr.release is missing"),
        ({"context": None}, "context is missing"),
        ({"vault_login": "aws"}, "vault.aws.role is missing"),
        ({"vault_login": "aws", "vault_aws.role": "emr"}, "vault.aws.server-id is missing"),
    ]
    for changed, told in cases:
        assert told in refused_settings(place, DISK, **{"disk_key": "k", **changed}), changed
    twice = place.settings(disk_key="k")
    twice.write_text(twice.read_text() + "disk.key=other\n")
    assert "disk.key is set twice" in refusal(place, "make", "none", place.jar, DISK, twice)
    open_to_all = place.settings(disk_key="k")
    open_to_all.chmod(0o666)
    assert "chmod go-w" in refusal(place, "make", "none", place.jar, DISK, open_to_all)
    settings = place.settings(disk_key="k")
    (place.directory / "token").chmod(0o640)
    assert "chmod 600" in refusal(place, "make", "none", place.jar, DISK, settings)


def test_a_new_token_in_the_file_is_taken_when_the_old_one_ends(place: Place) -> None:
    name = place.make(DISK, disk_key=place.vault.key())
    place.providers.do("disk-new", name, "LOCAL_DISK")
    place.vault.done("POST", "auth/token/revoke", {"token": place.token})
    assert "403 to POST" in refusal(place, "disk-new", name, "LOCAL_DISK")
    renewed = place.vault.token_for(POLICY)
    (place.directory / "token").write_text(renewed)
    assert place.providers.do("disk-new", name, "LOCAL_DISK")["key"]


@pytest.fixture(scope="module")
def secure(certificates: Certificates) -> Iterator[VaultDouble]:
    """HashiCorp's flavour over TLS, with the AWS login and a derived key `disk`."""
    with running_vault(flavour="hashicorp", tls=certificates.server, ca_file=certificates.trusted) as double:
        _prepare_aws(double)
        double.call("POST", "sys/mounts/transit", {"type": "transit"})
        double.call("POST", "transit/keys/disk", {"type": "aes256-gcm96", "derived": True})
        policy = POLICY.replace("{transit}", "transit").replace("{kv}", "kv")
        assert double.call("PUT", "sys/policies/acl/emr", {"policy": policy}).status < 300
        yield double


REGION, SERVER_ID, KEY_ID = "eu-central-1", "vault.analytics", "ASIAEXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


def _prepare_aws(double: VaultDouble) -> None:
    arn = "arn:aws:sts::123456789012:assumed-role/EMR_EC2_DefaultRole/i-0123456789abcdef0"
    double.order("aws_identity", access_key_id=KEY_ID, secret_key=SECRET_KEY, arn=arn)
    double.call("POST", "sys/auth/aws", {"type": "aws"})
    endpoint = f"https://sts.{REGION}.amazonaws.com"
    config = {"iam_server_id_header_value": SERVER_ID, "sts_endpoint": endpoint, "sts_region": REGION}
    assert double.call("POST", "auth/aws/config/client", config).status == 204
    principal = "arn:aws:iam::123456789012:role/EMR_EC2_DefaultRole"
    role = {"auth_type": "iam", "bound_iam_principal_arn": principal, "token_policies": "emr", "token_ttl": "1h"}
    assert double.call("POST", "auth/aws/role/emr-node", role).status == 204


def instance_metadata(seen: Seen) -> Answer:
    """Version 2 of the instance metadata service, and nothing for those who speak version 1."""
    if (seen.method, seen.target) == ("PUT", "/latest/api/token"):
        assert seen.headers["x-aws-ec2-metadata-token-ttl-seconds"]
        return 200, b"a-metadata-token"
    if seen.headers.get("x-aws-ec2-metadata-token") != "a-metadata-token":
        return 401, b""
    credentials = {"AccessKeyId": KEY_ID, "SecretAccessKey": SECRET_KEY, "Token": "a-session-token"}
    role = "/latest/meta-data/iam/security-credentials/"
    answers: dict[str, bytes] = {
        role: b"EMR_EC2_DefaultRole",
        f"{role}EMR_EC2_DefaultRole": json.dumps({"Code": "Success", **credentials}).encode(),
        "/latest/meta-data/placement/region": REGION.encode(),
    }
    return (200, answers[seen.target]) if seen.target in answers else (404, b"")


@pytest.fixture
def metadata() -> Iterator[ScriptedServer]:
    with scripted_server(instance_metadata) as server:
        yield server


def aws_settings(secure: VaultDouble, certificates: Certificates, metadata: ScriptedServer) -> dict[str, object]:
    return {
        "vault_addresses": secure.address.replace("127.0.0.1", "localhost"),
        "vault_ca__file": certificates.trusted,
        "vault_login": "aws",
        "vault_aws.role": "emr-node",
        "vault_aws.server-id": SERVER_ID,
        "vault_aws.metadata": f"http://127.0.0.1:{metadata.port}",
        "disk_mount": "transit",
        "disk_key": "disk",
    }


@pytest.mark.unconfirmed
def test_an_instance_s_role_logs_in_and_again_when_its_token_is_gone(
    place: Place, secure: VaultDouble, certificates: Certificates, metadata: ScriptedServer
) -> None:
    place.providers.secrets += [SECRET_KEY, "a-session-token", "a-metadata-token"]
    secure.forget_requests()
    name = place.make(DISK, **aws_settings(secure, certificates, metadata))
    told = place.providers.do("disk-new", name, "LOCAL_DISK")
    assert place.providers.do("disk-again", name, *description(told))["key"] == told["key"]
    assert len(secure.requests("auth/aws/login")) == 1
    accessors = secure.call("LIST", "auth/token/accessors").data["keys"]
    for accessor in accessors:
        if secure.call("POST", "auth/token/lookup-accessor", {"accessor": accessor}).data["path"] != "auth/token/root":
            secure.call("POST", "auth/token/revoke-accessor", {"accessor": accessor})
    assert place.providers.do("disk-again", name, *description(told))["key"] == told["key"]
    assert len(secure.requests("auth/aws/login")) == 2


@pytest.mark.unconfirmed
def test_a_role_that_may_not_log_in_is_told(
    place: Place, secure: VaultDouble, certificates: Certificates, metadata: ScriptedServer
) -> None:
    settings = aws_settings(secure, certificates, metadata)
    for changed in ({"vault_aws.role": "absent"}, {"vault_aws.server-id": "other"}, {"vault_aws.region": "us-east-1"}):
        name = place.make(DISK, **{**settings, **changed})
        assert "Vault answered 400 to POST auth/aws/login" in refusal(place, "disk-new", name, "LOCAL_DISK"), changed
    with scripted_server(lambda seen: (404, b"")) as nothing:
        bare = place.make(DISK, **{**settings, "vault_aws.metadata": f"http://127.0.0.1:{nothing.port}"})
        assert "instance metadata service does not give /latest/api" in refusal(place, "disk-new", bare, "LOCAL_DISK")


def test_vault_s_certificate_is_verified(
    place: Place, secure: VaultDouble, certificates: Certificates, tmp_path: Path
) -> None:
    by_name = secure.address.replace("127.0.0.1", "localhost")
    untrusted = place.make(DISK, disk_key="disk", vault_addresses=by_name)
    began = time.monotonic()
    assert "cannot be trusted" in refusal(place, "disk-new", untrusted, "LOCAL_DISK")
    assert time.monotonic() - began < 5, "waiting makes no certificate good"
    other = certificates.authority.issue_server("other-name", names=["vault.example.com"])
    with scripted_server(lambda seen: (200, b"{}"), tls=_server_context(other)) as server:
        address = f"https://localhost:{server.port}"
        misnamed = place.make(DISK, disk_key="disk", vault_addresses=address, vault_ca__file=certificates.trusted)
        assert "cannot be trusted" in refusal(place, "disk-new", misnamed, "LOCAL_DISK")
        assert server.seen == []


def test_defaults_that_trust_everybody_do_not_hold_for_vault(
    place: Place, secure: VaultDouble, certificates: Certificates
) -> None:
    """Java keeps one default for all of a process, and libraries are known to set it."""
    other = certificates.authority.issue_server("other-name-2", names=["vault.example.com"])
    by_name = secure.address.replace("127.0.0.1", "localhost")
    untrusted = place.make(DISK, disk_key="disk", vault_addresses=by_name)
    place.providers.do("trust", "all")
    try:
        assert "cannot be trusted" in refusal(place, "disk-new", untrusted, "LOCAL_DISK")
        with scripted_server(lambda seen: (200, b"{}"), tls=_server_context(other)) as server:
            address = f"https://localhost:{server.port}"
            misnamed = place.make(DISK, disk_key="disk", vault_addresses=address, vault_ca__file=certificates.trusted)
            assert "cannot be trusted" in refusal(place, "disk-new", misnamed, "LOCAL_DISK")
            assert server.seen == []
    finally:
        place.providers.do("trust", "few")


def _server_context(files: CertificateFiles) -> Any:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    return context


def test_what_comes_late_is_waited_for_and_the_next_address_is_asked(place: Place) -> None:
    answers = iter([(503, b"{}"), (429, b"{}"), None])
    with scripted_server(lambda seen: next(answers, (503, b"{}"))) as sealed:
        addresses = f"http://localhost:{sealed.port},{place.vault.address}"
        name = place.make(DISK, disk_key=place.vault.key(), vault_addresses=addresses)
        assert place.providers.do("disk-new", name, "LOCAL_DISK")["key"]
        assert sealed.seen


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((503, b'{"errors": ["hush"]}'), "within 1 s (last: http://localhost:"),
        (None, "within 1 s (last: http://localhost:"),
        ((307, b"", {"Location": "http://localhost:9/"}), "Vault answered 307"),
        ((200, b"hush"), "is not what it should be"),
        ((200, b'{"data": {"derived": true, "derived": true}}'), "is not what it should be"),
        ((200, b'{"data": ' + b"[" * 1000), "is not what it should be"),
        ((200, b'"' + b"x" * (1 << 21)), "within 1 s"),
    ],
)
def test_an_answer_that_is_none_is_refused_without_showing_it(place: Place, answer: Answer, told: str) -> None:
    place.providers.secrets.append("hush")
    with scripted_server(lambda seen: answer) as server:
        address = f"http://localhost:{server.port}"
        name = place.make(DISK, disk_key="k", vault_addresses=address, vault_deadline__s=1)
        assert told in refusal(place, "disk-new", name, "LOCAL_DISK")


def test_a_key_of_another_length_is_refused(place: Place) -> None:
    def short_key(seen: Seen) -> Answer:
        if "/keys/" in seen.target:
            return 200, b'{"data": {"derived": true, "exportable": false}}'
        sealed = "vault:v1:" + base64.b64encode(bytes(60)).decode()
        return 200, json.dumps({"data": {"plaintext": "c2hvcnQ=", "ciphertext": sealed}}).encode()

    with scripted_server(short_key) as server:
        name = place.make(DISK, disk_key="k", vault_addresses=f"http://localhost:{server.port}")
        assert "is not what it should be" in refusal(place, "disk-new", name, "LOCAL_DISK")
