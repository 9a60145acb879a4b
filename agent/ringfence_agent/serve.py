"""Puts the agent together and runs it: the loop in a thread, the API on the event loop, Java in a child.

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
from pathlib import Path
from typing import IO, Any

from ringfence_agent.act import Pinner
from ringfence_agent.api.access import AccessRules, RememberedAccounts, SystemAccounts
from ringfence_agent.api.app import create_app
from ringfence_agent.api.asgi import AsgiBridge
from ringfence_agent.api.gate import core_problem
from ringfence_agent.config import AgentConfig
from ringfence_agent.http.limits import Limits
from ringfence_agent.http.listening import UnixListener, listen_unix
from ringfence_agent.http.server import HttpServer
from ringfence_agent.http.service import HttpService
from ringfence_agent.loop import AgentLoop, FatalAgentError
from ringfence_agent.observe import Observer
from ringfence_agent.pins import PinMemory
from ringfence_agent.policy_source import FilePolicy, PolicySource, PublishedPolicy
from ringfence_agent.snapshot import Board
from ringfence_zones.client_config import read_client_config, read_http_access
from ringfence_zones.errors import ConfigError, HdfsError
from ringfence_zones.hadoop_conf import HadoopConf, read_hadoop_conf
from ringfence_zones.hdfs_child import HdfsChild
from ringfence_zones.http_session import HttpAccess
from ringfence_zones.kms_admin import Publication, open_admin_client
from ringfence_zones.kms_uri import parse_kms_uri
from ringfence_zones.namenodes import default_filesystem

_log = logging.getLogger(__name__)

_DRAIN_S = 2.5
_THREAD_S = 3.0
_JOIN_S = 0.1
# A question is two paths; an answer is computed at once. Far below the key server's bounds.
_LIMITS = Limits(
    head_bytes=32 * 1024,
    header_count=64,
    body_bytes=64 * 1024,
    held_body_bytes=4 * 1024 * 1024,
    body_timeout_s=10.0,
    connections=1024,
)


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


class _LoopThread(threading.Thread):
    """Runs the loop; keeps what was fatal for the main thread and wakes it."""

    def __init__(self, loop: AgentLoop, stop: threading.Event, on_end: Callable[[], None]) -> None:
        # Daemon: a call that never returns must not keep the process from ending.
        super().__init__(name="agent-loop", daemon=True)
        self._loop = loop
        self._stopping = stop
        self._on_end = on_end
        self.fatal: FatalAgentError | None = None

    def run(self) -> None:
        try:
            self._loop.run(self._stopping)
        except FatalAgentError as error:
            self.fatal = error
        finally:
            self._on_end()


def serve(config: AgentConfig, hadoop_conf: Path, on_ready: Callable[[Path], None]) -> None:
    """Runs the agent until SIGTERM or SIGINT. `on_ready` gets the socket's path once questions can be asked.

    Raises ConfigError and other RingfenceErrors when it cannot start, FatalAgentError when it must not go on.
    """
    conf = read_hadoop_conf(hadoop_conf, "core-site.xml", "hdfs-site.xml")
    default_fs = default_filesystem(conf)
    policies = _open_policies(config, hadoop_conf, conf)
    access = read_http_access(hadoop_conf, os.environ, config.kerberos)
    as_user = config.user if access.kerberos is None else None
    hdfs = HdfsChild(hadoop_conf, as_user, keytab=config.kerberos, deadline_s=config.call_timeout)
    lock = StateLock(config.state_dir)
    try:
        listener = _listen(config)
        try:
            board = Board(config.stale_after)
            loop, stop = _build_loop(config, hadoop_conf, access, hdfs, policies, board, listener)
            asyncio.run(_run(_build_server(config, board, listener, default_fs), loop, stop, hdfs, listener, on_ready))
        finally:
            listener.close()
            hdfs.close()
    finally:
        lock.release()


def _open_policies(config: AgentConfig, hadoop_conf: Path, conf: HadoopConf) -> PolicySource:
    if config.policy is not None:
        return FilePolicy(config.policy)

    def find_published() -> tuple[Publication, Any] | None:
        # Opened with every look: a token file may be replaced, and a KMS may be ours only from tomorrow on.
        provider = conf.get("hadoop.security.key.provider.path")
        if not provider:
            raise ConfigError("agent.yaml names no policy file, and core-site.xml no KMS that could have published one")
        client_config = read_client_config(hadoop_conf, os.environ)
        access = read_http_access(hadoop_conf, os.environ, config.kerberos)
        uri = parse_kms_uri(provider)
        client = open_admin_client(client_config, uri, access=access, timeout_s=config.call_timeout)
        return client.find_published()

    return PublishedPolicy(find_published)


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


def _build_loop(
    config: AgentConfig,
    hadoop_conf: Path,
    access: HttpAccess,
    hdfs: HdfsChild,
    policies: PolicySource,
    board: Board,
    listener: UnixListener,
) -> tuple[AgentLoop, threading.Event]:
    stop = threading.Event()
    conf_dir = config.namenode_conf_dir or hadoop_conf
    memory = PinMemory(config.state_dir, conf_dir / "core-site.xml")
    observer = Observer(
        hdfs,
        policies,
        memory,
        namenode_conf_dir=conf_dir,
        user=config.user,
        access=access,
        kms_timeout_s=config.call_timeout,
    )
    pinner = Pinner(hdfs, memory, timeout_s=config.call_timeout, pause=lambda pause_s: _pause(stop, pause_s))
    identity = _identity(listener.path)

    def socket_is_ours() -> None:
        if _identity(listener.path) != identity:
            raise FatalAgentError(
                f"the socket {listener.path} was removed or replaced: nobody could ask the agent any more",
                hint="start the agent again, and keep others out of the socket's directory",
            )

    return AgentLoop(observer, pinner, board, interval_s=config.interval, checks=(socket_is_ours,)), stop


def _build_server(config: AgentConfig, board: Board, listener: UnixListener, default_fs: str) -> HttpServer:
    from importlib.metadata import version  # noqa: PLC0415 - reads the installation, needed once

    accounts = RememberedAccounts(SystemAccounts())
    rules = AccessRules(
        allowed_users=config.allowed_users,
        allowed_groups=config.allowed_groups,
        delegate_users=config.delegate_users,
        service_uid=os.geteuid(),
        accounts=accounts,
    )
    app = create_app(board, rules, version=version("ringfence"), accounts=accounts, default_fs=default_fs)
    # The server closes what it is given when it drains; the listener's own says whether the file is still ours.
    sockets = [listening.dup() for listening in listener.sockets_for(0)]
    return HttpServer(HttpService(AsgiBridge(app), _LIMITS, core_problem), sockets)


async def _run(
    server: HttpServer,
    loop: AgentLoop,
    stop: threading.Event,
    hdfs: HdfsChild,
    listener: UnixListener,
    on_ready: Callable[[Path], None],
) -> None:
    events = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        events.add_signal_handler(number, ended.set)
    await server.start()

    def wake() -> None:
        events.call_soon_threadsafe(ended.set)

    thread = _LoopThread(loop, stop, wake)
    thread.start()
    on_ready(listener.path)
    await ended.wait()
    _log.info("stopping")
    stop.set()
    await asyncio.gather(server.drain(_DRAIN_S), asyncio.to_thread(_end_thread, thread, hdfs))
    if thread.fatal is not None:
        raise thread.fatal


def _end_thread(thread: threading.Thread, hdfs: HdfsChild) -> None:
    """Cuts off the calls under way, again and again: a look makes several, and the next would start a new child."""
    deadline = time.monotonic() + _THREAD_S
    while thread.is_alive() and time.monotonic() < deadline:
        hdfs.close()
        thread.join(_JOIN_S)


def _pause(stop: threading.Event, pause_s: float) -> None:
    if stop.wait(pause_s):
        raise HdfsError("the agent is being stopped")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
