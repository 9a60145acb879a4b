"""What differs between two documents: by what EMR would do, not by how they are written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from emr_documents import (
    DOCUMENTED,
    changed,
    document_data,
    document_path,
    documents,
    members_of,
    parse_place,
)
from hypothesis import given, settings

from ringfence_bootstrap.security_configuration.compare import Effect, differences, is_same
from ringfence_bootstrap.security_configuration.document import SecurityConfiguration
from ringfence_bootstrap.security_configuration.reading import parse_document, read_document

REST = "EncryptionConfiguration.AtRestEncryptionConfiguration"
TLS = "EncryptionConfiguration.InTransitEncryptionConfiguration.TLSCertificateConfiguration"
OTHER_KEY = "arn:aws:kms:us-east-1:123456789012:key/00000000-1234-1234-1234-123456789012"


def document(data: Any) -> SecurityConfiguration:
    return parse_document(json.dumps(data), "d")


def with_change(name: str, place: str, value: Any) -> SecurityConfiguration:
    return document(changed(document_data(name), parse_place(place), value))


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("everything", f"{REST}.S3EncryptionConfiguration.Overrides", []),
        ("everything", "AuthorizationConfiguration", {}),
        ("everything", "AuthorizationConfiguration", {"IAMConfiguration": {"EnableApplicationScopedIAMRole": False}}),
        ("local-disk-alone", f"{REST}.LocalDiskEncryptionConfiguration.EnableEbsEncryption", False),
        ("everything", "EncryptionConfiguration.EnableAtRestEncryption", "true"),
        ("in-transit-pem", f"{TLS}.S3Object", "arn:aws:s3:::amzn-s3-demo-bucket/artifacts/MyCerts.zip"),
        ("in-transit-pem", f"{TLS}.CACertificateSecretARN", "arn:aws:secretsmanager:us-east-1:1:secret:x"),
        ("in-transit-pem", "EncryptionConfiguration.EnableAtRestEncryption", None),
    ],
)
def test_what_emr_would_not_notice_is_no_difference(name: str, place: str, value: Any) -> None:
    one, other = read_document(document_path(name)), with_change(name, place, value)
    assert differences(one, other) == []
    assert is_same(one, other)


def test_the_order_of_overrides_means_nothing_and_that_of_role_mappings_does() -> None:
    for name, place, same in (
        ("s3-overrides", f"{REST}.S3EncryptionConfiguration.Overrides", True),
        ("emrfs-roles", "AuthorizationConfiguration.EmrFsConfiguration.RoleMappings", False),
    ):
        data = document_data(name)
        listed = data
        for step in parse_place(place):
            listed = listed[step]
        other = changed(data, parse_place(place), list(reversed(listed)))
        assert is_same(document(data), document(other)) is same


@pytest.mark.parametrize(
    ("name", "place", "value", "effect", "words"),
    [
        ("everything", "EncryptionConfiguration.EnableInTransitEncryption", False, Effect.WEAKER, "off"),
        ("everything", f"{REST}.LocalDiskEncryptionConfiguration.EnableEbsEncryption", None, Effect.WEAKER, "EBS"),
        ("everything", f"{REST}.LocalDiskEncryptionConfiguration", None, Effect.WEAKER, "local disks"),
        ("everything", f"{REST}.S3EncryptionConfiguration.EncryptionMode", "SSE-S3", Effect.WEAKER, "becomes SSE-S3"),
        ("everything", f"{REST}.S3EncryptionConfiguration.EncryptionMode", "CSE-KMS", Effect.STRONGER, "CSE-KMS"),
        ("everything", f"{REST}.S3EncryptionConfiguration.AwsKmsKey", OTHER_KEY, Effect.OTHER, f"becomes {OTHER_KEY}"),
        ("everything", "AuthenticationConfiguration", None, Effect.WEAKER, "Kerberos"),
        (
            "everything",
            "InstanceMetadataServiceConfiguration.MinimumInstanceMetadataServiceVersion",
            1,
            Effect.WEAKER,
            "2 becomes 1",
        ),
        (
            "everything",
            "InstanceMetadataServiceConfiguration.HttpPutResponseHopLimit",
            1,
            Effect.STRONGER,
            "2 becomes 1",
        ),
        ("in-transit-pem", "EncryptionConfiguration.EMRWALEncryptionConfiguration", {}, Effect.STRONGER, "write-ahead"),
        ("in-transit-pem", f"{TLS}.S3Object", "s3://amzn-s3-demo-bucket/new.zip", Effect.OTHER, "new.zip"),
        ("s3-overrides", f"{REST}.S3EncryptionConfiguration.Overrides[0].BucketName", "b", Effect.OTHER, "bucket b"),
    ],
)
def test_a_difference_says_what_it_does_to_protection(
    name: str, place: str, value: Any, effect: Effect, words: str
) -> None:
    found = differences(read_document(document_path(name)), with_change(name, place, value))
    assert any(each.effect is effect and words in each.message for each in found), found
    back = differences(with_change(name, place, value), read_document(document_path(name)))
    turned = {Effect.WEAKER: Effect.STRONGER, Effect.STRONGER: Effect.WEAKER}
    assert [each.effect for each in back] == [turned.get(each.effect, each.effect) for each in found]


def test_below_a_switch_that_is_off_in_both_nothing_changes() -> None:
    off = changed(document_data("everything"), parse_place("EncryptionConfiguration.EnableAtRestEncryption"), False)
    other = changed(off, parse_place(f"{REST}.S3EncryptionConfiguration.EncryptionMode"), "SSE-S3")
    (found,) = differences(document(off), document(other))
    assert (found.effect, found.before, found.after) == (Effect.NONE, "SSE-KMS", "SSE-S3")


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_document_is_the_same_as_itself_and_no_other_one(name: str) -> None:
    one = read_document(document_path(name))
    assert is_same(one, document(one.to_json()))
    assert [other for other in DOCUMENTED if is_same(one, read_document(document_path(other)))] == [name]


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_dropped_member_is_a_difference_that_names_it(name: str) -> None:
    data = document_data(name)
    for place, value in members_of(data):
        if value is False or value == "false" or place[-1] in ("CACertificateSecretARN", "ExternalId"):
            continue  # absent means the same, or EMR writes it
        found = differences(document(data), document(changed(data, place, None)))
        assert found, place


# Both documents are drawn anew each time, which is what takes the time.
@settings(max_examples=30)
@given(documents(), documents())
def test_whatever_two_documents_hold_there_and_back_are_as_many_differences(one: Any, other: Any) -> None:
    there, back = differences(document(one), document(other)), differences(document(other), document(one))
    assert {(each.place, each.before, each.after) for each in there} == {
        (each.place, each.after, each.before) for each in back
    }
    assert is_same(document(one), document(one))


def test_a_member_that_nobody_knows_is_compared_too() -> None:
    one, other = (with_change("everything", "EncryptionConfiguration.Later", value) for value in ({"a": 1}, {"a": 2}))
    (found,) = differences(one, other)
    assert found.place == "EncryptionConfiguration.Later"
    assert found.to_json()["effect"] == "other"


def test_what_cannot_be_read_is_compared_and_not_judged() -> None:
    (found,) = differences(
        with_change("in-transit-pem", "EncryptionConfiguration.EnableAtRestEncryption", None),
        with_change("in-transit-pem", "EncryptionConfiguration.EnableAtRestEncryption", "perhaps"),
    )
    assert (found.effect, found.before, found.after) == (Effect.OTHER, None, '"perhaps"')
