"""Names as AWS writes them."""

from __future__ import annotations

import re

import pytest

from ringfence_zones.aws_names import BUCKET, REGION, find_key_arn, is_secret_arn

KEY = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"


@pytest.mark.parametrize(
    ("text", "region", "resource", "is_alias"),
    [
        (KEY, "us-east-1", KEY.rpartition(":")[2], False),
        (
            "arn:aws-us-gov:kms:us-gov-west-1:123456789012:key/mrk-" + "a" * 32,
            "us-gov-west-1",
            "key/mrk-" + "a" * 32,
            False,
        ),
        ("arn:aws-eusc:kms:eusc-de-east-1:123456789012:alias/a", "eusc-de-east-1", "alias/a", True),
        ("arn:aws:kms:ap-southeast-2:123456789012:alias/team/emr", "ap-southeast-2", "alias/team/emr", True),
    ],
)
def test_arns_of_keys_and_aliases(text: str, region: str, resource: str, *, is_alias: bool) -> None:
    arn = find_key_arn(text)
    assert arn is not None
    assert (arn.text, arn.account) == (text, "123456789012")
    assert (arn.region, arn.resource, arn.is_alias) == (region, resource, is_alias)


@pytest.mark.parametrize("text", [KEY + "\n", KEY.upper(), KEY[:-1], "alias/emr", "arn:aws:kms:us-east-1::key/x", ""])
def test_what_is_no_arn_of_a_key(text: str) -> None:
    assert find_key_arn(text) is None


def test_the_arn_of_a_secret_names_region_account_and_secret() -> None:
    arn = "arn:aws-cn:secretsmanager:cn-north-1:123456789012:secret:emr/kdc-AbCdEf"
    assert is_secret_arn(arn)
    assert not any(map(is_secret_arn, (arn.replace("secretsmanager", "ssm"), arn.replace(":secret:", ":"), "hunter2")))


@pytest.mark.parametrize("region", ["eu-west-1", "us-gov-east-1", "us-isob-east-1", "eusc-de-east-1"])
def test_regions_of_every_partition(region: str) -> None:
    assert re.fullmatch(REGION, region)
    assert not re.fullmatch(REGION, region[:-2])
    assert not re.fullmatch(REGION, region.upper())


def test_buckets_have_lower_case_names_of_3_to_63_characters() -> None:
    assert all(re.fullmatch(BUCKET, name) for name in ("a-b", "data.example.com", "a" * 63))
    assert not any(re.fullmatch(BUCKET, name) for name in ("ab", "A-b", "-ab", "a/b", "a" * 64))
