"""Runs an agent: its parts in threads, the API on the event loop, until it is told to end.

Rules:

1. One agent per state directory: a lock, held as long as the process lives, keeps a second one out.
2. SIGTERM and SIGINT end it within seconds: the API answers what it has begun, the child is killed, a cycle under way
   fails. Every act is safe to be cut off (see `act`).
3. It is fatal to lose the socket's file: nobody could reach the agent any more, and liveness would lie.
"""

from __future__ import annotations

import asyncio
import fcntl
import grp
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from ringfence_agent.api.server import Api, open_api
from ringfence_agent.config import AgentConfig
from ringfence_agent.http.listening import UnixListener, listen_unix
from ringfence_agent.loop import FatalAgentError
from ringfence_agent.parts import Parts, build_parts
from ringfence_agent.steps import OnStep, unheard
from ringfence_agent.surroundings import Surroundings, look_around
from ringfence_zones.errors import ConfigError

_log = logging.getLogger(__name__)

_DRAIN_S = 2.5
_THREAD_S = 3.0
_JOIN_S = 0.1
_ROOT_UID = 0


class StateLock:
    """Keeps a second agent out of a state directory; freed by the kernel when the process ends."""

    def __init__(self, state_dir: Path) -> None:
        """Raises ConfigError when another agent holds it or the directory cannot be used."""
        path = state_dir / "agent.lock"
        try:
            state_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
            self._file: IO[bytes] = path.open("ab")
        except OSError as error:
            raise ConfigError(
                f"cannot use the state directory {state_dir}: {error.strerror}",
                hint="create it for the agent's user, or set state_dir in agent.yaml",
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise ConfigError(
                f"another agent is running on {state_dir}", hint="stop it first, or give this one its own state_dir"
            ) from error

    def release(self) -> None:
        """Lets the next agent in."""
        self._file.close()


class _PartThread(threading.Thread):
    """Runs one part until `stop` is set; keeps what was fatal for the main thread and wakes it when it ends."""

    def __init__(self, name: str, run: Callable[[threading.Event], None], stop: threading.Event) -> None:
        # Daemon: a call that never returns must not keep the process from ending.
        super().__init__(name=name, daemon=True)
        self._run = run
        self._stopping = stop
        self.on_end: Callable[[], None] = lambda: None
        self.fatal: FatalAgentError | None = None

    def run(self) -> None:
        try:
            self._run(self._stopping)
        except FatalAgentError as error:
            self.fatal = error
        finally:
            self.on_end()


def serve(
    config: AgentConfig,
    hadoop_conf: Path,
    on_ready: Callable[[str], None],
    on_step: OnStep = unheard,
) -> None:
    """Runs the agent until SIGTERM or SIGINT. `on_ready` gets each address, once questions can be asked there:
    `unix:PATH` first, `https://HOST:PORT` when there is one. `on_step` is
    for tests: see `steps`.

    Raises ConfigError and other RingfenceErrors when it cannot start, FatalAgentError when it must not go on.
    """
    around = look_around(config, hadoop_conf, on_step)
    with ExitStack() as ending:
        lock = StateLock(config.state_dir)
        ending.callback(lock.release)
        ending.callback(around.close)
        listener = _listen(config)
        ending.callback(listener.close)
        parts = build_parts(around, (_socket_check(listener),))
        trusted = {_ROOT_UID, os.geteuid()}
        api = open_api(config, listener, parts.view, parts.view.accounts, trusted, parts.routers)
        ending.callback(api.close)
        parts.grant_watch.start()
        ending.callback(parts.grant_watch.stop)
        parts.transfers.start()
        ending.callback(parts.transfers.close, _THREAD_S)
        asyncio.run(_run(api, parts, around, listener, on_ready))


def _listen(config: AgentConfig) -> UnixListener:
    group_id = -1
    if config.socket_group is not None:
        try:
            group_id = grp.getgrnam(config.socket_group).gr_gid
        except KeyError:
            raise ConfigError(f"socket_group names '{config.socket_group}', which is no group here") from None
    listener = listen_unix(config.socket)
    if group_id >= 0:
        try:
            os.chown(config.socket, -1, group_id)
        except OSError as error:
            listener.close()
            raise ConfigError(
                f"cannot give the socket {config.socket} to the group {config.socket_group}: {error.strerror}",
                hint="run the agent as root or as a member of that group",
            ) from error
    return listener


def _socket_check(listener: UnixListener) -> Callable[[], None]:
    identity = _identity(listener.path)

    def socket_is_ours() -> None:
        if _identity(listener.path) != identity:
            raise FatalAgentError(
                f"the socket {listener.path} was removed or replaced: nobody could ask the agent any more",
                hint="start the agent again, and keep others out of the socket's directory",
            )

    return socket_is_ours


async def _run(
    api: Api, parts: Parts, around: Surroundings, listener: UnixListener, on_ready: Callable[[str], None]
) -> None:
    events = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        events.add_signal_handler(number, ended.set)
    await api.server.start()

    def wake() -> None:
        events.call_soon_threadsafe(ended.set)

    threads = [
        _PartThread("agent-loop", parts.loop.run, parts.stop),
        _PartThread("events", parts.watcher.run, parts.stop),
        _PartThread("lease", parts.turn.run, parts.stop),
    ]
    for thread in threads:
        thread.on_end = wake
        thread.start()
    on_ready(f"unix:{listener.path}")
    if api.tcp is not None:
        on_ready(f"https://{api.tcp.host}:{api.tcp.port}")
    await ended.wait()
    _log.info("stopping")
    parts.stop.set()
    await asyncio.gather(api.server.drain(_DRAIN_S), asyncio.to_thread(_end_threads, threads, around))
    for thread in threads:
        if thread.fatal is not None:
            raise thread.fatal


def _end_threads(threads: list[_PartThread], around: Surroundings) -> None:
    """Cuts off the calls under way, again and again: a look makes several, and the next would start a new child."""
    deadline = time.monotonic() + _THREAD_S
    while any(thread.is_alive() for thread in threads) and time.monotonic() < deadline:
        around.close()
        for thread in threads:
            thread.join(_JOIN_S)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
