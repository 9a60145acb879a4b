"""`op=GETDELEGATIONTOKEN`, `RENEWDELEGATIONTOKEN` and `CANCELDELEGATIONTOKEN`, on any path.

Source: `DelegationTokenAuthenticationHandler.managementOperation`, which answers inside the authentication filter: what
is answered differs from the rest of the dialect, and tests of Hadoop's match on it.

- A refused renewal is a 403 without a body, its cause in the reason phrase, and ends the session.
- A token that cannot be cancelled is a 404 with that as its reason phrase.
- Successful answers carry no cookie.

The parameters are those of the query alone.
"""

from __future__ import annotations

from collections.abc import Awaitable

from ringfence_agent.http.response import Response, ResponseHead
from ringfence_agent.kms.answers import empty_ok, json_ok
from ringfence_agent.kms.audit.record import BEGUN
from ringfence_agent.kms.call import Call
from ringfence_agent.kms.kms import Kms
from ringfence_agent.kms.routes import TokenOperation
from ringfence_zones import kms_wire
from ringfence_zones.errors import AccessDeniedError, InputError, InvalidTokenError

_CANNOT_CANCEL = "Invalid delegation token, cannot cancel"
_ACCESS_CONTROL = "org.apache.hadoop.security.AccessControlException"
_INVALID_TOKEN = "org.apache.hadoop.security.token.SecretManager$InvalidToken"  # noqa: S105 - a class name


def require_method(call: Call) -> None:
    """Raises InputError when a token operation came with another method than its own. OPTIONS only authenticates."""
    operation = call.query.token_operation
    if operation is not None and call.request.method not in (operation.method, b"OPTIONS"):
        raise InputError(
            f"Wrong HTTP method [{call.request.method.decode('ascii', 'replace')}] for operation [{operation.value}],"
            f" it should be [{operation.method.decode()}]"
        )


def answer(kms: Kms, call: Call, cleared_cookie: str) -> Awaitable[Response]:
    """The operation that the query asks for; `cleared_cookie` goes out with a refused renewal."""
    operation = call.query.token_operation
    assert operation is not None, "only token operations come here"
    call.op = operation.value
    if operation is TokenOperation.GET:
        return _get(kms, call)
    token = call.query.token
    if token is None:
        raise InputError(f"Operation [{operation.value}] requires the parameter [token]")
    if operation is TokenOperation.RENEW:
        return _renew(kms, call, token, cleared_cookie)
    return _cancel(kms, call, token)


async def _get(kms: Kms, call: Call) -> Response:
    query = call.query
    await _begin(kms, call)
    # The owner as it was named, the real user by its short name: so does Hadoop.
    url_string = await kms.tokens.issue(query.do_as or call.user, query.renewer, call.real_user, query.service)
    return json_ok(kms_wire.encode({"Token": {"urlString": url_string}}))


async def _renew(kms: Kms, call: Call, token: str, cleared_cookie: str) -> Response:
    await _begin(kms, call)
    try:
        expires_ms = await kms.tokens.renew(token, call.user)
    except AccessDeniedError as error:
        return _refused(call, f"{_ACCESS_CONTROL}: {error.message}", cleared_cookie)
    except InvalidTokenError as error:
        return _refused(call, f"{_INVALID_TOKEN}: {error.message}", cleared_cookie)
    return json_ok(kms_wire.encode({"long": expires_ms}))


def _refused(call: Call, reason: str, cleared_cookie: str) -> Response:
    call.detail = {**(call.detail or {}), "error": reason}
    return Response(ResponseHead(403, reason, [("Set-Cookie", cleared_cookie)]))


async def _cancel(kms: Kms, call: Call, token: str) -> Response:
    try:
        if not call.user:
            # Of a stranger: a forged token must cost no sync of the audit log, and no worker what it remembers.
            await kms.tokens.require_live(token)
        await _begin(kms, call)
        await kms.tokens.cancel(token, call.user or None)
    except (AccessDeniedError, InvalidTokenError) as error:
        call.detail = {**(call.detail or {}), "error": error.message}
        return Response(ResponseHead(404, _CANNOT_CANCEL))
    return empty_ok()


async def _begin(kms: Kms, call: Call) -> None:
    await kms.audit.begin(call.decision(None, BEGUN, kms.access.published.revision), call.detail)
