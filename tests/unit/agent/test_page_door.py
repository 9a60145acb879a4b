"""The door for a browser: open to the user who runs it, for reading the page, and for nothing else."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from agent_page import ServedAgent, open_door, state_with

from ringfence_agent.http.request import Peer, Request
from ringfence_agent.page_door import PageDoor, find_uid_of

NOBODY_UID = 65534
# Everything is imported first: that user may not be able to read this Python's libraries.
_ASK_AS = """
import encodings.idna, os, socket, sys
os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
with socket.create_connection(("127.0.0.1", int(sys.argv[2])), timeout=30) as connection:
    connection.sendall(b"GET /v1/overview HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
    print(connection.recv(100).split()[1].decode())
"""


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedAgent]:
    served = ServedAgent(Path(tmp_path_factory.mktemp("a")))
    served.publish(state_with("/data/pii"))
    with served.serving():
        yield served


@pytest.fixture(scope="module")
def port(agent: ServedAgent) -> Iterator[int]:
    with open_door(agent.socket_path) as address:
        found = urlsplit(address).port
        assert found is not None
        yield found


def ask(
    port: int, method: str, target: str, host: str = "localhost", **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection(host, port, timeout=30)
    try:
        connection.request(method, target, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_page_and_what_it_reads_come_through_whole(agent: ServedAgent, port: int, host: str) -> None:
    for target in ("/page/", "/page/main.js", "/v1/overview", "/v1/moves/refused"):
        status, through, passed = ask(port, "GET", target, host)
        _, headers, body = agent.ask("GET", target)
        assert (status, passed) == (200, body)
        assert through["ETag"] == headers["ETag"]
        assert through["Content-Security-Policy"] == headers["Content-Security-Policy"]
        assert ask(port, "GET", target, host, **{"If-None-Match": headers["ETag"]})[0] == 304


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_changed_through_it(port: int, method: str) -> None:
    assert ask(port, method, "/v1/transfers")[0] == 405


@pytest.mark.parametrize("target", ["/v1/zones", "/v1/openapi.json", "/metrics", "/page/../v1/zones", "/tokens", "//"])
def test_nothing_but_the_page_is_open(port: int, target: str) -> None:
    assert ask(port, "GET", target)[0] == 404


def test_a_page_from_elsewhere_gets_nothing_through_it(port: int) -> None:
    assert ask(port, "GET", "/v1/overview", **{"Sec-Fetch-Site": "cross-site"})[0] == 403
    assert ask(port, "GET", "/v1/overview", Host="evil.example")[0] == 403


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_of_the_machine_gets_nothing_through_it(port: int) -> None:
    for uid, status in ((NOBODY_UID, "403"), (0, "200")):
        argv = [sys.executable, "-c", _ASK_AS, str(uid), str(port)]
        finished = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
        assert finished.stdout.strip() == status


def test_an_agent_that_is_away_is_said_to_be(agent: ServedAgent, tmp_path: Path) -> None:
    nobody = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(nobody))
        with open_door(nobody) as address:
            status, _, body = ask(urlsplit(address).port or 0, "GET", "/v1/overview")
            assert (status, b"does not answer" in body) == (502, True)


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_the_kernel_tells_whose_a_connection_is(family: socket.AddressFamily, address: str) -> None:
    with socket.socket(family) as listening:
        listening.bind((address, 0))
        listening.listen()
        port = listening.getsockname()[1]
        with socket.create_connection((address, port)) as client:
            peer = Peer(address, port=client.getsockname()[1])
            assert find_uid_of(peer, port) == os.geteuid()
            assert find_uid_of(peer, port + 1) is None
        assert find_uid_of(Peer(address, port=1), port) is None
    assert find_uid_of(Peer(None, uid=0), port) is None


def test_a_connection_that_nobody_can_name_is_refused(tmp_path: Path) -> None:
    request = Request(b"GET", b"/page/", b"", {}, b"", Peer("127.0.0.1", port=1), keep_alive=True)
    answer = PageDoor(tmp_path / "none", os.geteuid(), lambda _peer: None)._answer(request)
    assert answer.head.status == 403
