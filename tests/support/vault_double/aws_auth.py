"""The AWS login method of type `iam`, with an STS of its own: it knows the identities that tests register, and no AWS.

The signature is recomputed (Signature Version 4), for the endpoint and region of `config/client`, as the STS behind a
real server would. Only HashiCorp's flavour has this method, and nothing here was seen on a real server.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from vault_double.backend import NAME, Backend, Call, decode_base64, route
from vault_double.login_roles import TOKEN_FIELDS, TokenParameters
from vault_double.wire import RefusedError, Reply

_SERVER_ID = "x-vault-aws-iam-server-id"
_SKEW_S = 15 * 60
_BODY = "Action=GetCallerIdentity&Version=2011-06-15"
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/]+)/(?P<date>\d{8})/(?P<region>[^/]+)/sts/aws4_request, "
    r"SignedHeaders=(?P<signed>[^,]+), Signature=(?P<signature>[0-9a-f]{64})"
)


@dataclass(frozen=True, slots=True)
class AwsIdentity:
    """Who signs with an access key."""

    access_key_id: str
    secret_key: str
    arn: str


@dataclass(frozen=True, slots=True)
class AwsRole:
    """One role, bound to principals by their ARN."""

    tokens: TokenParameters
    bound_principals: tuple[str, ...]


def write_client_config(call: Call) -> None:
    known = call.store.get("config") or {}
    call.store.put("config", {**known, **call.data})


def read_client_config(call: Call) -> dict[str, Any] | None:
    config: dict[str, Any] | None = call.store.get("config")
    return config


def write_role(call: Call) -> None:
    if call.text("auth_type", "iam") != "iam":
        raise RefusedError(400, "the double has only auth_type iam")
    principals = call.strings("bound_iam_principal_arn")
    if not principals:
        raise RefusedError(400, "at least one bound parameter should be specified on the role")
    call.store.put(f"role/{call.name}", AwsRole(TokenParameters().changed_by(call), principals))


def read_role(call: Call) -> dict[str, Any] | None:
    role: AwsRole | None = call.store.get(f"role/{call.name}")
    if role is None:
        return None
    return role.tokens.as_data() | {"auth_type": "iam", "bound_iam_principal_arn": list(role.bound_principals)}


def log_in(call: Call) -> Reply:
    config = call.store.get("config") or {}
    headers = _headers(call.data.get("iam_request_headers"))
    _check_server_id(headers, str(config.get("iam_server_id_header_value", "")))
    try:
        url, body = (decode_base64(call.text(f"iam_request_{part}")).decode() for part in ("url", "body"))
    except ValueError:
        raise RefusedError(400, "failed to base64 decode iam_request_url or iam_request_body") from None
    if call.text("iam_http_request_method") != "POST" or body != _BODY or urlsplit(url).path not in ("", "/"):
        raise RefusedError(400, "invalid iam request: only a POST of GetCallerIdentity is taken")
    identity = _verified_identity(call, headers, body, config)
    role: AwsRole | None = call.store.get(f"role/{call.text('role')}")
    if role is None:
        raise RefusedError(400, f"entry for role {call.text('role')} not found")
    principal = _canonical_arn(identity.arn)
    if principal not in role.bound_principals:
        raise RefusedError(400, f'IAM Principal "{identity.arn}" does not belong to the role "{call.text("role")}"')
    meta = {"canonical_arn": principal, "auth_type": "iam", "role_id": call.text("role")}
    token = role.tokens.issue(call, principal, meta, f"aws-{principal.rsplit('/', 1)[-1]}")
    return Reply(auth=token.as_auth(call.core.clock.now()))


def _headers(value: Any) -> dict[str, str]:
    try:
        given = json.loads(base64.b64decode(value)) if isinstance(value, str) else value
        items = given.items()
    except (ValueError, AttributeError):
        raise RefusedError(400, "failed to parse iam_request_headers") from None
    return {name.lower(): str(one[0] if isinstance(one, list) else one) for name, one in items}


def _check_server_id(headers: dict[str, str], wanted: str) -> None:
    if not wanted:
        return
    prefix = "error validating X-Vault-AWS-IAM-Server-ID header: "
    if _SERVER_ID not in headers:
        raise RefusedError(400, prefix + "missing header")
    if headers[_SERVER_ID] != wanted:
        raise RefusedError(400, prefix + f"expected {wanted!r} but got {headers[_SERVER_ID]!r}")
    match = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
    if match is None or _SERVER_ID not in match["signed"].split(";"):
        raise RefusedError(400, prefix + "header wasn't signed")


def _verified_identity(call: Call, headers: dict[str, str], body: str, config: dict[str, Any]) -> AwsIdentity:
    """What STS would say. Raises RefusedError for what it would refuse."""
    match = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
    identity: AwsIdentity | None = None if match is None else call.view.get(f"aws-identity/{match['key']}")
    if match is None or identity is None:
        raise _sts_refusal("InvalidClientTokenId")
    endpoint = urlsplit(str(config.get("sts_endpoint") or "https://sts.amazonaws.com")).netloc
    region = str(config.get("sts_region") or "us-east-1")
    signed = match["signed"].split(";")
    if headers.get("host") != endpoint or match["region"] != region or "host" not in signed:
        raise _sts_refusal("SignatureDoesNotMatch")
    moment = datetime.strptime(headers.get("x-amz-date", ""), "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    if abs(call.core.clock.now() - moment) > _SKEW_S:
        raise _sts_refusal("SignatureDoesNotMatch: Signature expired")
    expected = _signature(identity.secret_key, headers, signed, body, match["region"])
    if not hmac.compare_digest(expected, match["signature"]):
        raise _sts_refusal("SignatureDoesNotMatch")
    return identity


def _signature(secret: str, headers: dict[str, str], signed: list[str], body: str, region: str) -> str:
    date = headers["x-amz-date"]
    lines = "".join(f"{name}:{headers.get(name, '').strip()}\n" for name in signed)
    canonical = "\n".join(["POST", "/", "", lines, ";".join(signed), hashlib.sha256(body.encode()).hexdigest()])
    scope = f"{date[:8]}/{region}/sts/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", date, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{secret}".encode()
    for part in (date[:8], region, "sts", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _sts_refusal(code: str) -> RefusedError:
    return RefusedError(400, f"error making upstream request: received error code 403 from STS: {code}")


def _canonical_arn(arn: str) -> str:
    """An assumed role's session stands for its role."""
    match = re.fullmatch(r"arn:(aws[\w-]*):sts::(\d+):assumed-role/([^/]+)/.+", arn)
    return arn if match is None else f"arn:{match[1]}:iam::{match[2]}:role/{match[3]}"


AWS = Backend(
    (
        route("config/client", None, read=read_client_config, update=write_client_config),
        route(
            f"role/{NAME}",
            f"name role auth_type bound_iam_principal_arn resolve_aws_unique_ids {TOKEN_FIELDS}",
            exists=lambda call: call.store.get(f"role/{call.name}") is not None,
            read=read_role,
            update=write_role,
        ),
        route(
            "login",
            "role iam_http_request_method iam_request_url iam_request_body iam_request_headers",
            is_login=True,
            update=log_in,
        ),
    )
)
