"""A pytest plugin: places where an AWS KMS is, for one suite over all of them.

`double`  tests/support/aws_kms_double.py, which does as AWS does
`moto`    moto's mock, for plumbing alone: it knows no key states, and refuses a foreign key with other words
`real`    AWS itself, with RINGFENCE_TEST_AWS_KMS_KEY (an ARN) and the SDK's own credentials; it seals and opens a few
          bytes, and changes nothing. RINGFENCE_TEST_AWS_KMS_SECOND_KEY, another key's ARN, adds the moves between keys.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from aws_kms_double import REGION, ROLE, AwsKmsDouble, Credentials

from ringfence_agent.keystore.protectors.aws_kms_config import AwsKmsSettings
from ringfence_zones.aws_names import find_key_arn

CLUSTER = "analytics"
_REAL = os.environ.get("RINGFENCE_TEST_AWS_KMS_KEY")
PLACES = ["double", "moto", *(["real"] if _REAL else [])]
# What the SDK would look at besides; the tests' own answers stand in for all of it.
_ELSEWHERE = (
    "AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_ENDPOINT_URL",
    "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)  # fmt: skip


@dataclass(frozen=True)
class AwsKmsPlace:
    """One place. `admin` is a boto3 client that may do everything, None where nobody is to be troubled by it."""

    name: str
    settings: AwsKmsSettings
    second_key: str | None
    admin: Any

    @property
    def key(self) -> str:
        return self.settings.key

    def settings_for(self, key: str, **fields: Any) -> AwsKmsSettings:
        return replace(self.settings, key=key, **fields)


def sign_as(monkeypatch: pytest.MonkeyPatch, credentials: Credentials) -> None:
    """From now on clients that are made here sign so."""
    for name in _ELSEWHERE:
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    for name, value in credentials.environment().items():
        monkeypatch.setenv(name, value)


def policy_for(role: str, *actions: str) -> dict[str, Any]:
    """A key policy: its account's identity policies count, and `role` may do these."""
    account = role.split(":")[4]
    statements = [
        {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{account}:root"}, "Action": "kms:*", "Resource": "*"},
        {"Effect": "Allow", "Principal": {"AWS": role}, "Action": list(actions), "Resource": "*"},
    ]
    return {"Version": "2012-10-17", "Statement": statements if actions else statements[:1]}


USER_ACTIONS = ("kms:Encrypt", "kms:Decrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:DescribeKey")


def make_key(double: AwsKmsDouble, *actions: str, **fields: Any) -> str:
    """A key of the double's that the server's role may use so (in every way it needs, when none is named); its ARN."""
    admin = double.client("kms", double.admin)
    made = admin.create_key(Policy=json.dumps(policy_for(ROLE, *(actions or USER_ACTIONS))), **fields)
    double.take_requests()  # those that are asked for are the server's
    return str(made["KeyMetadata"]["Arn"])


@pytest.fixture(scope="session")
def aws_kms_process() -> Iterator[AwsKmsDouble]:
    """The double's process. The SDK reads its models once for all clients, not for each."""
    import botocore.loaders
    import botocore.session

    loader = botocore.loaders.create_loader()
    with pytest.MonkeyPatch.context() as patch, AwsKmsDouble.started() as double:
        patch.setattr(botocore.session, "create_loader", lambda _search_path=None: loader)
        yield double


@pytest.fixture
def aws_kms_double(aws_kms_process: AwsKmsDouble, monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsKmsDouble]:
    """The double, without faults, with the server's credentials in the environment."""
    sign_as(monkeypatch, aws_kms_process.server)
    aws_kms_process.mend()
    aws_kms_process.take_requests()
    yield aws_kms_process
    aws_kms_process.mend()


def double_settings(double: AwsKmsDouble, key: str, **fields: Any) -> AwsKmsSettings:
    return AwsKmsSettings(key=key, cluster=CLUSTER, region=REGION, endpoint=double.url, **fields)


@pytest.fixture(params=PLACES)
def aws_kms_place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsKmsPlace]:
    """Each place with a key for us."""
    if request.param == "double":
        double: AwsKmsDouble = request.getfixturevalue("aws_kms_double")
        settings = double_settings(double, make_key(double))
        yield AwsKmsPlace("double", settings, make_key(double), double.client("kms", double.admin))
    elif request.param == "moto":
        sign_as(monkeypatch, Credentials("testing", "testing"))
        yield from _moto_place()
    else:
        arn = find_key_arn(_REAL or "")
        assert arn is not None, "RINGFENCE_TEST_AWS_KMS_KEY is to be a key's ARN"
        settings = AwsKmsSettings(key=arn.text, cluster="ringfence-test", region=arn.region)
        yield AwsKmsPlace("real", settings, os.environ.get("RINGFENCE_TEST_AWS_KMS_SECOND_KEY"), None)


def _moto_place() -> Iterator[AwsKmsPlace]:
    import boto3.session
    from moto import mock_aws

    with mock_aws():
        admin = boto3.session.Session(region_name=REGION).client("kms")
        key, second = (str(admin.create_key(KeyUsage="ENCRYPT_DECRYPT")["KeyMetadata"]["Arn"]) for _ in range(2))
        yield AwsKmsPlace("moto", AwsKmsSettings(key=key, cluster=CLUSTER, region=REGION), second, admin)
