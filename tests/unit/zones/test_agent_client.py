"""The commands' side of the agent's API, against a server on a Unix socket that says what each test wants."""

from __future__ import annotations

import json
import socketserver
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from ringfence_zones.agent_client import AgentClient, find_agent
from ringfence_zones.errors import AgentUnavailableError, InputError


class _Agent(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    status = 200
    body = b"{}"

    def __init__(self, path: str) -> None:
        super().__init__(path, _Handler)
        self.asked: list[tuple[str, str, Any]] = []


class _Handler(BaseHTTPRequestHandler):
    server: _Agent

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.command, self.path, json.loads(body) if body else None))
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    do_GET = do_POST = _answer  # noqa: N815 - the base class's names


@contextmanager
def _serving(path: Path) -> Iterator[_Agent]:
    with _Agent(str(path)) as agent:
        thread = threading.Thread(target=agent.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield agent
        finally:
            agent.shutdown()
            thread.join()


@pytest.fixture
def socket_path() -> Iterator[Path]:
    # Not tmp_path: a Unix socket's path may have about 100 characters.
    with tempfile.TemporaryDirectory(prefix="rf-") as directory:
        yield Path(directory) / "agent.sock"


@pytest.fixture
def agent(socket_path: Path) -> Iterator[_Agent]:
    with _serving(socket_path) as serving:
        yield serving


def _says(agent: _Agent, status: int, document: Any) -> None:
    agent.status, agent.body = status, json.dumps(document).encode()


def test_a_move_is_asked_for_as_the_api_wants_it(agent: _Agent, socket_path: Path) -> None:
    decision = {"rename": True, "transfer": True, "same_zone": True, "reason": None, "rule": None, "command": None}
    _says(agent, 200, decision)
    client = AgentClient(socket_path)
    assert client.check_move("/a/é", "/b", "etl") == decision
    client.check_move("/a", "/b", None)
    assert agent.asked == [
        ("POST", "/v1/moves/check", {"src": "/a/é", "dst": "/b", "user": "etl"}),
        ("POST", "/v1/moves/check", {"src": "/a", "dst": "/b"}),
    ]


def test_a_path_is_sent_encoded(agent: _Agent, socket_path: Path) -> None:
    _says(agent, 200, {"path": "/a b&c", "zone": None})
    assert AgentClient(socket_path).find_zone_of("/a b&c") is None
    assert agent.asked == [("GET", "/v1/zones/of?path=%2Fa+b%26c", None)]


def test_bad_input_is_the_callers_and_everything_else_is_the_agents(agent: _Agent, socket_path: Path) -> None:
    client = AgentClient(socket_path)
    _says(agent, 400, {"title": "Not a usable HDFS path", "detail": "'x' is not absolute", "hint": "start with /"})
    with pytest.raises(InputError, match="not absolute"):
        client.find_zone_of("x")
    for status in (403, 404, 500, 503):
        _says(agent, status, {"title": "No", "detail": "not now"})
        with pytest.raises(AgentUnavailableError, match="not now"):
            client.list_zones()


def test_an_agent_that_is_not_live_still_says_how_it_is(agent: _Agent, socket_path: Path) -> None:
    _says(agent, 503, {"live": False, "sentence": "cannot reach the NameNode"})
    health = AgentClient(socket_path).find_health()
    assert health is not None
    assert health["live"] is False


@pytest.mark.parametrize("body", [b"", b"hello", b"[]", b"{", b"\xff", b'{"zones": 7}', b'{"zones": [7]}'])
def test_what_is_not_an_answer_is_never_taken_for_one(agent: _Agent, socket_path: Path, body: bytes) -> None:
    agent.body = body
    with pytest.raises(AgentUnavailableError):
        AgentClient(socket_path).list_zones()


def test_no_socket_is_no_agent(socket_path: Path) -> None:
    assert find_agent(socket_path) is None
    socket_path.write_text("a file")
    assert find_agent(socket_path) is None


def test_a_socket_that_nobody_listens_on_is_an_agent_that_is_away(socket_path: Path) -> None:
    with _serving(socket_path):
        pass
    client = find_agent(socket_path)
    assert client is not None
    assert client.find_health() is None
    with pytest.raises(AgentUnavailableError, match="does not answer"):
        client.list_zones()
