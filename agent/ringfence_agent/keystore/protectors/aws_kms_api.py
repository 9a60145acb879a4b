"""AWS KMS as one process sees it. The only file that calls boto3 for it.

Rules:

1. Every operation ends within its deadline, whatever the SDK, its adaptive retries or a server does: it runs in a
   thread of its own, which is left behind then. No attempt begins after the deadline, so such a thread ends soon.
2. The key is named in every call, decryption too, and an answer that speaks of another key is refused.
3. AWS has no batch. A list is worked off by at most eight threads; it is done as a whole or fails with its first error.
4. Where requests go is the settings' business (`aws_kms_config`); a redirect is not followed.
5. What leaves is an error of `aws_kms_errors`, or SealBrokenError for a ciphertext that this key did not make for this
   context (KMS says no more than that). Neither holds the SDK's exception, whose text and response may be bodies, nor
   has it as its context. The SDK's debug log, which prints bodies, is switched off.

The SDK reads credentials itself and keeps them; this module never sees one.
"""

from __future__ import annotations

import datetime
import logging
import math
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any

from ringfence_agent.keystore.protectors.aws_kms_config import MAX_DEADLINE_S, AwsKmsSettings
from ringfence_agent.keystore.protectors.aws_kms_errors import (
    Call,
    bad_answer,
    error_of_code,
    error_of_state,
    no_connection,
    no_credentials,
    too_late,
    wrong_key,
)
from ringfence_agent.keystore.sealing import SealBrokenError
from ringfence_zones.errors import ConfigError, MissingExtraError, RingfenceError
from ringfence_zones.secret import Secret

try:
    import boto3.session
    from botocore import exceptions as sdk
    from botocore.config import Config
except ModuleNotFoundError as error:
    raise MissingExtraError("a key store protected by AWS KMS", "aws") from error

Context = Mapping[str, str]
"""An encryption context: bound to the ciphertext, and in clear in the log of AWS (CloudTrail)."""

MAX_PLAIN_BYTES = 4096
MAX_CIPHERTEXT_BYTES = 6144
_THREADS = 8
_CONNECT_S = 1.0
# The deadline ends the attempts; this is only a bound.
_ATTEMPTS = 10
_MAX_GRANT_PAGES = 10
_METHODS = {
    "Encrypt": "encrypt",
    "Decrypt": "decrypt",
    "ReEncrypt": "re_encrypt",
    "DescribeKey": "describe_key",
    "GetKeyPolicy": "get_key_policy",
    "ListGrants": "list_grants",
    "GetCallerIdentity": "get_caller_identity",
    "GetRole": "get_role",
}
_NO_CREDENTIALS = (
    sdk.NoCredentialsError,
    sdk.PartialCredentialsError,
    sdk.CredentialRetrievalError,
    sdk.TokenRetrievalError,
    sdk.MetadataRetrievalError,
    sdk.NoAuthTokenError,
    sdk.SSOError,
)


@dataclass(frozen=True, slots=True)
class KeyDescription:
    """What DescribeKey says of a key, in AWS's words. `arn` is the key's, also when it was asked for by an alias."""

    arn: str
    account: str
    state: str
    spec: str
    usage: str
    manager: str
    origin: str
    deletion: datetime.datetime | None
    material_expires: datetime.datetime | None


@dataclass(frozen=True, slots=True)
class Grant:
    """One grant on a key: who may do what by it. `is_limited` tells whether it is bound to an encryption context."""

    grantee: str
    operations: tuple[str, ...]
    is_limited: bool


@dataclass(slots=True)
class _Attempts:
    """One operation under way in a thread: when it must end, and how its last attempt failed."""

    ends: float = math.inf
    failure: Exception | None = None


