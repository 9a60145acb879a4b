"""The client is one file that an old Python on another node can run."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import ringfence_agent.client as client

SOURCE = Path(client.__file__).read_text(encoding="utf-8")


def test_it_is_valid_for_python_3_7() -> None:
    ast.parse(SOURCE, feature_version=(3, 7))


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
