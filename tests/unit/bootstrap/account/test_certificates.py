"""Certificates for nodes: what is made, packed, found wrong and uploaded."""

from __future__ import annotations

import datetime
import errno
import io
import json
import os
import shutil
import stat
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aws_kms_double import Credentials
from aws_kms_places import sign_as
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from emr_places import Outcome, run_command

from ringfence_bootstrap.account.certificate_bundle import Bundle, find_bundle, pack, write_secret_file
from ringfence_bootstrap.account.certificate_checks import check_zip
from ringfence_zones.errors import RingfenceError
from ringfence_zones.findings import Finding
from ringfence_zones.secret import Secret

REGION = "eu-west-1"
NAME = f"*.{REGION}.compute.internal"
NOW = datetime.datetime.now(datetime.UTC)
BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class Maker:
    """Certificates of an authority that is not ours, one field wrong at a time."""

    def __init__(self) -> None:
        self.root_key = ec.generate_private_key(ec.SECP256R1())
        self.root = self.make("root", self.root_key, "root", self.root_key, is_ca=True)
        self.middle_key = ec.generate_private_key(ec.SECP256R1())
        self.middle = self.make("middle", self.middle_key, "root", self.root_key, is_ca=True)
        self.key = ec.generate_private_key(ec.SECP256R1())

    def make(
        self,
        name: str,
        key: Key,
        issuer: str,
        issuer_key: ec.EllipticCurvePrivateKey,
        *,
        is_ca: bool = False,
        names: tuple[str, ...] | None = None,
        begins: int = -1,
        ends: int = 400,
        purposes: tuple[x509.ObjectIdentifier, ...] | None = BOTH,
        digest: hashes.HashAlgorithm | None = None,
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW + datetime.timedelta(days=begins))
            .not_valid_after(NOW + datetime.timedelta(days=ends))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if purposes and not is_ca:
            builder = builder.add_extension(x509.ExtendedKeyUsage(list(purposes)), critical=False)
        if names is None and not is_ca:
            names = (name,)
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([x509.DNSName(each) for each in names]), critical=False
            )
        return builder.sign(issuer_key, digest or hashes.SHA256())

    def leaf(self, **fields: Any) -> x509.Certificate:
        return self.make(fields.pop("name", NAME), fields.pop("key", self.key), "middle", self.middle_key, **fields)

    def bundle(self, **fields: Any) -> Bundle:
        return Bundle(pem_key(self.key), pem(self.leaf(**fields), self.middle), pem(self.root))


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)


def pem_key(key: Key, passphrase: bytes | None = None) -> Secret:
    sealing: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        sealing = serialization.BestAvailableEncryption(passphrase)
    return Secret(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, sealing))


@pytest.fixture(scope="module")
def maker() -> Maker:
    return Maker()


def check(bundle: Bundle, **options: Any) -> list[Finding]:
    return check_zip(pack(bundle), "it", region=REGION, **options)


def said(bundle: Bundle, **options: Any) -> str:
    return "\n".join(f"{each.severity.value} {each.message}" for each in check(bundle, **options))


def test_what_fits_is_no_finding(maker: Maker) -> None:
    assert check(maker.bundle()) == []
    leaf_and_all = Bundle(pem_key(maker.key), pem(maker.leaf(), maker.middle, maker.root))
    assert check(leaf_and_all) == []


def test_nodes_are_called_otherwise_in_the_first_region(maker: Maker) -> None:
    wrong = check_zip(pack(maker.bundle()), "it", region="us-east-1")
    assert "*.ec2.internal" in wrong[0].message
    assert check(maker.bundle(name="*.corp.example"), domain="corp.example") == []
    assert "nodes are called *.corp.example" in said(maker.bundle(), domain="corp.example")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"names": ("*.compute.internal",)}, "warn the certificate is for *.compute.internal"),
        ({"name": "CN", "names": ("other.example",)}, f"nodes are called {NAME}"),
        ({"ends": 10}, "warn the certificate of CN=" + NAME + " runs out on"),
        ({"begins": -20, "ends": -2}, "error the certificate of CN=" + NAME + " ran out on"),
        ({"begins": 2}, "is not valid before"),
        ({"purposes": BOTH[:1]}, "is not for clients"),
        ({"purposes": BOTH[1:]}, "is not for servers"),
    ],
)
def test_one_wrong_field_is_one_finding(maker: Maker, fields: dict[str, Any], says: str) -> None:
    found = said(maker.bundle(**fields))
    assert says in found
    assert len(found.splitlines()) == 1


