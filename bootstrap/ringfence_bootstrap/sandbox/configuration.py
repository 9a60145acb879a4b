"""Writes what the sandbox's daemons and clients read: Hadoop's files, the launchers, our clients' file.

Rules: configuration is written once, when the sandbox is made, and belongs to the user and to the agent (which edits
`core-site.xml`) from then on; ports never change, so nothing needs to be written again. The launchers are renewed by
each `up`, because they are code. Templates lie beside this file and are filled by `string.Template`.
"""

from __future__ import annotations

import importlib.resources
import os
import secrets
import string
from pathlib import Path
from xml.sax.saxutils import escape

from ringfence_bootstrap.sandbox.state import Layout, Ports, State

_LAUNCHERS = ("hadoop", "hdfs")


def kms_uri(ports: Ports) -> str:
    """The KMS as Hadoop writes it. The host is `localhost`, as a Kerberos service name wants it."""
    return f"kms://http@localhost:{ports.kms}/kms"


def environment(layout: Layout, state: State) -> dict[str, str]:
    """What `up` and `env` export: enough for our commands, Hadoop's own and any client in the same shell."""
    return {
        "HADOOP_CONF_DIR": str(layout.conf),
        "HADOOP_HOME": str(layout.hadoop_home),
        "HADOOP_USER_NAME": "hdfs",
        "JAVA_HOME": state.java_home,
        "RINGFENCE_AGENT_SOCKET": str(layout.agent_socket),
        "RINGFENCE_KMS_URI": kms_uri(state.ports),
    }


def write_configuration(layout: Layout, state: State) -> None:
    """Every configuration file of a new sandbox."""
    for directory in (layout.conf, layout.kms_conf, layout.logs, layout.directory / "tmp"):
        directory.mkdir(exist_ok=True)
    (layout.directory / "agent").mkdir(exist_ok=True, mode=0o700)
    values = {
        "state": str(layout.directory),
        "kms_uri": kms_uri(state.ports),
        "kms_port": str(state.ports.kms),
        "namenode_port": str(state.ports.namenode),
        "namenode_http_port": str(state.ports.namenode_http),
        "datanode_port": str(state.ports.datanode),
        "datanode_http_port": str(state.ports.datanode_http),
        "datanode_ipc_port": str(state.ports.datanode_ipc),
    }
    for directory, file_name, template in (
        (layout.conf, "core-site.xml", "core-site.xml"),
        (layout.conf, "hdfs-site.xml", "hdfs-site.xml"),
        (layout.kms_conf, "core-site.xml", "core-site.xml"),
        (layout.kms_conf, "kms-site.xml", f"kms-site-{state.kms}.xml"),
        (layout.kms_conf, "kms-acls.xml", f"kms-acls-{state.kms}.xml"),
    ):
        text = string.Template(_packaged(template)).substitute({name: escape(value) for name, value in values.items()})
        (directory / file_name).write_text(text)
    (layout.conf / "log4j.properties").write_text(_packaged("log4j.properties"))
    (layout.conf / "audit-log4j.properties").write_text(_packaged("audit-log4j.properties"))
    (layout.directory / "agent.yaml").write_text(
        f"hadoop_conf: {layout.conf}\n"
        f"namenode_conf_dir: {layout.conf}\n"
        f"socket: {layout.agent_socket}\n"
        f"state_dir: {layout.directory}/agent\n"
        "user: hdfs\n"
        "interval: 1s\n"
    )
    if state.kms == "ringfence":
        (layout.conf / "ringfence-client.yaml").write_text(f"kms_admin_socket: {layout.kms_socket}\n")
    else:
        _write_secret(layout.kms_conf / "kms-keystore.password", secrets.token_urlsafe(24))


def install_launchers(layout: Layout, jars: Path) -> None:
    """HADOOP_HOME: `bin/hadoop`, `bin/hdfs`, the configuration where Hadoop has it, and the jars."""
    for directory in ("bin", "libexec", "etc", "share"):
        (layout.hadoop_home / directory).mkdir(parents=True, exist_ok=True)
    for name in _LAUNCHERS:
        path = layout.hadoop_home / "bin" / name
        path.write_text(_packaged(f"bin/{name}"))
        path.chmod(0o755)
    (layout.hadoop_home / "libexec/hadoop-functions").write_text(_packaged("bin/hadoop-functions"))
    _link(layout.hadoop_home / "etc/hadoop", layout.conf)
    _link(layout.hadoop_home / "share/hadoop", jars)


def _packaged(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(name).read_text()


def _link(path: Path, target: Path) -> None:
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(path)


def _write_secret(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
