"""AWS as the EMR commands reach it. The only file that imports boto3 for EMR, S3, KMS, IAM and STS.

Rules:

1. boto3 is imported when the first request is made: `ringfence emr --help` and everything offline do without it, and a
   missing extra is named.
2. Credentials, and region and addresses unless they are given here, are found as every tool of AWS's finds them. None
   is ever in an option of ours, an error or a log; the SDK's debug log, which prints bodies, is switched off.
3. Plain http is only for this machine itself: what goes to AWS is signed but not hidden.
4. A request ends: five attempts of at most 35 s each, with the SDK's pauses between them.
5. What leaves is an error of `failures`, with the SDK's exception neither in it nor as its context.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ringfence_bootstrap.account import failures
from ringfence_bootstrap.account.failures import Call
from ringfence_zones.aws_names import REGION
from ringfence_zones.errors import AwsError, ConfigError, InputError, MissingExtraError
from ringfence_zones.http_origin import find_origin
from ringfence_zones.kms_uri import is_loopback

SERVICES = ("emr", "iam", "kms", "s3", "sts")
_CONNECT_S, _READ_S, _ATTEMPTS = 5.0, 30.0, 5
_MAX_PAGES = 1000


@dataclass(frozen=True, slots=True)
class AwsPlace:
    """Which AWS is meant. `region` and `profile` are the SDK's own when None; `endpoints` holds a URL by service."""

    region: str | None = None
    profile: str | None = None
    endpoints: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.region is not None:
            check_region(self.region)
        for service, url in self.endpoints.items():
            if service not in SERVICES:
                raise InputError(f"--endpoint {service}=… names no service", hint=f"one of {', '.join(SERVICES)}")
            if find_origin(url) is None:
                raise InputError(
                    f"--endpoint {service}={url} is no address", hint="write https://HOST, with a port if it has one"
                )


def check_region(region: str) -> str:
    """`region`. Raises InputError when no region of AWS's is called so."""
    if re.fullmatch(REGION, region) is None:
        raise InputError(f"{region!r} is no region of AWS's", hint="write one like eu-west-1")
    return region


class Connection:
    """One account and region, as the credentials of this process may use it. Not for several threads."""

    def __init__(self, place: AwsPlace) -> None:
        """Connects to nothing."""
        self._place = place
        self._clients: dict[tuple[str, str], Any] = {}
        self._session: Any = None

    @property
    def region(self) -> str:
        """The region that is asked. Raises ConfigError where nobody named one."""
        # Of the two variables boto3 itself reads only AWS_DEFAULT_REGION, and every other tool AWS_REGION first.
        region = self._place.region or os.environ.get("AWS_REGION") or self._open_session().region_name
        if not region:
            raise ConfigError("no region is named", hint="give --region, or set AWS_REGION or the profile's region")
        return check_region(region)

    def call(
        self, service: str, operation: str, about: str, *, region: str | None = None, **request: Any
    ) -> dict[str, Any]:
        """One request of `service` and its answer; `about` names what it is about, in an error.

        Of the region `region`, this connection's own unless it is given. Raises AwsError, and ConfigError and
        MissingExtraError before anything is sent.
        """
        call = Call(service, operation, about, region or self.region)
        method = self._method(call)
        answer, problem = _try(method, request, call)
        if problem is not None:
            raise problem
        return answer

    def pages(
        self,
        service: str,
        operation: str,
        about: str,
        key: str,
        *,
        before: Callable[[], None] | None = None,
        **ask: Any,
    ) -> list[dict[str, Any]]:
        """All entries under `key` of a listing that pages with `Marker`; `before` is called before each request."""
        found: list[dict[str, Any]] = []
        marker: dict[str, str] = {}
        for _ in range(_MAX_PAGES):
            if before is not None:
                before()
            answer = self.call(service, operation, about, **ask, **marker)
            entries = answer.get(key, [])
            found += [entry for entry in entries if isinstance(entry, dict)]
            following = answer.get("NextMarker") or answer.get("Marker")
            if not following or answer.get("Truncated") is False or answer.get("IsTruncated") is False:
                return found
            marker = {"Marker": str(following)}
        raise AwsError(f"the list of {about} has no end", hint="check --endpoint and the proxy (HTTPS_PROXY)")

    def _method(self, call: Call) -> Callable[..., Any]:
        client = self._clients.get((call.service, call.region))
        if client is None:
            client = self._clients[call.service, call.region] = self._make_client(call.service, call.region)
        method: Callable[..., Any] = getattr(client, call.operation)
        return method

    def _make_client(self, service: str, region: str) -> Any:
        session = self._open_session()
        from botocore import exceptions as sdk  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415

        config = Config(
            connect_timeout=_CONNECT_S,
            read_timeout=_READ_S,
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            user_agent_extra="ringfence",
        )
        problem = None
        try:
            client = session.client(
                service, region_name=region, config=config, endpoint_url=self._place.endpoints.get(service)
            )
        except (sdk.BotoCoreError, ValueError) as error:
            problem = type(error).__name__
        if problem is not None:
            raise ConfigError(
                f"the AWS SDK cannot be set up for {service} in {region} ({problem})",
                hint="check --endpoint, AWS_PROFILE, AWS_ENDPOINT_URL and ~/.aws/config",
            )
        _require_safe(str(client.meta.endpoint_url))
        return client

    def _open_session(self) -> Any:
        if self._session is None:
            try:
                import boto3.session  # noqa: PLC0415
                from botocore import exceptions as sdk  # noqa: PLC0415
            except ModuleNotFoundError as error:
                raise MissingExtraError("an EMR command that asks AWS", "emr") from error
            _silence_the_sdk()
            problem = None
            try:
                self._session = boto3.session.Session(profile_name=self._place.profile)
            except sdk.ProfileNotFound:
                problem = ConfigError(
                    f"there is no AWS profile {self._place.profile or 'of the name in AWS_PROFILE'}",
                    hint="see the names in ~/.aws/config",
                    command="aws configure list-profiles",
                )
            except sdk.BotoCoreError as error:
                problem = ConfigError(
                    f"the AWS SDK cannot be set up ({type(error).__name__})", hint="check ~/.aws/config"
                )
            if problem is not None:
                raise problem
        return self._session


