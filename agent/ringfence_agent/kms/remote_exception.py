"""One of the three edge tables: an error becomes a status and a RemoteException that Hadoop's clients understand.

Source: `KMSExceptionsProvider` and, for what the client makes of it, `HttpExceptionUtils.validateResponse` and
`LoadBalancingKMSClientProvider`. What decides here:

1. A class that the client takes for final (AuthorizationException, IllegalArgumentException) is only used where
   another instance would say the same.
2. "Not now" is 503 RetriableException, which every client tries again, create and roll included.
3. A 401 has no JSON body: the client would show its message in place of the status.
4. A missing key is an IOException: as an IllegalArgumentException it would kill the NameNode's warm-up thread.
"""

from __future__ import annotations

from collections.abc import Mapping

from ringfence_agent.http.response import Response, ResponseHead
from ringfence_zones import errors, kms_wire
from ringfence_zones.errors import RingfenceError

AUTHORIZATION = "org.apache.hadoop.security.authorize.AuthorizationException"
ILLEGAL_ARGUMENT = "java.lang.IllegalArgumentException"
INVALID_PARAMETER = "java.security.InvalidParameterException"
IO = "java.io.IOException"
NOT_FOUND = "java.io.FileNotFoundException"
RETRIABLE = "org.apache.hadoop.ipc.RetriableException"
UNSUPPORTED = "java.lang.UnsupportedOperationException"
AUTHENTICATION = "org.apache.hadoop.security.authentication.client.AuthenticationException"

# The nearest class of an error's ancestry counts.
_TABLE: dict[type[RingfenceError], tuple[int, str]] = {
    RingfenceError: (500, IO),
    errors.InputError: (400, ILLEGAL_ARGUMENT),
    # `hadoop key create` says that the key was not created for this class and for IOException only.
    errors.KeyLengthError: (400, INVALID_PARAMETER),
    errors.MalformedJsonError: (500, IO),
    errors.RefusedError: (403, AUTHORIZATION),
    errors.PlanRefusedError: (400, ILLEGAL_ARGUMENT),
    errors.AuthenticationError: (401, AUTHENTICATION),
    errors.InvalidTokenError: (403, AUTHENTICATION),
    errors.AccessDeniedError: (403, AUTHORIZATION),
    errors.KeyVersionNotFoundError: (400, ILLEGAL_ARGUMENT),
    errors.KeyMismatchError: (400, ILLEGAL_ARGUMENT),
    errors.RevisionConflictError: (409, IO),
    errors.LeaseHeldError: (409, IO),
    errors.GrantNotFoundError: (404, NOT_FOUND),
    errors.UnsupportedByStoreError: (501, UNSUPPORTED),
    errors.StoreUnavailableError: (503, RETRIABLE),
    errors.KmsUnavailableError: (503, RETRIABLE),
}

JSON_HEADERS = (
    ("Content-Type", "application/json"),
    ("Cache-Control", "no-cache, no-store"),
    ("Pragma", "no-cache"),
    ("X-Content-Type-Options", "nosniff"),
)


def status_and_class(error: RingfenceError) -> tuple[int, str]:
    """The status and the `javaClassName` of an error."""
    for ancestor in type(error).__mro__:
        if ancestor in _TABLE:
            return _TABLE[ancestor]
    raise AssertionError("every RingfenceError descends from the table's root")


def remote_exception(status: int, java_class: str, message: str) -> Response:
    """A RemoteException answer. The reason phrase stays the registered one: clients compare it on 403."""
    head = ResponseHead(status, headers=JSON_HEADERS)
    return Response(head, kms_wire.encode_remote_exception(java_class, message))


def render(error: RingfenceError) -> Response:
    """The answer to any error but a missing authentication, which needs its challenge (`Authenticator.refuse`)."""
    status, java_class = status_and_class(error)
    response = remote_exception(status, java_class, error.message)
    # The admin endpoint's caller is our own client: it gets the facts, beside the standard error.
    match error:
        case errors.PolicyError():
            return _with(response, {"findings": [finding.to_json() for finding in error.findings]})
        case errors.LeaseHeldError():
            lease = {"name": error.lease_name, "holder": error.holder, "left_s": error.left_s}
            return _with(response, {"lease": lease})
    return response


def _with(response: Response, facts: Mapping[str, object]) -> Response:
    return Response(response.head, response.body[:-1] + b"," + kms_wire.encode(facts)[1:])


def render_server_error(status: int, sentence: str) -> Response:
    """What the HTTP core itself has to answer, in the dialect (`ringfence_agent.http.response.ErrorRenderer`)."""
    return remote_exception(status, RETRIABLE if status == 503 else IO, sentence)
