"""The daemons of a sandbox: what each runs, which ports it needs, what it waits for when it starts."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ringfence_bootstrap.sandbox.configuration import environment
from ringfence_bootstrap.sandbox.security import realm_of
from ringfence_bootstrap.sandbox.state import Layout, NameNode, State
from ringfence_zones.errors import SandboxError

# Hadoop's and Kerberos's variables of the caller's shell would reach the daemons too; a sandbox is its own.
_FOREIGN = ("HADOOP_", "HDFS_", "RINGFENCE_", "KRB5")
_HEAP = "-Xms64m -Xmx512m"
_PAIR_HEAP = "-Xms48m -Xmx256m"
_SMALL_HEAP = "-Xms24m -Xmx96m"


@dataclass(frozen=True, slots=True)
class Daemon:
    """How to start one daemon. `ports` are those it listens on."""

    name: str
    command: tuple[str, ...]
    environ: Mapping[str, str]
    ports: tuple[int, ...]


def hadoop_environment(layout: Layout, state: State, caller: Mapping[str, str]) -> dict[str, str]:
    """The environment of a client of this sandbox: the caller's without Hadoop's variables, then ours."""
    kept = {name: value for name, value in caller.items() if not name.startswith(_FOREIGN)}
    return kept | environment(layout, state)


def _daemon_environment(layout: Layout, state: State, caller: Mapping[str, str]) -> dict[str, str]:
    """As a client's, without its tickets: a daemon has a keytab."""
    environ = hadoop_environment(layout, state, caller) | {"HADOOP_USER_NAME": "hdfs"}
    environ.pop("KRB5CCNAME", None)
    return environ


def describe_daemons(layout: Layout, state: State, caller: Mapping[str, str]) -> dict[str, Daemon]:
    """Every daemon that this sandbox should have, in the order of starting: the KDC and the KMS first."""
    kms = _stock_kms if state.kms == "stock" else _ringfence_kms
    daemons = [_kdc(layout, state, caller)] if state.kerberos else []
    daemons.append(kms(layout, state, caller))
    if state.ha:
        daemons.append(_journalnode(layout, state, caller))
    daemons += [_namenode(layout, state, caller, namenode) for namenode in state.namenodes]
    daemons.append(_datanode(layout, state, caller))
    if state.yarn:
        daemons += [yarn(layout, state, caller) for yarn in (_resourcemanager, _nodemanager, _historyserver)]
    if state.agent:
        daemons.append(_agent(layout, state, caller))
    return {daemon.name: daemon for daemon in daemons}


def format_command(layout: Layout, state: State) -> tuple[str, ...]:
    """Makes an empty file system image; refuses to touch one that is there.

    Of a pair it is the first NameNode's, and the JournalNode's edits are begun anew, whatever an attempt left there.
    """
    command = (str(layout.hadoop_home / "bin/hdfs"), "namenode")
    if state.ha:
        return (*command, *_identity(state.namenodes[0]), "-format", "-force")
    return (*command, "-format", "-nonInteractive")


def _identity(namenode: NameNode) -> tuple[str, ...]:
    # Both read one configuration, and both are on this machine: nothing else tells them apart.
    return (f"-Ddfs.ha.namenode.id={namenode.name}",)


def java_environment(
    layout: Layout, state: State, caller: Mapping[str, str], options: str = "", *, heap: str = _HEAP
) -> dict[str, str]:
    """The environment of a Java daemon; `options` are words for its command line."""
    return _daemon_environment(layout, state, caller) | {
        "HADOOP_LOG_DIR": str(layout.logs),
        "HADOOP_DAEMON_OPTS": f"{heap} -Djava.io.tmpdir={layout.directory / 'tmp'} {options}".strip(),
    }


def _audit_options(layout: Layout, file_name: str) -> str:
    return f"-Dlog4j.configuration=file:{layout.conf}/audit-log4j.properties -Dringfence.audit.file={file_name}"


def _kdc(layout: Layout, state: State, caller: Mapping[str, str]) -> Daemon:
    realm = realm_of(layout, state)
    return Daemon(
        name="kdc",
        command=realm.server_command,
        environ=_daemon_environment(layout, state, caller) | realm.server_environment,
        ports=(state.ports.kdc,),
    )


