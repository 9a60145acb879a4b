"""Brings a sandbox up, takes it down, tells how it is.

Rules: `up` may be repeated at any time and starts only what does not run; it returns when a file can be written and
the KMS answers, not when processes exist; when it fails it stops what it started and nothing else. `down` stops only
processes that this sandbox started. Data and keys stay until `down --delete`.
"""

from __future__ import annotations

import functools
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ringfence_bootstrap.sandbox import daemons, failover, processes, readiness
from ringfence_bootstrap.sandbox.artifacts import HADOOP_VERSION, OnProgress, ensure_jars, sandbox_jars, yarn_jars
from ringfence_bootstrap.sandbox.configuration import install_launchers, write_configuration
from ringfence_bootstrap.sandbox.namenode_disks import is_formatted, prepare_disks
from ringfence_bootstrap.sandbox.processes import Process
from ringfence_bootstrap.sandbox.readiness import Role
from ringfence_bootstrap.sandbox.requirements import find_java_home
from ringfence_bootstrap.sandbox.security import USERS, get_ticket, superuser_access
from ringfence_bootstrap.sandbox.state import (
    DEFAULT_TICKET_LIFETIME_S,
    KmsKind,
    Layout,
    State,
    check_directory,
    choose_ports,
    find_state,
    locked,
    port_is_free,
    save_state,
)
from ringfence_zones.errors import SandboxError

_READY_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 25.0  # The KMS drains for up to 20.
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Wanted:
    """What `up` was asked for.

    `kms` None means the kind that the sandbox has, ours for a new one. Kerberos, TLS, the second NameNode (`ha`),
    YARN and an agent once asked for stay with the sandbox. `ticket_lifetime_s` None means ten hours, or what the
    sandbox has. `kms_settings` is YAML for our KMS, added to kms.yaml of a new sandbox; "" for none, or for what the
    sandbox has.
    """

    kms: KmsKind | None = None
    agent: bool = False
    kerberos: bool = False
    tls: bool = False
    ha: bool = False
    yarn: bool = False
    ticket_lifetime_s: int | None = None
    kms_settings: str = ""

    def check(self) -> None:
        """Raises SandboxError for what no sandbox can be."""
        if self.kerberos and not self.tls:
            raise SandboxError(
                "a sandbox with Kerberos needs TLS too: a DataNode on an ordinary port proves itself by it",
                command="ringfence sandbox up --kerberos --tls",
            )
        if self.kerberos and self.yarn:
            raise SandboxError(
                "YARN with Kerberos needs Hadoop's setuid program (LinuxContainerExecutor), which no jar brings",
                hint="leave --yarn or --kerberos out",
            )
        if self.ticket_lifetime_s is not None and not self.kerberos:
            raise SandboxError(
                "without Kerberos there are no tickets to limit", hint="add --kerberos --tls, or leave the lifetime out"
            )
        if self.kms_settings and self.kms == "stock":
            raise SandboxError(
                "--kms-settings are for Ringfence's KMS, and Hadoop's own was asked for",
                hint="leave one of both options out",
            )

    def difference(self, state: State) -> str | None:
        """In which way the sandbox that is there is not what is wanted; None when it is."""
        if self.kms is not None and self.kms != state.kms:
            return f"has the {state.kms} KMS, and its zones' keys are in there"
        if (self.kerberos and not state.kerberos) or (self.tls and not state.tls):
            return "was made without Kerberos or TLS" if not state.tls else "was made with TLS but without Kerberos"
        if self.ha and not state.ha:
            return "was made with one NameNode"
        if self.yarn and not state.yarn:
            return "was made without YARN"
        if self.ticket_lifetime_s is not None and self.ticket_lifetime_s != state.ticket_lifetime_s:
            return f"has tickets of {state.ticket_lifetime_s} s"
        return None


@dataclass(frozen=True, slots=True)
class DaemonStatus:
    """One daemon as `status` shows it; `pid` is None when it does not run, `role` is that of one of two NameNodes."""

    name: str
    pid: int | None
    ports: tuple[int, ...]
    log: Path
    role: Role | None = None


