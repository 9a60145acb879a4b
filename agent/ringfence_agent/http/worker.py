"""What a forked worker does from its first instruction to its last.

It tells the supervisor over a pipe, in JSON lines, that it is ready or why it cannot be. SIGTERM drains it; SIGINT and
SIGHUP, which a terminal sends to the whole group, are the supervisor's to answer and are ignored here.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvloop

from ringfence_agent.http.generation import Generation
from ringfence_agent.http.limits import Limits
from ringfence_agent.http.outbox import Recorded
from ringfence_agent.http.pulse import BEAT_S, PulseTable
from ringfence_agent.http.response import Application, ErrorRenderer
from ringfence_agent.http.server import HttpServer
from ringfence_agent.http.service import HttpService
from ringfence_zones.errors import ConfigError, InputError, RingfenceError

if TYPE_CHECKING:  # a server without TLS does without `cryptography`
    from ringfence_agent.http.tls import ServerTls

_log = logging.getLogger(__name__)

# Requests leave no cycles behind. At Python's 700 each burst of some thirty that wait together was looked through.
_GARBAGE_THRESHOLD = 10_000


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """What a worker's application is given: which slot it fills, of how many, and the shared generations.

    One is for keys and policy, the other for delegation tokens, whose changes must not cost the caches of keys.

    While a reload replaces a worker, two processes fill one slot for a moment. `process` (0 to 2 x workers - 1) is what
    no two living processes have in common: a file or a counter that only one may write to is chosen by it. The one that
    is to replace another `is_successor`: if it cannot start, the other goes on.
    """

    slot: int
    workers: int
    generation: Generation
    token_generation: Generation
    process: int
    is_successor: bool = False


# Called in each worker, on its event loop, after the fork: here stores are opened and background tasks started. What
# it raises ends the start; leaving it closes everything, after the last answer. A reload calls it afresh, so whatever
# it reads from files is read again. What it gives is an application, or one with the `commit` its answers wait for.
ApplicationFactory = Callable[[WorkerContext], AbstractAsyncContextManager["Application | Recorded"]]


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """The same for every worker of a supervisor."""

    factory: ApplicationFactory
    limits: Limits
    render_error: ErrorRenderer
    drain_timeout_s: float
    pulses: PulseTable
    tls: ServerTls | None = None


def run_worker(
    settings: WorkerSettings, context: WorkerContext, sockets: Sequence[socket.socket], report_descriptor: int
) -> int:
    """Serves until SIGTERM and drains. Returns the process's exit status; raises nothing."""
    gc.set_threshold(_GARBAGE_THRESHOLD)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(settings, context, sockets, report_descriptor))
    except RingfenceError as error:
        _report_error(report_descriptor, error)
    except Exception as error:  # noqa: BLE001 - the process's edge
        _log_failure(error)
        problem = RingfenceError(f"a worker could not start or stop: {type(error).__name__}; the log says where")
        _report_error(report_descriptor, problem)
    return 1


async def _serve(
    settings: WorkerSettings, context: WorkerContext, sockets: Sequence[socket.socket], report_descriptor: int
) -> int:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with settings.factory(context) as application:
        service = HttpService(application, settings.limits, settings.render_error)
        server = HttpServer(service, sockets, tls=settings.tls)
        if isinstance(application, Recorded) and application.on_serving is not None:
            application.on_serving(lambda: len(service.connections))
        await server.start()
        _beat(settings.pulses, context.process)
        _report(report_descriptor, {"ready": True})
        await stop.wait()
        await server.drain(settings.drain_timeout_s)
    return 0


def _beat(pulses: PulseTable, process: int) -> None:
    pulses.beat(process)
    asyncio.get_running_loop().call_later(BEAT_S, _beat, pulses, process)


def parse_report(line: bytes) -> RingfenceError | None:
    """The supervisor's side: None when the worker is ready, else why it is not, as the error it met."""
    report = json.loads(line)
    if report.get("ready"):
        return None
    kind = ConfigError if report.get("input") else RingfenceError
    return kind(str(report["message"]), hint=report.get("hint"), command=report.get("command"))


def _report_error(descriptor: int, error: RingfenceError) -> None:
    fields = {"message": error.message, "hint": error.hint, "command": error.command}
    _report(descriptor, {**fields, "input": isinstance(error, InputError)})


def _report(descriptor: int, report: dict[str, object]) -> None:
    try:
        os.write(descriptor, json.dumps(report).encode() + b"\n")
    except OSError:
        _log.exception("the supervisor cannot be reached")


def _log_failure(error: BaseException) -> None:
    # Kind and place only: a message may quote a path, a URI with a password, or key material.
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place is not None else "an unknown place"
    _log.error("worker failed with %s at %s", type(error).__name__, where)
