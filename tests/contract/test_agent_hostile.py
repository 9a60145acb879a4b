"""A hostile user of this machine: a wrong uid, forged headers, path tricks, large and malformed requests, a thousand at
once. Nobody gets in, nothing falls over, and no secret comes out again.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import pwd
import resource
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from agent_api import Accounts, ServedApi, ask, serving_api
from canary import Canaries

from ringfence_agent.api.access import SystemAccounts
from ringfence_agent.client import AgentClient

_CANARY = "canary-7d1f0c3b9a"
_PARALLEL = 1000


class _Machine(Accounts):
    """This machine's real users; the groups that a test gives."""

    def find_name(self, uid: int) -> str | None:
        return SystemAccounts().find_name(uid)


@pytest.fixture
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedApi]:
    with serving_api(ServedApi(tmp_path_factory.mktemp("h"), trusted=True)) as running:
        yield running


def test_another_uid_gets_nothing_by_whatever_it_sends() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    # Not tmp_path, where no other user may go. Not `nobody`: its uid is also that of whom the kernel cannot name.
    with tempfile.TemporaryDirectory(prefix="rf-") as parent:
        directory = Path(parent)
        directory.chmod(0o755)
        with serving_api(ServedApi(directory, "allowed_users: [root]\n", accounts=_Machine(), trusted=True)) as api:
            token, _ = AgentClient(str(api.path)).issue_token("root", "admin", 600)
            # The file would keep it out already: this is about the agent.
            api.path.chmod(0o666)
            for headers in (
                {},
                {"X-User": "root", "X-Remote-User": "root", "X-Forwarded-User": "root", "Cookie": "user=root"},
                {"Authorization": f"Bearer {token}"},
                {"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1", "X-Ringfence-Peer": "uid=0"},
            ):
                for target in ("/v1/zones", "/v1/zones?user.name=root", "/v1/tokens", "/v1/openapi.json", "/"):
                    status, problem = _ask_as("daemon", api.path, target, headers)
                    assert status == 403, (target, headers)
                    assert "daemon may not use the agent" in problem["detail"]
            api.path.chmod(0o660)
            assert _ask_as("daemon", api.path, "/v1/zones", {})[0] == 0
            assert api.ask("GET", "/v1/zones")[0] == 200


def _ask_as(user: str, path: Path, target: str, headers: dict[str, str]) -> tuple[int, dict[str, str]]:
    """The agent's answer to a process of another user; 0 when that could not connect."""
    program = (
        "import http.client, json, socket, sys\n"
        "path, target, headers = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])\n"
        "connection = http.client.HTTPConnection('localhost')\n"
        "connection.sock = socket.socket(socket.AF_UNIX)\n"
        "try:\n"
        "    connection.sock.connect(path)\n"
        "except PermissionError:\n"
        "    sys.exit(print(json.dumps([0, {}])))\n"
        "connection.request('GET', target, headers=headers)\n"
        "answer = connection.getresponse()\n"
        "print(json.dumps([answer.status, json.loads(answer.read())]))\n"
    )
    python = Path("/usr/bin/python3")
    asked = subprocess.run(
        [python if python.exists() else sys.executable, "-I", "-c", program, path, target, json.dumps(headers)],
        user=user,
        group=pwd.getpwnam(user).pw_gid,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        cwd="/",
    )
    status, problem = json.loads(asked.stdout)
    return status, problem


# Reference: what Hadoop's Path and isValidName make of these. None: refused.
_PATHS = {
    "/data/pii/f": "/data/pii",
    "/data/pii/f/": "/data/pii",
    "/data/x/../pii/f": None,
    "/data/pii/./f": None,
    "//data/pii//f": None,
    "/data//pii/f": None,
    "/data/pii/..": None,
    "/../data/pii": None,
    "hdfs://other:8020/data/pii/f": None,
    "hdfs://nn:8020/data/pii/f": "/data/pii",
    "HDFS://NN:8020/data/pii/f": "/data/pii",
    "hdfs://nn:8020//data/pii/f": None,
    "hdfs:/data/pii/f": None,
    "hdfs:///data/pii/f": "/data/pii",
    "viewfs://cl/data/pii": None,
    "file:///data/pii": None,
    "/data/p%69i/f": "",
    "/data/pii%2ff": "",
    "/data/pii%2f..%2fmasked": "",
    "/data/pii:x/f": None,
    "C:/data/pii": None,
    "/data/pii?op=x": "",
    "/data/pii/f?op=x": "/data/pii",
    "/data/pii#x": "",
    "/.reserved/raw/data/pii/f": "/data/pii",
    "/.reserved/.inodes/16386/../f": None,
    "/.reserved/raw/../data/pii": None,
    "/.reserved/x": None,
    "/data/pii/.snapshot/../f": None,
    "/data/pi\u0131/f": "",
    "/data/pii\u2024/f": "",
    "/data/pii/\u202ef": None,
    "/data/pii\x00/f": None,
    "/data/pii\\f": "",
    "/data/pii /f": "",
    "/data/PII/f": "",
    "/data/pii/{a,b}*": "/data/pii",
    "/data/pii" + "/x" * 1000: None,
    "/data/pii/" + "x" * 8000: None,
    "data/pii": None,
    "": None,
    "~": None,
}


@pytest.mark.parametrize("path", _PATHS, ids=lambda path: ascii(path)[:40])
def test_a_path_is_what_hdfs_takes_it_for_or_it_is_refused(api: ServedApi, path: str) -> None:
    zone = _PATHS[path]
    status, answer = api.ask("GET", f"/v1/zones/of?path={quote(path, safe='')}")
    question = json.dumps({"src": path, "dst": "/data/masked/f"}).encode()
    moved, decision = api.ask("POST", "/v1/moves/check", question)
    if zone is None:
        assert status == moved == 400, answer
        return
    assert (status, moved) == (200, 200)
    found = answer["zone"]
    assert (found["path"] if found else "") == zone
    # Nobody brings the data of the zone anywhere by spelling its name otherwise.
    assert decision["rename"] is False
    assert decision["same_zone"] is False


