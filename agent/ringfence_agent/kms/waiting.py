"""A worker whose key store cannot be opened yet, because what protects it or the server that holds it is away.

After a power cut key servers start while Vault is still sealed and waits for people with keys, and while the database
server is not up yet. So a worker whose store is there, as far as anybody can tell, but whose protector or database does
not answer, takes connections all the same, and begins to serve by itself:

1. Every request is refused with 503 RetriableException before anybody is asked for a name, for cookies, tokens and
   policy rest in the store. Each refusal is on record, and its connection is closed: the next may find another worker.
2. `/health/live` says yes and `/health/ready` no. Why is told over the Unix socket and in the log, not to strangers.
3. The store is tried again every two seconds at most, in a thread, and then served as if the worker had started then.

A start waits for a protector or a database server that is away, and for nothing else: a wrong password, a database that
is not there, a store of another format end it. Once it waits it goes on whatever else it meets, since
it cannot tell a fault that passes (a token that ran out in the meantime) from one that does not; the log says which.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager

from ringfence_agent.http.outbox import Recorded
from ringfence_agent.http.request import Request
from ringfence_agent.http.response import Response, ResponseHead
from ringfence_agent.keystore.interface import OpenStore
from ringfence_agent.kms import remote_exception
from ringfence_agent.kms.audit import record as audit_record
from ringfence_agent.kms.audit.log import AuditLog
from ringfence_agent.kms.call import Call
from ringfence_agent.kms.monitoring.pages import LIVE, READY
from ringfence_agent.kms.routes import Query
from ringfence_zones import kms_wire
from ringfence_zones.errors import RingfenceError, StoreUnavailableError

_log = logging.getLogger(__name__)

_RETRY_S = (1.0, 2.0)
_READ = (b"GET", b"HEAD")
_SENTENCE = "the key server cannot open its key store yet: try again"
_NO_QUERY = Query()
_LIVE = Response(ResponseHead(200, headers=remote_exception.JSON_HEADERS), b'{"live":true}')
_NOT_READY = ResponseHead(503, headers=remote_exception.JSON_HEADERS)

Serve = Callable[[OpenStore], AbstractAsyncContextManager[Recorded]]
"""From an open store to the application on it, which closes the store."""


class WaitingApplication:
    """Refuses, and once `run` has opened the store passes everything on. Used on the event loop.

    `problem` is why the store could not be opened, `retry_s` between which seconds the next try is.
    """

    def __init__(self, audit: AuditLog, problem: RingfenceError, retry_s: tuple[float, float] = _RETRY_S) -> None:
        self._audit = audit
        self._problem = problem
        self._retry_s = retry_s
        self._serving: Recorded | None = None
        self._count_connections: Callable[[], int] = int
        _log.warning(
            "every request is answered with 503 until the key store opens: %s%s", problem.message, _why(problem)
        )

    @property
    def recorded(self) -> Recorded:
        """For the HTTP core."""
        return Recorded(self._answer, self._commit, self._note_serving)

    async def run(self, open_store: Callable[[], OpenStore], serve: Serve, executor: Executor) -> None:
        """Opens the store when that can be done, and serves it until it is cancelled. `open_store` blocks."""
        while True:
            await asyncio.sleep(random.uniform(*self._retry_s))  # noqa: S311 - so that workers do not ask in step
            try:
                opened = await asyncio.get_running_loop().run_in_executor(executor, open_store)
                async with serve(opened) as serving:
                    self._pass_on_to(serving)
                    await asyncio.Event().wait()
            except Exception as error:
                if self._serving is not None:
                    raise  # it met this while it closed
                self._note(error)

    def _pass_on_to(self, serving: Recorded) -> None:
        if serving.on_serving is not None:
            serving.on_serving(self._count_connections)
        self._serving = serving
        _log.warning("the key store is open: keys are served")

    def _note(self, met: Exception) -> None:
        # Of a bug the kind alone: its message may quote anything.
        error = (
            met if isinstance(met, RingfenceError) else RingfenceError(f"opening it fails with {type(met).__name__}")
        )
        if error.message != self._problem.message:
            level = logging.WARNING if isinstance(error, StoreUnavailableError) else logging.CRITICAL
            _log.log(level, "the key store still does not open: %s%s", error.message, _why(error))
        self._problem = error

    def _note_serving(self, count_connections: Callable[[], int]) -> None:
        self._count_connections = count_connections

    def _answer(self, request: Request) -> Response | Awaitable[Response]:
        if self._serving is not None:
            return self._serving.application(request)
        if request.method in _READ and request.raw_path == LIVE:
            return _LIVE
        if request.method in _READ and request.raw_path == READY:
            return Response(_NOT_READY, kms_wire.encode(self._describe(request)))
        return self._refuse(request)

    def _describe(self, request: Request) -> dict[str, object]:
        return {"ready": False, **({"problems": [self._problem.message]} if request.peer.is_unix else {})}

    def _refuse(self, request: Request) -> Response:
        call = Call(request, _NO_QUERY)
        decision = call.decision(503, audit_record.FAILED, 0)
        method, path = (text.decode("ascii", "backslashreplace") for text in (request.method, request.raw_path))
        self._audit.record(decision, {"method": method, "path": path, "error": self._problem.message})
        sentence = self._problem.message if request.peer.is_unix else _SENTENCE
        refusal = remote_exception.render(StoreUnavailableError(sentence))
        return Response(refusal.head, refusal.body, close=True)

    def _commit(self) -> Response | None:
        if self._serving is not None:
            return self._serving.commit()
        refusal = self._audit.commit()
        return None if refusal is None else remote_exception.render(refusal)


def _why(error: RingfenceError) -> str:
    return f" ({error.hint})" if error.hint else ""
