"""Two key servers from the same Hadoop files: Hadoop's own (3.4.2, KMSWebServer, a JCEKS store) and ours.

Both read the same core-site.xml, kms-site.xml and kms-acls.xml; the port and the key provider are all that differs.
The JCEKS store hashes its password 10,000 instead of 200,000 times, because each create writes every key anew.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kms_serving import KmsPlace, write_xml

from ringfence_bootstrap.sandbox.artifacts import ensure_jars, sandbox_jars
from ringfence_bootstrap.sandbox.requirements import find_java_home

_READY_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 20.0
# Hadoop 3.4 on Java 17 and 21, as the sandbox's launchers have it.
JAVA_MODULES = (
    *(
        f"--add-opens=java.base/{package}=ALL-UNNAMED"
        for package in ("java.io", "java.lang", "java.lang.reflect", "java.net", "java.util", "java.util.concurrent")
    ),
    "--add-exports=java.security.jgss/sun.security.krb5=ALL-UNNAMED",
)
_LOG4J = """log4j.rootLogger=WARN,console
log4j.appender.console=org.apache.log4j.ConsoleAppender
log4j.appender.console.target=System.err
log4j.appender.console.layout=org.apache.log4j.PatternLayout
log4j.appender.console.layout.ConversionPattern=%d{ISO8601} %p %c{2}: %m%n
"""


@dataclass(frozen=True)
class KeyServer:
    """A running server. `store` is how its messages name the key store, `scheme` http or https."""

    name: str
    port: int
    store: str
    scheme: str = "http"

    @property
    def uri(self) -> str:
        """What core-site.xml names as the key provider."""
        return f"kms://{self.scheme}@localhost:{self.port}/kms"


@dataclass(frozen=True)
class Settings:
    """What both servers are configured with; `ssl` is ssl-server.xml, and makes them speak TLS."""

    acls: Mapping[str, str]
    site: Mapping[str, str]
    core: Mapping[str, str]
    ssl: Mapping[str, str] | None = None
    krb5_conf: Path | None = None

    @property
    def scheme(self) -> str:
        return "http" if self.ssl is None else "https"

    @property
    def environ(self) -> dict[str, str]:
        """What their processes need beyond this one's environment."""
        return {} if self.krb5_conf is None else {"KRB5_CONFIG": str(self.krb5_conf)}


@contextmanager
def stock_server(directory: Path, settings: Settings) -> Iterator[KeyServer]:
    """Hadoop's own key server, ready."""
    port = free_port()
    store = f"jceks://file@{directory}/kms.keystore"
    site = {
        "hadoop.kms.http.host": "localhost",
        "hadoop.kms.http.port": str(port),
        "hadoop.kms.key.provider.uri": store,
        "hadoop.security.keystore.java-keystore-provider.password-file": "keystore.password",
    }
    write_xml(directory / "core-site.xml", settings.core)
    write_xml(directory / "kms-site.xml", {**settings.site, **site})
    write_xml(directory / "kms-acls.xml", settings.acls)
    if settings.ssl is not None:
        write_xml(directory / "ssl-server.xml", settings.ssl)
    (directory / "keystore.password").write_text("conformance")
    (directory / "log4j.properties").write_text(_LOG4J)
    jars = ensure_jars(sandbox_jars(), os.environ, print, lambda _done, _total: None)
    command = [
        str(find_java_home(os.environ) / "bin/java"),
        *JAVA_MODULES,
        *("-Xmx256m", "-XX:TieredStopAtLevel=1", "-Djdk.jceks.iterationCount=10000"),
        *(
            f"-Dkms.config.dir={directory}",
            f"-Dkms.log.dir={directory}",
            f"-Dlog4j.configuration=file:{directory}/log4j.properties",
        ),
        *krb5_option(settings.krb5_conf),
        *("-cp", f"{directory}:{jars}/*", "org.apache.hadoop.crypto.key.kms.server.KMSWebServer"),
    ]
    log = directory / "output.log"
    with log.open("wb") as output:
        environ = {**os.environ, **settings.environ}
        process = subprocess.Popen(command, env=environ, cwd=directory, stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait_until_listening(process, port, log)
        yield KeyServer("stock", port, store, settings.scheme)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def our_server(directory: Path, settings: Settings) -> Iterator[KeyServer]:
    """`ringfence kms serve`, ready."""
    place = KmsPlace.make(directory, settings.acls, settings.site, settings.core)
    if settings.ssl is not None:
        write_xml(place.conf / "ssl-server.xml", settings.ssl)
    with place.serving(1, environment=settings.environ) as running:
        yield KeyServer("ours", running.port, f"sqlite:///{place.store}", settings.scheme)


def krb5_option(krb5_conf: Path | None) -> list[str]:
    """Java's own name for KRB5_CONFIG."""
    return [] if krb5_conf is None else [f"-Djava.security.krb5.conf={krb5_conf}"]


def free_port() -> int:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        return int(chosen.getsockname()[1])


def _wait_until_listening(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("Hadoop's key server did not start:\n" + log.read_text(errors="replace")[-4000:])