class Sandbox:
    """One sandbox, known by its directory."""

    def __init__(self, directory: Path, environ: Mapping[str, str]) -> None:
        """`environ` is the caller's environment; it is read, never changed."""
        self.layout = Layout(directory.absolute())
        self._environ = environ

    def up(self, wanted: Wanted, say: Callable[[str], None], on_progress: OnProgress) -> State:
        """Starts whatever does not run and returns when a file can be written.

        Raises SandboxError naming what stands in the way: Java, Maven, MIT Kerberos, a port, the directory, a daemon
        that died, or that the sandbox which is there is of another kind.
        """
        wanted.check()
        check_directory(self.layout.directory)
        with locked(self.layout):
            state = find_state(self.layout)
            if state is not None:
                self._check_same(state, wanted)
            java_home = find_java_home(self._environ)
            jars = ensure_jars(sandbox_jars(), self._environ, say, on_progress)
            more = (
                ensure_jars(yarn_jars(), self._environ, say, on_progress)
                if wanted.yarn or (state is not None and state.yarn)
                else None
            )
            if state is None:
                state = self._make(wanted, str(java_home))
            state = replace(state, java_home=str(java_home), agent=state.agent or wanted.agent)
            install_launchers(self.layout, jars, more)
            save_state(self.layout, state)
            return self._start_missing(state, say)

    def down(self, *, delete: bool, say: Callable[[str], None]) -> None:
        """Stops this sandbox's daemons, and with `delete` removes its directory. Nothing running is fine."""
        if not self.layout.directory.exists():
            say(f"there is no sandbox in {self.layout.directory}")
            return
        check_directory(self.layout.directory)
        with locked(self.layout):
            state = find_state(self.layout)
            if state is None:
                say(f"there is no sandbox in {self.layout.directory}")
            else:
                self._stop(state.processes, say)
            if delete:
                shutil.rmtree(self.layout.directory)
                say(f"deleted {self.layout.directory}")

    def get_state(self) -> State:
        """The sandbox as it was left. Raises SandboxError when none was made here."""
        state = find_state(self.layout)
        if state is None:
            raise SandboxError(
                f"there is no sandbox in {self.layout.directory}",
                hint="make one",
                command=f"ringfence sandbox up --dir {self.layout.directory}",
            )
        return state

    def fail_over(self, say: Callable[[str], None], *, to: str | None, kill: bool) -> State:
        """Makes the other NameNode active: see `failover.fail_over`."""
        self.get_state()
        with locked(self.layout):
            return failover.fail_over(self.layout, self.get_state(), self._environ, say, to=to, kill=kill)

    def status(self) -> list[DaemonStatus]:
        """Every daemon this sandbox should have, in the order of starting."""
        state = self.get_state()
        roles = self._roles(state)
        return [
            DaemonStatus(name, self._pid(state, name), daemon.ports, self.layout.log(name), roles.get(name))
            for name, daemon in daemons.describe_daemons(self.layout, state, self._environ).items()
        ]

    def command_environment(self, user: str | None) -> dict[str, str]:
        """The environment for a Hadoop command of this sandbox, as `user` (`hdfs` by default).

        Raises SandboxError when the NameNode does not run, because Hadoop's clients would retry for minutes.
        """
        state = self.get_state()
        if not any(self._pid(state, namenode.daemon) for namenode in state.namenodes):
            raise SandboxError(
                "the sandbox's NameNode does not run",
                hint=f"its log is {self.layout.log(state.namenodes[0].daemon)}",
                command=f"ringfence sandbox up --dir {self.layout.directory}",
            )
        kept = {
            name: self._environ[name]
            for name in ("HADOOP_CLIENT_OPTS", "HADOOP_OPTS", "HADOOP_ROOT_LOGGER")
            if name in self._environ
        }
        ours = daemons.hadoop_environment(self.layout, state, self._environ)
        if state.kerberos:
            return ours | kept | get_ticket(self.layout, state, self._known_user(user or "hdfs"))
        return ours | kept | ({"HADOOP_USER_NAME": user} if user else {})

    def _known_user(self, user: str) -> str:
        if user not in USERS:
            raise SandboxError(
                f"{user} has no keytab in this sandbox", hint=f"its users with Kerberos are {', '.join(USERS)}"
            )
        return user

    def _make(self, wanted: Wanted, java_home: str) -> State:
        state = State(
            HADOOP_VERSION,
            wanted.kms or "ringfence",
            choose_ports(),
            java_home,
            wanted.agent,
            kerberos=wanted.kerberos,
            tls=wanted.tls,
            ha=wanted.ha,
            prepared=False,
            yarn=wanted.yarn,
            ticket_lifetime_s=wanted.ticket_lifetime_s or DEFAULT_TICKET_LIFETIME_S,
        )
        try:
            write_configuration(self.layout, state, wanted.kms_settings)
        except BaseException:
            self._remove_content()  # Half a sandbox could neither be used nor be taken for one.
            raise
        return state

    def _remove_content(self) -> None:
        for entry in self.layout.directory.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != "lock":
                entry.unlink()

    def _check_same(self, state: State, wanted: Wanted) -> None:
        other = wanted.difference(state)
        if other is None and wanted.kms_settings and not self._has_kms_settings(wanted.kms_settings):
            other = f"has other settings of its KMS, in {self.layout.kms_config}"
        if other is not None:
            raise SandboxError(
                f"the sandbox in {self.layout.directory} {other}",
                hint="give another --dir for that, or delete this one first, with its files and keys",
                command=f"ringfence sandbox down --delete --dir {self.layout.directory}",
            )
        if state.hadoop_version != HADOOP_VERSION:
            raise SandboxError(
                f"the sandbox in {self.layout.directory} was made with Hadoop {state.hadoop_version}, "
                f"this ringfence brings {HADOOP_VERSION}",
                hint="give another --dir, or delete this one first",
                command=f"ringfence sandbox down --delete --dir {self.layout.directory}",
            )

    def _has_kms_settings(self, settings: str) -> bool:
        """Whether kms.yaml is still as it was made with these settings."""
        config = self.layout.kms_config
        return config.exists() and config.read_text().endswith(settings)

    def _pid(self, state: State, name: str) -> int | None:
        process = state.processes.get(name)
        return process.pid if process is not None and processes.is_alive(process) else None

    def _start_missing(self, state: State, say: Callable[[str], None]) -> State:
        wanted = daemons.describe_daemons(self.layout, state, self._environ)
        missing = [daemon for name, daemon in wanted.items() if self._pid(state, name) is None]
        if not missing and state.prepared and self._has_active(state):
            say(f"the sandbox in {self.layout.directory} is running")
            return state
        self._check_ports(missing)
        started: dict[str, Process] = {}
        try:
            for daemon in missing:
                if daemon.name in {namenode.daemon for namenode in state.namenodes}:
                    self._prepare_disks(state, started, say)
                if daemon.name in ("historyserver", "agent"):
                    # They must find a cluster, not one that is being made.
                    state = self._wait_ready(state, started, say)
                say(f"starting the {daemon.name}")
                started[daemon.name] = processes.start(
                    daemon.command, daemon.environ, self.layout.directory, self.layout.log(daemon.name)
                )
                state = state.with_process(daemon.name, started[daemon.name])
                save_state(self.layout, state)
                if daemon.name == "kdc":
                    # The others log in at once.
                    self._wait(functools.partial(_waits_for, "KDC", state.ports.kdc), state, started, say)
            state = self._wait_ready(state, started, say)
            save_state(self.layout, state)
        except BaseException:
            self._stop(started, say)
            raise
        say(f"ready: a file can be written to {state.filesystem}")
        return state

    def _prepare_disks(self, state: State, started: Mapping[str, Process], say: Callable[[str], None]) -> None:
        if not is_formatted(self.layout, state):
            if state.ha:
                self._wait(functools.partial(_waits_for, "JournalNode", state.ports.journalnode), state, started, say)
            say("formatting the NameNode")
        prepare_disks(self.layout, state, self._environ)

    def _has_active(self, state: State) -> bool:
        return not state.ha or "active" in self._roles(state).values()

    def _roles(self, state: State) -> Mapping[str, Role | None]:
        """What each NameNode of a pair is, by the daemon's name; empty when nobody can be asked."""
        if not state.ha or (state.kerberos and self._pid(state, "kdc") is None):
            return {}
        with superuser_access(self.layout, state) as access:
            roles = failover.find_roles(access, state)
        return {namenode.daemon: roles[namenode.name] for namenode in state.namenodes}

    def _check_ports(self, missing: Iterable[daemons.Daemon]) -> None:
        for daemon in missing:
            for port in daemon.ports:
                if not port_is_free(port):
                    raise SandboxError(
                        f"port {port} of this sandbox's {daemon.name} is taken by another process",
                        hint=f"end that process (ss -ltnp 'sport = :{port}' names it), or make another sandbox",
                        command=f"ringfence sandbox up --dir {self.layout.directory}-2",
                    )

    def _wait_ready(self, state: State, started: Mapping[str, Process], say: Callable[[str], None]) -> State:
        with superuser_access(self.layout, state) as access:
            self._wait(lambda: readiness.kms_waits_for(access), state, started, say)
            if state.ha:
                self._wait(lambda: failover.pair_waits_for(access, state), state, started, say)
                state = failover.ensure_active(self.layout, state, self._environ, access)
            asking = failover.asking_active(access, state)
            self._wait(lambda: readiness.hdfs_waits_for(asking), state, started, say)
            if not state.prepared:
                _make_directories(asking)
                state = replace(state, prepared=True)
        if state.yarn:
            self._wait(lambda: readiness.yarn_waits_for(state.ports), state, started, say)
        if "historyserver" in started:
            self._wait(lambda: _waits_for("history server", state.ports.historyserver), state, started, say)
        if "agent" in started:
            self._wait(lambda: readiness.agent_waits_for(self.layout.agent_socket), state, started, say)
        return state

    def _wait(
        self,
        probe: Callable[[], str | None],
        state: State,
        started: Mapping[str, Process],
        say: Callable[[str], None],
    ) -> None:
        deadline = time.monotonic() + _READY_TIMEOUT_S
        said = None
        while (waiting := probe()) is not None:
            for name in started:
                if self._pid(state, name) is None:
                    raise self._died(name)
            if time.monotonic() > deadline:
                raise SandboxError(
                    f"after {_READY_TIMEOUT_S:.0f} s the sandbox still waits for {waiting}",
                    hint=f"the logs are in {self.layout.logs}",
                )
            if waiting != said:
                say(f"waiting for {waiting}")
                said = waiting
            time.sleep(_POLL_S)

    def _died(self, name: str) -> SandboxError:
        log = self.layout.log(name)
        return SandboxError(
            f"the {name} ended while starting: {processes.last_words(log)}", hint=f"its whole log is {log}"
        )

    def _stop(self, started: Mapping[str, Process], say: Callable[[str], None]) -> None:
        running = {name: process for name, process in started.items() if processes.is_alive(process)}
        if not running:
            say("nothing of this sandbox is running")
            return
        say(f"stopping the {', '.join(reversed(running))}")
        # A NodeManager ends its containers, and tells a ResourceManager that must still be there.
        first = [process for name, process in running.items() if name == "nodemanager"]
        killed = processes.stop(first, _STOP_TIMEOUT_S) + processes.stop(running.values(), _STOP_TIMEOUT_S)
        for name, process in running.items():
            if process in killed:
                say(f"the {name} did not stop within {_STOP_TIMEOUT_S:.0f} s and was killed")


def _waits_for(name: str, port: int) -> str | None:
    return None if readiness.listens(port) else f"the {name} to listen"


def _make_directories(access: readiness.Access) -> None:
    """What a cluster has before its first user comes: /tmp for all and a home for each."""
    readiness.make_directory(access, "/tmp", "hdfs", "1777")  # noqa: S108 - a path in HDFS
    for user in USERS:
        readiness.make_directory(access, f"/user/{user}", user, "755")