def _namenode(layout: Layout, state: State, caller: Mapping[str, str], namenode: NameNode) -> Daemon:
    audit = _audit_options(layout, layout.namenode_audit_log(namenode).name)
    return Daemon(
        name=namenode.daemon,
        command=(str(layout.hadoop_home / "bin/hdfs"), "namenode", *(_identity(namenode) if state.ha else ())),
        environ=java_environment(layout, state, caller, audit, heap=_PAIR_HEAP if state.ha else _HEAP),
        ports=(namenode.port, namenode.http_port),
    )


def _journalnode(layout: Layout, state: State, caller: Mapping[str, str]) -> Daemon:
    return Daemon(
        name="journalnode",
        command=(str(layout.hadoop_home / "bin/hdfs"), "journalnode"),
        environ=java_environment(layout, state, caller, heap=_SMALL_HEAP),
        ports=(state.ports.journalnode, state.ports.journalnode_http),
    )


def _datanode(layout: Layout, state: State, caller: Mapping[str, str]) -> Daemon:
    return Daemon(
        name="datanode",
        command=(str(layout.hadoop_home / "bin/hdfs"), "datanode"),
        environ=java_environment(layout, state, caller),
        ports=(state.ports.datanode, state.ports.datanode_http, state.ports.datanode_ipc),
    )


def _resourcemanager(layout: Layout, state: State, caller: Mapping[str, str]) -> Daemon:
    ports = state.ports
    return Daemon(
        name="resourcemanager",
        command=(str(layout.hadoop_home / "bin/yarn"), "resourcemanager"),
        environ=java_environment(layout, state, caller, heap=_PAIR_HEAP),
        ports=(
            ports.resourcemanager,
            ports.resourcemanager_scheduler,
            ports.resourcemanager_tracker,
            ports.resourcemanager_admin,
            ports.resourcemanager_http,
        ),
    )


def _nodemanager(layout: Layout, state: State, caller: Mapping[str, str]) -> Daemon:
    ports = state.ports
    return Daemon(
        name="nodemanager",
        command=(str(layout.hadoop_home / "bin/yarn"), "nodemanager"),
        environ=java_environment(layout, state, caller, heap=_PAIR_HEAP),
        ports=(ports.nodemanager, ports.nodemanager_localizer, ports.nodemanager_http, ports.shuffle),
    )


def _historyserver(layout: Layout, state: State, caller: Mapping[str, str]) -> Daemon:
    # A client that finds a job's master gone asks here how the job ended, and fails when nobody answers.
    ports = state.ports
    return Daemon(
        name="historyserver",
        command=(str(layout.hadoop_home / "bin/mapred"), "historyserver"),
        environ=java_environment(layout, state, caller, heap=_SMALL_HEAP),
        ports=(ports.historyserver, ports.historyserver_admin, ports.historyserver_http),
    )


def _stock_kms(layout: Layout, state: State, caller: Mapping[str, str]) -> Daemon:
    environ = java_environment(layout, state, caller, _audit_options(layout, "kms-audit.log"))
    return Daemon(
        name="kms",
        command=(str(layout.hadoop_home / "bin/hadoop"), "kms"),
        environ=environ | {"HADOOP_CONF_DIR": str(layout.kms_conf)},
        ports=(state.ports.kms,),
    )


def _ringfence_kms(layout: Layout, state: State, caller: Mapping[str, str]) -> Daemon:
    return Daemon(
        name="kms",
        command=(*_ringfence(), "kms", "serve", f"--config={layout.kms_config}"),
        environ=_daemon_environment(layout, state, caller),
        ports=(state.ports.kms,),
    )


def _agent(layout: Layout, state: State, caller: Mapping[str, str]) -> Daemon:
    return Daemon(
        name="agent",
        command=(*_ringfence(), "agent", "serve", f"--config={layout.directory}/agent.yaml"),
        environ=_daemon_environment(layout, state, caller),
        ports=(),
    )


def _ringfence() -> tuple[str, ...]:
    """This installation's own command, whatever else the PATH holds."""
    installed = Path(sysconfig.get_path("scripts")) / "ringfence"
    found = str(installed) if installed.exists() else shutil.which("ringfence")
    if found is None:
        raise SandboxError(
            f"the ringfence command of {sys.prefix} is not installed", hint="install the package with pip"
        )
    return (found,)