def test_a_path_is_decoded_once(api: ServedApi) -> None:
    for encoded in ("/data/pii%252f..%252fmasked", "%2Fdata%2Fp%2569i", "/data/%2570ii"):
        status, answer = api.ask("GET", f"/v1/zones/of?path={encoded}")
        assert (status, answer["zone"]) == (200, None)
    for encoded in ("/data/%ff", "%C0%AFdata", "/data/pii%00"):
        assert api.ask("GET", f"/v1/zones/of?path={encoded}")[0] in (200, 400)
        assert api.ask("GET", f"/v1/zones/of?path={encoded}")[1].get("zone") is None


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /v1/zones HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"POST /v1/moves/check HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/moves/check HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
        b"GET /v1/zones HTTP/1.1\r\nHost: a\r\nX-A: b\x00c\r\n\r\n",
        b"GET /v1/zones HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(100)) + b"\r\n",
        b"GET /v1/zones HTTP/1.1\r\nHost: a\r\nX-A: " + b"y" * 200_000 + b"\r\n\r\n",
        b"GET /v1/" + b"z" * 200_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /v1/moves/check HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
        b"GET / HTTP/9.9\r\n\r\n",
        b"\r\n\r\n\r\n\x00\xff" * 100,
    ],
    ids=[
        "two lengths",
        "length and chunks",
        "sign",
        "nul",
        "headers",
        "head",
        "target",
        "body",
        "tls",
        "version",
        "noise",
    ],
)
def test_a_malformed_request_is_refused_and_the_next_caller_is_served(api: ServedApi, sent: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(60)
        raw.connect(str(api.path))
        try:
            raw.sendall(sent)
            raw.shutdown(socket.SHUT_WR)
            answer = raw.recv(65536)
        except (BrokenPipeError, ConnectionResetError):
            answer = b""
    assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5")), answer[:80]
    assert b"/data/pii" not in answer
    assert api.ask("GET", "/v1/health")[0] == 200


def test_nothing_that_was_sent_comes_out_again(api: ServedApi, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    admin = AgentClient(str(api.path))
    token, _ = admin.issue_token("etl", "viewer", 600)
    canaries = Canaries()
    canaries.add("what was sent", _CANARY)
    canaries.add("a token", token)
    answers: list[str] = []
    for headers in (
        {"Authorization": f"Bearer {_CANARY}"},
        {"Authorization": f"Bearer {token}"},
        {"Authorization": f"Bearer {token}{_CANARY}"},
        {"Authorization": f"Basic {_CANARY}"},
        {"Idempotency-Key": f"{_CANARY} {token}"},
        {"Cookie": _CANARY},
    ):
        for method, target, body in (
            ("GET", "/v1/zones", None),
            ("POST", "/v1/moves/check", json.dumps({"src": "/a", "dst": "/b", _CANARY: token}).encode()),
            ("POST", "/v1/moves/check", json.dumps({"src": "/a", "user": {"x": _CANARY}}).encode()),
            ("POST", "/v1/policy/validate", json.dumps({"document": 7, "x": _CANARY}).encode()),
            ("POST", "/v1/tokens", json.dumps({"user": "etl", "role": _CANARY, "life_s": 60}).encode()),
            ("DELETE", f"/v1/tokens/{token}", None),
        ):
            _, sent, answer = ask(api.unix(), method, target, body, headers)
            # The name of a member that is not known is told; what is in it is not.
            answers.append(json.dumps(answer).replace(f"body.{_CANARY}", "") + str(sent))
    assert canaries.find_in_texts({"answers": "\n".join(answers), "log": caplog.text}) == {}
    assert canaries.find_in_tree(api.directory, [api.path]) == {}
    assert canaries.find_in_texts({"control": f"x {token} y"}) == {"control": {"a token"}}


def test_a_thousand_at_once_are_all_answered_rightly(api: ServedApi) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4 * _PARALLEL)), hard))
    wrong: list[object] = []
    kinds = (
        ("GET", "/v1/zones", None, {}, 200),
        ("POST", "/v1/moves/check", b'{"src": "/data/pii/a", "dst": "/data/masked/a"}', {}, 200),
        ("POST", "/v1/moves/check", b'{"src": "/data/../x", "dst": "/y"}', {}, 400),
        ("GET", "/v1/zones", None, {"Authorization": "Bearer x"}, 401),
        ("POST", "/v1/moves/check", b"[" * 60_000, {}, 400),
    )
    connections: list[http.client.HTTPConnection] = []
    try:
        for _ in range(_PARALLEL):
            connections.append(api.unix())
        ready = threading.Barrier(5)

        def work(part: int) -> None:
            mine = connections[part::5]
            method, target, body, headers, expected = kinds[part]
            ready.wait(60)
            for connection in mine:
                connection.request(method, target, body, {"Content-Type": "application/json", **headers})
            for connection in mine:
                answer = connection.getresponse()
                content = json.loads(answer.read())
                if answer.status != expected or (expected != 200 and "zones" in content):
                    wrong.append((method, target, answer.status))

        threads = [threading.Thread(target=work, args=(part,)) for part in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(250)
        assert not any(thread.is_alive() for thread in threads)
    finally:
        for connection in connections:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert wrong == []
    assert api.ask("GET", "/v1/health")[0] == 200
