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

import logging
import math
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any

from ringfence_agent.keystore.protectors.aws_kms_answers import (
    MAX_CIPHERTEXT_BYTES,
    MAX_PLAIN_BYTES,
    Grant,
    KeyDescription,
    blob,
    find_time,
    foreign_key,
    grant_of,
    key_description,
    text,
)
from ringfence_agent.keystore.protectors.aws_kms_config import MAX_DEADLINE_S, AwsKmsSettings
from ringfence_agent.keystore.protectors.aws_kms_errors import (
    Call,
    Reason,
    bad_answer,
    error_of_code,
    error_of_state,
    no_connection,
    no_credentials,
    too_late,
)
from ringfence_agent.keystore.sealing import SealBrokenError
from ringfence_zones.errors import ConfigError, MissingExtraError, ProtectorUnavailableError
from ringfence_zones.secret import Secret

try:
    import boto3.session
    from botocore import exceptions as sdk
    from botocore.config import Config
    from botocore.retries import bucket
except ModuleNotFoundError as error:
    raise MissingExtraError("a key store protected by AWS KMS", "aws") from error

Context = Mapping[str, str]
"""An encryption context: bound to the ciphertext, and in clear in the log of AWS (CloudTrail)."""

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
        self._turn = threading.Lock()
        _silence_the_sdk()
        _pace_by_a_steady_clock()
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

    @property
    def endpoint(self) -> str:
        """Where requests go."""
        return str(self._clients["kms"].meta.endpoint_url)

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
        return [blob(answer, "CiphertextBlob", MAX_CIPHERTEXT_BYTES, call) for answer in answers]

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
        return [Secret(blob(answer, "Plaintext", MAX_PLAIN_BYTES, call)) for answer in answers]

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
        return [blob(answer, "CiphertextBlob", MAX_CIPHERTEXT_BYTES, call) for answer in answers]

    def describe(self, key: str) -> KeyDescription:
        """The key of an ARN, id or alias."""
        call = Call("DescribeKey", key, self.region)
        (answer,) = self._each(call, [{"KeyId": key}])
        return key_description(answer, call)

    def key_policy(self, key: str) -> str:
        """The key's policy: a JSON document."""
        call = Call("GetKeyPolicy", key, self.region)
        (answer,) = self._each(call, [{"KeyId": key, "PolicyName": "default"}])
        return text(answer.get("Policy"), call)

    def grants(self, key: str) -> list[Grant]:
        """The grants on a key; no more than the first thousand."""
        call = Call("ListGrants", key, self.region)
        found: list[Grant] = []
        marker: dict[str, str] = {}
        for _ in range(_MAX_GRANT_PAGES):
            (answer,) = self._each(call, [{"KeyId": key, "Limit": 100, **marker}])
            found += [grant_of(entry) for entry in answer.get("Grants", []) if isinstance(entry, dict)]
            if not answer.get("Truncated"):
                break
            marker = {"Marker": text(answer.get("NextMarker"), call)}
        return found

    def caller_arn(self) -> str:
        """Who the credentials are, as STS names them: a session of a role, mostly."""
        call = Call("GetCallerIdentity", "this caller", self.region, "sts")
        (answer,) = self._each(call, [{}])
        return text(answer.get("Arn"), call)

    def role_arn(self, name: str) -> str:
        """A role's own ARN, which has the path that its sessions' ARNs leave out."""
        call = Call("GetRole", f"role {name}", self.region, "iam")
        (answer,) = self._each(call, [{"RoleName": name}])
        role = answer.get("Role")
        return text(role.get("Arn") if isinstance(role, dict) else None, call)

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
        # A handler for one service comes before those for all, of which the adaptive mode's waiting is one.
        client.meta.events.register_first(f"before-send.{service}", self._wait_for_turn)
        client.meta.events.register_last("before-send", self._end_turn)
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
        answer, problem = self._try(call, request)
        if isinstance(problem, ProtectorUnavailableError) and problem.reason == Reason.BAD_ANSWER:
            # The SDK takes an answer that was cut off for an empty one, and does not ask again.
            answer, problem = self._try(call, request)
        if problem is not None:
            raise problem
        return answer

    def _try(self, call: Call, request: Mapping[str, Any]) -> tuple[dict[str, Any], Exception | None]:
        """The answer, or what is wrong; returned, for raised in the handler it had the SDK's exception as context."""
        try:
            answer = getattr(self._clients[call.service], _METHODS[call.operation])(**request)
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises may hold what it was given
            return {}, self._translated(error, call)
        finally:
            self._give_up_turn()
        return (answer, foreign_key(answer, request, call)) if isinstance(answer, dict) else ({}, bad_answer(call))

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
        if isinstance(error, TimeoutError):
            return too_late(call, self._deadline_s)
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
                state, deletion = str(metadata["KeyState"]), find_time(metadata.get("DeletionDate"))
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

    def _wait_for_turn(self, **_: Any) -> None:
        """Lets one thread at a time into the adaptive mode's waiting, which knows no deadline; the others wait here."""
        attempts: _Attempts | None = getattr(self._thread, "attempts", None)
        if attempts is not None:
            if not self._turn.acquire(timeout=max(0.0, attempts.ends - time.monotonic())):
                raise attempts.failure or TimeoutError
            self._thread.has_turn = True

    def _end_turn(self, **_: Any) -> None:
        """After that waiting: nothing is sent any more when nobody waits for the answer."""
        attempts: _Attempts | None = getattr(self._thread, "attempts", None)
        self._give_up_turn()
        if attempts is not None and time.monotonic() >= attempts.ends:
            raise attempts.failure or TimeoutError

    def _give_up_turn(self) -> None:
        if getattr(self._thread, "has_turn", False):
            self._thread.has_turn = False
            self._turn.release()


def _silence_the_sdk() -> None:
    """Its debug log holds requests and answers whole. Loggers made later inherit the level."""
    for name in ["boto3", "botocore", *logging.root.manager.loggerDict]:
        if name.partition(".")[0] in ("boto3", "botocore"):
            logger = logging.getLogger(name)
            if "." not in name or logger.level != logging.NOTSET:
                logger.setLevel(max(logger.level, logging.WARNING))


def _pace_by_a_steady_clock() -> None:
    """Its adaptive mode, once it was throttled, sends by the clock on the wall: set back an hour, it would send nothing
    for an hour. Such a clock is made with each client."""
    bucket.Clock.current_time = lambda _self: time.monotonic()


def _first_failure(futures: Sequence[Future[dict[str, Any]]]) -> BaseException | None:
    return next((failure for future in futures if future.done() and (failure := future.exception())), None)
