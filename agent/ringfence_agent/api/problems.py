"""One of the three edge tables: an error becomes a problem document (RFC 9457).

Members beside the standard ones: `hint`, `command`, `rule` and `findings`, each only when the error has it. An
exception from outside the tree becomes a bland 500: what it says stays in the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse

from ringfence_zones import errors
from ringfence_zones.errors import RingfenceError
from ringfence_zones.findings import findings_json

MEDIA_TYPE = "application/problem+json"
_TYPE_PREFIX = "urn:ringfence:problem:"


@dataclass(frozen=True, slots=True)
class Problem:
    """How one kind of error looks from outside: HTTP status, the last part of `type`, and `title`."""

    status: int
    slug: str
    title: str


INTERNAL = Problem(500, "internal", "The agent failed")

# By class; an error takes the entry of its nearest ancestor.
PROBLEMS: dict[type[RingfenceError], Problem] = {
    errors.RingfenceError: INTERNAL,
    errors.InputError: Problem(400, "bad-input", "The request cannot be used"),
    errors.PathError: Problem(400, "bad-path", "Not a usable HDFS path"),
    errors.PolicyError: Problem(422, "bad-policy", "The policy document has problems"),
    # The agent's own configuration: nothing the caller could correct.
    errors.ConfigError: Problem(500, "misconfigured", "The agent is not configured rightly"),
    errors.MissingExtraError: Problem(501, "missing-extra", "A part of Ringfence is not installed"),
    errors.RefusedError: Problem(403, "refused", "A rule forbids it"),
    errors.PlanRefusedError: Problem(409, "plan-refused", "The plan has problems"),
    errors.AuthenticationError: Problem(401, "not-identified", "Who is calling was not proven"),
    errors.AccessDeniedError: Problem(403, "access-denied", "The caller may not do this"),
    errors.KeyStoreError: Problem(502, "key-store", "The key store failed"),
    errors.KeyExistsError: Problem(409, "key-exists", "The key exists already"),
    errors.KeyConflictError: Problem(409, "key-conflict", "Another key of that name is there"),
    errors.KeyNotFoundError: Problem(404, "key-not-found", "No such key"),
    errors.KeyVersionNotFoundError: Problem(404, "key-version-not-found", "No such key version"),
    errors.KeyMismatchError: Problem(409, "key-mismatch", "The key version belongs to another key"),
    errors.RevisionConflictError: Problem(409, "revision-conflict", "Another policy was published first"),
    errors.LeaseHeldError: Problem(409, "lease-held", "Somebody else holds the lease"),
    errors.GrantNotFoundError: Problem(404, "grant-not-found", "No such grant"),
    errors.UnsupportedByStoreError: Problem(501, "unsupported-by-store", "The kind of key store cannot do it"),
    errors.WrongRootKeyError: Problem(503, "wrong-root-key", "The root key does not open the key store"),
    errors.StoreTamperedError: Problem(503, "store-tampered", "The key store fails its integrity check"),
    errors.StoreUnavailableError: Problem(503, "store-unavailable", "The key store is not available"),
    errors.KmsError: Problem(502, "kms", "The KMS failed"),
    errors.KmsUnavailableError: Problem(503, "kms-unavailable", "The KMS does not answer"),
    errors.KmsRemoteError: Problem(502, "kms-refused", "The KMS answered with an error"),
    errors.HdfsError: Problem(502, "hdfs", "HDFS failed"),
    errors.NameNodeUnavailableError: Problem(503, "namenode-unavailable", "The NameNode does not answer"),
    errors.SafeModeError: Problem(503, "safe-mode", "The NameNode is in safe mode"),
    errors.NoKeyProviderError: Problem(503, "no-key-provider", "The NameNode has no key provider"),
    # HDFS refused the agent's user, not the caller.
    errors.HdfsPermissionError: Problem(502, "hdfs-permission", "HDFS refused the agent"),
    errors.HadoopNotFoundError: Problem(503, "hadoop-not-found", "The agent finds no Hadoop on its machine"),
    errors.YarnUnavailableError: Problem(503, "yarn-unavailable", "The ResourceManager does not answer"),
    errors.AgentUnavailableError: Problem(503, "agent-unavailable", "The agent does not answer"),
    errors.TransferError: Problem(409, "transfer", "The transfer cannot be made"),
    errors.TransferNotFoundError: Problem(404, "transfer-not-found", "No such transfer"),
    errors.SourceChangedError: Problem(409, "source-changed", "The source changed meanwhile"),
    errors.HandsLostError: Problem(503, "transfer-interrupted", "The transfer was interrupted"),
    errors.ReceiptError: Problem(500, "receipt", "A receipt does not hold"),
    errors.AwsError: Problem(500, "aws", "AWS refused a request"),
    errors.AwsUnavailableError: Problem(503, "aws-unavailable", "AWS does not answer"),
    errors.SandboxError: Problem(500, "sandbox", "The sandbox failed"),
    errors.InstallError: Problem(500, "install", "A change of this machine failed"),
}


def problem_of(error: RingfenceError) -> Problem:
    """The entry for an error."""
    return next(PROBLEMS[kind] for kind in type(error).__mro__ if kind in PROBLEMS)


def problem_response(error: RingfenceError) -> JSONResponse:
    """The error as an answer."""
    problem = problem_of(error)
    extra: dict[str, Any] = {}
    if error.hint:
        extra["hint"] = error.hint
    if error.command:
        extra["command"] = error.command
    if isinstance(error, errors.RefusedError):
        extra["rule"] = error.rule.value
    if isinstance(error, errors.PolicyError | errors.PlanRefusedError):
        extra |= findings_json(error.findings)
    return document(problem, error.message, **extra)


def document(problem: Problem, detail: str | None = None, **extra: Any) -> JSONResponse:
    """A problem document with further members."""
    body: dict[str, Any] = {"type": _TYPE_PREFIX + problem.slug, "title": problem.title, "status": problem.status}
    if detail is not None:
        body["detail"] = detail
    return JSONResponse(body | extra, status_code=problem.status, media_type=MEDIA_TYPE)