class AwsKms:
    """One region's AWS KMS, as the credentials of this process may use it. Thread-safe; made after the fork.

    Methods block; raise ProtectorUnavailableError, ProtectorRefusedError and, where they say so, SealBrokenError.
    """

    def __init__(self, settings: AwsKmsSettings) -> None:
        """Connects to nothing but, for credentials, the machine's metadata service. Raises ConfigError."""
        self.region = settings.region
        self._deadline_s = settings.deadline_s
        self._thread = threading.local()
        _silence_the_sdk()
        problem = None
        try:
            self._session = boto3.session.Session(region_name=settings.region)
            self._clients = {
                "kms": self._client("kms", endpoint_url=settings.endpoint, fips=settings.fips, own_endpoint=True)
            }
        except (sdk.BotoCoreError, ValueError) as error:
            problem = type(error).__name__
        if problem is not None:
            raise ConfigError(
                f"the AWS SDK cannot be set up for {settings.region} ({problem})",
                hint="check AWS_PROFILE, ~/.aws/config and aws_kms.region",
            )

    def __repr__(self) -> str:
        return f"<AwsKms {self.region}>"

    def encrypt(self, key: str, items: Sequence[tuple[Secret, Context]]) -> list[bytes]:
        """A ciphertext of at most 6,144 bytes for each plaintext of at most 4,096, in order."""
        assert all(0 < len(plain) <= MAX_PLAIN_BYTES for plain, _ in items), "a key or a root"
        call = Call("Encrypt", key, self.region)
        answers = self._each(
            call,
            [
                {"KeyId": key, "Plaintext": plain.reveal(), "EncryptionContext": dict(context)}
                for plain, context in items
            ],
        )
        return [_blob(answer, "CiphertextBlob", MAX_CIPHERTEXT_BYTES, call) for answer in answers]

    def decrypt(self, key: str, items: Sequence[tuple[bytes, Context]]) -> list[Secret]:
        """The plaintexts, in order. Raises SealBrokenError for another context, key material or changed bytes."""
        if not all(0 < len(ciphertext) <= MAX_CIPHERTEXT_BYTES for ciphertext, _ in items):
            raise SealBrokenError
        call = Call("Decrypt", key, self.region)
        answers = self._each(
            call,
            [
                {"KeyId": key, "CiphertextBlob": ciphertext, "EncryptionContext": dict(context)}
                for ciphertext, context in items
            ],
        )
        return [Secret(_blob(answer, "Plaintext", MAX_PLAIN_BYTES, call)) for answer in answers]

    def re_encrypt(self, source: str, target: str, items: Sequence[tuple[bytes, Context]]) -> list[bytes]:
        """Ciphertexts of key `target` for those of key `source`, under the same contexts; the plaintexts stay in KMS.

        Raises SealBrokenError.
        """
        if not all(0 < len(ciphertext) <= MAX_CIPHERTEXT_BYTES for ciphertext, _ in items):
            raise SealBrokenError
        call = Call("ReEncrypt", target, self.region, source=source)
        answers = self._each(
            call,
            [
                {
                    "CiphertextBlob": ciphertext,
                    "SourceKeyId": source,
                    "SourceEncryptionContext": dict(context),
                    "DestinationKeyId": target,
                    "DestinationEncryptionContext": dict(context),
                }
                for ciphertext, context in items
            ],
        )
        return [_blob(answer, "CiphertextBlob", MAX_CIPHERTEXT_BYTES, call) for answer in answers]

    def describe(self, key: str) -> KeyDescription:
        """The key of an ARN, id or alias."""
        call = Call("DescribeKey", key, self.region)
        (answer,) = self._each(call, [{"KeyId": key}])
        metadata = answer.get("KeyMetadata")
        if not isinstance(metadata, dict) or not isinstance(metadata.get("Arn"), str):
            raise bad_answer(call)
        return KeyDescription(
            arn=metadata["Arn"],
            account=str(metadata.get("AWSAccountId", "")),
            state=str(metadata.get("KeyState", "")),
            spec=str(metadata.get("KeySpec", metadata.get("CustomerMasterKeySpec", ""))),
            usage=str(metadata.get("KeyUsage", "")),
            manager=str(metadata.get("KeyManager", "")),
            origin=str(metadata.get("Origin", "")),
            deletion=_time(metadata.get("DeletionDate")),
            material_expires=_time(metadata.get("ValidTo")),
        )

    def key_policy(self, key: str) -> str:
        """The key's policy: a JSON document."""
        call = Call("GetKeyPolicy", key, self.region)
        (answer,) = self._each(call, [{"KeyId": key, "PolicyName": "default"}])
        return _text(answer.get("Policy"), call)

    def grants(self, key: str) -> list[Grant]:
        """The grants on a key; no more than the first thousand."""
        call = Call("ListGrants", key, self.region)
        found: list[Grant] = []
        marker: dict[str, str] = {}
        for _ in range(_MAX_GRANT_PAGES):
            (answer,) = self._each(call, [{"KeyId": key, "Limit": 100, **marker}])
            found += [_grant(entry) for entry in answer.get("Grants", []) if isinstance(entry, dict)]
            if not answer.get("Truncated"):
                break
            marker = {"Marker": _text(answer.get("NextMarker"), call)}
        return found

    def caller_arn(self) -> str:
        """Who the credentials are, as STS names them: a session of a role, mostly."""
        call = Call("GetCallerIdentity", "this caller", self.region, "sts")
        (answer,) = self._each(call, [{}])
        return _text(answer.get("Arn"), call)

    def role_arn(self, name: str) -> str:
        """A role's own ARN, which has the path that its sessions' ARNs leave out."""
        call = Call("GetRole", f"role {name}", self.region, "iam")
        (answer,) = self._each(call, [{"RoleName": name}])
        role = answer.get("Role")
        return _text(role.get("Arn") if isinstance(role, dict) else None, call)

    def _client(
        self, service: str, *, endpoint_url: str | None = None, fips: bool = False, own_endpoint: bool = False
    ) -> Any:
        config = Config(
            region_name=self.region,
            # Explicit, or the environment and profiles would say.
            use_fips_endpoint=fips,
            ignore_configured_endpoint_urls=own_endpoint,
            connect_timeout=min(_CONNECT_S, self._deadline_s / 2),
            # So that one attempt which hangs leaves room for another.
            read_timeout=self._deadline_s / 2,
            retries={"mode": "adaptive", "total_max_attempts": _ATTEMPTS},
            max_pool_connections=4 * _THREADS,
            user_agent_extra="ringfence",
        )
        client = self._session.client(service, config=config, endpoint_url=endpoint_url)
        client.meta.events.register_first(f"needs-retry.{service}", self._end_when_late)
        # Not for this service alone, or it came before the adaptive mode's own waiting.
        client.meta.events.register_last("before-send", self._send_nothing_late)
        return client

    def _each(self, call: Call, requests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """One answer for each request, in order."""
        if not requests:
            return []
        if call.service not in self._clients:
            self._clients[call.service] = self._client(call.service)
        threads = min(len(requests), _THREADS)
        patience_s = min(self._deadline_s * math.ceil(len(requests) / threads), MAX_DEADLINE_S)
        attempts = [_Attempts() for _ in requests]
        # Threads of its own: what hangs then holds up nobody else.
        pool = ThreadPoolExecutor(threads, thread_name_prefix="aws-kms")
        try:
            futures = [
                pool.submit(self._ask, call, request, attempt)
                for request, attempt in zip(requests, attempts, strict=True)
            ]
            wait(futures, timeout=patience_s, return_when=FIRST_EXCEPTION)
            failure = _first_failure(futures) or self._lateness(futures, attempts, call, patience_s)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        if failure is not None:
            raise failure
        return [future.result() for future in futures]

    def _lateness(
        self, futures: Sequence[Future[dict[str, Any]]], attempts: Sequence[_Attempts], call: Call, patience_s: float
    ) -> Exception | None:
        """The error when one is not done; what its attempts met, if they met anything, says more than the clock."""
        if all(future.done() for future in futures):
            return None
        met = next((attempt.failure for attempt in attempts if attempt.failure is not None), None)
        return too_late(call, patience_s) if met is None else self._translated(met, call, ask_state=False)

    def _ask(self, call: Call, request: Mapping[str, Any], attempts: _Attempts) -> dict[str, Any]:
        """One request, in a thread of the pool."""
        attempts.ends = time.monotonic() + self._deadline_s
        self._thread.attempts = attempts
        problem: Exception | None = None
        answer: Any = None
        try:
            answer = getattr(self._clients[call.service], _METHODS[call.operation])(**request)
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises may hold what it was given
            problem = self._translated(error, call)
        # Outside of the handler, or the SDK's exception would be the context of ours.
        if problem is None:
            problem = _foreign_key(answer, request, call)
        if problem is not None:
            raise problem
        return dict(answer)

    def _translated(self, error: Exception, call: Call, *, ask_state: bool = True) -> Exception:
        if isinstance(error, sdk.ClientError):
            code = error.response.get("Error", {}).get("Code")
            if code == "InvalidCiphertextException":
                return SealBrokenError()
            # A ReEncrypt does not say which of its two keys it means, and no state error which state.
            if ask_state and (code == "KMSInvalidStateException" or (code == "DisabledException" and call.source)):
                return self._state_error(call)
            return error_of_code(code, error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0), call)
        if isinstance(error, _NO_CREDENTIALS):
            return no_credentials(call)
        if isinstance(error, sdk.SSLError):
            return no_connection(call, "its certificate is not trusted, or TLS failed")
        if isinstance(error, sdk.ConnectTimeoutError | sdk.ReadTimeoutError):
            return no_connection(call, "no answer in time")
        if isinstance(error, sdk.ConnectionError | sdk.HTTPClientError):
            return no_connection(call, "no connection, or it broke")
        return bad_answer(call)

    def _state_error(self, call: Call) -> Exception:
        """What keeps a key from being used, asked in the thread and the time of the operation that was refused."""
        for key in filter(None, (call.source, call.key)):
            try:
                metadata = self._clients["kms"].describe_key(KeyId=key)["KeyMetadata"]
                state, deletion = str(metadata["KeyState"]), _time(metadata.get("DeletionDate"))
            except Exception:  # noqa: BLE001, S112 - asking only makes the message better
                continue
            if state != "Enabled":
                return error_of_state(state, deletion, replace(call, key=key))
        return error_of_state(None, None, call)

    def _end_when_late(
        self, *, response: Any = None, caught_exception: Exception | None = None, operation: Any = None, **_: Any
    ) -> None:
        """Before the SDK's own handlers decide on another attempt: gives up, as they would, when the time is over."""
        attempts: _Attempts | None = getattr(self._thread, "attempts", None)
        failure = caught_exception
        if failure is None and response is not None and response[0].status_code >= 300:
            failure = sdk.ClientError(response[1], operation.name)
        if attempts is None or failure is None:
            return
        if time.monotonic() >= attempts.ends:
            raise failure
        attempts.failure = failure

    def _send_nothing_late(self, **_: Any) -> None:
        """The adaptive mode may have waited for its turn; nobody waits for this answer any more."""
        attempts: _Attempts | None = getattr(self._thread, "attempts", None)
        if attempts is not None and time.monotonic() >= attempts.ends:
            raise attempts.failure or TimeoutError


