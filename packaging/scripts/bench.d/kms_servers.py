"""The two key servers that are compared, each started from the same three Hadoop files and its own defaults.

No heap size, worker count, cache or log setting is given to either; the open access lists are Hadoop's shipped ones,
so that both evaluate the same rules. What is different is the program.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from audit_lines import AuditLog
from kms_load import BenchError
from throughput import Server

RINGFENCE, JAVA = "Ringfence", "Java KMS"
_READY_TIMEOUT_S = 120
_PROPERTY = "  <property><name>{}</name><value>{}</value></property>\n"
# kms-acls.xml as Hadoop ships it: every operation open (no entry), every key open.
_OPEN_ACLS = {
    f"default.key.acl.{operation}": "*" for operation in ("MANAGEMENT", "GENERATE_EEK", "DECRYPT_EEK", "READ")
}


@contextmanager
def ringfence_kms(program: Path, scratch: Path) -> Iterator[Server]:
    """Our server, with a new SQLite key store."""
    directory, port = scratch / "ringfence-kms", _free_port()
    _write_conf(directory, {})
    argv = [str(program), "kms", "serve", f"--hadoop-conf={directory}", f"--listen=localhost:{port}"]
    argv.append(f"--keystore=sqlite:///{directory}/keys.db")
    with _running(RINGFENCE, argv, dict(os.environ), directory, port) as pid:
        yield Server(RINGFENCE, _url(port), pid, AuditLog(directory / "keys.db.audit.jsonl"))


@contextmanager
def java_kms(hadoop_home: Path, log4j: Path, scratch: Path, environ: Mapping[str, str]) -> Iterator[Server]:
    """Hadoop's own server, with a new JCEKS key store."""
    directory, port = scratch / "java-kms", _free_port()
    settings = {
        "hadoop.kms.http.host": "localhost",
        "hadoop.kms.http.port": str(port),
        "hadoop.kms.key.provider.uri": f"jceks://file@{directory}/kms.keystore",
    }
    _write_conf(directory, settings)
    (directory / "log4j.properties").write_bytes(log4j.read_bytes())
    environment = dict(environ) | {"HADOOP_CONF_DIR": str(directory), "HADOOP_LOG_DIR": str(directory)}
    environment["HADOOP_OPTS"] = "-Dringfence.audit.file=kms-audit.log"
    with _running(JAVA, [str(hadoop_home / "bin" / "hadoop"), "kms"], environment, directory, port) as pid:
        yield Server(JAVA, _url(port), pid, None)


def _write_conf(directory: Path, kms_site: Mapping[str, str]) -> None:
    directory.mkdir(mode=0o700)
    for file_name, settings in (("core-site.xml", {}), ("kms-site.xml", kms_site), ("kms-acls.xml", _OPEN_ACLS)):
        body = "".join(_PROPERTY.format(name, value) for name, value in settings.items())
        (directory / file_name).write_text(f"<configuration>\n{body}</configuration>\n")


@contextmanager
def _running(name: str, argv: list[str], environ: dict[str, str], directory: Path, port: int) -> Iterator[int]:
    log = directory / "output.log"
    with log.open("wb") as output:
        process = subprocess.Popen(argv, env=environ, cwd=directory, stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait_ready(name, process, port, log)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(name: str, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{_url(port)}/v1/keys/names?user.name=hdfs", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-10:])
    raise BenchError(f"{name} did not become ready:\n{tail}")


def _url(port: int) -> str:
    return f"http://localhost:{port}/kms"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
