"""The signed request of an AWS role's login, taken apart as Vault does."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from scripted_http import scripted_server
from vault_settings import make_settings

from ringfence_agent.vault.aws_login import sign_caller_identity
from ringfence_agent.vault.login import VaultLogin
from ringfence_zones.errors import ConfigError, MissingExtraError

KEY_ID, SECRET, SESSION = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "session-token-of-the-role"


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_PROFILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", SESSION)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))


def decoded(text: str) -> str:
    return base64.b64decode(text, validate=True).decode()


def signature(region: str, headers: dict[str, str], signed: list[str], host: str, body: str) -> str:
    """Signature Version 4 from AWS's own description, not from the SDK."""
    date = headers["x-amz-date"]
    canonical_headers = "".join(f"{name}:{headers[name].strip()}\n" for name in signed)
    digest = hashlib.sha256(body.encode()).hexdigest()
    canonical = "\n".join(["POST", "/", "", canonical_headers, ";".join(signed), digest])
    assert headers["host"] == host
    scope = f"{date[:8]}/{region}/sts/aws4_request"
    to_sign = "\n".join(["AWS4-HMAC-SHA256", date, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{SECRET}".encode()
    for part in (date[:8], region, "sts", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("eu-west-1", "sts.eu-west-1.amazonaws.com"),
        ("us-east-1", "sts.us-east-1.amazonaws.com"),
        ("cn-north-1", "sts.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_it_is_signed_for_the_regional_sts_with_the_server_s_id_among_what_is_signed(region: str, host: str) -> None:
    fields = sign_caller_identity(region, "vault.example.com")
    assert set(fields) == {"iam_http_request_method", "iam_request_url", "iam_request_body", "iam_request_headers"}
    assert fields["iam_http_request_method"] == "POST"
    assert urlsplit(decoded(fields["iam_request_url"]))[:3] == ("https", host, "/")
    body = decoded(fields["iam_request_body"])
    assert body == "Action=GetCallerIdentity&Version=2011-06-15"
    headers = {name.lower(): values[0] for name, values in json.loads(decoded(fields["iam_request_headers"])).items()}
    assert headers["x-vault-aws-iam-server-id"] == "vault.example.com"
    assert headers["x-amz-security-token"] == SESSION
    authorization = dict(part.strip().split("=", 1) for part in headers["authorization"].partition(" ")[2].split(","))
    assert authorization["Credential"].endswith(f"/{region}/sts/aws4_request")
    signed = authorization["SignedHeaders"].split(";")
    assert {"host", "x-vault-aws-iam-server-id", "x-amz-date", "x-amz-security-token"} <= set(signed)
    assert authorization["Signature"] == signature(region, headers, signed, host, body)


def test_without_credentials_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    with pytest.raises(ConfigError, match="no AWS credentials"):
        sign_caller_identity("eu-west-1", "vault.example.com")


def test_without_the_sdk_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore.auth", None)
    with pytest.raises(MissingExtraError) as caught:
        sign_caller_identity("eu-west-1", "vault.example.com")
    assert caught.value.extra == "aws"


def test_the_login_sends_it_with_the_role(tmp_path: Path) -> None:
    auth = {"method": "aws_iam", "role": "kms", "region": "eu-west-1", "server_id": "vault.example.com"}
    answer = json.dumps({"auth": {"client_token": "s.new", "lease_duration": 60}, "sealed": False}).encode()
    with scripted_server(lambda _: (200, answer)) as server:
        login = VaultLogin(make_settings(f"http://127.0.0.1:{server.port}", tmp_path, auth=auth))
        assert login.is_repeatable
        assert login.log_in().lease_s == 60
    sent = next(seen for seen in server.seen if seen.target == "/v1/auth/aws/login")
    body = json.loads(sent.body)
    assert body["role"] == "kms"
    assert SECRET not in sent.body.decode()
    assert decoded(body["iam_request_url"]) == "https://sts.eu-west-1.amazonaws.com/"
