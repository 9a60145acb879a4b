"""Errors of AWS and its SDK as sentences, and nothing of the SDK behind them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from botocore import exceptions as sdk

from ringfence_bootstrap.account import connection as module
from ringfence_bootstrap.account.connection import AwsPlace, Connection
from ringfence_bootstrap.account.failures import Call
from ringfence_zones.errors import AwsError, AwsUnavailableError, InputError

SECRET = "wJalrXUtnFEMI-a-secret"


def client_error(code: str, status: int = 400, message: str = "") -> sdk.ClientError:
    answer: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return sdk.ClientError(answer, "DescribeCluster")


def raised(error: Exception, monkeypatch: pytest.MonkeyPatch, service: str = "emr") -> AwsError:
    """What leaves when the SDK raises `error`."""

    def method(**_request: Any) -> None:
        raise error

    monkeypatch.setattr(Connection, "_method", lambda *_: method)
    with pytest.raises(AwsError) as caught:
        Connection(AwsPlace("eu-west-1")).call(service, "describe_cluster", "cluster j-1", ClusterId=SECRET)
    return caught.value


@pytest.mark.parametrize(
    ("error", "says", "kind"),
    [
        (client_error("ThrottlingException"), "throttles DescribeCluster", AwsUnavailableError),
        (client_error("ExpiredTokenException"), "have expired", AwsUnavailableError),
        (client_error("InternalFailure", 500), "AWS failed at DescribeCluster", AwsUnavailableError),
        (client_error("AccessDeniedException"), "may not call elasticmapreduce:DescribeCluster", AwsError),
        (client_error("UnrecognizedClientException"), "does not take these credentials", AwsError),
        (client_error("NotFoundException"), "does not know cluster j-1", AwsError),
        (client_error("InvalidRequestException", message="Bad thing.\n\x1b[2J"), ": Bad thing", AwsError),
        (sdk.NoCredentialsError(), "no AWS credentials", AwsUnavailableError),
        (sdk.EndpointConnectionError(endpoint_url="https://x"), "no connection", AwsUnavailableError),
        (sdk.ReadTimeoutError(endpoint_url="https://x"), "no answer in time", AwsUnavailableError),
        (sdk.ParamValidationError(report="Missing required parameter"), "Missing required", AwsError),
        (RuntimeError(SECRET), "does not speak its protocol", AwsUnavailableError),
    ],
)
def test_each_failure_is_a_sentence_of_its_kind(
    error: Exception, says: str, kind: type[AwsError], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = raised(error, monkeypatch)
    assert type(found) is kind
    assert says in found.message
    assert found.message.isprintable()
    assert SECRET not in f"{found.message} {found.hint} {found.command}"
    assert (found.__cause__, found.__context__) == (None, None)


def test_s3_s_permissions_are_called_as_policies_call_them() -> None:
    assert Call("s3", "head_object", "o", "eu-west-1").action == "s3:GetObject"
    assert Call("s3", "put_object", "o", "eu-west-1").action == "s3:PutObject"
    assert Call("emr", "list_clusters", "c", "eu-west-1").action == "elasticmapreduce:ListClusters"


@pytest.mark.parametrize(
    ("region", "endpoints"),
    [("mars", {}), (None, {"ec2": "https://x"}), (None, {"emr": "x"}), (None, {"emr": "ftp://x"})],
)
def test_a_place_that_cannot_be_is_bad_input(region: str | None, endpoints: dict[str, str]) -> None:
    with pytest.raises(InputError):
        AwsPlace(region, endpoints=endpoints)


def test_a_listing_without_an_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_PAGES", 5)
    monkeypatch.setattr(Connection, "_method", lambda *_: lambda **_: {"Clusters": [{}], "Marker": "more"})
    with pytest.raises(AwsError, match="has no end"):
        Connection(AwsPlace("eu-west-1")).pages("emr", "list_clusters", "clusters", "Clusters")


def test_no_sdk_is_imported_before_it_is_needed() -> None:
    code = (
        "import sys\n"
        "import ringfence_bootstrap.cli.emr_security_config_account\n"
        "import ringfence_bootstrap.cli.emr_permissions\n"
        "import ringfence_bootstrap.cli.emr_certificates\n"
        "sys.exit('boto3' in sys.modules or 'botocore' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
