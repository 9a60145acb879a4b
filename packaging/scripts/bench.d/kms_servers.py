"""The two key servers that are compared, each started from the same Hadoop files and its own defaults.

Both get one core. No heap size, worker count, cache or log setting is given to either unless an experiment is about
just that; the open access lists are Hadoop's shipped ones, so that both evaluate the same rules. What is different is
the program. A server started again in the same directory finds its keys.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from audit_lines import AuditLog
from kms_load import BenchError, KmsCaller
from machine import on_cpus, server_cpus

from ringfence_bootstrap.sandbox.certificates import CertificateAuthority

RINGFENCE, JAVA = "Ringfence", "Java KMS"
_READY_TIMEOUT_S = 120
_POLL_S = 0.01
_PROPERTY = "  <property><name>{}</name><value>{}</value></property>\n"
# kms-acls.xml as Hadoop ships it: every operation open (no entry), every key open.
_OPEN_ACLS = {
    f"default.key.acl.{operation}": "*" for operation in ("MANAGEMENT", "GENERATE_EEK", "DECRYPT_EEK", "READ")
}


@dataclass(frozen=True, slots=True)
class Server:
    """A running KMS: how to reach it, whose CPU time counts, and its audit log when it is ours to check.

    `ready_s` is how long it took from the start of the command to the first answer.
    """

    name: str
    kms_url: str
    pid: int
    audit: AuditLog | None
    ready_s: float
    ca: Path | None

    def caller(self, user: str) -> KmsCaller:
        """A client of this server, signed in as `user`."""
        return KmsCaller(self.kms_url, user, self.ca)


class Ringfence:
    """Our server with an SQLite key store in its own `directory`.

    `config` is a kms.yaml, for what Hadoop lacks; `environment` is added to this process's own.
    """

    def __init__(
        self,
        program: Path,
        directory: Path,
        *,
        tls: bool = False,
        cache: bool = True,
        name: str = RINGFENCE,
        config: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.directory = directory
        self._config = config
        self._environment = environment or {}
        self._program = program
        self._tls = _Tls(directory) if tls else None
        self._settings = {} if cache else {"hadoop.kms.cache.enable": "false"}

    @contextmanager
    def running(self, *, cpus: Sequence[int] | None = None, workers: int | None = None) -> Iterator[Server]:
        """Serves until the end of the block. One core, and so one worker, unless told otherwise."""
        port = _free_port()
        _write_conf(self.directory, self._settings)
        argv = [str(self._program), "kms", "serve", f"--hadoop-conf={self.directory}", f"--listen=localhost:{port}"]
        argv.append(f"--keystore=sqlite:///{self.directory}/keys.db")
        if self._config is not None:
            argv += [f"--config={self._config}", "--init"]
        if workers is not None:
            argv.append(f"--workers={workers}")
        if self._tls is not None:
            argv += self._tls.options()
        audit = AuditLog(self.directory / "keys.db.audit.d")
        with _running(
            self.name, argv, {**os.environ, **self._environment}, self.directory, _url(port, self._tls), cpus
        ) as (pid, s):
            yield Server(self.name, _url(port, self._tls), pid, audit, s, _ca(self._tls))


class Java:
    """Hadoop's own server with a JCEKS key store."""

    name = JAVA

    def __init__(
        self,
        hadoop_home: Path,
        log4j: Path,
        directory: Path,
        environ: Mapping[str, str],
        *,
        tls: bool = False,
        cache: bool = True,
    ) -> None:
        self._hadoop_home = hadoop_home
        self._log4j = log4j
        self._directory = directory
        self._environ = environ
        self._tls = _Tls(directory) if tls else None
        self._cache = cache

    @contextmanager
    def running(self) -> Iterator[Server]:
        """Serves until the end of the block."""
        port = _free_port()
        settings = {
            "hadoop.kms.http.host": "localhost",
            "hadoop.kms.http.port": str(port),
            "hadoop.kms.key.provider.uri": f"jceks://file@{self._directory}/kms.keystore",
            "hadoop.kms.ssl.enabled": str(self._tls is not None).lower(),
            "hadoop.kms.cache.enable": str(self._cache).lower(),
        }
        _write_conf(self._directory, settings)
        if self._tls is not None:
            self._tls.write_ssl_server(Path(self._environ["JAVA_HOME"]))
        (self._directory / "log4j.properties").write_bytes(self._log4j.read_bytes())
        environment = dict(self._environ) | {
            "HADOOP_CONF_DIR": str(self._directory),
            "HADOOP_LOG_DIR": str(self._directory),
            "HADOOP_OPTS": "-Dringfence.audit.file=kms-audit.log",
        }
        argv = [str(self._hadoop_home / "bin" / "hadoop"), "kms"]
        with _running(self.name, argv, environment, self._directory, _url(port, self._tls), None) as (pid, ready_s):
            yield Server(self.name, _url(port, self._tls), pid, None, ready_s, _ca(self._tls))


class _Tls:
    """A private authority and an RSA certificate of the size that baselines use, for either server."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, exist_ok=True)
        self.authority = CertificateAuthority.make(directory / "tls")
        self.files = self.authority.issue_server(algorithm="rsa")

    def options(self) -> list[str]:
        return [f"--tls-cert={self.files.certificate}", f"--tls-key={self.files.key}"]

    def write_ssl_server(self, java_home: Path) -> None:
        store, password = self._directory / "server.jks", secrets.token_urlsafe(12)
        self.authority.make_key_store(self.files, store, password, java_home)
        names = {"location": str(store), "password": password, "keypassword": password, "type": "jks"}
        _write_xml(
            self._directory / "ssl-server.xml", {f"ssl.server.keystore.{name}": text for name, text in names.items()}
        )


def _ca(tls: _Tls | None) -> Path | None:
    return tls.authority.certificate if tls is not None else None


def _write_conf(directory: Path, kms_site: Mapping[str, str]) -> None:
    directory.mkdir(mode=0o700, exist_ok=True)
    for file_name, settings in (("core-site.xml", {}), ("kms-site.xml", kms_site), ("kms-acls.xml", _OPEN_ACLS)):
        _write_xml(directory / file_name, settings)


def _write_xml(path: Path, settings: Mapping[str, str]) -> None:
    body = "".join(_PROPERTY.format(name, escape(value)) for name, value in settings.items())
    path.touch(mode=0o600)
    path.write_text(f"<configuration>\n{body}</configuration>\n")


@contextmanager
def _running(
    name: str, argv: list[str], environ: dict[str, str], directory: Path, url: str, cpus: Sequence[int] | None
) -> Iterator[tuple[int, float]]:
    log = directory / "output.log"
    started = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            on_cpus(cpus or server_cpus(), argv), env=environ, cwd=directory, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        _wait_ready(name, process, url, directory, log)
        yield process.pid, time.monotonic() - started
    finally:
        process.terminate()
        try:
            process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(name: str, process: subprocess.Popen[bytes], url: str, directory: Path, log: Path) -> None:
    ca = directory / "tls" / "ca.pem"
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            caller = KmsCaller(url, "hdfs", ca if url.startswith("https") else None)
        except BenchError:
            time.sleep(_POLL_S)
            continue
        # The first answer that needs the key store; the sign-in alone would not show that it is open.
        caller.call("GET", "/v1/keys/names")
        caller.close()
        return
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-10:])
    raise BenchError(f"{name} did not become ready:\n{tail}")


def _url(port: int, tls: _Tls | None) -> str:
    return f"{'http' if tls is None else 'https'}://localhost:{port}/kms"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
