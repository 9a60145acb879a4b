"""Vault doubles for tests: `running_vault()` starts one as a process, the fixture `vault` gives each test its own.

    with running_vault(nodes=3, tls=certificates.server) as vault:
        vault.call("POST", "sys/mounts/transit", {"type": "transit"})
        with vault.fault("hang", path="/decrypt/"):
            ...

`vault_session` is one for all tests that only mount what is theirs. What a fault can be is listed in
`vault_double.faults`. Orders travel over a control socket; the API knows nothing of them.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from ringfence_bootstrap.sandbox.certificates import CertificateFiles

_DEADLINE_S = 20.0


@dataclass(frozen=True, slots=True)
class VaultAnswer:
    """Status, headers (names in lower case) and the parsed body; `{}` without one."""

    status: int
    headers: dict[str, str]
    body: Any

    @property
    def data(self) -> dict[str, Any]:
        """The envelope's `data`. Fails where there is none, showing the errors alone."""
        assert self.status < 300, (self.status, self.errors)
        return dict(self.body["data"])

    @property
    def errors(self) -> list[str]:
        return list((self.body or {}).get("errors") or [])


@dataclass(slots=True)
class VaultDouble:
    """One running double. `addresses[0]` is the active node until it steps down."""

    addresses: list[str]
    root_token: str = field(repr=False)
    unseal_key: str = field(repr=False)
    ca_file: Path | None
    unix_socket: Path | None
    process: subprocess.Popen[str]
    control_socket: Path

    @property
    def address(self) -> str:
        return self.addresses[0]

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        node: int = 0,
        headers: dict[str, str] | None = None,
    ) -> VaultAnswer:
        """One request to `/v1/<path>` on a connection of its own; as root unless a token is given."""
        sent = {"X-Vault-Token": self.root_token if token is None else token, **(headers or {})}
        return send(self.addresses[node], method, path, body, sent, self.ca_file)

    def order(self, order: str, **arguments: Any) -> Any:
        """One order over the control socket."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_DEADLINE_S)
            connection.connect(str(self.control_socket))
            connection.sendall(json.dumps({"order": order, **arguments}).encode() + b"\n")
            with connection.makefile("rb") as lines:
                answer = json.loads(lines.readline())
        assert "error" not in answer, answer["error"]
        return answer["result"]

    @contextmanager
    def fault(self, action: str, **order: Any) -> Iterator[int]:
        """A fault (see `vault_double.faults`) while the block runs; gives the rule's number."""
        rule = int(self.order("fault", action=action, **order))
        try:
            yield rule
        finally:
            self.order("clear", rule=rule)

    def met(self, rule: int) -> int:
        """How many requests a fault's rule met so far."""
        return int(self.order("met", rule=rule))

    def seal(self, node: int = 0) -> None:
        self.order("seal", node=node)

    def unseal(self, node: int = 0) -> None:
        self.order("unseal", node=node)

    @contextmanager
    def sealed(self) -> Iterator[None]:
        """While the block runs, the first node is sealed."""
        self.seal()
        try:
            yield
        finally:
            self.unseal()

    @contextmanager
    def frozen_standbys(self) -> Iterator[None]:
        """While the block runs (at most 30 s), standbys see nothing of what changes."""
        self.order("freeze_standbys", value=True)
        try:
            yield
        finally:
            self.order("freeze_standbys", value=False)

    def step_down(self) -> None:
        """Another unsealed node becomes the active one."""
        self.order("step_down")

    def advance(self, seconds: float) -> None:
        """Moves the server's clock forward: tokens, secret ids and lockouts expire."""
        self.order("advance", seconds=seconds)

    def requests(self, path: str = "") -> list[dict[str, Any]]:
        """What arrived since `forget_requests`, with `path` in its path: see `vault_double.recording.Seen`."""
        return [seen for seen in self.order("requests") if path in seen["path"]]

    def forget_requests(self) -> None:
        self.order("forget_requests")


def send(
    address: str, method: str, path: str, body: Any, headers: dict[str, str], ca_file: Path | None = None
) -> VaultAnswer:
    """One request to a server at `address`, of any make. Never follows a redirect."""
    parts = urlsplit(address)
    assert parts.hostname is not None
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
        connection = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=_DEADLINE_S, context=context)
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=_DEADLINE_S)
    try:
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection.request(method, f"/v1/{path}", content, headers)
        response = connection.getresponse()
        raw = response.read()
    finally:
        connection.close()
    parsed = json.loads(raw) if raw.strip() else {}
    return VaultAnswer(response.status, {name.lower(): value for name, value in response.getheaders()}, parsed)


@contextmanager
def running_vault(
    *,
    flavour: str = "openbao",
    nodes: int = 1,
    lag_s: float = 0.1,
    tls: CertificateFiles | None = None,
    ca_file: Path | None = None,
    with_unix_socket: bool = False,
) -> Iterator[VaultDouble]:
    """A double in a process of its own, unsealed, with nothing mounted, until the block ends.

    Node 0 is active, the others are standbys that lag by `lag_s`. With `tls`, all speak TLS with that certificate.
    """
    # A short name: a Unix socket's path is short.
    with tempfile.TemporaryDirectory(prefix="rf-vault-") as name:
        directory = Path(name)
        unix_socket = directory / "agent" if with_unix_socket else None
        settings = {
            "flavour": flavour,
            "nodes": nodes,
            "lag_s": lag_s,
            "tls": None if tls is None else {"certificate": str(tls.certificate), "key": str(tls.key)},
            "unix_socket": None if unix_socket is None else str(unix_socket),
            "control": str(directory / "control"),
        }
        process = _start(settings)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, f"the double did not start; it ended with {process.wait(_DEADLINE_S)}"
            yield VaultDouble(
                **json.loads(line),
                ca_file=ca_file,
                unix_socket=unix_socket,
                process=process,
                control_socket=directory / "control",
            )
        finally:
            process.kill()
            process.communicate(timeout=_DEADLINE_S)


def _start(settings: dict[str, Any]) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.Popen(
        [sys.executable, "-m", "vault_double"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(settings) + "\n")
    process.stdin.flush()
    return process


@pytest.fixture
def vault() -> Iterator[VaultDouble]:
    """A double of the test's own, with one node."""
    with running_vault() as running:
        yield running


@pytest.fixture(scope="session")
def vault_session() -> Iterator[VaultDouble]:
    """One double for the session: mount under a name of your own, and order no faults on it."""
    with running_vault() as running:
        yield running
