"""The AWS login of HashiCorp's flavour, against the double alone: no such server, and no AWS, was there to measure."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from vault_doubles import VaultAnswer, VaultDouble, running_vault

pytestmark = pytest.mark.unconfirmed

REGION, SERVER_ID = "eu-central-1", "vault.cluster-1"
HOST = f"sts.{REGION}.amazonaws.com"
KEY_ID, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


@pytest.fixture(scope="module")
def hashicorp() -> Iterator[VaultDouble]:
    with running_vault(flavour="hashicorp") as vault:
        vault.order(
            "aws_identity",
            access_key_id=KEY_ID,
            secret_key=SECRET,
            arn="arn:aws:sts::123456789012:assumed-role/EMR_EC2_DefaultRole/i-0123456789abcdef0",
        )
        vault.call("POST", "sys/auth/aws", {"type": "aws"})
        config = {
            "iam_server_id_header_value": SERVER_ID,
            "sts_endpoint": f"https://{HOST}",
            "sts_region": REGION,
        }
        assert vault.call("POST", "auth/aws/config/client", config).status == 204
        role = {
            "auth_type": "iam",
            "bound_iam_principal_arn": "arn:aws:iam::123456789012:role/EMR_EC2_DefaultRole",
            "token_period": "1h",
            "token_no_default_policy": True,
        }
        assert vault.call("POST", "auth/aws/role/kms", role).status == 204
        yield vault


def _log_in(
    vault: VaultDouble,
    *,
    secret: str = SECRET,
    region: str = REGION,
    host: str = HOST,
    server_id: str | None = SERVER_ID,
    late_server_id: str | None = None,
    role: str = "kms",
) -> VaultAnswer:
    body = "Action=GetCallerIdentity&Version=2011-06-15"
    headers = {"Host": host, "Content-Type": "application/x-www-form-urlencoded"}
    if server_id is not None:
        headers["X-Vault-AWS-IAM-Server-ID"] = server_id
    request = AWSRequest("POST", f"https://{host}/", data=body, headers=headers)
    SigV4Auth(Credentials(KEY_ID, secret), "sts", region).add_auth(request)
    signed = {name: [value] for name, value in request.headers.items()}
    if late_server_id is not None:
        signed["X-Vault-AWS-IAM-Server-ID"] = [late_server_id]
    fields = {
        "role": role,
        "iam_http_request_method": "POST",
        "iam_request_url": _encoded(f"https://{host}/"),
        "iam_request_body": _encoded(body),
        "iam_request_headers": _encoded(json.dumps(signed)),
    }
    return vault.call("POST", "auth/aws/login", fields, token="")


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_a_role_of_aws_logs_in(hashicorp: VaultDouble) -> None:
    answer = _log_in(hashicorp)
    assert (answer.status, answer.body["auth"]["lease_duration"]) == (200, 3600)
    token = answer.body["auth"]["client_token"]
    assert token.startswith("hvs.")
    assert hashicorp.call("GET", "auth/token/lookup-self", token=token).status == 403


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"secret": "another"}, "SignatureDoesNotMatch"),
        ({"region": "us-east-1"}, "SignatureDoesNotMatch"),
        ({"host": "sts.amazonaws.com"}, "SignatureDoesNotMatch"),
        ({"server_id": None}, "missing header"),
        ({"server_id": "vault.cluster-2"}, "but got"),
        ({"server_id": None, "late_server_id": SERVER_ID}, "header wasn't signed"),
        ({"role": "missing"}, "entry for role missing not found"),
    ],
)
def test_a_login_that_is_refused(hashicorp: VaultDouble, change: dict[str, str | None], words: str) -> None:
    answer = _log_in(hashicorp, **change)  # type: ignore[arg-type]
    assert answer.status == 400
    assert words in answer.errors[0]


def test_a_signature_is_good_for_a_quarter_of_an_hour(hashicorp: VaultDouble) -> None:
    assert _log_in(hashicorp).status == 200
    hashicorp.advance(20 * 60)
    assert "Signature expired" in _log_in(hashicorp).errors[0]