def _try(method: Callable[..., Any], request: Mapping[str, Any], call: Call) -> tuple[dict[str, Any], AwsError | None]:
    """The answer, or what is wrong; returned, for raised in the handler it had the SDK's exception as its context."""
    try:
        answer = method(**request)
    except Exception as error:  # noqa: BLE001 - whatever the SDK raises may hold what it was given
        return {}, _translated(error, call)
    return (answer, None) if isinstance(answer, dict) else ({}, failures.bad_answer(call))


def _translated(error: Exception, call: Call) -> AwsError:
    from botocore import exceptions as sdk  # noqa: PLC0415

    if isinstance(error, sdk.ClientError):
        found = error.response.get("Error", {})
        # EMR's own errors say in a field of their own what the common ones say in `Message`.
        said = found.get("Message") or error.response.get("Message")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return failures.error_of_answer(found.get("Code"), status, said, call)
    if isinstance(
        error,
        sdk.NoCredentialsError
        | sdk.PartialCredentialsError
        | sdk.CredentialRetrievalError
        | sdk.TokenRetrievalError
        | sdk.SSOError,
    ):
        return failures.no_credentials(call)
    if isinstance(error, sdk.SSLError):
        return failures.no_connection(call, "its certificate is not trusted, or TLS failed")
    if isinstance(error, sdk.ConnectTimeoutError | sdk.ReadTimeoutError):
        return failures.no_connection(call, "no answer in time")
    if isinstance(error, sdk.ConnectionError | sdk.HTTPClientError):
        return failures.no_connection(call, "no connection, or it broke")
    if isinstance(error, sdk.ParamValidationError):
        return failures.bad_request(call, str(error.kwargs.get("report", "")))
    return failures.bad_answer(call)


def _require_safe(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
        raise ConfigError(
            f"{url} is plain http, and what is sent there would cross the network in clear",
            hint="write https in --endpoint, AWS_ENDPOINT_URL or the profile",
        )


def _silence_the_sdk() -> None:
    """Its debug log holds requests and answers whole."""
    for name in ("boto3", "botocore"):
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.level, logging.WARNING))
