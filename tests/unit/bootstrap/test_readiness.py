"""What `up` says it waits for, from daemons that answer in every wrong way."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ringfence_bootstrap.sandbox import readiness
from ringfence_bootstrap.sandbox.readiness import Access
from ringfence_bootstrap.sandbox.state import Ports
from ringfence_zones.errors import AuthenticationError, SandboxError

Answer = tuple[int, dict[str, str], bytes]


class Daemon(ThreadingHTTPServer):
    """Answers each method with what the test put there, and remembers what was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: Daemon

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append(f"{self.command} {self.path}")
        status, headers, body = self.server.answers.get(self.command, (404, {}, b""))
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_DELETE = _answer  # noqa: N815 - the names that http.server calls

    def log_message(self, *_: object) -> None:
        """Nothing on the screen."""


@pytest.fixture
def namenode() -> Iterator[Daemon]:
    yield from serve()


@pytest.fixture
def datanode() -> Iterator[Daemon]:
    yield from serve()


def serve() -> Iterator[Daemon]:
    with Daemon() as daemon:
        thread = threading.Thread(target=daemon.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield daemon
        daemon.shutdown()
        thread.join()


def unused_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port


@pytest.fixture
def ports(namenode: Daemon, datanode: Daemon) -> Ports:
    port = namenode.server_port
    return Ports(port, unused_port(), port, unused_port(), datanode.server_port, unused_port())


def remote(message: str) -> bytes:
    return json.dumps({"RemoteException": {"message": message}}).encode()


def redirect(datanode: Daemon) -> Answer:
    return 307, {"Location": f"http://localhost:{datanode.server_port}/webhdfs/v1/f?op=CREATE"}, b""


def test_a_written_file_is_ready_and_deleted_again(namenode: Daemon, datanode: Daemon, ports: Ports) -> None:
    namenode.answers = {"PUT": redirect(datanode), "DELETE": (200, {}, b"{}")}
    datanode.answers = {"PUT": (201, {}, b"")}
    assert readiness.hdfs_waits_for(Access(ports)) is None
    assert datanode.asked == ["PUT /webhdfs/v1/f?op=CREATE"]
    created, deleted = namenode.asked
    assert created.split("?")[0].replace("PUT", "DELETE") == deleted.split("?")[0]


def test_the_namenode_is_quoted_by_its_first_line(namenode: Daemon, ports: Ports) -> None:
    namenode.answers = {"PUT": (403, {}, remote("Name node is in safe mode.\nmore"))}
    assert readiness.hdfs_waits_for(Access(ports)) == "the NameNode to take a file (Name node is in safe mode.)"


def test_an_answer_without_a_message_is_named_by_its_status(namenode: Daemon, ports: Ports) -> None:
    namenode.answers = {"PUT": (500, {}, b"<html>")}
    assert readiness.hdfs_waits_for(Access(ports)) == "the NameNode to take a file (it answers 500)"


def test_a_datanode_that_refuses_is_named(namenode: Daemon, datanode: Daemon, ports: Ports) -> None:
    namenode.answers = {"PUT": redirect(datanode), "DELETE": (200, {}, b"{}")}
    datanode.answers = {"PUT": (503, {}, b"")}
    assert readiness.hdfs_waits_for(Access(ports)) == "the DataNode to take a file (it answers 503)"


def test_daemons_that_do_not_listen_are_waited_for(ports: Ports) -> None:
    nobody = replace(ports, kms=unused_port(), namenode_http=unused_port())
    assert readiness.kms_waits_for(Access(nobody)) == "the KMS to listen"
    assert readiness.hdfs_waits_for(Access(nobody)) == "the NameNode and the DataNode to take a file"


def test_a_kms_is_ready_when_it_lists_its_keys(namenode: Daemon, ports: Ports) -> None:
    namenode.answers = {"GET": (500, {}, b"")}
    assert readiness.kms_waits_for(Access(ports)) == "the KMS to list its keys (it answers 500)"
    namenode.answers = {"GET": (200, {}, b"[]")}
    assert readiness.kms_waits_for(Access(ports)) is None
    assert namenode.asked[-1] == "GET /kms/v1/keys/names?user.name=hdfs"


def test_proxies_of_the_environment_are_not_followed(
    namenode: Daemon, ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://localhost:{unused_port()}")
    namenode.answers = {"GET": (200, {}, b"[]")}
    assert readiness.kms_waits_for(Access(ports)) is None


def test_a_directory_that_cannot_be_made_says_why(namenode: Daemon, ports: Ports) -> None:
    namenode.answers = {"PUT": (403, {}, remote("Permission denied"))}
    with pytest.raises(SandboxError, match="the NameNode did not make /tmp: Permission denied"):
        readiness.make_directory(Access(ports), "/tmp", "hdfs", "1777")


def test_with_kerberos_each_request_brings_a_token_of_its_own_and_names_nobody(namenode: Daemon, ports: Ports) -> None:
    namenode.answers = {"GET": (200, {}, b"[]")}
    tokens = iter(["Negotiate one", "Negotiate two"])
    access = Access(ports, authorize=lambda: next(tokens))
    assert readiness.kms_waits_for(access) is None
    assert readiness.kms_waits_for(access) is None
    assert namenode.asked[-1] == "GET /kms/v1/keys/names"
    assert list(tokens) == []


def test_a_refusal_of_kerberos_is_told(ports: Ports) -> None:
    def refuse() -> str:
        raise AuthenticationError("no ticket")

    assert readiness.kms_waits_for(Access(ports, authorize=refuse)) == "the KMS to be known to Kerberos (no ticket)"


def test_an_agent_without_a_socket_is_waited_for(tmp_path: Path) -> None:
    assert readiness.agent_waits_for(tmp_path / "agent.sock") == "the agent to listen"


@pytest.mark.parametrize(
    ("answer", "role"),
    [
        ((200, {}, b"{}"), "active"),
        (
            (403, {}, json.dumps({"RemoteException": {"exception": "StandbyException", "message": "m"}}).encode()),
            "standby",
        ),
        (
            (403, {}, json.dumps({"RemoteException": {"exception": "RetriableException", "message": "m"}}).encode()),
            None,
        ),
        ((403, {}, b"<html>"), None),
        ((500, {}, b""), None),
    ],
)
def test_a_namenode_says_itself_what_it_is(
    namenode: Daemon, datanode: Daemon, ports: Ports, answer: Answer, role: str | None
) -> None:
    datanode.answers = {"GET": answer}
    assert readiness.find_role(Access(ports), datanode.server_port) == role
    assert datanode.asked == ["GET /webhdfs/v1/?op=GETFILESTATUS&user.name=hdfs"]
    assert namenode.asked == []


def test_a_namenode_that_does_not_listen_has_no_role(ports: Ports) -> None:
    assert readiness.find_role(Access(ports), unused_port()) is None


def test_of_two_namenodes_the_one_named_is_asked(namenode: Daemon, datanode: Daemon, ports: Ports) -> None:
    datanode.answers = {"PUT": (403, {}, remote("no"))}
    access = Access(ports, namenode_http=datanode.server_port)
    assert readiness.hdfs_waits_for(access) == "the NameNode to take a file (no)"
    assert namenode.asked == []


def test_yarn_is_ready_when_a_node_is_there(namenode: Daemon, ports: Ports) -> None:
    ports = replace(ports, resourcemanager_http=namenode.server_port)
    for body, waiting in (
        (b'{"beans": [{"NumActiveNMs": 0}]}', "the NodeManager to register"),
        (b'{"beans": []}', "the ResourceManager to answer"),
        (b"<html>", "the ResourceManager to answer"),
        (b'{"beans": [{"NumActiveNMs": 1}]}', None),
    ):
        namenode.answers = {"GET": (200, {}, body)}
        assert readiness.yarn_waits_for(ports) == waiting
    gone = replace(ports, resourcemanager_http=unused_port())
    assert readiness.yarn_waits_for(gone) == "the ResourceManager to listen"
