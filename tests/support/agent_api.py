"""The agent's API in a thread of its own, with whatever agent.yaml may say of it, and a cluster that a test describes.

Who the caller is on this machine is the test's to say: `accounts.name` is what the test's own uid is called.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import APIRouter

from ringfence_agent.api.server import Api, open_api
from ringfence_agent.api.view import ClusterView
from ringfence_agent.config import AgentConfig
from ringfence_agent.http.listening import listen_unix
from ringfence_agent.snapshot import Board, Snapshot
from ringfence_zones.config_file import parse_config
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.model import ClusterState, EncryptionZone
from ringfence_zones.policy import parse_policy

POLICY = parse_policy(
    """
version: 1
cluster: test
zones:
  - {path: /data/pii, owner: etl, readers: [masker]}
  - {path: /data/masked, writers: [masker]}
flows:
  - {from: /data/pii, to: /data/masked, who: [masker]}
kms: {namenode_users: [hdfs], admins: [hdfs]}
""",
    "zones.yaml",
)
STATE = ClusterState(
    hadoop_version=(3, 4, 2),
    zones=(EncryptionZone("/data/masked", "test-data-masked"), EncryptionZone("/data/pii", "test-data-pii")),
    directories={},
    protected_directories=("/data/pii",),
    kms=None,
)
FINDING = Finding(
    severity=Severity.ERROR, rule=Rule.ROOT_NOT_PINNED, path="/data/masked", message="m", hint="h", command="c"
)
_JSON = {"Content-Type": "application/json"}


class Clock:
    """A monotonic clock that stands still."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Accounts:
    """The test's own user under a name of its choosing."""

    def __init__(self) -> None:
        self.name: str | None = "masker"
        self.groups = frozenset({"jobs"})

    def find_name(self, uid: int) -> str | None:
        return self.name if uid == os.geteuid() else None

    def groups_of(self, user: str) -> frozenset[str]:
        return self.groups


class ServedApi:
    """An API that answers. `trusted`: whether the test's own uid is the agent's own user, an administrator."""

    def __init__(
        self,
        directory: Path,
        settings: str = "allowed_users: [masker]\n",
        *,
        trusted: bool = False,
        routers: Callable[[ClusterView], list[APIRouter]] = lambda _: [],
        accounts: Accounts | None = None,
    ) -> None:
        self.directory = directory
        self.path = directory / "a.sock"
        self.clock = Clock()
        self.board = Board(60.0, self.clock)
        self.accounts = accounts or Accounts()
        self.url = ""
        text = f"socket: {self.path}\nstate_dir: {directory}\n{settings}"
        self.config = parse_config(text, "agent.yaml", AgentConfig)
        self._trusted = trusted
        self._routers = routers
        self._failure: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:  # noqa: BLE001 - handed to the test
            self._failure = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        listener = listen_unix(self.path)
        view = ClusterView(self.board, self.accounts, version="9", default_fs="hdfs://nn:8020")
        # Not even root's uid, unless the test wants it: who runs the tests must not decide what they show.
        trusted = {os.geteuid()} if self._trusted else set()
        api = open_api(self.config, listener, view, self.accounts, trusted, self._routers(view))
        try:
            await self._answer(api)
        finally:
            api.close()
            listener.close()

    async def _answer(self, api: Api) -> None:
        await api.server.start()
        if api.tcp is not None:
            self.url = f"https://localhost:{api.tcp.port}"
        self._started.set()
        await self._stop.wait()
        await api.server.drain(2.0)

    def start(self) -> None:
        self._thread.start()
        assert self._started.wait(60)
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive()
        self._loop.close()

    def publish(self, **changes: Any) -> None:
        values: dict[str, Any] = {
            "cycle": 3,
            "sentence": "enforce: 2 zones",
            "finished_s": self.clock.now,
            "observed_s": self.clock.now,
            "state": STATE,
            "policy": POLICY,
            "findings": (FINDING,),
        }
        self.board.publish(Snapshot(**(values | changes)))

    def unix(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("localhost", timeout=60)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(60)
        connection.sock.connect(str(self.path))
        return connection

    def tls(self, context: ssl.SSLContext) -> http.client.HTTPConnection:
        host, port = self.url.removeprefix("https://").split(":")
        return http.client.HTTPSConnection(host, int(port), context=context, timeout=60)

    def ask(self, method: str, target: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, Any]]:
        """Over the Unix socket."""
        status, _, answer = ask(self.unix(), method, target, body, headers)
        return status, answer


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[int, http.client.HTTPMessage, dict[str, Any]]:
    """Status, headers and the JSON of an answer; the connection is closed."""
    try:
        connection.request(method, target, body, _JSON | (headers or {}))
        answer = connection.getresponse()
        content = answer.read()
        assert (answer.headers["Content-Type"] or "").startswith("application/"), content
        return answer.status, answer.headers, json.loads(content) if content else {}
    finally:
        connection.close()


@contextmanager
def serving_api(api: ServedApi) -> Iterator[ServedApi]:
    """The API from its first to its last answer, with the cluster of this module."""
    api.publish()
    api.start()
    try:
        yield api
    finally:
        api.stop()
