"""The outermost layer of the agent's API: nobody past it unless admitted, nothing out of it but problem documents.

Default deny lives here and not in the routes, so that a new route, a wrong path and the OpenAPI document are all
behind it. An exception that no route expected is logged by kind and place, never by message, and answered blandly.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable

from ringfence_agent.api.access import AccessRules, Caller
from ringfence_agent.api.asgi import PEER, AsgiApplication, Message, Receive, Scope, Send
from ringfence_agent.api.problems import INTERNAL, Problem, document, problem_response
from ringfence_agent.http.response import Response, ResponseHead
from ringfence_zones.errors import RingfenceError

CALLER = "caller"
_LOG_AGAIN_S = 60.0
_MAX_LOGGED = 1024
_log = logging.getLogger(__name__)


class Gate:
    """An ASGI application in front of another; puts the `Caller` into `scope["state"]`."""

    def __init__(
        self, application: AsgiApplication, rules: AccessRules, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._application = application
        self._rules = rules
        self._clock = clock
        self._logged: dict[int | None, float] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        try:
            caller: Caller = self._rules.admit(scope[PEER])
        except RingfenceError as error:
            self._log_refusal(scope[PEER].uid, error)
            await problem_response(error)(scope, receive, send)
            return
        scope["state"][CALLER] = caller
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._application(scope, receive, watched_send)
        except Exception as error:  # noqa: BLE001 - the edge: what no route expected becomes a bland answer
            _report_bug(error)
            if not started:
                await document(INTERNAL)(scope, receive, send)

    def _log_refusal(self, uid: int | None, error: RingfenceError) -> None:
        # Once a minute for each uid: a refused user must not be able to fill the disk.
        now = self._clock()
        if now - self._logged.get(uid, -_LOG_AGAIN_S) < _LOG_AGAIN_S:
            return
        if len(self._logged) >= _MAX_LOGGED:
            self._logged.clear()
        self._logged[uid] = now
        _log.warning("refused uid %s: %s", uid, error.message)


def core_problem(status: int, sentence: str) -> Response:
    """What the HTTP core itself refuses (malformed, too large, too slow), in the API's shape."""
    slug = {400: "malformed-request", 413: "too-large", 431: "too-large", 408: "too-slow"}.get(status, "http")
    answer = document(Problem(status, slug, "The request was not taken"), sentence)
    return Response(ResponseHead(status, headers=[("Content-Type", answer.media_type or "")]), bytes(answer.body))


def _report_bug(error: Exception) -> None:
    frames = traceback.extract_tb(error.__traceback__)
    places = " < ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in reversed(frames[-6:]))
    _log.error("unhandled %s at %s", type(error).__name__, places)
