"""Two key servers on one database or Vault, as two hosts run them: one port, two addresses, one store and root key.

Each is a process group of its own, so that `Instance.kill` ends supervisor and workers at once, as a dying host does.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from databases import DatabaseServer, database_of
from http_serving import Answer, RawClient
from kms_serving import DEADLINE_S, OPEN_ACLS, KmsPlace, call
from store_places import VaultStores

HOSTS = ("127.0.0.1", "127.0.0.2")
_POLL_S = 0.01


@dataclass
class Instance:
    """One of them. `options` are those of `kms serve` beyond what every test gives."""

    place: KmsPlace
    host: str
    port: int
    options: tuple[str, ...]
    process: subprocess.Popen[bytes] | None = None
    _clients: list[RawClient] = field(default_factory=list)

    def start(self) -> None:
        """Returns when it answers."""
        with (self.place.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.place.command(*self.options, "--listen", f"{self.host}:{self.port}"),
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        assert line.startswith("ready "), (self.place.directory / "log").read_text()[-4000:]

    def kill(self) -> None:
        """`kill -9` of supervisor and workers; nothing of it is left afterwards."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """As an operator stops it."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(DEADLINE_S)
            self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        process.wait(DEADLINE_S)
        assert process.stdout is not None
        process.stdout.close()
        for client in self._clients:
            client.socket.close()
        self._clients.clear()
        deadline = time.monotonic() + DEADLINE_S
        with suppress(ProcessLookupError, PermissionError):
            while True:
                os.killpg(process.pid, 0)
                assert time.monotonic() < deadline, f"processes of {self.host} outlive it"
                time.sleep(_POLL_S)

    def connect(self) -> RawClient:
        """A connection that ends with the instance."""
        client = RawClient(socket.create_connection((self.host, self.port), timeout=DEADLINE_S))
        self._clients.append(client)
        return client

    @property
    def client(self) -> RawClient:
        """One connection for all who do not mind which worker answers."""
        if not self._clients:
            self.connect()
        return self._clients[0]

    def ask(self, method: str, path: str, body: object = None, **more: Any) -> Answer:
        """One request over a connection of its own."""
        client = RawClient(socket.create_connection((self.host, self.port), timeout=DEADLINE_S))
        try:
            return call(client, method, path, body, **more)
        finally:
            client.socket.close()

    def ask_as_administrator(self, method: str, path: str, body: object = None) -> Answer:
        """Over its Unix socket."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with connection:
            connection.settimeout(DEADLINE_S)
            connection.connect(str(self.place.directory / "s"))
            return call(RawClient(connection), method, path, body, user=None)


@dataclass(frozen=True)
class Pair:
    """Both, and how Hadoop's client names them."""

    one: Instance
    other: Instance
    database: str

    @property
    def both(self) -> tuple[Instance, Instance]:
        return self.one, self.other

    @property
    def uri(self) -> str:
        return f"kms://http@{';'.join(HOSTS)}:{self.one.port}/kms"


@contextmanager
def running_pair(
    server: DatabaseServer | VaultStores,
    directory: Path,
    *,
    workers: int = 2,
    bound_s: float = 30.0,
    acls: Mapping[str, str] = OPEN_ACLS,
    ports: tuple[int, int] | None = None,
) -> Iterator[Pair]:
    """Both instances, ready. `ports` are where each finds the database server, when not at the server itself."""
    uri = server.new_database()
    port = _free_port()
    instances = []
    for number, host in enumerate(HOSTS):
        mine, access, settings = store_access(server, uri, server.port if ports is None else ports[number])
        place = _place(directory / host, acls, bound_s, settings)
        options = (
            *("--config", str(place.directory / "kms.yaml"), "--workers", str(workers)),
            *("--keystore", mine, "--root-key", str(directory / "root.key")),
            *(*access, *(["--init"] if number == 0 else [])),
        )
        instances.append(Instance(place, host, port, options))
    try:
        for instance in instances:
            instance.start()
        yield Pair(*instances, database_of(uri) if isinstance(server, DatabaseServer) else "")
    finally:
        for instance in instances:
            instance.stop()
    server.recycle(uri)


def store_access(server: DatabaseServer | VaultStores, uri: str, port: int) -> tuple[str, Sequence[str], str]:
    """How a key server gets at a store by way of a port: its URI, options, and what kms.yaml says."""
    if isinstance(server, VaultStores):
        return uri, (), server.kms_yaml(port)
    return uri.replace(f":{server.port}/", f":{port}/"), ("--keystore-password-file", str(server.password_file)), ""


def _place(directory: Path, acls: Mapping[str, str], bound_s: float, settings: str) -> KmsPlace:
    directory.mkdir()
    place = KmsPlace.make(directory, acls)
    (directory / "kms.yaml").write_text(
        f"revocation_bound: {bound_s:g}s\nadmin: {{socket: {directory}/s}}\n"
        f"audit: {{directory: {place.audit_directory}}}\n{settings}"
    )
    return place


def _free_port() -> int:
    """Free on every loopback address, as far as one can know."""
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        port: int = probe.getsockname()[1]
        return port