def test_a_common_name_counts_only_without_other_names(maker: Maker) -> None:
    assert check(maker.bundle(names=())) == []


def test_a_key_that_belongs_to_another_certificate_is_found(maker: Maker) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    bundle = Bundle(pem_key(other), maker.bundle().chain, pem(maker.root))
    assert "is not the key of the first certificate" in said(bundle)
    swapped = Bundle(pem_key(maker.key), pem(maker.middle, maker.leaf()), pem(maker.root))
    assert "is not the key of the first certificate" in said(swapped)


def test_a_chain_with_a_gap_or_without_a_root_is_found(maker: Maker) -> None:
    gap = Bundle(pem_key(maker.key), pem(maker.leaf(), maker.root), None)
    assert "is not signed by the certificate after it" in said(gap)
    rootless = Bundle(pem_key(maker.key), pem(maker.leaf(), maker.middle), None)
    assert "so no node trusts it" in said(rootless)
    stranger = Maker()
    foreign = Bundle(pem_key(maker.key), pem(maker.leaf(), maker.middle), pem(stranger.root))
    assert "nodes refuse each other" in said(foreign)


def test_a_passphrase_is_found_and_so_is_what_is_no_key(maker: Maker) -> None:
    chain, root = maker.bundle().chain, pem(maker.root)
    assert "by a passphrase" in said(Bundle(pem_key(maker.key, b"secret"), chain, root))
    assert "holds no private key" in said(Bundle(Secret(b"-----BEGIN NOTHING-----"), chain, root))
    cut = Secret(pem_key(maker.key).reveal().replace(b"M", b"!"))
    assert "cannot be read" in said(Bundle(cut, chain, root))
    assert "holds no certificate" in said(Bundle(pem_key(maker.key), b"", root))


def test_a_weak_key_is_found(maker: Maker) -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    bundle = Bundle(pem_key(weak), pem(maker.leaf(key=weak), maker.middle), pem(maker.root))
    assert "RSA key of 1024 bits" in said(bundle)


def test_an_authority_that_ran_out_is_found(maker: Maker) -> None:
    root = maker.make("root", maker.root_key, "root", maker.root_key, is_ca=True, begins=-9, ends=-1)
    bundle = Bundle(pem_key(maker.key), maker.bundle().chain, pem(root))
    assert "the certificate of CN=root ran out" in said(bundle)


def test_the_zip_is_in_emrs_layout_and_always_the_same(maker: Maker) -> None:
    bundle = maker.bundle()
    content = pack(bundle)
    assert content == pack(bundle)
    with zipfile.ZipFile(io.BytesIO(content.reveal())) as archive:
        assert archive.namelist() == ["privateKey.pem", "certificateChain.pem", "trustedCertificates.pem"]
        modes = {stat.S_IMODE(entry.external_attr >> 16) for entry in archive.infolist()}
        assert modes == {0o600}
    assert find_bundle(content) == bundle


def zipped(files: dict[str, bytes]) -> Secret:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return Secret(stream.getvalue())


def test_another_layout_is_found(maker: Maker) -> None:
    bundle = maker.bundle()
    nested = zipped({"certs/privateKey.pem": bundle.private_key.reveal(), "certificateChain.pem": bundle.chain})
    (finding,) = check_zip(nested, "it", region=REGION)
    assert "lies in a folder" in finding.message
    (finding,) = check_zip(Secret(b"PK nothing"), "it", region=REGION)
    assert "no zip that can be read" in finding.message


