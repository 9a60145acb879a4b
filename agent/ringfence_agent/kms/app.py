"""The KMS as an HTTP application: authenticates, routes, lets a handler decide, audits, answers.

One request, in order: who calls; what is asked for; is what this worker remembers still so (`freshness`); the handler;
one audit record; the answer, which the HTTP core holds until `commit`. The whole of it runs synchronously
when everything is in memory. What is not is loaded off the event loop, and the request starts again from the top
(`Unready`) with the same `Call`: who sent it is proven once.

OPTIONS is authentication and nothing else: 200 on every path once the caller is known, as Hadoop's client needs.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Mapping

from ringfence_agent.http.request import Request
from ringfence_agent.http.response import Response, ResponseHead
from ringfence_agent.kms import (
    deleted_keys_resource,
    eek_resource,
    grant_resource,
    key_resource,
    keys_resource,
    keyversion_resource,
    lease_resource,
    metrics_resource,
    policy_resource,
    remote_exception,
    status_resource,
    token_resource,
)
from ringfence_agent.kms.audit import record as audit_record
from ringfence_agent.kms.authentication.admin_access import AdminAccess
from ringfence_agent.kms.authentication.caller import Caller, Identity
from ringfence_agent.kms.authentication.proxy_users import ProxyUsers
from ringfence_agent.kms.call import Authenticator, Call
from ringfence_agent.kms.kms import Handler, Kms
from ringfence_agent.kms.monitoring import jmx
from ringfence_agent.kms.routes import ADMIN, Query, Resource, Router
from ringfence_agent.kms.unready import Unready
from ringfence_agent.promise import Promise
from ringfence_zones.errors import (
    AccessDeniedError,
    AuthenticationError,
    KeyStoreError,
    RingfenceError,
    StoreUnavailableError,
)

_HANDLERS: dict[Resource, dict[bytes, Handler]] = {
    Resource.KEYS: {b"POST": keys_resource.create},
    Resource.KEY_NAMES: {b"GET": keys_resource.list_names},
    Resource.KEYS_METADATA: {b"GET": keys_resource.list_metadata},
    Resource.KEY: {b"GET": key_resource.get_metadata, b"POST": key_resource.roll, b"DELETE": key_resource.delete},
    Resource.METADATA: {b"GET": key_resource.get_metadata},
    Resource.CURRENT_VERSION: {b"GET": key_resource.get_current_version},
    Resource.VERSIONS: {b"GET": key_resource.list_versions},
    Resource.INVALIDATE_CACHE: {b"POST": key_resource.invalidate_cache},
    Resource.GENERATE: {b"GET": eek_resource.generate},
    Resource.REENCRYPT_BATCH: {b"POST": eek_resource.reencrypt_batch},
    Resource.KEY_VERSION: {b"GET": keyversion_resource.get},
    Resource.OPEN_EEK: {b"POST": eek_resource.open_eek},
    Resource.STATUS: {b"GET": status_resource.get},
    Resource.JMX: {b"GET": jmx.get},
    Resource.METRICS: {b"GET": metrics_resource.get},
    Resource.POLICY: {b"GET": policy_resource.get, b"PUT": policy_resource.put},
    Resource.DELETED_KEYS: {b"GET": deleted_keys_resource.list_deleted},
    Resource.UNDELETE: {b"POST": deleted_keys_resource.undelete},
    Resource.GRANTS: {b"GET": grant_resource.get},
    Resource.GRANT: {b"PUT": grant_resource.put, b"DELETE": grant_resource.delete},
    Resource.LEASE: {b"GET": lease_resource.get, b"PUT": lease_resource.put, b"DELETE": lease_resource.delete},
}
# For administrators alone: what to call a request that is refused.
_ADMIN_OPS = {
    (Resource.POLICY, b"GET"): "GET_POLICY",
    (Resource.POLICY, b"PUT"): "PUBLISH_POLICY",
    (Resource.DELETED_KEYS, b"GET"): "GET_DELETED_KEYS",
    (Resource.UNDELETE, b"POST"): "UNDELETE_KEY",
    (Resource.GRANTS, b"GET"): "GET_GRANTS",
    (Resource.GRANT, b"PUT"): "CREATE_GRANT",
    (Resource.GRANT, b"DELETE"): "END_GRANT",
    (Resource.LEASE, b"GET"): "GET_LEASE",
    (Resource.LEASE, b"PUT"): "TAKE_LEASE",
    (Resource.LEASE, b"DELETE"): "RELEASE_LEASE",
}
# What one request may need loaded: its proof, the policy, groups, its keys. More means that something is wrong.
_MAX_LOADS = 8
_SESSION_HEADS_LIMIT = 1024
_OPTIONS_OK = ResponseHead(200, headers=[("Allow", "OPTIONS,GET,HEAD,POST,PUT,DELETE")])
_NO_QUERY = Query()
_OUTCOMES = {401: audit_record.UNAUTHENTICATED, 403: audit_record.DENIED}


class KmsApplication:
    """Call it with a request (`ringfence_agent.http.response.Application`)."""

    def __init__(self, kms: Kms, authenticator: Authenticator, admins: AdminAccess, proxies: ProxyUsers) -> None:
        self._kms = kms
        self._authenticator = authenticator
        self._admins = admins
        self._proxies = proxies
        self._router = Router()
        # Heads with a session's Set-Cookie: hdfs-native starts a session with every request.
        self._session_heads: dict[tuple[bytes, tuple[tuple[str, str], ...]], ResponseHead] = {}

    def __call__(self, request: Request) -> Response | Awaitable[Response]:
        call = Call(request, _NO_QUERY)
        try:
            return self._answer(call)
        except Unready as missing:
            return self._answer_later(call, missing)

    async def _answer_later(self, call: Call, missing: Unready) -> Response:
        for _ in range(_MAX_LOADS):
            try:
                await missing.load()
            except RingfenceError as error:
                return self._refuse(call, error)
            try:
                outcome = self._answer(call)
            except Unready as again:
                missing = again
                continue
            return outcome if isinstance(outcome, Response) else await outcome
        return self._refuse(call, StoreUnavailableError("keys change faster than they can be read: try again"))

    def _answer(self, call: Call) -> Response | Awaitable[Response]:
        try:
            if call.caller is None:
                self._identify(call)
            if call.request.method == b"OPTIONS":
                return self._with_session(call, Response(_OPTIONS_OK))
            outcome = self._dispatch(call)
        except RingfenceError as error:
            return self._refuse(call, error)
        if isinstance(outcome, Response):
            return self._finish(call, outcome)
        if isinstance(outcome, Promise):
            return outcome.then(lambda response: self._finish(call, response), lambda error: self._fail(call, error))
        return self._finish_later(call, outcome)

    async def _finish_later(self, call: Call, outcome: Awaitable[Response]) -> Response:
        try:
            response = await outcome
        except Exception as error:  # noqa: BLE001 - the edge: a bug goes on to the core
            return self._fail(call, error)
        return self._finish(call, response)

    def _fail(self, call: Call, error: Exception) -> Response:
        if isinstance(error, RingfenceError):
            return self._refuse(call, error)
        # A bug, perhaps after a commit: what was changed is on record before the core's bland 500 leaves.
        self._refuse(call, RingfenceError(f"unhandled {type(error).__name__}"))
        raise error

    # -- who and what

    def _identify(self, call: Call) -> None:
        """Sets `session`, `caller` and `user`."""
        request = call.request
        query = call.query = self._router.query(request.raw_query)
        if query.token_operation is not None:
            token_resource.require_method(call)
        session = call.session
        if session is None:
            session = call.session = self._find_admin(call) or self._authenticator.authenticate(call)
        call.user = session.user
        caller = session
        # A token stands for its owner alone, and nobody acts for anybody.
        if query.do_as is not None and not session.is_token and session.identity is not Identity.NONE:
            caller = self._proxies.act_for(call, session, query.do_as)
        call.caller, call.user, call.real_user = caller, caller.user, caller.real_user

    def _find_admin(self, call: Call) -> Caller | None:
        # Hadoop answers operations on tokens at any path. One issued here would be good for keys, for which neither a
        # certificate nor the socket is a proof.
        is_admin_path = call.request.raw_path.startswith(ADMIN) and not call.is_token_operation
        return self._admins.find_caller(call.request) if is_admin_path else None

    def _dispatch(self, call: Call) -> Response | Awaitable[Response]:
        request = call.request
        if call.is_token_operation:
            return token_resource.answer(self._kms, call, self._authenticator.cleared_cookie)
        route = self._router.find_route(request.raw_path)
        methods = _HANDLERS.get(route.resource) if route is not None else None
        if route is None or methods is None:
            return remote_exception.remote_exception(404, remote_exception.NOT_FOUND, "there is nothing at this path")
        method = b"GET" if request.method == b"HEAD" else request.method
        handler = methods.get(method)
        if handler is None:
            return _method_not_allowed(methods)
        # Once caught up for a request, memory is new enough for it, whatever is committed while the rest loads.
        if not call.is_caught_up and not self._kms.freshness.is_current(newest=route.resource is not Resource.OPEN_EEK):
            raise Unready(lambda: self._catch_up(call))
        call.name = route.name
        admin_op = _ADMIN_OPS.get((route.resource, method))
        if admin_op is not None:
            self._require_admin(call, admin_op, route.resource)
        try:
            return handler(self._kms, call)
        except (KeyStoreError, AccessDeniedError):
            # Another server may have made the key, or granted its use, since this one looked: see before refusing.
            if call.is_caught_up or self._kms.freshness.is_current(newest=True):
                raise
        raise Unready(lambda: self._catch_up(call))

    def _require_admin(self, call: Call, op: str, resource: Resource) -> None:
        caller = call.caller
        if caller is None or not self._admins.may_administer(caller, self._kms.access.published):
            call.op = op
            if resource is Resource.UNDELETE:
                call.key = call.name
            elif call.name:
                call.detail = {"lease" if resource is Resource.LEASE else "grant": call.name}
            raise AccessDeniedError(
                "this is for the policy's kms.admins, proven by Kerberos or a client certificate, for root and the"
                " service's user on the KMS's Unix socket, and for the administrators' bearer token: a user name proves"
                " nothing"
            )

    async def _catch_up(self, call: Call) -> None:
        await self._kms.freshness.catch_up()
        call.is_caught_up = True

    # -- the answer

    def _refuse(self, call: Call, error: RingfenceError) -> Response:
        if isinstance(error, AuthenticationError):
            response = self._authenticator.refuse(call, error)
        else:
            response = remote_exception.render(error)
        if call.request.method == b"OPTIONS" and response.head.status == 401 and call.detail is None:
            return response  # the first step of every handshake: nothing was offered, and nothing decided
        call.detail = {**(call.detail or {}), "error": error.message}
        return self._finish(call, response)

    def _finish(self, call: Call, response: Response) -> Response:
        status = response.head.status
        detail = call.detail
        if status >= 400:
            path = call.request.raw_path.decode("ascii", "backslashreplace")
            detail = {"method": call.request.method.decode("ascii", "backslashreplace"), "path": path, **(detail or {})}
        outcome = audit_record.OK if status < 300 else _OUTCOMES.get(status, audit_record.FAILED)
        decision = call.decision(status, outcome, self._kms.access.published.revision)
        self._kms.audit.record(decision, detail)
        self._kms.monitoring.metrics.request(decision, time.perf_counter() - call.began_s)
        return self._with_session(call, response)

    def commit(self) -> Response | None:
        """Counts the decisions of this turn and puts them on record; what every answer becomes when that fails."""
        self._kms.monitoring.metrics.flush()
        refusal = self._kms.audit.commit()
        return None if refusal is None else remote_exception.render(refusal)

    def _with_session(self, call: Call, response: Response) -> Response:
        """The answer with the caller's new session, and whatever else goes out with it."""
        session = call.session
        if session is None or not session.headers:
            return response
        if call.is_token_operation:
            # Answered before there is a session, so without one: what remains is the server's half of SPNEGO.
            headers = [header for header in session.headers if header[0] != "Set-Cookie"]
            return response.with_head(response.head.with_headers(*headers))
        if session.identity is not Identity.CLAIMED:
            return response.with_head(response.head.with_headers(*session.headers))
        known = (response.head.rendered, session.headers)
        head = self._session_heads.get(known)
        if head is None:
            if len(self._session_heads) >= _SESSION_HEADS_LIMIT:
                self._session_heads.clear()
            head = self._session_heads[known] = response.head.with_headers(*session.headers)
        return response.with_head(head)


def _method_not_allowed(methods: Mapping[bytes, Handler]) -> Response:
    allowed = ", ".join(sorted(method.decode() for method in methods))
    response = remote_exception.remote_exception(
        405, remote_exception.UNSUPPORTED, f"this path takes {allowed} and nothing else"
    )
    return Response(response.head.with_headers(("Allow", allowed)), response.body)
