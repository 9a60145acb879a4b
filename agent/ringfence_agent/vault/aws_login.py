"""The signed request by which an AWS role proves itself to HashiCorp's Vault (auth method `aws`, type `iam`).

The request `GetCallerIdentity` is signed here and sent by Vault, to the STS that Vault is configured with. Rules:

1. It is signed for the regional STS, host and credential scope alike. Signed for the global one, as most clients do, it
   fails in every region but us-east-1.
2. The header X-Vault-AWS-IAM-Server-ID is among those that are signed, always: it is what keeps a captured login from
   being used at another Vault.

OpenBao has no such login. A signature is good for about 15 minutes and is a secret for that time.
"""

from __future__ import annotations

import base64
import json

from ringfence_zones.errors import ConfigError, MissingExtraError

_BODY = "Action=GetCallerIdentity&Version=2011-06-15"
_SERVER_ID = "X-Vault-AWS-IAM-Server-ID"
_PARTITION_SUFFIXES = (("cn-", "amazonaws.com.cn"),)


def sign_caller_identity(region: str, server_id: str) -> dict[str, str]:
    """The fields `iam_*` of a login, signed with the credentials botocore finds (an instance's role, as a rule).

    Raises ConfigError when it finds none, MissingExtraError without the extra `aws`.
    """
    try:
        from botocore.auth import SigV4Auth  # noqa: PLC0415 - only whoever logs in so needs the SDK
        from botocore.awsrequest import AWSRequest  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415
        from botocore.session import Session  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MissingExtraError("logging in to Vault as an AWS role", "aws") from error
    url = f"https://{_host(region)}/"
    try:
        credentials = Session().get_credentials()
        frozen = credentials.get_frozen_credentials() if credentials is not None else None
    except BotoCoreError:
        frozen = None
    if frozen is None or not frozen.access_key:
        raise ConfigError(
            "there are no AWS credentials to log in to Vault with",
            hint="give the instance a role, and let this process reach the instance metadata service",
        )
    request = AWSRequest(
        "POST",
        url,
        data=_BODY,
        headers={
            "Content-Type": "application/x-www-form-urlencoded; charset=utf-8",
            "Host": _host(region),
            _SERVER_ID: server_id,
        },
    )
    SigV4Auth(frozen, "sts", region).add_auth(request)
    headers = {name: [value] for name, value in request.headers.items()}
    return {
        "iam_http_request_method": "POST",
        "iam_request_url": _encoded(url),
        "iam_request_body": _encoded(_BODY),
        "iam_request_headers": _encoded(json.dumps(headers)),
    }


def _host(region: str) -> str:
    suffix = next((suffix for prefix, suffix in _PARTITION_SUFFIXES if region.startswith(prefix)), "amazonaws.com")
    return f"sts.{region}.{suffix}"


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
