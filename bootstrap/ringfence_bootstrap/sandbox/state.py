"""What a sandbox remembers between commands: one directory, one `state.json` in it.

    DIR/
      state.json      kind of KMS, ports, processes
      conf/           HADOOP_CONF_DIR of the clients, the NameNode and the DataNode
      kms-conf/       Hadoop's configuration files of the KMS
      kms.yaml        settings of our KMS
      hadoop/         HADOOP_HOME: bin/hadoop, bin/hdfs, the jars
      name/ data/     the disks of the NameNode and the DataNode
      name2/ journal/ with two NameNodes: the disks of the second one and of the JournalNode
      yarn/           with YARN: what containers hold and print
      kdc/            with Kerberos: the realm, its keytabs (`sandbox.kdc`)
      tickets/        with Kerberos: one ticket cache for each user
      tls/            with TLS: certificate authority, certificate, Java's stores of both (`sandbox.certificates`)
      logs/           one file for each daemon, and the audit logs

Rules: a process is known by pid, start time and boot, so a number that the system gave to somebody else is never
taken for ours. Ports are chosen once and kept, because the KMS's port stands in configuration files and the
NameNode's in every path that a user wrote down. A directory that holds something else is left alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import secrets
import socket
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from ringfence_bootstrap.sandbox.processes import Process
from ringfence_zones.durable_file import replace_file
from ringfence_zones.errors import SandboxError

SCHEMA = 2
# 1 had one NameNode and no YARN; what is new since then has a default.
_READABLE_SCHEMAS = (1, SCHEMA)
DEFAULT_TICKET_LIFETIME_S = 36000
NAMESERVICE = "ringfence"
KmsKind = Literal["ringfence", "stock"]
# Below Linux's ephemeral range (32768 and up), so that no outgoing connection sits on a port of a stopped sandbox.
_LOWEST_PORT, _HIGHEST_PORT = 20000, 32000
# A Unix socket's path has 108 bytes with its closing zero; the longest name that a sandbox puts behind its directory.
_LONGEST_DIRECTORY = 107 - len("/agent.sock")


@dataclass(frozen=True, slots=True)
class Ports:
    """Loopback TCP ports, chosen when the sandbox is made."""

    kms: int
    namenode: int
    namenode_http: int
    datanode: int
    datanode_http: int
    datanode_ipc: int
    # A sandbox of before these were chosen has no Kerberos, one NameNode, and no YARN.
    kdc: int = 0
    namenode2: int = 0
    namenode2_http: int = 0
    journalnode: int = 0
    journalnode_http: int = 0
    resourcemanager: int = 0
    resourcemanager_scheduler: int = 0
    resourcemanager_tracker: int = 0
    resourcemanager_admin: int = 0
    resourcemanager_http: int = 0
    nodemanager: int = 0
    nodemanager_localizer: int = 0
    nodemanager_http: int = 0
    shuffle: int = 0
    historyserver: int = 0
    historyserver_admin: int = 0
    historyserver_http: int = 0


@dataclass(frozen=True, slots=True)
class NameNode:
    """One NameNode. `name` is what Hadoop calls it in a pair (`nn1`), `disk` a directory of the sandbox."""

    name: str
    daemon: str
    port: int
    http_port: int
    disk: str


@dataclass(frozen=True, slots=True)
class State:
    """The content of `state.json`. `processes` holds what was started last, alive or not.

    `ticket_lifetime_s` bounds every Kerberos ticket, those of the daemons included. With `kerberos`, `namenode_http`
    and `datanode_http` of the ports speak HTTPS; with `tls` the KMS does. With `ha` there are two NameNodes, and
    `active` names the one that was made active last. `prepared` says that HDFS has the directories of its users.
    """

    hadoop_version: str
    kms: KmsKind
    ports: Ports
    java_home: str
    agent: bool = False
    kerberos: bool = False
    tls: bool = False
    ticket_lifetime_s: int = DEFAULT_TICKET_LIFETIME_S
    ha: bool = False
    yarn: bool = False
    active: str = "nn1"
    prepared: bool = True
    processes: Mapping[str, Process] = field(default_factory=dict)

    @property
    def namenodes(self) -> tuple[NameNode, ...]:
        """One, or the two of a pair."""
        if not self.ha:
            return (NameNode("nn1", "namenode", self.ports.namenode, self.ports.namenode_http, "name"),)
        return (
            NameNode("nn1", "namenode-nn1", self.ports.namenode, self.ports.namenode_http, "name"),
            NameNode("nn2", "namenode-nn2", self.ports.namenode2, self.ports.namenode2_http, "name2"),
        )

    @property
    def filesystem(self) -> str:
        """`fs.defaultFS`: a pair is known by its nameservice, one NameNode by its address."""
        return f"hdfs://{NAMESERVICE}" if self.ha else f"hdfs://localhost:{self.ports.namenode}"

    def with_process(self, name: str, process: Process) -> State:
        """A copy that knows one more process."""
        return replace(self, processes={**self.processes, name: process})

    def to_json(self) -> dict[str, Any]:
        """What is written; `schema` tells later versions what they read."""
        return {"schema": SCHEMA, **asdict(self)}


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of a sandbox."""

    directory: Path

    @property
    def state_file(self) -> Path:
        return self.directory / "state.json"

    @property
    def conf(self) -> Path:
        return self.directory / "conf"

    @property
    def kms_conf(self) -> Path:
        return self.directory / "kms-conf"

    @property
    def kms_config(self) -> Path:
        """The settings of our KMS; with `--kms stock` there are none."""
        return self.directory / "kms.yaml"

    @property
    def hadoop_home(self) -> Path:
        return self.directory / "hadoop"

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    @property
    def agent_socket(self) -> Path:
        return self.directory / "agent.sock"

    @property
    def kms_socket(self) -> Path:
        return self.directory / "kms.sock"

    @property
    def kdc(self) -> Path:
        return self.directory / "kdc"

    @property
    def tls(self) -> Path:
        return self.directory / "tls"

    @property
    def authority(self) -> Path:
        """The certificate that clients trust (PEM)."""
        return self.tls / "ca.pem"

    def keytab(self, name: str) -> Path:
        """The keytab of a user, of `services` (NameNode, DataNode) or of `kms`."""
        return self.kdc / "keytabs" / f"{name}.keytab"

    def ticket_cache(self, user: str) -> Path:
        """The file of a user's Kerberos tickets."""
        return self.directory / "tickets" / user

    def log(self, name: str) -> Path:
        """The file that holds what the daemon `name` printed since it was started last."""
        return self.logs / f"{name}.log"

    def namenode_audit_log(self, namenode: NameNode) -> Path:
        """What a NameNode's clients asked of it."""
        return self.logs / f"hdfs-audit{namenode.daemon.removeprefix('namenode')}.log"


