"""The outermost layer of the agent's API: nobody past it unless admitted, nothing out of it but problem documents.

Default deny lives here and not in the routes, so that a new route, a wrong path and the OpenAPI document are all
behind it. In this order a request is

1. turned away when its address has failed to prove anybody too often (429), identified (401, 403);
2. counted against its caller's rate (429), administrators of this machine excepted;
3. refused when the caller may not even look, when it is a change that a web page sent (no page changes anything
   here), when its body is not JSON or larger than the route's bound;
4. answered as before when it repeats a change (`Idempotency-Key`), else handed to the routes.

An exception that no route expected is logged by kind and place, never by message, and answered blandly.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from ringfence_agent.api.asgi import REQUEST, AsgiApplication, Message, Receive, Scope, Send
from ringfence_agent.api.caller import CALLER, Caller, Proof, Role, Verb
from ringfence_agent.api.identify import Headers, Identified, Identifier
from ringfence_agent.api.problems import INTERNAL, Problem, document, problem_response
from ringfence_agent.api.rates import RateLimit
from ringfence_agent.api.repeats import Answer, Conflict, Name, Repeats, parse_key
from ringfence_agent.http.request import Request
from ringfence_agent.http.response import Response, ResponseHead
from ringfence_zones.errors import AuthenticationError, RingfenceError

IDEMPOTENCY_KEY = "idempotency_key"
"""Where a route finds the request's key in `request.state`: a string, or None."""

BODY_BYTES = 64 * 1024
LARGE_BODY_BYTES = 1024 * 1024
_LARGE = "/v1/policy/"
_QUESTIONS = (b"/check", b"/validate", b"/test")
_CHANGING = ("POST", "PUT", "PATCH", "DELETE")
_TOO_LARGE = Problem(413, "too-large", "The request was not taken")
_TOO_OFTEN = Problem(429, "too-often", "The caller asks too often")
_NOT_JSON = Problem(415, "not-json", "The body is not JSON")
_FROM_A_PAGE = Problem(403, "from-a-page", "A web page may not change anything here")
_CONFLICTS = {
    Conflict.IN_USE: Problem(409, "key-in-use", "The Idempotency-Key is in use"),
    Conflict.REUSED: Problem(422, "key-reused", "The Idempotency-Key is another request's"),
}
# Before a route's own headers, which win.
_EVERY_ANSWER = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
# Proving nobody costs the server more than the client; people mistype, programs with a stale token go on and on.
_FAILURES_PER_S = 2.0
_FAILURES_AT_ONCE = 20.0
_LOG_AGAIN_S = 60.0
_MAX_LOGGED = 1024
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rates:
    """How often one caller may ask and change something: requests per second, and twice as many at once."""

    requests_per_s: float = 500.0
    changes_per_s: float = 5.0


