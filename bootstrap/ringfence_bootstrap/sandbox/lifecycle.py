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

from ringfence_bootstrap.sandbox import daemons, processes, readiness
from ringfence_bootstrap.sandbox.artifacts import HADOOP_VERSION, OnProgress, ensure_jars, sandbox_jars
from ringfence_bootstrap.sandbox.configuration import install_launchers, write_configuration
from ringfence_bootstrap.sandbox.processes import Process
from ringfence_bootstrap.sandbox.requirements import find_java_home
from ringfence_bootstrap.sandbox.security import USERS, get_ticket, superuser_access
from ringfence_bootstrap.sandbox.state import (
    DEFAULT_TICKET_LIFETIME_S,
    KmsKind,
    Layout,
    Ports,
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
_LAST_LINES = 3


@dataclass(frozen=True, slots=True)
class Wanted:
    """What `up` was asked for.

    `kms` None means the kind that the sandbox has, ours for a new one. Kerberos, TLS and an agent once asked for stay
    with the sandbox. `ticket_lifetime_s` None means ten hours, or what the sandbox has. `kms_settings` is YAML for our
    KMS, added to kms.yaml of a new sandbox; "" for none, or for what the sandbox has.
    """

    kms: KmsKind | None = None
    agent: bool = False
    kerberos: bool = False
    tls: bool = False
    ticket_lifetime_s: int | None = None
    kms_settings: str = ""

    def check(self) -> None:
        """Raises SandboxError for what no sandbox can be."""
        if self.kerberos and not self.tls:
            raise SandboxError(
                "a sandbox with Kerberos needs TLS too: a DataNode on an ordinary port proves itself by it",
                command="ringfence sandbox up --kerberos --tls",
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
        if self.ticket_lifetime_s is not None and self.ticket_lifetime_s != state.ticket_lifetime_s:
            return f"has tickets of {state.ticket_lifetime_s} s"
        return None


@dataclass(frozen=True, slots=True)
class DaemonStatus:
    """One daemon as `status` shows it; `pid` is None when it does not run."""

    name: str
    pid: int | None
    ports: tuple[int, ...]
    log: Path


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
            if state is None:
                state = self._make(wanted, str(java_home))
            state = replace(state, java_home=str(java_home), agent=state.agent or wanted.agent)
            install_launchers(self.layout, jars)
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

    def status(self) -> list[DaemonStatus]:
        """Every daemon this sandbox should have, in the order of starting."""
        state = self.get_state()
        return [
            DaemonStatus(name, self._pid(state, name), daemon.ports, self.layout.log(name))
            for name, daemon in daemons.describe_daemons(self.layout, state, self._environ).items()
        ]

    def command_environment(self, user: str | None) -> dict[str, str]:
        """The environment for a Hadoop command of this sandbox, as `user` (`hdfs` by default).

        Raises SandboxError when the NameNode does not run, because Hadoop's clients would retry for minutes.
        """
        state = self.get_state()
        if self._pid(state, "namenode") is None:
            raise SandboxError(
                "the sandbox's NameNode does not run",
                hint=f"its log is {self.layout.log('namenode')}",
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
        if not missing:
            say(f"the sandbox in {self.layout.directory} is running")
            return state
        self._check_ports(missing)
        fresh = not self._is_formatted()
        started: dict[str, Process] = {}
        try:
            for daemon in missing:
                if daemon.name == "namenode" and fresh:
                    say("formatting the NameNode")
                    self._format(state)
                if daemon.name == "agent":
                    # It must find a cluster, not one that is being made.
                    self._wait_ready(state, started, say, make_directories=fresh)
                say(f"starting the {daemon.name}")
                started[daemon.name] = processes.start(
                    daemon.command, daemon.environ, self.layout.directory, self.layout.log(daemon.name)
                )
                state = state.with_process(daemon.name, started[daemon.name])
                save_state(self.layout, state)
                if daemon.name == "kdc":
                    self._wait(
                        functools.partial(_kdc_waits_for, state.ports), state, started, say
                    )  # The others log in at once.
            self._wait_ready(state, started, say, make_directories=fresh)
        except BaseException:
            self._stop(started, say)
            raise
        say(f"ready: a file can be written to hdfs://localhost:{state.ports.namenode}")
        return state

    def _check_ports(self, missing: Iterable[daemons.Daemon]) -> None:
        for daemon in missing:
            for port in daemon.ports:
                if not port_is_free(port):
                    raise SandboxError(
                        f"port {port} of this sandbox's {daemon.name} is taken by another process",
                        hint=f"end that process (ss -ltnp 'sport = :{port}' names it), or make another sandbox",
                        command=f"ringfence sandbox up --dir {self.layout.directory}-2",
                    )

    def _is_formatted(self) -> bool:
        # The image is what formatting writes last; without one there is nothing that could be lost.
        return any((self.layout.directory / "name/current").glob("fsimage_*"))

    def _format(self, state: State) -> None:
        shutil.rmtree(self.layout.directory / "name", ignore_errors=True)  # An attempt that was cut off.
        environ = daemons.java_environment(self.layout, state, self._environ, "-XX:TieredStopAtLevel=1")
        log = self.layout.log("namenode-format")
        process = processes.start(daemons.format_command(self.layout), environ, self.layout.directory, log)
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while processes.is_alive(process):
            if time.monotonic() > deadline:
                processes.stop([process], _STOP_TIMEOUT_S)
                break
            time.sleep(_POLL_S)
        if not self._is_formatted():
            raise SandboxError(f"the NameNode's disk was not formatted: {_last_words(log)}", hint=f"see {log}")

    def _wait_ready(
        self, state: State, started: Mapping[str, Process], say: Callable[[str], None], *, make_directories: bool
    ) -> None:
        with superuser_access(self.layout, state) as access:
            self._wait(lambda: readiness.kms_waits_for(access), state, started, say)
            self._wait(lambda: readiness.hdfs_waits_for(access), state, started, say)
            if make_directories:
                _make_directories(access)
        if "agent" in started:
            self._wait(lambda: readiness.agent_waits_for(self.layout.agent_socket), state, started, say)

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
        return SandboxError(f"the {name} ended while starting: {_last_words(log)}", hint=f"its whole log is {log}")

    def _stop(self, started: Mapping[str, Process], say: Callable[[str], None]) -> None:
        running = {name: process for name, process in started.items() if processes.is_alive(process)}
        if not running:
            say("nothing of this sandbox is running")
            return
        say(f"stopping the {', '.join(reversed(running))}")
        killed = processes.stop(running.values(), _STOP_TIMEOUT_S)
        for name, process in running.items():
            if process in killed:
                say(f"the {name} did not stop within {_STOP_TIMEOUT_S:.0f} s and was killed")


def _kdc_waits_for(ports: Ports) -> str | None:
    return None if readiness.listens(ports.kdc) else "the KDC to listen"


def _make_directories(access: readiness.Access) -> None:
    """What a cluster has before its first user comes: /tmp for all and a home for each."""
    readiness.make_directory(access, "/tmp", "hdfs", "1777")  # noqa: S108 - a path in HDFS
    for user in USERS:
        readiness.make_directory(access, f"/user/{user}", user, "755")


def _last_words(log: Path) -> str:
    try:
        lines = [line.strip() for line in log.read_text(errors="replace")[-65536:].splitlines()]
    except OSError:
        return "it wrote no log"
    said = [line for line in lines if line and not line.startswith("at ")]
    causes = [line for line in said if " ERROR " in line or " FATAL " in line or "Exception" in line]
    return " | ".join((causes or said)[-_LAST_LINES:]) or "it wrote no log"