def _silence_the_sdk() -> None:
    """Its debug log holds requests and answers whole. Loggers made later inherit the level."""
    for name in ["boto3", "botocore", *logging.root.manager.loggerDict]:
        if name.partition(".")[0] in ("boto3", "botocore"):
            logger = logging.getLogger(name)
            if "." not in name or logger.level != logging.NOTSET:
                logger.setLevel(max(logger.level, logging.WARNING))


def _first_failure(futures: Sequence[Future[dict[str, Any]]]) -> BaseException | None:
    return next((failure for future in futures if future.done() and (failure := future.exception())), None)


def _foreign_key(answer: Any, request: Mapping[str, Any], call: Call) -> RingfenceError | None:
    """An answer of a cryptographic operation must speak of the very key that was asked."""
    if call.operation not in ("Encrypt", "Decrypt", "ReEncrypt"):
        return None if isinstance(answer, dict) else bad_answer(call)
    if not isinstance(answer, dict) or not isinstance(answer.get("KeyId"), str):
        return bad_answer(call)
    asked = (request.get("DestinationKeyId", request.get("KeyId")), request.get("SourceKeyId"))
    if (answer["KeyId"], answer.get("SourceKeyId")) != asked:
        return wrong_key(call, "the answer is for")
    return None


def _blob(answer: Mapping[str, Any], field: str, limit: int, call: Call) -> bytes:
    value = answer.get(field)
    if not isinstance(value, bytes) or not 0 < len(value) <= limit:
        raise bad_answer(call)
    return value


def _text(value: object, call: Call) -> str:
    if not isinstance(value, str):
        raise bad_answer(call)
    return value


def _time(value: object) -> datetime.datetime | None:
    return value if isinstance(value, datetime.datetime) else None


def _grant(entry: Mapping[str, Any]) -> Grant:
    constraints = entry.get("Constraints") or {}
    return Grant(
        str(entry.get("GranteePrincipal", entry.get("GranteeServicePrincipal", "?"))),
        tuple(str(operation) for operation in entry.get("Operations", ())),
        bool(constraints.get("EncryptionContextSubset") or constraints.get("EncryptionContextEquals")),
    )