class Gate:
    """An ASGI application in front of another; puts the `Caller` into `scope["state"]`."""

    def __init__(
        self,
        application: AsgiApplication,
        identifier: Identifier,
        rates: Rates | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        rates = rates or Rates()
        self._application = application
        self._identifier = identifier
        self._clock = clock
        self._requests = RateLimit(rates.requests_per_s, 2 * rates.requests_per_s, clock)
        self._changes = RateLimit(rates.changes_per_s, 2 * rates.changes_per_s, clock)
        self._failures = RateLimit(_FAILURES_PER_S, _FAILURES_AT_ONCE, clock)
        self._repeats = Repeats(clock)
        self._logged: dict[Hashable, float] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        request: Request = scope[REQUEST]
        identified = await self._identify(request, scope["method"], scope, receive, send)
        if identified is None:
            return
        exchange = _Sender(send, identified.headers)
        try:
            await self._admitted(identified.caller, request, scope, receive, exchange)
        except RingfenceError as error:
            await problem_response(error)(scope, receive, exchange)
        except Exception as error:  # noqa: BLE001 - the edge: what no route expected becomes a bland answer
            _report_bug(error)
            if not exchange.started:
                await document(INTERNAL)(scope, receive, exchange)

    async def _identify(
        self, request: Request, method: str, scope: Scope, receive: Receive, send: Send
    ) -> Identified | None:
        """None when an answer has gone out already."""
        peer = request.peer
        wait_s = 0.0 if peer.is_unix else self._failures.wait_s(peer.address)
        if wait_s:
            await _too_often(wait_s)(scope, receive, _Sender(send))
            return None
        try:
            return await self._identifier.identify(peer, method, request.headers)
        except RingfenceError as error:
            if not peer.is_unix:
                self._failures.take(peer.address)
            self._log_refusal(peer.uid if peer.is_unix else peer.address, error)
            is_nobody = isinstance(error, AuthenticationError)
            challenges = self._identifier.challenges(peer) if is_nobody else ()
            await problem_response(error)(scope, receive, _Sender(send, challenges))
            return None

    async def _admitted(self, caller: Caller, request: Request, scope: Scope, receive: Receive, send: _Sender) -> None:
        caller.require(Verb.LOOK)
        changing = scope["method"] in _CHANGING
        refusal = self._refusal(caller, request, changing=changing)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        scope["state"][CALLER] = caller
        header = request.headers.get(b"idempotency-key")
        # Not of questions, which a caller may ask a hundred times as often: their answers would push out the others'.
        key = parse_key(header) if header is not None and changing and not _is_question(request) else None
        scope["state"][IDEMPOTENCY_KEY] = key
        if key is None:
            await self._application(scope, receive, send)
            return
        target = request.raw_path + b"?" + request.raw_query
        name = (_identity(caller), scope["method"], target.decode("latin-1"), key)
        await self._once(name, request, scope, receive, send)

    async def _once(self, name: Name, request: Request, scope: Scope, receive: Receive, send: _Sender) -> None:
        before = self._repeats.begin(name, request.body)
        if isinstance(before, Answer):
            await send.repeat(before)
            return
        if before is not None:
            await document(_CONFLICTS[before], before.value)(scope, receive, send)
            return
        send.keeps = True
        try:
            await self._application(scope, receive, send)
        finally:
            self._repeats.end(name, send.answer)

    def _refusal(self, caller: Caller, request: Request, *, changing: bool) -> AsgiApplication | None:
        # An administrator of this machine can stop the agent anyway.
        if not (caller.proof is Proof.PEER and caller.token_id is None and Role.ADMIN in caller.roles):
            wait_s = self._requests.take(_identity(caller))
            if not wait_s and changing and not _is_question(request):
                wait_s = self._changes.take(_identity(caller))
            if wait_s:
                return _too_often(wait_s)
        if not changing:
            return None
        if b"origin" in request.headers and not request.peer.is_unix:
            return document(_FROM_A_PAGE, "the request has an Origin header, which programs do not send")
        if not request.body:
            return None
        kind = request.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind != b"application/json":
            return document(_NOT_JSON, "send the body with Content-Type: application/json")
        bound = LARGE_BODY_BYTES if request.raw_path.startswith(_LARGE.encode()) else BODY_BYTES
        if len(request.body) > bound:
            return document(_TOO_LARGE, f"the body has {len(request.body)} bytes; {bound} are taken")
        return None

    def _log_refusal(self, who: Hashable, error: RingfenceError) -> None:
        # Once a minute for each: whoever is refused must not be able to fill the disk.
        now = self._clock()
        if now - self._logged.get(who, -_LOG_AGAIN_S) < _LOG_AGAIN_S:
            return
        if len(self._logged) >= _MAX_LOGGED:
            self._logged.clear()
        self._logged[who] = now
        _log.warning("refused %s: %s", f"uid {who}" if isinstance(who, int) else who, error.message)


class _Sender:
    """Passes an answer on with the headers that every answer has; keeps it when it may be asked for again."""

    def __init__(self, send: Send, headers: Headers = ()) -> None:
        self._send = send
        self._headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        self._head: Message = {}
        self._body: list[bytes] = []
        self._whole = False
        self.started = False
        self.keeps = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            given = list(message.get("headers", ()))
            names = {name.lower() for name, _ in given}
            added = [header for header in _EVERY_ANSWER if header[0] not in names]
            self._head = message
            message = {**message, "headers": [*given, *added, *self._headers]}
        elif self.keeps:
            self._body.append(bytes(message.get("body", b"")))
            self._whole = not message.get("more_body", False)
        await self._send(message)

    @property
    def answer(self) -> Answer | None:
        """What went out, None unless it is whole."""
        if not self._whole:
            return None
        return Answer(self._head["status"], tuple(self._head.get("headers", ())), b"".join(self._body))

    async def repeat(self, answer: Answer) -> None:
        """Sends an answer again."""
        headers = [*answer.headers, (b"idempotent-replayed", b"true")]
        await self({"type": "http.response.start", "status": answer.status, "headers": headers})
        await self({"type": "http.response.body", "body": answer.body})


def core_problem(status: int, sentence: str) -> Response:
    """What the HTTP core itself refuses (malformed, too large, too slow), in the API's shape."""
    slug = {400: "malformed-request", 403: "from-a-page", 413: "too-large", 431: "too-large", 408: "too-slow"}.get(
        status, "http"
    )
    answer = document(Problem(status, slug, "The request was not taken"), sentence)
    return Response(ResponseHead(status, headers=[("Content-Type", answer.media_type or "")]), bytes(answer.body))


def _is_question(request: Request) -> bool:
    """A POST that changes nothing."""
    return request.method == b"POST" and request.raw_path.endswith(_QUESTIONS)


def _identity(caller: Caller) -> str:
    # Whoever really asks: a delegate's users share its rate, and two tokens of one user each have their own.
    return f"{caller.proof.value}:{caller.real_user or caller.user}:{caller.token_id or caller.uid or ''}"


def _too_often(wait_s: float) -> AsgiApplication:
    answer = document(_TOO_OFTEN, "ask again later, and less often")
    answer.headers["Retry-After"] = str(max(1, round(wait_s + 0.5)))
    return answer


def _report_bug(error: Exception) -> None:
    frames = traceback.extract_tb(error.__traceback__)
    places = " < ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in reversed(frames[-6:]))
    _log.error("unhandled %s at %s", type(error).__name__, places)
