"""The client is one file that an old Python on another node can run."""

from __future__ import annotations

import ast
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_api import ServedApi, serving_api

import ringfence_agent.client as client

SOURCE = Path(client.__file__).read_text(encoding="utf-8")


@pytest.fixture
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedApi]:
    with serving_api(ServedApi(tmp_path_factory.mktemp("a"))) as running:
        yield running


def test_it_is_valid_for_python_3_7() -> None:
    ast.parse(SOURCE, feature_version=(3, 7))


def _old_pythons() -> list[Path]:
    """Interpreters older than ours that are on this machine, by their names on the path or where pyenv keeps them."""
    named = (shutil.which(f"python3.{minor}") for minor in range(7, 11))
    kept = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    there = [Path(path).resolve() for path in named if path is not None]
    for minor in range(7, 11):
        there += sorted(kept.glob(f"3.{minor}.*/bin/python"))
    return [python for python in dict.fromkeys(there) if _is_one(python)]


def _is_one(python: Path) -> bool:
    """Whether it runs: a name on the path may be a shim for what is not installed."""
    program = "import sys; print(sys.version_info < (3, 11))"
    told = subprocess.run([python, "-I", "-c", program], capture_output=True, text=True, check=False)
    return told.stdout == "True\n"


def test_it_runs_on_older_pythons(api: ServedApi, tmp_path: Path) -> None:
    found = _old_pythons()
    if not found:
        pytest.skip(
            "there is no older Python on this machine: packaging/scripts/check has looked at syntax and library"
        )
    shutil.copy(client.__file__, tmp_path)
    program = (
        "import sys, typing\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import client\n"
        "for member in vars(client.AgentClient).values():\n"
        "    if callable(member):\n"
        "        typing.get_type_hints(member)\n"
        "agent = client.AgentClient(sys.argv[2], timeout_s=60)\n"
        "print(agent.check_move('/data/pii/a', '/data/pii/b').rename, agent.places('/data/pii/a').zone)\n"
        "try:\n"
        "    agent.zone_of('/a/../b')\n"
        "except client.AgentError as error:\n"
        "    print(error.status, error.type)\n"
    )
    for python in found:
        told = subprocess.run(
            [python, "-I", "-B", "-c", program, tmp_path, api.path], capture_output=True, text=True, check=False
        )
        assert (told.returncode, told.stdout) == (0, "True /data/pii\n400 bad-path\n"), (python, told.stderr)


def test_it_imports_the_standard_library_alone() -> None:
    imported = set()
    for node in ast.walk(ast.parse(SOURCE)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add((node.module or "").partition(".")[0])
    assert imported <= sys.stdlib_module_names


def test_the_socket_is_the_environments_then_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RINGFENCE_AGENT_SOCKET", "/x.sock")
    assert client.AgentClient().socket_path == "/x.sock"
    assert client.AgentClient("/y.sock").socket_path == "/y.sock"
    monkeypatch.delenv("RINGFENCE_AGENT_SOCKET")
    assert client.AgentClient().socket_path == "/run/ringfence/agent.sock"


_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\n"
_OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        _OK + b"\r\n" + b"[" * 200_000,
        _OK + b'\r\n{"x": ' + b'{"x": ' * 200_000,
        _OK + b'\r\n{"n": ' + b"9" * 5000 + b"}",
        _OK + b"\r\n{}",
        _OK + b'\r\n{"transfers": {"a": 1}}',
        _OK + b'\r\n{"transfers": ["a"]}',
        _NOT_FOUND + b'Retry-After: \xb2\r\n\r\n{"title": "t"}',
        _NOT_FOUND + b"Retry-After: " + b"9" * 5000 + b'\r\n\r\n{"title": "t"}',
        _NOT_FOUND + b'\r\n{"title": [1], "detail": {"a": 1}, "hint": 7, "command": [], "rule": {}}',
        b"HTTP/1.1 302 Found\r\nLocation: http://localhost:1/\r\n\r\n{}",
        b"\0" * 1000,
    ],
)
def test_whatever_answers_in_the_agents_place_gets_an_error_of_ours(tmp_path: Path, answer: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()

        def serve() -> None:
            with listening.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(client.AgentError) as caught:
            client.AgentClient(str(tmp_path / "s")).transfers()
        thread.join(30)
    told = caught.value
    assert all(isinstance(each, str | None) for each in (told.message, told.hint, told.command, told.rule))
