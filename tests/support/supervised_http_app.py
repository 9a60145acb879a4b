"""A program under the real supervisor, for unit/http/test_supervisor.py: says who answers, dies, hangs,
bumps, refuses.

Arguments: a JSON object with `workers`, `port`, `drain_timeout_s`, `hang_timeout_s`, `unix` (path or null), `refusal`
(path of a file whose presence makes the application factory fail). Prints one JSON line when every worker answers.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path

from ringfence_agent.http.listening import Listener, listen_tcp, listen_unix
from ringfence_agent.http.request import Request
from ringfence_agent.http.response import Application, Response, ResponseHead
from ringfence_agent.http.supervisor import Supervisor
from ringfence_agent.http.worker import WorkerContext
from ringfence_zones.errors import ConfigError, RingfenceError

_OK = ResponseHead(200, headers=[("Content-Type", "application/json")])


class _Application:
    def __init__(self, worker: WorkerContext) -> None:
        self._worker = worker
        self._reopened = 0
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._reopen)

    def _reopen(self) -> None:
        self._reopened += 1

    def __call__(self, request: Request) -> Response | Awaitable[Response]:
        answer: dict[str, object] = {"pid": os.getpid(), "slot": self._worker.slot, "uid": request.peer.uid}
        match request.raw_path:
            case b"/die":
                os.kill(os.getpid(), signal.SIGKILL)
            case b"/hang":
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
                time.sleep(3600)
            case b"/bump":
                self._worker.generation.bump()
            case b"/generation":
                answer["generation"] = self._worker.generation.current().hex()
            case b"/reopened":
                answer["reopened"] = self._reopened
            case b"/slow":
                return self._slow(float(request.raw_query), answer)
        return _json(answer)

    async def _slow(self, delay_s: float, answer: dict[str, object]) -> Response:
        await asyncio.sleep(delay_s)
        return _json(answer)


def _json(answer: object) -> Response:
    return Response(_OK, json.dumps(answer).encode())


def main() -> None:
    options = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    refusal = str(options["refusal"])

    @asynccontextmanager
    async def factory(worker: WorkerContext) -> AsyncIterator[Application]:
        if os.path.exists(refusal):  # noqa: PTH110, ASYNC240 - a test's switch
            raise ConfigError("the field 'answer' must be 42", hint="set it", command="true")
        yield _Application(worker)

    try:
        listener = listen_tcp("localhost", options["port"], slots=options["workers"])
        listeners: list[Listener] = [listener]
        if options["unix"]:
            listeners.append(listen_unix(Path(options["unix"])))
        Supervisor(
            factory,
            listeners,
            workers=options["workers"],
            drain_timeout_s=options["drain_timeout_s"],
            hang_timeout_s=options["hang_timeout_s"],
            on_ready=lambda: print(json.dumps({"port": listener.port}), flush=True),
        ).run()
    except RingfenceError as error:
        print(f"{type(error).__name__}: {error.message} | {error.hint} | {error.command}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
