"""The real `ringfence kms serve` as a process, and raw HTTP to each of its workers.

Which worker answers a connection is the kernel's choice. `RunningKms.every_worker` therefore opens connections until
the audit log shows that each worker slot has answered on one of them, and keeps those: a keep-alive connection stays
with its worker.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode
from xml.sax.saxutils import escape

from http_serving import Answer, RawClient

from ringfence_agent.kms.audit.reader import find_files

DEADLINE_S = 30.0
# What most tests want: everything open, as the stock kms-acls.xml has it.
OPEN_ACLS = {f"default.key.acl.{operation}": "*" for operation in ("MANAGEMENT", "READ", "GENERATE_EEK", "DECRYPT_EEK")}


def write_xml(path: Path, properties: Mapping[str, str]) -> None:
    """A Hadoop configuration file, put in place in one step."""
    rows = "".join(
        f"<property><name>{escape(name)}</name><value>{escape(value)}</value></property>"
        for name, value in properties.items()
    )
    draft = path.with_name(path.name + ".new")
    draft.write_text(f"<configuration>{rows}</configuration>")
    draft.replace(path)


@dataclass
class KmsPlace:
    """Where one KMS lives: Hadoop's three files and a key store."""

    directory: Path

    @classmethod
    def make(
        cls,
        directory: Path,
        acls: Mapping[str, str] = OPEN_ACLS,
        site: Mapping[str, str] | None = None,
        core: Mapping[str, str] | None = None,
    ) -> KmsPlace:
        place = cls(directory)
        directory.chmod(0o700)
        place.conf.mkdir()
        write_xml(place.conf / "kms-acls.xml", acls)
        write_xml(place.conf / "kms-site.xml", site or {})
        write_xml(place.conf / "core-site.xml", core or {})
        return place

    @property
    def conf(self) -> Path:
        return self.directory / "conf"

    @property
    def store(self) -> Path:
        return self.directory / "k.db"

    @property
    def audit_directory(self) -> Path:
        return self.directory / "k.db.audit.d"

    @property
    def admin_socket(self) -> Path:
        return self.directory / "k.db.sock"

    def command(self, *options: str) -> list[str]:
        return [
            *(str(Path(sys.executable).with_name("ringfence")), "kms", "serve"),
            *("--hadoop-conf", str(self.conf), "--listen", "localhost:0"),
            *("--keystore", f"sqlite:///{self.store}", *options),
        ]

    def audit_lines(self) -> list[dict[str, Any]]:
        """Every worker's records in time order, but for those of changes about to be made."""
        return [record for record in self.all_audit_lines() if record["outcome"] != "begun"]

    def all_audit_lines(self) -> list[dict[str, Any]]:
        files = find_files([self.audit_directory])
        return [record.fields for record in files.read()]

    @contextmanager
    def serving(
        self,
        workers: int,
        *options: str,
        client_context: ssl.SSLContext | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Iterator[RunningKms]:
        """The server, ready; stopped with SIGTERM at the end, and it must then exit 0.

        With options that make it speak TLS, `client_context` is what its clients connect with. `environment` is added
        to this process's own.
        """
        process = subprocess.Popen(
            self.command("--workers", str(workers), *options),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
        )
        kms = RunningKms(self, process, workers, client_context)
        try:
            kms.wait_until_ready()
            yield kms
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                kms.close()
                assert process.wait(DEADLINE_S) == 0
        finally:
            kms.close()
            if process.poll() is None:
                process.kill()
                process.wait()
            assert process.stdout is not None and process.stderr is not None
            process.stdout.close()
            process.stderr.close()


@dataclass
class RunningKms:
    """One server process with its workers."""

    place: KmsPlace
    process: subprocess.Popen[bytes]
    workers: int
    client_context: ssl.SSLContext | None = None
    ready_line: str = ""
    port: int = 0
    _by_slot: dict[int, RawClient] = field(default_factory=dict)

    def wait_until_ready(self) -> None:
        assert self.process.stdout is not None
        self.ready_line = self.process.stdout.readline().decode()
        if not self.ready_line.startswith("ready "):
            assert self.process.stderr is not None
            raise AssertionError(self.process.stderr.read().decode())
        self.port = int(self.ready_line.strip().removesuffix("/kms").rpartition(":")[2])

    def connect(self, context: ssl.SSLContext | None = None, session: ssl.SSLSession | None = None) -> RawClient:
        """Through the TLS handshake where a context is given, here or to `serving`."""
        client = self.connect_plain()
        context = context or self.client_context
        if context is not None:
            try:
                client.socket = context.wrap_socket(client.socket, server_hostname="localhost", session=session)
            except BaseException:
                client.socket.close()
                raise
        return client

    def connect_plain(self) -> RawClient:
        """Without TLS, whatever the server speaks."""
        return RawClient(socket.create_connection(("localhost", self.port), timeout=DEADLINE_S))

    def connect_admin(self) -> RawClient:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(DEADLINE_S)
        try:
            connection.connect(str(self.place.admin_socket))
        except BaseException:
            connection.close()
            raise
        return RawClient(connection)

    def every_worker(self) -> list[RawClient]:
        """One open connection to each worker, by slot."""
        deadline = time.monotonic() + DEADLINE_S
        probe = 0
        while len(self._by_slot) < self.workers:
            assert time.monotonic() < deadline, f"only workers {sorted(self._by_slot)} answered"
            client = self.connect()
            probe += 1
            slot = self.slot_of(client, f"probe-{os.getpid()}-{probe}")
            if slot in self._by_slot:
                client.socket.close()
            else:
                self._by_slot[slot] = client
        return [self._by_slot[slot] for slot in sorted(self._by_slot)]

    def slot_of(self, client: RawClient, user: str) -> int:
        """Which worker a connection belongs to, as the audit log has it."""
        assert call(client, "GET", "/ringfence/v1/status", user=user).status == 200
        return int(next(line["slot"] for line in reversed(self.place.audit_lines()) if line["user"] == user))

    def one_worker(self) -> RawClient:
        """The connection to the first worker."""
        return self.every_worker()[0]

    def close(self) -> None:
        for client in self._by_slot.values():
            client.socket.close()
        self._by_slot.clear()


def call(
    client: RawClient,
    method: str,
    path: str,
    body: object = None,
    *,
    user: str | None = "hdfs",
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One request and its answer. `path` goes out as it is; `body` as JSON, bytes as they are."""
    parameters = {**(query or {}), **({"user.name": user} if user is not None else {})}
    target = path + ("?" + urlencode(parameters, quote_via=quote) if parameters else "")
    payload = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body, indent=1).encode()
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if payload:
        lines += ["Content-Type: application/json", f"Content-Length: {len(payload)}"]
    client.send("\r\n".join([*lines, "", ""]).encode() + payload)
    return client.read_answer(to_head=method == "HEAD")


def json_of(answer: Answer) -> Any:
    """The JSON of an answer that says it is JSON."""
    content_type = answer.header("Content-Type")
    assert content_type is not None and content_type.startswith("application/json"), answer
    return json.loads(answer.body)


def remote_exception_of(answer: Answer) -> tuple[int, str, str]:
    """Status, javaClassName and message of an error, its shape checked."""
    error = json_of(answer)["RemoteException"]
    assert set(error) == {"message", "exception", "javaClassName"}
    assert error["exception"] == error["javaClassName"].rpartition(".")[2]
    return answer.status, error["javaClassName"], error["message"]
