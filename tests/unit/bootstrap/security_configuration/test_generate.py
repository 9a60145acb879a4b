"""Generated documents: everything encrypted by default, every mode on request, nothing that the release refuses."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from emr_documents import DOCUMENTED, changed, document_data, document_path, members_of, parse_place

from ringfence_bootstrap.releases import parse_release
from ringfence_bootstrap.security_configuration.clear_data import find_clear_data
from ringfence_bootstrap.security_configuration.compare import is_same
from ringfence_bootstrap.security_configuration.document import (
    CertificateProvider,
    DiskProvider,
    KdcProvider,
    S3Mode,
)
from ringfence_bootstrap.security_configuration.generate import (
    CertificatesWanted,
    DiskWanted,
    KerberosWanted,
    OwnProvider,
    S3Wanted,
    Wanted,
    compliance_gaps,
    generate,
)
from ringfence_bootstrap.security_configuration.lint import lint
from ringfence_bootstrap.security_configuration.reading import parse_document, read_document
from ringfence_zones.errors import DocumentError, InputError
from ringfence_zones.findings import Severity

KEY = "arn:aws:kms:us-east-1:123456789012:key/12345678-1234-1234-1234-123456789012"
OTHER_KEY = "arn:aws:kms:us-east-1:123456789012:key/87654321-4321-4321-4321-210987654321"
BUCKET = "s3://amzn-s3-demo-bucket/artifacts"
JAR = f"{BUCKET}/MyKeyProvider.jar"
NEWEST = parse_release("emr-7.14.0")
OLD = parse_release("emr-6.15.0")
PEM = CertificatesWanted(CertificateProvider.PEM, f"{BUCKET}/MyCerts.zip")
# What reproduces a documented document.
REPRODUCED: dict[str, Wanted] = {
    "in-transit-pem": Wanted(certificates=PEM),
    "in-transit-custom": Wanted(
        certificates=CertificatesWanted(
            CertificateProvider.CUSTOM, f"{BUCKET}/MyProvider.jar", "com.example.emr.MyCertificateProvider"
        )
    ),
    "in-transit-emr": Wanted(certificates=CertificatesWanted(CertificateProvider.EMR)),
    "in-transit-emr-all-members": Wanted(
        certificates=CertificatesWanted(
            CertificateProvider.EMR,
            key=KEY,
            tags=(("team", "data"),),
            validity_days=3650,
            wildcard_dns_suffix="*.ec2.internal",
        )
    ),
    "s3-sse-s3-and-local-disk": Wanted(
        certificates=PEM, s3=S3Wanted(S3Mode.SSE_S3), disk=DiskWanted(DiskProvider.AWS_KMS, KEY)
    ),
    "s3-cse-kms": Wanted(s3=S3Wanted(S3Mode.CSE_KMS, KEY)),
    "one-class-for-disk-and-s3": Wanted(
        s3=S3Wanted(S3Mode.CSE_CUSTOM, provider=OwnProvider(JAR, "com.example.emr.MyKeyProvider")),
        disk=DiskWanted(DiskProvider.CUSTOM, own=OwnProvider(JAR, "com.example.emr.MyKeyProvider")),
    ),
    "s3-overrides": Wanted(
        s3=S3Wanted(S3Mode.SSE_S3),
        overrides=(
            ("amzn-s3-demo-bucket1", S3Wanted(S3Mode.SSE_S3)),
            ("amzn-s3-demo-bucket2", S3Wanted(S3Mode.CSE_KMS, KEY)),
            ("amzn-s3-demo-bucket3", S3Wanted(S3Mode.SSE_KMS, OTHER_KEY)),
            (
                "amzn-s3-demo-bucket4",
                S3Wanted(S3Mode.CSE_CUSTOM, provider=OwnProvider(JAR, "com.example.emr.BucketKeyProvider")),
            ),
        ),
    ),
    "local-disk-alone": Wanted(disk=DiskWanted(DiskProvider.AWS_KMS, KEY)),
    "everything": Wanted(
        certificates=PEM,
        s3=S3Wanted(S3Mode.SSE_KMS, KEY),
        disk=DiskWanted(DiskProvider.AWS_KMS, KEY, ebs=True),
        kerberos=KerberosWanted(KdcProvider.CLUSTER_DEDICATED, 24),
        metadata=(2, 2),
    ),
    "write-ahead-logs": Wanted(wal_key=""),
    "write-ahead-logs-with-key": Wanted(wal_key=KEY),
    "kerberos-trust": Wanted(
        kerberos=KerberosWanted(
            KdcProvider.CLUSTER_DEDICATED,
            24,
            trust=("AD.EXAMPLE.COM", "ad.example.com", "ad.example.com", "ad.example.com"),
        )
    ),
    "kerberos-external-directory": Wanted(
        kerberos=KerberosWanted(
            KdcProvider.EXTERNAL,
            24,
            "kdc.example.com:749",
            "kdc.example.com:88",
            ad=("AD.EXAMPLE.COM", "ad.example.com", "ad.example.com"),
        )
    ),
    "metadata-service": Wanted(metadata=(2, 1)),
    "ranger": Wanted(
        kerberos=KerberosWanted(KdcProvider.CLUSTER_DEDICATED, 24),
        authorization=document_data("ranger")["AuthorizationConfiguration"],
    ),
}


@pytest.mark.parametrize("name", sorted(REPRODUCED))
def test_documented_documents_can_be_generated(name: str) -> None:
    assert is_same(generate(REPRODUCED[name], NEWEST), read_document(document_path(name)))


S3 = [
    None,
    S3Wanted(S3Mode.SSE_S3),
    S3Wanted(S3Mode.SSE_KMS, KEY),
    S3Wanted(S3Mode.CSE_KMS, KEY),
    S3Wanted(S3Mode.CSE_CUSTOM, provider=OwnProvider(JAR, "com.example.S3")),
]
DISKS = [
    None,
    DiskWanted(DiskProvider.AWS_KMS, KEY),
    DiskWanted(DiskProvider.AWS_KMS, KEY, ebs=True),
    DiskWanted(DiskProvider.CUSTOM, own=OwnProvider(JAR, "com.example.Disk")),
]
CERTIFICATES = [None, PEM, CertificatesWanted(CertificateProvider.CUSTOM, JAR, "com.example.Tls")]


@pytest.mark.parametrize(("s3", "disk", "certificates"), list(itertools.product(S3, DISKS, CERTIFICATES)))
def test_every_combination_of_modes_has_no_error_and_is_what_was_wanted(
    s3: S3Wanted | None, disk: DiskWanted | None, certificates: CertificatesWanted | None
) -> None:
    document = generate(Wanted(s3=s3, disk=disk, certificates=certificates), OLD)
    assert [each for each in lint(document, OLD) if each.severity is Severity.ERROR] == []
    assert document.encrypts_at_rest is (s3 is not None or disk is not None)
    assert document.encrypts_in_transit is (certificates is not None)
    assert (document.s3.mode if document.s3 else None) == (s3.mode if s3 else None)
    assert (document.local_disk.provider if document.local_disk else None) == (disk.provider if disk else None)


@pytest.mark.parametrize(
    ("release", "wanted", "member"),
    [
        ("emr-5.23.0", Wanted(disk=DiskWanted(DiskProvider.AWS_KMS, KEY, ebs=True)), "EnableEbsEncryption"),
        ("emr-7.10.0", REPRODUCED["in-transit-emr"], "CertificateProviderType"),
        ("emr-5.9.0", Wanted(kerberos=KerberosWanted(KdcProvider.CLUSTER_DEDICATED)), "KerberosConfiguration"),
        ("emr-6.1.0", Wanted(metadata=(2, 1)), "MinimumInstanceMetadataServiceVersion"),
        ("emr-4.7.0", REPRODUCED["s3-cse-kms"], "security configurations"),
        ("emr-7.14.0", Wanted(s3=S3Wanted(S3Mode.SSE_KMS)), "AwsKmsKey"),
        ("emr-7.14.0", Wanted(kerberos=KerberosWanted(KdcProvider.EXTERNAL)), "AdminServer"),
        ("emr-7.14.0", Wanted(s3=S3Wanted(S3Mode.SSE_KMS, "alias/emr")), "AwsKmsKey"),
        ("emr-7.14.0", Wanted(authorization={"EmrFS": {}}), "EmrFS"),
    ],
)
def test_what_the_release_or_emr_refuses_is_not_generated(release: str, wanted: Wanted, member: str) -> None:
    with pytest.raises(DocumentError) as caught:
        generate(wanted, parse_release(release))
    assert any(member in each.message for each in caught.value.findings)


def test_a_key_of_another_region_is_refused() -> None:
    with pytest.raises(DocumentError):
        generate(REPRODUCED["everything"], NEWEST, region="eu-west-1")


def test_overrides_need_a_default_beside_them() -> None:
    with pytest.raises(InputError, match="beside a default"):
        generate(Wanted(overrides=(("b", S3Wanted(S3Mode.SSE_S3)),)), NEWEST)


COMPLIANT = generate(REPRODUCED["everything"], NEWEST)


def test_what_is_called_compliant_leaves_nothing_in_clear() -> None:
    assert compliance_gaps(COMPLIANT) == []
    assert {each.severity for each in find_clear_data(COMPLIANT, NEWEST)} == {Severity.INFO}


REST = "EncryptionConfiguration.AtRestEncryptionConfiguration"


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("EncryptionConfiguration", None),
        ("EncryptionConfiguration.EnableAtRestEncryption", False),
        ("EncryptionConfiguration.EnableInTransitEncryption", None),
        ("EncryptionConfiguration.InTransitEncryptionConfiguration", None),
        (REST, None),
        (f"{REST}.S3EncryptionConfiguration", None),
        (f"{REST}.S3EncryptionConfiguration.EncryptionMode", "SSE-S3"),
        (f"{REST}.S3EncryptionConfiguration.Overrides", [{"BucketName": "b", "EncryptionMode": "SSE-S3"}]),
        (f"{REST}.LocalDiskEncryptionConfiguration", None),
        (f"{REST}.LocalDiskEncryptionConfiguration.EnableEbsEncryption", False),
        (f"{REST}.LocalDiskEncryptionConfiguration.EncryptionKeyProviderType", "Custom"),
    ],
)
def test_a_switch_less_is_not_compliant(place: str, value: Any) -> None:
    data = changed(COMPLIANT.to_json(), parse_place(place), value)
    assert compliance_gaps(parse_document(json.dumps(data), "d"))


def test_of_the_documented_documents_one_is_compliant() -> None:
    assert [name for name in DOCUMENTED if not compliance_gaps(read_document(document_path(name)))] == ["everything"]


def test_generated_documents_hold_no_null() -> None:
    for wanted in REPRODUCED.values():
        assert all(value is not None for _, value in members_of(generate(wanted, NEWEST).to_json()))
