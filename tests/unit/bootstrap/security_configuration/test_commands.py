"""`ringfence emr security-config`: what options mean, and which do not go together."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from emr_documents import document_path, members_of, spell_place

from ringfence_bootstrap.cli.emr import emr
from ringfence_zones.errors import DocumentError, InputError, RingfenceError

KEY = "arn:aws:kms:us-east-1:123456789012:key/12345678-1234-1234-1234-123456789012"
OTHER = "arn:aws:kms:us-east-1:123456789012:key/87654321-4321-4321-4321-210987654321"
REST = "EncryptionConfiguration.AtRestEncryptionConfiguration"
S3 = f"{REST}.S3EncryptionConfiguration"
DISK = f"{REST}.LocalDiskEncryptionConfiguration"
TLS = "EncryptionConfiguration.InTransitEncryptionConfiguration.TLSCertificateConfiguration"
KERBEROS = "AuthenticationConfiguration.KerberosConfiguration"
IMDS = "InstanceMetadataServiceConfiguration"


def run(*arguments: str | Path, text: str | None = None) -> Result:
    return CliRunner().invoke(emr, ["security-config", *(str(each) for each in arguments)], input=text)


def new(*arguments: str, release: str = "emr-7.12.0") -> dict[str, Any]:
    """The document as members by place."""
    done = run("new", "--release", release, *arguments)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return {spell_place(place): value for place, value in members_of(json.loads(done.stdout))}


def test_with_a_key_alone_everything_is_encrypted() -> None:
    made = new("--kms-key", KEY)
    assert (made[f"{S3}.EncryptionMode"], made[f"{S3}.AwsKmsKey"]) == ("SSE-KMS", KEY)
    assert (made[f"{DISK}.AwsKmsKey"], made[f"{DISK}.EnableEbsEncryption"]) == (KEY, True)
    assert made[f"{TLS}.CertificateProviderType"] == "EMR"
    assert made[f"{IMDS}.MinimumInstanceMetadataServiceVersion"] == 2


@pytest.mark.parametrize(
    ("release", "ebs", "provider", "imds"),
    [
        ("emr-7.10.0", True, "PEM", True),
        ("emr-6.1.0", True, "PEM", False),
        ("emr-5.24.0", True, "PEM", False),
        ("emr-5.23.1", False, "PEM", True),
        ("emr-spark-8.0.0", True, "PEM", True),
    ],
)
def test_defaults_are_what_the_release_can(release: str, ebs: bool, provider: str, imds: bool) -> None:
    made = new("--kms-key", KEY, "--certificates-object", "s3://b/c.zip", release=release)
    assert made.get(f"{DISK}.EnableEbsEncryption", False) is ebs
    assert made[f"{TLS}.CertificateProviderType"] == provider
    assert (IMDS in made) is imds


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--s3", "SSE-S3"], {f"{S3}.EncryptionMode": "SSE-S3", f"{S3}.AwsKmsKey": None}),
        (["--s3", "CSE-KMS", "--s3-key", OTHER], {f"{S3}.EncryptionMode": "CSE-KMS", f"{S3}.AwsKmsKey": OTHER}),
        (["--s3", "none"], {S3: None}),
        (
            ["--s3", "CSE-Custom", "--s3-provider", "s3://b/p.jar", "com.x.P"],
            {f"{S3}.S3Object": "s3://b/p.jar", f"{S3}.EncryptionKeyProviderClass": "com.x.P"},
        ),
        (
            ["--override", "b1=SSE-S3", "--override", f"b2=SSE-KMS,{OTHER}", "--override", "b3=CSE-KMS"],
            {
                f"{S3}.Overrides[0].EncryptionMode": "SSE-S3",
                f"{S3}.Overrides[1].AwsKmsKey": OTHER,
                f"{S3}.Overrides[2].BucketName": "b3",
                f"{S3}.Overrides[2].AwsKmsKey": KEY,
            },
        ),
        (
            ["--override", "b=CSE-Custom,s3://b/p.jar,com.x.P"],
            {f"{S3}.Overrides[0].EncryptionKeyProviderClass": "com.x.P"},
        ),
        (["--local-disk-key", OTHER], {f"{DISK}.AwsKmsKey": OTHER, f"{S3}.AwsKmsKey": KEY}),
        (["--no-ebs"], {f"{DISK}.EnableEbsEncryption": None}),
        (["--local-disk", "none"], {DISK: None}),
        (
            ["--local-disk", "Custom", "--local-disk-provider", "s3://b/d.jar", "com.x.D"],
            {f"{DISK}.S3Object": "s3://b/d.jar", f"{DISK}.EnableEbsEncryption": None, f"{DISK}.AwsKmsKey": None},
        ),
        (
            ["--certificates-object", "s3://b/c.jar", "--certificates-class", "com.x.T"],
            {f"{TLS}.CertificateProviderType": "Custom", f"{TLS}.CertificateProviderClass": "com.x.T"},
        ),
        (
            ["--certificates-key", OTHER, "--certificates-days", "365", "--certificates-tag", "team=a=b"],
            {
                f"{TLS}.AwsKmsKey": OTHER,
                f"{TLS}.ValidityInDays": 365,
                f"{TLS}.SecretTags[0].Key": "team",
                f"{TLS}.SecretTags[0].Value": "a=b",
            },
        ),
        (["--certificates", "none"], {TLS: None, "EncryptionConfiguration.EnableInTransitEncryption": False}),
        (["--wal"], {"EncryptionConfiguration.EMRWALEncryptionConfiguration": {}}),
        (["--wal-key", OTHER], {"EncryptionConfiguration.EMRWALEncryptionConfiguration.AwsKmsKey": OTHER}),
        (
            ["--kerberos", "dedicated", "--ticket-hours", "8", "--trust", "R", "d", "a", "k"],
            {
                f"{KERBEROS}.ClusterDedicatedKdcConfiguration.TicketLifetimeInHours": 8,
                f"{KERBEROS}.ClusterDedicatedKdcConfiguration.CrossRealmTrustConfiguration.KdcServer": "k",
            },
        ),
        (
            ["--kerberos", "external", "--admin-server", "k:749", "--kdc-server", "k:88", "--ad", "R", "d", "s"],
            {
                f"{KERBEROS}.ExternalKdcConfiguration.KdcServerType": "Single",
                f"{KERBEROS}.ExternalKdcConfiguration.AdIntegrationConfiguration.AdServer": "s",
            },
        ),
        (["--imds", "1", "--hop-limit", "3"], {f"{IMDS}.HttpPutResponseHopLimit": 3}),
        (["--imds", "none"], {IMDS: None}),
    ],
    ids=lambda value: value[0] + value[1] if isinstance(value, list) and len(value) > 1 else None,
)
def test_each_option_is_in_the_document(options: list[str], expected: dict[str, Any]) -> None:
    made = new("--kms-key", KEY, *options)
    assert {place: made.get(place) for place in expected} == expected


def test_authorization_is_passed_through() -> None:
    made = new("--kms-key", KEY, "--authorization", str(document_path("runtime-roles")))
    assert made["AuthorizationConfiguration.IAMConfiguration.EnableApplicationScopedIAMRole"] is True


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "needs an AWS KMS key"),
        (["--kms-key", KEY, "--s3", "CSE-Custom"], "class in a jar"),
        (["--kms-key", KEY, "--local-disk", "Custom"], "class in a jar"),
        (["--kms-key", KEY, "--local-disk", "none", "--ebs"], "part of local-disk"),
        (["--kms-key", KEY, "--override", "b"], "no bucket with a mode"),
        (["--kms-key", KEY, "--override", "=SSE-S3"], "no bucket with a mode"),
        (["--kms-key", KEY, "--override", "b=SSE"], "no bucket with a mode"),
        (["--kms-key", KEY, "--override", "b=SSE-S3,x"], "wrong number of parts"),
        (["--kms-key", KEY, "--override", "b=CSE-Custom,x"], "wrong number of parts"),
        (["--kms-key", KEY, "--s3", "none", "--override", "b=SSE-S3"], "beside a default"),
        (["--kms-key", KEY, "--certificates", "PEM"], "certificates of your own"),
        (["--kms-key", KEY, "--certificates", "none", "--certificates-object", "s3://b/c"], "without any"),
        (["--kms-key", KEY, "--certificates-tag", "team"], "is no tag"),
        (["--kms-key", KEY, "--ticket-hours", "8"], "without one"),
        (["--kms-key", KEY, "--kerberos", "dedicated", "--admin-server", "k"], "external"),
        (["--kms-key", KEY, "--kerberos", "external", "--trust", "R", "d", "a", "k"], "dedicated"),
        (["--kms-key", KEY, "--authorization", str(document_path("everything"))], "no AuthorizationConfiguration"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        new(*options)


@pytest.mark.parametrize(
    "options",
    [["--s3", "SSE-S3"], ["--s3", "CSE-KMS"], ["--no-ebs"], ["--local-disk", "none"], ["--certificates", "none"]],
)
def test_compliant_refuses_what_scanners_object_to(options: list[str]) -> None:
    with pytest.raises(DocumentError, match="not compliant"):
        new("--kms-key", KEY, "--compliant", *options)


def test_a_file_is_replaced_and_one_that_cannot_be_written_is_bad_input(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text("old")
    done = run("new", "--release", "emr-7.12.0", "--kms-key", KEY, "-o", path)
    assert (done.exit_code, done.stdout) == (0, "")
    assert "SSE-KMS" in path.read_text()
    failed = run("new", "--release", "emr-7.12.0", "--kms-key", KEY, "-o", tmp_path / "absent" / "c.json")
    assert isinstance(failed.exception, InputError)


def test_nothing_is_written_that_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    failed = run("new", "--release", "emr-5.20.0", "--kms-key", KEY, "--certificates", "none", "--ebs", "-o", path)
    assert isinstance(failed.exception, DocumentError)
    assert not path.exists()


def test_lint_reads_standard_input_the_cluster_and_the_certificates(tmp_path: Path) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("certs/privateKey.pem", b"")
    bundle, cluster = tmp_path / "c.zip", tmp_path / "cluster.json"
    bundle.write_bytes(made.getvalue())
    cluster.write_text(json.dumps({"ReleaseLabel": "emr-5.20.0"}))
    done = run(
        "lint",
        "-",
        "--json",
        "--cluster",
        cluster,
        "--certificates",
        bundle,
        text=document_path("everything").read_text(),
    )
    found = json.loads(done.stdout)["findings"]
    errors = {
        (each["rule"], each["path"].rpartition(":")[0] or each["path"]) for each in found if each["severity"] == "error"
    }
    assert done.exit_code == 3
    # The release is the cluster's own, for none was given.
    assert errors == {
        ("emr_release", "<stdin>"),
        ("emr_kerberos_mismatch", "<stdin>"),
        ("emr_certificate", str(bundle)),
    }


def test_lint_without_errors_exits_0_whatever_it_warns_of() -> None:
    done = run("lint", document_path("in-transit-pem"), "--release", "emr-7.12.0")
    assert done.exit_code == 0
    assert "emr_clear_at_rest" in done.stdout


@pytest.mark.parametrize("release", ["7.12.0", "emr-7", "x"])
def test_a_release_that_is_none_is_bad_input(release: str) -> None:
    done = run("lint", document_path("everything"), "--release", release)
    assert isinstance(done.exception, RingfenceError)


def test_diff_tells_differences_as_json_and_exits_3_only_when_asked_to() -> None:
    one, other = document_path("everything"), document_path("in-transit-pem")
    done = run("diff", one, other, "--json", "--release", "emr-7.12.0")
    told = json.loads(done.stdout)
    assert done.exit_code == 0
    assert {each["effect"] for each in told["differences"]} >= {"weaker"}
    assert any("EnableAtRestEncryption" in each for each in told["clear_anew"])
    assert told["clear_no_longer"] == []
    assert run("diff", one, other, "--exit-code").exit_code == 3
    assert run("diff", one, one, "--exit-code").exit_code == 0