class Commands:
    def __init__(self, capsys: pytest.CaptureFixture[str], directory: Path) -> None:
        self._capsys = capsys
        self.directory = directory
        self.zip = directory / "certificates.zip"

    def run(self, *argv: object) -> Outcome:
        return run_command(self._capsys, "emr", "certificates", *argv)

    def new(self, *argv: object) -> Outcome:
        where = ("--authority", self.directory / "ca", "--out", self.zip, "--region", REGION)
        return self.run("new", *where, *argv)


@pytest.fixture
def commands(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Commands:
    return Commands(capsys, tmp_path)


@pytest.fixture(scope="module")
def a_zip(maker: Maker) -> bytes:
    return pack(maker.bundle()).reveal()


@pytest.fixture
def made(commands: Commands, a_zip: bytes) -> Commands:
    """The commands beside a zip that passes."""
    commands.zip.touch(0o600)
    commands.zip.write_bytes(a_zip)
    return commands


def test_new_makes_an_authority_once_and_a_zip_that_passes(commands: Commands) -> None:
    assert commands.new().code == 0
    assert commands.run("check", commands.zip, "--region", REGION).code == 0
    files = {each.name: stat.S_IMODE(each.stat().st_mode) for each in (commands.directory / "ca").iterdir()}
    assert files == {"ca.pem": 0o600, "ca.key": 0o600}
    assert stat.S_IMODE((commands.directory / "ca").stat().st_mode) == 0o700
    assert stat.S_IMODE(commands.zip.stat().st_mode) == 0o600
    before = (commands.directory / "ca/ca.pem").read_bytes()
    again = commands.new("--replace", "--json")
    assert json.loads(again.out)["authority_is_new"] is False
    assert "PRIVATE" not in again.out + again.err
    assert (commands.directory / "ca/ca.pem").read_bytes() == before


def test_openssl_takes_what_new_made(commands: Commands) -> None:
    commands.new()
    assert shutil.which("openssl") is not None, "openssl is needed to judge what was made"
    with zipfile.ZipFile(commands.zip) as archive:
        archive.extractall(commands.directory / "out")
    verify = ["openssl", "verify", "-CAfile", "out/trustedCertificates.pem", "-purpose", "sslserver"]
    done = subprocess.run(
        [*verify, "-verify_hostname", f"ip-10-0-0-1.{REGION}.compute.internal", "out/certificateChain.pem"],
        cwd=commands.directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_what_is_there_is_not_written_over(made: Commands) -> None:
    before = made.zip.read_bytes()
    refused = made.new()
    assert (refused.code, "is there already" in refused.err) == (1, True)
    assert made.zip.read_bytes() == before
    assert sorted(each.name for each in made.directory.iterdir()) == ["ca", "certificates.zip"]


def test_a_key_that_others_can_read_is_refused(commands: Commands, maker: Maker) -> None:
    key, chain = commands.directory / "key.pem", commands.directory / "chain.pem"
    bundle = maker.bundle()
    key.write_bytes(bundle.private_key.reveal())
    chain.write_bytes(bundle.chain + (bundle.trusted or b""))
    key.chmod(0o640)
    given = ("pack", "--key", key, "--chain", chain, "--out", commands.zip, "--region", REGION)
    refused = commands.run(*given)
    assert (refused.code, "lets others read" in refused.err, commands.zip.exists()) == (2, True, False)
    key.chmod(0o600)
    assert commands.run(*given).code == 0
    commands.zip.chmod(0o644)
    assert commands.run("check", commands.zip, "--region", REGION).code == 2


def test_pack_refuses_what_nodes_would_not_start_with(commands: Commands, maker: Maker) -> None:
    key, chain = commands.directory / "key.pem", commands.directory / "chain.pem"
    key.touch(0o600)
    key.write_bytes(pem_key(ec.generate_private_key(ec.SECP256R1())).reveal())
    chain.write_bytes(maker.bundle().chain)
    refused = commands.run("pack", "--key", key, "--chain", chain, "--out", commands.zip, "--region", REGION)
    assert (refused.code, "is not the key of" in refused.err, commands.zip.exists()) == (1, True, False)
    assert "PRIVATE KEY" not in refused.err + refused.out


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, sdk_models: None) -> Iterator[Any]:
    import boto3
    from moto import mock_aws

    sign_as(monkeypatch, Credentials("testing", "testing"))
    monkeypatch.setenv("AWS_REGION", REGION)
    with mock_aws():
        client = boto3.client("s3", region_name=REGION)
        client.create_bucket(Bucket="artifacts", CreateBucketConfiguration={"LocationConstraint": REGION})
        blocks = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
        client.put_public_access_block(Bucket="artifacts", PublicAccessBlockConfiguration=dict.fromkeys(blocks, True))
        yield client


TARGET = "s3://artifacts/emr/certificates.zip"
KMS_KEY = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"


def test_a_zip_is_uploaded_under_the_key_once(made: Commands, s3: Any) -> None:
    first = made.run("upload", made.zip, TARGET, "--kms-key", KMS_KEY)
    assert (first.code, first.out.splitlines()[0]) == (0, f"uploaded {TARGET}")
    found = s3.get_object(Bucket="artifacts", Key="emr/certificates.zip")
    assert (found["ServerSideEncryption"], found["SSEKMSKeyId"]) == ("aws:kms", KMS_KEY)
    assert found["Body"].read() == made.zip.read_bytes()
    second = made.run("upload", made.zip, TARGET, "--kms-key", KMS_KEY, "--json")
    assert (second.code, json.loads(second.out)["uploaded"]) == (0, False)


def test_another_object_is_not_written_over_unless_told_so(made: Commands, s3: Any) -> None:
    s3.put_object(Bucket="artifacts", Key="emr/certificates.zip", Body=b"theirs")
    refused = made.run("upload", made.zip, TARGET, "--kms-key", KMS_KEY)
    assert (refused.code, "another object is at" in refused.err) == (1, True)
    assert s3.get_object(Bucket="artifacts", Key="emr/certificates.zip")["Body"].read() == b"theirs"
    assert made.run("upload", made.zip, TARGET, "--kms-key", KMS_KEY, "--replace").code == 0


def test_what_nodes_would_not_start_with_is_not_uploaded(made: Commands, s3: Any) -> None:
    made.zip.touch(0o600)
    made.zip.write_bytes(zipped({"privateKey.pem": b"x"}).reveal())
    refused = made.run("upload", made.zip, TARGET, "--kms-key", KMS_KEY)
    assert (refused.code, "certificateChain.pem is missing" in refused.err) == (1, True)
    assert "Contents" not in s3.list_objects_v2(Bucket="artifacts")


def test_a_bucket_that_can_be_made_public_is_a_warning(made: Commands, s3: Any) -> None:
    s3.delete_public_access_block(Bucket="artifacts")
    done = made.run("upload", made.zip, TARGET, "--kms-key", KMS_KEY)
    assert (done.code, "does not block public access" in done.out) == (0, True)


def test_a_bucket_that_is_not_there_is_named(made: Commands, s3: Any) -> None:
    refused = made.run("upload", made.zip, "s3://nobodys/certificates.zip", "--kms-key", KMS_KEY)
    assert (refused.code, "s3://nobodys/certificates.zip" in refused.err) == (1, True)


@pytest.mark.parametrize("uri", ["s3://artifacts", "s3://artifacts/", "artifacts/a.zip", "s3://artifacts/a.pem"])
def test_a_target_that_is_no_zip_in_s3_is_bad_input(made: Commands, uri: str) -> None:
    assert made.run("upload", made.zip, uri, "--kms-key", KMS_KEY).code == 2


@pytest.mark.parametrize("replace", [False, True])
def test_a_full_disk_keeps_no_half_of_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replace: bool) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RingfenceError, match="No space left"):
        write_secret_file(tmp_path / "c.zip", Secret(b"key"), replace=replace)
    assert list(tmp_path.iterdir()) == []
