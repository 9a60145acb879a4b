"""The agent's API with its page, served on a real Unix socket from snapshots that tests make, and the door to it.

Everything but the loop is the real thing: the HTTP core, the gate, the routes, and `ringfence agent page` in a process
of its own. It can be stopped and started on the same socket, as an agent that restarts.
"""

from __future__ import annotations

import json
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPMessage, HTTPSConnection
from pathlib import Path
from typing import Any

from agent_api import ServedApi
from fastapi import APIRouter
from sandboxes import RINGFENCE

from ringfence_agent.api import metrics, overview, page, refused_moves
from ringfence_agent.api.view import ClusterView
from ringfence_agent.client import AgentClient
from ringfence_agent.snapshot import Board, Snapshot
from ringfence_agent.transfer.record import State, Tally
from ringfence_zones.keys import KeyMetadata
from ringfence_zones.model import ClusterState, EncryptionZone, KmsState
from ringfence_zones.policy import Policy
from ringfence_zones.unix_http import UnixHTTPConnection


def state_with(*paths: str, pinned: tuple[str, ...] = ()) -> ClusterState:
    """A cluster with these zones; each key has three versions."""
    zones = tuple(EncryptionZone(path, f"key-{number}") for number, path in enumerate(paths))
    keys = {
        zone.key_name: KeyMetadata(
            zone.key_name, "AES/CTR/NoPadding", 256, 0, 3, attributes={"ringfence.custody": "envelope"}
        )
        for zone in zones
    }
    kms = KmsState("kms://http@kms:9600/kms", True, True, 7, None, keys, ("envelope",))
    return ClusterState((3, 4, 2), zones, {}, pinned, kms)


class ServedAgent:
    """An agent without a loop: tests publish what it saw. `more` are routers beside those of the page."""

    def __init__(self, directory: Path, *more: APIRouter, settings: str = "") -> None:
        self.directory = directory
        self.socket_path = directory / "a.sock"
        self.board = Board(600.0)  # a slow machine is no dead loop
        self.moves = refused_moves.MoveRecord()
        self.url = ""
        self._more = more
        self._settings = settings
        self._cycle = 0

    def publish(self, state: ClusterState | None, policy: Policy | None = None, **changes: Any) -> None:
        """The end of a cycle."""
        self._cycle += 1
        now_s = time.monotonic()
        values: dict[str, Any] = {
            "cycle": self._cycle,
            "sentence": f"observe: {len(state.zones) if state else 0} zones",
            "finished_s": now_s,
            "observed_s": now_s if state is not None else None,
            "state": state,
            "policy": policy,
        }
        self.board.publish(Snapshot(**(values | changes)))

    def _routers(self, view: ClusterView) -> list[APIRouter]:
        view.moves = self.moves
        return [
            page.router(),
            overview.router(view.board),
            refused_moves.router(view.moves),
            metrics.router(view.board, view.moves, lambda: Tally({State.DONE: 2}, 4096)),
            *self._more,
        ]

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Answers on the socket; the test's own user is an administrator."""
        api = ServedApi(self.directory, self._settings, trusted=True, routers=self._routers)
        api.board, api.accounts.name = self.board, "root"
        api.start()
        self.url = api.url
        try:
            yield
        finally:
            api.stop()

    def ask(self, method: str, target: str, body: object = None, **headers: str) -> tuple[int, HTTPMessage, bytes]:
        """Status, headers and body, asked over the socket."""
        content = None if body is None else json.dumps(body)
        return _ask(UnixHTTPConnection(self.socket_path, 30.0), method, target, content, headers)

    def ask_tls(self, context: ssl.SSLContext, target: str, authorization: str) -> tuple[int, HTTPMessage, bytes]:
        """As `ask`, for reading, over TLS."""
        host, port = self.url.removeprefix("https://").split(":")
        connection = HTTPSConnection(host, int(port), context=context, timeout=30)
        return _ask(connection, "GET", target, None, {"Authorization": authorization} if authorization else {})

    def issue_token(self, role: str) -> str:
        """A token of a user `prometheus` with this role."""
        token, _ = AgentClient(str(self.socket_path)).issue_token("prometheus", role, 600)
        return token


def _ask(
    connection: HTTPConnection, method: str, target: str, body: str | None, headers: dict[str, str]
) -> tuple[int, HTTPMessage, bytes]:
    try:
        connection.request(method, target, body, {"Content-Type": "application/json"} | headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


@contextmanager
def open_door(socket_path: Path, *options: str) -> Iterator[str]:
    """`ringfence agent page` on a socket; the page's address."""
    argv = [RINGFENCE, "agent", "page", "--agent-socket", socket_path, *options]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address.startswith("http://localhost:"), "the door did not open"
            yield address
        finally:
            process.terminate()
            assert process.wait(30) == 0, "SIGTERM is a clean end"