def default_directory(environ: Mapping[str, str]) -> Path:
    """`${XDG_STATE_HOME:-~/.local/state}/ringfence/sandbox`; a relative XDG_STATE_HOME is ignored."""
    base = Path(environ.get("XDG_STATE_HOME") or "")
    return (base if base.is_absolute() else Path.home() / ".local/state") / "ringfence/sandbox"


def check_directory(directory: Path) -> None:
    """Raises SandboxError when `directory` cannot hold a sandbox or already holds something else."""
    text = str(directory)
    if any(character.isspace() or character in ",%:$" for character in text):
        raise SandboxError(
            f"the directory {text!r} has a blank or one of , % : $ in it",
            hint="Hadoop's configuration splits or expands there; give --dir another directory",
        )
    if len(text.encode()) > _LONGEST_DIRECTORY:
        raise SandboxError(
            f"the directory {text} is too long for the Unix sockets in it (at most {_LONGEST_DIRECTORY} bytes)",
            hint="give --dir a shorter directory",
        )
    if directory.exists() and not directory.is_dir():
        raise SandboxError(f"{text} is not a directory", hint="give --dir a directory, or a name that is free")
    if directory.is_dir() and not (directory / "state.json").exists() and _holds_others(directory):
        raise SandboxError(
            f"{text} holds files but no sandbox, so it is left alone",
            hint="give --dir an empty directory, or one that a sandbox made",
        )


def _holds_others(directory: Path) -> bool:
    # The lock is made before anything else, also by commands that then find no sandbox.
    return any(entry.name != "lock" for entry in directory.iterdir())


def find_state(layout: Layout) -> State | None:
    """The sandbox in this directory, None when there is none.

    Raises SandboxError when `state.json` was written by another version or damaged.
    """
    try:
        content = json.loads(layout.state_file.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _stale(layout, f"cannot be read: {error}") from error
    if not isinstance(content, dict) or content.pop("schema", None) not in _READABLE_SCHEMAS:
        raise _stale(layout, "was written by another version of ringfence")
    try:
        ports = Ports(**content.pop("ports"))
        processes = {name: Process(**process) for name, process in content.pop("processes").items()}
        return State(ports=ports, processes=processes, **content)
    except (KeyError, TypeError, AttributeError) as error:
        raise _stale(layout, f"is damaged: {error}") from error


def _stale(layout: Layout, why: str) -> SandboxError:
    return SandboxError(
        f"{layout.state_file} {why}",
        hint="daemons that it may still describe are not touched; end them yourself, delete the directory and begin "
        "again",
        command=f"ringfence sandbox up --dir {layout.directory}.new",
    )


def save_state(layout: Layout, state: State) -> None:
    """Replaces `state.json` in one step."""
    replace_file(layout.state_file, (json.dumps(state.to_json(), indent=2) + "\n").encode(), 0o644)


@contextlib.contextmanager
def locked(layout: Layout) -> Iterator[None]:
    """One command at a time changes a sandbox; a second one waits."""
    layout.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (layout.directory / "lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def choose_ports() -> Ports:
    """Free loopback ports, all of them held at once so that no two are the same."""
    with contextlib.ExitStack() as held:
        return Ports(*(_hold_free_port(held) for _ in fields(Ports)))


def _hold_free_port(held: contextlib.ExitStack) -> int:
    for _ in range(200):
        port = _LOWEST_PORT + secrets.randbelow(_HIGHEST_PORT - _LOWEST_PORT)
        candidate = held.enter_context(socket.socket())
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError:
            continue
        return port
    raise SandboxError(
        f"no free loopback port between {_LOWEST_PORT} and {_HIGHEST_PORT}", hint="stop what listens there"
    )


def port_is_free(port: int) -> bool:
    """Whether a daemon could listen there now; connections of an earlier one that linger do not count."""
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
