"""Starts `java_process` for a client version and a user, and gives its records."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from differences import Steps
from key_servers import JAVA_MODULES, KeyServer, krb5_option
from kms_serving import write_xml

from ringfence_bootstrap.sandbox.artifacts import JarList, ensure_jars, parse_jar_list, sandbox_jars
from ringfence_bootstrap.sandbox.requirements import find_java_home

SANDBOX_VERSION = "3.4.2"
OTHER_VERSIONS = ("3.3.6", "3.5.0")
_TIMEOUT_S = 280
_LISTS = Path(__file__).with_name("clients")


def jars_of(version: str) -> JarList:
    """The pinned class path of a client version."""
    if version == SANDBOX_VERSION:
        return sandbox_jars()
    return parse_jar_list(f"hadoop-client-{version}", (_LISTS / f"{version}.txt").read_text())


def run(
    version: str,
    module: str,
    servers: Sequence[KeyServer],
    *,
    user: str | None = None,
    conf: Mapping[str, str] | None = None,
    krb5_conf: Path | None = None,
    ssl_client: Mapping[str, str] | None = None,
) -> dict[str, dict[str, Steps]]:
    """Case -> server name -> steps. `user` is the claimed one of `simple` authentication.

    With Kerberos `conf` names a principal and its keytab (`login.principal`, `login.keytab`).
    """
    jars = ensure_jars(jars_of(version), os.environ, print, lambda _done, _total: None)
    with tempfile.TemporaryDirectory(prefix="rf-java-") as scratch:
        (Path(scratch) / "log4j.properties").write_text("log4j.rootLogger=OFF\n")
        if ssl_client is not None:
            write_xml(Path(scratch) / "ssl-client.xml", ssl_client)
        output = Path(scratch) / "records.json"
        job: dict[str, Any] = {
            "jvm": str(find_java_home(os.environ) / "lib/server/libjvm.so"),
            "options": [*JAVA_MODULES, "-Xmx256m", "-XX:TieredStopAtLevel=1", *krb5_option(krb5_conf)],
            "classpath": [scratch, *map(str, sorted(jars.glob("*.jar")))],
            "module": module,
            "servers": [asdict(server) for server in servers],
            "conf": dict(conf or {}),
            "tag": version.replace(".", ""),
            "output": str(output),
        }
        claimed = {} if user is None else {"HADOOP_USER_NAME": user}
        paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("java_process.py"))],
            input=json.dumps(job),
            env={**os.environ, **claimed, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        assert output.exists(), f"the Java client {version} failed:\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
        records: dict[str, dict[str, Steps]] = json.loads(output.read_text())
        return records


def prefetch() -> None:
    """Fetches the class paths of the versions that the sandbox does not bring."""
    for version in OTHER_VERSIONS:
        print(ensure_jars(jars_of(version), os.environ, print, lambda _done, _total: None))


if __name__ == "__main__":
    prefetch()
