"""Which AWS KMS keys a document names, and what EMR uses each for."""

from __future__ import annotations

import json

import pytest
from emr_documents import changed, document_data, document_path, parse_place

from ringfence_bootstrap.security_configuration.document import S3Mode
from ringfence_bootstrap.security_configuration.keys import KeyUse, named_keys
from ringfence_bootstrap.security_configuration.reading import parse_document, read_document

ONE = "arn:aws:kms:us-east-1:123456789012:key/12345678-1234-1234-1234-123456789012"
TWO = "arn:aws:kms:us-east-1:123456789012:key/87654321-4321-4321-4321-210987654321"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("everything", [(ONE, KeyUse.S3), (ONE, KeyUse.LOCAL_DISK), (ONE, KeyUse.EBS)]),
        ("local-disk-alone", [(ONE, KeyUse.LOCAL_DISK)]),
        ("s3-overrides", [(ONE, KeyUse.S3), (TWO, KeyUse.S3)]),
        ("in-transit-emr-all-members", [(ONE, KeyUse.CERTIFICATES)]),
        ("write-ahead-logs-with-key", [(ONE, KeyUse.WAL)]),
        ("write-ahead-logs", []),
        ("one-class-for-disk-and-s3", []),
        ("kerberos-dedicated", []),
    ],
)
def test_each_use_of_a_key_is_listed(name: str, expected: list[tuple[str, KeyUse]]) -> None:
    assert [(each.arn, each.use) for each in named_keys(read_document(document_path(name)))] == expected


def test_a_key_of_an_override_is_its_bucket_s() -> None:
    keys = named_keys(read_document(document_path("s3-overrides")))
    assert [(each.bucket, each.s3_mode) for each in keys] == [
        ("amzn-s3-demo-bucket2", S3Mode.CSE_KMS),
        ("amzn-s3-demo-bucket3", S3Mode.SSE_KMS),
    ]
    assert keys[0].place[-3:] == ("Overrides", 1, "AwsKmsKey")


def test_a_key_below_a_switch_that_is_off_is_not_used() -> None:
    off = changed(document_data("everything"), parse_place("EncryptionConfiguration.EnableAtRestEncryption"), False)
    assert named_keys(parse_document(json.dumps(off), "d")) == []
